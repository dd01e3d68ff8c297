"""Clenshaw–Curtis nodes, doubled until successive results agree; fastest where F is smooth along
the line.

    share = Δ ⊙ Σ_j w_j ∇F(t_j),   t_j = (1 − cos(π j / n)) / 2,   n = 8, 16, 32

Each level uses the nodes of the one before, and the first holds two coarser ones. With d_n what the
doubling to n changed, which is the error of the level before, the error of level n is taken as

    e_n = d_n · min(1, 2 d_n / d_{n/2})

or what the share misses of F's change, if that is more: a peak between all nodes shows there only.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...core.segment import Evaluation
from ...core.shapes import flattened, norm
from ..base import missed
from ..quadrature import ClenshawCurtis
from .intervals import Floats, Integers, Intervals, Lines, as_numpy, on_device

FIRST = 9
"""Gradients of the first level."""

_LEVELS = (8, 16, 32)
_FASTEST = (
    0.05  # a doubling is not believed to gain more than twenty times what the one before it gained
)
_GAINING = 0.9  # a line whose first doublings gain less than this is not doubled again …
_SETTLING = 0.5  # … nor one that still gains less than this later: smooth lines gain more and more


def spectral(lines: Lines, enough: Floats, room: Integers) -> tuple[Intervals, Integers]:
    """One interval for every line (M,), with its known error, and the gradients it took (M,).

    Args:
        enough: (M,) the L2 error that is good enough;  room (M,) the gradients each line may take.
    """
    count = len(lines)
    device = lines.start.device
    mean, step = torch.empty_like(lines.start), lines.step
    sufficient, left = on_device(enough, mean), on_device(room, mean)
    error = lines.start.new_full((count,), float("inf"))
    nodes = torch.zeros(count, dtype=torch.long, device=device)
    ends = lines.start.new_empty(2, count)
    busy = torch.arange(count, device=device)
    gradients = lines.start.new_empty(0, count, *lines.start.shape[1:])
    before = error  # (m,) what the last doubling changed
    for level in _LEVELS:
        first = level == _LEVELS[0]
        at = torch.tensor(ClenshawCurtis(level).table()[0], dtype=torch.float64)
        new = at if first else at[1::2]  # every other node is one of the level before
        value, gradient = _evaluated(lines, busy, new.to(lines.start))
        if first:
            ends[0, busy], ends[1, busy] = value[0], value[-1]
            gradients = gradient
            before = norm((_mean(gradients[::2]) - _mean(gradients[::4])) * step[busy])
        else:
            merged = gradient.new_empty(level + 1, *gradient.shape[1:])
            merged[0::2], merged[1::2] = gradients, gradient
            gradients = merged
        now = _mean(gradients)
        changed = norm((now - _mean(gradients[::2])) * step[busy])
        rate = torch.where(before > 0, changed / before, 1).clamp(_FASTEST, 1)
        off = missed(flattened(now * step[busy], 1).sum(1), ends[0, busy], ends[1, busy])
        mean[busy], nodes[busy] = now, level + 1
        error[busy] = torch.maximum(changed * (2 * rate).clamp_max(1), off)
        gains = rate < (_GAINING if first else _SETTLING)
        unmet = (error > sufficient)[busy] & (left[busy] >= 2 * level + 1)
        go = (unmet & gains).nonzero()[:, 0]
        if not len(go):
            break
        busy, gradients, before = busy[go], gradients[:, go], changed[go]
    begin, finish, known = (as_numpy(numbers) for numbers in (ends[0], ends[1], error))
    clock = (np.zeros_like(known), np.ones_like(known))
    rows = np.arange(count)
    change = finish - begin
    return Intervals.of(rows, lines.chain, clock, mean, finish, change, known), as_numpy(nodes)


def _mean(gradients: Tensor) -> Tensor:
    """The mean gradient (m, \\*s) by the gradients at n + 1 nodes (n+1, m, \\*s)."""
    weights = torch.tensor(ClenshawCurtis(len(gradients) - 1).table()[1], dtype=torch.float64)
    mean: Tensor = torch.tensordot(weights.to(gradients), gradients, 1)
    return mean


def _evaluated(lines: Lines, chosen: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n, m) and gradients (n, m, \\*s) at points t (n,) of the lines ``chosen`` (m,)."""
    rows = chosen.repeat(len(t))
    places = t.repeat_interleave(len(chosen))
    value = places.new_empty(len(rows))
    gradient = lines.start.new_empty(len(rows), *lines.start.shape[1:])

    def make(part: slice) -> Tensor:
        return lines.points(rows[part], places[part])

    def keep(part: slice, evaluation: Evaluation) -> None:
        value[part], gradient[part] = evaluation.value, evaluation.gradient

    lines.field.stream(lines.example[rows], make, keep, lines.start[0])
    shape = (len(t), len(chosen))
    return value.reshape(shape), gradient.reshape(*shape, *lines.start.shape[1:])
