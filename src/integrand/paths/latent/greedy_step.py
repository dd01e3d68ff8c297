"""Steps in latent space: interpolation of two codes, and the step of Guided IG.

    lerp  (1 − t) a + t c        slerp  (sin((1 − t)θ) a + sin(tθ) c) / sin θ,   θ the angle between a and c

All of it is done for every row at once; rows that are done stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..greedy_step import at_most, cheapest, group_of, shut

_CLOSE = 1e-9  # of the whole way: distances that count as none
_PARALLEL = 0.9995  # cosines beyond this have no plane to turn in
_SHORT = 1e-9  # nor have codes of this length


def mixed(a: Tensor, c: Tensor, t: Tensor, *, slerp: bool) -> Tensor:
    """The code ``t`` (…) of the way from ``a`` to ``c`` (…, L): straight, or turned along the arc
    between them."""
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
    z: Tensor,
    goal: Tensor,
    slope: Tensor,
    left: Tensor,
    total: Tensor,
    fraction: float,
    *,
    slerp: bool,
) -> Tensor:
    """From codes z (N, L) on towards ``goal``, until an L1 distance of ``left`` (N,) remains; the
    flattest coordinates go first.

    Groups of the ``fraction`` of all coordinates, among those that have not arrived; the last one
    goes a fraction of its way, straight or along an arc. ``total`` (N,) is the distance at the
    start of the walk. Rows do not look at each other.
    """
    distance = (goal - z).abs()
    arrived = at_most(distance, _CLOSE * distance.amax(1, keepdim=True))
    room = distance * (1 - arrived)
    ahead = torch.where(room.sum(1) > 0, distance.sum(1) - left, 0)[:, None]
    cost = shut(slope.abs(), arrived)
    moved = cheapest(cost, room, ahead, _CLOSE * total[:, None], group_of(fraction, z.shape[1]))
    moved_fully = at_most(cost, moved.full).bool()
    moved_partly = at_most(cost, moved.partly).bool() & ~moved_fully
    # Coordinates that stay are left out of the angle.
    partly = mixed(
        torch.where(moved_partly, z, 0),
        torch.where(moved_partly, goal, 0),
        moved.fraction[:, 0],
        slerp=slerp,
    )
    return torch.where(moved_fully, goal, torch.where(moved_partly, partly, z))
