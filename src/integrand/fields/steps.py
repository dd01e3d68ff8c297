"""Functions that jump: where they do on a straight way, and who is credited with it.

    A_i = Σ_k J_k s_{k,i},      J_k = F after − F before,      Σ_i s_{k,i} = 1

One feature that crosses a threshold alone gets the whole jump. Features that cross theirs at one
time play a game, whose coalitions T are those that have crossed: v(T) = F with T behind and the
others ahead. Each gets its Shapley value, which is what Integrated Gradients gives it where every
jump is made a steep slope, as steep for all of them.

Who crosses is called a player: a feature, or a coordinate of an embedding that trees split, whose
credit is spread over the features behind it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.segment import Evaluation, Segment
from ..core.shapes import flattened
from ..errors import InputError, NoGradient
from .base import Field

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

TOGETHER = 16 * float(np.finfo(np.float64).eps)
"""Crossings that are no further apart, on the way from 0 to 1, are at one time."""

MOST_TOGETHER = 16
"""So many players at one time are as many as all coalitions are asked for."""

_LIMITS = 1 << 16  # coalitions that are asked for at a time


@dataclass(frozen=True, eq=False)
class FunctionSteps:
    """Where functions of N rows step, in any order.

    Attributes:
        row: (M,) whose way it is on.
        time: (M,) when, from 0 to 1.
        player: (M,) who crosses.
        change: (M, C) what the step adds, to the outputs of an ensemble or to one scalar. Of
            several at one time only the sum means anything.
        spread: (M, F) what each feature has to do with it, adding up to 1; None where a player is
            a feature.
    """

    row: Integers
    time: Floats
    player: Integers
    change: Floats
    spread: Floats | None = None

    def among(self, which: Booleans | Integers) -> FunctionSteps:
        """Some of the steps, or all of them in another order."""
        return FunctionSteps(
            self.row[which],
            self.time[which],
            self.player[which],
            self.change[which],
            None if self.spread is None else self.spread[which],
        )


@dataclass(frozen=True, eq=False)
class Jumps:
    """Steps in order, those at one time as one jump.

    Attributes:
        steps: (M,) sorted by row and time.
        jump: (M,) which jump each belongs to.
        row, low, high: (G,) whose way a jump is on, and the times of its first and last step.
        change: (G, C) what it adds.
        alone: (G,) whether there is one player only.
    """

    steps: FunctionSteps
    jump: Integers
    row: Integers
    low: Floats
    high: Floats
    change: Floats
    alone: Booleans

    @classmethod
    def of(cls, steps: FunctionSteps, together: float = TOGETHER) -> Jumps:
        """Put steps in order; those that are no more than ``together`` apart are at one time."""
        steps = steps.among(np.lexsort((steps.player, steps.time, steps.row)))
        if not len(steps.row):
            nothing = np.zeros(0, dtype=np.int64)
            return cls(
                steps, nothing, nothing, steps.time, steps.time, steps.change, nothing.astype(bool)
            )
        apart = (np.diff(steps.row) != 0) | (np.diff(steps.time) > together)
        first = np.concatenate([[0], np.nonzero(apart)[0] + 1])
        last = np.concatenate([first[1:], [len(steps.row)]]) - 1
        jump = np.cumsum(np.concatenate([[0], apart])).astype(np.int64)
        players = np.minimum.reduceat(steps.player, first), np.maximum.reduceat(steps.player, first)
        return cls(
            steps,
            jump,
            steps.row[first],
            steps.time[first],
            steps.time[last],
            np.add.reduceat(steps.change, first, axis=0),
            players[0] == players[1],
        )

    def levels(self, start: Floats) -> tuple[Floats, Floats]:
        """The levels (G, C) before and after each jump, from those at the start of rows (N, C)."""
        if not len(self.row):
            return self.change, self.change
        first = np.concatenate([[True], np.diff(self.row) != 0])
        changes = self.change.copy()
        ends = np.zeros_like(changes[first])
        running = np.cumsum(self.change, axis=0)
        ends[1:] = running[np.nonzero(first)[0][1:] - 1]
        row_of = np.cumsum(first) - 1
        after = start[self.row] + (running - ends[row_of])
        before = after - changes
        before[1:] = np.where(first[1:, None], before[1:], after[:-1])
        before[first] = start[self.row[first]]
        return before, after

    def players(self, jump: int) -> Integers:
        """The players of a jump."""
        begin, end = np.searchsorted(self.jump, [jump, jump + 1])
        return np.unique(self.steps.player[begin:end])


Limits = Callable[[Integers, Booleans], Floats]
"""Which jumps (M,), and who has crossed in each (M, players) → F there (M,)."""


def credits(jumps: Jumps, size: Floats, limits: Limits, players: int) -> tuple[Integers, Floats]:
    """What players are credited with: the steps (E,) that stand for them in their jumps, and how
    much each is (E,).

    Args:
        jumps: in order.
        size: (G,) F after each jump, less F before.
        limits: F at coalitions of jumps with several players.
        players: how many there are in all.
    """
    begin = np.searchsorted(jumps.jump, np.arange(len(jumps.row)))
    alone = np.nonzero(jumps.alone)[0]
    steps, amounts = [begin[alone]], [size[alone]]
    shared: dict[int, list[tuple[int, Integers]]] = {}
    for jump in np.nonzero(~jumps.alone)[0].tolist():
        members = jumps.players(jump)
        shared.setdefault(len(members), []).append((jump, members))
    for count, games in shared.items():
        _check_count(count)
        which = np.array([jump for jump, _ in games])
        members = np.stack([entry for _, entry in games])
        values = _coalition_values(which, members, limits, players)
        amounts.append(shapley(values).reshape(-1))
        for jump, entry in games:
            end = np.searchsorted(jumps.jump, jump + 1)
            steps.append(begin[jump] + _places(jumps.steps.player[begin[jump] : end], entry))
    return np.concatenate(steps), np.concatenate(amounts)


def _places(numbers: Integers, wanted: Integers) -> Integers:
    """Where each of the wanted numbers is first."""
    return np.array([int(np.nonzero(numbers == number)[0][0]) for number in wanted])


def _check_count(count: int) -> None:
    if count > MOST_TOGETHER:
        raise InputError(
            f"{count} features jump at one time, and each of their 2^{count} coalitions would have to be asked for: categories and missing "
            "values all switch halfway. Explain the raw margin, which is a sum over trees and needs none of it, or take a baseline "
            "that differs in fewer of them."
        )


def _coalition_values(which: Integers, members: Integers, limits: Limits, players: int) -> Floats:
    """F at all coalitions of the players (G, k) of jumps (G,), coalition S at Σ_{i in S} 2^i → (G,
    2^k)."""
    games, count = members.shape
    coalitions = (np.arange(2**count)[:, None] >> np.arange(count)) & 1 > 0
    block = max(1, _LIMITS // 2**count)
    values = []
    for first in range(0, games, block):
        some = members[first : first + block]
        far = np.zeros((len(some), 2**count, players), dtype=bool)
        place = np.broadcast_to(some[:, None, :], (len(some), *coalitions.shape))
        np.put_along_axis(far, place, np.broadcast_to(coalitions, place.shape), axis=2)
        repeated = np.repeat(which[first : first + block], 2**count)
        values.append(limits(repeated, far.reshape(-1, players)).reshape(len(some), -1))
    return np.concatenate(values)


def shapley(values: Floats) -> Floats:
    """The Shapley values (G, k) of games, from what coalitions are worth (G, 2^k), coalition S at
    Σ_{i in S} 2^i.

    φ_i = Σ_{S without i} |S|! (k − |S| − 1)!/k! (v(S + i) − v(S))
    """
    count = int(values.shape[1]).bit_length() - 1
    coalition = np.arange(2**count)
    size = np.array([int(number).bit_count() for number in coalition])
    weight = np.array(
        [1 / (count * math.comb(count - 1, number)) for number in range(count)], dtype=np.float64
    )
    amounts = []
    for player in range(count):
        without = coalition[(coalition >> player) & 1 == 0]
        gain = values[:, without | (1 << player)] - values[:, without]
        amounts.append(gain @ weight[size[without]])
    return np.stack(amounts, 1)


def spread_out(steps: FunctionSteps, which: Integers, amounts: Floats, shares: Floats) -> None:
    """Add what steps (E,) are credited with to the features of their rows, shares (N, F)."""
    if steps.spread is None:
        np.add.at(shares, (steps.row[which], steps.player[which]), amounts)
    else:
        np.add.at(shares, steps.row[which], amounts[:, None] * steps.spread[which])


class StepField(Field):
    """A field that is constant but where it jumps: it has an exact share, and no gradient.

    To write one, define ``evaluate`` (values alone), ``players``, ``steps`` and ``limits``.
    """

    @property
    def exact(self) -> bool:
        return True

    @property
    def flat(self) -> bool:
        return True

    @property
    def simultaneous(self) -> float:
        """How far apart crossings may be that are at one time."""
        return TOGETHER

    @property
    @abstractmethod
    def players(self) -> int:
        """How many players there are that may cross something."""

    @abstractmethod
    def steps(self, start: Tensor, end: Tensor, index: Tensor) -> FunctionSteps:
        """Where F steps on the ways from rows ``start`` to ``end`` (N, \\*s); its change is (M,
        1)."""

    @abstractmethod
    def limits(
        self, start: Tensor, end: Tensor, index: Tensor, at: CrossingTimes, far: Booleans
    ) -> Floats:
        """F (M,) at moments of the ways from ``start`` to ``end``, where the players in ``far`` (M,
        players) have crossed, and the others have not."""

    def share(self, segment: Segment) -> Tensor:
        start, end = (flattened(side, 3).flatten(0, 2) for side in (segment.start, segment.end))
        inner = segment.start.shape[3:]
        index = examples_of(segment)
        shares = np.zeros(tuple(start.shape))
        steps = self.steps(start.reshape(-1, *inner), end.reshape(-1, *inner), index)
        jumps = Jumps.of(steps, self.simultaneous)

        def limits(which: Integers, far: Booleans) -> Floats:
            at = CrossingTimes(jumps.row[which], jumps.low[which], jumps.high[which])
            return self.limits(start.reshape(-1, *inner), end.reshape(-1, *inner), index, at, far)

        spread_out(jumps.steps, *credits(jumps, jumps.change[:, 0], limits, self.players), shares)
        return torch.from_numpy(shares).to(segment.start).reshape(segment.start.shape)

    def evaluation(self, value: Tensor, z: Tensor, *, gradient: bool) -> Evaluation:
        """Values alone as an evaluation; a gradient is refused."""
        if gradient:
            raise no_gradient(self)
        return Evaluation(value.to(z), z.new_empty(0))


@dataclass(frozen=True, eq=False)
class CrossingTimes:
    """Moments on the ways of rows: ``row`` (M,), and the times of the first and the last crossing
    that are taken to be then, ``low`` and ``high`` (M,)."""

    row: Integers
    low: Floats
    high: Floats


def no_gradient(field: Field) -> NoGradient:
    """What is raised where a gradient is asked of a field with jumps."""
    return NoGradient(
        f"{type(field).__name__} jumps, which no gradient tells; its shares are known: take method='generalized', or "
        "rule=ig.rules.Exact()."
    )


def examples_of(segment: Segment) -> Tensor:
    """The example each row of a segment belongs to, rows numbered over (K, R, B)."""
    k, r, b = segment.leading
    index: Tensor = torch.arange(b, device=segment.start.device).repeat(k * r)
    return index


def as_array(t: Tensor) -> NDArray[Any]:
    """A tensor as an array, in its own type."""
    array: NDArray[Any] = t.detach().cpu().numpy()
    return array
