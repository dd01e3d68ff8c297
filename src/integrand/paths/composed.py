"""Paths made of another path: repeated between anchors, or reversed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ..core.declared import Adopted, name_of
from ..core.segment import Evaluation, Segment
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Path, PathLike, as_path, between_pairs, handed_on


@part
class Composed(Path):
    """A path walked from anchor to anchor on the straight line.

        a_j = b + j/(m+1) (x − b),   j = 0 … m+1,   m = ``anchors`` between the ends

    However far the path strays, it comes back to the straight line at every anchor. Its steps (or
    segments, whichever it counts) are divided over the m + 1 stretches as evenly as whole numbers
    allow; a path that has neither is walked as it is on each. The clock of a stretch is a section
    1/(m+1) of the whole.

    ``Composed(Guided(stray=1.0), anchors=20)`` is Guided IG as the paper bounds it.

    Args:
        path: what is walked between anchors.
        anchors: m, how many points of the straight line are passed.

    Raises:
        InputError: for fewer steps than stretches, and for paths that choose where they begin
            (``Descent``): they do not come by anchors.

    Cost:
        That of ``path``.

    References:
        Kapishnikov et al., CVPR 2021 (arXiv 2106.09788), section on anchors.

    Example:
        >>> import integrand as ig
        >>> ig.paths.Composed(ig.paths.Guided(steps=50, stray=1.0), anchors=4).segments
        50
    """

    path: Adopted[PathLike, Path] = Adopted(as_path)
    anchors: int = 20

    divisible: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if self.anchors < 0:
            raise InputError(f"A path has no fewer than 0 anchors, not {self.anchors}.")
        counted = self.path.divisible
        if counted is not None and self.path.dial(counted) <= self.anchors:
            raise InputError(
                f"{self.path!r} has {counted}={self.path.dial(counted)} to divide over {self.anchors + 1} stretches: "
                f"give it {counted}={self.anchors + 1} at least, or take fewer anchors."
            )

    @property
    def segments(self) -> int | None:
        """Those of all stretches; None where a stretch cannot tell."""
        return _sum_of(stretch.segments for stretch in self._stretches())

    @property
    def gradients(self) -> int | None:
        """Gradients that the stretches pay for and hand on; None where a stretch cannot tell."""
        return _sum_of(stretch.gradients for stretch in self._stretches())

    @property
    def scouted(self) -> int:
        """Gradients that finding the stretches takes."""
        return sum(stretch.scouted for stretch in self._stretches())

    @property
    def unpaid(self) -> tuple[float, ...]:
        """Ends of the whole way that the path does not look at."""
        return self.path.unpaid

    @property
    def resolution(self) -> str | None:
        """The path's."""
        return self.path.resolution

    @property
    def coarsest(self) -> int:
        """One for each stretch, where steps are divided over them."""
        return self.path.coarsest if self.path.divisible is None else self.anchors + 1

    def dial(self, name: str) -> int:
        """The path's."""
        return self.path.dial(name)

    def turned(self, name: str, value: int) -> Composed:
        """The same of another number of steps."""
        return dataclasses.replace(self, path=self.path.turned(name, value))

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        return handed_on(self._walked(field, start, end.expand_as(start)))

    def _walked(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        stretches = self._stretches()
        anchor, arrived = start, None
        for number, stretch in enumerate(stretches, 1):
            next_anchor = (
                end if number == len(stretches) else torch.lerp(start, end, number / len(stretches))
            )
            known, arrived = arrived, None
            for segment in between_pairs(stretch, field, anchor, next_anchor):
                self._check(segment, anchor, next_anchor)
                if (
                    len(segment.start) == 1
                ):  # what was paid for at an anchor serves the stretches on both sides
                    if segment.at_start is None and float(segment.clock[0]) == 0:
                        segment = dataclasses.replace(segment, at_start=known)
                    if float(segment.clock[1]) == 1:
                        arrived = segment.at_end
                yield dataclasses.replace(
                    segment, clock=_clock_of_stretch(segment.clock, number - 1, len(stretches))
                )
            anchor = next_anchor

    def _stretches(self) -> list[Path]:
        """The path on each stretch, with its part of the steps."""
        many = self.anchors + 1
        counted = self.path.divisible
        if counted is None:
            return [self.path] * many
        total = self.path.dial(counted)
        counts = [total * (j + 1) // many - total * j // many for j in range(many)]
        return [self.path.turned(counted, count) for count in counts]

    def _check(self, segment: Segment, anchor: Tensor, next_anchor: Tensor) -> None:
        """That a stretch begins and ends at its anchors."""
        first, last = int(segment.clock[0].argmin()), int(segment.clock[1].argmax())
        begins = float(segment.clock[0][first]) > 0 or torch.equal(segment.start[first], anchor)
        ends = float(segment.clock[1][last]) < 1 or torch.equal(segment.end[last], next_anchor)
        if not (begins and ends):
            raise InputError(
                f"Composed walks from anchor to anchor, but {name_of(self.path)} chooses where it {'ends' if begins else 'begins'}: "
                "give it a path that goes from its start to its end, such as Guided or Straight."
            )


@part
class Reversed(Path):
    """A path walked from the input to the reference.

    Its segments are handed out from the reference to the input.

    A path that does not look at F is its own mirror image; one that does sees the input first:
    ``Reversed(SAMP(first="lowest"))`` takes away from the input what counts most.

    Raises:
        InputError: for paths that choose where they begin, which would not end at the input.

    Cost:
        That of ``path``.
    """

    path: Adopted[PathLike, Path] = Adopted(as_path)

    divisible: ClassVar[str | None] = None

    @property
    def segments(self) -> int | None:
        """Those of the path."""
        return self.path.segments

    @property
    def gradients(self) -> int | None:
        """Gradients that the path pays for and hands on."""
        return self.path.gradients

    @property
    def scouted(self) -> int:
        """Gradients that finding the path takes."""
        return self.path.scouted

    @property
    def unpaid(self) -> tuple[float, ...]:
        """Ends of the whole way that the path does not look at."""
        return tuple(1 - end for end in self.path.unpaid)

    @property
    def resolution(self) -> str | None:
        """The path's."""
        return self.path.resolution

    @property
    def coarsest(self) -> int:
        """The path's."""
        return self.path.coarsest

    def dial(self, name: str) -> int:
        """The path's."""
        return self.path.dial(name)

    def turned(self, name: str, value: int) -> Reversed:
        """The same of another number of steps."""
        return dataclasses.replace(self, path=self.path.turned(name, value))

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        begin = end.expand_as(start)
        for segment in between_pairs(self.path, field, begin, start):
            first = int(segment.clock[0].argmin())
            if float(segment.clock[0][first]) == 0 and not torch.equal(segment.start[first], begin):
                raise InputError(
                    f"Reversed walks from the input to the reference, but {name_of(self.path)} chooses where it begins: "
                    "give it a path that goes from its start to its end, such as Guided or SAMP."
                )
            yield _reverse(segment)


def _reverse(segment: Segment) -> Segment:
    """The same pieces seen from the other end, in the order of their clocks again."""
    begins, ends = segment.clock
    return dataclasses.replace(
        segment,
        start=segment.end.flip(0),
        end=segment.start.flip(0),
        clock=((1 - ends).flip(0), (1 - begins).flip(0)),
        at_start=_flip(segment.at_end),
        at_end=_flip(segment.at_start),
        notes={name: numbers.flip(0) for name, numbers in segment.notes.items()},
    )


def _flip(paid: Evaluation | None) -> Evaluation | None:
    if paid is None:
        return None
    return dataclasses.replace(paid, value=paid.value.flip(0), gradient=paid.gradient.flip(0))


def _clock_of_stretch(clock: tuple[Tensor, Tensor], before: int, of: int) -> tuple[Tensor, Tensor]:
    """Map a stretch's clock into that of the whole path; rounding is the same on both sides, so that
    adjacent segments meet exactly."""
    begins, ends = (((before + side.to("cpu", torch.float64)) / of).to(side) for side in clock)
    return begins, ends


def _sum_of(counts: Iterable[int | None]) -> int | None:
    """The sum over all stretches; None where the count of one is unknown."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)
