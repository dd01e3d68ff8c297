"""A tolerance instead of a number of nodes.

    share = Δ ⊙ Σ_k h_k c_k            c_k: the mean gradient over interval k of the segment, h_k its length

Every interval's mean gradient is a *chord*: exactly complete if all operations of the network have chords, the mean of its end
gradients otherwise (``Field.evaluate_chords``). Completeness is one number and says nothing of errors that cancel between
features, so the error is judged on the vector: an interval whose chord resembles its neighbours' is believed, one that does
not is cut. With r the relative difference to the neighbours (in h-weighted attributions), the interval's error is taken as

    e = ‖share‖ · φ(r),    φ(r) = 0.45 r² / (1 + 0.6 r²)

or what the chord misses of F's change, if that is more. Errors of different intervals are nearly independent on networks with
kinks, so the segment's is √Σe². From there the number of pieces each interval needs is the solution of "fewest pieces with √Σ e² p⁻³ ≤ tolerance", p ∝ √e, so one or two rounds suffice. Rows
(reference × example) are refined together and leave when they are done. docs/design/0003-chords.md has the measurements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..field import Field
from ..parts import part
from ..segment import Segment
from .base import Integrated
from .intervals import Lines, blocks_of, lines_of

_START = 8  # intervals of the first look …
_GRADE = 2.0  # … at t = (j/8)²: most of what happens, happens near the baseline
_SAFETY = 1.1  # the estimate is raised by this; docs/design/0003-chords.md has how often it is then exceeded
_MOST_PIECES = 8  # an interval is cut into, in one round
_BLOCK_ELEMENTS = 1 << 25  # rows are refined in blocks whose chords hold about this many numbers


@part
class Adaptive:
    """As many gradients as the tolerance needs: the relative L2 error of each row's share is brought below ``tol``.

    tol            relative to the norm of the row's share
    max_gradients  per row; a row that needs more is returned as it is, with its error, and is not ``converged``

    Returns shares with their estimated error. Cost: 9 gradients per row for smooth networks, about 45 for EfficientNet-Lite0 from black at 5 %.
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
        share = segment.start.new_zeros(leading[0] * leading[1] * leading[2], *inner)
        error = share.new_zeros(len(share))
        done = torch.ones(len(share), dtype=torch.bool, device=share.device)
        size = max(1, _BLOCK_ELEMENTS // (32 * max(1, inner.numel())))
        for place in blocks_of(segment.moving(), size):
            share[place], error[place], done[place] = self._refine(lines_of(field, segment, place))
        return Integrated(share.reshape(*leading, *inner), error.reshape(leading), done.reshape(leading))

    def _refine(self, lines: Lines) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.arange(len(lines.start), device=lines.start.device)
        grid = torch.linspace(0, 1, _START + 1, dtype=lines.start.dtype, device=rows.device) ** _GRADE
        known = lines.on_grid(grid)
        spent = torch.full_like(rows, _START + 1)
        while True:
            share = known.sums(len(rows))
            errors, error = known.errors(len(rows))
            error = _SAFETY * error
            goal = self.tol * share.flatten(1).norm(dim=1)
            busy = (error > goal) & (spent < self.max_gradients)
            if not bool(busy.any()):
                return share, error, error <= goal
            pieces = self._pieces(errors, known.row, goal / _SAFETY, len(rows))
            pieces = self._affordable(
                torch.where(busy[known.row], pieces, 1), errors, known.row, self.max_gradients - spent
            )
            cut = pieces > 1
            if not bool(cut.any()):
                return share, error, error <= goal
            spent = spent.index_add_(0, known.row[cut], pieces[cut] + 1)
            known = known.without(cut).joined(lines.cut(known, cut, pieces))

    @staticmethod
    def _affordable(pieces: Tensor, errors: Tensor, row: Tensor, room: Tensor) -> Tensor:
        """The same pieces; in rows that would overspend, as many of the worst intervals as can be paid for, in two."""
        cost = torch.where(pieces > 1, pieces + 1, 0)
        over = torch.zeros_like(room).index_add_(0, row, cost) > room
        worst_first = torch.argsort(errors, descending=True, stable=True)
        worst_first = worst_first[torch.argsort(row[worst_first], stable=True)]
        first = torch.zeros_like(room).index_add_(0, row, torch.ones_like(row)).cumsum(0).roll(1)
        first[0] = 0
        rank = torch.empty_like(row)
        rank[worst_first] = torch.arange(len(row), device=row.device) - first[row[worst_first]]
        last = torch.where((pieces > 1) & (rank < (room // 3)[row]), 2, 1)
        return torch.where(over[row], last, pieces)

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
