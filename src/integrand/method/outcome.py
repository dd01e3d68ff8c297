"""What every kind of method does before and after its own work: inputs made ready, results measured, warnings given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..attribution import INCOMPLETE, Attribution
from ..baseline.base import labels
from ..cost import Cost
from ..errors import FitnessWarning, IncompleteWarning, IntegerInput, warn
from ..field import Field, Metered, Narrowed
from ..field.memory import Memory
from ..field.modes import gradients
from ..field.wrap import Tally
from ..shapes import plain, state_dtype, total
from ..walk import Walked
from ..weighting import Weighed

Watch = Callable[[Tally], None]


def opened(field: Field, x: Tensor, watch: Watch | None) -> tuple[Tensor, Metered]:
    """Inputs in the type of the integration, and the field metered and asked in the type they came in."""
    if not x.is_floating_point():
        raise IntegerInput(
            f"The input holds {str(x.dtype).removeprefix('torch.')}, which has no gradient: convert it with .float()."
        )
    state = state_dtype(x.dtype)
    inner = field if state == x.dtype else Narrowed(field, x.dtype)
    known = field.memory.outputs if field.memory is not None and field.memory.x is x else None
    with gradients(False):
        x = plain(x).to(state)
        return x, Metered(inner, watch=watch, memory=Memory(x, known))


def weighed_sum(weights: Tensor, shares: Tensor) -> Tensor:
    """Σ_r w_r · share_r, without a weighted copy of every share."""
    return torch.einsum("rb,rb...->b...", weights, shares)


def result(
    method: Any,
    field: Field,
    values: Tensor,
    x: Tensor,
    walked: Walked,
    weighed: Weighed,
    references: Tensor,
    cost: Cost,
) -> Attribution:
    """The attribution, its completeness measured and its warnings given."""
    residual = (weighed.weights * walked.change).sum(0) - total(values, 1)
    made = Attribution(
        values=values,
        inputs=x,
        output=walked.output,
        weights=weighed.weights,
        change=walked.change,
        residual=residual,
        error=_relative_error(weighed.weights, walked.error, values),
        converged=torch.zeros_like(residual, dtype=torch.bool),
        shares=walked.shares if walked.shares.numel() else None,
        baselines=walked.begin if walked.begin.numel() else None,
        fitness=weighed.fitness,
        criterion=weighed.criterion,
        reasons=weighed.reasons,
        names=labels(core(method).baseline, len(references)),
        notes=walked.notes,
        frames=walked.frames,
        cost=cost,
        method=method,
    )
    made = judged(made, method)
    # Paths that choose their own start are judged by that, where it is kept.
    _warn(made, field, core(method), _tolerance(method), walked.begin if walked.begin.numel() else references)
    return made


def judged(made: Attribution, method: Any) -> Attribution:
    """The attribution with its verdict: the map, not its parts, is held against the tolerance; without one, against the change of F.

    An error that is not known does not meet a tolerance.
    """
    tol = _tolerance(method)
    # What each reference or piece is wrong by says little alone: small ones may be, and large ones may cancel.
    met = made.gap <= INCOMPLETE if tol is None else made.error <= tol
    return dataclasses.replace(made, converged=met)


def _relative_error(weights: Tensor, error: Tensor, values: Tensor) -> Tensor:
    """Errors (R, B) of independent references as that of their weighted sum (B,), relative to it."""
    counted = torch.where(weights == 0, 0, weights * error)  # what does not count need not be known
    return counted.square().sum(0).sqrt() / total(values.square(), 1).sqrt().clamp_min(torch.finfo(values.dtype).tiny)


def core(method: Any) -> Any:
    """The innermost of methods around a method: the one with a baseline, a path and a rule."""
    while (inner := inside(method)) is not None:
        method = inner
    return method


def inside(method: Any) -> Any:
    """What a wrapper wraps; None for what is no wrapper."""
    inner = getattr(method, "method", None)
    return inner if callable(inner) else None


def _tolerance(method: Any) -> float | None:
    """The relative error that was asked for, of the draws or of the rule; None where none was."""
    own: float | None = getattr(method, "tol", None)
    return getattr(core(method).rule, "tol", None) if own is None else own


def _warn(made: Attribution, field: Field, method: Any, tol: float | None, starts: Tensor) -> None:
    missed = ~made.converged
    if tol is not None and bool(missed.any()):
        worst = int(made.error.nan_to_num(torch.inf).masked_fill(~missed, -1).argmax())
        warn(
            f"{int(missed.sum())} of {len(made)} maps did not reach their tolerance; the worst has an estimated relative "
            f"error of {float(made.error[worst]):.2g}. "
            f"{_trouble(made, field, starts, worst) or _more(made.method)}",
            IncompleteWarning,
        )
    completes = field.conservative and getattr(method.rule, "complete", True)
    if completes and bool((made.gap > INCOMPLETE).any()):
        worst = int(made.gap.argmax())
        change = float((made.output - made.base)[worst])
        warn(
            f"{int((made.gap > INCOMPLETE).sum())} of {len(made)} maps miss more than a tenth of the change they should explain: "
            f"example {worst} adds up to {change - float(made.residual[worst]):.3g} where F changes by {change:.3g}. "
            f"{_trouble(made, field, starts, worst) or _advice(method)}",
            IncompleteWarning,
        )
    for example, reason in enumerate(made.reasons):
        if reason:
            warn(f"Fitness says nothing about example {example}: {reason}.", FitnessWarning)


def _trouble(made: Attribution, field: Field, starts: Tensor, example: int) -> str | None:
    """What is wrong with the baseline that counts most for an example, as far as the model tells."""
    r = int(made.weights[:, example].argmax())
    index = torch.tensor([example], device=made.inputs.device)
    return field.trouble(starts[r, example][None], made.inputs[example][None], index)


def advice(method: Any) -> str:
    """What to do about maps that miss their tolerance, or what they should add up to."""
    return _advice(core(method)) if _tolerance(method) is None else _more(method)


def _more(method: Any) -> str:
    if hasattr(method, "tol"):
        return "Allow more draws (draws=), or ask for less."
    if getattr(core(method).path, "gradients", 0):
        return "Its steps are integrated one by one: ask more of each (a smaller tol), or allow more gradients (max_gradients)."
    return "Allow more gradients (max_gradients), or a baseline that is less degenerate."


def _advice(method: Any) -> str:
    if getattr(method.path, "gradients", 0):
        return "Integrate each step with more nodes (rule=ig.rules.Simpson(2)), or take shorter steps."
    return "Ask for a tolerance (tol=0.05) or more nodes, or take a baseline that is less degenerate for this model."
