"""Intervals of lines with their secant gradients, and error estimates from neighbouring
intervals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ...core.segment import Evaluation, Segment
from ...core.shapes import ROUNDING, first_alike, flattened, norm, over
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


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is thought of intervals.

    Attributes:
        error: (n,) what they may be wrong by; infinite where it is not a number.
        unlike: (n,) their differences to their neighbours relative to themselves.
        steady: (n,) whether these go on steadily, so that errors may be of one sign.
        size: (n,) the norms of their shares.
    """

    error: Tensor
    unlike: Tensor
    steady: Tensor
    size: Tensor


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals of several lines, by line and then along it.

    Attributes:
        line: (n,) which line each is on, and chain (n,) which path that line is a piece of.
        a, b: (n,) where each begins and ends on its line, from 0 to 1.
        slope: (n, \\*s) the mean gradient.
        value: (n,) F(b), and change (n,) F(b) − F(a), which came with the gradients.
        known: (n,) the error, where something better than its neighbours has told it; else NaN.
        looks: (n,) gradients that were taken between its ends, and surprise (n,) the most that one
            of them differed from the chord, ‖(gradient − slope) ⊙ Δ‖.
    """

    line: Tensor
    chain: Tensor
    a: Tensor
    b: Tensor
    slope: Tensor
    value: Tensor
    change: Tensor
    known: Tensor
    looks: Tensor
    surprise: Tensor

    @property
    def length(self) -> Tensor:
        return self.b - self.a

    def at(self, selection: Tensor) -> Intervals:
        """Some of them: a mask or numbers (m,)."""
        return Intervals(*(part[selection] for part in self._columns()))

    def on(self, line: Tensor, chain: Tensor) -> Intervals:
        """The same intervals, of lines and paths that are numbered otherwise."""
        return replace(self, line=line, chain=chain)

    def joined(self, added: Intervals) -> Intervals:
        line = torch.cat([self.line, added.line])
        order = torch.argsort(torch.cat([self.a, added.a]), stable=True)
        order = order[torch.argsort(line[order], stable=True)]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        present_places, added_places = place[: len(self.line)], place[len(self.line) :]

        # Put where they belong at once: slopes are large, and sorting them after they are joined
        # takes them twice more.
        def merge(present: Tensor, new: Tensor) -> Tensor:
            merged = present.new_empty(len(place), *present.shape[1:])
            merged[present_places], merged[added_places] = present, new
            return merged

        return Intervals(*map(merge, self._columns(), added._columns()))

    def _columns(self) -> tuple[Tensor, ...]:
        return (
            self.line,
            self.chain,
            self.a,
            self.b,
            self.slope,
            self.value,
            self.change,
            self.known,
            self.looks,
            self.surprise,
        )


@dataclass(frozen=True, eq=False)
class _Compared:
    """What is to be known of slopes along their lines, as numbers.

    norm, total (n,) ‖slope ⊙ Δ‖ and Σ slope ⊙ Δ;  to_after, to_before (n−1,) ‖(next slope − slope)
                                                   ⊙ Δ‖ for Δ of the next and of its own
    aligned (n−2,) the cosine between the difference from the one before ⊙ Δ and the difference to
    the one after ⊙ Δ
    """

    norm: Tensor
    total: Tensor
    to_after: Tensor
    to_before: Tensor
    aligned: Tensor


@dataclass(frozen=True, eq=False)
class Lines:
    """Straight lines that are integrated, the pieces of a path one after the other.

    Attributes:
        start, end: (M, \\*s) the ends of the lines.
        example: (M,) which each belongs to.
        chain: (M,) which path it is a piece of, in order.
        companions: (M,) the same number for lines along which several questions are asked; such
            companions share their nodes if they can.
    """

    field: Field
    start: Tensor
    end: Tensor
    example: Tensor
    chain: Tensor
    companions: Tensor

    @classmethod
    def of(cls, field: Field, segment: Segment, place: Tensor) -> Lines:
        """The pieces (K, R, B) that ``place`` numbers, path by path if ``place`` has them so."""
        k, r, b = torch.unravel_index(place, segment.leading)
        path = r * segment.leading[2] + b
        chain = torch.unique_consecutive(path, return_inverse=True)[1]
        start, end = segment.start[k, r, b], segment.end[k, r, b]
        point = field.points(torch.arange(segment.leading[2], device=place.device))[b]
        first = first_alike((point * segment.leading[1] + r) * segment.leading[0] + k)
        companions = torch.arange(len(place), device=place.device)
        if not torch.equal(first, companions):  # a path may go another way for every question
            same = flattened((start == start[first]) & (end == end[first]), 1).all(1)
            companions = torch.where(same, first, companions)
        return cls(field, start, end, b, chain, companions)

    def __len__(self) -> int:
        return len(self.start)

    def subset(self, selection: Tensor) -> Lines:
        """Some of the lines, as chains of their own."""
        chain = torch.unique_consecutive(self.chain[selection], return_inverse=True)[1]
        return replace(
            self,
            start=self.start[selection],
            end=self.end[selection],
            example=self.example[selection],
            chain=chain,
            companions=self.companions[selection],
        )

    @cached_property
    def moving(self) -> Tensor:
        """How many numbers change along each line (M,)."""
        count: Tensor = flattened(self.start != self.end, 1).sum(1)
        return count

    def most(self, known: Intervals, numbers: Tensor) -> Tensor:
        """The largest of the ``numbers`` (n,) of an interval and the same intervals of its
        companions (n,)."""
        same = self._first_companions(known.line, known.a, known.b)
        return torch.zeros_like(numbers).scatter_reduce_(0, same, numbers, "amax")[same]

    def _first_companions(self, line: Tensor, *numbers: Tensor) -> Tensor:
        """For each of some things with ``numbers`` (n,) on lines (n,) the first that is the same on
        a companion."""
        if torch.equal(self.companions, torch.arange(len(self), device=line.device)):
            return torch.arange(len(line), device=line.device)
        return first_alike(
            torch.stack([self.companions[line].double(), *(n.double() for n in numbers)], 1)
        )

    def shares(self, known: Intervals) -> Tensor:
        """Δ ⊙ ∫ gradient of each line (M, \\*s)."""
        mean = torch.zeros_like(self.start)
        mean.index_add_(0, known.line, known.slope * over(known.length, known.slope))
        return mean * (self.end - self.start)

    def errors(self, known: Intervals, rate: Tensor) -> Judgement:
        """What each interval may be wrong by, judged by its neighbours.

        Also by what its chord misses of the change of F, at the ``rate`` (chains,) at which changes
        of F turn into attributions.
        """
        compared = self._compared(known)
        length = known.length
        size = compared.norm * length
        jump, steady = self._differences(known, compared)
        # Beside a slope of nothing any other is infinitely unlike, and φ(r) = 0.45 / (1/r² + 0.6)
        # is 0.75.
        ratio = torch.where(jump > 0, jump / compared.norm, 0)
        doubt = 0.45 / (ratio**-2 + 0.6)
        # A share of nothing beside a large one is as uncertain as its neighbours are large.
        error = torch.maximum(size, jump * length * (ratio > 2)) * doubt
        # An interval much larger than its neighbours gets its full size as error: a LayerNorm, for
        # example, changes abruptly just after a zero baseline.
        error = torch.maximum(
            error, size - _TOWER * self._neighbours(known, compared.norm) * length
        )
        # A gradient from between the nodes may differ as much as the next chord does; what is more
        # was not seen by any of them.
        noise = _NOISE * torch.finfo(size.dtype).eps * compared.norm
        error = torch.maximum(
            error, _HIDDEN * length * (known.surprise - jump - noise).clamp_min(0)
        )
        defect = missed(compared.total * length, known.value - known.change, known.value)
        defect = torch.where(defect > ROUNDING * torch.finfo(size.dtype).eps * size, defect, 0)
        # Where one feature moves alone, its share is the change of F, and nothing can be wrong but
        # what it misses of that.
        alone = (self.moving == 1)[known.line]
        error = torch.where(alone, defect, torch.maximum(error, defect * rate[known.chain]))
        known_error = ~known.known.isnan()
        error = torch.where(known_error, known.known, error).nan_to_num(torch.inf, torch.inf)
        return Judgement(error, torch.where(known_error, 0, ratio), steady | known_error, size)

    def rates(self, known: Intervals, paths: Tensor) -> Tensor:
        """How much of a vector a missed change of F is, by path (chains,): as much as the shares of
        the ``paths`` (chains, \\*s) are for what they explain, and no less than in any vector that
        adds up to it."""
        change = known.change.new_zeros(len(paths)).index_add_(0, known.chain, known.change).abs()
        moving = torch.zeros_like(change).scatter_reduce_(
            0, self.chain, self.moving.to(change), "amax"
        )
        rate = torch.where(change > 0, norm(paths) / change, _RATE)
        return torch.maximum(rate.clamp_max(_RATE), least_norm(moving))

    @staticmethod
    def _neighbours(known: Intervals, density: Tensor) -> Tensor:
        """The largest density among an interval's neighbours on its path; its own where it has none
        (n,)."""
        beside = known.chain[1:] == known.chain[:-1]
        largest = torch.zeros_like(density)
        largest[1:] = density[:-1] * beside
        largest[:-1] = torch.maximum(largest[:-1], density[1:] * beside)
        alone = torch.ones_like(density, dtype=torch.bool)
        alone[1:] &= ~beside
        alone[:-1] &= ~beside
        return torch.where(alone, density, largest)

    def _compared(self, known: Intervals) -> _Compared:
        """Every interval's slope, and how it differs from the next."""
        step = flattened(self.end - self.start, 1)
        count = len(known.line)
        compared = _Compared(*(known.a.new_empty(max(0, count - less)) for less in (0, 0, 1, 1, 2)))
        beside = known.chain[1:] == known.chain[:-1]
        straight = bool((known.line[1:] == known.line[:-1])[beside].all())
        size = max(1, _PIECE_ELEMENTS // max(1, step.shape[1]))
        for first in range(0, count, size):
            part = slice(
                first, first + size + 2
            )  # with the two that the last ones are compared with
            slope, steps = flattened(known.slope[part], 1), step[known.line[part]]
            share = slope * steps
            compared.norm[part], compared.total[part] = norm(share), share.sum(1)
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
            compared.to_after[pairs], compared.to_before[pairs] = after_norm, before_norm
            compared.aligned[triples] = _cosine(
                after[:-1], before[1:], after_norm[:-1], before_norm[1:]
            )
        return compared

    @staticmethod
    def _differences(known: Intervals, compared: _Compared) -> tuple[Tensor, Tensor]:
        """‖(slope − neighbour's slope) ⊙ Δ‖, the mean over an interval's neighbours on its path;
        whether both go one way (n,)."""
        beside = known.chain[1:] == known.chain[:-1]
        to_after, to_before = compared.to_after * beside, compared.to_before * beside
        neighbours, jumps = torch.zeros_like(known.a), torch.zeros_like(known.a)
        neighbours[1:] += beside
        neighbours[:-1] += beside
        jumps[1:] += to_after
        jumps[:-1] += to_before
        # cos of the differences on both sides: near 1 on smooth stretches, about −½ where every
        # interval errs on its own.
        steady = torch.ones_like(known.chain, dtype=torch.bool)
        if len(known.chain) > 2:
            # Between kinks slopes are equal but for rounding, which goes any way and must not
            # decide.
            noise = _NOISE * torch.finfo(known.slope.dtype).eps * compared.norm[1:-1]
            distinct = torch.minimum(to_after[:-1], to_before[1:]) > noise
            steady[1:-1] = distinct & (compared.aligned >= _STEADY)
            inner = beside[1:] & beside[:-1]
            steady[1:-1] |= ~inner
            # Ends have one neighbour only, and go by what is next to them.
            steady[:-1] &= torch.where(beside & (neighbours[:-1] < 2), steady[1:], True)
            steady[1:] &= torch.where(beside & (neighbours[1:] < 2), steady[:-1], True)
        return jumps / neighbours.clamp_min(1), steady

    def on_grid(self, grid: Tensor) -> Intervals:
        """The intervals between the points of ``grid`` (n+1,), the same on every line."""
        lines = torch.arange(len(self), device=grid.device)
        return self.chords(
            lines.repeat_interleave(len(grid) - 1),
            grid[:-1].repeat(len(lines)),
            grid[1:].repeat(len(lines)),
        )

    def regridded(self, old: Intervals, pieces: Tensor, doubted: Tensor) -> Intervals:
        """New intervals in place of ``old`` ones, as dense as ``pieces`` (n,) per old interval
        asks.

        Old intervals that follow one another are taken as one stretch, in which new ones are laid
        freely; at uneven places on paths that are ``doubted`` (chains,), lest a wave be met at the
        same height each time.
        """
        stretch = torch.ones_like(old.line, dtype=torch.bool)
        stretch[1:] = (old.line[1:] != old.line[:-1]) | (old.a[1:] != old.b[:-1])
        number = stretch.cumsum(0) - 1
        stretches = int(number[-1]) + 1
        wanted = pieces.new_zeros(stretches).index_add_(0, number, pieces)
        present = torch.zeros(stretches, device=pieces.device, dtype=torch.long)
        present.index_add_(0, number, torch.ones_like(number))
        count = torch.maximum(wanted.ceil().long(), present + 1)
        # The pieces asked for, added up along each stretch and scaled to its count, are a clock
        # that ticks once per new interval.
        ticks = (pieces / wanted[number] * count[number]).double().cumsum(0)
        before = ticks - (pieces / wanted[number] * count[number]).double()
        first = count.cumsum(0) - count
        place = torch.arange(int(count.sum()), device=pieces.device)
        owner = torch.repeat_interleave(torch.arange(stretches, device=pieces.device), count)
        place = place.double()
        inner = doubted[old.chain[stretch]][owner].index_fill(0, first, False)
        place = place + torch.where(inner, 4 * _scattered(place.long() - first[owner], place), 0)
        inside = torch.searchsorted(ticks, place, right=True).clamp_max(len(old.a) - 1)
        inside = torch.maximum(inside, stretch.nonzero()[:, 0][owner])
        share = ((place - before[inside]) / (ticks[inside] - before[inside])).clamp(0, 1).to(old.a)
        a = old.a[inside] + share * (old.b[inside] - old.a[inside])
        begins, ends = (
            stretch.nonzero()[:, 0],
            torch.cat([stretch[1:], stretch.new_ones(1)]).nonzero()[:, 0],
        )
        a[first] = old.a[begins]
        # Companions' stretches are laid alike to the last bit.
        same = self._first_companions(old.line[begins], old.a[begins], old.b[ends], count)
        a = a[(first[same] - first)[owner] + torch.arange(len(a), device=a.device)]
        b = torch.cat([a[1:], a[:1]])
        b[first + count - 1] = old.b[ends]
        return self.chords(old.line[begins][owner], a, b)

    def chords(self, line: Tensor, a: Tensor, b: Tensor) -> Intervals:
        """The chords of intervals [a, b] (n,) of the lines ``line`` (n,), given along each line in
        order."""
        begins = self._run_starts(line, a, b)
        # Nodes: every interval's end, and before each run its start.
        place = torch.arange(len(line), device=line.device) + begins.cumsum(0)
        nodes = int(place[-1]) + 1
        lines, t = line.new_zeros(nodes), a.new_zeros(nodes)
        lines[place], t[place] = line, b
        lines[place[begins] - 1], t[place[begins] - 1] = line[begins], a[begins]
        before = torch.arange(-1, nodes - 1, device=line.device)
        before[place[begins] - 1] += 1
        interval = torch.full((nodes,), -1, device=line.device)
        interval[place] = torch.arange(len(line), device=line.device)
        # Companions side by side: one point after the other, all that is asked there at once.
        order = torch.argsort(t, stable=True)
        order = order[torch.argsort(self.companions[lines[order]], stable=True)]
        at = torch.argsort(order)
        lines, t, interval, before, place = (
            lines[order],
            t[order],
            interval[order],
            at[before[order]],
            at[place],
        )
        slope = self.start.new_empty(len(line), *self.start.shape[1:])
        value = a.new_empty(nodes)

        def make(rows: Tensor) -> Tensor:
            return self.points(lines[rows], t[rows])

        def keep(part: slice, evaluation: Evaluation) -> None:
            value[part] = evaluation.value
            chord = interval[part] >= 0
            slope[interval[part][chord]] = evaluation.gradient[chord]

        self.field.stream_chords(self.example[lines], before, make, keep, self.start[0])
        return Intervals(
            line,
            self.chain[line],
            a,
            b,
            slope,
            value[place],
            value[place] - value[before[place]],
            torch.full_like(a, float("nan")),
            torch.zeros_like(line),
            torch.zeros_like(a),
        )

    def looked_into(self, known: Intervals, chosen: Tensor, count: Tensor) -> Intervals:
        """The same intervals, and in those that ``chosen`` numbers (m,) gradients at ``count`` (m,)
        places held against their chords."""
        interval = torch.repeat_interleave(chosen, count)
        number = torch.arange(len(interval), device=chosen.device)
        number -= torch.repeat_interleave(count.cumsum(0) - count, count)
        many = torch.repeat_interleave(count, count).to(known.a)
        share = (number + 1 + _scattered(number, known.a)) / (many + 1)
        t = torch.lerp(known.a[interval], known.b[interval], share)
        line = known.line[interval]
        # Companions side by side, as in ``chords``.
        order = torch.argsort(t, stable=True)
        order = order[torch.argsort(self.companions[line[order]], stable=True)]
        line, t, interval = line[order], t[order], interval[order]
        surprise = torch.zeros_like(known.surprise)

        def make(part: slice) -> Tensor:
            return self.points(line[part], t[part])

        def keep(part: slice, evaluation: Evaluation) -> None:
            row = line[part]
            off = (evaluation.gradient - known.slope[interval[part]]) * (
                self.end[row] - self.start[row]
            )
            surprise.scatter_reduce_(0, interval[part], norm(off), "amax")

        self.field.stream(self.example[line], make, keep, self.start[0])
        looks = known.looks.clone()
        looks[chosen] = torch.maximum(looks[chosen], count)
        return replace(known, looks=looks, surprise=torch.maximum(known.surprise, surprise))

    def cost(self, laid: Intervals, chains: int) -> Tensor:
        """The gradients that these chords took of each path (chains,)."""
        gradients = 1 + self._run_starts(laid.line, laid.a, laid.b).long()
        return gradients.new_zeros(chains).index_add_(0, laid.chain, gradients)

    def ends(self, known: Intervals) -> tuple[Tensor, Tensor]:
        """F at both ends of every line (M,), read off intervals that cover it."""
        first = torch.searchsorted(known.line, torch.arange(len(self), device=known.line.device))
        last = torch.cat([first[1:], first.new_tensor([len(known.line)])]) - 1
        return (known.value - known.change)[first], known.value[last]

    def _run_starts(self, line: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Which intervals do not go on from the one before them, on the same line or the next piece
        of its path."""
        begins = torch.ones_like(line, dtype=torch.bool)
        on = (line[1:] == line[:-1]) & (a[1:] == b[:-1])
        piece = (self.chain[line[1:]] == self.chain[line[:-1]]) & (line[1:] == line[:-1] + 1)
        begins[1:] = ~(on | (piece & (a[1:] == 0) & (b[:-1] == 1)))
        return begins

    def points(self, line: Tensor, t: Tensor) -> Tensor:
        begin = self.start[line]
        return torch.lerp(begin, self.end[line], over(t, begin))


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


def _scattered(number: Tensor, like: Tensor) -> Tensor:
    """For 0, 1, 2, … offsets (n,) within ±0.1, the same on every run and in no step with any wave:
    multiples of the golden ratio."""
    offsets: Tensor = ((number.to(like) + 1) * 0.6180339887498949 + 0.5) % 1
    return 0.2 * (offsets - 0.5)
