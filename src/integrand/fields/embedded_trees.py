"""Trees on what a network makes of the input: they jump where an embedding crosses a threshold.

    F(z) = T(u(z)),   a split z_j ≤ θ of T is the surface g(z) = u_j(z) − θ = 0

At a crossing at time t* the jump goes to the features that moved the embedding,

    s_i = D_i ∂_i g / (D · ∇g)  at the root of g

which is the limit of the Integrated Gradients of steeper and steeper slopes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.segment import Evaluation
from ..core.shapes import flattened, over, total
from ..errors import InputError
from ..model.autograd import gradients
from ..targets import Target
from .steps import Booleans, CrossingTimes, Floats, FunctionSteps, Integers, StepField
from .trees import TreeField

_HALVINGS = 52  # of a piece of the way, until a root is known as well as it can be
_CLOSE = 1e-9  # roots of two coordinates that are no further apart are at one time
_ROWS = 1 << 14  # rows that are embedded at a time


class EmbeddedTrees(StepField):
    """F(z) = T(u(z)) for trees T on an embedding u that torch can differentiate.

    Roots are looked for between neighbours of ``pieces`` + 1 points of the way: an embedding that
    crosses a threshold and comes back within one piece is not seen, and its jumps would cancel.

    Args:
        trees: a field of trees; their features are the coordinates of the embedding.
        embedding: rows (N, \\*s) → (N, E), an nn.Module in eval mode or a function of tensors.
        pieces: of the way, in which roots are looked for.

    Cost:
        ``pieces`` + 1 rows of the embedding, 52 to close in on each root, and a gradient there.

    Example:
        >>> import torch, integrand as ig
        >>> from sklearn.tree import DecisionTreeRegressor
        >>> tree = DecisionTreeRegressor().fit([[0.0], [1.0]], [0.0, 3.0])
        >>> field = ig.fields.EmbeddedTrees(ig.fields.TreeField(tree), lambda z: z @ z.new_tensor([[2.0], [1.0]]))
        >>> ig.methods.generalized()(field, torch.ones(1, 2)).values.round(decimals=4).tolist()
        [[2.0, 1.0]]
    """

    def __init__(
        self, trees: TreeField, embedding: Callable[[Tensor], Tensor], pieces: int = 256
    ) -> None:
        if pieces < 1:
            raise InputError(f"pieces is how many pieces of the way are searched, not {pieces}.")
        self.trees = trees
        self.embedding = embedding
        self.pieces = pieces

    def __repr__(self) -> str:
        return f"EmbeddedTrees({self.trees!r}, {type(self.embedding).__name__})"

    @property
    def target(self) -> Target | None:
        return self.trees.target

    @target.setter
    def target(self, target: Target | None) -> None:
        self.trees = self.trees.with_target(target)

    @property
    def input_dtype(self) -> torch.dtype:
        return self.trees.input_dtype

    def look(self, z: Tensor, index: Tensor | None, site: Any = None) -> Tensor:
        if site is not None:
            return super().look(z, index, site)
        with gradients(False):
            return self.trees.look(self.embedded(z), index).to(z)

    @property
    def players(self) -> int:
        return self.trees.players

    @property
    def simultaneous(self) -> float:
        return _CLOSE

    def embedded(self, z: Tensor) -> Tensor:
        """u(z) (N, E) in the type the embedding works in."""
        parameter = None
        if isinstance(self.embedding, nn.Module):
            parameter = next(self.embedding.parameters(), None)
        rows = z if parameter is None else z.to(parameter)
        places = self.embedding(rows)
        if not isinstance(places, Tensor) or places.shape != (len(z), self.players):
            shape = tuple(places.shape) if isinstance(places, Tensor) else type(places).__name__
            raise InputError(
                f"The embedding returned {shape} for {len(z)} rows, and the trees split {self.players} features."
            )
        return places

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        value = z.new_empty(0) if gradient else self._values(z, index)
        return self.evaluation(value, z, gradient=gradient)

    def _values(self, z: Tensor, index: Tensor) -> Tensor:
        with gradients(False):
            return self.trees.evaluate(self.embedded(z), index, gradient=False).value.double()

    def _places(self, start: Tensor, end: Tensor, row: Integers, time: Floats) -> Floats:
        """u (M, E) on the ways of the rows ``row`` (M,) at ``time`` (M,), as the trees compare
        it."""
        parts = []
        for first in range(0, len(row), _ROWS):
            some = slice(first, first + _ROWS)
            places = self.embedded(_points(start, end, row[some], time[some]))
            parts.append(self.trees.prepared(places))
        return np.concatenate(parts) if parts else np.zeros((0, self.players))

    def steps(self, start: Tensor, end: Tensor, index: Tensor) -> FunctionSteps:
        with gradients(False):
            row, player, time = self._roots(start, end)
            order = np.lexsort((time, row))
            row, player, time = row[order], player[order], time[order]
            change = self._changes(start, end, index, row, time)
        return FunctionSteps(row, time, player, change, self._spread(start, end, row, player, time))

    def _roots(self, start: Tensor, end: Tensor) -> tuple[Integers, Integers, Floats]:
        """Rows, coordinates and times (M,) at which a coordinate crosses a threshold of the
        trees."""
        count, grid = len(start), np.linspace(0, 1, self.pieces + 1)
        row = np.repeat(np.arange(count), len(grid))
        places = self._places(start, end, row, np.tile(grid, count))
        places = places.reshape(count, len(grid), -1)
        crossings: list[tuple[Integers, Integers, Integers, Floats]] = []
        for coordinate, cuts in enumerate(self._thresholds()):
            for cut in cuts:
                left = self._left(places[:, :, coordinate], cut)
                rows, cells = np.nonzero(left[:, 1:] != left[:, :-1])
                crossings.append(
                    (rows, np.full(len(rows), coordinate), cells, np.full(len(rows), cut))
                )
        if not crossings:
            nothing = np.zeros(0, dtype=np.int64)
            return nothing, nothing, np.zeros(0)
        rows, player, cell, cut = (
            np.concatenate(column) for column in zip(*crossings, strict=True)
        )
        return rows, player, self._closed_in(start, end, rows, player, grid, cell, cut, places)

    def _closed_in(
        self,
        start: Tensor,
        end: Tensor,
        row: Integers,
        player: Integers,
        grid: Floats,
        cell: Integers,
        cut: Floats,
        places: Floats,
    ) -> Floats:
        """Roots (M,) between the points ``cell`` and ``cell`` + 1 of the grid, by halving."""
        low, high = grid[cell], grid[cell + 1]
        before = self._left(places[row, cell, player], cut)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            at = self._places(start, end, row, middle)[np.arange(len(row)), player]
            same = self._left(at, cut) == before
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        roots: Floats = (low + high) / 2
        return roots

    def _left(self, places: Floats, cut: Floats | float) -> Booleans:
        left: Booleans = (places < cut) | (self.trees.ensemble.inclusive & (places == cut))
        return left

    def _thresholds(self) -> list[Floats]:
        """The thresholds of each coordinate."""
        nodes = self.trees.ensemble.packed.nodes
        if self.trees.ensemble.categorical.any():
            raise InputError("Trees on an embedding split by size; these split by categories.")
        return [
            np.unique(nodes["threshold"][nodes["feature"] == coordinate])
            for coordinate in range(self.players)
        ]

    def _changes(
        self, start: Tensor, end: Tensor, index: Tensor, row: Integers, time: Floats
    ) -> Floats:
        """What steps in order add (M, 1): F in the middle after each, less F in the middle
        before."""
        if not len(row):
            return np.zeros((0, 1))
        last = np.concatenate([row[1:] != row[:-1], [True]])
        following = np.where(last, 1.0, np.concatenate([time[1:], [1.0]]))
        # Behind a step at the very end lies the end itself.
        after = self._at(start, end, index, row, (time + following) / 2)
        ends = self._at(start, end, index, row, np.ones(len(row)))
        after = np.where(last & (time > 1 - _CLOSE), ends, after)
        begin = self._at(start, end, index, row, np.zeros(len(row)))
        before = np.where(np.concatenate([[True], last[:-1]]), begin, np.roll(after, 1))
        change: Floats = (after - before)[:, None]
        return change

    def _at(self, start: Tensor, end: Tensor, index: Tensor, row: Integers, time: Floats) -> Floats:
        values: Floats = self._values(
            _points(start, end, row, time), index[torch.from_numpy(row)]
        ).numpy()
        return values

    def _spread(
        self, start: Tensor, end: Tensor, row: Integers, player: Integers, time: Floats
    ) -> Floats:
        """What each feature has to do with each crossing (M, F): D_i ∂_i u_j / (D · ∇u_j)."""
        step = flattened(end - start, 1)[torch.from_numpy(row)].double()
        with gradients(True):
            leaf = _points(start, end, row, time).detach().requires_grad_()
            coordinate = self.embedded(leaf).gather(1, torch.from_numpy(player)[:, None])
            (slope,) = torch.autograd.grad(coordinate.sum(), leaf)
        parts = step * flattened(slope, 1).double()
        slopes = total(parts, 1)[:, None]
        # A surface that is only touched, or that the embedding is flat at, has no direction: those
        # that moved share alike.
        moved = (step != 0).double()
        alike = moved / moved.sum(1, keepdim=True).clamp_min(1)
        spread: Floats = torch.where(slopes != 0, parts / slopes, alike).numpy()
        return spread

    def limits(
        self, start: Tensor, end: Tensor, index: Tensor, at: CrossingTimes, far: Booleans
    ) -> Floats:
        with gradients(False):
            before = self._places(start, end, at.row, np.maximum(at.low - _CLOSE / 2, 0))
            after = self._places(start, end, at.row, np.minimum(at.high + _CLOSE / 2, 1))
            places = torch.from_numpy(np.where(far, after, before))
            example = index[torch.from_numpy(at.row)]
            values: Floats = self.trees.evaluate(places, example, gradient=False).value.numpy()
        return values


def _points(start: Tensor, end: Tensor, row: Integers, time: Floats) -> Tensor:
    """Points (M, \\*s) on the ways of rows, the very ends where that is where they are."""
    place = torch.from_numpy(row)
    t = over(torch.from_numpy(time).to(start), start)
    points = torch.lerp(start[place], end[place], t)
    return torch.where(t == 1, end[place], points)
