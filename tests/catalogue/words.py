"""Words as vectors: discretized, sequential."""

from __future__ import annotations

import torch
from torch import Tensor

import integrand as ig
from tests.problems import PROBLEMS, Problem, wave

FINE = ig.rules.GaussLegendre(12)

WRAPPERS = {"sequential"}


def table(x: Tensor, references: Tensor, more: int = 40) -> Tensor:
    """Vectors of all words of x (B, *n, d), and of others on the way from the references to them, a little off."""
    words = x.reshape(-1, x.shape[-1])
    starts = references[:1].expand_as(x).reshape(words.shape)
    t = torch.linspace(0.15, 0.9, -(-more // len(words)), dtype=x.dtype)[:, None, None]
    between = (starts + t * (words - starts)).flatten(0, 1)
    return torch.cat([words, between + wave(*between.shape, phase=6, scale=0.05).to(x)])


def of(p: Problem) -> Tensor:
    return table(PROBLEMS[p.name].packed(), p.references)


BUILD = {
    "discretized": lambda p: ig.methods.discretized(
        of(p), ig.baselines.Given(p.references), 10, 5, rule=FINE
    ),
    "sequential": lambda p: ig.methods.sequential(
        baseline=ig.baselines.Given(p.references), rule=FINE
    ),
}

AXIOMATIC = {
    "discretized": lambda field, x, refs: (
        ig.methods.discretized(table(x, refs), ig.baselines.Given(refs[:1]), 10, 5, rule=FINE)(
            field, x
        ).values
    ),
    "sequential": lambda field, x, refs: (
        ig.methods.sequential(baseline=ig.baselines.Given(refs), rule=FINE)(field, x).values
    ),
}

COSTS = {
    "discretized": [
        lambda p: ig.methods.discretized(of(p), 0.25, 10, 3),
        lambda p: ig.methods.discretized(of(p), ig.baselines.Given(p.references), 8, 3, "maxcount"),
        lambda p: ig.methods.discretized(of(p), [0.25, -0.5], 10, 2, rule=ig.rules.Trapezoid()),
    ]
}
