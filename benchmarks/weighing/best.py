"""How much is there to gain: the best weights on the simplex by each criterion, and what they are worth by all others.

    python -m benchmarks.weighing.best lite0 --data FOLDER [--examples 50] [--minutes 60] [--scratch MAPS]

Maps are linear in the weights, so a search takes forward passes only. For every example that ``benchmarks.weighing.study`` has scored:

    1  every point of the lattice (vertices, midpoints of edges, the middle) and the weights of Weighted Gradients, by every criterion
    2  around the best of them by each criterion, STEP of the way to every vertex, by the criteria of that fill
    3  the best by each criterion, by every criterion, and by imputation (ROAD), which nobody searches by

The best by a criterion is at least so good by it; by the others it may be anything. best.parquet beside the study's scores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from integrand.bench.problems import Problem
from integrand.compare.scores import Scores

from .evidence import SEEN, Photograph, taken
from .judge import DIRECTIONS, IMPUTED, Predict, criterion, frozen
from .study import SETTINGS, arguments, gathered, noted, one_by_one, problem_of

STEP = 1 / 3
SEARCHED = ("deletion", "insertion")
STARTS = ("EG", "WG", "WG, grey", "WG, blur")
"""Weightings that are looked at too, and are in the table beside the best."""


def chosen_on(direction: str, fill: str) -> str:
    """The name of the best weights by a criterion."""
    return f"best by {direction}, {fill}"


def lattice(count: int) -> Tensor:
    """Vertices, midpoints of edges and the middle of the simplex: (count + count (count − 1)/2 + 1, count), fewer where they coincide."""
    vertices = torch.eye(count, dtype=torch.float64)
    middles = [(vertices[a] + vertices[b]) / 2 for a, b in combinations(range(count), 2)]
    points = torch.stack([*vertices, *middles, vertices.mean(0)])
    return torch.unique(points, dim=0)


def around(weights: Tensor) -> Tensor:
    """Points STEP of the way from weights (R,) to every vertex: (R, R)."""
    return (1 - STEP) * weights + STEP * torch.eye(len(weights), dtype=weights.dtype)


class Table:
    """Weights looked at so far, and what each came to under each fill: nothing is measured twice."""

    def __init__(self, photograph: Photograph) -> None:
        self.photograph = photograph
        self.known: dict[str, dict[tuple[float, ...], dict[str, float]]] = {
            fill: {} for fill in photograph.judge.fills
        }

    def look(self, points: Tensor, fill: str) -> list[dict[str, float]]:
        """What weights (M, R) come to, by direction."""
        keys = [tuple(round(w, 9) for w in point.tolist()) for point in points]
        known = self.known[fill]
        fresh = list(dict.fromkeys(key for key in keys if key not in known))
        if fresh:
            maps = self.photograph.map(torch.tensor(fresh, dtype=torch.float64))
            values = self.photograph.judge.measured(maps, fill, "signed").values
            for m, key in enumerate(fresh):
                known[key] = {direction: float(v[m]) for direction, v in values.items()}
        return [known[key] for key in keys]

    def best(self, direction: str, fill: str) -> Tensor:
        """The best weights (R,) looked at, by one criterion; of equal ones the first."""
        sign = 1 if DIRECTIONS[direction] else -1
        known = self.known[fill]
        key = max(known, key=lambda weights: sign * known[weights][direction])
        return torch.tensor(key, dtype=torch.float64)


def searched(
    photograph: Photograph, starts: Mapping[str, Tensor], seen: Sequence[str] = SEEN
) -> tuple[dict[str, Tensor], Table]:
    """The best weights by every criterion, and all that was looked at."""
    table = Table(photograph)
    first = torch.cat([torch.stack(list(starts.values())), lattice(len(photograph.evidence))])
    found: dict[str, Tensor] = {}
    for fill in seen:
        table.look(first, fill)
        steps = [around(table.best(direction, fill)) for direction in SEARCHED]
        table.look(torch.cat(steps), fill)
        for direction in SEARCHED:
            found[chosen_on(direction, fill)] = table.best(direction, fill)
    return found, table


def scored(
    photograph: Photograph,
    name: str,
    starts: Mapping[str, Tensor],
    seen: Sequence[str] = SEEN,
) -> Scores:
    """The best weights by every criterion and the starts, by every criterion, on one photograph."""
    began = time.process_time()
    found, table = searched(photograph, starts, seen)
    rows = {**starts, **found}
    points = torch.stack(list(rows.values()))
    fills = tuple(photograph.judge.fills)
    metrics = {criterion(d, fill): higher for fill in fills for d, higher in DIRECTIONS.items()}
    values = np.array(
        [
            [measured[direction] for measured in table.look(points, fill)]
            for fill in fills
            for direction in DIRECTIONS
        ]
    ).T[..., None]
    nothing = np.full((len(rows), 1), np.nan)
    looked = {fill: len(table.known[fill]) for fill in fills if fill != IMPUTED}
    about = {
        "weights": {label: [round(w, 9) for w in row.tolist()] for label, row in rows.items()},
        "looked at": looked,
        "rows": photograph.judge.rows[0],
        "seconds": time.process_time() - began,
    }
    return Scores(
        values,
        tuple(rows),
        tuple(metrics),
        tuple(metrics.values()),
        (name,),
        np.full((len(rows), 1), photograph.costs["maps"].gradients),
        nothing,
        nothing,
        nothing,
        nothing,
        about={name: about},
    )


def go_on(
    problem: Problem,
    numbers: Sequence[int],
    study: Scores,
    file: Path,
    *,
    minutes: float | None = None,
    scratch: Path | None = None,
    fast: Predict | None = None,
    nodes: int | None = None,
) -> Scores | None:
    """Search on the photographs of the study that ``file`` does not hold yet, and write it after each."""
    options = {} if nodes is None else {"nodes": nodes}

    def score(number: int, name: str) -> Scores:
        nonlocal fast
        fast = fast or frozen(problem.model, problem.load([number]).x)
        known = study.about[name]
        starts = {
            label: torch.tensor(known["weights"][label]["corners"], dtype=torch.float64)
            for label in STARTS
        }
        with taken(problem, number, fast, scratch=scratch, known=known, **options) as photograph:
            return scored(photograph, name, starts)

    photographs = [(number, problem.ids[number]) for number in numbers]
    return one_by_one(
        [(number, name) for number, name in photographs if name in study.examples],
        file,
        score,
        minutes,
    )


def main() -> None:
    asked = arguments(__doc__).parse_args()
    torch.set_num_threads(asked.threads)
    problem = problem_of(asked.name, asked.data)
    out = asked.out / asked.name
    noted(out, asked.name, problem)
    study = gathered(out / "scores.parquet")
    if study is None:
        raise SystemExit(f"{out} holds no scores yet: run benchmarks.weighing.study first.")
    numbers = range(SETTINGS[asked.name].half)
    go_on(
        problem,
        numbers if asked.examples is None else numbers[: asked.examples],
        study,
        out / "best.parquet",
        minutes=asked.minutes,
        scratch=None if asked.scratch is None else asked.scratch / asked.name,
    )


if __name__ == "__main__":
    main()
