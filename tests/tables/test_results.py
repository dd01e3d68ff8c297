"""What a table's result tells: sums of columns, importance, frames; each compared with sums by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import integrand as ig
from integrand.errors import InputError, ShapeError, UnknownName

pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.FitnessWarning")

GROUPS = {"origin": ["origin_japan", "origin_usa", "origin_eu"]}


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(12, 2)), columns=["weight", "power"])
    category = rng.integers(0, 3, 12)
    for i, name in enumerate(GROUPS["origin"]):
        frame.insert(1 + i, name, (category == i).astype(float))
    return frame


@pytest.fixture
def result(frame: pd.DataFrame) -> ig.Attribution:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2)).eval()
    return ig.explain(
        net, frame, target=0, method="weighted", baseline=frame.iloc[:4], record=("shares",)
    )


def test_groups_are_sums_so_that_completeness_stays(
    result: ig.Attribution, frame: pd.DataFrame
) -> None:
    grouped = result.grouped(GROUPS)
    assert grouped.feature_names == ("weight", "origin", "power")
    torch.testing.assert_close(grouped.values[:, 1], result.values[:, 1:4].sum(1))
    torch.testing.assert_close(grouped.values[:, [0, 2]], result.values[:, [0, 4]])
    assert result.shares is not None
    torch.testing.assert_close(grouped.shares[:, :, 1], result.shares[:, :, 1:4].sum(2))
    assert torch.equal(grouped.residual, result.residual)
    torch.testing.assert_close(
        grouped.values.sum(1) + grouped.residual, grouped.output - grouped.base, atol=1e-5, rtol=0
    )
    category = frame[GROUPS["origin"]].to_numpy().argmax(1)
    assert grouped.table.shown["origin"] == tuple(["japan", "usa", "eu"][i] for i in category)


def test_the_error_of_sums_is_an_upper_bound() -> None:
    """Errors e of a map v may add up: |G e| ≤ √(largest group) |e|, whatever e is."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 24), torch.nn.ReLU(), torch.nn.Linear(24, 1))
    net = net.double().eval()
    x = torch.randn(40, 6, dtype=torch.float64)
    groups: dict[str, list[str | int]] = {"a": [0, 1, 2], "b": [3, 5]}
    rough = ig.explain(net, x, target=0, tol=0.1)
    exact = ig.explain(net, x, target=0, rule=ig.rules.GaussLegendre(4000))
    off = rough.grouped(groups).values - exact.grouped(groups).values
    relative = off.norm(dim=1) / rough.grouped(groups).values.norm(dim=1)
    before = (rough.values - exact.values).norm(dim=1) / rough.values.norm(dim=1)
    covered = before <= rough.error  # of the estimates that hold, the bounds hold
    assert covered.sum() > 30
    assert bool((relative <= rough.grouped(groups).error + 1e-12)[covered].all())


def test_groups_that_cannot_be_are_refused(result: ig.Attribution) -> None:
    with pytest.raises(UnknownName, match="weigt"):
        result.grouped({"a": ["weigt"]})
    with pytest.raises(InputError, match="counts once"):
        result.grouped({"a": ["weight"], "b": [0, 1]})
    with pytest.raises(InputError, match="list of the columns"):
        result.grouped({"a": "weight"})
    with pytest.raises(InputError, match="otherwise"):
        result.grouped({"power": ["weight", "origin_usa"]})
    image = ig.explain(torch.nn.Flatten(), torch.ones(1, 3, 2, 2), target=0)
    with pytest.raises(ShapeError):
        image.grouped({"a": [0]})


def test_importance_is_the_mean_size_with_students_interval(result: ig.Attribution) -> None:
    ranked = result.importance()
    sizes = result.values.abs().double().numpy()
    mean, error = sizes.mean(0), stats.sem(sizes, 0)
    for name, low, high in zip(
        ranked.names, ranked.low.tolist(), ranked.high.tolist(), strict=True
    ):
        i = result.feature_names.index(name)
        assert ranked[name] == pytest.approx(mean[i])
        exact = stats.t.interval(0.95, len(sizes) - 1, loc=mean[i], scale=error[i])
        assert high == pytest.approx(exact[1], rel=0.02)
        assert low == pytest.approx(max(exact[0], 0), rel=0.1, abs=0.02 * high)
    assert list(ranked.importance) == sorted(ranked.importance, reverse=True)
    assert list(ranked.to_pandas().index) == list(ranked.names)
    assert result[:1].importance().low.isnan().all()


def test_frames_of_results(result: ig.Attribution) -> None:
    wide = result.to_pandas()
    np.testing.assert_array_equal(wide.to_numpy(), result.values.numpy())
    assert tuple(wide.columns) == result.feature_names
    examples = result.to_pandas("examples")
    np.testing.assert_allclose(
        wide.sum(axis=1) + examples["residual"], examples["change"], atol=1e-5
    )
    long = result.grouped(GROUPS).to_pandas("long")
    assert len(long) == 12 * 3
    line = long[(long["example"] == 2) & (long["feature"] == "origin")].iloc[0]
    assert line["contribution"] == pytest.approx(float(result.values[2, 1:4].sum()))
    assert line["value"] in ("japan", "usa", "eu")
    with pytest.raises(UnknownName):
        result.to_pandas("wide")


def test_names_and_groups_are_saved_and_subset(result: ig.Attribution, tmp_path: Path) -> None:
    result.grouped(GROUPS).save(tmp_path / "map.safetensors")
    loaded = ig.load(tmp_path / "map.safetensors")
    assert loaded.feature_names == ("weight", "origin", "power")
    assert loaded[3:5].table.shown["origin"] == loaded.table.shown["origin"][3:5]
    pd.testing.assert_frame_equal(
        loaded.to_pandas("long"), result.grouped(GROUPS).to_pandas("long")
    )


def test_shap_has_the_names_and_the_numbers_beside_them(result: ig.Attribution) -> None:
    pytest.importorskip("shap")
    explanation = result.to_shap()
    assert explanation.feature_names[:5] == list(result.feature_names)
    np.testing.assert_allclose(
        explanation.base_values + explanation.values.sum(1), result.output, rtol=1e-5
    )
