"""``ig.compare``: a model, inputs, methods and metrics in; a comparison out."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.normalisation import Normalisation
from ..core.random import reseeded
from ..errors import InputError, UnknownName
from ..explain import baseline_arranger, resolve_method
from ..fields import Field
from ..integration.attribution import Attribution, Explainer, as_explainer
from ..methods.registry import about
from ..metrics import Metric, Subject
from ..task import Task, is_predicted
from .baseline_sensitivity import Sensitivity, baselines_by_name, of_variants, variant, variants
from .budget import fitted, tolerant
from .comparison import Comparison
from .controls import controls_for
from .evaluate import Explained, methods_by_name, metrics_by_name, scored
from .map_agreement import MapAgreement, agreement
from .scores import Scores
from .statistics import Inference
from .subset import narrowed, portion

_HELD_ELEMENTS = 1 << 26  # numbers of maps that are held at a time

Progress = bool | Callable[[int, int], None]
"""True for a line on stderr, or a callable that is given maps made and maps to make."""


def compare(
    model: Callable[..., Any] | Field,
    inputs: Any,
    *,
    target: Any = "predicted",
    methods: Mapping[str, Any] | Sequence[Any],
    metrics: Mapping[str, Any] | Sequence[Any] = ("deletion", "insertion"),
    gradients: int | None = None,
    tol: float | None = None,
    baseline: Any = None,
    references: Any = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    reference: str | None = None,
    controls: bool | Sequence[str] = True,
    baselines: Any = None,
    ids: Sequence[str] | None = None,
    masks: Tensor | None = None,
    seed: int | None = None,
    sure: Inference = Inference(),
    progress: Progress = False,
    extra: Sequence[Any] | Mapping[str, Any] = (),
    normalisation: Normalisation | None = None,
    batch_size: int | None = None,
    optimize: bool = False,
) -> Comparison:
    """Which method for this model: every method on every example, judged by every metric, with what
    the numbers allow to say.

    model, inputs, target, extra, normalisation, batch_size, optimize   as in ``explain``; a Field goes without a target
    methods     published names and ``Method`` values in a list, or a dict of them by names of your
                own
    metrics     names and values such as ``ig.metrics.Deletion(fill="blurred")``, or a dict of them
    gradients   the same budget for all: each method is set up to take as many gradients per example
                as come close, at most this many. The result's ``notes`` say how, its scores what
                each really took
    tol         the same tolerance for all whose rule knows one;  neither: methods as they are
    baseline    of published names that start from one;  references of those that start from several (expected, weighted, ig2)
    options     further arguments of published names: {"guided": {"fraction": 0.1}}
    reference   the method that differences are taken from; the first unless said
    controls    maps that metrics have to tell from explanations: random, edges (of images),
                gradient, input × gradient. True for all, False for none, or names
    baselines   start every method that has one baseline from each of these too, and say how much
                maps and scores move
    ids         what examples are called;  masks (B, H, W) where the evidence is, for metrics of evidence
    seed        mixed into every random part of methods and metrics;  sure: level, draws and seed of intervals and tests
    progress    True for a line on stderr, or a callable (maps made, maps to make)

    An example for which a method fails has no score from it, and a reason in ``scores.reasons``.
    Examples are taken in blocks, so that memory does not grow with them. Cost: the methods', and
    the metrics' rows for all maps. Errors: ``InputError``, ``UnknownName`` for methods, metrics and
    options that do not fit, before any long work.

    >>> import torch, integrand as ig
    >>> model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    >>> made = ig.compare(model, torch.randn(8, 6), target=0, methods=["integrated", "idgi"], gradients=20)
    >>> made.scores.methods
    ('integrated', 'idgi', 'random', 'gradient', 'input × gradient')
    >>> made.winner("deletion") is None or made.winner("deletion") in made.scores.methods
    True
    """
    if gradients is not None and tol is not None:
        raise InputError("gradients= and tol= both say what methods may spend: give one of them.")
    named = methods_by_name(methods)
    judges = metrics_by_name(metrics)
    door: dict[str, Any] = dict(
        extra=extra, normalisation=normalisation, batch_size=batch_size, optimize=optimize
    )
    task = Task.of(
        model, inputs, None if isinstance(model, Field) and is_predicted(target) else target, **door
    )
    tried = None if baselines is None else baselines_by_name(_for_inputs(baselines, inputs, task))
    ways = _built(named, inputs, task, baseline, references, options or {})
    if seed is not None:
        ways = {name: reseeded(way, seed) for name, way in ways.items()}
        judges = {name: reseeded(judge, seed) for name, judge in judges.items()}
    with Subject.ready(task, masks) as subject:
        beside = controls_for(controls, subject.x)
        clash = next((name for name in beside if name in ways), None)
        if clash is not None:
            raise InputError(
                f"There is a control called {clash!r}: call the method something else, or leave the control out."
            )
        ways, notes = _equal(ways, gradients, tol, subject)
        chosen_reference = next(iter(ways)) if reference is None else reference
        if chosen_reference not in (*ways, *beside):
            raise UnknownName("method to compare with", chosen_reference, (*ways, *beside))
        names = [str(i) for i in range(len(subject))] if ids is None else [str(one) for one in ids]
        if len(names) != len(subject) or len(set(names)) != len(names):
            raise InputError(
                f"ids= names each of the {len(subject)} examples, each differently; got {len(names)} names."
            )
        work = _Work(
            {**ways, **beside},
            judges,
            tuple(beside),
            variants(ways, tried or {}),
            tried or {},
            names,
        )
        scores, agreed, moved, shown = work.run(subject, progress)
        notes = _with_spending(notes, scores, gradients)
        about = _about(subject, ways, judges, gradients, tol, seed)
        shown = {
            name: dataclasses.replace(one.apart(), normalisation=task.field.normalisation)
            for name, one in shown.items()
        }
    return Comparison(
        dataclasses.replace(scores, about=about),
        chosen_reference,
        sure,
        notes,
        agreed,
        moved,
        shown if subject.layout.single else {},
    )


def _built(
    named: Mapping[str, Any],
    inputs: Any,
    task: Task,
    baseline: Any,
    references: Any,
    options: Mapping[str, Mapping[str, Any]],
) -> dict[str, Explainer]:
    """Methods that are callable: names are built, with where they start from."""
    unknown = next((name for name in options if name not in named), None)
    if unknown is not None:
        raise UnknownName("method to give options to", unknown, named)
    ways: dict[str, Explainer] = {}
    for name, given in named.items():
        own = dict(options.get(name, {}))
        if isinstance(given, str):
            start = _start(given, own, baseline, references)
            given = resolve_method(inputs, given, start, None, own, task)
        elif own:
            raise InputError(f"options= go to published names; {name!r} is a method already.")
        ways[name] = as_explainer(given)
        if ways[name].explains == "layer":
            raise InputError(
                f"{name!r} explains a layer: maps of the inputs are compared, so leave it out."
            )
    return ways


def _for_inputs(baselines: Any, inputs: Any, task: Task) -> Any:
    """Baselines to try, each arranged as the inputs are."""
    place = baseline_arranger(inputs, task.layout, task.x)
    if isinstance(baselines, Mapping):
        return {name: place(one, False) for name, one in baselines.items()}
    return [place(one, False) for one in baselines]


def _start(name: str, own: Mapping[str, Any], baseline: Any, references: Any) -> Any:
    """What a published name starts from, of what was given for all."""
    known = about(name)
    if known.start is None or known.start in own:
        return None
    if not known.shared:
        return baseline
    if references is None and known.start in known.needs:
        raise InputError(
            f"{name} starts from {known.start}: give references= a tensor (R, …), a list of baselines, or a sampler."
        )
    return references


def _equal(
    ways: Mapping[str, Explainer], gradients: int | None, tol: float | None, subject: Subject
) -> tuple[dict[str, Explainer], dict[str, str]]:
    """Methods at the same budget or the same tolerance, and how each was set up."""
    if gradients is None and tol is None:
        return dict(ways), dict.fromkeys(ways, "as it is")
    probe = tuple(sorted({0, len(subject) // 2}))
    fits = {
        name: fitted(way, gradients, subject, probe)
        if gradients is not None
        else tolerant(way, float(tol or 0))
        for name, way in ways.items()
    }
    return {name: as_explainer(one.method) for name, one in fits.items()}, {
        name: one.note for name, one in fits.items()
    }


def _with_spending(notes: Mapping[str, str], scores: Scores, budget: int | None) -> dict[str, str]:
    """Notes on how methods were set up; those that took less than half of the budget say what they
    took."""
    said = dict(notes)
    for name, gradients in zip(scores.methods, scores.gradients, strict=True):
        known = gradients[~np.isnan(gradients)]
        if budget is not None and name in said and len(known) and known.mean() < budget / 2:
            said[name] += (
                f", far below the budget: it took {known.mean():.3g} of {budget} gradients"
            )
    return said


def _about(
    subject: Subject,
    ways: Mapping[str, Any],
    judges: Mapping[str, Metric],
    gradients: int | None,
    tol: float | None,
    seed: int | None,
) -> dict[str, Any]:
    return {
        "methods": {name: repr(way) for name, way in ways.items()},
        "metrics": {name: repr(judge) for name, judge in judges.items()},
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
class _Work:
    """What is to be done to every block of examples."""

    ways: Mapping[str, Any]
    judges: Mapping[str, Metric]
    controls: tuple[str, ...]
    varied: Mapping[str, Mapping[str, Any]] | None
    baselines: Mapping[str, Any]
    names: Sequence[str]

    def run(
        self, subject: Subject, progress: Progress
    ) -> tuple[Scores, MapAgreement | None, Sensitivity | None, dict[str, Attribution]]:
        """Block by block, merged."""
        others = {
            variant(name, label): one
            for name, some in (self.varied or {}).items()
            for label, one in some.items()
        }
        many = len(self.ways) + len(others)
        size = max(
            1, _HELD_ELEMENTS // max(1, max(len(self.ways), len(others)) * subject.x[0].numel())
        )
        tell = _Told(progress, many * len(subject))
        tables: list[Scores] = []
        agreed: MapAgreement | None = None
        moved: Sensitivity | None = None
        shown: dict[str, Attribution] = {}
        for first in range(0, len(subject), size):
            which = range(first, min(first + size, len(subject)))
            seen: list[Explained] = []
            tables.append(self._scored(subject, which, self.ways, seen.append, tell))
            agreed = _joined(agreed, agreement(seen[0]))
            if not shown:
                found = {name: seen[0].attribution(name, 0) for name in self.ways}
                shown = {name: one for name, one in found.items() if one is not None}
            seen.clear()
            if others:
                own = self._scored(subject, which, others, seen.append, tell)
                moved = _joined(
                    moved, of_variants(self.varied or {}, agreement(seen[0]), own, self.baselines)
                )
        tell.end()
        return Scores.merged(tables), agreed, moved, shown

    def _scored(
        self,
        subject: Subject,
        which: Sequence[int],
        methods: Mapping[str, Any],
        look: Callable[[Explained], None],
        tell: _Told,
    ) -> Scores:
        some = portion(subject, which)
        return scored(
            some,
            {name: narrowed(one, which, subject.x) for name, one in methods.items()},
            {name: narrowed(one, which, subject.x) for name, one in self.judges.items()},
            [self.names[i] for i in which],
            controls=self.controls,
            look=look,
            watch=tell.more,
        )


def _joined(one: Any, other: Any) -> Any:
    return other if one is None else one.merge(other)


class _Told:
    """How many maps are made, for whoever wants to know."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.done = 0
        self.total = total
        self.line = progress is True
        self.progress = _print_line if self.line else progress

    def more(self, maps: int) -> None:
        """So many more."""
        self.done += maps
        if callable(self.progress):
            self.progress(self.done, self.total)

    def end(self) -> None:
        """The line ends."""
        if self.line:
            print(file=sys.stderr, flush=True)


def _print_line(done: int, total: int) -> None:
    print(f"\r{done} of {total} maps", end="", file=sys.stderr, flush=True)
