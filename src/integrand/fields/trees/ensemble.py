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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.optional import optional
from ...errors import InputError, ModelError, NonFiniteInput, ShapeError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

_FEWEST = 64  # rows that are worth a thread
_LARGE = 2 * 64  # nodes of a tree whose splits are no longer bits of one word
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


NODE = np.dtype(
    [
        ("test", np.float64),
        ("threshold", np.float64),
        ("feature", np.int32),
        ("left", np.int32),
        ("right", np.int32),
        ("first_word", np.int32),
        ("last_word", np.int32),
        ("missing_left", np.bool_),
        ("listed_left", np.bool_),
    ],
    align=True,
)
"""A node as the compiled walks read it, in one piece of memory.

A number z goes right where z > ``test``, and left where z ≤ ``test``; of splits by categories it is
NaN. A leaf is its own child.
"""

SPLIT = np.dtype(
    [
        ("test", np.float64),
        ("distance", np.float64),
        ("node", np.int64),
        ("near", np.uint32),
        ("far", np.uint32),
        ("feature", np.int32),
        ("rises", np.bool_),
    ],
    align=True,
)
"""A split of a tree that is turned to where some ways start: whether its feature rises to cross it,
the distance to there from the start, and the places of its children on the near and the far
side."""

PLACE = np.dtype([("chain", np.uint64), ("value", np.float64)], align=True)
"""A place in a turned tree: the splits, as bits, that a way from there meets as long as it crosses
none, and the value of the leaf that it then comes to."""


@dataclass(frozen=True, eq=False)
class PackedTrees:
    """All trees end to end, as the compiled walks read them.

    Attributes:
        nodes: (n,) of type ``NODE``.
        words: the sets of categories that splits list, a bit for each.
        values: (n, W) of leaves.
        roots: (T + 1,) where trees begin, and where the last one ends.
        first_output: (T,) the first output that each counts for.
        depth: the number of splits on the longest way to a leaf.
    """

    nodes: NDArray[Any]
    words: NDArray[np.uint64]
    values: Floats
    roots: Integers
    first_output: Integers
    depth: int

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What every walk is given of them."""
        return self.nodes, self.words, self.values, self.roots, self.first_output

    @property
    def some_small(self) -> bool:
        """Whether any tree has so few splits that each is a bit of one word."""
        return bool((np.diff(self.roots) < _LARGE).any())

    @property
    def some_large(self) -> bool:
        """Whether any tree has more."""
        return bool((np.diff(self.roots) >= _LARGE).any())

    @staticmethod
    def room() -> tuple[NDArray[Any], NDArray[Any]]:
        """Room for a small tree that is turned to a start: its splits, and their places."""
        return np.empty(64, SPLIT), np.empty(128, PLACE)


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
    def packed(self) -> PackedTrees:
        """The trees end to end."""
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
        first = run_starts(rows)
        distinct = rows if len(first) == len(rows) else rows[first]
        outputs, kernels = np.tile(self.base, (len(distinct), 1)), compiled()
        trees = self.packed

        def walk(part: slice) -> None:
            if trees.some_small:
                kernels.add_outputs(distinct[part], *trees.arrays, outputs[part])
            if trees.some_large:
                kernels.add_outputs_of_large(distinct[part], *trees.arrays, outputs[part])

        in_threads(len(distinct), walk)
        if distinct is rows:
            return outputs
        return np.repeat(outputs, np.diff(first, append=len(rows)), axis=0)

    def switches(self, start: Floats, end: Floats) -> Booleans:
        """(N, F) the features that cannot move gradually from one prepared row to the other."""
        switches: Booleans = self.categorical | np.isnan(start) | np.isnan(end)
        return switches

    def shares(self, start: Floats, end: Floats, weights: Floats) -> Floats:
        """The exact shares (N, F) of Σ_c weights_c · output_c on the ways from start to end
        (N, F).

        The fewer starts, or ends, follow one another in the rows, the cheaper it is.
        """
        back = len(run_starts(end)) < len(run_starts(start))
        if back:  # the way back is minus the way there
            start, end = end, start
        shares, kernels = np.zeros_like(start), compiled()
        switches, trees = self.switches(start, end), self.packed

        def walk(part: slice) -> None:
            rows = start[part], end[part], switches[part], weights[part]
            alike = np.union1d(run_starts(rows[0]), run_starts(rows[3]))
            groups = np.append(alike, len(rows[0]))
            tied = np.zeros((len(trees.first_output), len(rows[0])), dtype=bool)
            kernels.add_turned(*rows, groups, *trees.arrays, *trees.room(), tied, shares[part])
            if tied.any():
                kernels.add_together(*rows, *trees.arrays, trees.depth, tied, shares[part])

        in_threads(len(start), walk)
        return -shares if back else shares


def run_starts(rows: Floats) -> Integers:
    """The numbers of the rows (N, F) that are not, bit for bit, the one before."""
    bits = np.ascontiguousarray(rows).view(np.int64)
    differs = (bits[1:] != bits[:-1]).any(axis=1)
    return np.concatenate([np.zeros(min(1, len(rows)), np.int64), np.nonzero(differs)[0] + 1])


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


def _laid_out(trees: Sequence[Tree], inclusive: bool) -> PackedTrees:
    """Trees end to end."""
    roots = np.cumsum([0, *(len(tree.feature) for tree in trees)]).astype(np.int64)
    values = np.zeros((int(roots[-1]), max((tree.values.shape[1] for tree in trees), default=1)))
    nodes = np.zeros(int(roots[-1]), dtype=NODE)
    nodes["first_word"] = -1
    words: list[int] = []
    for root, tree in zip(roots.tolist(), trees, strict=False):
        part = slice(root, root + len(tree.feature))
        number = np.arange(part.start, part.stop)
        inner = tree.feature >= 0
        nodes["feature"][part], nodes["threshold"][part] = tree.feature, tree.threshold
        nodes["left"][part] = np.where(inner, tree.left + root, number)
        nodes["right"][part] = np.where(inner, tree.right + root, number)
        nodes["missing_left"][part] = tree.missing_left
        nodes["listed_left"][part] = tree.listed_left
        values[part, : tree.values.shape[1]] = tree.values
        for node, categories in tree.categories.items():
            nodes["first_word"][root + node] = len(words)
            words += _bits(categories)
            nodes["last_word"][root + node] = len(words)
    # z < c is z ≤ the number before c.
    test = nodes["threshold"] if inclusive else np.nextafter(nodes["threshold"], -np.inf)
    nodes["test"] = np.where(nodes["first_word"] >= 0, np.nan, test)
    return PackedTrees(
        nodes,
        np.array(words or [0], dtype=np.uint64),
        values,
        roots,
        np.array([tree.output for tree in trees], dtype=np.int64),
        max((_depth(tree) for tree in trees), default=0),
    )


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
