"""Fitting patterns: sums over all inputs of each layer, in one pass over the data.

For a unit with weights w, inputs h and output y = w·h + c, over the samples that count (all of
them, or those with y > 0: E₊),

    a = (E₊[h y] − E₊[h] E[y]) / (w · (E₊[h y] − E₊[h] E[y]))          so that w · a = 1, whatever c is

A convolution's samples are its windows, at every place of every input. Σ h y and Σ h over windows
are what a backward pass gives to the weights for y and for 1 coming back, so that stride, padding,
dilation and groups need no thought. Sums are in float64, and take no more memory for more data; how
data is cut into batches does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...core.shapes import describe
from ...core.torch_calls import Arguments, Function, Keywords
from ...errors import InputError, ModelError
from .guided_relu import RELU
from .linear_calls import LinearCall, Names

_CHUNK_ELEMENTS = 1 << 22  # outputs of a layer are taken in chunks of about this many numbers
_NOTHING = 1e-10  # of its terms: a denominator below this is rounding

Batch = Tensor | tuple[Any, ...] | dict[str, Any]
"""Inputs for the model: the only one, several in order, or by name."""

PatternData = Tensor | torch.utils.data.Dataset[Any] | Iterable[Any]
"""What patterns are fitted on: inputs (N, \\*s), a dataset, or anything that yields batches."""

T = TypeVar("T")

ESTIMATORS = ("positive", "two-component", "linear")


class Sums:
    """Of one layer: Σ h y and Σ h per weight, over samples that count; how many those are, and Σ y
    over all."""

    def __init__(self, weight: Tensor, *, positive: bool) -> None:
        self.weight = in_float64(weight)
        self.dtype = weight.dtype
        self.positive = positive
        self.rectified = False
        units = len(self.weight)
        self.products, self.inputs = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.counted, self.y, self.active = (self.weight.new_zeros(units) for _ in range(3))
        self.samples = 0

    def add(self, h: Tensor, call: LinearCall, outputs: int) -> None:
        """More inputs ``h`` of a call that made so many numbers of them."""
        rows = call.batched(h)
        outputs_per_row = max(1, outputs // max(1, len(rows)))
        bias = None if call.bias is None else in_float64(call.bias)
        for chunk in torch.split(rows, max(1, _CHUNK_ELEMENTS // outputs_per_row)):
            if len(chunk):
                self._add(in_float64(chunk), call, bias)

    def _add(self, h: Tensor, call: LinearCall, bias: Tensor | None) -> None:
        with torch.enable_grad():
            weight = self.weight.detach().requires_grad_()
            output = call(h, weight, bias)
        y = output.detach()
        counts = (y > 0).to(y) if self.positive else torch.ones_like(y)
        self.products += torch.autograd.grad(output, weight, counts * y, retain_graph=True)[0]
        self.inputs += torch.autograd.grad(output, weight, counts)[0]
        units = call.channel(y)
        self.counted += _by_unit(counts, units)
        self.y += _by_unit(y, units)
        self.active += _by_unit(y.clamp_min(0), units)
        self.samples += y.numel() // len(self.y)

    def pattern(self, *, activated: bool) -> Tensor:
        """a, like the weight; zero for units that never count and for those whose output says
        nothing of their inputs."""
        mean = (self.active if activated and self.rectified else self.y) / max(1, self.samples)
        over = self.counted.clamp_min(1).reshape(-1, *(1,) * (self.weight.ndim - 1))
        products = self.products / over
        expected = self.inputs / over * mean.reshape(over.shape)
        top = products - expected
        below = (self.weight * top).flatten(1).sum(1)
        scale = (self.weight * products).abs().flatten(1).sum(1) + (
            self.weight * expected
        ).abs().flatten(1).sum(1)
        alive = (self.counted > 0) & (below.abs() > _NOTHING * scale)
        safe = torch.where(alive, below, 1).reshape(over.shape)
        return torch.where(alive.reshape(over.shape), top / safe, 0)


def _by_unit(t: Tensor, axis: int) -> Tensor:
    return t.movedim(axis, 0).flatten(1).sum(1)


class Fitting(TorchFunctionMode):
    """While this lasts, every linear map and convolution of the model adds to its layer's sums."""

    def __init__(self, names: Names, *, positive: bool) -> None:
        super().__init__()
        self.names = names
        self.positive = positive
        self.sums: dict[str, Sums] = {}
        self._outputs: dict[int, tuple[ReferenceType[Tensor], str]] = {}

    def __torch_function__(
        self,
        func: Function,
        types: Sequence[type],
        args: Arguments = (),
        kwargs: Keywords | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        match = LinearCall.of(func, args, kwargs)
        name = self.names(match[0].weight) if match else None
        output = func(*args, **kwargs)
        if match and name is not None:
            call, h = match
            sums = self.sums.get(name)
            if sums is None:
                sums = self.sums[name] = Sums(call.weight, positive=self.positive)
            sums.add(h, call, output.numel())
            self._outputs[id(output)] = (ref(output), name)
        elif func in RELU and (args or "input" in kwargs):
            self._note(args[0] if args else kwargs["input"])
        return output

    def _note(self, u: Tensor) -> None:
        """A ReLU: if its input is what a layer has just put out, that layer's units are
        rectified."""
        reference, name = self._outputs.get(id(u), (None, ""))
        if reference is not None and reference() is u:
            self.sums[name].rectified = True

    def forget(self) -> None:
        """What was made in a pass that is over."""
        self._outputs.clear()


def fitted(
    module: nn.Module,
    run: Callable[[Batch], Any],
    data: PatternData,
    estimator: str,
    batch_size: int,
) -> Mapping[str, tuple[Tensor, Sums]]:
    """The pattern of every layer that ran, by name, and the sums it is from. Called with the model
    ready and autograd off."""
    names = Names(module)
    mode = Fitting(names, positive=estimator != "linear")
    count = 0
    for batch in batches(data, batch_size, _device(module)):
        with names.listening(), mode:
            run(batch)
        mode.forget()
        count += 1
    if not count:
        raise InputError("The data to fit patterns on is empty.")
    if not mode.sums:
        raise ModelError(
            "No layer with a weight of its own ran: patterns are fitted for linear layers and convolutions (nn.Linear, nn.Conv1d, "
            "nn.Conv2d, nn.Conv3d, and functional calls with the model's parameters)."
        )
    result = {}
    for name, sums in mode.sums.items():
        pattern = sums.pattern(activated=estimator == "positive")
        if not bool(torch.isfinite(pattern).all() and torch.isfinite(sums.y).all()):
            raise InputError(
                f"Layer {name!r} has met NaN or infinity in the data: no pattern can be fitted to that."
            )
        result[name] = (pattern, sums)
    return result


def batches(data: PatternData, size: int, device: torch.device | None) -> Iterator[Batch]:
    """Inputs for the model, a batch at a time: of a tensor, a dataset, or anything that yields
    batches."""
    if isinstance(data, Tensor):
        if data.ndim < 2:
            raise InputError(
                f"Data to fit patterns on is (N, *s), not of shape {describe(data.shape)}."
            )
        data = torch.split(data, size) if len(data) else ()
    elif (
        hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and not isinstance(data, list | tuple | dict | str)
    ):
        # A generator of its own: a loader without one draws from torch's global one.
        dataset = cast(torch.utils.data.Dataset[Any], data)
        data = torch.utils.data.DataLoader(dataset, size, generator=torch.Generator())
    if isinstance(data, str | dict) or not hasattr(data, "__iter__"):
        raise InputError(
            f"Patterns are fitted on a tensor, a dataset or a DataLoader (anything that yields batches), not on {type(data).__name__}."
        )
    for batch in data:
        inputs = batch[0] if isinstance(batch, list | tuple) else batch  # pairs lose their label
        if isinstance(inputs, Tensor):
            yield _moved(inputs, device)
        elif isinstance(inputs, Mapping):
            yield {key: _moved(value, device) for key, value in inputs.items()}
        elif isinstance(inputs, list | tuple):
            yield tuple(_moved(value, device) for value in inputs)
        else:
            raise InputError(
                f"A batch to fit patterns on is a tensor, (inputs, …) or a dict of inputs; this one holds {type(inputs).__name__}."
            )


def _moved(value: T, device: torch.device | None) -> T | Tensor:
    return value.to(device) if isinstance(value, Tensor) and device is not None else value


def in_float64(t: Tensor) -> Tensor:
    """A copy in float64, on the CPU where the device has none."""
    device = torch.device("cpu") if t.device.type == "mps" else t.device
    return t.detach().to(device).to(torch.float64, copy=True)


def _device(module: nn.Module) -> torch.device | None:
    """Where the model is, None where its weights are elsewhere until they are needed: then its
    hooks move inputs."""
    places = (t.device for t in (*module.parameters(), *module.buffers()))
    return next((place for place in places if place.type != "meta"), None)
