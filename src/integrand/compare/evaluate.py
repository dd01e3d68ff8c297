"""Every method on every example, and every metric on all their maps.

    subject ── methods ──▶ maps (M, B, *s) ── metrics ──▶ Scores

Maps are made method by method for the whole batch; a batch that a method fails on is taken apart,
so that one bad example costs the others nothing. What has no map has no score and a reason. Metrics
then look at all maps of an example at once, because they share what the model says of the example.
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
from torch import Tensor

from ..core.shapes import describe, flattened
from ..errors import IncompleteWarning, InputError
from ..integration.attribution import Attribution, ExplainerLike, as_explainer
from ..integration.wrappers.base import warned_once
from ..metrics import Maps, Metric, Subject, as_metric
from ..task import Task
from .scores import Scores
from .subset import Counts, narrowed, portion

GRADIENT_ROWS = 3
"""What a row with a gradient is worth in rows without, where the seconds of a batch are shared
out."""


@dataclass(frozen=True, eq=False)
class MethodRun:
    """One call of a method: what it made of the examples ``which`` of the batch."""

    method: ExplainerLike
    made: Attribution
    which: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Explained:
    """What methods made of a batch: for every method and example its run, or None and a reason.

    runs (M, B) nested tuples;  gradients, rows, seconds (M, B);  reasons by (method, example's place)
    """

    subject: Subject
    names: tuple[str, ...]
    runs: tuple[tuple[MethodRun | None, ...], ...]
    gradients: np.ndarray[Any, np.dtype[np.float64]]
    rows: np.ndarray[Any, np.dtype[np.float64]]
    seconds: np.ndarray[Any, np.dtype[np.float64]]
    reasons: Mapping[tuple[str, int], str]

    def map(self, method: str, example: int) -> Tensor | None:
        """The map (\\*s) of an example, where there is one."""
        run = self.runs[self.names.index(method)][example]
        return None if run is None else run.made.values[run.which.index(example)]

    def attribution(self, method: str, example: int) -> Attribution | None:
        """The attribution of one example, where there is one."""
        run = self.runs[self.names.index(method)][example]
        return None if run is None else run.made[run.which.index(example)]

    def groups(self) -> Iterator[tuple[list[int], list[int], list[MethodRun]]]:
        """Examples that are judged together: their places, the methods that have maps of them, and
        the runs these come from."""
        found: dict[tuple[int | None, ...], list[int]] = {}
        for b in range(len(self.subject)):
            key = tuple(None if runs[b] is None else id(runs[b]) for runs in self.runs)
            found.setdefault(key, []).append(b)
        for examples in found.values():
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
    """Run every method on every example of a subject whose model is ready; ``watch`` is told of so
    many more maps."""
    batch = len(subject)
    runs: list[tuple[MethodRun | None, ...]] = []
    numbers = {name: np.zeros((len(methods), batch)) for name in ("gradients", "rows", "seconds")}
    reasons: dict[tuple[str, int], str] = {}
    for m, (name, method) in enumerate(methods.items()):
        made: list[MethodRun | None] = [None] * batch
        for which in _attempts(subject, method, range(batch), made, numbers, m):
            for b, why in which.items():
                reasons[name, b] = why
        runs.append(tuple(made))
        if watch is not None:
            watch(batch)
    return Explained(subject, tuple(methods), tuple(runs), **numbers, reasons=reasons)


def _attempts(
    subject: Subject,
    method: ExplainerLike,
    which: Sequence[int],
    made: list[MethodRun | None],
    numbers: Mapping[str, Any],
    m: int,
) -> Iterator[dict[int, str]]:
    """The whole batch at once; where that fails, example by example. Yields why some have no
    map."""
    counts = Counts(len(which))
    some = portion(subject, which, counts)
    own = narrowed(method, which, subject.x)
    began = time.perf_counter()
    try:
        with _expected_warnings():
            found = own(some.field, some.x)
        _check(found, some.x)
    except (
        MemoryError,
        torch.OutOfMemoryError,
    ):  # says nothing of the method, and the next would meet it too
        raise
    except Exception as error:  # a method may be the user's own code
        if len(which) > 1:
            for b in which:
                yield from _attempts(subject, method, [b], made, numbers, m)
        else:
            _count(numbers, m, which, counts, time.perf_counter() - began)
            yield {which[0]: _said(error)}
        return
    _count(numbers, m, which, counts, time.perf_counter() - began)
    # Maps of single references, and paths, are let go at once: nothing here looks at them.
    found = dataclasses.replace(found, shares=None, baselines=None, frames=None)
    run = MethodRun(own, found, tuple(which))
    finite = flattened(torch.isfinite(found.values), 1).all(1).tolist()
    for b, fine in zip(which, finite, strict=True):
        made[b] = run if fine else None
    yield {
        b: "the map holds NaN or infinity"
        for b, fine in zip(which, finite, strict=True)
        if not fine
    }


def _check(found: Any, x: Tensor) -> None:
    values = found.values if isinstance(found, Attribution) else None
    if not isinstance(values, Tensor):
        raise InputError(f"it returned {type(found).__name__}, not an Attribution")
    if values.shape != x.shape:
        raise InputError(
            f"its map has shape {describe(values.shape)}, the inputs have {describe(x.shape)}"
        )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _count(
    numbers: Mapping[str, Any], m: int, which: Sequence[int], counts: Counts, seconds: float
) -> None:
    place = list(which)
    gradients, rows = counts.gradients.numpy(), counts.values.numpy()
    work = GRADIENT_ROWS * gradients + rows
    share = work / work.sum() if work.sum() else np.full(len(place), 1 / len(place))
    for name, one in (("gradients", gradients), ("rows", rows), ("seconds", seconds * share)):
        numbers[name][m, place] += one


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Maps that do not add up are counted in the table, and not warned of one by one."""
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
    look: Callable[[Explained], None] | None = None,
    watch: Callable[[int], None] | None = None,
) -> Scores:
    """Judge every method on every example by every metric.

    subject   what is judged on: a ``Subject`` whose model is ready, or a ``Task``, made ready once
              for all of it
    methods   by name, each (field, x) -> Attribution of the inputs
    metrics   names or values, or values by name
    ids       what examples are called; their numbers unless given
    curves    keep what metrics measured before it became one number
    look      is shown the maps before they are let go;  watch is told of so many more maps while they are made

    A map that holds NaN, or whose method raises an exception, has no scores (NaN), and ``reasons``
    says why. Errors of metrics are raised: they mean that a metric was asked what it cannot know.
    Cost: the methods', and the metrics' for all maps at once.
    """
    if isinstance(subject, Task):
        with Subject.ready(subject) as own:
            return scored(
                own, methods, metrics, ids, controls=controls, curves=curves, look=look, watch=watch
            )
    named = metrics_by_name(metrics)
    names = tuple(str(i) for i in range(len(subject))) if ids is None else tuple(ids)
    if len(names) != len(subject):
        raise InputError(
            f"There are {len(names)} ids for {len(subject)} examples: give one for each."
        )
    layer = next(
        (name for name, method in methods.items() if as_explainer(method).explains == "layer"), None
    )
    if layer is not None:
        raise InputError(
            f"{layer!r} explains a layer: maps of the inputs are compared, so leave it out."
        )
    with warned_once():
        seen = explained(subject, methods, watch)
    if look is not None:
        look(seen)
    shape = len(methods), len(named), len(subject)
    values = np.full(shape, np.nan)
    gap, error = np.full((shape[0], shape[2]), np.nan), np.full((shape[0], shape[2]), np.nan)
    kept: dict[str, Any] = {}
    for examples, chosen, runs in seen.groups():
        some = portion(subject, examples)
        found = [_of(run, examples) for run in runs]
        at = np.ix_(chosen, examples)
        gap[at] = np.stack(
            [
                _array(one.gap) if one.claims_completeness else np.full(len(examples), np.nan)
                for one in found
            ]
        )
        error[at] = np.stack([_array(one.error) for one in found])
        called = tuple(seen.names[m] for m in chosen)
        given = dict(zip(called, found, strict=True))
        explainers = [narrowed(run.method, _within(run, examples), run.made.values) for run in runs]
        maps = Maps.of(given, some.x, some.layout, explainers)
        for q, (name, metric) in enumerate(named.items()):
            by = narrowed(metric, examples, subject.x)
            measured = by.measure(some, maps)
            values[np.ix_(chosen, [q], examples)] = _array(by.values(measured))[:, None]
            if curves and measured.ndim > 2:
                _keep(kept, name, _array(measured), at, gap.shape)
    return Scores(
        values=values,
        methods=seen.names,
        metrics=tuple(named),
        higher=tuple(bool(one.higher) for one in named.values()),
        examples=names,
        gradients=seen.gradients,
        rows=seen.rows,
        seconds=seen.seconds,
        gap=gap,
        error=error,
        reasons={(name, names[b]): why for (name, b), why in seen.reasons.items()},
        curves={name: curve for name, curve in kept.items() if curve is not None},
        controls=tuple(name for name in seen.names if name in controls),
    )


def _of(run: MethodRun, examples: Sequence[int]) -> Attribution:
    """What a run made of some of its examples."""
    return run.made if tuple(examples) == run.which else run.made[_within(run, examples)]


def _within(run: MethodRun, examples: Sequence[int]) -> list[int]:
    return [run.which.index(b) for b in examples]


def _keep(kept: dict[str, Any], name: str, measured: Any, at: Any, shape: tuple[int, ...]) -> None:
    """Curves of one length are kept; of a metric that gives several lengths none."""
    if name not in kept:
        kept[name] = np.full((*shape, *measured.shape[2:]), np.nan)
    if kept[name] is not None and kept[name].shape[2:] == measured.shape[2:]:
        kept[name][at] = measured
    else:
        kept[name] = None


def _array(t: Tensor) -> Any:
    return t.detach().cpu().double().numpy()


# --- names ------------------------------------------------------------------------------------------------------------


def metrics_by_name(given: Mapping[str, Any] | Sequence[Any]) -> dict[str, Metric]:
    """Metrics by name: a mapping as it is; of a list, names of their own, with what tells equal
    ones apart."""
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence):
        raise InputError(
            f"metrics= is a list of names and metrics, or a dict of them, not {given!r}."
        )
    if not given:
        raise InputError("There are no metrics to judge by: give at least one.")
    if isinstance(given, Mapping):
        return {str(name): as_metric(one) for name, one in given.items()}
    made = [as_metric(one) for one in given]
    names = [one.name or type(one).__name__.lower() for one in made]
    return dict(zip(_distinct(names, list(map(repr, made))), made, strict=True))


def methods_by_name(given: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Methods by name, as ``metrics_by_name``: names stay names, values are called by what they are
    published as, or as they print."""
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence):
        raise InputError(
            f"methods= is a list of names and methods, or a dict of them, not {given!r}."
        )
    if not given:
        raise InputError("There are no methods to compare: give at least one.")
    if isinstance(given, Mapping):
        return {str(name): one for name, one in given.items()}
    for one in given:
        if not isinstance(one, str) and not callable(one):
            raise InputError(f"A method is a published name or a Method, not {type(one).__name__}.")
    names = [one if isinstance(one, str) else as_explainer(one).label or repr(one) for one in given]
    return dict(zip(_distinct(names, names), given, strict=True))


def _distinct(names: list[str], longer: list[str]) -> list[str]:
    """Equal names are replaced by longer ones, and those that are still equal are refused."""
    made = [
        name if names.count(name) == 1 else long for name, long in zip(names, longer, strict=True)
    ]
    twice = next((name for name in made if made.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice: leave one out, or name them with a dict.")
    return made
