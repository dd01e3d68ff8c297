"""Check of paths."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from ..core.segment import Segment
from ..core.shapes import describe
from ..fields import CountedField, Field, Function
from ..fields.views import CallCount
from ..paths.base import Path, PathLike, as_path
from .assertions import apart, as_called, close, instance, say, untouched
from .problem import smooth, waves

_ROUNDS = 1e-6
"""A path that ends nearer to the input than this, relative to the way there, was meant to end on
it."""

_Piece = tuple[float, float, Tensor, Tensor]
"""Of a path: when it begins and ends, and where (R, B, \\*s)."""


def check_path(
    path: Path,
    *,
    field: Field | None = None,
    x: Tensor | None = None,
    references: Tensor | None = None,
    own_start: bool = False,
) -> None:
    """A path (field, start (R, B, \\*s), end (B, \\*s)) → segments.

    * Every segment holds start and end (K, R, B, \\*s) of the input's type, and clocks (K,) that go
      forward.
    * Put in the order of their clocks, segments cover [0, 1] without a hole, and neighbours share a
      corner exactly.
    * The last end is the input itself. The first start is the reference, unless the path chooses
      its own (``own_start``).
    * So a linear field gets w ⊙ (x − start), whatever the way.
    * What is handed on (``at_start``, ``at_end``) is what the field says there; notes are (K+1, R,
      B).
    * What the path says of its cost is true: ``segments`` is how many pieces it comes to,
      ``gradients`` + ``scouted`` how many gradients it asks for, for each reference of each example
      that keeps moving. Either may be None or missing: not known beforehand.
    * The same call gives the same path; each example's path does not depend on its neighbours, nor
      a reference's on those beside it (but for pieces of no length). A path that goes another way
      for each reference says so: ``placed(places (R, B)) -> path`` is told which number each has,
      and then goes the same way for it in any batch.
    * Nothing given is changed, and no global generator is drawn from.

    Without arguments the problem is three features, two references, three examples; give your own
    field and inputs for paths that need images or a model.

    Args:
        path: what is checked.
        field: what it may ask; three features unless given.
        x: (B, \\*s) inputs for the field.
        references: (R, B, \\*s) where it starts.
        own_start: whether it chooses its own start.

    Raises:
        AssertionError: with what was promised, and what came instead.

    Example:
        >>> import integrand as ig
        >>> ig.testing.check_path(ig.paths.Straight(3))
    """
    default = field is None and x is None
    field = field or Function(smooth)
    x = waves(3, 3, phase=0.3) if x is None else x
    references = waves(2, *x.shape, phase=2.0) if references is None else references
    meter = CountedField(field)
    with as_called(field), untouched("The path", "the tensors it was given", references, x):
        try:
            segments = list(path(meter, references, x))
        except Exception as error:
            if not default:
                raise
            raise AssertionError(
                f"The path raised {type(error).__name__} ({error}) on the problem it is tried on by default: three examples of three "
                "features each, and a smooth function instead of a model. If it needs images or a model, give inputs of its own kind: "
                "check_path(path, field=ig.TorchField(model, target), x=images)."
            ) from error
    say(len(segments) > 0, "The path yielded no segments; it yields at least one.")
    for number, segment in enumerate(segments):
        _check_segment(segment, number, field, references)
    pieces = _in_order(segments)
    _check_chain(pieces)
    _check_ends(pieces, references, x, own_start=own_start)
    _check_repeats(path, field, references, x, pieces)
    _check_references(path, field, references, x)
    _check_claims(path, pieces, meter.tally, references.shape[0] * references.shape[1])


def _check_chain(pieces: list[_Piece]) -> None:
    """From clock 0 to 1 without a hole, neighbours sharing a corner."""
    say(pieces[0][0] == 0.0, f"The first segment begins at clock {pieces[0][0]:g}, not at 0.")
    say(pieces[-1][1] == 1.0, f"The last segment ends at clock {pieces[-1][1]:g}, not at 1.")
    for (_, ends, _, stop), (begins, _, start, _) in pairwise(pieces):
        say(
            ends == begins,
            f"One segment ends at clock {ends:g}, the next begins at {begins:g}: neighbours share a corner.",
        )
        say(
            torch.equal(stop, start),
            f"The segments that meet at clock {begins:g} end and start up to {apart(stop, start):.3g} apart: "
            "hand on the same tensor, do not compute the corner twice.",
        )


def _check_ends(pieces: list[_Piece], references: Tensor, x: Tensor, *, own_start: bool) -> None:
    """From the reference to the input."""
    begin, end = pieces[0][2], pieces[-1][3]
    _check_arrival(end, x.expand_as(references), references)
    if not own_start:
        missed, rounds = _missed(begin, references, x.expand_as(references))
        advice = "Begin at the reference itself, not at a point computed from it." if rounds else ""
        say(
            missed == 0,
            f"The path begins {missed:.3g} away from the reference. {advice or 'If it chooses its own start, say own_start=True.'}",
        )
    steps: Tensor = torch.stack([stop - start for _, _, start, stop in pieces]).sum(0)
    close(steps, x - begin, "The steps of the path do not add up to the input minus its start")


def _check_arrival(end: Tensor, x: Tensor, references: Tensor) -> None:
    """The last end is the input: neither a rounding error away from it, nor somewhere on the
    way."""
    missed, rounds = _missed(end, x, references)
    if missed == 0:
        return
    if rounds:
        raise AssertionError(
            f"The last segment ends {missed:.3g} away from the input, which is rounding: the way is right, but start + (x − start) is "
            "not x. Let the last segment end on the input itself."
        )
    left = float((end - x).abs().sum() / (references - x).abs().sum())
    raise AssertionError(
        f"The last segment ends {missed:.3g} away from the input: the path stops where {100 * left:.3g} % of the way from the reference "
        "to the input are left, or leads elsewhere. It must go on until it is there."
    )


def _missed(point: Tensor, goal: Tensor, start: Tensor) -> tuple[float, bool]:
    """How far a point is from its goal, and whether that is rounding: tiny beside the way from the
    ``start``."""
    missed = apart(point, goal)
    return missed, missed <= _ROUNDS * max(apart(goal, start), float(goal.abs().max()))


def _check_repeats(
    path: Path, field: Field, references: Tensor, x: Tensor, pieces: list[_Piece]
) -> None:
    """The same path for a second call, and for each example alone."""
    with as_called(field):
        again = _in_order(path(field, references, x))
    close(again[0][2], pieces[0][2], "A second call of the path begins elsewhere")
    say(
        len(again) == len(pieces),
        f"A second call of the path has {len(again)} pieces, the first {len(pieces)}.",
    )
    for (begins, _, start, _), (_, _, before, _) in zip(again, pieces, strict=True):
        close(start, before, f"A second call of the path goes another way at clock {begins:g}")
    for example in range(len(x)):
        single = slice(example, example + 1)
        single_field = field.at(torch.tensor([example], device=x.device))
        with as_called(single_field):
            alone = _in_order(path(single_field, references[:, single], x[single]))
        among = [(begin, end, s[:, single], e[:, single]) for begin, end, s, e in pieces]
        _check_same_way(
            alone,
            among,
            f"Example {example} alone has",
            f"The path of example {example} depends on the other examples of its batch",
        )


def _check_references(path: PathLike, field: Field, references: Tensor, x: Tensor) -> None:
    """Each reference alone, with its number where the path needs it."""
    adopted = as_path(path)
    placed = adopted.placed if adopted.by_reference else None
    number = torch.arange(len(references), device=x.device)[:, None].expand(references.shape[:2])
    advice = (
        "placed() was told the number of each, and must make the way depend on nothing else"
        if placed
        else "a path that goes another way for each reference has a method placed(places (R, B)) -> path, which is told the number of each"
    )
    with as_called(field):
        pieces = _in_order((placed(number) if placed else path)(field, references, x))
        for reference in range(len(references)):
            single = slice(reference, reference + 1)
            alone = _in_order(
                (placed(number[single]) if placed else path)(field, references[single], x)
            )
            _check_same_way(
                alone,
                [(begin, end, s[single], e[single]) for begin, end, s, e in pieces],
                f"Reference {reference} alone has",
                f"The path from reference {reference} depends on how many references there are, or which are beside it ({advice})",
            )


def _check_same_way(alone: list[_Piece], among: list[_Piece], count: str, message: str) -> None:
    """The same corners, but for pieces of no length."""
    alone_moving, among_moving = _moving(alone), _moving(among)
    say(
        len(alone_moving) == len(among_moving),
        f"{message}: {count} {len(alone_moving)} pieces, among others {len(among_moving)}.",
    )
    for (_, _, start, _), (_, _, expected, _) in zip(alone_moving, among_moving, strict=True):
        close(start, expected, message)


def _check_claims(path: PathLike, pieces: list[_Piece], tally: CallCount, rows: int) -> None:
    """The cost that the path claims, against what was counted."""
    adopted = as_path(path)
    segments = adopted.segments
    if isinstance(segments, int):
        say(
            segments == len(pieces),
            f"path.segments says {segments}, but {len(pieces)} pieces came. A path that cannot know beforehand says None.",
        )
    # A callable that says nothing of its gradients does not say that it takes none.
    gradients, scouted = getattr(path, "gradients", None), adopted.scouted
    if gradients is None or scouted is None:
        return
    claimed = (gradients + scouted) * rows
    # Rows that have arrived, or whose way is shorter, may do without some.
    waits = any(bool((start == end).flatten(2).all(2).any()) for _, _, start, end in pieces)
    claims = f"path.gradients says {gradients}" + (
        f" and path.scouted {scouted}" if scouted else ""
    )
    say(
        tally.gradients == claimed or (waits and tally.gradients < claimed),
        f"{claims} for each reference of each example, {claimed} in all, but {tally.gradients} gradients were asked for. Gradients at "
        "corners, which are handed on, are path.gradients; those elsewhere path.scouted.",
    )


def _moving(pieces: list[_Piece]) -> list[_Piece]:
    """Without pieces of no length, which rows of different lengths are filled up with."""
    return [piece for piece in pieces if bool((piece[2] != piece[3]).any())]


def _check_segment(segment: object, number: int, field: Field, references: Tensor) -> None:
    who, shape = f"Segment {number}", references.shape
    segment = instance(
        segment,
        Segment,
        f"{who} is a {type(segment).__name__}; a path yields ig.Segment values.",
    )
    for name, corner in (("start", segment.start), ("end", segment.end)):
        say(
            corner.shape[1:] == shape,
            f"{who}: {name} has shape {describe(corner.shape)}; it must be K x {describe(shape)} (K, R, B, *s).",
        )
        say(
            corner.dtype == references.dtype and corner.device == references.device,
            f"{who}: {name} is {corner.dtype} on {corner.device}, the reference {references.dtype} on {references.device}.",
        )
        say(bool(torch.isfinite(corner).all()), f"{who}: {name} holds NaN or infinity.")
    count = len(segment.start)
    say(len(segment.end) == count, f"{who} has {count} starts and {len(segment.end)} ends.")
    for name, clock in zip(("begins", "ends"), segment.clock, strict=True):
        say(
            clock.shape == (count,),
            f"{who}: the clock's {name} have shape {describe(clock.shape)}, not {count} (one per piece).",
        )
    forward = bool((segment.clock[0] < segment.clock[1]).all())
    say(
        forward,
        f"{who}: its clock goes backwards; 0 is the baseline's side and 1 the input's, also for walks from the input.",
    )
    for name, paid, points in (
        ("at_start", segment.at_start, segment.start),
        ("at_end", segment.at_end, segment.end),
    ):
        if paid is not None:
            close(
                paid.value, field.value(points, 3), f"{who}: {name} is not the field's value there"
            )
            close(
                paid.gradient,
                field.gradient(points, 3),
                f"{who}: {name} is not the field's gradient there",
            )
    for name, note in segment.notes.items():
        expected = (count + 1, *shape[:2])
        say(
            note.shape == expected,
            f"{who}: the note {name!r} has shape {describe(note.shape)}; at K+1 corners it is {describe(expected)} (K+1, R, B).",
        )


def _in_order(segments: Iterable[Segment]) -> list[_Piece]:
    """Single pieces in the order of the clock."""
    pieces = [
        (float(segment.clock[0][k]), float(segment.clock[1][k]), segment.start[k], segment.end[k])
        for segment in segments
        for k in range(len(segment.start))
    ]
    return sorted(pieces, key=lambda piece: piece[0])
