"""Paths that an attack finds: adversarial, mfaba, boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

import integrand as ig
from tests.problems import Problem

FINE = ig.rules.GaussLegendre(12)
SHORT = ig.rules.GaussLegendre(6)
WIDE = (-9.0, 9.0)

LEVELS = {"t6": 0.3, "monomial": 0.9, "interaction": 0.7}
"""Of models without classes: they decide whether their output is above this."""


def decision(p: Problem) -> Any:
    """A decision function where a model has no classes, else None."""
    if p.name not in LEVELS:
        return None
    return lambda out: out - LEVELS[p.name]


BUILD: dict[str, Callable[[Problem], Any]] = {
    "adversarial": lambda p: ig.methods.adversarial(
        decision(p) or "drawn", 2, 6, 0.03, WIDE, rule=SHORT
    ),
    "mfaba": lambda p: ig.methods.mfaba(decision(p) or "away", 6, 0.05, WIDE, rule=SHORT),
    "boundary": lambda p: ig.methods.boundary(decision(p), clip=WIDE, rule=FINE),
}

COSTS: dict[str, list[Callable[[Problem], Any]]] = {
    # Steps so short that no walk arrives: then all of them are paid for.
    "adversarial": [
        lambda p: ig.methods.adversarial(decision(p) or "likeliest", 2, 4, 1e-6, WIDE),
        lambda p: ig.methods.adversarial(
            decision(p) or "away", steps=3, rate=1e-6, step=ig.paths.Implicit(3)
        ),
    ],
    "mfaba": [
        lambda p, rule=rule: ig.methods.mfaba(decision(p) or "away", 4, 1e-6, WIDE, rule=rule)
        for rule in (
            ig.rules.Right(),
            ig.rules.Trapezoid(),
            ig.rules.Midpoint(2),
            ig.rules.Simpson(2),
        )
    ],
    "boundary": [lambda p: ig.methods.boundary(decision(p), clip=WIDE, rule=ig.rules.Midpoint(4))],
}


class Above(ig.targets.Target):
    """Whether a function of the input is above a level, for fields that are nothing else."""

    def __init__(self, function: Callable[[Tensor], Tensor], level: float) -> None:
        self.site = lambda z: function(z)[:, None]
        self.level = level

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return outputs[:, 0] - self.level


def _goal(field: Any, otherwise: Any) -> Any:
    return Above(field.function, 1.0) if isinstance(field, ig.fields.Function) else otherwise


MADE: dict[str, Callable[[Any, Tensor], ig.Attribution]] = {
    "adversarial": lambda field, x: ig.methods.adversarial(
        _goal(field, "drawn"), 1, 8, 0.05, WIDE, rule=FINE
    )(field, x),
    "mfaba": lambda field, x: ig.methods.mfaba(_goal(field, "away"), 8, 0.05, WIDE, rule=FINE)(
        field, x
    ),
    "boundary": lambda field, x: ig.methods.boundary(
        _goal(field, None), clip=WIDE, rule=ig.rules.GaussLegendre(24)
    )(field, x),
}

AXIOMATIC = {
    name: lambda field, x, refs, made=made: made(field, x).values for name, made in MADE.items()
}

BEGINS = {
    name: lambda field, x, refs, made=made: made(field, x).baselines[0]
    for name, made in MADE.items()
}
"""Where these begin, who choose it themselves."""
