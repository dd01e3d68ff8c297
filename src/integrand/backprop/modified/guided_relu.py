"""Guided backpropagation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.torch_calls import Arguments, Function, Keywords
from ...core.values import part
from .base import Changed, During, check_open


@part
class GuidedReLU:
    """Guided backpropagation: a ReLU hands back g · 1[u > 0] · 1[g > 0] instead of g · 1[u > 0].

    Covers ``nn.ReLU``, ``F.relu``, ``torch.relu`` and ``Tensor.relu``, also in place, and ReLU6
    (``nn.ReLU6``, ``F.relu6``, ``F.hardtanh`` from 0 upwards). Everything else keeps its
    derivative: smooth or leaky activations (GELU, SiLU, LeakyReLU), a ReLU written as a maximum or
    a clamp, and the one inside a recurrent kernel (``nn.RNN(nonlinearity="relu")``). A model
    without ReLUs has its ordinary gradients.

    The result depends on how F is written down, mostly ignores what the upper layers decide, and is
    not complete.

    Raises:
        ModelError: for compiled and scripted modules, whose operations are not seen.

    Cost:
        that of the ordinary gradient.

    References:
        Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity: The All Convolutional
        Net", arXiv 1412.6806.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> field = ig.TorchField(model, 0, backward=ig.fields.GuidedReLU())
        >>> field.gradient(torch.ones(2, 4)).shape
        torch.Size([2, 4])
    """

    layers: ClassVar[bool] = False

    def bound(self, module: nn.Module | None) -> During:
        check_open(module, repr(self))
        return partial(Changed, _guided)


RELU: frozenset[Function] = frozenset(
    getattr(owner, name)
    for name in ("relu", "relu_")
    for owner in (torch, Tensor, F)
    if hasattr(owner, name)
)


def _guided(func: Function, args: Arguments, kwargs: Keywords) -> Any:
    if func not in RELU and func is not F.relu6 and not _from_zero(func, args, kwargs):
        return NotImplemented
    output = func(*args, **kwargs)
    if output.requires_grad:
        # All that comes back to the output, before the ReLU's own gate.
        output.register_hook(_positive)
    return output


def _from_zero(func: Function, args: Arguments, kwargs: Mapping[str, Any]) -> bool:
    """A hard tanh that is a ReLU with a ceiling."""
    if func is not F.hardtanh and func is not F.hardtanh_:
        return False
    low = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
    return bool(low == 0)


def _positive(gradient: Tensor) -> Tensor:
    return gradient.clamp_min(0)
