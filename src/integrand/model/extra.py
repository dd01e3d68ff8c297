"""Extra arguments of a model: each row gets the entries of its example.

tensors and arrays        hold one entry per example (B, …), at any depth inside tuples, lists and
                          dicts
lists of numbers, words   hold one entry per example
Shared(anything)          is handed over as it is
everything else           is handed over as it is: numbers, words, tensors without an axis, objects
                          of other classes, not looked into
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..core.shapes import describe
from ..core.values import part
from ..errors import InputError, ShapeError


@part
class Shared:
    """An extra argument, or part of one, that is not per example: the model gets ``value`` as it
    is, however many rows it is asked.

    >>> import torch, integrand as ig
    >>> x, adjacency = torch.ones(2, 3), torch.eye(3)
    >>> f = lambda z, a: (z @ a).sum(1)
    >>> ig.explain(f, x, target=ig.targets.Output(), extra=(ig.Shared(adjacency),)).values.tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    value: Any


def checked_extra(extra: object) -> Sequence[Any] | Mapping[str, Any]:
    """Further arguments of a model as they are given to ``explain``: several, or a single tensor.

    Raises:
        InputError: for anything else.
    """
    if isinstance(extra, tuple | list | Mapping):
        return extra
    if isinstance(extra, Tensor | np.ndarray | Shared):
        return (extra,)
    raise InputError(
        f"extra= is a tuple or list of the model's further arguments, or a dict of them by name, not a {type(extra).__name__}: "
        "for one argument write extra=(argument,)."
    )


@dataclass(frozen=True, eq=False)
class Extra:
    """Positional and named arguments that follow the inputs."""

    positional: tuple[Any, ...]
    named: dict[str, Any]

    @classmethod
    def of(cls, extra: Sequence[Any] | Mapping[str, Any] | Any) -> Extra:
        """A tuple or list of arguments, a dict of them by name, or a single one."""
        if isinstance(extra, Mapping):
            return cls((), dict(extra))
        return cls(tuple(extra) if isinstance(extra, tuple | list) else (extra,), {})

    @property
    def per_example(self) -> bool:
        """Whether any of it differs between examples, so that only examples can be run."""
        return any(_entries(leaf) is not None for _, leaf in self._leaves())

    def check(self, batch: int) -> None:
        """Whatever is per example needs one entry for each.

        Raises:
            ShapeError: that says where one has another number.
        """
        for path, leaf in self._leaves():
            entries = _entries(leaf)
            if entries is not None and entries != batch:
                fault = (
                    f"is a list of {entries}"
                    if isinstance(leaf, list)
                    else f"has shape {describe(leaf.shape)}"
                )
                raise ShapeError(
                    f"Extra argument {path} {fault}, but there are {batch} examples. Extra tensors, arrays and lists hold one entry per "
                    "example; mark one that is the same for all as ig.Shared(…), or close over it: lambda x: model(x, shared)."
                )

    def rows(self, index: Tensor | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What belongs to rows of the examples ``index`` (N,); None for rows of no example."""
        return tuple(_gathered(value, index) for value in self.positional), {
            name: _gathered(value, index) for name, value in self.named.items()
        }

    def _leaves(self) -> Iterator[tuple[str, Any]]:
        for name, value in [*enumerate(self.positional), *self.named.items()]:
            yield from _leaves(repr(name), value)


def _leaves(path: str, value: object) -> Iterator[tuple[str, Any]]:
    """What is no container, and where it is: ``'masks'['row'][0]``."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _leaves(f"{path}[{name!r}]", entry)
    elif isinstance(value, tuple | list) and _entries(value) is None:
        for number, entry in enumerate(value):
            yield from _leaves(f"{path}[{number}]", entry)
    else:
        yield path, value


def _entries(value: object) -> int | None:
    """For how many examples something holds an entry; None for what is not per example."""
    if isinstance(value, Tensor | np.ndarray):
        return len(value) if value.ndim else None
    if (
        isinstance(value, list)
        and value
        and all(isinstance(entry, int | float | complex | str) for entry in value)
    ):
        return len(value)
    return None


def _gathered(value: object, index: Tensor | None) -> Any:
    """The rows' own entries of whatever is per example; anything else as it is."""
    if isinstance(value, Shared):
        return value.value
    if _entries(value) is not None:
        return _picked(value, index)
    if isinstance(value, Mapping):
        return _like(value, {name: _gathered(entry, index) for name, entry in value.items()})
    if isinstance(value, tuple | list):
        return _like(value, [_gathered(entry, index) for entry in value])
    return value


def _picked(value: Any, index: Tensor | None) -> Any:
    if index is None:
        raise ShapeError(
            f"The extra arguments hold {len(value)} entries, one per example, but the model was asked about inputs that are no "
            "examples, such as a pool of references. Choose the references yourself (ig.baselines.Given)."
        )
    if isinstance(value, Tensor):
        return value.detach()[index.to(value.device)]  # nobody asks for its gradient
    if isinstance(value, np.ndarray):
        return value[index.cpu().numpy()]
    return [value[number] for number in index.tolist()]


def _like(container: Any, entries: Any) -> Any:
    """Entries in a container of the same kind; of a mapping that does not take them, in a dict."""
    if all(a is b for a, b in zip(_values(container), _values(entries), strict=True)):
        return container  # nothing in it is per example
    if isinstance(container, dict):
        if type(container) is dict:
            return entries
        result = container.copy()
        result.update(entries)
        return result
    if isinstance(container, Mapping):
        return entries
    names = isinstance(container, tuple) and type(container) is not tuple
    return type(container)(*entries) if names else type(container)(entries)


def _values(container: object) -> Any:
    return container.values() if isinstance(container, Mapping) else container
