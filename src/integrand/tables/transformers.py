"""Which columns that go into a transformer of scikit-learn each column that comes out depends on.

    scaler, ordinal encoder, quantiles …      column i ◀── column i
    one-hot, bins, splines                    a run of columns ◀── column i
    imputer                                   column i ◀── column i, and so is its indicator
    selection                                 column k ◀── the k-th that is kept
    polynomial                                a product ◀── its factors
    pipeline, union, column transformer       as their parts, one behind or beside the other
    everything else                           every column ◀── all that go in

The last line is the safe one: a transformer that is not known, such as one of your own, is known
well enough where it is given one column. The functions of transformers that are known are documented
by scikit-learn; where one makes another number of columns than it should, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.optional import is_instance
from ..errors import ModelError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

Sources = tuple[frozenset[int], ...]
"""For each column that comes out, the columns that go in which it depends on."""


def sources(transformer: BaseEstimator, count: int, width: int) -> Sources:
    """What each of ``width`` columns that come out depends on, of ``count`` that go in.

    Raises:
        ModelError: for transformers that are refused, and those that are not understood.
    """
    if passes(transformer):
        result = _each(count)
    elif is_instance(transformer, "sklearn.pipeline", "Pipeline"):
        result = through([step for _, step in transformer.steps], count, width)
    elif is_instance(transformer, "sklearn.pipeline", "FeatureUnion"):
        result = _union(transformer, count, width)
    elif is_instance(transformer, "sklearn.compose", "ColumnTransformer"):
        result = _side_by_side(transformer, width)
    else:
        result = _of_kind(transformer, count, width)
    if len(result) != width:
        raise ModelError(
            f"{type(transformer).__name__} makes {width} columns of {count}, and should make {len(result)}: its version is not understood by "
            "this version of Integrand. Name a later step with attribute_after=."
        )
    return result


def through(steps: Sequence[Any], count: int, width: int) -> Sources:
    """What comes out of several steps, one behind the other, in terms of what goes into the
    first."""
    result = _each(count)
    for number, step in enumerate(steps):
        behind = next((n for n in map(goes_in, steps[number + 1 :]) if n is not None), width)
        inner = sources(step, len(result), behind)
        result = tuple(frozenset().union(*(result[i] for i in column)) for column in inner)
    return result


def passes(step: object) -> bool:
    return step is None or (isinstance(step, str) and step == "passthrough")


def goes_in(step: Any) -> int | None:
    """How many columns go into a step; None where it lets all pass, or does not say."""
    if passes(step):
        return None
    try:
        return int(step.n_features_in_)
    except AttributeError:
        return None


def _each(count: int) -> Sources:
    return tuple(frozenset([i]) for i in range(count))


def _all(count: int, width: int) -> Sources:
    return (frozenset(range(count)),) * width


def _runs(lengths: Sequence[int]) -> Sources:
    """A run of columns for each that goes in."""
    return tuple(frozenset([i]) for i, length in enumerate(lengths) for _ in range(length))


# --- several transformers ---------------------------------------------------------------------------------------------


def _union(union: BaseEstimator, count: int, width: int) -> Sources:
    """Transformers side by side, all of them given all columns."""
    parts = [part for _, part in union.transformer_list if part != "drop"]
    if count == 1 or len(parts) != 1:
        widths = [_width(part, count) for part in parts]
        if None in widths:
            return _all(count, width)
        return tuple(
            column
            for part, known in zip(parts, widths, strict=True)
            for column in sources(part, count, known or 0)
        )
    return sources(parts[0], count, width)


def _width(part: Any, count: int) -> int | None:
    """How many columns a part of a union makes; None where it does not say."""
    if passes(part):
        return count
    try:
        return len(part.get_feature_names_out())
    except (AttributeError, ValueError):
        return None


def _side_by_side(transformer: BaseEstimator, width: int) -> Sources:
    """Transformers that are given some of the columns each."""
    result: list[frozenset[int]] = [frozenset()] * width
    for name, part, columns in transformer.transformers_:
        block = transformer.output_indices_[name]
        length = block.stop - block.start
        if not length or (isinstance(part, str) and part == "drop"):
            continue
        places = positions(columns, transformer)
        for offset, inner in enumerate(sources(part, len(places), length)):
            result[block.start + offset] = frozenset(places[i] for i in inner)
    return tuple(result)


def positions(columns: Any, transformer: BaseEstimator) -> list[int]:
    """Which columns a part of a column transformer is given: names, numbers, a slice or a mask, as
    people write them."""
    try:
        names = [str(name) for name in transformer.feature_names_in_]
    except AttributeError:
        names = []
    count = int(transformer.n_features_in_)
    if isinstance(columns, slice):
        ends = [
            names.index(end) + stop if isinstance(end, str) else end
            for end, stop in ((columns.start, 0), (columns.stop, 1))
        ]
        return list(range(count))[slice(ends[0], ends[1], columns.step)]
    listed = np.atleast_1d(np.asarray(columns, dtype=object)).tolist()
    if listed and all(isinstance(column, bool | np.bool_) for column in listed):
        return [place for place, kept in enumerate(listed) if kept]
    return [
        names.index(column) if isinstance(column, str) else int(column) % count for column in listed
    ]


# --- single transformers ----------------------------------------------------------------------------------------------


def _of_kind(transformer: BaseEstimator, count: int, width: int) -> Sources:
    for base in type(transformer).__mro__:
        if base.__module__.startswith("sklearn."):
            if base.__name__ in _ONE_TO_ONE:
                return _each(count)
            if base.__name__ in _KINDS:
                return _KINDS[base.__name__](transformer, count, width)
    if is_instance(transformer, "sklearn.feature_selection", "SelectorMixin"):
        return tuple(frozenset([i]) for i in transformer.get_support(indices=True).tolist())
    return _all(count, width)


_ONE_TO_ONE = (
    *("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "QuantileTransformer"),
    *("PowerTransformer", "Binarizer", "OrdinalEncoder"),
)


def _one_hot(encoder: BaseEstimator, count: int, width: int) -> Sources:
    lengths = [len(categories) for categories in encoder.categories_]
    for i, rare in enumerate(_infrequent(encoder)):
        lengths[i] -= 0 if rare is None else len(rare) - 1
    if encoder.drop_idx_ is not None:
        lengths = [
            length - (dropped is not None)
            for length, dropped in zip(lengths, encoder.drop_idx_, strict=True)
        ]
    return _runs(lengths)


def _infrequent(encoder: BaseEstimator) -> list[Any]:
    """The rare categories of each column that share one; none where that was not asked for."""
    try:
        return list(encoder.infrequent_categories_)
    except AttributeError:
        return []


def _bins(transformer: BaseEstimator, count: int, width: int) -> Sources:
    return _each(count) if transformer.encode == "ordinal" else _runs(transformer.n_bins_.tolist())


def _of_one_length(transformer: BaseEstimator, count: int, width: int) -> Sources:
    """As many columns for each that goes in: splines, and classes of an encoder of targets."""
    return _runs([width // count] * count)


def _imputed(imputer: BaseEstimator, count: int, width: int) -> Sources:
    """Columns that had a value in training, and then the indicators of those that lacked some."""
    kept = list(range(count))
    if imputer.strategy != "constant" and not imputer.keep_empty_features:
        kept = [i for i in kept if imputer.statistics_[i] == imputer.statistics_[i]]
    shown = [] if imputer.indicator_ is None else imputer.indicator_.features_.tolist()
    return tuple(frozenset([i]) for i in [*kept, *shown])


def _indicated(indicator: BaseEstimator, count: int, width: int) -> Sources:
    return tuple(frozenset([i]) for i in indicator.features_.tolist())


def _powers(transformer: BaseEstimator, count: int, width: int) -> Sources:
    return tuple(frozenset(np.nonzero(powers)[0].tolist()) for powers in transformer.powers_)


def _function(transformer: BaseEstimator, count: int, width: int) -> Sources:
    """Functions of NumPy that look at one number at a time; any other may look at a whole row."""
    function = transformer.func
    single = function is None or (isinstance(function, np.ufunc) and function.nin == 1)
    return _each(count) if single else _all(count, width)


def _normalised(transformer: BaseEstimator, count: int, width: int) -> Sources:
    if count == 1:
        return _each(count)
    raise ModelError(
        "Normalizer divides every row by its own length, so that each of its columns depends on all others, and is called as if it did not: "
        "explain what goes in, with attribute_after= the step before it."
    )


_KINDS: dict[str, Callable[[Any, int, int], Sources]] = {
    "OneHotEncoder": _one_hot,
    "KBinsDiscretizer": _bins,
    "SplineTransformer": _of_one_length,
    "TargetEncoder": _of_one_length,
    "SimpleImputer": _imputed,
    "MissingIndicator": _indicated,
    "PolynomialFeatures": _powers,
    "FunctionTransformer": _function,
    "Normalizer": _normalised,
}
