"""Blocks of path corners within a memory budget, for paths known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 24  # corners are stacked up to about this many numbers at a time
_BLOCK_ON_CPU = (
    1 << 21
)  # where a model call wants no more rows than that, and memory is the process' own


def at_once(elements: int, device: torch.device) -> int:
    """How many corners of ``elements`` numbers are stacked at a time."""
    block = min(_BLOCK_ELEMENTS, _BLOCK_ON_CPU) if device.type == "cpu" else _BLOCK_ELEMENTS
    return max(1, block // max(1, elements))


def in_blocks(
    steps: int, elements: int, device: torch.device, corners: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The ``steps`` + 1 corners of a path, as blocks ``(clock (k+1,), points (k+1, …))`` whose ends
    meet.

    ``corners`` makes the points (k, …) on the ``device`` for clocks (k,), in float64 on the CPU,
    out of 0, 1/steps, …, 1; one takes ``elements`` numbers. Each corner is made once: where two
    blocks meet they hold the same numbers.
    """
    most = at_once(elements, device)
    last: Tensor | None = None
    for first in range(0, steps, most):
        clock = torch.arange(first, min(first + most, steps) + 1, dtype=torch.float64) / steps
        points = corners(clock) if last is None else torch.cat([last, corners(clock[1:])])
        last = points[-1:].clone()  # a view would keep the whole block
        yield clock, points
        del points
