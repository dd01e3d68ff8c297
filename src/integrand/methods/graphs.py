"""Along the paths of a graph: graph."""

from __future__ import annotations

from torch import Tensor

from ..baselines.graph import AlongShortestPaths
from ..integration import Method
from ..rules import FirstOrder
from .registry import axioms, published


@published(
    title="Graph-based Integrated Gradients",
    key="simpson2025graph",
    formula="Σ over shortest paths g from a base node to the node explained of Σ_k (X_{g_{k+1}} − X_{g_k}) ⊙ ∂F/∂X_{g_k}",
    cost="1 gradient and 1 value, however many paths there are",
    axioms=axioms(complete=False, symmetric=False, inside=False),
    takes="graphs",
)
def graph(
    edges: Tensor,
    node: int,
    base: int | None = None,
    reading: str = "increments",
    paths: str = "sum",
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """Graph-based Integrated Gradients: along all shortest paths from a base node to the node
    explained.

        A_u = Σ_g Σ_{k: g_k = u} (X_{g_{k+1}} − X_{g_k}) ⊙ ∂F/∂X_u

    F is what a model says of one graph, or of one node of it, as a function of all features X;
    inputs are (1, N, d). Each term is credited to the node whose gradient it takes: values (1, N,
    d), which ``.values.sum(1)`` adds up to the published vector (1, d).

    The base is, of the nodes farthest away, the one whose paths have the most entropy. Edges count
    in both directions, once each; self edges lead nowhere and are left out. Neither completeness
    nor the symmetry of features at different nodes is claimed; the residual says what the sum
    misses of F(X) − F(X − D), D being the displacement of each node along the paths.

    Args:
        edges: (2, E), as PyG stores them.
        node: the node that is explained, where the paths lead.
        base: where they begin; chosen by entropy unless given.
        reading: "increments" as above; "mean_increments" divides by a path's number of edges m;
            "integral" is (X_node − X_base) ⊙ the mean of ∂F/∂X over the m + 1 nodes of a path. The
            abstract and one implementation by others leave open which of them the paper means, and
            its text was not at hand: none is verified against it. That implementation divides
            (``"mean_increments"``) and adds up.
        paths: "sum" over all shortest paths as published, or their "mean". The sum grows with
            their number, which may be astronomical.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method`` with values (1, N, d), in units of F.

    Raises:
        InputError: for nodes that are not there, an isolated node, a base in another part of the
            graph, and for sums of more paths than numbers can hold.

    Cost:
        1 gradient, and 1 value for the residual. Paths are not listed: time grows with nodes and
        edges.

    References:
        Simpson, Millar, Cheng, Lim, Chew, arXiv 2509.07648.

    Example:
        >>> import torch, integrand as ig
        >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> x = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]])
        >>> field = ig.fields.Linear(torch.tensor([[0.5], [-1.0], [0.25], [2.0]]))
        >>> ig.methods.graph(ring, node=0)(field, x).values.flatten().tolist()
        [0.0, 1.0, 0.5, -14.0]
    """
    start = AlongShortestPaths(edges, node, base, reading, paths)
    return Method(start, rule=FirstOrder(), record=record)
