"""Suite results, serialised as JSON and rendered as Markdown; the page is built from the same
data."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..compare import Comparison
from ..compare.scores import COSTS, Scores
from ..compare.statistics import differences, summaries, verdict
from ..core.files import write_text
from ..core.formatting import count, json_ready, number, percent, signed_percent
from ..report import comparison, suite
from .runner import Finished, Results


def as_json(results: Results) -> dict[str, Any]:
    """The results of a suite in plain data, ready for JSON."""
    data: dict[str, Any] = json_ready(
        {
            "suite": results.suite.name,
            "data": results.data,
            "title": results.suite.title,
            "question": results.suite.question,
            "machine": results.machine,
            "seed": results.seed,
            "runs": {entry.run.name: _run(entry) for entry in results.finished},
            "claims": [entry.told() for entry in results.claims],
        }
    )
    return data


def _run(finished: Finished) -> dict[str, Any]:
    report: dict[str, Any] = {
        "problem": finished.run.problem,
        "facts": finished.facts,
        "left out": finished.left_out,
    }
    scores = finished.scores
    if scores is None:
        return report
    return report | {
        "examples": len(scores),
        "reference": finished.run.reference,
        "methods": dict(finished.run.methods),
        "metrics": dict(finished.run.metrics),
        "controls": list(scores.controls),
        "higher": dict(zip(scores.metrics, scores.higher, strict=True)),
        "summaries": [vars(summary) for summary in summaries(scores)],
        "differences": [
            vars(difference) for difference in differences(scores, finished.run.reference)
        ],
        "verdicts": {metric: verdict(scores, metric).words for metric in scores.metrics},
        "blind": {metric: list(verdict(scores, metric).blind) for metric in scores.metrics},
        "costs": median_costs(scores),
        "as published": finished.summaries,
        "reasons": _reasons(scores),
    }


def median_costs(scores: Scores) -> dict[str, dict[str, float]]:
    """What a map took: medians over examples by method, NaN where nothing is known."""
    medians: dict[str, dict[str, float]] = {}
    for m, method in enumerate(scores.methods):
        rows = {name: getattr(scores, name)[m] for name in COSTS}
        medians[method] = {
            name: float(np.median(row[np.isfinite(row)])) if np.isfinite(row).any() else math.nan
            for name, row in rows.items()
        }
    return medians


def _reasons(scores: Scores) -> dict[str, dict[str, int]]:
    """Why examples have no map: by method, reasons and how many."""
    by_method: dict[str, dict[str, int]] = {}
    for (method, _), why in scores.reasons.items():
        counts = by_method.setdefault(method, {})
        counts[why] = counts.get(why, 0) + 1
    return by_method


# --- Markdown ---------------------------------------------------------------------------------------------------------


def as_markdown(report: dict[str, Any]) -> str:
    """The results (of ``as_json``) as a page of tables."""
    blocks = [f"# {report['title']}", report["question"], _provenance(report)]
    blocks += [_claims(report["claims"])] if report["claims"] else []
    blocks += [_run_page(name, run) for name, run in report["runs"].items()]
    return "\n\n".join(blocks) + "\n"


def _provenance(report: dict[str, Any]) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    data = f" --data {shlex.quote(report['data'])}" if report["data"] else ""
    return (
        f"*`integrand bench {report['suite']}{data}`, {machine['date']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}; seed {report['seed']}; Python {machine['python']}, {versions}.*"
    )


def _claims(claims: Sequence[dict[str, Any]]) -> str:
    """Every claim with the rows that were held against it."""
    head = [
        "run",
        "metric",
        "methods",
        "means",
        "better by (95 %)",
        "could show",
        "better on",
        "verdict",
    ]
    blocks = ["## What was claimed"]
    for (text, source, _), results in suite.grouped(claims).items():
        rows = [
            [
                result["run"],
                result["metric"],
                f"{result['method']} against {result['than']}",
                f"{number(result['ours'])} against {number(result['theirs'])}",
                f"{signed_percent(result['share'])} ({signed_percent(result['low'])} to {signed_percent(result['high'])})",
                percent(result["detectable"], decimals=0),
                f"{percent(result['wins'], decimals=0)} of {result['examples']}",
                f"**{result['verdict']}**",
            ]
            for result in results
        ]
        blocks += [f"> {text} ({source})", table(head, rows)]
    blocks += [
        "Intervals are one by one, not corrected for how many there are. *Could show* is the difference that so many examples of this spread "
        'show four times of five: below it, "not shown" says little.'
    ]
    return "\n\n".join(blocks)


def _run_page(name: str, run: dict[str, Any]) -> str:
    if "summaries" not in run:
        return f"## {name}\n\n{run['left out'] or 'Nothing is finished yet.'}"
    facts = ", ".join(f"{key}: {value}" for key, value in run["facts"].items())
    blocks = [
        f"## {name}",
        f"{run['examples']} examples of `{run['problem']}` ({facts}). Held against {run['reference']}.",
    ]
    blocks += [_overview(run)]
    blocks += [f"- **{metric}**: {words}" for metric, words in run["verdicts"].items()]
    for metric, by_method in run["as published"].items():
        rows = [[method, number(value)] for method, value in by_method.items()]
        blocks += [
            f"{metric} as published, one number for all examples (the area under their median curve):",
            table(["method", metric], rows),
        ]
    if run["reasons"]:
        lost = [
            f"- {method}: no map of {count} examples: {why}"
            for method, reasons in run["reasons"].items()
            for why, count in reasons.items()
        ]
        blocks += ["\n".join(lost)]
    blocks += [_spelled(run)]
    return "\n\n".join(blocks)


def _overview(run: dict[str, Any]) -> str:
    """One row per method: mean and interval of every metric, and what its maps took."""
    metrics = list(run["higher"])
    summary_of = {(entry["method"], entry["metric"]): entry for entry in run["summaries"]}
    against = {(entry["method"], entry["metric"]): entry for entry in run["differences"]}
    head = ["method", *(f"{metric} {'↑' if run['higher'][metric] else '↓'}" for metric in metrics)]
    head += ["gradients", "rows", "gap", "seconds"]
    rows = []
    for method in run["methods"]:
        cost = run["costs"][method]
        cells = [
            _cell(summary_of[method, metric], against.get((method, metric)), run["higher"][metric])
            for metric in metrics
        ]
        rows.append(
            [
                f"*{method}*" if method in run["controls"] else method,
                *cells,
                count(cost["gradients"]),
                count(cost["rows"]),
                percent(cost["gap"], decimals=0),
                number(cost["seconds"]),
            ]
        )
    note = (
        "Mean (95 % interval); in brackets the share of examples on which the method is better than the reference, with + or − where the "
        "difference is significant (sign flips and studentised bootstrap, Holm). Controls in italics. Gradients, forward rows, gap and seconds are medians per example; "
        "– is not counted, or not claimed."
    )
    return f"{table(head, rows)}\n\n{note}"


def _cell(summary: dict[str, Any], against: dict[str, Any] | None, higher: bool) -> str:
    if summary["mean"] is None:
        return "–"
    text = f"{number(summary['mean'])} ({number(summary['low'])} to {number(summary['high'])})"
    if against is None or against["mean"] is None:
        return text
    better = (against["mean"] > 0) is higher
    mark = (
        ""
        if against["corrected"] is None or against["corrected"] >= 0.05
        else (" +" if better else " −")
    )
    return f"{text} [{percent(against['wins'], decimals=0)}{mark}]"


def _spelled(run: dict[str, Any]) -> str:
    lines = [f"{name} = {text}" for name, text in {**run["methods"], **run["metrics"]}.items()]
    return "```\n" + "\n".join(lines) + "\n```"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def write(results: Results, folder: Path) -> dict[str, Any]:
    """results.json, results.md and index.html in a folder, and a page in the folder of each run;
    what they say. Needs integrand[report]."""
    report = as_json(results)
    pages = {}
    for finished in results.finished:
        if finished.scores is not None:
            compared = Comparison(
                finished.scores, finished.run.reference, notes=dict(finished.run.methods)
            )
            pages[finished.run.name] = f"{finished.run.name}/index.html"
            title = f"{results.suite.title}: {finished.run.name}"
            write_text(folder / pages[finished.run.name], comparison.page(compared, title=title))
    write_text(folder / "index.html", suite.page(report, pages))
    write_text(folder / "results.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "results.md", as_markdown(report))
    return report
