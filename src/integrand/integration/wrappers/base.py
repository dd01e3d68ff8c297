"""Shared code of wrappers: the method inside, several runs accounted for as one, their warnings
merged.

A wrapper is called like a Method, ``(field, x, *, watch=None) -> Attribution``, and holds what it
wraps as ``method``. Nothing else has to be known of it: who wants the baseline, the path or the
rule asks for the ``core``, who wants another one puts it there (``with_core``), through as many
wrappers as there are.
"""

from __future__ import annotations

import dataclasses
import functools
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...baselines.base import InParts, References, labels
from ...baselines.fixed import Given
from ...core.declared import name_of
from ...errors import InputError, IntegrandWarning, warn
from ...fields import Field
from ...fields.views import CallCount
from ...model.turns import turn, undone
from ..assemble import core, opened
from ..attribution import Attribution, Explainer, ExplainerLike, Watch, as_explainer
from ..cost import Cost, measured
from ..loop import checked_output
from ..method import Method


def nested(method: ExplainerLike) -> Iterator[Explainer]:
    """The method, what it wraps, what that wraps, and so on to the core."""
    explainer: Explainer | None = as_explainer(method)
    while explainer is not None:
        yield explainer
        explainer = explainer.inner


def with_core(method: ExplainerLike, change: Callable[[Any], ExplainerLike]) -> Explainer:
    """The same wrappers around another core."""
    explainer = as_explainer(method)
    if explainer.inner is None:
        return as_explainer(change(explainer))
    return explainer.with_inner(with_core(explainer.inner, change))


def check_wrappable(method: Explainer, who: str, *, layers: bool) -> None:
    """Refuse what has no baseline to start from, and layers where maps are needed in the space of
    the inputs."""
    if not isinstance(core(method), Method):
        raise InputError(
            f"{who} wraps a Method, such as ig.methods.integrated(…) makes, or a wrapper of one, not {name_of(method)}."
        )
    if not layers and method.explains == "layer":
        raise InputError(
            f"{who} explains the inputs, and {method!r} a layer: wrap the method that the layer takes."
        )


def one_call(explain: Callable[..., Attribution]) -> Callable[..., Attribution]:
    """For a wrapper's ``__call__``: its runs are one call of the library, for which the model is
    made ready, and its rows checked, once."""

    @functools.wraps(explain)
    def called(self: Any, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        with field.ready():
            return explain(self, field, x, watch=watch)

    return called


class FixedBaseline:
    """A field and inputs, and where a method starts from for them, asked for once.

    Attributes:
        x: (B, \\*s) in the type of the integration.
        references: (R, B, \\*s) of the method's baseline.
    """

    def __init__(self, method: Explainer, field: Field, x: Tensor) -> None:
        baseline = core(method).baseline
        self.x, self.meter = opened(field, x, None)
        with measured(self.meter, x.device) as stopwatch:
            self._references = References.of(baseline, self.x, self.meter)
        # What is made in parts is the same for any inputs, and made by whoever takes it.
        self._same_for_all_inputs = isinstance(baseline, InParts)
        self._names = labels(baseline, len(self._references))
        self._stopwatch = stopwatch

    @cached_property
    def references(self) -> Tensor:
        """(R, B, \\*s) all of them."""
        return self._references[:]

    def starting(self, method: Explainer, references: Tensor | None = None) -> Explainer:
        """The method with these references instead of its baseline, whatever the inputs then
        are."""
        if references is None and self._same_for_all_inputs:
            return method
        fixed = Given(self.references if references is None else references, names=self._names)
        return with_core(method, lambda inner: dataclasses.replace(inner, baseline=fixed))

    def output(self) -> Tensor:
        """F(x) (B,), asked for once."""
        with self.meter.ready():
            return checked_output(self.meter.value(self.x), self.meter)

    def outputs(self, example: Tensor) -> Tensor | None:
        """What the model says of some examples, where that is known by now."""
        outputs = None if self.meter.memory is None else self.meter.memory.outputs
        return None if outputs is None else outputs[example]

    @property
    def cost(self) -> Cost:
        return self._stopwatch.cost()


class Runs:
    """Several runs, one after the other: watched and accounted for as one."""

    def __init__(self, watch: Watch | None, expected: int | None = None) -> None:
        self.cost = Cost()
        self._watch = watch
        self._expected = expected

    def __call__(self, method: Explainer, field: Field, x: Tensor) -> Attribution:
        cost_before = self.cost

        def watched(tally: CallCount) -> None:
            assert self._watch is not None
            expected = (
                None
                if tally.expected is None or self._expected is None
                else tally.expected * self._expected
            )
            counts = (
                cost_before.gradients + tally.gradients,
                cost_before.values + tally.values,
                cost_before.calls + tally.calls,
            )
            self._watch(CallCount(*counts, expected))

        attribution = method(field, x, watch=watched if self._watch else None)
        self.add(attribution.cost)
        return attribution

    def add(self, cost: Cost) -> None:
        """Something else that it took."""
        self.cost += cost


def same_start(begin: Tensor, references: Tensor) -> bool:
    """Whether paths began at the references, or the first of them where not all were taken."""
    first = references[: len(begin)]
    return begin.shape == first.shape and torch.equal(begin, first)


class RepeatedWarnings:
    """Warnings of runs of one kind, one after the other: the first of each category is given at
    the end of its run, and how many there were, once, at the end of all.

    with RepeatedWarnings() as repeated:
        for …:
            with repeated.collected():
                …                           one run, and what keeps its result
    """

    _under_way: ClassVar[int] = 0
    """How many are collecting, one inside the other: the outermost counts all runs."""

    def __init__(self) -> None:
        self._caught: list[warnings.WarningMessage] = []
        self._told: dict[type[IntegrandWarning], str] = {}
        """The first of each category."""
        self._times: Counter[type[Warning]] = Counter()
        self._told_times: Counter[type[Warning]] = Counter()
        """How many there were, and how many of these the reader has been told of."""

    def __enter__(self) -> RepeatedWarnings:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._tell()
            self._tell_counts()
        else:  # which is what is raised, even where warnings are errors
            for tell in (self._tell, self._tell_counts):
                with suppress(Warning):
                    tell()

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Of one run, warnings are kept until its end."""
        # Filters are those of the whole process: two threads that change them at once would leave
        # them changed.
        with turn():
            if RepeatedWarnings._under_way:
                yield
                return
            with undone(self._end), warnings.catch_warnings(record=True) as caught:
                RepeatedWarnings._under_way += 1
                warnings.simplefilter("always")
                try:
                    yield
                finally:
                    self._caught += caught
        self._tell()  # before the next run, which may be the one that somebody stops

    @staticmethod
    def _end() -> None:
        RepeatedWarnings._under_way -= 1

    def _tell(self) -> None:
        """Give what was caught since, of each category the first there is."""
        caught, self._caught = self._caught, []
        times = Counter(warning.category for warning in caught)
        self._times += times
        for warning in caught:
            category = warning.category
            if not issubclass(category, IntegrandWarning):
                warnings.warn_explicit(warning.message, category, warning.filename, warning.lineno)
            elif category not in self._told:
                self._told[category] = str(warning.message)
                self._told_times[category] = times[category]
                again = (
                    f" (the first of {times[category]} such warnings of single runs)"
                    if times[category] > 1
                    else ""
                )
                warn(f"{warning.message}{again}", category)

    def _tell_counts(self) -> None:
        """Say how many there were where that is more than was told with the first, which is
        recalled by its first words."""
        for category, first in self._told.items():
            if self._times[category] > self._told_times[category]:
                self._told_times[category] = self._times[category]
                recalled = textwrap.shorten(first, 60, placeholder=" …")
                warn(
                    f"{recalled} ({self._times[category]} such warnings of single runs in all)",
                    category,
                )


@contextmanager
def warned_once() -> Iterator[None]:
    """Collect warnings of repeated runs inside one call, whose result is not kept before all are
    there, and re-issue each once, with its count."""
    with RepeatedWarnings() as repeated, repeated.collected():
        yield


def nan_like(error: Tensor) -> Tensor:
    """Errors that nobody estimates."""
    return torch.full_like(error, float("nan"))
