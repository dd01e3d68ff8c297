"""The predicted class, and decision functions: scalars that cross zero where the decision changes.

    decision(z) > 0 on one side, < 0 on the other        by default the lead of the predicted class
                                                         over the best other

Attacks walk until they are on the other side; the boundary is where the decision is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..core.shapes import describe
from ..errors import TargetError
from ..targets import Custom, Target, TargetLike, as_target, output_tensor
from .base import Field, outputs_of


def class_outputs(field: Field, x: Tensor, who: str) -> Tensor:
    """The model's outputs (B, C), C ≥ 2, for the inputs x; asked for once."""
    advice = f"{who} looks for another class: for a model without classes give a decision function instead, "
    advice += "outputs -> one number per row that crosses zero where the decision changes."
    try:
        outputs = outputs_of(field, x)
    except TargetError as error:
        raise TargetError(f"{error} {advice}") from error
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise TargetError(
            f"One output of the model has shape {describe(outputs.shape[1:])}. {advice}"
        )
    return outputs


def as_decision(value: TargetLike) -> Target:
    """A target or a function of the outputs that crosses zero where the decision changes, the same
    for every example."""
    decision = (
        value
        if isinstance(value, Target) or not callable(value)
        else Custom(partial(_of_tensor, value))
    )
    decision = as_target(decision)
    if decision.per_example is not None:
        raise TargetError(
            f"{type(decision).__name__} holds {decision.per_example} for each example of a batch; a decision function is the same for every "
            "example. Give a function of the outputs, outputs -> (N,)."
        )
    return decision


def _of_tensor(function: Callable[[Tensor], Tensor], outputs: object) -> Tensor:
    return function(output_tensor(outputs))


def side_of(height: Tensor) -> Tensor:
    """On which side of zero (…): 1 above or on it, −1 below."""
    return torch.where(height < 0, -1.0, 1.0).to(height)
