"""``ig.compare``: score several methods on one model, with paired statistics."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..baselines import Baseline, ReferencesLike, StartLike
from ..core.frames import is_frame
from ..core.normalisation import Normalisation
from ..core.options import whole
from ..core.random import reseeded
from ..core.renamed import renamed_arguments
from ..errors import InputError, UnknownName
from ..explain import baseline_arranger, resolve_method
from ..fields import Field
from ..integration.attribution import Attribution, Explainer, ExplainerLike, as_explainer
from ..integration.wrappers.base import warned_once
from ..methods.registry import about
from ..metrics import Metric, Subject
from ..metrics.base import by_column
from ..model.doors import known_options
from ..model.layout import InputsLike
from ..targets import TargetLike
from ..task import Task, is_predicted
from .baseline_sensitivity import (
    Sensitivity,
    StartsLike,
    baselines_by_name,
    of_variants,
    variant,
    variants,
)
from .budget import fitted, tolerant
from .comparison import Comparison
from .controls import controls_for
from .evaluate import Explained, methods_by_name, metrics_by_name, scored
from .map_agreement import MapAgreement, agreement
from .scores import Scores
from .statistics import Inference
from .subset import narrowed, portion

_HELD_ELEMENTS = 1 << 26  # numbers of maps in memory at a time

Part = TypeVar("Part")
Progress = bool | Callable[[int, int], None]
"""True for a line on stderr, or a callable that is given maps computed and maps to compute."""


@renamed_arguments(reference="compare_to", baselines="vary_baseline", sure="inference")
def compare(
    model: Callable[..., Any] | Field,
    inputs: InputsLike,
    *,
    target: TargetLike = "predicted",
    methods: Mapping[str, str | ExplainerLike] | Sequence[str | ExplainerLike],
    metrics: Mapping[str, Any] | Sequence[Any] = ("deletion", "insertion"),
    gradients: int | None = None,
    tol: float | None = None,
    baseline: StartLike | None = None,
    references: ReferencesLike | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    compare_to: str | None = None,
    controls: bool | Sequence[str] = True,
    vary_baseline: StartsLike | None = None,
    ids: Sequence[str] | None = None,
    masks: Tensor | None = None,
    seed: int | None = None,
    inference: Inference = Inference(),
    progress: Progress = False,
    extra: Sequence[Any] | Mapping[str, Any] = (),
    normalisation: Normalisation | None = None,
    batch_size: int | None = None,
    optimize: bool = False,
    **model_options: Any,
) -> Comparison:
    """Compare methods on one model: every method on every example, scored by every metric, with
    paired statistics.

    An example for which a method fails has no score from it, and a reason in ``scores.reasons``.
    Examples are taken in blocks, so that memory does not grow with them.

    Args:
        model: as in ``explain``, like ``inputs``, ``target``, ``extra``, ``normalisation``,
            ``batch_size`` and ``optimize``; a Field goes without a target.
        inputs: as in ``explain``.
        target: as in ``explain``; the predicted class unless given.
        methods: published names and ``Method`` values in a list, or a dict of them by names of
            your own.
        metrics: names and values such as ``ig.metrics.Deletion(fill="blurred")``, or a dict of
            them.
        gradients: the same budget for all: each method is set up to take as many gradients per
            example as come close, at most this many. The result's ``notes`` say how, its scores
            what each really took.
        tol: the same tolerance for all methods whose rule has one. With neither ``gradients`` nor
            ``tol``, methods run as they are.
        baseline: of published names that start from one baseline.
        references: of published names that start from several (expected, weighted, ig2).
        options: further arguments of published names: {"guided": {"fraction": 0.1}}.
        compare_to: the method that differences are taken from; the first unless given.
        controls: maps that metrics have to tell from explanations: random, edges (of images),
            gradient, input × gradient. True for all, False for none, or names.
        vary_baseline: start every method that has one baseline from each of these too, and report how
            much maps and scores change.
        ids: names of the examples.
        masks: (B, H, W) where the evidence is, for metrics of evidence.
        seed: mixed into every random part of methods and metrics.
        inference: level, draws and seed of intervals and tests.
        progress: True for a line on stderr, or a callable (maps computed, maps to compute).
        extra: as in ``explain``.
        normalisation: as in ``explain``.
        batch_size: as in ``explain``.
        optimize: as in ``explain``.
        **model_options: options of the kind of model, as in ``explain``: ``attribute_after`` of
            pipelines, whose methods are compared on the numbers that come out of that step. Metrics
            whose features are "auto" take those that come from one column of the frame together.

    Returns:
        A ``Comparison``: the raw scores (M, Q, E) with their intervals, tests and verdicts.

    Raises:
        InputError: for arguments that do not fit, before any long work.
        UnknownName: for methods, metrics and options that there are not, before any long work.

    Cost:
        The methods', and the metrics' rows for all maps.

    Example:

    >>> import torch, integrand as ig
    >>> model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    >>> result = ig.compare(model, torch.randn(8, 6), target=0, methods=["integrated", "idgi"], gradients=20)
    >>> result.scores.methods
    ('integrated', 'idgi', 'random', 'gradient', 'input × gradient')
    >>> result.winner("deletion") is None or result.winner("deletion") in result.scores.methods
    True
    """
    _check_arguments(gradients, tol, inference, model_options)
    named_metrics = metrics_by_name(metrics)  # what there is not is said before anything runs
    task = Task.of(
        model,
        inputs,
        None if isinstance(model, Field) and is_predicted(target) else target,
        extra=extra,
        normalisation=normalisation,
        batch_size=batch_size,
        optimize=optimize,
        **model_options,
    )
    metrics_used = {n: by_column(metric, task.layout) for n, metric in named_metrics.items()}
    tried = _for_inputs(vary_baseline, inputs, task)
    explainers = _built(methods_by_name(methods), inputs, task, baseline, references, options or {})
    explainers, metrics_used = _seeded(explainers, seed), _seeded(metrics_used, seed)
    with Subject.ready(task, masks) as subject:
        control_maps = _controls(controls, explainers, subject)
        explainers, notes = _equal(explainers, gradients, tol, subject)
        work = _Work(
            {**explainers, **control_maps},
            metrics_used,
            tuple(control_maps),
            variants(explainers, tried),
            tried,
            _example_names(ids, len(subject)),
        )
        compared_to = _reference(compare_to, explainers, control_maps)
        results = work.run(subject, progress)
        _check_any_map(results.scores, explainers)
        settings = _settings(subject, explainers, metrics_used, gradients, tol, seed)
    notes = _with_spending(notes, results.scores, gradients)
    return _comparison(results, task, settings, compared_to, inference, notes)


def _seeded(parts: Mapping[str, Part], seed: int | None) -> dict[str, Part]:
    """Parts by name, each drawing by the seed of the comparison, where that is given."""
    if seed is None:
        return dict(parts)
    return {name: reseeded(part, seed) for name, part in parts.items()}


def _check_any_map(scores: Scores, methods: Mapping[str, Explainer]) -> None:
    """Refuse a comparison in which no method has a map of any example: its reason is nobody's but
    the question's."""
    pairs = [(method, example) for method in methods for example in scores.examples]
    if pairs and all(pair in scores.reasons for pair in pairs):
        raise InputError(f"No method has a map of any example: {scores.reasons[pairs[0]]}")


def _check_arguments(
    gradients: int | None, tol: float | None, inference: object, model_options: Mapping[str, Any]
) -> None:
    """Check what can be checked before anything is opened."""
    if gradients is not None and tol is not None:
        raise InputError("gradients= and tol= both say what methods may spend: give one of them.")
    if gradients is not None:
        whole("gradients", gradients, least=1)
    if not isinstance(inference, Inference):
        raise InputError(f"inference= is an integrand.compare.Inference(…), not {inference!r}.")
    unknown = next((name for name in model_options if name not in known_options()), None)
    if unknown is not None:
        raise UnknownName("argument of compare", unknown, _ARGUMENTS)


_ARGUMENTS = tuple(inspect.signature(compare).parameters)[:-1]


def _comparison(
    results: _Tables,
    task: Task,
    settings: dict[str, Any],
    compared_to: str,
    inference: Inference,
    notes: dict[str, str],
) -> Comparison:
    """What was measured, with the maps that a page shows; none for inputs of several parts."""
    shown = {
        name: dataclasses.replace(attribution.apart(), normalisation=task.field.normalisation)
        for name, attribution in results.shown.items()
    }
    return Comparison(
        dataclasses.replace(results.scores, about=settings),
        compared_to,
        inference,
        notes,
        results.agreement,
        results.sensitivity,
        shown if task.layout.single else {},
    )


def _controls(
    controls: bool | Sequence[str], explainers: Mapping[str, Explainer], subject: Subject
) -> dict[str, Explainer]:
    """Controls by name. Raises ``InputError`` where a method has the name of one."""
    control_maps = controls_for(controls, subject.x)
    clash = next((name for name in control_maps if name in explainers), None)
    if clash is not None:
        raise InputError(
            f"There is a control called {clash!r}: call the method something else, or leave the control out."
        )
    return control_maps


def _reference(
    reference: str | None, explainers: Mapping[str, Explainer], controls: Mapping[str, Explainer]
) -> str:
    """The method that differences are taken from: the first unless given."""
    name = next(iter(explainers)) if reference is None else reference
    if name not in (*explainers, *controls):
        raise UnknownName("method to compare with", name, (*explainers, *controls))
    return name


def _example_names(ids: Sequence[str] | None, count: int) -> list[str]:
    """Names of the examples: their numbers unless given."""
    names = list(map(str, range(count) if ids is None else ids))
    if len(names) != count or len(set(names)) != count:
        raise InputError(
            f"ids= names each of the {count} examples, each differently; got {len(names)} names."
        )
    return names


def _built(
    methods: Mapping[str, str | ExplainerLike],
    inputs: object,
    task: Task,
    baseline: object,
    references: object,
    options: Mapping[str, Mapping[str, Any]],
) -> dict[str, Explainer]:
    """Methods as explainers: published names are built, with the baseline they start from."""
    unknown = next((name for name in options if name not in methods), None)
    if unknown is not None:
        raise UnknownName("method to give options to", unknown, methods)
    explainers: dict[str, Explainer] = {}
    for name, method in methods.items():
        given = options.get(name, {})
        if not isinstance(given, Mapping):
            raise InputError(f"options= has a dict of options for {name!r}, not {given!r}.")
        arguments = dict(given)
        if isinstance(method, str):
            start = _start(method, arguments, baseline, references)
            method = resolve_method(inputs, method, start, None, arguments, task)
        elif arguments:
            raise InputError(f"options= go to published names; {name!r} is a method already.")
        explainers[name] = as_explainer(method)
        if explainers[name].explains == "layer":
            raise InputError(
                f"{name!r} explains a layer: maps of the inputs are compared, so leave it out."
            )
    return explainers


def _for_inputs(
    baselines: StartsLike | None, inputs: InputsLike, task: Task
) -> dict[str, Baseline]:
    """Baselines to try by name, each arranged as the inputs are; none where none are given."""
    if baselines is None:
        return {}
    place = baseline_arranger(inputs, task.layout, task.x)
    if isinstance(baselines, Mapping):
        return baselines_by_name({name: place(b, False) for name, b in baselines.items()})
    single = isinstance(baselines, str | Tensor | np.ndarray) or is_frame(baselines)
    if single or not isinstance(baselines, Iterable):
        plain = isinstance(baselines, str | int | float)
        shown = repr(baselines) if plain else f"one {type(baselines).__name__}"
        raise InputError(
            f"vary_baseline= takes at least two baselines to start from, in a list such as ['zero', 'blurred'] or a dict of them by names of "
            f"your own, not {shown} alone."
        )
    return baselines_by_name([place(baseline, False) for baseline in baselines])


def _start(name: str, arguments: Mapping[str, Any], baseline: object, references: object) -> Any:
    """The baseline or references that a published name starts from; None where it takes neither,
    or its arguments say."""
    published = about(name)
    if published.start is None or published.start in arguments:
        return None
    if not published.shared:
        return baseline
    if references is None and published.start in published.needs:
        raise InputError(
            f"{name} starts from {published.start}: give references= a tensor (R, …), a list of baselines, or a sampler."
        )
    return references


def _equal(
    methods: Mapping[str, Explainer], gradients: int | None, tol: float | None, subject: Subject
) -> tuple[dict[str, Explainer], dict[str, str]]:
    """Methods at the same budget or the same tolerance, and how each was set up."""
    if gradients is None and tol is None:
        return dict(methods), dict.fromkeys(methods, "as it is")
    probe = tuple(sorted({0, len(subject) // 2}))
    fits = {
        name: fitted(method, gradients, subject, probe)
        if gradients is not None
        else tolerant(method, float(tol or 0))
        for name, method in methods.items()
    }
    return {name: as_explainer(fit.method) for name, fit in fits.items()}, {
        name: fit.note for name, fit in fits.items()
    }


def _with_spending(notes: Mapping[str, str], scores: Scores, budget: int | None) -> dict[str, str]:
    """Notes on how methods were set up; those that took less than half of the budget say what they
    took."""
    result = dict(notes)
    for name, gradients in zip(scores.methods, scores.gradients, strict=True):
        known = gradients[~np.isnan(gradients)]
        if budget is not None and name in result and len(known) and known.mean() < budget / 2:
            result[name] += (
                f", far below the budget: it took {known.mean():.3g} of {budget} gradients"
            )
    return result


def _settings(
    subject: Subject,
    methods: Mapping[str, Explainer],
    metrics: Mapping[str, Metric],
    gradients: int | None,
    tol: float | None,
    seed: int | None,
) -> dict[str, Any]:
    """What was compared, with what, and by which versions, as plain data."""
    return {
        "methods": {name: repr(method) for name, method in methods.items()},
        "metrics": {name: repr(metric) for name, metric in metrics.items()},
        "gradients": gradients,
        "tol": tol,
        "seed": seed,
        "device": str(subject.x.device),
        "threads": torch.get_num_threads(),
        "versions": {
            "integrand": metadata.version("integrand"),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


@dataclasses.dataclass(frozen=True, eq=False)
class _Tables:
    """Results of all blocks of examples; ``shown`` are the attributions of one example."""

    scores: Scores
    agreement: MapAgreement | None
    sensitivity: Sensitivity | None
    shown: dict[str, Attribution]


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
    """Explain and score every block of examples, and merge the results.

    Args:
        methods: by name, controls among them.
        metrics: by name.
        controls: which methods are controls.
        varied: by method and baseline, the method started from that baseline.
        baselines: those tried, by name.
        names: of the examples.
    """

    methods: Mapping[str, Explainer]
    metrics: Mapping[str, Metric]
    controls: tuple[str, ...]
    varied: Mapping[str, Mapping[str, Explainer]]
    baselines: Mapping[str, Baseline]
    names: Sequence[str]

    def run(self, subject: Subject, progress: Progress) -> _Tables:
        """Score all examples, block by block."""
        varied = {
            variant(name, label): method
            for name, by_baseline in self.varied.items()
            for label, method in by_baseline.items()
        }
        counter = _ProgressCounter(progress, (len(self.methods) + len(varied)) * len(subject))
        tables: list[Scores] = []
        map_agreement: MapAgreement | None = None
        sensitivity: Sensitivity | None = None
        shown: dict[str, Attribution] = {}
        with warned_once():
            for examples in self._blocks(subject, max(len(self.methods), len(varied))):
                maps: list[Explained] = []
                tables.append(self._scored(subject, examples, self.methods, maps.append, counter))
                map_agreement = _merged(map_agreement, agreement(maps[0]))
                shown = shown or self._attributions(maps[0])
                maps.clear()  # before those of the variants are computed
                if varied:
                    scores = self._scored(subject, examples, varied, maps.append, counter)
                    sensitivity = _merged(
                        sensitivity,
                        of_variants(self.varied, agreement(maps[0]), scores, self.baselines),
                    )
        counter.end()
        return _Tables(Scores.merged(tables), map_agreement, sensitivity, shown)

    def _blocks(self, subject: Subject, methods: int) -> Iterator[range]:
        """Examples in blocks of which so many maps fit into memory."""
        size = max(1, _HELD_ELEMENTS // max(1, methods * subject.x[0].numel()))
        for first in range(0, len(subject), size):
            yield range(first, min(first + size, len(subject)))

    def _attributions(self, maps: Explained) -> dict[str, Attribution]:
        """The attributions of the first example, by method."""
        attributions = {name: maps.attribution(name, 0) for name in self.methods}
        return {name: result for name, result in attributions.items() if result is not None}

    def _scored(
        self,
        subject: Subject,
        examples: Sequence[int],
        methods: Mapping[str, Explainer],
        on_maps: Callable[[Explained], None],
        counter: _ProgressCounter,
    ) -> Scores:
        return scored(
            portion(subject, examples),
            {name: narrowed(method, examples, subject.x) for name, method in methods.items()},
            {name: narrowed(metric, examples, subject.x) for name, metric in self.metrics.items()},
            [self.names[i] for i in examples],
            controls=self.controls,
            on_maps=on_maps,
            watch=counter.add,
        )


T = TypeVar("T", MapAgreement, Sensitivity)


def _merged(first: T | None, second: T) -> T:
    return second if first is None else first.merge(second)


class _ProgressCounter:
    """Count computed maps, and report the count to a callable or to a line on stderr."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.count = 0
        self.total = total
        self.line = progress is True
        self.report = _print_line if self.line else progress

    def add(self, maps: int) -> None:
        """Count so many more maps."""
        self.count += maps
        if callable(self.report):
            self.report(self.count, self.total)

    def end(self) -> None:
        """End the line on stderr."""
        if self.line:
            print(file=sys.stderr, flush=True)


def _print_line(count: int, total: int) -> None:
    print(f"\r{count} of {total} maps", end="", file=sys.stderr, flush=True)
