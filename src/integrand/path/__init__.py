"""Paths: which way from the baseline to the input. ``(field, start, end) -> iterator of Segment``."""

from .base import Path as Path
from .base import corners as corners
from .between import Backwards as Backwards
from .between import Between as Between
from .descent import Descent as Descent
from .descent import Relative as Relative
from .guided import Guided as Guided
from .guided import Salient as Salient
from .straight import Straight as Straight
