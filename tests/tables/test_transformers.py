"""What columns depend on, held against what they do: one column that goes in is changed, and what comes out is looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

from integrand.errors import ModelError
from integrand.tables.transformers import positions, sources

DRAWS = np.random.default_rng(0)
NUMBERS = DRAWS.normal(size=(60, 3))
CODES = np.stack([DRAWS.integers(0, k, 60) for k in (2, 3, 4)], 1).astype(float)
CODES[:2, 0], CODES[0, 2] = 7.0, 9.0  # rare ones
HOLES = np.where(DRAWS.random((60, 3)) < 0.2, np.nan, NUMBERS)
HOLES[:, 1] = NUMBERS[:, 1]
LABELS, THREE = (NUMBERS[:, 0] > 0).astype(int), DRAWS.integers(0, 3, 60)


class Doubled(BaseEstimator, TransformerMixin):
    """A user's own: all columns, and their sum."""

    def fit(self, X: Any, y: Any = None) -> Any:
        return self

    def transform(self, X: Any) -> Any:
        return np.concatenate([2 * X, X.sum(1, keepdims=True)], 1)


def dense(numbers: Any) -> Any:
    return np.asarray(numbers.toarray() if hasattr(numbers, "toarray") else numbers, dtype=float)


def dependencies(transform: Any, data: Any) -> Any:
    """(columns out, columns in): whether giving a column the entries of other rows changed what came out."""
    before = dense(transform(data))
    depends = np.zeros((before.shape[1], data.shape[1]), dtype=bool)
    for column in range(data.shape[1]):
        for shift in (1, 2, 3, 5, 8, 13):
            changed = data.copy()
            changed[:, column] = np.roll(changed[:, column], shift)
            depends[:, column] |= (dense(transform(changed)) != before).any(0)
    return depends


ONE_FOR_ONE = [
    *(StandardScaler(), MinMaxScaler(), MaxAbsScaler(), RobustScaler(), PowerTransformer()),
    *(QuantileTransformer(n_quantiles=20), Binarizer(), KBinsDiscretizer(3, encode="ordinal")),
    *(KBinsDiscretizer(3, encode="onehot"), KBinsDiscretizer([2, 3, 4], encode="onehot-dense")),
    *(SplineTransformer(4), FunctionTransformer(np.tanh), FunctionTransformer()),
    *(SelectKBest(k=2), VarianceThreshold(), SimpleImputer(), PolynomialFeatures(2)),
    PolynomialFeatures(3, interaction_only=True, include_bias=False),
    make_pipeline(StandardScaler(), SelectKBest(k=2), PolynomialFeatures(2)),
    FeatureUnion([("a", StandardScaler()), ("b", PolynomialFeatures(2)), ("c", "drop")]),
    FeatureUnion([("a", "passthrough"), ("b", SelectKBest(k=1))]),
]
ENCODERS = [
    *(OneHotEncoder(), OneHotEncoder(drop="first"), OneHotEncoder(drop="if_binary")),
    *(OneHotEncoder(min_frequency=5), OneHotEncoder(max_categories=2, drop="first")),
    OneHotEncoder(sparse_output=False, min_frequency=5, handle_unknown="infrequent_if_exist"),
    OrdinalEncoder(),
]
MIXING = [PCA(2), Doubled(), FunctionTransformer(lambda X: X - X.mean(1, keepdims=True))]


def name(transformer: Any) -> str:
    return type(transformer).__name__


def check(transformer: Any, data: Any) -> None:
    """Every dependency that shows is declared, and every one that is declared shows."""
    depends = dependencies(transformer.transform, data)
    declared = sources(transformer, data.shape[1], len(depends))
    for out, columns in enumerate(declared):
        assert set(np.nonzero(depends[out])[0].tolist()) == set(columns), (name(transformer), out)


@pytest.mark.parametrize("transformer", ONE_FOR_ONE, ids=name)
def test_transformers_of_numbers(transformer: Any) -> None:
    check(transformer.fit(NUMBERS, LABELS), NUMBERS)


@pytest.mark.parametrize("transformer", ENCODERS, ids=name)
def test_encoders(transformer: Any) -> None:
    check(transformer.fit(CODES), CODES)


@pytest.mark.parametrize("transformer", MIXING, ids=name)
def test_whatever_is_not_known_depends_on_all_that_goes_in(transformer: Any) -> None:
    transformer.fit(NUMBERS)
    depends = dependencies(transformer.transform, NUMBERS)
    declared = sources(transformer, 3, len(depends))
    for out, columns in enumerate(declared):
        assert set(np.nonzero(depends[out])[0].tolist()) <= set(columns)
    single = Doubled().fit(NUMBERS[:, :1])
    assert sources(single, 1, 2) == (frozenset([0]),) * 2


@pytest.mark.parametrize("target", [LABELS, THREE], ids=["two", "three"])
def test_encoders_of_targets(target: Any) -> None:
    check(TargetEncoder(random_state=0).fit(CODES, target), CODES)


@pytest.mark.parametrize(
    "imputer",
    [
        SimpleImputer(add_indicator=True),
        SimpleImputer(strategy="constant", fill_value=1.0, add_indicator=True),
        SimpleImputer(strategy="median", keep_empty_features=True),
        make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()),
        MissingIndicator(),
        MissingIndicator(features="all", error_on_new=False),
    ],
    ids=name,
)
def test_imputers_and_indicators(imputer: Any) -> None:
    imputer.fit(HOLES)
    depends = dependencies(imputer.transform, HOLES)
    declared = sources(imputer, 3, len(depends))
    for out, columns in enumerate(declared):
        shows = set(np.nonzero(depends[out])[0].tolist())
        assert shows <= set(columns)
        assert len(columns) == 1


def test_a_column_that_was_never_there_is_left_out() -> None:
    empty = np.where(np.arange(3) == 1, np.nan, NUMBERS)
    imputer = SimpleImputer().fit(empty)
    with pytest.warns(UserWarning, match="without any observed values"):
        width = imputer.transform(empty).shape[1]
    assert sources(imputer, 3, width) == (frozenset([0]), frozenset([2]))


def test_neighbours_are_looked_for_in_all_columns() -> None:
    imputer = KNNImputer().fit(HOLES)
    assert sources(imputer, 3, 3) == (frozenset(range(3)),) * 3


def test_a_width_that_is_not_understood_is_refused() -> None:
    with pytest.raises(ModelError, match="should make 3"):
        sources(StandardScaler().fit(NUMBERS), 3, 4)


FRAME = pd.DataFrame({"a": NUMBERS[:, 0], "b": CODES[:, 1], "c": NUMBERS[:, 1], "d": CODES[:, 2]})
MASK = [True, False, True, False]


@pytest.mark.parametrize(
    "columns",
    [
        *(["a", "c"], [0, 2], slice(0, 3, 2), MASK, np.array(MASK), [-4, -2]),
        pd.Index(["a", "c"]),
        make_column_selector(pattern="a|c"),
        lambda frame: ["a", "c"],
    ],
    ids=lambda columns: type(columns).__name__,
)
@pytest.mark.parametrize("remainder", ["passthrough", "drop", StandardScaler()], ids=name)
def test_columns_as_people_write_them(columns: Any, remainder: Any) -> None:
    parts = [
        ("numbers", make_pipeline(SimpleImputer(add_indicator=True), RobustScaler()), columns),
        ("words", OneHotEncoder(), ["d"]),
        ("nothing", StandardScaler(), []),
        ("gone", "drop", ["b"] if remainder == "drop" else []),
    ]
    transformer = ColumnTransformer(parts, remainder=remainder).fit(FRAME)
    width = dense(transformer.transform(FRAME)).shape[1]
    declared = sources(transformer, 4, width)
    depends = dependencies(
        lambda values: transformer.transform(pd.DataFrame(values, columns=FRAME.columns)),
        FRAME.to_numpy(),
    )
    for out, inputs in enumerate(declared):
        assert set(np.nonzero(depends[out])[0].tolist()) == set(inputs)


def test_one_column_alone() -> None:
    transformer = ColumnTransformer([("t", FunctionTransformer(), ["c"])]).fit(FRAME)
    assert positions("c", transformer) == [2]
    assert positions(-1, transformer) == [3]
    assert sources(Pipeline([("x", "passthrough")]).fit(NUMBERS), 3, 3) == tuple(
        frozenset([i]) for i in range(3)
    )
