"""All shortest paths between two nodes of a graph, counted without listing any.

    distance       breadth first from the node, level by level
    σ(u)           how many shortest paths lead from the node to u: the sum over u's predecessors
    edge (u → w)   lies on σ_base(u) · σ_node(w) of all shortest paths from base to node

Every edge is looked at a few times, so that time grows with nodes and edges, not with paths, of
which there may be more than atoms. Counts are therefore kept as logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]

_EXACT = 2.0**45
"""Up to this, counts that come back from their logarithms are the whole number next to them."""
_MOST = 690.0
"""The logarithm of the largest number of paths that sums of float64 can do with."""
_TIE = 1e-9
"""Logarithms of entropies this near, relatively, are equal but for rounding."""


@dataclass(frozen=True, eq=False)
class Adjacency:
    """An undirected graph: each pair of neighbours once in either direction, no self edges.

    Attributes:
        nodes: how many there are.
        source, target: (E,) ends of the directed edges, sorted by source.
        first: (nodes + 1,) where the edges of each source begin.
    """

    nodes: int
    source: Integers
    target: Integers
    first: Integers

    @classmethod
    def of(cls, edges: Integers, nodes: int) -> Adjacency:
        """The graph of edges (2, E) as they are stored: in one direction or both, some of them
        twice, self edges among them.

        Raises:
            InputError: for edges to nodes that there are not.
        """
        if edges.size and (edges.min() < 0 or edges.max() >= nodes):
            wrong = int(edges.min() if edges.min() < 0 else edges.max())
            raise InputError(
                f"edges name node {wrong}, but X has {nodes} rows, for nodes 0 to {nodes - 1}."
            )
        apart = edges[:, edges[0] != edges[1]]
        both = np.concatenate([apart[0] * nodes + apart[1], apart[1] * nodes + apart[0]])
        source, target = np.divmod(np.unique(both), nodes)
        first = np.concatenate([[0], np.bincount(source, minlength=nodes).cumsum()])
        return cls(nodes, source, target, first.astype(np.int64))

    @property
    def degree(self) -> Integers:
        """(nodes,) how many neighbours each node has."""
        return np.diff(self.first)

    def edges_of(self, nodes: Integers) -> Integers:
        """The numbers of the edges that begin at some nodes."""
        begin, count = self.first[nodes], self.degree[nodes]
        offset = np.repeat(begin - np.concatenate([[0], count.cumsum()[:-1]]), count)
        return (offset + np.arange(count.sum())).astype(np.int64)

    def levels(self, node: int) -> list[Integers]:
        """Nodes by their distance from ``node``: those at 0, at 1, …; unreachable ones are in
        none."""
        seen = np.zeros(self.nodes, bool)
        level = np.array([node])
        levels = []
        while len(level):
            levels.append(level)
            seen[level] = True
            level = np.unique(self.target[self.edges_of(level)])
            level = level[~seen[level]]
        return levels


def distances(levels: list[Integers], nodes: int) -> Integers:
    """(nodes,) distances that levels stand for; −1 for nodes that no path leads to."""
    distance = np.full(nodes, -1, np.int64)
    for number, level in enumerate(levels):
        distance[level] = number
    return distance


def log_counts(graph: Adjacency, levels: list[Integers]) -> Numbers:
    """(nodes,) log σ, the number of shortest paths from the node at level 0; −inf for nodes that
    none leads to."""
    distance = distances(levels, graph.nodes)
    log = np.full(graph.nodes, -np.inf)
    log[levels[0]] = 0.0
    for level in levels[:-1]:
        edges = graph.edges_of(level)
        edges = edges[distance[graph.target[edges]] == distance[graph.source[edges]] + 1]
        np.logaddexp.at(log, graph.target[edges], log[graph.source[edges]])
    return log


def path_entropies(graph: Adjacency, levels: list[Integers]) -> Numbers:
    """(nodes,) log Σ_g p(g) I(g) over the shortest paths g from the node at level 0 to each node.

        p(g) = Π_{w on g} 1/deg(w)        I(g) = −log₂ p(g) = Σ_{w on g} log₂ deg(w)

    A long path's p is smaller than any float64: log Σ p is kept, beside the mean of I.
    """
    distance = distances(levels, graph.nodes)
    bits = np.log2(np.maximum(graph.degree, 1))
    log_p = np.full(graph.nodes, -np.inf)
    mean = np.zeros(graph.nodes)
    log_p[levels[0]], mean[levels[0]] = -np.log(2) * bits[levels[0]], bits[levels[0]]
    for level, following in pairwise(levels):
        edges = graph.edges_of(level)
        edges = edges[distance[graph.target[edges]] == distance[graph.source[edges]] + 1]
        before, after = graph.source[edges], graph.target[edges]
        np.logaddexp.at(log_p, after, log_p[before])
        np.add.at(mean, after, np.exp(log_p[before] - log_p[after]) * mean[before])
        log_p[following] -= np.log(2) * bits[following]
        mean[following] += bits[following]
    with np.errstate(divide="ignore"):
        entropies: Numbers = log_p + np.log(mean)
    return entropies


def base_of(graph: Adjacency, node: int) -> int:
    """The base point of a node: of the nodes farthest away from it, the one whose shortest paths to
    it have the most entropy; of equal ones the first.

    Raises:
        InputError: for a node without neighbours.
    """
    levels = graph.levels(node)
    if len(levels) == 1:
        raise InputError(
            f"Node {node} has no neighbours, so that no path leads to it: explain its own features with method='integrated'."
        )
    entropy = path_entropies(graph, levels)[levels[-1]]
    best = entropy.max()
    tied = entropy == best if np.isinf(best) else entropy >= best - _TIE * max(1.0, abs(best))
    return int(levels[-1][tied].min())


@dataclass(frozen=True, eq=False)
class ShortestPaths:
    """The shortest paths from a base to a node, all of them, in sums.

    Attributes:
        base, node: their ends.
        length: m, how many edges each has.
        log_total: the logarithm of how many there are.
        source, target: (n,) the directed edges they go along.
        log_edges: (n,) the logarithm of how many go along each.
        on: (k,) the nodes they go through, both ends included.
        log_nodes: (k,) the logarithm of how many go through each.
    """

    base: int
    node: int
    length: int
    log_total: float
    source: Integers
    target: Integers
    log_edges: Numbers
    on: Integers
    log_nodes: Numbers

    @classmethod
    def between(cls, graph: Adjacency, base: int, node: int) -> ShortestPaths:
        """All shortest paths of a graph from ``base`` to ``node``.

        Raises:
            InputError: where none leads from one to the other.
        """
        towards, away = graph.levels(node), graph.levels(base)
        to_node = distances(towards, graph.nodes)
        length = int(to_node[base])
        if length < 0:
            raise InputError(
                f"No path leads from base {base} to node {node}: they lie in parts of the graph that no edge joins. Leave base= out, "
                "or name a node that can be reached."
            )
        if length == 0:
            raise InputError(
                f"base {base} is the node that is explained, and a path of one node says nothing: leave base= out, or name another."
            )
        before, after = log_counts(graph, away), log_counts(graph, towards)
        from_base = distances(away, graph.nodes)
        on = np.flatnonzero((to_node >= 0) & (from_base >= 0) & (from_base + to_node == length))
        edges = graph.edges_of(on)
        source, target = graph.source[edges], graph.target[edges]
        onward = (from_base[source] + 1 + to_node[target] == length) & (to_node[target] >= 0)
        source, target = source[onward], target[onward]
        return cls(
            base,
            node,
            length,
            float(after[base]),
            source,
            target,
            before[source] + after[target],
            on,
            before[on] + after[on],
        )

    def numbers(self, logs: Numbers, *, mean: bool) -> Numbers:
        """Logarithms of numbers of paths as numbers, or (``mean``) as parts of all paths.

        Raises:
            InputError: for numbers that are too large to be added up.
        """
        if mean:
            parts: Numbers = np.exp(logs - self.log_total)
            return parts
        if self.log_total > _MOST:
            raise InputError(
                f"There are 10^{self.log_total / np.log(10):.0f} shortest paths from base {self.base} to node {self.node}, too many for their sum: "
                "ask for their mean (paths='mean')."
            )
        counts: Numbers = np.exp(logs)
        return np.where(counts < _EXACT, np.rint(counts), counts)
