"""Baselines that go by a name, and whatever may be typed in a baseline's place as a ``Baseline``."""

from __future__ import annotations

from collections.abc import Callable

from .adopt import as_baseline
from .base import Baseline
from .fixed import Constant
from .image import Blurred, Corners, Mean, Median, black, grey, white
from .imputation import Imputed, MeanLeft
from .noise import Uniform

BASELINES: dict[str, Callable[[], Baseline]] = {
    "zero": Constant,
    "black": black,
    "white": white,
    "grey": grey,
    "gray": grey,
    "noise": Uniform,
    "blurred": Blurred,
    "blur": Blurred,
    "mean": Mean,
    "median": Median,
    "corners": Corners,
    "imputed": Imputed,
    "mean left": MeanLeft,
}
"""Baselines that go by a name alone."""


def baseline_of(value: object) -> Baseline:
    """Convert a number, tensor, array, name, list or callable to a ``Baseline``."""
    return as_baseline(value, BASELINES)
