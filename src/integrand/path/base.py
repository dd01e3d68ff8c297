"""What a path is.

A path is any callable ``(field, start (R, B, \\*s), end (B, \\*s)) -> iterator of Segment``. It may look at the field on its way; then
it hands on what it paid for. Segments may come in any order: their clocks say where each belongs. The first to begin starts at
the baseline the path really used, the last to end ends at the input, and neighbours share a corner.

References come in blocks, and in any selection. A path that goes another way for each of them, whatever their values, has a method
``placed(places (R, B)) -> path`` that is told which number each has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from ..field import Field
from ..segment import Segment


class Path(Protocol):
    """Which way from the start (R, B, \\*s) to the end (B, \\*s)."""

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]: ...


def corners(path: Path, field: Field, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Every corner of a path in order: (K+1,) clock, (K+1, R, B, \\*s) points. For pictures; holds the whole path in memory."""
    clocks: list[Tensor] = []
    points: list[Tensor] = []
    with field.ready():
        for segment in path(field, start, end):
            clocks += [segment.clock[0]]
            points += [segment.start]
            last = segment.end[-1:] if bool(segment.clock[1][-1] >= 1) else None
            if last is not None:
                clocks += [segment.clock[1][-1:]]
                points += [last]
    clock = torch.cat(clocks)
    order = clock.argsort(stable=True)
    return clock[order], torch.cat(points)[order]
