"""Deletion and insertion curves, as the benchmarks need them: pixels in the map's order, a fill, the class probability."""

from __future__ import annotations

import torch
from torch import Tensor

import integrand as ig

POINTS = 26


def curve_areas(
    field: ig.fields.Field, x: Tensor, maps: Tensor, blank: Tensor, points: int = POINTS
) -> tuple[Tensor, Tensor]:
    """Areas under the deletion and insertion curves for maps (M, C, H, W) of one image x (1, C, H, W) → (M,), (M,).

    Pixels are ranked by the signed channel sum. ``points`` fractions from 0 to 1, both ends included; the area is a true
    trapezoid over [0, 1]. ``blank`` (1, C, H, W) is what is deleted to, and inserted into.
    """
    rank = maps.sum(1).flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    fractions = torch.linspace(0, 1, points)
    counts = (fractions * rank.shape[1]).round()
    top = (rank[:, None] < counts[:, None]).reshape(len(maps) * points, 1, *x.shape[2:])
    rows = torch.cat([torch.where(top, blank, x), torch.where(top, x, blank)])
    index = torch.zeros(len(rows), dtype=torch.long)
    score = field.score().rows(rows, index, gradient=False).value.reshape(2, len(maps), points)
    area = torch.trapezoid(score, fractions)
    return area[0], area[1]


def bootstrap(differences: Tensor, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """A 95 % percentile interval of the mean of paired differences."""
    stream = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(differences), (draws, len(differences)), generator=stream)
    means = differences[picks].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return low, high
