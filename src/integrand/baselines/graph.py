"""Baselines of a graph's nodes: how far its shortest paths lead."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..core.options import check_choice
from ..core.shapes import describe
from ..core.shortest_paths import Adjacency, ShortestPaths, base_of
from ..core.values import part
from ..errors import BaselineError, InputError
from ..fields import Field
from .base import Baseline

READINGS = ("increments", "mean_increments", "integral")
SUMS = ("sum", "mean")


@part
class AlongShortestPaths(Baseline):
    """X − D: the inputs, each node moved back by what the shortest paths from a base to a node add
    up to at it.

        increments        D_u = Σ_paths Σ_{edges u → w on them} (X_w − X_u)
        mean_increments   the same, divided by the number of edges m of a path
        integral          D_u = Σ_{paths through u} (X_node − X_base) / (m + 1)

    One gradient at X times D is Graph-based Integrated Gradients, since its paths visit nodes, all
    of them within one and the same X (``ig.methods.graph``).

    Args:
        edges: (2, E) as PyG stores them; taken in both directions, once each, self edges left out.
        node: where the paths lead, the node that is explained.
        base: where they begin; the node farthest away with the most path entropy unless given.
        reading: which displacements, one of the three above.
        paths: "sum" or "mean" over all shortest paths.

    Raises:
        InputError: for nodes that are not there, have no neighbours, or are joined by no path.

    Cost:
        Nothing of the model; time that grows with nodes and edges, not with paths.

    Example:
        >>> import torch, integrand as ig
        >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> x = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]])
        >>> baseline = ig.baselines.AlongShortestPaths(ring, 0)
        >>> (x - baseline(x, None)[0]).flatten().tolist()
        [0.0, -1.0, 2.0, -7.0]
    """

    edges: Tensor
    node: int
    base: int | None = None
    reading: str = "increments"
    paths: str = "sum"

    label: ClassVar[str] = "shortest paths"
    count: ClassVar[int] = 1
    single: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("reading", self.reading, READINGS)
        check_choice("paths", self.paths, SUMS)
        edges = self.edges
        of_integers = isinstance(edges, Tensor) and not (
            edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool
        )
        if not of_integers or edges.ndim != 2 or len(edges) != 2:
            description = (
                f"{str(edges.dtype).removeprefix('torch.')} of shape {describe(edges.shape)}"
                if isinstance(edges, Tensor)
                else f"a {type(edges).__name__}"
            )
            raise InputError(
                f"edges are whole numbers (2, E), as PyG stores them, not {description}."
            )

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        if x.ndim != 3:
            raise BaselineError(
                f"Shortest paths lead through one graph of nodes with features: inputs are X (1, nodes, features), not {describe(x.shape)}. "
                "Add the batch axis with X[None], and pack nothing else beside X."
            )
        paths = self.shortest(x.shape[1])
        return (x - self._displacement(x, paths))[None]

    def shortest(self, nodes: int) -> ShortestPaths:
        """The shortest paths of the graph with so many nodes."""
        for name, number in (("node", self.node), ("base", self.base)):
            if number is not None and not 0 <= number < nodes:
                raise InputError(
                    f"{name}={number}, but X has {nodes} rows, for nodes 0 to {nodes - 1}."
                )
        graph = Adjacency.of(self.edges.cpu().long().numpy(), nodes)
        base = base_of(graph, self.node) if self.base is None else self.base
        return ShortestPaths.between(graph, base, self.node)

    def _displacement(self, x: Tensor, paths: ShortestPaths) -> Tensor:
        """D (B, N, d)."""
        mean = self.paths == "mean"
        if self.reading == "integral":
            place, logs = paths.on, paths.log_nodes
            step = (x[:, paths.node] - x[:, paths.base])[:, None]
            pieces = paths.length + 1
        else:
            place, logs = paths.source, paths.log_edges
            step = (
                x[:, torch.from_numpy(paths.target).to(x.device)]
                - x[:, torch.from_numpy(place).to(x.device)]
            )
            pieces = paths.length if self.reading == "mean_increments" else 1
        weight = torch.from_numpy(paths.numbers(logs, mean=mean)).to(x) / pieces
        where = torch.from_numpy(place).to(x.device)
        return torch.zeros_like(x).index_add_(
            1, where, (weight[:, None] * step).expand(-1, len(where), -1)
        )
