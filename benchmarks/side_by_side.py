"""Two ways of doing the same, timed side by side: interleaved repeats, ratios of neighbours, medians and quartiles."""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata

import torch

import integrand as ig


@dataclass(frozen=True)
class Row:
    """A line of the table: a number, what it should be, and how far it scattered over the repeats.

    line   what was measured, in words
    value  the median, mostly a ratio of times or of bytes, ours to theirs
    spread its quartiles, where it was repeated
    goal   the most it should be (or the least, if ``more`` is better)
    unit   what it counts: "×", "%", ""
    """

    line: str
    value: float
    spread: tuple[float, float] | None = None
    goal: float | None = None
    more: bool = False
    unit: str = "×"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.more else self.value <= self.goal

    def __str__(self) -> str:
        """As a line of a Markdown table."""
        spread = (
            ""
            if self.spread is None
            else f"{self._number(self.spread[0])} to {self._number(self.spread[1])}"
        )
        goal = (
            ""
            if self.goal is None
            else f"{'≥' if self.more else '≤'} {self._number(self.goal)}{self.unit}"
        )
        verdict = {True: "met", False: "**missed**", None: ""}[self.met]
        cells = (
            self.line,
            f"{self._number(self.value)}{self.unit}",
            spread,
            goal,
            verdict,
            self.note,
        )
        return f"| {' | '.join(cells)} |"

    @staticmethod
    def _number(value: float) -> str:
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


HEADER = "| line | measured | quartiles | goal | | |\n|---|---|---|---|---|---|"

Times = dict[str, list[float]]


def interleaved(
    ways: Mapping[str, Callable[[], object]], repeats: int, *, warm: int = 1, apart: bool = False
) -> Times:
    """Seconds of each way, ``repeats`` times, one after the other, so that a noisy neighbour disturbs all alike.

    ``apart`` runs each way once untimed before it is timed: where a way takes milliseconds, it would otherwise pay for how the other has
    left caches and heap.
    """
    times: Times = {name: [] for name in ways}
    for turn in range(-warm, repeats):
        for name, run in ways.items():
            if apart:
                run()
            began = time.perf_counter()
            run()
            if turn >= 0:
                times[name].append(time.perf_counter() - began)
    return times


def ratio(times: Times, ours: str, theirs: str) -> tuple[float, tuple[float, float]]:
    """Median and quartiles of ours ÷ theirs, each pair measured in the same turn."""
    pairs = torch.tensor(times[ours], dtype=torch.float64) / torch.tensor(
        times[theirs], dtype=torch.float64
    )
    low, middle, high = pairs.quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    ).tolist()
    return middle, (low, high)


def seconds(times: Times) -> str:
    """Median seconds of every way, in words."""
    return ", ".join(f"{name} {torch.tensor(t).median():.3g} s" for name, t in times.items())


def versions(*peers: str) -> str:
    """What was measured, and on what."""
    names = ["torch", "captum", "shap", *peers]
    found = [f"integrand {metadata.version('integrand')}"]
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, {', '.join(found)}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(
                line.split(":")[1].strip() for line in lines if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def arguments(doc: str | None, repeats: int) -> argparse.Namespace:
    """The options that every benchmark has: ``--threads`` and ``--repeats``; the threads are set."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="torch.set_num_threads")
    parser.add_argument("--repeats", type=int, default=repeats)
    found = parser.parse_args()
    begin(found.threads)
    return found


def begin(threads: int) -> None:
    """Threads as asked for, and no warnings about maps: these are about time."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
    warnings.simplefilter("ignore", ig.errors.FitnessWarning)


def tell(rows: list[Row]) -> None:
    """Print a table."""
    print(HEADER, *rows, sep="\n")
