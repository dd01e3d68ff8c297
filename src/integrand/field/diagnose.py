"""Where numbers stop being finite: called only when they already have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NonFiniteGradient, TargetError
from ..target import output_tensor
from .modes import slopes
from .network import Network


def raise_nonfinite(network: Network, z: Tensor, index: Tensor, scalar: Callable[[Any], Tensor]) -> None:
    """Run these rows once more, watching every layer, and say which one first gave NaN or infinity."""
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


def degenerate(network: Network, start: Tensor, end: Tensor, index: Tensor) -> str | None:
    """Which normalisation layer a baseline starves, and what to use instead: rows ``start`` and ``end`` of one example.

    A normalisation divides by the spread of what it is fed. Where a baseline gives none, all of the layer's effect happens within
    a sliver of the path next to the baseline, and no evenly spread nodes see it.
    """
    fed: dict[str, tuple[str, list[float]]] = {}
    with ExitStack() as stack, torch.no_grad():
        for name, module in network.layers().items():
            if _normalises(module):
                entry = fed.setdefault(name, (type(module).__name__, []))
                stack.callback(module.register_forward_pre_hook(_spread_into(entry[1])).remove)
        for z in (start, end) if fed else ():
            network.run(z.clone(), index)
    for name, (kind, spreads) in fed.items():
        half = len(spreads) // 2
        if half and spreads[0] < _STARVED * spreads[half]:
            return (
                f"The baseline starves layer {name!r} ({kind}): it is fed values of spread {spreads[0]:.2g} there and of "
                f"{spreads[half]:.2g} at the input, so nearly all of its effect happens within {spreads[0] / spreads[half]:.0e} of the path "
                "next to the baseline. Start from inputs that look like data instead: a few examples "
                "(ig.baselines.Sample(data, 8)), their mean, or for pictures 'blurred'."
            )
    return None


_STARVED = 1e-2


def _normalises(module: nn.Module) -> bool:
    """Layers that divide by the spread of their own input: by name, because every model library has its own RMSNorm.

    Not batch norms, nor ``Normalize`` and the like: preprocessing divides by fixed numbers.
    """
    kind = type(module).__name__.lower()
    fixed = "batch" in kind or "normal" in kind
    return "norm" in kind and not fixed and not any(module.children())


def _spread_into(found: list[float]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            u = args[0].flatten(1) if "group" in type(module).__name__.lower() else args[0]
            root = u.square().mean(-1).sqrt() if "rms" in type(module).__name__.lower() else u.std(-1, correction=0)
            found.append(float(root.median()))

    return hook


def _finite(outputs: Any) -> bool:
    """Whether the outputs are finite, as far as anybody but the target can read them."""
    try:
        return bool(torch.isfinite(output_tensor(outputs)).all())
    except TargetError:
        return True


def _watch(name: str, forward: list[str], backward: list[str]) -> Callable[..., None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
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
