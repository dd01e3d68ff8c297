"""What parts are asked on: numbers without a pattern, and a smooth function of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..shapes import flattened


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers between −1 and 1 in float64, the same on every machine and without an obvious pattern."""
    n = torch.arange(1, 1 + int(torch.Size(shape).numel()), dtype=torch.float64)
    return torch.sin(phase + 1.7 * n + 0.013 * n * n).reshape(shape)


def smooth(z: Tensor) -> Tensor:
    """A smooth scalar of every feature with interactions, for rows (N, \\*s) of any shape."""
    flat = flattened(z, 1)
    tilt = waves(flat.shape[1], phase=0.5).to(flat) / flat.shape[1] ** 0.5
    return torch.exp(0.5 * flat @ tilt) + torch.tanh(flat).prod(1)
