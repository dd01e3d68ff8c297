"""Random nodes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..field import Field
from ..options import whole
from ..parts import part
from ..seeds import generator
from ..segment import Segment
from .base import mean_gradient


@part
class MonteCarlo:
    """``n`` random nodes per segment and reference, stratified: unbiased for every n.

    All R·n draws of a segment share [0, 1]: each takes one of R·n equal strata, in random order, at a random place inside
    (Latin hypercube), so the draws of different references complement one another. The draws are the same for every
    example. Error O((Rn)^{-3/2}) where references do not matter, O((Rn)^{-1/2}) where they do. Cost: n gradients.
    Source: sampling of Expected Gradients (Erion et al., 2021), with strata instead of independent draws.
    """

    n: int = 1
    seed: int = 0
    complete: ClassVar[bool] = False
    unbiased: ClassVar[bool] = True
    """Complete in expectation: what one map misses is its error, but none that a warning could do anything about."""

    def __post_init__(self) -> None:
        whole("n", self.n, least=1)

    @property
    def gradients(self) -> int:
        return self.n

    def __call__(self, field: Field, segment: Segment) -> Tensor:
        _, references, _ = segment.leading
        first, of = segment.lanes or (0, references)
        draws = of * self.n
        nodes = []
        for begin in segment.clock[0].tolist():
            stream = generator(self.seed, round(begin * 2**40))
            strata = torch.randperm(draws, generator=stream)
            inside = torch.rand(draws, generator=stream, dtype=torch.float64)
            nodes.append(((strata + inside) / draws).reshape(self.n, of))
        lanes = torch.stack(nodes, 1)[:, :, first : first + references]
        t = lanes[..., None].to(segment.start).expand(self.n, *segment.leading)
        return mean_gradient(field, segment, t, torch.full_like(t, 1 / self.n)).mul_(segment.step)
