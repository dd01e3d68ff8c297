"""A user's model: run on rows, observed at layers, and given back exactly as it was.

While a network is ``ready`` its modules are in eval mode and its parameters ask for no gradients,
so that nothing is computed for them, and no other thread explains anything; afterwards, also after
an error or Ctrl-C, modes, requires_grad flags and hooks are what they were. The modules of a plain
function are those its code names (``discovery``), and those it is asked about.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..core.shapes import describe
from ..errors import InputError, ModelError, UnknownName
from .autograd import gradients
from .borrowed import borrowed
from .discovery import modules_behind
from .extra import Extra
from .failure import tells_of_rows
from .fusion import OptimisedCopy, Optimiser
from .layout import Layout
from .turns import turn, undone


@dataclass(frozen=True)
class Site:
    """A place inside a model: what goes into a layer, or what comes out of it.

    A representation (``ig2``) is one tensor: the first unless ``tensor`` is given, of the last run
    unless ``run`` is.

    Args:
        layer: its name, or the module itself.
        side: "output", or "input": positional arguments that are tensors (keyword arguments where
            there are none).
        name: what it is called; filled in for names.
        tensor: which of the tensors there, counted from 0, where there are several; all of them
            unless given.
        run: which run of the layer, counted from 0, where it runs several times in one forward
            pass; all of them unless given.

    Example:
        >>> import integrand as ig
        >>> ig.fields.Site("lstm", tensor=1)
        Site('lstm', tensor=1)
    """

    layer: str | nn.Module
    side: str = "output"
    name: str = ""
    tensor: int | None = None
    run: int | None = None

    def __post_init__(self) -> None:
        check_side(self.side)
        for name in ("tensor", "run"):
            number = getattr(self, name)
            if number is not None and (type(number) is not int or number < 0):
                raise InputError(f"{name}= of a Site is counted from 0, not {number!r}.")

    @property
    def module(self) -> nn.Module:
        """The layer itself.

        Raises:
            ModelError: for a name that no model has been asked about yet.
        """
        if isinstance(self.layer, str):
            raise ModelError(
                f"Layer {self.layer!r} is only a name: ask a model for it, with network.resolved(site)."
            )
        return self.layer

    def __str__(self) -> str:
        tensor = "" if self.tensor is None else f"tensor {self.tensor} of "
        run = "" if self.run is None else f" in run {self.run}"
        return f"{tensor}the {self.side} of layer {self.name!r}{run}"

    def __repr__(self) -> str:
        layer = self.name or (
            self.layer if isinstance(self.layer, str) else type(self.layer).__name__
        )
        side = "" if self.side == "output" else f", {self.side!r}"
        rest = "".join(
            f", {name}={value}"
            for name, value in (("tensor", self.tensor), ("run", self.run))
            if value is not None
        )
        return f"Site({layer!r}{side}{rest})"


SiteLike = str | nn.Module | Site
"""A layer as people give it: its name, the module itself, or a ``Site``."""

Representation = SiteLike | Callable[[Tensor], Any]
"""Where inputs are compared: the output of a layer, or a function of the input."""


def check_side(side: str) -> None:
    """A layer has two sides."""
    if side not in ("input", "output"):
        raise InputError(f"side is 'input' or 'output' of the layer, not {side!r}.")


def parameter_dtype(model: Callable[..., Any]) -> torch.dtype | None:
    """The type of a model's weights; None where it has none."""
    module = _module(model)
    roots = modules_behind(model) if module is None else [module]
    weights = (weight for root in roots for weight in root.parameters())
    return next((weight.dtype for weight in weights if weight.is_floating_point()), None)


def weights_digest(module: nn.Module) -> str:
    """A hash of a module's weights and buffers, with their names, types and shapes.

    Buffers that no checkpoint holds count too. Weights that are elsewhere until they are needed
    (``meta``) have no bytes here.
    """
    hashed = hashlib.blake2b(digest_size=16)
    state = module.state_dict()
    unsaved = {name: buffer for name, buffer in module.named_buffers() if name not in state}
    for name, tensor in {**state, **unsaved}.items():
        if not isinstance(tensor, Tensor):  # what modules keep beside them
            hashed.update(f"\0{name}\0{tensor!r}".encode())
            continue
        hashed.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if not tensor.is_meta:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            hashed.update(flat.view(torch.uint8).numpy().data)
    return hashed.hexdigest()


class Network:
    """A model with the arrangement of its inputs and the extra arguments that are not attributed.

    With ``optimize`` a faster copy of the model is run in its place; layers are named and given
    back as the model's own.
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
        self.roots = modules_behind(model) if self.module is None else [self.module]
        self.layout = layout
        self.extra = Extra.of(extra)
        self.optimiser = Optimiser.of(self.module) if optimize else None
        self.reentrant = False  # until a checkpoint is met that cannot go back to the inputs alone
        self.row_axes: dict[tuple[Site, ...], dict[int, tuple[int | None, ...]]] = {}  # of layers
        self._adopted: list[nn.Module] = []
        self.differentiates = False  # until the model is seen to differentiate itself, and to leave recording to its caller
        self.batch: int | None = None  # how many examples there are, where that is known
        self._ready = 0
        self._lent: ExitStack | None = None  # what is given back when it is no longer ready

    @property
    def pooled(self) -> bool:
        """Whether no extra argument is per example, so that any input can be run."""
        return not self.extra.per_example

    # --- borrowing ------------------------------------------------------------------------------------------------

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Eval mode and no parameter gradients while this lasts, and nothing else is explained;
        re-entrant."""
        with turn():
            self._ready += 1
            try:
                if self._ready == 1:
                    self._lent = self._borrowed()
                yield
            finally:
                self._ready -= 1
                if not self._ready and self._lent is not None:
                    lent, self._lent = self._lent, None
                    lent.close()

    def is_adopted(self, module: nn.Module) -> bool:
        """Whether a module is known by the user's word only."""
        return any(part is module for part in self._adopted)

    def _borrowed(self) -> ExitStack:
        """Every module, borrowed until this is closed."""
        with ExitStack() as stack:
            stack.enter_context(undone(self._forget))
            for root in self.roots:
                stack.enter_context(borrowed(root))
            if self.optimiser:
                self.optimiser.refresh()
            return stack.pop_all()

    def _forget(self) -> None:
        self._ready, self._lent = (
            0,
            None,
        )  # what matters in a forked process: nobody comes to do it there

    def adopt(self, module: nn.Module) -> None:
        """From now on a module counts among those that are run: the user named it, and the model's
        own do not show it."""
        if any(part is module for root in self.roots for part in root.modules()):
            return
        self.roots.append(module)
        self._adopted.append(module)
        if self._lent is not None:
            self._lent.enter_context(borrowed(module))

    @contextmanager
    def trainable(self) -> Iterator[None]:
        """As ``ready``, but parameters ask for gradients as they did before."""
        with turn(), ExitStack() as stack:
            for root in self.roots:
                stack.enter_context(borrowed(root, frozen=False))
            yield

    def during(self) -> AbstractContextManager[Any]:
        """What the model's operations run in, which has to last while they are gone through
        backwards: checkpoints run them again."""
        return nullcontext()

    def refresh(self) -> None:
        """The model's parameters have changed: a faster copy of it follows."""
        if self.optimiser is not None:
            self.optimiser.refresh()

    # --- running --------------------------------------------------------------------------------------------------

    def run(
        self, z: Tensor, index: Tensor | None, sites: Sequence[Site] = ()
    ) -> tuple[Any, list[Tensor]]:
        """The model's outputs for rows ``z`` (N, \\*s), and what was seen at ``sites``."""
        return self._seen(z, index, sites, self._optimised(z, index))

    def run_plainly(
        self, z: Tensor, index: Tensor | None, sites: Sequence[Site] = ()
    ) -> tuple[Any, list[Tensor]]:
        """``run`` of the model itself, also where a faster copy is run in its place."""
        return self._seen(z, index, sites, None)

    def _seen(
        self,
        z: Tensor,
        index: Tensor | None,
        sites: Sequence[Site],
        optimised: OptimisedCopy | None,
    ) -> tuple[Any, list[Tensor]]:
        activations: list[Any] = [None] * len(sites)
        with ExitStack() as stack:
            for place, site in enumerate(sites):
                module = optimised.counterpart(site.module, site.side) if optimised else site.module
                stack.enter_context(undone(_listen(module, site, activations, place).remove))
            outputs = self._call(z, index, optimised)
        for site, activation in zip(sites, activations, strict=True):
            if not isinstance(activation, Tensor) or len(activation) != len(z):
                received = (
                    describe(activation.shape)
                    if isinstance(activation, Tensor)
                    else type(activation).__name__
                )
                raise ModelError(
                    f"A representation needs a tensor with one entry per row ({len(z)}), but {site} gave {received}. "
                    "Choose another layer, or give representation= a function of the input."
                )
        return outputs, activations

    def plainly(self, z: Tensor, index: Tensor | None) -> Any:
        """The outputs of the model itself, also where a faster copy is run in its place."""
        return self._call(z, index)

    def _optimised(self, z: Tensor, index: Tensor | None) -> OptimisedCopy | None:
        """What is run in place of the model, made when there is a row to try it with."""
        if self.optimiser is None:
            return None
        # Two rows: what holds for one need not hold for a batch. The last: the first may be a
        # baseline, all zeros.
        rows = z.detach()[-1:].repeat(2, *(1,) * (z.ndim - 1))
        examples = None if index is None else index[-1:].repeat(2)

        def trial(optimised: OptimisedCopy) -> Any:
            with gradients(False):
                return self._call(rows.clone(), examples, optimised)

        return self.optimiser.optimised(trial)

    @tells_of_rows
    def _call(self, z: Tensor, index: Tensor | None, optimised: OptimisedCopy | None = None) -> Any:
        positional, named = self.extra.rows(index)
        inputs = self.layout.unpack(z, model=True) if self.layout else z
        model = self.model
        if optimised is not None:
            model, inputs = optimised.in_place_of(model), optimised.arranged(inputs)
        if isinstance(inputs, dict):
            return model(*positional, **inputs, **named)
        if isinstance(inputs, tuple):
            return model(*inputs, *positional, **named)
        return model(inputs, *positional, **named)

    # --- layers ---------------------------------------------------------------------------------------------------

    def layers(self) -> dict[str, nn.Module]:
        """Every named layer; of a function around several modules, later ones of the same name are
        numbered."""
        if len(self.roots) == 1:
            return dict(self.roots[0].named_modules())
        named: dict[str, nn.Module] = {}
        for root in self.roots:
            for name, module in root.named_modules():
                number = 2
                key = name = name or type(root).__name__
                while key in named:
                    key, number = f"{name} ({number})", number + 1
                named[key] = module
        return named

    def site(self, layer: str | nn.Module) -> Site:
        """The output of a layer, given by name or as the module itself."""
        layers = self.layers()
        if isinstance(layer, str):
            if layer not in layers or not layer:
                raise UnknownName("layer", layer, layers)
            if f"{layer} (2)" in layers:
                raise ModelError(
                    f"Several of the modules that this function runs have a layer {layer!r}: give the module itself instead of its name."
                )
            return Site(layers[layer], "output", layer)
        for name, module in layers.items():
            if module is layer:
                return Site(module, "output", name)
        if not isinstance(layer, nn.Module):
            raise ModelError(
                f"A layer is named, or given as the module itself, not as a {type(layer).__name__}."
            )
        self.adopt(layer)
        return Site(layer, "output", type(layer).__name__)

    def resolved(self, site: str | nn.Module | Site, side: str = "output") -> Site:
        """A site as the user gave it, with its module; ``side`` is that of names and modules."""
        if not isinstance(site, Site):
            return dataclasses.replace(self.site(site), side=side)
        known = self.site(site.layer)
        return dataclasses.replace(site, layer=known.layer, name=site.name or known.name)

    def runs(self, module: nn.Module, z: Tensor, index: Tensor) -> bool:
        """Whether a module that is none of the model's own runs all the same when rows ``z`` (N,
        \\*s) do."""
        ran: list[nn.Module] = []
        with undone(
            module.register_forward_pre_hook(lambda ran_module, _: ran.append(ran_module)).remove
        ):
            self.plainly(z, index)
        return bool(ran)

    def last_linear(self, z: Tensor, index: Tensor) -> Site:
        """The input of the linear layer that runs last: the representation the classifier decides
        on."""
        order: list[tuple[str, nn.Module]] = []
        with ExitStack() as stack:
            for name, module in self.layers().items():
                if isinstance(module, nn.Linear):
                    note = lambda *_, name=name, module=module: order.append((name, module))  # noqa: E731
                    stack.enter_context(undone(module.register_forward_hook(note).remove))
            with torch.no_grad():
                self.plainly(z, index)
        if not order:
            raise ModelError(
                "The model has no linear layer whose input could serve as its representation: give representation= the name "
                "of a layer, or a function of the input."
            )
        name, module = order[-1]
        return Site(module, "input", name)


class PlainModel(Network):
    """A network that is never run as a copy of itself."""

    def __init__(self, whole: Network) -> None:
        vars(self).update(vars(whole))
        self.optimiser = None
        self.whole = whole

    @contextmanager
    def ready(self) -> Iterator[None]:
        with self.whole.ready():
            yield

    @contextmanager
    def trainable(self) -> Iterator[None]:
        with self.whole.trainable():
            yield

    def adopt(self, module: nn.Module) -> None:
        self.whole.adopt(module)  # the roots are the same list


def _module(model: object) -> nn.Module | None:
    """The module behind a model: itself, or what a bound method or a partial of one belongs to."""
    while isinstance(model, functools.partial):
        model = model.func
    owner = getattr(model, "__self__", model)
    return owner if isinstance(owner, nn.Module) else None


def calm(representation: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """A function of the input, its modules in eval mode while it is called; one without modules as
    it is."""
    network = Network(representation)
    if not network.roots:
        return representation

    def seen(z: Tensor) -> Any:
        with network.ready():
            return representation(z)

    return seen


def _listen(module: nn.Module, site: Site, activations: list[Any], place: int) -> Any:
    runs = itertools.count()

    def note(passed: object) -> None:
        if next(runs) == site.run or site.run is None:
            activations[place] = _cloned(_tensor_of(passed, site))

    if site.side == "input":
        return module.register_forward_pre_hook(
            lambda _, args, named: note(args or named), with_kwargs=True
        )
    return module.register_forward_hook(lambda _, __, output: note(output))


def _tensor_of(passed: object, site: Site) -> Any:
    """The tensor of a representation among what went into a layer or came out of it."""
    if isinstance(passed, Tensor):
        return passed
    tensors = [leaf for leaf in tree_leaves(passed) if isinstance(leaf, Tensor)]
    number = site.tensor or 0
    return tensors[number] if number < len(tensors) else passed


def _cloned(value: object) -> Any:
    """A copy: a layer further on may work in place."""
    return value.clone() if isinstance(value, Tensor) else value
