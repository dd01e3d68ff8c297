"""Check of targets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.shapes import flattened, total
from ..model.autograd import gradients
from ..targets import Target, TargetLike, as_target
from .assertions import check_numbers, close, say, untouched
from .problem import waves

_STEP = 1e-5


def check_target(
    target: TargetLike, outputs: Tensor | None = None, *, differentiable: bool = True
) -> None:
    """A target (outputs for N rows, index (N,)) → N numbers; a callable of outputs is one, too.

    * One finite real number for each row, of the type of the outputs and on their device.
    * A row's number depends on its own outputs and on the example ``index`` says it belongs to, and
      on nothing else: not on the rows beside it, their order or their number.
    * ``at(index)`` is the target of a batch made of these examples: what it says of row i is what
      the target says with ``index[i]``.
    * ``score()`` is a target that keeps the same promises, and belongs to the same examples after
      ``at``.
    * A slope leads back to the outputs, and is that of the value (``differentiable=False`` for
      targets that only measure).
    * The outputs are not changed, and no global generator is drawn from.

    Args:
        target: the target, or whatever ``target=`` takes.
        outputs: of a model (B, …) in float64, one row for each example; by default three examples
            of five classes. Give a target of a layer (``site``) or of another kind of output its
            own.
        differentiable: whether the target has a slope.
    """
    target = as_target(target)
    outputs = waves(3, 5, phase=0.7) if outputs is None else outputs
    say(len(outputs) >= 2, "Give check_target the outputs of two examples at least.")
    with untouched("The target", "the outputs", outputs):
        with gradients(False):
            with untouched("The target", "the outputs", outputs):
                target(outputs, _every(outputs))
            _check_rows(target, outputs, "The target")
            _check_at(target, outputs, "at(index)")
            score = target.score()
            say(
                isinstance(score, Target),
                f"score() returned a {type(score).__name__}, not a target.",
            )
            _check_rows(score, outputs, "score()")
            _check_at(score, outputs, "score().at(index)")
            _check_scores_at(target, outputs)
        if differentiable:
            _check_slope(target, outputs)


def _every(outputs: Tensor) -> Tensor:
    return torch.arange(len(outputs), device=outputs.device)


def _check_rows(target: Target, outputs: Tensor, who: str) -> None:
    index = _every(outputs)
    numbers = target(outputs, index)
    check_numbers(
        numbers, (len(outputs),), outputs, f"{who}: its numbers", "(N,), one for each row"
    )
    say(bool(torch.isfinite(numbers).all()), f"{who} holds NaN or infinity for finite outputs.")
    close(target(outputs, index), numbers, f"{who} says something else when it is asked again")
    order = index.flip(0)
    close(
        target(outputs[order], order), numbers[order], f"{who}: numbers depend on the order of rows"
    )
    for row in range(len(outputs)):
        alone = slice(row, row + 1)
        message = f"{who}: the number of row {row} depends on the rows beside it"
        close(target(outputs[alone], index[alone]), numbers[alone], message)
    # Several rows of one example, as nodes of a path are.
    for example in range(len(outputs)):
        same_example = torch.full_like(index, example)
        one_by_one = torch.cat(
            [target(outputs[r : r + 1], same_example[:1]) for r in range(len(outputs))]
        )
        message = (
            f"{who}: with all rows of example {example}, numbers are others than for each row alone"
        )
        close(target(outputs, same_example), one_by_one, message)


def _some(outputs: Tensor) -> Tensor:
    """Some of the examples, one of them twice and none in its place."""
    return torch.tensor([len(outputs) - 1, 0, 0], device=outputs.device)


def _check_at(target: Target, outputs: Tensor, who: str) -> None:
    examples = _some(outputs)
    place = torch.arange(len(examples), device=outputs.device)
    message = f"{who} asks another question than the index of these examples does"
    close(
        target.at(examples)(outputs[examples], place), target(outputs[examples], examples), message
    )
    # Rows of a batch of one, which is what is left when examples are explained one at a time.
    last = examples[:1]
    close(
        target.at(last)(outputs, torch.zeros_like(_every(outputs))),
        target(outputs, last.expand(len(outputs))),
        message,
    )


def _check_scores_at(target: Target, outputs: Tensor) -> None:
    examples = _some(outputs)
    place = torch.arange(len(examples), device=outputs.device)
    close(
        target.at(examples).score()(outputs[examples], place),
        target.score().at(examples)(outputs[examples], place),
        "at(index).score() and score().at(index) ask different questions",
    )


def _check_slope(target: Target, outputs: Tensor) -> None:
    outputs = outputs.double()  # differences of float32 numbers tell no slope
    index = _every(outputs)
    with gradients(True):
        leaf = outputs.clone().requires_grad_()
        numbers = target(leaf, index)
        say(
            numbers.requires_grad,
            "No slope leads from the target to the outputs: it was detached, or made of whole numbers. If it only measures, "
            "say differentiable=False.",
        )
        (slope,) = torch.autograd.grad(numbers.sum(), leaf)
    with gradients(False):
        close(
            numbers.detach(),
            target(outputs, index),
            "With autograd on the target says something else",
        )
        for phase in (0.0, 1.0):
            direction = waves(*outputs.shape, phase=phase).to(outputs)
            ahead, behind = (target(outputs + sign * _STEP * direction, index) for sign in (1, -1))
            expected = (ahead - behind) / (2 * _STEP)
            close(
                total(flattened(slope * direction, 1), 1),
                expected,
                "The target's slope is not that of its value",
                1e-6,
            )
