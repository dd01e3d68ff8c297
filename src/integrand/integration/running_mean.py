"""Running mean and variance of maps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.shapes import over


class RunningMean:
    """A running mean of maps per example, and how much the maps differ.

    count (B,);  value (B, \\*s) the mean;  squares (B, \\*s) the sum of squared differences from it
    """

    def __init__(self, like: Tensor) -> None:
        self.count = like.new_zeros(len(like))
        self.value = torch.zeros_like(like)
        self.squares = torch.zeros_like(like)

    def add(self, maps: Tensor, examples: Tensor | slice = slice(None)) -> None:
        """More maps (n, M, \\*s) of the ``examples`` (M,); of all unless given."""
        n, before = len(maps), self.count[examples]
        mean = maps.mean(0)
        step = mean - self.value[examples]
        self.squares[examples] += (maps - mean).square().sum(0) + step.square() * over(
            before * n / (before + n), step
        )
        self.value[examples] += step * over(n / (before + n), step)
        self.count[examples] += n

    def variance(self) -> Tensor:
        """The unbiased variance of single maps (B, \\*s); NaN of fewer than two."""
        return self.squares / over(self.count - 1, self.squares)
