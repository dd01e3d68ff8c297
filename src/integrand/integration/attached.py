"""Attributions that can be trained on: values with the graph that leads to the model's parameters.

    A(x; θ) = Σ_r w_r Σ_segments (end − start) ⊙ Σ_q v_q ∇F_θ(start + t_q (end − start))

∂A/∂θ is exact, for nodes, references and weights that do not depend on θ: they are known before the
first gradient. Every gradient is kept with its graph until the loss has gone back through it, so
that memory grows with the number of nodes and references. All that is measured beside the values (F
at the ends, the residual) is plain numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
from torch import Tensor

from ..baselines.base import Baseline, References, labels
from ..core.declared import name_of
from ..core.segment import Segment
from ..core.shapes import over, unravelled
from ..errors import InputError
from ..fields import CountedField, Field
from ..model.autograd import gradients
from ..paths.base import Path
from ..rules.base import Rule
from ..weightings import Weighting
from .assemble import Watch, opened, residual_of
from .attribution import INCOMPLETE, Attribution, Explainer
from .cost import Stopwatch
from .loop import checked_output


class ComposedMethod(Protocol):
    """A method of parts."""

    @property
    def baseline(self) -> Baseline: ...

    @property
    def path(self) -> Path: ...

    @property
    def rule(self) -> Rule: ...

    @property
    def weighting(self) -> Weighting: ...


def check_recording() -> None:
    """Check that the caller records gradients.

    Raises:
        InputError: inside ``torch.no_grad()`` and ``torch.inference_mode()``.
    """
    if not torch.is_grad_enabled():
        raise InputError(
            "create_graph=True inside torch.no_grad() or inference_mode() leads nowhere: call it where gradients are recorded, or leave it out."
        )


def attached(
    method: Explainer, parts: ComposedMethod, field: Field, x: Tensor, watch: Watch | None
) -> Attribution:
    """The attribution of a method of ``parts``, its values with their graph.

    Raises:
        InputError: for parts that depend on the parameters in a way that is not followed.
        ModelError: for models without a parameter that asks for a gradient.
    """
    _check(parts)
    x, counted = opened(field, x, watch)
    stopwatch = Stopwatch(counted, x.device)
    with counted.trainable():
        with gradients(False):
            references = References.of(parts.baseline, x, counted)[:]
            weights = parts.weighting.beforehand(len(references), len(x))
            if weights is None:
                raise _refused(name_of(parts.weighting), "weighs references by their maps")
            weights = weights.to(x)
            output = checked_output(counted.value(x), counted)
            segments = list(parts.path(counted, references, x))
            first = min(segments, key=lambda segment: float(segment.clock[0].min()))
            begin = first.start[int(first.clock[0].argmin())]
            change = output - counted.value(begin, leading=2)
        values = torch.zeros_like(x)
        for segment in segments:
            values = values + _summed(counted, parts.rule, segment, weights)
    result = Attribution(
        values=values,
        inputs=x,
        output=output,
        weights=weights,
        change=change,
        residual=residual_of(values.detach(), weights, change),
        error=torch.full_like(output, torch.nan),
        converged=torch.zeros_like(output, dtype=torch.bool),
        baselines=begin,
        names=labels(parts.baseline, len(references)),
        cost=stopwatch.cost(),
        method=method,
        resolution=field.resolution,
    )
    return dataclasses.replace(result, converged=result.gap.detach() <= INCOMPLETE)


def _check(parts: ComposedMethod) -> None:
    """Refuse parts that look at gradients to decide where to go on."""
    if parts.baseline.gradients != 0:
        raise _refused(name_of(parts.baseline), "searches for its references with gradients")
    if parts.path.gradients != 0 or parts.path.scouted:
        raise _refused(name_of(parts.path), "finds its way with gradients")
    if not parts.rule.differentiable:
        raise _refused(name_of(parts.rule), "takes nodes that depend on what it finds")


def _refused(name: str, why: str) -> InputError:
    return InputError(
        f"{name} {why}, and what that does to the map when parameters move is not followed: with create_graph=True give a method at fixed nodes, "
        "such as method='integrated', rule=ig.rules.GaussLegendre(8), or method='expected'."
    )


def _summed(field: CountedField, rule: Rule, segment: Segment, weights: Tensor) -> Tensor:
    """Σ_r w_r · share of a segment (B, \\*s), with its graph."""
    leading = segment.leading
    batch = leading[2]
    t, v = rule.nodes_on(segment)
    nodes = len(t)
    t, v = ((n if n.ndim > 1 else n.reshape(-1, 1, 1, 1)).expand(nodes, *leading) for n in (t, v))
    example = torch.arange(batch, device=weights.device)
    total = nodes * leading[0] * leading[1] * batch
    sums: list[Tensor] = []

    def call(part: slice) -> None:
        place = torch.arange(part.start, part.stop, device=weights.device)
        q, k, r, b = unravelled(place, (nodes, *leading))
        begin, end = segment.start[k, r, b], segment.end[k, r, b]
        z = torch.lerp(begin, end, over(t[q, k, r, b], begin))
        gradient = field.attached(z, example[b]).gradient
        scale = over(v[q, k, r, b] * weights[r, b], begin) * (end - begin)
        # In the graph of this call alone: what a call that failed had added is gone.
        sums.append(torch.zeros_like(segment.end[0, 0]).index_add(0, b, gradient * scale))

    with gradients(True):
        field.packer.run(total, call, segment.start[0, 0, 0], "attached")
        return torch.stack(sums).sum(0)
