"""Geodesic paths over a nearest-neighbour graph of data; an edge costs its length times the mean
gradient norm.

    V = points ∪ {baseline} ∪ {input}        an edge u – v where one is among the other's nearest
                                             neighbours
    cost(u, v) = ‖v − u‖₂ · Σ_s w_s ‖∇F(u + t_s (v − u))‖₂        n Gauss–Legendre nodes (t_s, w_s)

Every pair of a reference and an example has a graph of its own, for the two are nodes of it; but
edges between data points are the same in all of them, and what they cost is paid once for all pairs
that ask the model the same question (``Field.questions``). Distances, graphs and shortest paths are
the business of SciPy and the CPU; only gradients are asked of the model, and no more than their
norms are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.optional import optional
from ..core.options import check_choice
from ..core.segment import Evaluation, Segment
from ..core.shapes import describe, first_alike, flattened, over
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Path

_STACK_ELEMENTS = 1 << 25  # pieces are stacked up to about this many numbers at a time
_GRAPH_ELEMENTS = 1 << 22  # neighbours of graphs that are built at a time
_BLOCK_ELEMENTS = 1 << 24  # numbers of a block of points whose distances are taken
_EXACT = 1 << 30  # more differences than this are not taken one by one
_SHOWN = 6  # parts of a graph that an error lists

_GRAPHS = ("symmetric", "official")
_DISTANCES = ("geodesic", "euclidean")


@part
class Geodesic(Path):
    """The shortest path from baseline to input over a graph of data points.

    Stretches where F is steep count as long.

        cost(u, v) = ‖v − u‖₂ · Σ_s w_s ‖∇F(u + t_s (v − u))‖₂

    The rows of a batch have paths of different lengths; shorter ones end with pieces of no length,
    which cost nothing. A path may turn back and leave the box between its ends.

    Args:
        points: (N, \\*s), or a dataset of them (pairs lose their label): a few thousand, of the
            kind the inputs are.
        neighbours: nearest neighbours that a node is linked to (10).
        nodes: Gauss–Legendre nodes for the cost of an edge (5).
        distance: "geodesic" as above; "euclidean": an edge costs its length, and the path is the
            nearest-neighbour path of Enhanced Integrated Gradients, whose graph asks for no
            gradients.
        graph: "symmetric": the nodes are the points, the baseline and the input, all alike, linked
            where one is among the other's ``neighbours`` nearest. "official": as in the authors'
            code, where only points are looked for, and a point finds itself first: points have
            ``neighbours`` − 1 real ones, baseline and input are linked to points only.
        join: a graph in several parts gets an edge between the closest points of every two of them;
            with ``join=False`` it is an error if the baseline is in one part and the input in
            another.

    Raises:
        InputError: for points of another shape and, with ``join=False``, a disconnected graph.
        MissingExtra: without scipy.

    Cost:
        n gradients for every edge among points that any pair's graph has, at most N · neighbours of
        them, once for all pairs that ask the same question (targets of one class) in one call of a
        method, and n for every edge of a baseline or an input. The rule then pays for the few edges
        of the path itself: of the nodes above only norms were kept, for their gradients would be as
        many maps as there are edges. Distances among points: N² numbers.

    References:
        Salek and Enguehard, "Using the Path of Least Resistance to Explain Deep Networks" (arXiv
        2502.12108), the version with nearest neighbours; with "euclidean" Jha et al., "Enhanced
        Integrated Gradients", Genome Biology 2020. The published code puts all inputs of a batch
        into one graph, so that a map depends on what is explained beside it; here it does not. Its
        Steiner points (``n_steiner``, more nodes on long edges by a scheme of arXiv 2007.10430) are
        left out, for the paper does not say which edges are long or how many points they get: give
        more ``points``.
    """

    points: Tensor | Sequence[Any]
    neighbours: int = 10
    nodes: int = 5
    distance: str = "geodesic"
    graph: str = "symmetric"
    join: bool = True

    @property
    def segments(self) -> None:
        """Not known beforehand."""

    @property
    def gradients(self) -> None:
        """Not known beforehand: how many edges there are depends on the points."""

    def __post_init__(self) -> None:
        check_choice("graph", self.graph, _GRAPHS)
        check_choice("distance", self.distance, _DISTANCES)
        least = 2 if self.graph == "official" else 1
        if self.neighbours < least:
            itself = ", the first of which is the point itself" if least == 2 else ""
            raise InputError(
                f"A node is linked to {least} neighbours at least{itself}, not to {self.neighbours}: neighbours= says how many."
            )
        if self.nodes < 1:
            raise InputError(f"The cost of an edge takes at least one node, not {self.nodes}.")
        if not len(self.points):
            raise InputError("A geodesic path leads over points of data, but points= is empty.")

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        known = self._point_set(field, start)
        ends = _Ends(known.points, start, end)
        many = start.shape[0] * start.shape[1]
        at_once = max(1, _GRAPH_ELEMENTS // (len(known.points) * (self.neighbours + 2)))
        routes = [
            route
            for first in range(0, many, at_once)
            for route in self._routes(field, ends, known, range(first, min(first + at_once, many)))
        ]
        pieces = max(map(len, routes)) - 1
        corner = torch.full(
            (pieces + 1, many), len(known.points) + 1
        )  # those that have arrived stay
        for pair, route in enumerate(routes):
            corner[: len(route), pair] = torch.as_tensor(route)
        yield from ends.segments(corner)

    def _point_set(self, field: Field, start: Tensor) -> _PointSet:
        """What is known of the points, kept while a method is at work: it may come for one block of
        references after another."""
        cache = field.kept
        if cache is None:
            return _PointSet.of(self.points, start)
        if self not in cache:
            cache[self] = _PointSet.of(self.points, start)
        known: _PointSet = cache[self]
        return known

    def _routes(self, field: Field, ends: _Ends, known: _PointSet, pairs: range) -> list[list[int]]:
        """The nodes of the shortest way of each of some pairs: N is the baseline, N + 1 the input,
        the others are points."""
        away = ends.distances(pairs, known.flat)
        edges = self._edges(known, away)
        edges = self._connect(known, away, edges)
        pair, tail, head = edges
        length = _lengths(known, away, edges)
        cost = length
        if self.distance == "geodesic":
            cost = length * self._steepness(
                field, ends, known, pair + pairs.start, tail, head, length
            )
        return _shortest(len(known.points) + 2, len(pairs), edges, cost)

    def _edges(self, known: _PointSet, away: _EndDistances) -> _Edges:
        """Neighbours of every node of every graph."""
        n, pairs = len(known.points), len(away.baseline)
        if self.graph == "official":
            near = known.nearest(self.neighbours - 1)[1].expand(pairs, -1, -1)
            around = [_smallest(far, self.neighbours) for far in (away.baseline, away.input)]
        else:
            near_distances, near_points = (
                numbers.expand(pairs, -1, -1) for numbers in known.nearest(self.neighbours)
            )
            to_ends = torch.stack([away.baseline, away.input], 2)
            names = torch.cat([near_points, torch.tensor([n, n + 1]).expand(pairs, n, 2)], 2)
            near = names.gather(
                2, _smallest(torch.cat([near_distances, to_ends], 2), self.neighbours)
            )
            around = [
                _smallest(torch.cat([far, away.direct[:, None]], 1), self.neighbours)
                for far in (away.baseline, away.input)
            ]
            around[0] = torch.where(
                around[0] == n, n + 1, around[0]
            )  # to the baseline, what comes last is the input
        heads = torch.cat([flattened(near, 1), *around], 1)
        tails = [torch.arange(n).repeat_interleave(near.shape[2])]
        tails += [
            torch.full((far.shape[1],), node) for node, far in zip((n, n + 1), around, strict=True)
        ]
        pair = torch.arange(pairs)[:, None].expand_as(heads)
        tail = torch.cat(tails).expand_as(heads)
        return _distinct_edges(
            n + 2, *(numbers.reshape(-1).numpy() for numbers in (pair, tail, heads))
        )

    def _connect(self, known: _PointSet, away: _EndDistances, edges: _Edges) -> _Edges:
        """The same graphs, each in one part."""
        nodes, pairs = len(known.points) + 2, len(away.baseline)
        count, label = _scipy().sparse.csgraph.connected_components(
            _matrix(nodes, pairs, edges), directed=False
        )
        if count == pairs:
            return edges
        label = label.reshape(pairs, nodes)
        more: list[tuple[int, int, int]] = []
        for pair in range(pairs):
            parts = [
                np.flatnonzero(label[pair] == component) for component in np.unique(label[pair])
            ]
            if len(parts) == 1:
                continue
            if self.join:
                more += [(pair, *ends) for ends in _closest(known, away, pair, parts)]
            elif label[pair, -2] != label[pair, -1]:
                raise InputError(_disconnected(len(known.points), parts, self.neighbours))
        if not more:
            return edges
        added = np.array(more, dtype=np.int64).T
        return _distinct_edges(
            nodes, *(np.concatenate(arrays) for arrays in zip(edges, added, strict=True))
        )

    def _steepness(
        self,
        field: Field,
        ends: _Ends,
        known: _PointSet,
        pair: _Numbers,
        tail: _Numbers,
        head: _Numbers,
        length: _Numbers,
    ) -> _Numbers:
        """Σ_s w_s ‖∇F‖ on every edge."""
        n = len(known.points)
        steepness = np.zeros(len(tail))
        among = head < n  # the larger of two node numbers: both are points
        questions = field.questions(torch.arange(ends.batch, device=ends.end.device)).cpu()
        question = first_alike(questions).numpy()[pair % ends.batch]
        for example in np.unique(question[among]):
            selected = np.flatnonzero(among & (question == example) & (length > 0))
            code = tail[selected] * n + head[selected]
            costs = known.steepness.setdefault(
                int(questions[example]), {}
            )  # numbers of the field's, whoever asks
            new = np.array([c for c in np.unique(code) if c not in costs], dtype=np.int64)
            norms = self._norms(field, ends, np.full(len(new), example), new // n, new % n)
            costs.update(zip(new.tolist(), norms.tolist(), strict=True))
            steepness[selected] = [costs[c] for c in code.tolist()]
        selected = np.flatnonzero(~among & (length > 0))
        steepness[selected] = self._norms(
            field, ends, pair[selected], tail[selected], head[selected]
        )
        return steepness

    def _norms(
        self, field: Field, ends: _Ends, pair: _Numbers, tail: _Numbers, head: _Numbers
    ) -> _Numbers:
        """Σ_s w_s ‖∇F‖ on edges that are identified by their pair (only its example matters for those
        among points) and their nodes."""
        if not len(pair):
            return np.zeros(0)
        like = ends.start
        places, weights = np.polynomial.legendre.leggauss(self.nodes)
        t = torch.from_numpy((places + 1) / 2).to(like)
        w = torch.from_numpy(weights / weights.sum()).to(like)
        columns = [torch.from_numpy(numbers).to(like.device) for numbers in (pair, tail, head)]
        example = (columns[0] % ends.batch).repeat_interleave(self.nodes)
        norms = like.new_zeros(len(pair))

        def edge(part: slice) -> tuple[Tensor, Tensor]:
            number = torch.arange(part.start, part.stop, device=like.device)
            return number // self.nodes, number % self.nodes

        def rows(part: slice) -> Tensor:
            e, s = edge(part)
            begin, stop = (ends.take(columns[0][e], node[e]) for node in columns[1:])
            return torch.lerp(begin, stop, over(t[s], begin))

        def use(part: slice, evaluation: Evaluation) -> None:
            e, s = edge(part)
            norms.index_add_(0, e, w[s] * flattened(evaluation.gradient, 1).norm(dim=1))

        field.stream(example, rows, use, like[0, 0], whole=self.nodes)
        return norms.cpu().double().numpy()


_Numbers = np.ndarray[Any, np.dtype[Any]]
_Edges = tuple[_Numbers, _Numbers, _Numbers]
"""Whose graph, and two nodes of it, the smaller number first."""


@dataclass(eq=False)
class _PointSet:
    """Points, their distances to one another, and what is known of the edges between them."""

    points: Tensor
    flat: Tensor
    between: Tensor
    steepness: dict[int, dict[int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Tensor | Sequence[Any], start: Tensor) -> _PointSet:
        if isinstance(data, Tensor):
            points = data.detach()
        else:
            items = (data[i] for i in range(len(data)))
            points = torch.stack(
                [torch.as_tensor(i[0] if isinstance(i, tuple | list) else i) for i in items]
            )
        if points.shape[1:] != start.shape[2:]:
            raise InputError(
                f"The points of a geodesic path hold examples of shape {describe(points.shape[1:])}, but the inputs have "
                f"{describe(start.shape[2:])}."
            )
        flat = flattened(points.to("cpu", start.dtype), 1)
        if not bool(torch.isfinite(flat).all()):
            raise InputError(
                "The points of a geodesic path hold NaN or infinity. Leave these points out."
            )
        between = _distances(flat, flat, exact=len(flat) * flat.numel() <= _EXACT)
        return cls(points, flat, between.fill_diagonal_(0))

    def nearest(self, count: int) -> tuple[Tensor, Tensor]:
        """Distances and numbers of the nearest other points (N, ≤ count), the nearest first."""
        distances = self.between.clone().fill_diagonal_(math.inf)
        numbers = _smallest(distances, min(count, len(distances) - 1))
        return distances.gather(1, numbers), numbers


@dataclass(frozen=True, eq=False)
class _EndDistances:
    """Distances of pairs: baseline (P, N) and input (P, N) to the points, direct (P,) to one
    another."""

    baseline: Tensor
    input: Tensor
    direct: Tensor


@dataclass(frozen=True, eq=False)
class _Ends:
    """Nodes by their numbers: points (N, \\*s), then the baseline start (R, B, \\*s) and the input
    end (B, \\*s) of a pair r · B + b."""

    points: Tensor
    start: Tensor
    end: Tensor

    @property
    def batch(self) -> int:
        return len(self.end)

    def take(self, pair: Tensor, node: Tensor) -> Tensor:
        """The nodes (n, \\*s) of some pairs."""
        n = len(self.points)
        points = self.points[node.clamp_max(n - 1).to(self.points.device)].to(self.start)
        for number in (n, n + 1):
            rows = (node == number).nonzero()[:, 0]
            whose = pair[rows]
            example = whose % self.batch
            points[rows] = (
                self.start[whose // self.batch, example] if number == n else self.end[example]
            )
        return points

    def distances(self, pairs: range, flat: Tensor) -> _EndDistances:
        """How far some pairs' ends are from the points, and from one another."""
        pair = torch.arange(pairs.start, pairs.stop, device=self.start.device)
        start = flattened(self.start[pair // self.batch, pair % self.batch], 1).cpu()
        # Every input once, not once for each of its references.
        example = torch.unique(pair % self.batch)
        place = torch.searchsorted(example, pair % self.batch).cpu()
        end = flattened(self.end[example], 1).cpu()
        direct = torch.linalg.vector_norm(start.double() - end[place].double(), dim=1)
        return _EndDistances(
            _distances(start, flat, exact=True), _distances(end, flat, exact=True)[place], direct
        )

    def segments(self, corner: Tensor) -> Iterator[Segment]:
        """The pieces between corners (K + 1, R·B) told by their nodes' numbers, stacked in
        blocks."""
        pieces, (references, batch) = len(corner) - 1, self.start.shape[:2]
        corner = corner.to(self.start.device)
        pair = torch.arange(corner.shape[1], device=corner.device)
        clock = (torch.arange(pieces + 1, dtype=torch.float64) / pieces).to(self.start)
        most = max(1, _STACK_ELEMENTS // self.start.numel())
        for first in range(0, pieces, most):
            last = min(first + most, pieces)
            whose = pair.expand(last - first + 1, -1).reshape(-1)
            points = self.take(whose, corner[first : last + 1].reshape(-1))
            points = points.reshape(-1, references, batch, *self.end.shape[1:])
            yield Segment(points[:-1], points[1:], (clock[first:last], clock[first + 1 : last + 1]))


def _distances(a: Tensor, b: Tensor, *, exact: bool) -> Tensor:
    """‖a_i − b_j‖₂ (n, m) in float64 for a (n, d) and b (m, d), a block at a time."""
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist"
    middle = (
        0 if exact else b.double().mean(0)
    )  # near the origin products lose less of the differences
    most = max(1, _BLOCK_ELEMENTS // max(1, a.shape[1]))
    distances = torch.empty(len(a), len(b), dtype=torch.float64)
    for i in range(0, len(a), most):
        block = a[i : i + most].double() - middle
        for j in range(0, len(b), most):
            distances[i : i + most, j : j + most] = torch.cdist(
                block, b[j : j + most].double() - middle, compute_mode=mode
            )
    return distances


def _smallest(numbers: Tensor, count: int) -> Tensor:
    """Where the ``count`` smallest are along the last axis, the smallest first; of equal ones those
    that come first."""
    return numbers.argsort(dim=-1, stable=True)[..., :count]


def _distinct_edges(nodes: int, pair: _Numbers, tail: _Numbers, head: _Numbers) -> _Edges:
    """Every edge once, the smaller node first, and none from a node to itself."""
    low, high = np.minimum(tail, head), np.maximum(tail, head)
    real = low < high
    code = np.unique((pair[real] * nodes + low[real]) * nodes + high[real])
    return code // nodes**2, code // nodes % nodes, code % nodes


def _lengths(known: _PointSet, away: _EndDistances, edges: _Edges) -> _Numbers:
    pair, tail, head = (torch.from_numpy(numbers) for numbers in edges)
    n = len(known.points)
    point = tail.clamp_max(n - 1)
    to_ends = torch.where(head == n, away.baseline[pair, point], away.input[pair, point])
    to_ends = torch.where(tail == n, away.direct[pair], to_ends)
    lengths: _Numbers = torch.where(
        head < n, known.between[point, head.clamp_max(n - 1)], to_ends
    ).numpy()
    return lengths


def _closest(
    known: _PointSet, away: _EndDistances, pair: int, parts: list[_Numbers]
) -> Iterator[tuple[int, int]]:
    """The closest two nodes of every two parts of a pair's graph."""
    n = len(known.points)
    distances = torch.empty(n + 2, n + 2, dtype=torch.float64)
    distances[:n, :n] = known.between
    for number, far in ((n, away.baseline[pair]), (n + 1, away.input[pair])):
        distances[number, :n], distances[:n, number] = far, far
    distances[n, n + 1] = distances[n + 1, n] = away.direct[pair]
    table = distances.numpy()
    for i, nodes in enumerate(parts):
        for other_nodes in parts[i + 1 :]:
            place = int(table[np.ix_(nodes, other_nodes)].argmin())
            yield int(nodes[place // len(other_nodes)]), int(other_nodes[place % len(other_nodes)])


def _disconnected(n: int, parts: list[_Numbers], neighbours: int) -> str:
    def words(nodes: _Numbers) -> str:
        points = int((nodes < n).sum())
        named = [f"{points} point{'s' if points != 1 else ''}"] if points else []
        named += [
            word for number, word in ((n, "the baseline"), (n + 1, "the input")) if number in nodes
        ]
        return " and ".join(named)

    # The parts that matter first.
    order = sorted(parts, key=lambda nodes: (not (nodes >= n).any(), -len(nodes)))
    shown = "; ".join(words(nodes) for nodes in order[:_SHOWN])
    more = f"; {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return (
        f"Disconnected graph: with {neighbours} neighbours it falls into {len(parts)} parts ({shown}{more}), and no way leads from the "
        "baseline to the input. Give more points or more neighbours=, or let join=True link the parts where they are closest."
    )


def _shortest(nodes: int, pairs: int, edges: _Edges, cost: _Numbers) -> list[list[int]]:
    """The nodes on the shortest way from node ``nodes`` − 2 to ``nodes`` − 1 of each of ``pairs``
    graphs."""
    sources = np.arange(pairs) * nodes + nodes - 2
    # One source in each of many graphs that nothing links: one run finds the ways in all of them.
    _, before, _ = _scipy().sparse.csgraph.dijkstra(
        _matrix(nodes, pairs, edges, cost), indices=sources, return_predecessors=True, min_only=True
    )
    routes = []
    for source in sources.tolist():
        route = [source + 1]
        while route[-1] != source:
            route.append(int(before[route[-1]]))
        routes.append([node % nodes for node in reversed(route)])
    return routes


def _matrix(nodes: int, pairs: int, edges: _Edges, cost: _Numbers | None = None) -> Any:
    """Graphs side by side as one sparse matrix, every edge both ways; edges that cost nothing are
    edges."""
    pair, tail, head = edges
    low, high = pair * nodes + tail, pair * nodes + head
    weights = np.ones(len(pair)) if cost is None else cost
    places = np.concatenate([low, high]), np.concatenate([high, low])
    return _scipy().sparse.csr_array(
        (np.concatenate([weights, weights]), places), shape=(pairs * nodes, pairs * nodes)
    )


def _scipy() -> Any:
    """SciPy with its sparse graphs, imported at first use."""
    optional("scipy.sparse.csgraph", extra="graph", needs="A geodesic path")
    return import_module("scipy")
