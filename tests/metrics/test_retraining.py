"""ROAR and KAR on data whose answer is known, what training is given, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig


def nearest_mean(inputs: Tensor, labels: Tensor, seed: int) -> Any:
    """The class whose mean is nearest: a model that is trained in no time, and has nothing random."""
    means = torch.stack([inputs[labels == c].flatten(1).mean(0) for c in range(2)])
    return lambda z: -torch.cdist(z.flatten(1), means)


@pytest.fixture
def data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Column 0 tells the class, columns 1 to 4 do not; the means are not zero."""
    x = torch.randn(600, 5, generator=torch.Generator().manual_seed(0)) + 3
    y = (x[:, 0] > 3).long()
    return (x[:400], y[:400]), (x[400:], y[400:])


def maps_of(weights: list[float], data: Any) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(weights).expand_as(x) for x, _ in data)  # type: ignore[return-value]


RIGHT, WRONG = [5.0, 1, 2, 3, 4], [0.0, 4, 3, 2, 1]


def test_what_tells_the_class_is_missed(data: Any) -> None:
    given = {"right": maps_of(RIGHT, data), "wrong": maps_of(WRONG, data)}
    cutoffs = (0.0, 0.2, 0.8, 1.0)
    gone = ig.metrics.roar(nearest_mean, data, given, cutoffs=cutoffs, seeds=2)
    assert gone.names == ("right", "wrong", "random")
    assert gone.scores.shape == (3, 4, 2)
    curves = gone.curves
    assert float(curves[:, 0].min()) > 0.9  # nothing gone
    assert float(curves[0, 1]) < 0.65  # the one that counts
    assert float(curves[1, 2]) > 0.9  # all that do not
    assert bool((curves[:, 3] == curves[0, 3]).all())  # everything gone
    assert (
        float(curves[0, 2]) <= float(curves[2, 2]) <= float(curves[1, 2])
    )  # a random ranking between
    assert gone.areas[0] < gone.areas[2] < gone.areas[1]
    kept = ig.metrics.kar(nearest_mean, data, given, cutoffs=cutoffs, seeds=1, control=False)
    assert float(kept.curves[0, 1]) > 0.9
    assert float(kept.curves[1, 1]) < 0.65
    assert bool(kept.spread.isnan().all())
    torch.testing.assert_close(kept.curves[:, 3], curves[:2, 0])  # everything kept is nothing gone
    assert "right" in repr(gone)
    assert "kept" in repr(kept)


def test_diff_roar_is_bottom_minus_top(data: Any) -> None:
    given = {"right": maps_of(RIGHT, data), "wrong": maps_of(WRONG, data)}
    difference, bottom, top = ig.metrics.diff_roar(
        nearest_mean, data, given, cutoffs=(0.0, 0.2, 0.4), seeds=1
    )
    torch.testing.assert_close(difference, bottom.curves - top.curves)
    assert bool((difference[:, 0] == 0).all())
    assert float(difference[0, 1]) > 0.25
    assert float(difference[1, 1]) < -0.25
    assert abs(float(difference[2, 1:].mean())) < 0.1
    reverse = {"right": maps_of([-w for w in RIGHT], data)}
    mirrored = ig.metrics.roar(
        nearest_mean, data, reverse, cutoffs=(0.0, 0.2, 0.4), seeds=1, control=False
    )
    torch.testing.assert_close(
        mirrored.scores[0], bottom.scores[0]
    )  # the bottom of a ranking is the top of its reverse


def test_both_sets_are_masked_with_the_means_of_the_training_set(data: Any) -> None:
    seen: list[tuple[Tensor, int]] = []
    asked: list[Tensor] = []

    def train(inputs: Tensor, labels: Tensor, seed: int) -> Any:
        seen.append((inputs.clone(), seed))
        return lambda z: (asked.append(z.clone()), torch.zeros(len(z), 2))[1]

    (x, _), (z, _) = data
    random = torch.Generator().manual_seed(4)
    maps = torch.randn(400, 5, generator=random), torch.randn(200, 5, generator=random)
    ig.metrics.roar(train, data, maps, cutoffs=(0.4,), seeds=3, seed=7, control=False)
    assert [seed for _, seed in seen] == [7, 8, 9]
    ig.metrics.kar(train, data, maps, cutoffs=(0.4,), seeds=1, control=False)
    assert bool(((seen[3][0] != x).sum(1) == 3).all())
    assert bool(((seen[3][0] != x) ^ (seen[0][0] != x)).all())  # what one leaves the other takes
    ig.metrics.roar(train, data, maps, cutoffs=(0.4,), seeds=1)
    gone, tested = seen[-1][0] != x, asked[-1] != z
    assert bool((gone.sum(1) == 2).all() and (tested.sum(1) == 2).all())
    assert not torch.equal(gone[:200], tested)
    assert len(gone.unique(dim=0)) == 10  # all pairs of five, in no example's favour
    for masked, plain, own in ((seen[0][0], x, maps[0]), (asked[0], z, maps[1])):
        for row in range(5):
            top = own[row].argsort(descending=True)[:2]
            expected = plain[row].clone()
            expected[top] = x.mean(0)[top]
            torch.testing.assert_close(masked[row], expected)


def test_pictures_lose_pixels_to_the_mean_of_each_channel() -> None:
    random = torch.Generator().manual_seed(0)
    x, z = torch.rand(6, 3, 4, 4, generator=random), torch.rand(4, 3, 4, 4, generator=random)
    maps = torch.randn(6, 4, 4, generator=random), torch.randn(4, 4, 4, generator=random)
    seen: list[Tensor] = []

    def train(inputs: Tensor, labels: Tensor, seed: int) -> Any:
        seen.append(inputs)
        return lambda z: torch.zeros(len(z), dtype=torch.long)

    data = (x, torch.zeros(6).long()), (z, torch.zeros(4).long())
    found = ig.metrics.roar(train, data, maps, cutoffs=(0.25,), seeds=1, control=False)
    gone = seen[0] != x
    assert bool((gone.all(1) == gone.any(1)).all())
    assert bool((gone[:, 0].flatten(1).sum(1) == 4).all())
    mean = x.mean((0, 2, 3))[:, None, None].expand_as(x)
    torch.testing.assert_close(seen[0][gone], mean[gone])
    assert float(found.curves[0, 0]) == 1
    assert bool(found.areas.isnan().all())
    ig.metrics.roar(
        train, data, maps, cutoffs=(0.25,), seeds=1, control=False, fill=-1.0, features=2
    )
    assert bool((seen[1][seen[1] != x] == -1).all())


def test_trainings_are_as_many_as_claimed(data: Any) -> None:
    count = [0]

    def train(inputs: Tensor, labels: Tensor, seed: int) -> Any:
        count[0] += 1
        return nearest_mean(inputs, labels, seed)

    given = {"right": maps_of(RIGHT, data), "wrong": maps_of(WRONG, data)}
    ig.metrics.roar(train, data, given, cutoffs=(0, 0.2, 0.4), seeds=2)
    assert count[0] == (3 * 2 + 1) * 2


def test_any_score_and_a_model_that_learns_by_descent(data: Any) -> None:
    def train(inputs: Tensor, labels: Tensor, seed: int) -> Any:
        model = nn.Linear(5, 1)
        with torch.no_grad():
            noise = torch.randn(1, 5, generator=torch.Generator().manual_seed(seed))
            model.weight.copy_(0.01 * noise)
            model.bias.zero_()
        optimiser = torch.optim.LBFGS(model.parameters(), max_iter=30)
        mean = inputs.mean(0)

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = nn.functional.binary_cross_entropy_with_logits(
                model(inputs - mean)[:, 0], labels.float()
            )
            value.backward()
            return value

        optimiser.step(loss)
        return lambda z: model(z - mean)[:, 0].sigmoid()

    error = lambda said, labels: float((said - labels).abs().mean())  # noqa: E731
    found = ig.metrics.roar(
        train, data, maps_of(RIGHT, data), cutoffs=(0, 0.2), seeds=2, score=error, control=False
    )
    assert float(found.curves[0, 0]) < 0.1 < 0.4 < float(found.curves[0, 1])
    with pytest.raises(ig.errors.InputError, match="one real number for each"):
        ig.metrics.roar(train, data, maps_of(RIGHT, data), cutoffs=(0,), seeds=1)


def test_what_is_refused(data: Any) -> None:
    maps = maps_of(RIGHT, data)
    for cutoffs in ((), (0.5, 0.1), (0.0, 1.2), (0.3, 0.3)):
        with pytest.raises(ig.errors.InputError, match="cutoffs="):
            ig.metrics.roar(nearest_mean, data, maps, cutoffs=cutoffs)
    with pytest.raises(ig.errors.InputError, match="one training at least"):
        ig.metrics.roar(nearest_mean, data, maps, seeds=0)
    with pytest.raises(ig.errors.InputError, match="are a pair"):
        ig.metrics.roar(nearest_mean, data, maps[0])
    with pytest.raises(ig.errors.InputError, match="is called"):
        ig.metrics.roar(nearest_mean, data, {"random": maps})
    with pytest.raises(ig.errors.InputError, match="no maps to judge"):
        ig.metrics.roar(nearest_mean, data, {}, control=False)
    with pytest.raises(ig.errors.ShapeError, match="has shape 200x5, the inputs have 400x5"):
        ig.metrics.roar(nearest_mean, data, (maps[1], maps[1]))
    with pytest.raises(ig.errors.NonFiniteInput, match="holds NaN"):
        ig.metrics.roar(nearest_mean, data, (maps[0] * torch.nan, maps[1]))
    with pytest.raises(ig.errors.InputError, match="data= is"):
        ig.metrics.roar(nearest_mean, data[0], maps)  # type: ignore[arg-type]
    with pytest.raises(ig.errors.ShapeError, match="400 training inputs and 200 labels"):
        ig.metrics.roar(nearest_mean, ((data[0][0], data[1][1]), data[1]), maps)
    with pytest.raises(ig.errors.ShapeError, match="they are masked alike"):
        ig.metrics.roar(nearest_mean, (data[0], (data[1][0][:, :3], data[1][1])), maps)
    with pytest.raises(ig.errors.ShapeError, match=r"predict\(inputs\) returned 3"):
        ig.metrics.roar(lambda x, y, seed: lambda z: torch.zeros(3), data, maps)
