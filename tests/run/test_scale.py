"""The simulation of the page on scale, against closed forms, and the numbers that the page shows of it."""

from __future__ import annotations

import math
import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
hours = runpy.run_path(str(DOCS / "examples" / "scale.py"))["hours"]


def test_workers_that_are_alike_work_in_waves() -> None:
    seconds = 3600 * hours(100, 8, 7.0, spread=0, latency=0, line=0, start=11)
    assert seconds == pytest.approx(11 + 7 * math.ceil(100 / 8))


def test_a_driver_that_is_slower_than_its_workers_decides() -> None:
    seconds = 3600 * hours(1000, 1000, 2.0, spread=0, latency=0, line=0.5, start=0)
    assert seconds == pytest.approx(2 + 1000 * 0.5)


def test_shards_of_workers_that_are_taken_away() -> None:
    """With losses at rate λ, a shard of T seconds takes (e^{λT} − 1)(1/λ + restart) on average."""
    shards, length, rate, restart = 4000, 600.0, 2 / 3600, 90.0
    seconds = 3600 * hours(shards, 1, length, 0, 2.0, restart, 0, 0, 0)
    expected = math.expm1(rate * length) * (1 / rate + restart)
    assert seconds / shards == pytest.approx(expected, rel=0.03)


def test_stragglers_have_the_mean_that_they_should() -> None:
    seconds = 3600 * hours(20_000, 1, 10.0, spread=0.5, latency=0, line=0, start=0)
    assert seconds / 20_000 == pytest.approx(10, rel=0.02)


def test_the_page_shows_what_it_says() -> None:
    text = (DOCS / "usage" / "scale.md").read_text("utf-8")
    shown = re.findall(r"^\| (\d+) \| (.*) \|$", text, re.M)
    assert [int(size) for size, _ in shown] == [64, 512, 4096]
    size, cells = shown[-1]
    for gpus, cell in zip((10, 100, 1000), cells.split(" | "), strict=True):
        took = hours(10_000_000 // int(size), gpus, int(size) * 20 * 2e-3, preempted=0.05)
        best = 10_000_000 * 20 * 2e-3 / gpus / 3600
        assert cell == f"{took:.2f} h ({best / took:.0%})".replace("%", " %")
