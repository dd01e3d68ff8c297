"""The torch-function mode that replaces operations of a forward pass by their chords."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...core.torch_calls import Arguments, Function, Keywords
from ...model.autograd import going_back
from ...model.batching import is_out_of_memory
from .gates import BETWEEN, WITHIN
from .kinks import KINKS
from .rows import Rows, tensors
from .table import TABLE, Entry

_GRADIENTS = frozenset([torch.autograd.grad, torch.autograd.backward, Tensor.backward])


class _Traits(NamedTuple):
    """What is to be looked at in calls of a torch function: whether it asks for a gradient, has
    kinks, and how many things that move it takes to be a gate (None for no number)."""

    derives: bool
    kinked: bool
    gated_by: int | None


@lru_cache(4096)
def _traits(func: Function) -> _Traits:
    gated_by = 2 if func in BETWEEN else 1 if func in WITHIN else None
    return _Traits(func in _GRADIENTS, func in KINKS, gated_by)


@contextmanager
def eager() -> Iterator[None]:
    """While this lasts, compiled models run as they were written, so that their operations are
    seen, and chords are not compiled."""
    if (
        "torch._dynamo" not in sys.modules
    ):  # then nothing is compiled, and importing it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


class InnerGradient(Exception):
    """The model itself asks for a gradient. It means the gradient, not chords, and chords have no
    second derivative."""


class ChordMode(TorchFunctionMode):
    """While this lasts, backward passes follow chords: row i's from row ``before[i]`` (N,).

    An operation whose chord fails is done without it. Its attributes say
    how it went.

    Attributes:
        kinks: whether anything that moves went through a function that is not smooth.
        gates: whether anything that moves may have switched something else that moves on and off.
        refused: operation → why its chord could not be had.
        derived: whether the model asked for a gradient on its way, so that nothing that was found
            may be used.

    Raises:
        InnerGradient: where the model itself asks for a gradient.
        Exception: what the model's own operations raise.
    """

    strict: ClassVar[bool] = False
    """Raise what a chord raised where the operation itself goes well: a fault of the chord, which
    tests are to see."""

    def __init__(self, before: Tensor) -> None:
        super().__init__()
        self.rows = Rows(before)
        self.kinks = self.gates = False
        self.derived = False
        self.refused: dict[str, str] = {}

    def __torch_function__(
        self,
        func: Function,
        types: Sequence[type],
        args: Arguments = (),
        kwargs: Keywords | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        traits = _traits(func)
        if traits.derives and not going_back():
            self.derived = True
            raise InnerGradient
        # The way back, where the mode stays for the sake of checkpoints.
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        output = NotImplemented
        if traits.kinked and not self.kinks:
            self.kinks = any(map(self.rows.moves, tensors((*args, *kwargs.values()))))
        if traits.gated_by is not None and not self.gates:
            moving = sum(map(self.rows.moves, tensors((*args, *kwargs.values()))))
            self.gates = moving >= traits.gated_by
        entry = TABLE.get(func)
        if entry is not None:
            output = (
                self._chord(entry, args, kwargs)
                if going_back()
                else self._chord_or_plain(func, entry, args, kwargs)
            )
        if output is NotImplemented:
            output = func(*args, **kwargs)
        self.rows.follow(func, args, kwargs, output)
        return output

    def _chord_or_plain(
        self, func: Function, entry: Entry, args: Arguments, kwargs: Keywords
    ) -> Any:
        try:
            return self._chord(entry, args, kwargs)
        except InnerGradient:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            refusal = error
        output = func(*args, **kwargs)  # what this raises is the caller's own
        if self.strict:
            raise refusal
        name = getattr(func, "__name__", str(func))
        self.refused[name] = f"{type(refusal).__name__}: {refusal}"
        return output

    def _chord(self, entry: Entry, args: Arguments, kwargs: Keywords) -> Any:
        if not args and "input" in kwargs:
            kwargs = dict(kwargs)
            args = (kwargs.pop("input"),)
        operands = list(tensors((*args, *kwargs.values())))
        if not any(map(self.rows.moves, operands)) or torch._C._are_functorch_transforms_active():
            return NotImplemented
        if not entry.complex and any(u.is_complex() for u in operands):
            return NotImplemented
        if entry.composite:
            with self:
                return entry.make(*args, **kwargs)
        return entry.make(self.rows, *args, **kwargs)
