"""Chords of selections: maxima, pooling, where and clamp.

    y = u[i], i the largest:     Δy = λ (u_b − u_a)[i_b] + (1 − λ) (u_b − u_a)[i_a],    λ = (Δy − Δu[i_a]) / (Δu[i_b] − Δu[i_a]) ∈ [0, 1]

λ exists because neither winner can be beaten in its own row. Where only two compete along a
straight way it is the part of the way that i_b leads. A choice by a condition that changes with the
rows (``where(u > 0, …)``) is the same with D = x − y: λ = D_b / (D_b − D_a), which is exact where
the condition changes as x and y meet. Where it is not, there is a jump, and the defect shows it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from .elementwise import difference_quotient
from .products import owns
from .rows import Chord, Context, Rows, outer
from .table import Operand, chord, composite

# --- the largest of several -------------------------------------------------------------------------------------------


class _GatheredContext(Context):
    dim: int
    shape: torch.Size


class _Gathered(Chord):
    """u at ``index`` along ``dim``, which is where the largest of some of its elements are."""

    @staticmethod
    def forward(ctx: _GatheredContext, rows: Rows, u: Tensor, index: Tensor, dim: int) -> Tensor:
        index0, u0 = rows.previous(index, rows.axes(u, index.shape)), rows.previous(u)
        y, y0 = u.gather(dim, index), u0.gather(dim, index0)
        change, change0 = y - u0.gather(dim, index), u.gather(dim, index0) - y0
        apart = change - change0
        part = ((y - y0 - change0) / apart).clamp_(0, 1)
        ctx.dim, ctx.shape = dim, u.shape
        ctx.save_for_backward(index, index0, torch.where(apart == 0, 0.5, part))
        return y

    @staticmethod
    def backward(ctx: _GatheredContext, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        index, index0, part = ctx.saved_tensors
        back = gradient.new_zeros(ctx.shape)
        share = gradient * part
        back.scatter_add_(ctx.dim, index, share)
        back.scatter_add_(ctx.dim, index0, gradient - share)
        return None, back, None, None


def _largest(rows: Rows, u: Tensor, dim: int, keepdim: bool) -> Any:
    """Values and places; None where rows themselves are compared."""
    dim %= u.ndim
    place = rows.place(u)
    if not rows.moves(u) or place is None or place[0] == dim:
        return None
    index = u.argmax(dim, keepdim=True)
    largest = rows.apply(_Gathered, u, index, dim)
    return (largest, index) if keepdim else (largest.squeeze(dim), index.squeeze(dim))


@chord(*owns("max"))
def maximum_along(
    rows: Rows,
    u: Tensor,
    dim: int | Tensor | None = None,
    keepdim: bool = False,
    *,
    other: Tensor | None = None,
) -> Any:
    other = dim if isinstance(dim, Tensor) and other is None else other
    if other is not None or isinstance(dim, Tensor):
        return NotImplemented if other is None else maximum(rows, u, other)
    result = None if dim is None else _largest(rows, u, dim, keepdim)
    return NotImplemented if result is None else torch.return_types.max(result)


@chord(*owns("min"))
def minimum_along(
    rows: Rows,
    u: Tensor,
    dim: int | Tensor | None = None,
    keepdim: bool = False,
    *,
    other: Tensor | None = None,
) -> Any:
    other = dim if isinstance(dim, Tensor) and other is None else other
    if other is not None or isinstance(dim, Tensor):
        return NotImplemented if other is None else minimum(rows, u, other)
    result = None if dim is None else _largest(rows, rows.with_rows_of(-u, u), dim, keepdim)
    return NotImplemented if result is None else torch.return_types.min((-result[0], result[1]))


@composite(*owns("amax"))
def amax(u: Tensor, dim: int | list[int] | tuple[int, ...] = (), keepdim: bool = False) -> Any:
    dims = [d % u.ndim for d in ((dim,) if isinstance(dim, int) else dim)]
    for d in sorted(dims, reverse=True):
        u = u.max(d, keepdim).values
    return u if dims else NotImplemented


@composite(*owns("amin"))
def amin(u: Tensor, dim: int | list[int] | tuple[int, ...] = (), keepdim: bool = False) -> Any:
    return -(-u).amax(dim, keepdim) if dim != () else NotImplemented


def _pool(name: str, axes: int) -> None:
    with_indices = getattr(F, f"{name}{axes}d_with_indices")

    def pool(rows: Rows, u: Tensor, *args: Any, **kwargs: Any) -> Any:
        returned = kwargs.pop("return_indices", False)
        if (
            not rows.moves(u)
            or outer(u) != 1
            or (args and isinstance(args[-1], bool) and len(args) > 5)
        ):
            return NotImplemented
        with torch.no_grad():
            y, index = with_indices(u, *args, **kwargs)
        output = rows.apply(_Gathered, u.flatten(-axes), index.flatten(-axes), u.ndim - axes).view(
            y.shape
        )
        return (output, index) if returned else output

    def pool_with_indices(rows: Rows, u: Tensor, *args: Any, **kwargs: Any) -> Any:
        return pool(rows, u, *args, **{**kwargs, "return_indices": True})

    chord(getattr(F, f"{name}{axes}d"), getattr(torch, f"{name}{axes}d", with_indices))(pool)
    chord(with_indices)(pool_with_indices)


for _axes in (1, 2, 3):
    _pool("max_pool", _axes)
    _pool("adaptive_max_pool", _axes)


# --- one of two -------------------------------------------------------------------------------------------------------


class _EitherContext(Context):
    shapes: list[torch.Size | None]
    """Of x and y, None for one that does not move."""


class _Either(Chord):
    """x where the condition holds and y elsewhere; either may be a constant."""

    @staticmethod
    def forward(
        ctx: _EitherContext, rows: Rows, holds: Tensor, holds0: Tensor, x: Operand, y: Operand
    ) -> Tensor:
        z = torch.where(holds, x, y)
        x0, y0 = (rows.previous(u) if _has_gradient(u) else u for u in (x, y))
        gap, gap0 = x - y, x0 - y0
        part = (torch.where(holds, gap, -gap0) / (gap - gap0)).clamp_(0, 1).nan_to_num_(0.5)
        ctx.shapes = [u.shape if _has_gradient(u) else None for u in (x, y)]
        ctx.save_for_backward(torch.where(holds == holds0, holds.to(part.dtype), part))
        return z

    @staticmethod
    def backward(
        ctx: _EitherContext, gradient: Tensor
    ) -> tuple[None, None, None, Tensor | None, Tensor | None]:
        (part,) = ctx.saved_tensors
        share = gradient * part
        x, y = ctx.shapes
        return (
            None,
            None,
            None,
            None if x is None else share.sum_to_size(x),
            None if y is None else (gradient - share).sum_to_size(y),
        )


def _has_gradient(u: Operand) -> TypeGuard[Tensor]:
    return isinstance(u, Tensor) and u.requires_grad


def _either(rows: Rows, holds: Tensor, x: Operand, y: Operand) -> Any:
    shape = torch.broadcast_shapes(*(u.shape for u in (holds, x, y) if isinstance(u, Tensor)))  # type: ignore[no-untyped-call]
    like = next((u for u in (x, y) if rows.moves(u) and u.ndim == len(shape)), None)
    if like is None or any(_has_gradient(u) and not rows.moves(u) for u in (x, y)):
        return NotImplemented
    holds = holds.expand(shape)
    holds0 = rows.previous(holds, rows.axes(like, shape))
    if holds0.device.type == "cpu" and torch.equal(holds, holds0):
        return NotImplemented  # it does not depend on the rows, as masks do not, and nothing is to be done
    return rows.apply(_Either, holds, holds0, x, y)


@chord(torch.where)
def where(
    rows: Rows, condition: Tensor, x: Operand | None = None, y: Operand | None = None, **kwargs: Any
) -> Any:
    x, y = kwargs.get("input", x), kwargs.get("other", y)
    return NotImplemented if x is None or y is None else _either(rows, condition, x, y)


@chord(Tensor.where)
def where_of(rows: Rows, x: Tensor, condition: Tensor, other: Operand) -> Any:
    return _either(rows, condition, x, other)


@chord(*owns("masked_fill"))
def masked_fill(rows: Rows, u: Tensor, mask: Tensor, value: Operand) -> Any:
    return _either(rows, mask, value, u)


@chord(*owns("maximum", "fmax"))
def maximum(rows: Rows, u: Tensor, other: Operand) -> Any:
    return _either(rows, u >= other, u, other)


@chord(*owns("minimum", "fmin"))
def minimum(rows: Rows, u: Tensor, other: Operand) -> Any:
    return _either(rows, u <= other, u, other)


def _clamp(name: str, low: int | None, high: int | None) -> None:
    """``low`` and ``high`` are the places of the bounds among the arguments."""

    def make(rows: Rows, u: Tensor, *args: Any, inplace: bool = False, **kwargs: Any) -> Any:
        bounds = [
            kwargs.get(key, args[place] if place is not None and len(args) > place else None)
            for key, place in (("min", low), ("max", high))
        ]
        result = difference_quotient(rows, torch.clamp, u, *bounds, straight=True, inplace=inplace)
        if result is NotImplemented and rows.moves(u) and not inplace:
            result = u if bounds[0] is None else maximum(rows, u, bounds[0])
            if result is not NotImplemented and bounds[1] is not None:
                result = minimum(rows, rows.with_rows_of(result, u), bounds[1])
        return result

    chord(*owns(name))(make)
    chord(*owns(name + "_"))(partial(make, inplace=True))


_clamp("clamp", 0, 1)
_clamp("clip", 0, 1)
_clamp("clamp_min", 0, None)
_clamp("clamp_max", None, 0)


@composite(F.glu)
def glu(u: Tensor, dim: int = -1) -> Tensor:
    value, gate = u.chunk(2, dim)
    return value * gate.sigmoid()
