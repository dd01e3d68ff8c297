"""Several targets of the same inputs, sharing what they have in common: the baseline, the path, and
every forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .baselines.base import Baseline, BaselineLike, adopted, count_of, label_of
from .baselines.base import Union as Baselines
from .core.declared import with_fields
from .core.values import part
from .errors import InputError, TargetError
from .explain import chosen, explain, explained, task_for
from .fields import Field
from .fields.base import outputs_of
from .fields.memory import OutputCache
from .integration import Method
from .integration.assemble import Watch
from .integration.attribution import Attribution, Explainer, ExplainerLike, Wrapper
from .integration.cost import Cost
from .integration.wrappers.layer import PerPlace
from .targets import as_target
from .task import check_classes, is_predicted, predicted
from .weightings import Fill

_DOOR = set(explain.__kwdefaults__ or {})


def explain_targets(
    model: Any,
    inputs: Any,
    *,
    targets: Sequence[Any] | None = None,
    method: str | ExplainerLike = "integrated",
    baseline: Any = None,
    tol: float | None = None,
    **same: Any,
) -> list[Attribution]:
    """``explain`` for several targets at once: a list of attributions, what a call for each would
    give.

        A_t(x) = Σ_r w_{t,r} ∫ ∇F_t(γ_r) ⊙ dγ_r,   t = 1 … T

    targets   what ``explain`` takes as its target, T times: classes, tensors with a class per
              example, "predicted", callables … A Field of a model in the model's place is asked
              these instead of its own; without any it is asked its own
    the rest  as in ``explain``

    With fixed nodes the numbers are those of a call for each. A tolerance is met for each target,
    but on nodes that all have in common: where one needs more, those that are not done yet get more
    too. Maps agree with those of single calls within the tolerance.

    Cost: the points of a path are run forward once and backward for each target that is not done:
    (1 + T)/2T of the time of T calls, where forward and backward cost alike and all targets need
    the same nodes. Methods whose path depends on the target share less. ``cost`` of each result is
    an even share of the total. Errors: as in ``explain``.

    >>> import torch, integrand as ig
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    >>> x = torch.randn(5, 4)
    >>> [made.values.shape for made in ig.explain_targets(model, x, targets=[0, "predicted", ig.targets.Margin(1, 2)])]
    [torch.Size([5, 4]), torch.Size([5, 4]), torch.Size([5, 4])]
    """
    if "target" in same:
        raise InputError("Give the targets as targets=[…], all of them.")
    door = {name: same.pop(name) for name in _DOOR & set(same)}
    if targets is None and isinstance(model, Field):
        return [explain(model, inputs, method=method, baseline=baseline, tol=tol, **door, **same)]
    wanted = _as_targets(targets)
    show = {name: door.pop(name) for name in ("seed", "progress") if name in door}
    own = None if isinstance(model, Field) else wanted[0]
    task = task_for(method, model, inputs, own, **door)
    one = chosen(inputs, method, baseline, tol, same, task)
    made = explained(task, _ForEach(one, wanted), **show)
    known: _ForEach = made.method
    made = dataclasses.replace(made, target=None)  # each part has its own
    return [
        dataclasses.replace(
            made[number :: len(wanted)],
            target=target,
            method=known.method,
            cost=_part(made.cost, len(wanted)),
        )
        for number, target in enumerate(known.targets)
    ]


def _as_targets(targets: Any) -> tuple[Any, ...]:
    """Targets as they are asked; "predicted" waits for the model."""
    if isinstance(targets, str | Tensor) or not isinstance(targets, Sequence):
        raise TargetError(
            f"targets= is a list of targets, not {type(targets).__name__}; for one target call ig.explain."
        )
    if not targets:
        raise TargetError("targets= is empty: name at least one.")
    return tuple(target if is_predicted(target) else as_target(target) for target in targets)


def _part(cost: Cost, count: int) -> Cost:
    """An even share; the memory was there for all."""
    shared = {name: getattr(cost, name) // count for name in ("gradients", "values", "calls")}
    return dataclasses.replace(cost, **shared, seconds=cost.seconds / count)


@part
class _ForEach(Wrapper):
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
            own = predicted(OutputCache(x, outputs))
            targets = tuple(own if is_predicted(target) else target for target in targets)
            memory = OutputCache(rows, outputs.repeat_interleave(count, 0))
        for target in targets:
            check_classes(target, len(x))
        several = field.with_targets(targets)
        several.memory = memory
        made = _repeated(self.method, count, len(x))(several, rows, watch=watch)
        return dataclasses.replace(made, method=_ForEach(self.method, targets))


def _repeated(method: Explainer, count: int, batch: int) -> Explainer:
    """The method, with what it holds per example repeated as the examples are."""
    if method.inner is not None:
        repeated = method.with_inner(_repeated(method.inner, count, batch))
        return with_fields(repeated, **_labels(method.features, count, batch))
    if not isinstance(method, Method):
        return method
    weighting = method.weighting
    changes = _labels(weighting.features, count, batch)
    if weighting.fill is not None and not isinstance(weighting.fill, Fill):
        changes["fill"] = _references(weighting.fill, count)
    weighting = with_fields(weighting, **changes)
    return dataclasses.replace(
        method, baseline=_references(method.baseline, count), weighting=weighting
    )


def _labels(features: Any, count: int, batch: int) -> dict[str, Any]:
    """Label maps (B, H, W) of the examples' own that a part has its features from, repeated as the
    examples are."""
    if isinstance(features, Tensor) and features.ndim == 3 and len(features) == batch:
        return {"features": features.repeat_interleave(count, 0)}
    return {}


def _references(baseline: BaselineLike, count: int) -> Baseline:
    """The references of the examples themselves, repeated as they are; several stay several, so
    that each keeps its name."""
    if isinstance(baseline, Baselines):
        return Baselines(tuple(_references(one, count) for one in baseline.parts))
    if isinstance(baseline, PerPlace):
        return PerPlace(tuple(_references(one, count) for one in baseline.parts))
    return _Repeated(adopted(baseline), count)


@part
class _Repeated(Baseline):
    """A baseline of the examples themselves, its references repeated as they are."""

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
        once = torch.arange(0, len(x), self.times, device=x.device)
        made = self.baseline(x[once], field.at(once))
        if not isinstance(made, Tensor) or made.ndim < 2 or made.shape[1] != len(once):
            return made  # the method says what is wrong with it
        if made.stride(1) == 0:  # the same for all examples: stays one
            return made[:, :1].expand(-1, len(x), *made.shape[2:])
        return made.repeat_interleave(self.times, 1)
