"""Registry: torch function → chord.

A chord is a function of the rows and of whatever the torch function is called with. It returns the
same value, with a backward pass of its own, or NotImplemented for calls it does not cover. Most are
a ``torch.autograd.Function`` around two closed forms:

    @chord(*spelled("square"))
    def square(rows, u):
        return rows.apply(_Square, u)            # backward: gradient · (u_a + u_b), with u_a =
                                                 rows.previous(u)

An operation that can be written in others that have chords is only written down again
(``composite``); its body runs with chords on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.torch_calls import Function

Operand = Tensor | complex
"""What stands on either side of an operation: a tensor or a number."""

_F = TypeVar("_F", bound=Function)


@dataclass(frozen=True)
class Entry:
    """``complex`` chords also hold for complex numbers; where one moves, calls of the others are
    left alone."""

    make: Function
    composite: bool
    complex: bool


TABLE: dict[Function, Entry] = {}

_OWNERS: tuple[Any, ...] = (torch, Tensor, F, torch.special, torch.linalg)


def spelled(*names: str, owners: tuple[Any, ...] = _OWNERS) -> list[Function]:
    """Every torch function of these names: ``torch.x``, ``Tensor.x``, ``F.x``, ``torch.special.x``,
    ``torch.linalg.x``."""
    return [
        getattr(owner, name)
        for name in names
        for owner in owners
        if callable(getattr(owner, name, None))
    ]


def chord(*functions: Function, complex: bool = False) -> Callable[[_F], _F]:
    """The decorated ``make(rows, *args, **kwargs)`` is the chord of these torch functions."""
    return _register(functions, composite=False, complex=complex)


def composite(*functions: Function, complex: bool = False) -> Callable[[_F], _F]:
    """The decorated ``make(*args, **kwargs)`` says the same in operations that have chords."""
    return _register(functions, composite=True, complex=complex)


def _register(
    functions: tuple[Function, ...], *, composite: bool, complex: bool
) -> Callable[[_F], _F]:
    def register(make: _F) -> _F:
        TABLE.update({function: Entry(make, composite, complex) for function in functions})
        return make

    return register
