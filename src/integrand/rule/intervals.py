"""Intervals of straight lines, and the chords along them: what rules that look before they leap are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..field import Field
from ..segment import Evaluation, Segment
from ..shapes import over

_ALIKE = 0.3  # relative difference to the neighbours under which a segment is taken to be smooth


def blocks_of(place: Tensor, size: int) -> tuple[Tensor, ...]:
    """``place`` in blocks of at most ``size``; none where there is nothing."""
    return torch.split(place, size) if len(place) else ()


def lines_of(field: Field, segment: Segment, place: Tensor) -> Lines:
    """The pieces that ``place`` numbers."""
    k, r, b = torch.unravel_index(place, segment.leading)
    return Lines(field, segment.start[k, r, b], segment.end[k, r, b], b)


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals of several rows' segments, by row and then along it.

    a, b     (n,) where each begins and ends
    density  (n, \\*s) Δ ⊙ mean gradient
    change   (n,) F(b) − F(a), which came with the gradients
    """

    row: Tensor
    a: Tensor
    b: Tensor
    density: Tensor
    change: Tensor

    def sums(self, rows: int) -> Tensor:
        """Δ ⊙ ∫ gradient of each row (rows, \\*s)."""
        shares = self.density * over(self.b - self.a, self.density)
        return self.density.new_zeros(rows, *self.density.shape[1:]).index_add_(0, self.row, shares)

    def errors(self, rows: int) -> tuple[Tensor, Tensor]:
        """What each interval may be wrong by (n,), and what each row may be (rows,).

        An interval is judged by its neighbours, and by what its chord misses of the change of F, at the rate at which changes of F
        turn into attributions in its row. Errors of unlike neighbours are independent; those of alike ones may well be of one
        sign, and are added up.
        """
        error, ratio = self._by_neighbours()
        shares, change = self.sums(rows), self._per_row(self.change, rows)
        rate = shares.flatten(1).norm(dim=1) / change.abs().clamp_min(torch.finfo(change.dtype).tiny)
        explained = self.density.flatten(1).sum(1) * (self.b - self.a)
        defect = (explained - self.change).abs() * rate[self.row]
        # What rounding alone makes of a difference of two values is no defect.
        rounding = 64 * torch.finfo(defect.dtype).eps * self.density.flatten(1).norm(dim=1) * (self.b - self.a)
        error = torch.maximum(error, torch.where(defect > rounding, defect, 0))
        alike = ratio < _ALIKE
        together = self._per_row(torch.where(alike, error, 0), rows)
        apart = self._per_row(torch.where(alike, 0, error.square()), rows)
        return error, (together.square() + apart).sqrt()

    def _per_row(self, numbers: Tensor, rows: int) -> Tensor:
        return numbers.new_zeros(rows).index_add_(0, self.row, numbers)

    def _by_neighbours(self) -> tuple[Tensor, Tensor]:
        """The error that an interval's difference to its neighbours suggests, and that difference relative to itself (n,)."""
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
        return torch.maximum(size, difference * (ratio > 2)) * doubt, ratio

    def without(self, cut: Tensor) -> Intervals:
        return self._at(~cut)

    def joined(self, other: Intervals) -> Intervals:
        both = Intervals(*(torch.cat(pair) for pair in zip(self._parts(), other._parts(), strict=True)))
        order = torch.argsort(both.a, stable=True)
        return both._at(order[torch.argsort(both.row[order], stable=True)])

    def _at(self, which: Tensor) -> Intervals:
        return Intervals(*(part[which] for part in self._parts()))

    def _parts(self) -> tuple[Tensor, ...]:
        return self.row, self.a, self.b, self.density, self.change


@dataclass(frozen=True, eq=False)
class Lines:
    """The straight lines that are integrated: start, end (M, \\*s), and the example each belongs to."""

    field: Field
    start: Tensor
    end: Tensor
    example: Tensor

    def on_grid(self, grid: Tensor) -> Intervals:
        """The intervals between the points of ``grid`` (n+1,), the same for every line."""
        rows = torch.arange(len(self.start), device=grid.device)
        return self.chords(
            rows.repeat_interleave(len(grid) - 1), grid[:-1].repeat(len(rows)), grid[1:].repeat(len(rows))
        )

    def cut(self, known: Intervals, cut: Tensor, pieces: Tensor) -> Intervals:
        """The chosen intervals in ``pieces`` equal parts each."""
        many = pieces[cut]
        row, a, b = (side[cut].repeat_interleave(many) for side in (known.row, known.a, known.b))
        part = torch.arange(len(row), device=row.device) - (many.cumsum(0) - many).repeat_interleave(many)
        whole = many.repeat_interleave(many).to(a.dtype)
        return self.chords(row, a + (b - a) * part / whole, a + (b - a) * (part + 1) / whole)

    def chords(self, row: Tensor, a: Tensor, b: Tensor) -> Intervals:
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
        value = a.new_empty(nodes)

        def make(part: slice) -> Tensor:
            begin, end = self.start[lines[part]], self.end[lines[part]]
            return torch.lerp(begin, end, over(t[part], begin))

        def keep(part: slice, found: Evaluation) -> None:
            value[part] = found.value
            chord = interval[part] >= 0
            which = lines[part][chord]
            density[interval[part][chord]] = found.gradient[chord] * (self.end[which] - self.start[which])

        self.field.stream_chords(self.example[lines], first, make, keep, self.start[0])
        return Intervals(row, a, b, density, value[place] - value[place - 1])
