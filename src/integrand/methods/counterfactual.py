"""Paths that find their own baseline by moving the input to where the model sees something else."""

from __future__ import annotations

from ..baselines import ReferencesLike
from ..integration import Method
from ..model.network import Representation
from ..paths import Descent, Fixed, Relative, Shrinking, StepRule
from ..rules import Right, Rule, Simpson
from .baseline_names import references_of
from .registry import axioms, published


@published(
    title="IG2",
    key="zhuo2024ig2",
    formula="∫ ∇F ⊙ dγ along GradPath, from the counterfactual nearest to the reference in representation to x",
    cost="R·(steps + 1) joint gradients + R·steps·nodes",
    axioms=axioms(linear=False, implementation_invariant=False, inside=False, monotone=False),
)
def ig2(
    references: ReferencesLike,
    representation: Representation | None = None,
    steps: int = 50,
    rate: float | Relative | None = None,
    clip: tuple[float, float] | None = None,
    *,
    norm: str = "l2",
    step: StepRule | None = None,
    rule: Rule | None = None,
    record: tuple[str, ...] = (),
) -> Method:
    """IG2: gradients integrated along the descent of the representation distance, A = mean_r ∫
    ∇F(γ_r) ⊙ dγ_r.

        z_0 = x,   z_{j+1} = clip(z_j − rate · ∇d / ‖∇d‖),   d(z) = ‖φ(z) − φ(reference)‖²

    The end of the walk is a counterfactual, and the baseline: ``.baselines`` holds it,
    ``.notes["distance"]`` the way there.

    On networks with kinks a map of the published rule can add up to several times the change it
    should explain (the result's ``residual`` says so and a warning is given); nodes inside the
    steps close that gap. See docs/usage/how-to-choose.md.

    Args:
        references: a tensor (R, \\*s) or (R, B, \\*s), ``ig.baselines.OtherClass(pool)``,
            ``Relevant(pool)``, or any baseline.
        representation: a layer's name or module (its output), a function of the input, or the input
            of the last linear layer.
        steps: of the descent, and pieces of the path.
        rate: a number is the published method as published: steps of exactly that length, the
            gradient at the explicand's end of each (``Right()``). Left out, the length is
            ``Relative(0.002)`` of the data range, a step that does not come nearer is taken back
            and halved (``Shrinking()``), and each step is integrated by ``Simpson(2)``, which uses
            the gradients at both ends that the walk has paid for.
        clip: (low, high), the box the path stays in; by default the range of the field's images
            where it is known, else of the numbers in the input.
        norm: how a gradient becomes a direction: "l2" ∇/‖∇‖₂, "l1" ∇/‖∇‖₁, "sign" the sign of ∇.
        step: how each step is taken: ``ig.paths.Fixed()``, ``Shrinking()`` or ``Implicit()``. Its
            choice goes with ``rate`` unless given.
        rule: how each step is integrated; its choice goes with ``rate`` unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        steps + 1 evaluations per reference (one forward and two backward passes each), plus steps ×
        nodes gradients for rules with nodes inside the steps.

    References:
        Zhuo and Ge, TPAMI 2024 (arXiv 2406.10852).

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... )
        >>> x, others = torch.randn(5, 4), torch.randn(2, 4)
        >>> method = ig.methods.ig2(others, steps=10)
        >>> result = ig.explain(model, x, target="predicted", method=method)
        >>> result.baselines.shape, result.notes["distance"].shape
        (torch.Size([2, 5, 4]), torch.Size([11, 2, 5]))
    """
    as_published = rate is not None and not isinstance(rate, Relative)
    if step is None:
        step = Fixed() if as_published else Shrinking()
    if rule is None:
        rule = Right() if as_published else Simpson(2)
    path = Descent(representation, steps, Relative() if rate is None else rate, clip, norm, step)
    return Method(references_of(references), path, rule, record=record)
