"""Check of fields."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.segment import Evaluation, Segment, polyline
from ..core.shapes import describe, first_alike, flattened, total
from ..errors import NoShare
from ..fields import Field, Subset
from .assertions import as_called, check_numbers, close, say, untouched
from .problem import waves

_MOVES = 8
"""Up to so many features are moved one at a time."""


def check_field(
    field: Field, x: Tensor, *, tolerance: float = 1e-4, differentiable: bool = True
) -> None:
    """A field, on inputs x (B, \\*s) of its own kind, at least two.

    * ``evaluate(z (N, \\*s), index (N,))`` gives N values and N gradients like z, detached;
      ``gradient=False`` the same values.
    * Rows do not interact: alone, among others, in another order, with another example's index in
      between — the same numbers.
    * The gradient is the slope of the value: finite differences along three directions agree to
      ``tolerance``.
    * ``share``, where there is one, is exact: it adds up to the change of F, also of the halves of
      a segment; on a segment along which one feature moves, that one gets all of it; on a short one
      it is the step times the gradient.
    * Examples with the same number in ``questions`` are one function: a row has one value,
      whichever of them it is given to.
    * Nothing given is changed, and no global generator is drawn from. ``differentiable=False`` for
      fields that only know their share.

    Args:
        field: what is checked.
        x: (B, \\*s) inputs of its own kind, two at least.
        tolerance: how far finite differences may be from the gradient, relatively.
        differentiable: False for fields that only know their share.

    Raises:
        AssertionError: with what was promised, and what came instead.
    """
    say(len(x) >= 2, "Give check_field at least two examples.")
    index = torch.arange(len(x), device=x.device)
    with as_called(field), untouched("The field", "the rows it was given", x):
        if differentiable:
            _check_evaluation(field.evaluate(x, index), x)
        _check_values(field, x, index)
        if differentiable:
            _check_slopes(field, x, index, tolerance)
        value = field.value(x)
        _check_share(field, x, value, tolerance, differentiable=differentiable)
        questions = field.questions(index)
        say(
            questions.shape == index.shape,
            f"questions numbers {describe(questions.shape)} of {len(x)} examples.",
        )
        first = first_alike(questions)
        close(
            field.rows(x, first, gradient=False).value,
            value,
            "Examples of one question have several values",
        )


def _loose(x: Tensor) -> float:
    return 1e-10 if x.dtype == torch.float64 else 1e-4


def _check_evaluation(evaluation: Evaluation, x: Tensor) -> None:
    """Shapes, types and finite numbers of an evaluation with gradients."""
    check_numbers(evaluation.value, (len(x),), x, f"Values of {len(x)} rows", "(N,)")
    say(
        evaluation.gradient.shape == x.shape,
        f"Gradients have shape {describe(evaluation.gradient.shape)}; like the rows they must be {describe(x.shape)}.",
    )
    say(
        not (evaluation.value.requires_grad or evaluation.gradient.requires_grad),
        "Values and gradients must be detached.",
    )
    say(
        bool(torch.isfinite(evaluation.value).all() and torch.isfinite(evaluation.gradient).all()),
        "The field holds NaN or infinity.",
    )


def _check_values(field: Field, x: Tensor, index: Tensor) -> None:
    """Values alone, as fields without a gradient are asked for them, too."""
    value = field.evaluate(x, index, gradient=False).value
    check_numbers(value, (len(x),), x, f"Values of {len(x)} rows", "(N,)")
    say(
        not value.requires_grad,
        "Values must be detached, also those asked for with gradient=False.",
    )
    say(bool(torch.isfinite(value).all()), "The field holds NaN or infinity.")
    loose, order = _loose(x), index.flip(0)
    turned = field.evaluate(x[order], order, gradient=False).value
    close(turned, value[order], "Values depend on the order of rows", loose)
    alone = torch.cat(
        [
            field.evaluate(x[b : b + 1], index[b : b + 1], gradient=False).value
            for b in range(len(x))
        ]
    )
    close(alone, value, "The value of a row depends on the rows beside it", loose)
    twice = Subset(field, index[:1].expand(3)).value(x[:1].expand(3, *x.shape[1:]))
    close(twice, value[:1].expand(3), "The same row of the same example has several values", loose)
    mixed = field.evaluate(x[:1].expand_as(x), index, gradient=False).value
    by_one = torch.cat(
        [field.evaluate(x[:1], index[b : b + 1], gradient=False).value for b in range(len(x))]
    )
    close(mixed, by_one, "The value of a row depends on whose the rows beside it are", loose)


def _check_slopes(field: Field, x: Tensor, index: Tensor, tolerance: float) -> None:
    evaluation = field.evaluate(x, index)
    loose, order = _loose(x), index.flip(0)
    without = field.evaluate(x, index, gradient=False).value
    close(without, evaluation.value, "With gradient=False the values are others", loose)
    turned = field.evaluate(x[order], order)
    close(
        turned.gradient, evaluation.gradient[order], "Gradients depend on the order of rows", loose
    )
    alone = field.evaluate(x[:1], index[:1])
    close(
        alone.gradient,
        evaluation.gradient[:1],
        "The gradient of a row depends on the rows beside it",
        loose,
    )
    step = _step(x)
    for phase in (0.0, 1.0, 2.0):
        direction = _direction(x, phase)
        slope = (
            field.evaluate(x + step * direction, index).value
            - field.evaluate(x - step * direction, index).value
        ) / (2 * step)
        close(
            total(evaluation.gradient * direction, 1),
            slope,
            "The gradient is not the slope of the value",
            tolerance,
        )


def _step(x: Tensor) -> float:
    """The step of finite differences."""
    return 1e-5 if x.dtype == torch.float64 else 1e-2


def _direction(x: Tensor, phase: float) -> Tensor:
    """A direction (\\*s)."""
    direction: Tensor = waves(*x.shape[1:], phase=phase).to(x)
    return direction.div(direction.norm())


def _check_share(
    field: Field, x: Tensor, value: Tensor, tolerance: float, *, differentiable: bool
) -> None:
    start = x.flip(0)
    segment = _straight(start, x)
    try:
        share = field.share(segment)
    except NoShare:
        return
    say(
        share.shape == segment.start.shape,
        f"The share has shape {describe(share.shape)}; for this segment it must be {describe(segment.start.shape)} (K, R, B, *s).",
    )
    close(
        total(share, 3)[0, 0],
        value - field.value(start),
        "Exact shares do not add up to the change of F",
        tolerance,
    )
    _check_credit(field, x, tolerance)
    # Halves at a point that is nobody's threshold.
    between = start + 0.4871 * (x - start)
    halves = field.share(polyline(torch.stack([start, between, x])[:, None])).sum(0)
    close(
        halves,
        share[0],
        "The shares of two halves of a segment are not those of the whole",
        tolerance,
    )
    if differentiable:
        step = _step(x) * _direction(x, 1.0)
        short = field.share(_straight(x - step, x + step))[0, 0]
        close(
            short / (2 * _step(x)),
            field.gradient(x) * _direction(x, 1.0),
            "On a short segment the share is not the step times the gradient, so features get what others have done",
            tolerance,
        )


def _straight(start: Tensor, end: Tensor) -> Segment:
    return polyline(torch.stack([start, end])[:, None])


def _check_credit(field: Field, x: Tensor, tolerance: float) -> None:
    """On segments along which one feature moves, to what it is in another example: it alone gets
    the change of F."""
    flat = flattened(x, 1)
    features = flat.shape[1]
    for feature in torch.linspace(0, features - 1, min(features, _MOVES)).long().tolist():
        moved = flat.clone()
        moved[:, feature] = flat[:, feature].roll(1, 0)
        end = moved.reshape(x.shape)
        share = flattened(field.share(_straight(x, end))[0, 0], 1)
        change = field.value(end) - field.value(x)
        rest = share.clone()
        rest[:, feature] = 0
        wrong = int(rest.abs().amax(0).argmax())
        close(
            rest,
            torch.zeros_like(rest),
            f"Along a segment that moves feature {feature} alone, feature {wrong} is credited for what it did not do",
            tolerance,
        )
        message = (
            f"Along a segment that moves feature {feature} alone, its share is not the change of F"
        )
        close(share[:, feature], change, message, tolerance)
