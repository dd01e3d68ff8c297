"""Chords of softmax, log-softmax and logsumexp.

With d = log softmax(u), and s the logarithmic mean of the two softmaxes, s_i = Δy_i / Δd_i = (y_b −
y_a)/(log y_b − log y_a):

    Δy_i = s_i Δd_i,    Δd_i = Δu_i − ΔL,    ΔL = Σ_j s_j Δu_j / Σ_j s_j          L = logsumexp(u)

The last holds because Σ_i Δy_i = 0. So a chord of softmax is its Jacobian at s, diag(s) − s sᵀ/Σs,
and nothing in it can overflow, however far apart the rows are: s is at most 1, and Σs falls only
like 1/|Δd|. Entries at −∞ (attention masks) have s = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .rows import Chord, Context, Rows, outer
from .table import chord, composite, spelled


@chord(*spelled("softmax"))
def softmax(rows: Rows, u: Tensor, dim: int | None = None, *unused: Any, **kwargs: Any) -> Any:
    return _apply(_SoftmaxSecant, rows, u, dim, unused, kwargs)


@chord(*spelled("log_softmax"))
def log_softmax(rows: Rows, u: Tensor, dim: int | None = None, *unused: Any, **kwargs: Any) -> Any:
    return _apply(_LogSoftmaxSecant, rows, u, dim, unused, kwargs)


def _apply(
    function: type[Chord],
    rows: Rows,
    u: Tensor,
    dim: int | None,
    rest: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    dtype = kwargs.get("dtype") or next(
        (value for value in rest if isinstance(value, torch.dtype)), None
    )
    if dim is None or not set(kwargs) <= {"dtype", "_stacklevel"}:
        return NotImplemented
    return rows.apply(function, u if dtype is None else rows.with_rows_of(u.to(dtype), u), dim)


@chord(*spelled("logsumexp"))
def logsumexp(rows: Rows, u: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Any:
    dims = tuple(d % u.ndim for d in ([dim] if isinstance(dim, int) else dim))
    if len(dims) != 1:
        return NotImplemented
    result = rows.apply(_LogSumExp, u, dims[0])
    return result if keepdim else result.squeeze(dims[0])


@composite(F.softmin)
def softmin(
    u: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Any:
    return NotImplemented if dim is None else torch.softmax(-u, dim, dtype=dtype)


@composite(*spelled("logaddexp"))
def logaddexp(u: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(u, other), -1).logsumexp(-1)  # type: ignore[no-untyped-call]


@composite(F.cross_entropy)
def cross_entropy(
    u: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None,
    reduction: str = "mean", label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    if (
        label_smoothing
        or target.is_floating_point()
        or size_average is not None
        or reduce is not None
    ):
        return NotImplemented
    log = u.log_softmax(1 if u.ndim > 1 else 0)
    return F.nll_loss(log, target, weight, ignore_index=ignore_index, reduction=reduction)


def _weights(rows: Rows, u: Tensor, dim: int) -> Tensor:
    """s, the logarithmic mean of y_a and y_b."""
    log = torch.log_softmax(u, dim)
    before = rows.previous(log, outer(u))
    # In terms of the larger of the two, y (1 − exp(−|Δd|)) / |Δd|, no digits are lost where they
    # are close.
    gap = (log - before).abs_()
    larger = torch.maximum(log, before).exp_()
    ratio = torch.where(gap > 0, torch.expm1(-gap).neg_() / gap, 1)
    return torch.where(larger > 0, larger * ratio, 0)


class _AlongContext(Context):
    dim: int


class _SoftmaxSecant(Chord):
    @staticmethod
    def forward(ctx: _AlongContext, rows: Rows, u: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        ctx.save_for_backward(_weights(rows, u, dim))
        return torch.softmax(u, dim)

    @staticmethod
    def backward(ctx: _AlongContext, gradient: Tensor) -> tuple[None, Tensor, None]:
        (s,) = ctx.saved_tensors
        weighed = gradient * s
        mean = weighed.sum(ctx.dim, keepdim=True) / s.sum(ctx.dim, keepdim=True)
        return None, weighed.sub_(s * mean), None


class _LogSoftmaxSecant(Chord):
    @staticmethod
    def forward(ctx: _AlongContext, rows: Rows, u: Tensor, dim: int) -> Tensor:
        s = _weights(rows, u, dim)
        ctx.dim = dim
        ctx.save_for_backward(s / s.sum(dim, keepdim=True))
        return torch.log_softmax(u, dim)

    @staticmethod
    def backward(ctx: _AlongContext, gradient: Tensor) -> tuple[None, Tensor, None]:
        (w,) = ctx.saved_tensors
        return None, gradient - w * gradient.sum(ctx.dim, keepdim=True), None


class _LogSumExp(Chord):
    @staticmethod
    def forward(ctx: Context, rows: Rows, u: Tensor, dim: int) -> Tensor:
        s = _weights(rows, u, dim)
        ctx.save_for_backward(s / s.sum(dim, keepdim=True))
        return torch.logsumexp(u, dim, keepdim=True)

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[None, Tensor, None]:
        (w,) = ctx.saved_tensors
        return None, gradient * w, None
