"""The small problems that parts are checked on: numbers without a pattern, and smooth functions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.shapes import flattened


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers between −1 and 1 in float64, the same on every machine and without an obvious
    pattern.

    Args:
        shape: of what is returned.
        phase: another gives other numbers.
    """
    n = torch.arange(1, 1 + int(torch.Size(shape).numel()), dtype=torch.float64)
    return torch.sin(phase + 1.7 * n + 0.013 * n * n).reshape(shape)


def smooth(z: Tensor) -> Tensor:
    """A smooth scalar of every feature with interactions, for rows (N, \\*s) of any shape."""
    flat = flattened(z, 1)
    tilt = waves(flat.shape[1], phase=0.5).to(flat) / flat.shape[1] ** 0.5
    return torch.exp(0.5 * flat @ tilt) + torch.tanh(flat).prod(1)


def tanh_network(features: int = 6, classes: int = 3) -> nn.Module:
    """A small smooth classifier in float64, the same on every machine and drawn from no
    generator.

    Args:
        features: of an input.
        classes: of the output.
    """
    with torch.device("meta"):  # where nothing is drawn
        model = nn.Sequential(nn.Linear(features, 8), nn.Tanh(), nn.Linear(8, classes)).double()
    model = model.to_empty(device="cpu").eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(waves(*parameter.shape, phase=0.4 + number))
    return model


def classes_of(batch: int) -> Tensor:
    """A class for each example (B,), not the same for all: 0, 2, 1, 0, …"""
    return torch.tensor([0, 2, 1]).repeat(-(-batch // 3))[:batch]
