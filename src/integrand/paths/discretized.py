"""Discretized paths over words (DIG): monotone, and close to the embeddings of real words.

    anchors   w_0 = the word;   w_{j+1}: among the neighbours of w_j, neither the baseline nor been to, by ``strategy``
    points    p_0 = the word's vector;   p_{j+1} = towards the baseline, w_{j+1} where that does not turn back;   the baseline last

A coordinate does not turn back where the anchor's lies between the baseline's and the point's; the
others go on by 1/m of the way that is left. Every word of a sequence walks by itself, all of them
at the same time. Anchors do not depend on F: they are found first, as numbers of rows of the table,
and the points are made from them while they are handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ..core.memory_budget import at_once
from ..core.options import check_choice
from ..core.segment import Segment, polyline
from ..core.shapes import describe
from ..core.values import part
from ..errors import InputError, ShapeError
from ..fields import Field
from .base import Path

_STRATEGIES = ("greedy", "maxcount")
_SEARCH_ELEMENTS = 1 << 22  # numbers of candidates that are looked at at a time
_ROUNDING = 1e-5  # of a word's length: how far it may be from its row in the table
_ROUGHLY = 1e-2  # the same, where products of float32 matrices tell
_SPARE = 64  # neighbours more than wanted, where these do
_SAMPLE = 64  # rows of a table by which it is known again
_NONE = -1  # instead of a row's number


@part
class Discretized(Path):
    """Discretized path (DIG): from the baseline to each word, close to other words' embeddings.

    The path of every word of a sequence is monotone.

        w_{j+1} = argmin_{i ∈ N(w_j)} ‖e_i − m(b, e_{w_j}, e_i)‖₂     N: nearest neighbours, without the baseline and what was visited
        p_{j+1} = m(b, p_j, e_{w_{j+1}})                              j < steps; the baseline b comes last
        m(b, p, a) = a where a lies between b and p, else p − (p − b)/steps        coordinate by coordinate

    For examples (\\*n, d): vectors of ``table`` along the last axis, such as the words of a
    sentence (n, d).

    A word that is the baseline stays where it is and is not looked for in the table: so special
    tokens are kept (``ig.baselines.Masked``). The baseline may be any vector; if it is a word's,
    that word is no anchor. A walk that has nowhere left to go is at the baseline from there on;
    pieces of no length cost nothing.

    The path does not depend on F, is monotone and stays in the box.

    Args:
        table: (V, d), the vectors of all words.
        neighbours: how many nearest neighbours of a word are candidates (500); or the graph itself,
            (V, k) numbers of rows as ``ig.paths.neighbour_graph(table, k)`` finds them, or an
            ``ig.paths.NeighbourGraph``, which remembers those that were looked for.
        steps: m, the anchors between the word and the baseline (30); the path has m + 1 pieces.
        strategy: "greedy" as above, the neighbour that has to be moved least; "maxcount": the one
            with the most coordinates between the baseline's and w_j's. Of equal ones the nearest to
            w_j.

    Raises:
        ShapeError: for a table of another width.
        InputError: for an empty table, and for a word that is not in it.

    Cost:
        No gradients; R·B·n·steps·k·d operations for the anchors, less for words that repeat, and
        V·d for the neighbours of every word visited; all where the inputs are. Memory grows with
        steps by one number for each word.

    References:
        Sanyal and Ren, "Discretized Integrated Gradients for Explaining Language Models", EMNLP
        2021 (arXiv 2108.13654), whose code sums the gradients at the baseline's end of every piece
        (``Left()``) and halves pieces for accuracy (``Left(2)``). As there, candidates are judged
        from the last anchor's own vector, and points are made from the last point. It computes
        points in float32 and asks for the largest logit at every point, whichever class that is;
        here F is what it is.

    Example:
        >>> import torch, integrand as ig
        >>> table = torch.tensor([[0.0, 0.0], [4.0, 4.0], [3.0, 2.0], [1.0, 1.0]])
        >>> path = ig.paths.Discretized(table, neighbours=3, steps=2)
        >>> field = ig.fields.Linear(torch.ones(2))
        >>> _, corners = ig.paths.corners(path, field, table[:1, None], table[1:2])
        >>> corners[:, 0, 0].tolist()
        [[0.0, 0.0], [1.0, 1.0], [3.0, 2.0], [4.0, 4.0]]
    """

    table: Tensor
    neighbours: int | Tensor | NeighbourGraph = 500
    steps: int = 30
    strategy: str = "greedy"

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2

    @property
    def segments(self) -> int:
        """One to every anchor, and one to the baseline."""
        return self.steps + 1

    def __post_init__(self) -> None:
        _check_table(self.table)
        if self.steps < 1:
            raise InputError(f"A discretized path takes at least one step, not {self.steps}.")
        check_choice("strategy", self.strategy, _STRATEGIES)
        if isinstance(self.neighbours, Tensor):
            _check_graph(self.neighbours, len(self.table))
        elif isinstance(self.neighbours, int):
            _check_count(self.neighbours)

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        words = self._word_table(end)
        anchors = self._anchors(words, start, end.expand_as(start), field)
        most = at_once(start.numel(), start.device)
        corners = [end.expand_as(start)]
        for number in range(1, self.segments + 1):
            points = (
                start
                if number > self.steps
                else self._next_points(words, start, corners[-1], anchors[number - 1])
            )
            corners.append(points)
            if len(corners) > most or number > self.steps:
                left = self.segments - number
                clock = torch.arange(left, left + len(corners), dtype=torch.float64) / self.segments
                yield polyline(torch.stack(corners[::-1]), clock.to(start))
                corners = [points]

    def _word_table(self, end: Tensor) -> _WordTable:
        width = self.table.shape[1]
        if end.ndim < 2 or end.shape[-1] != width:
            raise ShapeError(
                f"The table holds vectors of {width} numbers, but an example has shape {describe(end.shape[1:])}: give the table that the "
                "inputs were looked up in, and inputs (B, n, d) or (B, d) with its d along the last axis."
            )
        return _WordTable(self.table.detach().to(end), self.neighbours)

    def _next_points(
        self, words: _WordTable, start: Tensor, points: Tensor, anchor: Tensor
    ) -> Tensor:
        """The next points (R, B, \\*n, d), from the ``points`` and the numbers of the anchors
        (R, B, \\*n)."""
        wanted = torch.where((anchor == _NONE)[..., None], start, words.table[anchor.clamp_min(0)])
        low, high = torch.minimum(start, points), torch.maximum(start, points)
        # Rounding may not lead past the baseline.
        onwards = (points - (points - start) / self.steps).clamp(low, high)
        return torch.where((wanted >= low) & (wanted <= high), wanted, onwards)

    def _anchors(self, words: _WordTable, start: Tensor, end: Tensor, field: Field) -> Tensor:
        """The numbers (steps, R, B, \\*n) of the rows that each word walks by, −1 where it has reached the baseline."""
        moves = (start != end).any(-1)
        anchors = torch.full((self.steps, *moves.shape), _NONE, device=end.device)
        if not bool(moves.any()):
            return anchors
        # Sentences repeat their words, and share a baseline: each is looked for, and walked from,
        # once.
        word, of_word = torch.unique(end[moves], dim=0, return_inverse=True)
        base, of_base = torch.unique(start[moves], dim=0, return_inverse=True)
        number, nearest, distance = words.find(word)
        if bool((number == _NONE).any()):
            raise InputError(_missing_words(number, nearest, distance, of_word, moves, field))
        pair, of_pair = torch.unique(of_word * len(base) + of_base, return_inverse=True)
        word_of, base_of = pair // len(base), pair % len(base)
        walks = self._walks(words, number[word_of], words.find(base)[0][base_of], base[base_of])
        anchors[:, moves] = walks[:, of_pair]
        return anchors

    def _walks(self, words: _WordTable, word: Tensor, avoided: Tensor, base: Tensor) -> Tensor:
        """Anchors (steps, P) of walks from the rows ``word`` (P,) to the vectors ``base`` (P, d),
        by way of none of ``avoided`` (P,)."""
        history = word[None]
        for _ in range(self.steps):
            current = history[-1]
            following = torch.full_like(current, _NONE)
            busy = (current != _NONE).nonzero()[:, 0]
            for walks in torch.split(
                busy, max(1, _SEARCH_ELEMENTS // (words.width * words.table.shape[1]))
            ):
                following[walks] = self._next_anchor(
                    words, history[:, walks], avoided[walks], base[walks]
                )
            history = torch.cat([history, following[None]])
        return history[1:]

    def _next_anchor(
        self, words: _WordTable, history: Tensor, avoided: Tensor, base: Tensor
    ) -> Tensor:
        """The next anchor (P,) of walks that have been at (j, P), the last of which is where they
        are."""
        near = words.near(history[-1])
        if not near.shape[1]:
            return torch.full_like(avoided, _NONE)
        closed = near == avoided[:, None]
        for visited in history:
            closed |= near == visited[:, None]
        current, candidates = words.table[history[-1]], words.table[near]
        low, high = torch.minimum(base, current)[:, None], torch.maximum(base, current)[:, None]
        between = (candidates >= low) & (candidates <= high)
        if self.strategy == "maxcount":
            score = -between.sum(-1).to(base)
        else:
            onwards = current - (current - base) / self.steps
            score = (candidates - onwards[:, None]).masked_fill_(between, 0).square_().sum(-1)
        best = score.masked_fill_(closed, float("inf")).argmin(
            1, keepdim=True
        )  # the first of equal ones
        return torch.where(closed.all(1), _NONE, near.gather(1, best)[:, 0])


def neighbour_graph(table: Tensor, neighbours: int = 500) -> Tensor:
    """The nearest neighbours of every row of a table.

    For ``ig.paths.Discretized(table, neighbours=…)``.

    Args:
        table: (V, d), one vector for each row.
        neighbours: how many to find for each row; V − 1 at most.

    Returns:
        The numbers (V, k) of each row's nearest other rows in Euclidean distance, the nearest
        first.

    Cost:
        V²·d operations, where the table is, a block at a time.

    Example:
        >>> import torch, integrand as ig
        >>> ig.paths.neighbour_graph(torch.tensor([[0.0], [1.0], [3.0]]), 2).tolist()
        [[1, 2], [0, 2], [1, 0]]
    """
    _check_table(table)
    _check_count(neighbours)
    words = _WordTable(table.detach(), neighbours)
    return words.near(torch.arange(len(table), device=table.device)).to(torch.int32)


class NeighbourGraph:
    """The nearest neighbours of the rows of one table, looked for when first asked for, and kept.

    For ``ig.paths.Discretized(table, neighbours=…)`` of several calls over one vocabulary: a row is
    looked for once. Rows in ``without`` are nobody's neighbours, such as special tokens.

    Args:
        count: how many neighbours a row has (500).
        without: numbers of rows that are no neighbours.

    Raises:
        InputError: for less than one neighbour; and where it is used with another table than
            before.

    Cost:
        V·d operations for each row that is asked about for the first time; ``count`` numbers of
        memory for each.

    Example:
        >>> import torch, integrand as ig
        >>> table = torch.tensor([[0.0, 0.0], [4.0, 4.0], [3.0, 2.0], [1.0, 1.0]])
        >>> graph = ig.paths.NeighbourGraph(2, without=[3])
        >>> path = ig.paths.Discretized(table, graph, steps=2)
        >>> _, corners = ig.paths.corners(path, ig.fields.Linear(torch.ones(2)), table[:1, None], table[1:2])
        >>> corners[:, 0, 0].tolist(), len(graph)
        ([[0.0, 0.0], [0.0, 0.0], [3.0, 2.0], [4.0, 4.0]], 2)
    """

    def __init__(self, count: int = 500, without: Iterable[int] = ()) -> None:
        _check_count(count)
        self.count = count
        self.without = tuple(sorted({int(row) for row in without}))
        self._table: Tensor | None = None  # some rows of it
        self._known = torch.empty(0, dtype=torch.long)  # (V,) where a row's neighbours are
        self._rows = torch.empty(0, 0, dtype=torch.int32)  # (M, k) of those that were asked about

    @classmethod
    def of_table(cls, graph: Tensor, device: torch.device) -> NeighbourGraph:
        """One that is there already: (V, k) numbers of rows."""
        known = cls(max(1, graph.shape[1]))
        known._rows = graph.to(device)
        known._known = torch.arange(len(graph), device=device)
        return known

    def __repr__(self) -> str:
        without = f", without {len(self.without)} rows" if self.without else ""
        return f"<NeighbourGraph of {self.count}{without}, {len(self)} rows known>"

    def __len__(self) -> int:
        """Of how many rows the neighbours are known."""
        return len(self._rows)

    @property
    def width(self) -> int:
        """How many neighbours a row has, one at least."""
        return max(1, self._rows.shape[1])

    def opened(self, table: Tensor) -> None:
        """Make it fit for a table (V, d), which is that of every use."""
        sample = table[:: max(1, len(table) // _SAMPLE)].cpu()
        other = self._table is not None and not torch.equal(self._table, sample)
        if other or len(self._known) not in (0, len(table)):
            raise InputError(
                "The graph of neighbours was used with another table of words before: make one for each."
            )
        if not len(self._known):
            rest = len(table) - 1 - sum(row < len(table) for row in self.without)
            self._known = torch.full((len(table),), _NONE, device=table.device)
            count = max(0, min(self.count, rest))
            self._rows = torch.empty(0, count, dtype=torch.int32, device=table.device)
        self._table = sample.clone()

    def near(self, rows: Tensor, look: Callable[[Tensor], Tensor]) -> Tensor:
        """The numbers (P, k) of the rows nearest to ``rows`` (P,), the nearest first; ``look``
        finds those that are not known."""
        if self._known.device != rows.device:
            self._known, self._rows = self._known.to(rows.device), self._rows.to(rows.device)
        new = torch.unique(rows[self._known[rows] == _NONE])
        if len(new):
            nearest = look(new)
            first = len(self._rows)
            self._rows = torch.cat([self._rows, nearest.to(self._rows.dtype)])
            self._known[new] = torch.arange(first, first + len(new), device=new.device)
        return self._rows[self._known[rows]].long()


class _WordTable:
    """A table (V, d) of vectors: which row a vector is, and which rows are near a row. Neighbours
    are looked for when asked for."""

    def __init__(self, table: Tensor, neighbours: int | Tensor | NeighbourGraph) -> None:
        self.table = table
        self.middle = table.mean(0)
        self.centred = table - self.middle  # near the origin products lose less of the differences
        self.squares = self.centred.square().sum(1)
        self.size = table.norm(dim=1).mean()
        if isinstance(neighbours, Tensor):
            neighbours = NeighbourGraph.of_table(neighbours, table.device)
        elif isinstance(neighbours, int):
            neighbours = NeighbourGraph(neighbours)
        neighbours.opened(table)
        self.graph = neighbours

    @property
    def width(self) -> int:
        """How many neighbours a row has, one at least."""
        return self.graph.width

    def near(self, rows: Tensor) -> Tensor:
        """The numbers (P, k) of the rows nearest to ``rows`` (P,), the nearest first."""
        return self.graph.near(rows, self._all_nearest)

    def _all_nearest(self, rows: Tensor) -> Tensor:
        taken = max(len(self.table), (self.width + _SPARE) * self.table.shape[1])
        most = max(1, _SEARCH_ELEMENTS // taken)
        return torch.cat([self._nearest(chunk) for chunk in torch.split(rows, most)])

    def _nearest(self, rows: Tensor) -> Tensor:
        """The rows (P, k) nearest to some: a few more by products of matrices, and of these the
        nearest, difference by difference."""
        without = [row for row in self.graph.without if row < len(self.table)]
        rest = max(0, len(self.table) - 1 - len(without))
        count = min(self.graph.count, rest)
        roughly = self._approximate_distances(self.centred[rows])
        roughly[torch.arange(len(rows), device=rows.device), rows] = float("inf")
        roughly[:, without] = float("inf")
        # In the order of the table, so that of equally near ones the first come first.
        candidates = roughly.topk(min(count + _SPARE, rest), largest=False).indices.sort(1).values
        distance = (self.table[candidates] - self.table[rows][:, None]).square_().sum(-1)
        return candidates.gather(1, distance.argsort(dim=1, stable=True)[:, :count])

    def _approximate_distances(self, centred: Tensor) -> Tensor:
        """Squared distances (M, V) of vectors (M, d) to all rows, to about the rounding of their
        squared lengths."""
        return torch.addmm(self.squares, centred, self.centred.T, alpha=-2) + centred.square().sum(
            1, keepdim=True
        )

    def find(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which row each of some vectors (M, d) is, −1 for none; and the number of the nearest row,
        and how far it is, (M,) each."""
        most = max(1, _SEARCH_ELEMENTS // len(self.table))
        numbers, nearest, distance = zip(
            *map(self._find_rows, torch.split(vectors, most)), strict=True
        )
        return torch.cat(numbers), torch.cat(nearest), torch.cat(distance)

    def _find_rows(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        roughly = self._approximate_distances(vectors - self.middle)
        size = vectors.norm(dim=1).maximum(self.size)
        nearest = roughly.argmin(1)
        distance = (vectors - self.table[nearest]).norm(dim=1)
        vector, row = (roughly <= (_ROUGHLY * size[:, None]) ** 2).nonzero(as_tuple=True)
        same = (vectors[vector] - self.table[row]).norm(dim=1) <= _ROUNDING * size[vector]
        # The first of equal rows.
        number = torch.full_like(nearest, len(self.table)).scatter_reduce_(
            0, vector[same], row[same], "amin"
        )
        return torch.where(number < len(self.table), number, _NONE), nearest, distance


def _check_table(table: Tensor) -> None:
    if not isinstance(table, Tensor) or table.ndim != 2 or not table.is_floating_point():
        description = (
            f"{table.dtype} of shape {describe(table.shape)}"
            if isinstance(table, Tensor)
            else type(table).__name__
        )
        raise InputError(
            f"table= is a floating-point tensor (V, d), a row for each word, such as model.get_input_embeddings().weight; got {description}."
        )
    if not table.numel():
        raise InputError(f"The table of words is empty: its shape is {describe(table.shape)}.")
    if not bool(torch.isfinite(table).all()):
        raise InputError("The table of words holds NaN or infinity.")


def _check_count(neighbours: int) -> None:
    if neighbours < 1:
        raise InputError(f"A word has at least one neighbour, not neighbours={neighbours}.")


def _check_graph(graph: Tensor, words: int) -> None:
    if (
        graph.ndim != 2
        or len(graph) != words
        or graph.is_floating_point()
        or graph.dtype == torch.bool
    ):
        raise InputError(
            f"neighbours= is a number, or a graph ({words}, k) of row numbers as ig.paths.neighbour_graph(table, k) makes it; got "
            f"{str(graph.dtype).removeprefix('torch.')} of shape {describe(graph.shape)}."
        )
    if graph.numel() and (int(graph.min()) < 0 or int(graph.max()) >= words):
        raise InputError(
            f"The graph of neighbours names rows from {int(graph.min())} to {int(graph.max())}, but the table's are 0 to {words - 1}: "
            "it was made for another table."
        )


def _missing_words(
    number: Tensor,
    nearest: Tensor,
    distance: Tensor,
    of_word: Tensor,
    moves: Tensor,
    field: Field,
) -> str:
    """What to say of words that no row of the table is; ``moves`` (R, B, \\*n) says where words
    are, ``of_word`` which they are."""
    missing = number[of_word] == _NONE
    place = moves.nonzero()[missing][0].tolist()
    word = of_word[missing][0]
    where = field.example_name(place[1]) + (
        f", position {', '.join(map(str, place[2:]))}" if place[2:] else ""
    )
    return (
        f"{int((number == _NONE).sum())} of {len(number)} different words are not in the table: the one of {where} is "
        f"{float(distance[word]):.3g} away from the nearest row, number {int(nearest[word])}. A discretized path walks from word to word: explain "
        "the words' own vectors, as they were looked up in this table and before anything is added to them, or keep such positions as "
        "they are with baseline=ig.baselines.Masked(…)."
    )
