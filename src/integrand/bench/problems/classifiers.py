"""Classifiers of tables that problems are made of: a small network, a forest, boosted trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from ...core.optional import optional
from ...errors import UnknownName
from ..peers import TreeSHAP
from ..training import accuracy, trained
from .base import ProblemOptions

_MOST_LEAVES = 16


class TableNet(nn.Module):
    """Two hidden layers of 32: (N, D) → logits (N, C). The representation is what ``head`` is
    given."""

    def __init__(self, features: int, classes: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(features, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


@dataclass(frozen=True, eq=False)
class FittedColumns:
    """A classifier that was trained, its accuracy (x, y) → share, and the words it adds to a
    recipe."""

    model: Callable[..., Any]
    accuracy: Callable[[Tensor, Tensor], float]
    words: Mapping[str, Any] = field(default_factory=dict)


def classifier(
    kind: str, x: Tensor, y: Tensor, setting: ProblemOptions, *, name: str, epochs: int
) -> FittedColumns:
    """A "network", a "forest" or "boosting" (scikit-learn's) trained on rows x (N, D) of classes y
    (N,).

    Raises:
        UnknownName: for another kind.
    """
    if kind == "network":
        network = trained(
            lambda: TableNet(x.shape[1], int(y.max()) + 1),
            x,
            y,
            cache=setting.cache,
            name=name,
            epochs=epochs,
            seed=setting.seed,
        )
        return FittedColumns(network, partial(accuracy, network))
    ensembles = optional("sklearn.ensemble", extra="tables", needs=f"The model {kind!r}")
    kinds: dict[str, Callable[[], Any]] = {
        "forest": partial(ensembles.RandomForestClassifier, 50, min_samples_leaf=3),
        "boosting": partial(
            ensembles.HistGradientBoostingClassifier, max_iter=80, max_leaf_nodes=_MOST_LEAVES
        ),
    }
    if kind not in kinds:
        raise UnknownName("kind of model", kind, ("network", *kinds))
    trees = kinds[kind]().set_params(random_state=setting.seed)
    trees.fit(x.double().numpy(), y.numpy())

    def share(x: Tensor, y: Tensor) -> float:
        return float(trees.score(x.double().numpy(), y.numpy()))

    return FittedColumns(trees, share, {"TreeSHAP": partial(TreeSHAP, trees)})
