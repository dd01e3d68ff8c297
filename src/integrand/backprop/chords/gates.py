"""Operations by which one part of an input can switch another on and off, so that a segment whose
end points look alike may hide a change.

A chain of linear maps and activations that rise, or nearly so, does that only by a conspiracy of
its weights. A product of two things that move does it by itself, and so does what is made of
products (normalisations, softmax, attention), a choice, and a function that rises and falls.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .table import spelled

_PRODUCTS = ("mul", "multiply", "div", "divide", "true_divide", "addcmul", "addcdiv")
_MATRICES = (
    "matmul",
    "mm",
    "bmm",
    "mv",
    "dot",
    "inner",
    "outer",
    "addmm",
    "baddbmm",
    "addbmm",
    "addmv",
    "einsum",
    "bilinear",
    "cross",
)
_SPECIAL = (
    "__mul__",
    "__rmul__",
    "__imul__",
    "__truediv__",
    "__rtruediv__",
    "__itruediv__",
    "__matmul__",
    "__rmatmul__",
)

BETWEEN: frozenset[Any] = frozenset(
    spelled(
        *_PRODUCTS,
        *_MATRICES,
        *_SPECIAL,
        *(name + "_" for name in _PRODUCTS),
        owners=(torch, Tensor, F),
    )
)
"""Of two things that move."""

_RISE_AND_FALL = (
    "abs", "absolute", "__abs__", "square", "sin", "cos", "tan", "sinc", "cosh", "softmax", "log_softmax", "softmin", "logsumexp",
    "layer_norm", "rms_norm", "group_norm", "instance_norm", "normalize", "norm", "vector_norm", "var", "std", "cosine_similarity",
    "reciprocal", "rsqrt", "pow", "__pow__", "float_power", "remainder", "fmod", "frac", "prod", "cumprod", "where", "masked_fill",
    "scaled_dot_product_attention", "multi_head_attention_forward",
)  # fmt: skip

WITHIN: frozenset[Any] = frozenset(
    spelled(*_RISE_AND_FALL, *(name + "_" for name in _RISE_AND_FALL))
)
"""Of one that does."""
