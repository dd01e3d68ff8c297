"""The straight-line path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ..core.memory_budget import at_once
from ..core.segment import Segment
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Path


@part
class Straight(Path):
    """The straight line, cut into equal segments.

        γ(t) = b + t (x − b), in ``segments`` equal pieces

    One piece is enough for any rule with nodes of its own; several make composite rules of one-node
    ones (``Straight(50)`` with ``Midpoint()`` is the 50-point midpoint rule). Memory does not grow
    with ``segments``.

    References:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", 2017.
    """

    segments: int = 1

    divisible: ClassVar[str] = "segments"

    @property
    def resolution(self) -> str | None:
        """One line is integrated by more nodes, not cut into more pieces; several pieces are made
        more or fewer."""
        return "segments" if self.segments > 1 else None

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise InputError(f"A path has at least one segment, not {self.segments}.")

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        end = end.expand_as(start)
        if self.segments == 1:
            clock = torch.tensor([0.0, 1.0], dtype=start.dtype, device=start.device)
            yield Segment(start[None], end[None], (clock[:1], clock[1:]))
            return
        most = at_once(start.numel(), start.device)
        step = end - start
        for first in range(0, self.segments, most):
            last = min(first + most, self.segments)
            fractions = torch.arange(first, last + 1, dtype=torch.float64) / self.segments
            clock = fractions.to(start)
            points = start + clock.reshape(-1, *(1,) * start.ndim) * step
            if last == self.segments:
                points[-1] = end  # not b + (x − b), which rounds
            yield Segment(points[:-1], points[1:], (clock[:-1], clock[1:]))
