"""Paths that choose at every step which coordinates move: guided, samp."""

from __future__ import annotations

from collections.abc import Callable

from ..baselines import StartLike
from ..core.options import check_choice
from ..integration import Method
from ..paths import SAMP, Composed, Guided, Path, Reversed
from ..rules import Left, Right, Rule, Trapezoid
from .registry import axioms, published


@published(
    title="Guided Integrated Gradients",
    key="kapishnikov2021guided",
    formula="∫ ∇F ⊙ dγ, the coordinates with the smallest |∂_i F| moving first, at most δ off the straight line",
    cost="steps + 1 gradients, one after the other (+ steps × nodes inside the steps)",
    axioms=axioms(linear=False),
)
def guided(
    baseline: StartLike = 0.0,
    steps: int = 200,
    fraction: float = 0.25,
    stray: float | None = None,
    anchors: int = 0,
    *,
    rule: Rule = Trapezoid(),
    record: tuple[str, ...] = (),
) -> Method:
    """Guided IG: gradients along the path that moves the coordinates with the smallest |∂_i F|
    first.

        A = Σ_k ½(∇F(p_k) + ∇F(p_{k+1})) ⊙ (p_{k+1} − p_k),    ‖x − p_k‖₁ = (1 − k/K) ‖x − b‖₁

    The path is chaotic: a difference in the last place of one gradient can decide which coordinate
    moves, and the paths part. Maps of a deep float32 network are therefore repeatable only where
    its gradients are, to the bit; between devices they may differ by half their norm. Explain a
    float64 copy of the model where that matters.

    Complete up to the rule, symmetric (ties move together), monotone and inside the box; not linear
    in F.

    Args:
        baseline: as for ``integrated``; the path is walked from every reference.
        steps: gradients; each step covers as much of the L1 distance to the input (200 in the
            published code, 25 to 50 in its examples).
        fraction: of all coordinates, how many move at a time (0.25 in the published code).
        stray: δ, how far a coordinate may be ahead of the straight line or behind it, as a fraction
            of its way; by default 0.02 as in the published code, or 1 (no bound) where there are
            anchors.
        anchors: points of the straight line that the path passes through, as the paper bounds it
            (20 there).
        rule: ``Trapezoid()`` uses the gradients at both ends of each step, all of them paid for by
            the walk but the last. ``ig.rules.Left()``, the gradient at the start of each step, is
            the published method; on photographs its maps missed as much as 380 % of the change
            (docs/design/0006-guided-rule.md). ``Simpson()`` adds one gradient inside each step,
            ``GaussLegendre(2)`` two, ``Adaptive(tol)`` as many as the tolerance takes. The path is
            the same for all of them.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        ``steps`` + 1 gradients per reference, one after the other, all references and examples in
        one batch.

    References:
        Kapishnikov et al., CVPR 2021 (arXiv 2106.09788), and the code of PAIR-code/saliency.

    Example:
        >>> import torch, integrand as ig
        >>> F = ig.fields.Function(lambda z: (2 * z[:, 0] + z[:, 1]) ** 2)
        >>> method = ig.methods.guided(steps=200, fraction=0.1, stray=1.0)
        >>> method(F, torch.full((1, 2), 3.0)).values.round(decimals=1)
        tensor([[71.8000,  9.2000]])
    """
    if stray is None:
        stray = 1.0 if anchors else Guided().stray
    path: Path = Guided(steps, fraction, stray)
    if anchors:
        path = Composed(path, anchors)
    return Method(baseline, path, rule, record=record)


@published(
    title="Salient Manipulation Paths",
    key="zhang2024path",
    formula="Σ_k ∇F(p_k) ⊙ (p_{k+1} − p_k), the coordinates with the largest ∂_i F · (x − p)_i moving first",
    cost="steps gradients, one after the other (+ steps × nodes inside the steps)",
    axioms=axioms(linear=False),
)
def samp(
    baseline: StartLike = 0.0,
    steps: int = 200,
    fraction: float = 0.005,
    *,
    walk: str = "insertion",
    rule: Rule | None = None,
    record: tuple[str, ...] = (),
) -> Method:
    """SAMP: gradients along the path that moves the coordinates first which change F most, so that
    few features explain it.

        insertion  from the baseline to the input, the largest ∂_i F(p) (x_i − p_i) first: what
                   raises F most is put in
        deletion   from the input to the baseline, the smallest ∂_i F(p) (b_i − p_i) first: what
                   lowers F most is taken away

    The greedy opposite of ``guided``, and as sensitive to noise: a contrast to it more than a
    recommendation. Momentum (SAMP++) is left out, for want of its definition; see ``ig.paths.SAMP``
    for what else differs.

    Complete up to the rule, symmetric, monotone and inside the box; not linear in F.

    Args:
        baseline: as for ``integrated``; the paper inserts from a blurred image and deletes towards
            black, and adds the two maps.
        steps: gradients; each step covers as much of the L1 distance.
        fraction: of all coordinates, how many move at a time.
        walk: "insertion" or "deletion"; either map explains F(x) − F(b).
        rule: the gradient at the start of each step in the direction of the walk, as published; or
            any other, on the same path.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        ``steps`` gradients per reference, one after the other.

    References:
        Zhang, Zheng, Zhou, Lu, "Path Choice Matters for Clear Attribution in Path Methods", ICLR
        2024 (arXiv 2401.10442).

    Example:
        >>> import torch, integrand as ig
        >>> F = ig.fields.Function(lambda z: (2 * z[:, 0] + z[:, 1]) ** 2)
        >>> method = ig.methods.samp(steps=200, fraction=0.1)
        >>> method(F, torch.full((1, 2), 3.0)).values.round(decimals=1)
        tensor([[44.6000, 35.9000]])
    """
    check_choice("walk", walk, _WALKS)
    path, published_rule = _WALKS[walk](steps, fraction)
    return Method(baseline, path, rule or published_rule, record=record)


_WALKS: dict[str, Callable[[int, float], tuple[Path, Rule]]] = {
    "insertion": lambda steps, fraction: (SAMP(steps, fraction), Left()),
    "deletion": lambda steps, fraction: (Reversed(SAMP(steps, fraction, "lowest")), Right()),
}
"""Each with the rule that takes the gradient where a step of the walk begins."""
