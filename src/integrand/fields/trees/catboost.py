"""Trees of CatBoost, symmetric ones and others, as its JSON describes them.

    right if z > border, in float32; a missing value right where a column is treated "AsTrue"

All nodes of a level of a symmetric tree have the same split; its leaves are numbered by the splits
that a row passes, the first split the lowest bit.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.optional import is_instance
from ...errors import ModelError
from .ensemble import Booleans, Tree, TreeEnsemble
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

_MISSING_RIGHT = {"AsIs": False, "AsFalse": False, "AsTrue": True}
"""Whether a missing value goes right, by how a column treats it; "AsIs", no NaN is greater."""


class CatBoost(TreeReader):
    """Reads CatBoost's models of columns of numbers."""

    def reads(self, model: object) -> bool:
        return is_instance(model, "catboost", "CatBoost")

    def read(self, model: Any) -> TreeModel:
        name = f"CatBoost {type(model).__name__}"
        if not model.is_fitted():
            raise ModelError(f"This {name} is not trained: call fit first.")
        saved = _saved(model)
        try:
            ensemble = _ensemble(saved, name, tuple(map(str, model.feature_names_)))
            link = _link(saved["model_info"]["params"]["loss_function"]["type"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelError(
                f"The JSON of this {name} is not what this version of Integrand understands ({type(error).__name__}: {error})."
            ) from error

        def raw(rows: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(model.predict(rows, prediction_type="RawFormulaVal", thread_count=1))

        return TreeModel(checked(name, ensemble, raw, np.float64), link, name)


def _saved(model: Any) -> dict[str, Any]:
    """The model as CatBoost writes it to a file of JSON, which is the only form that lists its
    trees."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        saved: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return saved


def _ensemble(saved: dict[str, Any], name: str, names: tuple[str, ...]) -> TreeEnsemble:
    information = saved["features_info"]
    others = sorted(
        kind.replace("_features", "")
        for kind, columns in information.items()
        if kind.endswith("_features") and kind != "float_features" and columns
    )
    if others:
        raise ModelError(
            f"This {name} has columns of kind {' and '.join(others)}, whose splits depend on its training data: encode them as numbers before "
            "training, and explain these."
        )
    columns = information["float_features"]
    place = {column["feature_index"]: column["flat_feature_index"] for column in columns}
    missing, missing_right = _missing(columns, len(names), name)
    scale, bias = saved["scale_and_bias"]
    base = np.atleast_1d(np.asarray(bias, dtype=np.float64))
    if "oblivious_trees" in saved:
        trees = [
            _symmetric(tree, place, missing_right, float(scale), len(base), name)
            for tree in saved["oblivious_trees"]
        ]
    else:
        trees = [
            _tree(tree, place, missing_right, float(scale), len(base), name)
            for tree in saved["trees"]
        ]
    default = names == tuple(map(str, range(len(names))))
    return TreeEnsemble(
        trees,
        len(names),
        base,
        rounded=True,
        missing=missing,
        names=None if default else names,
    )


def _missing(columns: list[dict[str, Any]], features: int, name: str) -> tuple[Booleans, Booleans]:
    """(F,) which columns may be missing, as some were in training, and whether they then go
    right."""
    missing, right = np.zeros(features, dtype=bool), np.zeros(features, dtype=bool)
    for column in columns:
        place, treatment = column["flat_feature_index"], column["nan_value_treatment"]
        if treatment not in _MISSING_RIGHT:
            raise ModelError(
                f"This {name} treats missing values as {treatment!r}; {', '.join(_MISSING_RIGHT)} are understood."
            )
        missing[place], right[place] = column["has_nans"], _MISSING_RIGHT[treatment]
    return missing, right


def _split(split: dict[str, Any], place: dict[int, int], name: str) -> tuple[int, float]:
    """The column and the border of a split."""
    if split["split_type"] != "FloatFeature":
        raise ModelError(
            f"This {name} has splits of type {split['split_type']!r}; 'FloatFeature' is understood."
        )
    return place[split["float_feature_index"]], float(np.float32(split["border"]))


def _symmetric(
    tree: dict[str, Any],
    place: dict[int, int],
    missing_right: Booleans,
    scale: float,
    outputs: int,
    name: str,
) -> Tree:
    """A tree whose nodes on a level have one split, numbered level by level from the root, which
    has the last one."""
    splits = [_split(split, place, name) for split in reversed(tree["splits"] or [])]
    inner = 2 ** len(splits) - 1
    level = np.repeat(np.arange(len(splits)), 2 ** np.arange(len(splits)))
    node = np.arange(inner)
    feature, threshold = np.full(2 * inner + 1, -1), np.zeros(2 * inner + 1)
    left, right = np.full(2 * inner + 1, -1), np.full(2 * inner + 1, -1)
    feature[:inner] = np.array([column for column, _ in splits], dtype=np.int64)[level]
    threshold[:inner] = np.array([border for _, border in splits], dtype=np.float64)[level]
    left[:inner], right[:inner] = 2 * node + 1, 2 * node + 2
    values = np.zeros((2 * inner + 1, outputs))
    values[inner:] = scale * np.asarray(tree["leaf_values"], dtype=np.float64).reshape(-1, outputs)
    return Tree(feature, threshold, left, right, values, _missing_left(feature, missing_right))


def _tree(
    tree: dict[str, Any],
    place: dict[int, int],
    missing_right: Booleans,
    scale: float,
    outputs: int,
    name: str,
) -> Tree:
    """A tree from its nested description, level by level."""
    nodes = list(level_by_level(tree, _children))
    count = len(nodes)
    feature, threshold = np.full(count, -1), np.zeros(count)
    left, right, values = np.full(count, -1), np.full(count, -1), np.zeros((count, outputs))
    for number, (node, children) in enumerate(nodes):
        if "split" not in node:
            values[number] = scale * np.asarray(node["value"], dtype=np.float64)
            continue
        feature[number], threshold[number] = _split(node["split"], place, name)
        left[number], right[number] = children
    return Tree(feature, threshold, left, right, values, _missing_left(feature, missing_right))


def _children(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node["left"], node["right"]] if "split" in node else []


def _missing_left(feature: NDArray[np.int64], missing_right: Booleans) -> Booleans:
    left: Booleans = ~missing_right[np.maximum(feature, 0)]
    return left


def _link(loss: str) -> MarginLink:
    """What margins mean, by the loss they were trained on."""
    if loss in ("Logloss", "CrossEntropy"):
        return MarginLogistic()
    if loss == "MultiClass":
        return MarginSoftmax()
    if loss in ("MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy"):
        return Regression(
            f"The model's loss is {loss}, whose scores are no shares of one: explain a margin, or give a callable such as "
            "target=lambda out: out[:, 0].sigmoid()."
        )
    return Regression()
