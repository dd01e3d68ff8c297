"""Paths: which way from the baseline to the input. ``(field, start, end) -> iterator of Segment``."""

from .adversarial import Adversarial as Adversarial
from .base import Path as Path
from .base import corners as corners
from .descent import Descent as Descent
from .step import Fixed as Fixed
from .step import Implicit as Implicit
from .step import Relative as Relative
from .step import Shrinking as Shrinking
from .step import Step as Step
from .straight import Straight as Straight
