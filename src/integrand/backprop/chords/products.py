"""Chords of products and quotients of two varying tensors.

    any bilinear f       Δf(u, v) = f(Δu, v̄) + f(ū, Δv)                                with means ū = (u_a + u_b)/2
    z = u / v            Δz = Λ Δu + K Δv,    Λ = ∫₀¹ dt / v(t),    K = −∫₀¹ u(t)/v(t)² dt           along straight u(t), v(t)

With x = Δv/(v_a + v_b) and artanh(x)/x = 1 + x τ(x):  Λ = (1 + xτ)/v̄,  K = −z̄/v̄ − τ Δu/(2v̄²). Both stay near 1 where v grows from nearly nothing,
which is what a normalisation does that leaves a zero baseline; the means of z = u · (1/v) would be
as large as 1/v is there. Where v changes sign there is a pole, and Δz = mean(1/v) Δu − ū Δv/(v_a
v_b).
"""

from __future__ import annotations

from collections.abc import Callable
from types import NotImplementedType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .elementwise import difference_quotient
from .rows import Chord, Context, Rows, outer
from .table import Operand, chord, composite, spelled

_INVERSE = "_integrand_inverse"  # on results of rsqrt and the like: what they multiply is divided by something


def owns(*names: str) -> list[Callable[..., Any]]:
    return spelled(*names, owners=(torch, Tensor))


# --- products ---------------------------------------------------------------------------------------------------------


@chord(*owns("mul", "multiply", "__mul__", "__rmul__"), complex=True)
def product(rows: Rows, u: Operand, other: Operand, **kwargs: Any) -> Any:
    if kwargs or not (rows.moves(u) and rows.moves(other)):
        return NotImplemented
    if hasattr(other, _INVERSE) or hasattr(u, _INVERSE):
        u, other = (u, other) if hasattr(other, _INVERSE) else (other, u)
        return quotient(rows, u, rows.with_rows_of(rows.apply(_Reciprocal, other), other))
    return rows.apply(_Product, u, other)


@chord(*owns("mul_", "multiply_", "__imul__"), complex=True)
def product_in_place(rows: Rows, u: Tensor, other: Operand) -> Any:
    result = product(rows, rows.with_rows_of(u.clone(), u), other)
    return NotImplemented if result is NotImplemented else u.copy_(result)


class _Product(Chord):
    @staticmethod
    def forward(ctx: Context, rows: Rows, u: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(rows.mean(u), rows.mean(v))
        return u * v

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        u, v = ctx.saved_tensors
        to_u, to_v = gradient * v.conj(), gradient * u.conj()
        return None, _back(to_u, u.shape, u.is_complex()), _back(to_v, v.shape, v.is_complex())


def _back(gradient: Tensor, shape: torch.Size, complex: bool) -> Tensor:
    """What goes back to one of two: a sum over what it was broadcast to, and real to a real one."""
    summed = gradient.sum_to_size(shape)
    return summed if complex or not summed.is_complex() else summed.real


@chord(*owns("matmul", "__matmul__", "bmm", "mm"), complex=True)
def matrix_product(rows: Rows, u: Tensor, other: Tensor | None = None, **kwargs: Any) -> Any:
    v: Tensor | None = kwargs.pop("mat2", other)
    if kwargs or not (rows.moves(u) and rows.moves(v)):
        return NotImplemented
    if u.ndim > 1 and v.ndim > 1:
        return rows.apply(_MatrixProduct, u, v)
    return rows.apply(_Bilinear, torch.matmul, u, v)


class _MatrixProduct(Chord):
    @staticmethod
    def forward(ctx: Context, rows: Rows, u: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(rows.mean(u), rows.mean(v))
        return u @ v

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        u, v = ctx.saved_tensors
        to_u, to_v = gradient @ v.mH, u.mH @ gradient
        return None, _back(to_u, u.shape, u.is_complex()), _back(to_v, v.shape, v.is_complex())


class _BilinearContext(Context):
    function: Callable[[Tensor, Tensor], Tensor]


class _Bilinear(Chord):
    """Any bilinear function, by its own gradient at the means."""

    @staticmethod
    def forward(
        ctx: _BilinearContext,
        rows: Rows,
        function: Callable[[Tensor, Tensor], Tensor],
        u: Tensor,
        v: Tensor,
    ) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(rows.mean(u), rows.mean(v))
        return function(u, v)

    @staticmethod
    def backward(ctx: _BilinearContext, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            u, v = (mean.detach().requires_grad_() for mean in ctx.saved_tensors)
            return None, None, *torch.autograd.grad(ctx.function(u, v), (u, v), gradient)


@chord(torch.einsum, complex=True)
def einsum(rows: Rows, *args: Any) -> Any:
    if len(args) == 2 and isinstance(args[1], tuple | list):
        args = (args[0], *args[1])
    moving = [
        i for i, value in enumerate(args) if isinstance(value, Tensor) and value.requires_grad
    ]
    if len(moving) != 2 or not all(rows.moves(args[i]) for i in moving):
        return NotImplemented
    first, second = moving

    def contract(u: Tensor, v: Tensor) -> Tensor:
        result: Tensor = torch.einsum(
            *args[:first], u, *args[first + 1 : second], v, *args[second + 1 :]
        )
        return result

    return rows.apply(_Bilinear, contract, args[first], args[second])


@chord(torch.bilinear, F.bilinear)
def bilinear(rows: Rows, u: Tensor, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not (rows.moves(u) and rows.moves(v)):
        return NotImplemented
    result = rows.apply(_Bilinear, lambda u, v: F.bilinear(u, v, weight), u, v)
    return result if bias is None else result + bias


@composite(*owns("baddbmm", "addmm"), complex=True)
def add_matrix_product(
    u: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    result = alpha * (first @ second)
    return result if beta == 0 else result + beta * u


@composite(*owns("addcmul"), complex=True)
def add_product(u: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    return u + value * (first * second)


@composite(*owns("addcdiv"), complex=True)
def add_quotient(u: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    return u + value * (first / second)


# --- quotients --------------------------------------------------------------------------------------------------------


@chord(*owns("div", "divide", "true_divide", "__truediv__", "__div__"), complex=True)
def quotient(rows: Rows, u: Operand, other: Operand, **kwargs: Any) -> Any:
    if kwargs.pop("rounding_mode", None) is not None or not rows.moves(other):
        return NotImplemented
    if rows.moves(u):
        return rows.apply(_Quotient, u, other)
    if isinstance(u, Tensor) and u.requires_grad:
        return NotImplemented
    return _inverse(rows.apply(_Reciprocal, other) * u)


@chord(*owns("__rdiv__", "__rtruediv__"), complex=True)
def quotient_turned(rows: Rows, v: Operand, u: Operand) -> Any:
    return quotient(rows, u, v)


@chord(*owns("div_", "divide_", "true_divide_", "__itruediv__", "__idiv__"), complex=True)
def quotient_in_place(rows: Rows, u: Tensor, other: Operand, **kwargs: Any) -> Any:
    result = (
        quotient(rows, rows.with_rows_of(u.clone(), u), other, **kwargs)
        if rows.moves(u)
        else NotImplemented
    )
    return NotImplemented if result is NotImplemented else u.copy_(result)


@chord(*owns("reciprocal"), complex=True)
def reciprocal(rows: Rows, v: Tensor) -> Any:
    return _inverse(rows.apply(_Reciprocal, v))


class _Reciprocal(Chord):
    """Δ(1/v) = −Δv / (v_a v_b)."""

    @staticmethod
    def forward(ctx: Context, rows: Rows, v: Tensor) -> Tensor:
        reciprocal = 1 / v
        ctx.save_for_backward(reciprocal * rows.previous(reciprocal, outer(v)))
        return reciprocal

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[None, Tensor]:
        (inverse,) = ctx.saved_tensors
        return None, -gradient * inverse.conj()


class _QuotientContext(Context):
    ends: list[tuple[torch.Size, bool]]
    """Shape of u and of v, and whether they are complex."""


class _Quotient(Chord):
    @staticmethod
    def forward(ctx: _QuotientContext, rows: Rows, u: Tensor, v: Tensor) -> Tensor:
        z = u / v
        v0 = rows.previous(v)
        u0 = rows.previous(u)
        total = v + v0
        x = (v - v0) / total
        tau = tail(x, _half_log(v, v0))
        middle = total / 2
        to_u = (1 + x * tau) / middle
        to_v = (u / v + u0 / v0).div_(-total) - (u - u0) * (tau / total / total * 2)
        pole = (v * v0 * total == 0) if v.is_complex() else v * v0 <= 0
        to_u = torch.where(pole, (1 / v + 1 / v0) / 2, to_u)
        to_v = torch.where(pole, -(u + u0) / (2 * v * v0), to_v)
        ctx.ends = [(end.shape, end.is_complex()) for end in (u, v)]
        ctx.save_for_backward(to_u, to_v)
        return z

    @staticmethod
    def backward(ctx: _QuotientContext, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        to_u, to_v = ctx.saved_tensors
        u, v = ctx.ends
        return None, _back(gradient * to_u.conj(), *u), _back(gradient * to_v.conj(), *v)


def _half_log(v: Tensor, v0: Tensor) -> Tensor:
    """artanh x for x = (v − v0)/(v + v0)."""
    ratio = v / v0
    return 0.5 * (ratio if v.is_complex() else ratio.abs()).log()


def mean_inverse(v: Tensor, v0: Tensor) -> Tensor:
    """∫₀¹ dt / v(t) along a straight way between complex numbers."""
    total = v + v0
    x = (v - v0) / total
    return torch.where(
        total == 0, (v / v0).log() / (v - v0), (1 + x * tail(x, _half_log(v, v0))) / total * 2
    )


def tail(x: Tensor, artanh: Tensor) -> Tensor:
    """τ(x) = (artanh(x)/x − 1)/x, for real |x| < 1, where |artanh x| is known better than from x if
    that is nearly 1, and complex x."""
    square = x * x
    series = 1 / 13 + 0 * square
    for odd in (11, 9, 7, 5, 3):
        series = 1 / odd + square * series
    if x.is_complex():
        return torch.where(square.abs() < 0.01, x * series, (artanh / x - 1) / x)
    return torch.where(square < 0.01, x * series, (artanh.abs() / x.abs() - 1) / x)


# --- powers -----------------------------------------------------------------------------------------------------------


def _inverse(result: Tensor | NotImplementedType) -> Any:
    if result is not NotImplemented:
        setattr(result, _INVERSE, True)
    return result


@chord(*owns("rsqrt"), complex=True)
def rsqrt(rows: Rows, u: Tensor) -> Any:
    return _inverse(difference_quotient(rows, torch.rsqrt, u))


@chord(*owns("pow", "__pow__", "float_power"), complex=True)
def power(rows: Rows, u: Operand, exponent: Operand) -> Any:
    if not rows.moves(u):
        # A number to a moving power.
        return (
            difference_quotient(rows, lambda t: torch.pow(u, t), exponent)
            if not isinstance(u, Tensor)
            else NotImplemented
        )
    result = difference_quotient(rows, torch.pow, u, exponent)
    return _inverse(result) if isinstance(exponent, int | float) and exponent < 0 else result


@chord(*owns("__rpow__"), complex=True)
def power_turned(rows: Rows, exponent: Operand, u: Operand) -> Any:
    return power(rows, u, exponent)


@chord(*owns("pow_", "__ipow__"))
def power_in_place(rows: Rows, u: Tensor, exponent: Operand) -> Any:
    return difference_quotient(rows, torch.pow, u, exponent, inplace=True)


@chord(*owns("rsqrt_"))
def rsqrt_in_place(rows: Rows, u: Tensor) -> Any:
    return difference_quotient(rows, torch.rsqrt, u, inplace=True)
