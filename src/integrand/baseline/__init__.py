"""Baselines: where a path may start. ``(x (B, *s), field) -> references (R, B, *s)``."""

from .attack import Boundary as Boundary
from .attack import Itself as Itself
from .attack import Rivals as Rivals
from .base import Baseline as Baseline
from .base import Several as Several
from .base import as_baseline as as_baseline
from .base import count_of as count_of
from .base import label_of as label_of
from .fixed import Constant as Constant
from .fixed import Given as Given
from .fixed import Plain as Plain
from .image import Blurred as Blurred
from .image import Colour as Colour
from .image import Corners as Corners
from .image import Extreme as Extreme
from .image import Mean as Mean
from .image import Median as Median
from .image import black as black
from .image import grey as grey
from .image import white as white
from .kept import Kept as Kept
from .noise import Gaussian as Gaussian
from .noise import Uniform as Uniform
from .sample import OtherClass as OtherClass
from .sample import Relevant as Relevant
from .sample import Sample as Sample
