"""The integral of Integrated Hessians: rows of the matrix of interactions, for a batch of lines.

    Γ_ij = D_i D_j ∫∫ αβ ∂_ij F(b + αβ D) dα dβ + δ_ij D_i ∫∫ ∂_i F(b + αβ D) dα dβ,    D = x − b

F is only asked at s = αβ, which has the density −ln s on [0, 1]. So the double integral is a single
one,

    Γ_ij = ∫ −ln(s) [ s D_i D_j ∂_ij F(b + sD) + δ_ij D_i ∂_i F(b + sD) ] ds

whose nodes come from ``rules.logarithm``. With G groups of features a row is Σ_{i ∈ g}, and one
product of the Hessian with D on g gives all of it. Σ_ij of the bracket is d/ds (s D·∇F), so that rows
add up to Integrated Gradients, and everything to the change of F: whatever nodes miss shows there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.memory_budget import at_once
from ..core.random import generator
from ..core.shapes import ROUNDING
from ..fields import CountedField
from ..rules.logarithm import nested_logarithm

_DIRECTIONS = 8  # of the Hessian that share a row's first forward and backward pass
_FIRST = 8  # pieces of the first nested rule
EVERYTHING = -1
"""The row of all features together."""


@dataclass(frozen=True, eq=False)
class HessianLines:
    """Straight lines from references (R, B, n) to inputs (B, n), and which features are one.

    ``label`` (1 or B, n) numbers the feature each number belongs to, 0 to ``features`` − 1; None
    where every number is a feature. ``rows`` (r,) are the features whose row of the matrix is
    wanted; ``EVERYTHING``, which comes last, for their sum.
    """

    start: Tensor
    end: Tensor
    label: Tensor | None
    features: int
    rows: Tensor

    @property
    def wanted(self) -> int:
        """How many rows are of features."""
        return int((self.rows != EVERYTHING).sum())

    def at(self, examples: slice) -> HessianLines:
        """The lines of some examples."""
        label = self.label
        if label is not None and len(label) > 1:
            label = label[examples]
        return HessianLines(
            self.start[:, examples], self.end[examples], label, self.features, self.rows
        )

    def labels(self, example: Tensor) -> Tensor:
        """The feature of each number of some examples, (N, n) or (1, n)."""
        if self.label is None:
            return torch.arange(self.features, device=self.end.device)[None]
        return self.label if len(self.label) == 1 else self.label[example]


@dataclass(frozen=True, eq=False)
class Estimate:
    """Rows (B, r, G) of the matrix averaged over references, their relative L2 error (B,) (NaN where
    nothing tells), and the nodes (B,) each line took."""

    values: Tensor
    error: Tensor
    nodes: Tensor


class HessianSums:
    """L weighted sums over nodes of the rows (L, B, r, G) of the matrix, added up call by call.

    ``numbers`` (B,) are those of the examples in the field. With ``spread``, ``squares`` (B,) are
    Σ ‖·‖² of single terms, which their variance follows from.
    """

    def __init__(
        self,
        field: CountedField,
        lines: HessianLines,
        shape: torch.Size,
        numbers: Tensor,
        levels: int = 1,
        *,
        spread: bool = False,
    ) -> None:
        self.field, self.lines, self.shape = field, lines, shape
        self.numbers, self.spread = numbers, spread
        batch, count = len(lines.end), len(lines.rows)
        self.sums = lines.end.new_zeros(levels, batch, count, lines.features)
        self.squares = lines.end.new_zeros(batch)
        self.blocks = -(-count // _DIRECTIONS)
        self.width = -(-count // self.blocks)

    def add(self, s: Tensor, weights: Tensor, examples: Tensor) -> None:
        """Add the bracket at the places ``s`` (m, R) of every line of some ``examples`` (A,), with
        ``weights`` (L, m)."""
        nodes, references = s.shape
        like = self.lines.end.new_empty(self.width, self.lines.end.shape[1])

        def call(part: slice) -> None:
            item = torch.arange(part.start, part.stop, device=s.device)
            point, block = item // self.blocks, item % self.blocks
            example = examples[point % len(examples)]
            line = point // len(examples) % references
            node = point // (len(examples) * references)
            self._add(s[node, line], line, example, block, weights[:, node])

        self.field.packer.run(
            nodes * references * len(examples) * self.blocks, call, like, "curvature"
        )

    def _add(
        self, s: Tensor, line: Tensor, example: Tensor, block: Tensor, weights: Tensor
    ) -> None:
        """One call: N points, and a block of rows of the matrix at each."""
        lines, count = self.lines, len(self.lines.rows)
        begin = lines.start[line, example]
        step = lines.end[example] - begin
        row = block * self.width + torch.arange(self.width, device=s.device)[:, None]  # (K, N)
        beyond = row >= count  # of the last block
        row = row.clamp_max(count - 1)
        feature, label = lines.rows[row], lines.labels(example)
        inside = (label == feature[..., None]) | (feature == EVERYTHING)[..., None]
        directions = torch.where(inside & ~beyond[..., None], step, 0)
        curvature = self.field.curvature(
            (begin + s[:, None] * step).reshape(-1, *self.shape),
            self.numbers[example],
            directions.reshape(self.width, -1, *self.shape),
        )
        # s D_j (H D_g)_j, and D_j ∂_j F where j is in g.
        bracket = curvature.products.reshape(directions.shape) * (s[:, None] * step)
        bracket = bracket.addcmul_(directions, curvature.gradient.flatten(1))
        if lines.label is not None:
            sums = bracket.new_zeros(*bracket.shape[:2], lines.features)
            bracket = sums.scatter_add_(2, label.expand(bracket.shape), bracket)
        place = (example * count + row).reshape(-1)
        for sums, weight in zip(self.sums, weights, strict=True):
            if bool((weight != 0).any()):
                weighted = (bracket * weight[:, None]).flatten(0, 1)
                sums.view(-1, lines.features).index_add_(0, place, weighted)
        if self.spread:
            squares = torch.where(feature == EVERYTHING, 0, bracket.square().sum(2))
            self.squares.index_add_(0, example, squares.sum(0))


def fixed(
    field: CountedField, lines: HessianLines, shape: torch.Size, nodes: Tensor, weights: Tensor
) -> Estimate:
    """Every line by the same nodes and weights (m,)."""
    references = len(lines.start)
    places = nodes[:, None].expand(-1, references)
    values = []
    for _, some, numbers in in_blocks(lines, 1):
        sums = HessianSums(field, some, shape, numbers)
        sums.add(places, weights[None] / references, _all(some))
        values.append(sums.sums[0])
    joined = torch.cat(values)
    unknown = joined.new_full((len(joined),), torch.nan)
    return Estimate(joined, unknown, torch.full_like(unknown, len(nodes), dtype=torch.long))


def nested(
    field: CountedField,
    lines: HessianLines,
    shape: torch.Size,
    tol: float,
    most: int,
    change: Tensor,
    floor: Tensor,
    *,
    kinks: bool,
) -> Estimate:
    """Nested nodes, doubled for every example until two rules agree to ``tol``, with ``most`` nodes
    at most (and two rules at least).

    The error is what the last doubling changed, or what the sum misses of the ``change`` (B,) of F,
    spread over all that moves, if that is more. F with ``kinks`` misses some of it whatever the
    nodes. Numbers below the ``floor`` (B,) are rounding.
    """
    pieces = [_FIRST, 2 * _FIRST]
    while 2 * pieces[-1] - 1 <= most:
        pieces.append(2 * pieces[-1])
    results = []
    for part, some, numbers in in_blocks(lines, len(pieces)):
        sums = HessianSums(field, some, shape, numbers, len(pieces))
        run = _Doubling(sums, pieces, change[part], floor[part])
        results.append(run.until(tol, kinks=kinks))
    return Estimate(
        *(
            torch.cat([getattr(result, name) for result in results])
            for name in ("values", "error", "nodes")
        )
    )


class _Doubling:
    """Nested rules for some examples; those that have converged are left alone."""

    def __init__(
        self, sums: HessianSums, pieces: Sequence[int], change: Tensor, floor: Tensor
    ) -> None:
        self.run, self.lines, self.pieces = sums, sums.lines, pieces
        self.change, self.floor = change, floor
        self.tables = [
            [torch.tensor(numbers, dtype=torch.float64).to(sums.sums) for numbers in table]
            for table in map(nested_logarithm, pieces)
        ]
        lines = self.lines
        moving = (lines.start != lines.end).any(0).sum(1).clamp(1, lines.features)
        self.moving = moving.to(sums.sums)

    def until(self, tol: float, *, kinks: bool) -> Estimate:
        sums = self.run.sums
        batch = sums.shape[1]
        values = sums.new_empty(sums.shape[1:])
        error = sums.new_full((batch,), torch.inf)
        nodes = torch.zeros(batch, dtype=torch.long, device=sums.device)
        active = _all(self.lines)
        for level, count in enumerate(self.pieces):
            self._refine(level, active)
            values[active], nodes[active] = sums[level, active], count - 1
            if not level:
                continue
            error[active] = self._error(level, active, kinks=kinks)
            active = active[~(error[active] <= tol)]
            if not len(active):
                break
        return Estimate(values, error, nodes)

    def _refine(self, level: int, active: Tensor) -> None:
        """The nodes that are new at a level, with their weights at it and at all that follow."""
        places = self.tables[level][0]
        new = torch.arange(0, len(places), 2 if level else 1, device=places.device)
        references = len(self.lines.start)
        weights = places.new_zeros(len(self.pieces), len(new))
        for later in range(level, len(self.pieces)):
            stride = 2 ** (later - level)  # every node of a rule is one of the next, the second …
            weights[later] = self.tables[later][1][(new + 1) * stride - 1]
        self.run.add(places[new, None].expand(-1, references), weights / references, active)

    def _error(self, level: int, active: Tensor, *, kinks: bool) -> Tensor:
        now, before = self.run.sums[level, active], self.run.sums[level - 1, active]
        wanted, floor = self.lines.wanted, self.floor[active]
        changed = (_norm((now - before)[:, :wanted]) - floor).clamp_min(0)
        smallest = torch.finfo(now.dtype).tiny
        size = torch.maximum(_norm(now[:, :wanted]), floor).clamp_min(smallest)
        error = changed / size
        if kinks:
            return error
        missed = (completed(now, self.lines) - self.change[active]).abs() - floor
        # The smallest matrix, or row of sums, that misses 1 of what it should add up to.
        least = 1 / self.moving[active]
        if wanted < len(self.lines.rows):
            least = least.sqrt()
            size = torch.maximum(_norm(now[:, wanted:]), floor).clamp_min(smallest)
        return torch.maximum(error, missed.clamp_min(0) * least / size)


def drawn(
    field: CountedField, lines: HessianLines, shape: torch.Size, each: int, seed: int
) -> Estimate:
    """Expected Hessians: ``each`` random α and β for every reference, stratified over all of them.

    The error is a bound for 95 of 100 draws, from the variance of single draws.
    """
    references = len(lines.start)
    count = references * each
    stream = generator(seed)
    alpha, beta = (
        (
            torch.randperm(count, generator=stream)
            + torch.rand(count, generator=stream, dtype=torch.float64)
        )
        / count
        for _ in range(2)
    )
    s = (alpha * beta).to(lines.end).reshape(each, references)
    values, errors = [], []
    for _, some, numbers in in_blocks(lines, 1):
        sums = HessianSums(field, some, shape, numbers, spread=True)
        sums.add(s, s.new_full((1, each), 1 / count), _all(some))
        mean = sums.sums[0]
        values.append(mean)
        size = _norm(mean[:, : lines.wanted])
        variance = (sums.squares / count - size.square()).clamp_min(0) / max(count - 1, 1)
        error = 1.96 * variance.sqrt() / size.clamp_min(torch.finfo(size.dtype).tiny)
        errors.append(error if count > 1 else torch.full_like(size, torch.inf))
    joined = torch.cat(values)
    return Estimate(
        joined, torch.cat(errors), torch.full((len(joined),), each, device=joined.device)
    )


def in_blocks(lines: HessianLines, levels: int) -> Iterator[tuple[slice, HessianLines, Tensor]]:
    """Examples so many at a time that their matrices fit into the memory that is meant for them:
    which, their lines, and their numbers (b,)."""
    size = at_once(levels * len(lines.rows) * lines.features, lines.end.device)
    every = _all(lines)
    for first in range(0, max(1, len(every)), size):
        part = slice(first, first + size)
        yield part, lines.at(part), every[part]


def _all(lines: HessianLines) -> Tensor:
    return torch.arange(len(lines.end), device=lines.end.device)


def completed(values: Tensor, lines: HessianLines) -> Tensor:
    """(B,) what rows (B, r, G) come to altogether: the row of everything where there is one."""
    first = lines.wanted if lines.wanted < len(lines.rows) else 0
    return values[:, first:].flatten(1).sum(1)


def rounding(output: Tensor, base: Tensor) -> Tensor:
    """(B,) what a difference of F is off by because numbers are rounded."""
    return ROUNDING * torch.finfo(output.dtype).eps * torch.maximum(output.abs(), base.abs())


def _norm(values: Tensor) -> Tensor:
    norms: Tensor = values.flatten(1).norm(dim=1)
    return norms
