"""Check of metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..baselines import Constant
from ..core.normalisation import Normalisation
from ..core.shapes import describe
from ..fields import Field, TorchField
from ..integration import Method
from ..integration.attribution import Attribution
from ..metrics import Maps, Metric, Subject, as_metric
from ..metrics.base import MetricLike
from ..model.autograd import gradients
from ..model.layout import Layout
from ..rules import GaussLegendre
from .assertions import CLOSE, instance, same, say, untouched
from .problem import classes_of, tanh_network, waves


def check_metric(
    metric: MetricLike,
    *,
    model: nn.Module | None = None,
    x: Tensor | None = None,
    target: Tensor | None = None,
    methods: Mapping[str, Any] | None = None,
    masks: Tensor | None = None,
    normalisation: Normalisation | None = None,
    scale_invariant: bool = False,
    tolerance: float = CLOSE,
) -> None:
    """A metric: ``measure(subject, maps)`` → (M, B) or (M, B, \\*t), one number each in ``values``,
    one per method in ``summary``.

    * It says whether ``higher`` is better.
    * What is measured of a map of an example depends on neither the other examples nor the other
      maps, nor on their order; a repeated example is measured the same. ``values`` and ``summary``
      are arithmetic on that: a value is that of its own example, a summary does not depend on the
      order of examples.
    * Values are finite, or NaN where there is nothing to measure.
    * The same call gives the same numbers: randomness comes from a seed of the metric's own, and no
      global generator is drawn from.
    * Inputs, maps and the model are not changed.
    * ``scale_invariant``, if you say so: maps times a positive number are worth the same.

    Args:
        metric: a metric, its class, or its name.
        model: a module; by default a small network of six features and three classes.
        x: inputs (B, \\*s) of the model.
        target: (B,) a class for each.
        methods: those whose maps are scored, by name; by default Integrated Gradients from two
            baselines.
        masks: where the evidence is, for metrics of localisation; by default every other feature.
        normalisation: what numbers the model takes for which colours, for metrics of pictures.
        scale_invariant: whether maps times a positive number are to be worth the same.
        tolerance: how far apart numbers may be that should be equal.

    Raises:
        AssertionError: with what was promised, and what came instead.

    Example:
        >>> import integrand as ig
        >>> ig.testing.check_metric("deletion")
    """
    metric = as_metric(metric)
    say(
        isinstance(getattr(metric, "higher", None), bool),
        f"{type(metric).__name__} does not say whether higher is better: higher: ClassVar[bool] = True, or False.",
    )
    case = _MetricCase.of(model, x, target, methods, masks, normalisation)
    tensors = [
        case.x,
        *(attribution.values for attribution in case.attributions.values()),
        *case.model.state_dict().values(),
    ]
    with untouched("The metric", "the inputs, the maps or the model", *tensors):
        measured = case.measured(metric)
        _check_numbers(metric, measured, len(case.attributions), len(case.x))
        same(
            case.measured(metric),
            measured,
            "The same call measures something else; take randomness from a seed",
            tolerance,
        )
        _check_company(metric, case, measured, tolerance)
        _check_arithmetic(metric, measured, tolerance)
        if scale_invariant:
            values = metric.values(case.measured(metric, scale=2.5))
            same(
                values,
                metric.values(measured),
                "Maps times 2.5 are worth something else; it is not scale invariant",
                tolerance,
            )


@dataclass(frozen=True)
class _MetricCase:
    """Maps of several methods for the inputs x (B, \\*s) of a model, and a class (B,) for each."""

    model: nn.Module
    x: Tensor
    target: Tensor
    methods: Mapping[str, Any]
    masks: Tensor
    normalisation: Normalisation | None
    attributions: Mapping[str, Attribution]

    @classmethod
    def of(
        cls,
        model: nn.Module | None,
        x: Tensor | None,
        target: Tensor | None,
        methods: Mapping[str, Any] | None,
        masks: Tensor | None,
        normalisation: Normalisation | None,
    ) -> _MetricCase:
        model = tanh_network() if model is None else model
        x = waves(3, 6, phase=0.3) if x is None else x
        target = classes_of(len(x)) if target is None else target
        if methods is None:
            rule = GaussLegendre(8)
            methods = {
                "from zero": Method(rule=rule),
                "from a quarter": Method(Constant(0.25), rule=rule),
            }
        if masks is None:
            masks = (torch.arange(x.numel(), device=x.device) % 2 == 0).reshape(x.shape)
        attributions = {
            name: method(TorchField(model, target), x) for name, method in methods.items()
        }
        return cls(model, x, target, methods, masks, normalisation, attributions)

    def measured(
        self,
        metric: Metric,
        examples: list[int] | None = None,
        maps: list[str] | None = None,
        *,
        scale: float = 1.0,
    ) -> Tensor:
        """What a metric measures of some examples and maps, with nothing remembered of the
        model."""
        rows = list(range(len(self.x))) if examples is None else examples
        names = list(self.attributions) if maps is None else maps
        x, masks = self.x[rows], self.masks[rows]
        field: Field = TorchField(self.model, self.target[rows], normalisation=self.normalisation)
        judged: dict[str, Any] = {name: self.attributions[name][rows] for name in names}
        if scale != 1:
            judged = {
                name: dataclasses.replace(attribution, values=attribution.values * scale)
                for name, attribution in judged.items()
            }
        layout = Layout.of(x)
        lent = Maps.of(judged, x, layout, tuple(self.methods[name] for name in names))
        with (
            field.ready(),
            gradients(False),
            untouched("The metric", "the inputs or the maps", x, lent.values),
        ):
            return metric.measure(Subject(field, x, layout, masks), lent)


def _check_numbers(metric: Metric, measured: object, maps: int, examples: int) -> None:
    axes = f"{describe((maps, examples))} (M, B)"
    measured = instance(
        measured,
        Tensor,
        f"measure() returned a {type(measured).__name__}, not a tensor.",
    )
    say(
        measured.shape[:2] == (maps, examples),
        f"measure() returned shape {describe(measured.shape)}; for {maps} maps of {examples} examples it begins with {axes}.",
    )
    say(not measured.requires_grad, "What is measured must be detached.")
    values = metric.values(measured)
    say(
        isinstance(values, Tensor) and values.shape == (maps, examples),
        f"values() returned shape {describe(values.shape)}; one number for each map of each example is {axes}.",
    )
    say(
        values.is_floating_point(),
        f"values() are {values.dtype}; give floating point, so that NaN can stand for none.",
    )
    say(
        not bool(values.isinf().any()),
        "values() hold infinity; where there is nothing to measure, say NaN.",
    )
    summary = metric.summary(measured)
    say(
        isinstance(summary, Tensor) and summary.shape == (maps,),
        f"summary() returned shape {describe(summary.shape)}; one number for each method is {maps} (M,).",
    )
    say(
        not bool(summary.isinf().any()),
        "summary() holds infinity; where there is nothing to sum up, say NaN.",
    )
    has_value = values.isfinite().any(1)
    say(
        bool(summary[has_value].isfinite().all()),
        "summary() is NaN though some of the examples have a value; leave the others out.",
    )


def _check_company(metric: Metric, case: _MetricCase, measured: Tensor, tolerance: float) -> None:
    """Examples alone, turned round and repeated; maps alone and turned round."""
    for example in range(len(case.x)):
        message = (
            f"What is measured of example {example} depends on the other examples of its batch"
        )
        same(
            case.measured(metric, [example]), measured[:, example : example + 1], message, tolerance
        )
    turned = [len(case.x) - 1, 0, 0]
    message = "What is measured of an example depends on where it stands in the batch, or on its being there twice"
    same(case.measured(metric, turned), measured[:, turned], message, tolerance)
    names = list(case.attributions)
    for place, name in enumerate(names):
        message = f"What is measured of the map {name!r} depends on the other maps"
        same(case.measured(metric, maps=[name]), measured[place : place + 1], message, tolerance)
    message = "What is measured of a map depends on the order of the maps"
    same(case.measured(metric, maps=names[::-1]), measured.flip(0), message, tolerance)


def _check_arithmetic(metric: Metric, measured: Tensor, tolerance: float) -> None:
    """``values`` and ``summary``, which see nothing but what was measured."""
    values, summary = metric.values(measured), metric.summary(measured)
    for example in range(measured.shape[1]):
        alone = slice(example, example + 1)
        message = f"values() of example {example} depend on the other examples"
        same(metric.values(measured[:, alone]), values[:, alone], message, tolerance)
    for place in range(len(measured)):
        alone = slice(place, place + 1)
        same(
            metric.summary(measured[alone]),
            summary[alone],
            "summary() of a method depends on the other methods",
            tolerance,
        )
    same(
        metric.summary(measured.flip(1)),
        summary,
        "summary() depends on the order of the examples",
        tolerance,
    )
