"""Base class of paths, and helpers to walk them.

A path is any callable ``(field, start (R, B, \\*s), end (B, \\*s)) -> iterator of Segment``. It may
look at the field on its way; then it hands on what it paid for. Segments may come in any order:
their clocks say where each belongs. The first to begin starts at the baseline the path really used,
the last to end ends at the input, and neighbours share a corner.

References come in blocks, and in any selection. A path that goes another way for each of them,
whatever their values, has a method ``placed(places (R, B)) -> path`` that is told which number each
has.

What a path may say of itself is listed in the base class ``Path``. Users' paths need no base class:
what they say is read by ``as_path``, once.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from ..core.declared import Part, Stranger, check_callable, declared
from ..core.segment import Evaluation, Segment
from ..fields import Field


class PathLike(Protocol):
    """Anything callable as a path: ``(field, start, end) -> segments``."""

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]: ...


class Path(Part, ABC):
    """Which way from the start (R, B, \\*s) to the end (B, \\*s), and what it takes to find it."""

    @abstractmethod
    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]: ...

    @declared
    def segments(self) -> int | None:
        """How many pieces it comes to; None where that is not known beforehand: then costs are
        counted."""
        return None

    @declared
    def gradients(self) -> int | None:
        """Gradients per reference and example at its corners, which it hands on; None where that is
        not known beforehand."""
        return 0

    @declared
    def scouted(self) -> int:
        """Gradients per reference and example that finding it takes elsewhere, and which are not
        handed on."""
        return 0

    @declared
    def unpaid(self) -> tuple[float, ...]:
        """Ends of the whole way, 0.0 or 1.0, where a path that pays for its corners has not looked
        at the gradient."""
        return ()

    @declared
    def divisible(self) -> str | None:
        """The field that counts its pieces, which ``Composed`` divides over its stretches; None:
        each is walked as the whole way is."""
        return self.resolution

    @declared
    def chooses_start(self) -> bool:
        """Whether it decides where it begins, so that references are no starts."""
        return False

    @declared
    def stops_early(self) -> bool:
        """Whether it may arrive before its steps are used up: then what it says of its cost is the
        most it may take."""
        return False

    @declared
    def by_reference(self) -> bool:
        """Whether it goes another way for each reference, whatever the values: it has
        ``placed``."""
        return self.overrides(Path, "placed")

    def placed(self, places: Tensor) -> PathLike:
        """The same path, told which number (R, B) each reference has."""
        return self


class _StrangerPath(Stranger, Path):
    """A user's callable as a path."""

    @declared
    def resolution(self) -> str | None:
        return self.grows_with("segments")


def as_path(path: PathLike) -> Path:
    """Convert to a ``Path``; a user's callable is wrapped, and keeps the attributes it declares."""
    if isinstance(path, Path):
        return path
    check_callable(path, "a path", "(field, start, end) -> segments", "ig.paths.Straight()")
    return _StrangerPath(path)


def corners(path: PathLike, field: Field, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The corners of a path, in order.

    For pictures; holds the whole path in memory.

    Args:
        path: any path.
        field: what it looks at, where it looks.
        start: (R, B, \\*s), the references.
        end: the inputs, (B, \\*s) or as ``start``.

    Returns:
        The clock (K+1,) and the points (K+1, R, B, \\*s).

    Example:
        >>> import torch, integrand as ig
        >>> start, end = torch.zeros(1, 3, 2), torch.ones(1, 3, 2)
        >>> field = ig.fields.Linear(torch.ones(2))
        >>> clock, points = ig.paths.corners(ig.paths.Straight(4), field, start, end)
        >>> clock.tolist(), points.shape
        ([0.0, 0.25, 0.5, 0.75, 1.0], torch.Size([5, 1, 3, 2]))
    """
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
    """Single pieces, one after the other, each with what its successor has paid for at the corner
    they share."""
    previous: Segment | None = None
    for segment in segments:
        if previous is not None:
            single = len(previous.start) == len(segment.start) == 1
            follows = single and bool(previous.clock[1][0] == segment.clock[0][0])
            yield (
                dataclasses.replace(previous, at_end=segment.at_start)
                if follows and previous.at_end is None
                else previous
            )
        previous = segment
    if previous is not None:
        yield previous


def between_pairs(path: PathLike, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
    """A path to ends (R, B, \\*s) that differ by reference: every pair of reference and example is
    walked as an example of its own."""
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
            notes={
                name: numbers.reshape(pieces + 1, references, batch)
                for name, numbers in segment.notes.items()
            },
        )
