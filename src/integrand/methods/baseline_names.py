"""References and fills as people give them, baselines by name among them, for one input or for
each of several.

A bracket means one thing: a tuple or dict is one baseline for each input, a list is several
baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..baselines import (
    Baseline,
    Corners,
    Given,
    PerInput,
    Plain,
    ReferencesLike,
    StartLike,
)
from ..baselines.fixed import as_numbers
from ..baselines.names import BASELINES as BASELINES
from ..baselines.names import baseline_of
from ..baselines.per_input import Own, matched
from ..core.frames import is_frame, row_as_frame
from ..core.shapes import describe
from ..errors import BaselineError, InputError
from ..model.layout import Layout, is_mapping
from ..weightings import ByKind, Fill, ReferenceMean


def references_of(value: ReferencesLike) -> Baseline:
    """Convert what ``references=`` takes: a tensor (R, \\*s) or (R, B, \\*s), a list of baselines and
    names, or a baseline."""
    return Given(value) if isinstance(value, Tensor) else baseline_of(value)


def for_inputs(
    baselines: StartLike, layout: Layout, x: Tensor, *, shared: bool, listed: bool
) -> StartLike:
    """Baselines of several inputs, arranged as the joint tensor x of the inputs is; those of a
    single input are returned unchanged, frames as tensors whose columns are in order.

    A tuple or dict of tensors and numbers becomes one tensor: shared references (R, N), or one
    baseline for each example. With names, samplers or None (zero) in it, it becomes a ``PerInput``.

    Args:
        shared: whether a tensor with an axis more than an example is R references for all examples,
            rather than one for each of them.
        listed: whether the inputs came in a list, beside which a list of baselines could mean
            either.

    Raises:
        InputError, BaselineError: naming the input.
    """
    baselines = _without_frames(baselines, layout, x.dtype)
    if layout.single:
        return baselines
    if isinstance(baselines, tuple) or is_mapping(baselines):
        return _for_each(baselines, layout, x, shared=shared)
    if isinstance(baselines, list):
        joint = [isinstance(start, tuple) or is_mapping(start) for start in baselines]
        if listed and not all(joint):
            raise InputError(
                "The inputs are a list, one for each entry, and a list of baselines would be several baselines of all of them: give a tuple "
                "for one per input, (b_1, b_2), and a list of tuples for several."
            )
        starts = [
            _for_each(start, layout, x, shared=shared) if is_joint else start
            for start, is_joint in zip(baselines, joint, strict=True)
        ]
        return [
            Given(start) if shared and isinstance(start, Tensor) and start.ndim == x.ndim else start
            for start in starts
        ]
    if isinstance(baselines, Tensor | np.ndarray):
        _check_joint(torch.as_tensor(baselines), layout, x, shared=shared)
    return baselines


def _without_frames(baselines: Any, layout: Layout, dtype: torch.dtype) -> Any:
    """Frames among baselines as tensors, their columns in the order of the inputs' ones."""
    if isinstance(baselines, list):
        return [_without_frames(start, layout, dtype) for start in baselines]
    if isinstance(baselines, tuple):
        return tuple(_numbers(start, layout, i, dtype) for i, start in enumerate(baselines))
    if isinstance(baselines, dict):
        return {key: _numbers(start, layout, key, dtype) for key, start in baselines.items()}
    return _numbers(baselines, layout, 0 if layout.single else None, dtype)


def _numbers(baseline: Any, layout: Layout, key: Hashable, dtype: torch.dtype) -> Any:
    """A frame, or a row of one, as a tensor, and so are rows of numbers of a table that is encoded;
    anything else as it is."""
    frame = row_as_frame(baseline)
    rows = isinstance(baseline, Tensor | np.ndarray) and baseline.ndim > 0
    return (
        layout.numbers(frame, key, dtype)
        if is_frame(frame) or (rows and layout.encoding is not None)
        else baseline
    )


def _for_each(
    baselines: tuple[Any, ...] | Mapping[Any, Any], layout: Layout, x: Tensor, *, shared: bool
) -> Tensor | Baseline:
    """A tuple or dict of baselines → one tensor where all are known, else a ``PerInput``."""
    starts = {
        key: 0.0 if start is None else start for key, start in matched(baselines, layout).items()
    }
    plain = {
        key: isinstance(start, Tensor | np.ndarray | np.generic | int | float)
        for key, start in starts.items()
    }
    values = {
        key: as_numbers(_exactly(start), x) if plain[key] else baseline_of(start)
        for key, start in starts.items()
    }
    tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    shapes = dict(zip(layout.keys, layout.shapes, strict=True))
    # Shared references: what has an axis more than an example is R of them, anything else is one
    # for all.
    several = [len(value) for key, value in tensors.items() if value.ndim > len(shapes[key])]
    rows = max(several, default=1) if shared else len(x)
    laid = {key: _laid(key, value, (rows, *shapes[key])) for key, value in tensors.items()}
    if len(laid) == len(values):
        joint = layout.join([laid[key] for key in layout.keys])
        return joint if shared else Plain(joint)
    for key, value in laid.items():
        values[key] = Given(value) if shared else Own(value[None])
    return PerInput(tuple(values.values()) if layout.names is None else values)


def _exactly(start: Any) -> Tensor:
    """A tensor, array or number as a tensor; Python's floats are doubles."""
    return torch.as_tensor(start, dtype=torch.float64 if isinstance(start, float) else None)


def _laid(key: Hashable, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return value.expand(shape)
    except RuntimeError:
        raise BaselineError(
            f"The baseline for input {key!r} has shape {describe(value.shape)}, which does not broadcast to {describe(shape)}."
        ) from None


def _check_joint(value: Tensor, layout: Layout, x: Tensor, *, shared: bool) -> None:
    """Whether one tensor for all inputs fits them laid end to end, as it seldom does."""
    fits = value.ndim < 2 and value.numel() in (1, x.shape[1])
    fits |= value.shape[1:] == x.shape or (
        value.shape[1:] == x.shape[1:] and (shared or len(value) in (1, len(x)))
    )
    if not fits:
        shown = ", ".join(
            f"{key!r} ({describe(shape)})"
            for key, shape in zip(layout.keys, layout.shapes, strict=True)
        )
        raise BaselineError(
            f"One baseline of shape {describe(value.shape)} does not fit the inputs {shown}: give a tuple or a dict with one for each of "
            "them, or a number or a name for all."
        )


FillLike = StartLike | Fill
"""What ``fill=`` takes: whatever a baseline can be, or a fill of its own."""

FILLS: dict[str, Callable[[], Fill]] = {
    "auto": lambda: ByKind(Corners()),
    "references": ReferenceMean,
}
"""Fills that go by a name and are no baselines: what features become that Weighted Gradients
replaces."""


def fill_of(value: FillLike) -> Baseline | Fill:
    """Convert what ``fill=`` takes: "auto", "references", or whatever a baseline can be."""
    if isinstance(value, Fill):
        return value
    if isinstance(value, str) and value in FILLS:
        return FILLS[value]()
    return baseline_of(value)
