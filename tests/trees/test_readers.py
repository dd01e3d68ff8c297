"""What libraries do at splits: missing values, zeros, categories; and models that are refused."""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
import torch
import xgboost as xgb
from sklearn import ensemble as sk
from sklearn import linear_model

import integrand as ig
from integrand.errors import InputError
from integrand.fields.trees import Tree, TreeEnsemble, TreeField, read_trees
from integrand.fields.trees import xgboost as reader

DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(500, 4))
X[:, 3] = DRAWS.integers(0, 6, 500)
Y = X[:, 0] + X[:, 1] * (X[:, 3] == 2) + (X[:, 3] > 3)
HOLES = X.copy()
HOLES[:, :3][DRAWS.random((500, 3)) < 0.2] = np.nan
HOLES_Y = np.where(np.isnan(HOLES[:, 0]), 2.0, Y)
KIND = np.array([2, 0, 5, 1, 3, 4])[X[:, 3].astype(int)]  # no order that a threshold could use


def agree(model: Any, rows: Any, predict: Any, tolerance: float = 1e-10) -> TreeField:
    field = TreeField(model)
    values = field.value(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(values, predict(rows), atol=tolerance)
    return field


def complete(field: TreeField, rows: Any, starts: Any) -> ig.Attribution:
    attribution = ig.methods.generalized(torch.from_numpy(starts))(field, torch.from_numpy(rows))
    assert float(attribution.residual.abs().max()) < 1e-10
    return attribution


# --- missing values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        (sk.RandomForestRegressor(20, random_state=0), 1e-10),
        (sk.ExtraTreesRegressor(20, random_state=0), 1e-10),
        (sk.HistGradientBoostingRegressor(max_iter=30), 1e-10),
        (xgb.XGBRegressor(n_estimators=30), 2e-5),
        (lgb.LGBMRegressor(n_estimators=30, verbose=-1), 1e-10),
    ],
)
def test_missing_values_go_where_the_library_sends_them(model: Any, tolerance: float) -> None:
    field = agree(model.fit(HOLES, HOLES_Y), HOLES, model.predict, tolerance)
    assert field.takes_missing
    attribution = complete(field, HOLES[:100], HOLES[100:200])
    still = np.isnan(HOLES[:100]) & np.isnan(HOLES[100:200])
    assert not attribution.values.numpy()[still].any()  # missing at both ends: it did not move


def test_a_missing_value_switches_halfway() -> None:
    """From NaN to 1 beside a feature that crosses early, and one that crosses late: worked out by hand.

    F = [x2 > c] · w(x1), w = 5 where x1 is missing and 1 at 1.
    """
    tree = Tree(
        np.array([1, -1, 0, -1, -1]),
        np.array([0.25, 0, 0.5, 0, 0]),
        np.array([1, -1, 3, -1, -1]),
        np.array([2, -1, 4, -1, -1]),
        np.array([[0.0], [0.0], [0.0], [5.0], [1.0]]),
        np.ones(5, dtype=bool),
    )
    for threshold, expected in ((0.25, [-4.0, 5.0]), (0.75, [0.0, 1.0]), (0.5, [-2.0, 3.0])):
        tree.threshold[0] = threshold
        ensemble = TreeEnsemble([tree], 2, np.zeros(1))
        x, start = np.ones((1, 2)), np.array([[np.nan, 0.0]])
        shares = ensemble.shares(ensemble.prepared(start), ensemble.prepared(x), np.ones((1, 1)))
        assert shares.tolist() == [expected]
        back = ensemble.shares(ensemble.prepared(x), ensemble.prepared(start), np.ones((1, 1)))
        assert back.tolist() == [[-number for number in expected]]


@pytest.mark.parametrize(
    "model",
    [
        sk.HistGradientBoostingRegressor(max_iter=5),
        sk.GradientBoostingRegressor(n_estimators=5),
        sk.RandomForestRegressor(5),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_model_trained_on_a_frame_is_explained_without_a_word_about_names(model: Any) -> None:
    """Warnings are errors here, and scikit-learn's of columns without names would be one."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"column {i}" for i in range(X.shape[1])])
    model.fit(frame, Y)
    attribution = ig.explain(model, frame[:5], method="generalized", baseline=frame.median())
    assert attribution.feature_names == tuple(frame.columns)
    np.testing.assert_allclose(attribution.output, model.predict(frame[:5]), atol=1e-6)


def test_missing_values_at_every_door() -> None:
    model = sk.HistGradientBoostingRegressor(max_iter=20).fit(HOLES, HOLES_Y)
    attribution = ig.explain(
        model, HOLES[:20], method="generalized", baseline=torch.from_numpy(HOLES[20:40])
    )
    assert float(attribution.residual.abs().max()) < 1e-10
    several = ig.explain(
        model, HOLES[:20], method="generalized", baseline=[0.0, torch.from_numpy(HOLES[5])]
    )
    assert several.weights.shape == (2, 20)
    assert float(several.residual.abs().max()) < 1e-10


def test_missing_values_without_a_direction_are_refused() -> None:
    model = sk.GradientBoostingRegressor(n_estimators=5).fit(X, Y)
    assert not TreeField(model).takes_missing
    with pytest.raises(ig.errors.NonFiniteInput, match="Fill missing values"):
        ig.explain(model, HOLES[:20], method="generalized")
    with pytest.raises(ig.errors.BaselineError, match="Fill missing values"):
        ig.explain(model, X[:20], method="generalized", baseline=torch.full((4,), torch.nan))
    with pytest.raises(ig.errors.NonFiniteInput, match="Feature 1 of row 0 is missing"):
        TreeField(model).value(torch.tensor([[0.0, torch.nan, 0.0, 0.0]]))
    with pytest.raises(ig.errors.NonFiniteInput):
        ig.explain(
            sk.HistGradientBoostingRegressor(max_iter=5).fit(X, Y),
            np.full((2, 4), np.inf),
            method="generalized",
        )


def test_a_number_that_stands_for_missing() -> None:
    marked = np.where(np.isnan(HOLES), -999.0, HOLES)
    model = xgb.XGBRegressor(n_estimators=20, missing=-999.0).fit(marked, HOLES_Y)
    field = agree(model, marked, model.predict, 2e-5)
    complete(field, marked[:50], marked[50:100])


def test_lightgbm_takes_zero_for_missing_and_missing_for_zero() -> None:
    sparse = np.where(DRAWS.random(X.shape) < 0.4, 0.0, X)
    zeros = lgb.LGBMRegressor(n_estimators=20, zero_as_missing=True, verbose=-1).fit(sparse, Y)
    field = agree(zeros, sparse, zeros.predict)
    assert field.ensemble.zero_missing is not None
    complete(field, sparse[:50], np.zeros((50, 4)))
    plain = lgb.LGBMRegressor(n_estimators=20, verbose=-1).fit(X, Y)
    assert plain.booster_.dump_model()["tree_info"][0]["tree_structure"]["missing_type"] == "None"
    holes = np.where(np.isnan(HOLES), np.nan, X)
    complete(agree(plain, holes, plain.predict), holes[:50], X[:50])


# --- categories -------------------------------------------------------------------------------------------------------


def categorical(kind: str) -> tuple[Any, Any]:
    """A model with a column of categories, and its own word."""
    target = KIND + X[:, 0]
    if kind == "lightgbm":
        data = lgb.Dataset(X, label=target, categorical_feature=[3])
        booster = lgb.train({"verbose": -1, "min_data_per_group": 5}, data, 20)
        return booster, booster.predict
    if kind == "xgboost":
        types = {"feature_types": ["q", "q", "q", "c"], "enable_categorical": True}
        trained = xgb.train({"max_cat_to_onehot": 1}, xgb.DMatrix(X, label=target, **types), 20)
        return trained, lambda rows: trained.predict(xgb.DMatrix(rows, **types))
    model = sk.HistGradientBoostingRegressor(max_iter=20, categorical_features=[3])
    model.fit(X, target)
    return model, model.predict


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost", "histograms"])
def test_categories(kind: str) -> None:
    """Values of known, unknown and missing categories; a category switches halfway, in one jump."""
    model, predict = categorical(kind)
    rows = X.copy()
    rows[:40, 3] = DRAWS.choice([-1.0, 7.0, 63.0, 64.0], 40)
    field = agree(model, rows, predict, 2e-5 if kind == "xgboost" else 1e-10)
    assert field.ensemble.categorical.tolist() == [False, False, False, True]
    complete(field, X[:80], X[80:160])
    # Between equal numbers, with another category: one feature did it, whatever lies between.
    other = X[:80].copy()
    other[:, 3] = 5 - other[:, 3]
    attribution = complete(field, other, X[:80])
    change = predict(other) - predict(X[:80])
    np.testing.assert_allclose(attribution.values[:, 3].numpy(), change, atol=2e-5)
    assert float(attribution.values[:, :3].abs().max()) == 0


def test_categories_between_other_columns() -> None:
    """scikit-learn moves columns of categories to the front, and numbers them."""
    shuffled = np.column_stack([X[:, 0], 10 * X[:, 3] + 5, X[:, 1], X[:, 2]])
    model = sk.HistGradientBoostingRegressor(max_iter=20, categorical_features=[1])
    model.fit(shuffled, KIND + X[:, 0])
    rows = shuffled.copy()
    rows[:30, 1] = 7.0  # never seen
    complete(agree(model, rows, model.predict), rows[:60], shuffled[60:120])


def test_a_category_that_is_no_whole_number() -> None:
    model, _ = categorical("lightgbm")
    with pytest.raises(ig.errors.InputError, match="takes it for a category, a whole number"):
        ig.explain(model, X[:5], method="generalized", baseline=torch.tensor([0.0, 0.0, 0.0, 2.5]))


def test_categories_that_are_words() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": X[:, 0], "kind": pandas.Categorical(list("abcde" * 100))})
    model = sk.HistGradientBoostingRegressor(max_iter=3, categorical_features="from_dtype")
    with pytest.raises(ig.errors.ModelError, match="categories that are words"):
        TreeField(model.fit(frame, Y))


# --- refused ----------------------------------------------------------------------------------------------------------


def test_models_that_are_not_read() -> None:
    start = linear_model.LinearRegression()
    boosting = sk.GradientBoostingRegressor(n_estimators=3, init=start).fit(X, Y)
    with pytest.raises(ig.errors.ModelError, match="starts from a LinearRegression"):
        TreeField(boosting)
    linear = lgb.LGBMRegressor(n_estimators=3, linear_tree=True, verbose=-1).fit(X, Y)
    with pytest.raises(ig.errors.ModelError, match="linear functions"):
        TreeField(linear)
    with pytest.raises(ig.errors.ModelError, match="'gblinear' booster and holds no trees"):
        TreeField(xgb.XGBRegressor(n_estimators=3, booster="gblinear").fit(X, Y))
    with pytest.raises(ig.errors.ModelError, match="is no tree model that is read"):
        TreeField(start.fit(X, Y))


def changed(monkeypatch: pytest.MonkeyPatch, change: Any) -> Any:
    """A booster whose saved form says something else."""
    booster = xgb.train({"max_depth": 2}, xgb.DMatrix(X, label=Y), 3)
    loads = json.loads

    def read(text: Any) -> Any:
        saved = loads(text)
        change(saved)
        return saved

    monkeypatch.setattr(reader.json, "loads", read)
    return booster


def test_formats_that_are_not_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    def tree(saved: Any) -> Any:
        return saved["learner"]["gradient_booster"]["model"]["trees"][0]

    def old(saved: Any) -> None:
        saved["version"] = [1, 2, 0]

    def kind(saved: Any) -> None:
        tree(saved)["split_type"][0] = 3

    def bare(saved: Any) -> None:
        tree(saved)["split_type"][0] = 1

    def wild(saved: Any) -> None:
        tree(saved)["left_children"][0] = 2

    def moved(saved: Any) -> None:
        tree(saved)["split_conditions"][0] += 0.5

    for change, message in (
        (old, "has format 1.2.0"),
        (kind, "splits of type 3"),
        (bare, "splits by category, and lists no categories"),
        (wild, "its nodes are no tree"),
        (moved, "do not say what the model says"),
    ):
        with monkeypatch.context() as patched:
            booster = changed(patched, change)
            with pytest.raises(ig.errors.ModelError, match=message):
                read_trees(booster)


def test_another_format_of_lightgbm(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lgb.LGBMRegressor(n_estimators=2, verbose=-1).fit(X, Y)
    dump = model.booster_.dump_model()
    monkeypatch.setattr(model.booster_, "dump_model", lambda: {**dump, "version": "v9"})
    with pytest.raises(ig.errors.ModelError, match="format 'v9'"):
        TreeField(model)


def test_splits_of_lightgbm_that_are_not_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lgb.LGBMRegressor(n_estimators=3, verbose=-1).fit(X, Y)
    dump = model.booster_.dump_model()
    column = dump["tree_info"][0]["tree_structure"]["split_feature"]
    several = f"treat missing values of feature {column} in several ways"
    for changes, message in (
        ({"decision_type": "==", "threshold": "red"}, "lists no categories, but 'red'"),
        ({"decision_type": "!="}, "splits of type '!='"),
        ({"missing_type": "Zero"}, several),
        ({"threshold": float("nan")}, "neither a threshold nor categories"),
        ({"threshold": 1e3}, "do not say what the model says"),
    ):
        changed = copy.deepcopy(dump)
        changed["tree_info"][0]["tree_structure"].update(changes)
        monkeypatch.setattr(model.booster_, "dump_model", lambda changed=changed: changed)
        with pytest.raises(ig.errors.ModelError, match=message):
            TreeField(model)


# --- doors ------------------------------------------------------------------------------------------------------------


def test_a_wrong_number_of_features_and_of_outputs() -> None:
    model = sk.RandomForestClassifier(5, random_state=0).fit(X, KIND)
    with pytest.raises(ig.errors.ShapeError, match="trained on 4 features"):
        ig.explain(model, X[:3, :3], target=1, method="generalized")
    with pytest.raises(ig.errors.TargetError, match="class 6 does not exist"):
        ig.explain(model, X[:3], target=6, method="generalized")
    with pytest.raises(ig.errors.TargetError, match="nothing says which is meant"):
        ig.explain(model, X[:3], method="generalized")
    regression = sk.RandomForestRegressor(5, random_state=0).fit(X, Y)
    with pytest.raises(ig.errors.TargetError, match="knows no classes"):
        ig.explain(regression, X[:3], target=ig.targets.Probability(0), method="generalized")
    with pytest.raises(ig.errors.InputError, match="batch_size= goes with a torch model"):
        ig.explain(regression, X[:3], method="generalized", batch_size=8)


@pytest.mark.filterwarnings("ignore::integrand.errors.FitnessWarning")
def test_the_usual_methods_take_trees() -> None:
    """The default method and Weighted Gradients need no rule of their own; nor do Expected Gradients; those that need a gradient say what to take."""
    model = sk.RandomForestClassifier(20, random_state=0).fit(X, KIND > 2)
    rows = X[:10]
    sides = torch.from_numpy(model.predict(rows).astype(int))
    exact = ig.explain(model, rows, target=sides, method="generalized")
    plain = ig.explain(model, rows, target=sides)
    assert torch.equal(exact.values, plain.values)
    assert bool(plain.converged.all())
    weighted = ig.explain(
        model, rows, target=sides, method="weighted", baseline=torch.from_numpy(X[20:24])
    )
    assert weighted.weights.shape == (4, 10)
    assert float(weighted.residual.abs().max()) < 1e-10
    several = [
        ig.explain(model, rows, target=sides, method="generalized", baseline=torch.from_numpy(X[i]))
        for i in range(20, 24)
    ]
    mean = torch.stack([part.values for part in several]).double()
    expected = torch.einsum("rb,rbf->bf", weighted.weights, mean)
    torch.testing.assert_close(weighted.values, expected, rtol=0, atol=1e-12)
    pool = {"target": sides, "baseline": torch.from_numpy(X[20:24])}
    expected_gradients = ig.explain(model, rows, method="expected", **pool)
    torch.testing.assert_close(expected_gradients.values.double(), mean.mean(0), rtol=0, atol=1e-12)
    with pytest.raises(ig.errors.NoGradient, match="method='generalized'"):
        ig.explain(model, rows, method="idgi", baseline=0.0, target=1)


def test_predicted_and_several_targets() -> None:
    model = sk.RandomForestClassifier(20, random_state=0).fit(X, KIND)
    predicted = ig.explain(model, X[:12], target="predicted", method="generalized")
    classes = torch.from_numpy(model.predict(X[:12]).astype(int))
    named = ig.explain(model, X[:12], target=classes, method="generalized")
    assert torch.equal(predicted.values, named.values)
    np.testing.assert_allclose(
        predicted.output.numpy(), model.predict_proba(X[:12]).max(1), atol=1e-12
    )
    targets = [0, "predicted", ig.targets.Probability(1), ig.targets.Margin(2, 3)]
    joint = ig.explain_targets(model, X[:12], targets=targets, method="generalized")
    for target, part in zip(targets, joint, strict=True):
        alone = ig.explain(model, X[:12], target=target, method="generalized")
        torch.testing.assert_close(part.values, alone.values, rtol=0, atol=1e-12)


def test_several_questions_of_one_forest() -> None:
    both = np.column_stack([KIND, KIND > 2]).astype(int)
    model = sk.RandomForestClassifier(10, random_state=0).fit(X, both)
    attribution = ig.explain(model, X[:9], target=(0, 4), method="generalized")
    change = model.predict_proba(X[:9])[0][:, 4] - model.predict_proba(np.zeros((1, 4)))[0][0, 4]
    np.testing.assert_allclose(attribution.values.sum(1).numpy(), change, atol=1e-12)


def test_early_stopping_explains_the_trees_that_predict() -> None:
    model = xgb.XGBRegressor(n_estimators=200, early_stopping_rounds=2, learning_rate=0.8)
    model.fit(X[:300], Y[:300], eval_set=[(X[300:], Y[300:])], verbose=False)
    assert model.best_iteration < 198
    agree(model, X, model.predict, 2e-5)


def test_a_field_that_adopts_models_of_its_own() -> None:
    class Slope:
        weight = 3.0

    class SlopeField(ig.fields.Linear):
        @classmethod
        def adopts(cls, model: object) -> bool:
            return isinstance(model, Slope)

        @classmethod
        def adopted(cls, model: Any, target: Any) -> ig.fields.Field:
            return cls(torch.tensor([model.weight, 0.0]))

    ig.fields.adopt(SlopeField)
    attribution = ig.explain(Slope(), torch.ones(2, 2), method="generalized")
    assert attribution.values.tolist() == [[3.0, 0.0]] * 2


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        sk.RandomForestRegressor(20, random_state=0),
        sk.HistGradientBoostingRegressor(max_iter=30),
        xgb.XGBRegressor(n_estimators=30),
        lgb.LGBMRegressor(n_estimators=30, verbose=-1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_columns_of_frames_are_read_by_name(model: Any) -> None:
    """In whatever order they come: the model was trained on names, not on places."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b c", "d", "e_f"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LightGBM says that it writes underlines for spaces
        model.fit(frame, Y)
    expected = torch.tensor(model.predict(frame[:20]))
    turned = frame[["d", "e_f", "a", "b c"]]
    result = ig.explain(
        model, turned[:20], target=ig.targets.Output(), method="generalized", baseline=frame[:1]
    )
    torch.testing.assert_close(result.output, expected, rtol=1e-5, atol=1e-5, check_dtype=False)
    straight = ig.explain(
        model, frame[:20], target=ig.targets.Output(), method="generalized", baseline=frame[:1]
    )
    torch.testing.assert_close(result.values, straight.values, rtol=0, atol=0)
    assert result.feature_names == straight.feature_names
    with pytest.raises(InputError, match="'d'"):
        ig.explain(model, frame[["a", "b c", "e_f"]], target=0, method="generalized")
