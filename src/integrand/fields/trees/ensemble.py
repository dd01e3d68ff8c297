"""``TreeEnsemble``: trees of any library as arrays, and what they say of rows.

Readers make it from a library's model, each tree as a ``Tree``. What differs between libraries is
data here: whether a number equal to a threshold goes left, the type that inputs are rounded to,
where a missing value goes, which categories a split lists.

    output_c(z) = base_c + Σ_trees value_c(leaf of z)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.optional import optional
from ...errors import InputError, ModelError, NonFiniteInput, ShapeError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

_FEWEST = 64  # rows that are worth a thread
_ZERO = float(np.float32(1e-35))  # LightGBM takes what is no larger for zero


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree, its root first.

    Attributes:
        feature: (n,) that a node splits, −1 at leaves.
        threshold: (n,) of splits by size.
        left, right: (n,) numbers of the children.
        values: (n, W) of leaves, for outputs ``output`` to ``output`` + W − 1.
        missing_left: (n,) whether a missing value goes left.
        categories: node → the categories that its split lists.
        listed_left: whether listed categories go left, rather than right.
    """

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    values: Floats
    missing_left: Booleans
    output: int = 0
    categories: Mapping[int, Sequence[int]] = field(default_factory=dict)
    listed_left: bool = True


class TreeNodes(NamedTuple):
    """All trees end to end, as the compiled walks read them."""

    feature: NDArray[np.int32]
    threshold: Floats
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    parent: NDArray[np.int32]
    missing_left: Booleans
    categories: NDArray[np.int32]
    categories_end: NDArray[np.int32]
    listed_left: Booleans
    words: NDArray[np.uint64]
    values: Floats
    roots: Integers
    first_output: Integers
    inclusive: bool
    depth: int


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """Trees that are added up.

    Attributes:
        trees: what is added.
        features: how many features a row has.
        base: (C,) what is added to the trees of each output.
        inclusive: whether a number equal to a threshold goes left.
        rounded: whether inputs are rounded to float32 before they are compared.
        flushed: whether numbers up to 1e-35 are taken for zero.
        missing: (F,) whether a NaN has somewhere to go at splits of this feature.
        zero_missing: (F,) whether zero counts as missing.
        missing_zero: (F,) whether a missing value counts as zero.
        codes: feature → its categories in the order of their codes; others are missing.
        missing_value: a number that stands for a missing value, beside NaN.
        names: what features are called, in messages.
    """

    trees: Sequence[Tree]
    features: int
    base: Floats
    inclusive: bool = True
    rounded: bool = False
    flushed: bool = False
    missing: Booleans | None = None
    zero_missing: Booleans | None = None
    missing_zero: Booleans | None = None
    codes: Mapping[int, Floats] = field(default_factory=dict)
    missing_value: float = float("nan")
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for number, tree in enumerate(self.trees):
            _check_tree(tree, number, self.features, len(self.base))

    def __repr__(self) -> str:
        return f"TreeEnsemble<{len(self.trees)} trees, {self.features} features, {len(self.base)} outputs>"

    @cached_property
    def nodes(self) -> TreeNodes:
        """The trees as arrays end to end."""
        return _laid_out(self.trees, self.inclusive)

    @cached_property
    def categorical(self) -> Booleans:
        """(F,) whether a feature is split by categories, between which there is nothing."""
        flags = np.zeros(self.features, dtype=bool)
        for tree in self.trees:
            flags[tree.feature[list(tree.categories)]] = True
        flags[list(self.codes)] = True
        return flags

    @property
    def takes_missing(self) -> bool:
        """Whether any feature may be missing."""
        return self.missing is None or bool(self.missing.any())

    def prepared(self, z: NDArray[Any]) -> Floats:
        """Rows (N, F) as splits compare them: rounded as the library does, missing values as NaN,
        categories as codes.

        Raises:
            ShapeError: for another number of features.
            NonFiniteInput: for a missing value that has nowhere to go.
            InputError: for a category that is not a whole number.
        """
        if z.ndim != 2 or z.shape[1] != self.features:
            raise ShapeError(
                f"The trees were trained on {self.features} features; a row here has shape "
                f"{'x'.join(map(str, z.shape[1:])) or '()'}."
            )
        rows: Floats = np.array(z, dtype=np.float32 if self.rounded else np.float64).astype(
            np.float64
        )
        if self.flushed:
            rows[np.abs(rows) <= _ZERO] = 0.0
        missing = np.isnan(rows)
        if not np.isnan(self.missing_value):
            marked = rows == self.missing_value
            missing |= marked
        if self.zero_missing is not None:
            missing |= self.zero_missing & (rows == 0)
        for feature, categories in self.codes.items():
            rows[:, feature] = _coded(rows[:, feature], categories)
            missing[:, feature] |= np.isnan(rows[:, feature])
        if self.missing_zero is not None:
            rows[missing & self.missing_zero] = 0.0
            missing &= ~self.missing_zero
        rows[missing] = np.nan
        self._check(rows, missing)
        return rows

    def _check(self, rows: Floats, missing: Booleans) -> None:
        if self.missing is not None and (missing & ~self.missing).any():
            row, feature = (int(at[0]) for at in np.nonzero(missing & ~self.missing))
            raise NonFiniteInput(
                f"{self.called(feature).capitalize()} of row {row} is missing (NaN), and the model has learnt no direction for missing values of "
                "it: fill them before explaining."
            )
        if self.categorical.any():
            kinds = rows[:, self.categorical]
            wrong = (kinds != np.trunc(kinds)) & ~np.isnan(kinds)
            if wrong.any():
                row, column = (int(at[0]) for at in np.nonzero(wrong))
                feature = int(np.nonzero(self.categorical)[0][column])
                raise InputError(
                    f"{self.called(feature).capitalize()} of row {row} is {kinds[row, column]:g}, and the model takes it for a category, a whole "
                    "number. A baseline of categories is one of them, not their mean: ig.baselines.Median(), or rows of data."
                )

    def called(self, feature: int) -> str:
        """A feature as messages name it."""
        return f"feature {feature}" if self.names is None else f"feature {self.names[feature]!r}"

    def outputs(self, rows: Floats) -> Floats:
        """The outputs (N, C) at prepared rows (N, F)."""
        outputs, kernels = np.tile(self.base, (len(rows), 1)), compiled()
        in_threads(len(rows), lambda p: kernels.add_outputs(rows[p], self.nodes, outputs[p]))
        return outputs

    def switches(self, start: Floats, end: Floats) -> Booleans:
        """(N, F) the features that cannot move gradually from one prepared row to the other."""
        switches: Booleans = self.categorical | np.isnan(start) | np.isnan(end)
        return switches

    def shares(self, start: Floats, end: Floats, weights: Floats) -> Floats:
        """The exact shares (N, F) of Σ_c weights_c · output_c on the ways from start to end
        (N, F)."""
        shares, kernels = np.zeros_like(start), compiled()
        switches = self.switches(start, end)

        def walk(part: slice) -> None:
            kernels.add_shares(
                start[part], end[part], switches[part], weights[part], self.nodes, shares[part]
            )

        in_threads(len(start), walk)
        return shares


def in_threads(rows: int, walk: Callable[[slice], None]) -> None:
    """Walk rows in as many threads as torch computes in, each a part of its own."""
    threads = min(torch.get_num_threads(), max(1, rows // _FEWEST))
    if threads == 1:
        walk(slice(0, rows))
        return
    size = -(-rows // threads)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(walk, [slice(first, first + size) for first in range(0, rows, size)]):
            pass


def compiled() -> Any:
    """The compiled walks; numba is imported, and what it compiled before is read, on first use."""
    optional("numba", extra="tables", needs="Explaining trees")
    from . import kernels

    return kernels


def _check_tree(tree: Tree, number: int, features: int, outputs: int) -> None:
    """Refuse a tree that does not hang together, as one of an unknown format would be."""
    inner = tree.feature >= 0
    children = np.concatenate([tree.left[inner], tree.right[inner]])
    sound = (
        np.array_equal(np.sort(children), np.arange(1, len(tree.feature)))
        and tree.values.shape[1] + tree.output <= outputs
        and bool((tree.feature < features).all())
        and bool(np.isfinite(tree.values[~inner]).all())
    )
    if not sound:
        raise ModelError(
            f"Tree {number} of the model is not what this version of Integrand understands: its nodes are no tree over {features} features "
            f"with finite leaves of {outputs} outputs."
        )
    listed = np.zeros(len(inner), dtype=bool)
    listed[list(tree.categories)] = True
    if bool((np.isnan(tree.threshold) & inner & ~listed).any()):
        raise ModelError(
            f"Tree {number} of the model has a split with neither a threshold nor categories: save the model again with its categories."
        )


def _laid_out(trees: Sequence[Tree], inclusive: bool) -> TreeNodes:
    """Trees end to end, nodes of each in the order of a walk that keeps to the left."""
    sizes = [len(tree.feature) for tree in trees]
    roots = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    width = max((tree.values.shape[1] for tree in trees), default=1)
    total = int(roots[-1])
    left, right, parent = (np.full(total, -1, dtype=np.int32) for _ in range(3))
    begins, ends = (np.full(total, -1, dtype=np.int32) for _ in range(2))
    listed_left, values = np.zeros(total, dtype=bool), np.zeros((total, width))
    words: list[int] = []
    for root, tree in zip(roots.tolist(), trees, strict=False):
        part = slice(root, root + len(tree.feature))
        inner = np.nonzero(tree.feature >= 0)[0]
        left[part], right[part] = tree.left + root, tree.right + root
        parent[tree.left[inner] + root] = inner + root
        parent[tree.right[inner] + root] = inner + root
        values[part, : tree.values.shape[1]] = tree.values
        listed_left[part] = tree.listed_left
        for node, categories in tree.categories.items():
            begins[root + node] = len(words)
            words += _bits(categories)
            ends[root + node] = len(words)
    return TreeNodes(
        _joined([tree.feature for tree in trees]).astype(np.int32),
        _joined([tree.threshold for tree in trees]).astype(np.float64),
        left,
        right,
        parent,
        _joined([tree.missing_left for tree in trees]).astype(np.bool_),
        begins,
        ends,
        listed_left,
        np.array(words or [0], dtype=np.uint64),
        values,
        roots[:-1],
        np.array([tree.output for tree in trees], dtype=np.int64),
        inclusive,
        max((_depth(tree) for tree in trees), default=0),
    )


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0)


def _bits(categories: Sequence[int]) -> list[int]:
    """Categories as a set of bits, in words of 64; at least one word."""
    words = [0] * (max(categories, default=0) // 64 + 1)
    for category in categories:
        words[category // 64] |= 1 << (category % 64)
    return words


def _depth(tree: Tree) -> int:
    """The number of splits on the longest way to a leaf."""
    depth, level = 0, np.zeros(1, dtype=np.int64)
    while True:
        level = level[tree.feature[level] >= 0]
        if not len(level):
            return depth
        level = np.concatenate([tree.left[level], tree.right[level]])
        depth += 1


def _coded(values: Floats, categories: Floats) -> Floats:
    """Values (N,) as their places among the categories, NaN for others."""
    known = categories[~np.isnan(categories)]
    order = np.argsort(known)
    place = np.searchsorted(known[order], values).clip(0, max(len(known) - 1, 0))
    codes: Floats = np.where(known[order][place] == values, order[place], np.nan)
    return codes
