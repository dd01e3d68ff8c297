"""Adaptive integration to a relative tolerance.

    share = Δ ⊙ Σ_k h_k c_k            c_k: the mean gradient over interval k of the path, h_k its
                                       length

Every interval's mean gradient is a *chord*: exactly complete for networks of known operations, the
mean of its end gradients otherwise (``Field.evaluate_chords``). Completeness is one number and says
nothing of errors that cancel between features, so the error is judged on the vector: an interval
whose mean gradient agrees with its neighbours' is accepted, any other is subdivided. With r the
relative difference to the neighbours (in h-weighted attributions), the interval's error is taken as

    e = ‖share‖ · φ(r),    φ(r) = 0.45 / (1/r² + 0.6)

or what the chord misses of F's change, if that is more. Where an interval's differences to both
neighbours go one way the network is smooth there and errors may be of one sign: those are added up;
elsewhere (networks with kinks) they are nearly independent, and added in squares. From there the
number of pieces every interval needs follows from how errors fall with them, so one or two rounds
suffice.

Chords of intervals that all end where nothing happens agree, whatever happens inside. So a path
that claims to be known is looked into: one gradient g at a scattered place of each stretch that is
longer than a certain fraction of the path. It may differ from its interval's chord as much as the
neighbours do; half of what it differs more is taken to be wrong all along the interval, and the
path, which knew less of itself than it said, is divided again, at uneven places and with its errors
raised.

What is promised is the error of what is asked for: of every path alone, or, where it is known how
references are weighed, of their weighted sum, so that references of little weight get few
gradients. A path that is smooth all along is integrated by Clenshaw–Curtis nodes instead, when the
tolerance is so tight that these are fewer. docs/design/0003-chords.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...core.segment import Segment
from ...core.shapes import norm, over, unravelled
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ..base import Integrated, RoughShares, Rule, between_jumps
from .clenshaw_curtis import FIRST, spectral
from .intervals import (
    Booleans,
    Floats,
    Integers,
    Intervals,
    Lines,
    as_numpy,
    consecutive,
    largest_of,
    norms_of,
    numbered_on,
    on_device,
    sums_of,
)
from .nested import between

_START = 4  # intervals of the first look …
_GRADE = 2.0  # … at t = (j/4)²: most of what happens, happens near the baseline
_ALIKE = 0.1  # a path whose intervals all differ less than this from their neighbours may be so smooth that other nodes do better …
_ALIKE_SMOOTH = 2.5  # … or less than this, where the network is known to have no kinks
_SAFETY = 2.0  # the estimate is raised by this times the tolerance, the coarser the intervals, the less their neighbours know …
_MOST_SAFETY = (
    0.2  # … but by no more than this; docs/design/0003-chords.md has how often it is then exceeded
)
_BIAS = 1.1  # on steady stretches, where errors add up, it is raised by this factor
_KINKED = 1.1  # errors of unlike intervals fall like pieces^-this …
_KINKED_COARSE = 1.05  # … and more slowly from a coarse look
_SMOOTH = 2.0  # those of alike ones
_COARSE = 0.2  # a look with more relative error than this is coarse
_HALVINGS = 24  # of the search for how many pieces
_EVENNESS = 0.4  # pieces go like error^this: less than the best exponent for known errors, because they are not
_WORTH = 1.25  # an interval that should be this many pieces is divided again
_MOST_PIECES = 16  # one interval becomes, in one round
_BLIND = 0.25  # no stretch of a path longer than this is believed without a look into it …
_BLIND_GATED = (
    0.125  # … or this, where things that move are multiplied with each other, so that more can hide
)
_DOUBTED = 3.0  # errors of a path on which a look found what it did not know of are raised by this
_FLOOR = 16  # no error is worth a gradient that is below so many units of the last place of what the map is made of
_CANCELLED = 1e-3  # … nor one that is within the tolerance of a map of this fraction of what it is made of: the rest has cancelled
_BLOCK_ELEMENTS = 1 << 23  # paths are refined in blocks whose chords hold about this many numbers …
_EXAMPLE_ELEMENTS = (
    1 << 25
)  # … or this many, on other devices than CPUs and where that keeps an example's paths together
_quietly = np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
_SMOOTH_COST = 17  # gradients that a smooth path mostly takes with Clenshaw–Curtis nodes


@part
class Adaptive(Rule):
    """Adaptive integration: as many gradients as a relative L2 error below ``tol`` needs.

    Open-loop segments start with 4 chords, and intervals whose gradients differ from
    their neighbours' are subdivided. On
    segments whose path has paid for an end (descents, guided paths), nodes are added between both
    ends by halving.

    Estimates are checked once more: no stretch longer than a quarter of the path (an eighth where
    parts of the model multiply each other, or its operations are not known) is accepted without a
    gradient from its inside.

    Gradients are spent until the error is ``tol`` of the map, or of a thousandth of what the map is
    made of (the shares of its intervals, which cancel where F comes back to where it began), or
    rounding of that. The map is ``converged`` only in the first case.

    Returns shares with their estimated errors, whose weighted squares add up to that of the sum.

    Args:
        tol: relative to the norm of the path's share, or of the weighted sum where weights are
            known (``Segment.weights``).
        max_gradients: per path (reference × example); one that needs more is returned as it is,
            with its error, and not ``converged``.

    Cost:
        None for fields that are flat but where they jump, such as trees, whose share is exact; for
        mixtures of trees and networks, those of what lies between the jumps.
        7 gradients per path for nearly linear networks (11 where parts multiply each other), about
        25 for EfficientNet-Lite0 from black at 10 %.
    """

    tol: float = 0.05
    max_gradients: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1:
            raise InputError(
                f"tol is a relative error between 0 and 1, such as 0.05, not {self.tol}."
            )
        if self.max_gradients < _START + 1:
            raise InputError(f"max_gradients is at least {_START + 1}, not {self.max_gradients}.")

    @property
    def budget(self) -> int:
        return self.max_gradients

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        jumping = between_jumps(field, segment, lambda: self)
        if jumping is not None:
            return jumping
        _check_conservative(field, self)
        if segment.at_start is not None or segment.at_end is not None:
            return between(field, segment, self.tol, self.max_gradients)
        # Block by block: what is known of one is let go before the next.
        return Looked(field, segment, self._first_looks(field, segment)).refined(segment.weights)

    def look(self, field: Field, segment: Segment) -> RoughShares:
        """A first look at every path, kept to be refined when it is known how much each counts."""
        jumping = between_jumps(field, segment, lambda: self)
        if jumping is not None:
            return _Known(segment, jumping)
        _check_conservative(field, self)
        return Looked(field, segment, list(self._first_looks(field, segment, keep=True)))

    def _first_looks(
        self, field: Field, segment: Segment, *, keep: bool = False
    ) -> Iterator[tuple[Tensor, _Block]]:
        for place in _blocks(field, segment):
            lines = Lines.of(field, segment, place)
            yield place, _Block(self, lines, _first_look(lines), keep=keep)


def _first_look(lines: Lines) -> Intervals:
    """A few chords on every path, by the number of its own pieces that move: an interval without a
    neighbour has nothing to be judged by."""
    pieces = np.bincount(lines.chain)[lines.chain]
    intervals = np.maximum(-(-_START // pieces), 1)
    line = np.arange(len(lines)).repeat(intervals)
    place = np.arange(len(line)) - (intervals.cumsum() - intervals)[line]
    grade = np.where(pieces == 1, _GRADE, 1.0)[line]
    dtype = as_numpy(lines.start[:0]).dtype
    a, b = (((number / intervals[line]) ** grade).astype(dtype) for number in (place, place + 1))
    return lines.chords(line, a, b)


def _check_conservative(field: Field, rule: Adaptive) -> None:
    if not field.conservative:
        raise InputError(
            f"{rule!r} judges a map by what it adds up to, and the gradients of this field follow a backward rule, so that they add up "
            "to nothing: give fixed nodes, such as rule=ig.rules.Midpoint(50)."
        )


@dataclass(frozen=True, eq=False)
class _Known:
    """Paths of a field that jumps: a first look is the last."""

    segment: Segment
    integrated: Integrated

    def refined(self, weights: Tensor | None = None, tol: float | None = None) -> Integrated:
        return self.integrated


@dataclass(frozen=True, eq=False)
class Looked:
    """Paths that have been looked at, and can be refined."""

    field: Field
    segment: Segment
    blocks: Iterable[tuple[Tensor, _Block]]

    def refined(self, weights: Tensor | None = None, tol: float | None = None) -> Integrated:
        """Shares within the tolerance: each path's, or that of the sum weighed by ``weights`` (R,
        B). May be asked again."""
        segment = self.segment
        leading, inner = segment.leading, segment.start.shape[3:]
        share = segment.start.new_zeros(leading[0] * leading[1] * leading[2], *inner)
        error = share.new_zeros(len(share))
        begin, end = (share.new_full((len(share),), float("nan")) for _ in range(2))
        points = as_numpy(self.field.points(torch.arange(leading[2], device=share.device)))
        weighed = None if weights is None else as_numpy(weights.to(share))
        for place, block in self.blocks:
            _, r, b = np.unravel_index(as_numpy(place), leading)
            if weighed is None:
                wanted = _WantedSums.of_paths(block.lines.chain, points[b] * leading[1] + r)
            else:
                wanted = _WantedSums.of_examples(b, weighed[r, b], points[b])
            share[place], errors = block.refined(wanted, tol)
            for column, numbers in ((error, errors), (begin, block.begin), (end, block.end)):
                column[place] = on_device(numbers, share)
        shaped = (numbers.reshape(leading) for numbers in (error, begin, end))
        return Integrated(share.reshape(*leading, *inner), *shaped)


def _blocks(field: Field, segment: Segment) -> list[Tensor]:
    """The pieces that move, path by path and example by example, in blocks of whole paths and, if
    they fit, whole examples.

    Examples that ask several questions of one input go path by path together.
    """
    pieces, references, batch = segment.leading
    place = segment.moving()
    if not len(place):
        return []
    _, r, b = unravelled(place, (pieces, references, batch))
    point = field.points(torch.arange(batch, device=place.device))
    paths = (point[:, None] * references + torch.arange(references, device=place.device)).reshape(
        -1
    )
    path = torch.argsort(torch.argsort(paths, stable=True))[b * references + r]
    order = torch.argsort(path, stable=True)
    elements = 32 * pieces * max(1, segment.start[0, 0, 0].numel())
    small, large = max(1, _BLOCK_ELEMENTS // elements), max(1, _EXAMPLE_ELEMENTS // elements)
    size = small if segment.start.device.type == "cpu" else large
    together = int(torch.bincount(point).amax())
    for unit in (references * together, together):
        if size >= unit:
            size -= size % unit
            break
        if large >= unit:
            size = unit
            break
    return list(
        torch.split(
            place[order],
            torch.unique_consecutive(path[order] // size, return_counts=True)[1].tolist(),
        )
    )


@dataclass(frozen=True, eq=False)
class _WantedSums:
    """What is to be known: the sum of every ``group`` (M,) of lines, weighed by ``weight`` (M,).

    ``unit`` (M,) numbers, in order, the lines that are refined until all of them are done: those of
    one group, and companions. Without ``weight`` every path is a group, and counts as it is.
    """

    group: Integers
    weight: Floats | None
    unit: Integers

    @classmethod
    def of_paths(cls, chain: Integers, unit: Integers) -> _WantedSums:
        """Every path ``chain`` (M,) by itself, in the same ``unit`` (M,) as its companions."""
        return cls(chain, None, consecutive(unit))

    @classmethod
    def of_examples(cls, example: Integers, weight: Floats, point: Integers) -> _WantedSums:
        """The sum over all paths of every ``example`` (M,); those at the same ``point`` (M,) may
        have companions."""
        return cls(_numbered(example), weight, consecutive(point))

    def at(self, line: Integers) -> _WantedSums:
        """Of these lines (m,), which are whole units."""
        group, unit = self.group[line], consecutive(self.unit[line])
        if self.weight is None:
            return _WantedSums(consecutive(group), None, unit)
        return _WantedSums(_numbered(group), self.weight[line], unit)

    @staticmethod
    def joined(parts: Sequence[_WantedSums]) -> _WantedSums:
        """One after the other."""
        weights = [part.weight for part in parts if part.weight is not None]
        return _WantedSums(
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


class _Block:
    """Paths that are refined side by side, until each is known well enough.

    Paths that are done leave, so that rounds in which little is left to do cost little. With
    ``keep`` what is known of them is kept, and more may be asked later.

    Attributes:
        begin, end: (M,) F at both ends of every line.
    """

    def __init__(self, rule: Adaptive, lines: Lines, known: Intervals, *, keep: bool) -> None:
        self.lines = lines
        self.begin, self.end = lines.ends(known)
        self._tol = rule.tol
        self._keep = keep
        self._parts = [_Refinement.of(rule, lines, known)]

    def refined(self, wanted: _WantedSums, tol: float | None) -> tuple[Tensor, Floats]:
        """Shares and errors per line (M,), once what is asked is known or the gradients are spent.

        To the rule's tolerance, and looked into once more, unless a ``tol`` is given.
        """
        part = _Refinement.joined(self._parts).in_order()
        part = replace(part, wanted=wanted, tol=self._tol if tol is None else tol)
        self._parts = []
        share, error = torch.empty_like(self.lines.start), np.empty_like(self.begin)
        estimates = part.estimated()
        while True:
            doubtful: list[tuple[_Refinement, Integers, Floats]] = []
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
            part = _Refinement.joined(parts)
            estimates = part.looked_into(np.concatenate(counts), np.concatenate(errors))

    def _taken_apart(
        self, part: _Refinement, estimates: _Estimates, done: Integers, looks: Integers
    ) -> list[tuple[_Refinement, Integers, Floats]]:
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
class _Refinement:
    """Some lines of a block, the intervals that are known of them, and what those have cost.

    Attributes:
        number: (M,) which lines of the block they are.
        spent: (chains,) gradients;  tried (chains,) whether Clenshaw–Curtis nodes were;  doubted
            (chains,) whether a look found what was not known.
        magnitude: (M,) the norms of what each line's share was added up from, the most they have
            been.
        wanted, tol: what is asked of them.
    """

    rule: Adaptive
    number: Integers
    lines: Lines
    known: Intervals
    spent: Integers
    tried: Booleans
    doubted: Booleans
    magnitude: Floats
    wanted: _WantedSums
    tol: float

    @classmethod
    def of(cls, rule: Adaptive, lines: Lines, known: Intervals) -> _Refinement:
        """Lines after a first look, every path wanted by itself."""
        return cls(
            rule=rule,
            number=np.arange(len(lines)),
            lines=lines,
            known=known,
            spent=lines.cost(known),
            tried=np.zeros(lines.chains, dtype=bool),
            doubted=np.zeros(lines.chains, dtype=bool),
            magnitude=np.zeros_like(known.a, shape=len(lines)),
            wanted=_WantedSums.of_paths(lines.chain, lines.chain),
            tol=rule.tol,
        )

    def subset(self, line: Integers) -> tuple[_Refinement, Integers]:
        """Some of the lines (m,), whole units in any order, and the numbers of their intervals."""
        place = np.full(len(self.number), -1)
        place[line] = np.arange(len(line))
        on = place[self.known.line]
        interval = (on >= 0).nonzero()[0]
        interval = interval[np.argsort(on[interval], kind="stable")]
        lines, on = self.lines.subset(line), on[interval]
        chain = self.lines.chain[line]
        chain = chain[np.append(True, chain[1:] != chain[:-1])]
        return _Refinement(
            rule=self.rule,
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

    def in_order(self) -> _Refinement:
        """All lines of a block, in its order."""
        line = np.argsort(self.number)
        return self if (line[1:] > line[:-1]).all() else self.subset(line)[0]

    @classmethod
    def joined(cls, parts: Sequence[_Refinement]) -> _Refinement:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        lines = Lines.joined([part.lines for part in parts])
        on = numbered_on([(part.known.line, len(part.lines)) for part in parts])
        return cls(
            rule=parts[0].rule,
            number=np.concatenate([part.number for part in parts]),
            lines=lines,
            known=Intervals.joined([part.known for part in parts]).on(on, lines.chain[on]),
            spent=np.concatenate([part.spent for part in parts]),
            tried=np.concatenate([part.tried for part in parts]),
            doubted=np.concatenate([part.doubted for part in parts]),
            magnitude=np.concatenate([part.magnitude for part in parts]),
            wanted=_WantedSums.joined([part.wanted for part in parts]),
            tol=parts[0].tol,
        )

    def units_of(self, chosen: Booleans) -> Booleans:
        """Which units (U,) have an interval among the ``chosen`` ones (n,)."""
        units = np.zeros(self.wanted.units, dtype=bool)
        units[self.wanted.unit[self.known.line[chosen]]] = True
        return units

    @_quietly
    def errors(self, estimates: _Estimates) -> Floats:
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

    def looks(self, estimates: _Estimates) -> Integers:
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
        count *= (self.spent + cost <= self.rule.max_gradients)[known.chain]
        return count

    def looked_into(self, count: Integers, before: Floats) -> _Estimates:
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

    def wanted_pieces(self, estimates: _Estimates) -> Floats | None:
        """How many pieces to make of each interval (n,); None where all is known that is asked, or
        can be."""
        affordable = (self.spent < self.rule.max_gradients)[self.known.chain]
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
        final = estimates.goal * min(1.0, self.rule.tol / self.tol)
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

    @_quietly
    def estimated(self) -> _Estimates:
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
        return _Estimates(
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
        per_chain, room = sums_of(chain, cost, chains), self.rule.max_gradients - self.spent
        if (per_chain <= room).all():
            return cost > 0
        order = np.lexsort((-errors, chain))
        running = cost[order].cumsum() - (per_chain.cumsum() - per_chain)[chain[order]]
        fits = np.empty(len(chain), dtype=bool)
        fits[order] = running <= room[chain[order]]
        return (cost > 0) & fits

    def integrate_smooth_paths(self, pieces: Floats, estimates: _Estimates) -> bool:
        """Integrate paths that are smooth all along by Clenshaw–Curtis nodes, where those are
        fewer; whether any were."""
        known, lines, wanted, most = self.known, self.lines, self.wanted, self.rule.max_gradients
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
            enough = (estimates.goal[group] / (_BIAS * weight * members))[line]
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
    part: _Refinement, estimates: _Estimates
) -> Iterator[tuple[_Refinement, _Estimates, Integers]]:
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


@dataclass(frozen=True, eq=False)
class _Estimates:
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
        squared: Floats = (_BIAS * sums[1::2]) ** 2 + safety**2 * sums[::2]
        return squared

    @_quietly
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
