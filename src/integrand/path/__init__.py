"""Paths: which way from the baseline to the input. ``(field, start, end) -> iterator of Segment``."""

from .base import Path as Path
from .base import corners as corners
from .descent import Descent as Descent
from .descent import Relative as Relative
from .geodesic import Geodesic as Geodesic
from .relaxed import Relaxed as Relaxed
from .respaced import Respaced as Respaced
from .respaced import Scheduled as Scheduled
from .straight import Straight as Straight
