"""All weightings on every photograph, from one set of gradients each.

    python -m benchmarks.weighing.study FOLDER --out docs/results/truth/lite0 [--photographs 50] [--minutes 60] [--scratch /tmp/maps]

Photographs come in the order that seed 0 shuffles them into; after each one OUT/scores.parquet is written anew, so that a later run goes on
where this one stopped, and every prefix of the order is a valid result. The first HALF are for choosing. The others are judged once, by
EG, WG and what was chosen, and not before docs/results/truth/choice.json says what that is (``benchmarks.weighing.choose`` writes it).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from integrand.bench.problems import Problem, ProblemOptions, problem_named
from integrand.bench.runner import machine
from integrand.compare.controls import RandomMap
from integrand.compare.scores import Scores
from integrand.errors import InputError

from .candidates import CANDIDATES, Candidate
from .evidence import NODES, SEEN, Photograph, taken
from .judge import DIRECTIONS, FILLS, IMPUTED, Predict, criterion, frozen

HALF = 50
CONTROL = "random map"
MAGNITUDE = ("EG", "WG", CONTROL)
"""Of these, maps are ranked by magnitude too, with fills that are no imputation."""
FOLDER = Path("docs/results/truth")

METRICS = {
    criterion(direction, fill, rank): higher
    for rank in ("signed", "magnitude")
    for fill in FILLS
    if not (rank == "magnitude" and fill == IMPUTED)
    for direction, higher in DIRECTIONS.items()
}


def scored(
    photograph: Photograph,
    name: str,
    candidates: Mapping[str, Candidate] = CANDIDATES,
    *,
    seen: Sequence[str] = SEEN,
    magnitude: Sequence[str] = MAGNITUDE,
) -> Scores:
    """Every candidate, and a random map, by every metric, on one photograph; weights and evidence in ``about``."""
    fills = tuple(photograph.judge.fills)
    methods = (*candidates, CONTROL)
    values = np.full((len(methods), len(METRICS), 1), np.nan)
    weights: dict[str, dict[str, list[float]]] = {}
    curves: dict[str, np.ndarray] = {}
    subject = photograph.judge.subject
    chance = RandomMap()(subject.field, subject.x).values
    for fill in fills:
        by = {
            label: candidate.weigh(photograph.evidence, candidate.sees(fill, seen))
            for label, candidate in candidates.items()
        }
        for label, vector in by.items():
            weights.setdefault(label, {})[fill] = [round(w, 9) for w in vector.tolist()]
        maps = torch.cat([photograph.map(torch.stack(list(by.values()))), chance])
        for rank in ("signed", "magnitude"):
            if rank == "magnitude" and fill == IMPUTED:
                continue
            which = [m for m, label in enumerate(methods) if rank == "signed" or label in magnitude]
            measured = photograph.judge.measured(maps[which], fill, rank)
            for direction, areas in measured.values.items():
                values[which, list(METRICS).index(criterion(direction, fill, rank)), 0] = areas
            if rank == "signed":
                for direction, curve in measured.curves.items():
                    curves[criterion(direction, fill)] = np.round(curve.numpy()[:, None], 6)
    costs = np.array([_cost(photograph, c, seen) for c in candidates.values()] + [(0.0, 0.0, 0.0)])
    nothing = np.full((len(methods), 1), np.nan)
    evidence = photograph.evidence
    about = {
        **photograph.facts,
        "weights": weights,
        "fitness": {fill: d.tolist() for fill, d in evidence.fitness.items()},
        "removal": {fill: _short(a) for fill, a in evidence.removal.items()},
        "insertion": {fill: _short(a) for fill, a in evidence.insertion.items()},
        "probability of baselines": evidence.probability.tolist(),
        "costs": {piece: vars(cost) for piece, cost in photograph.costs.items()},
        "rows": photograph.judge.rows[0],
    }
    return Scores(
        values,
        methods,
        tuple(METRICS),
        tuple(METRICS.values()),
        (name,),
        costs[:, 1:2],
        costs[:, 2:3],
        costs[:, :1],
        nothing,
        nothing,
        curves=curves,
        controls=(CONTROL,),
        about={name: about},
    )


def _short(values: torch.Tensor) -> list[float]:
    return [round(v, 6) for v in values.tolist()]


def _cost(
    photograph: Photograph, candidate: Candidate, seen: Sequence[str]
) -> tuple[float, float, float]:
    """Seconds, gradients and rows of a candidate: the maps, and the evidence it asks for (with a judge that is none of ``seen``)."""
    pieces = ["maps"]
    for need in candidate.needs:
        pieces += (
            [need]
            if need == "outputs"
            else [f"{need}, {fill}" for fill in candidate.sees("", seen)]
        )
    total = sum((photograph.costs[piece] for piece in pieces[1:]), photograph.costs[pieces[0]])
    return total.seconds, total.gradients, total.rows


# --- running ----------------------------------------------------------------------------------------------------------


def gathered(file: Path) -> Scores | None:
    """What has been scored so far."""
    return Scores.from_parquet(file) if file.is_file() else None


def judged(choice: Path) -> Mapping[str, Candidate]:
    """The candidates of the second half: EG, WG and the one that was chosen on the first.

    Raises:
        InputError: where nothing has been chosen yet.
    """
    if not choice.is_file():
        raise InputError(
            f"Photographs from number {HALF} on are for one judgement of what was chosen, and {choice} does not say what that is yet."
        )
    chosen = json.loads(choice.read_text())["chosen"]
    return {name: CANDIDATES[name] for name in dict.fromkeys(("EG", "WG", chosen))}


def go_on(
    problem: Problem,
    numbers: Sequence[int],
    file: Path,
    candidates: Mapping[str, Candidate],
    *,
    minutes: float | None = None,
    scratch: Path | None = None,
    fast: Predict | None = None,
    **options: Any,
) -> Scores | None:
    """Score the photographs that ``file`` does not hold yet, one after the other, and write it after each."""
    until = None if minutes is None else time.monotonic() + 60 * minutes
    scores = gathered(file)
    for number in numbers:
        name = problem.ids[number]
        if scores is not None and name in scores.examples:
            continue
        if until is not None and time.monotonic() > until:
            print(f"out of time before photograph {number}", flush=True)
            break
        began, spent = time.monotonic(), time.process_time()
        fast = fast or frozen(problem.model, problem.load([number]).x)
        with taken(problem, number, fast, scratch=scratch, **options) as photograph:
            row = scored(photograph, name, candidates)
        scores = row if scores is None else scores.merge(row)
        file.parent.mkdir(parents=True, exist_ok=True)
        scores.to_parquet(file)
        print(
            f"{number} {name}: {time.process_time() - spent:.0f} s of CPU, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    return scores


def photographs_of(folder: Path, model: str) -> Problem:
    """The photographs in their order, and the network."""
    return problem_named("photographs")(ProblemOptions(folder), model=model)


def noted(out: Path, model: str) -> None:
    """Beside the scores: what was run, by which versions on which machine; a line for every day on which it was gone on with."""
    file = out / "run.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    mark = {"model": model, "nodes": NODES, "seed": 0}
    if known and known["run"] != mark:
        raise InputError(f"{out} holds results of {known['run']}: give another --out.")
    sessions = [*known.get("sessions", []), machine()]
    once = [s for i, s in enumerate(sessions) if s not in sessions[:i]]
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"run": mark, "sessions": once}, indent=1) + "\n")


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The options that studies of photographs share."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--photographs", type=int, default=HALF, help="the first so many")
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--scratch", type=Path, default=None, help="keeps maps of baselines")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--held-out", action="store_true", help="judge once what was chosen")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    problem = photographs_of(asked.folder, asked.model)
    noted(asked.out, asked.model)
    if asked.held_out:
        numbers = range(HALF, len(problem.ids))
        candidates = judged(FOLDER / "choice.json")
    else:
        numbers = range(min(asked.photographs, HALF))
        candidates = CANDIDATES
    go_on(
        problem,
        numbers,
        asked.out / ("held-out.parquet" if asked.held_out else "scores.parquet"),
        candidates,
        minutes=asked.minutes,
        scratch=asked.scratch,
    )
    print(f"process {os.getpid()} is done", flush=True)


if __name__ == "__main__":
    main()
