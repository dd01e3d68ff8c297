"""Chords: what a network does between two points, one operation at a time.

The mean gradient between a and b is what integration needs. One gradient says little about it where a network has kinks: each
ReLU is on or off at a point, but on for a *part* of the way. Its chord, (f(u_b) − f(u_a)) / (u_b − u_a), knows that part. Here the
backward pass of row b uses, for every elementwise nonlinearity, the chord from the row before it on the path instead of the
derivative, and for every product of two things that move the means of both, since Δ(uv) = v̄ Δu + ū Δv. Between two points the
result c satisfies

    c · (b − a) = F(b) − F(a)         exactly, for networks of linear maps, elementwise functions and products,

and c → ∇F as b → a, so chords along a path converge to its integral, at second order, and are complete at any number of
pieces. Operations not known here keep their ordinary gradient at b; whether that matters shows in the defect c·(b−a) − ΔF, which
costs nothing to know. (For a single piece this is the rescale rule of DeepLIFT, Shrikumar et al. 2017.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Elementwise functions of their first argument, by how torch calls them.
_ELEMENTWISE: frozenset[Callable[..., Any]] = frozenset(
    function
    for function in [
        *(
            getattr(F, name)
            for name in [
                "relu",
                "relu6",
                "hardtanh",
                "leaky_relu",
                "elu",
                "selu",
                "celu",
                "gelu",
                "silu",
                "mish",
                "hardswish",
                "hardsigmoid",
                "softplus",
                "softsign",
                "logsigmoid",
                "sigmoid",
                "tanh",
                "relu_",
                "hardtanh_",
                "leaky_relu_",
                "elu_",
                "selu_",
                "celu_",
                "threshold",
            ]
        ),
        *(
            getattr(owner, name)
            for owner in (torch, Tensor)
            for name in [
                "relu",
                "relu_",
                "sigmoid",
                "sigmoid_",
                "tanh",
                "tanh_",
                "clamp",
                "clamp_",
                "clamp_min",
                "clamp_max",
                "exp",
                "abs",
                "sqrt",
                "rsqrt",
                "square",
            ]
            if hasattr(owner, name)
        ),
    ]
)
_IN_PLACE = frozenset(function for function in _ELEMENTWISE if getattr(function, "__name__", "").endswith("_"))
_PRODUCTS = frozenset([torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply])


class Chords(TorchFunctionMode):
    """While this lasts, backward passes follow chords: row i's from row ``before[i]`` (N,)."""

    def __init__(self, before: Tensor) -> None:
        super().__init__()
        self.before = before

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        if (
            func in _ELEMENTWISE
            and args
            and self._moves(args[0])
            and not any(map(_needs_gradient, (*args[1:], *kwargs.values())))
        ):
            return self._elementwise(func, args, kwargs)
        if func in _PRODUCTS and len(args) == 2 and self._moves(args[0]) and self._moves(args[1]):
            return _apply(_Product, *torch.broadcast_tensors(*args), self.before)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)

    def _moves(self, value: Any) -> bool:
        return _needs_gradient(value) and value.ndim > 0 and len(value) % len(self.before) == 0

    def _elementwise(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        u: Tensor = args[0]
        rest = args[1:]
        inplace = kwargs.get("inplace", False) or func in _IN_PLACE
        if inplace:
            # The copy is what autograd sees; the model's own tensor is overwritten below, as it asked.
            clean = {k: v for k, v in kwargs.items() if k != "inplace"}
            return u.copy_(_apply(_Elementwise, u.clone(), lambda t: func(t.clone(), *rest, **clean), self.before))
        return _apply(_Elementwise, u, lambda t: func(t, *rest, **kwargs), self.before)


def _needs_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _apply(function: Any, *arguments: Any) -> Tensor:
    made: Tensor = function.apply(*arguments)
    return made


def _previous(u: Tensor, before: Tensor) -> Tensor:
    """Every row's predecessor; rows may have been folded with what follows them (N·T, …)."""
    rows = len(before)
    return u.reshape(rows, -1, *u.shape[1:])[before].reshape(u.shape)


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, function: Callable[[Tensor], Tensor], before: Tensor) -> Tensor:
        y = function(u)
        u0, y0 = _previous(u, before), _previous(y, before)
        step = u - u0
        # Nearer than this the difference of two values is more rounding than function; half way the derivative is as good.
        close = step.abs() <= torch.finfo(u.dtype).eps ** 0.4 * torch.maximum(u.abs(), u0.abs())
        slope = (y - y0) / torch.where(close, 1, step)
        if bool(close.any()):
            slope[close] = _derivative(function, ((u + u0) / 2))[close]
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


def _derivative(function: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = u.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(leaf).sum(), leaf)
    return slope


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, before: Tensor) -> Tensor:
        ctx.save_for_backward((u + _previous(u, before)) / 2, (v + _previous(v, before)) / 2)
        return u * v

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        u, v = ctx.saved_tensors
        return gradient * v, gradient * u, None
