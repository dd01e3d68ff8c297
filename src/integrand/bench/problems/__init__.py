"""Problems that suites run on. A new kind of data is a file here: a function (setting, **options)
→ Problem, registered by name."""

from . import code_lines as code_lines
from . import digits as digits
from . import images as images
from . import motifs as motifs
from . import records as records
from . import reviews as reviews
from . import sentences as sentences
from . import tables as tables
from . import text as text
from .base import Examples as Examples
from .base import Problem as Problem
from .base import ProblemOptions as ProblemOptions
from .base import problem as problem
from .base import problem_named as problem_named
