"""Conversion of what users give as a baseline: numbers, tensors, names, lists and callables."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import BaselineError, UnknownName
from .base import Baseline, Union, adopted
from .fixed import Constant, Plain


def distinct(parts: list[Baseline]) -> tuple[Baseline, ...]:
    """Equal random parts get seeds of their own: "two noises" are not the same noise twice."""
    baselines: list[Baseline] = []
    for baseline in parts:
        while baseline.seed is not None and baseline in baselines:
            baseline = baseline.turned("seed", baseline.seed + 1)
        baselines.append(baseline)
    return tuple(baselines)


def as_baseline(
    value: object, names: Mapping[str, Callable[[], Baseline]] | None = None
) -> Baseline:
    """Convert a number, tensor, array, name, list or callable to a ``Baseline``.

    A number or a tensor that broadcasts to one example is a constant; a tensor shaped like the
    inputs (B, \\*s) is one baseline per example; a list is several baselines.

    Args:
        value: what was given as a baseline.
        names: baselines that go by a name; without them no name is known.

    Returns:
        The baseline; equal random ones of a list get seeds of their own.

    Raises:
        UnknownName: for a name that no baseline has.
        BaselineError: for what is no baseline.

    Example:
        >>> import integrand as ig
        >>> ig.baselines.as_baseline([0.0, ig.baselines.Uniform(0.0, 1.0)])
        Union((Constant(), Uniform(0.0, 1.0)))
    """
    if isinstance(value, str):
        known = names or {}
        if value not in known:
            raise UnknownName("baseline", value, known)
        return known[value]()
    if isinstance(value, list | tuple):
        return Union(distinct([as_baseline(entry, names) for entry in value]))
    if isinstance(value, np.bool_):
        value = bool(value)
    if isinstance(value, np.ndarray | np.generic):
        value = torch.from_numpy(np.array(value))
    if isinstance(value, Tensor):
        return Plain(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Constant(float(value))
    if callable(value):
        return adopted(value)
    shown = repr(value) if isinstance(value, bool) else type(value).__name__
    raise BaselineError(
        f"A baseline is a number, a tensor, a list of baselines, or a callable (x, field) -> references; got {shown}."
    )
