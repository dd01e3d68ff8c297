"""Lines that are refined round by round, until the sums that are asked for are known well enough.

    estimate ─▶ who is busy? ─▶ Clenshaw–Curtis nodes, where a path is smooth ─▶ divide ─▶ …
                  └─▶ done: look into what claims to be known, once more

Lines that are done leave, so that rounds in which little is left to do cost little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...core.shapes import norm, over
from .clenshaw_curtis import FIRST, spectral
from .estimates import BIAS, Estimates, quietly
from .intervals import (
    Booleans,
    Floats,
    Integers,
    Intervals,
    Lines,
    as_numpy,
    consecutive,
    norms_of,
    numbered_on,
    on_device,
    sums_of,
)

_ALIKE = 0.1  # a path whose intervals all differ less than this from their neighbours may be so smooth that other nodes do better …
_ALIKE_SMOOTH = 2.5  # … or less than this, where the network is known to have no kinks
_WORTH = 1.25  # an interval that should be this many pieces is divided again
_BLIND = 0.25  # no stretch of a path longer than this is believed without a look into it …
_BLIND_GATED = (
    0.125  # … or this, where things that move are multiplied with each other, so that more can hide
)
_DOUBTED = 3.0  # errors of a path on which a look found what it did not know of are raised by this
_FLOOR = 16  # no error is worth a gradient that is below so many units of the last place of what the map is made of
_CANCELLED = 1e-3  # … nor one that is within the tolerance of a map of this fraction of what it is made of: the rest has cancelled
_SMOOTH_COST = 17  # gradients that a smooth path mostly takes with Clenshaw–Curtis nodes


@dataclass(frozen=True)
class Limits:
    """What a rule works to: a relative error, and gradients for each path."""

    tol: float
    max_gradients: int


@dataclass(frozen=True, eq=False)
class WantedSums:
    """What is to be known: the sum of every ``group`` (M,) of lines, weighed by ``weight`` (M,).

    ``unit`` (M,) numbers, in order, the lines that are refined until all of them are done: those of
    one group, and companions. Without ``weight`` every path is a group, and counts as it is.
    """

    group: Integers
    weight: Floats | None
    unit: Integers

    @classmethod
    def of_paths(cls, chain: Integers, unit: Integers) -> WantedSums:
        """Every path ``chain`` (M,) by itself, in the same ``unit`` (M,) as its companions."""
        return cls(chain, None, consecutive(unit))

    @classmethod
    def of_examples(cls, example: Integers, weight: Floats, point: Integers) -> WantedSums:
        """The sum over all paths of every ``example`` (M,); those at the same ``point`` (M,) may
        have companions."""
        return cls(_numbered(example), weight, consecutive(point))

    def at(self, line: Integers) -> WantedSums:
        """Of these lines (m,), which are whole units."""
        group, unit = self.group[line], consecutive(self.unit[line])
        if self.weight is None:
            return WantedSums(consecutive(group), None, unit)
        return WantedSums(_numbered(group), self.weight[line], unit)

    @staticmethod
    def joined(parts: Sequence[WantedSums]) -> WantedSums:
        """One after the other."""
        weights = [part.weight for part in parts if part.weight is not None]
        return WantedSums(
            numbered_on([(part.group, part.groups) for part in parts]),
            np.concatenate(weights) if weights else None,
            numbered_on([(part.unit, part.units) for part in parts]),
        )

    @cached_property
    def groups(self) -> int:
        return int(self.group.max()) + 1

    @cached_property
    def units(self) -> int:
        return int(self.unit[-1]) + 1


def _numbered(names: Integers) -> Integers:
    """Whatever names things have (n,), numbered from 0."""
    number: Integers = np.unique(names, return_inverse=True)[1]
    return number


class Block:
    """Paths that are refined side by side, until each is known well enough.

    Paths that are done leave, so that rounds in which little is left to do cost little. With
    ``keep`` what is known of them is kept, and more may be asked later.

    Attributes:
        begin, end: (M,) F at both ends of every line.
    """

    def __init__(self, limits: Limits, lines: Lines, known: Intervals, *, keep: bool) -> None:
        self.lines = lines
        self.begin, self.end = lines.ends(known)
        self._tol = limits.tol
        self._keep = keep
        self._parts = [Refinement.of(limits, lines, known)]

    def refined(self, wanted: WantedSums, tol: float | None) -> tuple[Tensor, Floats]:
        """Shares and errors per line (M,), once what is asked is known or the gradients are spent.

        To the rule's tolerance, and looked into once more, unless a ``tol`` is given.
        """
        part = Refinement.joined(self._parts).in_order()
        part = replace(part, wanted=wanted, tol=self._tol if tol is None else tol)
        self._parts = []
        share, error = torch.empty_like(self.lines.start), np.empty_like(self.begin)
        estimates = part.estimated()
        while True:
            doubtful: list[tuple[Refinement, Integers, Floats]] = []
            rounds = _rounds(part, estimates)
            del part, estimates  # lines that leave are not held
            for member, member_estimates, done in rounds:
                number = member.number[done]
                error[number] = member.errors(member_estimates)[done]
                rows = on_device(done, share)
                share[on_device(number, share)] = member_estimates.shares.index_select(0, rows)
                looks = (
                    member.looks(member_estimates)
                    if tol is None
                    else np.zeros_like(member_estimates.owner)
                )
                doubtful += self._taken_apart(member, member_estimates, done, looks)
                del member, member_estimates
            if not doubtful:
                return share, error
            parts, counts, errors = zip(*doubtful, strict=True)
            part = Refinement.joined(parts)
            estimates = part.looked_into(np.concatenate(counts), np.concatenate(errors))

    def _taken_apart(
        self, part: Refinement, estimates: Estimates, done: Integers, looks: Integers
    ) -> list[tuple[Refinement, Integers, Floats]]:
        """Of the lines that are ``done`` (m,) those that ``looks`` (n,) say are to be looked into:
        with the number of looks and the errors of their intervals. The others are put away."""
        unsure = part.units_of(looks > 0)[part.wanted.unit[done]]
        if self._keep and not unsure.all():
            self._parts.append(part.subset(done[~unsure])[0])
        if not unsure.any():
            return []
        member, interval = part.subset(done[unsure])
        return [(member, looks[interval], estimates.interval_errors[interval])]


@dataclass(eq=False)
class Refinement:
    """Some lines of a block, the intervals that are known of them, and what those have cost.

    Attributes:
        number: (M,) which lines of the block they are.
        spent: (chains,) gradients;  tried (chains,) whether Clenshaw–Curtis nodes were;  doubted
            (chains,) whether a look found what was not known.
        magnitude: (M,) the norms of what each line's share was added up from, the most they have
            been.
        wanted, tol: what is asked of them.
    """

    limits: Limits
    number: Integers
    lines: Lines
    known: Intervals
    spent: Integers
    tried: Booleans
    doubted: Booleans
    magnitude: Floats
    wanted: WantedSums
    tol: float

    @classmethod
    def of(cls, limits: Limits, lines: Lines, known: Intervals) -> Refinement:
        """Lines after a first look, every path wanted by itself."""
        return cls(
            limits=limits,
            number=np.arange(len(lines)),
            lines=lines,
            known=known,
            spent=lines.cost(known),
            tried=np.zeros(lines.chains, dtype=bool),
            doubted=np.zeros(lines.chains, dtype=bool),
            magnitude=np.zeros_like(known.a, shape=len(lines)),
            wanted=WantedSums.of_paths(lines.chain, lines.chain),
            tol=limits.tol,
        )

    def subset(self, line: Integers) -> tuple[Refinement, Integers]:
        """Some of the lines (m,), whole units in any order, and the numbers of their intervals."""
        place = np.full(len(self.number), -1)
        place[line] = np.arange(len(line))
        on = place[self.known.line]
        interval = (on >= 0).nonzero()[0]
        interval = interval[np.argsort(on[interval], kind="stable")]
        lines, on = self.lines.subset(line), on[interval]
        chain = self.lines.chain[line]
        chain = chain[np.append(True, chain[1:] != chain[:-1])]
        return Refinement(
            limits=self.limits,
            number=self.number[line],
            lines=lines,
            known=self.known.at(interval).on(on, lines.chain[on]),
            spent=self.spent[chain],
            tried=self.tried[chain],
            doubted=self.doubted[chain],
            magnitude=self.magnitude[line],
            wanted=self.wanted.at(line),
            tol=self.tol,
        ), interval

    def in_order(self) -> Refinement:
        """All lines of a block, in its order."""
        line = np.argsort(self.number)
        return self if (line[1:] > line[:-1]).all() else self.subset(line)[0]

    @classmethod
    def joined(cls, parts: Sequence[Refinement]) -> Refinement:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        lines = Lines.joined([part.lines for part in parts])
        on = numbered_on([(part.known.line, len(part.lines)) for part in parts])
        return cls(
            limits=parts[0].limits,
            number=np.concatenate([part.number for part in parts]),
            lines=lines,
            known=Intervals.joined([part.known for part in parts]).on(on, lines.chain[on]),
            spent=np.concatenate([part.spent for part in parts]),
            tried=np.concatenate([part.tried for part in parts]),
            doubted=np.concatenate([part.doubted for part in parts]),
            magnitude=np.concatenate([part.magnitude for part in parts]),
            wanted=WantedSums.joined([part.wanted for part in parts]),
            tol=parts[0].tol,
        )

    def units_of(self, chosen: Booleans) -> Booleans:
        """Which units (U,) have an interval among the ``chosen`` ones (n,)."""
        units = np.zeros(self.wanted.units, dtype=bool)
        units[self.wanted.unit[self.known.line[chosen]]] = True
        return units

    @quietly
    def errors(self, estimates: Estimates) -> Floats:
        """What the shares of lines (M,) may be wrong by."""
        group, total = self.wanted.group, estimates.total
        error = norms_of(self.known.line, estimates.interval_errors, len(self.lines))
        # Each line's error is raised so that the weighted squares add up to what the sum may be
        # wrong by.
        weighed = error if self.wanted.weight is None else self.wanted.weight * error
        independent = norms_of(group, weighed, len(total))
        raised = np.where((independent > 0) & np.isfinite(total), total / independent, 1)
        # Nothing is better known than to rounding; a map that is no more than that itself is zero.
        rounding = np.finfo(error.dtype).eps * self.magnitude
        error = np.maximum(error * raised[group], 4 * rounding)
        nothing = np.maximum(as_numpy(norm(estimates.shares)), error) <= _FLOOR * rounding
        return np.where(nothing, 0, error)

    # --- looks --------------------------------------------------------------------------------------------------------

    def looks(self, estimates: Estimates) -> Integers:
        """How many gradients are to be taken inside each interval (n,), before what paths claim to
        know of themselves is believed; 0 where that is as it is.

        A stretch that no node fell into may hold anything that is over at its ends.
        """
        known, lines = self.known, self.lines
        blind = _BLIND_GATED if lines.field.gated else _BLIND
        stretch = known.length
        if not lines.straight:
            stretch = stretch / np.bincount(lines.chain)[known.chain]
        count: Integers = np.ceil(stretch / blind - 1e-3).astype(np.int64) - 1
        # Where something was hidden once, every interval is looked into.
        count = np.maximum(count, self.doubted[known.chain])
        settled = (estimates.total <= estimates.goal) & np.isfinite(estimates.total)
        count *= settled[estimates.owner] & np.isnan(known.known) & (count > known.looks)
        if self.wanted.weight is not None:
            count *= (self.wanted.weight != 0)[known.line]
        cost = sums_of(known.chain, count, lines.chains)
        count *= (self.spent + cost <= self.limits.max_gradients)[known.chain]
        return count

    def looked_into(self, count: Integers, before: Floats) -> Estimates:
        """What is thought once ``count`` (n,) gradients were taken inside the intervals, which were
        taken to be wrong by ``before`` (n,)."""
        chosen = count.nonzero()[0]
        chain = self.known.chain
        self.known = self.lines.looked_into(self.known, chosen, count[chosen])
        self.spent = self.spent + sums_of(chain, count, self.lines.chains)
        again = self.estimated()
        # What turned out to know too little of itself is believed less from now on.
        wrong = (again.interval_errors > before) & (again.total > again.goal)[again.owner]
        if not wrong.any():
            return again
        self.doubted[chain[wrong]] = True
        return self.estimated()

    # --- refining -----------------------------------------------------------------------------------------------------

    def wanted_pieces(self, estimates: Estimates) -> Floats | None:
        """How many pieces to make of each interval (n,); None where all is known that is asked, or
        can be."""
        affordable = (self.spent < self.limits.max_gradients)[self.known.chain]
        # What is infinitely wrong is not mended by more gradients.
        unknown = (estimates.total > estimates.goal) & np.isfinite(estimates.total)
        busy = unknown[estimates.owner] & affordable
        if not busy.any():
            return None
        pieces = estimates.pieces(busy)
        if not self.lines.shared:
            return pieces
        # Companions go along, so that their nodes stay common, until they are as good as they
        # will ever have to be.
        final = estimates.goal * min(1.0, self.limits.tol / self.tol)
        along = (estimates.total > final)[estimates.owner] & affordable
        return self.lines.most(self.known, pieces) * along

    def lay_anew(self, cut: Booleans, pieces: Floats) -> None:
        """Lay so many ``pieces`` (n,) in place of the intervals that are ``cut`` (n,)."""
        old = cut.nonzero()[0]
        laid, start = self.lines.regridded(self.known.at(old), pieces[old], self.doubted)
        self.spent = self.spent + self.lines.cost(laid)
        self._replace(cut, laid, old[start])

    def _replace(self, gone: Booleans, added: Intervals, place: Integers) -> None:
        """Put intervals ``added`` (m,) where those that are ``gone`` (n,) were; ``place`` (m,) is
        the number of the first one that each takes the place of."""
        stay = ~gone
        before = (stay.cumsum() - stay)[place]
        self.known = self.known.at(stay.nonzero()[0])  # what is replaced is let go first
        self.known = self.known.inserted(added, before)

    @quietly
    def estimated(self) -> Estimates:
        """What is known so far, against what is asked."""
        known, wanted, lines = self.known, self.wanted, self.lines
        shares = paths = lines.shares(known)
        if not lines.straight:
            paths = _summed(shares, lines.chain, lines.chains)
        norms = as_numpy(norm(paths))
        interval_estimates = lines.errors(known, lines.rates(known, norms))
        interval_errors = interval_estimates.error
        if self.doubted.any():
            interval_errors = interval_errors * np.where(self.doubted, _DOUBTED, 1)[known.chain]
            interval_errors = interval_errors.astype(interval_estimates.error.dtype)
        # What shares were made of is not forgotten where one interval takes the place of several.
        self.magnitude = np.maximum(
            self.magnitude, sums_of(known.line, interval_estimates.size, len(self.magnitude))
        )
        if wanted.weight is None:
            errors, owner, sizes = interval_errors, known.chain, norms
            made_of = sums_of(wanted.group, self.magnitude, wanted.groups)
        else:
            errors, owner = interval_errors * wanted.weight[known.line], wanted.group[known.line]
            weighed = shares * over(on_device(wanted.weight, shares), shares)
            sizes = as_numpy(norm(_summed(weighed, wanted.group, wanted.groups)))
            made_of = sums_of(wanted.group, self.magnitude * wanted.weight, wanted.groups)
        least = max(_FLOOR * float(np.finfo(sizes.dtype).eps), self.tol * _CANCELLED)
        goal = np.maximum(self.tol * sizes, least * made_of)
        return Estimates(
            shares,
            interval_errors,
            errors,
            interval_estimates.unlike,
            interval_estimates.steady,
            owner,
            goal,
            self.tol,
        )

    def _divisible(self) -> Booleans:
        """Which intervals are so long (n,) that points between their ends differ from them."""
        ends = np.maximum(np.abs(self.known.a), np.abs(self.known.b))
        divisible: Booleans = self.known.length > 64 * np.finfo(ends.dtype).eps * ends
        return divisible

    def affordable(self, pieces: Floats, errors: Floats) -> Booleans:
        """Which intervals to divide: all that are worth it; of paths over their budget, the worst
        that it still pays for."""
        chain, chains = self.known.chain, self.lines.chains
        cost = (np.maximum(np.ceil(pieces), 2) + 1) * ((pieces >= _WORTH) & self._divisible())
        per_chain, room = sums_of(chain, cost, chains), self.limits.max_gradients - self.spent
        if (per_chain <= room).all():
            return cost > 0
        order = np.lexsort((-errors, chain))
        running = cost[order].cumsum() - (per_chain.cumsum() - per_chain)[chain[order]]
        fits = np.empty(len(chain), dtype=bool)
        fits[order] = running <= room[chain[order]]
        return (cost > 0) & fits

    def integrate_smooth_paths(self, pieces: Floats, estimates: Estimates) -> bool:
        """Integrate paths that are smooth all along by Clenshaw–Curtis nodes, where those are
        fewer; whether any were."""
        known, lines, wanted, most = self.known, self.lines, self.wanted, self.limits.max_gradients
        need = sums_of(known.chain, pieces, lines.chains)
        chosen = need > _SMOOTH_COST
        if not chosen.any():
            return False
        rough = self.doubted.copy()
        rough[known.chain[estimates.unlike > (_ALIKE_SMOOTH if lines.field.smooth else _ALIKE)]] = (
            True
        )
        single = np.bincount(lines.chain) == 1
        chosen &= ~rough & ~self.tried & single & (self.spent + FIRST <= most)
        # Companions go together or not at all.
        blocked = lines.companions[(~chosen & (need > 0))[lines.chain]]
        chosen[lines.chain[np.isin(lines.companions, blocked)]] = False
        if not chosen.any():
            return False
        self.tried |= chosen
        line = chosen[lines.chain].nonzero()[0]
        group, weight = wanted.group, 1 if wanted.weight is None else wanted.weight
        members = np.sqrt(np.bincount(group)[group].astype(known.a.dtype))
        with np.errstate(divide="ignore"):  # of no weight, anything is enough
            enough = (estimates.goal[group] / (BIAS * weight * members))[line]
        smooth, nodes = spectral(lines.subset(line), enough, most - self.spent[chosen])
        self.spent[chosen] += nodes
        # What is not good enough is still better than chords that there is no room left for.
        errors = norms_of(known.line, estimates.interval_errors, len(lines))[line]
        poor = (self.spent + need > most)[chosen]
        accurate = smooth.known < enough
        last = ~accurate & poor & (smooth.known < errors)
        self.spent[chosen.nonzero()[0][last]] = most
        better = (accurate | last).nonzero()[0]
        keep = line[better]
        exact = smooth.at(better).on(keep, lines.chain[keep])
        self._replace(np.isin(known.line, keep), exact, np.searchsorted(known.line, keep))
        return True


def _rounds(
    part: Refinement, estimates: Estimates
) -> Iterator[tuple[Refinement, Estimates, Integers]]:
    """Lay intervals anew until the weighted sum over every group of lines is within the tolerance,
    or the gradients are spent.

    Whenever half of the lines are done, they leave: the part they belong to, its estimates, and
    their numbers there (m,). Nothing of them is held from then on.
    """
    while True:
        pieces = part.wanted_pieces(estimates)
        if pieces is None:
            yield part, estimates, np.arange(len(part.number))
            return
        if part.integrate_smooth_paths(pieces, estimates):
            estimates = part.estimated()
            continue
        cut = part.affordable(pieces, estimates.errors)
        busy = part.units_of(cut)[part.wanted.unit]
        if 2 * busy.sum() <= len(busy):
            yield part, estimates, (~busy).nonzero()[0]
            if not busy.any():
                return
            part, interval = part.subset(busy.nonzero()[0])
            pieces, cut = pieces[interval], cut[interval]
        part.lay_anew(cut, pieces)
        estimates = part.estimated()


def _summed(shares: Tensor, number: Integers, count: int) -> Tensor:
    """Σ shares (M, \\*s) over each of ``count`` groups that they belong to (M,)."""
    sums = shares.new_zeros(count, *shares.shape[1:])
    return sums.index_add_(0, on_device(number, shares), shares)
