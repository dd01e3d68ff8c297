"""Methods around a method: greedy, smooth, regions, distanced."""

from __future__ import annotations

import torch

import integrand as ig

FINE = ig.rules.GaussLegendre(12)

WRAPPERS = {"greedy_pig", "smoothgrad", "xrai", "artificial_distancing"}

BUILD = {
    "greedy_pig": lambda p: ig.methods.greedy_pig(
        rounds=3, baseline=ig.baselines.Given(p.references[:1]), rule=FINE
    ),
    "smoothgrad": lambda p: ig.methods.smoothgrad(
        draws=4, baseline=ig.baselines.Given(p.references[:1]), rule=FINE
    ),
    "xrai": lambda p: ig.methods.xrai(
        dilation=0,
        least=1,
        segments=quarters,
        baseline=ig.baselines.Given(p.references[:1]),
        rule=FINE,
    ),
    "artificial_distancing": lambda p: ig.methods.artificial_distancing(
        p.references, (0, 1), keep=0.5, baseline=ig.baselines.Given(p.references[:1]), rule=FINE
    ),
}


def quarters(picture: torch.Tensor) -> torch.Tensor:
    """An over-segmentation into columns and one into rows, of two pixels each."""
    height, width = picture.shape[1:]
    rows, columns = torch.arange(height)[:, None] // 2, torch.arange(width) // 2
    return torch.stack([rows.expand(height, width), columns.expand(height, width)])


AXIOMATIC = {
    "greedy_pig": lambda field, x, refs: (
        ig.methods.greedy_pig(chunk=1, baseline=ig.baselines.Given(refs[:1]), rule=FINE)(
            field, x
        ).values
    ),
    "smoothgrad": lambda field, x, refs: (
        ig.methods.smoothgrad(draws=5, baseline=ig.baselines.Given(refs[:1]), rule=FINE)(
            field, x
        ).values
    ),
}
