"""The mode that sees every operation of a forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .gates import BETWEEN, WITHIN
from .kinks import KINKS
from .rows import Rows, tensors
from .table import TABLE


class Chords(TorchFunctionMode):
    """While this lasts, backward passes follow chords: row i's from row ``before[i]`` (N,).

    kinks  whether anything that moves went through a function that is not smooth
    gates  whether anything that moves may have switched something else that moves on and off
    """

    def __init__(self, before: Tensor) -> None:
        super().__init__()
        self.rows = Rows(before)
        self.kinks = self.gates = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():  # the way back, where the mode stays for the sake of checkpoints
            return func(*args, **kwargs)
        made = NotImplemented
        if not self.kinks and func in KINKS:
            self.kinks = any(map(self.rows.moves, tensors((*args, *kwargs.values()))))
        if not self.gates and (func in BETWEEN or func in WITHIN):
            moving = sum(map(self.rows.moves, tensors((*args, *kwargs.values()))))
            self.gates = moving > (1 if func in BETWEEN else 0)
        entry = TABLE.get(func)
        if entry is not None:
            made = self._chord(entry.make, entry.composite, args, kwargs)
        if made is NotImplemented:
            made = func(*args, **kwargs)
        self.rows.follow(func, args, kwargs, made)
        return made

    def _chord(self, make: Any, composite: bool, args: Any, kwargs: Any) -> Any:
        if not args and "input" in kwargs:
            kwargs = dict(kwargs)
            args = (kwargs.pop("input"),)
        if not any(map(self.rows.moves, tensors((*args, *kwargs.values())))):
            return NotImplemented
        if composite:
            with self:
                return make(*args, **kwargs)
        return make(self.rows, *args, **kwargs)
