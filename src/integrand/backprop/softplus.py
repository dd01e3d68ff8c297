"""Softplus in place of ReLU, for second derivatives; and which operations have none.

    relu(u)        →  s(u) = log(1 + exp(β u))/β
    relu6(u)       →  s(u) − s(u − 6)                   a hard tanh alike, between its ends
    leaky_relu(u)  →  a u + (1 − a) s(u)                prelu and rrelu alike

A network of ReLUs is piecewise linear: its second derivatives are zero but at the kinks, where they
are infinite, and no quadrature sees those. The smoothed network is another function, near the first
for large β. Modules are left alone: all happens in a ``TorchFunctionMode``, while the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..core.torch_calls import Arguments, Function, Keywords
from .chords.kinks import KINKS
from .chords.rows import tensors
from .chords.table import spelled

_STRAIGHT = 40.0  # β u from which on softplus is the identity, also in float64

Smoother = Callable[..., Tensor]
"""(β, u, *what the operation is called with) → what stands for it."""


def smooth_relu(beta: float, u: Tensor) -> Tensor:
    """log(1 + exp(β u))/β."""
    return F.softplus(u, beta, _STRAIGHT)


def _hardtanh(beta: float, u: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return min_val + smooth_relu(beta, u - min_val) - smooth_relu(beta, u - max_val)


def _relu6(beta: float, u: Tensor) -> Tensor:
    return _hardtanh(beta, u, 0.0, 6.0)


def _leaky(beta: float, u: Tensor, negative_slope: float | Tensor = 0.01) -> Tensor:
    return negative_slope * u + (1 - negative_slope) * smooth_relu(beta, u)


def _prelu(beta: float, u: Tensor, weight: Tensor) -> Tensor:
    if weight.numel() > 1 and u.ndim > 1:  # a slope for each channel
        weight = weight.reshape(-1, *(1,) * (u.ndim - 2))
    return _leaky(beta, u, weight)


def _rrelu(
    beta: float, u: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> Tensor:
    return _leaky(beta, u, (lower + upper) / 2)


def _clamped_from_zero(beta: float, u: Tensor, min: Any = None, max: Any = None) -> Any:
    """A ReLU written as a clamp; any other clamp guards a denominator, or a logarithm."""
    zero = isinstance(min, int | float) and min == 0 and max is None
    return smooth_relu(beta, u) if zero else NotImplemented


_IN_PLACE = "_"


def _registry() -> dict[Function, tuple[Smoother, bool]]:
    """Operation → what stands for it, and whether it writes to its input."""
    smoothers: dict[str, Smoother] = {
        "relu": smooth_relu,
        "relu6": _relu6,
        "hardtanh": _hardtanh,
        "leaky_relu": _leaky,
        "prelu": _prelu,
        "rrelu": _rrelu,
        "clamp": _clamped_from_zero,
        "clip": _clamped_from_zero,
        "clamp_min": _clamped_from_zero,
    }
    return {
        function: (smoother, bool(ending))
        for name, smoother in smoothers.items()
        for ending in ("", _IN_PLACE)
        for function in spelled(name + ending)
    }


SMOOTHED: dict[Function, tuple[Smoother, bool]] = _registry()
"""Operations that are smoothed."""

RELUS = frozenset(function.__name__.strip(_IN_PLACE) for function in SMOOTHED)
"""Their names, as ``KinkWatch`` notes them."""


class Softplus(TorchFunctionMode):
    """While this lasts, every ReLU is a softplus of sharpness ``beta``."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def __torch_function__(
        self,
        func: Function,
        types: Sequence[type],
        args: Arguments = (),
        kwargs: Keywords | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        entry = SMOOTHED.get(func)
        if entry is None:
            return func(*args, **kwargs)
        smoother, in_place = entry
        rest = dict(kwargs)
        u = args[0] if args else rest.pop("input")
        in_place |= bool(rest.pop("inplace", False))
        positional = list(args[1:])
        if positional and isinstance(positional[-1], bool):  # inplace, the last of them
            in_place |= positional.pop()
        if func is F.rrelu and positional and isinstance(positional[-1], bool):
            positional.pop()  # training
        # What is written over may not be what the smooth operation has kept for its way back.
        smooth = smoother(self.beta, u.clone() if in_place else u, *positional, **rest)
        if smooth is NotImplemented:
            return func(*args, **kwargs)
        return u.copy_(smooth) if in_place else smooth


class KinkWatch(TorchFunctionMode):
    """While this lasts, operations with kinks that anything with a gradient goes through are noted
    in ``names``."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, None] = {}

    def __torch_function__(
        self,
        func: Function,
        types: Sequence[type],
        args: Arguments = (),
        kwargs: Keywords | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in KINKS or func in _CLAMPS:
            moving = any(u.requires_grad for u in tensors((*args, *kwargs.values())))
            if moving and (func not in _CLAMPS or _is_relu(args, kwargs)):
                self.names[func.__name__.strip(_IN_PLACE)] = None
        return func(*args, **kwargs)


_CLAMPS = frozenset(spelled("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_"))


def _is_relu(args: Arguments, kwargs: Keywords) -> bool:
    rest = {name: value for name, value in kwargs.items() if name != "input"}
    positional = args[1:] if args else ()
    return _clamped_from_zero(1.0, torch.zeros(()), *positional, **rest) is not NotImplemented
