"""Parts: frozen values with a repr as typed and equality by value.

``@part`` is a frozen dataclass whose repr leaves out what was left at its default and shows a
tensor by its shape, and whose equality looks into tensors. Constructors only store (and refuse
nonsense); nothing is computed until a part is called. Numbers are checked by their annotations (see
``options``) before a part's own ``__post_init__``, which checks their ranges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import torch
from torch import Tensor, nn

from .options import check_finite, numeric, option, usual
from .shapes import describe

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def part(cls: type[T]) -> type[T]:
    """Make ``cls`` a part."""
    _check_numbers(cls)
    frozen = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    for name, method in (("__repr__", _typed), ("__eq__", _alike), ("__hash__", _hash)):
        if name not in cls.__dict__ or name == "__hash__":
            setattr(frozen, name, method)
    return frozen


def _check_numbers(cls: type) -> None:
    """Let the class look at its numbers around whatever else it does once its fields are stored."""
    post_init: Callable[[Any], None] | None = getattr(cls, "__post_init__", None)

    def checked(self: object) -> None:
        kinds = numeric(type(self))  # type: ignore[arg-type]  # classes are hashable, whatever mypy says
        for name, allowed in kinds.items():
            value = getattr(self, name)
            if type(value) in usual(allowed):
                continue
            number = option(name, value, allowed)
            if number is not value:
                object.__setattr__(self, name, number)
        if post_init is not None:
            post_init(self)
        for name in kinds:
            check_finite(name, getattr(self, name))

    cls.__post_init__ = checked  # type: ignore[attr-defined]


def _typed(self: Any) -> str:
    typed = []
    positional = True
    for spec in dataclasses.fields(self):
        value = getattr(self, spec.name)
        default = spec.default_factory() if callable(spec.default_factory) else spec.default
        if default is not dataclasses.MISSING and _same(value, default):
            positional = False
            continue
        typed.append(shown(value) if positional else f"{spec.name}={shown(value)}")
    return f"{type(self).__name__}({', '.join(typed)})"


def shown(value: object) -> str:
    """A value as it is typed, large ones by their shape or name."""
    if isinstance(value, Tensor):
        if value.numel() == 1:
            return repr(value.item())
        return f"tensor<{describe(value.shape)}>"
    if isinstance(value, nn.Module):  # whose own repr is as long as the network
        return type(value).__name__
    if isinstance(value, tuple) and any(isinstance(v, Tensor) or callable(v) for v in value):
        return "(" + ", ".join(map(shown, value)) + ("," if len(value) == 1 else "") + ")"
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    if hasattr(value, "__len__") and not isinstance(value, str | tuple | list | dict):
        return f"{type(value).__name__}<{len(value)}>"
    return repr(value)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return (
            first.shape == second.shape
            and first.dtype == second.dtype
            and torch.equal(first, second)
        )
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return False
    if isinstance(first, tuple | list) and isinstance(second, type(first)):
        return len(first) == len(second) and all(map(_same, first, second))
    if type(first) is not type(second):
        return False
    alike = first == second
    return (
        bool(alike.all())
        if hasattr(alike, "all") and first.shape == second.shape
        else alike is True
    )


def _alike(self: Any, other: Any) -> bool:
    return type(self) is type(other) and all(
        _same(getattr(self, spec.name), getattr(other, spec.name))
        for spec in dataclasses.fields(self)
    )


def _hash(self: object) -> int:
    return hash(repr(self))
