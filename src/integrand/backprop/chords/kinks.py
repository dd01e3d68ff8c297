"""Functions with kinks, jumps or choices: a network without them is smooth, and quadrature suits
it better than chords.

Clamps are left out. They guard denominators far more often than they bend anything, and taking a
kinked network for a smooth one costs no more than the gradients of one try.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .table import spelled

_ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "hardtanh", "hardswish", "hardsigmoid", "hardshrink", "softshrink",
)  # fmt: skip
_CHOICES = (
    "max",
    "min",
    "amax",
    "amin",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "median",
    "topk",
    "sort",
    "kthvalue",
    "cummax",
    "cummin",
)
_STEPS = ("abs", "absolute", "sign", "round", "floor", "ceil", "trunc", "frac", "fmod", "remainder")
_POOLS = tuple(
    f"{kind}max_pool{axes}d{ending}"
    for kind in ("", "adaptive_", "fractional_")
    for axes in (1, 2, 3)
    for ending in ("", "_with_indices")
)

KINKS: frozenset[Any] = frozenset(
    [
        *spelled(*_ACTIVATIONS, *(name + "_" for name in _ACTIVATIONS)),
        *spelled(*_CHOICES, *_STEPS, *(name + "_" for name in _STEPS), owners=(torch, Tensor)),
        *spelled(*_POOLS, owners=(torch, F)),
    ]
)
