"""What a path is.

A path is any callable ``(field, start (R, B, \\*s), end (B, \\*s)) -> iterator of Segment``. It may look at the field on its way; then
it hands on what it paid for. Segments may come in any order: their clocks say where each belongs. The first to begin starts at
the baseline the path really used, the last to end ends at the input, and neighbours share a corner.

References come in blocks, and in any selection. A path that goes another way for each of them, whatever their values, has a method
``placed(places (R, B)) -> path`` that is told which number each has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from ..field import Field
from ..segment import Evaluation, Segment


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


def handed_on(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Single pieces, one after the other, each with what its successor has paid for at the corner they share."""
    held: Segment | None = None
    for segment in segments:
        if held is not None:
            single = len(held.start) == len(segment.start) == 1
            follows = single and bool(held.clock[1][0] == segment.clock[0][0])
            yield dataclasses.replace(held, at_end=segment.at_start) if follows and held.at_end is None else held
        held = segment
    if held is not None:
        yield held


def between_pairs(path: Path, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
    """A path to ends (R, B, \\*s) that differ by reference: every pair of reference and example is walked as an example of its own."""
    references, batch = start.shape[:2]
    example = torch.arange(batch, device=start.device).repeat(references)

    def unfolded(paid: Evaluation | None, pieces: int) -> Evaluation | None:
        return None if paid is None else paid.reshape(pieces, references, batch)

    for segment in path(field.at(example), start.flatten(0, 1)[None], end.flatten(0, 1)):
        pieces, inner = len(segment.start), segment.start.shape[3:]
        yield dataclasses.replace(
            segment,
            start=segment.start.reshape(pieces, references, batch, *inner),
            end=segment.end.reshape(pieces, references, batch, *inner),
            at_start=unfolded(segment.at_start, pieces),
            at_end=unfolded(segment.at_end, pieces),
            notes={name: numbers.reshape(pieces + 1, references, batch) for name, numbers in segment.notes.items()},
        )
