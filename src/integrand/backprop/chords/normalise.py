"""Chords of normalisations, variances and norms.

    y = c/σ,   c = u − mean u (or u itself),   σ² = mean c² + ε

y σ = c gives Δy = (Δc − ȳ Δσ)/σ̄ and Δσ = mean(c̄ Δc)/σ̄. That would do, but it lets directions
other than that of Δc count as 1/σ̄, whereas on a straight way from c_a to c_b they count as

    Λ = ∫₀¹ dt/σ(t) = (1/σ̄) artanh(x)/x,      x = ℓ/(σ_a + σ_b),   ℓ² = mean (Δc)²

(the potential of a line segment, √ε being the distance of its line). With Π the projection onto Δc,

    Δy = [Λ (1 − Π) + Π/σ̄] Δc − ȳ mean(c̄ Δc)/σ̄²

is just as complete, and from c_a = 0, where σ is √ε and all of the normalisation happens within t <
√ε, it is the integral itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .elementwise import difference_quotient
from .products import owns, tail
from .rows import Chord, Context, Rows, outer
from .table import chord, composite, spelled

Order = float | str
"""Which norm: a number, or "fro"."""


def normalised(rows: Rows, u: Tensor, groups: int, eps: float, *, centred: bool = True) -> Tensor:
    """y for ``u`` cut into ``groups`` equal runs of elements, each of its own mean and size."""
    return rows.apply(_Normalised, u, groups, eps, centred)


class _NormalisedContext(Context):
    centred: bool


class _Normalised(Chord):
    @staticmethod
    def forward(
        ctx: _NormalisedContext, rows: Rows, u: Tensor, groups: int, eps: float, centred: bool
    ) -> Tensor:
        c = u.reshape(groups, -1)
        if centred:
            c = c - c.mean(1, keepdim=True)
        size = (c.square().mean(1, keepdim=True) + eps).sqrt_()
        c0, size0 = rows.previous(c, outer(u)), rows.previous(size, outer(u))
        step, total = c - c0, size + size0
        length = step.square().mean(1, keepdim=True).sqrt_()
        # (σ_a + σ_b)² − ℓ², where a difference would lose everything.
        nearness = 2 * (size * size0 + (c * c0).mean(1, keepdim=True) + eps).clamp_min_(eps)
        x = length / total
        more = x * tail(x, ((total + length) / nearness.sqrt()).log())
        y = c / size
        ctx.centred = centred
        ctx.save_for_backward(step, (c + c0), (y + c0 / size0), total, length, more)
        return y.view(u.shape)

    @staticmethod
    def backward(
        ctx: _NormalisedContext, gradient: Tensor
    ) -> tuple[None, Tensor, None, None, None]:
        step, c, y, total, length, more = ctx.saved_tensors
        g = gradient.reshape(c.shape)
        squared = length * length
        along = torch.where(squared > 0, (g * step).mean(1, keepdim=True) / squared, 0)
        back = g + more * (g - along * step)
        back -= c * ((g * y).mean(1, keepdim=True) / (2 * total))
        back *= 2 / total
        if ctx.centred:
            back -= back.mean(1, keepdim=True)
        return None, back.view(gradient.shape), None, None, None


@chord(*spelled("layer_norm"))
def layer_norm(
    rows: Rows,
    u: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
    **__: Any,
) -> Any:
    place = rows.place(u)
    if not rows.moves(u) or place is None or place[0] >= u.ndim - len(normalized_shape):
        return NotImplemented
    return _affine(normalised(rows, u, u.numel() // prod(normalized_shape), eps), weight, bias)


@chord(*spelled("rms_norm"))
def rms_norm(
    rows: Rows,
    u: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    place = rows.place(u)
    if not rows.moves(u) or place is None or place[0] >= u.ndim - len(normalized_shape):
        return NotImplemented
    eps = torch.finfo(u.dtype).eps if eps is None else eps
    return _affine(
        normalised(rows, u, u.numel() // prod(normalized_shape), eps, centred=False), weight, None
    )


@chord(*spelled("group_norm"))
def group_norm(
    rows: Rows,
    u: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    if not rows.moves(u) or outer(u) != 1 or len(u) % rows.count:
        return NotImplemented
    return _per_channel(normalised(rows, u, len(u) * num_groups, eps), weight, bias)


@chord(F.instance_norm)
def instance_norm(
    rows: Rows, u: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    if (
        not use_input_stats
        or not rows.moves(u)
        or outer(u) != 1
        or u.ndim < 3
        or len(u) % rows.count
    ):
        return NotImplemented
    return _per_channel(normalised(rows, u, len(u) * u.shape[1], eps), weight, bias)


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _per_channel(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (-1, *(1,) * (y.ndim - 2))
    return _affine(y, *(None if part is None else part.view(shape) for part in (weight, bias)))


# --- sizes and spreads ------------------------------------------------------------------------------------------------


class _VarianceContext(Context):
    count: float


class _Variance(Chord):
    """Δ Σ c²/m = Σ 2 c̄ Δc/m, m counting the elements less the correction."""

    @staticmethod
    def forward(
        ctx: _VarianceContext, rows: Rows, u: Tensor, dims: tuple[int, ...], correction: float
    ) -> Tensor:
        c = u - u.mean(dims, keepdim=True)
        ctx.count = max(0.0, prod(u.shape[d] for d in dims) - correction)
        ctx.save_for_backward(c + rows.previous(c, outer(u)))
        variance: Tensor = c.square().sum(dims, keepdim=True) / ctx.count
        return variance

    @staticmethod
    def backward(ctx: _VarianceContext, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        (twice,) = ctx.saved_tensors
        return None, twice * (gradient / ctx.count), None, None


@chord(*owns("var"))
def variance(rows: Rows, u: Tensor, *args: Any, **kwargs: Any) -> Any:
    return _spreading(_Variance, rows, u, *args, **kwargs)


def _spreading(function: type[Chord], rows: Rows, u: Tensor, *args: Any, **kwargs: Any) -> Any:
    dims, correction, keepdim = _spread(u, *args, **kwargs)
    place = rows.place(u)
    if not dims or place is None or place[0] in dims:
        return NotImplemented
    result = rows.apply(function, u, dims, correction)
    return result if keepdim else result.squeeze(dims)


def _spread(
    u: Tensor,
    dim: int | Sequence[int] | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[tuple[int, ...], float, bool]:
    if isinstance(dim, bool):  # var(unbiased), over everything
        return (), 0, False
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    dims = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(d % u.ndim for d in dims), correction, keepdim


class _Deviation(Chord):
    """Δσ = Δσ²/(σ_a + σ_b), and nothing between two that do not vary, as torch has it."""

    @staticmethod
    def forward(
        ctx: Context, rows: Rows, u: Tensor, dims: tuple[int, ...], correction: float
    ) -> Tensor:
        c = u - u.mean(dims, keepdim=True)
        y = u.std(dims, correction=correction, keepdim=True)
        count = max(0.0, prod(u.shape[d] for d in dims) - correction)
        total = y + rows.previous(y, rows.axes(u, y.shape))
        twice = c + rows.previous(c, outer(u))
        ctx.save_for_backward(torch.where(total == 0, 0, twice / (count * total)))
        return y

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return None, slope * gradient, None, None


@chord(*owns("std"))
def deviation(rows: Rows, u: Tensor, *args: Any, **kwargs: Any) -> Any:
    return _spreading(_Deviation, rows, u, *args, **kwargs)


@composite(torch.var_mean)
def variance_and_mean(u: Tensor, *args: Any, **kwargs: Any) -> Any:
    dims, _, keepdim = _spread(u, *args, **kwargs)
    return (u.var(*args, **kwargs), u.mean(dims, keepdim)) if dims else NotImplemented


@composite(torch.std_mean)
def deviation_and_mean(u: Tensor, *args: Any, **kwargs: Any) -> Any:
    dims, _, keepdim = _spread(u, *args, **kwargs)
    return (u.std(*args, **kwargs), u.mean(dims, keepdim)) if dims else NotImplemented


class _Length(Chord):
    """Δ‖u‖ = ū·Δu / mean ‖u‖, and nothing between two zeros."""

    @staticmethod
    def forward(ctx: Context, rows: Rows, u: Tensor, dims: tuple[int, ...]) -> Tensor:
        y = torch.linalg.vector_norm(u, 2, dims, keepdim=True)
        total = y + rows.previous(y, rows.axes(u, y.shape))
        ctx.save_for_backward(torch.where(total > 0, (u + rows.previous(u)) / total, 0))
        length: Tensor = y
        return length

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[None, Tensor, None]:
        (direction,) = ctx.saved_tensors
        return None, gradient * direction, None


@chord(torch.linalg.norm, complex=True)
def vector_or_matrix_norm(rows: Rows, u: Tensor, *args: Any, **kwargs: Any) -> Any:
    return (
        norm(rows, u, *args, **kwargs)
        if len(_order(u, *args, **kwargs)[1]) == 1
        else NotImplemented
    )


@chord(torch.linalg.vector_norm, *owns("norm"), complex=True)
def norm(rows: Rows, u: Tensor, *args: Any, **kwargs: Any) -> Any:
    order, dims, keepdim = _order(u, *args, **kwargs)
    place = rows.place(u)
    if not dims or place is None or place[0] in dims:
        return NotImplemented
    if order in (2, 2.0, "fro"):
        length = rows.apply(_Length, u, dims)
        return length if keepdim else length.squeeze(dims)
    if order in (1, 1.0):
        return (
            NotImplemented
            if u.is_complex()
            else difference_quotient(rows, torch.abs, u, straight=True).sum(dims, keepdim)
        )
    return NotImplemented


@composite(torch.linalg.matrix_norm)
def matrix_norm(
    u: Tensor,
    ord: Order = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Any:
    return (
        torch.linalg.vector_norm(u, 2, dim, keepdim)
        if ord == "fro" and dtype is None
        else NotImplemented
    )


def _order(
    u: Tensor,
    first: Order | None = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    ord: Order | None = None,
    p: Order | None = None,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> tuple[Order, tuple[int, ...], bool]:
    order = next((value for value in (ord, p, first) if value is not None), 2)
    dims = (
        ()
        if dim is None or dtype is not None or out is not None
        else (dim,)
        if isinstance(dim, int)
        else tuple(dim)
    )
    return order, tuple(d % u.ndim for d in dims), keepdim


@composite(F.normalize)
def normalize(
    u: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Any:
    return u / u.norm(p, dim, True).clamp_min(eps)


@composite(F.cosine_similarity)
def cosine_similarity(u: Tensor, v: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    u, v = torch.broadcast_tensors(u, v)  # type: ignore[no-untyped-call]
    u, v = (w / torch.linalg.vector_norm(w, 2, dim, True).clamp_min(eps) for w in (u, v))
    return (u * v).sum(dim)
