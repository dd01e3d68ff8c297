"""Axioms that can be checked on a model and inputs of one's own, with the method's own baseline."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...core.segment import Evaluation
from ...fields import Field, Linear
from ...integration.attribution import ExplainerLike
from .adapter import ask
from .checks import apart

OwnCheck = Callable[[ExplainerLike, Field, Tensor], float]


class _Frozen(Field):
    """The field, blind to some features: they are always what they are in the inputs."""

    def __init__(self, inner: Field, x: Tensor, visible: Tensor) -> None:
        self.inner, self.x, self.visible = inner, x, visible
        self.normalisation = inner.normalisation

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        evaluation = self.inner.evaluate(
            torch.where(self.visible, z, self.x[index].to(z.dtype)), index, gradient=gradient
        )
        return Evaluation(
            evaluation.value,
            evaluation.gradient * self.visible if gradient else evaluation.gradient,
        )


class _WithLinear(Field):
    """F(z) + L(z)."""

    def __init__(self, first: Field, second: Field) -> None:
        self.first, self.second = first, second
        self.normalisation = first.normalisation

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        first, second = (
            field.evaluate(z, index, gradient=gradient) for field in (self.first, self.second)
        )
        return Evaluation(first.value + second.value, first.gradient + second.gradient)


def complete(method: ExplainerLike, field: Field, x: Tensor) -> float:
    """On your model: a map adds up to F(x) − F(where the path began)."""
    attribution = ask(method, field, x)
    return float(attribution.gap.amax())


def dummy(method: ExplainerLike, field: Field, x: Tensor) -> float:
    """On your model, made blind to every other feature: those get nothing."""
    visible = (torch.arange(x[0].numel(), device=x.device) % 2 == 0).reshape(x[0].shape)
    values = ask(method, _Frozen(field, x, visible), x).values
    return apart(values * ~visible, torch.zeros_like(values), values)


def linear(method: ExplainerLike, field: Field, x: Tensor) -> float:
    """On your model: a linear function added to F adds its own map."""
    with field.ready():
        slope = field.gradient(x)
    n = torch.arange(x[0].numel(), device=x.device, dtype=x.dtype).reshape(x[0].shape)
    added = Linear(torch.sin(1.7 * n + 0.013 * n * n) * slope.square().mean().sqrt())
    map_of_f, map_of_added, map_of_sum = (
        ask(method, f, x).values for f in (field, added, _WithLinear(field, added))
    )
    return apart(map_of_sum, map_of_f + map_of_added, map_of_sum)


OWN: dict[str, OwnCheck] = {
    "complete, on your model": complete,
    "dummy, on your model": dummy,
    "linear, on your model": linear,
}
