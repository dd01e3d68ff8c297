"""Paths to a counterfactual: ig2."""

from __future__ import annotations

import torch
from torch import Tensor

import integrand as ig

BUILD = {
    "ig2": lambda p: ig.methods.ig2(
        ig.baselines.Given(p.references),
        p.representation,
        6,
        0.05,
        (-9.0, 9.0),
        step=ig.paths.Shrinking(),
        rule=ig.rules.GaussLegendre(3),
    ),
}


def phi(z: Tensor) -> Tensor:
    """A representation that treats all features alike, for methods that walk towards one."""
    return torch.stack([z.sum(1), z.square().sum(1), z.prod(1)], 1)


AXIOMATIC = {
    "ig2": lambda field, x, refs: (
        ig.methods.ig2(
            ig.baselines.Given(refs),
            phi,
            8,
            0.05,
            (-9.0, 9.0),
            step=ig.paths.Shrinking(),
            rule=ig.rules.GaussLegendre(4),
        )(field, x).values
    ),
}
