"""What a model said of the inputs that are explained, so that it is asked once whatever asks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class OutputCache:
    """The inputs x (B, \\*s), and the model's outputs (B, C) for them once they have been asked
    for."""

    x: Tensor
    outputs: Tensor | None = None
