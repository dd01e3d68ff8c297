"""Views of a field: subset of examples, dtype cast, call counting."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..backprop.modified.base import BackwardRule
from ..core.normalisation import Normalisation
from ..core.segment import Curvature, Evaluation, Segment
from ..model.batching import is_out_of_memory
from ..model.flow import LayerFlow
from ..model.layout import Layout
from ..model.network import Network, Representation, SiteLike
from ..model.row_independence import Answer, RowCheck
from ..targets import Target, TargetLike, as_target
from .base import Decomposition, Field
from .memory import OutputCache


class View(Field):
    """A field seen through something: everything is handed on to ``inner``, and a view says only
    what it changes.

        index    z                                    examples and rows, as this view is asked about them
          │ _index │ _rows
        inner.evaluate(…)   ──▶ _results ──▶ what is handed out;   _seen is told of it

    _index    the inner field's numbers of these examples           _results  numbers as they are handed out
    _rows     rows as the inner field takes them                    _seen     what has been asked, for those that count
    _like     the same view of another field                        _known    the model's outputs, where nobody need be asked

    What belongs to inputs rather than to F, the ``memory``, is each view's own.
    """

    def __init__(self, inner: Field) -> None:
        self.inner = inner
        self.packer = inner.packer

    # --- what a view may change -----------------------------------------------------------------------------------

    def _index(self, index: Tensor) -> Tensor:
        return index

    def _rows(self, z: Tensor) -> Tensor:
        return z

    def _results(self, z: Tensor, evaluation: Evaluation) -> Evaluation:
        return evaluation

    def _seen(
        self,
        z: Tensor,
        index: Tensor | None,
        value: Tensor | None = None,
        *,
        gradient: bool = False,
        passes: int = 1,
    ) -> None:
        """Rows ``z`` were asked about, ``passes`` times, and F there is ``value`` where that was
        the question; of no example for None."""

    def _known(self, z: Tensor, leading: int) -> Tensor | None:
        return None

    def _like(self, inner: Field) -> View:
        view = copy.copy(self)
        View.__init__(view, inner)
        return view

    # --- F --------------------------------------------------------------------------------------------------------

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        evaluation = self._results(
            z, self.inner.evaluate(self._rows(z), self._index(index), gradient=gradient)
        )
        self._seen(z, index, evaluation.value, gradient=gradient)
        return evaluation

    def evaluate_both(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        main, extra = self.inner.evaluate_both(
            self._rows(z), self._index(index), other, other_index
        )
        main = self._results(z, main)
        # One joint row is one gradient of F; the second backward pass is the driver's.
        self._seen(z, index, main.value, gradient=True)
        return main, self._results(z, extra)

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        evaluation = self._results(
            z, self.inner.evaluate_chords(self._rows(z), self._index(index), before)
        )
        self._seen(z, index, evaluation.value, gradient=True, passes=evaluation.passes)
        return evaluation

    def curvature(self, z: Tensor, index: Tensor, directions: Tensor) -> Curvature:
        curvature = self.inner.curvature(self._rows(z), self._index(index), self._rows(directions))
        first = self._results(z, Evaluation(curvature.value, curvature.gradient))
        # A gradient for F itself, and one for each direction.
        self._seen(z, index, first.value, gradient=True, passes=1 + len(directions))
        return Curvature(first.value, first.gradient, curvature.products.to(z.dtype))

    def kinked_operations(self, z: Tensor, index: Tensor) -> tuple[str, ...]:
        names = self.inner.kinked_operations(self._rows(z), self._index(index))
        self._seen(z, index)
        return names

    def attached(self, z: Tensor, index: Tensor) -> Evaluation:
        evaluation = self._results(z, self.inner.attached(self._rows(z), self._index(index)))
        self._seen(z, index, gradient=True)
        return evaluation

    def value(self, z: Tensor, leading: int = 1) -> Tensor:
        outputs = self._known(z, leading) if self.reads else None
        return super().value(z, leading) if outputs is None else _read(self, outputs, z, leading)

    def share(self, segment: Segment) -> Tensor:
        return self.inner.share(segment)

    def line_covariance(self, start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
        return self.inner.line_covariance(start, end, weights)

    def flow(self, z: Tensor, index: Tensor, direction: Tensor, sites: Sequence[Any]) -> LayerFlow:
        flow = self.inner.flow(self._rows(z), self._index(index), self._rows(direction), sites)
        self._seen(z, index, gradient=True)
        return flow.to(z.dtype)

    def decomposed(self, segment: Segment, index: Tensor) -> Decomposition | None:
        parts = self.inner.decomposed(segment, self._index(index))
        if parts is None:
            return None
        smooth = [replace(part, field=self._over(part.field)) for part in parts.smooth]
        return replace(parts, smooth=smooth)

    def _over(self, part: Field) -> Field:
        """The same view of a smooth part of F, which numbers examples in its own way."""
        return self._like(part)

    def again(self, z: Tensor, index: Tensor) -> Answer:
        answer = self.inner.again(self._rows(z), self._index(index))
        self._seen(z, None)  # asked once, for all
        return replace(answer, value=answer.value.to(z.dtype))

    def look(self, z: Tensor, index: Tensor | None, site: Representation | None = None) -> Tensor:
        activations = self.inner.look(
            self._rows(z), None if index is None else self._index(index), site
        )
        if not callable(site):  # a function of the input is seen without the model
            self._seen(z, index)
        return activations

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        return self.inner.read(outputs, self._index(index))

    # --- what is known of it --------------------------------------------------------------------------------------

    # Plain attributes of other fields. A view looks them up, so that none can be out of date.
    @property
    def normalisation(self) -> Normalisation | None:  # type: ignore[override]
        return self.inner.normalisation

    @property
    def layout(self) -> Layout | None:  # type: ignore[override]
        return self.inner.layout

    @property
    def target(self) -> Target | None:  # type: ignore[override]
        return self.inner.target

    @property
    def network(self) -> Network | None:  # type: ignore[override]
        return self.inner.network

    @property
    def input_dtype(self) -> torch.dtype | None:
        return self.inner.input_dtype

    @property
    def kept(self) -> dict[Any, Any] | None:
        return self.inner.kept

    @property
    def row_check(self) -> RowCheck | None:
        return self.inner.row_check

    @property
    def gated(self) -> bool:
        return self.inner.gated

    @property
    def smooth(self) -> bool:
        return self.inner.smooth

    @property
    def resolution(self) -> float:
        return self.inner.resolution

    @property
    def integers(self) -> bool:
        return self.inner.integers

    @property
    def exact(self) -> bool:
        return self.inner.exact

    @property
    def flat(self) -> bool:
        return self.inner.flat

    @property
    def jumps(self) -> bool:
        return self.inner.jumps

    @property
    def takes_missing(self) -> bool:
        return self.inner.takes_missing

    @property
    def sign_decides(self) -> bool:
        return self.inner.sign_decides

    @property
    def columns(self) -> Sequence[str]:
        return self.inner.columns

    @property
    def additive(self) -> Sequence[Any] | None:
        return self.inner.additive

    @property
    def conservative(self) -> bool:
        return self.inner.conservative

    @property
    def reads(self) -> bool:
        return self.inner.reads

    @property
    def pooled(self) -> bool:
        return self.inner.pooled

    def points(self, index: Tensor) -> Tensor:
        return self.inner.points(self._index(index))

    def questions(self, index: Tensor) -> Tensor:
        return self.inner.questions(self._index(index))

    def example_name(self, example: int) -> str:
        return self.inner.example_name(int(self._index(torch.tensor([example]))))

    def trouble(self, start: Tensor, end: Tensor, index: Tensor) -> str | None:
        return self.inner.trouble(self._rows(start), self._rows(end), self._index(index))

    # --- the model ------------------------------------------------------------------------------------------------

    def site(
        self, representation: Representation | None, z: Tensor, index: Tensor
    ) -> Representation | None:
        return self.inner.site(representation, self._rows(z), self._index(index))

    def plainly(self, z: Tensor, index: Tensor | None) -> Any:
        return self.inner.plainly(self._rows(z), None if index is None else self._index(index))

    def ready(self) -> AbstractContextManager[Any]:
        return self.inner.ready()

    def trainable(self) -> AbstractContextManager[Any]:
        return self.inner.trainable()

    # --- other fields, seen in the same way -----------------------------------------------------------------------

    def score(self) -> Field:
        return self._like(self.inner.score())

    def behind(self, site: SiteLike | Sequence[SiteLike], side: str = "output") -> Any:
        return LayerView(self, self.inner.behind(site, side))

    def with_backward(self, rule: BackwardRule) -> Field:
        return self._like(self.inner.with_backward(rule))

    def with_softplus(self, beta: float) -> Field:
        return self._forgetful(self.inner.with_softplus(beta))

    def with_target(self, target: TargetLike) -> Field:
        return self._like(self.inner.with_target(target))

    def with_targets(self, targets: Sequence[Target]) -> Field:
        return self._like(self.inner.with_targets(targets))

    def with_model(self, model: Callable[..., Any]) -> Field:
        return self._forgetful(self.inner.with_model(model))

    def afresh(self) -> Field:
        return self._forgetful(self.inner.afresh())

    def _forgetful(self, inner: Field) -> View:
        """The same view of a field whose model says other things of the same inputs."""
        view = self._like(inner)
        view.memory = None
        return view


def innermost(field: Field) -> Field:
    """What a field is a view of, through as many views as there are."""
    while isinstance(field, View):
        field = field.inner
    return field


class Subset(View):
    """The field of a batch made of some of the inner field's examples, in any order and with
    repeats.

    ``Subset(field, index)`` sees example ``index[i]`` of the inner field as its own example ``i``.
    This is how a ragged choice of (reference, example) pairs is integrated by paths and rules that
    only know full batches.

    Args:
        inner: the field of all examples.
        index: (B,) which of them are these.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.TorchField(torch.nn.Linear(4, 3), torch.tensor([0, 1, 2]))
        >>> ig.fields.Subset(field, torch.tensor([2, 2])).target
        Logit(tensor<2>)
    """

    def __init__(self, inner: Field, index: Tensor) -> None:
        super().__init__(inner)
        self.index = index

    def _index(self, index: Tensor) -> Tensor:
        return self.index[index]

    @property
    def target(self) -> Target | None:  # type: ignore[override]
        return None if self.inner.target is None else self.inner.target.at(self.index)

    def with_target(self, target: TargetLike) -> Field:
        return self._like(self.inner.with_target(as_target(target).of_batch(self.index)))

    def with_targets(self, targets: Sequence[Target]) -> Field:
        count = len(targets)
        several = self.inner.with_targets([target.of_batch(self.index) for target in targets])
        place = self.index[:, None] * count + torch.arange(count, device=self.index.device)
        return Subset(several, place.reshape(-1))

    def share(self, segment: Segment) -> Tensor:
        """Exact fields take every example of a batch, in its place: repeated examples go one after
        the other."""
        if torch.equal(self.index, torch.arange(len(self.index), device=self.index.device)):
            return self.inner.share(segment)
        shares = torch.empty_like(segment.start)
        turn = (
            (self.index[:, None] == self.index).tril(-1).sum(1)
        )  # how often each was there before
        for number in range(int(turn.max()) + 1):
            entries = (turn == number).nonzero()[:, 0]
            place = torch.zeros(
                int(self.index[entries].max()) + 1, dtype=torch.long, device=self.index.device
            )
            place[self.index[entries]] = entries
            ends = replace(segment, start=segment.start[:, :, place], end=segment.end[:, :, place])
            shares[:, :, entries] = self.inner.share(
                replace(ends, at_start=None, at_end=None, notes={}, weights=None)
            )[:, :, self.index[entries]]
        return shares

    def _over(self, part: Field) -> Field:
        return part

    def _known(self, z: Tensor, leading: int) -> Tensor | None:
        return _shared(self, z, leading)


class Cast(View):
    """The inner field asked in a narrower type than the integration is done in: half-precision
    models, float32 maps.

    Args:
        inner: the field of the model.
        dtype: what its rows are converted to.
    """

    def __init__(self, inner: Field, dtype: torch.dtype) -> None:
        super().__init__(inner)
        self.dtype = dtype

    @property
    def resolution(self) -> float:
        return max(self.inner.resolution, torch.finfo(self.dtype).eps)

    def _rows(self, z: Tensor) -> Tensor:
        return z.to(self.dtype)

    def _results(self, z: Tensor, evaluation: Evaluation) -> Evaluation:
        return replace(
            evaluation, value=evaluation.value.to(z.dtype), gradient=evaluation.gradient.to(z.dtype)
        )


@dataclass
class CallCount:
    """What was asked of a field: rows with gradients, rows with values only, and calls made;
    ``expected`` gradients if known."""

    gradients: int = 0
    values: int = 0
    calls: int = 0
    expected: int | None = None


class CountedField(View):
    """The field, with everything that is asked of it counted; ``watch(tally)`` is called after
    every call.

    What the model said of the inputs in ``memory`` is not asked again, and what it says of
    references that all examples share is asked once for all of them.
    """

    def __init__(
        self,
        inner: Field,
        tally: CallCount | None = None,
        watch: Callable[[CallCount], None] | None = None,
        memory: OutputCache | None = None,
    ) -> None:
        super().__init__(inner)
        self.tally = tally or CallCount()
        self.watch = watch
        self.memory = memory
        self._default_site: Representation | None = None
        self._kept: dict[Any, Any] = {}

    @property
    def kept(self) -> dict[Any, Any]:
        """A meter lives for one call of a method."""
        return self._kept

    def _like(self, inner: Field) -> CountedField:
        return CountedField(inner, self.tally, self.watch, self.memory)

    def _over(self, part: Field) -> Field:
        return CountedField(part, self.tally, self.watch)

    def _seen(
        self,
        z: Tensor,
        index: Tensor | None,
        value: Tensor | None = None,
        *,
        gradient: bool = False,
        passes: int = 1,
    ) -> None:
        if gradient:
            self.tally.gradients += passes * len(z)
        else:
            self.tally.values += passes * len(z)
        self.tally.calls += passes
        if self.watch:
            self.watch(self.tally)
        if value is not None and index is not None:
            self.check(z, index, value)

    def check(self, z: Tensor, index: Tensor, value: Tensor) -> None:
        """Whether the answers ``value`` (N,) to rows ``z`` (N, \\*s) of one call were about each
        row alone; asked once per call of the library."""
        row_check = self.row_check
        if row_check is not None and row_check.unchecked:
            try:
                row_check.check(
                    self.again,
                    z,
                    index,
                    value,
                    most=self.packer.rows,
                    whole=self.integers,
                    example_name=self.example_name,
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):  # one row fits where two do not
                    raise

    def _known(self, z: Tensor, leading: int) -> Tensor | None:
        """The model's outputs, a row for each of z's, where they are known or shared by all
        examples; None elsewhere."""
        memory = self.memory
        if memory is not None and z is memory.x:
            if memory.outputs is None:
                memory.outputs = self.outputs(z)
            return memory.outputs
        return _shared(self, z, leading)

    def ends(self, x: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """As of any field, in one call: a call of few rows costs as much as that of one."""
        memory = self.memory if self.memory is not None and self.memory.x is x else None
        known = self.reads and memory is not None and memory.outputs is not None
        if known or _is_shared(self, starts, 2):
            return super().ends(x, starts)
        batch, outputs = len(x), list[Tensor]()
        index = torch.arange(batch, device=x.device).repeat(1 + len(starts))
        value = x.new_empty(len(index))

        def call(part: slice) -> None:
            z, examples = _end_rows(x, starts, part), index[part]
            if self.reads:
                said = self.look(z, examples)
                value[part] = self.read(said, examples).to(value.dtype)
                if part.start < batch:
                    outputs.append(said[: batch - part.start])
            else:
                value[part] = self.evaluate(z, examples, gradient=False).value

        self._run(index, call, x[0], "value")
        if not bool(torch.isfinite(value).all()):  # asked apart, they say where it begins
            return super().ends(x, starts)
        if memory is not None and outputs:
            memory.outputs = torch.cat(outputs)
        return value[:batch], value[batch:].reshape(starts.shape[:2])

    def site(
        self, representation: Representation | None, z: Tensor, index: Tensor
    ) -> Representation | None:
        if representation is not None:
            return super().site(representation, z, index)
        if self._default_site is None:  # found by running a row, once
            self._default_site = super().site(None, z, index)
            self._seen(z, index)
        return self._default_site


class LayerView(View):
    """What is behind a layer of the model that ``outer`` is a view of: rows are lifted through the
    view.

    Its examples are the rows that it holds, as those of ``inner`` are, so that nothing but lifting
    needs the view.
    """

    inner: Any

    def __init__(self, outer: View, inner: Any) -> None:
        super().__init__(inner)
        self.outer = outer

    @property
    def sites(self) -> Any:
        return self.inner.sites

    @property
    def plan(self) -> Any:
        return self.inner.plan

    @property
    def bypassed(self) -> bool:
        return bool(self.inner.bypassed)

    @property
    def tally(self) -> CallCount:
        tally: CallCount = self.inner.tally
        return tally

    def lift(self, z: Tensor, index: Tensor) -> Any:
        """Rows ``z`` (N, \\*s) of the examples ``index`` (N,) of the view, run through the whole
        model."""
        return self.inner.lift(self.outer._rows(z), self.outer._index(index))

    def hold(self, *lifted: Any) -> None:
        """From now on, these rows are the examples 0, 1, 2 …"""
        self.inner.hold(*lifted)


def _shared(field: Field, z: Tensor, leading: int) -> Tensor | None:
    """The model's outputs, a row for each of z's (R, B, \\*s), where all examples share them and
    they are asked once; else None."""
    if _is_shared(field, z, leading):
        return field.outputs(z[:, 0], pool=True).repeat_interleave(z.shape[1], 0)
    return None


def _is_shared(field: Field, z: Tensor, leading: int) -> bool:
    """Whether all examples share each of z's rows (R, B, \\*s), which are then asked about once."""
    return leading == 2 and z.shape[1] > 1 and z.stride(1) == 0 and field.pooled


def _end_rows(x: Tensor, starts: Tensor, part: slice) -> Tensor:
    """Some of the rows of x (B, \\*s) and starts (R, B, \\*s), flat; starts that are broadcast are
    not copied to pick them."""
    number = torch.arange(part.start, part.stop, device=x.device)
    ends, begins = number[number < len(x)], number[number >= len(x)] - len(x)
    return torch.cat([x[ends], starts[begins // len(x), begins % len(x)].to(x.dtype)])


def _read(field: Field, outputs: Tensor, z: Tensor, leading: int) -> Tensor:
    """F read off the model's outputs for stacks of batches z."""
    examples = (
        torch.arange(z.shape[leading - 1], device=z.device).expand(z.shape[:leading]).reshape(-1)
    )
    return field.read(outputs, examples).reshape(z.shape[:leading]).to(z.dtype)


Field._subset = Subset
