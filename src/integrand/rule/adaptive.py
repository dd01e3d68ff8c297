"""A tolerance instead of a number of nodes.

    share = Δ ⊙ Σ_k h_k c_k            c_k: the mean gradient over interval k of the segment, h_k its length

Every interval's mean gradient is a *chord*: exactly complete for networks of linear maps and elementwise functions, the mean of its
end gradients otherwise (``Field.evaluate_chords``). Completeness is one number and says nothing of errors that cancel between
features, so the error is judged on the vector: an interval whose chord resembles its neighbours' is believed, one that does
not is cut. With r the relative difference to the neighbours (in h-weighted attributions), the interval's error is taken as

    e = ‖share‖ · φ(r),    φ(r) = 0.45 r² / (1 + 0.6 r²)

and since the errors of different intervals are nearly independent, the segment's is √Σe². From there the number of pieces each
interval needs is the solution of "fewest pieces with √Σ e² p⁻³ ≤ tolerance", p ∝ √e, so one or two rounds suffice. Rows
(reference × example) are refined together and leave when they are done. docs/design/0003-adaptive.md has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..field import Field
from ..parts import part
from ..segment import Evaluation, Segment
from ..shapes import over
from .base import Integrated

_START = 4  # intervals of the first look …
_GRADE = 2.0  # … at t = (j/4)²: most of what happens, happens near the baseline
_SAFETY = 1.3  # the true error stays below the estimate this much more often than not
_MOST_PIECES = 8  # an interval is cut into, in one round
_BLOCK_ELEMENTS = 1 << 25  # rows are refined in blocks whose chords hold about this many numbers


@part
class Adaptive:
    """As many gradients as the tolerance needs: the relative L2 error of each row's share is brought below ``tol``.

    tol            relative to the norm of the row's share
    max_gradients  per row; a row that needs more is returned as it is, with its error, and is not ``converged``

    Returns shares with their estimated error. Cost: about 5 to 40 gradients per row at 5 % on the networks measured, fewer on smooth ones.
    """

    tol: float = 0.05
    max_gradients: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1:
            raise InputError(f"tol is a relative error between 0 and 1, such as 0.05, not {self.tol}.")
        if self.max_gradients < _START + 1:
            raise InputError(f"max_gradients is at least {_START + 1}, not {self.max_gradients}.")

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        leading, inner = segment.leading, segment.start.shape[3:]
        moving = (segment.start != segment.end).reshape(*leading, -1).any(-1).reshape(-1).nonzero()[:, 0]
        share = segment.start.new_zeros(leading[0] * leading[1] * leading[2], *inner)
        error = share.new_zeros(len(share))
        done = torch.ones(len(share), dtype=torch.bool, device=share.device)
        size = max(1, _BLOCK_ELEMENTS // (32 * max(1, inner.numel())))
        for place in torch.split(moving, size):
            k, r, b = torch.unravel_index(place, leading)
            lines = _Lines(field, segment.start[k, r, b], segment.end[k, r, b], b)
            share[place], error[place], done[place] = self._refine(lines)
        return Integrated(share.reshape(*leading, *inner), error.reshape(leading), done.reshape(leading))

    def _refine(self, lines: _Lines) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.arange(len(lines.start), device=lines.start.device)
        grid = torch.linspace(0, 1, _START + 1, dtype=lines.start.dtype, device=rows.device) ** _GRADE
        known = lines.chords(rows.repeat_interleave(_START), grid[:-1].repeat(len(rows)), grid[1:].repeat(len(rows)))
        spent = torch.full_like(rows, _START + 1)
        while True:
            share, errors = known.sums(len(rows)), known.errors()
            error = _SAFETY * errors.square().new_zeros(len(rows)).index_add_(0, known.row, errors.square()).sqrt()
            goal = self.tol * share.flatten(1).norm(dim=1)
            busy = (error > goal) & (spent < self.max_gradients)
            if not bool(busy.any()):
                return share, error, error <= goal
            pieces = self._pieces(errors, known.row, goal / _SAFETY, len(rows))
            room = (self.max_gradients - spent).clamp_min(0)
            pieces = torch.where(busy[known.row], pieces, 1)
            cut = pieces > 1
            added = torch.zeros_like(spent).index_add_(0, known.row[cut], pieces[cut] + 1)
            # The last round of a row that would overspend cuts only in two.
            pieces = torch.where(cut & (added > room)[known.row], 2, pieces)
            spent = spent.index_add_(0, known.row[cut], pieces[cut] + 1)
            known = known.without(cut).joined(lines.cut(known, cut, pieces))

    @staticmethod
    def _pieces(errors: Tensor, row: Tensor, goal: Tensor, rows: int) -> Tensor:
        """The fewest pieces whose errors, falling like p^-3/2, add up (in squares) to the goal of their row."""
        root = errors.sqrt()
        total = errors.new_zeros(rows).index_add_(0, row, root)
        scale = (total / goal.square().clamp_min(torch.finfo(goal.dtype).tiny)).pow(1 / 3)
        pieces = (scale[row] * root).round().clamp(1, _MOST_PIECES).long()
        # Rounding may leave nothing to cut where something must be: then the worst interval of the row is.
        worst = errors >= errors.new_zeros(rows).scatter_reduce_(0, row, errors, "amax")[row]
        return torch.where(worst, pieces.clamp_min(2), pieces)


@dataclass(frozen=True, eq=False)
class _Intervals:
    """Intervals of several rows' segments, by row and then along it: [a, b] (n,), and Δ ⊙ mean gradient (n, \\*s)."""

    row: Tensor
    a: Tensor
    b: Tensor
    density: Tensor

    def sums(self, rows: int) -> Tensor:
        """Δ ⊙ ∫ gradient of each row (rows, \\*s)."""
        shares = self.density * over(self.b - self.a, self.density)
        return self.density.new_zeros(rows, *self.density.shape[1:]).index_add_(0, self.row, shares)

    def errors(self) -> Tensor:
        """What each interval may be wrong by (n,), judged by its neighbours."""
        length = self.b - self.a
        size = self.density.flatten(1).norm(dim=1) * length
        beside = self.row[1:] == self.row[:-1]
        jump = (self.density[1:] - self.density[:-1]).flatten(1).norm(dim=1) * beside
        met = torch.zeros_like(length)
        met[1:] += beside
        met[:-1] += beside
        jumps = torch.zeros_like(length)
        jumps[1:] += jump
        jumps[:-1] += jump
        difference = length * jumps / met.clamp_min(1)
        ratio = difference / size.clamp_min(torch.finfo(size.dtype).tiny)
        # A share of nothing beside a large one is as uncertain as its neighbours are large.
        doubt: Tensor = 0.45 * ratio**2 / (1 + 0.6 * ratio**2)
        return torch.maximum(size, difference * (ratio > 2)) * doubt

    def without(self, cut: Tensor) -> _Intervals:
        return _Intervals(self.row[~cut], self.a[~cut], self.b[~cut], self.density[~cut])

    def joined(self, other: _Intervals) -> _Intervals:
        row, a, b = (
            torch.cat([mine, theirs]) for mine, theirs in ((self.row, other.row), (self.a, other.a), (self.b, other.b))
        )
        order = torch.argsort(a, stable=True)
        order = order[torch.argsort(row[order], stable=True)]
        return _Intervals(row[order], a[order], b[order], torch.cat([self.density, other.density])[order])


@dataclass(frozen=True, eq=False)
class _Lines:
    """The straight lines that are integrated: start, end (M, \\*s), and the example each belongs to."""

    field: Field
    start: Tensor
    end: Tensor
    example: Tensor

    def cut(self, known: _Intervals, cut: Tensor, pieces: Tensor) -> _Intervals:
        """The chosen intervals in ``pieces`` equal parts each."""
        many = pieces[cut]
        row, a, b = (side[cut].repeat_interleave(many) for side in (known.row, known.a, known.b))
        part = torch.cat([torch.arange(int(n), device=row.device) for n in many]).to(a.dtype)
        whole = many.repeat_interleave(many).to(a.dtype)
        return self.chords(row, a + (b - a) * part / whole, a + (b - a) * (part + 1) / whole)

    def chords(self, row: Tensor, a: Tensor, b: Tensor) -> _Intervals:
        """The chords of intervals [a, b] (n,) of the lines ``row`` (n,), given along each line in order."""
        begins = torch.ones_like(row, dtype=torch.bool)
        begins[1:] = (row[1:] != row[:-1]) | ((a[1:] - b[:-1]).abs() > 1e-6)
        # Nodes: every interval's end, and before each run its start.
        place = torch.arange(len(row), device=row.device) + begins.cumsum(0)
        nodes = int(place[-1]) + 1
        lines, t = row.new_zeros(nodes), a.new_zeros(nodes)
        lines[place], t[place] = row, b
        lines[place[begins] - 1], t[place[begins] - 1] = row[begins], a[begins]
        first = torch.zeros(nodes, dtype=torch.bool, device=row.device)
        first[place[begins] - 1] = True
        interval = torch.full((nodes,), -1, device=row.device)
        interval[place] = torch.arange(len(row), device=row.device)
        density = self.start.new_empty(len(row), *self.start.shape[1:])

        def make(part: slice) -> Tensor:
            begin, end = self.start[lines[part]], self.end[lines[part]]
            return torch.lerp(begin, end, over(t[part], begin))

        def keep(part: slice, found: Evaluation) -> None:
            chord = interval[part] >= 0
            which = lines[part][chord]
            density[interval[part][chord]] = found.gradient[chord] * (self.end[which] - self.start[which])

        self.field.stream_chords(self.example[lines], first, make, keep, self.start[0])
        return _Intervals(row, a, b, density)
