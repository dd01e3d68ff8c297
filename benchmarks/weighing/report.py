"""What the studies have come to so far, from what is stored and nothing else: docs/results/truth/results.json, results.md, and pictures.

    python -m benchmarks.weighing.report [--out docs/results/truth]

Every number, verdict and "not yet" on the page is computed here from the Parquet files beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ig2_design
from integrand.bench.claims import ClaimResult, hold
from integrand.bench.power import detectable, detectable_of, needed, spread
from integrand.bench.results import median_costs, table
from integrand.bench.suite import Claim, suite
from integrand.compare.scores import Scores
from integrand.compare.statistics import holm, paired, summaries, verdict
from integrand.core.formatting import count, json_ready, number, percent, signed_percent

from . import best, choose, rivals
from .candidates import CANDIDATES
from .judge import FILLS, IMPUTED, criterion, points
from .study import CONTROL, FOLDER, METRICS, SETTINGS, gathered

FIRST_LOOK = (
    ("deletion", "corners", -0.0192, 0.0138, 40),
    ("deletion", "grey", 0.0032, 0.0089, 40),
    ("deletion", "blur", 0.0075, 0.0123, 40),
    ("insertion", "corners", -0.0008, 0.0185, 40),
    ("insertion", "grey", -0.0118, 0.0221, 40),
    ("insertion", "blur", -0.0122, 0.0136, 40),
)
"""WG − EG on photographs of another set, before the study was planned: mean, half of the 95 % interval, photographs."""

SHOWN = ("1/D, other fills", "areas, other fills")
"""Weightings of ours whose curves are drawn."""

PUBLISHED_SIZE = 0.36
"""The improvement of Weighted Gradients over Expected Gradients that the paper reports ("up to")."""

Report = dict[str, Any]


# --- numbers ----------------------------------------------------------------------------------------------------------


def claims_of(run: str, scores: Scores) -> list[ClaimResult]:
    """Every weighting against EG by every metric it has values for, and against WG what is ours by unseen fills."""
    rows = []
    for name in scores.methods:
        if name in ("EG", *scores.controls):
            continue
        for metric in METRICS:
            if np.isnan(scores.of(metric)[scores.methods.index(name)]).all():
                continue
            source = "tran2025weighted" if name == "WG" else "ours"
            claim = Claim(f"{name} is better than EG", source, run, metric, name, "EG")
            rows.append(hold(claim, scores))
    return rows


def whole(out: Path, name: str) -> Report | None:
    """WG against EG by every metric on all examples of a run, those of the choice and those held out:
    neither weighting was chosen on any of them. ``corrected`` is Holm's over the metrics of a run."""
    tables = [gathered(out / name / file) for file in ("scores.parquet", "held-out.parquet")]
    halves = [t.select(methods=("EG", "WG", CONTROL)) for t in tables if t is not None]
    if not halves:
        return None
    scores = Scores.merged(halves)
    rows = []
    for metric in METRICS:
        seen = ", corners, " in metric and not metric.startswith("DiffID")
        source, size = ("tran2025weighted", PUBLISHED_SIZE) if seen else ("ours", None)
        rows.append(
            hold(Claim("WG is better than EG", source, name, metric, "WG", "EG", size), scores)
        )
    corrected = holm([row.p for row in rows])
    return {
        "examples": len(scores),
        "claims": [
            {**row.told(), "corrected": float(p)} for row, p in zip(rows, corrected, strict=True)
        ],
    }


def rivals_of(out: Path, name: str) -> Report | None:
    """What the suite ``ig2`` claims, by every metric of the study; ``corrected`` is Holm's over the metrics of one claim
    against one rival. Means, costs and the best of all methods, as ``ig.compare`` tells it, beside it."""
    scores = gathered(out / name / "rivals.parquet")
    if scores is None or len(scores) < 5:
        return None
    pairs = dict.fromkeys(
        (claim.text, claim.source, claim.method, claim.than)
        for claim in suite("ig2").claims
        if claim.run == rivals.RUNS[name] and {claim.method, claim.than} <= set(scores.methods)
    )
    claims = []
    for text, source, method, than in pairs:
        rows = [hold(Claim(text, source, name, q, method, than), scores) for q in METRICS]
        corrected = holm([row.p for row in rows])
        claims += [
            {
                **row.told(),
                "corrected": float(p),
                "difference": _difference(scores, row.claim.metric, method, than),
            }
            for row, p in zip(rows, corrected, strict=True)
        ]
    return {
        "examples": len(scores),
        "hours": sum(scores.about[e]["seconds"] for e in scores.examples) / 3600,
        "controls": list(scores.controls),
        "summaries": [vars(row) for row in summaries(scores.select(metrics=tuple(METRICS)))],
        "verdicts": {metric: asdict(verdict(scores, metric)) for metric in METRICS},
        "costs": median_costs(scores),
        "claims": claims,
    }


def _difference(scores: Scores, metric: str, name: str, than: str) -> Report:
    """How much better in the metric's own unit, for scores whose mean may be next to 0 and has no shares worth telling."""
    values, sign = scores.of(metric), 1 if scores.is_higher(metric) else -1
    better = sign * (values[scores.methods.index(name)] - values[scores.methods.index(than)])
    mean = paired(better)
    return {
        "mean": _known(np.nanmean, better[None])[0],
        "low": float(mean.low[0]),
        "high": float(mean.high[0]),
        "detectable": detectable_of(better),
    }


def _known(average: Callable[[np.ndarray], float], rows: np.ndarray) -> list[float]:
    """Of each row, over what is known; NaN where nothing is."""
    return [float(average(row)) if np.isfinite(row).any() else np.nan for row in rows]


def carried(scores: Scores) -> Report:
    """The carry-over matrix: what weights chosen on each criterion gain over EG, judged by each: shares of EG's mean, with intervals."""
    rows = [name for name in scores.methods if name != "EG"]
    columns = [criterion(d, f) for d in best.SEARCHED for f in FILLS]
    cells = {
        row: {
            column: asdict(hold(Claim("", "", "", column, row, "EG"), scores)) for column in columns
        }
        for row in rows
    }
    return {"examples": len(scores), "rows": rows, "columns": columns, "cells": cells}


def study_of(out: Path, name: str) -> Report | None:
    """A run of the study as plain data: how far it is, means, claims, gains, costs, carry-over, choice and judgement."""
    folder = out / name
    scores, held = gathered(folder / "scores.parquet"), gathered(folder / "held-out.parquet")
    if scores is None and held is None:
        return None
    run = json.loads((folder / "run.json").read_text())
    report: Report = {
        "problem": name,
        "facts": run["run"]["facts"],
        "sessions": run["sessions"],
        "planned": {"choosing": SETTINGS[name].half, "all": SETTINGS[name].examples},
    }
    searched = gathered(folder / "best.parquet")
    known = [s for s in (scores, held, searched) if s is not None]
    spent = sum(s.about[e].get("seconds", 0.0) for s in known for e in s.examples)
    report["hours"] = spent / 3600
    if scores is not None:
        report |= {
            "examples": len(scores),
            "summaries": [vars(row) for row in summaries(scores)],
            "gains": [asdict(row) for row in choose.table(scores)],
            "costs": median_costs(scores),
            "curves": curves_of(scores),
        }
    if searched is not None:
        report["carried"] = carried(searched)
    choice = out / SETTINGS[name].chosen_on / "choice.json"
    report["choice"] = json.loads(choice.read_text()) if choice.is_file() else None
    complete = held is not None and len(held) == SETTINGS[name].examples - SETTINGS[name].half
    report["held out"] = None if held is None else {"examples": len(held), "complete": complete}
    if complete:
        assert held is not None
        report["judged"] = judged_of(held, report["choice"]["chosen"])
    return report


def judged_of(held: Scores, chosen: str) -> Report:
    """The one judgement: gain over EG and over WG as a whole, and criterion by criterion with Holm's correction."""
    criteria = choose.unseen(CANDIDATES[chosen])
    rows = []
    for than in ("EG", "WG"):
        for metric in criteria:
            rows.append(hold(Claim("", "", "", metric, chosen, than), held))
    corrected = holm([row.p for row in rows])
    return {
        "chosen": chosen,
        "against": {
            than: asdict(choose.gain(held, chosen, criteria, than)) for than in ("EG", "WG")
        },
        "criteria": [
            {**row.told(), "corrected": float(p)} for row, p in zip(rows, corrected, strict=True)
        ],
    }


def curves_of(scores: Scores) -> Report:
    """Mean curves by criterion and weighting."""
    return {
        metric: {
            name: np.nanmean(curves[m], axis=0).round(5).tolist()
            for m, name in enumerate(scores.methods)
        }
        for metric, curves in scores.curves.items()
    }


def designed(out: Path) -> Report:
    """The designed experiment's effects, and how far maps agree, by problem."""
    found: Report = {}
    for name, setting in ig2_design.SETTINGS.items():
        folder = out / "ig2-design" / name
        entry: Report = {}
        scores = gathered(folder / name / "scores.parquet")
        if scores is not None:
            effects = ig2_design.effects(scores, setting.factors)
            entry["effects"] = [asdict(effect) for effect in effects]
            entry["levels"] = {f.name: [f.low, f.high] for f in setting.factors}
            entry["seconds"] = float(np.nansum(scores.seconds))
        stable = gathered(folder / "stability.parquet")
        if stable is not None:
            entry["stability"] = [vars(row) for row in summaries(stable)]
            entry["stability against IG"] = [
                _against(stable, metric, row, "IG, other baselines")
                for metric in stable.metrics
                for row in stable.methods
                if row != "IG, other baselines"
            ]
            entry["stability costs"] = {
                row: float(np.nanmedian(stable.gradients[m]))
                for m, row in enumerate(stable.methods)
            }
        if entry:
            found[name] = entry
    return found


def _against(scores: Scores, metric: str, name: str, than: str) -> Report:
    values = scores.of(metric)
    d = values[scores.methods.index(name)] - values[scores.methods.index(than)]
    mean = paired(d)
    return {
        "metric": metric,
        "method": name,
        "than": than,
        "mean": float(np.nanmean(d)),
        "low": float(mean.low[0]),
        "high": float(mean.high[0]),
        "p": float(mean.p[0]),
    }


def planned() -> list[Report]:
    """What was planned from the first look: spread, and the difference that the sample shows four times of five."""
    rows = []
    for direction, fill, mean, half, n in FIRST_LOOK:
        s = spread(mean - half, mean + half, n)
        rows.append(
            {
                "criterion": criterion(direction, fill),
                "spread": s,
                "at": {str(many): detectable(s, many) for many in (10, 25, 50, 100)},
                "needed for .005": needed(s, 0.005),
            }
        )
    return rows


def report_of(out: Path) -> Report:
    """Everything, as plain data; ``claims`` and ``runs`` as suites have them, so that pages can quote both alike."""
    runs = {name: run for name in SETTINGS if (run := study_of(out, name)) is not None}
    claims = [
        claim.told()
        for name in runs
        if (scores := gathered(out / name / "scores.parquet")) is not None and len(scores)
        for claim in claims_of(name, scores)
    ]
    told: Report = json_ready(
        {
            "suite": "truth",
            "title": "Does weighing baselines pay, and can it pay more?",
            "planned": planned(),
            "runs": runs,
            "whole": {name: rows for name in runs if (rows := whole(out, name)) is not None},
            "claims": claims,
            "rivals": {n: rows for n in SETTINGS if (rows := rivals_of(out, n)) is not None},
            "ig2": designed(out),
        }
    )
    return told


# --- the page ---------------------------------------------------------------------------------------------------------


def page_of(report: Report) -> str:
    """The report as Markdown."""
    blocks = [
        f"# {report['title']}",
        "Written by `python -m benchmarks.weighing.report` from the Parquet files beside it; nothing here is typed by hand. Photographs: ImageNet's "
        "validation set, one for every tenth class. Six baselines (black, white, grey, two noises, another photograph), 12 nodes of Gauss and Legendre each, "
        "the logit of the predicted class. Areas under curves of the class probability; pixels ranked by the signed sum of their channels unless "
        "magnitude is said. Intervals are 95 %, studentised, over examples, one by one; **bold** where the paired test has p < .05.",
        _progress(report),
        _planned(report["planned"]),
        _whole(report["whole"]),
    ]
    for name, run in report["runs"].items():
        blocks += _run(name, run, [c for c in report["claims"] if c["run"] == name])
    blocks += [*_rivals(report["rivals"]), *_ig2(report["ig2"])]
    blocks += [_going_on()]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _progress(report: Report) -> str:
    rows = []
    for name, setting in SETTINGS.items():
        run = report["runs"].get(name)
        first = "–" if setting.half == 0 else f"{(run or {}).get('examples', 0)} of {setting.half}"
        held = None if run is None else run["held out"]
        rest = f"{0 if held is None else held['examples']} of {setting.examples - setting.half}"
        chosen = None if run is None else run["choice"]
        rows.append(
            [
                name,
                first,
                "not yet" if chosen is None else chosen["chosen"],
                rest,
                "judged" if run is not None and "judged" in run else "**not yet judged**",
                "–" if run is None else number(run["hours"]),
                "–" if run is None else _machines(run["sessions"]),
            ]
        )
    head = [
        "run",
        "scored, for choosing",
        "chosen",
        "scored, held out",
        "judgement",
        "CPU hours",
        "where",
    ]
    return "## How far it is\n\n" + table(head, rows)


def _machines(sessions: Sequence[Report]) -> str:
    last = sessions[-1]
    versions = ", ".join(f"{k} {v}" for k, v in last["versions"].items() if k in ("torch", "numpy"))
    dates = " to ".join(dict.fromkeys((sessions[0]["date"], last["date"])))
    return f"{last['processor']}, {last['cores']} cores, {last['threads']} thread; Python {last['python']}, {versions}; {dates}; seed 0"


def _planned(rows: Sequence[Report]) -> str:
    head = ["WG − EG by", "spread", *(f"n = {n} shows" for n in (10, 25, 50, 100)), "n for .005"]
    cells = [
        [
            row["criterion"],
            number(row["spread"]),
            *(number(row["at"][n]) for n in ("10", "25", "50", "100")),
            count(row["needed for .005"]),
        ]
        for row in rows
    ]
    return (
        "## Power, planned beforehand\n\nFrom a first look at 40 photographs of another set: the standard deviation of the paired difference, and the "
        "mean difference that n photographs show four times of five.\n\n" + table(head, cells)
    )


def _whole(runs: Report) -> str:
    claims = [claim for run in runs.values() for claim in run["claims"]]
    published = [
        [
            claim["run"],
            claim["metric"],
            f"{number(claim['ours'])} against {number(claim['theirs'])}",
            _share(claim["share"], claim["low"], claim["high"]),
            f"{percent(claim['wins'], decimals=0)} of {claim['examples']}",
            percent(claim["detectable"]),
            number(claim["corrected"]),
            f"**{claim['verdict']}**",
        ]
        for claim in claims
        if claim["size"] is not None
    ]
    head = ["run", "judged by", "means", "better by (95 %)", "better on", "could show"]
    rows = [
        [
            _arrowed(metric),
            *(_sure(claim) for claim in claims if claim["metric"] == metric),
        ]
        for metric in METRICS
    ]
    return (
        "## Weighted Gradients against Expected Gradients, on everything that was scored\n\n"
        "Both halves together: neither was chosen on any of these examples. p after Holm's correction for all criteria of a run. What the paper "
        f"claims, up to {percent(PUBLISHED_SIZE, decimals=0)}, by the fill that the fitness counts in:\n\n"
        + table([*head, "p, Holm", "verdict"], published)
        + "\n\nBy every criterion, as a share of EG's score; **bold** where p < .05 after Holm; behind the semicolon what so many examples "
        "show four times of five:\n\n"
        + table(["judged by", *(f"{name}, {run['examples']}" for name, run in runs.items())], rows)
    )


def _sure(claim: Report) -> str:
    """A share with its interval and what could be shown, bold where it is significant after Holm."""
    if claim["share"] is None:
        return "–"
    text = _share(claim["share"], claim["low"], claim["high"])
    bold = claim["corrected"] is not None and claim["corrected"] < 0.05
    return f"{f'**{text}**' if bold else text}; {percent(claim['detectable'])}"


def _sure_difference(claim: Report) -> str:
    """As ``_sure``, in the unit of the metric."""
    row = claim["difference"]
    mean, low, high = (
        "–" if row[key] is None else number(row[key], signed=True)
        for key in ("mean", "low", "high")
    )
    text = f"{mean} ({low} to {high})"
    bold = claim["corrected"] is not None and claim["corrected"] < 0.05
    return f"{f'**{text}**' if bold else text}; {number(row['detectable'])}"


def _run(name: str, run: Report, claims: Sequence[Report]) -> list[str]:
    blocks = [f"## {name}"]
    if "examples" in run:
        blocks += [
            _standing(run),
            _gains(run),
            _against_eg(run, claims, ("deletion", "insertion", "DiffID"), "signed"),
            _against_eg(run, claims, ("deletion", "insertion", "DiffID"), "magnitude"),
            f"![mean curves](../../images/weighing-{name}.png)",
            _costs(run),
        ]
    if "carried" in run:
        blocks += [_carried(name, run["carried"])]
    if "judged" in run:
        blocks += [_judged(run["judged"])]
    return blocks


def _standing(run: Report) -> str:
    n, half = run["examples"], run["planned"]["choosing"]
    facts = ", ".join(f"{key}: {value}" for key, value in run["facts"].items())
    state = (
        "The first half is complete."
        if n >= half
        else f"These are the first {n} of {half} in their shuffled order: a valid sample, a small one; what it does not show, it can hardly show."
    )
    return f"{n} examples ({facts}). {state}"


def _gains(run: Report) -> str:
    rows = [
        [
            f"**{row['name']}**" if row["p"] < 0.05 else row["name"],
            _share(row["mean"], row["low"], row["high"]),
            number(row["p"]),
            percent(row["detectable"]),
        ]
        for row in run["gains"]
        if row["p"] is not None
    ]
    return (
        "Gain over EG, the mean of deletion and insertion under all fills that the weighting did not see:\n\n"
        + table(["weighting", "gain (95 %)", "p", "could show"], rows)
    )


def _share(mean: float | None, low: float | None, high: float | None) -> str:
    return f"{signed_percent(mean)} ({signed_percent(low)} to {signed_percent(high)})"


def _against_eg(run: Report, claims: Sequence[Report], directions: Sequence[str], rank: str) -> str:
    means = {(row["method"], row["metric"]): row["mean"] for row in run["summaries"]}
    by = {(c["method"], c["metric"]): c for c in claims}
    metrics = [
        m for m in (criterion(d, f, rank) for d in directions for f in FILLS) if m in METRICS
    ]
    methods = [m for m in CANDIDATES if m != "EG" and any((m, q) in by for q in metrics)]
    if not methods:
        return ""
    head = ["judged by", "EG", *methods]
    rows = []
    for metric in metrics:
        cells = [_arrowed(metric), number(means["EG", metric])]
        for method in methods:
            claim = by.get((method, metric))
            cells.append("–" if claim is None else _cell(claim, method, metric))
        rows.append(cells)
    return (
        f"How much better than EG, as a share of EG's score ({rank} ranking; † the weighting saw this fill):\n\n"
        + table(head, rows)
    )


def _cell(claim: Report, method: str, metric: str) -> str:
    if claim["share"] is None:
        return "–"
    text = _share(claim["share"], claim["low"], claim["high"])
    seen = CANDIDATES[method].seen or () if method in CANDIDATES else ()
    mark = "†" if any(f", {fill}, " in metric for fill in seen) else ""
    bold = claim["verdict"] in ("confirmed", "direction confirmed", "contradicted")
    return f"**{text}**{mark}" if bold else f"{text}{mark}"


def _costs(run: Report) -> str:
    rows = [
        [name, count(cost["gradients"]), count(cost["rows"]), number(cost["seconds"])]
        for name, cost in run["costs"].items()
    ]
    return (
        "What a map takes, with a judge whose fill none saw (medians; CPU seconds of one thread):\n\n"
        + table(["weighting", "gradients", "forward rows", "seconds"], rows)
    )


def _carried(name: str, carried: Report) -> str:
    rows = [
        [row, *(_cell(carried["cells"][row][column], row, "") for column in carried["columns"])]
        for row in carried["rows"]
    ]
    short = [column.removesuffix(", signed") for column in carried["columns"]]
    return (
        f"### Carry-over: the best weights there are\n\n{carried['examples']} examples. Weights found on the simplex by forward passes, chosen on a row's criterion for "
        "each example, judged by a column's: better than EG by so much. On the diagonal it is the most there is to gain (at least: the search is finite); "
        f"off it, what of that carries over. Imputation ({IMPUTED}) chose nothing.\n\n![carry-over](../../images/carry-over-{name}.png)\n\n"
        + table(["chosen on", *short], rows)
    )


def _judged(judged: Report) -> str:
    whole = [
        [
            than,
            _share(row["mean"], row["low"], row["high"]),
            number(row["p"]),
            percent(row["detectable"]),
            str(row["examples"]),
        ]
        for than, row in judged["against"].items()
    ]
    rows = [
        [
            row["than"],
            row["metric"],
            _share(row["share"], row["low"], row["high"]),
            number(row["p"]),
            number(row["corrected"]),
        ]
        for row in judged["criteria"]
    ]
    return (
        f"### Held out, judged once: {judged['chosen']}\n\n"
        + table(["against", "gain (95 %)", "p", "could show", "examples"], whole)
        + "\n\n"
        + table(["against", "judged by", "better by (95 %)", "p", "p, Holm"], rows)
    )


def _rivals(runs: Report) -> list[str]:
    blocks = ["## IG2 and its rivals"]
    if not runs:
        return [*blocks, "**Not yet run.**"]
    blocks += [
        "Methods and settings of the suite `ig2`, about fifty gradients each where that can be chosen, by the judge of the study."
    ]
    for name, run in runs.items():
        pairs = list(dict.fromkeys((c["method"], c["than"]) for c in run["claims"]))
        head = ["judged by", *(f"{method} against {than}" for method, than in pairs)]
        rows = [
            [
                _arrowed(metric),
                *(
                    (_sure_difference if metric.startswith("DiffID") else _sure)(claim)
                    for claim in run["claims"]
                    if claim["metric"] == metric
                ),
            ]
            for metric in METRICS
        ]
        blocks += [
            f"### {name}, {run['examples']} of {SETTINGS[name].examples} examples ({number(run['hours'])} CPU hours)",
            "Better by, as a share of the other's mean, for DiffID, whose means may be next to 0, in its own unit (95 %); **bold** where p < .05 after Holm's correction for the criteria of a column; behind "
            "the semicolon what so many examples show four times of five:",
            table(head, rows),
            "Means, and what a map takes (medians; wall seconds of one thread on a shared machine). Best of a row in **bold**, controls in *italics*:",
            _means(run),
            "What `ig.compare` says of them (sign-flip tests of the best mean against every other, corrected for how many these are):",
            "\n".join(f"* {_arrowed(q)}: {run['verdicts'][q]['words']}" for q in METRICS),
        ]
    return blocks


def _means(run: Report) -> str:
    methods = list(run["costs"])
    head = ["", *(f"*{m}*" if m in run["controls"] else m for m in methods)]
    rows = []
    for cost in ("gradients", "rows", "seconds", "gap"):
        write = percent if cost == "gap" else number if cost == "seconds" else count
        medians = [run["costs"][m][cost] for m in methods]
        rows.append([cost, *("–" if _missing(v) else write(v) for v in medians)])
    for metric, higher in METRICS.items():
        of = {row["method"]: row["mean"] for row in run["summaries"] if row["metric"] == metric}
        known = [value for value in of.values() if not _missing(value)]
        best_mean = (max if higher else min)(known, default=None)
        cells = ["–" if _missing(of[m]) else number(of[m]) for m in methods]
        cells = [
            f"**{cell}**" if best_mean is not None and of[m] == best_mean else cell
            for m, cell in zip(methods, cells, strict=True)
        ]
        rows.append([_arrowed(metric), *cells])
    return table(head, rows)


def _arrowed(metric: str) -> str:
    return f"{metric} {'↑' if METRICS[metric] else '↓'}"


def _missing(value: float | None) -> bool:
    return value is None or np.isnan(value)


def _ig2(found: Report) -> list[str]:
    blocks = ["## IG2: which of its choices matter"]
    if not found:
        return [*blocks, "**Not yet run.**"]
    for name, entry in found.items():
        if "effects" in entry:
            blocks += [_effects(name, entry)]
        if "stability" in entry:
            blocks += [_stability(name, entry)]
    return blocks


def _effects(name: str, entry: Report) -> str:
    metrics = list(dict.fromkeys(row["metric"] for row in entry["effects"]))
    by = {(row["factor"], row["metric"]): row for row in entry["effects"]}
    rows = []
    for factor, (low, high) in entry["levels"].items():
        cells = [factor, f"{low} → {high}"]
        for metric in metrics:
            row = by[factor, metric]
            text = f"{number(row['mean'], signed=True)} ({number(row['low'], signed=True)} to {number(row['high'], signed=True)})"
            significant = row["corrected"] is not None and row["corrected"] < 0.05
            cells.append(f"**{text}**" if significant else text)
        rows.append(cells)
    examples = entry["effects"][0]["examples"]
    return (
        f"**{name}**, {examples} examples, 16 combinations of seven factors (2⁷⁻³): what the high level changes, positive where it is better; bold where "
        "p < .05 after Holm's correction for all tests of the table. Interactions of two factors are mixed up with one another, and not with these.\n\n"
        + table(["factor", "low → high", *metrics], rows)
    )


def _stability(name: str, entry: Report) -> str:
    metrics = list(dict.fromkeys(row["metric"] for row in entry["stability"]))
    by = {(row["method"], row["metric"]): row for row in entry["stability"]}
    against = {(row["method"], row["metric"]): row for row in entry["stability against IG"]}
    rows = []
    for method in dict.fromkeys(row["method"] for row in entry["stability"]):
        cells = [method, count(entry["stability costs"][method])]
        for metric in metrics:
            row, other = by[method, metric], against.get((method, metric))
            text = f"{number(row['mean'])} ({number(row['low'])} to {number(row['high'])})"
            cells.append(f"**{text}**" if other is not None and other["p"] < 0.05 else text)
        rows.append(cells)
    examples = entry["stability"][0]["n"]
    return (
        f"**{name}**: how far four maps agree that differ only in the references drawn (IG2, EG) or the baseline chosen (IG), {examples} examples; bold where it "
        "differs from IG's, p < .05:\n\n" + table(["maps of", "gradients", *metrics], rows)
    )


def _going_on() -> str:
    return (
        "## Going on\n\n"
        "    python -m benchmarks.weighing.study lite0 --data PHOTOGRAPHS --minutes 60      # the first 50; then\n"
        "    python -m benchmarks.weighing.best lite0 --data PHOTOGRAPHS --minutes 60       # the best weights of what is scored\n"
        "    python -m benchmarks.weighing.choose lite0                                     # once the first half is complete; then\n"
        "    python -m benchmarks.weighing.study lite0 --data PHOTOGRAPHS --held-out        # and lite1\n"
        "    python -m benchmarks.weighing.rivals lite0 --data PHOTOGRAPHS --minutes 60     # IG2 and its rivals; and lite1, lite2, digits, transformer\n"
        "    python -m benchmarks.ig2_design digits --out docs/results/truth/ig2-design [--stability]     # and photographs, tables\n"
        "    python -m benchmarks.weighing.report"
    )


# --- the picture ------------------------------------------------------------------------------------------------------


def picture(name: str, carried: Report, file: Path) -> None:
    """The carry-over matrix as an image: blue where the chosen weights are better than EG by the column's criterion, red where worse."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows, columns = carried["rows"], carried["columns"]
    shares = np.array([[carried["cells"][r][c]["share"] for c in columns] for r in rows], float)
    bound = 0.5
    figure, axes = plt.subplots(figsize=(1.25 * len(columns) + 3, 0.55 * len(rows) + 2.2))
    image = axes.imshow(
        np.clip(shares, -bound, bound), cmap="RdBu", vmin=-bound, vmax=bound, aspect="auto"
    )
    axes.set_xticks(
        range(len(columns)), [c.removesuffix(", signed").replace(", ", "\n") for c in columns]
    )
    axes.set_yticks(range(len(rows)), rows)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            cell = carried["cells"][row][column]
            sure = (
                cell["low"] is not None
                and (cell["low"] > 0 or cell["high"] < 0)
                and cell["p"] < 0.05
            )
            axes.text(
                c, r, signed_percent(cell["share"]), ha="center", va="center", fontsize=9,
                weight="bold" if sure else "normal",
                color="white" if abs(shares[r, c]) > 0.3 else "black",
            )  # fmt: skip
    colours = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    colours.ax.yaxis.set_major_formatter(lambda value, _: signed_percent(value))
    axes.set_title(
        f"{name}: weights chosen on a row, judged by a column, against equal weights\n"
        f"{carried['examples']} examples; bold: p < .05",
        pad=12, fontsize=10,
    )  # fmt: skip
    figure.savefig(file, dpi=110, bbox_inches="tight")
    plt.close(figure)


def curves(name: str, run: Report, file: Path, methods: Sequence[str]) -> None:
    """Mean curves of some weightings under every fill: deletion above, insertion below."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, len(FILLS), figsize=(3.1 * len(FILLS), 5.4), sharex=True)
    for top, direction in enumerate(best.SEARCHED):
        for axes, fill in zip(grid[top], FILLS, strict=True):
            shares = points(fill)[top]
            for method in methods:
                heights = run["curves"][criterion(direction, fill)][method]
                style = {"color": "grey", "linestyle": ":"} if method == CONTROL else {}
                axes.plot([0, *shares, 1], heights, label=method, linewidth=1.4, **style)
            axes.set_title(f"{direction}, {fill}", fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
        grid[top, 0].set_ylabel("probability of the class")
    for axes, words in zip(grid[1], ["share of pixels kept"] * len(FILLS), strict=True):
        axes.set_xlabel(words, fontsize=8)
    grid[0, 0].legend(fontsize=8, frameon=False)
    figure.suptitle(f"{name}: mean of {run['examples']} examples", fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    plt.close(figure)


def written(out: Path, images: Path, tell: Callable[[str], object] = print) -> Report:
    """All files; what they say."""
    report = report_of(out)
    (out / "results.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    (out / "results.md").write_text(page_of(report))
    for name, run in report["runs"].items():
        if "curves" in run:
            shown = (*choose.PUBLISHED, *SHOWN, CONTROL)
            curves(name, run, images / f"weighing-{name}.png", shown)
        if "carried" in run:
            picture(name, run["carried"], images / f"carry-over-{name}.png")
    for line in _told(report):
        tell(line)
    return report


def _told(report: Report) -> Iterable[str]:
    for name, run in report["runs"].items():
        yield f"{name}: {run.get('examples', 0)} examples, {'judged' if 'judged' in run else 'not yet judged'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    asked = parser.parse_args()
    written(asked.out, asked.images)


if __name__ == "__main__":
    main()
