"""Check of methods."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..core.segment import Evaluation
from ..core.shapes import describe, state_dtype, total
from ..fields import TorchField
from ..fields.views import CallCount
from ..integration.attribution import Attribution, ExplainerLike
from ..integration.cost import Cost
from ..model.row_independence import Answer
from ..targets import TargetLike
from .assertions import check_numbers, close, instance, say, untouched
from .problem import classes_of, tanh_network, waves


def check_method(
    method: ExplainerLike,
    *,
    model: nn.Module | None = None,
    x: Tensor | None = None,
    target: Tensor | None = None,
    complete: bool | None = None,
    gap: float = 0.1,
    tolerance: float = 1e-6,
) -> None:
    """A method (field, x (B, \\*s), \\*, watch=None) → ``Attribution``, of the inputs.

    * ``values`` are like the inputs and finite, of the integration's type (float32 at least),
      detached; ``output`` is F(x); weights (R, B) add up to one; ``change`` is that of F from where
      paths began, and ``residual`` what the map misses of it.
    * A method that claims completeness (``complete``; by default what the result says) misses no
      more than ``gap`` of the change.
    * The same call gives the same map. An example is explained as it is alone, about its own class
      of ``target``.
    * ``cost.gradients`` is how many rows the field was asked for with a gradient, and ``watch``
      sees the tally grow to that.
    * Nothing is left on the model: parameters, gradients, ``requires_grad``, training modes, hooks.
      Inputs are not changed, no global generator is drawn from, and autograd is on or off as it
      was.

    Args:
        method: what ``method=`` takes in ``ig.explain``: a value, not a name.
        model: a module in eval mode; by default a small network of six features and three classes.
            Give methods of images or words their own.
        x: inputs of the model.
        target: (B,) a class for each.
        complete: whether maps add up; by default what the result claims.
        gap: the largest part of the change that a complete map may miss.
        tolerance: how far apart maps may be that should be equal.
    """
    model = tanh_network() if model is None else model
    x = waves(3, 6, phase=0.3) if x is None else x
    target = classes_of(len(x)) if target is None else target
    before, autograd = _state(model), torch.is_grad_enabled()
    with untouched("The method", "the inputs", x):
        field = _Counted(model, target)
        with untouched("The method", "the inputs", x):
            attribution = method(field, x)
        evaluated = field.counted.gradients
        _check_result(attribution, TorchField(model, target), x)
        say(
            attribution.cost.gradients == evaluated,
            f"cost.gradients says {attribution.cost.gradients}, but the field was asked for {evaluated} rows with a gradient.",
        )
        _check_gap(attribution, complete, gap)
        again = _watched(method, TorchField(model, target), x, attribution.cost)
        close(
            again.values,
            attribution.values,
            "The same call gives another map; take randomness from a seed",
            tolerance,
        )
        for example in range(len(x)):
            alone = method(TorchField(model, int(target[example])), x[example : example + 1])
            message = (
                f"The map of example {example}, of class {int(target[example])}, is another one when it is explained alone: it depends on "
                "the other examples of its batch, or is about the class of another"
            )
            close(alone.values[0], attribution.values[example], message, tolerance)
    after = _state(model)
    for name, state in before.items():
        say(state == after[name], f"The method left the model changed: {name}.")
    say(torch.is_grad_enabled() == autograd, "The method left autograd switched.")


class _Counted(TorchField):
    """A model that counts the rows it evaluates, for every caller; its copies count with it."""

    def __init__(self, model: nn.Module, target: TargetLike) -> None:
        super().__init__(model, target)
        self.counted = CallCount()

    def evaluate_several(
        self, z: Tensor, index: Tensor, *arguments: Any, **options: Any
    ) -> list[Evaluation]:
        if options.get("gradient", True):
            self.counted.gradients += len(z)
        return super().evaluate_several(z, index, *arguments, **options)

    def again_several(self, z: Tensor, index: Tensor, *arguments: Any) -> Answer:
        self.counted.values += len(z)
        return super().again_several(z, index, *arguments)


def _check_result(attribution: object, field: TorchField, x: Tensor) -> None:
    attribution = instance(
        attribution,
        Attribution,
        f"The method returned a {type(attribution).__name__}, not an ig.Attribution.",
    )
    wide = x.to(state_dtype(x.dtype))
    check_numbers(attribution.values, tuple(x.shape), wide, "Values", "(B, *s), as the inputs")
    say(not attribution.values.requires_grad, "Values must be detached.")
    say(bool(torch.isfinite(attribution.values).all()), "Values hold NaN or infinity.")
    close(attribution.output, field.value(x).to(wide), "output is not F(x)", 1e-6)
    references, batch = attribution.weights.shape[0], len(x)
    for name in ("weights", "change"):
        check_numbers(
            getattr(attribution, name), (references, batch), wide, f"Its {name}", "(R, B)"
        )
    for name in ("residual", "error"):
        check_numbers(getattr(attribution, name), (batch,), wide, f"Numbers of {name}", "(B,)")
    say(
        attribution.converged.shape == (batch,) and attribution.converged.dtype == torch.bool,
        f"converged is {attribution.converged.dtype} of shape {describe(attribution.converged.shape)}; it is one verdict for each example.",
    )
    close(
        attribution.weights.sum(0),
        torch.ones_like(attribution.residual),
        "The weights of an example do not add up to one",
        1e-6,
    )
    if attribution.baselines is not None:
        change = attribution.output - field.value(attribution.baselines, 2).to(wide)
        close(
            attribution.change,
            change,
            "change is not that of F between where paths began (baselines) and x",
            1e-6,
        )
    missed = (attribution.weights * attribution.change).sum(0) - total(attribution.values, 1)
    close(
        attribution.residual,
        missed,
        "residual is not the change of F minus the sum of the map",
        1e-6,
    )


def _check_gap(attribution: Attribution, complete: bool | None, most: float) -> None:
    if attribution.claims_completeness if complete is None else complete:
        change = (attribution.weights * attribution.change).sum(0).abs()
        floor = 1e-6 * torch.maximum(attribution.output.abs(), total(attribution.values.abs(), 1))
        missed = attribution.residual.abs() / torch.maximum(change, floor).clamp_min(1e-30)
        worst = int(missed.argmax())
        say(
            bool((missed <= most).all()),
            f"The map of example {worst} misses {float(missed[worst]):.3g} of the change of F that it should add up to. A method that is not "
            "complete by design says so: complete=False on its rule, or on the method.",
        )


def _watched(method: ExplainerLike, field: TorchField, x: Tensor, cost: Cost) -> Attribution:
    """The method once more, with a ``watch``."""
    counts: list[int] = []
    try:
        attribution: Attribution = method(
            field, x, watch=lambda tally: counts.append(tally.gradients)
        )
    except TypeError as error:
        if "watch" not in str(error):
            raise
        raise AssertionError(
            "The method takes no watch=, which progress bars are shown by: (field, x, *, watch=None)."
        ) from error
    most = max(counts, default=0)
    say(
        most == cost.gradients,
        f"watch was shown {most} gradients at most, and cost.gradients says {cost.gradients}: hand watch on to what asks the field.",
    )
    return attribution


def _state(model: nn.Module) -> dict[str, Any]:
    """What a method may not leave changed, by name."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = list(model.modules())
    return {
        "parameters and buffers": {
            name: tensor.detach().cpu().numpy().tobytes()
            for name, tensor in model.state_dict().items()
        },
        "requires_grad of parameters": [p.requires_grad for p in model.parameters()],
        "gradients of parameters": [
            None if p.grad is None else p.grad.tolist() for p in model.parameters()
        ],
        "training modes": [module.training for module in modules],
        "hooks": [[len(getattr(module, name)) for name in hooks] for module in modules],
    }
