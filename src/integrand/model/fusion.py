"""An optimised copy of a model, with folded batch norms and channels last, used for explaining
only.

    copy of the structure, sharing every tensor   →   batch norms folded   →   channels last, where it runs

An explanation asks one model for thousands of gradients to its *input*, in eval mode. There a batch
norm is a fixed scale and shift, s ⊙ u + c, and the linear map in front of it can absorb it: W' = s
⊙ W, b' = s ⊙ b + c. Convolutions read their rows faster with the channels innermost. The user's
model is not touched: the parameters of the copy are views of the user's, so it costs no
memory but for the weights that change.

Nothing is assumed about how a model is written. One call, watched, shows which batch norm eats what
a convolution or linear layer puts out, and whether anything else sees that; the folded copy must
then give the same numbers, batch norm by batch norm, and a pair that does not is left alone. What
cannot be copied, or is no module, is run as it is, and a warning says so.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import OptimizeWarning, warn
from .discovery import is_opaque

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_MAPS: dict[Any, int] = {F.linear: 0, F.conv1d: 0, F.conv2d: 0, F.conv3d: 0}
_MAPS |= {F.conv_transpose1d: 1, F.conv_transpose2d: 1, F.conv_transpose3d: 1}
"""Linear maps, and which axis of their weight numbers the outputs."""
_SHAPES = (
    "dim",
    "size",
    "numel",
    "stride",
    "ndimension",
    "is_contiguous",
    "is_floating_point",
    "__len__",
)
"""What may be asked of a tensor without looking at its numbers; properties such as ``shape``
too."""


class Optimiser:
    """Makes a module's copy, and makes it anew when the module has changed."""

    def __init__(self, original: nn.Module) -> None:
        self.original = original
        self._optimised: OptimisedCopy | None = None
        self._tried: list[Any] | None = (
            None  # the original as it was when its copy was made, or could not be
        )

    @classmethod
    def of(cls, module: nn.Module | None) -> Optimiser | None:
        """An optimiser for a module; a warning, and none, for what has no copy that could be
        changed."""
        if module is None:
            _give_up("it is a plain function; give the nn.Module behind it")
        elif any(map(is_opaque, module.modules())):
            _give_up("it is compiled already")
        else:
            return cls(module)
        return None

    def refresh(self) -> None:
        """Forget the copy of a module that is not what it was: trained on, other layers, other
        hooks."""
        if self._tried is not None and (
            self._optimised is None or not _unchanged(self._tried, _fingerprint(self.original))
        ):
            self._optimised = self._tried = None

    def optimised(self, trial: Callable[[OptimisedCopy], Any]) -> OptimisedCopy | None:
        """The copy, made if there is none; ``trial(optimised)`` is what it says of a few rows."""
        if self._tried is None:
            candidate = self._make(trial)
            self._optimised, self._tried = candidate, _fingerprint(self.original)
        return self._optimised

    def _make(self, trial: Callable[[OptimisedCopy], Any]) -> OptimisedCopy | None:
        try:
            optimised = OptimisedCopy(self.original)
        except Exception as error:  # whatever a module's own way of being copied raises
            _give_up(f"it cannot be copied ({error})")
            return None
        try:
            with _Watch(optimised.module) as watch:
                outputs = trial(optimised)
        except Exception:  # the model's own error: it will be heard when the model itself is run
            return None
        optimised.fold(watch, outputs, lambda: trial(optimised))
        optimised.reorder(outputs, lambda: trial(optimised))
        return optimised


def _give_up(why: str) -> None:
    warn(f"optimize=True does nothing for this model: {why}.", OptimizeWarning)


class OptimisedCopy:
    """Stand-in for a module while it is explained; at first an exact copy.

    module         the copy that is run
    channels_last  whether images are handed over with their channels innermost
    folds          the batch norms that are folded
    """

    def __init__(self, original: nn.Module) -> None:
        self.original = original
        self.module, self._counterparts = _copied(original)
        self.channels_last = False
        self.folds: list[Fold] = []

    def in_place_of(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """The same callable, of the copy: the module itself, its bound method, or a partial of
        one."""
        if isinstance(model, functools.partial):
            return functools.partial(self.in_place_of(model.func), *model.args, **model.keywords)
        return (
            MethodType(model.__func__, self.module)
            if isinstance(model, MethodType)
            else self.module
        )

    def arranged(self, inputs: object) -> Any:
        """Inputs in the order in memory that is read fastest."""
        return tree_map(_innermost, inputs) if self.channels_last else inputs

    def counterpart(self, module: nn.Module, side: str) -> nn.Module:
        """The copy's own of one of the original's modules, fit to be looked at on its "input" or
        "output" side.

        What a folded layer puts out is not what it was; one that is looked at is unfolded, for
        good.
        """
        counterpart = self._counterparts.get(id(module), module)
        for fold in [fold for fold in self.folds if (counterpart, side) in fold.witnesses]:
            self._unfold(fold)
        return counterpart

    # --- making it faster -----------------------------------------------------------------------------------------

    def fold(self, watch: _Watch, outputs: object, trial: Callable[[], Any]) -> None:
        """Fold what can be folded, and take back what changes a number; ``outputs`` are those of
        the original."""
        self.folds = watch.pairs()
        for fold in self.folds:
            fold.do()
        while self.folds:
            wrong = self._first_wrong(outputs, trial)
            if wrong is None:
                return
            self._unfold(wrong)

    def _first_wrong(self, outputs: object, trial: Callable[[], Any]) -> Fold | None:
        """The fold that runs first of those behind which the numbers are not what they were."""
        wrong: list[Fold] = []

        def compare(fold: Fold, output: Tensor) -> None:
            if not _close(output, fold.output):
                wrong.append(fold)

        with ExitStack() as stack:
            for fold in self.folds:
                hook = lambda _, __, output, fold=fold: compare(fold, output)  # noqa: E731
                stack.callback(fold.norm.register_forward_hook(hook).remove)
            try:
                wrong += [] if _close(trial(), outputs) else self.folds[-1:]
            except Exception:
                wrong += self.folds[-1:]
        return wrong[0] if wrong else None

    def _unfold(self, fold: Fold) -> None:
        fold.undo()
        self.folds.remove(fold)

    def reorder(self, outputs: object, trial: Callable[[], Any]) -> None:
        """Channels innermost, if the model takes that: some cut tensors up by how they lie in
        memory."""
        layers = [
            m
            for m in self.module.modules()
            if isinstance(m, _CONVOLUTIONS) and m._parameters.get("weight") is not None
        ]
        if not layers:
            return
        before = [layer._parameters["weight"] for layer in layers]
        for layer in layers:
            _set(layer, "weight", layer.weight.contiguous(memory_format=torch.channels_last))
        self.channels_last = True
        try:
            fine = _close(trial(), outputs)
        except Exception:
            fine = False
        if not fine:
            self.channels_last = False
            for layer, weight in zip(layers, before, strict=True):
                layer._parameters["weight"] = weight


def _innermost(part: object) -> Any:
    if isinstance(part, Tensor) and part.ndim == 4:
        return part.contiguous(memory_format=torch.channels_last)
    return part


def _set(layer: nn.Module, name: str, value: Tensor) -> None:
    layer._parameters[name] = nn.Parameter(value.detach(), requires_grad=False)


# --- copying ----------------------------------------------------------------------------------------------------------


def _copied(original: nn.Module) -> tuple[nn.Module, dict[int, nn.Module]]:
    """A copy in eval mode that shares every tensor's memory and asks for no gradients, and who is
    whose counterpart."""
    attributes = (value for module in original.modules() for value in vars(module).values())
    memo: dict[int, Any] = {id(a): a.detach() for a in attributes if isinstance(a, Tensor)}
    memo |= {id(b): b for b in original.buffers()}
    memo |= {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in original.parameters()}
    optimised = copy.deepcopy(original, memo)
    for module in optimised.modules():
        module.training = False
    return optimised, {id(module): memo[id(module)] for module in original.modules()}


def _fingerprint(module: nn.Module) -> list[Any]:
    """Everything about a module that a copy depends on, by identity, and how often each tensor
    was written to."""
    entries: list[Any] = []
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, dict):
                entries += [*value, *value.values()]
            elif isinstance(value, list | tuple):
                entries += value
            elif name != "training":
                entries.append(value)
    return entries + [
        t._version for t in (*module.parameters(), *module.buffers()) if not t.is_inference()
    ]


def _unchanged(first: list[Any], second: list[Any]) -> bool:
    """Whether nothing was written to, exchanged or added between two fingerprints."""
    return len(first) == len(second) and all(
        a is b or (type(a) is type(b) is int and a == b) for a, b in zip(first, second, strict=True)
    )


# --- folding ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Fold:
    """A linear map that absorbs the batch norm behind it, and how to take that back.

    axis       of the weight that numbers the outputs
    witnesses  modules, and their sides, that see what is between the two
    output     of the batch norm, for the rows it was tried with
    """

    layer: nn.Module
    norm: nn.Module
    axis: int
    witnesses: frozenset[tuple[nn.Module, str]]
    output: Tensor
    _kept: dict[str, Any] = field(default_factory=dict)

    def do(self) -> None:
        norm: Any = self.norm
        weight, bias = self.layer._parameters["weight"], self.layer._parameters["bias"]
        assert weight is not None
        # In double precision: it is rounded once, at the end.
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        shift = (0.0 if bias is None else bias.double()) - norm.running_mean.double()
        shift = shift * scale
        if norm.bias is not None:
            shift = shift + norm.bias.double()
        along = [-1 if axis == self.axis else 1 for axis in range(weight.ndim)]
        self._kept = {"weight": weight, "bias": bias}
        _set(self.layer, "weight", (weight.double() * scale.reshape(along)).to(weight.dtype))
        _set(self.layer, "bias", shift.to(weight.dtype))
        # Not the module but its class is exchanged: wherever the model keeps it, it is found
        # passing things on.
        self._class, norm.__class__ = type(norm), _Absorbed

    def undo(self) -> None:
        self.layer._parameters.update(self._kept)
        self.norm.__class__ = self._class


class _Absorbed(nn.Module):
    """A batch norm whose work is done by the layer in front of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def _close(first: object, second: object) -> bool:
    """Whether the tensors of two outputs agree as well as their type can tell after many layers."""
    left, right = (
        [leaf for leaf in tree_leaves(side) if isinstance(leaf, Tensor)] for side in (first, second)
    )
    # Outputs in which no tensor is found say nothing about a change.
    return bool(left) and len(left) == len(right) and all(map(_near, left, right))


def _near(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape or not second.is_floating_point() or not second.numel():
        return first.shape == second.shape
    tolerance = min(1e3 * torch.finfo(second.dtype).eps, 0.1)
    return bool((first - second).abs().amax() <= tolerance * second.abs().amax())


class _Watch(TorchFunctionMode):
    """Records which modules produce and consume each tensor during one call. Tensors are
    distinguished by identity, and kept alive for that."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._maps: dict[int, tuple[int, Any, Any]] = {}  # output → (axis, weight, bias)
        self._norms: list[
            tuple[nn.Module, Tensor, Tensor]
        ] = []  # (norm, input, a copy of the output)
        self._eaten: dict[int, int] = {}  # how many functions were given it
        self._seen: dict[
            int, set[tuple[nn.Module, str]]
        ] = {}  # the modules it went into and came out of
        self._alive: list[Any] = []

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        hooks = [module.register_forward_hook(self._note) for module in self._module.modules()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __enter__(self) -> _Watch:
        self._hooks = self._hooked()
        self._hooks.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._hooks.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        operands, result = (
            [leaf for leaf in tree_leaves(side) if isinstance(leaf, Tensor)]
            for side in ((args, kwargs), output)
        )
        name = getattr(func, "__name__", "")
        if not result and (name == "__get__" or name in _SHAPES):
            return output
        for tensor in operands:
            self._eaten[id(tensor)] = self._eaten.get(id(tensor), 0) + 1
        if func in _MAPS:
            named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            self._maps[id(output)] = (_MAPS[func], named["weight"], named.get("bias"))
        self._alive += [operands, result]
        return output

    def _note(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        for side, passed in (("input", args), ("output", output)):
            for tensor in tree_leaves(passed):
                self._seen.setdefault(id(tensor), set()).add((module, side))
        self._alive += [args, output]
        if type(module) in _NORMS and len(args) == 1:
            self._norms.append(
                (module, args[0], output.clone())
            )  # what comes next may work in place

    def pairs(self) -> list[Fold]:
        """Batch norms that alone consume the output of a linear map, both run once and without
        hooks; in running order."""
        owners: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in self._module.modules():
            for name, parameter in module._parameters.items():
                owners.setdefault(id(parameter), []).append((module, name))
        runs = [norm for norm, _, _ in self._norms]
        folds = []
        for norm, eaten, output in self._norms:
            axis, weight, bias = self._maps.get(id(eaten), (0, None, None))
            owner = owners.get(id(weight), []) if weight is not None else []
            if (
                self._eaten.get(id(eaten)) != 1
                or self._eaten.get(id(weight)) != 1
                or runs.count(norm) != 1
            ):
                continue
            if (
                len(owner) != 1
                or owner[0][1] != "weight"
                or owner[0][0]._parameters.get("bias", weight) is not bias
            ):
                continue
            fold = Fold(owner[0][0], norm, axis, frozenset(self._seen[id(eaten)]), output)
            if _fits(norm, weight.shape[axis]) and not any(
                _observed(module) for module, _ in fold.witnesses
            ):
                folds.append(fold)
        return folds


def _fits(norm: Any, outputs: int) -> bool:
    """Whether a batch norm uses statistics it has collected, of just so many channels."""
    return (
        norm.running_mean is not None
        and norm.running_var is not None
        and len(norm.running_mean) == outputs
    )


def _observed(module: nn.Module) -> bool:
    """Whether the module has hooks that see its inputs or outputs."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks)
