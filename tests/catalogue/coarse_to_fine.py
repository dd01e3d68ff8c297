"""Coarse features first: blur, spectral."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import integrand as ig
from integrand.core.segment import Evaluation
from tests.problems import Problem

FINE = ig.rules.GaussLegendre(4)


def pictures(p: Problem) -> bool:
    return p.packed().ndim == 4


NEEDS = {"spectral": pictures}


def blur(p: Problem, sigma: float = 1.5, steps: int = 12, rule: ig.rules.Rule = FINE) -> ig.Method:
    """Of a table the features are blurred into one another, which means nothing but is the same arithmetic."""
    return ig.methods.blur(sigma, steps, axes=None if pictures(p) else (-1,), rule=rule)


BUILD = {
    "blur": blur,
    "spectral": lambda p: ig.methods.spectral(ig.baselines.Given(p.references), 10, rule=FINE),
}


class Square(ig.fields.Field):
    """A function of four features as one of 2 × 2 pixels."""

    def __init__(self, inner: ig.fields.Field) -> None:
        self.inner = inner

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        found = self.inner.evaluate(z.flatten(1), index, gradient=gradient)
        return Evaluation(
            found.value, found.gradient.reshape(z.shape) if gradient else found.gradient
        )


def spectral(field: ig.fields.Field, x: Tensor, refs: Tensor) -> Tensor:
    baseline = ig.baselines.Given(refs[:1].unflatten(1, (2, 2)))
    method = ig.methods.spectral(baseline, 10, rule=ig.rules.GaussLegendre(6))
    return method(Square(field), x.unflatten(1, (2, 2))).values.flatten(1)


def blurred_table(field: ig.fields.Field, x: Tensor, refs: Tensor) -> Tensor:
    return ig.methods.blur(1.5, 12, axes=(-1,), rule=FINE)(field, x).values


def widest(field: Any, x: Tensor, refs: Tensor) -> Tensor:
    return ig.paths.corners(ig.paths.Blur(1.5, 1, axes=(-1,)), ig.fields.Linear(x[0]), x[None], x)[
        1
    ][0, 0]


AXIOMATIC = {"blur": blurred_table, "spectral": spectral}

BEGINS = {"blur": widest}

COSTS = {
    "blur": [
        lambda p: blur(p, 2.0, 5, ig.rules.Midpoint()),
        lambda p: blur(p, 2.0, 3, ig.rules.Simpson(2)),
    ],
    "spectral": [
        lambda p: ig.methods.spectral(0.1, 4),
        lambda p: ig.methods.spectral(
            ig.baselines.Given(p.references), 3, rule=ig.rules.Trapezoid()
        ),
    ],
}
