"""Moves in latent space: mixing two codes, and the step of Guided IG.

    lerp  (1 − t) a + t c        slerp  (sin((1 − t)θ) a + sin(tθ) c) / sin θ,   θ the angle between a and c

All of it is done for every row at once; rows that are done stay.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CLOSE = 1e-9  # of the whole way: distances that count as none
_PARALLEL = 0.9995  # cosines beyond this have no plane to turn in
_SHORT = 1e-9  # nor have codes of this length


def mixed(a: Tensor, c: Tensor, t: Tensor, *, slerp: bool) -> Tensor:
    """The code ``t`` (…) of the way from ``a`` to ``c`` (…, L): straight, or turned along the arc between them."""
    straight = torch.lerp(a, c, t[..., None])
    if not slerp:
        return straight
    lengths = a.norm(dim=-1), c.norm(dim=-1)
    scale = (lengths[0] * lengths[1]).clamp_min(torch.finfo(a.dtype).tiny)
    cosine = ((a * c).sum(-1) / scale).clamp(-1, 1)
    flat = (cosine.abs() > _PARALLEL) | (lengths[0] < _SHORT) | (lengths[1] < _SHORT)
    angle = torch.where(flat, 1, cosine.acos())
    turned = ((1 - t) * angle).sin()[..., None] * a + (t * angle).sin()[..., None] * c
    return torch.where(flat[..., None], straight, turned / angle.sin()[..., None])


def guided(
    z: Tensor, goal: Tensor, slope: Tensor, left: Tensor, whole: Tensor, fraction: float, *, slerp: bool
) -> Tensor:
    """From codes z (N, L) on towards ``goal``, until an L1 distance of ``left`` (N,) remains; the flattest coordinates go first.

    Among the coordinates that have not arrived, those whose |slope| is at most the ``fraction`` quantile of all (arrived ones count
    as infinitely steep, the quantile is an order statistic) go together; all the way if that is not too far, and then the
    next. ``whole`` (N,) is the distance at the start of the walk. Rows do not look at each other.
    """
    steep = slope.abs()
    order = math.floor(fraction * (z.shape[1] - 1)) + 1
    near = _CLOSE * (goal - z).abs().amax(1, keepdim=True)
    busy = torch.ones_like(left, dtype=torch.bool)
    while True:
        way = (goal - z).abs()
        ahead = way.sum(1) - left
        movable = way > near
        busy = busy & (ahead.abs() > _CLOSE * whole) & movable.any(1)
        if not bool(busy.any()):
            return z
        rank = torch.where(movable, steep, torch.inf)
        chosen = movable & (rank <= rank.kthvalue(order, dim=1, keepdim=True).values)
        part = ahead / torch.where(chosen, way, 0).sum(1)
        full = part > 1
        # Coordinates that stay are left out of the angle.
        moved = mixed(torch.where(chosen, z, 0), torch.where(chosen, goal, 0), part.clamp_max(1), slerp=slerp)
        moved = torch.where(full[:, None], goal, moved)
        z = torch.where(chosen & busy[:, None], moved, z)
        busy = busy & full
