"""Methods: a baseline, a path, a rule and a weighting, and the ways to spend gradients on them. ``(field, x) -> Attribution``."""

from ..attribution import Explainer as Explainer
from ..attribution import ExplainerLike as ExplainerLike
from ..attribution import Wrapper as Wrapper
from ..attribution import as_explainer as as_explainer
from .backward import Backward as Backward
from .base import Method as Method
from .base import gradients_per_row as gradients_per_row
from .distanced import Distanced as Distanced
from .distanced import Supports as Supports
from .greedy import Greedy as Greedy
from .outcome import core as core
from .regions import Regions as Regions
from .sampled import Sampled as Sampled
from .sequential import Sequential as Sequential
from .smoothed import Smoothed as Smoothed
from .staged import Staged as Staged
from .wrapping import with_core as with_core
