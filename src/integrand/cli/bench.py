"""``integrand bench``: run a suite, or go on with it, and tell what it came to."""

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
    told = telling.write(results, request.out)
    out = console.out()
    out.print(Text(told["title"], "bold"))
    for name, one in told["runs"].items():
        _tell_run(name, one)
    for (text, source, _), held in grouped(told["claims"]).items():
        out.print(Text.assemble("\n", (text, "bold"), f" ({source})"))
        out.print(_claim(held))
    out.print(f"\n{request.out / 'index.html'}, results.md, results.json", soft_wrap=True)
    return 0 if any("summaries" in one for one in told["runs"].values()) else 1


def listing() -> None:
    """The suites there are."""
    table = console.table("suite", "what it asks", "runs")
    for name in recipe.names():
        suite = recipe.suite(name)
        table.add_row(Text(name, "bold"), suite.question, ", ".join(one.name for one in suite.runs))
    console.out().print(table)


def _tell_run(name: str, one: dict[str, Any]) -> None:
    out = console.out()
    if "summaries" not in one:
        out.print(f"\n{name}: {one['left out'] or 'nothing is finished yet'}")
        return
    out.print(f"\n{name}: {one['examples']} examples", style="bold")
    metrics = list(one["higher"])
    table = console.table(
        "method", *(f"{m} {'↑' if one['higher'][m] else '↓'}" for m in metrics), "gradients", "gap"
    )
    means = {(row["method"], row["metric"]): row["mean"] for row in one["summaries"]}
    for method in one["methods"]:
        cells = [number(means[method, metric]) for metric in metrics]
        cost = one["costs"][method]
        style = "dim" if method in one["controls"] else ""
        row: Sequence[str] = [
            method,
            *cells,
            count(cost["gradients"]),
            percent(cost["gap"], decimals=0),
        ]
        table.add_row(*(Text(cell, style) for cell in row))
    out.print(table)
    for metric, words in one["verdicts"].items():
        out.print(Text.assemble((metric, "bold"), f": {words}"), soft_wrap=True)


def _claim(rows: Sequence[Mapping[str, Any]]) -> Any:
    table = console.table("where", "against", "better by (95 %)", "on", "verdict")
    for one in rows:
        table.add_row(
            f"{one['run']}, {one['metric']}",
            f"{one['method']}\nagainst {one['than']}",
            f"{signed_percent(one['share'])}\n{signed_percent(one['low'])} to {signed_percent(one['high'])}",
            f"{percent(one['wins'], decimals=0)} of {one['examples']}",
            Text(one["verdict"], "bold"),
        )
    return table
