"""Other ways to give credit along a path: idgi, decision, path_weighted, path_sampled, left."""

from __future__ import annotations

from ..baselines import StartLike
from ..integration import Method
from ..paths import Path, Straight
from ..rules import (
    IDGI,
    Adaptive,
    GaussLegendre,
    IntegratedDecisionGradients,
    PathWeighted,
    Rule,
    Saturation,
    SaturationCutoff,
    Trapezoid,
)
from ..rules.path_weights import PathWeightLike, Power
from .registry import axioms, published


@published(
    title="Important Direction Gradient Integration",
    key="yang2023idgi",
    formula="Σ_k g_k² / ‖g_k‖² · (F(p_{k+1}) − F(p_k)),  g_k = ∇F(p_k)",
    cost="R·steps gradients + R values",
    axioms=axioms(linear=False),
)
def idgi(
    baseline: StartLike = 0.0,
    steps: int = 50,
    path: Path = Straight(),
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """IDGI: A_i = Σ_k g_i(p_k)² / ‖g(p_k)‖² · (F(p_{k+1}) − F(p_k)), points p_k on the path.

    Every step's change of F is shared out along the gradient, so that the part of the step across
    it counts for nothing.

    Complete by telescoping, whatever ``steps``; not linear in F. A step at which the gradient is
    exactly zero gives no credit, and its change stays in the residual.

    Args:
        baseline: where paths start, as for ``integrated``; zero unless given.
        steps: how many pieces each segment of ``path`` is cut into; with paths that are cut already
            (``ig.paths.Descent``) give 1.
        path: which way from the baseline to the input, any of ``ig.paths``; straight unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        ``steps`` gradients, with which F comes free, and one value; on a path whose ends are paid
        for, less.

    References:
        Yang, Wang, Bilgic, CVPR 2023 (arXiv 2303.14242).

    Example:
        >>> import integrand as ig
        >>> ig.methods.idgi()
        Method(rule=IDGI(50))
    """
    return Method(baseline, path, IDGI(steps), record=record)


@published(
    title="Integrated Decision Gradients",
    key="walker2024integrated",
    formula="(x − b) ⊙ ∫ ∇F(γ(α)) φ'(α) dα,  γ(α) = b + α(x − b),  φ = F ∘ γ",
    cost="R·steps gradients + R·(pilot + 1) values",
    axioms=axioms(complete=False, linear=False),
)
def decision(
    baseline: StartLike = 0.0,
    steps: int = 50,
    pilot: int = 50,
    path: Path = Straight(),
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """Integrated Decision Gradients: A_i = (x_i − b_i) ∫₀¹ ∂_i F(γ(α)) φ'(α) dα, φ(α) = F(γ(α)).

    Gradients count where the model decides, that is, where F changes along the path; those of flat
    stretches count for little. ``steps`` gradients are taken where a look at F alone in ``pilot``
    cells says that it changes.

    Not complete: the map adds up to ∫ φ'² dα ≥ (F(x) − F(b))², in squared units of F, and the
    residual holds the difference. It is quadratic in F: the map of 2F is four times as large and
    that of −F the same. ``rule=ig.rules.Rescaled(ig.rules.IntegratedDecisionGradients())`` in an
    ``ig.Method`` is the cousin that adds up.

    Args:
        baseline: where paths start, as for ``integrated``; zero unless given.
        steps: how many gradients are taken.
        pilot: in how many even cells of the path F alone is looked at, to find where it changes.
        path: which way from the baseline to the input, any of ``ig.paths``; straight unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method`` with values (B, \\*s), in squared units of F.

    Cost:
        ``steps`` gradients and ``pilot`` + 1 values.

    References:
        Walker et al., AAAI 2024 (arXiv 2305.20052); the authors' sampler, which can miss the
        decision, is not reproduced (see ``ig.rules.IntegratedDecisionGradients``).

    Example:
        >>> import integrand as ig
        >>> ig.methods.decision(pilot=20)
        Method(rule=IntegratedDecisionGradients(pilot=20))
    """
    return Method(
        baseline,
        path,
        IntegratedDecisionGradients(steps, pilot),
        record=record,
    )


@published(
    title="Path-Weighted Integrated Gradients",
    key="kamalov2025pathweighted",
    formula="(x − b) ⊙ ∫ w(α) ∇F(b + α(x − b)) dα,  ∫ w = 1",
    cost="R·(steps + 1) gradients + R values",
    axioms=axioms(complete=False),
)
def path_weighted(
    baseline: StartLike = 0.0,
    weight: str | PathWeightLike = "exponential",
    steps: int = 50,
    path: Path = Straight(),
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """Path-Weighted Integrated Gradients: A_i = (x_i − b_i) ∫₀¹ w(α) ∂_i F(b + α(x − b)) dα with ∫
    w = 1.

    Adds up to ∫ w φ' dα, φ(α) = F(b + α(x − b)), not to F(x) − F(b) unless w is constant; the
    residual holds the difference.

    Args:
        baseline: where paths start, as for ``integrated``; zero unless given.
        weight: "sqrt" √α, "linear_late" α, "quadratic_late" α², "linear_early" 1 − α,
            "quadratic_early" (1 − α)², "logarithmic" log(1 + α), "exponential" exp(α − 1), "beta22"
            6α(1 − α), a part of ``ig.rules.path_weights``, or any callable of α; normalised for
            you.
        steps: gradients are taken at the ends of so many even steps (the trapezoid rule);
            ``ig.rules.PathWeighted`` takes any fixed nodes.
        path: which way from the baseline to the input, any of ``ig.paths``; straight unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Raises:
        InputError: for the published weight 1/α ("inverse"), which has no integral.

    Cost:
        ``steps`` + 1 gradients.

    References:
        Kamalov, Al Falasi, Thabtah, arXiv 2509.17491. Their code pairs the mean gradient of a cell
        with the weight at its right end; here both are taken at the same nodes, and the two
        converge to the same integral (see ``ig.rules.PathWeighted``).

    Example:
        >>> import integrand as ig
        >>> ig.methods.path_weighted(weight="beta22")
        Method(rule=PathWeighted('beta22', Trapezoid(50)))
    """
    return Method(
        baseline,
        path,
        PathWeighted(weight, Trapezoid(steps)),
        record=record,
    )


@published(
    title="Path-Sampled Integrated Gradients",
    key="kamalov2026pathsampled",
    formula="E_t [(x − γ(t)) ⊙ ∫ ∇F(γ(t) + s(x − γ(t))) ds] = (x − b) ⊙ ∫ P(t ≤ α) ∇F(γ(α)) dα",
    cost="R·steps gradients + R values",
    axioms=axioms(complete=False),
)
def path_sampled(
    baseline: StartLike = 0.0,
    distribution: str | PathWeightLike = Power(1.0),
    steps: int = 50,
    path: Path = Straight(),
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """Path-Sampled Integrated Gradients: the mean of the maps from baselines γ(t) on the path
    itself, t drawn at random.

        A = E_t [IG from γ(t)] = (x − b) ⊙ ∫₀¹ P(t ≤ α) ∇F(γ(α)) dα

    Nothing is drawn: the expectation is a path weight, the distribution function of t, and one
    integral gives it.

    Adds up to F(x) − E_t F(γ(t)), not to F(x) − F(b); the residual holds E_t F(γ(t)) − F(b).

    Args:
        baseline: where paths start, as for ``integrated``; zero unless given.
        distribution: P(t ≤ α), a name or a callable as for ``path_weighted`` that rises from 0 to
            1; by default t is uniform on [0, 1] and the weight is α.
        steps: how many Gauss–Legendre nodes.
        path: which way from the baseline to the input, any of ``ig.paths``; straight unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        ``steps`` gradients, at Gauss–Legendre nodes.

    References:
        Kamalov, Thabtah, Sivaraj, Abdelhamid, arXiv 2604.14338.

    Example:
        >>> import integrand as ig
        >>> ig.methods.path_sampled()
        Method(rule=PathWeighted(Power(), mass=None))
    """
    return Method(
        baseline,
        path,
        PathWeighted(distribution, GaussLegendre(steps), mass=None),
        record=record,
    )


@published(
    title="Left Integrated Gradients",
    key="miglani2020investigating",
    formula="(x − b) ⊙ ∫₀^α* ∇F(γ(α)) dα,  α*: where F first reaches a fraction of its maximum on the line",
    cost="as many gradients as the tolerance takes, n with a rule of n nodes; R·(pilot + 1) values",
    axioms=axioms(complete=False, linear=False),
)
def left(
    baseline: StartLike = 0.0,
    fraction: float = 0.9,
    above: float | None = 0.0,
    pilot: int = 50,
    rule: Rule = Adaptive(),
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """Left-IG: A_i = (x_i − b_i) ∫₀^{α*} ∂_i F(γ(α)) dα, without the part of the line on which F is
    saturated.

        α* = min {α : F(γ(α)) ≥ above + fraction · (max F − above)}

    Adds up to F(γ(α*)) − F(b); the residual is what F changes by after that. For a limit of your
    own see ``ig.rules.SaturationCutoff``.

    Args:
        baseline: where paths start, as for ``integrated``; zero unless given.
        fraction: of the way from ``above`` to the maximum of F on the line, where it counts as
            saturated.
        above: the level F is counted from: 0 as published, which suits probabilities; None for
            F(b), which suits logits and log-probabilities. Where F never rises above it the whole
            line is taken.
        pilot: how many even cells of the line F is looked at in to find α*.
        rule: how each piece of the path is integrated, any of ``ig.rules``; by default as many
            gradients as bring the map's relative error below 5 %.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        the gradients of ``integrated``, and ``pilot`` + 1 values.

    References:
        Miglani et al., arXiv 2010.12697.

    Example:
        >>> import integrand as ig
        >>> ig.methods.left(fraction=0.8)
        Method(rule=SaturationCutoff(Saturation(0.8)))
    """
    return Method(
        baseline,
        Straight(),
        SaturationCutoff(Saturation(fraction, above, pilot), rule),
        record=record,
    )
