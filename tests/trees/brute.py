"""Generalized IG by brute force: every threshold, the model's own word between them, ties by all orders of crossing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def generalized(
    predict: Callable[[Array], Array],
    thresholds: Sequence[Array],
    start: Array,
    end: Array,
    apart: float = 1e-12,
) -> Array:
    """A (F,) for one row: F is asked at the corners (one-sided limits) of every crossing, and each jump shared by averaging over all orders
    in which the features there may cross.

    Limits are taken at the middle between this crossing and the next, feature by feature, so that no number is ever close to a threshold.
    """
    step = end - start
    crossings: list[tuple[float, int]] = []
    for feature, cuts in enumerate(thresholds):
        if step[feature] == 0:
            continue
        times = (np.asarray(cuts) - start[feature]) / step[feature]
        crossings += [(float(t), feature) for t in times if -apart <= t <= 1 + apart]
    crossings.sort()
    groups: list[tuple[float, set[int]]] = []
    for time, feature in crossings:
        if groups and time - groups[-1][0] <= apart:
            groups[-1][1].add(feature)
        else:
            groups.append((time, {feature}))
    # What F is asked at: the ends themselves, and the middles between crossings.
    stops = [time for time, _ in groups]
    middles = [start + t * step for t in (np.array([0.0, *stops]) + np.array([*stops, 1.0])) / 2]
    if stops and stops[0] <= apart:
        middles[0] = start
    if stops and stops[-1] >= 1 - apart:
        middles[-1] = end
    shares = np.zeros(len(start))
    for number, (_, features) in enumerate(groups):
        before, after = middles[number], middles[number + 1]
        players = sorted(features)
        coalitions = [
            frozenset(c)
            for k in range(len(players) + 1)
            for c in itertools.combinations(players, k)
        ]
        corners = np.stack(
            [np.where([j in c for j in range(len(start))], after, before) for c in coalitions]
        )
        value = dict(zip(coalitions, predict(corners), strict=True))
        orders = list(itertools.permutations(players))
        for order in orders:
            for place, feature in enumerate(order):
                earlier = frozenset(order[:place])
                gain = value[earlier | {feature}] - value[earlier]
                shares[feature] += gain / len(orders)
    return shares


def treeig_values(model: Any, start: Any, rows: Any) -> Any:
    """The maps of treeig."""
    import treeig

    return np.asarray(treeig.TreeIG(model, baseline=start).explain(rows).values)
