"""A model whose layers lose what they learnt, one after the other, and get it back exactly.

    with unlearning(field, x, order="top_down", seed=0) as stages:
        for names, fresh in stages:            # the layers made random now
            method(fresh, x)

The user's own module is made random in place, so that functions, partials and hooks around it see
it too; parameters, buffers, and the identity of both are put back when the block ends, also after
an error. (They were written to: a backward pass that was begun before cannot be finished after.)
This takes the memory of one copy of them. A layer is a module with parameters of its own. It is
drawn by its ``reset_parameters``, as it was before training; parameters that this leaves as they
were, or that have none, are drawn from the normal distribution of their own mean and deviation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...core.options import check_choice
from ...core.random import generator
from ...errors import InputError, ModelError
from ...fields import Field, innermost
from ...model.autograd import gradients
from ...model.network import Network

ORDERS = ("top_down", "bottom_up", "independent")


@contextmanager
def unlearning(
    field: Field, x: Tensor, *, order: str = "top_down", stages: int | None = None, seed: int = 0
) -> Iterator[Iterator[tuple[tuple[str, ...], Field]]]:
    """An iterator that makes further layers random with every step: their names, and the field as
    it is now.

    Args:
        order: "top_down" from the output, "bottom_up" from the input, each on top of those before;
            "independent" one at a time.
        stages: as many steps, of about as many layers each; one for every layer unless given.
    """
    check_choice("order=", order, ORDERS)
    if stages is not None and stages < 1:
        raise InputError(f"There is one stage at least, not {stages}.")
    network, module = network_and_module(field)
    layers = layers_in_order(field, x)
    if order != "bottom_up":
        layers = layers[::-1]
    count = len(layers) if stages is None else min(stages, len(layers))
    cuts = [round(i * len(layers) / count) for i in range(count + 1)]
    numbers = {name: number for number, (name, _) in enumerate(module.named_modules())}
    saved = Saved(module)

    def steps() -> Iterator[tuple[tuple[str, ...], Field]]:
        for first, last in pairwise(cuts):
            if order == "independent":
                saved.restore()
            for name, layer in layers[first:last]:
                forget(layer, generator(seed, numbers[name]))
            yield tuple(name for name, _ in layers[first:last]), field.afresh()

    try:
        yield steps()
    finally:
        saved.restore()
        network.refresh()


def network_and_module(field: Field) -> tuple[Network, nn.Module]:
    """The field's network, and the module to make random. Raises ``ModelError`` for fields without
    one."""
    network = field.network
    if network is None or network.module is None:
        kind = type(innermost(field) if network is None else network.model).__name__
        raise ModelError(
            f"Randomisation needs the parameters of the model, and a {kind} does not show them: give the nn.Module itself "
            "(with target= a callable of its outputs if need be), one of its methods, or a functools.partial of these."
        )
    if not any(True for _ in network.module.parameters()):
        raise ModelError(f"{type(network.module).__name__} has no parameters to make random.")
    return network, network.module


def layers_in_order(field: Field, x: Tensor) -> list[tuple[str, nn.Module]]:
    """Modules with parameters of their own, in the order in which they run; those that are not run
    as modules come first."""
    with_parameters = {
        name: module
        for name, module in network_and_module(field)[0].layers().items()
        if any(p is not None for p in module._parameters.values())
    }
    ran: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(field.ready())
        stack.enter_context(gradients(False))
        for name, module in with_parameters.items():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # which takes no hooks: its layers are in the order in which they were registered
            note = lambda *_, name=name: ran.append(name)  # noqa: E731
            stack.callback(module.register_forward_pre_hook(note).remove)
        field.plainly(x[:1].clone(), torch.zeros(1, dtype=torch.long, device=x.device))
    # A layer that runs several times is where it runs last: nearest to the output.
    place = {name: number for number, name in enumerate(ran)}
    return sorted(with_parameters.items(), key=lambda entry: place.get(entry[0], -1))


def forget(layer: nn.Module, random: torch.Generator) -> None:
    """Draw the parameters of one layer, not of those inside it, anew. The global generators are
    left as they were."""
    parameters = {name: p for name, p in layer._parameters.items() if p is not None}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    reset: Any = getattr(layer, "reset_parameters", None) or getattr(
        layer, "_reset_parameters", None
    )
    devices = [p.device for p in parameters.values() if p.device.type == "cuda"]
    with gradients(False):
        if callable(reset) and not parametrize.is_parametrized(layer):
            seed = int(torch.randint(2**31, (), generator=random))
            inside = Saved(
                layer, own=False
            )  # a layer's own way of starting anew may start those inside it too
            with torch.random.fork_rng(devices):
                torch.manual_seed(seed)
                reset()
            inside.restore()
        for name, parameter in parameters.items():
            if not torch.equal(parameter, before[name]) or not parameter.is_floating_point():
                continue
            noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64).to(
                parameter
            )
            spread = (
                parameter.std(correction=0) if parameter.numel() > 1 else parameter.abs().squeeze()
            )
            parameter.copy_(parameter.mean() + spread * noise)


class Saved:
    """Every parameter and buffer of a module, to be put back as they were: the same tensors, with
    the same numbers."""

    def __init__(self, module: nn.Module, *, own: bool = True) -> None:
        self._tensors = [
            # Scripted modules hand out another object each time, and let nobody exchange what is
            # behind it.
            (
                None if isinstance(part, torch.jit.ScriptModule) else table,
                name,
                tensor,
                tensor.detach().clone(),
            )
            for part in module.modules()
            if own or part is not module
            for table in (part._parameters, part._buffers)
            for name, tensor in table.items()
            if tensor is not None
        ]

    def restore(self) -> None:
        """Put everything back."""
        with gradients(False):
            for table, name, tensor, numbers in self._tensors:
                tensor.copy_(numbers)
                if table is not None and table.get(name) is not tensor:
                    table[name] = tensor  # type: ignore[assignment]
