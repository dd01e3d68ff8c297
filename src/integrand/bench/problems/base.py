"""Problem: a model, examples, and the names that suite files use for its data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.normalisation import Normalisation
from ...core.random import generator
from ...errors import MissingData, UnknownName
from ...fields import Field
from ...metrics import Subject


@dataclass(frozen=True, eq=False)
class Examples:
    """Some examples x (B, \\*s), with what the model wants beside them, and masks where the
    evidence is known to be.

    field  what is explained, where it differs between examples as it does for graphs, which are
           part of it; else the problem's model and target
    words  what recipes may say of these examples, beside the problem's words
    """

    x: Tensor
    extra: tuple[Tensor, ...] = ()
    masks: Tensor | None = None
    field: Field | None = None
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Problem:
    """A model and examples to explain it on.

    ids     what the examples are called, in the order they are taken: shuffled once, so that the
            first hundred are a fair sample
    load    numbers of examples → those examples
    words   what recipes may say: references, baselines, distributions
    facts   what a reader should know: data, accuracy of a model that was trained here
    optimize  whether a faster copy of the model is run, as ``explain(optimize=True)`` does
    """

    name: str
    model: Callable[..., Any]
    ids: tuple[str, ...]
    load: Callable[[Sequence[int]], Examples]
    target: Any = "predicted"
    normalisation: Normalisation | None = None
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimize: bool = False

    def subject(self, numbers: Sequence[int]) -> AbstractContextManager[Subject]:
        """The examples with these numbers, loaded once, as what methods are judged on while the
        model is fit to be asked."""
        return self.subject_of(self.load(numbers))

    def subject_of(self, examples: Examples) -> AbstractContextManager[Subject]:
        """As ``subject``, of examples that are loaded already."""
        if examples.field is not None:
            return Subject.of(examples.field, examples.x, masks=examples.masks)
        return Subject.of(
            self.model,
            examples.x,
            self.target,
            masks=examples.masks,
            extra=examples.extra,
            normalisation=self.normalisation,
            optimize=self.optimize,
        )


@dataclass(frozen=True)
class ProblemOptions:
    """What problems are set up with.

    data   a folder or a file of examples, for problems that do not bring their own
    cache  where models trained here are kept
    """

    data: Path | None = None
    cache: Path = Path("bench-cache")
    seed: int = 0

    def needed(self, who: str, what: str) -> Path:
        """The data.

        Raises:
            MissingData: where there are none.
        """
        if self.data is None or not self.data.exists():
            raise MissingData(f"{who} needs --data: {what}; {self.data or 'nothing'} was given.")
        return self.data


Build = Callable[..., Problem]
_PROBLEMS: dict[str, Build] = {}


def problem(name: str) -> Callable[[Build], Build]:
    """Register a function (setting, **options) → Problem under the name that recipes use."""

    def register(build: Build) -> Build:
        _PROBLEMS[name] = build
        return build

    return register


def problem_named(name: str) -> Build:
    """The problem that recipes call ``name``.

    Raises:
        UnknownName: where there is none.
    """
    if name not in _PROBLEMS:
        raise UnknownName("problem", name, _PROBLEMS)
    return _PROBLEMS[name]


def shuffled(count: int, seed: int) -> list[int]:
    """The numbers below ``count`` in a seeded order."""
    order: list[int] = torch.randperm(count, generator=generator(seed, 7)).tolist()
    return order
