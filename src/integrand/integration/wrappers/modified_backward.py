"""Methods whose gradients come from a modified backward pass."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from ...core.declared import Adopted, name_of, own
from ...core.values import part
from ...errors import InputError
from ...fields import BackwardRule, Field
from ..assemble import Watch
from ..attribution import Attribution, Explainer, ExplainerLike, Wrapper, as_explainer


@part
class Backward(Wrapper):
    """A method whose gradients follow a backward rule.

        A(x) = Σ_r w_r Σ_segments share,    ∇F replaced by what the rule hands back from F

    The map is not complete: the result's ``residual`` says what it misses, and no warning is given.
    Rules with a tolerance judge by what adds up and are refused (``InputError``). Paths that look
    at gradients on their way look at these.

    Args:
        rule: ``ig.fields.GuidedReLU()``, ``ig.fields.Patterns``, or one of your own
            (``ig.fields.BackwardRule``).
        method: any method with fixed nodes, also one at a layer (``ig.methods.layer``).

    Cost:
        That of the method.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... )
        >>> method = ig.methods.integrated(rule=ig.rules.Midpoint(20))
        >>> guided = ig.Backward(ig.fields.GuidedReLU(), method)
        >>> ig.explain(model, torch.randn(5, 4), target=0, method=guided).values.shape
        torch.Size([5, 4])
    """

    rule: BackwardRule
    method: Adopted[ExplainerLike, Explainer] = Adopted(as_explainer)

    complete: ClassVar[bool] = False
    """What comes back is no gradient of F."""

    def __post_init__(self) -> None:
        if not isinstance(self.rule, BackwardRule):
            raise InputError(
                f"A backward rule is ig.fields.GuidedReLU(), ig.fields.Patterns.fit(model, data) or the like, not {type(self.rule).__name__}."
            )
        if not callable(own(self.method)):
            raise InputError(
                f"Backward takes a method, such as ig.methods.integrated(…), not {name_of(self.method)}."
            )

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        attribution = self.method(field.with_backward(self.rule), x, watch=watch)
        return dataclasses.replace(attribution, method=self)
