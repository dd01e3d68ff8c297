"""Linear maps and convolutions, as functions of their input and their weight.

Which layer a call belongs to is told by the weight it uses: that holds for modules that run several
times, for functional calls (``F.linear(x, self.weight)``) and for weights that are kept elsewhere
and put in place for each call. Weights that are computed anew each time (weight norm,
parametrizations) belong to the layer that is running.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import grad as pulls

from ...core.torch_calls import Arguments, Function
from ...model.recording import Forward, forwards

_CONVOLUTIONS: dict[Function, int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}
_PULLS = {1: pulls.conv1d_input, 2: pulls.conv2d_input, 3: pulls.conv3d_input}
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


@dataclass(frozen=True, eq=False)
class LinearCall:
    """A linear map or a convolution: everything but its input.

    Attributes:
        axes: of space; None for a linear map.
        options: stride, padding, dilation, groups, as they were given.
    """

    function: Function
    axes: int | None
    weight: Tensor
    bias: Tensor | None
    options: Mapping[str, Any]

    @staticmethod
    def of(
        func: Function, args: Arguments, kwargs: Mapping[str, Any]
    ) -> tuple[LinearCall, Tensor] | None:
        """The call and its input; None for other operations."""
        if func is not F.linear and func not in _CONVOLUTIONS:
            return None
        named = dict(zip(_ARGUMENTS, args, strict=False)) | dict(kwargs)
        h, weight, bias = named.pop("input"), named.pop("weight"), named.pop("bias", None)
        axes = _CONVOLUTIONS.get(func)
        if weight.ndim != (2 if axes is None else axes + 2):
            return None
        return LinearCall(func, axes, weight, bias, named), h

    def __call__(
        self, h: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Of another input, and with another weight and bias if there is one."""
        if weight is None:
            weight, bias = self.weight, self.bias
        output: Tensor = self.function(h, weight, bias, **self.options)
        return output

    def channel(self, output: Tensor) -> int:
        """Which axis of an output numbers the units."""
        return output.ndim - 1 - (self.axes or 0)

    def batched(self, h: Tensor) -> Tensor:
        """The input with one axis of rows in front, none of which sees another."""
        if self.axes is None:
            return h.reshape(-1, h.shape[-1])
        return h if h.ndim == self.axes + 2 else h[None]

    def pulled(self, gradient: Tensor, factor: Tensor, shape: torch.Size) -> Tensor:
        """What comes back to an input of ``shape``, through ``factor`` in place of the weight."""
        factor = factor.to(gradient.dtype)
        if self.axes is None:
            return gradient @ factor
        options = dict(self.options)
        if isinstance(options.get("padding"), str):
            # How much that is, and on which side the odd one goes, is torch's to say. The map is
            # linear: its input does not matter.
            with torch.enable_grad():
                h = gradient.new_zeros(shape).requires_grad_()
                (slope,) = torch.autograd.grad(self(h, factor), h, gradient)
            return slope
        pull: Any = _PULLS[self.axes]
        if len(shape) == self.axes + 2:
            pulled: Tensor = pull(shape, factor, gradient, **options)
        else:
            pulled = pull(torch.Size([1, *shape]), factor, gradient[None], **options)[0]
        return pulled


class _FactorContext(FunctionCtx):
    call: LinearCall
    factor: Tensor
    shape: torch.Size


class _WithFactor(torch.autograd.Function):
    """A call with its own value, and with ``factor`` in place of its weight on the way back."""

    @staticmethod
    def forward(ctx: _FactorContext, h: Tensor, call: LinearCall, factor: Tensor) -> Tensor:
        ctx.call, ctx.factor, ctx.shape = call, factor, h.shape
        return call(h)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _FactorContext, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.call.pulled(gradient, ctx.factor, ctx.shape), None, None


def with_factor(h: Tensor, call: LinearCall, factor: Tensor) -> Tensor:
    """``call(h)``; backward, ``factor`` is in the weight's place."""
    output: Tensor = _WithFactor.apply(h, call, factor)  # type: ignore[no-untyped-call]
    return output


class Names:
    """Which layer a weight belongs to, by the names of a model's parameters."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._found: dict[int, tuple[nn.Module, str, str]] = {}
        self._computed = {
            name or "weight": layer
            for name, layer in module.named_modules()
            if isinstance(layer, _LAYERS) and "weight" not in layer._parameters
        }
        self._running: list[str] = []

    def __call__(self, weight: Tensor) -> str | None:
        """The layer's name, or that of a parameter that is no layer's ``weight``; None for weights
        that are the model's in no way."""
        at = self._found.get(id(weight))
        if at is None or at[0]._parameters.get(at[1]) is not weight:
            # Models that are kept elsewhere put another parameter in its place with every call.
            self._found = {}
            for name, layer in self.module.named_modules():
                for key, parameter in layer._parameters.items():
                    if parameter is not None:
                        self._found.setdefault(id(parameter), (layer, key, _joined(name, key)))
            at = self._found.get(id(weight))
        if at is not None:
            return at[2]
        return self._running[-1] if self._running else None

    def weights(self) -> dict[str, Tensor]:
        """Every weight by the name of its layer, those that are computed as they are now."""
        result: dict[str, Tensor] = {}
        for name, layer in self.module.named_modules():
            for key, parameter in layer._parameters.items():
                if parameter is not None:
                    result[_joined(name, key)] = parameter
        return result | {name: layer.weight for name, layer in self._computed.items()}

    def listening(self) -> AbstractContextManager[None]:
        """While this lasts it is known which of the layers runs whose weight is computed."""
        return forwards(
            [(layer, self._noting(name, layer)) for name, layer in self._computed.items()]
        )

    def _noting(self, name: str, layer: nn.Module) -> Forward:
        original = layer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            self._running.append(name)
            try:
                return original(*args, **kwargs)
            finally:
                self._running.pop()

        return forward


def _joined(name: str, key: str) -> str:
    """ "features.0" for the weight of a layer, "block.scale" for any other parameter."""
    return name if name and key == "weight" else f"{name}.{key}" if name else key
