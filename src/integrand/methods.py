"""Published methods by their names: each is a composition of parts, and nothing else.

``published`` keeps beside every name what a user must know to choose it: the source, the formula, what it costs and which axioms
it satisfies. The command line's ``integrand methods`` and the documentation print that table; tests check what it claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from .baseline import (
    Baseline,
    Blurred,
    Constant,
    Corners,
    Given,
    Mean,
    Median,
    Sample,
    Uniform,
    as_baseline,
    black,
    count_of,
    grey,
    white,
)
from .cite import bibtex
from .errors import InputError, UnknownName
from .field.network import Site
from .layered import Layered
from .method import Method, Sampled, Staged
from .path import Descent, Path, Relative, Straight
from .rule import Adaptive, GaussLegendre, Midpoint, MonteCarlo, Right, Rule, Simpson
from .weighting import Fitness

F = TypeVar("F", bound=Callable[..., Any])

BASELINES: dict[str, Callable[[], Baseline]] = {
    "zero": Constant,
    "black": black,
    "white": white,
    "grey": grey,
    "gray": grey,
    "noise": Uniform,
    "blurred": Blurred,
    "blur": Blurred,
    "mean": Mean,
    "median": Median,
    "corners": Corners,
}
"""Baselines that go by a name alone."""


@dataclass(frozen=True)
class Published:
    """What is known about a method that goes by a name."""

    name: str
    build: Callable[..., Any]
    title: str
    key: str
    formula: str
    cost: str
    axioms: dict[str, bool]

    @property
    def citation(self) -> str:
        """BibTeX."""
        return bibtex(self.key)


_PUBLISHED: dict[str, Published] = {}


def published(*, title: str, key: str, formula: str, cost: str, axioms: dict[str, bool]) -> Callable[[F], F]:
    """Register the decorated factory under its own name."""

    def register(build: F) -> F:
        _PUBLISHED[build.__name__] = Published(build.__name__, build, title, key, formula, cost, axioms)
        return build

    return register


def known() -> dict[str, Published]:
    """Every published method by name."""
    return dict(_PUBLISHED)


def about(name: str) -> Published:
    """What is known about the method called ``name``. Errors: ``UnknownName`` with the nearest names."""
    if name not in _PUBLISHED:
        raise UnknownName("method", name, _PUBLISHED)
    return _PUBLISHED[name]


def _axioms(
    *,
    complete: bool = True,
    dummy: bool = True,
    linear: bool = True,
    symmetric: bool = True,
    implementation_invariant: bool = True,
) -> dict[str, bool]:
    return {
        "complete": complete,
        "dummy": dummy,
        "linear": linear,
        "symmetric": symmetric,
        "implementation-invariant": implementation_invariant,
    }


def _references(value: Any) -> Baseline:
    """References as people give them: a tensor (R, \\*s) or (R, B, \\*s), a list of baselines and names, or a baseline."""
    return Given(value) if isinstance(value, Tensor) else as_baseline(value, BASELINES)


@published(
    title="Integrated Gradients",
    key="sundararajan2017axiomatic",
    formula="(x − b) ⊙ ∫ ∇F(b + t(x − b)) dt",
    cost="as many gradients as the tolerance takes; n with a rule of n nodes",
    axioms=_axioms(),
)
def integrated(
    baseline: Any = 0.0,
    rule: Rule = Adaptive(),
    path: Path = Straight(),
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """Integrated Gradients: A_i = (x_i − b_i) ∫₀¹ ∂_i F(b + t(x − b)) dt.

    ``baseline``: a number, a name ("black", "blurred" …), a tensor that broadcasts to one example or is shaped like the inputs,
    or any baseline; a list of them averages over their maps. ``rule``: by default as many gradients as bring the map's relative
    error below 5 %.

    Cost: 5 gradients for nearly linear models, 20 to 50 for image classifiers; one per node for a rule with fixed nodes. Complete, linear, symmetric, and independent of how F is implemented.
    Source: Sundararajan, Taly, Yan, ICML 2017 (arXiv 1703.01365).

    >>> import torch, integrand as ig
    >>> ig.methods.integrated(rule=ig.rules.GaussLegendre(3))
    Method(rule=GaussLegendre(3))
    """
    return Method(as_baseline(baseline, BASELINES), path, rule, record=record)


@published(
    title="Expected Gradients",
    key="erion2021improving",
    formula="E over references b and t of (x − b) ⊙ ∇F(b + t(x − b))",
    cost="draws gradients (R·n with a rule)",
    axioms=_axioms(),
)
def expected(
    references: Any,
    draws: int | None = None,
    rule: Rule | None = None,
    *,
    tol: float | None = None,
    seed: int = 0,
    record: tuple[str, ...] = (),
) -> Method | Sampled:
    """Expected Gradients: A_i = E_b E_t [(x_i − b_i) ∂_i F(b + t(x − b))], b from data, t uniform on [0, 1].

    ``references``: a tensor (N, \\*s) or a dataset to draw from, or a list of baselines. ``draws`` (200) pairs of reference and
    position are taken: references without replacement as long as they last, positions stratified over all draws. With a ``rule``
    nothing is random: every reference is integrated by it (its exact map, up to the rule). With ``tol`` draws are taken until the
    standard error of the map, relative to it, is below ``tol``, but at most ``draws`` (2000) of them.

    Cost: ``draws`` gradients, or references × nodes with a rule; one value per reference for the residual. Complete in
    expectation (with a rule: as complete as the rule). Source: Erion et al., Nature Machine Intelligence 2021.
    """
    pool = hasattr(references, "__getitem__") and not isinstance(references, list | tuple | str)
    if tol is not None:
        if rule is not None:
            raise InputError(
                "tol= draws at random until the map is known well enough; a rule= draws nothing: give one of them."
            )
        if not pool:
            raise InputError(
                "tol= draws references from data: give a tensor or a dataset of them. A list of baselines is integrated to a "
                "tolerance by rule=ig.rules.Adaptive(tol)."
            )
        drawn = Sample(references, draws or 2000, seed, replace=True)
        return Sampled(Method(drawn, Straight(), MonteCarlo(1, seed), record=record), tol)
    size = len(references) if pool else count_of(_references(references)) or 1
    if rule is not None:
        made: Baseline = Sample(references) if pool else _references(references)
        return Method(made, Straight(), rule, record=record)
    draws = draws or 200
    if pool:
        made = Sample(references, draws, seed) if draws < size else Sample(references)
    else:
        made = _references(references)
    return Method(made, Straight(), MonteCarlo(max(1, -(-draws // size)), seed), record=record)


@published(
    title="Weighted Gradients",
    key="tran2025weighted",
    formula="Σ_b w_b IG_b,  w_b ∝ 1/D_b,  D_b = fewest top features that halve p(x)",
    cost="R·n gradients + R·⌈log₂ N⌉ + 2 values",
    axioms=_axioms(linear=False),
)
def weighted(
    baselines: Any,
    path: Path = Straight(),
    rule: Rule = Adaptive(),
    ratio: float = 0.5,
    fill: Any = "corners",
    keep: float = 0.0,
    *,
    features: str | Tensor = "auto",
    scout: Rule | int | None = None,
    record: tuple[str, ...] = (),
) -> Method | Staged:
    """Weighted Gradients: A = Σ_b w_b IG_b with w_b = (1/D_b) / Σ_k (1/D_k).

    D_b is the smallest number of features that baseline b ranks highest whose replacement by ``fill`` brings the class
    probability to ``ratio`` of what it was: the better a baseline's map, the fewer it takes. Weights depend on the model and the
    input, use no labels, and come with the result (``.fitness``, ``.weights``, ``.shares``, ``.reasons``).

    baselines  a tensor (R, \\*s) or (R, B, \\*s), or a list of baselines and names
    fill       "corners" (the mean colour of the four corners), "mean", "blurred", a number, a tensor, or a baseline
    keep       drop baselines whose weight is under ``keep`` times the mean weight (the paper's filter is 0.25)
    features   what is replaced at a time: pixels for images, else tokens or columns; or a label map of superpixels
    scout      a rule (or its number of nodes) to rank with before the fine integration: with ``keep``, baselines that are
               dropped then cost only the scout's gradients

    Cost: R × nodes gradients and about R × ⌈log₂ N⌉ forward rows, in ⌈log₂ N⌉ + 1 rounds. Complete with respect to the weighted
    baselines; not linear in F, because the weights are not. Source: Tran et al., arXiv 2505.03201 (first titled
    "Weighted Average Gradients").
    """
    weighting = Fitness(as_baseline(fill, BASELINES), ratio, keep, features)
    keeps = tuple(dict.fromkeys(("shares", *record)))
    method = Method(_references(baselines), path, rule, weighting, keeps)
    if scout is None:
        return method
    if not keep:
        raise InputError(
            "scout= ranks baselines so that poor ones can be dropped; say which with keep= (0.25 in the paper)."
        )
    return Staged(method, GaussLegendre(scout) if isinstance(scout, int) else scout)


@published(
    title="IG2",
    key="zhuo2024ig2",
    formula="∫ ∇F ⊙ dγ along GradPath, from the counterfactual nearest to the reference in representation to x",
    cost="R·(steps + 1) joint gradients + R·steps·nodes",
    axioms=_axioms(linear=False, implementation_invariant=False),
)
def ig2(
    references: Any,
    representation: Any = None,
    steps: int = 50,
    rate: float | Relative | None = None,
    clip: tuple[float, float] | None = None,
    *,
    norm: str = "l2",
    shrink: bool | None = None,
    rule: Rule | None = None,
    record: tuple[str, ...] = (),
) -> Method:
    """IG2: gradients integrated along the descent of the representation distance, A = mean_r ∫ ∇F(γ_r) ⊙ dγ_r.

        z_0 = x,   z_{j+1} = clip(z_j − rate · ∇d / ‖∇d‖),   d(z) = ‖φ(z) − φ(reference)‖²

    The end of the walk is a counterfactual, and the baseline: ``.baselines`` holds it, ``.notes["distance"]`` the way there.

    references      a tensor (R, \\*s) or (R, B, \\*s), ``ig.baselines.OtherClass(pool)``, ``Relevant(pool)``, or any baseline
    representation  a layer's name or module (its output), a function of the input, or the input of the last linear layer
    rate            a number is the published method as published: steps of exactly that length, the gradient at the explicand's
                    end of each (``Right()``). Left out, the length is ``Relative(0.002)`` of the data range, a step that does not
                    come nearer is taken back and halved, and each step is integrated by ``Simpson(2)``, which uses the gradients at
                    both ends that the walk has paid for
    norm, clip      see ``ig.paths.Descent``;  shrink, rule: choose either yourself

    On networks with kinks a map of the published rule can add up to several times the change it should explain (the result's
    ``residual`` says so and a warning is given); nodes inside the steps close that gap. See docs/how-to-choose.md.

    Cost: steps + 1 evaluations per reference (one forward and two backward passes each), plus steps × nodes gradients for rules
    with nodes inside the steps. Source: Zhuo and Ge, TPAMI 2024 (arXiv 2406.10852).
    """
    as_published = rate is not None and not isinstance(rate, Relative)
    if shrink is None:
        shrink = not as_published
    if rule is None:
        rule = Right() if as_published else Simpson(2)
    path = Descent(representation, steps, Relative() if rate is None else rate, clip, norm, shrink)
    return Method(_references(references), path, rule, record=record)


@published(
    title="Layer Integrated Gradients",
    key="sundararajan2017axiomatic",
    formula="(h(x) − h(b)) ⊙ ∫ ∂F/∂h (h(b) + t(h(x) − h(b))) dt,  h: what is at the layer",
    cost="as integrated, of the layers behind the site only + 1 value",
    axioms=_axioms(complete=False, implementation_invariant=False),
)
def layer(
    site: str | nn.Module | Site,
    baseline: Any = 0.0,
    rule: Rule = Adaptive(),
    *,
    side: str = "output",
    record: tuple[str, ...] = (),
) -> Layered:
    """Integrated Gradients at a layer: A_j = (h_j(x) − h_j(b)) ∫₀¹ ∂F/∂h_j dt, straight from h(b) to h(x).

    Values have the layer's shape (B, \\*L). ``baseline`` is one of the inputs, as in ``integrated``, and is taken to the layer by the
    model; what passes the layer by stays as it is for x. Token ids are explained at their embedding: ``site="embeddings"`` with
    ids as inputs and as baseline.

    site  a layer's name, the module, or an ``ig.fields.Site``;  side  its "output", or its "input"

    Cost: the gradients of ``integrated``, but of the layers behind the site only, and one forward pass of the whole model for x and
    for each baseline.
    Adds up to F(x) − F(b) where nothing passes the layer by; else the residual holds what did. Errors: ``UnknownName`` for the
    layer, ``ModelError`` for layers that do not run, run several times, or give no tensor with one entry per row.
    Source: Sundararajan, Taly, Yan, ICML 2017 (arXiv 1703.01365), their integral taken in a layer's space, as they do for embeddings.

    >>> import integrand as ig
    >>> ig.methods.layer("features.3", rule=ig.rules.GaussLegendre(8))
    Layered('features.3', Method(rule=GaussLegendre(8)))
    """
    return Layered(site, integrated(baseline, rule, record=record), side)


@published(
    title="Conductance",
    key="dhamdhere2019important",
    formula="∫ ∂F/∂h ⊙ dh along the straight line of the inputs, h: what is at the layer",
    cost="steps·n gradients behind the layer + steps values",
    axioms=_axioms(complete=False, symmetric=False, implementation_invariant=False),
)
def conductance(
    site: str | nn.Module | Site,
    baseline: Any = 0.0,
    steps: int = 50,
    rule: Rule = Midpoint(),
    *,
    side: str = "output",
    record: tuple[str, ...] = (),
) -> Layered:
    """Conductance of a layer's units: A_j = ∫₀¹ ∂F/∂h_j (γ(t)) dh_j(γ(t)), γ straight from the baseline to the input.

    The line is cut into ``steps``; its corners are taken to the layer by the model and joined there by straight pieces, each
    integrated by ``rule``. With one step this is ``layer``. Values have the layer's shape (B, \\*L).

    Cost: steps × n gradients, of the layers behind the site only, and a forward pass of the whole model at every corner. The error
    of the pieces falls like 1/steps²; like 1/steps where something passes the layer by (a piece takes it from its upper corner).
    Adds up to F(x) − F(b) where nothing does.
    Source: Dhamdhere, Sundararajan, Yan, "How Important is a Neuron?", ICLR 2019 (arXiv 1805.12233), as an integral over the layer
    (Shrikumar, Su, Kundaje, arXiv 1807.09946).

    >>> import integrand as ig
    >>> ig.methods.conductance("features.3", steps=20)
    Layered('features.3', Method(path=Straight(20), rule=Midpoint()))
    """
    return Layered(site, integrated(baseline, rule, Straight(steps), record=record), side)
