"""Straight lines from one baseline, from many, and from many that are weighed."""

from __future__ import annotations

import math
from typing import TypeGuard

from torch import Tensor

from ..baselines import Baseline, DataLike, ReferencesLike, Sample, StartLike, count_of
from ..core.features import Features
from ..errors import BaselineError, InputError
from ..integration import Method, TwoStage, UntilTolerance
from ..paths import Path, Straight
from ..rules import Adaptive, BaselineShapley, Exact, GaussLegendre, MonteCarlo, Rule
from ..weightings import Fitness
from .baseline_names import FillLike, fill_of, references_of
from .registry import axioms, published


@published(
    title="Integrated Gradients",
    key="sundararajan2017axiomatic",
    formula="(x − b) ⊙ ∫ ∇F(b + t(x − b)) dt",
    cost="as many gradients as the tolerance takes; n with a rule of n nodes",
    axioms=axioms(),
)
def integrated(
    baseline: StartLike = 0.0,
    rule: Rule = Adaptive(),
    path: Path = Straight(),
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """Integrated Gradients: A_i = (x_i − b_i) ∫₀¹ ∂_i F(b + t(x − b)) dt.

    Complete, linear, symmetric, and independent of how F is implemented.

    Args:
        baseline: where the path starts, zero unless given: a number, a name ("black", "blurred" …),
            a tensor that broadcasts to one example or is shaped like the inputs, or any baseline;
            the maps of a list of several are averaged.
        rule: how each piece of the path is integrated, any of ``ig.rules``; by default as many
            gradients as bring the map's relative error below 5 %.
        path: which way from the baseline to the input, any of ``ig.paths``; straight unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        7 gradients for nearly linear models, 20 to 50 for image classifiers; one per node for a
        rule with fixed nodes.

    References:
        Sundararajan, Taly, Yan, ICML 2017 (arXiv 1703.01365).

    Example:
        >>> import torch, integrand as ig
        >>> ig.methods.integrated(rule=ig.rules.GaussLegendre(3))
        Method(rule=GaussLegendre(3))
    """
    return Method(baseline, path, rule, record=record)


@published(
    title="Expected Gradients",
    key="erion2021improving",
    formula="E over references b and t of (x − b) ⊙ ∇F(b + t(x − b))",
    cost="draws gradients (R·n with a rule)",
    axioms=axioms(),
)
def expected(
    references: ReferencesLike,
    draws: int | None = None,
    rule: Rule | None = None,
    *,
    tol: float | None = None,
    seed: int = 0,
    record: tuple[str, ...] = (),
) -> Method | UntilTolerance:
    """Expected Gradients: A_i = E_b E_t [(x_i − b_i) ∂_i F(b + t(x − b))], b from data, t uniform
    on [0, 1].

    ``error`` of the result is a 95 % bound of the relative L2 error against the mean over all of
    ``references`` and positions, and without ``tol`` a map is ``converged`` where that and the gap
    are at most a tenth; 200 draws are seldom enough for it. With a rule it is the rule's own
    estimate.

    References of data are read as they are needed. Complete in expectation (with a rule: as
    complete as the rule). Of trees the map from every reference that is taken is exact.

    Args:
        references: a tensor (N, \\*s) or a dataset to draw from, or a list of baselines.
        draws: how many pairs of reference and position are taken, 200 unless given: references
            without replacement as long as they last, positions stratified over all draws. With
            ``tol`` the most that are taken, 2000 unless given.
        rule: with one nothing is random: every reference is integrated by it (its exact map, up to
            the rule).
        tol: take draws until the map's relative error is below it in 95 of 100 cases.
        seed: of the draws.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``, or with ``tol`` an ``UntilTolerance``; values (B, \\*s), in units of F.

    Raises:
        BaselineError: for data without references.
        InputError: for draws below 1, and for a ``tol`` beside a ``rule`` or without data to draw
            from.

    Cost:
        ``draws`` gradients, or references × nodes with a rule; one value per reference for the
        residual.

    References:
        Erion et al., Nature Machine Intelligence 2021.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Linear(torch.tensor([1.0, -2.0]))
        >>> pool = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
        >>> x = torch.tensor([[3.0, 1.0]])
        >>> ig.methods.expected(pool)(field, x).values.round(decimals=4).tolist()
        [[2.0, 0.0]]
    """
    data = references if _is_data(references) else None
    if draws is not None and not 1 <= draws < math.inf:
        raise InputError(
            f"draws is how many pairs of reference and position are taken, 1 or more, not {draws}."
        )
    if data is not None and not len(data):
        raise BaselineError("There are no references to draw from: the data is empty.")
    if tol is not None:
        if rule is not None:
            raise InputError(
                "tol= draws at random until the map is known well enough; a rule= draws nothing: give one of them."
            )
        if data is None:
            raise InputError(
                "tol= draws references from data: give a tensor or a dataset of them. A list of baselines is integrated to a "
                "tolerance by rule=ig.rules.Adaptive(tol)."
            )
        drawn = Sample(data, 2000 if draws is None else draws, seed, replace=True)
        return UntilTolerance(Method(drawn, Straight(), MonteCarlo(1, seed), record=record), tol)
    baseline: Baseline = references_of(references) if data is None else Sample(data)
    if rule is not None:
        return Method(baseline, Straight(), rule, record=record)
    draws = 200 if draws is None else draws
    size = (count_of(baseline) or 1) if data is None else len(data)
    if data is not None and draws < size:
        baseline = Sample(data, draws, seed)
    return Method(baseline, Straight(), MonteCarlo(max(1, -(-draws // size)), seed), record=record)


def _is_data(references: ReferencesLike) -> TypeGuard[Tensor | DataLike]:
    """Whether references are data to draw from, rather than a baseline or a list of them."""
    return hasattr(references, "__getitem__") and not isinstance(references, list | tuple | str)


@published(
    title="Generalized Integrated Gradients",
    key="merrill2019generalized",
    formula="D ⊙ ∫ ∇F dt between jumps + Σ_k J_k s_k,  s_k shares of what crosses at jump k",
    cost="no gradients for trees; those of the smooth parts of mixtures",
    axioms=axioms(),
)
def generalized(
    baseline: StartLike = 0.0,
    smooth: Rule = Adaptive(1e-3),
    path: Path = Straight(),
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """Generalized Integrated Gradients: for tree ensembles, and mixtures of trees and networks.

        A_i = D_i ∫ ∂_i F(b + tD) dt + Σ_k J_k s_{k,i},  D = x − b

    The integral is over the pieces between jumps; J_k is what F jumps by at the k-th threshold on
    the way, and goes to the feature that crosses it. Features that cross at one time share it by
    their Shapley values; where a threshold is one of an embedding, z_j(x) = θ, feature i has the
    share D_i ∂_i z_j / (D · ∇z_j). Exact on trees: ``error`` is zero.

    Complete, linear, symmetric, and equal to Integrated Gradients where F does not jump.

    Args:
        baseline: whatever ``integrated`` takes, zero unless given; a tensor (R, B, \\*s) or a list
            of several averages over their maps.
        smooth: the rule for what lies between the jumps of mixtures (``ig.fields.Sum``,
            ``ig.fields.Compose``); to a relative error of 0.1 % unless given.
        path: which way from the baseline to the input, any of ``ig.paths``; straight unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Raises:
        NoShare: for models whose jumps are not known, such as networks alone.

    Cost:
        A walk through each tree for each reference of each example, over the leaves that are
        reached on the way.

    References:
        Merrill, Ward, Kamkar, Budzik, Merrill, arXiv 1909.01869.

    Example:
        >>> import integrand as ig
        >>> ig.methods.generalized()
        Method(rule=Exact(Adaptive(0.001)))
    """
    return Method(baseline, path, Exact(smooth), record=record)


@published(
    title="Baseline Shapley",
    key="sundararajan2020many",
    formula="mean over orders of F(features up to i switched) − F(features before i switched)",
    cost="no gradients; permutations × (N − 1) + 2 values for each baseline",
    axioms=axioms(),
)
def baseline_shapley(
    baseline: StartLike = 0.0,
    permutations: int | None = 8,
    seed: int = 0,
    path: Path = Straight(),
    *,
    features: Features = "auto",
    record: tuple[str, ...] = (),
) -> Method:
    """Baseline Shapley: A_i = the mean over orders of what feature i adds when it is switched.

        A_i = Σ_S |S|! (N − 1 − |S|)! / N! · (F(x_{S+i}, b) − F(x_S, b))

    S is over the sets of other features, x_S, b has those of x in S and of the baseline elsewhere.

    Complete whatever the orders, because differences along each add up to the change of F; linear
    and dummy too, and symmetric on average over orders. F needs no gradient.

    Args:
        baseline: where paths start, as for ``integrated``; zero unless given.
        permutations: how many random orders are drawn for each baseline (8, as in the correlations
            of Lelièvre and Chen); None asks all coalitions of up to 16 features, which is exact.
        seed: of the orders; all examples of a batch get the same.
        path: straight unless given; features are switched along each of its pieces.
        features: what is switched at a time: pixels of images, tokens of sequences, columns of
            tables unless told otherwise (see ``ig.weightings.feature_map``).
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        No gradients: permutations × (N − 1) values for each baseline of each example, and one at
        either end; 2^N with None.

    References:
        Sundararajan, Najmi, ICML 2020 (arXiv 1908.08474). In ``ig.correlate`` it is the
        Baseline-Shapley correlation of Lelièvre, Chen, arXiv 2404.13910.

    Example:
        >>> import integrand as ig
        >>> ig.methods.baseline_shapley()
        Method(rule=BaselineShapley())
    """
    rule = BaselineShapley(permutations, seed, features)
    return Method(baseline, path, rule, record=record)


@published(
    title="Weighted Gradients",
    key="tran2025weighted",
    formula="Σ_b w_b IG_b,  w_b ∝ 1/D_b,  D_b = fewest top features that halve p(x)",
    cost="R·n gradients + R·⌈log₂ N⌉ + 2 values",
    axioms=axioms(linear=False),
)
def weighted(
    baselines: ReferencesLike,
    path: Path = Straight(),
    rule: Rule = Adaptive(),
    ratio: float = 0.5,
    fill: FillLike = "auto",
    keep: float = 0.0,
    *,
    features: Features = "auto",
    scout: Rule | int | None = None,
    record: tuple[str, ...] = (),
) -> Method | TwoStage:
    """Weighted Gradients: A = Σ_b w_b IG_b with w_b = (1/D_b) / Σ_k (1/D_k).

    D_b is the smallest number of features that baseline b ranks highest whose replacement by
    ``fill`` brings the class probability to ``ratio`` of what it was (see ``ig.weightings.Fitness``
    for scores that do not fall monotonically): the better a baseline's map, the fewer it takes.
    Weights depend on the model and the input, use no labels, and come with the result
    (``.fitness``, ``.weights``, ``.shares``, ``.reasons``).

    Complete with respect to the weighted baselines; not linear in F, because the weights are not.

    Args:
        baselines: a tensor (R, \\*s) or (R, B, \\*s), or a list of baselines and names.
        path: which way from each reference to the input, any of ``ig.paths``; straight unless
            given.
        rule: how each piece of the path is integrated, any of ``ig.rules``; by default as many
            gradients as bring the map's relative error below 5 %.
        ratio: what fraction of the class probability has to be left, 0.5 unless given.
        fill: what replaced features become. "auto": the mean colour of the four corners for
            pictures (C, H, W), as published, and the mean of the references for everything else
            (columns, tokens, series, several inputs), or where that halves the score of no baseline,
            the reference of the lowest score (``ig.weightings.Fitness`` has what counts where all of
            them are of the example's class). "corners" and "references" say so for any
            input; or "mean", "blurred", a number, a tensor, or a baseline.
        keep: drop baselines whose weight is under ``keep`` times the mean weight (the paper's
            filter is 0.25).
        features: what is replaced at a time: pixels (C, H, W), tokens (T, D), else columns; "steps"
            for time steps of series (C, L); an int for square patches; or a label map of
            superpixels.
        scout: a rule (or its number of nodes) to rank with before the fine integration: with
            ``keep``, baselines that are dropped then cost only the scout's gradients.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``, or with ``scout`` a ``TwoStage``; values (B, \\*s), in units of F. Its results
        have ``.weights`` and ``.fitness`` (R, B).

    Raises:
        InputError: for a ``scout`` without ``keep``.

    Cost:
        R × nodes gradients and about R × ⌈log₂ N⌉ forward rows, in ⌈log₂ N⌉ + 1 rounds; for up to
        128 features fewer than 2 D_b rows for baseline b.

    References:
        Tran et al., arXiv 2505.03201 (first titled "Weighted Average Gradients").

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... )
        >>> method = ig.methods.weighted(torch.randn(6, 4), keep=0.25)
        >>> x = torch.randn(5, 4)
        >>> result = ig.explain(model, x, target="predicted", method=method)
        >>> result.weights.shape, result.values.shape
        (torch.Size([6, 5]), torch.Size([5, 4]))
    """
    weighting = Fitness(fill_of(fill), ratio, keep, features)
    keeps = tuple(dict.fromkeys(("shares", *record)))
    method = Method(references_of(baselines), path, rule, weighting, keeps)
    if scout is None:
        return method
    if not keep:
        raise InputError(
            "scout= ranks baselines so that poor ones can be dropped; say which with keep= (0.25 in the paper)."
        )
    return TwoStage(method, GaussLegendre(scout) if isinstance(scout, int) else scout)
