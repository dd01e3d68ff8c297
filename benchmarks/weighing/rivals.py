"""IG2 and its rivals, judged as the weightings are: under every fill, in both directions, by both rankings.

    python -m benchmarks.weighing.rivals lite0 --data FOLDER [--examples 100] [--minutes 60]

Methods and their settings are those of the suite ``ig2``. The judge asks for fewer points of a curve than the suite's metrics do and has deletion,
insertion and DiffID from the same rows, so that an example takes a quarter of the time. rivals.parquet beside the study's scores; a later run goes
on where this one stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from integrand.bench import names, suite
from integrand.bench.problems import Problem
from integrand.bench.suite import SuiteRun
from integrand.compare.controls import Control
from integrand.compare.evaluate import explained
from integrand.compare.scores import Scores

from .evidence import judging
from .judge import DIRECTIONS, FILLS, IMPUTED, RANKS, Judge, Predict, criterion, frozen
from .study import METRICS, SETTINGS, arguments, noted, one_by_one, problem_of

RUNS: Mapping[str, str] = {
    "lite0": "photographs",
    "lite1": "photographs-lite1",
    "lite2": "photographs-lite2",
    "digits": "digits",
    "transformer": "digits-transformer",
}
"""The run of the suite whose methods explain each problem of the study."""
WITHOUT = ("IG2, shrinking steps", "gradient")
"""Shrinking steps are a factor of the designed experiment."""
IG2 = "IG2 as published"
ACCURATE = "IG2, published steps, accurate"


def scored(judge: Judge, problem: Problem, recipe: SuiteRun, name: str) -> Scores:
    """Every method of a recipe by every metric, on the example of a judge."""
    words = {**problem.words, **recipe.words}
    methods = {
        label: names.method(text, words)
        for label, text in recipe.methods.items()
        if label not in WITHOUT
    }
    maps = explained(judge.subject, methods)
    known = [m for m, label in enumerate(methods) if maps.map(label, 0) is not None]
    stacked = torch.stack([map for label in methods if (map := maps.map(label, 0)) is not None])
    values = np.full((len(methods), len(METRICS), 1), np.nan)
    for fill in FILLS:
        for rank in RANKS:
            if rank == "magnitude" and fill == IMPUTED:
                continue
            measured = judge.measured(stacked, fill, rank).values
            for direction in DIRECTIONS:
                q = list(METRICS).index(criterion(direction, fill, rank))
                values[known, q, 0] = measured[direction]
    gaps = np.full((len(methods), 1), np.nan)
    for m, run in enumerate(run for (run,) in maps.runs):
        if run is not None and not isinstance(methods[list(methods)[m]], Control):
            gaps[m] = float(run.attribution.gap[0])
    return Scores(
        values,
        tuple(methods),
        tuple(METRICS),
        tuple(METRICS.values()),
        (name,),
        maps.gradients,
        maps.rows,
        maps.seconds,
        gaps,
        np.full((len(methods), 1), np.nan),
        reasons={(label, name): why for (label, _), why in maps.reasons.items()},
        controls=tuple(
            label for label, explainer in methods.items() if isinstance(explainer, Control)
        ),
    )


def go_on(
    name: str, problem: Problem, file: Path, examples: int, *, minutes: float | None = None
) -> Scores | None:
    """Score the examples that ``file`` does not hold yet, one after the other."""
    recipe = suite.suite("ig2").run(RUNS[name])
    fast: Predict | None = None

    def score(number: int, example: str) -> Scores:
        nonlocal fast
        spent = time.process_time()
        fast = fast or frozen(problem.model, problem.load([number]).x)
        with judging(problem, number, fast) as judge:
            row = scored(judge, problem, recipe, example)
            about = {"rows": judge.rows[0], "seconds": round(time.process_time() - spent, 2)}
        row.about[example] = about
        return row

    numbers = range(examples)
    return one_by_one([(number, problem.ids[number]) for number in numbers], file, score, minutes)


def main() -> None:
    asked = arguments(__doc__).parse_args()
    torch.set_num_threads(asked.threads)
    problem = problem_of(asked.name, asked.data)
    out = asked.out / asked.name
    noted(out, asked.name, problem)
    examples = SETTINGS[asked.name].examples if asked.examples is None else asked.examples
    go_on(asked.name, problem, out / "rivals.parquet", examples, minutes=asked.minutes)


if __name__ == "__main__":
    main()
