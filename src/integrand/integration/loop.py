"""The integration loop over the segments of paths, and what is accumulated on the way.

    for segment in path(field, references, x):
        share += rule(field, segment)

Where a path really began is read off its segments, not off the baseline that was proposed, and the
change of F is measured from there: paths that choose their own start need no special case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..core.row_hash import row_hashes, same_rows
from ..core.segment import Evaluation, Segment
from ..core.shapes import first_alike, norm
from ..errors import InputError, NonFiniteGradient
from ..fields import Field
from ..paths.base import Path, PathLike, as_path
from ..rules.base import Integrated, RoughShares, Rule, RuleLike, as_rule

_ROUGH = 0.25  # relative error of the maps that references are weighed by
_STARTS_ELEMENTS = 1 << 24  # starts of more numbers than this are not kept
_LOOK_ELEMENTS = (
    1 << 26
)  # more numbers than this are not kept waiting, several to each, until weights are known

FRAMES = 9
"""Points of a recorded path, evenly spaced on its clock, both ends included."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Points along the path, for pictures: clock (F,), points (F, R, B, \\*s)."""

    clock: Tensor
    points: Tensor


@dataclass(frozen=True, eq=False)
class PathIntegrals:
    """Paths that have been walked.

    Attributes:
        shares: (R, B, \\*s)         begin  (R, B, \\*s) where each really began.
        error: (R, B) the estimated L2 error of each, NaN where the rule estimates none.
        change: (R, B) F(x) − F(begin)   output  (B,) F(x)   start  (R, B) F(begin).
        notes: named numbers (K+1, R, B), in the order of the clock.
        identity: (R,) a number for each reference, the same for references that are the same.
        noise: (G, R, B, \\*s) what a rule with random nodes knows of its error
            (``Integrated.noise``), None of others.
    """

    shares: Tensor
    error: Tensor
    begin: Tensor
    change: Tensor
    output: Tensor
    start: Tensor
    notes: dict[str, Tensor]
    frames: Frames | None
    identity: Tensor
    noise: Tensor | None = None

    def at(self, number: Tensor) -> PathIntegrals:
        """Walks from the references ``number`` (R,) among these."""
        return replace(
            self,
            shares=self.shares[number],
            error=self.error[number],
            begin=self.begin[number],
            change=self.change[number],
            start=self.start[number],
            notes={name: numbers[:, number] for name, numbers in self.notes.items()},
            frames=self.frames and Frames(self.frames.clock, self.frames.points[:, number]),
            identity=self.identity[number],
        )


def walk(
    path: PathLike,
    rule: RuleLike,
    field: Field,
    references: Tensor,
    x: Tensor,
    *,
    frames: bool = False,
    output: Tensor | None = None,
    reference_block: tuple[int, int] | None = None,
    reference_numbers: Tensor | None = None,
    weights: Tensor | None = None,
) -> PathIntegrals:
    """Integrate every path from its reference to the input.

    Equal references are walked once, and count for as much as all of them together: what one is
    wrong by, all are.

    Args:
        path: the path of every pair of a reference and an example.
        rule: how its segments are integrated.
        field: the scalar explained.
        references: (R, B, \\*s) where paths start.
        x: (B, \\*s) the inputs, where they end.
        frames: whether to record points along the paths.
        output: (B,) F(x), where it is known already.
        reference_block: the number of the first reference, and how many there are in all, where these are a
            block of more.
        reference_numbers: (R, B) the number of each reference, where these are a selection.
        weights: (R, B) how references are weighed in the end, where that is known.

    Returns:
        The path integrals: shares (R, B, \\*s), their errors, and the change of F.

    Raises:
        NonFiniteGradient: where F is NaN or infinite at an end of a path, or on the way; it names
            the example and the reference.
    """
    path, rule = as_path(path), as_rule(rule)
    first, count = reference_block or (0, len(references))
    # Chance treats equal references differently: paths that go another way for each, and random
    # nodes.
    never_same = count == 1 or path.by_reference or rule.unbiased
    identity = (
        torch.arange(first, first + len(references), device=x.device)
        if never_same
        else same_content(references)
    )
    distinct, number = _distinct_references(references, identity, apart=never_same)
    all_distinct = distinct is None
    distinct_references = references if distinct is None else references[distinct]
    if weights is not None and not all_distinct:
        weights = weights.new_zeros(distinct_references.shape[:2]).index_add_(0, number, weights)
    try:
        walked = _walk(
            _placed(path, distinct_references, reference_block, reference_numbers),
            rule,
            field,
            distinct_references,
            x,
            frames,
            output,
            reference_block,
            weights,
        )
    except NonFiniteGradient as error:
        where = _locate_nonfinite(field, references, x, first)
        raise NonFiniteGradient(f"{where} {error}" if where else str(error)) from error
    walked = replace(walked if all_distinct else walked.at(number), identity=identity)
    _check_ends(field, walked, first)
    return walked


def _walk(
    path: PathLike,
    rule: Rule,
    field: Field,
    references: Tensor,
    x: Tensor,
    frames: bool,
    output: Tensor | None,
    reference_block: tuple[int, int] | None,
    weights: Tensor | None,
) -> PathIntegrals:
    shares: Tensor | None = None
    error = references.new_zeros(references.shape[:2])
    noise: Tensor | None = None
    accumulator = _Accumulator(output, keeps_frames=frames)
    for segment in path(field, references, x):
        segment = replace(segment, reference_block=reference_block, weights=weights)
        integrated = Integrated.ensure(rule(field, segment))
        accumulator.enter(segment, integrated)
        # Errors of different pieces are taken as independent.
        error = torch.hypot(error, norm(integrated.error.movedim(0, -1), 2))
        if integrated.noise is not None:
            noise = integrated.noise.sum(1) if noise is None else noise + integrated.noise.sum(1)
        # The share of a path in one piece is not copied.
        share = integrated.share[0] if len(integrated.share) == 1 else integrated.share.sum(0)
        shares = share if shares is None else shares + share
        del integrated, share
    if shares is None:
        raise InputError("The path made no segments; a path yields at least one.")
    return replace(accumulator.close(field, x, shares, error), noise=noise)


def _placed(
    path: Path,
    references: Tensor,
    reference_block: tuple[int, int] | None,
    reference_numbers: Tensor | None,
) -> PathLike:
    """The path, told which number each reference has, if it goes another way for each."""
    if not path.by_reference or (reference_numbers is None and reference_block is None):
        return path
    if reference_numbers is None:
        assert reference_block is not None
        numbers = torch.arange(
            reference_block[0], reference_block[0] + len(references), device=references.device
        )
        reference_numbers = numbers[:, None].expand(references.shape[:2])
    return path.placed(reference_numbers)


def same_content(references: Tensor) -> Tensor:
    """(R,) the same number for references (R, B, \\*s) that hold the same, bit for bit, and other
    numbers for others."""
    return row_hashes(_content(references))


def _content(references: Tensor) -> Tensor:
    """What references (R, B, \\*s) hold, as rows (R, n); once where all examples share them."""
    content = references[:, 0] if references.stride(1) == 0 else references.flatten(1)
    return content.reshape(len(content), -1)


def _distinct_references(
    references: Tensor, identity: Tensor, *, apart: bool
) -> tuple[Tensor | None, Tensor]:
    """Which references stand for all, None where all do for themselves; and which of these each is
    (R,)."""
    place = torch.arange(len(identity), device=identity.device)
    if apart or len(identity) == 1:
        return None, place
    first = first_alike(identity)
    repeated = (first != place).nonzero()[:, 0]
    # A hash alone does not decide that a reference is left out.
    if not len(repeated) or not same_rows(_content(references), repeated, first[repeated]):
        return None, place
    distinct, number = torch.unique(first, return_inverse=True)
    return distinct, number


def _check_ends(field: Field, walked: PathIntegrals, first: int) -> None:
    """Refuse ends at which F is not finite; ``first`` is the number of the first reference."""
    if math.isfinite(float(walked.change.sum())) or bool(torch.isfinite(walked.change).all()):
        return
    checked_output(walked.output, field)
    start = walked.start
    r, b = (~torch.isfinite(walked.change)).nonzero()[0].tolist()
    example = field.example_name(b)
    if math.isfinite(float(start[r, b])):
        raise NonFiniteGradient(
            f"F is {float(walked.output[b]):.3g} at {example} and {float(start[r, b]):.3g} at its reference {first + r}: the change between "
            "them is too large for a number of this type. Use float64, or explain a smaller score."
        )
    raise NonFiniteGradient(
        f"F is {float(start[r, b])} at reference {first + r} of {example}, where its path begins. {_CURES}"
    )


def checked_output(output: Tensor, field: Field) -> Tensor:
    """F (B,) at the examples of a field, all of it finite.

    Raises:
        NonFiniteGradient: where it is not.
    """
    if not bool(torch.isfinite(output).all()):
        example = int((~torch.isfinite(output)).nonzero()[0])
        raise NonFiniteGradient(
            f"F is {float(output[example])} at {field.example_name(example)} itself. {_CURES}"
        )
    return output


_CURES = (
    "There is no change of F to explain from there. Usual causes: a square root or logarithm at zero, a division by a norm, half precision. "
    "Take another baseline (of several, leave that one out), or float32."
)


def _locate_nonfinite(field: Field, references: Tensor, x: Tensor, first: int) -> str | None:
    """At which input or reference F is not finite, asked again because something was not; None
    where none is."""
    at_input = _first_nonfinite(field, x)
    if at_input is not None:
        return f"F is not finite at {field.example_name(at_input)} itself."
    for number, starts in enumerate(references):
        example = _first_nonfinite(field, starts)
        if example is not None:
            name = field.example_name(example)
            return (
                f"F is not finite at reference {first + number} of {name}, where its path begins."
            )
    return None


def _first_nonfinite(field: Field, z: Tensor) -> int | None:
    """The first example of a batch z (B, \\*s) at which F is not finite."""
    try:
        wrong = ~torch.isfinite(field.value(z))
        return int(wrong.nonzero()[0]) if bool(wrong.any()) else None
    except NonFiniteGradient:
        if len(z) == 1:
            return 0
    for example in range(len(z)):
        row = torch.tensor([example], device=z.device)
        if _first_nonfinite(field.at(row), z[row]) is not None:
            return example
    return None


def _known_value(paid: Evaluation | None, values: Tensor | None, piece: int) -> Tensor | None:
    """F (R, B) at an end that the path or the rule has evaluated; None unless all of it is
    known."""
    value = paid.value[piece] if paid is not None else None if values is None else values[piece]
    return None if value is None or bool(value.isnan().any()) else value


@dataclass
class _Accumulator:
    """Running record of a path's ends, notes and frames; segments come in any order and are not
    kept."""

    output: Tensor | None
    keeps_frames: bool
    began: float = float("inf")
    begin: Tensor | None = None
    begin_value: Tensor | None = None
    notes: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)
    points: dict[int, Tensor] = field(default_factory=dict)

    def enter(self, segment: Segment, integrated: Integrated) -> None:
        self._record_ends(segment, integrated)
        if segment.notes:
            self._record_notes(segment)
        if self.keeps_frames:
            self._record_points(segment)

    def close(self, field: Field, x: Tensor, shares: Tensor, error: Tensor) -> PathIntegrals:
        assert self.begin is not None
        output, start = self.output, self.begin_value
        if output is None and start is None:
            output, start = field.ends(x, self.begin)
        output = field.value(x) if output is None else output
        start = field.value(self.begin, leading=2) if start is None else start
        identity = torch.arange(len(self.begin), device=x.device)
        return PathIntegrals(
            shares,
            error,
            self.begin,
            output - start,
            output,
            start,
            self._numbers(),
            self._frames(),
            identity,
        )

    def _record_ends(self, segment: Segment, integrated: Integrated) -> None:
        first, last = int(segment.clock[0].argmin()), int(segment.clock[1].argmax())
        if float(segment.clock[0][first]) < self.began:
            self.began = float(segment.clock[0][first])
            self.begin = segment.start[first]
            self.begin_value = _known_value(segment.at_start, integrated.begin, first)
        if self.output is None and float(segment.clock[1][last]) >= 1:
            value = _known_value(segment.at_end, integrated.end, last)
            self.output = None if value is None else value[0]

    def _record_notes(self, segment: Segment) -> None:
        # Neighbours share a corner; it is noted by the one that starts there, so only the very last
        # end is taken.
        ends = segment.clock[1][-1:]
        keep = slice(None) if float(ends) >= 1 else slice(-1)
        clock = torch.cat([segment.clock[0], ends])[keep]
        self.notes.append((clock, {name: numbers[keep] for name, numbers in segment.notes.items()}))

    def _numbers(self) -> dict[str, Tensor]:
        if not self.notes:
            return {}
        order = torch.cat([clock for clock, _ in self.notes]).argsort(stable=True)
        return {
            name: torch.cat([numbers[name] for _, numbers in self.notes])[order]
            for name in self.notes[0][1]
        }

    def _record_points(self, segment: Segment) -> None:
        begins, ends = (side.tolist() for side in segment.clock)
        for piece, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            for frame in range(FRAMES):
                moment = frame / (FRAMES - 1)
                if begin <= moment < end or moment == end == 1:
                    position = (moment - begin) / (end - begin)
                    self.points[frame] = torch.lerp(
                        segment.start[piece], segment.end[piece], position
                    )

    def _frames(self) -> Frames | None:
        if not self.points:
            return None
        known = sorted(self.points)
        clock = torch.tensor(known) / (FRAMES - 1)
        return Frames(clock, torch.stack([self.points[frame] for frame in known]))


class SideBySide:
    """Walks from up to R references, entered block by block, as one walk. Shares are not kept,
    starts only up to a budget of numbers.

    Room for the small numbers is made at once: small tensors that are made between large ones, and
    stay, keep the large ones' memory from being used again.
    """

    def __init__(self, references: int, x: Tensor) -> None:
        self.room = {name: x.new_zeros(references, len(x)) for name in ("error", "change", "start")}
        self.identity = torch.zeros(references, dtype=torch.long, device=x.device)
        self.notes: dict[str, Tensor] = {}
        self.begin: list[Tensor] | None = []
        self.frames: list[Frames] = []
        self.output: Tensor | None = None
        self.entered = 0

    def enter(self, block: PathIntegrals) -> None:
        """The next references (r, B, \\*s)."""
        last = self.entered + len(block.identity)
        part = slice(self.entered, last)
        for name, numbers in self.room.items():
            numbers[part] = getattr(block, name)
        self.identity[part] = block.identity
        for name, note in block.notes.items():
            if name not in self.notes:
                self.notes[name] = note.new_zeros(len(note), len(self.identity), *note.shape[2:])
            self.notes[name][:, part] = note
        if self.begin is not None:
            self.begin.append(block.begin)
            if sum(begin.numel() for begin in self.begin) > _STARTS_ELEMENTS:
                self.begin = None
        if block.frames:
            self.frames.append(block.frames)
        self.entered, self.output = last, block.output

    def walked(self, like: Tensor, shares: Tensor | None = None) -> PathIntegrals:
        """All that was entered; ``shares`` are what is left of theirs, ``like`` is of their
        kind."""
        assert self.output is not None
        nothing = like.new_empty(0)
        part = slice(self.entered)
        return PathIntegrals(
            shares=nothing if shares is None else shares,
            begin=torch.cat(self.begin) if self.begin else nothing,
            output=self.output,
            notes={name: numbers[:, part] for name, numbers in self.notes.items()},
            frames=Frames(
                self.frames[0].clock, torch.cat([frames.points for frames in self.frames], 1)
            )
            if self.frames
            else None,
            identity=self.identity[part],
            **{name: numbers[part] for name, numbers in self.room.items()},
        )


class DeferredRefinement(Rule):
    """A rule that integrates coarsely first, and refines once the weights of the references are
    known.

    Rules that can look (``rule.look(field, segment)``, such as ``Adaptive``) are made to wait;
    others, and segments whose path has paid for an end, are integrated at once.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.rough: list[RoughShares] = []
        self.share: Tensor | None = None  # of what was integrated at once, and its error
        self.error: Tensor | None = None

    @property
    def unbiased(self) -> bool:
        """As the rule is."""
        return self.rule.unbiased

    def __call__(self, field: Field, segment: Segment) -> Tensor | Integrated:
        large = segment.start.numel() > _LOOK_ELEMENTS
        if (
            not self.rule.looks
            or large
            or segment.at_start is not None
            or segment.at_end is not None
        ):
            integrated = Integrated.ensure(self.rule(field, segment))
            if self.rule.looks:
                share, error = integrated.share.sum(0), norm(integrated.error.movedim(0, -1), 2)
                self.share = share if self.share is None else self.share + share
                self.error = error if self.error is None else torch.hypot(self.error, error)
            return integrated
        looked = self.rule.look(field, segment)
        self.rough.append(looked)
        return looked.refined(tol=_ROUGH)

    def settle(self, walked: PathIntegrals, weights: Tensor) -> PathIntegrals:
        """What was walked, refined to what the weighted sum needs (R, B)."""
        if not self.rough:
            return walked
        distinct = self.rough[0].segment.leading[1]
        number = torch.arange(len(weights), device=weights.device)
        if distinct < len(weights):
            number = torch.unique(first_alike(walked.identity), return_inverse=True)[1]
            weights = weights.new_zeros(distinct, weights.shape[1]).index_add_(0, number, weights)
        shares, error = self.share, self.error
        walked = replace(walked, shares=weights.new_empty(0))  # rough ones are let go
        while self.rough:
            fine = self.rough.pop(0).refined(weights)
            share = fine.share[0] if len(fine.share) == 1 else fine.share.sum(0)
            piece_error = norm(fine.error.movedim(0, -1), 2)
            shares = share if shares is None else shares + share
            error = piece_error if error is None else torch.hypot(error, piece_error)
        assert shares is not None
        assert error is not None
        if distinct < len(number):
            shares, error = shares[number], error[number]
        return replace(walked, shares=shares, error=error)
