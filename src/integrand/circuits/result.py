"""Circuits: scored nodes and edges, with what their scores miss, and how faithful subsets of edges are.

Scores are in units of F: what a node or an edge carries of F(clean) − F(corrupt). Positive ones raise F.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.formatting import number, percent
from ..core.frames import frame_of
from ..core.optional import room
from ..core.options import whole
from ..errors import UnknownName
from ..integration.cost import Cost
from .graph import CircuitGraph


class Node(NamedTuple):
    """A node, and its score."""

    name: str
    score: float


class Edge(NamedTuple):
    """An edge from what writes into the stream to what reads it, and its score."""

    source: str
    target: str
    score: float


class Completeness(NamedTuple):
    """What the scores of some nodes should add up to, and do.

    Attributes:
        nodes: which: "input", "attention 3", "mlp 3".
        change: what F loses where all that these write is that of the corrupt prompt, the mean over
            pairs.
        total: the sum of their scores.
    """

    nodes: str
    change: float
    total: float

    @property
    def gap(self) -> float:
        """|change − total| / |change|; NaN where nothing changes."""
        missing = abs(self.change - self.total)
        return missing / abs(self.change) if self.change else float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class NodeScores:
    """What every node carries of F(clean) − F(corrupt), the mean over P pairs.

    Attributes:
        graph: the nodes by name.
        node_scores: (S,) of ``graph.sources``.
        node_standard_error: (S,) of the mean over pairs; NaN for a single pair.
        clean: (P,) F of the clean prompts.
        corrupt: (P,) F of the corrupt ones.
        completeness: the nodes whose scores add up to something that was measured, and both
            numbers. Nothing is claimed of others.
        error: the estimated relative L2 error of the scores; NaN where there are too few places on
            the path to tell, 0 of patching.
        method: how they were computed.
        metric: F, to readers.
        cost: of it.
    """

    graph: CircuitGraph
    node_scores: Tensor
    node_standard_error: Tensor
    clean: Tensor
    corrupt: Tensor
    completeness: tuple[Completeness, ...]
    error: float
    method: str
    metric: str
    cost: Cost

    @property
    def change(self) -> float:
        """F(clean) − F(corrupt), the mean over pairs."""
        return float((self.clean - self.corrupt).mean())

    @property
    def gap(self) -> float:
        """The largest of the relative gaps of ``completeness``; NaN where nothing is complete."""
        gaps = [entry.gap for entry in self.completeness if entry.gap == entry.gap]
        return max(gaps, default=float("nan"))

    @property
    def nodes(self) -> list[Node]:
        """All nodes, in the order of the stream."""
        pairs = zip(self.graph.sources, self.node_scores.tolist(), strict=True)
        return [Node(*pair) for pair in pairs]

    def top_nodes(self, count: int = 10) -> list[Node]:
        """The nodes with the largest |score|, the largest first; of equal ones the first in the
        stream."""
        return sorted(self.nodes, key=lambda node: -abs(node.score))[
            : whole("count", count, least=0)
        ]

    def _stated(self) -> str:
        parts = [
            f"F = {self.metric}: {number(float(self.clean.mean()))} clean, "
            f"{number(float(self.corrupt.mean()))} corrupt"
        ]
        if self.completeness:
            parts.append(f"worst gap {percent(self.gap)}")
        if self.error == self.error:
            parts.append(f"estimated error {percent(self.error)}")
        return ", ".join((*parts, f"{self.cost.gradients} gradients, {self.cost.values} values"))

    def __repr__(self) -> str:
        return f"<NodeScores of {len(self.node_scores)} nodes by {self.method}, {self._stated()}>"

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a line for each node.

        Raises:
            MissingExtra: without pandas.
        """
        return frame_of(self._node_lines())

    def _node_lines(self) -> dict[str, list[Any]]:
        return {
            "node": list(self.graph.sources),
            "score": self.node_scores.tolist(),
            "standard_error": self.node_standard_error.tolist(),
        }

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file with a JSON header, whole or not at all; ``ig.load`` reads
        it back. Needs integrand[save].

        Raises:
            OSError: where the disk refuses.
        """
        room("circuits.io").save(self, path)


@dataclass(frozen=True, eq=False, repr=False)
class Circuit(NodeScores):
    """What every edge carries of F(clean) − F(corrupt), the mean over P pairs.

    Attributes:
        scores: (S, V) of the edges from ``graph.sources`` to ``graph.sinks``; 0 where there is
            none.
        standard_error: (S, V) of the mean over pairs; NaN for a single pair.
    """

    scores: Tensor = field(kw_only=True)
    standard_error: Tensor = field(kw_only=True)

    @property
    def edges(self) -> list[Edge]:
        """All edges, in the order of the stream."""
        sources, sinks = self.graph.edges.nonzero(as_tuple=True)
        scores = self.scores[sources, sinks].tolist()
        return [
            Edge(self.graph.sources[source], self.graph.sinks[sink], score)
            for source, sink, score in zip(sources.tolist(), sinks.tolist(), scores, strict=True)
        ]

    def score(self, source: str, target: str) -> float:
        """The score of one edge.

        Raises:
            UnknownName: where there is none.
        """
        return float(self.scores[self.graph.edge(source, target)])

    def top(self, count: int = 10) -> list[Edge]:
        """The edges with the largest |score|, the largest first; of equal ones the first in the
        stream."""
        return sorted(self.edges, key=lambda edge: -abs(edge.score))[
            : whole("count", count, least=0)
        ]

    def mask(self, count: int) -> Tensor:
        """(S, V) which edges are the ``count`` with the largest |score|: all of them, where there
        are no more."""
        kept = torch.zeros_like(self.graph.edges)
        places = self.graph.edges.nonzero()
        strengths = self.scores[self.graph.edges].abs()
        order = strengths.sort(descending=True, stable=True).indices
        chosen = places[order[: whole("count", count, least=0)]]
        kept[chosen[:, 0], chosen[:, 1]] = True
        return kept

    def __repr__(self) -> str:
        return f"<Circuit of {self.graph.edge_count} edges by {self.method}, {self._stated()}>"

    def to_pandas(self, kind: str = "edges") -> Any:
        """The scores as a pandas DataFrame.

        Args:
            kind: "edges": a line for each edge; "nodes": a line for each node; "completeness": a
                line for each group of nodes whose sum is known.

        Raises:
            MissingExtra: without pandas.
            UnknownName: for another kind.
        """
        if kind == "nodes":
            return frame_of(self._node_lines())
        if kind == "completeness":
            return frame_of(
                {
                    name: [getattr(entry, name) for entry in self.completeness]
                    for name in ("nodes", "change", "total", "gap")
                }
            )
        if kind != "edges":
            raise UnknownName("kind of frame", kind, ("edges", "nodes", "completeness"))
        edges = self.edges
        return frame_of(
            {
                "source": [edge.source for edge in edges],
                "target": [edge.target for edge in edges],
                "score": [edge.score for edge in edges],
                "standard_error": self.standard_error[self.graph.edges].tolist(),
            }
        )

    def to_html(self, path: str | Path | None = None, *, count: int = 40) -> str:
        """A self-contained page: a drawing of the ``count`` strongest edges by layer, and their
        list. No script, nothing fetched.

        Args:
            path: where to write it, too.
            count: how many edges are drawn.

        Returns:
            The page.
        """
        return str(room("report.circuits").page(self, path, whole("count", count, least=1)))


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCurve:
    """How much of F(clean) − F(corrupt) is left where only some edges are kept, beside random ones.

        (F(kept) − F(corrupt)) / (F(clean) − F(corrupt)),  each F a mean over pairs

    Attributes:
        counts: (C,) how many edges were kept.
        circuit: (C,) of the strongest edges; 1 is all of the change, 0 none.
        random: (R, C) of as many edges drawn by chance, R draws.
        edges: how many edges there are.
        cost: of it.
    """

    counts: tuple[int, ...]
    circuit: Tensor
    random: Tensor
    edges: int
    cost: Cost

    @property
    def area(self) -> float:
        """The area under the curve of the circuit over the share of edges kept, by trapezoids."""
        return self._area(self.circuit)

    @property
    def random_area(self) -> float:
        """The same of random edges, the mean over draws."""
        return self._area(self.random.mean(0)) if len(self.random) else float("nan")

    def _area(self, curve: Tensor) -> float:
        shares = torch.tensor(self.counts, dtype=curve.dtype) / self.edges
        return float(torch.trapezoid(curve, shares))

    def smallest(self, level: float = 0.85) -> int | None:
        """The smallest of ``counts`` from which on at least ``level`` of the change is left; None
        where there is none."""
        enough: int | None = None
        for count, left in zip(reversed(self.counts), self.circuit.flip(0).tolist(), strict=True):
            if left < level:
                break
            enough = count
        return enough

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a line for each count: of the circuit, and mean, least and most
        of random edges.

        Raises:
            MissingExtra: without pandas.
        """
        columns: dict[str, Sequence[Any]] = {
            "edges": self.counts,
            "share": [count / self.edges for count in self.counts],
            "circuit": self.circuit.tolist(),
        }
        if len(self.random):
            columns["random"] = self.random.mean(0).tolist()
            columns["random_least"] = self.random.amin(0).tolist()
            columns["random_most"] = self.random.amax(0).tolist()
        return frame_of(columns)

    def __repr__(self) -> str:
        return (
            f"<FaithfulnessCurve at {len(self.counts)} counts of {self.edges} edges, area {number(self.area)}, "
            f"of random edges {number(self.random_area)}>"
        )
