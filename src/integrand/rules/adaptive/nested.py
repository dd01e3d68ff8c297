"""Adaptive Simpson integration between ends whose gradients the path has evaluated.

    T_n = Δ ⊙ (½ g_0 + g_1 + … + ½ g_n) / n,    S_n = (4 T_n − T_{n/2}) / 3

The first node is the middle; where Simpson's rule and the trapezoid it is made of disagree, or the
sum misses the change of F, the number of pieces is doubled. Steps of such paths are short, so most
need the middle only.

Each step is refined by its own size, because when it is integrated the later ones are not known
yet. Where steps go one way that is more than the map needs, where they cancel it is less; the map
is judged by itself when the path is done (``integration.assemble``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.segment import Evaluation, Segment
from ...core.shapes import flattened, norm, total, unravelled
from ...fields import Field
from ..base import Integrated, least_norm, mean_gradient, missed

_KINKED = 2.5  # Simpson's error on a kink, in differences to the trapezoid; where F is smooth it is far less
_RATE = 2.0  # an error of the sum is taken to be at most this much in the vector, also where F hardly changes


def between(field: Field, segment: Segment, tol: float, max_gradients: int) -> Integrated:
    """Each piece's share to a relative L2 error of ``tol``, from the evaluations at its ends and as
    many between as that takes."""
    at_start = segment.at_start or _evaluate(field, segment.start)
    at_end = segment.at_end or _evaluate(field, segment.end)
    leading, inner = segment.leading, segment.start.shape[3:]
    step = segment.step.reshape(-1, *inner)
    coarse = step * ((at_start.gradient + at_end.gradient) / 2).reshape(step.shape)
    share, error = torch.zeros_like(step), step.new_zeros(len(step))
    begin, end = at_start.value.reshape(-1), at_end.value.reshape(-1)
    busy, least = segment.moving(), least_norm(flattened(step != 0, 1).sum(1).to(step))
    pieces = 2
    while len(busy):
        inside = _mean_at_odd_nodes(field, segment, busy, pieces)
        fine = (coarse[busy] + inside * step[busy]) / 2
        best = (4 * fine - coarse[busy]) / 3
        size = norm(best)
        # With one kink anywhere Simpson's rule errs by 1⅔ of what it differs from the trapezoid, on
        # average, and by 4 at most.
        differs = _KINKED * norm(best - fine)
        change = (end - begin)[busy].abs()
        # A step across the slope changes F by nothing, and hides nothing for that.
        rate = torch.where(change > 0, size / change, _RATE).clamp_max(_RATE)
        defect = missed(total(best, 1), begin[busy], end[busy])
        # However little of a map there is, what it misses is in no vector smaller than this.
        wrong = torch.maximum(
            differs, torch.maximum(torch.minimum(defect * rate, size), defect * least[busy])
        )
        share[busy], error[busy], coarse[busy] = best, wrong.nan_to_num(torch.inf, torch.inf), fine
        busy = (
            busy[(wrong > tol * size) & wrong.isfinite()]
            if 2 * pieces <= max_gradients
            else busy[:0]
        )
        pieces *= 2
    return Integrated(
        share.reshape(*leading, *inner), error.reshape(leading), at_start.value, at_end.value
    )


def _evaluate(field: Field, points: Tensor) -> Evaluation:
    """F and ∇F at points (K, R, B, \\*s): the one end of a path that its walk had no need to look
    at."""
    leading, inner = points.shape[:3], points.shape[3:]
    index = torch.arange(leading[2], device=points.device).expand(leading).reshape(-1)
    return field.rows(points.reshape(-1, *inner), index).reshape(*leading)


def _mean_at_odd_nodes(field: Field, segment: Segment, place: Tensor, pieces: int) -> Tensor:
    """The mean gradient at the odd nodes j/pieces of the pieces ``place`` (m, \\*s)."""
    k, r, b = unravelled(place, segment.leading)
    clock = torch.tensor([0.0, 1.0], dtype=segment.start.dtype, device=segment.start.device)
    sub_segment = Segment(
        segment.start[k, r, b][None, None], segment.end[k, r, b][None, None], (clock[:1], clock[1:])
    )
    nodes = torch.arange(1, pieces, 2, dtype=torch.float64) / pieces
    weights = torch.full_like(nodes, 1 / len(nodes))
    like = segment.start
    return mean_gradient(field.at(b), sub_segment, nodes.to(like), weights.to(like))[0, 0]
