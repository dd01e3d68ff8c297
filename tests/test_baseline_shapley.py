"""Baseline Shapley, against the formula written out over orders, in Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.problems import tanh_mlp, wave

F = Callable[[Tensor], Tensor]
X, B = wave(3, 4, phase=1), wave(2, 4, phase=7)


def bent(z: Tensor) -> Tensor:
    return z[:, 0] * z[:, 1] * z[:, 2] + torch.tanh(3 * z[:, 1] - z[:, 3]) + (z[:, 2] > 0).to(z)


FIELD = ig.fields.Function(bent)


def along(f: F, x: Tensor, b: Tensor, orders: Iterable[Sequence[Sequence[int]]]) -> Tensor:
    """The mean over orders of what each group of features adds when it is switched, for one
    example; given to its first member."""
    shares = []
    for order in orders:
        share, at = torch.zeros_like(x), b.clone()
        for group in order:
            after = at.clone()
            after[list(group)] = x[list(group)]
            share[group[0]] += (f(after[None]) - f(at[None]))[0]
            at = after
        shares.append(share)
    return torch.stack(shares).mean(0)


def by_hand(f: F, x: Tensor, b: Tensor) -> Tensor:
    orders = [[[i] for i in order] for order in itertools.permutations(range(x.shape[1]))]
    return torch.stack([along(f, row, b, orders) for row in x])


def test_all_coalitions_are_all_orders() -> None:
    result = ig.explain(
        FIELD,
        X,
        method="baseline_shapley",
        baseline=ig.baselines.Given(B),
        permutations=None,
        record=("shares",),
    )
    assert result.shares is not None
    for r in range(2):
        torch.testing.assert_close(result.shares[r], by_hand(bent, X, B[r]), rtol=0, atol=1e-14)
    torch.testing.assert_close(result.values, result.shares.mean(0), rtol=0, atol=1e-15)
    assert result.cost.gradients == 0
    assert float(result.error.max()) == 0
    assert float(result.residual.abs().max()) < 1e-14


def test_orders_that_are_drawn_are_orders_and_their_mean_tends_to_all() -> None:
    one = ig.explain(FIELD, X, method="baseline_shapley", permutations=1, seed=3)
    every = [
        along(bent, X[0], torch.zeros(4).double(), [[[i] for i in order]])
        for order in itertools.permutations(range(4))
    ]
    assert min(float((one.values[0] - share).abs().max()) for share in every) < 1e-14
    assert bool(one.error.isinf().all())
    assert float(one.residual.abs().max()) < 1e-14
    many = ig.explain(FIELD, X, method="baseline_shapley", permutations=3000)
    exact = by_hand(bent, X, torch.zeros(4).double())
    apart = (many.values - exact).norm(dim=1) / exact.norm(dim=1)
    assert bool((apart < many.error).all())
    assert float(many.error.max()) < 0.1


def test_a_batch_is_its_examples_and_a_feature_that_stays_costs_nothing() -> None:
    x = X.clone()
    x[1, 2] = 0.0
    x[2] = 0.0
    together = ig.explain(FIELD, x, method="baseline_shapley", permutations=5)
    for i in range(3):
        alone = ig.explain(FIELD, x[i : i + 1], method="baseline_shapley", permutations=5)
        torch.testing.assert_close(together.values[i], alone.values[0], rtol=0, atol=1e-15)
    assert float(together.values[1, 2]) == 0
    assert together.values[2].tolist() == [0.0] * 4
    # Of n features that move 5 (n − 1) points between, and both ends.
    moving = ig.explain(FIELD, x[:2], method="baseline_shapley", permutations=5)
    assert moving.cost.values == (5 * 3 + 2) + (5 * 2 + 2)


@pytest.mark.parametrize("permutations", [4, None])
def test_references_have_orders_of_their_own_and_blocks_do_not_matter(
    permutations: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = wave(6, 4, phase=2)
    method = ig.methods.baseline_shapley(ig.baselines.Given(references), permutations)
    usual = method(FIELD, X)
    monkeypatch.setattr("integrand.integration.method.at_once", lambda *_: 4)
    monkeypatch.setattr("integrand.rules.shapley._RANKS", 1)
    blocks = method(FIELD, X)
    torch.testing.assert_close(blocks.values, usual.values, rtol=0, atol=1e-14)
    same = ig.baselines.Given(references[:1].expand(6, -1))
    repeated = ig.methods.baseline_shapley(same, permutations, record=("shares",))(FIELD, X)
    assert repeated.shares is not None
    alike = torch.allclose(repeated.shares[0], repeated.shares[1])
    assert alike == (permutations is None)


def test_the_error_is_one_that_holds_in_19_of_20_cases() -> None:
    exact = by_hand(bent, X, torch.zeros(4).double())
    inside = []
    for seed in range(100):
        result = ig.explain(FIELD, X, method="baseline_shapley", permutations=8, seed=seed)
        inside.append((result.values - exact).norm(dim=1) / exact.norm(dim=1) < result.error)
    share = torch.stack(inside).double().mean()
    assert 0.9 < float(share) <= 1


def test_features_of_several_numbers_are_switched_together() -> None:
    model = tanh_mlp()
    x = wave(2, 6, phase=4)
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    result = ig.explain(
        model, x, target=1, method="baseline_shapley", permutations=None, features=labels
    )
    groups = [[0, 1], [2, 3, 4], [5]]
    orders = list(itertools.permutations(groups))

    def f(z: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = model(z)[:, 1]
        return scores

    for row, values in zip(x, result.values, strict=True):
        expected = along(f, row, torch.zeros(6).double(), orders)
        for group in groups:
            torch.testing.assert_close(values[group].sum(), expected[group[0]], rtol=0, atol=1e-14)
            torch.testing.assert_close(values[group], values[group[:1]].expand(len(group)))


def test_many_short_segments_tend_to_integrated_gradients() -> None:
    model = tanh_mlp()
    x = wave(2, 6, phase=4)
    path = ig.paths.Straight(200)
    near = ig.explain(model, x, target=0, method="baseline_shapley", permutations=2, path=path)
    line = ig.explain(model, x, target=0, rule=ig.rules.GaussLegendre(30))
    torch.testing.assert_close(near.values, line.values, rtol=0, atol=0.01)
    assert near.cost.gradients == 0


def test_trees_have_no_gradient() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    x = wave(60, 4, phase=3).numpy()
    forest = ensemble.GradientBoostingClassifier(n_estimators=4, max_depth=3, random_state=0)
    forest.fit(x, (x[:, 0] * x[:, 1] > 0.1).astype(int))

    def f(z: Tensor) -> Tensor:
        return torch.from_numpy(forest.decision_function(z.numpy()))

    result = ig.explain(
        forest, x[:3], target=1, method="baseline_shapley", baseline=0.2, permutations=None
    )
    expected = by_hand(f, torch.from_numpy(x[:3]), torch.full((4,), 0.2).double())
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-12)


def test_pictures_and_several_targets() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).double()
    x = wave(2, 3, 2, 2)
    maps = torch.tensor([[[0, 0], [1, 1]], [[0, 1], [1, 1]]])
    several = ig.explain_targets(model, x, targets=[0, 2], method="baseline_shapley", features=maps)
    for target, result in zip([0, 2], several, strict=True):
        alone = ig.explain(model, x, target=target, method="baseline_shapley", features=maps)
        torch.testing.assert_close(result.values, alone.values, rtol=0, atol=1e-13)
        places = result.values.sum(1)
        assert float(places[0, 0, 0] - places[0, 0, 1]) == pytest.approx(0, abs=1e-14)
        weight = model[1].weight.detach()[target].reshape(3, 2, 2)
        torch.testing.assert_close(
            places[1, 0, 0], (weight * x[1])[:, 0, 0].sum(), rtol=0, atol=1e-13
        )


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ig.errors.InputError, match="All coalitions of 17 features"):
        ig.explain(
            ig.fields.Linear(torch.ones(17)),
            torch.ones(1, 17),
            method="baseline_shapley",
            permutations=None,
        )
    with pytest.raises(ig.errors.InputError, match="1 at least, or None"):
        ig.methods.baseline_shapley(permutations=0)
    with pytest.raises(ig.errors.UnknownName, match="Say permutations=20"):
        ig.explain(FIELD, X, method="baseline_shapley", n_iter=20)
    with pytest.raises(ig.errors.UnknownName, match="'baseline_shapley'"):
        ig.explain(FIELD, X, method="shapley")
