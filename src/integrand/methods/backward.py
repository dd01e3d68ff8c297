"""Gradients of another kind: through patterns, and the largest met on a climb."""

from __future__ import annotations

from ..baselines import StartLike
from ..errors import InputError
from ..fields import Patterns
from ..integration import Backward, Method
from ..paths import Straight
from ..rules import Ascent, Right, Rule
from .registry import axioms, published


@published(
    title="Pattern-Guided Integrated Gradients",
    key="schwarzenberg2020pattern",
    formula="(x − b) ⊙ mean over k of PA(b + (k/n)(x − b)),  PA: backward through w ⊙ a instead of w",
    cost="n gradients; one pass over data for the patterns",
    axioms=axioms(
        complete=False, dummy=False, linear=False, symmetric=False, implementation_invariant=False
    ),
)
def pattern_guided(
    patterns: Patterns,
    baseline: StartLike = 0.0,
    rule: Rule = Right(25),
    *,
    record: tuple[str, ...] = (),
) -> Backward:
    """Pattern-Guided Integrated Gradients: A = (x − b) ⊙ (1/n) Σ_k PA(b + (k/n)(x − b)), k = 1 … n.

    PA is PatternAttribution: a backward pass from F in which layers hand back through w ⊙ a instead
    of w, a being the pattern of the data. The target is what comes back from: a logit sends back 1,
    ``ig.targets.Probability`` the slope of the softmax, as the authors' ImageNet code does.

    Not complete, not independent of how F is implemented (the authors show it), not linear in F; a
    feature that F does not look at may get something.

    Args:
        patterns: what ``ig.fields.Patterns.fit(model, data)`` or ``Patterns.load`` gives.
        baseline: where paths start, as for ``integrated``; zero unless given.
        rule: one with fixed nodes (published: 25 on ImageNet, 100 on toy data).
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        An ``ig.Backward`` with values (B, \\*s).

    Raises:
        InputError: for what are no patterns.

    Cost:
        n gradients; see ``Patterns`` for memory and for what is not covered.

    References:
        Schwarzenberg and Castle, "Pattern-Guided Integrated Gradients", ICML 2020 WHI (arXiv
        2007.10685). In their ImageNet code "25 steps" are 24 points whose sum is divided by 25, and
        their pattern is another one: see ``Patterns.fit``.

    Example:
        >>> import torch, integrand as ig
        >>> layers = torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        >>> model = torch.nn.Sequential(*layers)
        >>> patterns = ig.fields.Patterns.fit(model, torch.randn(100, 4))
        >>> ig.methods.pattern_guided(patterns)
        Backward(Patterns<2 layers, positive>, Method(rule=Right(25)))
    """
    if not isinstance(patterns, Patterns):
        raise InputError(
            f"patterns= is what ig.fields.Patterns.fit(model, data) or ig.fields.Patterns.load(path) gives, not {type(patterns).__name__}."
        )
    return Backward(patterns, Method(baseline, Straight(), rule, record=record))


@published(
    title="Geometrically Guided Integrated Gradients",
    key="rahman2022geometrically",
    formula="max over i and t of ∇F(P_i,t),  P_i,0 = b + (i/m)(x − b),  P_i,t+1 = P_i,t + rate ∇F(P_i,t)",
    cost="(steps + 1)·iterations gradients",
    axioms=axioms(complete=False, linear=False, inside=False, monotone=False),
)
def geometric(
    baseline: StartLike = 0.0,
    steps: int = 50,
    iterations: int = 100,
    rate: float = 1e-4,
    gather: str = "max",
    signed: bool = True,
    *,
    record: tuple[str, ...] = (),
) -> Method:
    """Geometrically Guided Integrated Gradients: A_j = max_i max_t ∂_j F(P_i,t), climbing F from
    each scaled input P_i,0.

    From each of ``steps`` + 1 points of the straight line, plain gradient ascent in input space; of
    every feature the largest gradient on the way is kept, and gathered over the points (``gather``:
    "max", "trapezoid", "mean"). See ``ig.rules.Ascent``.

    Does not integrate, whatever its name says: values are gradients, in units of F per input, not
    multiplied by x − b, and add up to nothing. F is the target; the authors take the logit of the
    predicted class (``target="predicted"``).

    Args:
        baseline: where paths start, as for ``integrated``; zero unless given.
        steps: the ascent begins at so many points of the straight line, and one.
        iterations: of gradient ascent from each.
        rate: 0.0001 for ImageNet, 0.1 for MNIST-like data in the authors' code.
        gather: over the points: "max", "trapezoid" or "mean".
        signed: as published, the largest gradient: biased towards positive ones. False gathers the
            largest |∇F|.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method`` with values (B, \\*s), in units of F per unit of the input.

    Cost:
        (steps + 1) · iterations gradients (5100). Memory does not grow with steps or iterations.

    References:
        Rahman, Lewis, Plis, arXiv 2206.05903 ("M.GDAsc.M" is "max", "M.GDAsc.IG" is "trapezoid").

    Example:
        >>> import integrand as ig
        >>> ig.methods.geometric(steps=20)
        Method(rule=Ascent(20))
    """
    rule = Ascent(steps, iterations, rate, gather, signed)
    return Method(baseline, Straight(), rule, record=record)
