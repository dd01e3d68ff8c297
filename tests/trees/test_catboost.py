"""CatBoost's trees: what they say, where missing values go, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.fields.trees import TreeField, read_trees
from integrand.fields.trees import catboost as reader
from tests.trees.brute import generalized_rows

cb = pytest.importorskip("catboost")

DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(400, 5)).astype(np.float32).astype(np.float64)
Y = 2 * X[:, 0] + X[:, 1] * X[:, 2] + 0.1 * DRAWS.normal(size=400)
CLASS = np.digitize(Y, [-1, 1])
SIDE = (Y > 0).astype(int)
HOLES = np.where(DRAWS.random(X.shape) < 0.2, np.nan, X)
HOLES_Y = Y + 3 * np.isnan(HOLES[:, 0])
QUIET = {
    "iterations": 25,
    "verbose": False,
    "allow_writing_files": False,
    "random_seed": 0,
    "thread_count": 1,
}

MODELS: dict[str, tuple[Any, Any]] = {
    "symmetric": (cb.CatBoostRegressor(**QUIET), Y),
    "deep": (cb.CatBoostRegressor(**QUIET, depth=9), Y),
    "level by level": (cb.CatBoostRegressor(**QUIET, grow_policy="Depthwise"), Y),
    "leaf by leaf": (cb.CatBoostRegressor(**QUIET, grow_policy="Lossguide"), Y),
    "two sides": (cb.CatBoostClassifier(**QUIET), SIDE),
    "classes": (cb.CatBoostClassifier(**QUIET), CLASS),
    "classes, leaf by leaf": (cb.CatBoostClassifier(**QUIET, grow_policy="Lossguide"), CLASS),
    "one class against all": (
        cb.CatBoostClassifier(**QUIET, loss_function="MultiClassOneVsAll"),
        CLASS,
    ),
    "several outputs": (
        cb.CatBoostRegressor(**QUIET, loss_function="MultiRMSE"),
        X[:, :2] + Y[:, None],
    ),
    "counts": (cb.CatBoostRegressor(**QUIET, loss_function="Poisson"), np.abs(Y)),
}


def fitted(name: str) -> Any:
    model, y = MODELS[name]
    return copy.deepcopy(model).fit(X, y)


def said(model: Any, rows: Any) -> Any:
    raw = np.asarray(model.predict(rows, prediction_type="RawFormulaVal"))
    return raw[:, None] if raw.ndim == 1 else raw


@pytest.mark.parametrize("name", MODELS)
def test_trees_say_what_the_library_says_and_maps_add_up(name: str) -> None:
    """A thousand rows, some of which lie on borders: values, and differences of the library's predictions."""
    model = fitted(name)
    rows = np.random.default_rng(1).normal(size=(1000, 5)).astype(np.float32).astype(np.float64)
    probe = TreeField(model, target=lambda out: out[:, 0])
    nodes = probe.ensemble.packed.nodes
    for j in range(5):
        cuts = nodes["threshold"][nodes["feature"] == j]
        rows[:300, j] = DRAWS.choice(cuts, 300)
    raw, starts = said(model, rows), said(model, X[:1])
    outputs = probe.outputs(torch.from_numpy(rows)).numpy()
    signed = np.concatenate([-raw, raw], 1) if outputs.shape[1] > raw.shape[1] else raw
    np.testing.assert_allclose(outputs, signed, atol=1e-10)
    begin = np.concatenate([-starts, starts], 1) if outputs.shape[1] > raw.shape[1] else starts
    for column in range(signed.shape[1]):
        target = column if signed.shape[1] > 1 else None
        attribution = ig.explain(
            model, rows, target=target, method="generalized", baseline=torch.from_numpy(X[:1])
        )
        change = signed[:, column] - begin[0, column]
        np.testing.assert_allclose(attribution.values.sum(1).numpy(), change, atol=1e-10)
        assert float(attribution.residual.abs().max()) < 1e-10


@pytest.mark.parametrize("name", ["symmetric", "leaf by leaf", "classes"])
def test_maps_by_brute_force(name: str) -> None:
    model = fitted(name)
    field = TreeField(model, target=lambda out: out[:, -1])
    nodes = field.ensemble.packed.nodes
    cuts = [np.unique(nodes["threshold"][nodes["feature"] == j]) for j in range(5)]
    attribution = ig.methods.generalized(torch.from_numpy(X[20:40]))(
        field, torch.from_numpy(X[:20])
    )
    expected = generalized_rows(lambda z: said(model, z)[:, -1], cuts, X[20:40], X[:20])
    np.testing.assert_allclose(attribution.values.numpy(), expected, atol=1e-11)


@pytest.mark.parametrize("name", ["two sides", "classes"])
def test_probabilities(name: str) -> None:
    model = fitted(name)
    target = ig.targets.Probability(1)
    attribution = ig.explain(model, X[:40], target=target, method="generalized", baseline="zero")
    change = model.predict_proba(X[:40])[:, 1] - model.predict_proba(np.zeros((1, 5)))[0, 1]
    np.testing.assert_allclose(attribution.values.sum(1).numpy(), change, atol=1e-10)


@pytest.mark.parametrize("mode", ["Min", "Max"])
@pytest.mark.parametrize("policy", ["SymmetricTree", "Lossguide"])
def test_missing_values_go_where_the_library_sends_them(mode: str, policy: str) -> None:
    model = cb.CatBoostRegressor(**QUIET, nan_mode=mode, grow_policy=policy).fit(HOLES, HOLES_Y)
    field = TreeField(model)
    assert field.takes_missing
    np.testing.assert_allclose(
        field.value(torch.from_numpy(HOLES)).numpy(), said(model, HOLES)[:, 0], atol=1e-10
    )
    attribution = ig.methods.generalized(torch.from_numpy(HOLES[100:200]))(
        field, torch.from_numpy(HOLES[:100])
    )
    assert float(attribution.residual.abs().max()) < 1e-10


def test_missing_values_that_were_not_learnt_are_refused() -> None:
    model = fitted("symmetric")
    with pytest.raises(ig.errors.NonFiniteInput, match="Fill missing values"):
        ig.explain(model, HOLES[:20], method="generalized")
    some = X.copy()
    some[::7, 2] = np.nan
    partly = TreeField(cb.CatBoostRegressor(**QUIET).fit(some, Y))
    with pytest.raises(ig.errors.NonFiniteInput, match="Feature 0 of row 0 is missing"):
        partly.value(torch.tensor([[torch.nan, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64))


def test_columns_that_are_no_numbers_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": X[:, 0], "kind": list("abcde" * 80)})
    model = cb.CatBoostRegressor(**QUIET, cat_features=["kind"]).fit(frame, Y)
    with pytest.raises(ig.errors.ModelError, match="columns of kind categorical"):
        TreeField(model)
    with pytest.raises(ig.errors.ModelError, match="is not trained"):
        TreeField(cb.CatBoostRegressor(**QUIET))


def test_formats_that_are_not_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted("symmetric")
    saved = reader._saved(model)

    def split(changed: Any) -> None:
        changed["oblivious_trees"][0]["splits"][0]["split_type"] = "OnlineCtr"

    def treatment(changed: Any) -> None:
        changed["features_info"]["float_features"][0]["nan_value_treatment"] = "AsMean"

    def trees(changed: Any) -> None:
        del changed["oblivious_trees"]

    def border(changed: Any) -> None:
        changed["oblivious_trees"][0]["splits"][0]["border"] += 0.5

    def leaves(changed: Any) -> None:
        changed["oblivious_trees"][0]["leaf_values"].pop()

    for change, message in (
        (split, "splits of type 'OnlineCtr'"),
        (treatment, "treats missing values as 'AsMean'"),
        (trees, "is not what this version of Integrand understands"),
        (border, "do not say what the model says"),
        (leaves, "is not what this version of Integrand understands"),
    ):
        changed = copy.deepcopy(saved)
        change(changed)
        monkeypatch.setattr(reader, "_saved", lambda _, changed=changed: changed)
        with pytest.raises(ig.errors.ModelError, match=message):
            read_trees(model)


def test_a_model_that_was_trained_again_is_read_again() -> None:
    model = fitted("symmetric")
    read = read_trees(model)
    assert read_trees(model) is read
    model.fit(X, -Y)
    np.testing.assert_allclose(
        TreeField(model).value(torch.from_numpy(X)).numpy(), said(model, X)[:, 0], atol=1e-10
    )
