"""Running a suite: every batch of examples is scored once and stored, so that an interrupted run
resumes.

OUT/suite.json                     what is run, by which versions on which machine
OUT/RUN/scores-00012.parquet       what a batch of examples scored; written whole or not at all
OUT/RUN/scores.parquet             all of them;   OUT/results.json, OUT/index.html   what they say
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compare.controls import Control
from ..compare.evaluate import scored
from ..compare.scores import Scores
from ..core.files import write_text
from ..errors import InputError, MissingData, MissingExtra, UnknownName
from ..integration.wrappers.base import RepeatedWarnings
from ..metrics import Metric
from .claims import ClaimResult, hold
from .names import method, metric
from .peers import Peer
from .problems import Problem, ProblemOptions, problem_named
from .suite import Suite, SuiteRun

Tell = Callable[[str], None]


@dataclass(frozen=True)
class RunOptions:
    """How much of a suite is run, and where.

    data      a folder or file of examples
    out       where results are kept
    examples  at most so many of each run; None for what the recipe says
    minutes   stop after so long; what is finished counts, and a later run goes on
    part      (k, n): every n-th batch from the k-th, for n processes that share the work
    runs      some of the suite's runs; all unless given
    """

    out: Path
    data: Path | None = None
    examples: int | None = None
    minutes: float | None = None
    part: tuple[int, int] = (1, 1)
    runs: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Finished:
    """The outcome of a run: its scores so far, facts of its problem, or why it was
    left out.

    summaries  metrics whose one number per method is not the mean of the examples' (the area under
               a median curve): by metric and method
    """

    run: SuiteRun
    scores: Scores | None
    facts: dict[str, Any] = field(default_factory=dict)
    summaries: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: MissingExtra | MissingData | None = None

    @property
    def left_out(self) -> str:
        """Why there was no run; empty where there was one."""
        return "" if self.missing is None else str(self.missing)


@dataclass(frozen=True, eq=False)
class Results:
    """The results of a suite; ``data`` is the name of the folder or file of examples."""

    suite: Suite
    finished: tuple[Finished, ...]
    claims: tuple[ClaimResult, ...]
    machine: dict[str, Any]
    seed: int = 0
    data: str | None = None


def run(suite: Suite, request: RunOptions, tell: Tell = lambda line: None) -> Results:
    """Run a suite, or go on with it.

    A run whose model or data need a package that is not installed, or whose kind of examples
    ``data`` does not hold, is left out, and its reason is part of the results.

    Raises:
        InputError: for a folder that holds results of another suite, seed, data, or recipe of a run.
        MissingData: where ``data`` holds examples for none of the runs.
    """
    _claim_folder(suite, request)
    until = None if request.minutes is None else time.monotonic() + 60 * request.minutes
    finished = []
    for suite_run in suite.runs:
        if request.runs and suite_run.name not in request.runs:
            continue
        finished.append(_finished(suite_run, request, until, tell))
    absent = [result.missing for result in finished if isinstance(result.missing, MissingData)]
    if absent and all(result.missing for result in finished):
        raise absent[0]
    scores = {result.run.name: result.scores for result in finished if result.scores is not None}
    claims = tuple(
        hold(claim, run_scores, seed=request.seed)
        for claim in suite.claims
        if (run_scores := scores.get(claim.run)) is not None
    )
    data = None if request.data is None else request.data.name
    return Results(suite, tuple(finished), claims, machine(), request.seed, data)


def _finished(
    suite_run: SuiteRun, request: RunOptions, until: float | None, tell: Tell
) -> Finished:
    setting = ProblemOptions(request.data, request.out / "models", request.seed)
    tell(f"{suite_run.name}: {suite_run.problem}")
    try:
        problem = problem_named(suite_run.problem)(setting, **suite_run.options)
    except (MissingExtra, MissingData) as error:
        tell(f"{suite_run.name} is left out: {error}")
        return Finished(suite_run, None, missing=error)
    folder = request.out / suite_run.name
    folder.mkdir(parents=True, exist_ok=True)
    limits = [
        limit
        for limit in (suite_run.examples, request.examples, len(problem.ids))
        if limit is not None
    ]
    numbers = range(min(limits))
    batches = [numbers[i : i + suite_run.batch] for i in range(0, len(numbers), suite_run.batch)]
    place, parts = request.part
    with RepeatedWarnings() as repeated:
        for number, batch in enumerate(batches):
            file = folder / f"scores-{number:05d}.parquet"
            if file.exists() or number % parts != place - 1:
                continue
            if until is not None and time.monotonic() > until:
                tell(f"{suite_run.name}: out of time after {number} of {len(batches)} batches")
                break
            began = time.monotonic()
            with repeated.collected():
                scores = _judged(suite_run, problem, batch)
                scores.to_parquet(file)
            tell(
                f"{suite_run.name}: batch {number + 1} of {len(batches)}, {time.monotonic() - began:.0f} s"
            )
    gathered = _gathered(folder, suite_run, problem)
    summaries = {} if gathered is None else _summaries(suite_run, problem, gathered)
    return Finished(suite_run, gathered, dict(problem.facts), summaries)


def _summaries(
    suite_run: SuiteRun, problem: Problem, scores: Scores
) -> dict[str, dict[str, float]]:
    words = _words(suite_run, problem)
    result: dict[str, dict[str, float]] = {}
    for name, curves in scores.curves.items():
        try:
            by = metric(suite_run.metrics[name], words)
        except UnknownName:  # a word of examples, such as other texts: those of any will do
            words |= problem.load([0]).words
            by = metric(suite_run.metrics[name], words)
        if type(by).summary is not Metric.summary:
            result[name] = dict(
                zip(scores.methods, by.summary(torch.from_numpy(curves)).tolist(), strict=True)
            )
    return result


def _words(suite_run: SuiteRun, problem: Problem) -> dict[str, Any]:
    """What the parts of a run may say: the problem's words, and the run's own."""
    return {**problem.words, **suite_run.words}


def _judged(suite_run: SuiteRun, problem: Problem, batch: Sequence[int]) -> Scores:
    examples = problem.load(batch)
    words = {**_words(suite_run, problem), **examples.words}
    methods = {name: method(text, words) for name, text in suite_run.methods.items()}
    metrics = {name: metric(text, words) for name, text in suite_run.metrics.items()}
    controls = [name for name, explainer in methods.items() if isinstance(explainer, Control)]
    ids = [problem.ids[i] for i in batch]
    with problem.subject_of(examples) as subject:
        scores = scored(subject, methods, metrics, ids, controls=controls)
    for m, explainer in enumerate(methods.values()):
        if isinstance(explainer, Peer) and not explainer.counted:
            scores.gradients[m] = scores.rows[m] = np.nan
    return scores


def _gathered(folder: Path, suite_run: SuiteRun, problem: Problem) -> Scores | None:
    files = sorted(folder.glob("scores-[0-9]*.parquet"))
    if not files:
        return None
    scores = Scores.merged(Scores.from_parquet(file) for file in files)
    scores = replace(
        scores, about={"run": suite_run.name, "problem": problem.name, **problem.facts}
    )
    scores.to_parquet(folder / "scores.parquet")
    return scores


# --- what was run, where ----------------------------------------------------------------------------------------------


def _claim_folder(suite: Suite, request: RunOptions) -> None:
    """A folder belongs to one suite, seed and data, and a run's folder to one recipe: results of
    two would be mixed up. What a recipe says of other runs may change, and runs may be added."""
    request.out.mkdir(parents=True, exist_ok=True)
    file = request.out / "suite.json"
    mark = {
        "suite": suite.name,
        "seed": request.seed,
        "data": None if request.data is None else request.data.name,
    }
    recipes = {
        run.name: _digest(_recipe_of(run))
        for run in suite.runs
        if not request.runs or run.name in request.runs
    }
    fresh: dict[str, Any] = {**mark, "recipes": {}}
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else fresh
    # Folders of earlier versions hold one digest of the whole recipe.
    text = _digest(suite.text)
    known: dict[str, str] = stored.get("recipes", {})
    different = [key for key, value in mark.items() if stored.get(key) != value]
    if "recipes" not in stored and stored.get("recipe") != text:
        different.append("recipe")
    different += [
        f"recipe of {name!r}"
        for name, digest in recipes.items()
        if known.get(name, digest) != digest
    ]
    if different:
        raise InputError(
            f"{request.out} holds results of another {' and '.join(different)}: give another --out, or remove the folder."
        )
    write_text(file, json.dumps({**mark, "recipes": {**known, **recipes}}, indent=2))


def _recipe_of(run: SuiteRun) -> str:
    """What a batch's scores depend on: how many batches there are, and what they are held against,
    is not among it."""
    told = (run.problem, run.options, run.words, run.methods, run.metrics, run.batch)
    return json.dumps(told)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def machine() -> dict[str, Any]:
    """What results depend on: versions, processor, threads, and when."""
    versions = {}
    for package in (
        "integrand",
        "torch",
        "numpy",
        "scipy",
        "pillow",
        "scikit-image",
        "scikit-learn",
        "shap",
        "torch-geometric",
        "transformers",
    ):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": versions,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
