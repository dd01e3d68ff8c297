"""Base class of baselines, and the union of several.

A baseline is any callable ``(x (B, \\*s), field) -> references (R, B, \\*s)``; an expanded view is
welcome, nobody writes to it. Give it a ``label`` and, where it is known without looking at x, a
``count`` (R), and reports can name what it made.

What a baseline may say of itself is listed in the base class ``Baseline``. Users' baselines need no
base class: what they say is read by ``as_baseline``, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.declared import Adopted, Part, Stranger, check_callable, declared
from ..core.shapes import checked_references
from ..core.values import part
from ..errors import BaselineError
from ..fields import Field


class BaselineLike(Protocol):
    """Anything callable as a baseline: ``(x, field) -> references``."""

    def __call__(self, x: Tensor, field: Field) -> Tensor: ...


StartLike = (
    BaselineLike
    | Tensor
    | NDArray[Any]
    | np.generic
    | float
    | str
    | Sequence[Any]
    | Mapping[Any, Any]
)
"""What ``baseline=`` takes: a baseline, a number, a tensor or array, a name, or a list of several;
for several inputs a tuple or dict with one for each."""


class DataLike(Protocol):
    """Examples by number: a list, a torch ``Dataset`` that knows its length; pairs (example, label)
    lose their label."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


ReferencesLike = StartLike | DataLike
"""What ``references=`` takes: whatever a baseline can be, or data to draw references from."""


class Baseline(Part, ABC):
    """Where paths start: ``(x (B, \\*s), field) -> references (R, B, \\*s)``."""

    @abstractmethod
    def __call__(self, x: Tensor, field: Field) -> Tensor: ...

    @declared
    def label(self) -> str:
        """Its name in reports."""
        return type(self).__name__.lower()

    @declared
    def names(self) -> tuple[str, ...]:
        """The names of its references in reports; empty where ``label`` is enough."""
        return ()

    @declared
    def count(self) -> int | None:
        """How many references it is asked for, where that is known without looking at x."""
        return None

    @declared
    def size(self) -> int | None:
        """R, how many it makes, where that is known without looking at x: ``count`` unless it says
        otherwise."""
        return self.count

    @declared
    def single(self) -> bool:
        """Whether it makes one reference, so that another single one may stand in its place."""
        return self.size == 1

    @declared
    def gradients(self) -> int | None:
        """Gradients per example that it takes itself; None where it searches and does not know."""
        return 0

    @declared
    def seed(self) -> int | None:
        """The seed of its chance; equal parts of one baseline are given other ones. None where
        there is no chance."""
        return None

    @declared
    def sees_what_is_left(self) -> bool:
        """Whether, as a fill, it looks at the features that are not replaced: it has
        ``without``."""
        return self.overrides(Baseline, "without")

    def without(self, rows: Tensor, gone: Tensor, example: Tensor) -> Tensor:
        """Rows (N, \\*s) of the examples (N,), with what is ``gone`` (N, \\*s) replaced by what is
        left of them."""
        raise NotImplementedError(f"{self!r} does not look at what is left.")


class _StrangerBaseline(Stranger, Baseline):
    """A user's callable as a baseline."""

    @declared
    def label(self) -> str:
        return type(self.of).__name__.lower()

    @declared
    def resolution(self) -> str | None:
        return self.grows_with("count")


def adopted(baseline: BaselineLike) -> Baseline:
    """Convert to a ``Baseline``; a user's callable is wrapped, and keeps the attributes it
    declares."""
    if isinstance(baseline, Baseline):
        return baseline
    check_callable(baseline, "a baseline", "(x, field) -> references", "ig.baselines.Constant(0.0)")
    return _StrangerBaseline(baseline)


class References:
    """R references (R, B, \\*s), made when they are asked for: ``references[3:7]`` makes four,
    ``references[:]`` all.

    Attributes:
        size: R.
        make: a slice of them → (r, B, \\*s).
        sampled: whether chance chose them from more.
    """

    def __init__(
        self, size: int, make: Callable[[slice], Tensor], *, sampled: bool = False
    ) -> None:
        self.size = size
        self.make = make
        self.sampled = sampled

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> Tensor:
        return self.make(part)

    @classmethod
    def of(cls, baseline: Baseline, x: Tensor, field: Field) -> References:
        """Those of a baseline, checked: at once, or as they are made where it makes them in
        parts."""
        if isinstance(baseline, InParts):
            lazy = baseline.parts(x)
            return cls(
                len(lazy),
                lambda part: checked(lazy[part], x, baseline, field),
                sampled=lazy.sampled,
            )
        references = checked(baseline(x, field), x, baseline, field)
        return cls(len(references), lambda part: references[part])


class InParts(Baseline):
    """A baseline of many references that can be made a few at a time, and that only looks at the
    shape and type of inputs."""

    @abstractmethod
    def parts(self, x: Tensor) -> References:
        """The references for x (B, \\*s), not made yet."""

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        return self.parts(x)[:]


def label_of(baseline: BaselineLike) -> str:
    """The name of a baseline in reports."""
    known = adopted(baseline)
    return str(known.label) if known.label else type(baseline).__name__.lower()


def _all_adopted(parts: Sequence[BaselineLike]) -> tuple[Baseline, ...]:
    return tuple(map(adopted, parts))


@part
class Union(Baseline):
    """The references of several baselines, one after the other: R = Σ R_i."""

    parts: Adopted[Sequence[BaselineLike], tuple[Baseline, ...]] = Adopted(_all_adopted)

    def __post_init__(self) -> None:
        if not self.parts:
            raise BaselineError("Several() needs at least one baseline.")

    @property
    def count(self) -> int | None:
        counts = [count_of(baseline) for baseline in self.parts]
        return None if None in counts else sum(count for count in counts if count is not None)

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        return torch.cat(
            [checked(baseline(x, field), x, baseline, field) for baseline in self.parts]
        )


def count_of(baseline: BaselineLike) -> int | None:
    """The number of references R, where the baseline knows it without looking at the input; else
    None."""
    size = adopted(baseline).size
    return size if isinstance(size, int) else None


def labels(baseline: BaselineLike, count: int) -> tuple[str, ...]:
    """One name for each of ``count`` references; equal names are numbered."""
    parts = baseline.parts if isinstance(baseline, Union) else (adopted(baseline),)
    counts = [count_of(member) for member in parts]
    if counts.count(None) == 1:  # the one that did not say has made the rest
        counts[counts.index(None)] = count - sum(known for known in counts if known is not None)
    if None in counts or sum(known for known in counts if known is not None) != count:
        return tuple(f"reference {i + 1}" for i in range(count))
    names: list[str] = []
    for member, known in zip(parts, counts, strict=True):
        names += member.names if len(member.names) == known else [label_of(member)] * (known or 0)
    return tuple(_numbered(names))


def _numbered(names: list[str]) -> list[str]:
    counts: dict[str, int] = {}
    numbered = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        numbered.append(f"{name} {counts[name]}" if names.count(name) > 1 else name)
    return numbered


def checked(references: object, x: Tensor, baseline: BaselineLike, field: Field) -> Tensor:
    """References that are what ``baseline`` promised, or an error that says what they are
    instead."""
    return checked_references(
        references, x, f"The baseline {label_of(baseline)!r}", missing=field.takes_missing
    )
