"""Context in which a module is in eval mode with frozen parameters, and restored exactly
afterwards.

Changes are counted by what is changed: where two borrowers have a layer in common, in whatever
order they come and go, it is given back when the last of them is done.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import ModelError, TrainingModeWarning, warn
from .turns import turn, undone

INSTANCE_NORMS = (nn.modules.instancenorm._InstanceNorm,)
NORMS = (nn.modules.batchnorm._BatchNorm, *INSTANCE_NORMS)
_DROPS = (nn.modules.dropout._DropoutNd,)
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""Layers that in eval mode may run as one fused kernel, without running those inside them."""


@dataclass(eq=False)
class _Loan:
    """A change that lasts as long as it has borrowers; ``thing`` is kept alive, so that its id is
    nobody else's."""

    thing: Any
    give_back: Callable[[], object]
    borrowers: int = 0


_loans: dict[Hashable, _Loan] = {}


@contextmanager
def borrowed(root: nn.Module, *, frozen: bool = True) -> Iterator[None]:
    """While this lasts a module is fit to be explained, alone in this process; afterwards
    everything is as it was. Its parameters ask for no gradients unless it is not ``frozen``."""
    with turn():
        parts = list(root.modules())
        if frozen:  # who trains a model knows that it is in training mode
            _warn_of_training([part for part in parts if in_training(part)])
        keys: list[Hashable] = []
        with undone(lambda: _give_back(keys)):
            _borrow(parts, keys, frozen=frozen)
            yield


def in_training(module: nn.Module) -> bool:
    """Whether a module is in training mode. Frozen scripts have no mode: they are in eval mode for
    good."""
    try:
        return bool(module.training)
    except AttributeError:
        return False


def _borrow(parts: Sequence[nn.Module], keys: list[Hashable], *, frozen: bool) -> None:
    """Every change that is needed, or has been made already by somebody who is not done yet."""

    shared = bool(_loans)  # by a borrower who is not done yet

    def change(key: Hashable, owner: object, make: Callable[[], Callable[[], object]]) -> None:
        if key not in _loans:
            _loans[key] = _Loan(owner, make())
        _loans[key].borrowers += 1
        keys.append(key)

    for module in parts:
        if any(p is not None and is_lazy(p) for p in module._parameters.values()):
            raise ModelError(
                f"The model holds a {type(module).__name__} that has no weights yet: run the model on some inputs first."
            )
        if in_training(module) or (shared and ("mode", id(module)) in _loans):
            change(("mode", id(module)), module, partial(_in_eval_mode, module))
        scripted = isinstance(module, torch.jit.ScriptModule)
        for store in () if scripted else (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and (
                    tensor.is_inference() or (shared and ("copy", id(module), name) in _loans)
                ):
                    change(("copy", id(module), name), module, partial(_normal, store, name))
        for name, parameter in module._parameters.items() if frozen else ():
            key = ("gradient", id(module), name)
            if parameter is not None and (parameter.requires_grad or (shared and key in _loans)):
                change(key, module, partial(_without_gradient, module, name, parameter))
    if any(isinstance(part, nn.RNNBase) for part in parts):
        change("cuDNN", None, _without_cudnn)
    if any(isinstance(part, _FUSED) for part in parts):
        change("fused attention", None, _without_fused_attention)


def _give_back(keys: list[Hashable]) -> None:
    for key in reversed(keys):
        loan = _loans[key]
        loan.borrowers -= 1
        if not loan.borrowers:
            del _loans[key]
            loan.give_back()
    keys.clear()


# --- changes, each of which returns how to undo it --------------------------------------------------------------------


def _in_eval_mode(module: nn.Module) -> Callable[[], object]:
    module.training = False
    return lambda: setattr(module, "training", True)


def _without_gradient(
    module: nn.Module, name: str, parameter: nn.Parameter
) -> Callable[[], object]:
    parameter.requires_grad_(False)

    def give_back() -> None:
        parameter.requires_grad_(True)
        # Models that are kept elsewhere put another parameter in its place with every call, made
        # like the one that was there.
        now = dict(module._parameters.items()).get(name)  # scripted modules have no real dict
        if now is not None:
            now.requires_grad_(True)

    return give_back


def _normal(store: dict[str, Any], name: str) -> Callable[[], object]:
    """A copy in place of a tensor that was made in inference mode, through which autograd cannot go
    back."""
    tensor: Tensor = store[name]
    with torch.inference_mode(False), torch.no_grad():
        copied = tensor.clone()
        store[name] = (
            nn.Parameter(copied, requires_grad=False)
            if isinstance(tensor, nn.Parameter)
            else copied
        )
    return lambda: store.__setitem__(name, tensor)


def _without_cudnn() -> Callable[[], object]:
    """cuDNN refuses the backward pass of an RNN in eval mode; PyTorch's own kernels do not."""
    flags = torch.backends.cudnn.flags(enabled=False)
    flags.__enter__()
    return lambda: flags.__exit__(None, None, None)


def _without_fused_attention() -> Callable[[], object]:
    """Layers inside a fused kernel do not run, and a padding mask makes it hand on tensors of
    ragged rows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    return lambda: torch.backends.mha.set_fastpath_enabled(before)


# --- the warning ------------------------------------------------------------------------------------------------------


def _warn_of_training(training: Sequence[nn.Module]) -> None:
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
