"""What every field promises."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import NoShare
from ..field import Field, Gathered
from ..segment import polyline
from ..shapes import describe, first_alike, total
from .assertions import as_called, close, say
from .problem import waves


def check_field(field: Field, x: Tensor, *, tolerance: float = 1e-4, differentiable: bool = True) -> None:
    """A field, on inputs x (B, \\*s) of its own kind, at least two.

    * ``evaluate(z (N, \\*s), index (N,))`` gives N values and N gradients like z, detached; ``gradient=False`` the same values.
    * Rows do not interact: alone, among others, in another order, with another example's index in between — the same numbers.
    * The gradient is the slope of the value: finite differences along three directions agree to ``tolerance``.
    * ``share``, where there is one, is exact: it adds up to the change of F.
    * Examples with the same number in ``questions`` are one function: a row has one value, whichever of them it is given to.
    * Nothing given is changed. ``differentiable=False`` for fields that only know their share.
    """
    say(len(x) >= 2, "Give check_field at least two examples.")
    given = x.clone()
    index = torch.arange(len(x), device=x.device)
    with as_called(field):
        if differentiable:
            _check_slopes(field, x, index, tolerance)
        value = field.value(x)
        say(
            value.shape == (len(x),),
            f"Values of {len(x)} rows have shape {describe(value.shape)}; they must be {len(x)}.",
        )
        _check_share(field, x, value, tolerance)
        asked = field.questions(index)
        say(asked.shape == index.shape, f"questions numbers {describe(asked.shape)} of {len(x)} examples.")
        if differentiable:
            first = first_alike(asked)
            close(field.rows(x, first, gradient=False).value, value, "Examples of one question have several values")
    say(torch.equal(x, given), "The field changed the rows it was given.")


def _check_slopes(field: Field, x: Tensor, index: Tensor, tolerance: float) -> None:
    found = field.evaluate(x, index)
    count = len(x)
    say(
        found.value.shape == (count,),
        f"Values of {count} rows have shape {describe(found.value.shape)}; they must be {count}.",
    )
    say(
        found.gradient.shape == x.shape,
        f"Gradients have shape {describe(found.gradient.shape)}; like the rows they must be {describe(x.shape)}.",
    )
    say(not (found.value.requires_grad or found.gradient.requires_grad), "Values and gradients must be detached.")
    say(
        bool(torch.isfinite(found.value).all() and torch.isfinite(found.gradient).all()),
        "The field holds NaN or infinity.",
    )
    loose = 1e-10 if x.dtype == torch.float64 else 1e-4
    without = field.evaluate(x, index, gradient=False).value
    close(without, found.value, "With gradient=False the values are others", loose)
    order = index.flip(0)
    turned = field.evaluate(x[order], order)
    close(turned.value, found.value[order], "Values depend on the order of rows", loose)
    close(turned.gradient, found.gradient[order], "Gradients depend on the order of rows", loose)
    alone = field.evaluate(x[:1], index[:1])
    close(alone.value, found.value[:1], "The value of a row depends on the rows beside it", loose)
    close(alone.gradient, found.gradient[:1], "The gradient of a row depends on the rows beside it", loose)
    twice = Gathered(field, index[:1].expand(3)).value(x[:1].expand(3, *x.shape[1:]))
    close(twice, found.value[:1].expand(3), "The same row of the same example has several values", loose)
    step = 1e-5 if x.dtype == torch.float64 else 1e-2
    for phase in (0.0, 1.0, 2.0):
        way = waves(*x.shape[1:], phase=phase).to(x)
        way = way / way.norm()
        slope = (field.evaluate(x + step * way, index).value - field.evaluate(x - step * way, index).value) / (2 * step)
        close(total(found.gradient * way, 1), slope, "The gradient is not the slope of the value", tolerance)


def _check_share(field: Field, x: Tensor, value: Tensor, tolerance: float) -> None:
    start = x.flip(0)
    segment = polyline(torch.stack([start, x])[:, None])
    try:
        share = field.share(segment)
    except NoShare:
        return
    say(
        share.shape == segment.start.shape,
        f"The share has shape {describe(share.shape)}; for this segment it must be {describe(segment.start.shape)} (K, R, B, *s).",
    )
    close(total(share, 3)[0, 0], value - field.value(start), "Exact shares do not add up to the change of F", tolerance)
