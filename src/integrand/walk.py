"""Walking paths: the loop over segments, and what is gathered on the way.

    for segment in path(field, references, x):
        share += rule(field, segment)

Where a path really began is read off its segments, not off the baseline that was proposed, and the change of F is measured from
there: paths that choose their own start need no special case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .field import Field
from .path.base import Path
from .rule.base import Integrated, Rule
from .segment import Evaluation, Segment
from .shapes import norm

_ROUGH = 0.25  # relative error of the maps that references are weighed by
_LOOK_ELEMENTS = 1 << 26  # more numbers than this are not kept waiting, several to each, until weights are known

FRAMES = 9
"""Points of a recorded path, evenly spaced on its clock, both ends included."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Points along the path, for pictures: clock (F,), points (F, R, B, \\*s)."""

    clock: Tensor
    points: Tensor


@dataclass(frozen=True, eq=False)
class Walked:
    """Paths that have been walked.

    shares  (R, B, \\*s)         begin  (R, B, \\*s) where each really began
    error   (R, B) the estimated L2 error of each, NaN where the rule estimates none
    change  (R, B) F(x) − F(begin)   output  (B,) F(x)
    notes   named numbers (K+1, R, B), in the order of the clock
    """

    shares: Tensor
    error: Tensor
    begin: Tensor
    change: Tensor
    output: Tensor
    notes: dict[str, Tensor]
    frames: Frames | None


def walk(
    path: Path,
    rule: Rule,
    field: Field,
    references: Tensor,
    x: Tensor,
    *,
    frames: bool = False,
    output: Tensor | None = None,
    lanes: tuple[int, int] | None = None,
    places: Tensor | None = None,
    weights: Tensor | None = None,
) -> Walked:
    """Every path from its reference (R, B, \\*s) to the input (B, \\*s), integrated.

    ``output`` is F(x) where it is known already; ``lanes`` says which of how many references these are, or ``places`` (R, B) which
    number each has; ``weights`` (R, B) how they are weighed in the end, where that is known.
    """
    shares = references.new_zeros(references.shape)
    error = references.new_zeros(references.shape[:2])
    diary = _Diary(output, keeps_frames=frames)
    for segment in _placed(path, references, lanes, places)(field, references, x):
        segment = replace(segment, lanes=lanes, weights=weights)
        found = Integrated.ensure(rule(field, segment))
        shares += found.share.sum(0)
        # Errors of different pieces are taken as independent.
        error = torch.hypot(error, norm(found.error.movedim(0, -1), 2))
        diary.enter(segment, found)
    return diary.close(field, x, shares, error)


def _placed(path: Path, references: Tensor, lanes: tuple[int, int] | None, places: Tensor | None) -> Path:
    """The path, told which number each reference has, if it goes another way for each."""
    placed = getattr(path, "placed", None)
    if placed is None or (places is None and lanes is None):
        return path
    if places is None:
        assert lanes is not None
        numbers = torch.arange(lanes[0], lanes[0] + len(references), device=references.device)
        places = numbers[:, None].expand(references.shape[:2])
    told: Path = placed(places)
    return told


def _value(paid: Evaluation | None, found: Tensor | None, piece: int) -> Tensor | None:
    """F (R, B) at an end that the path or the rule has evaluated; None unless all of it is known."""
    value = paid.value[piece] if paid is not None else None if found is None else found[piece]
    return None if value is None or bool(value.isnan().any()) else value


@dataclass
class _Diary:
    """What is remembered of segments that come in any order and are not kept."""

    output: Tensor | None
    keeps_frames: bool
    began: float = float("inf")
    begin: Tensor | None = None
    begin_value: Tensor | None = None
    notes: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)
    points: dict[int, Tensor] = field(default_factory=dict)

    def enter(self, segment: Segment, found: Integrated) -> None:
        self._note_ends(segment, found)
        if segment.notes:
            self._note_numbers(segment)
        if self.keeps_frames:
            self._note_points(segment)

    def close(self, field: Field, x: Tensor, shares: Tensor, error: Tensor) -> Walked:
        if self.begin is None:
            raise InputError("The path made no segments; a path yields at least one.")
        output = field.value(x) if self.output is None else self.output
        start = field.value(self.begin, leading=2) if self.begin_value is None else self.begin_value
        return Walked(shares, error, self.begin, output - start, output, self._numbers(), self._frames())

    def _note_ends(self, segment: Segment, found: Integrated) -> None:
        first, last = int(segment.clock[0].argmin()), int(segment.clock[1].argmax())
        if float(segment.clock[0][first]) < self.began:
            self.began = float(segment.clock[0][first])
            self.begin = segment.start[first]
            self.begin_value = _value(segment.at_start, found.begin, first)
        if self.output is None and float(segment.clock[1][last]) >= 1:
            value = _value(segment.at_end, found.end, last)
            self.output = None if value is None else value[0]

    def _note_numbers(self, segment: Segment) -> None:
        # Neighbours share a corner; it is noted by the one that starts there, so only the very last end is taken.
        ends = segment.clock[1][-1:]
        keep = slice(None) if float(ends) >= 1 else slice(-1)
        clock = torch.cat([segment.clock[0], ends])[keep]
        self.notes.append((clock, {name: numbers[keep] for name, numbers in segment.notes.items()}))

    def _numbers(self) -> dict[str, Tensor]:
        if not self.notes:
            return {}
        order = torch.cat([clock for clock, _ in self.notes]).argsort(stable=True)
        return {name: torch.cat([numbers[name] for _, numbers in self.notes])[order] for name in self.notes[0][1]}

    def _note_points(self, segment: Segment) -> None:
        begins, ends = (side.tolist() for side in segment.clock)
        for piece, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            for frame in range(FRAMES):
                moment = frame / (FRAMES - 1)
                if begin <= moment < end or moment == end == 1:
                    at = (moment - begin) / (end - begin)
                    self.points[frame] = torch.lerp(segment.start[piece], segment.end[piece], at)

    def _frames(self) -> Frames | None:
        if not self.points:
            return None
        known = sorted(self.points)
        clock = torch.tensor(known) / (FRAMES - 1)
        return Frames(clock, torch.stack([self.points[frame] for frame in known]))


def side_by_side(blocks: Sequence[Walked], shares: Tensor, most: int) -> Walked:
    """Blocks of references as one; ``shares`` are what is left of theirs. Starts are kept up to ``most`` numbers."""
    first = blocks[0]
    fits = sum(block.begin.numel() for block in blocks) <= most
    frames = [block.frames.points for block in blocks if block.frames]
    return Walked(
        shares,
        torch.cat([block.error for block in blocks]),
        torch.cat([block.begin for block in blocks]) if fits else shares.new_empty(0),
        torch.cat([block.change for block in blocks]),
        first.output,
        {name: torch.cat([block.notes[name] for block in blocks], 1) for name in first.notes},
        Frames(first.frames.clock, torch.cat(frames, 1)) if first.frames else None,
    )


class Patient:
    """A rule that is content with rough shares until it is known how much each reference counts.

    Rules that can look (``rule.look(field, segment)``, such as ``Adaptive``) are made to wait; others, and segments whose path has
    paid for an end, are integrated at once.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.looked: list[tuple[Any, Integrated]] = []

    def __call__(self, field: Field, segment: Segment) -> Tensor | Integrated:
        look = getattr(self.rule, "look", None)
        large = segment.start.numel() > _LOOK_ELEMENTS
        if look is None or large or segment.at_start is not None or segment.at_end is not None:
            return self.rule(field, segment)
        looked = look(field, segment)
        self.looked.append((looked, looked.refined(tol=_ROUGH)))
        return self.looked[-1][1]

    def settle(self, walked: Walked, weights: Tensor) -> Walked:
        """What was walked, refined to what the weighted sum needs (R, B)."""
        if not self.looked:
            return walked
        shares = walked.shares
        scale = torch.where((walked.error > 0) & walked.error.isfinite(), walked.error, 1)
        squares = (walked.error / scale).square()
        for looked, rough in self.looked:
            fine = looked.refined(weights)
            shares = shares + (fine.share - rough.share).sum(0)
            squares = squares + ((fine.error / scale).square() - (rough.error / scale).square()).sum(0)
        return replace(walked, shares=shares, error=squares.clamp_min(0).sqrt() * scale)
