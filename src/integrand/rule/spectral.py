"""Clenshaw–Curtis nodes, doubled until they agree: what is quickest where F is smooth all along a line.

    share = Δ ⊙ Σ_j w_j ∇F(t_j),   t_j = (1 − cos(π j / n)) / 2,   n = 8, 16, 32

Each level uses the nodes of the one before. The error is what the last doubling changed, which is the error of the level before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..segment import Evaluation
from .intervals import Intervals, Lines
from .quadrature import ClenshawCurtis

_LEVELS = (8, 16, 32)


def spectral(lines: Lines, enough: Tensor, room: Tensor) -> tuple[Intervals, Tensor]:
    """One interval for every line (M,), with its known error, and the gradients it took (M,).

    enough  (M,) the L2 error that is good enough;  room (M,) the gradients each line may take
    """
    count = len(lines)
    device = lines.start.device
    found, step = torch.empty_like(lines.start), lines.end - lines.start
    error = lines.start.new_full((count,), float("inf"))
    nodes = torch.zeros(count, dtype=torch.long, device=device)
    ends = lines.start.new_empty(2, count)
    busy = torch.arange(count, device=device)
    seen = lines.start.new_empty(0, count, *lines.start.shape[1:])
    for level in _LEVELS:
        first = level == _LEVELS[0]
        nodes_at, weights = (torch.tensor(column, dtype=torch.float64) for column in ClenshawCurtis(level).table())
        new = nodes_at if first else nodes_at[1::2]  # every other node is one of the level before
        value, gradient = _evaluated(lines, busy, new.to(lines.start))
        if first:
            ends[0, busy], ends[1, busy] = value[0], value[-1]
            seen = gradient
        else:
            merged = gradient.new_empty(level + 1, *gradient.shape[1:])
            merged[0::2], merged[1::2] = seen, gradient
            seen = merged
        now = torch.tensordot(weights.to(lines.start), seen, 1)
        if not first:
            error[busy] = ((now - found[busy]) * step[busy]).flatten(1).norm(dim=1)
        found[busy] = now
        nodes[busy] = level + 1
        # Twice as many are worth it only where this doubling changed little.
        close = error[busy] < 0.1 * (now * step[busy]).flatten(1).norm(dim=1)
        go = ((error[busy] > enough[busy]) & (close | first) & (room[busy] >= 2 * level + 1)).nonzero()[:, 0]
        if not len(go):
            break
        busy, seen = busy[go], seen[:, go]
    rows = torch.arange(count, device=device)
    zeros = torch.zeros_like(error)
    made = Intervals(rows, lines.chain, zeros, zeros + 1, found, ends[1], ends[1] - ends[0], error)
    return made, nodes


def _evaluated(lines: Lines, which: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n, m) and gradients (n, m, \\*s) at the points t (n,) of the lines ``which`` (m,)."""
    rows = which.repeat(len(t))
    places = t.repeat_interleave(len(which))
    value = places.new_empty(len(rows))
    gradient = lines.start.new_empty(len(rows), *lines.start.shape[1:])

    def make(part: slice) -> Tensor:
        return lines.points(rows[part], places[part])

    def keep(part: slice, seen: Evaluation) -> None:
        value[part], gradient[part] = seen.value, seen.gradient

    lines.field.stream(lines.example[rows], make, keep, lines.start[0])
    shape = (len(t), len(which))
    return value.reshape(shape), gradient.reshape(*shape, *lines.start.shape[1:])
