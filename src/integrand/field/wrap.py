"""Fields around fields: the same scalar, seen through something."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..segment import Evaluation, Segment
from ..target import Distance, Target
from .base import Field


class _Wrapped(Field):
    """Hands everything on to ``inner``; the classes below change one thing each."""

    def __init__(self, inner: Field) -> None:
        self.inner = inner
        self.normalisation = inner.normalisation
        self.packer = inner.packer

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        return self.inner.evaluate(z, index, gradient=gradient)

    def share(self, segment: Segment) -> Tensor:
        return self.inner.share(segment)

    def score(self) -> Field:
        return self.inner.score()

    def outputs(self, z: Tensor) -> Tensor:
        return self.inner.outputs(z)

    def distance(self, goal: Tensor, index: Tensor, representation: Any = None) -> Distance:
        return self.inner.distance(goal, index, representation)

    def together(self, z: Tensor, index: Tensor, other: Target, other_index: Tensor) -> tuple[Evaluation, Evaluation]:
        return self.inner.together(z, index, other, other_index)

    def ready(self) -> AbstractContextManager[Any]:
        return self.inner.ready()


class Gathered(_Wrapped):
    """The field of a batch made of some of the inner field's examples, in any order and with repeats.

    ``Gathered(field, index)`` sees example ``index[i]`` of the inner field as its own example ``i``. This is how a ragged
    choice of (reference, example) pairs is integrated by paths and rules that only know full batches.
    """

    def __init__(self, inner: Field, index: Tensor) -> None:
        super().__init__(inner)
        self.index = index

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        return self.inner.evaluate(z, self.index[index], gradient=gradient)

    def score(self) -> Field:
        return Gathered(self.inner.score(), self.index)

    def distance(self, goal: Tensor, index: Tensor, representation: Any = None) -> Distance:
        return self.inner.distance(goal, self.index[index], representation)

    def together(self, z: Tensor, index: Tensor, other: Target, other_index: Tensor) -> tuple[Evaluation, Evaluation]:
        return self.inner.together(z, self.index[index], other, other_index)


@dataclass
class Tally:
    """What was asked of a field: rows with gradients, rows with values only, and calls made; ``expected`` gradients if known."""

    gradients: int = 0
    values: int = 0
    calls: int = 0
    expected: int | None = None


class Metered(_Wrapped):
    """The field, with everything that is asked of it counted; ``watch(tally)`` is called after every call."""

    def __init__(
        self,
        inner: Field,
        tally: Tally | None = None,
        watch: Callable[[Tally], None] | None = None,
    ) -> None:
        super().__init__(inner)
        self.tally = tally or Tally()
        self.watch = watch

    def _count(self, *, gradients: int = 0, values: int = 0, calls: int = 1) -> None:
        self.tally.gradients += gradients
        self.tally.values += values
        self.tally.calls += calls
        if self.watch:
            self.watch(self.tally)

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        found = self.inner.evaluate(z, index, gradient=gradient)
        self._count(**{"gradients" if gradient else "values": len(z)})
        return found

    def score(self) -> Field:
        return Metered(self.inner.score(), self.tally, self.watch)

    def outputs(self, z: Tensor) -> Tensor:
        found = self.inner.outputs(z)
        self._count(values=len(z))
        return found

    def distance(self, goal: Tensor, index: Tensor, representation: Any = None) -> Distance:
        found = self.inner.distance(goal, index, representation)
        self._count(values=len(goal))
        return found

    def together(self, z: Tensor, index: Tensor, other: Target, other_index: Tensor) -> tuple[Evaluation, Evaluation]:
        found = self.inner.together(z, index, other, other_index)
        # One joint row is one gradient of F; the second backward pass is the driver's.
        self._count(gradients=len(z))
        return found
