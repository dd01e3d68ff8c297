"""The choice, made once, by a rule that was written down before there was anything to choose from.

    python -m benchmarks.weighing.choose lite0

    gain of a weighting on an example = mean over criteria of  ± (its score − EG's) / mean |EG's score|,     + where it is better

over deletion and insertion, ranks by the signed sum, under every fill that the weighting did not see. Chosen is the weighting of ours whose gain
is largest on average over the first half, whether or not that is significant: what it is worth is for the other half to say. Nothing is chosen
before the first half is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from integrand.bench.power import detectable_of
from integrand.compare.scores import Numbers, Scores
from integrand.compare.statistics import paired
from integrand.errors import InputError

from .candidates import CANDIDATES, Candidate
from .judge import FILLS, criterion
from .study import FOLDER, SETTINGS, arguments, gathered

PUBLISHED = ("EG", "WG")
DIRECTIONS = ("deletion", "insertion")


@dataclass(frozen=True)
class Gain:
    """What a weighting gains over Expected Gradients: mean share over examples, interval, p, and what these examples could show."""

    name: str
    examples: int
    mean: float
    low: float
    high: float
    p: float
    detectable: float


def unseen(candidate: Candidate) -> list[str]:
    """The criteria by fills that a weighting did not see."""
    fills = [fill for fill in FILLS if candidate.seen is None or fill not in candidate.seen]
    return [criterion(direction, fill) for fill in fills for direction in DIRECTIONS]


def gains(scores: Scores, name: str, criteria: list[str], than: str = "EG") -> Numbers:
    """The gain (E,) of a weighting on every example, by the mean of the criteria."""
    rows = []
    for metric in criteria:
        values = scores.of(metric)
        ours, theirs = (values[scores.methods.index(label)] for label in (name, than))
        sign = 1.0 if scores.is_higher(metric) else -1.0
        rows.append(sign * (ours - theirs) / abs(float(theirs.mean())))
    result: Numbers = np.mean(rows, axis=0)
    return result


def gain(scores: Scores, name: str, criteria: list[str], than: str = "EG") -> Gain:
    """The same in numbers."""
    values = gains(scores, name, criteria, than)
    mean = paired(values)
    return Gain(
        name,
        len(values),
        float(values.mean()),
        float(mean.low[0]),
        float(mean.high[0]),
        float(mean.p[0]),
        detectable_of(values),
    )


def table(scores: Scores, candidates: Mapping[str, Candidate] = CANDIDATES) -> list[Gain]:
    """All weightings of ours and the published one, best first."""
    rows = [
        gain(scores, name, unseen(candidate))
        for name, candidate in candidates.items()
        if name != "EG" and name in scores.methods
    ]
    return sorted(rows, key=lambda row: -row.mean)


def chosen(scores: Scores, half: int) -> str:
    """The weighting of ours with the largest gain.

    Raises:
        InputError: before the first half is complete.
    """
    if len(scores) < half or half == 0:
        raise InputError(
            f"{len(scores)} of {half} examples are scored: choosing among part of them would be a second look."
        )
    return next(row.name for row in table(scores) if row.name not in PUBLISHED)


def main() -> None:
    parser = arguments(__doc__)
    asked = parser.parse_args()
    file: Path = asked.out / asked.name / "choice.json"
    if file.exists():
        raise SystemExit(f"{file} holds the choice already: it is made once.")
    scores = gathered(asked.out / asked.name / "scores.parquet")
    if scores is None:
        raise SystemExit("Nothing is scored yet.")
    name = chosen(scores, SETTINGS[asked.name].half)
    rule = " ".join((__doc__ or "").split("\n\n", 2)[2].split())
    told = {
        "chosen": name,
        "rule": rule,
        "examples": len(scores),
        "gains": [asdict(row) for row in table(scores)],
    }
    file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    print(f"{name} is chosen; {FOLDER} has the table")


if __name__ == "__main__":
    main()
