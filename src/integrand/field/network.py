"""A user's model, borrowed: run on rows, looked into at layers, and given back exactly as it was.

While a network is ``ready`` its modules are in eval mode and its parameters ask for no gradients, so that nothing is computed
for them; afterwards, also after an error or Ctrl-C, modes, requires_grad flags and hooks are what they were.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, ModelError, ShapeError, TrainingModeWarning, UnknownName, warn
from ..shapes import describe
from .failure import tells_of_rows
from .layout import Layout
from .modes import gradients
from .optimise import Double, Optimiser

INSTANCE_NORMS = (nn.modules.instancenorm._InstanceNorm,)
NORMS = (nn.modules.batchnorm._BatchNorm, *INSTANCE_NORMS)
_DROPS = (nn.modules.dropout._DropoutNd,)


@dataclass(frozen=True, eq=False)
class Site:
    """A place inside a model: what goes into a layer, or what comes out of it."""

    module: nn.Module
    side: str = "output"
    name: str = ""

    def __str__(self) -> str:
        return f"the {self.side} of layer {self.name!r}"


class Network:
    """A model with the arrangement of its inputs and the extra arguments that are not attributed.

    With ``optimize`` a faster double of the model is run in its place; layers are named and given back as the model's own.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        layout: Layout | None = None,
        extra: Sequence[Any] | Mapping[str, Any] = (),
        *,
        optimize: bool = False,
    ) -> None:
        if not callable(model):
            raise InputError(
                f"The model is a {type(model).__name__}, which cannot be called. Give an nn.Module or a function."
            )
        self.model = model
        self.module = _module(model)
        self.layout = layout
        self.positional, self.named = _extra(extra)
        self.optimiser = Optimiser.of(self.module) if optimize else None
        self.reentrant = False  # until a checkpoint is met that cannot go back to the inputs alone
        self.differentiates = (
            False  # until the model is seen to differentiate itself, and to leave recording to its caller
        )
        self.batch: int | None = None  # how many examples there are, where that is known
        self._ready = 0

    @property
    def pooled(self) -> bool:
        """Whether no extra argument is per example, so that any input can be run."""
        return not any(isinstance(v, Tensor) and v.ndim for v in (*self.positional, *self.named.values()))

    # --- borrowing ------------------------------------------------------------------------------------------------

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Eval mode and no parameter gradients while this lasts; re-entrant."""
        if self._ready or self.module is None:
            self._ready += 1
            try:
                yield
            finally:
                self._ready -= 1
            return
        model = self.module
        training = [module for module in model.modules() if module.training]
        wanted = [
            (module, name, parameter)
            for module in model.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and parameter.requires_grad
        ]
        _warn_of_training(training)
        with ExitStack() as stack:
            stack.callback(_restore, training, wanted)
            for module in training:
                module.training = False
            for _, _, parameter in wanted:
                parameter.requires_grad_(False)
            if any(isinstance(m, nn.RNNBase) for m in model.modules()):
                # cuDNN refuses the backward pass of an RNN in eval mode; PyTorch's own kernels do not.
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            if self.optimiser:
                self.optimiser.refresh()
            self._ready += 1
            stack.callback(setattr, self, "_ready", 0)
            yield

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, z: Tensor, index: Tensor | None, sites: Sequence[Site] = ()) -> tuple[Any, list[Tensor]]:
        """The model's outputs for rows ``z`` (N, \\*s), and what was seen at ``sites``."""
        seen: list[Any] = [None] * len(sites)
        double = self._double(z, index)
        with ExitStack() as stack:
            for place, site in enumerate(sites):
                module = double.twin(site.module, site.side) if double else site.module
                stack.callback(_listen(module, site.side, seen, place).remove)
            outputs = self._call(z, index, double)
        for site, found in zip(sites, seen, strict=True):
            if not isinstance(found, Tensor) or len(found) != len(z):
                got = describe(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ModelError(
                    f"A representation needs a tensor with one entry per row ({len(z)}), but {site} gave {got}. "
                    "Choose another layer, or give representation= a function of the input."
                )
        return outputs, seen

    def plainly(self, z: Tensor, index: Tensor | None) -> Any:
        """The outputs of the model itself, also where a double is run in its place."""
        return self._call(z, index)

    def _double(self, z: Tensor, index: Tensor | None) -> Double | None:
        """What is run in place of the model, made when there is a row to try it with."""
        if self.optimiser is None:
            return None
        # Two rows: what holds for one need not hold for a batch. The last: the first may be a baseline, all zeros.
        rows = z.detach()[-1:].repeat(2, *(1,) * (z.ndim - 1))
        examples = None if index is None else index[-1:].repeat(2)

        def trial(double: Double) -> Any:
            with gradients(False):
                return self._call(rows.clone(), examples, double)

        return self.optimiser.double(trial)

    @tells_of_rows
    def _call(self, z: Tensor, index: Tensor | None, double: Double | None = None) -> Any:
        positional = [_gather(value, index) for value in self.positional]
        named = {key: _gather(value, index) for key, value in self.named.items()}
        inputs = self.layout.unpack(z, model=True) if self.layout else z
        model = self.model
        if double is not None:
            model, inputs = double.in_place_of(model), double.arranged(inputs)
        if isinstance(inputs, dict):
            return model(*positional, **inputs, **named)
        if isinstance(inputs, tuple):
            return model(*inputs, *positional, **named)
        return model(inputs, *positional, **named)

    # --- layers ---------------------------------------------------------------------------------------------------

    def layers(self) -> dict[str, nn.Module]:
        """Every named layer."""
        return {} if self.module is None else dict(self.module.named_modules())

    def site(self, layer: str | nn.Module) -> Site:
        """The output of a layer, given by name or as the module itself."""
        layers = self.layers()
        if isinstance(layer, str):
            if layer not in layers or not layer:
                raise UnknownName("layer", layer, layers)
            return Site(layers[layer], "output", layer)
        for name, module in layers.items():
            if module is layer:
                return Site(module, "output", name)
        raise ModelError(
            f"The given {type(layer).__name__} is not a layer of this model. "
            f"Name one of its layers, such as {list(layers)[-1]!r}."
        )

    def last_linear(self, z: Tensor, index: Tensor) -> Site:
        """The input of the linear layer that runs last: the representation the classifier decides on."""
        order: list[tuple[str, nn.Module]] = []
        with ExitStack() as stack:
            for name, module in self.layers().items():
                if isinstance(module, nn.Linear):
                    note = lambda *_, name=name, module=module: order.append((name, module))  # noqa: E731
                    stack.callback(module.register_forward_hook(note).remove)
            with torch.no_grad():
                self.plainly(z, index)
        if not order:
            raise ModelError(
                "The model has no linear layer whose input could serve as its representation: give representation= the name "
                "of a layer, or a function of the input."
            )
        name, module = order[-1]
        return Site(module, "input", name)


class Itself(Network):
    """A network that is never run as a double of itself."""

    def __init__(self, whole: Network) -> None:
        vars(self).update(vars(whole))
        self.optimiser = None
        self.whole = whole

    @contextmanager
    def ready(self) -> Iterator[None]:
        with self.whole.ready():
            yield


def _module(model: Any) -> nn.Module | None:
    """The module behind a model: itself, or what a bound method or a partial of one belongs to."""
    while isinstance(model, functools.partial):
        model = model.func
    owner = getattr(model, "__self__", model)
    return owner if isinstance(owner, nn.Module) else None


def calm(representation: Any) -> Any:
    """A function of the input that is a module of its own, called in eval mode; any other function as it is."""
    if _module(representation) is None:
        return representation
    network = Network(representation)

    def seen(z: Tensor) -> Any:
        with network.ready():
            return representation(z)

    return seen


def _listen(module: nn.Module, side: str, seen: list[Any], place: int) -> Any:
    if side == "input":

        def before(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen[place] = _kept(args[0])

        return module.register_forward_pre_hook(before)

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen[place] = _kept(output[0] if isinstance(output, tuple) else output)

    return module.register_forward_hook(after)


def _kept(found: Any) -> Any:
    """A copy: a layer further on may work in place."""
    return found.clone() if isinstance(found, Tensor) else found


def _restore(training: list[nn.Module], wanted: list[tuple[nn.Module, str, nn.Parameter]]) -> None:
    for module in training:
        module.training = True
    for module, name, parameter in wanted:
        parameter.requires_grad_(True)
        # Models that are kept elsewhere put another parameter in its place with every call, made like the one that was there.
        now = dict(module._parameters.items()).get(name)  # scripted modules have no real dict
        if now is not None:
            now.requires_grad_(True)


def _warn_of_training(training: list[nn.Module]) -> None:
    fickle = sorted({type(m).__name__ for m in training if _depends_on_mode(m)})
    if fickle:
        warn(
            f"The model is in training mode and has {', '.join(fickle)}; it is explained in eval mode and given back in "
            "training mode. Call model.eval() first if that is what you mean.",
            TrainingModeWarning,
        )


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, NORMS):
        return bool(module.track_running_stats)
    rate = getattr(module, "dropout", 0.0)
    return isinstance(module, _DROPS) or (isinstance(rate, float) and rate > 0)


def _extra(
    extra: Sequence[Any] | Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(extra, Mapping):
        return (), dict(extra)
    if isinstance(extra, tuple | list):
        return tuple(extra), {}
    return (extra,), {}


def _gather(value: Any, index: Tensor | None) -> Any:
    """The rows' own entries of a per-example tensor; anything else as it is."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if index is None:
        raise ShapeError(
            f"The extra arguments hold {len(value)} entries, one per example, but the model was asked about inputs that are no "
            "examples, such as a pool of references. Choose the references yourself (ig.baselines.Given)."
        )
    return value.detach()[index.to(value.device)]  # nobody asks for its gradient


def check_extra(extra: Sequence[Any] | Mapping[str, Any], batch: int) -> None:
    """Tensors among extra arguments need one entry per example."""
    positional, named = _extra(extra)
    for name, value in [*enumerate(positional), *named.items()]:
        if isinstance(value, Tensor) and value.ndim and len(value) != batch:
            raise ShapeError(
                f"Extra argument {name!r} has shape {describe(value.shape)}, but there are {batch} examples. Extra tensors are "
                "per example; close over one that is shared: lambda x: model(x, shared)."
            )
