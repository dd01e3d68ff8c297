"""What a table's result tells: sums of columns, importance, frames; each compared with sums by hand."""

from __future__ import annotations

import dataclasses
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
    np.testing.assert_allclose(
        examples["missed"] * wide.abs().sum(axis=1), examples["residual"].abs(), atol=1e-9
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


# --- SHAP -------------------------------------------------------------------------------------------------------------


def rough(target: object = 0) -> ig.Attribution:
    """A map that misses much, of words and numbers beside one another."""
    from sklearn.compose import ColumnTransformer
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(3)
    people = pd.DataFrame({"age": rng.normal(40, 9, 60), "city": rng.choice(["Bonn", "Köln"], 60)})
    parts = [("n", StandardScaler(), ["age"]), ("w", OneHotEncoder(), ["city"])]
    y = np.stack([np.sin(people["age"]), people["age"] / 9], 1)
    net = MLPRegressor(hidden_layer_sizes=(9,), max_iter=400, tol=1.0, random_state=0)
    pipeline = make_pipeline(ColumnTransformer(parts), net).fit(people, y)
    return ig.explain(
        pipeline, people[:8], target=target, baseline=people[9:10], rule=ig.rules.Left(1)
    )


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
def test_shap_adds_up_exactly_and_shows_words() -> None:
    pytest.importorskip("shap")
    attribution = rough()
    explanation = attribution.to_shap()
    assert explanation.feature_names == ["age", "city", "not explained"]
    assert float(attribution.gap.max()) > 0.1
    np.testing.assert_allclose(
        explanation.base_values + explanation.values.sum(1),
        attribution.output,
        rtol=1e-13,
        atol=1e-14,
    )
    assert explanation.display_data[:, 1].tolist() == list(attribution.table.shown["city"])
    np.testing.assert_array_equal(explanation.data[:, 0], attribution.table.shown["age"])
    assert np.isnan(explanation.data[:, 1:]).all()  # words have no number


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # beeswarm, of words
def test_plots_of_shap_run_on_what_it_is_given() -> None:
    shap = pytest.importorskip("shap")
    plt = pytest.importorskip("matplotlib.pyplot")
    explanation = rough().to_shap()
    axes = shap.plots.waterfall(explanation[0], show=False)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    city = explanation.display_data[0, 1]
    assert f"{city} = city" in labels
    f_of_x = float(explanation.base_values[0] + explanation.values[0].sum())
    texts = [label.get_text() for child in axes.figure.axes for label in child.get_xticklabels()]
    assert any(f"{f_of_x:.3f}".lstrip("-") in text for text in texts)
    shap.plots.beeswarm(explanation, show=False)
    shap.plots.bar(explanation, show=False)
    plt.close("all")


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
def test_several_targets_are_one_explanation() -> None:
    pytest.importorskip("shap")
    from integrand.compat.shap import explanation

    several = [rough(0), rough(1)]
    joint = explanation(several, output_names=["sine", "line"])
    assert joint.shape == (8, 3, 2)
    assert list(joint.output_names) == ["sine", "line"]
    for place, attribution in enumerate(several):
        np.testing.assert_array_equal(joint.values[:, :2, place], attribution.values)
        np.testing.assert_allclose(
            joint.base_values[:, place] + joint.values[:, :, place].sum(1),
            attribution.output,
            rtol=1e-13,
        )
    assert explanation(several).output_names == ["Logit(0)", "Logit(1)"]
    with pytest.raises(ShapeError, match="8x2 and 3x2"):
        explanation([several[0], several[1][:3]])
    with pytest.raises(InputError, match="1 output names for 2"):
        explanation(several, output_names=["one"])
    with pytest.raises(InputError, match="nothing to show"):
        explanation([])


def test_what_is_missed_means_something_where_nothing_changes() -> None:
    """F(x) = F(b): the gap, relative to the change, is huge; what is missed of all that is credited is a percent."""
    x, start = torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[-1.0, 1.0 + 1e-6]]).double()
    attribution = ig.explain(
        lambda z: (z + z**3).sum(1), x, target=ig.targets.Output(), baseline=start,
        feature_names=["a", "b"], rule=ig.rules.Midpoint(5),
    )  # fmt: skip
    attribution = dataclasses.replace(attribution, residual=attribution.residual + 0.08)
    line = attribution.to_pandas("examples").iloc[0]
    assert line["gap"] > 1e3
    credited = float(attribution.values.abs().sum())
    assert line["missed"] == pytest.approx(abs(line["residual"]) / credited)
    assert line["missed"] < 0.02
    nothing = ig.explain(lambda z: z.sum(1) * 0, x, target=ig.targets.Output())
    assert nothing.to_pandas("examples")["missed"].tolist() == [0.0]


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weighted_gradients_of_a_table_are_the_papers_formula() -> None:
    """Defaults, a pool that is a frame: D_b the fewest columns, in the order of b's own map, that halve p once they become the mean of the
    pool, every k tried; w_b = (1/D_b) / Σ 1/D; A = Σ_b w_b IG_b, IG_b by 4,000 midpoints of plain autograd."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Tanh(), torch.nn.Linear(12, 3))
    net = net.double().eval()
    with torch.no_grad():
        net[2].weight.mul_(9)
    names = list("abcdef")
    frame = pd.DataFrame(torch.randn(30, 6).numpy().astype(float), columns=names)
    rows, pool = frame.iloc[:8], frame.iloc[20:25]
    attribution = ig.explain(
        net, rows, target="predicted", method="weighted", baseline=pool, tol=1e-5
    )
    x, references = (torch.from_numpy(part.to_numpy(copy=True)) for part in (rows, pool))
    times = (torch.arange(4_000).double()[:, None, None, None] + 0.5) / 4_000
    classes = net(x).detach().argmax(1)
    blank = references.mean(0)
    distinguished = 0
    for b, row in enumerate(x):
        c = int(classes[b])
        points = (references + times * (row - references))[:, 0].requires_grad_()
        (slope,) = torch.autograd.grad(net(points)[..., c].sum(), points)
        maps = (row - references) * slope.mean(0)

        def probability(z: torch.Tensor, c: int = c) -> float:
            return float(net(z[None]).softmax(1)[0, c].detach())

        fewest = []
        for values in maps:
            order = values.argsort(descending=True, stable=True)
            halving = [
                k
                for k in range(1, 7)
                if probability(
                    row.where(~torch.isin(torch.arange(6), order[:k]), blank)
                ) <= probability(row) / 2
            ]  # fmt: skip
            fewest.append(min(halving, default=6))
        weights = (1 / torch.tensor(fewest).double()) / (1 / torch.tensor(fewest).double()).sum()
        distinguished += len(set(fewest)) > 1
        torch.testing.assert_close(attribution.weights[:, b], weights)
        torch.testing.assert_close(
            attribution.values[b], (weights[:, None] * maps).sum(0), rtol=1e-4, atol=1e-5
        )
    assert distinguished >= 3  # else the weights would be those of an average
    assert "mean of the references" in attribution.criterion
    assert attribution.feature_names == tuple(names)
