"""Summaries of whole datasets: batch by batch they are NumPy's and SciPy's words on all maps at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader, TensorDataset

import integrand as ig
from integrand.tables.importance import ImportanceTally
from tests.problems import tanh_mlp, wave

N = 61
DATA = wave(N, 6, phase=1)
NAMES = tuple("abcdef")
FINE: dict[str, Any] = {"rule": ig.rules.GaussLegendre(8), "feature_names": NAMES}


def contributions() -> Any:
    return ig.explain(tanh_mlp(), DATA, target=1, **FINE).values.numpy()


def check(ranked: Any, values: Any, names: tuple[str, ...] = NAMES) -> None:
    sizes = np.abs(values)
    order = np.argsort(-sizes.mean(0), kind="stable")
    assert ranked.names == tuple(names[i] for i in order)
    expected = {
        "importance": sizes.mean(0),
        "mean": values.mean(0),
        "deviation": values.std(0, ddof=1),
        "standard_error": stats.sem(sizes, 0),
    }
    for name, numbers in expected.items():
        np.testing.assert_allclose(getattr(ranked, name), numbers[order], rtol=1e-10, atol=1e-13)
    quantiles = np.quantile(values, ranked.levels, axis=0)[:, order]
    np.testing.assert_allclose(ranked.quantiles, quantiles, rtol=1e-10, atol=1e-13)
    t = stats.t.ppf(0.975, len(values) - 1)
    margin = t * expected["standard_error"][order]
    np.testing.assert_allclose(ranked.high, ranked.importance.numpy() + margin, rtol=0.01)
    assert ranked.examples == ranked.kept == ranked.converged == len(values)


@pytest.mark.parametrize("sizes", [[N], [1] * N, [50, 11], [7] * 8 + [5]])
def test_any_cut_into_batches_is_all_at_once(sizes: list[int]) -> None:
    ranked = ig.summarize(tanh_mlp(), DATA.split(sizes), target=1, **FINE)
    check(ranked, contributions())
    assert ranked.cost.gradients == 8 * N
    table = ranked.to_pandas()
    assert list(table.index) == list(ranked.names)
    assert list(table.columns[-5:]) == ["5%", "25%", "50%", "75%", "95%"]
    np.testing.assert_array_equal(table["50%"], ranked.quantiles[2])


def test_it_is_the_importance_of_joined_maps() -> None:
    joined = ig.explain(tanh_mlp(), DATA, target=1, **FINE).importance()
    check(joined, contributions())
    loader = DataLoader(TensorDataset(DATA, torch.arange(N)), batch_size=10)
    ranked = ig.summarize(tanh_mlp(), loader, target=1, quantiles=(0.1, 0.9), **FINE)
    torch.testing.assert_close(ranked.importance, joined.importance)
    assert (ranked.levels, ranked.quantiles.shape) == ((0.1, 0.9), (2, 6))
    one = ig.explain(tanh_mlp(), DATA[:1], target=1, **FINE).importance()
    assert bool(one.standard_error.isnan().all())
    assert bool(one.low.isnan().all())
    torch.testing.assert_close(one.quantiles[0], one.mean)


def test_groups_are_added_up_before_anything_else() -> None:
    groups = {"left": ["a", "b"], "right": [3, 5]}
    ranked = ig.summarize(tanh_mlp(), DATA.split(9), target=1, groups=groups, **FINE)
    values = contributions()
    summed = np.stack(
        [values[:, :2].sum(1), values[:, 2], values[:, [3, 5]].sum(1), values[:, 4]], 1
    )
    check(ranked, summed, ("left", "c", "right", "e"))


def test_frames_targets_of_each_example_and_pictures_of_it() -> None:
    frame = pd.DataFrame(DATA.numpy(), columns=list(NAMES))
    classes = torch.arange(N) % 3
    parts = [frame[:40], frame[40:]]
    ranked = ig.summarize(tanh_mlp(), parts, target=classes, rule=ig.rules.GaussLegendre(8))
    values = ig.explain(tanh_mlp(), DATA, target=classes, **FINE).values.numpy()
    check(ranked, values)
    assert len(ranked.plot(3).axes[0].patches) == 3


def test_of_more_rows_than_are_kept_quantiles_are_those_of_a_random_sample() -> None:
    draws = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)).double()
    tally = ImportanceTally((0.05, 0.5, 0.95), most=2_000)
    for part in (*draws[:15_000].sort(0).values.split(500), *draws[15_000:].split(77)):
        tally.add(part, ("x", "y"), torch.ones(len(part), dtype=torch.bool), ig.Attribution.cost)
    ranked = tally.importance()
    assert (ranked.kept, ranked.examples) == (2_000, 20_000)
    expected = torch.tensor(stats.norm.ppf([0.05, 0.5, 0.95]))[:, None].expand(3, 2)
    torch.testing.assert_close(ranked.quantiles, expected, rtol=0, atol=0.12)
    np.testing.assert_allclose(ranked.deviation.sort().values, draws.std(0).sort().values)


def test_what_cannot_be_summed_up_is_refused() -> None:
    with pytest.raises(ig.errors.InputError, match="no examples"):
        ig.summarize(tanh_mlp(), [], target=1)
    with pytest.raises(ig.errors.InputError, match="between 0 and 1, not 5"):
        ig.summarize(tanh_mlp(), [DATA], target=1, quantiles=[5])
    with pytest.raises(ig.errors.ShapeError, match="columns are"):
        ig.summarize(torch.nn.Flatten(), [torch.ones(1, 3, 2, 2)], target=0)
    frames = [pd.DataFrame(DATA[:, :2].numpy(), columns=pair) for pair in (["a", "b"], ["a", "c"])]
    with pytest.raises(ig.errors.InputError, match="Batch 1 has the columns"):
        ig.summarize(lambda z: z, frames, target=0)
