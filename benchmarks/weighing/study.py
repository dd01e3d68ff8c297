"""All weightings on every photograph, from one set of gradients each.

    python -m benchmarks.weighing.study lite0 --data FOLDER [--examples 50] [--minutes 60] [--scratch MAPS]
    python -m benchmarks.weighing.study lite0 --data FOLDER --held-out

Photographs (or digits) come in the order that seed 0 shuffles them into; after each one docs/results/truth/NAME/scores.parquet is written anew,
so that a later run goes on where this one stopped, and every prefix of the order is a valid result. The first half is for choosing. The other is
judged once, by EG, WG and what was chosen, and not before ``benchmarks.weighing.choose`` has written what that is; so is another network.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Setting:
    """A problem of the study: what it is made of, how many examples are for choosing, and how many there are.

    chosen_on  whose first half decides what is judged here: its own, or that of another network of the same data, on which nothing is chosen
    """

    problem: str
    options: Mapping[str, Any]
    half: int
    examples: int
    chosen_on: str


SETTINGS: Mapping[str, Setting] = {
    "lite0": Setting("photographs", {"model": "efficientnet-lite0"}, 50, 100, "lite0"),
    # Sixty, fixed before any was looked at: they show a gain of 6 % four times of five.
    "lite1": Setting("photographs", {"model": "efficientnet-lite1"}, 0, 60, "lite0"),
    "lite2": Setting("photographs", {"model": "efficientnet-lite2"}, 0, 60, "lite0"),
    "digits": Setting("digits", {}, 250, 500, "digits"),
    "transformer": Setting("digits", {"network": "transformer", "epochs": 20}, 0, 500, "digits"),
}

EVERY = 20.0
"""Seconds after which what was scored is written; photographs take longer than that."""
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
    """The candidates of the held-out judgement: EG, WG and the one that was chosen on the first half.

    Raises:
        InputError: where nothing has been chosen yet.
    """
    if not choice.is_file():
        raise InputError(
            f"These examples are for one judgement of what was chosen, and {choice} does not say what that is yet."
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

    def score(number: int, name: str) -> Scores:
        nonlocal fast
        spent = time.process_time()
        fast = fast or frozen(problem.model, problem.load([number]).x)
        with taken(problem, number, fast, scratch=scratch, **options) as photograph:
            row = scored(photograph, name, candidates)
        row.about[name]["seconds"] = round(time.process_time() - spent, 2)
        return row

    return one_by_one([(number, problem.ids[number]) for number in numbers], file, score, minutes)


def one_by_one(
    photographs: Sequence[tuple[int, str]],
    file: Path,
    score: Callable[[int, str], Scores],
    minutes: float | None,
) -> Scores | None:
    """Score the photographs, by number and name, that ``file`` does not hold yet, and write it now and then."""
    until = None if minutes is None else time.monotonic() + 60 * minutes
    scores = gathered(file)
    written, pending = time.monotonic(), 0
    for number, name in photographs:
        if scores is not None and name in scores.examples:
            continue
        if until is not None and time.monotonic() > until:
            print(f"out of time before photograph {number}", flush=True)
            break
        row = score(number, name)
        scores = row if scores is None else scores.merge(row)
        pending += 1
        if time.monotonic() - written > EVERY:
            written, pending = write(scores, file), 0
            print(f"{number} {name}: {row.about[name]['seconds']:.1f} s of CPU", flush=True)
    if scores is not None and pending:
        write(scores, file)
    return scores


def write(scores: Scores, file: Path) -> float:
    """Write a table whole or not at all; when that was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scores.to_parquet(file)
    return time.monotonic()


def problem_of(name: str, data: Path | None) -> Problem:
    """The examples in their order, and the network; networks trained here are kept in a cache of the machine."""
    setting = SETTINGS[name]
    cache = Path(tempfile.gettempdir()) / "integrand-networks"
    return problem_named(setting.problem)(ProblemOptions(data, cache), **setting.options)


def noted(out: Path, name: str, problem: Problem) -> None:
    """Beside the scores: what was run, by which versions on which machine; an entry for every day on which it was gone on with."""
    file = out / "run.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    mark = {"name": name, "nodes": NODES, "seed": 0, "facts": dict(problem.facts)}
    if known and known["run"] != mark:
        raise InputError(f"{out} holds results of {known['run']}: give another folder.")
    sessions = [*known.get("sessions", []), machine()]
    once = [s for i, s in enumerate(sessions) if s not in sessions[:i]]
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"run": mark, "sessions": once}, indent=1) + "\n")


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The options that the studies share."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("name", choices=list(SETTINGS))
    parser.add_argument("--data", type=Path, default=None, help="the folder of photographs")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--examples", type=int, default=None, help="the first so many")
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--scratch", type=Path, default=None, help="keeps maps of baselines")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--held-out", action="store_true", help="judge once what was chosen")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    setting = SETTINGS[asked.name]
    problem = problem_of(asked.name, asked.data)
    out = asked.out / asked.name
    noted(out, asked.name, problem)
    if asked.held_out:
        numbers = range(setting.half, setting.examples)
        candidates = judged(asked.out / setting.chosen_on / "choice.json")
    else:
        numbers = range(setting.half)
        candidates = CANDIDATES
    go_on(
        problem,
        numbers if asked.examples is None else numbers[: asked.examples],
        out / ("held-out.parquet" if asked.held_out else "scores.parquet"),
        candidates,
        minutes=asked.minutes,
        scratch=None if asked.scratch is None else asked.scratch / asked.name,
    )


if __name__ == "__main__":
    main()
