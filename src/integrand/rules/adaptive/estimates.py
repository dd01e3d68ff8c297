"""What is thought of intervals: by how much sums over them are wrong, and into how many pieces each
is to be divided.

Errors of steady stretches are of one sign and add up; those of kinked ones are nearly independent,
and add up in squares. How they fall with the number of pieces says how many pieces bring the error
of a sum down to what is asked of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from .intervals import (
    Booleans,
    Floats,
    Integers,
    largest_of,
)

_SAFETY = 2.0  # the estimate is raised by this times the tolerance, the coarser the intervals, the less their neighbours know …
_MOST_SAFETY = (
    0.2  # … but by no more than this; docs/design/0003-chords.md has how often it is then exceeded
)
BIAS = 1.1  # on steady stretches, where errors add up, it is raised by this factor
_KINKED = 1.1  # errors of unlike intervals fall like pieces^-this …
_KINKED_COARSE = 1.05  # … and more slowly from a coarse look
_SMOOTH = 2.0  # those of alike ones
_COARSE = 0.2  # a look with more relative error than this is coarse
_HALVINGS = 24  # of the search for how many pieces
_EVENNESS = 0.4  # pieces go like error^this: less than the best exponent for known errors, because they are not
_MOST_PIECES = 16  # one interval becomes, in one round
quietly = np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")


@dataclass(frozen=True, eq=False)
class Estimates:
    """What is known of some lines.

    Attributes:
        shares: (M, \\*s) of the lines.
        interval_errors: (n,) what each interval may be wrong by.
        errors: (n,) what that counts for in its group.
        unlike: (n,) how much it differs from its neighbours, relative to itself.
        steady: (n,) whether these differences go on steadily.
        owner: (n,) the group of each interval.
        goal: (G,) what each group's sum may be wrong by.
        tol: that, relative to the norm of the sum.
    """

    shares: Tensor
    interval_errors: Floats
    errors: Floats
    unlike: Floats
    steady: Booleans
    owner: Integers
    goal: Floats
    tol: float

    @cached_property
    def worst(self) -> Floats:
        """The largest error of an interval of each group (G,)."""
        return largest_of(self.owner, self.errors, len(self.goal))

    @cached_property
    def total(self) -> Floats:
        """What each group's sum is taken to be wrong by (G,)."""
        scale = np.where((self.worst > 0) & np.isfinite(self.worst), self.worst, 1)
        errors = self.errors / scale[self.owner]
        # Of kinked stretches in squares.
        counted = np.where(self.steady, errors, np.square(errors))
        squared = self._squared(counted, 2 * self.owner + self.steady)
        total: Floats = np.sqrt(squared).astype(scale.dtype) * scale
        return total

    def _squared(self, counted: Floats, bins: Integers) -> Floats:
        """The square of each group's error (G,): errors of steady stretches, whose ``bins`` (n,)
        are odd, add up as they are; others, given as squares, as if independent."""
        sums = np.bincount(bins, counted, 2 * len(self.goal))
        safety = 1 + min(_SAFETY * self.tol, _MOST_SAFETY)
        squared: Floats = (BIAS * sums[1::2]) ** 2 + safety**2 * sums[::2]
        return squared

    @quietly
    def pieces(self, busy: Booleans) -> Floats:
        """As many pieces (n,) as bring the errors, falling like pieces^−q, down to the goal of
        their group; 0 where not ``busy`` (n,)."""
        affected = np.zeros(len(self.goal), dtype=bool)
        affected[self.owner[busy]] = True
        number = affected[self.owner].nonzero()[0]
        goal, worst, owner = self.goal, self.worst, self.owner[number]
        # A map of nothing that misses something is cut where most is missed.
        scale = np.where(goal > 0, goal, np.where(worst > 0, worst, 1))
        errors, steady = self.errors[number], self.steady[number]
        coarse = self.total * self.tol > _COARSE * goal
        rate = np.where(coarse, _KINKED_COARSE, _KINKED)[owner]
        relative = errors / scale[owner]
        density = self._density(relative, owner, steady, rate, goal / scale)
        pieces = relative**_EVENNESS * density[owner]
        # One round goes only so far; where errors are in one place, the rest waits until more is
        # known.
        most = (worst / scale) ** _EVENNESS * density
        pieces *= (_MOST_PIECES / np.maximum(most, _MOST_PIECES))[owner]
        # Where nothing seems worth it and something must be done, the worst interval is divided.
        pieces = np.where(errors >= worst[owner], np.maximum(pieces, 2), pieces)
        wanted = np.zeros_like(self.errors)
        wanted[number] = pieces * busy[number]
        return wanted

    def _density(
        self, errors: Floats, owner: Integers, steady: Booleans, rate: Floats, wanted: Floats
    ) -> Floats:
        """The smallest s (G,) with which pieces of s · error^0.4 bring the ``errors`` (n,) of every
        ``owner`` (n,) down to what is ``wanted`` (G,); those that are not steady fall like
        pieces^−rate (n,)."""
        power = np.where(steady, 1, 2)  # errors of kinked stretches are added in squares
        size = np.log2(errors, dtype=np.float64)
        part, fall = _EVENNESS * size, power * np.where(steady, _SMOOTH, rate)
        size *= power
        most, bins = np.square(wanted, dtype=np.float64), 2 * owner + steady
        low, high = (np.full(len(wanted), end) for end in (-20.0, 20.0))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            pieces = np.maximum(part + middle[owner], 0)
            enough = self._squared(np.exp2(size - fall * pieces), bins) <= most
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        density: Floats = np.exp2(high).astype(errors.dtype)
        return density
