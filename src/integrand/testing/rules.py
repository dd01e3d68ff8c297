"""Check of rules."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..core.segment import Evaluation, Segment, polyline
from ..core.shapes import describe, norm, total
from ..errors import NoShare
from ..fields import BatchSizer, CountedField, Field, Function, Linear
from ..model.autograd import gradients
from ..paths.straight import Straight
from ..rules.base import Integrated, Rule, as_rule
from ..rules.quadrature import GaussLegendre
from .assertions import apart, close, say, untouched
from .problem import smooth, waves

_OPTIMISM = 20.0
"""How many times its claimed error a share may be off; estimates err, but not by that much."""


def check_rule(
    rule: Rule, *, complete: bool | None = None, order: float | None = None, linear: bool = True
) -> None:
    """A rule (field, segment) → share (K, R, B, \\*s).

    * The share has the shape and type of the segment's points and is finite; a piece of no length
      has the share zero.
    * On a linear field it is w ⊙ (end − start), at once (``linear=False`` for rules that give
      credit otherwise).
    * Each piece, reference and example is integrated by itself; how many rows fit into a model call
      changes nothing.
    * Over fine enough pieces the shares add up to the change of F (``complete``; by default what
      the rule says of itself in ``rule.complete``, else yes). ``order``: halving the pieces divides
      the error by 2^order at least.
    * ``rule.gradients``, where it is there, is what one piece costs.
    * What comes with the share is true: ``Integrated.begin`` and ``end`` are F at the ends of the
      pieces, and ``error`` is not below what the share is wrong by (a rule that does not know
      leaves them NaN, or returns the bare share).
    * What the path has paid for at the ends of a segment may save gradients, and changes nothing
      else.
    * The segment is not changed, and no global generator is drawn from.

    Rules that ask for a field's exact share are checked on fields that have one only: a linear one.

    Args:
        rule: what is checked.
        complete: whether its shares are to add up; what it says of itself unless given.
        order: its order of convergence, where it is to be checked.
        linear: False for rules that give credit otherwise than by displacement times gradient.

    Raises:
        AssertionError: with what was promised, and what came instead.

    Example:
        >>> import integrand as ig
        >>> ig.testing.check_rule(ig.rules.Simpson(), order=4)
    """
    complete = as_rule(rule).complete if complete is None else complete
    segment = polyline(waves(3, 2, 3, 4, phase=0.2))
    with (
        gradients(False),
        untouched("The rule", "the segment it was given", segment.start, segment.end),
    ):
        try:
            rule(Function(smooth), segment)
        except NoShare:
            _check_exact(rule, segment)
            return
        _check_rule(rule, segment, complete, order, linear)


def _check_exact(rule: Rule, segment: Segment) -> None:
    """Of a rule that asks for the field's own share: what can be asked on a field that has one."""
    weight = waves(4, phase=1.0)
    integrated = Integrated.ensure(rule(Linear(weight), segment))
    _check_shape(integrated, segment)
    close(
        integrated.share,
        segment.step * weight,
        "On a linear field the share is not w ⊙ (end − start)",
    )
    _check_ends(integrated, Linear(weight), segment)


def _check_rule(
    rule: Rule, segment: Segment, complete: bool, order: float | None, linear: bool
) -> None:
    count, references, batch = segment.leading
    weight = waves(4, phase=1.0)
    tally = CountedField(Function(smooth))
    integrated = Integrated.ensure(rule(tally, segment))
    share = integrated.share
    _check_shape(integrated, segment)
    claimed = as_rule(rule).gradients
    if claimed is not None:
        rows = count * references * batch
        say(
            tally.tally.gradients == claimed * rows,
            f"rule.gradients says {claimed} for each piece, but {tally.tally.gradients} were evaluated for {rows} pieces.",
        )
    if linear:
        close(
            _share(rule, Linear(weight), segment),
            segment.step * weight,
            "On a linear field the share is not w ⊙ (end − start)",
        )
    _check_ends(integrated, Function(smooth), segment)
    if complete:
        _check_error(integrated, segment, linear)
    still = Segment(segment.start, segment.start, segment.clock)
    close(
        _share(rule, Function(smooth), still),
        torch.zeros_like(share),
        "Pieces of no length have a share",
    )
    _check_independence(rule, segment, integrated)
    _check_paid(rule, segment, integrated)
    if complete:
        coarse, fine = _gap(rule, 32), _gap(rule, 64)
        say(fine < 0.05, f"Over 64 pieces the shares miss the change of F by {fine:.3g} of it.")
        if order is not None and coarse > 1e-12:
            observed = float(torch.tensor(coarse / max(fine, 1e-300)).log2())
            say(observed > order - 0.3, f"The error falls with order {observed:.2f}, not {order}.")


def _check_shape(integrated: Integrated, segment: Segment) -> None:
    share = integrated.share
    say(
        isinstance(share, Tensor),
        f"The rule returned a {type(share).__name__}, not a share or an ig.rules.Integrated.",
    )
    say(
        share.shape == segment.start.shape,
        f"The share has shape {describe(share.shape)}; for this segment it must be {describe(segment.start.shape)} (K, R, B, *s).",
    )
    say(
        share.dtype == segment.start.dtype,
        f"The share is {share.dtype} for a segment of {segment.start.dtype}.",
    )
    say(bool(torch.isfinite(share).all()), "The share holds NaN or infinity.")
    for name, numbers in (
        ("error", integrated.error),
        ("begin", integrated.begin),
        ("end", integrated.end),
    ):
        if numbers is not None:
            say(
                numbers.shape == segment.leading,
                f"Integrated.{name} has shape {describe(numbers.shape)}; one for each piece is {describe(segment.leading)} (K, R, B).",
            )
    say(
        not bool((integrated.error < 0).any()),
        "Integrated.error is negative; it is the L2 error of each piece.",
    )


def _check_ends(integrated: Integrated, field: Field, segment: Segment) -> None:
    """F at the ends, where the rule says that it knows it."""
    for name, value, points in (
        ("begin", integrated.begin, segment.start),
        ("end", integrated.end, segment.end),
    ):
        if value is not None:
            truth = field.value(points, 3)
            close(
                torch.where(value.isnan(), truth, value),
                truth,
                f"Integrated.{name} is not F at the {'start' if name == 'begin' else 'end'} of each piece (NaN or None where the rule does not know)",
            )


def _check_error(integrated: Integrated, segment: Segment, linear: bool) -> None:
    """The error that is claimed, beside that of the share: of all of it where the integral is
    known, else of its sum."""
    field = Function(smooth)
    if linear:
        wrong = norm(
            integrated.share - Integrated.ensure(GaussLegendre(48)(field, segment)).share, 3
        )
    else:
        change = field.value(segment.end, 3) - field.value(segment.start, 3)
        # A map that misses a change by so much is at least so far from one that does not.
        wrong = (total(integrated.share, 3) - change).abs() / segment.start[0, 0, 0].numel() ** 0.5
    least = wrong / _OPTIMISM - 1e-9 * norm(integrated.share, 3)
    worst = int((least - integrated.error).nan_to_num(nan=-torch.inf).argmax())
    claimed, true = float(integrated.error.flatten()[worst]), float(wrong.flatten()[worst])
    say(
        not bool((integrated.error < least).any()),
        f"Integrated.error claims {claimed:.3g} for a piece whose share is wrong by {true:.3g}: an error that nobody estimated is NaN.",
    )


def _check_independence(rule: Rule, segment: Segment, integrated: Integrated) -> None:
    for rows in (1, 5):
        field = Function(smooth)
        field.packer = BatchSizer(rows)
        close(
            _share(rule, field, segment),
            integrated.share,
            f"With {rows} rows to a model call the share is another one",
        )
    pieces, references, batch = segment.leading
    for k in range(pieces):
        single = slice(k, k + 1)
        part = Segment(
            segment.start[single],
            segment.end[single],
            (segment.clock[0][single], segment.clock[1][single]),
        )
        alone = Integrated.ensure(rule(Function(smooth), part))
        among = Integrated(integrated.share[single], integrated.error[single])
        # A rule that works to a tolerance asks more of a piece where others leave room.
        _check_near(
            alone, among, f"The share of piece {k} depends on the other pieces of its stack"
        )
    for r in range(references):
        single = slice(r, r + 1)
        # Random nodes are stratified over the references; which of them this is stands in its
        # reference_block.
        part = Segment(
            segment.start[:, single],
            segment.end[:, single],
            segment.clock,
            reference_block=(r, references),
        )
        close(
            _share(rule, Function(smooth), part),
            integrated.share[:, single],
            f"The share of reference {r} depends on the references beside it",
        )
    for b in range(batch):
        single = slice(b, b + 1)
        part = Segment(segment.start[:, :, single], segment.end[:, :, single], segment.clock)
        close(
            _share(rule, Function(smooth), part),
            integrated.share[:, :, single],
            f"The share of example {b} depends on the others of its batch",
        )


def _check_paid(rule: Rule, segment: Segment, integrated: Integrated) -> None:
    """The same segment from a path that has paid for its ends: what is handed on may save
    gradients, and changes nothing else."""
    field = Function(smooth)
    at_start, at_end = (
        Evaluation(field.value(points, 3), field.gradient(points, 3))
        for points in (segment.start, segment.end)
    )
    paid = Integrated.ensure(rule(field, replace(segment, at_start=at_start, at_end=at_end)))
    _check_near(
        paid,
        integrated,
        "Where the path has paid for the ends of a segment (at_start, at_end), the share is another one",
    )
    _check_ends(paid, Function(smooth), segment)


def _check_near(integrated: Integrated, expected: Integrated, message: str) -> None:
    """Two shares of the same piece, equal but for the errors that they claim: rules that work to a
    tolerance may look elsewhere."""
    room = _OPTIMISM * float((integrated.error + expected.error).nan_to_num(0, 0).max())
    if not room or not apart(integrated.share, expected.share) <= room:
        close(integrated.share, expected.share, message)


def _share(rule: Rule, field: Field, segment: Segment) -> Tensor:
    return Integrated.ensure(rule(field, segment)).share


def _gap(rule: Rule, pieces: int) -> float:
    """What the shares miss of the change of F, relative to it, on a straight line."""
    field, start, end = Function(smooth), waves(1, 2, 4, phase=2.0), 1 + waves(2, 4, phase=0.3)
    shares = torch.stack(
        [_share(rule, field, segment).sum(0) for segment in Straight(pieces)(field, start, end)]
    ).sum(0)
    change = field.value(end) - field.value(start, 2)
    return float(((total(shares, 2) - change) / change).abs().max())
