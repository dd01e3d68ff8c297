"""What every path promises."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from ..field import Field, Function
from ..path.base import Path
from ..segment import Segment
from ..shapes import describe
from .assertions import apart, as_called, close, say
from .problem import smooth, waves

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

    * Every segment holds start and end (K, R, B, \\*s) of the input's type, and clocks (K,) that go forward.
    * Put in the order of their clocks, segments cover [0, 1] without a hole, and neighbours share a corner exactly.
    * The last end is the input itself. The first start is the reference, unless the path chooses its own (``own_start``).
    * So a linear field gets w ⊙ (x − start), whatever the way.
    * What is handed on (``at_start``, ``at_end``) is what the field says there; notes are (K+1, R, B).
    * The same call gives the same path, each example's path does not depend on its neighbours (but for pieces of no length), and
      nothing given is changed.

    Without arguments the problem is three features, two references, three examples; give your own field and inputs for paths
    that need images or a model.
    """
    field = field or Function(smooth)
    x = waves(3, 3, phase=0.3) if x is None else x
    references = waves(2, *x.shape, phase=2.0) if references is None else references
    given = references.clone(), x.clone()
    with as_called(field):
        segments = list(path(field, references, x))
    say(torch.equal(references, given[0]) and torch.equal(x, given[1]), "The path changed the tensors it was given.")
    say(len(segments) > 0, "The path yielded no segments; it yields at least one.")
    for number, segment in enumerate(segments):
        _check_segment(segment, number, field, references.shape)
    pieces = _in_order(segments)
    _check_chain(pieces)
    _check_ends(pieces, references, x, own_start=own_start)
    _check_repeats(path, field, references, x, pieces)


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
    """From the reference to the input, and no other way than that."""
    begin, end = pieces[0][2], pieces[-1][3]
    say(
        torch.equal(end, x.expand_as(references)),
        f"The last segment ends {apart(end, x.expand_as(references)):.3g} away from the input. Let it end on the "
        "input itself: start + (x − start) rounds.",
    )
    if not own_start:
        say(
            torch.equal(begin, references),
            f"The path begins {apart(begin, references):.3g} away from the reference. If it chooses its own start, say own_start=True.",
        )
    way: Tensor = torch.stack([stop - start for _, _, start, stop in pieces]).sum(0)
    close(way, x - begin, "The steps of the path do not add up to the input minus its start")


def _check_repeats(path: Path, field: Field, references: Tensor, x: Tensor, pieces: list[_Piece]) -> None:
    """The same again, and for each example alone."""
    with as_called(field):
        again = _in_order(path(field, references, x))
    close(again[0][2], pieces[0][2], "A second call of the path begins elsewhere")
    for example in range(len(x)):
        one = slice(example, example + 1)
        some = field.at(torch.tensor([example], device=x.device))
        with as_called(some):
            alone = _in_order(path(some, references[:, one], x[one]))
        mine, theirs = _moving(alone), _moving([(begin, end, s[:, one], e[:, one]) for begin, end, s, e in pieces])
        say(len(mine) == len(theirs), f"Example {example} alone has {len(mine)} pieces, in the batch {len(theirs)}.")
        for (_, _, start, _), (_, _, among, _) in zip(mine, theirs, strict=True):
            close(start, among, f"The path of example {example} depends on the other examples of its batch")


def _moving(pieces: list[_Piece]) -> list[_Piece]:
    """Without pieces of no length, which rows of different lengths are filled up with."""
    return [piece for piece in pieces if bool((piece[2] != piece[3]).any())]


def _check_segment(segment: Segment, number: int, field: Field, shape: torch.Size) -> None:
    who = f"Segment {number}"
    for name, corner in (("start", segment.start), ("end", segment.end)):
        say(
            corner.shape[1:] == shape,
            f"{who}: {name} has shape {describe(corner.shape)}; it must be K x {describe(shape)} (K, R, B, *s).",
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
    for name, paid, points in (("at_start", segment.at_start, segment.start), ("at_end", segment.at_end, segment.end)):
        if paid is not None:
            close(paid.value, field.value(points, 3), f"{who}: {name} is not the field's value there")
            close(paid.gradient, field.gradient(points, 3), f"{who}: {name} is not the field's gradient there")
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
