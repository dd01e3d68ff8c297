"""``integrand run``: a recipe over a whole dataset, and how far it is."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from rich.progress import TextColumn
from rich.text import Text

from ..core.formatting import count, percent
from ..errors import InputError
from ..run import Recipe, RunResults, ShardStore, Status, engine_named, run
from . import console

_EVERY = 60.0
"""Seconds between lines in a log."""
_REASONS = 3
"""Reasons of failed rows that are told, the commonest first."""


def start(
    path: Path,
    out: str,
    *,
    engine: str,
    workers: int | None,
    device: str,
    timeout: float | None,
    retry_failed: bool,
) -> int:
    """Compute what is missing. Returns the exit status: 1 where rows failed or did not converge."""
    recipe = Recipe.read(path)
    source = recipe.model.name or f"{recipe.model.import_} (your code, which is run)"
    console.note(f"Model: {source}; {recipe.method.method}; fingerprint {recipe.fingerprint}.")
    computer = engine_named(engine, workers, device)
    with _RunProgress() as progress:
        results = run(
            path,
            out,
            engine=computer,
            timeout=timeout,
            retry_failed=retry_failed,
            watch=progress.tell,
        )
    tell(results)
    status = results.status
    return 1 if status.failed or status.incomplete else 0


def show(path: Path, out: str) -> int:
    """How far a run is. Returns the exit status: 1 where it is not complete."""
    store = ShardStore.open(out)
    if store.recipe.fingerprint != Recipe.read(path).fingerprint:
        raise InputError(f"{out} holds results of another recipe than {path}.")
    results = RunResults(store)
    tell(results)
    return 0 if results.complete else 1


def tell(results: RunResults) -> None:
    """A table of how far a run is."""
    status = results.status
    table = console.table("", "", right=("",))
    for name, value in (
        ("shards", f"{count(status.done)} of {count(status.shards)}"),
        ("rows", f"{count(status.rows)} of {count(status.total)}"),
        ("failed rows", count(status.failed)),
        ("not converged", count(status.incomplete)),
        ("gradients", count(status.gradients)),
        ("seconds of workers", f"{status.seconds:.1f}"),
    ):
        table.add_row(Text(name), Text(value))
    console.out().print(table)
    if status.failed:
        for words, rows in Counter(_reasons(results)).most_common(_REASONS):
            console.out().print(Text(f"{count(rows)} × {words}"), soft_wrap=True)
    console.out().print(f"integrand.run.open({str(results.place)!r}) reads them.", soft_wrap=True)


def _reasons(results: RunResults) -> list[str]:
    """Why rows failed, one entry each."""
    return [reason for reason in results.table["reason"].to_pylist() if reason]


class _RunProgress:
    """A bar in a terminal, a line now and then in a log."""

    def __init__(self) -> None:
        self.live = console.err().is_terminal
        self.bars = console.bars(TextColumn("{task.percentage:3.0f} %"))
        self.first: int | None = None
        self.told = 0.0

    def __enter__(self) -> _RunProgress:
        self.bars.start()
        self.task = self.bars.add_task("rows", total=None)
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def tell(self, status: Status, seconds: float) -> None:
        if self.first is None:
            self.first = status.rows
            if status.done:
                console.note(
                    f"{count(status.done)} of {count(status.shards)} shards stand already."
                )
        self.bars.update(self.task, completed=status.rows, total=status.total)
        if self.live or time.monotonic() - self.told < _EVERY or not seconds:
            return
        self.told = time.monotonic()
        rate = (status.rows - self.first) / seconds
        left = f", {(status.total - status.rows) / rate:.0f} s left" if rate else ""
        console.note(f"{percent(status.rows / max(1, status.total))} of rows{left}")
