"""``explain_targets``: several targets of the same inputs, which share the baseline, the path and
every forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .baselines.base import Baseline, BaselineLike, adopted, count_of, label_of
from .baselines.base import Union as Baselines
from .core.declared import with_fields
from .core.features import Features
from .core.values import part
from .errors import InputError, TargetError
from .explain import explain, make_task, resolve_method, run_task
from .fields import Field
from .fields.base import outputs_of
from .fields.memory import OutputCache
from .integration import Method
from .integration.assemble import Watch
from .integration.attribution import Attribution, Explainer, ExplainerLike, Wrapper
from .integration.wrappers.layer import PerPlace
from .model.doors import options_of
from .targets import as_target
from .task import check_classes, is_predicted, predicted

_EXPLAIN_OPTIONS = set(explain.__kwdefaults__ or {})


def explain_targets(
    model: Callable[..., Any] | Field,
    inputs: Any,
    *,
    targets: Sequence[Any] | None = None,
    method: str | ExplainerLike = "integrated",
    baseline: Any = None,
    tol: float | None = None,
    **options: Any,
) -> list[Attribution]:
    """Explain several targets at once: one attribution for each, as a call for each would give.

        A_t(x) = Σ_r w_{t,r} ∫ ∇F_t(γ_r) ⊙ dγ_r,   t = 1 … T

    With fixed nodes the numbers are those of a call for each. A tolerance is met for each target,
    but on nodes that all have in common: where one needs more, those that are not done yet get more
    too. Maps agree with those of single calls within the tolerance.

    Args:
        model: as in ``explain``.
        inputs: as in ``explain``.
        targets: what ``explain`` takes as its target, T times: classes, tensors with a class per
            example, "predicted", callables … A Field of a model in the model's place is asked these
            instead of its own; without any it is asked its own.
        method: as in ``explain``.
        baseline: as in ``explain``.
        tol: as in ``explain``.
        **options: everything else that ``explain`` takes.

    Returns:
        A list of T attributions; ``cost`` of each is an even share of the total.

    Raises:
        IntegrandError: as in ``explain``.

    Cost:
        The points of a path are run forward once and backward for each target that is not done:
        (1 + T)/2T of the time of T calls, where forward and backward cost alike and all targets
        need the same nodes. Methods whose path depends on the target share less.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... )
        >>> x, targets = torch.randn(5, 4), [0, "predicted", ig.targets.Margin(1, 2)]
        >>> [result.values.shape for result in ig.explain_targets(model, x, targets=targets)]
        [torch.Size([5, 4]), torch.Size([5, 4]), torch.Size([5, 4])]
    """
    if "target" in options:
        raise InputError("Give the targets as targets=[…], all of them.")
    explain_options = {name: options.pop(name) for name in _EXPLAIN_OPTIONS & set(options)}
    if targets is None and isinstance(model, Field):
        return [
            explain(
                model,
                inputs,
                method=method,
                baseline=baseline,
                tol=tol,
                **explain_options,
                **options,
            )
        ]
    targets = _as_targets(targets)
    run_options = {
        name: explain_options.pop(name) for name in ("seed", "progress") if name in explain_options
    }
    field_target = None if isinstance(model, Field) else targets[0]
    explain_options |= {name: options.pop(name) for name in options_of(model) if name in options}
    task = make_task(method, model, inputs, field_target, **explain_options)
    explainer = resolve_method(inputs, method, baseline, tol, options, task)
    task = dataclasses.replace(task, layout=task.layout.repeated(len(targets)))
    joint = run_task(task, _ForEachTarget(explainer, targets), **run_options)
    for_each: _ForEachTarget = joint.method
    joint = dataclasses.replace(joint, target=None)  # each part has its own
    return [
        dataclasses.replace(
            joint[number :: len(targets)],
            target=target,
            method=for_each.method,
            cost=joint.cost.of_examples([number], len(targets)),
        )
        for number, target in enumerate(for_each.targets)
    ]


def _as_targets(targets: Any) -> tuple[Any, ...]:
    """The list of targets, each made a ``Target``; "predicted" waits for the model."""
    if isinstance(targets, str | Tensor) or not isinstance(targets, Sequence):
        raise TargetError(
            f"targets= is a list of targets, not {type(targets).__name__}; for one target call ig.explain."
        )
    if not targets:
        raise TargetError("targets= is empty: name at least one.")
    return tuple(target if is_predicted(target) else as_target(target) for target in targets)


@part
class _ForEachTarget(Wrapper):
    """A method for T targets at once: examples are repeated T times, interleaved, and explained as
    one batch."""

    method: Explainer
    targets: tuple[Any, ...]

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        count = len(self.targets)
        rows = x.repeat_interleave(count, 0)
        targets, memory = self.targets, None
        if any(map(is_predicted, targets)):
            outputs = outputs_of(field, x)
            classes = predicted(OutputCache(x, outputs), field)
            targets = tuple(classes if is_predicted(target) else target for target in targets)
            memory = OutputCache(rows, outputs.repeat_interleave(count, 0))
        for target in targets:
            check_classes(target, len(x))
        multi_target = field.with_targets(targets)
        multi_target.memory = memory
        attribution = _repeated(self.method, count, len(x))(multi_target, rows, watch=watch)
        return dataclasses.replace(attribution, method=_ForEachTarget(self.method, targets))


def _repeated(method: Explainer, count: int, batch: int) -> Explainer:
    """The method, with its per-example parts repeated as the examples are."""
    if method.inner is not None:
        repeated = method.with_inner(_repeated(method.inner, count, batch))
        return with_fields(repeated, **_repeated_labels(method.features, count, batch))
    if not isinstance(method, Method):
        return method
    weighting = method.weighting
    weighting = weighting.with_fills(lambda fill: _repeated_references(fill, count))
    weighting = with_fields(weighting, **_repeated_labels(weighting.features, count, batch))
    rule = with_fields(method.rule, **_repeated_labels(method.rule.features, count, batch))
    return dataclasses.replace(
        method,
        baseline=_repeated_references(method.baseline, count),
        rule=rule,
        weighting=weighting,
    )


def _repeated_labels(features: Features | None, count: int, batch: int) -> dict[str, Any]:
    """A part's label maps (B, H, W), one for each example, repeated as the examples are; nothing
    for other features."""
    if isinstance(features, Tensor) and features.ndim == 3 and len(features) == batch:
        return {"features": features.repeat_interleave(count, 0)}
    return {}


def _repeated_references(baseline: BaselineLike, count: int) -> Baseline:
    """A baseline whose references are repeated as the examples are; a union stays one, so that each
    part keeps its name."""
    if isinstance(baseline, Baselines):
        return Baselines(tuple(_repeated_references(member, count) for member in baseline.parts))
    if isinstance(baseline, PerPlace):
        return PerPlace(tuple(_repeated_references(member, count) for member in baseline.parts))
    return _RepeatedBaseline(adopted(baseline), count)


@part
class _RepeatedBaseline(Baseline):
    """A baseline of the distinct examples, its references repeated as the examples are."""

    baseline: Baseline
    times: int

    @property
    def label(self) -> str:
        return label_of(self.baseline)

    @property
    def count(self) -> int | None:
        return count_of(self.baseline)

    @property
    def names(self) -> tuple[str, ...]:
        return self.baseline.names

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        distinct = torch.arange(0, len(x), self.times, device=x.device)
        references = self.baseline(x[distinct], field.at(distinct))
        if (
            not isinstance(references, Tensor)
            or references.ndim < 2
            or references.shape[1] != len(distinct)
        ):
            return references  # the method says what is wrong with it
        if references.stride(1) == 0:  # the same for all examples: stays one
            return references[:, :1].expand(-1, len(x), *references.shape[2:])
        return references.repeat_interleave(self.times, 1)
