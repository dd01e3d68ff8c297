"""What every rule promises."""

from __future__ import annotations

import torch
from torch import Tensor

from ..field import Field, Function, Linear, Metered, Packer
from ..field.modes import gradients
from ..path.straight import Straight
from ..rule.base import Integrated, Rule
from ..segment import Segment, polyline
from ..shapes import describe, total
from .assertions import close, say
from .problem import smooth, waves


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
    say(
        share.shape == segment.start.shape,
        f"The share has shape {describe(share.shape)}; for this segment it must be {describe(segment.start.shape)} (K, R, B, *s).",
    )
    say(share.dtype == segment.start.dtype, f"The share is {share.dtype} for a segment of {segment.start.dtype}.")
    say(bool(torch.isfinite(share).all()), "The share holds NaN or infinity.")
    claimed = getattr(rule, "gradients", None)
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
    still = Segment(segment.start, segment.start, segment.clock)
    close(_share(rule, Function(smooth), still), torch.zeros_like(share), "Pieces of no length have a share")
    _check_independence(rule, segment, share)
    if complete:
        coarse, fine = _gap(rule, 32), _gap(rule, 64)
        say(fine < 0.05, f"Over 64 pieces the shares miss the change of F by {fine:.3g} of it.")
        if order is not None and coarse > 1e-12:
            observed = float(torch.tensor(coarse / max(fine, 1e-300)).log2())
            say(observed > order - 0.3, f"The error falls with order {observed:.2f}, not {order}.")


def _check_independence(rule: Rule, segment: Segment, share: Tensor) -> None:
    for rows in (1, 5):
        field = Function(smooth)
        field.packer = Packer(rows)
        close(_share(rule, field, segment), share, f"With {rows} rows to a model call the share is another one")
    for k in range(segment.leading[0]):
        one = slice(k, k + 1)
        part = Segment(segment.start[one], segment.end[one], (segment.clock[0][one], segment.clock[1][one]))
        close(
            _share(rule, Function(smooth), part),
            share[one],
            f"The share of piece {k} depends on the other pieces of its stack",
        )
    for b in range(segment.leading[2]):
        one = slice(b, b + 1)
        part = Segment(segment.start[:, :, one], segment.end[:, :, one], segment.clock)
        close(
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
