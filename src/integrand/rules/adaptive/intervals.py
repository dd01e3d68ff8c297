"""Intervals of lines with their chords, and error estimates from neighbouring
intervals.

    slopes       (n, \\*s)   gradients, as large as the inputs: torch, where the model is
    everything else  (n,)    where intervals lie, how wrong they may be: NumPy, on the CPU

There are some thousand numbers about intervals and some hundred steps to take with them. A call of
torch takes several times as long as NumPy's with so few, on a GPU some ten times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.segment import Evaluation, Segment
from ...core.shapes import ROUNDING, first_alike, flattened, norm, over, unravelled
from ...fields import Field
from ..base import least_norm, missed

_TOWER = 1.0  # an interval this much denser than its neighbours is in doubt
_STEADY = 0.5  # cos of the differences to both neighbours, above which a stretch is smooth
_HIDDEN = 0.5  # of what a look between the nodes cannot explain, this much is taken to be wrong all along the interval
_RATE = 2.0  # where F comes back to where it began, a missed change is taken to be at most this much in the vector

_NOISE = 256  # differences of slopes below this many units of their last place are rounding
_PIECE_ELEMENTS = (
    1 << 21
)  # slopes are compared about this many numbers at a time: all that they are is held, and no second time

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is thought of intervals.

    Attributes:
        error: (n,) what they may be wrong by; infinite where it is not a number.
        unlike: (n,) their differences to their neighbours relative to themselves.
        steady: (n,) whether these go on steadily, so that errors may be of one sign.
        size: (n,) the norms of their shares.
    """

    error: Floats
    unlike: Floats
    steady: Booleans
    size: Floats


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals of several lines, by line and then along it.

    Attributes:
        counts: (3, n) whole numbers, with a name for each row: ``line`` which line each is on,
            ``chain`` which path that is a piece of, ``looks`` gradients that were taken between its
            ends.
        numbers: (6, n), with a name for each row: ``a`` and ``b`` where each begins and ends on its
            line, from 0 to 1; ``value`` F(b) and ``change`` F(b) − F(a), which came with the
            gradients; ``known`` the error, where something better than its neighbours has told it,
            else NaN; ``surprise`` the most that a look differed from the chord, ‖(gradient − slope)
            ⊙ Δ‖.
        slope: (n, \\*s) the mean gradient.
    """

    counts: Integers
    numbers: Floats
    slope: Tensor

    @classmethod
    def of(
        cls,
        line: Integers,
        chain: Integers,
        ends: tuple[Floats, Floats],
        slope: Tensor,
        value: Floats,
        change: Floats,
        known: Floats | None = None,
    ) -> Intervals:
        """Intervals between ``ends`` (n,) each, into which nobody has looked."""
        nothing = np.zeros_like(value)
        known = np.full_like(value, np.nan) if known is None else known
        return cls(
            np.stack([line, chain, np.zeros_like(line)]),
            np.stack([*ends, value, change, known, nothing]),
            slope,
        )

    def __len__(self) -> int:
        return len(self.slope)

    @property
    def line(self) -> Integers:
        row: Integers = self.counts[0]
        return row

    @property
    def chain(self) -> Integers:
        row: Integers = self.counts[1]
        return row

    @property
    def looks(self) -> Integers:
        row: Integers = self.counts[2]
        return row

    @property
    def a(self) -> Floats:
        row: Floats = self.numbers[0]
        return row

    @property
    def b(self) -> Floats:
        row: Floats = self.numbers[1]
        return row

    @property
    def value(self) -> Floats:
        row: Floats = self.numbers[2]
        return row

    @property
    def change(self) -> Floats:
        row: Floats = self.numbers[3]
        return row

    @property
    def known(self) -> Floats:
        row: Floats = self.numbers[4]
        return row

    @property
    def surprise(self) -> Floats:
        row: Floats = self.numbers[5]
        return row

    @property
    def length(self) -> Floats:
        return self.b - self.a

    def at(self, number: Integers) -> Intervals:
        """The intervals of these numbers (m,)."""
        slope = self.slope.index_select(0, on_device(number, self.slope))
        return Intervals(self.counts.take(number, 1), self.numbers.take(number, 1), slope)

    def on(self, line: Integers, chain: Integers) -> Intervals:
        """The same intervals, of lines and paths that are numbered otherwise."""
        return replace(self, counts=np.stack([line, chain, self.looks]))

    def inserted(self, added: Intervals, place: Integers) -> Intervals:
        """These, with ``added`` ones (m,) each of which has its ``place`` (m,) behind so many of
        these."""
        count = len(self) + len(added)
        new = place + np.arange(len(added))
        old = np.ones(count, dtype=bool)
        old[new] = False

        def merged(present: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
            both = np.empty_like(present, shape=(len(present), count))
            both[:, old], both[:, new] = present, more
            return both

        # Put where they belong at once: slopes are large, and sorting them after they are joined
        # takes them twice more.
        slope = self.slope.new_empty(count, *self.slope.shape[1:])
        slope.index_copy_(0, on_device(old.nonzero()[0], slope), self.slope)
        slope.index_copy_(0, on_device(new, slope), added.slope)
        return Intervals(
            merged(self.counts, added.counts), merged(self.numbers, added.numbers), slope
        )

    @staticmethod
    def joined(parts: Sequence[Intervals]) -> Intervals:
        """One after the other."""
        return Intervals(
            np.concatenate([part.counts for part in parts], 1),
            np.concatenate([part.numbers for part in parts], 1),
            torch.cat([part.slope for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class _Compared:
    """What is to be known of slopes along their lines, as numbers.

    norm, total (n,) ‖slope ⊙ Δ‖ and Σ slope ⊙ Δ;  to_after, to_before (n−1,) ‖(next slope − slope)
                                                   ⊙ Δ‖ for Δ of the next and of its own
    aligned (n−2,) the cosine between the difference from the one before ⊙ Δ and the difference to
    the one after ⊙ Δ
    """

    norm: Floats
    total: Floats
    to_after: Floats
    to_before: Floats
    aligned: Floats


@dataclass(frozen=True, eq=False)
class Lines:
    """Straight lines that are integrated, the pieces of a path one after the other.

    Attributes:
        start, end: (M, \\*s) the ends of the lines.
        example: (M,) which each belongs to.
        chain: (M,) which path it is a piece of, in order.
        companions: (M,) the same number for lines along which several questions are asked, that of
            the first of them; such companions share their nodes if they can.
    """

    field: Field
    start: Tensor
    end: Tensor
    example: Tensor
    chain: Integers
    companions: Integers

    @classmethod
    def of(cls, field: Field, segment: Segment, place: Tensor) -> Lines:
        """The pieces (K, R, B) that ``place`` numbers, path by path if ``place`` has them so."""
        pieces, references, batch = segment.leading
        k, r, b = unravelled(place, (pieces, references, batch))
        start, end = segment.start[k, r, b], segment.end[k, r, b]
        chain = consecutive((r * batch + b).cpu().numpy())
        companions = np.arange(len(place))
        point = field.points(torch.arange(batch, device=place.device))
        if int(point[-1]) + 1 < batch:
            first = first_alike((point[b] * references + r) * pieces + k)
            # A path may go another way for every question.
            same = flattened((start == start[first]) & (end == end[first]), 1).all(1)
            companions = np.where(same.cpu().numpy(), first.cpu().numpy(), companions)
        return cls(field, start, end, b, chain, companions)

    def __len__(self) -> int:
        return len(self.start)

    def subset(self, number: Integers) -> Lines:
        """The lines of these numbers (m,), as lines and paths of their own."""
        companions = np.arange(len(number))
        if self.shared:
            companions = first_alike(torch.from_numpy(self.companions[number])).numpy()
        place = on_device(number, self.start)
        return replace(
            self,
            start=self.start.index_select(0, place),
            end=self.end.index_select(0, place),
            example=self.example[place],
            chain=consecutive(self.chain[number]),
            companions=companions,
        )

    @staticmethod
    def joined(parts: Sequence[Lines]) -> Lines:
        """One after the other."""
        return Lines(
            parts[0].field,
            torch.cat([part.start for part in parts]),
            torch.cat([part.end for part in parts]),
            torch.cat([part.example for part in parts]),
            numbered_on([(part.chain, part.chains) for part in parts]),
            numbered_on([(part.companions, len(part)) for part in parts]),
        )

    @cached_property
    def chains(self) -> int:
        """How many paths they are pieces of."""
        return int(self.chain[-1]) + 1

    @cached_property
    def straight(self) -> bool:
        """Whether every path is one line."""
        return self.chains == len(self)

    @cached_property
    def shared(self) -> bool:
        """Whether several questions are asked along any of them."""
        return bool((self.companions != np.arange(len(self))).any())

    @cached_property
    def step(self) -> Tensor:
        """Δ (M, \\*s)."""
        return self.end - self.start

    @cached_property
    def moving(self) -> Tensor:
        """How many numbers change along each line (M,)."""
        count: Tensor = flattened(self.start != self.end, 1).sum(1)
        return count

    @cached_property
    def _alone(self) -> Booleans:
        """Along which lines (M,) one feature moves alone."""
        alone: Booleans = (self.moving == 1).cpu().numpy()
        return alone

    @cached_property
    def _least_rate(self) -> Floats:
        """The norm of the smallest vector along each path (chains,) that adds up to 1."""
        moving = self.moving.to(self.start)
        if not self.straight:
            moving = moving.new_zeros(self.chains).scatter_reduce_(
                0, on_device(self.chain, moving), moving, "amax"
            )
        return as_numpy(least_norm(moving))

    def most(self, known: Intervals, numbers: Floats) -> Floats:
        """The largest of the ``numbers`` (n,) of an interval and the same intervals of its
        companions (n,)."""
        if not self.shared:
            return numbers
        same = self._first_companions(known.line, known.a, known.b)
        return largest_of(same, numbers, len(numbers))[same]

    def _first_companions(self, line: Integers, *numbers: NDArray[Any]) -> Integers:
        """For each of some things with ``numbers`` (n,) on lines (n,) the first that is the same on
        a companion."""
        rows = np.stack([self.companions[line], *numbers], 1).astype(np.float64)
        first: Integers = first_alike(torch.from_numpy(rows)).numpy()
        return first

    def shares(self, known: Intervals) -> Tensor:
        """Δ ⊙ ∫ gradient of each line (M, \\*s)."""
        length = on_device(known.length, known.slope)
        mean = torch.zeros_like(self.start)
        mean.index_add_(0, on_device(known.line, mean), known.slope * over(length, known.slope))
        return mean * self.step

    def errors(self, known: Intervals, rate: Floats) -> Judgement:
        """What each interval may be wrong by, judged by its neighbours.

        Also by what its chord misses of the change of F, at the ``rate`` (chains,) at which changes
        of F turn into attributions.
        """
        beside = known.chain[1:] == known.chain[:-1]
        compared = self._compared(known)
        length, density = known.length, compared.norm
        size, eps = density * length, np.finfo(density.dtype).eps
        jump, steady = self._differences(compared, beside)
        # Beside a slope of nothing any other is infinitely unlike, and φ(r) = 0.45 / (1/r² + 0.6)
        # is 0.75.
        ratio = np.where(jump > 0, jump / density, 0)
        doubt = 0.45 / (ratio**-2 + 0.6)
        # A share of nothing beside a large one is as uncertain as its neighbours are large.
        error = np.maximum(size, jump * length * (ratio > 2)) * doubt
        # An interval much larger than its neighbours gets its full size as error: a LayerNorm, for
        # example, changes abruptly just after a zero baseline.
        error = np.maximum(error, size - _TOWER * self._neighbours(density, beside) * length)
        # A gradient from between the nodes may differ as much as the next chord does; what is more
        # was not seen by any of them.
        hidden = np.maximum(known.surprise - jump - _NOISE * eps * density, 0)
        error = np.maximum(error, _HIDDEN * length * hidden)
        ends = (compared.total * length, known.value - known.change, known.value)
        defect = missed(*map(torch.from_numpy, ends)).numpy()
        defect = np.where(defect > ROUNDING * eps * size, defect, 0)
        # Where one feature moves alone, its share is the change of F, and nothing can be wrong but
        # what it misses of that.
        error = np.where(
            self._alone[known.line], defect, np.maximum(error, defect * rate[known.chain])
        )
        given = ~np.isnan(known.known)
        error = np.nan_to_num(
            np.where(given, known.known, error), copy=False, nan=np.inf, posinf=np.inf
        )
        return Judgement(error, np.where(given, 0, ratio), steady | given, size)

    def rates(self, known: Intervals, norms: Floats) -> Floats:
        """How much of a vector a missed change of F is, by path (chains,): as much as the shares of
        the paths, whose ``norms`` (chains,) these are, are for what they explain, and no less than
        in any vector that adds up to it."""
        change = np.abs(sums_of(known.chain, known.change, len(norms)))
        rate = np.where(change > 0, norms / change, _RATE)
        return np.maximum(np.minimum(rate, _RATE), self._least_rate)

    @staticmethod
    def _neighbours(density: Floats, beside: Booleans) -> Floats:
        """The largest density among an interval's neighbours, of intervals that are ``beside`` the
        next (n−1,); its own where it has none (n,)."""
        largest = np.zeros_like(density)
        largest[1:] = density[:-1] * beside
        largest[:-1] = np.maximum(largest[:-1], density[1:] * beside)
        alone = np.ones(len(density), dtype=bool)
        alone[1:] = ~beside
        alone[:-1] &= ~beside
        return np.where(alone, density, largest)

    def _compared(self, known: Intervals) -> _Compared:
        """Every interval's slope, and how it differs from the next."""
        step, line = flattened(self.step, 1), on_device(known.line, self.step)
        count, straight = len(known), self.straight
        compared = _Compared(
            *(np.empty(max(0, count - less), known.numbers.dtype) for less in (0, 0, 1, 1, 2))
        )
        size = max(1, _PIECE_ELEMENTS // max(1, step.shape[1]))
        for first in range(0, count, size):
            # With the two that the last ones are compared with.
            part = slice(first, first + size + 2)
            slope, steps = flattened(known.slope[part], 1), step.index_select(0, line[part])
            share = slope * steps
            compared.norm[part], compared.total[part] = (
                as_numpy(norm(share)),
                as_numpy(share.sum(1)),
            )
            jump = slope[1:] - slope[:-1]
            after = jump * steps[1:]
            # At a corner of the path the two neighbours go different ways.
            before = after if straight else jump * steps[:-1]
            pairs, triples = (
                slice(first, first + len(jump)),
                slice(first, first + max(0, len(jump) - 1)),
            )
            after_norm = norm(after)
            before_norm = after_norm if straight else norm(before)
            compared.to_after[pairs] = as_numpy(after_norm)
            compared.to_before[pairs] = as_numpy(before_norm)
            compared.aligned[triples] = as_numpy(
                _cosine(after[:-1], before[1:], after_norm[:-1], before_norm[1:])
            )
        return compared

    @staticmethod
    def _differences(compared: _Compared, beside: Booleans) -> tuple[Floats, Booleans]:
        """‖(slope − neighbour's slope) ⊙ Δ‖, the mean over an interval's neighbours on its path,
        of intervals that are ``beside`` the next (n−1,); whether both go one way (n,)."""
        to_after, to_before = compared.to_after * beside, compared.to_before * beside
        neighbours, jumps = np.zeros_like(compared.norm), np.zeros_like(compared.norm)
        neighbours[1:] += beside
        neighbours[:-1] += beside
        jumps[1:] += to_after
        jumps[:-1] += to_before
        # cos of the differences on both sides: near 1 on smooth stretches, about −½ where every
        # interval errs on its own.
        steady = np.ones(len(jumps), dtype=bool)
        if len(steady) > 2:
            # Between kinks slopes are equal but for rounding, which goes any way and must not
            # decide.
            noise = _NOISE * np.finfo(compared.norm.dtype).eps * compared.norm[1:-1]
            distinct = np.minimum(to_after[:-1], to_before[1:]) > noise
            inner = beside[1:] & beside[:-1]
            steady[1:-1] = distinct & (compared.aligned >= _STEADY) | ~inner
            # Ends have one neighbour only, and go by what is next to them.
            steady[:-1] &= steady[1:] | ~beside | (neighbours[:-1] >= 2)
            steady[1:] &= steady[:-1] | ~beside | (neighbours[1:] >= 2)
        return jumps / np.maximum(neighbours, 1), steady

    def on_grid(self, grid: Tensor) -> Intervals:
        """The intervals between the points of ``grid`` (n+1,), the same on every line."""
        place, count = as_numpy(grid), len(self)
        line = np.arange(count).repeat(len(place) - 1)
        return self.chords(line, np.tile(place[:-1], count), np.tile(place[1:], count))

    def regridded(
        self, old: Intervals, pieces: Floats, doubted: Booleans
    ) -> tuple[Intervals, Integers]:
        """New intervals in place of ``old`` ones, as dense as ``pieces`` (n,) per old interval
        asks; and the number among the old ones of that which each one's stretch begins with (m,).

        Old intervals that follow one another are taken as one stretch, in which new ones are laid
        freely; at uneven places on paths that are ``doubted`` (chains,), lest a wave be met at the
        same height each time.
        """
        begins = np.ones(len(old), dtype=bool)
        begins[1:] = (old.line[1:] != old.line[:-1]) | (old.a[1:] != old.b[:-1])
        begin, number = begins.nonzero()[0], begins.cumsum() - 1
        end = np.append(begin[1:], len(old)) - 1
        wanted = sums_of(number, pieces, len(begin))
        count = np.maximum(np.ceil(wanted).astype(np.int64), end - begin + 2)
        # The pieces asked for, added up along each stretch and scaled to its count, are a clock
        # that ticks once per new interval.
        beats = (pieces / wanted[number] * count[number]).astype(np.float64)
        ticks = beats.cumsum()
        before = ticks - beats
        first, owner = count.cumsum() - count, np.arange(len(begin)).repeat(count)
        order = np.arange(len(owner))
        place = order.astype(np.float64)
        uneven = doubted[old.chain[begin]]
        if uneven.any():
            inner = uneven[owner]
            inner[first] = False
            place += np.where(inner, 4 * _scattered(order - first[owner]), 0)
        inside = np.searchsorted(ticks, place, side="right").clip(None, len(old) - 1)
        inside = np.maximum(inside, begin[owner])
        share = ((place - before[inside]) / beats[inside]).clip(0, 1).astype(old.a.dtype)
        a = old.a[inside] + share * (old.b[inside] - old.a[inside])
        a[first] = old.a[begin]
        if self.shared:  # companions' stretches are laid alike to the last bit
            same = self._first_companions(old.line[begin], old.a[begin], old.b[end], count)
            a = a[(first[same] - first)[owner] + order]
        b = np.append(a[1:], a[:1])
        b[first + count - 1] = old.b[end]
        starts = begin[owner]
        return self.chords(old.line[starts], a, b), starts

    def chords(self, line: Integers, a: Floats, b: Floats) -> Intervals:
        """The chords of intervals [a, b] (n,) of the lines ``line`` (n,), given along each line in
        order."""
        count, chain = len(line), self.chain[line]
        begins = _run_starts(line, chain, a, b)
        # Nodes: every interval's end, and before each run its start.
        place = np.arange(count) + begins.cumsum()
        first = place[begins] - 1
        nodes = count + len(first)
        lines, t = np.empty_like(line, shape=nodes), np.empty_like(a, shape=nodes)
        lines[place], t[place] = line, b
        lines[first], t[first] = line[begins], a[begins]
        before = np.arange(-1, nodes - 1)
        before[first] = first
        # Which interval a node ends; those at a start make a last row that is thrown away.
        interval = np.full(nodes, count)
        interval[place] = np.arange(count)
        if self.shared:
            # Companions side by side: one point after the other, all that is asked there at once.
            order = np.lexsort((t, self.companions[lines]))
            at = np.empty_like(order)
            at[order] = np.arange(nodes)
            lines, t, interval, place = lines[order], t[order], interval[order], at[place]
            before = at[before[order]]
        slope = self.start.new_empty(count + 1, *self.start.shape[1:])
        value = np.empty_like(t)
        row, moment, of = (on_device(numbers, slope) for numbers in (lines, t, interval))

        def make(rows: Tensor) -> Tensor:
            return self.points(row[rows], moment[rows])

        def keep(part: slice, evaluation: Evaluation) -> None:
            value[part] = as_numpy(evaluation.value)
            slope.index_copy_(0, of[part], evaluation.gradient)

        example = self.example[row]
        self.field.stream_chords(example, on_device(before, slope), make, keep, self.start[0])
        at_end = value[place]
        change = at_end - value[before[place]]
        return Intervals.of(line, chain, (a, b), slope[:count], at_end, change)

    def looked_into(self, known: Intervals, chosen: Integers, count: Integers) -> Intervals:
        """The same intervals, and in those that ``chosen`` numbers (m,) gradients at ``count`` (m,)
        places held against their chords."""
        interval, many = chosen.repeat(count), count.repeat(count).astype(known.a.dtype)
        number = np.arange(len(interval)) - (count.cumsum() - count).repeat(count)
        share = ((number + 1 + _scattered(number)) / (many + 1)).astype(known.a.dtype)
        t = known.a[interval] + share * (known.b[interval] - known.a[interval])
        line = known.line[interval]
        if self.shared:  # companions side by side, as in ``chords``
            order = np.lexsort((t, self.companions[line]))
            line, t, interval = line[order], t[order], interval[order]
        off = np.empty_like(t)
        row, moment, of = (on_device(numbers, known.slope) for numbers in (line, t, interval))

        def make(part: slice) -> Tensor:
            return self.points(row[part], moment[part])

        def keep(part: slice, evaluation: Evaluation) -> None:
            differs = evaluation.gradient - known.slope.index_select(0, of[part])
            off[part] = as_numpy(norm(differs * self.step.index_select(0, row[part])))

        self.field.stream(self.example[row], make, keep, self.start[0])
        counts, numbers = known.counts.copy(), known.numbers.copy()
        counts[2, chosen] = np.maximum(known.looks[chosen], count)
        numbers[5] = np.maximum(known.surprise, largest_of(interval, off, len(known)))
        return replace(known, counts=counts, numbers=numbers)

    def cost(self, laid: Intervals) -> Integers:
        """The gradients that these chords took of each path (chains,)."""
        starts = _run_starts(laid.line, laid.chain, laid.a, laid.b)
        count = np.bincount(laid.chain, minlength=self.chains)
        return count + np.bincount(laid.chain[starts], minlength=self.chains)

    def ends(self, known: Intervals) -> tuple[Floats, Floats]:
        """F at both ends of every line (M,), read off intervals that cover it."""
        first = np.searchsorted(known.line, np.arange(len(self)))
        last = np.append(first[1:], len(known)) - 1
        return (known.value - known.change)[first], known.value[last]

    def points(self, line: Tensor, t: Tensor) -> Tensor:
        begin = self.start.index_select(0, line)
        return torch.lerp(begin, self.end.index_select(0, line), over(t, begin))


# --- numbers ----------------------------------------------------------------------------------------------------------


def as_numpy(numbers: Tensor) -> NDArray[Any]:
    """Numbers of torch in NumPy."""
    array: NDArray[Any] = numbers.cpu().numpy()
    return array


def on_device(numbers: NDArray[Any], like: Tensor) -> Tensor:
    """Numbers of NumPy in torch, where ``like`` is."""
    return torch.from_numpy(numbers).to(like.device)


def consecutive(numbers: Integers) -> Integers:
    """Runs of equal numbers (n,), numbered from 0."""
    number: Integers = np.append(0, (numbers[1:] != numbers[:-1]).cumsum())[: len(numbers)]
    return number


def numbered_on(parts: Sequence[tuple[Integers, int]]) -> Integers:
    """Numbers, each of which goes from 0 up to a count, one after the other, so that none is used
    twice."""
    firsts = accumulate((count for _, count in parts), initial=0)
    return np.concatenate(
        [numbers + first for (numbers, _), first in zip(parts, firsts, strict=False)]
    )


def sums_of(groups: Integers, numbers: NDArray[Any], count: int) -> NDArray[Any]:
    """Σ numbers over each of ``count`` groups, of numbers (n,) that belong to the ``groups``
    (n,)."""
    return np.bincount(groups, numbers, count).astype(numbers.dtype)


def largest_of(groups: Integers, numbers: Floats, count: int) -> Floats:
    """The largest of the numbers (n,) of each of ``count`` groups, 0 at least."""
    largest = np.zeros_like(numbers, shape=count)
    np.maximum.at(largest, groups, numbers)
    return largest


def norms_of(groups: Integers, numbers: Floats, count: int) -> Floats:
    """√Σ numbers² over each of ``count`` groups, at every scale."""
    largest = largest_of(groups, np.abs(numbers), count)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1)
    squares = sums_of(groups, np.square(numbers / scale[groups]), count)
    norms: Floats = np.sqrt(squares) * scale
    return norms


def _run_starts(line: Integers, chain: Integers, a: Floats, b: Floats) -> Booleans:
    """Which intervals do not go on from the one before them, on the same line or the next piece of
    its path."""
    begins = np.ones(len(line), dtype=bool)
    on = (line[1:] == line[:-1]) & (a[1:] == b[:-1])
    piece = (chain[1:] == chain[:-1]) & (line[1:] == line[:-1] + 1)
    begins[1:] = ~(on | (piece & (a[1:] == 0) & (b[:-1] == 1)))
    return begins


def _cosine(first: Tensor, second: Tensor, size: Tensor, second_size: Tensor) -> Tensor:
    """Of rows of two matrices (n, Q) with these norms, at every scale; 0 where one is nothing."""
    product, norms = (first * second).sum(1), size * second_size
    limits = torch.finfo(norms.dtype)
    extreme = (
        ~((norms > limits.tiny / limits.eps) & (norms < limits.max * limits.eps))
        & (size > 0)
        & (second_size > 0)
    )
    if bool(extreme.any()):
        first_scaled, second_scaled = (
            t[extreme] / n[extreme, None] for t, n in ((first, size), (second, second_size))
        )
        product[extreme], norms[extreme] = (first_scaled * second_scaled).sum(1), 1
    return torch.where(norms > 0, product / norms, 0)


def _scattered(number: Integers) -> Floats:
    """For 0, 1, 2, … offsets (n,) within ±0.1, the same on every run and in no step with any wave:
    multiples of the golden ratio."""
    return 0.2 * (((number + 1) * 0.6180339887498949 + 0.5) % 1 - 0.5)
