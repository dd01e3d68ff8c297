"""Locate the layer where numbers stop being finite, or that a baseline starves; run only on
failure."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import IntegrandError, NonFiniteGradient, TargetError
from ..targets import output_tensor
from .autograd import slopes
from .batching import is_out_of_memory
from .borrowed import INSTANCE_NORMS, NORMS
from .network import Network


def raise_nonfinite(
    network: Network, z: Tensor, index: Tensor, scalar: Callable[[Any], Tensor]
) -> None:
    """Run these rows once more, watching every layer, and say which one first gave NaN or
    infinity."""
    if not bool(torch.isfinite(z).all()):
        raise NonFiniteGradient(
            "The path left the finite numbers before it reached the model: the baseline or a step of the path is NaN or infinite."
        )
    forward: list[str] = []
    backward: list[str] = []
    with ExitStack() as stack, torch.enable_grad():
        for name, module in network.layers().items():
            if name and not any(module.children()):
                stack.callback(module.register_forward_hook(_watch(name, forward, backward)).remove)
        leaf = z.detach().clone().requires_grad_()
        outputs = network.plainly(leaf, index)
        value = scalar(outputs)
        if value.requires_grad:
            slopes([value], [leaf], everywhere=network.reentrant)
    if forward:
        place = f"layer {forward[0]!r} is the first whose output is not finite"
    elif not _finite(outputs):
        place = "every layer's output is finite, so it happens in the model's own code behind one of them"
    elif not bool(torch.isfinite(value).all()):
        place = "every layer's output is finite, so the target itself made it so"
    elif backward:
        place = f"on the way back, the gradient first stops being finite right behind layer {backward[0]!r}"
    else:
        place = "it happens in the model's own code between the input and its first layer"
    raise NonFiniteGradient(
        f"The model's value or gradient is NaN or infinite on the path: {place}. Usual causes: a square root or logarithm at "
        "zero, a division by a norm (an all-zero baseline in front of a normalisation), half precision. "
        "Try another baseline, or float32."
    )


def mixing(network: Network) -> str:
    """Which layer is likely to mix the rows of a call and what to do about it, as a sentence;
    nothing where none is known to."""
    for name, module in network.layers().items():
        where = (
            f"layer {name!r} ({type(module).__name__})" if name else f"this {type(module).__name__}"
        )
        if (
            isinstance(module, NORMS)
            and module.running_mean is None
            and not isinstance(module, INSTANCE_NORMS)
        ):
            return f"Most likely {where} takes its statistics from the call: let it keep running ones (track_running_stats=True), and call .eval()."
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention) and not module.batch_first:
            return (
                f"Most likely it is {where}, whose first axis is time and not the batch (batch_first=False): put the batch first, "
                "lambda z: model(z.transpose(0, 1)), and let the inputs begin with it."
            )
    return ""


def degenerate(
    network: Network, start: Tensor, end: Tensor, index: Tensor, *, together: bool = True
) -> str | None:
    """Which normalisation layer a baseline starves, and what to use instead: rows ``start`` and
    ``end`` of one example.

    A normalisation divides by the spread of what it is fed. Where a baseline gives none, all of the
    layer's effect happens within a sliver of the path next to the baseline, and no evenly spread
    nodes see it. The sliver is as wide as the layer's slope at the input is in units of its slope
    at the baseline: what it takes for spread, over which axes, and its epsilon are all in there.

    ``together``: both rows may share a call of the model.
    """
    layers = {name: module for name, module in network.layers().items() if _may_normalise(module)}
    if not layers:
        return None
    both = _slopes_together(network, layers, torch.cat([start, end]), index) if together else None
    if both is None:
        both = [_slopes(network, layers, z, index) for z in (start, end)]
    starts, ends = both
    for name in layers:
        width = _width(starts[name], ends[name]) if name in starts and name in ends else 1.0
        if width < _STARVED:
            times = f"{1 / width:,.0f} times" if width > _NOTHING else "incomparably"
            where = f"within {width:.0e} of the path" if width > _NOTHING else "right"
            return (
                f"The baseline starves layer {name!r} ({type(layers[name]).__name__}): what it is fed there has next to no spread, and a "
                f"small change of it has {times} the effect that it has at the input, so nearly all of the layer's effect happens {where} "
                "next to the baseline. Start from inputs that look like data instead: a few examples "
                "(ig.baselines.Sample(data, 8)), their mean, or for pictures 'blurred'."
            )
    return None


Slopes = dict[str, Tensor]
"""How strongly each layer's output hangs on its input, when it runs first."""


def _slopes(network: Network, layers: dict[str, nn.Module], z: Tensor, index: Tensor) -> Slopes:
    """The slopes of layers at a row."""
    slopes: Slopes = {}

    def note(name: str, *passed: Any) -> None:
        slope = None if name in slopes else _slope(*passed)
        if slope is not None:
            slopes[name] = slope

    _watch_inputs(network, layers, note, z, index)
    return slopes


def _slopes_together(
    network: Network, layers: dict[str, nn.Module], both: Tensor, index: Tensor
) -> list[Slopes] | None:
    """The slopes of layers at two rows, from one call; None where rows cannot be told apart in a
    layer's input: it has none, or more than one, axis as long as there are rows."""
    slopes: list[Slopes] = [{} for _ in both]
    mixed: list[str] = []

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name in slopes[0] or mixed or not (args and _differentiable(args[0])):
            return
        shape = args[0].shape
        tensors = [entry for entry in (*args[1:], *kwargs.values()) if isinstance(entry, Tensor)]
        rows = [axis for axis, size in enumerate(shape) if size == len(both)]
        if tensors or rows != [0]:
            mixed.append(name)
            return
        for row, row_slopes in enumerate(slopes):
            slope = _slope(module, (args[0][row : row + 1], *args[1:]), kwargs)
            if slope is not None:
                row_slopes[name] = slope

    try:
        _watch_inputs(network, layers, note, both, index.expand(len(both)))
    except (RuntimeError, ValueError, IntegrandError) as error:
        # A model that takes a row at a time.
        if is_out_of_memory(error):
            raise
        return None
    return None if mixed else slopes


def _watch_inputs(
    network: Network,
    layers: dict[str, nn.Module],
    note: Callable[..., None],
    z: Tensor,
    index: Tensor,
) -> None:
    """Run the model, and note what goes into layers."""
    with ExitStack() as stack, torch.no_grad():
        for name, module in layers.items():
            hook = partial(note, name)
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        network.plainly(z.clone(), index)


_STARVED = 2e-2  # a sliver narrower than this
_NOTHING = 1e-9  # … and one whose width means nothing
_SLOPES = 1 << 16  # of a layer, that are looked at


def _may_normalise(module: nn.Module) -> bool:
    """Layers that may divide by the spread of their own input: by name, because every model library
    has its own RMSNorm.

    Those that turn out to divide by fixed numbers (preprocessing) have the same slope everywhere.
    Batch norms are not tried out, because that would change them where they are left in training
    mode.
    """
    kind = type(module).__name__.lower()
    return "norm" in kind and "batch" not in kind and not any(module.children())


def _differentiable(entry: object) -> bool:
    return isinstance(entry, Tensor) and entry.is_floating_point()


def _slope(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """How strongly a layer's output hangs on each element of its input, in one fixed direction of
    the output."""
    if not (args and _differentiable(args[0])):
        return None
    with torch.enable_grad():
        leaf = args[0].detach().clone().requires_grad_()
        # Without hooks, its own among them; of a copy, because it may work in place.
        output = module.forward(leaf.clone(), *args[1:], **kwargs)
        if not (isinstance(output, Tensor) and output.requires_grad):
            return None
        direction = torch.sin(
            torch.arange(1.0, 1 + output.numel(), dtype=torch.float32, device=output.device)
        ).reshape(output.shape)
        (slope,) = torch.autograd.grad(output, leaf, direction.to(output), allow_unused=True)
        return None if slope is None else _some(slope.flatten()).abs().float()


def _some(numbers: Tensor) -> Tensor:
    """Evenly spread ones of many numbers (n,): those of a hundred layers are kept at a time, and
    what is typical of them shows in some."""
    if len(numbers) <= _SLOPES:
        return numbers
    # Odd, or it would meet the same channels each time.
    step = math.ceil(len(numbers) / _SLOPES) | 1
    return numbers[::step].clone()


def _width(start: Tensor, end: Tensor) -> float:
    """How wide the sliver is: the typical slope at the end in units of that at the start."""
    if start.shape != end.shape:
        return 1.0
    # No slope at all at the start, 0/0, is that of a division by nothing.
    ratio = end / start.nan_to_num(nan=float("inf"), posinf=float("inf"))
    return float(ratio.nanmedian().nan_to_num(1.0))


def _finite(outputs: object) -> bool:
    """Whether the outputs are finite, as far as anybody but the target can read them."""
    try:
        return bool(torch.isfinite(output_tensor(outputs)).all())
    except TargetError:
        return True


def _watch(name: str, forward: list[str], backward: list[str]) -> Callable[..., None]:
    def hook(_: nn.Module, __: object, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        if not bool(torch.isfinite(output).all()):
            forward.append(name)
        if output.requires_grad:

            def back(gradient: Tensor) -> None:
                if not bool(torch.isfinite(gradient).all()):
                    backward.append(name)

            output.register_hook(back)  # type: ignore[no-untyped-call]

    return hook
