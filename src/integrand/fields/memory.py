"""Cache of the model's outputs for the explained inputs, shared by everything that needs them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class OutputCache:
    """The inputs x (B, \\*s), and the model's outputs (B, C) for them once they have been asked
    for."""

    x: Tensor
    outputs: Tensor | None = None
