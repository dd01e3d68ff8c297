"""Max-sensitivity: known answers, batches, and how maps must be known to be made again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig


def slope(field: Any, x: Tensor) -> Tensor:
    return field.gradient(x)


def slope_times_input(field: Any, x: Tensor) -> Tensor:
    return x * field.gradient(x)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).double()


def shift(seed: int, draw: int, radius: float) -> Tensor:
    noise = torch.rand(1, 4, generator=ig.core.random.generator(seed, draw), dtype=torch.float64)
    return radius * (2 * noise - 1)


def test_linear_models_have_known_answers(x: Tensor) -> None:
    """The gradient does not move; w ⊙ x moves by w ⊙ δ, Integrated Gradients too."""
    weight = torch.tensor([1.0, -2, 3, 0.5]).double()
    field = ig.fields.Linear(weight)
    ours = [slope(field, x), slope_times_input(field, x)]
    by = ig.metrics.MaxSensitivity(radius=0.1, draws=7, seed=3)
    method = ig.methods.integrated()
    with ig.metrics.Subject.of(field, x) as subject:
        maps = ig.metrics.Maps.of(
            [*ours, method(field, x)], subject.x, subject.layout, (slope, slope_times_input, method)
        )
        measured = by.measure(subject, maps)
    moved = torch.stack(
        [(weight * shift(3, d, 0.1)).norm() / (weight * x).norm(dim=1) for d in range(7)], -1
    )
    assert bool((measured[0] == 0).all())
    torch.testing.assert_close(measured[1], moved)
    torch.testing.assert_close(measured[2], moved)
    torch.testing.assert_close(by.values(measured)[1], moved.amax(-1))
    mean = ig.metrics.max_sensitivity(
        field, x, ours[1], method=slope_times_input, radius=0.1, draws=7, seed=3, how="mean"
    )
    torch.testing.assert_close(mean, moved.mean(-1))
    assert bool((moved <= 0.1 * weight.norm() / (weight * x).norm(dim=1)[:, None]).all())


def test_a_batch_equals_its_examples_and_attributions_know_their_method(x: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    target = torch.tensor([0, 2, 1])
    found = ig.explain(model, x, target=target)
    whole = ig.metrics.max_sensitivity(model, x, found, target=target, draws=3)
    for b in range(3):
        alone = ig.metrics.max_sensitivity(
            model, x[b : b + 1], found[b], target=int(target[b]), draws=3
        )
        torch.testing.assert_close(whole[b : b + 1], alone, rtol=1e-6, atol=1e-9)
    named = ig.metrics.max_sensitivity(
        model,
        x,
        [found.values, found.values],
        target=target,
        draws=3,
        method=["integrated", "integrated"],
    )
    torch.testing.assert_close(named[0], whole)
    assert bool((whole > 0).all())


def test_maps_of_zeros_are_relative_to_nothing(x: Tensor) -> None:
    field = ig.fields.Linear(torch.ones(4).double())
    found = ig.metrics.max_sensitivity(
        field, x, [torch.zeros_like(x), x], method=[slope, slope_times_input]
    )
    assert bool(found[0].isnan().all() and found[1].isfinite().all())


def test_what_is_refused(x: Tensor) -> None:
    field = ig.fields.Linear(torch.ones(4).double())
    with pytest.raises(ig.errors.InputError, match="give method="):
        ig.metrics.max_sensitivity(field, x, x)
    with pytest.raises(ig.errors.InputError, match='how= is "max"'):
        ig.metrics.max_sensitivity(field, x, x, method=slope, how="sum")
    for options in ({"draws": 0}, {"radius": 0.0}):
        with pytest.raises(ig.errors.InputError, match="one draw at least"):
            ig.metrics.max_sensitivity(field, x, x, method=slope, **options)
    with pytest.raises(ig.errors.ShapeError, match=r"noise= returned 2x4"):
        ig.metrics.max_sensitivity(field, x, x, method=slope, noise=lambda x, random: x[:2])
    with pytest.raises(ig.errors.ShapeError, match="explain the inputs"):
        ig.metrics.max_sensitivity(field, x, x, method=lambda field, x: x[:, :2])
