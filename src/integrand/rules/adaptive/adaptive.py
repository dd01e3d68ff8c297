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
longer than a part of the path. It may differ from its interval's chord as much as the neighbours
do; half of what it differs more is taken to be wrong all along the interval, and the path, which
knew less of itself than it said, is divided again, at uneven places and with its errors raised.

What is promised is the error of what is asked for: of every path alone, or, where it is known how
references are weighed, of their weighted sum, so that references of little weight get few
gradients. A path that is smooth all along is integrated by Clenshaw–Curtis nodes instead, when the
tolerance is so tight that these are fewer. docs/design/0003-chords.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ...core.segment import Segment
from ...core.shapes import norm, norms_of, over
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ..base import Integrated, RoughShares, Rule, exactly
from .clenshaw_curtis import FIRST, spectral
from .intervals import Intervals, Lines
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
_CANCELLED = 1e-3  # … nor one that is within the tolerance of a map of this part of what it is made of: the rest has cancelled
_BLOCK_ELEMENTS = 1 << 23  # paths are refined in blocks whose chords hold about this many numbers …
_EXAMPLE_ELEMENTS = (
    1 << 25
)  # … or this many, on other devices than CPUs and where that keeps an example's paths together
_SMOOTH_COST = 17  # gradients that a smooth path mostly takes with Clenshaw–Curtis nodes


@part
class Adaptive(Rule):
    """Adaptive integration: as many gradients as a relative L2 error below ``tol`` needs.

    Open-loop segments start with 4 secant gradients, and intervals whose gradients differ from
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
        None for fields that are flat but where they jump, such as trees, whose share is exact.
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
        if field.flat:
            return exactly(field, segment)
        _check_conservative(field, self)
        if segment.at_start is not None or segment.at_end is not None:
            return between(field, segment, self.tol, self.max_gradients)
        # Block by block: what is known of one is let go before the next.
        return Looked(segment, self._first_looks(field, segment)).refined(segment.weights)

    def look(self, field: Field, segment: Segment) -> RoughShares:
        """A first look at every path, kept to be refined when it is known how much each counts."""
        if field.flat:
            return _Known(segment, exactly(field, segment))
        _check_conservative(field, self)
        return Looked(segment, list(self._first_looks(field, segment)))

    def _first_looks(self, field: Field, segment: Segment) -> Iterator[tuple[Tensor, _Refinement]]:
        for place in _blocks(field, segment):
            lines = Lines.of(field, segment, place)
            yield place, _Refinement(self, lines, _first_look(lines))


def _first_look(lines: Lines) -> Intervals:
    """A few chords on every path, by the number of its own pieces that move: an interval without a
    neighbour has nothing to be judged by."""
    pieces = torch.bincount(lines.chain)[lines.chain]
    intervals = (-(-_START // pieces)).clamp_min(1)
    line = torch.repeat_interleave(torch.arange(len(lines), device=intervals.device), intervals)
    place = (
        torch.arange(len(line), device=intervals.device) - (intervals.cumsum(0) - intervals)[line]
    )
    a, b = ((number / intervals[line]).to(lines.start.dtype) for number in (place, place + 1))
    graded = pieces[line] == 1
    return lines.chords(line, torch.where(graded, a**_GRADE, a), torch.where(graded, b**_GRADE, b))


def _check_conservative(field: Field, rule: Adaptive) -> None:
    if not field.conservative:
        raise InputError(
            f"{rule!r} judges a map by what it adds up to, and the gradients of this field follow a backward rule, so that they add up "
            "to nothing: give fixed nodes, such as rule=ig.rules.Midpoint(50)."
        )


@dataclass(frozen=True, eq=False)
class _Known:
    """Paths of a field that is flat but where it jumps: a first look is the last."""

    segment: Segment
    integrated: Integrated

    def refined(self, weights: Tensor | None = None, tol: float | None = None) -> Integrated:
        return self.integrated


@dataclass(frozen=True, eq=False)
class Looked:
    """Paths that have been looked at, and can be refined."""

    segment: Segment
    blocks: Iterable[tuple[Tensor, _Refinement]]

    def refined(self, weights: Tensor | None = None, tol: float | None = None) -> Integrated:
        """Shares within the tolerance: each path's, or that of the sum weighed by ``weights`` (R,
        B). May be asked again."""
        segment = self.segment
        leading, inner = segment.leading, segment.start.shape[3:]
        share = segment.start.new_zeros(leading[0] * leading[1] * leading[2], *inner)
        error = share.new_zeros(len(share))
        begin, end = (share.new_full((len(share),), float("nan")) for _ in range(2))
        for place, block in self.blocks:
            _, r, b = torch.unravel_index(place, leading)
            if weights is None:
                group, weight = block.lines.chain, segment.start.new_ones(len(place))
            else:
                group, weight = torch.unique(b, return_inverse=True)[1], weights[r, b].to(share)
            wanted = _WantedSums(
                group, weight, block.rule.tol if tol is None else tol, looks=tol is None
            )
            share[place], error[place] = block.refined(wanted)
            begin[place], end[place] = block.begin, block.end
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
    _, r, b = torch.unravel_index(place, (pieces, references, batch))
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
    """What is to be known: the sum of every ``group`` (M,) of lines, weighed by ``weight`` (M,), to
    a relative error ``tol``.

    ``looks``: whether what seems to be so is looked into once more.
    """

    group: Tensor
    weight: Tensor
    tol: float
    looks: bool = True


class _Refinement:
    """Some paths, the intervals that are known of them, and what those have cost.

    Attributes:
        begin, end: (M,) F at both ends of every line.
        magnitude: (M,) the norms of what each line's share was added up from, the most they have
            been.
    """

    def __init__(self, rule: Adaptive, lines: Lines, known: Intervals) -> None:
        self.rule = rule
        self.lines = lines
        self.known = known
        self.chains = int(lines.chain[-1]) + 1
        self.spent = lines.cost(known, self.chains)
        self.tried, self.doubted = torch.zeros(
            2, self.chains, dtype=torch.bool, device=lines.start.device
        )
        self.pieces = torch.bincount(lines.chain)
        self.begin, self.end = lines.ends(known)
        self.magnitude = torch.zeros_like(self.begin)

    def refined(self, wanted: _WantedSums) -> tuple[Tensor, Tensor]:
        """Shares and errors per line (M,), once what is asked is known or the gradients are
        spent."""
        group, weight = wanted.group, wanted.weight
        estimates = self._refine(wanted)
        while wanted.looks and self._look_into(wanted, estimates):
            estimates = self._refine(wanted)
        total = estimates.total
        line_errors = norms_of(self.known.line, estimates.interval_errors, len(self.lines))
        # Each line's error is raised so that the weighted squares add up to what the sum may be
        # wrong by.
        independent = norms_of(group, weight * line_errors, len(total))
        raised = torch.where((independent > 0) & total.isfinite(), total / independent, 1)
        # Nothing is better known than to rounding; a map that is no more than that itself is zero.
        eps = torch.finfo(line_errors.dtype).eps
        error = torch.maximum(line_errors * raised[group], 4 * eps * self.magnitude)
        nothing = torch.maximum(norm(estimates.shares), error) <= _FLOOR * eps * self.magnitude
        return estimates.shares, torch.where(nothing, 0, error)

    def _look_into(self, wanted: _WantedSums, estimates: _Estimates) -> bool:
        """Look into the long intervals of paths that claim to be known; whether there were any.

        A stretch that no node fell into may hold anything that is over at its ends.
        """
        known, lines = self.known, self.lines
        blind = _BLIND_GATED if lines.field.gated else _BLIND
        stretch = known.length / self.pieces[known.chain]
        # Where something was hidden once, every interval is looked into.
        count = ((stretch / blind - 1e-3).ceil().long() - 1).clamp_min(
            self.doubted.long()[known.chain]
        )
        settled = (estimates.total <= estimates.goal)[estimates.owner] & (
            estimates.total.isfinite()
        )[estimates.owner]
        count = count * (
            settled & known.known.isnan() & (wanted.weight != 0)[known.line] & (count > known.looks)
        )
        cost = count.new_zeros(self.chains).index_add_(0, known.chain, count.clamp_min(0))
        count = count * (self.spent + cost <= self.rule.max_gradients)[known.chain]
        chosen = (count > 0).nonzero()[:, 0]
        if not len(chosen):
            return False
        self.known = lines.looked_into(known, chosen, count[chosen])
        self.spent.index_add_(0, known.chain[chosen], count[chosen])
        again = self._estimate(wanted)
        # What turned out to know too little of itself is believed less from now on.
        wrong = (again.interval_errors > estimates.interval_errors) & (again.total > again.goal)[
            again.owner
        ]
        self.doubted[known.chain[wrong]] = True
        return True

    def _refine(self, wanted: _WantedSums) -> _Estimates:
        """Lay intervals anew until the weighted sum over every group of lines is within the
        tolerance, or the gradients are spent."""
        while True:
            estimates = self._estimate(wanted)
            chain = self.known.chain
            affordable = (self.spent < self.rule.max_gradients)[chain]
            # What is infinitely wrong is not mended by more gradients.
            busy = ((estimates.total > estimates.goal) & estimates.total.isfinite())[
                estimates.owner
            ] & affordable
            if not bool(busy.any()):
                return estimates
            # Companions go along, so that their nodes stay common, until they are as good as they
            # will ever have to be.
            final = estimates.goal * min(1.0, self.rule.tol / wanted.tol)
            along = (estimates.total > final)[estimates.owner] & affordable
            pieces = self.lines.most(self.known, estimates.pieces(busy)) * along
            if self._integrate_smooth_paths(pieces, wanted, estimates):
                continue
            cut = self._affordable(pieces * self._divisible(), estimates.errors)
            if not bool(cut.any()):
                return estimates
            laid = self.lines.regridded(self.known.at(cut), pieces[cut], self.doubted)
            self.spent += self.lines.cost(laid, self.chains)
            self.known = self.known.at(~cut)  # what is replaced is let go first
            self.known = self.known.joined(laid)

    def _estimate(self, wanted: _WantedSums) -> _Estimates:
        """What is known so far, against what is asked."""
        group, weight, known = wanted.group, wanted.weight, self.known
        shares = self.lines.shares(known)
        paths = shares.new_zeros(self.chains, *shares.shape[1:]).index_add_(
            0, self.lines.chain, shares
        )
        judged = self.lines.errors(known, self.lines.rates(known, paths))
        sums = shares.new_zeros(int(group.max()) + 1, *shares.shape[1:]).index_add_(
            0, group, shares * over(weight, shares)
        )
        interval_errors = (
            judged.error * torch.where(self.doubted, _DOUBTED, 1.0).to(judged.error)[known.chain]
        )
        errors, owner = interval_errors * weight[known.line], group[known.line]
        goal = wanted.tol * norm(sums)
        # What shares were made of is not forgotten where one interval takes the place of several.
        self.magnitude = torch.maximum(
            self.magnitude, torch.zeros_like(self.magnitude).index_add_(0, known.line, judged.size)
        )
        magnitude = torch.zeros_like(goal).index_add_(0, group, self.magnitude * weight)
        goal = torch.maximum(
            goal, max(_FLOOR * torch.finfo(goal.dtype).eps, wanted.tol * _CANCELLED) * magnitude
        )
        return _Estimates(
            shares, interval_errors, errors, judged.unlike, judged.steady, owner, goal, wanted.tol
        )

    def _divisible(self) -> Tensor:
        """Which intervals are so long (n,) that points between their ends differ from them."""
        ends = torch.maximum(self.known.a.abs(), self.known.b.abs())
        return self.known.length > 64 * torch.finfo(ends.dtype).eps * ends

    def _affordable(self, pieces: Tensor, errors: Tensor) -> Tensor:
        """Which intervals to divide: all that are worth it; of paths over their budget, the worst
        that it still pays for."""
        chain = self.known.chain
        cost = torch.where(pieces >= _WORTH, pieces.ceil().clamp_min(2) + 1, 0)
        order = torch.argsort(errors, descending=True, stable=True)
        order = order[torch.argsort(chain[order], stable=True)]
        running = cost[order].cumsum(0)
        per_chain = cost.new_zeros(self.chains).index_add_(0, chain, cost)
        before = per_chain.cumsum(0) - per_chain
        running = running - before[chain[order]]
        fits = torch.empty_like(chain, dtype=torch.bool)
        fits[order] = running <= (self.rule.max_gradients - self.spent)[chain[order]]
        return (cost > 0) & fits

    def _integrate_smooth_paths(
        self, pieces: Tensor, wanted: _WantedSums, estimates: _Estimates
    ) -> bool:
        """Integrate paths that are smooth all along by Clenshaw–Curtis nodes, where those are
        fewer; whether any were."""
        known, chains, group, weight = self.known, self.chains, wanted.group, wanted.weight
        need = pieces.new_zeros(chains).index_add_(0, known.chain, pieces)
        alike = _ALIKE_SMOOTH if self.lines.field.smooth else _ALIKE
        rough = self.doubted.index_fill(0, known.chain[estimates.unlike > alike], True)
        single = torch.bincount(self.lines.chain, minlength=chains) == 1
        room = self.spent + FIRST <= self.rule.max_gradients
        chosen = (need > _SMOOTH_COST) & ~rough & ~self.tried & single & room
        # Companions go together or not at all.
        blocked = self.lines.companions[(~chosen & (need > 0))[self.lines.chain]]
        chosen[self.lines.chain[torch.isin(self.lines.companions, blocked)]] = False
        if not bool(chosen.any()):
            return False
        self.tried |= chosen
        line = chosen[self.lines.chain].nonzero()[:, 0]
        members = torch.bincount(group, minlength=len(estimates.goal))[group]
        enough = (estimates.goal[group] / (_BIAS * weight * members.sqrt()))[line]
        smooth, nodes = spectral(
            self.lines.subset(line), enough, self.rule.max_gradients - self.spent[chosen]
        )
        self.spent[chosen] += nodes
        # What is not good enough is still better than chords that there is no room left for.
        line_errors = norms_of(known.line, estimates.interval_errors, len(self.lines))[line]
        poor = (self.spent + need > self.rule.max_gradients)[chosen]
        accurate = smooth.known < enough
        last = ~accurate & poor & (smooth.known < line_errors)
        self.spent[chosen.nonzero()[:, 0][last]] = self.rule.max_gradients
        better = accurate | last
        keep = line[better]
        replaced = torch.zeros(len(self.lines), dtype=torch.bool, device=line.device).index_fill_(
            0, keep, True
        )
        exact = smooth.at(better).on(keep, self.lines.chain[keep])
        self.known = known.at(~replaced[known.line]).joined(exact)
        return True


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
    interval_errors: Tensor
    errors: Tensor
    unlike: Tensor
    steady: Tensor
    owner: Tensor
    goal: Tensor
    tol: float

    @cached_property
    def worst(self) -> Tensor:
        """The largest error of an interval of each group (G,)."""
        return torch.zeros_like(self.goal).scatter_reduce_(0, self.owner, self.errors, "amax")

    @cached_property
    def total(self) -> Tensor:
        """What each group's sum is taken to be wrong by (G,)."""
        scale = torch.where((self.worst > 0) & self.worst.isfinite(), self.worst, 1)
        return self._add_errors(self.errors / scale[self.owner]) * scale

    def _add_errors(self, errors: Tensor) -> Tensor:
        """Errors (n,) of steady stretches as they are, others as if independent → (G,)."""
        together = torch.zeros_like(self.goal).index_add_(
            0, self.owner, torch.where(self.steady, errors, 0)
        )
        apart = torch.zeros_like(self.goal).index_add_(
            0, self.owner, torch.where(self.steady, 0, errors.square())
        )
        return ((_BIAS * together).square() + self._safety**2 * apart).sqrt()

    @property
    def _safety(self) -> float:
        return 1 + min(_SAFETY * self.tol, _MOST_SAFETY)

    def pieces(self, busy: Tensor) -> Tensor:
        """As many pieces (n,) as bring the errors, falling like pieces^−q, down to the goal of
        their group; 0 where not ``busy`` (n,)."""
        affected = torch.zeros_like(self.goal, dtype=torch.bool).index_fill_(
            0, self.owner[busy], True
        )[self.owner]
        subset = replace(
            self,
            errors=self.errors[affected],
            owner=self.owner[affected],
            steady=self.steady[affected],
        )
        return (
            torch.zeros_like(self.errors).masked_scatter_(affected, subset._wanted_pieces()) * busy
        )

    def _wanted_pieces(self) -> Tensor:
        goal, owner, errors = self.goal, self.owner, self.errors
        coarse = self.total * self.tol > _COARSE * goal
        kinked = torch.where(coarse, _KINKED_COARSE, _KINKED).to(goal)[owner]
        q = torch.where(self.steady, _SMOOTH, kinked)
        # A map of nothing that misses something is cut where most is missed.
        scale = torch.where(goal > 0, goal, torch.where(self.worst > 0, self.worst, 1))
        relative, wanted = errors / scale[owner], goal / scale
        part = relative**_EVENNESS
        low, high = torch.full_like(goal, -20.0), torch.full_like(goal, 20.0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            many = (part * 2 ** middle[owner]).clamp_min(1)
            enough = self._add_errors(relative / many**q) <= wanted
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        pieces = part * 2 ** high[owner]
        # One round goes only so far; where errors are in one place, the rest waits until more is
        # known.
        most = torch.zeros_like(goal).scatter_reduce_(0, owner, pieces, "amax")
        pieces = pieces * (_MOST_PIECES / most.clamp_min(_MOST_PIECES))[owner]
        # Where nothing seems worth it and something must be done, the worst interval is divided.
        return torch.where(errors >= self.worst[owner], pieces.clamp_min(2), pieces)
