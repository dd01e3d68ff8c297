"""``integrand bench``: run or resume a suite and print its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.text import Text

from ..bench import results as telling
from ..bench import runner as harness
from ..bench import suite as recipe
from ..core.formatting import count, number, percent, signed_percent
from ..report.suite import grouped
from . import console
from .pages import claimed


def run(name: str, request: harness.RunOptions, *, threads: int | None = None) -> int:
    """Run the suite called ``name``, or in that file. Returns the exit status: 1 where nothing was
    finished."""
    suite = recipe.suite(name)
    for wanted in request.runs:
        suite.run(wanted)
    if threads is not None:
        torch.set_num_threads(threads)
    with claimed(request.out, "bench"):
        results = harness.run(suite, request, console.note)
    report = telling.write(results, request.out)
    out = console.out()
    out.print(Text(report["title"], "bold"))
    for name, entry in report["runs"].items():
        _tell_run(name, entry)
    for (text, source, _), rows in grouped(report["claims"]).items():
        out.print(Text.assemble("\n", (text, "bold"), f" ({source})"))
        out.print(_claim(rows))
    out.print(f"\n{request.out / 'index.html'}, results.md, results.json", soft_wrap=True)
    return 0 if any("summaries" in entry for entry in report["runs"].values()) else 1


def listing() -> None:
    """The suites there are."""
    table = console.table("suite", "what it asks", "runs")
    for name in recipe.names():
        suite = recipe.suite(name)
        table.add_row(
            Text(name, "bold"), suite.question, ", ".join(entry.name for entry in suite.runs)
        )
    console.out().print(table)


def _tell_run(name: str, entry: dict[str, Any]) -> None:
    out = console.out()
    if "summaries" not in entry:
        out.print(f"\n{name}: {entry['left out'] or 'nothing is finished yet'}")
        return
    out.print(f"\n{name}: {entry['examples']} examples", style="bold")
    metrics = list(entry["higher"])
    table = console.table(
        "method",
        *(f"{m} {'↑' if entry['higher'][m] else '↓'}" for m in metrics),
        "gradients",
        "gap",
    )
    means = {(row["method"], row["metric"]): row["mean"] for row in entry["summaries"]}
    for method in entry["methods"]:
        cells = [number(means[method, metric]) for metric in metrics]
        cost = entry["costs"][method]
        style = "dim" if method in entry["controls"] else ""
        row: Sequence[str] = [
            method,
            *cells,
            count(cost["gradients"]),
            percent(cost["gap"], decimals=0),
        ]
        table.add_row(*(Text(cell, style) for cell in row))
    out.print(table)
    for metric, words in entry["verdicts"].items():
        out.print(Text.assemble((metric, "bold"), f": {words}"), soft_wrap=True)


def _claim(rows: Sequence[Mapping[str, Any]]) -> Any:
    table = console.table("where", "against", "better by (95 %)", "on", "verdict")
    for row in rows:
        table.add_row(
            f"{row['run']}, {row['metric']}",
            f"{row['method']}\nagainst {row['than']}",
            f"{signed_percent(row['share'])}\n{signed_percent(row['low'])} to {signed_percent(row['high'])}",
            f"{percent(row['wins'], decimals=0)} of {row['examples']}",
            Text(row["verdict"], "bold"),
        )
    return table
