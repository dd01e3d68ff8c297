"""Chords of complex numbers: moduli, phases and logarithms. Products, quotients, powers and
holomorphic functions are those of real numbers.

A gradient of a real number by a complex one, z = a + ib, is ∂/∂a + i ∂/∂b as torch has it, so a
holomorphic slope s, Δy = s Δz, goes back as its conjugate. With the mean of 1/z along a straight
way, which never turns by more than half a circle,

    m = ∫₀¹ dt / z(t) = Log(z_b / z_a) / Δz,        Δ log z = m Δz,        Δ arg z = Im m Δz

no chord counts the turn by 2π that log and arg make where a way crosses the negative axis; nor does
any gradient. The modulus is a length:

    Δ|z| = Re conj(z_a + z_b) Δz / (|z_a| + |z_b|)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .elementwise import difference_quotient
from .products import mean_inverse, owns
from .rows import Chord, Context, Rows, outer
from .table import chord, composite, spelled


class _Modulus(Chord):
    """Nothing between two zeros."""

    @staticmethod
    def forward(ctx: Context, rows: Rows, z: Tensor) -> Tensor:
        y = z.abs()
        total = y + rows.previous(y, outer(z))
        ctx.save_for_backward(torch.where(total > 0, (z + rows.previous(z)) / total, 0))
        return y

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[None, Tensor]:
        (direction,) = ctx.saved_tensors
        return None, gradient * direction


@chord(*owns("abs", "absolute", "__abs__"), complex=True)
def modulus(rows: Rows, u: Tensor) -> Any:
    return (
        rows.apply(_Modulus, u)
        if u.is_complex()
        else difference_quotient(rows, torch.abs, u, straight=True)
    )


class _Logarithm(Chord):
    @staticmethod
    def forward(ctx: Context, rows: Rows, z: Tensor) -> Tensor:
        ctx.save_for_backward(mean_inverse(z, rows.previous(z)))
        return z.log()

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[None, Tensor]:
        (inverse,) = ctx.saved_tensors
        return None, gradient * inverse.conj()


@chord(*spelled("log"), complex=True)
def logarithm(rows: Rows, u: Tensor) -> Any:
    return rows.apply(_Logarithm, u) if u.is_complex() else difference_quotient(rows, torch.log, u)


class _Phase(Chord):
    """At zero, which has no phase, the gradient is zero, as torch has it."""

    @staticmethod
    def forward(ctx: Context, rows: Rows, z: Tensor) -> Tensor:
        z0 = rows.previous(z)
        inverse, inverse0 = (torch.where(end == 0, 0, 1 / end) for end in (z, z0))
        mean = torch.where((z == 0) | (z0 == 0), (inverse + inverse0) / 2, mean_inverse(z, z0))
        ctx.save_for_backward(1j * mean.conj())
        return z.angle()

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[None, Tensor]:
        (slope,) = ctx.saved_tensors
        return None, gradient * slope


@chord(*owns("angle"), complex=True)
def phase(rows: Rows, z: Tensor) -> Any:
    return rows.apply(_Phase, z) if z.is_complex() else NotImplemented


@composite(*owns("atan2", "arctan2"))
def two_argument_arctangent(y: Tensor, x: Tensor) -> Tensor:
    return torch.complex(x, y).angle()


@composite(*owns("hypot"))
def hypotenuse(x: Tensor, y: Tensor) -> Tensor:
    return torch.complex(x, y).abs()


@composite(torch.polar)
def polar(modulus: Tensor, phase: Tensor) -> Tensor:
    return torch.complex(modulus * phase.cos(), modulus * phase.sin())


@composite(*owns("sgn"), complex=True)
def unit(z: Tensor) -> Any:
    if not z.is_complex():
        return NotImplemented
    size = z.abs()
    return z / torch.where(size > 0, size, 1)
