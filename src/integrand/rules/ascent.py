"""Geometrically guided IG: the largest gradients found by gradient ascent from points of the
path."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ..core.options import check_choice
from ..core.segment import Segment
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Rule

_BLOCK_ELEMENTS = 1 << 23  # climbs are made in blocks of about this many numbers


@part
class Ascent(Rule):
    """The largest gradient of each feature, on ascents of F from points of a segment (GGIG).

    This is not an integral; ascents start from ``steps`` + 1 points.

        P_i = start + (i/m) (end − start),  i = 0 … m        P_i ← P_i + rate ∇F(P_i),  ``iterations`` − 1 times
        M_i = max over the climb of ∇F(P_i), feature by feature (the first at the point itself)
        share = max_i M_i, or the trapezoid rule's mean of them, or their plain mean

    The share has the units of a gradient: it is not multiplied by the way from start to end, and a
    segment without a length has none. It adds up to nothing.

    Args:
        steps: m: climbs begin at m + 1 even points.
        iterations: gradients per climb.
        rate: of a step, in units of input² per unit of F.
        gather: over the points: "max", "trapezoid" or "mean".
        signed: the largest gradient, as published, which prefers positive ones; False: the largest
            |∇F|.

    Cost:
        (steps + 1) · iterations gradients; memory does not grow with either.

    References:
        Rahman, Lewis, Plis, "Geometrically Guided Integrated Gradients", arXiv 2206.05903.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Function(lambda z: -(z - 0.5).square().sum(1))
        >>> rule = ig.rules.Ascent(steps=4, iterations=10)
        >>> ig.Method(rule=rule)(field, torch.ones(1, 2)).values.round(decimals=2).tolist()
        [[1.0, 1.0]]
    """

    steps: int = 50
    iterations: int = 100
    rate: float = 1e-4
    gather: str = "max"
    signed: bool = True

    complete: ClassVar[bool] = False
    """Largest gradients are no integral."""

    resolution: ClassVar[str] = "steps"
    effort: ClassVar[str] = "iterations"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is at least 1, for the two ends, not {self.steps}.")
        if self.iterations < 1:
            raise InputError(
                f"iterations is at least 1, the gradient where a climb begins, not {self.iterations}."
            )
        if not 0 <= self.rate < math.inf:
            raise InputError(
                f"rate is the length of a step of ascent, zero or more, not {self.rate}."
            )
        check_choice("gather", self.gather, _GATHER)

    @property
    def gradients(self) -> int:
        """Gradients per segment, reference and example."""
        return (self.steps + 1) * self.iterations

    def __call__(self, field: Field, segment: Segment) -> Tensor:
        leading, inner = segment.leading, segment.start.shape[3:]
        share = segment.start.new_zeros(math.prod(leading), *inner)
        start, end = (corner.reshape(-1, *inner) for corner in (segment.start, segment.end))
        per_point = max(1, inner.numel())
        for rows in torch.split(segment.moving(), max(1, _BLOCK_ELEMENTS // per_point)):
            if not len(rows):
                continue
            begin, finish, example = start[rows], end[rows], rows % leading[2]
            most = max(1, _BLOCK_ELEMENTS // (per_point * len(rows)))
            for first in range(0, self.steps + 1, most):
                node = torch.arange(first, min(first + most, self.steps + 1), device=rows.device)
                at = (node.to(torch.float64) / self.steps).to(share).reshape(-1, *(1,) * begin.ndim)
                points = torch.lerp(begin, finish, at).flatten(0, 1)
                gradients = self._climb(field, points, example.repeat(len(node))).reshape(
                    len(node), *begin.shape
                )
                share[rows] = _GATHER[self.gather](
                    self.steps, node, gradients, share[rows] if first else None
                )
        return share.reshape(*leading, *inner)

    def _climb(self, field: Field, points: Tensor, example: Tensor) -> Tensor:
        """The largest gradient met on the climb from each of ``points`` (N, \\*s)."""
        best: Tensor | None = None
        for iteration in range(self.iterations):
            slope = field.rows(points, example).gradient
            size = slope if self.signed else slope.abs()
            best = size if best is None else torch.maximum(best, size)
            if iteration + 1 < self.iterations:
                points = torch.add(points, slope, alpha=self.rate)
        assert best is not None
        return best


_Gather = Callable[[int, Tensor, Tensor, Tensor | None], Tensor]
"""(m, nodes (n,), found (n, rows, \\*s), what was gathered before) → what is gathered now."""


def _running_max(steps: int, node: Tensor, gradients: Tensor, before: Tensor | None) -> Tensor:
    largest = gradients.amax(0)
    return largest if before is None else torch.maximum(before, largest)


def _weighted_sum(weight: Callable[[int, Tensor], Tensor]) -> _Gather:
    def gathered(steps: int, node: Tensor, gradients: Tensor, before: Tensor | None) -> Tensor:
        weighted = torch.einsum("n,n...->...", weight(steps, node).to(gradients), gradients)
        return weighted if before is None else before + weighted

    return gathered


def _trapezoid_weights(steps: int, node: Tensor) -> Tensor:
    ends = (node == 0) | (node == steps)
    # Of two Python numbers torch.where would make the default type, float32, and round both.
    return torch.where(ends, 0.5, 1.0).double() / steps


def _even_weights(steps: int, node: Tensor) -> Tensor:
    return torch.full((len(node),), 1 / (steps + 1), dtype=torch.float64, device=node.device)


_GATHER: dict[str, _Gather] = {
    "max": _running_max,
    "trapezoid": _weighted_sum(_trapezoid_weights),
    "mean": _weighted_sum(_even_weights),
}
