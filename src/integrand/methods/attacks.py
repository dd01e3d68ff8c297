"""Paths that an attack finds: to another class, to the decision boundary, away from the predicted
class."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..baselines import Boundary, Itself, Rivals
from ..integration import Method
from ..paths import Adversarial, Fixed, Path, Relative, StepRule, Straight
from ..paths.descent.attack import Goal
from ..rules import Adaptive, Right, Rule, Simpson
from ..targets import Target
from .registry import axioms, published


@published(
    title="Adversarial Gradient Integration",
    key="pan2021explaining",
    formula="mean over rival classes k of ∫ ∇F ⊙ dγ along the steepest ascent of p_k, from the adversarial example to x",
    cost="R·(steps + 1) joint gradients + R·steps·nodes, at most: walks end on arrival",
    axioms=axioms(linear=False, symmetric=False, inside=False, monotone=False),
)
def adversarial(
    goal: Goal = "drawn",
    count: int = 20,
    steps: int = 50,
    rate: float | Relative = Relative(0.005),
    clip: tuple[float, float] | None = None,
    *,
    norm: str = "sign",
    step: StepRule = Fixed(),
    rule: Rule | None = None,
    seed: int = 0,
    record: tuple[str, ...] = (),
) -> Method:
    """Adversarial Gradient Integration (AGI): A = mean_k ∫ ∇F(γ_k) ⊙ dγ_k, γ_k the attack's way
    from x to class k.

        z_0 = x,   z_{j+1} = clip(z_j + rate · sign ∇p_k(z_j))   until the model predicts k

    There is no baseline to choose: where each attack ends is one (``.baselines``), and the map adds
    up to F(x) minus the mean of F there. The paper sums over classes; here it is the mean, as over
    any references. ``.notes["lead"]`` tells for every walk how far the decision was from changing:
    below zero at its end where the class was reached.

    Complete with respect to where the walks ended, as far as the rule goes; linear only as far as
    the way does not change; features that the whole model, not only F, treats alike get the same.

    Args:
        goal: "drawn": ``count`` rival classes drawn for each input (fewer where the model has
            fewer); "likeliest": those the model ranks next; a class or several; "away": whichever
            comes first; a decision function. See ``ig.paths.Adversarial``.
        count: how many rival classes, 20 unless given.
        steps: at most so many for each walk.
        rate: a number is a step as published, of exactly that length, with the gradient at the
            explicand's end of it (``Right()``). Left out it is .005 of the data range, and each
            step is integrated by ``Simpson(2)``, which uses the gradients at both ends that the
            walk has paid for. The published .05 (of images in [0, 1]) was chosen for a path that
            stays at the input: on a path that moves, five such steps lead far beyond the boundary,
            and their sum misses most of the change.
        clip: (low, high), the box the path stays in; by default the range of the field's images
            where it is known, else of the numbers in the input.
        norm: how a gradient becomes a direction: "l2" ∇/‖∇‖₂, "l1" ∇/‖∇‖₁, "sign" the sign of ∇.
        step: how each step is taken: ``ig.paths.Fixed()``, ``Shrinking()`` or ``Implicit()``. Fixed
            unless given.
        rule: choose it yourself.
        seed: of the classes that are drawn.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        one value per input for the classes; for each rival class at most steps + 1 evaluations (one
        forward and two backward passes each), and nodes gradients per step that was gone.

    References:
        Pan, Li, Zhu, IJCAI 2021. The released code adds every step to the original input, so that
        its path never gets further than one step, and takes the same twenty classes for all inputs.

    Example:
        >>> import integrand as ig
        >>> ig.methods.adversarial("likeliest", count=3)
        Method(Rivals(3), Adversarial('likeliest'), Simpson(2))
    """
    if rule is None:
        rule = Simpson(2) if isinstance(rate, Relative) else Right()
    path = Adversarial(goal, steps, rate, clip, norm, step, seed)
    return Method(_walks(path.goal, count), path, rule, record=record)


@published(
    title="MFABA",
    key="zhu2024mfaba",
    formula="−Σ_k (z_{k+1} − z_k) ⊙ ∇F(z_k) along the descent of the predicted class's probability",
    cost="steps + 1 joint gradients at most: the walk ends when another class is predicted",
    axioms=axioms(linear=False, symmetric=False, inside=False, monotone=False),
)
def mfaba(
    goal: Goal = "away",
    steps: int = 50,
    rate: float | Relative = 0.1,
    clip: tuple[float, float] | None = None,
    *,
    norm: str = "l2",
    step: StepRule = Fixed(),
    rule: Rule = Right(),
    record: tuple[str, ...] = (),
) -> Method:
    """MFABA: A = −Σ_k (z_{k+1} − z_k) ⊙ ∇F(z_k), z_k an attack's steps from x until another class
    is predicted.

        z_0 = x,   z_{k+1} = clip(z_k − rate · ∇p_c(z_k) / ‖∇p_c(z_k)‖₂),   c the class predicted for x

    The defaults are the authors' "sharp" variant: steps of .1 in the L2 norm (of images in [0, 1];
    ``rate=0.001, norm="sign"`` is "smooth"), at most 50 of them, the gradient at the explicand's
    end of each. The walk has paid for the other end too, so ``rule=ig.rules.Trapezoid()`` (their
    second variant) costs nothing and is nearer to complete.

    Complete with respect to where the walk ended, as far as the rule goes.

    Args:
        goal: what a walk is after: "away" from the predicted class, or another goal of
            ``ig.paths.Adversarial``.
        steps: at most so many.
        rate: how long a step is, in the norm below and the units of the input; or
            ``ig.paths.Relative`` of the data range.
        clip: (low, high), the box the path stays in; by default the range of the field's images
            where it is known, else of the numbers in the input.
        norm: how a gradient becomes a direction: "l2" ∇/‖∇‖₂, "l1" ∇/‖∇‖₁, "sign" the sign of ∇.
        step: how each step is taken: ``ig.paths.Fixed()``, ``Shrinking()`` or ``Implicit()``.
        rule: ``Right()``, the gradient at the explicand's end of each step, unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        one value per input for the class, and at most steps + 1 evaluations (one forward and two
        backward passes each). The walk goes down the probability of the predicted class whatever F
        is; with F that probability, as in the paper, it is the published method.

    References:
        Zhu et al., AAAI 2024 (arXiv 2312.13630). Two variants of their code are left out: "cos" and
        "norm" take the gradients of the walk but credit the straight line, (x − z_K) ⊙ Σ_k
        (t_{k+1} − t_k) ∇F(z_k), t the walk's projection on the line or its distance from x. No
        path has these gradients and that direction, so they add up to nothing that F does.

    Example:
        >>> import integrand as ig
        >>> ig.methods.mfaba(rule=ig.rules.Trapezoid())
        Method(Itself(), Adversarial(rate=0.1, norm='l2'), Trapezoid())
    """
    path = Adversarial(goal, steps, rate, clip, norm, step)
    return Method(_walks(path.goal, 1), path, rule, record=record)


@published(
    title="Boundary-based Integrated Gradients",
    key="wang2021boundary",
    formula="(x − b) ⊙ ∫ ∇F(b + t(x − b)) dt,  b: the nearest point found on the decision boundary",
    cost="the search (some 50 joint gradients and 89 values) + integrated",
    axioms=axioms(linear=False, symmetric=False),
)
def boundary(
    decision: Target | Callable[..., Tensor] | None = None,
    steps: int = 40,
    clip: tuple[float, float] | None = None,
    rule: Rule = Adaptive(),
    path: Path = Straight(),
    *,
    radius: float | None = None,
    restarts: int = 0,
    seed: int = 0,
    record: tuple[str, ...] = (),
) -> Method:
    """Boundary-based Integrated Gradients: Integrated Gradients straight from the nearest point of
    the decision boundary.

        b = argmin ‖z − x‖₂ where the model decides otherwise,   A = (x − b) ⊙ ∫₀¹ ∇F(b + t(x − b)) dt

    What a feature did to bring the input from undecided to its class. The point is searched for by
    ``ig.baselines.Boundary``, whose options these are; it comes with the result (``.baselines``).

    Complete. The boundary is that of the whole model, so maps are linear and symmetric only as far
    as it is not concerned.

    Args:
        decision: a function outputs → (N,), or an ``ig.targets`` value, that crosses zero on the
            boundary; the lead of the predicted class unless given.
        steps: of the search, at most.
        clip: (low, high), the box that is searched; by default what images may hold where the field
            knows, else no limit.
        rule: how each piece of the path is integrated, any of ``ig.rules``; by default as many
            gradients as bring the map's relative error below 5 %.
        path: which way from the boundary to the input, any of ``ig.paths``; straight unless given.
        radius: the farthest that is looked, in the L2 norm; any distance unless given.
        restarts: how many further searches begin beside the input.
        seed: of the restarts.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Raises:
        BaselineError: naming the examples for which no boundary was found.

    Cost:
        at most 1 + steps + 4 joint evaluations (one forward and two backward passes each) and 89
        values for the search, and the gradients of ``integrated``.

    References:
        Wang, Fredrikson, Datta, 2021 (arXiv 2103.11257).

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> x = torch.tensor([[3.0, 1.0]])
        >>> target = ig.targets.Margin(0, 1)
        >>> result = ig.explain(model, x, target=target, method="boundary")
        >>> result.baselines.round(decimals=2).tolist()
        [[[2.0, 2.0]]]
    """
    start = Boundary(decision, steps, clip, radius, restarts, seed=seed)
    return Method(start, path, rule, record=record)


def _walks(goal: Goal, count: int) -> Rivals | Itself:
    """A reference for every walk there is to be."""
    if isinstance(goal, str) and goal != "away":
        return Rivals(count)
    return Itself(len(goal) if isinstance(goal, tuple) else 1)
