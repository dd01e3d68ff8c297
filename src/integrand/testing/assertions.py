"""How checks ask and tell: the surroundings of a call, and errors that say what was promised and what came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..field import Field
from ..field.modes import gradients
from ..shapes import describe

CLOSE = 1e-9
"""How far apart numbers may be, relative to the largest of them."""


@contextmanager
def as_called(field: Field) -> Iterator[None]:
    """The surroundings in which a method calls its parts."""
    with field.ready(), gradients(False):
        yield


def say(true: bool, message: str) -> None:
    if not true:
        raise AssertionError(message)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) if one.numel() else 0.0


def close(found: Any, expected: Tensor, message: str, tolerance: float = CLOSE) -> None:
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        got = describe(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise AssertionError(f"{message}: shape {got} instead of {describe(expected.shape)}.")
    loose = max(tolerance, CLOSE if expected.dtype == torch.float64 else 1e-4)
    scale = max(1.0, float(expected.abs().max()) if expected.numel() else 0.0)
    if not apart(found, expected) <= loose * scale:
        raise AssertionError(f"{message}: they are {apart(found, expected):.3g} apart.")
