"""Fields around fields: the same scalar, seen through something."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..segment import Evaluation, Segment
from ..target import Target
from .base import Field
from .company import Answer, Company
from .memory import Memory
from .packing import is_out_of_memory


class _Wrapped(Field):
    """Hands everything on to ``inner``; the classes below change one thing each."""

    def __init__(self, inner: Field) -> None:
        self.inner = inner
        self.normalisation = inner.normalisation
        self.layout = inner.layout
        self.packer = inner.packer

    @property
    def company(self) -> Company | None:
        return self.inner.company

    def again(self, z: Tensor, index: Tensor) -> Answer:
        return self.inner.again(z, index)

    @property
    def smooth(self) -> bool:
        return self.inner.smooth

    @property
    def resolution(self) -> float:
        return self.inner.resolution

    @property
    def gated(self) -> bool:
        return self.inner.gated

    @property
    def integers(self) -> bool:
        return self.inner.integers

    @property
    def conservative(self) -> bool:
        return self.inner.conservative

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        return self.inner.evaluate(z, index, gradient=gradient)

    def share(self, segment: Segment) -> Tensor:
        return self.inner.share(segment)

    def score(self) -> Field:
        return self.inner.score()

    def evaluate_both(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        return self.inner.evaluate_both(z, index, other, other_index)

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        return self.inner.evaluate_chords(z, index, before)

    def points(self, index: Tensor) -> Tensor:
        return self.inner.points(index)

    def questions(self, index: Tensor) -> Tensor:
        return self.inner.questions(index)

    def look(self, z: Tensor, index: Tensor | None, site: Any = None) -> Tensor:
        return self.inner.look(z, index, site)

    def site(self, representation: Any, z: Tensor, index: Tensor) -> Any:
        return self.inner.site(representation, z, index)

    @property
    def reads(self) -> bool:
        return self.inner.reads

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        return self.inner.read(outputs, index)

    @property
    def pooled(self) -> bool:
        return self.inner.pooled

    def trouble(self, start: Tensor, end: Tensor, index: Tensor) -> str | None:
        return self.inner.trouble(start, end, index)

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

    def evaluate_both(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        return self.inner.evaluate_both(z, self.index[index], other, other_index)

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        return self.inner.evaluate_chords(z, self.index[index], before)

    def points(self, index: Tensor) -> Tensor:
        return self.inner.points(self.index[index])

    def questions(self, index: Tensor) -> Tensor:
        return self.inner.questions(self.index[index])

    def again(self, z: Tensor, index: Tensor) -> Answer:
        return self.inner.again(z, self.index[index])

    def look(self, z: Tensor, index: Tensor | None, site: Any = None) -> Tensor:
        return self.inner.look(z, None if index is None else self.index[index], site)

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        return self.inner.read(outputs, self.index[index])

    def value(self, z: Tensor, leading: int = 1) -> Tensor:
        outputs = _shared(self, z, leading) if self.reads else None
        return super().value(z, leading) if outputs is None else _read(self, outputs, z, leading)

    def trouble(self, start: Tensor, end: Tensor, index: Tensor) -> str | None:
        return self.inner.trouble(start, end, self.index[index])

    def site(self, representation: Any, z: Tensor, index: Tensor) -> Any:
        return self.inner.site(representation, z, self.index[index])


class Narrowed(_Wrapped):
    """The inner field asked in a narrower type than the integration is done in: half-precision models, float32 maps."""

    def __init__(self, inner: Field, dtype: torch.dtype) -> None:
        super().__init__(inner)
        self.dtype = dtype

    @property
    def resolution(self) -> float:
        return max(self.inner.resolution, torch.finfo(self.dtype).eps)

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        return _as(z, self.inner.evaluate(z.to(self.dtype), index, gradient=gradient))

    def score(self) -> Field:
        return Narrowed(self.inner.score(), self.dtype)

    def evaluate_both(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        own, theirs = self.inner.evaluate_both(z.to(self.dtype), index, other, other_index)
        return _as(z, own), _as(z, theirs)

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        return _as(z, self.inner.evaluate_chords(z.to(self.dtype), index, before))

    def look(self, z: Tensor, index: Tensor | None, site: Any = None) -> Tensor:
        return self.inner.look(z.to(self.dtype), index, site)

    def again(self, z: Tensor, index: Tensor) -> Answer:
        found = self.inner.again(z.to(self.dtype), index)
        return replace(found, value=found.value.to(z.dtype))

    def trouble(self, start: Tensor, end: Tensor, index: Tensor) -> str | None:
        return self.inner.trouble(start.to(self.dtype), end.to(self.dtype), index)

    def site(self, representation: Any, z: Tensor, index: Tensor) -> Any:
        return self.inner.site(representation, z.to(self.dtype), index)


def _as(z: Tensor, found: Evaluation) -> Evaluation:
    return replace(found, value=found.value.to(z.dtype), gradient=found.gradient.to(z.dtype))


@dataclass
class Tally:
    """What was asked of a field: rows with gradients, rows with values only, and calls made; ``expected`` gradients if known."""

    gradients: int = 0
    values: int = 0
    calls: int = 0
    expected: int | None = None


class Metered(_Wrapped):
    """The field, with everything that is asked of it counted; ``watch(tally)`` is called after every call.

    What the model said of the inputs in ``memory`` is not asked again, and what it says of references that all examples share
    is asked once for all of them.
    """

    def __init__(
        self,
        inner: Field,
        tally: Tally | None = None,
        watch: Callable[[Tally], None] | None = None,
        memory: Memory | None = None,
    ) -> None:
        super().__init__(inner)
        self.tally = tally or Tally()
        self.watch = watch
        self.memory = memory
        self._default_site: Any = None

    def _count(self, *, gradients: int = 0, values: int = 0, calls: int = 1) -> None:
        self.tally.gradients += gradients
        self.tally.values += values
        self.tally.calls += calls
        if self.watch:
            self.watch(self.tally)

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        found = self.inner.evaluate(z, index, gradient=gradient)
        self._count(**{"gradients" if gradient else "values": len(z)})
        self.check(z, index, found.value)
        return found

    def again(self, z: Tensor, index: Tensor) -> Answer:
        found = self.inner.again(z, index)
        self._count(values=len(z))
        return found

    def check(self, z: Tensor, index: Tensor, value: Tensor) -> None:
        """Whether the answers ``value`` (N,) to rows ``z`` (N, \\*s) of one call were about each row alone; asked once per call of the library."""
        company = self.company
        if company is not None and company.unchecked:
            try:
                company.check(self.again, z, index, value, most=self.packer.rows, whole=self.integers)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):  # one row fits where two do not
                    raise

    def score(self) -> Field:
        return Metered(self.inner.score(), self.tally, self.watch, self.memory)

    def value(self, z: Tensor, leading: int = 1) -> Tensor:
        outputs = self._known(z, leading) if self.reads else None
        return super().value(z, leading) if outputs is None else _read(self, outputs, z, leading)

    def _known(self, z: Tensor, leading: int) -> Tensor | None:
        """The model's outputs, a row for each of z's, where they are known or shared by all examples; None elsewhere."""
        memory = self.memory
        if memory is not None and z is memory.x:
            if memory.outputs is None:
                memory.outputs = self.outputs(z)
            return memory.outputs
        return _shared(self, z, leading)

    def evaluate_both(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        found = self.inner.evaluate_both(z, index, other, other_index)
        # One joint row is one gradient of F; the second backward pass is the driver's.
        self._count(gradients=len(z))
        self.check(z, index, found[0].value)
        return found

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        found = self.inner.evaluate_chords(z, index, before)
        self._count(gradients=found.passes * len(z), calls=found.passes)
        self.check(z, index, found.value)
        return found

    def look(self, z: Tensor, index: Tensor | None, site: Any = None) -> Tensor:
        found = self.inner.look(z, index, site)
        if not callable(site):  # a function of the input is seen without the model
            self._count(values=len(z))
        return found

    def site(self, representation: Any, z: Tensor, index: Tensor) -> Any:
        if representation is not None:
            return self.inner.site(representation, z, index)
        if self._default_site is None:  # found by running a row, once
            self._default_site = self.inner.site(None, z, index)
            self._count(values=len(z))
        return self._default_site


def _shared(field: Field, z: Tensor, leading: int) -> Tensor | None:
    """The model's outputs, a row for each of z's (R, B, \\*s), where all examples share them and they are asked once; else None."""
    if leading == 2 and z.shape[1] > 1 and z.stride(1) == 0 and field.pooled:
        return field.outputs(z[:, 0], pool=True).repeat_interleave(z.shape[1], 0)
    return None


def _read(field: Field, outputs: Tensor, z: Tensor, leading: int) -> Tensor:
    """F read off the model's outputs for stacks of batches z."""
    examples = torch.arange(z.shape[leading - 1], device=z.device).expand(z.shape[:leading]).reshape(-1)
    return field.read(outputs, examples).reshape(z.shape[:leading]).to(z.dtype)
