"""Which baseline is best on texts, by fills that are not the baseline itself?

    integrand bench text-baselines --data FOLDER --out OUT
    python -m benchmarks.text_fills OUT --to docs/results/text-baselines

A map from a baseline is judged by replacing tokens with a fill. Where the fill is the baseline, the metric asks the map's own question, and wins nothing for the
baseline. So baselines a and b are compared by the fills that are neither: the score of a text is its mean over those, and

    better by  s = (mean score of a - mean score of b) / |mean score of b|,  the other way round where lower is better

with its 95 % interval over texts and verdict as for every claim of a suite (``integrand.bench.claims``). Intervals are one by one. FOLDER/carried.json holds
all pairs, and every baseline against "mean", the default of ``ig.text``, by every single fill; FOLDER/carried.md the latter as tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from integrand.bench.claims import hold
from integrand.bench.suite import Claim
from integrand.compare.scores import COSTS, Scores
from integrand.core.files import write_text
from integrand.core.formatting import json_ready, percent, signed_percent

DEFAULT = "mean"


def named(metric: str) -> tuple[str, str]:
    """Kind of metric and fill of a name such as "log-odds, padding"."""
    kind, _, fill = metric.partition(", ")
    return kind, fill


def compared(
    scores: Scores, kind: str, fills: Sequence[str], method: str, than: str
) -> dict[str, Any]:
    """A method against another by the mean of its scores with several fills."""
    metrics = [f"{kind}, {fill}" for fill in fills]
    pair = scores.select(methods=[method, than], metrics=metrics)
    mean = Scores(
        values=pair.values.mean(1, keepdims=True),
        methods=(method, than),
        metrics=(kind,),
        higher=pair.higher[:1],
        examples=pair.examples,
        **{cost: getattr(pair, cost) for cost in COSTS},
    )
    told = hold(Claim("", "", "", kind, method, than), mean).told()
    kept = ("share", "low", "high", "ours", "theirs", "detectable", "wins", "examples", "verdict")
    return {"fills": list(fills), **{key: told[key] for key in kept}}


def carried(scores: Scores) -> dict[str, Any]:
    """By kind of metric: all pairs of baselines by the fills that are neither, and every baseline against the default by each fill."""
    baselines = [name for name in scores.methods if name not in scores.controls]
    fills: dict[str, list[str]] = {}
    for metric in scores.metrics:
        kind, fill = named(metric)
        fills.setdefault(kind, []).append(fill)
    report: dict[str, Any] = {"examples": len(scores), "baselines": baselines}
    for kind, all_fills in fills.items():
        report[kind] = {
            "neither": {
                f"{a}>{b}": compared(scores, kind, [f for f in all_fills if f not in (a, b)], a, b)
                for a, b in permutations(baselines, 2)
            },
            "by fill": {
                a: {f: compared(scores, kind, [f], a, DEFAULT) for f in all_fills}
                for a in baselines
                if a != DEFAULT
            },
        }
    return report


def page(report: dict[str, Any]) -> Iterator[str]:
    """The tables: baseline by fill, against the default."""
    yield "# Where a text's map should start"
    yield ""
    yield (
        f"How much better Integrated Gradients (8 Gauss–Legendre nodes) does from a baseline than from the {DEFAULT} vector, by the fill that replaces the top fifth of the tokens; "
        "95 % intervals one by one, over texts. *In italics*: the fill is one of the two baselines, and the comparison not fair. "
        "**Bold**: zero is outside. The last columns are the mean of the fills that are neither, the difference that so many texts could have shown, and the verdict."
    )
    for run, told in report.items():
        for kind in [key for key in told if key not in ("examples", "baselines")]:
            rows = told[kind]["by fill"]
            fills = list(next(iter(rows.values())))
            yield from ("", f"## {run}: {kind}, {told['examples']} texts", "")
            yield f"| baseline | {' | '.join(fills)} | neither | could show | verdict |"
            yield "|---" * (len(fills) + 4) + "|"
            for baseline, cells in rows.items():
                both = told[kind]["neither"][f"{baseline}>{DEFAULT}"]
                own = [
                    f"*{_cell(cells[f])}*" if f in (baseline, DEFAULT) else _strong(cells[f])
                    for f in fills
                ]
                yield (
                    f"| {baseline} | {' | '.join(own)} | {_strong(both)} | {percent(both['detectable'], decimals=0)} | {both['verdict']} |"
                )


def _cell(told: dict[str, Any]) -> str:
    return f"{signed_percent(told['share'])} ({signed_percent(told['low'])} to {signed_percent(told['high'])})"


def _strong(told: dict[str, Any]) -> str:
    shown = bool(np.sign(told["low"]) == np.sign(told["high"]))
    return f"**{_cell(told)}**" if shown else _cell(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="where `integrand bench text-baselines` wrote")
    parser.add_argument("--to", type=Path, required=True)
    asked = parser.parse_args()
    report = {
        file.parent.name: carried(Scores.from_parquet(file))
        for file in sorted(asked.out.glob("*/scores.parquet"))
    }
    asked.to.mkdir(parents=True, exist_ok=True)
    write_text(
        asked.to / "carried.json",
        json.dumps(json_ready(report), indent=1, ensure_ascii=False) + "\n",
    )
    write_text(asked.to / "carried.md", "\n".join(page(report)) + "\n")


if __name__ == "__main__":
    main()
