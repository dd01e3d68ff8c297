"""Models are read once, and again as soon as anything that they predict with has changed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
import torch
import xgboost as xgb
from sklearn import ensemble as sk
from sklearn import tree as sktree

from integrand.fields.trees import TreeField, once, read_trees

DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(200, 4))
Y = X[:, 0] + X[:, 1] * X[:, 2]
OTHER = -3 * Y + 1


def write_to_a_leaf(tree: Any) -> None:
    tree.value[tree.feature < 0] += 0.5


def more_rounds(booster: Any) -> None:
    booster.update(xgb.DMatrix(X, label=OTHER), 3)


def warmer(model: Any) -> None:
    model.set_params(warm_start=True, n_estimators=8).fit(X, OTHER)


MODELS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tree, trained again": (
        lambda: sktree.DecisionTreeRegressor(random_state=0).fit(X, Y),
        lambda model: model.fit(X, OTHER),
        lambda model: model.predict(X),
    ),
    "tree, a leaf written to": (
        lambda: sktree.DecisionTreeRegressor(random_state=0).fit(X, Y),
        lambda model: write_to_a_leaf(model.tree_),
        lambda model: model.predict(X),
    ),
    "forest, more trees": (
        lambda: sk.RandomForestRegressor(4, random_state=0).fit(X, Y),
        warmer,
        lambda model: model.predict(X),
    ),
    "forest, a tree taken out": (
        lambda: sk.RandomForestRegressor(4, random_state=0).fit(X, Y),
        lambda model: model.estimators_.pop(),
        lambda model: model.predict(X),
    ),
    "boosting, another learning rate": (
        lambda: sk.GradientBoostingRegressor(n_estimators=5, random_state=0).fit(X, Y),
        lambda model: model.set_params(learning_rate=0.7),
        lambda model: model.predict(X),
    ),
    "boosting, a leaf written to": (
        lambda: sk.GradientBoostingRegressor(n_estimators=5, random_state=0).fit(X, Y),
        lambda model: write_to_a_leaf(model.estimators_[2, 0].tree_),
        lambda model: model.predict(X),
    ),
    "histograms, trained again": (
        lambda: sk.HistGradientBoostingRegressor(max_iter=5).fit(X, Y),
        lambda model: model.fit(X, OTHER),
        lambda model: model.predict(X),
    ),
    "histograms, a leaf written to": (
        lambda: sk.HistGradientBoostingRegressor(max_iter=5).fit(X, Y),
        lambda model: model._predictors[1][0].nodes["value"].__iadd__(0.25),
        lambda model: model.predict(X),
    ),
    "xgboost, trained again": (
        lambda: xgb.XGBRegressor(n_estimators=5).fit(X, Y),
        lambda model: model.fit(X, OTHER),
        lambda model: model.predict(X),
    ),
    "xgboost, one more round": (
        lambda: xgb.train({"max_depth": 3}, xgb.DMatrix(X, label=Y), 3),
        more_rounds,
        lambda model: model.predict(xgb.DMatrix(X)),
    ),
    "lightgbm, trained again": (
        lambda: lgb.LGBMRegressor(n_estimators=5, verbose=-1).fit(X, Y),
        lambda model: model.fit(X, OTHER),
        lambda model: model.predict(X),
    ),
    "lightgbm, a leaf written to": (
        lambda: lgb.train({"verbose": -1}, lgb.Dataset(X, label=Y), 3),
        lambda model: model.set_leaf_output(1, 0, 7.0),
        lambda model: model.predict(X),
    ),
    "lightgbm, a round taken back": (
        lambda: lgb.train({"verbose": -1}, lgb.Dataset(X, label=Y), 3, keep_training_booster=True),
        lambda model: model.rollback_one_iter(),
        lambda model: model.predict(X),
    ),
}


def said(model: Any) -> Any:
    return TreeField(model).value(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_a_changed_model_is_read_again(name: str) -> None:
    build, change, predict = MODELS[name]
    model = build()
    read, before = read_trees(model), predict(model)
    assert read_trees(model) is read
    np.testing.assert_allclose(said(model), before, atol=1e-5)
    change(model)
    after = predict(model)
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_allclose(said(model), after, atol=1e-5)
    assert read_trees(model) is read_trees(model) is not read


def test_two_models_are_not_mistaken_for_each_other() -> None:
    first, second = (sktree.DecisionTreeRegressor(random_state=0).fit(X, y) for y in (Y, OTHER))
    assert read_trees(first) is not read_trees(second)
    np.testing.assert_allclose(said(first), first.predict(X), atol=1e-12)
    np.testing.assert_allclose(said(second), second.predict(X), atol=1e-12)


def test_nothing_is_remembered_of_a_model_that_is_gone() -> None:
    model = sktree.DecisionTreeRegressor(random_state=0).fit(X, Y)
    read_trees(model)
    number = id(model)
    assert number in once._REMEMBERED
    del model
    gc.collect()
    assert number not in once._REMEMBERED


def test_a_model_that_cannot_be_saved_is_read_each_time() -> None:
    model = sktree.DecisionTreeRegressor(random_state=0).fit(X, Y)
    model.note = lambda: None
    assert once.content_digest(model) is None
    assert read_trees(model) is not read_trees(model)
    np.testing.assert_allclose(said(model), model.predict(X), atol=1e-12)
