"""Methods around a method: greedy_pig, smoothgrad, xrai, artificial_distancing.

Each takes what it wraps as ``of``: a published name, set up with ``baseline`` and ``rule``, or the
method itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from ..baselines import DataLike, Extreme, StartLike
from ..baselines.names import baseline_of
from ..core.features import Features
from ..errors import InputError
from ..integration import XRAI, ArtificialDistancing, GreedyPIG, Method, SmoothGrad, with_core
from ..integration.attribution import Explainer, ExplainerLike, as_explainer
from ..integration.wrappers.smoothgrad import Sigma
from ..rules.base import Rule, RuleLike
from .registry import about, axioms, published


def inner(of: str | ExplainerLike, baseline: StartLike | None, rule: RuleLike | None) -> Explainer:
    """The method that a wrapper is asked to wrap: a published name set up, or a method with another
    start or rule."""
    if isinstance(of, str):
        return _named(of, baseline, rule)
    if not callable(of):
        raise InputError(f"of= is a published name or a method, not {type(of).__name__}.")

    def changed(method: Explainer) -> Explainer:
        if not isinstance(method, Method):
            return method  # the wrapper says what is wrong with it
        start = method.baseline if baseline is None else baseline_of(baseline)
        return dataclasses.replace(
            method, baseline=start, rule=method.rule if rule is None else rule
        )

    return as_explainer(of) if baseline is None and rule is None else with_core(of, changed)


def _named(name: str, baseline: StartLike | None, rule: RuleLike | None) -> Explainer:
    known = about(name)
    options: dict[str, Any] = {}
    if baseline is not None:
        if known.start is None:
            raise InputError(
                f"Method {name!r} chooses for itself where it starts: leave out baseline=."
            )
        options[known.start] = baseline
    if rule is not None:
        if "rule" not in known.options:
            raise InputError(f"Method {name!r} has a rule of its own: leave out rule= and tol=.")
        options["rule"] = rule
    for wanted in known.needs:
        if wanted not in options:
            hint = "give baseline=, or" if wanted == known.start else "give"
            raise InputError(
                f"Method {name!r} needs {wanted}=: {hint} the method itself, of=ig.methods.{name}(…)."
            )
    return as_explainer(known.build(**options))


@published(
    title="Greedy PIG",
    key="axiotis2023greedy",
    formula="S ← S ∪ {z features with the largest A(x; b_S)},  b_S = x on S, b elsewhere;  values: n − position",
    cost="rounds × the method's",
    axioms=axioms(complete=False, dummy=False, linear=False, symmetric=False),
)
def greedy_pig(
    of: str | ExplainerLike = "integrated",
    chunk: int | None = None,
    rounds: int | None = None,
    features: Features = "auto",
    growth: float = 1.0,
    largest: bool = True,
    *,
    baseline: StartLike | None = None,
    rule: Rule | None = None,
) -> GreedyPIG:
    """Greedy PIG: rank features round by round, each round from where the last one revealed some.

    Values are ranks, and no parts of F(x) − F(b); a feature that F does not look at is ranked with
    those worth nothing, and of two that are alike one comes first.

    Args:
        of: what explains each round: a published name, started from ``baseline`` and integrated by
            ``rule``, or a method of your own; ``integrated`` unless given.
        chunk: how many features the first round takes; without it as many as make up ``rounds``.
        rounds: at most so many (10, where there is no chunk); the last one takes all that is left.
        features: what is revealed at a time: pixels of images, tokens of sequences, columns of
            tables unless told otherwise; an int for square patches, or a label map.
        growth: each round takes so many times as many features as the one before.
        largest: the largest first; False: the smallest, those that speak most against.
        baseline: where a method that is named starts, as for ``integrated``; its own start unless
            given.
        rule: how a method that is named integrates; its own rule unless given.

    Returns:
        An ``ig.GreedyPIG``: values (B, \\*s) are ranks, n for the first of n features and 1 for the
        last.

    Cost:
        rounds (10) × the method's.

    References:
        Axiotis et al., arXiv 2311.06192 (no code was published; the paper's z is not known here).

    Example:
        >>> import integrand as ig
        >>> ig.methods.greedy_pig(chunk=2, baseline="black")
        GreedyPIG(Method(Colour(label='black')), 2)
    """
    return GreedyPIG(inner(of, baseline, rule), chunk, rounds, features, growth, largest)


@published(
    title="SmoothGrad",
    key="smilkov2017smoothgrad",
    formula="mean_d A(x + ε_d),  ε_d ~ N(0, σ²)",
    cost="draws × the method's + 1 value",
    axioms=axioms(complete=False, symmetric=False, inside=False),
)
def smoothgrad(
    of: str | ExplainerLike = "integrated",
    draws: int = 25,
    sigma: Sigma = 0.15,
    seed: int = 0,
    reduce: str = "mean",
    *,
    baseline: StartLike | None = None,
    rule: Rule | None = None,
) -> SmoothGrad:
    """SmoothGrad of any method: A = mean_d A(x + ε_d), ε_d ~ N(0, σ²), σ 0.15 of each example's
    range.

    The map adds up to mean_d F(x + ε_d) − F(b); noise treats features that are alike differently,
    so they get the same only in the mean over many draws. Linearity and dummy are those of
    integrated gradients.

    Args:
        of: what explains each noisy copy: a published name, started from ``baseline`` and
            integrated by ``rule``, or a method of your own; ``integrated`` unless given.
        draws: how many noisy copies.
        sigma: the standard deviation of the noise, relative to the range of each example (0.15); or
            a tensor that broadcasts to one: in units of the input.
        seed: of the noise; all examples of a batch get the same, scaled to their range.
        reduce: "mean"; "square", the mean of squared maps; or "variance" of them.
        baseline: where a method that is named starts, as for ``integrated``; its own start unless
            given.
        rule: how a method that is named integrates; its own rule unless given.

    Returns:
        An ``ig.SmoothGrad`` with values (B, \\*s), in units of F (squared, unless the mean is
        taken).

    Cost:
        draws × the method's.

    References:
        Smilkov et al., arXiv 1706.03825.

    Example:
        >>> import integrand as ig
        >>> ig.methods.smoothgrad(draws=10, baseline="black")
        SmoothGrad(Method(Colour(label='black')), 10)
    """
    return SmoothGrad(inner(of, baseline, rule), draws, sigma, seed, reduce)


@published(
    title="XRAI",
    key="kapishnikov2019xrai",
    formula="segments by falling mean over their new pixels of max_c A(x)_c",
    cost="the method's + a segmentation of each image",
    axioms=axioms(complete=False, dummy=False, linear=False, symmetric=False),
)
def xrai(
    of: str | ExplainerLike = "integrated",
    scales: tuple[float, ...] = (50.0, 100.0, 150.0, 250.0, 500.0, 1200.0),
    dilation: int = 5,
    least: int = 50,
    channels: str = "max",
    segments: Tensor | Callable[[Tensor], Tensor] | None = None,
    *,
    baseline: StartLike | None = None,
    rule: Rule | None = None,
) -> XRAI:
    """XRAI: the regions of an image, ranked by the mean of a map over them.

    Needs integrand[images] (scikit-image). ``ig.XRAI`` says more.

    Args:
        of: the method whose map is averaged: a published name or a method of your own;
            ``integrated`` unless given.
        scales: of Felzenszwalb's segmentation, larger for larger segments.
        dilation: every segment is grown by so many pixels, so that edges fall inside.
        least: a segment that would add fewer pixels than this is left out.
        channels: how channels make one number for a pixel: "max" as published, or "sum", which adds
            up to what the method's map does.
        segments: label maps (S, H, W) of one's own, or a function: image (C, H, W) in [0, 1] →
            label maps; Felzenszwalb's unless given.
        baseline: where a method that is named starts; by default from the image's own smallest and
            its largest number everywhere (XRAI's black and white).
        rule: how a method that is named integrates: 100 steps in the published code, to a tolerance
            here.

    Returns:
        An ``ig.XRAI`` with values (B, C, H, W): the mean of each pixel's region, shared by the
        channels.

    Cost:
        the method's, and about a second per image.

    References:
        Kapishnikov et al., ICCV 2019 (arXiv 1906.02825).

    Example:
        >>> import integrand as ig
        >>> ig.methods.xrai(rule=ig.rules.Midpoint(100))
        XRAI(Method(Union((Extreme(), Extreme(True))), rule=Midpoint(100)))
    """
    if baseline is None and isinstance(of, str) and about(of).start == "baseline":
        baseline = [Extreme(), Extreme(largest=True)]
    return XRAI(inner(of, baseline, rule), scales, dilation, least, channels, segments)


@published(
    title="Gradient Artificial Distancing",
    key="mazinirodrigues2024transforming",
    formula="A_f(x) ⊙ [among the first of |A_f| and of every |A_{f_t}|],  f_t ≈ f ± τ_t u on two classes",
    cost="(1 + T) × the method's + T trainings",
    axioms=axioms(
        complete=False, dummy=False, linear=False, symmetric=False, implementation_invariant=False
    ),
)
def artificial_distancing(
    data: Tensor | DataLike | DataLoader[Any],
    classes: tuple[int, int],
    of: str | ExplainerLike = "integrated",
    labels: Tensor | None = None,
    distances: tuple[float, ...] = (0.5, 1.0, 1.5),
    epochs: int = 20,
    rate: float = 1e-3,
    batch: int = 16,
    held: float = 0.2,
    fit: float = 0.8,
    keep: float = 0.25,
    features: Features = "auto",
    seed: int = 0,
    *,
    baseline: StartLike | None = None,
    rule: Rule | None = None,
) -> ArtificialDistancing:
    """GAD (experimental): what persists of a map as two classes are pushed apart.

    Copies of the model are trained on ``data`` to say what it says with the two ``classes`` further
    apart, and only features that are important to all of them keep what the method gives them.
    ``ig.ArtificialDistancing`` says what of this is the paper's and what is our reconstruction of
    it.

    Args:
        data: examples of both classes: a tensor (N, \\*s), a dataset, or a DataLoader, of examples
            or of (example, label) pairs; all of it is held in memory.
        classes: (A, B), the two outputs that are compared; examples of other classes are left out.
        of: what explains the model and its copies: a published name, started from ``baseline`` and
            integrated by ``rule``, or a method of your own; ``integrated`` unless given.
        labels: (N,) the examples' classes, where the data brings none; else the model's own guess
            among the two.
        distances: how much further apart the classes are pushed, in units of their gap; one copy
            for each.
        epochs: of training each copy, by Adam.
        rate: the learning rate.
        batch: rows of a minibatch.
        held: the fraction of each class that is held out, to see whether a copy has learnt.
        fit: an R² on what was held out below this is warned of.
        keep: the part of features that counts as important.
        features: what a feature is: pixels of images, tokens of sequences, columns of tables unless
            told otherwise.
        seed: of the split and of the minibatches.
        baseline: where a method that is named starts, as for ``integrated``; its own start unless
            given.
        rule: how a method that is named integrates; its own rule unless given.

    Returns:
        An ``ig.ArtificialDistancing`` with values (B, \\*s), in units of F, zero for features that
        did not persist.

    Cost:
        (1 + T) × the method's, and T trainings of epochs × 0.8 N rows.

    References:
        Mazini Rodrigues, Boutry, Najman, arXiv 2401.14434.

    Example:
        >>> import torch, integrand as ig
        >>> data, labels = torch.randn(40, 4), torch.arange(40) % 2
        >>> ig.methods.artificial_distancing(data, (0, 1), labels=labels, keep=0.5)
        ArtificialDistancing(Method(), tensor<40x4>, (0, 1), tensor<40>, keep=0.5)
    """
    method = inner(of, baseline, rule)
    return ArtificialDistancing(
        method,
        data,
        classes,
        labels,
        distances,
        epochs,
        rate,
        batch,
        held,
        fit,
        keep,
        features,
        seed,
    )
