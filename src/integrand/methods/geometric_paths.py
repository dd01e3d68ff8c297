"""Paths shaped by the model: geodesics over data, elastic bands, straight lines with steps that
follow F."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..baselines import StartLike
from ..fields.line_scan import EVEN
from ..integration import Method
from ..paths import ElasticBand, Geodesic, NonUniform
from ..rules import GaussLegendre, Midpoint, Rule
from .registry import axioms, published


@published(
    title="Geodesic Integrated Gradients",
    key="salek2025using",
    formula="∫ ∇F ⊙ dγ along the shortest way over data, an edge costs ‖v − u‖ ∫ ‖∇F‖",
    cost="n gradients for each edge among the data (≤ N·k) per class, + R·n for each edge of x and b, + R·n for each of the path",
    axioms=axioms(linear=False, symmetric=False, inside=False, monotone=False),
)
def geodesic(
    baseline: StartLike,
    points: Tensor | Sequence[Any],
    neighbours: int = 10,
    nodes: int = 5,
    distance: str = "geodesic",
    *,
    graph: str = "symmetric",
    join: bool = True,
    rule: Rule | None = None,
    record: tuple[str, ...] = (),
) -> Method:
    """Geodesic Integrated Gradients: A = ∫ ∇F ⊙ dγ, γ the shortest way from the baseline to x over
    ``points`` of data.

        cost of an edge u – v = ‖v − u‖₂ · Σ_s w_s ‖∇F(u + t_s (v − u))‖₂

    The path goes round where F is steep, so features take part that neither the baseline nor x
    tells apart, and it leaves the box between them. Symmetric features get the same only where the
    data treat them alike. The paper's "no-cancellation completeness", Σ|A| = |ΔF|, cannot be had in
    general: for F = x₁ − x₂ every path has the same map, whose terms cancel.

    Complete, up to the rule.

    Args:
        baseline: where paths start, as for ``integrated``.
        points: (N, \\*s) or a dataset: a few thousand, of the kind the inputs are.
        neighbours: nearest neighbours that are linked (10).
        nodes: Gauss–Legendre nodes on an edge (5), for its cost and its share.
        distance: "euclidean": the nearest-neighbour path of Enhanced Integrated Gradients, whose
            edges cost their length.
        graph: "symmetric", two nodes are linked where either is among the other's nearest;
            "official", as in the authors' code (see ``ig.paths.Geodesic``).
        join: whether parts of the graph are joined where they are closest; else it is an error
            where no way leads to the input.
        rule: another one for the edges of the path.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        ``nodes`` gradients for every edge among the points, at most N · neighbours of them, once
        for all examples of one class in a call; ``nodes`` for every edge of x and of the baseline,
        and for every edge of the path.

    References:
        Salek and Enguehard, arXiv 2502.12108; "euclidean": Jha et al., Genome Biology 2020.

    Example:
        >>> import torch, integrand as ig
        >>> points = torch.rand(40, 2)
        >>> field = ig.fields.Function(lambda z: z.prod(1))
        >>> method = ig.methods.geodesic(0.0, points, neighbours=5)
        >>> result = method(field, torch.ones(1, 2))
        >>> bool(result.converged.all())
        True
    """
    path = Geodesic(points, neighbours, nodes, distance, graph, join)
    return Method(baseline, path, rule or GaussLegendre(nodes), record=record)


@published(
    title="Geodesic Integrated Gradients, relaxed",
    key="salek2025using",
    formula="∫ ∇F ⊙ dγ, γ the least of K Σ‖d‖² + β s Σ‖d‖ ‖∇F‖ over paths with fixed ends",
    cost="R·(2·iterations + 1)·(corners + 1) + R·(corners + 1)·n gradients",
    axioms=axioms(linear=False, inside=False, monotone=False),
)
def relaxed(
    baseline: StartLike = 0.0,
    corners: int = 15,
    beta: float = 0.3,
    iterations: int = 30,
    *,
    rule: Rule = GaussLegendre(2),
    record: tuple[str, ...] = (),
) -> Method:
    """Geodesic Integrated Gradients without data: the line relaxes to avoid steep gradients, A = ∫
    ∇F ⊙ dγ.

        γ = argmin K Σ_k ‖d_k‖² + β s Σ_k ‖d_k‖ ‖∇F(m_k)‖      over ``corners`` free points, ends fixed

    With ``beta=0`` it is Integrated Gradients. ``.notes["steepness"]`` is the length travelled in
    the metric ‖∇F‖ ‖dγ‖, which is never more than the straight line's. See ``ig.paths.ElasticBand``
    for how this differs from the released code, whose maps are not complete.

    Complete, up to the rule.

    Args:
        baseline: where paths start, as for ``integrated``; zero unless given.
        corners: how many free points the path has.
        beta: how much steepness counts beside length; 0 is the straight line.
        iterations: steps of the relaxation.
        rule: for each piece of the path; two Gauss–Legendre nodes unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        (2 · iterations + 1) · (corners + 1) gradients to find the path, and the rule's.

    References:
        Salek and Enguehard, arXiv 2502.12108, the version without a graph; their energy, minimised.

    Example:
        >>> import integrand as ig
        >>> ig.methods.relaxed(corners=7)
        Method(path=ElasticBand(7), rule=GaussLegendre(2))
    """
    return Method(
        baseline,
        ElasticBand(corners, beta, iterations),
        rule,
        record=record,
    )


@published(
    title="Integrated Gradients with non-uniform interpolation",
    key="bhat2023nonuniform",
    formula="(x − b) ⊙ Σ_k (t_{k+1} − t_k) ∇F(b + t(x − b)), every step with the same |ΔF|",
    cost="R·steps·n gradients + R·(pilot + 1) values",
    axioms=axioms(),
)
def nonuniform(
    baseline: StartLike = 0.0,
    steps: int = 50,
    pilot: int = 50,
    by: str = "change",
    even: float = EVEN,
    *,
    rule: Rule = Midpoint(),
    record: tuple[str, ...] = (),
) -> Method:
    """Integrated Gradients whose steps are short where F changes: a pilot of forward passes places
    them.

        A = (x − b) ⊙ Σ_k (t_{k+1} − t_k) ∇F(b + ½(t_k + t_{k+1})(x − b)),   |F(t_{k+1}) − F(t_k)| the same for all k

    What is integrated is the straight line, so all its axioms hold up to the rule; where F makes
    its decision on a short stretch far fewer steps are needed than even ones. ``integrated`` with
    its default rule does better still where gradients are smooth, and tells its error.

    Args:
        baseline: where paths start, as for ``integrated``; zero unless given.
        steps: how many steps.
        pilot: in how many even cells of the line F is looked at, to place the steps.
        by: what places the steps: "change", an equal share of Σ |ΔF| for each; "left" or
            "midpoint", lengths that bound the error of the rule of that name best.
        even: the fraction of the steps that is spread evenly, whatever F does.
        rule: for each step; at its midpoint unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        steps gradients (times the rule's nodes) and pilot + 1 forward passes per reference.

    References:
        Bhat and Raychowdhury, ISCAS 2023 (arXiv 2302.11107).

    Example:
        >>> import torch, integrand as ig
        >>> step = ig.fields.Function(lambda z: (40 * (z.sum(1) - 1.5)).sigmoid())
        >>> result = ig.methods.nonuniform(steps=20)(step, torch.ones(1, 2))
        >>> bool(result.converged.all())
        True
    """
    return Method(baseline, NonUniform(steps, pilot, by, even), rule, record=record)
