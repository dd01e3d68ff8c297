"""Run every method on every example, and score all maps by every metric.

    subject ── methods ──▶ maps (M, B, *s) ── metrics ──▶ Scores

Maps are computed method by method for the whole batch; a batch that a method fails on is run again
example by example, so that one bad example costs the others nothing. Where there is no map there is
no score, and a reason. Metrics then measure all maps of an example at once, because they share the
model's outputs on it.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.shapes import describe, flattened
from ..errors import IncompleteWarning, InputError
from ..integration.attribution import Attribution, ExplainerLike, as_explainer
from ..integration.wrappers.base import warned_once
from ..metrics import Maps, Metric, Subject, as_metric
from ..task import Task
from .scores import Numbers, Scores
from .subset import Counts, narrowed, portion

GRADIENT_ROWS = 3
"""What a row with a gradient is worth in rows without, where the seconds of a batch are shared
out."""


@dataclass(frozen=True, eq=False)
class MethodRun:
    """One call of a method: its attribution of some examples of the batch, by their places."""

    method: ExplainerLike
    attribution: Attribution
    examples: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Explained:
    """The maps of a batch: for every method and example its run, or None and a reason.

    Args:
        subject: the field and the batch.
        names: of the methods.
        runs: (M, B) nested tuples.
        gradients: (M, B), rows with a gradient.
        rows: (M, B), rows without.
        seconds: (M, B).
        reasons: why there is no map, by (method, example's place).
    """

    subject: Subject
    names: tuple[str, ...]
    runs: tuple[tuple[MethodRun | None, ...], ...]
    gradients: Numbers
    rows: Numbers
    seconds: Numbers
    reasons: Mapping[tuple[str, int], str]

    def map(self, method: str, example: int) -> Tensor | None:
        """The map (\\*s) of an example, where there is one."""
        run = self.runs[self.names.index(method)][example]
        return None if run is None else run.attribution.values[run.examples.index(example)]

    def attribution(self, method: str, example: int) -> Attribution | None:
        """The attribution of one example, where there is one."""
        run = self.runs[self.names.index(method)][example]
        return None if run is None else run.attribution[run.examples.index(example)]

    def groups(self) -> Iterator[tuple[list[int], list[int], list[MethodRun]]]:
        """Examples that are scored together: their places, the places of the methods that have
        maps of them, and the runs these come from."""
        examples_by_runs: dict[tuple[int | None, ...], list[int]] = {}
        for b in range(len(self.subject)):
            key = tuple(None if runs[b] is None else id(runs[b]) for runs in self.runs)
            examples_by_runs.setdefault(key, []).append(b)
        for examples in examples_by_runs.values():
            chosen = [
                (m, run)
                for m, runs in enumerate(self.runs)
                if (run := runs[examples[0]]) is not None
            ]
            if chosen:
                yield examples, [m for m, _ in chosen], [run for _, run in chosen]


def explained(
    subject: Subject,
    methods: Mapping[str, ExplainerLike],
    watch: Callable[[int], None] | None = None,
) -> Explained:
    """Run every method on every example of a subject whose model is ready; ``watch`` is called
    with the number of further maps."""
    batch = len(subject)
    runs: list[tuple[MethodRun | None, ...]] = []
    costs = {name: np.zeros((len(methods), batch)) for name in ("gradients", "rows", "seconds")}
    reasons: dict[tuple[str, int], str] = {}
    for m, (name, method) in enumerate(methods.items()):
        method_runs: list[MethodRun | None] = [None] * batch
        for failures in _attempts(subject, method, range(batch), method_runs, costs, m):
            reasons |= {(name, b): reason for b, reason in failures.items()}
        runs.append(tuple(method_runs))
        if watch is not None:
            watch(batch)
    return Explained(subject, tuple(methods), tuple(runs), **costs, reasons=reasons)


def _attempts(
    subject: Subject,
    method: ExplainerLike,
    examples: Sequence[int],
    runs: list[MethodRun | None],
    costs: Mapping[str, Any],
    m: int,
) -> Iterator[dict[int, str]]:
    """Run a method on the whole batch; where that fails, example by example. Yields why examples
    have no map."""
    counts = Counts(len(examples))
    batch = portion(subject, examples, counts)
    narrowed_method = narrowed(method, examples, subject.x)
    start = time.perf_counter()
    try:
        with _expected_warnings():
            attribution = narrowed_method(batch.field, batch.x)
        _check(attribution, batch.x)
    except (
        MemoryError,
        torch.OutOfMemoryError,
    ):  # says nothing of the method, and the next would meet it too
        raise
    except Exception as error:  # a method may be the user's own code
        if len(examples) > 1:
            for b in examples:
                yield from _attempts(subject, method, [b], runs, costs, m)
        else:
            _add_costs(costs, m, examples, counts, time.perf_counter() - start)
            yield {examples[0]: _reason(error)}
        return
    _add_costs(costs, m, examples, counts, time.perf_counter() - start)
    # Maps of single references, and paths, are released at once: nothing here reads them.
    attribution = dataclasses.replace(attribution, shares=None, baselines=None, frames=None)
    run = MethodRun(narrowed_method, attribution, tuple(examples))
    finite = flattened(torch.isfinite(attribution.values), 1).all(1).tolist()
    for b, fine in zip(examples, finite, strict=True):
        runs[b] = run if fine else None
    yield {
        b: "the map holds NaN or infinity"
        for b, fine in zip(examples, finite, strict=True)
        if not fine
    }


def _check(result: object, x: Tensor) -> None:
    values = result.values if isinstance(result, Attribution) else None
    if not isinstance(values, Tensor):
        raise InputError(f"it returned {type(result).__name__}, not an Attribution")
    if values.shape != x.shape:
        raise InputError(
            f"its map has shape {describe(values.shape)}, the inputs have {describe(x.shape)}"
        )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _add_costs(
    costs: Mapping[str, Any], m: int, examples: Sequence[int], counts: Counts, seconds: float
) -> None:
    """Add what one call took to the costs of a method's examples; seconds are shared out by
    rows."""
    columns = list(examples)
    gradients, rows = counts.gradients.numpy(), counts.values.numpy()
    work = GRADIENT_ROWS * gradients + rows
    fraction = work / work.sum() if work.sum() else np.full(len(columns), 1 / len(columns))
    for name, cost in (("gradients", gradients), ("rows", rows), ("seconds", seconds * fraction)):
        costs[name][m, columns] += cost


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Silence warnings of maps that do not add up: the table counts these."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IncompleteWarning)
        yield


def scored(
    subject: Subject | Task,
    methods: Mapping[str, ExplainerLike],
    metrics: Mapping[str, Metric] | Sequence[Any],
    ids: Sequence[str] | None = None,
    *,
    controls: Sequence[str] = (),
    curves: bool = True,
    on_maps: Callable[[Explained], None] | None = None,
    watch: Callable[[int], None] | None = None,
) -> Scores:
    """Score every method on every example by every metric.

    A map that holds NaN, or whose method raises an exception, has no scores (NaN), and ``reasons``
    says why.

    Args:
        subject: field and inputs: a ``Subject`` whose model is ready, or a ``Task``, made ready
            once for the whole call.
        methods: by name, each (field, x) -> Attribution of the inputs.
        metrics: names or values, or values by name.
        ids: names of the examples; their numbers unless given.
        controls: which methods are controls.
        curves: keep what metrics measured before it became one number.
        on_maps: called with the maps before they are released.
        watch: called with the number of further maps while they are computed.

    Returns:
        ``Scores`` of M methods by Q metrics on E examples.

    Raises:
        InputError: for ids that do not fit, and for methods that explain a layer.
        IntegrandError: errors of metrics: a metric was asked for what it cannot know.

    Cost:
        The methods', and the metrics' for all maps at once.
    """
    if isinstance(subject, Task):
        with Subject.ready(subject) as ready:
            return scored(
                ready,
                methods,
                metrics,
                ids,
                controls=controls,
                curves=curves,
                on_maps=on_maps,
                watch=watch,
            )
    named = metrics_by_name(metrics)
    names = tuple(str(i) for i in range(len(subject))) if ids is None else tuple(ids)
    if len(names) != len(subject):
        raise InputError(
            f"There are {len(names)} ids for {len(subject)} examples: give one for each."
        )
    _refuse_layers(methods)
    with warned_once():
        maps = explained(subject, methods, watch)
    if on_maps is not None:
        on_maps(maps)
    measures = _Measures.empty(len(methods), len(named), len(subject))
    for examples, places, runs in maps.groups():
        measures.add(maps, named, examples, places, runs, curves=curves)
    return Scores(
        values=measures.values,
        methods=maps.names,
        metrics=tuple(named),
        higher=tuple(bool(metric.higher) for metric in named.values()),
        examples=names,
        gradients=maps.gradients,
        rows=maps.rows,
        seconds=maps.seconds,
        gap=measures.gap,
        error=measures.error,
        reasons={(name, names[b]): reason for (name, b), reason in maps.reasons.items()},
        curves={name: curve for name, curve in measures.curves.items() if curve is not None},
        controls=tuple(name for name in maps.names if name in controls),
    )


def _refuse_layers(methods: Mapping[str, ExplainerLike]) -> None:
    for name, method in methods.items():
        if as_explainer(method).explains == "layer":
            raise InputError(
                f"{name!r} explains a layer: maps of the inputs are compared, so leave it out."
            )


@dataclass(frozen=True, eq=False)
class _Measures:
    """Tables that are filled group by group: values (M, Q, E), gap and error (M, E), and curves
    (M, E, \\*t) by metric, None for a metric whose curves differ in length."""

    values: Numbers
    gap: Numbers
    error: Numbers
    curves: dict[str, Numbers | None]

    @classmethod
    def empty(cls, methods: int, metrics: int, examples: int) -> _Measures:
        """Tables of NaN."""
        values = np.full((methods, metrics, examples), np.nan)
        return cls(
            values,
            np.full((methods, examples), np.nan),
            np.full((methods, examples), np.nan),
            {},
        )

    def add(
        self,
        explained: Explained,
        metrics: Mapping[str, Metric],
        examples: list[int],
        places: list[int],
        runs: list[MethodRun],
        *,
        curves: bool,
    ) -> None:
        """Measure the maps of some examples, by the methods at ``places`` that have maps of
        them."""
        x = explained.subject.x
        subject = portion(explained.subject, examples)
        attributions = [_attribution_of(run, examples) for run in runs]
        cells = np.ix_(places, examples)
        self.gap[cells] = np.stack(
            [
                _array(attribution.gap)
                if attribution.claims_completeness
                else np.full(len(examples), np.nan)
                for attribution in attributions
            ]
        )
        self.error[cells] = np.stack([_array(attribution.error) for attribution in attributions])
        maps = Maps.of(
            {explained.names[m]: result for m, result in zip(places, attributions, strict=True)},
            subject.x,
            subject.layout,
            [
                narrowed(run.method, _positions(run, examples), run.attribution.values)
                for run in runs
            ],
        )
        for q, (name, metric) in enumerate(metrics.items()):
            narrowed_metric = narrowed(metric, examples, x)
            measured = narrowed_metric.measure(subject, maps)
            values = _array(narrowed_metric.values(measured))
            self.values[np.ix_(places, [q], examples)] = values[:, None]
            if curves and measured.ndim > 2:
                self._add_curves(name, _array(measured), cells)

    def _add_curves(
        self, name: str, measured: Numbers, cells: tuple[NDArray[np.intp], ...]
    ) -> None:
        """Store curves; those of a metric that gives several lengths are left out."""
        if name not in self.curves:
            self.curves[name] = np.full((*self.gap.shape, *measured.shape[2:]), np.nan)
        stored = self.curves[name]
        if stored is not None and stored.shape[2:] == measured.shape[2:]:
            stored[cells] = measured
        else:
            self.curves[name] = None


def _attribution_of(run: MethodRun, examples: Sequence[int]) -> Attribution:
    """The attribution of some of a run's examples."""
    if tuple(examples) == run.examples:
        return run.attribution
    return run.attribution[_positions(run, examples)]


def _positions(run: MethodRun, examples: Sequence[int]) -> list[int]:
    return [run.examples.index(b) for b in examples]


def _array(t: Tensor) -> Any:
    return t.detach().cpu().double().numpy()


# --- names ------------------------------------------------------------------------------------------------------------


def metrics_by_name(metrics: Mapping[str, Any] | Sequence[Any]) -> dict[str, Metric]:
    """Metrics by name: of a mapping its own names, of a list the names of the metrics, or their
    reprs where two have one name."""
    if isinstance(metrics, str) or not isinstance(metrics, Mapping | Sequence):
        raise InputError(
            f"metrics= is a list of names and metrics, or a dict of them, not {metrics!r}."
        )
    if not metrics:
        raise InputError("There are no metrics to judge by: give at least one.")
    if isinstance(metrics, Mapping):
        return {str(name): as_metric(metric) for name, metric in metrics.items()}
    built = [as_metric(metric) for metric in metrics]
    names = [metric.name or type(metric).__name__.lower() for metric in built]
    return dict(zip(_distinct(names, list(map(repr, built))), built, strict=True))


def methods_by_name(methods: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Methods by name, as ``metrics_by_name``: a value has its published name, or its repr."""
    if isinstance(methods, str) or not isinstance(methods, Mapping | Sequence):
        raise InputError(
            f"methods= is a list of names and methods, or a dict of them, not {methods!r}."
        )
    if not methods:
        raise InputError("There are no methods to compare: give at least one.")
    if isinstance(methods, Mapping):
        return {str(name): method for name, method in methods.items()}
    for method in methods:
        if not isinstance(method, str) and not callable(method):
            raise InputError(
                f"A method is a published name or a Method, not {type(method).__name__}."
            )
    names = [
        method if isinstance(method, str) else as_explainer(method).label or repr(method)
        for method in methods
    ]
    return dict(zip(_distinct(names, names), methods, strict=True))


def _distinct(names: list[str], longer: list[str]) -> list[str]:
    """Replace equal names by longer ones; raise ``InputError`` where these are equal too."""
    distinct = [
        name if names.count(name) == 1 else long for name, long in zip(names, longer, strict=True)
    ]
    twice = next((name for name in distinct if distinct.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice: leave one out, or name them with a dict.")
    return distinct
