"""What is read of a library's model: its trees, and what their outputs mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ModelError, TargetError
from .ensemble import Floats, TreeEnsemble

_PROBES = 64  # rows that a model is held against its trees at
_HUGE = 1e38  # beyond which no number of a row is looked at
_OFF = 64  # roundings that sums over trees may differ by


class MarginLink(ABC):
    """What the raw outputs of an ensemble mean.

    ``raw`` (N, C) is what its trees add up to; the model's outputs (N, \\*o) are a linear function
    of it.
    """

    normalised: ClassVar[bool] = False
    """Whether outputs are probabilities already."""

    def outputs(self, raw: Tensor) -> Tensor:
        """The outputs that targets are asked about."""
        return raw

    @abstractmethod
    def log_probabilities(self, raw: Tensor) -> Tensor:
        """The logarithms of class probabilities, arranged as the outputs are."""


@dataclass(frozen=True)
class Regression(MarginLink):
    """Numbers, not classes. ``why`` says why there are no probabilities."""

    why: str = "The model is a regression, and knows no classes: explain its output."

    def log_probabilities(self, raw: Tensor) -> Tensor:
        raise TargetError(self.why)


@dataclass(frozen=True)
class Probabilities(MarginLink):
    """Outputs are probabilities already, of one question (C,) or of several (O, C)."""

    shape: tuple[int, ...]

    normalised: ClassVar[bool] = True

    def outputs(self, raw: Tensor) -> Tensor:
        return raw.reshape(-1, *self.shape)

    def log_probabilities(self, raw: Tensor) -> Tensor:
        return self.outputs(raw).clamp_min(0).log()


@dataclass(frozen=True)
class MarginLogistic(MarginLink):
    """One margin m for two classes: outputs (−m, m), probabilities σ(∓scale m)."""

    scale: float = 1.0

    def outputs(self, raw: Tensor) -> Tensor:
        return torch.cat([-raw, raw], 1)

    def log_probabilities(self, raw: Tensor) -> Tensor:
        return nnf.logsigmoid(self.scale * self.outputs(raw))


@dataclass(frozen=True)
class MarginSoftmax(MarginLink):
    """A margin for each class, of which a softmax is taken."""

    def log_probabilities(self, raw: Tensor) -> Tensor:
        return raw.log_softmax(1)


@dataclass(frozen=True, eq=False)
class TreeModel:
    """A library's model as Integrand reads it.

    Attributes:
        ensemble: its trees.
        link: what their sum means.
        name: what the model is called, in messages.
        labels: what its classes are called, in order; empty where it does not say.
    """

    ensemble: TreeEnsemble
    link: MarginLink
    name: str
    labels: tuple[object, ...] = ()


class TreeReader(ABC):
    """A library whose models are read."""

    @abstractmethod
    def reads(self, model: object) -> bool:
        """Whether a model is of this library, and of trees; the library is not imported for it."""

    @abstractmethod
    def read(self, model: Any) -> TreeModel:
        """The model's trees, held against what the model says itself.

        Raises:
            ModelError: for models that cannot be read; the message says why.
        """


Node = dict[str, Any]


def level_by_level(
    root: Node, children: Callable[[Node], Sequence[Node]]
) -> Iterator[tuple[Node, tuple[int, int]]]:
    """Nodes of a nested description from the root down, each with the numbers of its two children;
    (-1, -1) of leaves."""
    level, count = [root], 1
    while level:
        below: list[Node] = []
        for node in level:
            inner = children(node)
            yield node, (count, count + 1) if inner else (-1, -1)
            below += inner
            count += len(inner)
        level = below


Raw = Callable[[NDArray[Any]], NDArray[Any]]
"""Rows (N, F) → the raw outputs (N, C) or (N,) that the library gives them."""


def checked(
    name: str, ensemble: TreeEnsemble, raw: Raw, precision: type, *, base: bool = False
) -> TreeEnsemble:
    """The ensemble, seen to say what the library says of rows at its thresholds and beside them.

    Args:
        name: what the model is called.
        ensemble: its trees.
        raw: the library's own word.
        precision: the type that the library adds up in.
        base: whether what is added to the trees is taken from there.

    Raises:
        ModelError: where they differ by more than rounding.
    """
    rows = _probes(ensemble)
    expected = np.asarray(raw(rows), dtype=np.float64).reshape(len(rows), -1)
    outputs = ensemble.outputs(ensemble.prepared(rows))
    scale = _scale(ensemble) + np.abs(expected).max(initial=0.0)
    if base and expected.shape == outputs.shape:
        offset = np.median(expected - outputs, axis=0)
        ensemble = replace(ensemble, base=ensemble.base + offset)
        outputs = outputs + offset
    off = np.inf
    if expected.shape == outputs.shape:
        off = float(np.abs(expected - outputs).max(initial=0.0))
    if not off <= _OFF * np.finfo(precision).eps * scale * max(1, len(ensemble.trees)) ** 0.5:
        raise ModelError(
            f"The trees of this {name} do not say what the model says: they differ by {off:.2g} on rows at its thresholds. Its version, or "
            "something it does beside its trees, is not understood by this version of Integrand."
        )
    return ensemble


def _scale(ensemble: TreeEnsemble) -> float:
    """The most that trees may add up to."""
    return float(sum(np.abs(tree.values[tree.feature < 0]).max() for tree in ensemble.trees))


def _probes(ensemble: TreeEnsemble) -> Floats:
    """Rows whose features lie on thresholds, beside them, in categories, or are missing."""
    draws = np.random.default_rng(0)
    rows = np.zeros((_PROBES, ensemble.features))
    nodes = ensemble.packed.nodes
    for feature in range(ensemble.features):
        of_it = np.nonzero(nodes["feature"] == feature)[0]
        listed = [
            category
            for tree in ensemble.trees
            for node, categories in tree.categories.items()
            if tree.feature[node] == feature
            for category in categories
        ]
        if feature in ensemble.codes:
            rows[:, feature] = draws.choice(ensemble.codes[feature], _PROBES)
        elif listed:
            rows[:, feature] = draws.integers(0, max(listed) + 2, _PROBES)
        elif len(of_it):
            # A split of missing values from all others has an infinite threshold, or nearly so.
            cuts = nodes["threshold"][draws.choice(of_it, _PROBES)]
            rows[:, feature] = np.where(np.abs(cuts) < _HUGE, cuts, np.sign(cuts))
            kind = np.float32 if ensemble.rounded else np.float64
            beside = rows[_PROBES // 2 :, feature].astype(kind)
            toward = draws.choice([-np.inf, np.inf], len(beside)).astype(kind)
            rows[_PROBES // 2 :, feature] = np.nextafter(beside, toward)
    if ensemble.missing is None:
        rows[draws.random(rows.shape) < 0.1] = np.nan
    elif ensemble.missing.any():
        rows[(draws.random(rows.shape) < 0.1) & ensemble.missing] = np.nan
    return rows
