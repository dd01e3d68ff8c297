"""Shared by all checks: the context in which parts are called, and assertions that say what was
promised and what was returned."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..core.shapes import describe
from ..fields import Field
from ..model.autograd import gradients

T = TypeVar("T")

CLOSE = 1e-9
"""How far apart numbers may be, relative to the largest of them."""


@contextmanager
def as_called(field: Field) -> Iterator[None]:
    """The context in which a method calls its parts."""
    with field.ready(), gradients(False):
        yield


@contextmanager
def untouched(who: str, what: str, *tensors: Tensor) -> Iterator[None]:
    """Assert that the block changes neither ``tensors`` nor the global generators of torch, NumPy
    and Python.

    Args:
        who: what is called in the block, as the first words of a sentence: "The path".
        what: the tensors in words: "the inputs".
        *tensors: those that must not change.
    """
    before = [tensor.clone() for tensor in tensors]
    states = _generators()
    yield
    say(all(map(_equal, tensors, before)), f"{who} changed {what}.")
    for name, state in _generators().items():
        say(
            state == states[name],
            f"{who} drew from {name} global generator; use a seed of its own.",
        )


def _equal(first: Tensor, second: Tensor) -> bool:
    return bool(((first == second) | (first.isnan() & second.isnan())).all())


def _generators() -> dict[str, Any]:
    """The states of the global generators, to be compared."""
    numpy_state = np.random.get_state(legacy=False)  # read, not drawn from
    return {
        "torch's": torch.get_rng_state().numpy().tobytes(),
        "NumPy's": repr(
            {
                **numpy_state,
                "state": {k: np.asarray(v).tobytes() for k, v in numpy_state["state"].items()},
            }
        ),
        "Python's": random.getstate(),
    }


def say(true: bool, message: str) -> None:
    if not true:
        raise AssertionError(message)


def instance(value: object, kind: type[T], message: str) -> T:
    """The value, which is to be of a kind; else the message."""
    if not isinstance(value, kind):
        raise AssertionError(message)
    return value


def apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max()) if first.numel() else 0.0


def close(actual: object, expected: Tensor, message: str, tolerance: float = CLOSE) -> None:
    if not isinstance(actual, Tensor) or actual.shape != expected.shape:
        returned = describe(actual.shape) if isinstance(actual, Tensor) else type(actual).__name__
        raise AssertionError(f"{message}: shape {returned} instead of {describe(expected.shape)}.")
    loose = max(tolerance, CLOSE if expected.dtype == torch.float64 else 1e-4)
    scale = max(1.0, float(expected.abs().max()) if expected.numel() else 0.0)
    if not apart(actual, expected) <= loose * scale:
        raise AssertionError(f"{message}: they are {apart(actual, expected):.3g} apart.")


def same(actual: object, expected: Tensor, message: str, tolerance: float = CLOSE) -> None:
    """Like ``close``, for tensors with NaN, which must be in the same places in both."""
    if isinstance(actual, Tensor) and actual.shape == expected.shape:
        differ = actual.isnan() != expected.isnan()
        say(not bool(differ.any()), f"{message}: one has a number where the other has NaN.")
        actual, expected = actual.nan_to_num(nan=0.0), expected.nan_to_num(nan=0.0)
    close(actual, expected, message, tolerance)


def check_numbers(
    actual: object, shape: tuple[int, ...], like: Tensor, who: str, axes: str
) -> None:
    """Refuse what is not a detached tensor of ``shape``, of the type and on the device of ``like``.

    Args:
        who: what the numbers are, in the plural: "Values".
        axes: the shape in letters, to be shown beside it: "(B,)".
    """
    actual = instance(actual, Tensor, f"{who} are a {type(actual).__name__}, not a tensor.")
    say(
        actual.shape == shape,
        f"{who} have shape {describe(actual.shape)}; they must be {describe(shape)} {axes}.",
    )
    say(actual.dtype == like.dtype, f"{who} are {actual.dtype}, where {like.dtype} was given.")
    say(
        actual.device == like.device,
        f"{who} are on {actual.device}, where {like.device} was given.",
    )
