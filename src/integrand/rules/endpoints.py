"""Values of F at the ends of pieces: known from the path, the rule or neighbours, else
evaluated."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.segment import Evaluation, Segment
from ..fields import Field
from .base import Integrated, row_picker


def moving_pieces(segment: Segment) -> Tensor:
    """(K, R·B): which pieces have a length."""
    k, r, b = segment.leading
    moving = torch.zeros(k * r * b, dtype=torch.bool, device=segment.start.device)
    moving[segment.moving()] = True
    return moving.reshape(k, r * b)


def is_chained(segment: Segment) -> bool:
    """Whether each piece of the stack begins where the one before it ends."""
    return torch.equal(segment.start[1:], segment.end[:-1])


def filled(field: Field, points: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
    """``known`` values (K, R, B) of F at ``points`` (K, R, B, \\*s), with those that are ``wanted``
    evaluated; a tensor of its own."""
    place, values = wanted.reshape(-1).nonzero()[:, 0], known.reshape(-1).clone()
    if not len(place):
        return values.reshape(known.shape)
    pick = row_picker(points, place)

    def use(part: slice, evaluation: Evaluation) -> None:
        values[place[part]] = evaluation.value

    def make(part: slice) -> Tensor:
        return pick(torch.arange(part.start, part.stop, device=place.device))

    field.stream(place % points.shape[2], make, use, points[0, 0, 0], gradient=False)
    return values.reshape(known.shape)


def ends_of(field: Field, segment: Segment, integrated: Integrated) -> tuple[Tensor, Tensor]:
    """F at both ends of every piece that moves (K, R, B): what the path or the rule knows, the rest
    evaluated."""
    begin, end = (
        _known(segment.at_start, integrated.begin, integrated),
        _known(segment.at_end, integrated.end, integrated),
    )
    moving = moving_pieces(segment).reshape(segment.leading)
    chained = is_chained(segment)
    if chained:
        begin = torch.cat([begin[:1], torch.where(begin[1:].isnan(), end[:-1], begin[1:])])
    begin = filled(field, segment.start, begin, moving & begin.isnan())
    if chained:
        end = torch.cat([torch.where(end[:-1].isnan(), begin[1:], end[:-1]), end[-1:]])
    return begin, filled(field, segment.end, end, moving & end.isnan())


def _known(paid: Evaluation | None, from_rule: Tensor | None, integrated: Integrated) -> Tensor:
    """F at one end of the pieces (K, R, B), from the path or from the rule; NaN where neither knows
    it."""
    if paid is not None:
        return paid.value
    return torch.full_like(integrated.error, float("nan")) if from_rule is None else from_rule
