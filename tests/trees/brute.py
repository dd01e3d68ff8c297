"""Generalized IG by brute force: every threshold, the model's own word between them, ties by all orders of crossing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


Predict = Callable[[Array], Array]


def generalized(predict: Predict, thresholds: Sequence[Array], start: Array, end: Array) -> Array:
    """A (F,) for one row."""
    return generalized_rows(predict, thresholds, start[None], end[None])[0]


def generalized_rows(
    predict: Predict, thresholds: Sequence[Array], starts: Array, ends: Array
) -> Array:
    """A (N, F): F is asked at the corners (one-sided limits) of every crossing, and each jump shared by averaging over all orders in
    which the features there may cross.

    The corners of all rows are asked in one call.
    """
    games = [
        (row, game)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True))
        for game in crossings(thresholds, start, end)
    ]
    shares = np.zeros(starts.shape)
    if not games:
        return shares
    values = predict(np.concatenate([corners for _, (_, corners) in games]))
    asked = 0
    for row, (players, corners) in games:
        worth = values[asked : asked + len(corners)]
        asked += len(corners)
        orders = list(itertools.permutations(range(len(players))))
        for order in orders:
            crossed = 0
            for player in order:
                gain = worth[crossed | 1 << player] - worth[crossed]
                shares[row, players[player]] += gain / len(orders)
                crossed |= 1 << player
    return shares


def crossings(
    thresholds: Sequence[Array], start: Array, end: Array, apart: float = 1e-12
) -> list[tuple[list[int], Array]]:
    """What is crossed on one way: the features at each time, and the corners (2^k, F) where some of them have crossed, bit by bit.

    Limits are taken at the middle between this crossing and the next, feature by feature, so that no number is ever close to a threshold.
    """
    step = end - start
    times: list[tuple[float, int]] = []
    for feature, cuts in enumerate(thresholds):
        if step[feature] == 0:
            continue
        when = (np.asarray(cuts) - start[feature]) / step[feature]
        times += [(float(t), feature) for t in when if -apart <= t <= 1 + apart]
    times.sort()
    groups: list[tuple[float, set[int]]] = []
    for time, feature in times:
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
    games = []
    for number, (_, features) in enumerate(groups):
        players = sorted(features)
        corners = np.repeat(middles[number][None], 2 ** len(players), 0)
        for place, feature in enumerate(players):
            crossed = np.arange(len(corners)) >> place & 1 == 1
            corners[crossed, feature] = middles[number + 1][feature]
        games.append((players, corners))
    return games


def treeig_values(model: Any, start: Any, rows: Any) -> Any:
    """The maps of treeig."""
    import treeig

    return np.asarray(treeig.TreeIG(model, baseline=start).explain(rows).values)
