"""Products and quotients of two things that move.

    any bilinear f       Δf(u, v) = f(Δu, v̄) + f(ū, Δv)                                with means ū = (u_a + u_b)/2
    z = u / v            Δz = Λ Δu + K Δv,    Λ = ∫₀¹ dt / v(t),    K = −∫₀¹ u(t)/v(t)² dt           along straight u(t), v(t)

With x = Δv/(v_a + v_b) and artanh(x)/x = 1 + x τ(x):  Λ = (1 + xτ)/v̄,  K = −z̄/v̄ − τ Δu/(2v̄²). Both stay near 1 where v grows from nearly nothing,
which is what a normalisation does that leaves a zero baseline; the means of z = u · (1/v) would be as large as 1/v is there.
Where v changes sign there is a pole, and Δz = mean(1/v) Δu − ū Δv/(v_a v_b).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .elementwise import secant
from .rows import Rows, outer
from .table import chord, composite, spelled

_INVERSE = "_integrand_inverse"  # on results of rsqrt and the like: what they multiply is divided by something


def owns(*names: str) -> list[Callable[..., Any]]:
    return spelled(*names, owners=(torch, Tensor))


# --- products ---------------------------------------------------------------------------------------------------------


@chord(*owns("mul", "multiply", "__mul__", "__rmul__"))
def product(rows: Rows, u: Any, other: Any, **kwargs: Any) -> Any:
    if kwargs or not (rows.moves(u) and rows.moves(other)):
        return NotImplemented
    if hasattr(other, _INVERSE) or hasattr(u, _INVERSE):
        u, other = (u, other) if hasattr(other, _INVERSE) else (other, u)
        return quotient(rows, u, rows.alike(rows.apply(_Reciprocal, other), other))
    return rows.apply(_Product, u, other)


@chord(*owns("mul_", "multiply_", "__imul__"))
def product_in_place(rows: Rows, u: Tensor, other: Any) -> Any:
    made = product(rows, rows.alike(u.clone(), u), other)
    return NotImplemented if made is NotImplemented else u.copy_(made)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Rows, u: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(rows.mean(u), rows.mean(v))
        return u * v

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        u, v = ctx.saved_tensors
        return None, (gradient * v).sum_to_size(u.shape), (gradient * u).sum_to_size(v.shape)


@chord(*owns("matmul", "__matmul__", "bmm", "mm"))
def matrix_product(rows: Rows, u: Any, other: Any = None, **kwargs: Any) -> Any:
    v = kwargs.pop("mat2", other)
    if kwargs or not (rows.moves(u) and rows.moves(v)):
        return NotImplemented
    if u.ndim > 1 and v.ndim > 1:
        return rows.apply(_MatrixProduct, u, v)
    return rows.apply(_Bilinear, torch.matmul, u, v)


class _MatrixProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Rows, u: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(rows.mean(u), rows.mean(v))
        return u @ v

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        u, v = ctx.saved_tensors
        return None, (gradient @ v.mT).sum_to_size(u.shape), (u.mT @ gradient).sum_to_size(v.shape)


class _Bilinear(torch.autograd.Function):
    """Any bilinear function, by its own gradient at the means."""

    @staticmethod
    def forward(ctx: Any, rows: Rows, function: Callable[[Tensor, Tensor], Tensor], u: Tensor, v: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(rows.mean(u), rows.mean(v))
        return function(u, v)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            u, v = (mean.detach().requires_grad_() for mean in ctx.saved_tensors)
            return None, None, *torch.autograd.grad(ctx.function(u, v), (u, v), gradient)


@chord(torch.einsum)
def einsum(rows: Rows, *args: Any) -> Any:
    if len(args) == 2 and isinstance(args[1], tuple | list):
        args = (args[0], *args[1])
    moving = [i for i, value in enumerate(args) if isinstance(value, Tensor) and value.requires_grad]
    if len(moving) != 2 or not all(rows.moves(args[i]) for i in moving):
        return NotImplemented
    first, second = moving

    def contract(u: Tensor, v: Tensor) -> Tensor:
        made: Tensor = torch.einsum(*args[:first], u, *args[first + 1 : second], v, *args[second + 1 :])
        return made

    return rows.apply(_Bilinear, contract, args[first], args[second])


@chord(torch.bilinear, F.bilinear)
def bilinear(rows: Rows, u: Any, v: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not (rows.moves(u) and rows.moves(v)):
        return NotImplemented
    made = rows.apply(_Bilinear, lambda u, v: F.bilinear(u, v, weight), u, v)
    return made if bias is None else made + bias


@composite(*owns("baddbmm", "addmm"))
def add_matrix_product(u: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    made = alpha * (first @ second)
    return made if beta == 0 else made + beta * u


@composite(*owns("addcmul"))
def add_product(u: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    return u + value * (first * second)


@composite(*owns("addcdiv"))
def add_quotient(u: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    return u + value * (first / second)


# --- quotients --------------------------------------------------------------------------------------------------------


@chord(*owns("div", "divide", "true_divide", "__truediv__", "__div__"))
def quotient(rows: Rows, u: Any, other: Any, **kwargs: Any) -> Any:
    if kwargs.pop("rounding_mode", None) is not None or not rows.moves(other):
        return NotImplemented
    if rows.moves(u):
        return rows.apply(_Quotient, u, other)
    if isinstance(u, Tensor) and u.requires_grad:
        return NotImplemented
    return _inverse(rows.apply(_Reciprocal, other) * u)


@chord(*owns("__rdiv__", "__rtruediv__"))
def quotient_turned(rows: Rows, v: Any, u: Any) -> Any:
    return quotient(rows, u, v)


@chord(*owns("div_", "divide_", "true_divide_", "__itruediv__", "__idiv__"))
def quotient_in_place(rows: Rows, u: Tensor, other: Any, **kwargs: Any) -> Any:
    made = quotient(rows, rows.alike(u.clone(), u), other, **kwargs) if rows.moves(u) else NotImplemented
    return NotImplemented if made is NotImplemented else u.copy_(made)


@chord(*owns("reciprocal"))
def reciprocal(rows: Rows, v: Tensor) -> Any:
    return _inverse(rows.apply(_Reciprocal, v))


class _Reciprocal(torch.autograd.Function):
    """Δ(1/v) = −Δv / (v_a v_b)."""

    @staticmethod
    def forward(ctx: Any, rows: Rows, v: Tensor) -> Tensor:
        made = 1 / v
        ctx.save_for_backward(made * rows.previous(made, outer(v)))
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (inverse,) = ctx.saved_tensors
        return None, -gradient * inverse


class _Quotient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Rows, u: Tensor, v: Tensor) -> Tensor:
        z = u / v
        v0 = rows.previous(v)
        u0 = rows.previous(u)
        total = v + v0
        x = (v - v0) / total
        tau = tail(x, 0.5 * (v / v0).abs().log())
        middle = total / 2
        to_u = (1 + x * tau) / middle
        to_v = (u / v + u0 / v0).div_(-total) - (u - u0) * (tau / total / total * 2)
        pole = v * v0 <= 0
        to_u = torch.where(pole, (1 / v + 1 / v0) / 2, to_u)
        to_v = torch.where(pole, -(u + u0) / (2 * v * v0), to_v)
        ctx.shapes = u.shape, v.shape
        ctx.save_for_backward(to_u, to_v)
        return z

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        to_u, to_v = ctx.saved_tensors
        u, v = ctx.shapes
        return None, (gradient * to_u).sum_to_size(u), (gradient * to_v).sum_to_size(v)


def tail(x: Tensor, artanh: Tensor) -> Tensor:
    """τ(x) = (artanh(x)/x − 1)/x for |x| < 1, where |artanh x| is known better than from x if that is nearly 1."""
    square = x * x
    series = 1 / 13 + 0 * square
    for odd in (11, 9, 7, 5, 3):
        series = 1 / odd + square * series
    return torch.where(square < 0.01, x * series, (artanh.abs() / x.abs() - 1) / x)


# --- powers -----------------------------------------------------------------------------------------------------------


def _inverse(made: Any) -> Any:
    if made is not NotImplemented:
        setattr(made, _INVERSE, True)
    return made


@chord(*owns("rsqrt"))
def rsqrt(rows: Rows, u: Tensor) -> Any:
    return _inverse(secant(rows, torch.rsqrt, u))


@chord(*owns("pow", "__pow__", "float_power"))
def power(rows: Rows, u: Any, exponent: Any) -> Any:
    if not rows.moves(u):
        # A number to a moving power.
        return secant(rows, lambda t: torch.pow(u, t), exponent) if not isinstance(u, Tensor) else NotImplemented
    made = secant(rows, torch.pow, u, exponent)
    return _inverse(made) if isinstance(exponent, int | float) and exponent < 0 else made


@chord(*owns("__rpow__"))
def power_turned(rows: Rows, exponent: Any, u: Any) -> Any:
    return power(rows, u, exponent)


@chord(*owns("pow_", "__ipow__"))
def power_in_place(rows: Rows, u: Tensor, exponent: Any) -> Any:
    return secant(rows, torch.pow, u, exponent, inplace=True)


@chord(*owns("rsqrt_"))
def rsqrt_in_place(rows: Rows, u: Tensor) -> Any:
    return secant(rows, torch.rsqrt, u, inplace=True)
