"""Corners of paths that are known beforehand, made and handed out a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 24  # corners are stacked up to about this many numbers at a time


def in_blocks(steps: int, elements: int, corners: Callable[[Tensor], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """The ``steps`` + 1 corners of a path, as blocks ``(clock (k+1,), points (k+1, …))`` whose ends meet.

    ``corners`` makes the points (k, …) for clocks (k,), in float64, out of 0, 1/steps, …, 1; one takes ``elements`` numbers. Each
    corner is made once: where two blocks meet they hold the same numbers.
    """
    most = max(1, _BLOCK_ELEMENTS // max(1, elements))
    last: Tensor | None = None
    for first in range(0, steps, most):
        clock = torch.arange(first, min(first + most, steps) + 1, dtype=torch.float64) / steps
        points = corners(clock) if last is None else torch.cat([last, corners(clock[1:])])
        last = points[-1:].clone()  # a view would keep the whole block
        yield clock, points
        del points
