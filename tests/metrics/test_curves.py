"""Deletion and insertion against a slow restatement, and what all curves share."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.metrics.perturbation.removal import Ranking, steps_of


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5)
    ).double()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(2)).double()


def slow_area(
    model: nn.Module, x: Tensor, values: Tensor, blank: Tensor, steps: int, *, insert: bool
) -> float:
    """RISE's definition, one row at a time: pixels by their channel sum, trapezoid over [0, 1]."""
    order = values.sum(0).flatten().argsort(descending=True)
    curve = []
    for step in range(steps + 1):
        k = round(step * len(order) / steps)
        row = (blank if insert else x).clone().reshape(3, -1)
        row[:, order[:k]] = (x if insert else blank).reshape(3, -1)[:, order[:k]]
        curve.append(model(row.reshape(1, *x.shape)).softmax(1)[0, 1].item())
    return sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / steps


@pytest.mark.parametrize("steps", [1, 16, 64])
@pytest.mark.parametrize("insert", [False, True])
def test_areas_are_those_of_the_definition(
    model: nn.Module, x: Tensor, maps: Tensor, steps: int, insert: bool
) -> None:
    measure = ig.metrics.insertion if insert else ig.metrics.deletion
    fill = "blurred" if insert else 0.0
    found = measure(model, x, list(maps), target=1, steps=steps, fill=fill)
    blank = ig.baselines.Blurred()(x, ig.TorchField(model, 1))[0] if insert else torch.zeros_like(x)
    expected = [
        [slow_area(model, x[b], maps[m, b], blank[b], steps, insert=insert) for b in range(4)]
        for m in range(2)
    ]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_several_maps_cost_what_they_say_and_share_both_ends(
    model: nn.Module, x: Tensor, maps: Tensor
) -> None:
    rows: list[int] = []
    model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    ig.metrics.deletion(model, x, list(maps), target=1, steps=16)
    assert sum(rows) == 2 * 4 * 15 + 4 + 4


def test_a_batch_equals_its_examples(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    whole = ig.metrics.insertion(model, x, list(maps), target=torch.tensor([0, 1, 2, 3]))
    for b in range(4):
        alone = ig.metrics.insertion(model, x[b : b + 1], list(maps[:, b : b + 1]), target=b)
        torch.testing.assert_close(whole[:, b : b + 1], alone)


def test_ranks_only(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    """A monotone transformation of a map of places changes nothing; its sign does."""
    places = maps[0].sum(1)
    found = ig.metrics.deletion(model, x, [places, places.exp(), -places], target=1)
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_a_linear_model_loses_most_where_the_map_says() -> None:
    """No order deletes a linear score faster than the exact map's, and none slower than its reverse."""
    torch.manual_seed(0)
    model, x = nn.Linear(6, 1, bias=False).double(), torch.randn(3, 6).double()
    exact = model.weight.detach() * x
    orders = [exact, *torch.randn(20, 3, 6).double(), -exact]
    found = ig.metrics.deletion(
        model, x, orders, target=ig.targets.Output(), score="output", steps=6
    )
    assert bool((found[0] <= found[1:-1] + 1e-12).all())
    assert bool((found[-1] >= found[1:-1] - 1e-12).all())
    area = (exact.sort(descending=True).values * torch.arange(0.5, 6.0)).sum(
        1
    ) / 6  # each feature stays until its turn
    torch.testing.assert_close(found[0], area)


def test_ties_are_broken_alike_and_not_by_place(x: Tensor) -> None:
    flat = torch.zeros(2, 4, 3, 8, 8).double()
    place = Ranking.of(flat, x).place
    assert bool((place == place[:1, :1]).all())
    assert not torch.equal(place[0, 0].flatten(), torch.arange(64))
    assert torch.equal(place[0, 0].flatten().sort().values, torch.arange(64))


def test_steps() -> None:
    counts = torch.tensor([10, 3])
    assert steps_of(counts, 5, None).tolist() == [[0, 0], [2, 1], [4, 1], [6, 2], [8, 2], [10, 3]]
    assert steps_of(counts, None, 4).tolist() == [[0, 0], [4, 3], [8, 3], [10, 3]]
    assert len(steps_of(counts, 50, None)) == 11
    with pytest.raises(ig.errors.InputError, match="at least one step"):
        steps_of(counts, 0, None)


def test_normalised_curves(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    with ig.metrics.Subject.of(model, x, 1) as subject:
        seen = ig.metrics.Maps.of(list(maps), subject.x, subject.layout)
        raw = ig.metrics.Deletion(steps=8).measure(subject, seen)
        share = ig.metrics.Deletion(steps=8, normalise="whole").measure(subject, seen)
        spanned = ig.metrics.Insertion(steps=8, normalise="range").measure(subject, seen)
    torch.testing.assert_close(share, raw / raw[:, :, :1])
    torch.testing.assert_close(spanned[..., 0], torch.zeros(2, 4).double())
    torch.testing.assert_close(spanned[..., -1], torch.ones(2, 4).double())


def test_running_merges_shards(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    def fed(parts: list[slice]) -> ig.metrics.Running:
        running = ig.metrics.Running("deletion")
        for one in parts:
            with ig.metrics.Subject.of(model, x[one], 1) as subject:
                running.update(
                    subject, ig.metrics.Maps.of(list(maps[:, one]), subject.x, subject.layout)
                )
        return running

    whole = fed([slice(0, 4)]).compute()
    left, right = fed([slice(0, 1)]), fed([slice(1, 3), slice(3, 4)])
    merged = left.merge(right).compute()
    torch.testing.assert_close(merged.values, whole.values)
    torch.testing.assert_close(merged.summary, whole.values.mean(1))
    assert left.compute().values.shape == (2, 1)  # merging changed nothing
    left.reset()
    with pytest.raises(ig.errors.InputError, match="no example yet"):
        left.compute()
    with pytest.raises(ig.errors.InputError, match="Shards of two metrics"):
        right.merge(ig.metrics.Running("insertion"))


@pytest.mark.parametrize(
    ("attribution", "message"),
    [
        (torch.zeros(4, 3, 9, 9), "has shape 4x3x9x9, the inputs have 4x3x8x8"),
        (torch.full((4, 3, 8, 8), torch.nan), "holds NaN"),
        ([], "no maps"),
        ("map", "not an Attribution"),
    ],
)
def test_maps_that_cannot_be_judged(
    model: nn.Module, x: Tensor, attribution: object, message: str
) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.metrics.deletion(model, x, attribution, target=1)


def test_questions_that_cannot_be_asked(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    with pytest.raises(ig.errors.TargetError, match="give target="):
        ig.metrics.deletion(model, x, maps[0])
    with pytest.raises(ig.errors.UnknownName, match="fil"):
        ig.metrics.deletion(model, x, maps[0], target=1, fil=0)
    with pytest.raises(ig.errors.UnknownName, match="deletion"):
        ig.metrics.as_metric("delation")
    with pytest.raises(ig.errors.InputError, match="normalise="):
        ig.metrics.deletion(model, x, maps[0], target=1, normalise="max")
    with pytest.raises(ig.errors.InputError, match="score="):
        ig.metrics.deletion(model, x, maps[0], target=1, score="logits")
