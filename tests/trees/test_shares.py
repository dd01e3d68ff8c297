"""Shares of tree ensembles: goldens, ties and ends by brute force, treeig, prediction differences, links."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
import torch
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import ensemble as sk
from sklearn import tree as sktree

import integrand as ig
from integrand.fields.trees import Tree, TreeEnsemble, TreeField, TreeModel
from integrand.fields.trees.model import MarginSoftmax, Regression
from tests.trees.brute import generalized, generalized_rows, treeig_values

DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(400, 5))
Y = 2 * X[:, 0] + X[:, 1] * X[:, 2] + 0.1 * DRAWS.normal(size=400)
CLASS = np.digitize(Y, [-1, 1])
SIDE = (Y > 0).astype(int)


def stump(feature: int, threshold: float, low: float, high: float, output: int = 0) -> Tree:
    return Tree(
        np.array([feature, -1, -1]),
        np.array([threshold, 0.0, 0.0]),
        np.array([1, -1, -1]),
        np.array([2, -1, -1]),
        np.array([[0.0], [low], [high]]),
        np.zeros(3, dtype=bool),
        output,
    )


def both(first: tuple[int, float], second: tuple[int, float], value: float) -> Tree:
    """value · [z_i > c] [z_j > d]."""
    (i, c), (j, d) = first, second
    return Tree(
        np.array([i, -1, j, -1, -1]),
        np.array([c, 0, d, 0, 0.0]),
        np.array([1, -1, 3, -1, -1]),
        np.array([2, -1, 4, -1, -1]),
        np.array([[0.0], [0.0], [0.0], [0.0], [value]]),
        np.zeros(5, dtype=bool),
    )


def field_of(
    trees: list[Tree], features: int = 2, inclusive: bool = True, **rest: Any
) -> TreeField:
    ensemble = TreeEnsemble(trees, features, np.zeros(1), inclusive=inclusive, **rest)
    return TreeField(TreeModel(ensemble, Regression(), "by hand"))


def explained(field: ig.fields.Field, x: Any, baseline: Any = 0.0) -> ig.Attribution:
    return ig.methods.generalized(baseline)(field, torch.as_tensor(x, dtype=torch.float64))


# --- goldens ----------------------------------------------------------------------------------------------------------


def test_golden_of_trees_and_a_product() -> None:
    """F = 1.5 [x1 > 0.3] + 2 [x1 > 0.3] [x2 > 0.5] + x1 x2 from 0 to (1, 1) → (2.0, 2.5)."""
    trees = field_of([stump(0, 0.3, 0.0, 1.5), both((0, 0.3), (1, 0.5), 2.0)])
    product = ig.fields.Monomial(torch.tensor([1, 1]))
    attribution = explained(ig.fields.Sum([trees, product]), [[1.0, 1.0]])
    torch.testing.assert_close(
        attribution.values, torch.tensor([[2.0, 2.5]]).double(), rtol=0, atol=1e-12
    )


def test_golden_of_a_tie() -> None:
    attribution = explained(field_of([both((0, 0.5), (1, 0.5), 1.0)]), [[1.0, 1.0]])
    assert attribution.values.tolist() == [[0.5, 0.5]]
    assert attribution.error.tolist() == [0.0]
    assert bool(attribution.converged.all())


def test_golden_of_a_tie_with_a_part_of_its_own() -> None:
    """s(x1) s(x2) + 0.3 s(x1), both at 0.5 → (0.8, 0.5)."""
    attribution = explained(
        field_of([both((0, 0.5), (1, 0.5), 1.0), stump(0, 0.5, 0, 0.3)]), [[1.0, 1.0]]
    )
    torch.testing.assert_close(
        attribution.values, torch.tensor([[0.8, 0.5]], dtype=torch.float64), rtol=0, atol=1e-15
    )


def test_a_tie_of_all_features_is_the_shapley_value_of_the_baseline_game() -> None:
    """Six features that all cross halfway, through a softmax of margins: Baseline Shapley by all 720 orders."""
    draws = np.random.default_rng(3)
    trees = [stump(j, 0.5, *draws.normal(size=2), output=k) for j in range(6) for k in range(3)]
    model = TreeModel(TreeEnsemble(trees, 6, np.zeros(3)), MarginSoftmax(), "by hand")
    field = TreeField(model, ig.targets.Probability(1))

    def predict(z: Any) -> Any:
        return field.value(torch.from_numpy(z)).numpy()

    expected = generalized(predict, [np.array([0.5])] * 6, np.zeros(6), np.ones(6))
    attribution = explained(field, np.ones((1, 6)))
    np.testing.assert_allclose(attribution.values[0].numpy(), expected, atol=1e-13)


# --- ends on thresholds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize(("b", "x"), [(0.0, 0.5), (0.5, 1.0), (1.0, 0.5), (0.5, 0.0), (0.5, 0.5)])
def test_jumps_at_the_ends(inclusive: bool, b: float, x: float) -> None:
    """A number equal to a threshold is on the side that the library says, at either end."""
    right = (lambda z: z > 0.5) if inclusive else (lambda z: z >= 0.5)
    field = field_of([stump(0, 0.5, 1.0, 4.0)], inclusive=inclusive)
    attribution = explained(field, [[x, 7.0]], torch.tensor([b, 0.0]).double())
    assert attribution.values.tolist() == [[3.0 * (right(x) - right(b)), 0.0]]
    assert float(attribution.residual) == 0


GRID = np.random.default_rng(5).integers(0, 4, size=(300, 4)) / 4.0
GRID_Y = GRID[:, 0] * GRID[:, 1] + (GRID[:, 2] > GRID[:, 3]) + 0.5 * GRID[:, 3]


def cuts_of(trees: list[Any], features: int) -> list[Any]:
    return [
        np.unique(np.concatenate([t.threshold[t.feature == j] for t in trees]))
        for j in range(features)
    ]


@pytest.mark.parametrize("model", [sk.RandomForestRegressor, sk.ExtraTreesRegressor])
def test_ties_and_ends_by_brute_force(model: Any) -> None:
    """A thousand inputs and references on the grid that trees were trained on, where features of a forest often cross together."""
    forest = model(12, max_depth=5, random_state=0).fit(GRID, GRID_Y)
    thresholds = cuts_of([t.tree_ for t in forest.estimators_], 4)
    rows, starts = np.random.default_rng(8).choice(GRID, (2, 1000))
    attribution = explained(TreeField(forest), rows, torch.from_numpy(starts))
    expected = generalized_rows(forest.predict, thresholds, starts, rows)
    np.testing.assert_allclose(attribution.values.numpy(), expected, atol=1e-11)
    from_first = explained(TreeField(forest), rows, torch.from_numpy(starts[0]))
    expected = generalized_rows(forest.predict, thresholds, np.tile(starts[0], (1000, 1)), rows)
    np.testing.assert_allclose(from_first.values.numpy(), expected, atol=1e-11)


def test_ties_through_a_link_by_brute_force() -> None:
    model = sk.GradientBoostingClassifier(n_estimators=15, max_depth=3, random_state=0)
    model.fit(GRID, np.digitize(GRID_Y, [0.6, 1.3]))
    thresholds = cuts_of([t.tree_ for t in model.estimators_.ravel()], 4)
    rows, starts = GRID[:15], GRID[15:30]
    field = TreeField(model, ig.targets.Probability(2))
    attribution = explained(field, rows, torch.from_numpy(starts))
    expected = [
        generalized(lambda z: model.predict_proba(z)[:, 2], thresholds, b, x)
        for b, x in zip(starts, rows, strict=True)
    ]
    np.testing.assert_allclose(attribution.values.numpy(), np.array(expected), atol=1e-11)


def test_numbers_equal_to_thresholds_of_xgboost_by_brute_force() -> None:
    """z < c in float32: rows that lie exactly on thresholds, at both ends."""
    data = X.astype(np.float32).astype(np.float64)
    model = xgb.XGBRegressor(n_estimators=20, max_depth=3).fit(data, Y)
    field = TreeField(model)
    cuts = [
        np.unique(np.concatenate([t.threshold[t.feature == j] for t in field.ensemble.trees]))
        for j in range(5)
    ]
    draws = np.random.default_rng(2)
    ends = np.stack([draws.choice(cut, 40) for cut in cuts], 1)
    attribution = explained(field, ends[:20], torch.from_numpy(ends[20:]))
    expected = [
        generalized(lambda z: model.predict(z).astype(np.float64), cuts, b, x)
        for b, x in zip(ends[20:], ends[:20], strict=True)
    ]
    np.testing.assert_allclose(attribution.values.numpy(), np.array(expected), atol=2e-5)


# --- every library ----------------------------------------------------------------------------------------------------

MODELS: dict[str, tuple[Any, Any]] = {
    "tree": (sktree.DecisionTreeRegressor(random_state=0), Y),
    "extra tree": (sktree.ExtraTreeRegressor(random_state=0), Y),
    "forest": (sk.RandomForestRegressor(40, random_state=0), Y),
    "extra trees": (sk.ExtraTreesRegressor(40, random_state=0), Y),
    "boosting": (sk.GradientBoostingRegressor(n_estimators=40, random_state=0), Y),
    "histograms": (sk.HistGradientBoostingRegressor(max_iter=40, random_state=0), Y),
    "histograms of counts": (
        sk.HistGradientBoostingRegressor(loss="poisson", max_iter=40),
        np.abs(Y).round(),
    ),
    "forest of several outputs": (
        sk.RandomForestRegressor(20, random_state=0),
        X[:, :2] + Y[:, None],
    ),
    "tree classes": (sktree.DecisionTreeClassifier(random_state=0), CLASS),
    "forest classes": (sk.RandomForestClassifier(40, random_state=0), CLASS),
    "extra trees classes": (sk.ExtraTreesClassifier(40, random_state=0), CLASS),
    "boosting classes": (sk.GradientBoostingClassifier(n_estimators=20, random_state=0), CLASS),
    "boosting sides": (sk.GradientBoostingClassifier(n_estimators=20, random_state=0), SIDE),
    "exponential boosting": (
        sk.GradientBoostingClassifier(n_estimators=20, loss="exponential", random_state=0),
        SIDE,
    ),
    "histogram classes": (sk.HistGradientBoostingClassifier(max_iter=20), CLASS),
    "histogram sides": (sk.HistGradientBoostingClassifier(max_iter=20), SIDE),
    "xgboost": (xgb.XGBRegressor(n_estimators=30), Y),
    "xgboost counts": (xgb.XGBRegressor(n_estimators=30, objective="count:poisson"), np.abs(Y)),
    "xgboost sides": (xgb.XGBClassifier(n_estimators=20), SIDE),
    "xgboost sides, base score": (xgb.XGBClassifier(n_estimators=20, base_score=0.9), SIDE),
    "xgboost classes": (xgb.XGBClassifier(n_estimators=20), CLASS),
    "xgboost dart": (xgb.XGBRegressor(n_estimators=20, booster="dart", rate_drop=0.3), Y),
    "xgboost forest": (xgb.XGBRFRegressor(n_estimators=20, random_state=0), Y),
    "xgboost vector leaves": (
        xgb.XGBRegressor(n_estimators=20, multi_strategy="multi_output_tree", tree_method="hist"),
        X[:, :2] + Y[:, None],
    ),
    "xgboost several outputs": (xgb.XGBRegressor(n_estimators=20), X[:, :2] + Y[:, None]),
    "lightgbm": (lgb.LGBMRegressor(n_estimators=30, verbose=-1), Y),
    "lightgbm sides": (lgb.LGBMClassifier(n_estimators=20, verbose=-1), SIDE),
    "lightgbm classes": (lgb.LGBMClassifier(n_estimators=20, verbose=-1), CLASS),
    "lightgbm dart": (lgb.LGBMRegressor(n_estimators=20, boosting_type="dart", verbose=-1), Y),
    "lightgbm forest": (
        lgb.LGBMRegressor(
            n_estimators=20, boosting_type="rf", bagging_freq=1, bagging_fraction=0.5, verbose=-1
        ),
        Y,
    ),
}


def fitted(name: str) -> Any:
    model, y = MODELS[name]
    return model.fit(X, y)


def said(model: Any, rows: Any) -> Any:
    """The library's own raw word, (N, C): margins of boosted trees, probabilities of others."""
    if isinstance(model, xgb.XGBModel):
        raw = model.get_booster().predict(xgb.DMatrix(rows), output_margin=True)
    elif isinstance(model, lgb.LGBMModel) and model.boosting_type == "rf":
        raw = model.predict(rows)
    elif isinstance(model, lgb.LGBMModel):
        raw = model.predict(rows, raw_score=True)
    elif hasattr(model, "decision_function"):
        raw = model.decision_function(rows)
    elif hasattr(model, "predict_proba"):
        raw = model.predict_proba(rows)
    elif isinstance(model, sk.HistGradientBoostingRegressor) and model.loss == "poisson":
        raw = np.log(model.predict(rows))
    else:
        raw = model.predict(rows)
    raw = np.asarray(raw, dtype=np.float64)
    return raw[:, None] if raw.ndim == 1 else raw


@pytest.mark.parametrize("name", MODELS)
def test_trees_say_what_the_library_says_and_maps_add_up(name: str) -> None:
    """A thousand rows, some of which lie on thresholds: values, and the library's prediction differences."""
    model = fitted(name)
    draws = np.random.default_rng(1)
    rows = draws.normal(size=(1000, 5))
    probe = TreeField(model, target=lambda out: out.reshape(len(out), -1)[:, 0])
    cuts = [
        np.concatenate([t.threshold[t.feature == j] for t in probe.ensemble.trees] or [np.zeros(1)])
        for j in range(5)
    ]
    for j, cut in enumerate(cuts):
        if len(cut):
            rows[:300, j] = draws.choice(cut, 300)
    raw, starts = said(model, rows), said(model, X[:1])
    single = isinstance(model, xgb.XGBModel)
    tolerance = 2e-5 if single else 1e-10
    outputs = probe.outputs(torch.from_numpy(rows)).numpy().reshape(1000, -1)
    signed = np.concatenate([-raw, raw], 1) if outputs.shape[1] > raw.shape[1] else raw
    np.testing.assert_allclose(outputs, signed, atol=tolerance)
    for column in range(signed.shape[1]):
        target = column if signed.shape[1] > 1 else None
        attribution = ig.explain(
            model, rows, target=target, method="generalized", baseline=torch.from_numpy(X[:1])
        )
        change = raw[:, column % raw.shape[1]] - starts[0, column % raw.shape[1]]
        change = -change if outputs.shape[1] > raw.shape[1] and column == 0 else change
        np.testing.assert_allclose(attribution.values.sum(1).numpy(), change, atol=2 * tolerance)
        assert float(attribution.residual.abs().max()) < 1e-10
        assert float(attribution.error.max()) == 0
        assert bool(attribution.converged.all())


@pytest.mark.parametrize("name", [name for name in MODELS if "classes" in name or "sides" in name])
def test_probabilities(name: str) -> None:
    model = fitted(name)
    rows = np.random.default_rng(4).normal(size=(60, 5))
    target = ig.targets.Probability(1)
    attribution = ig.explain(model, rows, target=target, method="generalized", baseline="zero")
    difference = model.predict_proba(rows)[:, 1] - model.predict_proba(np.zeros((1, 5)))[0, 1]
    np.testing.assert_allclose(attribution.values.sum(1).numpy(), difference, atol=2e-6)
    assert float(attribution.residual.abs().max()) < 1e-10


def test_probability_of_margins_between_jumps() -> None:
    """Jump by jump on random rows, where no two features cross together: brute force on the library's probabilities."""
    model = sk.GradientBoostingClassifier(n_estimators=10, random_state=0).fit(X, CLASS)
    thresholds = cuts_of([t.tree_ for t in model.estimators_.ravel()], 5)
    attribution = ig.explain(
        model,
        X[:8],
        target=ig.targets.Probability(0),
        method="generalized",
        baseline=torch.from_numpy(X[8:16]),
    )
    expected = [
        generalized(lambda z: model.predict_proba(z)[:, 0], thresholds, X[8 + i], X[i])
        for i in range(8)
    ]
    np.testing.assert_allclose(attribution.values.numpy(), np.array(expected), atol=1e-12)


@pytest.fixture(scope="module")
def apart() -> Iterator[ProcessPoolExecutor]:
    """A process for peers whose pools of OpenMP threads would make torch hang in children of this one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("name", ["tree", "boosting", "boosting sides", "xgboost", "lightgbm"])
def test_treeig_agrees(name: str, apart: ProcessPoolExecutor) -> None:
    pytest.importorskip("treeig")
    model = fitted(name)
    rows = np.random.default_rng(6).normal(size=(1000, 5))
    start = np.random.default_rng(7).normal(size=5)
    theirs = apart.submit(treeig_values, model, start, rows).result()
    target = 1 if "sides" in name else None
    ours = ig.explain(
        model, rows, target=target, method="generalized", baseline=torch.from_numpy(start)
    )
    # Of XGBoost treeig reads a text of the model, whose leaves are printed with nine digits.
    rounding = 1e-7 if name == "xgboost" else 1e-10
    np.testing.assert_allclose(ours.values.numpy(), theirs, atol=rounding)


# --- the order of rows ------------------------------------------------------------------------------------------------


def kinds(name: str) -> tuple[Any, Any]:
    """A model and rows of its kind: plain numbers, numbers on a grid, or some missing and some categories."""
    draws = np.random.default_rng(9)
    if name == "plain":
        return sk.ExtraTreesRegressor(20, random_state=0).fit(X, Y), draws.normal(size=(400, 5))
    if name == "ties":
        forest = sk.RandomForestRegressor(20, max_depth=6, random_state=0)
        return forest.fit(GRID, GRID_Y), draws.choice(GRID, 400)
    data = X.copy()
    data[:, 3] = draws.integers(0, 9, len(data))
    data[draws.random(data.shape) < 0.1] = np.nan
    model = sk.HistGradientBoostingRegressor(max_iter=20, categorical_features=[3])
    return model.fit(data, Y + np.isnan(data[:, 0])), data


@pytest.mark.parametrize("name", ["plain", "ties", "missing and categories"])
def test_rows_in_any_order_are_walked_alike(name: str) -> None:
    """Rows from one start, rows to one end, pairs that share nothing: every way has one map, and one row alone has it too."""
    model, rows = kinds(name)
    ensemble = TreeField(model).ensemble
    ends, starts = ensemble.prepared(rows[:40]), ensemble.prepared(rows[-25:])
    both = [np.repeat(ends, 25, 0), np.tile(starts, (40, 1))]  # 25 ways to each end
    weights = np.ones((1000, 1))
    to_one = ensemble.shares(both[1], both[0], weights)
    order = np.lexsort((np.repeat(np.arange(40), 25), np.tile(np.arange(25), 40)))
    from_one = ensemble.shares(both[1][order], both[0][order], weights)
    np.testing.assert_allclose(from_one, to_one[order], atol=1e-12)
    mixed = np.random.default_rng(0).permutation(1000)
    shuffled = ensemble.shares(both[1][mixed], both[0][mixed], weights)
    np.testing.assert_allclose(shuffled, to_one[mixed], atol=1e-12)
    for way in range(0, 1000, 97):
        alone = ensemble.shares(both[1][[way]], both[0][[way]], weights[:1])
        np.testing.assert_allclose(alone[0], to_one[way], atol=1e-12)


def test_many_references_of_few_examples() -> None:
    """The mean over references, whether there are more of these or of examples, is that of maps from each."""
    model = fitted("boosting classes")
    rows, references = torch.from_numpy(X[:3]), torch.from_numpy(X[100:140])
    for some in (rows, rows[:1], torch.from_numpy(X[:70])):
        attribution = ig.explain(
            model, some, target=2, method="generalized", baseline=list(references)
        )
        each = [
            ig.explain(model, some, target=2, method="generalized", baseline=reference).values
            for reference in references
        ]
        torch.testing.assert_close(
            attribution.values, torch.stack(each).mean(0), rtol=0, atol=1e-12
        )


# --- properties -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_axioms(seed: int, depth: int) -> None:
    """Complete, additive over trees, zero for features that no tree looks at, and the way back is minus the way there."""
    draws = np.random.default_rng(seed)
    data = draws.integers(0, 5, size=(60, 4)) / 2.0
    forest = sk.ExtraTreesRegressor(3, max_depth=depth, random_state=seed % 1000)
    forest.fit(data * [1, 1, 1, 0], draws.normal(size=60))
    field = TreeField(forest)
    there = explained(field, data[:10], torch.from_numpy(data[10:20]))
    back = explained(field, data[10:20], torch.from_numpy(data[:10]))
    assert float(there.residual.abs().max()) < 1e-12
    torch.testing.assert_close(there.values, -back.values, rtol=0, atol=1e-12)
    assert float(there.values[:, 3].abs().max()) == 0
    each = [
        explained(TreeField(tree), data[:10], torch.from_numpy(data[10:20])).values
        for tree in forest.estimators_
    ]
    torch.testing.assert_close(there.values, torch.stack(each).mean(0), rtol=0, atol=1e-12)


def test_the_conformance_kit() -> None:
    for name in ("forest", "xgboost", "lightgbm"):
        ig.testing.check_field(
            TreeField(fitted(name)), torch.from_numpy(X[:6]), differentiable=False
        )
    field = TreeField(fitted("boosting classes"), ig.targets.Probability(1))
    ig.testing.check_field(field, torch.from_numpy(X[:6]), differentiable=False)


def test_symmetric_features_get_the_same() -> None:
    field = field_of([both((0, 0.25), (1, 0.25), 1.0), both((1, 0.75), (0, 0.75), -3.0)])
    values = explained(field, [[1.0, 1.0]]).values
    assert values[0, 0] == values[0, 1]


def test_many_switches_of_a_sum_need_no_coalitions() -> None:
    """Forty features that all switch at once: the sum over trees is exact where coalitions are beyond asking."""
    trees = [both((2 * j, 0.5), (2 * j + 1, 0.5), 1.0) for j in range(20)]
    assert explained(field_of(trees, 40), np.ones((1, 40))).values.tolist() == [[0.5] * 40]
    model = TreeModel(TreeEnsemble(trees, 40, np.zeros(1)), Regression(), "by hand")
    curved = TreeField(model, target=lambda out: out[:, 0].exp())
    with pytest.raises(ig.errors.InputError, match="40 features jump at one time"):
        explained(curved, np.ones((1, 40)))


def test_huge_and_tiny_numbers() -> None:
    field = field_of([stump(0, 1e308, 0.0, 1.0), stump(1, 1e-308, 0.0, 1.0)])
    attribution = explained(
        field, [[1.7e308, 2e-308]], torch.tensor([-1.7e308, -2e-308], dtype=torch.float64)
    )
    assert attribution.values.tolist() == [[1.0, 1.0]]
    single = ig.methods.generalized()(field, torch.ones(3, 2))
    assert single.values.dtype == torch.float32
    assert math.isfinite(float(single.values.sum()))
