"""Randomness comes from seeds, and the global generators are left alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.core.random import generator, reseeded
from tests.problems import tanh_mlp, wave

X, POOL = wave(3, 6), wave(20, 6, phase=1)


def test_different_seed_sequences_give_different_streams() -> None:
    sequences = [
        (0,),
        (1,),
        (2**32,),
        (0, 0),
        (0, 1),
        (1, 0),
        (0, 2**32),
        (0, 2**38),
        (0, 2**39),
        (-1,),
    ]
    first = {
        seed: float(torch.rand(1, generator=generator(*seed), dtype=torch.float64))
        for seed in sequences
    }
    assert len(set(first.values())) == len(sequences), first


def test_the_same_seed_gives_the_same_stream() -> None:
    one, other = generator(3, 5), generator(3, 5)
    assert torch.equal(torch.rand(9, generator=one), torch.rand(9, generator=other))


@pytest.mark.parametrize(
    "method",
    [
        ig.methods.expected(POOL, 7),
        ig.methods.weighted(
            [ig.baselines.Uniform(-1, 1), ig.baselines.Gaussian(count=2)], fill=0.0
        ),
        ig.methods.ig2(ig.baselines.OtherClass(POOL, 2), steps=3),
        ig.methods.integrated(ig.baselines.Sample(POOL, 3), rule=ig.rules.MonteCarlo(4)),
    ],
    ids=["expected", "weighted", "ig2", "integrated"],
)
def test_global_generators_are_untouched(method: Any, quiet: None) -> None:
    model = tanh_mlp()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    made = ig.explain(model, X, target="predicted", method=method, seed=5)
    made[0]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_the_result_does_not_depend_on_global_generators(quiet: None) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(
            ig.explain(
                tanh_mlp(), X, target=0, method="expected", baseline=POOL, draws=5, batch_size=64
            ).values
        )
    assert torch.equal(*found)


RANDOM = {
    "which references": dict(method="expected", baseline=POOL, draws=4),
    "positions": dict(method="integrated", rule=ig.rules.MonteCarlo(3)),
    "noise": dict(
        method="integrated", baseline=[ig.baselines.Uniform(0, 1), ig.baselines.Gaussian()]
    ),
    "nested": dict(
        method=ig.TwoStage(
            ig.methods.weighted([ig.baselines.Uniform(0, 1, 3)], fill=0.0), ig.rules.Midpoint()
        )
    ),
}


@pytest.mark.parametrize("kind", list(RANDOM))
def test_explain_seed(kind: str, quiet: None) -> None:
    def run(seed: int | None) -> torch.Tensor:
        return ig.explain(tanh_mlp(), X, target=0, seed=seed, batch_size=64, **RANDOM[kind]).values

    default, zero, one = run(None), run(0), run(1)
    assert torch.equal(one, run(1))
    assert torch.equal(default, run(None))
    assert torch.equal(default, zero)
    assert not torch.isclose(zero, one).all()
    assert not torch.isclose(one, run(2)).all()


def test_reseeded_keeps_seeds_apart() -> None:
    """Two parts with seeds of their own stay different, at any depth."""
    method = ig.Method(
        ig.baselines.Union(
            (ig.baselines.Uniform(0, 1, seed=1), ig.baselines.Uniform(0, 1, seed=2))
        ),
        rule=ig.rules.MonteCarlo(3, seed=3),
    )
    other = reseeded(method, 9)
    first, second = other.baseline.parts
    assert len({first.seed, second.seed, other.rule.seed}) == 3
    assert {first.seed, second.seed, other.rule.seed}.isdisjoint({1, 2, 3})
    assert (method.baseline.parts[0].seed, method.rule.seed) == (1, 3)
    assert reseeded(ig.methods.integrated(), 9) == ig.methods.integrated()


def test_two_noises_by_name_are_two_noises() -> None:
    """weighted(["noise", "noise"]) is the papers' "two noises", not the same one twice."""
    method = ig.methods.weighted(["noise", "noise"])
    field = ig.TorchField(tanh_mlp(), 0, normalisation=ig.Normalisation.unit())
    first, second = method.baseline(wave(1, 3, 4, 4), field)
    assert not torch.equal(first, second)
