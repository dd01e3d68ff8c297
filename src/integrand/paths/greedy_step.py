"""The step of greedy paths: coordinates of least cost move first, until a distance is covered.

Groups before the last go all the way that is open to them, the last goes a fraction of it, all
alike; which they are is read off the costs:

    cost ≤ full  all the way        full < cost ≤ partly  a fraction        above  not at all

Rows are decided all at once and do not look at each other. Masks are numbers, 0 or 1: on a CPU
arithmetic takes a tenth of the time that choosing by booleans does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GreedyStep:
    """What moves, for every row (M, 1): costs up to ``full`` all the way, dearer ones up to
    ``partly`` a ``fraction`` of it."""

    full: Tensor
    partly: Tensor
    fraction: Tensor


def group_of(fraction: float, coordinates: int) -> int:
    """How many move at a time: the rank of numpy's lower quantile, counted over all coordinates."""
    return int((coordinates - 1) * fraction) + 1


def cheapest(
    cost: Tensor, room: Tensor, distance: Tensor, enough: Tensor, group: int, tie: float = 0.0
) -> GreedyStep:
    """The step that covers ``distance`` (M, 1): ``group`` coordinates at a time, those next that
    ``cost`` (M, n) least.

    A negative distance is gone back by the first group. Each group is found by selection; nothing
    is sorted.

    Args:
        room: (M, n) how far each may move; 0 for those whose cost is ``shut``.
        enough: (M, 1) distances that count as covered.
        tie: costs within this fraction of the dearest of a group move with it.
    """
    full = partly = torch.full_like(distance, -torch.inf, dtype=cost.dtype)
    fraction = torch.zeros_like(distance)
    rest, busy = distance, distance.abs() > enough
    for _ in range(-(-cost.shape[1] // group)):
        if not bool(busy.any()):
            break
        left = shut(cost, at_most(cost, full))
        limit = _within(_smallest(left, group), tie)
        gained = at_most(left, limit).to(room).mul_(room).sum(1, keepdim=True)
        last = busy & (rest <= gained)
        partly = torch.where(last, limit, partly)
        fraction = torch.where(last, rest / gained, fraction)
        busy = busy & ~last
        full = torch.where(busy, limit, full)
        rest = torch.where(busy, rest - gained, rest)
        busy = busy & (rest > enough)
    return GreedyStep(full, partly, fraction)


def at_most(numbers: Tensor, limit: Tensor | float) -> Tensor:
    """1 where ``numbers`` (M, n) are at most ``limit``, else 0."""
    mask = torch.empty_like(numbers)
    return torch.le(numbers, limit, out=mask)


def shut(cost: Tensor, mask: Tensor) -> Tensor:
    """The cost (M, n), out of reach where ``mask`` is 1."""
    return torch.add(cost, mask, alpha=torch.finfo(cost.dtype).max / 4)


def _within(limit: Tensor, tie: float) -> Tensor:
    """The cost up to which coordinates move; below those that are out of reach."""
    most = torch.finfo(limit.dtype).max / 8
    limit = limit.clamp_max(most)
    return (limit + tie * limit.abs()).clamp_max(most)


def _smallest(numbers: Tensor, k: int) -> Tensor:
    """The k-th smallest of every row (M, n) → (M, 1), by selection: nothing is sorted."""
    if (
        numbers.device.type == "cpu"
    ):  # NumPy selects with vector instructions, in a twentieth of torch's time
        return torch.from_numpy(np.partition(numbers.numpy(), k - 1, axis=1)[:, k - 1 : k].copy())
    return _selected(numbers, k)


def _selected(numbers: Tensor, k: int) -> Tensor:
    return numbers.kthvalue(k, dim=1, keepdim=True).values
