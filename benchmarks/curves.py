"""Deletion and insertion curves, as the benchmarks need them: pixels in the map's order, a fill, the class probability."""

from __future__ import annotations

from torch import Tensor

import integrand as ig

POINTS = 26


def curve_areas(
    field: ig.fields.Field, x: Tensor, maps: Tensor, blank: Tensor, points: int = POINTS
) -> tuple[Tensor, Tensor]:
    """Areas under the deletion and insertion curves for maps (M, C, H, W) of one image x (1, C, H, W) → (M,), (M,).

    ``points`` fractions from 0 to 1, both ends included. ``blank`` (1, C, H, W) is what is deleted to, and inserted into.
    """
    metrics = (
        by(fill=blank, steps=points - 1) for by in (ig.metrics.Deletion, ig.metrics.Insertion)
    )
    deletion, insertion = (
        ig.metrics.judge(field, x, list(maps[:, None]), by)[:, 0] for by in metrics
    )
    return deletion, insertion
