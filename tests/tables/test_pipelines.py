"""Pipelines: maps of the numbers behind the transformers, carried back to the columns of the frame.

What is right is worked out beside the library: with scikit-learn's own ``transform`` and closed forms, a network built by hand from the
weights and integrated by a dense sum, sums over one-hot columns written out, and differences of predictions where one column moved.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
import xgboost as xgb
from scipy.sparse import issparse
from sklearn import ensemble as sk
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)

import integrand as ig
from integrand.errors import (
    InputError,
    MixedColumnsWarning,
    ModelError,
    NonFiniteInput,
    UnknownName,
)

COLUMNS = ("age", "sex", "city", "fare", "id")


def people(count: int = 120) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": draws.normal(40, 10, count),
            "sex": draws.choice(["f", "m"], count),
            "city": draws.choice(["Bonn", "Köln", "Trier"], count),
            "fare": draws.normal(size=count),
            "id": np.arange(count),
        },
        index=[f"row {i}" for i in range(count)],
    )
    frame.loc[frame.index[1::7], "age"] = np.nan
    return frame


FRAME = people()
ROWS, START, POOL = FRAME.iloc[:6], FRAME.iloc[[9]], FRAME.iloc[20:26]
SCORE = FRAME["age"].fillna(40) / 10 - 4 + (FRAME["city"] == "Köln") - FRAME["fare"]
TWO, THREE = (SCORE > 0).astype(int), np.digitize(SCORE, [-1.0, 1.0])


def prepared(sparse: bool = False) -> ColumnTransformer:
    numbers = Pipeline([("fill", SimpleImputer(add_indicator=True)), ("scale", StandardScaler())])
    parts = [("numbers", numbers, ["age", "fare"]), ("words", OneHotEncoder(), ["city", "sex"])]
    return ColumnTransformer(parts, sparse_threshold=float(sparse))


def trained(model: Any, y: Any = TWO, *before: Any) -> Pipeline:
    steps = before or (("prepare", prepared()),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some have not converged, which is no matter here
        return Pipeline([*steps, ("model", model)]).fit(FRAME, y)


# age, fare, missing age | Bonn, Köln, Trier | f, m
GROUPS = {"age": [0, 2], "sex": [6, 7], "city": [3, 4, 5], "fare": [1], "id": []}


def summed(encoded: Any) -> Any:
    """Sums over the columns that belong to each column of the frame, written out."""
    return np.stack([np.asarray(encoded)[:, members].sum(1) for members in GROUPS.values()], 1)


def complete(result: ig.Attribution, tolerance: float = 1e-8) -> None:
    change = result.output - result.base
    assert float((result.values.sum(1) + result.residual - change).abs().max()) < tolerance


def encoded(pipeline: Pipeline, *frames: pd.DataFrame) -> list[Any]:
    """What comes out of the first step, by its own word."""
    outputs = [pipeline[0].transform(frame) for frame in frames]
    return [np.asarray(z.toarray() if issparse(z) else z) for z in outputs]


@pytest.mark.parametrize("sparse", [False, True])
def test_a_linear_model_is_a_closed_form(sparse: bool) -> None:
    pipeline = trained(LogisticRegression(), TWO, ("prepare", prepared(sparse)))
    assert issparse(pipeline[0].transform(ROWS)) is sparse
    result = ig.explain(pipeline, ROWS, target=1, baseline=START)
    z, b = encoded(pipeline, ROWS, START)
    expected = summed(pipeline[-1].coef_ * (z - b))
    np.testing.assert_allclose(result.values.numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(result.output.numpy(), pipeline.decision_function(ROWS), atol=1e-10)
    np.testing.assert_allclose(
        result.base.numpy(), pipeline.decision_function(START)[0], atol=1e-10
    )
    assert result.feature_names == COLUMNS
    complete(result)


def test_what_stood_in_the_frame_stands_beside_the_bars() -> None:
    result = ig.explain(trained(LogisticRegression()), ROWS, target=1, baseline=START)
    assert list(result.to_pandas().index) == list(ROWS.index)
    long = result.to_pandas("long").set_index(["example", "feature"])["value"]
    for label, row in ROWS.iterrows():
        assert long[label, "city"] == row["city"]
        assert long[label, "sex"] == row["sex"]
        assert long[label, "fare"] == pytest.approx(row["fare"])
        age = long[label, "age"]
        assert age is None if np.isnan(row["age"]) else age == pytest.approx(row["age"])
    assert result[2:4].table.shown["city"] == tuple(ROWS["city"][2:4])


def test_a_network_is_that_of_its_weights_on_the_transformed_columns() -> None:
    """A network built by hand, 4,000 midpoints by plain autograd, and sums over the one-hot columns."""
    pipeline = trained(MLPClassifier((6,), activation="tanh", max_iter=80, random_state=0), THREE)
    result = ig.explain(pipeline, ROWS, target=2, baseline=START, tol=1e-5)
    model = pipeline[-1]
    z, b = map(torch.from_numpy, encoded(pipeline, ROWS, START))
    w, v = (torch.from_numpy(weight) for weight in model.coefs_)
    c, d = (torch.from_numpy(bias) for bias in model.intercepts_)
    times = (torch.arange(4_000).double()[:, None, None] + 0.5) / 4_000
    points = (b + times * (z - b)).requires_grad_()
    (((points @ w + c).tanh() @ v + d)[..., 2]).sum().backward()
    assert points.grad is not None
    expected = summed(((z - b) * points.grad.mean(0)).numpy())
    np.testing.assert_allclose(result.values.numpy(), expected, rtol=1e-4, atol=1e-6)


TREES = [
    sk.RandomForestClassifier(8, random_state=0),
    sk.GradientBoostingClassifier(n_estimators=8, random_state=0),
    sk.HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=5),
    xgb.XGBClassifier(n_estimators=8),
    lgb.LGBMClassifier(n_estimators=8, min_child_samples=5, verbose=-1),
]


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.parametrize("model", TREES, ids=lambda model: type(model).__name__)
def test_where_one_column_moves_it_gets_what_the_prediction_changes_by(model: Any) -> None:
    """Words, numbers and missing ones alike, against the pipeline's own word."""
    pipeline = trained(model)
    for column, others in (("city", ["Bonn", "Trier"]), ("age", [25.0, np.nan]), ("fare", [2.0])):
        for value in others:
            rows = START.assign(**{column: value})
            result = ig.explain(pipeline, rows, target=ig.targets.Probability(1), baseline=START)
            change = float(np.subtract(*(pipeline.predict_proba(f)[0, 1] for f in (rows, START))))
            expected = [change if name == column else 0.0 for name in COLUMNS]
            np.testing.assert_allclose(result.values[0].numpy(), expected, atol=2e-6)


def test_a_tree_is_that_of_its_transformed_columns() -> None:
    """The exact map of the forest on what comes out of the transformer, one-hot columns added up by hand."""
    pipeline = trained(sk.RandomForestClassifier(8, random_state=0))
    result = ig.explain(pipeline, ROWS, target="predicted", baseline=START)
    z, b = map(torch.from_numpy, encoded(pipeline, ROWS, START))
    inner = ig.explain(pipeline[-1], z, target="predicted", baseline=b)
    np.testing.assert_allclose(result.values.numpy(), summed(inner.values.numpy()), atol=1e-12)
    np.testing.assert_allclose(
        result.output.numpy(), pipeline.predict_proba(ROWS).max(1), atol=1e-9
    )
    complete(result)


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "turned", "with more"])
def test_frames_of_every_kind(kind: str) -> None:
    pipeline = trained(LogisticRegression())
    expected = ig.explain(pipeline, ROWS, target=1, baseline=START)
    change = {
        "polars": lambda frame: pl.from_pandas(frame.reset_index(drop=True)),
        "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
        "turned": lambda frame: frame[list(COLUMNS[::-1])],
        "with more": lambda frame: frame.assign(label="?"),
    }[kind]
    result = ig.explain(pipeline, change(ROWS), target=1, baseline=change(START))
    torch.testing.assert_close(result.values, expected.values)
    assert result.feature_names == COLUMNS
    assert result.table.shown == expected.table.shown


def test_arrays_and_tensors_where_there_are_no_words() -> None:
    numbers = np.random.default_rng(1).normal(size=(40, 3))
    pipeline = make_pipeline(MinMaxScaler(), LinearRegression()).fit(numbers, numbers.sum(1))
    for rows in (numbers[:4], torch.from_numpy(numbers[:4])):
        result = ig.explain(pipeline, rows, baseline=numbers[5])
        np.testing.assert_allclose(result.values.numpy(), numbers[:4] - numbers[5], atol=1e-9)
        assert result.feature_names == ("0", "1", "2")
    named = ig.explain(pipeline, numbers[:4], baseline=numbers[5:6], feature_names=list("abc"))
    assert named.feature_names == tuple("abc")
    assert named.table.shown["b"] == tuple(numbers[:4, 1])
    pool = ig.explain(
        pipeline, numbers[:4], method="expected", baseline=numbers[10:14], rule=ig.rules.Exact()
    )
    np.testing.assert_allclose(pool.values.numpy(), numbers[:4] - numbers[10:14].mean(0), atol=1e-9)
    trained_on_a_frame = make_pipeline(StandardScaler(), LinearRegression())
    trained_on_a_frame.fit(pd.DataFrame(numbers, columns=list("abc")), numbers.sum(1))
    assert ig.explain(trained_on_a_frame, numbers[:2]).feature_names == tuple("abc")
    with pytest.raises(InputError, match="takes 3 columns, and there are 2"):
        ig.explain(pipeline, numbers[:, :2])
    with pytest.raises(InputError, match="rows of columns"):
        ig.explain(pipeline, numbers[0])
    with pytest.raises(InputError, match="table is empty"):
        ig.explain(pipeline, numbers[:0])
    with pytest.raises(InputError, match="not dict"):
        ig.explain(pipeline, {"a": numbers})


# --- baselines --------------------------------------------------------------------------------------------------------


def test_baselines_go_through_the_same_steps() -> None:
    pipeline = trained(LogisticRegression())
    weight = pipeline[-1].coef_
    z, one, pool, each = encoded(pipeline, ROWS, START, POOL, FRAME.iloc[50:56])
    zero = summed(weight * z)
    for baseline, expected in (
        (START, summed(weight * (z - one))),
        (START.iloc[0], summed(weight * (z - one))),  # a row
        (FRAME.iloc[50:56], summed(weight * (z - each))),  # one for each
        (None, zero),
        ("zero", zero),
        ([START, "zero"], (summed(weight * (z - one)) + zero) / 2),
    ):
        result = ig.explain(pipeline, ROWS, target=1, baseline=baseline)
        np.testing.assert_allclose(result.values.numpy(), expected, atol=1e-9)
    expected = summed(weight * (z - pool.mean(0)))
    result = ig.explain(
        pipeline, ROWS, target=1, method="expected", baseline=POOL, rule=ig.rules.Exact()
    )
    np.testing.assert_allclose(result.values.numpy(), expected, atol=1e-9)
    with pytest.raises(InputError, match="lacks 'city'"):
        ig.explain(pipeline, ROWS, target=1, baseline=START.drop(columns="city"))


@pytest.mark.filterwarnings("ignore::integrand.errors.FitnessWarning")
def test_weighted_references_are_rows_of_the_frame_and_words_are_replaced_as_one() -> None:
    """D by its definition: columns of the frame in the order of the reference's map become the pool's mean, every k
    tried; where that halves the score for no reference, they become the reference of the lowest score."""
    pipeline = trained(MLPClassifier((6,), activation="tanh", max_iter=80, random_state=0))
    pipeline[-1].coefs_[1] *= 12  # surer of itself
    result = ig.explain(pipeline, ROWS, target="predicted", method="weighted", baseline=POOL)
    z, pool = encoded(pipeline, ROWS, POOL)
    groups = [members for members in GROUPS.values() if members]
    classes = pipeline.predict(ROWS)
    assert result.shares is not None
    assert result.fitness is not None

    def curve(row: Any, values: Any, fill: Any, category: int) -> list[float]:
        rows, replaced = [row.copy()], row.copy()
        for group in np.argsort(-values, kind="stable"):
            replaced[groups[group]] = fill[groups[group]]
            rows.append(replaced.copy())
        return pipeline[-1].predict_proba(np.stack(rows))[:, category].tolist()

    for b, row in enumerate(z):
        lowest = pool[pipeline[-1].predict_proba(pool)[:, classes[b]].argmin()]
        maps = [shares[b].numpy()[:4] for shares in result.shares]  # age, sex, city, fare
        with_mean, with_lowest = (
            [curve(row, values, fill, classes[b]) for values in maps]
            for fill in (pool.mean(0), lowest)
        )
        halves = any(min(scores) <= scores[0] / 2 for scores in with_mean)
        curves = with_mean if halves else with_lowest
        first, last = curves[0][0], curves[0][-1]
        goal = first / 2
        if min(map(min, curves)) > goal:
            goal = last + (first - last) / 2
        for r, scores in enumerate(curves):
            fewest = next((k for k, score in enumerate(scores) if score <= goal), 4)
            assert int(result.fitness[r, b]) == fewest
    weights = 1 / result.fitness.double()
    torch.testing.assert_close(result.weights, weights / weights.sum(0))
    torch.testing.assert_close(result.values, (result.weights[:, :, None] * result.shares).sum(0))
    assert result.fitness.unique().numel() > 1
    assert "groups of columns" in result.criterion
    complete(result)


# --- which step -------------------------------------------------------------------------------------------------------


def test_a_step_before_the_last() -> None:
    """F is the network behind a scaler and a projection; the path is straight before them, by a dense sum of plain autograd."""
    numbers = FRAME[["age", "fare"]].fillna(40.0).assign(both=lambda f: f["age"] * f["fare"] / 40)
    steps = [("pick", "passthrough"), ("scale", StandardScaler()), ("turn", PCA(2, whiten=True))]
    steps += [
        ("square", PolynomialFeatures(2)),
        ("model", MLPRegressor(hidden_layer_sizes=(5,), random_state=0)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = Pipeline(steps).fit(numbers, SCORE)
    scaler, pca, _powers, model = (step for _, step in steps[1:])

    def output(z: torch.Tensor) -> torch.Tensor:
        u = (z - torch.from_numpy(pca.mean_)) @ torch.from_numpy(pca.components_.T)
        u = u / torch.from_numpy(pca.explained_variance_).sqrt()
        terms = [u[..., 0] * 0 + 1, u[..., 0], u[..., 1]]
        terms += [u[..., 0] ** 2, u[..., 0] * u[..., 1], u[..., 1] ** 2]
        hidden = torch.stack(terms, -1) @ torch.from_numpy(model.coefs_[0])
        hidden = (hidden + torch.from_numpy(model.intercepts_[0])).relu()
        return (hidden @ torch.from_numpy(model.coefs_[1]))[..., 0] + model.intercepts_[1][0]

    z, b = (torch.from_numpy(scaler.transform(numbers.iloc[rows])) for rows in ([0, 3, 5], [9]))
    times = (torch.arange(20_000).double()[:, None, None] + 0.5) / 20_000
    points = (b + times * (z - b)).requires_grad_()
    output(points).sum().backward()
    assert points.grad is not None
    expected = (z - b) * points.grad.mean(0)
    for step in ("scale", "pick"):  # scaling is column by column: the path is the same
        result = ig.explain(
            pipeline, numbers.iloc[[0, 3, 5]], baseline=numbers.iloc[[9]], attribute_after=step,
            tol=1e-4,
        )  # fmt: skip
        np.testing.assert_allclose(
            result.output.numpy(), pipeline.predict(numbers.iloc[[0, 3, 5]]), atol=1e-8
        )
        torch.testing.assert_close(result.values, expected, rtol=2e-3, atol=2e-4)
        assert result.feature_names == ("age", "fare", "both")
    with pytest.warns(MixedColumnsWarning):
        turned = ig.explain(
            pipeline, numbers.iloc[[0, 3, 5]], baseline=numbers.iloc[[9]], attribute_after="turn"
        )
    assert turned.feature_names == ("pca0", "pca1")


def test_trees_behind_a_projection() -> None:
    numbers = FRAME[["age", "fare"]].fillna(40.0)
    forest = sk.RandomForestClassifier(5, max_depth=3, random_state=0)
    steps = [("scale", StandardScaler()), ("turn", PCA(2)), ("model", forest)]
    pipeline = Pipeline(steps).fit(numbers, TWO)
    rows, start = numbers.iloc[:4], numbers.iloc[[9]]
    for target in (1, "predicted"):
        result = ig.explain(
            pipeline, rows, target=target, baseline=start, attribute_after="scale",
        )  # fmt: skip
        classes = [1] * 4 if target == 1 else pipeline.predict(rows)
        expected = pipeline.predict_proba(rows)[np.arange(4), classes]
        np.testing.assert_allclose(result.output.numpy(), expected, atol=1e-9)
        expected -= pipeline.predict_proba(start)[0, classes]
        np.testing.assert_allclose(result.values.sum(1).numpy(), expected, atol=1e-6)
    moved = start.assign(fare=3.0)
    alone = ig.explain(pipeline, moved, target=1, baseline=start, attribute_after="scale")
    change = np.subtract(*(pipeline.predict_proba(f)[0, 1] for f in (moved, start)))
    np.testing.assert_allclose(alone.values.numpy(), [[0.0, change]], atol=1e-9)


def test_steps_that_cannot_be() -> None:
    pipeline = trained(LogisticRegression())
    with pytest.raises(UnknownName, match="prepare"):
        ig.explain(pipeline, ROWS, target=1, attribute_after="prepar")
    with pytest.raises(InputError, match="is the model itself"):
        ig.explain(pipeline, ROWS, target=1, attribute_after="model")
    with pytest.raises(UnknownName, match="attribute_after"):
        ig.explain(torch.nn.Linear(2, 1), torch.ones(1, 2), target=0, attribute_after="prepare")
    steps = [("keep", "passthrough"), ("bins", KBinsDiscretizer(3)), ("model", Ridge())]
    numbers = FRAME[["fare"]]
    binned = Pipeline(steps).fit(numbers, SCORE)
    with pytest.raises(ModelError, match="KBinsDiscretizer is not known as a function"):
        ig.explain(binned, numbers[:3], attribute_after="keep")
    bare = Pipeline([("keep", "passthrough"), ("words", prepared()), ("model", Ridge())])
    with pytest.raises(InputError, match="hold no numbers"):
        ig.explain(bare.fit(FRAME, SCORE), ROWS, attribute_after="keep")


def test_a_pipeline_of_a_model_alone() -> None:
    numbers = FRAME[["fare", "id"]]
    model = LinearRegression()
    pipeline = Pipeline([("model", model)]).fit(numbers, SCORE)
    result = ig.explain(pipeline, numbers[["id", "fare"]].iloc[:3], baseline=numbers.iloc[9])
    expected = model.coef_ * (numbers.iloc[:3] - numbers.iloc[9])
    np.testing.assert_allclose(result.values.numpy(), expected, atol=1e-9)
    assert result.feature_names == ("fare", "id")


# --- columns of several columns ---------------------------------------------------------------------------------------


def test_columns_that_mix_stay_as_they_are_and_say_so() -> None:
    numbers = FRAME[["age", "fare", "id"]].fillna(40.0)
    parts = [("turned", PCA(2), ["age", "fare"]), ("kept", StandardScaler(), ["id"])]
    pipeline = make_pipeline(ColumnTransformer(parts), Ridge()).fit(numbers, SCORE)
    with pytest.warns(MixedColumnsWarning, match="'age', 'fare'") as given:
        result = ig.explain(pipeline, numbers[:4], baseline=numbers.iloc[[9]])
    assert len(given) == 1
    assert result.feature_names == ("id", "turned__pca0", "turned__pca1")
    z, b = (pipeline[0].transform(f) for f in (numbers[:4], numbers.iloc[[9]]))
    expected = (pipeline[-1].coef_ * (z - b))[:, [2, 0, 1]]
    np.testing.assert_allclose(result.values.numpy(), expected, atol=1e-9)
    assert result.table.shown["turned__pca0"] == tuple(z[:, 0])
    complete(result)


def test_powers_are_their_columns_and_products_their_own() -> None:
    numbers = FRAME[["fare", "id"]].astype(float)
    pipeline = make_pipeline(PolynomialFeatures(2), Ridge()).fit(numbers, SCORE)
    with pytest.warns(MixedColumnsWarning, match="'fare id'"):
        result = ig.explain(pipeline, numbers[:4], baseline=numbers.iloc[[9]])
    assert result.feature_names == ("fare", "id", "1", "fare id")
    z, b = (pipeline[0].transform(f) for f in (numbers[:4], numbers.iloc[[9]]))
    credit = pipeline[-1].coef_ * (z - b)  # 1, f, i, f², fi, i²
    expected = np.stack([credit[:, 1] + credit[:, 3], credit[:, 2] + credit[:, 5]], 1)
    np.testing.assert_allclose(result.values[:, :2].numpy(), expected, atol=1e-8)
    np.testing.assert_allclose(result.values[:, 3].numpy(), credit[:, 4], atol=1e-8)
    assert not result.values[:, 2].any()


def test_rows_that_are_divided_by_their_length_are_refused_where_they_come_out() -> None:
    numbers = FRAME[["fare", "id"]].astype(float)
    steps = [("scale", StandardScaler()), ("norm", Normalizer()), ("model", Ridge())]
    pipeline = Pipeline(steps).fit(numbers, SCORE)
    with pytest.raises(ModelError, match=r"Normalizer divides every row.*attribute_after="):
        ig.explain(pipeline, numbers[:4])
    result = ig.explain(
        pipeline, numbers[:4], baseline=numbers.iloc[[9]], attribute_after="scale", tol=1e-4
    )
    np.testing.assert_allclose(result.output.numpy(), pipeline.predict(numbers[:4]), atol=1e-9)
    assert float(result.gap.max()) < 1e-3


def test_words_of_a_text_column_and_functions_of_ones_own() -> None:
    frame = FRAME.assign(text=[f"good day {city}" for city in FRAME["city"]])
    parts = [
        ("text", CountVectorizer(), "text"),
        ("clipped", FunctionTransformer(lambda f: f.clip(-1, 1)), ["fare"]),
        ("both", FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())]), ["id"]),
        ("coded", OrdinalEncoder(), ["sex"]),
    ]
    pipeline = make_pipeline(ColumnTransformer(parts), Ridge()).fit(frame, SCORE)
    result = ig.explain(pipeline, frame[:4], baseline=frame.iloc[[9]])
    z, b = encoded(pipeline, frame[:4], frame.iloc[[9]])
    credit = pipeline[-1].coef_ * (z - b)
    words = len(pipeline[0].named_transformers_["text"].vocabulary_)
    assert result.feature_names == ("age", "sex", "city", "fare", "id", "text")
    expected = [0 * credit[:, 0], credit[:, -1], 0 * credit[:, 0], credit[:, words]]
    expected += [credit[:, words + 1 : words + 3].sum(1), credit[:, :words].sum(1)]
    np.testing.assert_allclose(result.values.numpy(), np.stack(expected, 1), atol=1e-9)
    assert result.table.shown["text"][0] == frame["text"].iloc[0]


# --- everything else --------------------------------------------------------------------------------------------------


def test_missing_numbers_that_nobody_fills_are_named() -> None:
    pipeline = make_pipeline(
        ColumnTransformer([("numbers", StandardScaler(), ["age", "fare"])]), Ridge()
    )
    with pytest.raises(NonFiniteInput, match="'numbers__age'"):
        ig.explain(pipeline.fit(FRAME.fillna({"age": 40.0}), SCORE), ROWS)


def test_missing_numbers_that_the_trees_take() -> None:
    boosted = sk.HistGradientBoostingRegressor(max_iter=8, min_samples_leaf=5)
    scaled = ColumnTransformer([("numbers", StandardScaler(), ["age", "fare"])])
    pipeline = make_pipeline(scaled, boosted).fit(FRAME, SCORE)
    result = ig.explain(pipeline, ROWS, baseline=START)
    np.testing.assert_allclose(result.output.numpy(), pipeline.predict(ROWS), atol=1e-9)
    complete(result)


def test_several_targets_at_once_with_labels_of_rows() -> None:
    pipeline = trained(LogisticRegression(), THREE)
    several = ig.explain_targets(pipeline, ROWS, targets=[0, 2], baseline=START)
    for target, result in zip((0, 2), several, strict=True):
        alone = ig.explain(pipeline, ROWS, target=target, baseline=START)
        torch.testing.assert_close(result.values, alone.values)
        assert list(result.to_pandas().index) == list(ROWS.index)
        assert result.table.shown == alone.table.shown
    (named,) = ig.explain_targets(
        pipeline, ROWS, targets=[1], baseline=START, attribute_after="prepare"
    )
    assert named.feature_names == COLUMNS


def test_maps_are_saved_joined_and_drawn(tmp_path: Path) -> None:
    pipeline = trained(LogisticRegression())
    parts = [
        ig.explain(pipeline, FRAME.iloc[part], target=1, baseline=START)
        for part in (slice(0, 3), slice(3, 6))
    ]
    joined = ig.concat(parts)
    torch.testing.assert_close(
        joined.values, ig.explain(pipeline, ROWS, target=1, baseline=START).values
    )
    joined.save(tmp_path / "map.safetensors")
    loaded = ig.load(tmp_path / "map.safetensors")
    pd.testing.assert_frame_equal(loaded.to_pandas("long"), joined.to_pandas("long"))
    assert loaded.importance().names[0] in COLUMNS
    for kind in ("waterfall", "beeswarm", "importance"):
        loaded.plot(kind=kind)
    loaded.plot(kind="dependence", feature="city")


def test_methods_are_compared_on_the_transformed_columns() -> None:
    pipeline = trained(MLPClassifier((5,), max_iter=30, random_state=0))
    compared = ig.compare(
        pipeline, ROWS, target=1, methods=["integrated", "idgi"], baseline=START, controls=False
    )
    assert compared.scores.methods == ("integrated", "idgi")


def test_methods_are_compared_on_the_columns_of_a_step() -> None:
    steps = [
        ("fill", SimpleImputer()),
        ("scale", StandardScaler()),
        ("model", MLPClassifier((5,), max_iter=30, tol=1.0, random_state=0)),
    ]
    columns = ["age", "fare"]
    pipeline = Pipeline(steps).fit(FRAME[columns], TWO)
    rows, start = ROWS[columns], START[columns].fillna(40.0)
    options = {"target": 1, "methods": ["integrated", "idgi"], "controls": False}
    compared = ig.compare(pipeline, rows, baseline=start, attribute_after="fill", **options)  # type: ignore[arg-type]
    filled = torch.from_numpy(steps[0][1].transform(rows))
    late = ig.compare(pipeline, rows, baseline=start, **options)  # type: ignore[arg-type]
    shown = compared.shown["integrated"].values
    scale = torch.from_numpy(steps[1][1].scale_)
    # Standardising is linear: contributions of columns do not depend on which side of it they are.
    torch.testing.assert_close(shown, late.shown["integrated"].values, rtol=0.05, atol=1e-3)
    np.testing.assert_allclose(
        compared.shown["integrated"].inputs,
        late.shown["integrated"].inputs * scale + torch.from_numpy(steps[1][1].mean_),
    )
    (named,) = ig.explain_targets(
        pipeline, rows, targets=[1], baseline=start, attribute_after="fill"
    )
    assert named.feature_names == ("age", "fare")
    alone = ig.explain(pipeline, rows, target=1, baseline=start, attribute_after="fill")
    torch.testing.assert_close(named.values, alone.values, rtol=0.05, atol=1e-3)
    with pytest.raises(UnknownName, match="no step of the pipeline named 'fil'"):
        ig.compare(pipeline, rows, attribute_after="fil", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="attribute_after= does not go with a Linear"):
        ig.compare(torch.nn.Linear(2, 1), filled, attribute_after="fill", **options)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="Did you mean 'baseline'"):
        ig.compare(pipeline, rows, baselin=start, **options)  # type: ignore[arg-type]


def test_a_model_without_the_pipeline_says_where_to_put_it() -> None:
    with pytest.raises(InputError, match=r"explain\(pipeline, frame\)"):
        ig.explain(torch.nn.Linear(5, 1), ROWS, target=0)


# --- metrics ----------------------------------------------------------------------------------------------------------


def without(pipeline: Pipeline, row: int, columns: list[str]) -> float:
    """P(class 1) of a row, the numbers that come from these columns replaced by 0; written out."""
    z = encoded(pipeline, ROWS)[0][row].copy()
    for column in columns:
        z[GROUPS[column]] = 0.0
    margin = float(z @ pipeline[-1].coef_[0] + pipeline[-1].intercept_[0])
    return 1 / (1 + np.exp(-margin))


def test_metrics_judge_the_columns_of_the_frame() -> None:
    """Deletion by hand: columns of the frame go one after the other, all their numbers at once."""
    pipeline = trained(LogisticRegression())
    result = ig.explain(pipeline, ROWS, target=1, baseline=0.0)
    scores = ig.metrics.deletion(pipeline, ROWS, result, target=1, fill=0.0)
    of_tensor = ig.metrics.deletion(pipeline, ROWS, result.values, target=1, fill=0.0)
    torch.testing.assert_close(scores, of_tensor)
    for row, values in enumerate(result.values):
        order = [COLUMNS[i] for i in values.argsort(descending=True) if GROUPS[COLUMNS[i]]]
        curve = [without(pipeline, row, order[:k]) for k in range(len(order) + 1)]
        area = float(np.trapezoid(curve, dx=1 / len(order)))
        assert float(scores[row]) == pytest.approx(area, abs=1e-6)
    alone = ig.metrics.deletion(pipeline, ROWS, result, target=1, fill=0.0, features="columns")
    assert not torch.allclose(alone, scores)


def test_maps_are_judged_alike_where_columns_change_places() -> None:
    """As many numbers as columns, in another order: the map is of the frame's."""
    order = ColumnTransformer([("fare", StandardScaler(), ["fare"]), ("id", "passthrough", ["id"])])
    frame = FRAME[["id", "fare"]]
    pipeline = make_pipeline(order, LogisticRegression(max_iter=500)).fit(frame, TWO)
    result = ig.explain(pipeline, frame.iloc[:6], target=1)
    assert result.feature_names == ("id", "fare")
    scores = ig.metrics.deletion(pipeline, frame.iloc[:6], result, target=1, fill=0.0)
    z = np.asarray(order.transform(frame.iloc[:6]))
    weights, bias = pipeline[-1].coef_[0], pipeline[-1].intercept_[0]

    def probability(rows: Any) -> Any:
        return 1 / (1 + np.exp(-(rows @ weights + bias)))

    for row in range(6):
        first = 1 if result.values[row, 0] > result.values[row, 1] else 0  # id is the second number
        kept = z[row].copy()
        kept[first] = 0.0
        curve = [probability(z[row]), probability(kept), probability(np.zeros(2))]
        assert float(scores[row]) == pytest.approx(float(np.trapezoid(curve, dx=0.5)), abs=1e-6)


def test_methods_are_compared_by_the_columns_of_the_frame() -> None:
    pipeline = trained(LogisticRegression())
    compared = ig.compare(
        pipeline, ROWS, target=1, methods=["integrated"], metrics=[ig.metrics.Deletion(fill=0.0)],
        baseline=0.0, controls=False,
    )  # fmt: skip
    result = ig.explain(pipeline, ROWS, target=1, baseline=0.0)
    judged = ig.metrics.deletion(pipeline, ROWS, result, target=1, fill=0.0)
    np.testing.assert_allclose(compared.scores.of("deletion")[0], judged.numpy(), atol=1e-6)


def test_metrics_that_explain_again_compare_maps_of_the_same_kind() -> None:
    """Random inputs at no distance give the same map: its distance from what is judged is 0."""
    pipeline = trained(LogisticRegression())
    result = ig.explain(pipeline, ROWS, target=1, baseline=0.0)
    moved = ig.metrics.max_sensitivity(pipeline, ROWS, result, target=1, radius=1e-9)
    assert float(moved.max()) < 1e-6


def test_metrics_of_maps_alone_take_maps_of_columns() -> None:
    result = ig.explain(trained(LogisticRegression()), ROWS, target=1, baseline=START)
    plain = ig.metrics.sparseness(result.values)
    torch.testing.assert_close(ig.metrics.sparseness(result), plain)
    grouped = result.grouped({"who": ["age", "sex"]})
    torch.testing.assert_close(
        ig.metrics.sparseness(grouped), ig.metrics.sparseness(grouped.values)
    )
