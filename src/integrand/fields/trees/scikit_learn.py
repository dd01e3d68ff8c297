"""Trees of scikit-learn: single trees, forests, extra trees, gradient boosting by exact splits and
by histograms.

    left if z ≤ threshold; z rounded to float32 by trees, forests and GradientBoosting, not by
    HistGradientBoosting
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core.optional import is_instance
from ...errors import ModelError
from ..fitted import check_fitted
from .ensemble import Floats, Tree, TreeEnsemble
from .model import (
    MarginLink,
    MarginLogistic,
    MarginSoftmax,
    Probabilities,
    Regression,
    TreeModel,
    TreeReader,
    checked,
)

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


class ScikitLearn(TreeReader):
    """Reads the tree models of scikit-learn."""

    def reads(self, model: object) -> bool:
        return _kind(model) is not None

    def read(self, model: BaseEstimator) -> TreeModel:
        check_fitted(model)
        kind = _kind(model)
        assert kind is not None
        read: TreeModel = kind(model)
        return replace(read, labels=_labels(model))


def _kind(model: object) -> Any:
    """The function that reads a model of this class."""
    readers = (
        ("sklearn.tree", ("DecisionTree",), _single),
        ("sklearn.ensemble", ("RandomForest", "ExtraTrees"), _forest),
        ("sklearn.ensemble", ("GradientBoosting",), _boosting),
        ("sklearn.ensemble", ("HistGradientBoosting",), _histograms),
    )
    for module, families, read in readers:
        classes = [family + task for family in families for task in ("Classifier", "Regressor")]
        if is_instance(model, module, *classes):
            return read
    return None


def _single(model: BaseEstimator) -> TreeModel:
    return _averaged(model, [model])


def _forest(model: BaseEstimator) -> TreeModel:
    return _averaged(model, list(model.estimators_))


def _averaged(model: BaseEstimator, estimators: list[Any]) -> TreeModel:
    """Trees whose outputs are averaged: probabilities of classifiers, numbers of regressions."""
    from sklearn.base import is_classifier

    classifier = is_classifier(model)
    trees = [_tree(estimator.tree_, classifier, 1 / len(estimators)) for estimator in estimators]
    ensemble = TreeEnsemble(
        trees,
        int(model.n_features_in_),
        np.zeros(trees[0].values.shape[1]),
        rounded=True,
        missing=_missing(model),
        names=_names(model),
    )
    link: MarginLink = Regression()
    if classifier:
        questions, classes = estimators[0].tree_.value.shape[1:]
        link = Probabilities((classes,) if questions == 1 else (questions, classes))

    def raw(rows: NDArray[Any]) -> NDArray[Any]:
        if not classifier:
            return np.asarray(model.predict(rows))
        said = model.predict_proba(rows)
        if not isinstance(said, list):
            return np.asarray(said)
        assert isinstance(link, Probabilities)
        padded = np.zeros((len(rows), *link.shape))
        for question, probabilities in enumerate(said):
            padded[:, question, : probabilities.shape[1]] = probabilities
        return padded.reshape(len(rows), -1)

    name = type(model).__name__
    return TreeModel(checked(name, ensemble, _of_arrays(raw), np.float64), link, name)


def _tree(tree: Any, classifier: bool, weight: float, output: int = 0) -> Tree:
    """A tree of scikit-learn, its leaves times ``weight``; of classifiers, probabilities."""
    values = np.asarray(tree.value, dtype=np.float64)
    if classifier:
        total = values.sum(2, keepdims=True)
        values = values / np.where(total == 0, 1, total)
    feature = np.asarray(tree.feature, dtype=np.int64)
    return Tree(
        np.where(feature < 0, -1, feature),
        np.asarray(tree.threshold, dtype=np.float64),
        np.asarray(tree.children_left, dtype=np.int64),
        np.asarray(tree.children_right, dtype=np.int64),
        weight * values.reshape(len(values), -1),
        np.asarray(tree.missing_go_to_left, dtype=bool),
        output,
    )


def _missing(model: BaseEstimator) -> NDArray[np.bool_] | None:
    """Which features may be missing: of one that never was so in training, too, the direction is
    known where the model takes NaN at all."""
    from sklearn.utils import get_tags

    takes_missing = bool(get_tags(model).input_tags.allow_nan)
    return None if takes_missing else np.zeros(int(model.n_features_in_), dtype=bool)


def _names(model: BaseEstimator) -> tuple[str, ...] | None:
    """The names of the columns it was trained on, where they had any."""
    try:
        return tuple(map(str, model.feature_names_in_))
    except AttributeError:
        return None


def _labels(model: BaseEstimator) -> tuple[object, ...]:
    """The labels of a classifier that answers one question."""
    from sklearn.base import is_classifier

    if not is_classifier(model) or isinstance(model.classes_, list):
        return ()
    return tuple(model.classes_)


def _classes(model: BaseEstimator) -> int:
    """How many classes a classifier knows; 0 for a regression."""
    from sklearn.base import is_classifier

    return len(model.classes_) if is_classifier(model) else 0


def _boosting(model: BaseEstimator) -> TreeModel:
    """GradientBoosting: what a constant model says, and trees times the learning rate."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    name = type(model).__name__
    constant = isinstance(model.init_, DummyClassifier | DummyRegressor) or model.init_ == "zero"
    if not constant:
        raise ModelError(
            f"This {name} starts from a {type(model.init_).__name__} (init=), which is no tree: explain the two as a sum, "
            "ig.fields.Sum, or train it without init=."
        )
    columns = model.estimators_.shape[1]
    trees = [
        _tree(estimator.tree_, False, float(model.learning_rate), column)
        for row in model.estimators_
        for column, estimator in enumerate(row)
    ]
    features = int(model.n_features_in_)
    ensemble = TreeEnsemble(
        trees,
        features,
        np.zeros(columns),
        rounded=True,
        missing=np.zeros(features, dtype=bool),
        names=_names(model),
    )
    raw = model.decision_function if _classes(model) else model.predict
    link: MarginLink = Regression()
    if _classes(model):
        scale = 2.0 if model.loss == "exponential" else 1.0
        link = MarginLogistic(scale) if columns == 1 else MarginSoftmax()
    return TreeModel(checked(name, ensemble, _of_arrays(raw), np.float64, base=True), link, name)


def _histograms(model: BaseEstimator) -> TreeModel:
    """HistGradientBoosting: float64 thresholds, categories as codes, a direction for missing
    values at every split."""
    name = type(model).__name__
    codes, column_of = _categories(model)
    trees = [
        _histogram_tree(predictor, column_of, column)
        for row in model._predictors
        for column, predictor in enumerate(row)
    ]
    outputs = int(model.n_trees_per_iteration_)
    link: MarginLink
    ensemble = TreeEnsemble(
        trees, int(model.n_features_in_), np.zeros(outputs), codes=codes, names=_names(model)
    )
    if _classes(model):
        raw, link = model.decision_function, MarginLogistic() if outputs == 1 else MarginSoftmax()
    else:
        logarithm = model.loss in ("poisson", "gamma")
        link = (
            Regression("The model predicts exp of its raw output, and no probability.")
            if logarithm
            else Regression()
        )

        def raw(rows: NDArray[Any]) -> NDArray[Any]:
            said = np.asarray(model.predict(rows))
            return np.log(said) if logarithm else said

    return TreeModel(checked(name, ensemble, _of_arrays(raw), np.float64, base=True), link, name)


def _of_arrays(raw: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``raw`` as it is asked with arrays. A model that was trained on a frame would warn that they
    have no names; columns are taken in its order."""

    def asked(rows: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
            return raw(rows)

    return asked


def _categories(model: BaseEstimator) -> tuple[dict[int, Floats], list[int]]:
    """The categories of each categorical column in the order of their codes, and the columns in the
    model's own order, categorical ones first."""
    features = int(model.n_features_in_)
    if model.is_categorical_ is None:
        return {}, list(range(features))
    categorical = np.nonzero(model.is_categorical_)[0].tolist()
    encoder = model._preprocessor.named_transformers_["encoder"]
    codes = {}
    for column, categories in zip(categorical, encoder.categories_, strict=True):
        try:
            codes[column] = np.asarray(categories, dtype=np.float64)
        except (TypeError, ValueError):
            raise ModelError(
                f"Column {column} of this {type(model).__name__} holds categories that are words, such as {categories[0]!r}: number them "
                "before training (sklearn.preprocessing.OrdinalEncoder), and explain the numbers."
            ) from None
    rest = [column for column in range(features) if column not in codes]
    return codes, categorical + rest


def _histogram_tree(predictor: Any, column_of: list[int], output: int) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    feature = np.asarray(column_of)[np.where(leaf, 0, nodes["feature_idx"])]
    listed = np.nonzero(~leaf & nodes["is_categorical"].astype(bool))[0]
    bitsets = predictor.raw_left_cat_bitsets
    return Tree(
        np.where(leaf, -1, feature),
        nodes["num_threshold"].astype(np.float64),
        nodes["left"].astype(np.int64),
        nodes["right"].astype(np.int64),
        nodes["value"].astype(np.float64)[:, None],
        nodes["missing_go_to_left"].astype(bool),
        output,
        {int(node): _members(bitsets[nodes["bitset_idx"][node]]) for node in listed},
    )


def _members(words: NDArray[np.uint32]) -> list[int]:
    """The numbers whose bits are set in words of 32."""
    return [
        32 * place + bit
        for place, word in enumerate(words.tolist())
        for bit in range(32)
        if word >> bit & 1
    ]
