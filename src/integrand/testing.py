"""A conformance kit for parts of your own: paths, rules, fields, baselines, weightings.

    from integrand import testing

    def test_my_path():
        testing.check_path(MyPath(steps=5))

Each check calls the part on small problems in float64 and raises ``AssertionError`` with what was promised, what came
instead, and where. What a promise is stands in the docstring of the check; a part that keeps them works with every other part.
The library's own parts pass the same checks. Nothing here needs a test framework.

As in a method, parts are called with the model ready and autograd off: fields turn it on where they need it, and so must a
part that differentiates something itself (``torch.enable_grad()``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .baseline.base import Baseline, label_of
from .errors import NoShare
from .field import Field, Function, Gathered, Linear, Metered, Packer
from .field.modes import gradients
from .path.base import Path
from .path.straight import Straight
from .rule.base import Integrated, Rule
from .segment import Segment, polyline
from .shapes import describe, first_alike, over, total
from .weighting import Weighed, Weighting, beforehand

__all__ = ["check_baseline", "check_field", "check_path", "check_rule", "check_weighting", "waves"]

_CLOSE = 1e-9

_Piece = tuple[float, float, Tensor, Tensor]
"""Of a path: when it begins and ends, and where (R, B, \\*s)."""


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers between −1 and 1 in float64, the same on every machine and without an obvious pattern."""
    n = torch.arange(1, 1 + int(torch.Size(shape).numel()), dtype=torch.float64)
    return torch.sin(phase + 1.7 * n + 0.013 * n * n).reshape(shape)


def smooth(z: Tensor) -> Tensor:
    """A smooth scalar of every feature with interactions, for rows (N, \\*s) of any shape."""
    flat = z.flatten(1)
    tilt = waves(flat.shape[1], phase=0.5).to(flat) / flat.shape[1] ** 0.5
    return torch.exp(0.5 * flat @ tilt) + torch.tanh(flat).prod(1)


# --- paths ------------------------------------------------------------------------------------------------------------


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
    with _as_called(field):
        segments = list(path(field, references, x))
    _say(torch.equal(references, given[0]) and torch.equal(x, given[1]), "The path changed the tensors it was given.")
    _say(len(segments) > 0, "The path yielded no segments; it yields at least one.")
    for number, segment in enumerate(segments):
        _check_segment(segment, number, field, references.shape)
    pieces = _in_order(segments)
    _check_chain(pieces)
    _check_ends(pieces, references, x, own_start=own_start)
    _check_repeats(path, field, references, x, pieces)


def _check_chain(pieces: list[_Piece]) -> None:
    """From clock 0 to 1 without a hole, neighbours sharing a corner."""
    _say(pieces[0][0] == 0.0, f"The first segment begins at clock {pieces[0][0]:g}, not at 0.")
    _say(pieces[-1][1] == 1.0, f"The last segment ends at clock {pieces[-1][1]:g}, not at 1.")
    for (_, ends, _, stop), (begins, _, start, _) in pairwise(pieces):
        _say(
            ends == begins,
            f"One segment ends at clock {ends:g}, the next begins at {begins:g}: neighbours share a corner.",
        )
        _say(
            torch.equal(stop, start),
            f"The segments that meet at clock {begins:g} end and start up to {_apart(stop, start):.3g} apart: "
            "hand on the same tensor, do not compute the corner twice.",
        )


def _check_ends(pieces: list[_Piece], references: Tensor, x: Tensor, *, own_start: bool) -> None:
    """From the reference to the input, and no other way than that."""
    begin, end = pieces[0][2], pieces[-1][3]
    _say(
        torch.equal(end, x.expand_as(references)),
        f"The last segment ends {_apart(end, x.expand_as(references)):.3g} away from the input. Let it end on the "
        "input itself: start + (x − start) rounds.",
    )
    if not own_start:
        _say(
            torch.equal(begin, references),
            f"The path begins {_apart(begin, references):.3g} away from the reference. If it chooses its own start, say own_start=True.",
        )
    way: Tensor = torch.stack([stop - start for _, _, start, stop in pieces]).sum(0)
    _close(way, x - begin, "The steps of the path do not add up to the input minus its start")


def _check_repeats(path: Path, field: Field, references: Tensor, x: Tensor, pieces: list[_Piece]) -> None:
    """The same again, and for each example alone."""
    with _as_called(field):
        again = _in_order(path(field, references, x))
    _close(again[0][2], pieces[0][2], "A second call of the path begins elsewhere")
    for example in range(len(x)):
        one = slice(example, example + 1)
        some = field.at(torch.tensor([example], device=x.device))
        with _as_called(some):
            alone = _in_order(path(some, references[:, one], x[one]))
        mine, theirs = _moving(alone), _moving([(begin, end, s[:, one], e[:, one]) for begin, end, s, e in pieces])
        _say(len(mine) == len(theirs), f"Example {example} alone has {len(mine)} pieces, in the batch {len(theirs)}.")
        for (_, _, start, _), (_, _, among, _) in zip(mine, theirs, strict=True):
            _close(start, among, f"The path of example {example} depends on the other examples of its batch")


def _moving(pieces: list[_Piece]) -> list[_Piece]:
    """Without pieces of no length, which rows of different lengths are filled up with."""
    return [piece for piece in pieces if bool((piece[2] != piece[3]).any())]


def _check_segment(segment: Segment, number: int, field: Field, shape: torch.Size) -> None:
    who = f"Segment {number}"
    for name, corner in (("start", segment.start), ("end", segment.end)):
        _say(
            corner.shape[1:] == shape,
            f"{who}: {name} has shape {describe(corner.shape)}; it must be K x {describe(shape)} (K, R, B, *s).",
        )
        _say(bool(torch.isfinite(corner).all()), f"{who}: {name} holds NaN or infinity.")
    count = len(segment.start)
    _say(len(segment.end) == count, f"{who} has {count} starts and {len(segment.end)} ends.")
    for name, clock in zip(("begins", "ends"), segment.clock, strict=True):
        _say(
            clock.shape == (count,),
            f"{who}: the clock's {name} have shape {describe(clock.shape)}, not {count} (one per piece).",
        )
    forward = bool((segment.clock[0] < segment.clock[1]).all())
    _say(
        forward,
        f"{who}: its clock goes backwards; 0 is the baseline's side and 1 the input's, also for walks from the input.",
    )
    for name, paid, points in (("at_start", segment.at_start, segment.start), ("at_end", segment.at_end, segment.end)):
        if paid is not None:
            _close(paid.value, field.value(points, 3), f"{who}: {name} is not the field's value there")
            _close(paid.gradient, field.gradient(points, 3), f"{who}: {name} is not the field's gradient there")
    for name, note in segment.notes.items():
        expected = (count + 1, *shape[:2])
        _say(
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


# --- rules ------------------------------------------------------------------------------------------------------------


def check_rule(rule: Rule, *, complete: bool | None = None, order: float | None = None, linear: bool = True) -> None:
    """A rule (field, segment) → share (K, R, B, \\*s).

    * The share has the shape and type of the segment's points and is finite; a piece of no length has the share zero.
    * On a linear field it is w ⊙ (end − start), at once (``linear=False`` for rules that give credit otherwise).
    * Each piece, reference and example is integrated by itself; how many rows fit into a model call changes nothing.
    * Over fine enough pieces the shares add up to the change of F (``complete``; by default what the rule says of itself
      in ``rule.complete``, else yes). ``order``: halving the pieces divides the error by 2^order at least.
    * ``rule.gradients``, where it is there, is what one piece costs.
    """
    with gradients(False):
        _check_rule(rule, getattr(rule, "complete", True) if complete is None else complete, order, linear)


def _check_rule(rule: Rule, complete: bool, order: float | None, linear: bool) -> None:
    segment = polyline(waves(3, 2, 3, 4, phase=0.2))
    count, references, batch = segment.leading
    weight = waves(4, phase=1.0)
    tally = Metered(Function(smooth))
    share = _share(rule, tally, segment)
    _say(
        share.shape == segment.start.shape,
        f"The share has shape {describe(share.shape)}; for this segment it must be {describe(segment.start.shape)} (K, R, B, *s).",
    )
    _say(share.dtype == segment.start.dtype, f"The share is {share.dtype} for a segment of {segment.start.dtype}.")
    _say(bool(torch.isfinite(share).all()), "The share holds NaN or infinity.")
    claimed = getattr(rule, "gradients", None)
    if claimed is not None:
        rows = count * references * batch
        _say(
            tally.tally.gradients == claimed * rows,
            f"rule.gradients says {claimed} for each piece, but {tally.tally.gradients} were evaluated for {rows} pieces.",
        )
    if linear:
        _close(
            _share(rule, Linear(weight), segment),
            segment.step * weight,
            "On a linear field the share is not w ⊙ (end − start)",
        )
    still = Segment(segment.start, segment.start, segment.clock)
    _close(_share(rule, Function(smooth), still), torch.zeros_like(share), "Pieces of no length have a share")
    _check_independence(rule, segment, share)
    if complete:
        coarse, fine = _gap(rule, 32), _gap(rule, 64)
        _say(fine < 0.05, f"Over 64 pieces the shares miss the change of F by {fine:.3g} of it.")
        if order is not None and coarse > 1e-12:
            observed = float(torch.tensor(coarse / max(fine, 1e-300)).log2())
            _say(observed > order - 0.3, f"The error falls with order {observed:.2f}, not {order}.")


def _check_independence(rule: Rule, segment: Segment, share: Tensor) -> None:
    for rows in (1, 5):
        field = Function(smooth)
        field.packer = Packer(rows)
        _close(_share(rule, field, segment), share, f"With {rows} rows to a model call the share is another one")
    for k in range(segment.leading[0]):
        one = slice(k, k + 1)
        part = Segment(segment.start[one], segment.end[one], (segment.clock[0][one], segment.clock[1][one]))
        _close(
            _share(rule, Function(smooth), part),
            share[one],
            f"The share of piece {k} depends on the other pieces of its stack",
        )
    for b in range(segment.leading[2]):
        one = slice(b, b + 1)
        part = Segment(segment.start[:, :, one], segment.end[:, :, one], segment.clock)
        _close(
            _share(rule, Function(smooth), part),
            share[:, :, one],
            f"The share of example {b} depends on the others of its batch",
        )


def _share(rule: Rule, field: Field, segment: Segment) -> Tensor:
    return Integrated.ensure(rule(field, segment)).share


def _gap(rule: Rule, pieces: int) -> float:
    """What the shares miss of the change of F, relative to it, on a straight line."""
    field, start, end = Function(smooth), waves(1, 2, 4, phase=2.0), 1 + waves(2, 4, phase=0.3)
    shares = torch.stack([_share(rule, field, segment).sum(0) for segment in Straight(pieces)(field, start, end)]).sum(
        0
    )
    change = field.value(end) - field.value(start, 2)
    return float(((total(shares, 2) - change) / change).abs().max())


# --- fields -----------------------------------------------------------------------------------------------------------


def check_field(field: Field, x: Tensor, *, tolerance: float = 1e-4, differentiable: bool = True) -> None:
    """A field, on inputs x (B, \\*s) of its own kind, at least two.

    * ``evaluate(z (N, \\*s), index (N,))`` gives N values and N gradients like z, detached; ``gradient=False`` the same values.
    * Rows do not interact: alone, among others, in another order, with another example's index in between — the same numbers.
    * The gradient is the slope of the value: finite differences along three directions agree to ``tolerance``.
    * ``share``, where there is one, is exact: it adds up to the change of F.
    * Examples with the same number in ``questions`` are one function: a row has one value, whichever of them it is given to.
    * Nothing given is changed. ``differentiable=False`` for fields that only know their share.
    """
    _say(len(x) >= 2, "Give check_field at least two examples.")
    given = x.clone()
    index = torch.arange(len(x), device=x.device)
    with _as_called(field):
        if differentiable:
            _check_slopes(field, x, index, tolerance)
        value = field.value(x)
        _say(
            value.shape == (len(x),),
            f"Values of {len(x)} rows have shape {describe(value.shape)}; they must be {len(x)}.",
        )
        _check_share(field, x, value, tolerance)
        asked = field.questions(index)
        _say(asked.shape == index.shape, f"questions numbers {describe(asked.shape)} of {len(x)} examples.")
        if differentiable:
            first = first_alike(asked)
            _close(field.rows(x, first, gradient=False).value, value, "Examples of one question have several values")
    _say(torch.equal(x, given), "The field changed the rows it was given.")


def _check_slopes(field: Field, x: Tensor, index: Tensor, tolerance: float) -> None:
    found = field.evaluate(x, index)
    count = len(x)
    _say(
        found.value.shape == (count,),
        f"Values of {count} rows have shape {describe(found.value.shape)}; they must be {count}.",
    )
    _say(
        found.gradient.shape == x.shape,
        f"Gradients have shape {describe(found.gradient.shape)}; like the rows they must be {describe(x.shape)}.",
    )
    _say(not (found.value.requires_grad or found.gradient.requires_grad), "Values and gradients must be detached.")
    _say(
        bool(torch.isfinite(found.value).all() and torch.isfinite(found.gradient).all()),
        "The field holds NaN or infinity.",
    )
    loose = 1e-10 if x.dtype == torch.float64 else 1e-4
    without = field.evaluate(x, index, gradient=False).value
    _close(without, found.value, "With gradient=False the values are others", loose)
    order = index.flip(0)
    turned = field.evaluate(x[order], order)
    _close(turned.value, found.value[order], "Values depend on the order of rows", loose)
    _close(turned.gradient, found.gradient[order], "Gradients depend on the order of rows", loose)
    alone = field.evaluate(x[:1], index[:1])
    _close(alone.value, found.value[:1], "The value of a row depends on the rows beside it", loose)
    _close(alone.gradient, found.gradient[:1], "The gradient of a row depends on the rows beside it", loose)
    twice = Gathered(field, index[:1].expand(3)).value(x[:1].expand(3, *x.shape[1:]))
    _close(twice, found.value[:1].expand(3), "The same row of the same example has several values", loose)
    step = 1e-5 if x.dtype == torch.float64 else 1e-2
    for phase in (0.0, 1.0, 2.0):
        way = waves(*x.shape[1:], phase=phase).to(x)
        way = way / way.norm()
        slope = (field.evaluate(x + step * way, index).value - field.evaluate(x - step * way, index).value) / (2 * step)
        _close(total(found.gradient * way, 1), slope, "The gradient is not the slope of the value", tolerance)


def _check_share(field: Field, x: Tensor, value: Tensor, tolerance: float) -> None:
    start = x.flip(0)
    segment = polyline(torch.stack([start, x])[:, None])
    try:
        share = field.share(segment)
    except NoShare:
        return
    _say(
        share.shape == segment.start.shape,
        f"The share has shape {describe(share.shape)}; for this segment it must be {describe(segment.start.shape)} (K, R, B, *s).",
    )
    _close(
        total(share, 3)[0, 0], value - field.value(start), "Exact shares do not add up to the change of F", tolerance
    )


# --- baselines --------------------------------------------------------------------------------------------------------


def check_baseline(baseline: Baseline, x: Tensor | None = None, *, field: Field | None = None) -> None:
    """A baseline (x (B, \\*s), field) → references (R, B, \\*s).

    * R ≥ 1 references shaped, typed and placed like the inputs, all finite; ``count``, where it is known, is R.
    * The same call gives the same references, also for each example alone, and leaves the inputs and torch's global
      generator alone.
    * It has a name for reports.
    """
    x = waves(3, 4) if x is None else x
    field = field or Function(smooth)
    given, random = x.clone(), torch.get_rng_state()
    with _as_called(field):
        found = baseline(x, field)
        _say(isinstance(found, Tensor), f"The baseline returned {type(found).__name__}, not a tensor.")
        _say(
            found.shape[1:] == x.shape and len(found) > 0,
            f"References have shape {describe(found.shape)}; for these inputs they must be R x {describe(x.shape)} (R, B, *s).",
        )
        _say(found.dtype == x.dtype, f"References are {found.dtype}, the inputs {x.dtype}.")
        _say(found.device == x.device, f"References are on {found.device}, the inputs on {x.device}.")
        _say(bool(torch.isfinite(found).all()), "References hold NaN or infinity.")
        count = getattr(baseline, "count", None)
        _say(
            not isinstance(count, int) or count == len(found), f"count says {count} references, but {len(found)} came."
        )
        _close(baseline(x, field), found, "A second call gives other references; take randomness from a seed")
        for example in range(len(x)):
            one = slice(example, example + 1)
            alone = baseline(x[one], field.at(torch.tensor([example], device=x.device)))
            _say(
                len(alone) == len(found),
                f"Example {example} alone has {len(alone)} references, in the batch {len(found)}.",
            )
            _close(alone, found[:, one], f"References of example {example} depend on the other examples of its batch")
    _say(torch.equal(x, given), "The baseline changed the inputs.")
    _say(
        torch.equal(torch.get_rng_state(), random),
        "The baseline drew from torch's global generator; use a seed of its own.",
    )
    _say(bool(label_of(baseline)), "The baseline has no name; give it a label.")


# --- weightings -------------------------------------------------------------------------------------------------------


def check_weighting(
    weighting: Weighting,
    *,
    field: Field | None = None,
    x: Tensor | None = None,
    shares: Tensor | None = None,
) -> None:
    """A weighting (shares (R, B, \\*s), x (B, \\*s), field) → weights (R, B), or ``Weighed``.

    * Weights are finite and add up to one for every example; a fitness, where there is one, is (R, B) too.
    * Which place a reference stands in does not matter: permuting shares permutes weights.
    * An example's weights do not depend on its neighbours, and the shares are not changed.
    * ``beforehand``, where it is there, says the same without looking at shares.
    """
    x = waves(3, 6, phase=0.3) if x is None else x
    field = field or Function(lambda z: smooth(z).sigmoid())
    shares = waves(4, *x.shape, phase=1.0) if shares is None else shares
    given = shares.clone()
    weigh: Callable[[Tensor, Tensor, Field], Weighed] = lambda s, z, f: Weighed.ensure(weighting(s, z, f))  # noqa: E731
    with _as_called(field):
        found = weigh(shares, x, field)
        leading = shares.shape[:2]
        for name, numbers in (("Weights", found.weights), ("The fitness", found.fitness)):
            if numbers is not None:
                _say(
                    numbers.shape == leading,
                    f"{name} of shape {describe(numbers.shape)}: for {leading[0]} references of {leading[1]} examples it "
                    f"must be {describe(leading)} (R, B).",
                )
                _say(bool(torch.isfinite(numbers).all()), f"{name}: NaN or infinity.")
        _close(
            found.weights.sum(0), torch.ones_like(found.weights[0]), "The weights of an example do not add up to one"
        )
        order = torch.arange(leading[0]).roll(1)
        turned = weigh(shares[order], x, field)
        _close(turned.weights, found.weights[order], "Weights depend on the order of the references")
        for example in range(len(x)):
            one = slice(example, example + 1)
            alone = weigh(shares[:, one], x[one], field.at(torch.tensor([example], device=x.device)))
            _close(
                alone.weights, found.weights[:, one], f"Weights of example {example} depend on the others of its batch"
            )
    _say(torch.equal(shares, given), "The weighting changed the shares.")
    known = beforehand(weighting, *leading)
    if known is not None:
        _close(known.to(found.weights), found.weights, "beforehand() and the call give different weights")
        # Known weights stand for the sum that is taken while shares come.
        streamed = (over(known.to(shares), shares) * shares).sum(0)
        _close(streamed, (over(found.weights, shares) * shares).sum(0), "Streamed and kept sums differ")


# ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def _as_called(field: Field) -> Iterator[None]:
    """The surroundings in which a method calls its parts."""
    with field.ready(), gradients(False):
        yield


def _say(true: bool, message: str) -> None:
    if not true:
        raise AssertionError(message)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) if one.numel() else 0.0


def _close(found: Any, expected: Tensor, message: str, tolerance: float = _CLOSE) -> None:
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        got = describe(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise AssertionError(f"{message}: shape {got} instead of {describe(expected.shape)}.")
    loose = max(tolerance, _CLOSE if expected.dtype == torch.float64 else 1e-4)
    scale = max(1.0, float(expected.abs().max()) if expected.numel() else 0.0)
    if not _apart(found, expected) <= loose * scale:
        raise AssertionError(f"{message}: they are {_apart(found, expected):.3g} apart.")
