"""Methods around a method: greedy, smooth, regions, distanced."""

from __future__ import annotations

import torch

import integrand as ig

FINE = ig.rules.GaussLegendre(12)

WRAPPERS = {"greedy", "smooth", "regions", "distanced"}

BUILD = {
    "greedy": lambda p: ig.methods.greedy(rounds=3, baseline=ig.baselines.Given(p.references[:1]), rule=FINE),
    "smooth": lambda p: ig.methods.smooth(draws=4, baseline=ig.baselines.Given(p.references[:1]), rule=FINE),
    "regions": lambda p: ig.methods.regions(
        dilation=0, least=1, segments=quarters, baseline=ig.baselines.Given(p.references[:1]), rule=FINE
    ),
    "distanced": lambda p: ig.methods.distanced(
        p.references, (0, 1), keep=0.5, baseline=ig.baselines.Given(p.references[:1]), rule=FINE
    ),
}


def quarters(picture: torch.Tensor) -> torch.Tensor:
    """An over-segmentation into columns and one into rows, of two pixels each."""
    height, width = picture.shape[1:]
    rows, columns = torch.arange(height)[:, None] // 2, torch.arange(width) // 2
    return torch.stack([rows.expand(height, width), columns.expand(height, width)])


AXIOMATIC = {
    "greedy": lambda field, x, refs: (
        ig.methods.greedy(chunk=1, baseline=ig.baselines.Given(refs[:1]), rule=FINE)(field, x).values
    ),
    "smooth": lambda field, x, refs: (
        ig.methods.smooth(draws=5, baseline=ig.baselines.Given(refs[:1]), rule=FINE)(field, x).values
    ),
}
