"""Base class of backward rules, and the torch-function mode that sees every operation of a forward
pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from ...core.torch_calls import Arguments, Function, Keywords
from ...errors import ModelError
from ...model.discovery import is_opaque

Change = Callable[[Function, Arguments, Keywords], Any]
"""(function, args, kwargs) → what the operation returns, with another way back, or
NotImplemented."""

During = Callable[[], AbstractContextManager[Any]]


@runtime_checkable
class BackwardRule(Protocol):
    """What some operations hand on in the backward pass, instead of their derivative.

    Attributes:
        layers: the rule knows the model's layers by their weights, so that the model itself must
            run, and no faster copy of it.
    """

    @property
    def layers(self) -> bool: ...

    def bound(self, module: nn.Module | None) -> During:
        """What makes the backward passes of a model follow the rule, each time it is called and
        entered.

        ``module`` is the model's, None for a plain function.

        Raises:
            ModelError, InputError: for models the rule is not for.
        """
        ...


class Changed(TorchFunctionMode):
    """While this lasts, ``change`` is asked first for every operation that autograd records."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def __torch_function__(
        self,
        func: Function,
        types: Sequence[type],
        args: Arguments = (),
        kwargs: Keywords | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.autograd.backward:
            return self._back(*args, **kwargs)
        if (
            not torch.is_grad_enabled()
        ):  # the way back, where the mode stays for the sake of checkpoints
            return func(*args, **kwargs)
        result = self.change(func, args, kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result

    def _back(
        self, tensors: Sequence[Tensor], *, inputs: Sequence[Tensor] | None = None, **kwargs: Any
    ) -> None:
        """The way back of a reentrant checkpoint, which runs operations again: given tensors, torch
        would do so without this mode."""
        places = [get_gradient_edge(tensor) for tensor in tensors]
        ends = None if inputs is None else [get_gradient_edge(tensor) for tensor in inputs]
        with self:
            torch.autograd.backward(places, inputs=ends, **kwargs)


def check_open(module: nn.Module | None, who: str) -> None:
    """Check that torch shows the operations of a module.

    Raises:
        ModelError: for a module, or one inside it, that is scripted or compiled.
    """
    for name, inner in () if module is None else module.named_modules():
        if is_opaque(inner):
            kind = "scripted" if isinstance(inner, torch.jit.ScriptModule) else "compiled"
            raise ModelError(
                f"{who} has to see every operation of the model, but {f'layer {name!r}' if name else 'the model'} is {kind}: give "
                "the module as it was before that."
            )
