"""Test functions on which methods that violate an axiom show it: smooth, with interactions, of four
features, in closed form.

Features 0 and 1 count alike where symmetry is asked for; feature 3 is looked at by some only.
Points lie away from where anything vanishes, and pairs that are to be symmetric agree in input and
baselines.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

POINTS = torch.tensor([[0.9, 0.9, 0.7, 1.3], [1.1, 1.1, 0.4, 0.6]], dtype=torch.float64)
"""Inputs (2, 4): features 0 and 1 are equal."""

STARTS = torch.tensor(
    [[0.1, 0.1, -0.2, 0.5], [0.3, 0.3, 0.2, -0.4], [-0.1, -0.1, 0.1, 0.0]], dtype=torch.float64
)
"""References (3, 4), below the inputs in the features that ``symmetric`` looks at."""

_N = torch.arange(1, 33, dtype=torch.float64)

SCATTERED = torch.sin(1 + 1.7 * _N + 0.013 * _N * _N).reshape(4, 8)
"""References (4, 8) that have nothing to do with one another."""

SLOPES = 1.1 + torch.stack([torch.sin(p + 1.7 * _N[:8] + 0.013 * _N[:8] ** 2) for p in (2.0, 3.0)])
"""Of two increasing linear functions of eight features (2, 8)."""


def symmetric(z: Tensor) -> Tensor:
    """exp(z₀ z₁ + ½ (z₀ + z₁) + 0.8 z₂) − 0.9: symmetric in 0 and 1, blind to 3."""
    return torch.exp(z[:, 0] * z[:, 1] + 0.5 * (z[:, 0] + z[:, 1]) + 0.8 * z[:, 2]) - 0.9


def polynomial(z: Tensor) -> Tensor:
    """(z₀ + 2 z₁)² + z₂ z₀."""
    return (z[:, 0] + 2 * z[:, 1]) ** 2 + z[:, 2] * z[:, 0]


def rising(z: Tensor) -> Tensor:
    """z₀ z₁ + ½ z₂ z₃ + tanh(z₀ + 2 z₂): non-decreasing in every feature where all are at least
    zero."""
    return z[:, 0] * z[:, 1] + 0.5 * z[:, 2] * z[:, 3] + torch.tanh(z[:, 0] + 2 * z[:, 2])


def of_the_sum(z: Tensor) -> Tensor:
    """exp(0.3 Σ z): only the sum counts."""
    return torch.exp(0.3 * z.sum(1))


def steeper_in_the_first(z: Tensor) -> Tensor:
    """exp(0.3 Σ z) + z₀²: as steep as ``of_the_sum`` everywhere, and steeper in feature 0 where z₀
    > 0."""
    return of_the_sum(z) + z[:, 0] ** 2


class Gathering(nn.Module):
    """Linear, ReLU, linear."""

    def __init__(self, into: Tensor, offset: Tensor, out: Tensor) -> None:
        super().__init__()
        hidden, features = into.shape
        first, last = nn.Linear(features, hidden).double(), nn.Linear(hidden, len(out)).double()
        first.weight.copy_(into)
        first.bias.copy_(offset)
        last.weight.copy_(out)
        last.bias.zero_()
        self.layers = nn.Sequential(first, nn.ReLU(), last).requires_grad_(False).eval()

    def forward(self, z: Tensor) -> Tensor:
        outputs: Tensor = self.layers(z)
        return outputs


def twins() -> tuple[nn.Module, nn.Module]:
    """Two networks of one function: hidden units in another order and on another scale."""
    n = torch.arange(24, dtype=torch.float64)
    into, offset, out = (
        torch.sin(1.7 * n + 0.2).reshape(6, 4),
        torch.cos(n[:6]),
        torch.sin(0.9 * n[:12] + 1).reshape(2, 6),
    )
    order, scale = (
        torch.tensor([3, 0, 5, 1, 2, 4]),
        torch.tensor([2.0, 0.5, 3.0, 1.0, 0.1, 4.0], dtype=torch.float64),
    )
    with torch.no_grad():
        return Gathering(into, offset, out), Gathering(
            into[order] * scale[:, None], offset[order] * scale, out[:, order] / scale
        )
