"""Chords of elementwise functions: the difference quotient.

    Δy = s Δu,    s = (f(u_b) − f(u_a)) / (u_b − u_a),    f′ halfway where the two are too close for a quotient

Work is done in pieces that stay in the processor's cache: a network's largest tensors are the
inputs of its activations, and every pass over one of them costs about what the activation itself
does.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ...core.torch_calls import Function
from .rows import Chord, Context, Rows, outer
from .table import TABLE, Operand, chord, spelled

Elementwise = Callable[[Tensor], Tensor]

_PIECE = 1 << 17  # numbers worked on at a time; about half a dozen such arrays are alive
_SHORT = 1 << 12  # rows of no more numbers than this are not cut, but taken some at a time

# Straight pieces of slope 0 and 1 (and −1): values on one of them differ exactly as their arguments
# do, so every quotient but 0/0 is right, and must be used, since a step may be small and go over a
# kink far from zero.
_STRAIGHT = ["relu", "relu6", "hardtanh", "threshold", "hardshrink", "abs", "absolute", "__abs__"]  # fmt: skip
_CURVED = [
    "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "softplus", "softsign", "logsigmoid",
    "sigmoid", "expit", "tanh", "softshrink", "tanhshrink", "logit", "prelu",
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "square",
    "erf", "erfc", "ndtr", "sin", "cos", "tan", "asin", "acos", "atan", "arcsin", "arccos", "arctan", "sinh", "cosh", "asinh", "acosh",
    "atanh", "arctanh", "sinc", "erfinv", "lgamma", "gammaln", "digamma", "psi", "i0", "i0e", "i1", "i1e", "entr", "erfcx", "log_ndtr",
    "ndtri", "arcsinh", "arccosh",
]  # fmt: skip


def _derivatives() -> dict[Function, Callable[..., Tensor]]:
    """(u, *what follows it) → f′, in one kernel, for the functions that large tensors meet most."""
    aten = torch.ops.aten

    def relu(u: Tensor) -> Tensor:
        slope: Tensor = aten.threshold_backward(torch.ones_like(u), u, 0)
        return slope

    def relu6(u: Tensor) -> Tensor:
        slope: Tensor = aten.hardtanh_backward(torch.ones_like(u), u, 0, 6)
        return slope

    def gelu(u: Tensor, approximate: str = "none") -> Tensor:
        slope: Tensor = aten.gelu_backward(torch.ones_like(u), u, approximate=approximate)
        return slope

    def silu(u: Tensor) -> Tensor:
        slope: Tensor = aten.silu_backward(torch.ones_like(u), u)
        return slope

    return {
        F.relu: relu,
        torch.relu: relu,
        Tensor.relu: relu,
        F.relu6: relu6,
        F.gelu: gelu,
        F.silu: silu,
    }


_DERIVATIVES = _derivatives()


def _register(name: str, *, straight: bool) -> None:
    for function in spelled(name):
        _add(function, function, straight=straight)
    for in_place in spelled(name + "_"):
        # Where a function and its in-place form differ in name only, the first can stand for both.
        plain = next(
            iter(spelled(name, owners=(F,) if in_place in vars(F).values() else (torch, F)))
        )
        _add(in_place, plain, straight=straight, always=True)


def _add(called: Function, plain: Function, *, straight: bool, always: bool = False) -> None:
    place = _place_of_inplace(plain)

    def make(rows: Rows, u: Operand, *args: Any, **kwargs: Any) -> Any:
        inplace = always or bool(kwargs.pop("inplace", False))
        if place is not None and len(args) > place:
            inplace, args = inplace or bool(args[place]), args[:place]
        return difference_quotient(
            rows, plain, u, *args, straight=straight, inplace=inplace, **kwargs
        )

    chord(called, complex=True)(make)


def _place_of_inplace(function: Function) -> int | None:
    """Where among the arguments after the first ``inplace`` is."""
    try:
        names = list(inspect.signature(function).parameters)
    except (ValueError, TypeError):
        return None
    return names.index("inplace") - 1 if "inplace" in names else None


def difference_quotient(
    rows: Rows,
    function: Function,
    u: Operand,
    *args: Any,
    straight: bool = False,
    inplace: bool = False,
    **kwargs: Any,
) -> Any:
    """function(u, ...) with chords for slopes; the rest are constants."""
    rest = (*args, *kwargs.values())
    if not rows.moves(u) or any(
        isinstance(argument, Tensor) and argument.requires_grad for argument in rest
    ):
        return NotImplemented
    if not u.is_complex() and any(
        isinstance(v, complex) or (isinstance(v, Tensor) and v.is_complex()) for v in rest
    ):
        return NotImplemented  # a slope is of the kind of what it is the slope of
    derivative = _DERIVATIVES.get(function)
    shaped = any(isinstance(argument, Tensor) and argument.ndim for argument in rest)

    def f(t: Tensor) -> Tensor:
        value: Tensor = function(t, *args, **kwargs)
        return value

    def df(t: Tensor) -> Tensor:
        return _derivative(f, t) if derivative is None else derivative(t, *args, **kwargs)

    return rows.apply(_Secant, u, f, df, straight, inplace, shaped)


def _derivative(function: Elementwise, u: Tensor) -> Tensor:
    # What this small graph keeps is nobody else's: a checkpoint around would take it for its own,
    # and run itself again before it is through.
    with torch.enable_grad(), saved_tensors_hooks(_as_it_is, _as_it_is):
        leaf = u.detach().requires_grad_()
        value = function(leaf)
        if value.is_complex():
            (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
        else:  # without a seed: torch imports sympy to check one
            (slope,) = torch.autograd.grad(value.sum(), leaf)
    return slope.conj()  # of a complex function torch gives the conjugate


def _as_it_is(saved: Tensor) -> Tensor:
    return saved


class _Secant(Chord):
    @staticmethod
    def forward(
        ctx: Context,
        rows: Rows,
        u: Tensor,
        f: Elementwise,
        df: Elementwise,
        straight: bool,
        inplace: bool,
        shaped: bool,
    ) -> Tensor:
        flat = None if shaped else _flat(rows, u)
        if flat is None:
            y = f(u)
            slope = torch.empty_like(y)
            _slopes(u, rows.previous(u), y, rows.previous(y, outer(u)), df, straight, slope)
        elif rows.first is not None and flat.shape[1] <= _SHORT:
            y = f(u)
            slope = torch.empty_like(u)
            _short_rows(rows.first, flat, _flat(rows, y), _flat(rows, slope), df, straight)
        else:
            y = u if inplace else torch.empty_like(u)
            slope = torch.empty_like(u)
            _by_columns(rows, flat, _flat(rows, y), _flat(rows, slope), f, df, straight)
        if inplace and y is not u:
            y = u.copy_(y)
        if inplace:
            ctx.mark_dirty(u)
        ctx.save_for_backward(slope)
        output: Tensor = y
        return output

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return None, gradient * slope.conj(), None, None, None, None, None


def _by_columns(
    rows: Rows,
    u: Tensor,
    to_y: Tensor | None,
    to_slope: Tensor | None,
    f: Elementwise,
    df: Elementwise,
    straight: bool,
) -> None:
    """f(u) and its slopes for rows (N, Q), some columns after the others; ``to_y`` may be ``u``."""
    assert to_y is not None  # in memory both are as u is
    assert to_slope is not None
    for piece in _pieces(u):
        ub, slope = u[:, piece], to_slope[:, piece]
        yb = f(ub)
        if rows.first is None:
            _slopes(ub, ub[rows.before], yb, yb[rows.before], df, straight, slope)
        else:
            _slopes(ub[1:], ub[:-1], yb[1:], yb[:-1], df, straight, slope[1:])
            slope.index_copy_(0, rows.first, df(ub.index_select(0, rows.first)))
        to_y[:, piece] = yb


def _short_rows(
    first: Tensor,
    u: Tensor,
    y: Tensor | None,
    slope: Tensor | None,
    df: Elementwise,
    straight: bool,
) -> None:
    """The slopes between ``u`` and y = f(u) for short rows (N, Q), some rows after the others; of
    each but the ``first`` of runs (m,) to the one before it."""
    assert y is not None  # in memory both are as u is
    assert slope is not None
    size = _PIECE // (2 * u.shape[1]) if u.device.type == "cpu" else len(u)
    for start in range(1, len(u), max(1, size)):
        here = slice(start, min(start + size, len(u)))
        before = slice(here.start - 1, here.stop - 1)
        _slopes(u[here], u[before], y[here], y[before], df, straight, slope[here])
    slope.index_copy_(0, first, df(u.index_select(0, first)))


def _slopes(
    u: Tensor,
    u0: Tensor,
    y: Tensor,
    y0: Tensor,
    df: Elementwise,
    straight: bool,
    out: Tensor,
) -> None:
    # Kernels that compare cost several times what arithmetic does, so they are kept for when they
    # are needed.
    step = u - u0
    torch.sub(y, y0, out=out).div_(step)
    if straight:
        if out.device.type != "cpu" or math.isnan(float(out.sum())):
            # 0/0: with a number this small, only where nothing moves does the derivative count.
            tiny = torch.finfo(u.dtype).smallest_normal
            torch.div((y - y0).add_(df(u), alpha=tiny), step.add_(tiny), out=out)
        return
    # Nearer than this the difference of two values is more rounding than function; halfway the
    # derivative is as good.
    middle = torch.lerp(u0, u, 0.5)
    apart = step.abs() if u.is_complex() else step.abs_()
    close = apart <= middle.abs().mul_(torch.finfo(u.dtype).eps ** 0.4)
    torch.where(close, df(middle), out, out=out)


def _flat(rows: Rows, u: Tensor) -> Tensor | None:
    """A view (N, Q) of whatever order the elements of a row are in; None if there is none."""
    if outer(u) != 1:
        return None
    if u.is_contiguous():
        return u.view(rows.count, -1)
    if (
        u.ndim == 4
        and len(u) % rows.count == 0
        and u.is_contiguous(memory_format=torch.channels_last)
    ):
        return u.permute(0, 2, 3, 1).view(rows.count, -1)
    return None


def _pieces(flat: Tensor) -> Iterator[slice]:
    """Columns, so many that their rows fit into the cache."""
    count, width = flat.shape
    # A kernel launched on a GPU has no cache to stay in.
    size = max(256, _PIECE // count) if flat.device.type == "cpu" else width
    for start in range(0, width, size):
        yield slice(start, start + size)


for _name in _STRAIGHT:
    _register(_name, straight=True)
for _name in _CURVED:
    _register(_name, straight=False)


@chord(*spelled("rrelu", owners=(F,)))
def rrelu(
    rows: Rows,
    u: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Any:
    return (
        NotImplemented
        if training
        else difference_quotient(rows, F.leaky_relu, u, (lower + upper) / 2, inplace=inplace)
    )


# Losses of a moving prediction against a fixed label, for targets that are one.
for _function in (
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
):

    def _loss(
        rows: Rows, u: Tensor, *args: Any, _function: Function = _function, **kwargs: Any
    ) -> Any:
        return (
            difference_quotient(rows, _function, u, *args, **kwargs)
            if kwargs.get("reduction") == "none"
            else NotImplemented
        )

    chord(_function)(_loss)

assert F.relu in TABLE
