"""Trees of XGBoost: a Booster, or a model of its scikit-learn interface.

left if z < threshold, in float32; categories: right if listed; a missing value goes the way
that every split learnt for it
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.optional import is_instance
from ...errors import ModelError
from ..fitted import fitted
from .ensemble import Tree, TreeEnsemble
from .model import (
    MarginLink,
    MarginLogistic,
    MarginSoftmax,
    Regression,
    TreeModel,
    TreeReader,
    checked,
)

_OLDEST = (1, 6)
_LOGISTIC = ("binary:logistic", "binary:logitraw")


class XGBoost(TreeReader):
    """Reads XGBoost's models."""

    def reads(self, model: object) -> bool:
        return is_instance(model, "xgboost", "Booster", "XGBModel")

    def read(self, model: Any) -> TreeModel:
        import xgboost

        name, missing_value = f"XGBoost {type(model).__name__}", float("nan")
        booster = model
        if isinstance(model, xgboost.XGBModel):
            booster = _trained(model)
            if model.missing is not None:
                missing_value = float(model.missing)
        saved = json.loads(bytes(booster.save_raw("json")))
        if tuple(saved["version"][:2]) < _OLDEST:
            raise ModelError(
                f"This {name} has format {'.'.join(map(str, saved['version']))}; those since {'.'.join(map(str, _OLDEST))} are understood."
            )
        learner = saved["learner"]
        ensemble = _ensemble(learner, missing_value, name)

        def raw(rows: NDArray[Any]) -> NDArray[Any]:
            data = xgboost.DMatrix(
                rows,
                missing=missing_value,
                feature_names=booster.feature_names,
                feature_types=booster.feature_types,
                enable_categorical=True,
            )
            return np.asarray(booster.predict(data, output_margin=True, validate_features=False))

        ensemble = checked(name, ensemble, raw, np.float32, base=True)
        return TreeModel(ensemble, _link(learner["objective"]["name"]), name)


def _trained(model: Any) -> Any:
    """The trees that a model of the scikit-learn interface predicts with: up to the best round,
    where training stopped early."""
    with fitted(model):
        booster = model.get_booster()
    best = booster.attr("best_iteration")
    return booster if best is None else booster[: int(best) + 1]


def _ensemble(learner: dict[str, Any], missing_value: float, name: str) -> TreeEnsemble:
    booster = learner["gradient_booster"]
    kind = booster["name"]
    if kind not in ("gbtree", "dart"):
        raise ModelError(
            f"This {name} is a {kind!r} booster and holds no trees: 'gbtree' and 'dart' do."
        )
    model = booster["gbtree"]["model"] if kind == "dart" else booster["model"]
    weights = booster["weight_drop"] if kind == "dart" else [1.0] * len(model["trees"])
    parameters = learner["learner_model_param"]
    outputs = max(1, int(parameters["num_class"]), int(parameters.get("num_target", 1)))
    trees = [
        _tree(tree, output, weight, name)
        for tree, output, weight in zip(model["trees"], model["tree_info"], weights, strict=True)
    ]
    if model.get("cats", {}).get("enc"):
        raise ModelError(
            f"This {name} encodes categories of a data frame itself: train it on their codes, and explain these."
        )
    return TreeEnsemble(
        trees,
        int(parameters["num_feature"]),
        np.zeros(outputs),
        inclusive=False,
        rounded=True,
        missing_value=missing_value,
        names=tuple(learner["feature_names"]) or None,
    )


def _tree(tree: dict[str, Any], output: int, weight: float, name: str) -> Tree:
    left = np.asarray(tree["left_children"], dtype=np.int64)
    right = np.asarray(tree["right_children"], dtype=np.int64)
    leaf = left < 0
    threshold = np.asarray(tree["split_conditions"], dtype=np.float32).astype(np.float64)
    width = int(tree["tree_param"]["size_leaf_vector"] or 1)
    if width > 1:  # the right child of a leaf is its number among the leaves
        vectors = np.asarray(tree["leaf_weights"], dtype=np.float32).reshape(-1, width)
        values = np.where(leaf[:, None], vectors[np.where(leaf, right, 0)], 0).astype(np.float64)
    else:
        values = threshold[:, None]
    split = np.asarray(tree["split_type"], dtype=np.int64)
    if not np.isin(split, (0, 1)).all():
        raise ModelError(
            f"This {name} has splits of type {int(split.max())}; 0 and 1 are understood."
        )
    return Tree(
        np.where(leaf, -1, np.asarray(tree["split_indices"], dtype=np.int64)),
        threshold,
        left,
        np.where(leaf, -1, right),
        weight * values,
        np.asarray(tree["default_left"], dtype=bool),
        output,
        _categories(tree, np.nonzero(~leaf & (split == 1))[0].tolist(), name),
        listed_left=False,
    )


def _categories(tree: dict[str, Any], splits: list[int], name: str) -> dict[int, list[int]]:
    """Node → the categories that its split lists."""
    described = list(tree["categories_nodes"])
    missing = sorted(set(splits) - set(described))
    if missing:
        raise ModelError(
            f"Node {missing[0]} of a tree of this {name} splits by category, and lists no categories: save the model again."
        )
    listed = tree["categories"]
    return {
        int(node): [int(category) for category in listed[begin : begin + size]]
        for node, begin, size in zip(
            described, tree["categories_segments"], tree["categories_sizes"], strict=True
        )
    }


def _link(objective: str) -> MarginLink:
    if objective in _LOGISTIC:
        return MarginLogistic()
    if objective.startswith("multi:"):
        return MarginSoftmax()
    return Regression()
