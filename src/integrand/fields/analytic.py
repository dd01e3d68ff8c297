"""Fields with known answers, for tests, documentation and third-party conformance checks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..backprop.softplus import KinkWatch
from ..core.segment import Curvature, Evaluation, Segment
from ..core.shapes import flattened, total
from ..model.autograd import gradients, hessian_products
from .base import Field, check_trainable


class _Alike(Field):
    """A function of rows alone, whatever example they belong to."""

    def questions(self, index: Tensor) -> Tensor:
        return torch.zeros_like(index)


class Linear(_Alike):
    """F(z) = w·z + c. Every path gives w ⊙ (end − start).

    >>> import torch, integrand as ig
    >>> field = ig.fields.Linear(torch.tensor([1.0, -2.0]))
    >>> ig.methods.integrated(rule=ig.rules.Exact())(field, torch.tensor([[3.0, 4.0]])).values.tolist()
    [[3.0, -8.0]]

    Args:
        weight: (\\*s) w.
        constant: c.
    """

    def __init__(self, weight: Tensor, constant: float = 0.0) -> None:
        self.weight = weight
        self.constant = constant

    @property
    def gated(self) -> bool:
        return False

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        value = total(z * self.weight, 1) + self.constant
        return Evaluation(value, self.weight.expand_as(z).clone() if gradient else z.new_empty(0))

    def curvature(self, z: Tensor, index: Tensor, directions: Tensor) -> Curvature:
        evaluation = self.evaluate(z, index)
        return Curvature(evaluation.value, evaluation.gradient, torch.zeros_like(directions))

    @property
    def exact(self) -> bool:
        return True

    def share(self, segment: Segment) -> Tensor:
        return segment.step * self.weight


class Monomial(_Alike):
    """F(z) = Π (z_i − b_i)^m_i. Straight from b, feature i gets F(x) m_i / Σ m (the monomial
    rule).

    Args:
        powers: (\\*s) m, whole numbers or others.
        base: b, a number or like the powers.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Monomial(torch.tensor([1.0, 2.0]))
        >>> method = ig.methods.integrated(rule=ig.rules.GaussLegendre(3))
        >>> method(field, torch.tensor([[3.0, 1.0]])).values.round(decimals=2).tolist()
        [[1.0, 2.0]]
    """

    def __init__(self, powers: Tensor, base: Tensor | float = 0.0) -> None:
        self.powers = powers
        self.base = base

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        offset = flattened(z - self.base, 1)
        powers = self.powers.flatten().to(offset.dtype)
        value = offset.pow(powers).prod(1)
        if not gradient:
            return Evaluation(value, z.new_empty(0))
        slopes = []
        for i, power in enumerate(powers):
            lowered = powers.clone()
            lowered[i] = max(float(power) - 1, 0.0)
            slopes.append(power * offset.pow(lowered).prod(1))
        return Evaluation(value, torch.stack(slopes, 1).reshape(z.shape))

    def curvature(self, z: Tensor, index: Tensor, directions: Tensor) -> Curvature:
        powers = self.powers.flatten()

        def monomial(rows: Tensor) -> Tensor:
            return flattened(rows - self.base, 1).pow(powers.to(rows)).prod(1)

        return _curvature(monomial, z, directions)


class Function(_Alike):
    """F(z) = any differentiable function of rows: (N, \\*s) → (N,). No model, no target, no
    bookkeeping.

    >>> import torch, integrand as ig
    >>> field = ig.fields.Function(lambda z: z.square().sum(1))
    >>> ig.methods.integrated()(field, torch.tensor([[3.0, 4.0]])).values.round(decimals=4).tolist()
    [[9.0, 16.0]]
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        with gradients(gradient):
            leaf = (
                z.clone().requires_grad_(gradient)
                if z.is_inference()
                else z.detach().requires_grad_(gradient)
            )
            value = self.function(leaf)
            if not gradient:
                return Evaluation(value, z.new_empty(0))
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return Evaluation(value.detach(), slope)

    def curvature(self, z: Tensor, index: Tensor, directions: Tensor) -> Curvature:
        return _curvature(self.function, z, directions)

    def attached(self, z: Tensor, index: Tensor) -> Evaluation:
        with gradients(True):
            check_trainable(self.function(z[:1].detach()))
            leaf = z.detach().requires_grad_()
            value = self.function(leaf)
            (slope,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        return Evaluation(value, slope)

    def kinked_operations(self, z: Tensor, index: Tensor) -> tuple[str, ...]:
        watch = KinkWatch()
        with gradients(True), watch:
            self.function(z.detach().requires_grad_())
        return tuple(watch.names)


def _curvature(function: Callable[[Tensor], Tensor], z: Tensor, directions: Tensor) -> Curvature:
    with gradients(True):
        leaf = z.detach().requires_grad_()
        value = function(leaf)
        slope, products = hessian_products(value, leaf, directions)
    return Curvature(value.detach(), slope, products)
