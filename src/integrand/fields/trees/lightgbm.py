"""Trees of LightGBM: a Booster, or a model of its scikit-learn interface.

    left if z ≤ threshold, in float64; categories: left if listed, right if not or missing

What a missing value is, is a column's own: NaN ("NaN"), NaN and zero ("Zero"), or nothing, where
NaN counts as zero ("None").
"""

from __future__ import annotations

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
    level_by_level,
)

_VERSIONS = ("v3", "v4")


class LightGBM(TreeReader):
    """Reads LightGBM's models."""

    def reads(self, model: object) -> bool:
        return is_instance(model, "lightgbm", "Booster", "LGBMModel")

    def read(self, model: Any) -> TreeModel:
        import lightgbm

        with fitted(model):
            booster = model.booster_ if isinstance(model, lightgbm.LGBMModel) else model
        dump = booster.dump_model()
        name = f"LightGBM {type(model).__name__}"
        if dump.get("version") not in _VERSIONS:
            raise ModelError(
                f"This {name} has format {dump.get('version')!r}; {' and '.join(_VERSIONS)} are understood."
            )
        ensemble = _ensemble(dump, name)
        link = _link(dump.get("objective", ""))

        def raw(rows: NDArray[Any]) -> NDArray[Any]:
            said = np.asarray(booster.predict(rows, raw_score=True, num_threads=1))
            # Of forests LightGBM averages what it predicts, not the raw score.
            return said / _rounds(dump) if dump["average_output"] else said

        labels = tuple(model.classes_) if isinstance(model, lightgbm.LGBMClassifier) else ()
        return TreeModel(checked(name, ensemble, raw, np.float64), link, name, labels)


def _ensemble(dump: dict[str, Any], name: str) -> TreeEnsemble:
    outputs = int(dump["num_tree_per_iteration"])
    features = int(dump["max_feature_idx"]) + 1
    weight = 1 / _rounds(dump) if dump["average_output"] else 1.0
    kinds: dict[int, set[str]] = {}
    trees = [
        _tree(info["tree_structure"], number % outputs, weight, kinds, name)
        for number, info in enumerate(dump["tree_info"])
    ]
    mixed = [feature for feature, types in kinds.items() if len(types) > 1]
    if mixed:
        raise ModelError(
            f"Trees of this {name} treat missing values of feature {mixed[0]} in several ways ({', '.join(sorted(kinds[mixed[0]]))}), as after "
            "training that was continued on other data: train it anew."
        )
    zero, none = (
        np.array([kinds.get(feature) == {kind} for feature in range(features)], dtype=bool)
        for kind in ("Zero", "None")
    )
    names = dump["feature_names"]
    default = names == [f"Column_{number}" for number in range(features)]
    return TreeEnsemble(
        trees,
        features,
        np.zeros(outputs),
        flushed=True,
        zero_missing=zero if zero.any() else None,
        missing_zero=none if none.any() else None,
        names=None if default else tuple(names),
    )


def _rounds(dump: dict[str, Any]) -> int:
    """How many trees there are for each output."""
    return max(1, len(dump["tree_info"]) // int(dump["num_tree_per_iteration"]))


def _tree(
    structure: dict[str, Any], output: int, weight: float, kinds: dict[int, set[str]], name: str
) -> Tree:
    """A tree from its nested description; notes in ``kinds`` what its columns take for missing."""
    nodes = list(level_by_level(structure, _children))
    count = len(nodes)
    feature, left, right = (np.full(count, -1, dtype=np.int64) for _ in range(3))
    threshold, values = np.zeros(count), np.zeros((count, 1))
    missing_left, categories = np.zeros(count, dtype=bool), {}
    for number, (node, children) in enumerate(nodes):
        if "leaf_value" in node:
            if node.get("leaf_features"):
                raise ModelError(
                    f"The leaves of this {name} are linear functions (linear_tree=True), not numbers: train it without them."
                )
            values[number] = weight * node["leaf_value"]
            continue
        feature[number] = node["split_feature"]
        left[number], right[number] = children
        kinds.setdefault(node["split_feature"], set())
        if node["decision_type"] == "==":
            categories[number] = _listed(node["threshold"], name)
            kinds[node["split_feature"]].add("category")
            continue
        if node["decision_type"] != "<=":
            raise ModelError(
                f"This {name} has splits of type {node['decision_type']!r}; '<=' and '==' are understood."
            )
        threshold[number] = node["threshold"]
        missing_left[number] = node["default_left"]
        kinds[node["split_feature"]].add(node["missing_type"])
    return Tree(feature, threshold, left, right, values, missing_left, output, categories)


def _listed(threshold: Any, name: str) -> list[int]:
    """The categories of a split, "1||3||5"."""
    try:
        return [int(category) for category in str(threshold).split("||")]
    except ValueError:
        raise ModelError(
            f"A categorical split of this {name} lists no categories, but {threshold!r}."
        ) from None


def _children(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [] if "leaf_value" in node else [node["left_child"], node["right_child"]]


def _link(objective: str) -> MarginLink:
    """What margins mean, by the objective, such as "binary sigmoid:1"."""
    kind, *options = objective.split(" ")
    settings = dict(option.split(":", 1) for option in options if ":" in option)
    if kind == "binary":
        return MarginLogistic(float(settings.get("sigmoid", 1.0)))
    if kind == "multiclass":
        return MarginSoftmax()
    if kind in ("multiclassova", "cross_entropy", "cross_entropy_lambda"):
        return Regression(
            f"The model's objective is {kind!r}, whose scores are no shares of one: explain a margin, or give a callable such as "
            "target=lambda out: out[:, 0].sigmoid()."
        )
    return Regression()
