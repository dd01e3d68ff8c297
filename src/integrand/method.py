"""A method is four parts: a baseline, a path, a rule, a weighting.

    A(x) = Σ_r w_r · Σ_segments share(segment)

    references = baseline(x, field)                         where paths start
    shares     = walk(path, rule, field, references, x)     which way, and how a piece is integrated
    weights    = weighting(shares, x, field)                how references are weighed
    values     = Σ_r weights_r · shares_r

References whose weights are known beforehand are taken in blocks and added up as they come: two hundred of them need no two
hundred maps. Completeness is measured on every result, never assumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .attribution import Attribution
from .baseline.base import Baseline, checked, labels
from .baseline.fixed import Constant
from .cost import Cost, measured
from .errors import FitnessWarning, IncompleteWarning, InputError, IntegerInput, warn
from .field import Field, Gathered, Metered, Narrowed
from .field.modes import gradients
from .field.wrap import Tally
from .parts import part
from .path.base import Path
from .path.straight import Straight
from .rule.base import Rule
from .rule.quadrature import GaussLegendre
from .shapes import plain, state_dtype, total
from .walk import Walked, side_by_side, walk
from .weighting import Uniform, Weighed, Weighting, beforehand, prepared

_BLOCK_ELEMENTS = (
    1 << 24
)  # references are taken in blocks of about this many numbers when their shares need not be kept
_BLOCK_ON_CPU = 1 << 21  # where a model call wants no more rows than that, and memory is the process' own
_RECORDS = ("shares", "path")
_INCOMPLETE = 0.1

Watch = Callable[[Tally], None]


@part
class Method:
    """A path attribution: a baseline, a path, a rule and a weighting.

        A(x) = Σ_r w_r ∫ ∇F(γ_r(t)) ⊙ dγ_r(t)

    Called with a field and inputs x (B, \\*s) it returns an ``Attribution``. ``record`` asks it to keep more than the sum:
    "shares" a map per reference, "path" nine points along every path. ``watch`` is shown a running tally.

    Cost: references × segments × nodes gradients per example, plus one value per reference and per example.

    >>> import torch, integrand as ig
    >>> method = ig.Method(ig.baselines.Constant(0.0), ig.paths.Straight(), ig.rules.GaussLegendre(8))
    >>> method(ig.fields.Linear(torch.ones(3)), torch.ones(1, 3)).values
    tensor([[1., 1., 1.]])
    """

    baseline: Baseline = Constant(0.0)
    path: Path = Straight()
    rule: Rule = GaussLegendre(50)
    weighting: Weighting = Uniform()
    record: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.record) - set(_RECORDS)
        if unknown:
            raise InputError(f"record takes {', '.join(map(repr, _RECORDS))}; got {', '.join(map(repr, unknown))}.")

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        x, meter = _state(field, x, watch)
        with measured(meter, x.device) as stopwatch:
            references = checked(self.baseline(x, meter), x, self.baseline)
            meter.tally.expected = gradients_per_row(self.path, self.rule) * len(x) * len(references)
            known = beforehand(self.weighting, *references.shape[:2])
            if known is None or "shares" in self.record or len(references) == 1:
                weigh = prepared(self.weighting, x, meter)
                walked = self._walk(meter, references, x)
                weighed = weigh(walked.shares)
                values = _weighed_sum(weighed.weights, walked.shares)
            else:
                weighed = Weighed(known.to(x))
                values, walked = self._blocks(meter, references, x, weighed.weights)
        return _result(self, values, x, walked, weighed, references, stopwatch.cost())

    def _walk(self, field: Field, references: Tensor, x: Tensor, **known: Any) -> Walked:
        return walk(self.path, self.rule, field, references, x, frames="path" in self.record, **known)

    def _blocks(self, field: Field, references: Tensor, x: Tensor, weights: Tensor) -> tuple[Tensor, Walked]:
        """The weighted sum of shares, a block of references at a time, without keeping them."""
        most = min(_BLOCK_ELEMENTS, _BLOCK_ON_CPU) if x.device.type == "cpu" else _BLOCK_ELEMENTS
        size = max(1, most // x.numel())
        values = torch.zeros_like(x)
        blocks: list[Walked] = []
        for first in range(0, len(references), size):
            some = slice(first, first + size)
            output = blocks[0].output if blocks else None
            block = self._walk(field, references[some], x, output=output, lanes=(first, len(references)))
            values += _weighed_sum(weights[some], block.shares)
            blocks.append(dataclasses.replace(block, shares=x.new_empty(0)))
        return values, side_by_side(blocks, x.new_empty(0), _BLOCK_ELEMENTS)


@part
class Staged:
    """A method in two stages: rank the references cheaply, drop the poor ones, spend the gradients on the rest.

    ``scout`` integrates every reference roughly; the method's weighting judges those rough maps and may give some a weight of
    zero; only the others are integrated with the method's own rule. The weights are those of the first stage.

    Cost: R × scout + survivors × rule gradients per example, instead of R × rule.
    """

    method: Method
    scout: Rule

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        method = self.method
        x, meter = _state(field, x, watch)
        with measured(meter, x.device) as stopwatch:
            references = checked(method.baseline(x, meter), x, method.baseline)
            weigh = prepared(method.weighting, x, meter)
            rough = walk(method.path, self.scout, meter, references, x, frames="path" in method.record)
            weighed = weigh(rough.shares)
            r, b = (weighed.weights > 0).nonzero(as_tuple=True)
            # The survivors are a ragged choice of pairs; to paths and rules they look like one reference of a longer batch.
            fine = walk(
                method.path, method.rule, Gathered(meter, b), references[r, b][None], x[b], output=rough.output[b]
            )
            rough.shares[r, b] = fine.shares[0]
            values = _weighed_sum(weighed.weights, rough.shares)
        return _result(self, values, x, rough, weighed, references, stopwatch.cost())


def _state(field: Field, x: Tensor, watch: Watch | None) -> tuple[Tensor, Metered]:
    """Inputs in the type of the integration, and the field metered and asked in the type they came in."""
    if not x.is_floating_point():
        raise IntegerInput(
            f"The input holds {str(x.dtype).removeprefix('torch.')}, which has no gradient: convert it with .float()."
        )
    state = state_dtype(x.dtype)
    inner = field if state == x.dtype else Narrowed(field, x.dtype)
    with gradients(False):
        return plain(x).to(state), Metered(inner, watch=watch)


def _weighed_sum(weights: Tensor, shares: Tensor) -> Tensor:
    """Σ_r w_r · share_r, without a weighted copy of every share."""
    return torch.einsum("rb,rb...->b...", weights, shares)


def gradients_per_row(path: Any, rule: Any) -> int:
    """Gradients a path and a rule need for one reference of one example; what the path paid for is not paid twice."""
    walked = getattr(path, "gradients", 0)
    each = getattr(rule, "gradients", 0)
    if walked and hasattr(rule, "table"):
        each = sum(0 < node < 1 for node in rule.table()[0])
    return int(walked + getattr(path, "segments", 1) * each)


def _result(
    method: Method | Staged,
    values: Tensor,
    x: Tensor,
    walked: Walked,
    weighed: Weighed,
    references: Tensor,
    cost: Cost,
) -> Attribution:
    """The attribution, its completeness measured and its warnings given."""
    residual = (weighed.weights * walked.change).sum(0) - total(values, 1)
    error = (weighed.weights * walked.error).square().sum(0).sqrt() / total(values.square(), 1).sqrt().clamp_min(
        torch.finfo(values.dtype).tiny
    )
    estimated = bool(torch.isfinite(error).all())
    made = Attribution(
        values=values,
        inputs=x,
        output=walked.output,
        weights=weighed.weights,
        change=walked.change,
        residual=residual,
        error=error,
        converged=(walked.converged | (weighed.weights == 0)).all(0),
        shares=walked.shares if walked.shares.numel() else None,
        baselines=walked.begin if walked.begin.numel() else None,
        fitness=weighed.fitness,
        criterion=weighed.criterion,
        reasons=weighed.reasons,
        names=labels(_core(method).baseline, len(references)),
        notes=walked.notes,
        frames=walked.frames,
        cost=cost,
        method=method,
    )
    if not estimated:
        made = dataclasses.replace(made, converged=made.gap <= _INCOMPLETE)
    _warn(made, _core(method), estimated)
    return made


def _core(method: Method | Staged) -> Method:
    return method.method if isinstance(method, Staged) else method


def _warn(made: Attribution, method: Method, estimated: bool) -> None:
    if estimated and not bool(made.converged.all()):
        warn(
            f"{int((~made.converged).sum())} of {len(made)} maps did not reach their tolerance; the worst has an estimated relative "
            f"error of {float(made.error.max()):.2g}. Allow more gradients (max_gradients), or a baseline that is less degenerate.",
            IncompleteWarning,
        )
    if getattr(method.rule, "complete", True) and bool((made.gap > _INCOMPLETE).any()):
        worst = int(made.gap.argmax())
        change = float((made.output - made.base)[worst])
        warn(
            f"{int((made.gap > _INCOMPLETE).sum())} of {len(made)} maps miss more than a tenth of the change they should explain: "
            f"example {worst} adds up to {change - float(made.residual[worst]):.3g} where F changes by {change:.3g}. "
            f"{_advice(method)}",
            IncompleteWarning,
        )
    for example, reason in enumerate(made.reasons):
        if reason:
            warn(f"Fitness says nothing about example {example}: {reason}.", FitnessWarning)


def _advice(method: Method) -> str:
    if hasattr(method.path, "steps"):
        return "Integrate each step with more nodes (rule=ig.rules.Simpson(2)), or take shorter steps."
    return "Use more nodes, or a baseline that is less degenerate for this model."
