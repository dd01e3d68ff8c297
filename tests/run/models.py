"""Models that recipes of the tests import: a plain one, and one that fails in the ways models do."""

from __future__ import annotations

import os
import time

import torch
from torch import Tensor, nn

RAISES, HANGS, DIES = 101.0, 102.0, 103.0


def load() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).eval()


class Slow(nn.Module):
    """Long enough for a test to kill it in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.network = load()

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        outputs: Tensor = self.network(x)
        return outputs


class Poisoned(nn.Module):
    """Raises, hangs or ends the process where the first feature says so."""

    def __init__(self) -> None:
        super().__init__()
        self.network = load()

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, 0]
        if bool((first == RAISES).any()):
            raise ValueError("this model cannot take 101\nand says more")
        if bool((first == HANGS).any()):
            time.sleep(3600)
        if bool((first == DIES).any()):
            os._exit(9)
        outputs: Tensor = self.network(x)
        return outputs


def slow() -> nn.Module:
    return Slow().eval()


def poisoned() -> nn.Module:
    return Poisoned().eval()


class Greedy(nn.Module):
    """Has no room for calls of several rows where the first feature says so, or for any."""

    def __init__(self) -> None:
        super().__init__()
        self.network = load()

    def forward(self, x: Tensor) -> Tensor:
        most = float(x[:, 0].max())
        if most > 55 or (most > 4.0 and len(x) > 3):
            raise MemoryError("there is no room")
        outputs: Tensor = self.network(x)
        return outputs


def greedy() -> nn.Module:
    return Greedy().eval()
