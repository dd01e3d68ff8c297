"""Methods: a baseline, a path, a rule and a weighting, and the ways to spend gradients on them. ``(field, x) -> Attribution``."""

from .backward import Backward as Backward
from .base import Method as Method
from .base import gradients_per_row as gradients_per_row
from .sampled import Sampled as Sampled
from .staged import Staged as Staged
