"""Rules that were tried for the adaptive rule, the losers included: each a function of a number of gradients.

``Graded``    the midpoint rule at t = s², what a fixed rule can do about a degenerate baseline
``Secant``    a trapezoid whose mean gradient is corrected, by as little as possible, to explain each interval's change of F
``Splitting`` a closed trapezoid that halves the four worst intervals of each row, by the vector or by the scalar
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import integrand as ig
from integrand.core.shapes import over

_ROUND = 4  # intervals that are halved at a time


@dataclass(frozen=True)
class Graded:
    n: int

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> Tensor:
        s = (torch.arange(self.n, dtype=torch.float64) + 0.5) / self.n
        return segment.step * ig.rules.mean_gradient(
            field, segment, (s**2).to(segment.start), (2 * s / self.n).to(segment.start)
        )


@dataclass(frozen=True)
class Nodes:
    """Gradients and values at places t (M, n) of M lines, in order."""

    t: Tensor
    gradient: Tensor
    value: Tensor

    @classmethod
    def at(cls, field: ig.fields.Field, segment: ig.Segment, t: Tensor) -> Nodes:
        start, end = segment.start[0, 0], segment.end[0, 0]
        rows, n = t.shape
        z = torch.lerp(start[:, None], end[:, None], over(t, start[:, None]))
        found = field.rows(z.flatten(0, 1), torch.arange(rows).repeat_interleave(n))
        return cls(t, found.gradient.reshape(z.shape), found.value.reshape(rows, n))

    def joined(self, other: Nodes) -> Nodes:
        order = torch.cat([self.t, other.t], 1).argsort(1)
        pick = over(order, torch.cat([self.gradient, other.gradient], 1)).expand(
            *order.shape, *self.gradient.shape[2:]
        )
        return Nodes(
            torch.cat([self.t, other.t], 1).gather(1, order),
            torch.cat([self.gradient, other.gradient], 1).gather(1, pick),
            torch.cat([self.value, other.value], 1).gather(1, order),
        )

    @property
    def h(self) -> Tensor:
        return self.t.diff(dim=1)

    @property
    def means(self) -> Tensor:
        """The mean gradient of every interval, as its ends tell it (M, n−1, \\*s)."""
        return (self.gradient[:, 1:] + self.gradient[:, :-1]) / 2

    def share(self, step: Tensor, means: Tensor) -> Tensor:
        return step * (means * over(self.h, means)).sum(1)


@dataclass(frozen=True)
class Secant:
    """Each interval's mean gradient c is moved along Δ until c · Δ h = F(b) − F(a): complete, and the change is least in L2."""

    n: int

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> Tensor:
        step = segment.step[0, 0]
        t = (torch.linspace(0, 1, self.n + 1, dtype=step.dtype) ** 2).expand(len(step), -1)
        nodes = Nodes.at(field, segment, t)
        means = nodes.means
        missing = nodes.value.diff(dim=1) / nodes.h - (means * step[:, None]).flatten(2).sum(2)
        means = (
            means
            + over(missing / step.flatten(1).square().sum(1, keepdim=True), means) * step[:, None]
        )
        return nodes.share(step, means)[None, None]


@dataclass(frozen=True)
class Splitting:
    """Five even nodes, then the four worst intervals are halved until there are ``n`` nodes.

    by "vector": (h/2) ‖(g_b − g_a) ⊙ Δ‖;  by "scalar": what the interval's trapezoid misses of F(b) − F(a)
    """

    n: int
    by: str = "vector"

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> Tensor:
        step = segment.step[0, 0]
        nodes = Nodes.at(
            field, segment, torch.linspace(0, 1, 5, dtype=step.dtype).expand(len(step), -1)
        )
        while nodes.t.shape[1] + _ROUND <= self.n:
            worst = self._indicator(nodes, step).topk(_ROUND, dim=1).indices
            middle = (nodes.t[:, 1:] + nodes.t[:, :-1]).gather(1, worst) / 2
            nodes = nodes.joined(Nodes.at(field, segment, middle))
        return nodes.share(step, nodes.means)[None, None]

    def _indicator(self, nodes: Nodes, step: Tensor) -> Tensor:
        if self.by == "vector":
            return (nodes.gradient.diff(dim=1) * step[:, None]).flatten(2).norm(dim=2) * nodes.h / 2
        return (
            (nodes.means * step[:, None]).flatten(2).sum(2) * nodes.h - nodes.value.diff(dim=1)
        ).abs()
