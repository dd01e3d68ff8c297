"""Paths shaped by the model: geodesic, relaxed, nonuniform."""

from __future__ import annotations

import torch
from torch import Tensor

import integrand as ig
from tests.problems import PROBLEMS, Problem, wave

FINE = ig.rules.GaussLegendre(12)


def points(p: Problem) -> Tensor:
    """Data of the kind the inputs are: mixtures of all of them and the first reference, a little off."""
    x, references = PROBLEMS[p.name].packed(), p.references
    t = torch.linspace(0, 1, 4, dtype=torch.float64).reshape(4, 1, *(1,) * (x.ndim - 1))
    mixed = references[:1] + t * (x - references[:1])
    return mixed.flatten(0, 1) + wave(*mixed.flatten(0, 1).shape, phase=6, scale=0.05)


BUILD = {
    "geodesic": lambda p: ig.methods.geodesic(
        ig.baselines.Given(p.references[:1]), points(p), 3, 3, rule=FINE
    ),
    "relaxed": lambda p: ig.methods.relaxed(
        ig.baselines.Given(p.references[:1]), 5, 0.4, 5, rule=FINE
    ),
    "nonuniform": lambda p: ig.methods.nonuniform(
        ig.baselines.Given(p.references[:1]), 6, 9, rule=FINE
    ),
}


def around(x: Tensor, refs: Tensor) -> Tensor:
    """Points that also move what F does not look at."""
    return torch.cat([x + wave(*x.shape, phase=k, scale=0.3) for k in range(3)] + [refs + 0.2])


AXIOMATIC = {
    "geodesic": lambda field, x, refs: (
        ig.methods.geodesic(ig.baselines.Given(refs[:1]), around(x, refs), 3, rule=FINE)(
            field, x
        ).values
    ),
    "relaxed": lambda field, x, refs: (
        ig.methods.relaxed(ig.baselines.Given(refs[:1]), 5, 0.4, 6, rule=FINE)(field, x).values
    ),
    "nonuniform": lambda field, x, refs: (
        ig.methods.nonuniform(ig.baselines.Given(refs[:1]), 6, 9, rule=FINE)(field, x).values
    ),
}
