"""Sensitivity of maps and scores to the baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..baselines import Baseline, StartLike
from ..baselines.base import label_of
from ..baselines.names import baseline_of
from ..errors import InputError
from ..integration import Method, core, with_core
from ..integration.attribution import Explainer
from .map_agreement import MapAgreement
from .scores import Numbers, Scores


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Methods started from K baselines each.

    Args:
        baselines: (K,) names.
        methods: (M,) names.
        ranks: (M, K, K, E) Spearman's correlation of feature ranks between the maps from two
            baselines.
        scores: of "method from baseline", every method from every baseline.
    """

    baselines: tuple[str, ...]
    methods: tuple[str, ...]
    ranks: Numbers
    scores: Scores

    def merge(self, other: Sensitivity) -> Sensitivity:
        """Concatenate both along examples. Raises ``InputError`` for other methods or baselines."""
        if (self.baselines, self.methods) != (other.baselines, other.methods):
            raise InputError("Sensitivities of other methods or baselines do not merge.")
        ranks = np.concatenate([self.ranks, other.ranks], 3)
        return dataclasses.replace(self, ranks=ranks, scores=self.scores.merge(other.scores))

    def alike(self) -> dict[str, float]:
        """The mean correlation of maps from different baselines, over pairs and examples, by
        method; 1 is the same order of features."""
        above = np.triu_indices(len(self.baselines), 1)
        correlations = {}
        for method, ranks in zip(self.methods, self.ranks, strict=True):
            pairs = ranks[above]
            known = pairs[~np.isnan(pairs)]
            correlations[method] = float(known.mean()) if len(known) else float("nan")
        return correlations

    def means(self, metric: str) -> dict[str, dict[str, float]]:
        """Mean scores by method and baseline."""
        values = dict(zip(self.scores.methods, self.scores.of(metric), strict=True))
        means: dict[str, dict[str, float]] = {}
        for method in self.methods:
            rows = {baseline: values[variant(method, baseline)] for baseline in self.baselines}
            means[method] = {
                baseline: float(np.mean(row[~np.isnan(row)]))
                if (~np.isnan(row)).any()
                else float("nan")
                for baseline, row in rows.items()
            }
        return means


def variant(method: str, baseline: str) -> str:
    """The name of a method that starts from a baseline."""
    return f"{method} from {baseline}"


StartsLike = Mapping[str, StartLike] | Sequence[StartLike]
"""What ``vary_baseline=`` takes: the baselines to try, by name or one after the other."""


def baselines_by_name(baselines: StartsLike) -> dict[str, Baseline]:
    """Baselines to try, by name.

    Raises:
        UnknownName: for a name that no baseline has.
        InputError: for fewer than two, and for two of one name.
    """
    if isinstance(baselines, Mapping):
        named = {str(name): baseline_of(option) for name, option in baselines.items()}
    else:
        parts = [(option, baseline_of(option)) for option in baselines]
        named = {
            str(option) if isinstance(option, str | int | float) else label_of(part): part
            for option, part in parts
        }
        if len(named) < len(parts):
            raise InputError(
                "Two baselines of vary_baseline= have the same name: give a dict of them, by names of your own."
            )
    if len(named) < 2:
        raise InputError(
            f"vary_baseline= takes at least two baselines, such as ['zero', 'blurred'], and {len(named)} is given: maps from them are held "
            "against each other."
        )
    return named


def variants(
    methods: Mapping[str, Explainer], baselines: Mapping[str, Baseline]
) -> dict[str, dict[str, Explainer]]:
    """Each method started from every baseline; methods that do not start from one baseline are left
    out."""
    return {
        name: {label: _from(method, baseline) for label, baseline in baselines.items()}
        for name, method in methods.items()
        if _starts_from_one(method)
    }


def _from(method: Explainer, baseline: Baseline) -> Explainer:
    return with_core(method, lambda inner: dataclasses.replace(inner, baseline=baseline))


def _starts_from_one(method: Explainer) -> bool:
    inner = core(method)
    if not isinstance(inner, Method):
        return False
    return inner.baseline.single and not inner.path.chooses_start


def of_variants(
    names: Mapping[str, Mapping[str, Any]],
    agreed: MapAgreement,
    scores: Scores,
    baselines: Mapping[str, Any],
) -> Sensitivity:
    """Collect the agreement and the scores of all variants as a ``Sensitivity``."""
    place = {name: i for i, name in enumerate(agreed.methods)}
    ranks = [
        agreed.ranks[np.ix_(*[[place[variant(name, label)] for label in baselines]] * 2)]
        for name in names
    ]
    return Sensitivity(tuple(baselines), tuple(names), np.stack(ranks), scores)
