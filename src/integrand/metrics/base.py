"""The base class of metrics, their registry, and their functional forms.

A metric is a frozen value with one required method, ``measure(subject, maps)``: a number (M, B) or
a curve (M, B, \\*t) for each map of each example. The rest is pure arithmetic on these: ``values``
gives one number per example, ``summary`` one per method. That is why shards merge by concatenating
their examples (``Running``), and why metrics whose summary is no mean, such as the area under a
median curve, need nothing special.

Metrics that look at the map alone ignore the subject's field; metrics of evidence ask
``subject.evidence()``; metrics that explain again ask ``maps.explainers()``. Nothing is handed over
that a metric has to know about and does not use.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from ..core.features import Features
from ..core.segment import Evaluation
from ..errors import InputError, ModelError, UnknownName
from ..fields import Field
from ..integration.attribution import Attribution
from ..methods import about as about_method
from ..model.doors import known_options
from ..model.layout import InputsLike, Layout
from ..targets import TargetLike
from .maps import Explainer, Maps, MapsLike
from .task import Subject


class Metric(ABC):
    """A criterion by which maps are scored. Subclasses are frozen ``@part`` values."""

    name: ClassVar[str] = ""
    """What it is called; ``metric(name)`` fills it in."""

    higher: ClassVar[bool]
    """Whether higher is better."""

    @abstractmethod
    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """Measure every map of every example: (M, B), or (M, B, \\*t) for curves.

        Args:
            subject: the inputs, the scalar explained and what else is known of the examples.
            maps: M maps of its B examples.
        """

    def values(self, measured: Tensor) -> Tensor:
        """One number per map and example (M, B); NaN where there is none to give."""
        return measured

    def summary(self, measured: Tensor) -> Tensor:
        """One number per method (M,): the mean of the examples that have a value."""
        return self.values(measured).nanmean(1)

    def __call__(self, subject: Subject, maps: Maps) -> Tensor:
        return self.values(self.measure(subject, maps))


MetricLike = Metric | type[Metric] | Callable[..., Tensor] | str
"""A metric as people give it: itself, its class, its functional form, or a name."""

_METRICS: dict[str, type[Metric]] = {}

C = TypeVar("C", bound=type[Metric])


def metric(name: str) -> Callable[[C], C]:
    """Register the decorated class under the name that ``compare`` and recipes use.

    Raises:
        InputError: for a class that does not say whether higher is better.
    """

    def register(cls: C) -> C:
        if not hasattr(cls, "higher"):
            raise InputError(
                f"Metric {name!r} does not say whether higher is better: give {cls.__name__} the line "
                "higher: ClassVar[bool] = True, or False."
            )
        cls.name = name
        _METRICS[name] = cls
        return cls

    return register


def known() -> dict[str, type[Metric]]:
    """All registered metrics, by name."""
    return dict(_METRICS)


def as_metric(metric: MetricLike) -> Metric:
    """Convert a name, a metric, its class, or a function of ``ig.metrics`` to a metric.

    Raises:
        UnknownName: for a name that no metric has.
        InputError: for anything else.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in _METRICS:
            raise UnknownName("metric", metric, _METRICS)
        return _METRICS[metric]()
    metric_class = getattr(metric, "metric", metric)
    if isinstance(metric_class, type) and issubclass(metric_class, Metric):
        return metric_class()
    raise InputError(
        f"A metric is a name, a value such as ig.metrics.Deletion(), or a Metric; got {type(metric).__name__}."
    )


# --- functional forms ------------------------------------------------------------------------------------------------------------

_TASK_OPTIONS = ("extra", "normalisation", "batch_size", "optimize", "masks")


def judge(
    model: Callable[..., Any] | Field,
    inputs: InputsLike,
    attribution: MapsLike,
    by: Metric | str,
    *,
    target: TargetLike | None = None,
    method: str | Explainer | Sequence[str | Explainer] | None = None,
    **options: Any,
) -> Tensor:
    """Score attributions by any metric.

    Args:
        model: as in ``explain``; a Field goes without a target.
        inputs: as in ``explain``.
        attribution: an Attribution, a tensor (B, \\*s), or a list or dict of these: all share the
            model's answers.
        by: the metric, or its published name.
        target: as in ``explain``.
        method: the method that computed the attribution, for metrics that explain again; known for
            attributions.
        **options: extra, normalisation, batch_size, optimize as in ``explain``; masks for metrics
            of evidence.

    Returns:
        One number per example (B,); (M, B) for a list or dict of attributions.

    Example:

    >>> import torch, integrand as ig
    >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
    >>> result = ig.explain(model, x, target=0)
    >>> ig.metrics.judge(model, x, result, ig.metrics.Deletion(fill=0.0), target=0).shape
    torch.Size([5])
    """
    with Subject.of(model, inputs, target, **options) as subject:
        metric = by_column(as_metric(by), subject.layout)
        maps = Maps.of(
            attribution, subject.x, subject.layout, () if method is None else _methods(method)
        )
        return _arranged(metric(subject, maps), attribution)


def by_column(metric: Metric, layout: Layout) -> Metric:
    """The metric with the columns of the table as its features, where these were read as several
    numbers each: a word is taken away as one, whatever became of it. Features that were asked for
    stay."""
    part: Any = metric
    named = {spec.name for spec in dataclasses.fields(part)}
    if layout.features is None or "features" not in named or not _is_auto(part.features):
        return metric
    grouped: Metric = dataclasses.replace(part, features=layout.features)
    return grouped


def _is_auto(features: Features) -> bool:
    return isinstance(features, str) and features == "auto"


def _arranged(values: Tensor, attribution: MapsLike) -> Tensor:
    """(M, B) for several maps, (B,) for one."""
    return values if isinstance(attribution, list | dict) else values[0]


def _methods(methods: str | Explainer | Sequence[str | Explainer]) -> tuple[Explainer, ...]:
    several: Sequence[Any] = methods if isinstance(methods, list | tuple) else [methods]
    return tuple(
        about_method(method).build() if isinstance(method, str) else method for method in several
    )


def functional(cls: type[Metric]) -> Callable[..., Tensor]:
    """The functional form of a metric: ``deletion(model, x, attribution, target=, **options)``."""
    options = [spec.name for spec in dataclasses.fields(cls) if spec.init]  # type: ignore[arg-type]  # every metric is a part

    def call(
        model: Callable[..., Any] | Field,
        inputs: InputsLike,
        attribution: MapsLike,
        *,
        target: TargetLike | None = None,
        **arguments: Any,
    ) -> Tensor:
        metric_options = {name: arguments.pop(name) for name in tuple(arguments) if name in options}
        for name in arguments:
            if name not in (*_TASK_OPTIONS, *known_options(), "method"):
                raise UnknownName(
                    f"option of metric {cls.name!r}", name, [*options, *_TASK_OPTIONS]
                )
        return judge(model, inputs, attribution, cls(**metric_options), target=target, **arguments)

    return _named(call, cls, _OF_A_MODEL)


def functional_of_maps(cls: type[Metric]) -> Callable[..., Tensor]:
    """The functional form of a metric that looks at maps alone: ``sparseness(attribution,
    **options)``."""

    def call(attribution: MapsLike, **options: Any) -> Tensor:
        by = cls(**options)
        with without_model(attribution) as (subject, maps):
            return _arranged(by(subject, maps), attribution)

    return _named(call, cls, _OF_MAPS)


def functional_of_evidence(cls: type[Metric]) -> Callable[..., Tensor]:
    """The functional form of a metric of maps and masks: ``pointing_game(attribution, masks,
    **options)``."""

    def call(attribution: MapsLike, masks: Tensor, **options: Any) -> Tensor:
        by = cls(**options)
        with without_model(attribution, masks) as (subject, maps):
            return _arranged(by(subject, maps), attribution)

    return _named(call, cls, _OF_EVIDENCE)


@contextmanager
def without_model(
    attribution: MapsLike, masks: Tensor | None = None
) -> Iterator[tuple[Subject, Maps]]:
    """Maps with a subject that has no model; its inputs are those of an attribution, or else the
    map itself."""
    first: Any = attribution
    while isinstance(first, list | dict) and first:
        first = first[0] if isinstance(first, list) else next(iter(first.values()))
    bare = not isinstance(first, Attribution) or _of_other_columns(first)
    like = first.inputs if not bare else first.values if isinstance(first, Attribution) else first
    layout, field = Layout.of(like), NoModel()
    subject = Subject(field, layout.pack(like), layout, masks, bare=bare)
    with field.ready():
        yield subject, Maps.of(attribution, subject.x, subject.layout)


def _of_other_columns(attribution: Attribution) -> bool:
    """Whether the columns of a map are not those of what was explained: they were summed to groups,
    or to the columns of a pipeline's frame."""
    values, inputs = attribution.values, attribution.inputs
    tensors = isinstance(values, Tensor) and isinstance(inputs, Tensor)
    return tensors and attribution.table is not None and values.shape != inputs.shape


class NoModel(Field):
    """The field of metrics that need no model."""

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        raise ModelError(
            "This metric asks a model: call it with the model, its inputs and the attribution."
        )


_OF_A_MODEL = """\
model: as in ``ig.explain``; a Field goes without a target.
inputs: what was explained.
attribution: an Attribution, a map (B, \\*s), or a list or dict of these, which share the model's answers.
target: what was explained; that of a Field unless given.
**arguments: those below, by name; extra, normalisation, batch_size and optimize as in ``ig.explain``; method,
    what made the map, for metrics that explain again.
"""
"""What the functional form of a metric takes, as its docstring says it."""

_OF_MAPS = """\
attribution: an Attribution, a map (B, \\*s), or a list or dict of these.
**options: those below, by name.
"""

_OF_EVIDENCE = """\
attribution: an Attribution, a map (B, \\*s), or a list or dict of these.
masks: (B, H, W) or (B, \\*s) bool, where the evidence is known to be.
**options: those below, by name.
"""


def _named(call: Callable[..., Tensor], cls: type[Metric], arguments: str) -> Callable[..., Tensor]:
    """A functional form with the name and the docstring of its metric."""
    call.__name__ = call.__qualname__ = cls.name
    call.__doc__ = _with_arguments(inspect.cleandoc(cls.__doc__ or ""), arguments)
    call.metric = cls  # type: ignore[attr-defined]
    return call


def _with_arguments(docstring: str, arguments: str) -> str:
    """The docstring of a metric with what its functional form takes besides; (M, B) for several
    maps, (B,) for one."""
    described = textwrap.indent(arguments, "    ")
    if "\nArgs:\n" in docstring:
        head, _, rest = docstring.partition("\nArgs:\n")
    else:
        section = re.search(r"^\w+:\n", docstring, re.M)
        place = len(docstring) + 1 if section is None else section.start()
        head, rest = docstring[:place].rstrip() + "\n", "\n" + docstring[place:]
    returned = (
        "Returns:\n    A number for each example (B,); (M, B) for a list or dict of M maps.\n\n"
    )
    options, separator, tail = rest.partition("\n\n")
    return f"{head}\nArgs:\n{described}{options}{separator}{returned}{tail}".rstrip()
