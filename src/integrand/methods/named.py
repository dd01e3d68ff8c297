"""Baselines that go by a name, and references as people give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..baseline import (
    Baseline,
    Blurred,
    Constant,
    Corners,
    Given,
    Imputed,
    Mean,
    MeanLeft,
    Median,
    Uniform,
    as_baseline,
    black,
    grey,
    white,
)
from ..weighting import ByKind, Fill, ReferenceMean

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


def references_of(value: Any) -> Baseline:
    """References as people give them: a tensor (R, \\*s) or (R, B, \\*s), a list of baselines and names, or a baseline."""
    return Given(value) if isinstance(value, Tensor) else as_baseline(value, BASELINES)


FILLS: dict[str, Callable[[], Fill]] = {
    "auto": lambda: ByKind(Corners()),
    "references": ReferenceMean,
}
"""Fills that go by a name and are no baselines: what features become that Weighted Gradients replaces."""


def fill_of(value: Any) -> Baseline | Fill:
    """A fill as people give it: "auto", "references", or whatever a baseline can be."""
    if isinstance(value, Fill):
        return value
    if isinstance(value, str) and value in FILLS:
        return FILLS[value]()
    return as_baseline(value, BASELINES)
