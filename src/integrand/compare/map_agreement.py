"""Agreement of maps: of different methods, and of one method from different baselines.

Two maps agree as far as they put features in the same order (Spearman's correlation of ranks, ties
at their mean rank), and as far as their first features are the same (the fraction of the top k that
both have). Neither says which is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.features import Features, feature_map, feature_scores
from ..core.ranks import average_ranks
from ..errors import InputError
from .evaluate import Explained
from .scores import Numbers

TOP = 0.1
"""The fraction of features that count as the first ones, unless said otherwise."""


@dataclass(frozen=True, eq=False)
class MapAgreement:
    """Agreement between the maps of M methods on E examples.

    Args:
        methods: (M,) names.
        ranks: (M, M, E) Spearman's correlation of feature ranks, −1 to 1; NaN where a map is
            missing or constant.
        first: (M, M, E) the fraction of the first ``top`` of features that two maps have in common;
            random maps have ``top`` in common.
        top: the fraction of features that count as the first ones.
    """

    methods: tuple[str, ...]
    ranks: Numbers
    first: Numbers
    top: float = TOP

    def merge(self, other: MapAgreement) -> MapAgreement:
        """Concatenate both along examples. Raises ``InputError`` for other methods or
        another ``top``."""
        if self.methods != other.methods or self.top != other.top:
            raise InputError(
                "Agreements of other methods, or of other shares of features, do not merge."
            )
        ranks, first = (
            np.concatenate([a, b], 2)
            for a, b in ((self.ranks, other.ranks), (self.first, other.first))
        )
        return MapAgreement(self.methods, ranks, first, self.top)

    def mean(self) -> tuple[Numbers, Numbers]:
        """(M, M) the means of ``ranks`` and of ``first`` over the examples that have them."""
        return _mean(self.ranks), _mean(self.first)


def _mean(values: Numbers) -> Numbers:
    known = ~np.isnan(values)
    count = known.sum(2)
    means: Numbers = np.where(
        count > 0, np.where(known, values, 0).sum(2) / np.maximum(count, 1), np.nan
    )
    return means


def agreement(seen: Explained, *, features: Features = "auto", top: float = TOP) -> MapAgreement:
    """Agreement between all methods, on every example of a batch that was explained.

    Features are ranked by the signed sum of their map, as metrics rank them.

    Args:
        seen: the maps of a batch.
        features: what is ranked: "auto", an int for square patches, or a label map.
        top: the fraction of features that count as the first ones.

    Raises:
        InputError: for a fraction outside (0, 1].

    Cost:
        A sort per map, no model.
    """
    if not 0 < top <= 1:
        raise InputError(f"top= is a fraction of features in (0, 1], not {top}.")
    many, batch = len(seen.names), len(seen.subject)
    ranks, first = np.full((many, many, batch), np.nan), np.full((many, many, batch), np.nan)
    x = seen.subject.x
    groups = feature_map(features, x)
    per_example = groups.ndim == x.ndim  # label maps of the examples' own
    for b in range(batch):
        maps = [
            (m, map_values)
            for m, name in enumerate(seen.names)
            if (map_values := seen.map(name, b)) is not None
        ]
        if not maps:
            continue
        place = [m for m, _ in maps]
        scores = _scores(
            [map_values for _, map_values in maps], groups[b : b + 1] if per_example else groups
        )
        at = np.ix_(place, place)
        ranks[..., b][at] = correlation(average_ranks(torch.from_numpy(scores)).numpy())
        first[..., b][at] = overlap(scores, top)
    return MapAgreement(seen.names, ranks, first, top)


def _scores(maps: Sequence[Tensor], groups: Tensor) -> Numbers:
    """(M, N) by feature, those that the example does not have left out."""
    scores = feature_scores(torch.stack(list(maps))[:, None].double(), groups)[:, 0]
    return np.asarray(scores[:, scores[0] > float("-inf")].cpu().numpy(), dtype=np.float64)


def correlation(rows: Numbers) -> Numbers:
    """(M, M) Pearson's correlations of rows (M, N); NaN of rows that do not vary."""
    centred = rows - rows.mean(1, keepdims=True)
    size = np.sqrt((centred**2).sum(1))
    varies = size > 0
    unit = np.where(varies[:, None], centred / np.where(varies, size, 1)[:, None], np.nan)
    correlations: Numbers = np.clip(unit @ unit.T, -1, 1)
    return correlations


def overlap(scores: Numbers, top: float) -> Numbers:
    """(M, M) the fraction of the first features that two maps (M, N) have in common; NaN of maps
    that are the same everywhere."""
    count = max(1, round(top * scores.shape[1]))
    first = np.zeros(scores.shape)
    for row, values in zip(first, scores, strict=True):
        row[np.argsort(-values, kind="stable")[:count]] = 1
    first[np.ptp(scores, axis=1) == 0] = np.nan
    shares: Numbers = first @ first.T / count
    return shares
