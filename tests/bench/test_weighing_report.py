"""The page of the study: its numbers are those of the tables beside it, and what is not judged is not told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ig2_design
from benchmarks.weighing import best, report, rivals, study
from benchmarks.weighing.candidates import CANDIDATES
from benchmarks.weighing.judge import DIRECTIONS, FILLS, criterion
from benchmarks.weighing.study import CONTROL, METRICS, Setting
from integrand.bench.claims import hold
from integrand.bench.suite import Claim
from integrand.compare.scores import COSTS, Scores
from integrand.compare.statistics import verdict
from integrand.core.formatting import number, signed_percent

pytest.importorskip("matplotlib")


def _scores(methods: tuple[str, ...], metrics: dict[str, bool], examples: range) -> Scores:
    rng = np.random.default_rng(len(examples))
    values = rng.uniform(0.2, 0.3, (len(methods), len(metrics), len(examples)))
    for m, method in enumerate(methods[1:], 1):
        values[m] = values[0] * (1.1 if method == "agreement" else 1) + 0.01 * rng.normal(
            size=values[0].shape
        )
    for q, metric in enumerate(metrics):
        if "magnitude" in metric:
            values[[m for m, name in enumerate(methods) if name not in study.MAGNITUDE], q] = np.nan
    return Scores(
        values,
        methods,
        tuple(metrics),
        tuple(metrics.values()),
        tuple(f"p{i}" for i in examples),
        **{cost: np.ones((len(methods), len(examples))) for cost in COSTS},
        about={f"p{i}": {"seconds": 36.0} for i in examples},
        controls=tuple(name for name in methods if name == CONTROL),
        curves={
            criterion(d, f): rng.uniform(size=(len(methods), len(examples), k + 2))
            for f in FILLS
            for d, k in zip(best.SEARCHED, map(len, report.points(f)), strict=True)
        }
        if CONTROL in methods
        else {},
    )


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve of twenty examples scored, the best weights of eight searched, nothing chosen."""
    monkeypatch.setattr(report, "SETTINGS", {"toy": Setting("digits", {}, 20, 30, "toy")})
    folder = tmp_path / "toy"
    folder.mkdir()
    machine = {"date": "2026-01-01", "processor": "abacus", "cores": 1, "threads": 1, "python": "3"}
    (folder / "run.json").write_text(
        json.dumps(
            {"run": {"facts": {"beads": 7}}, "sessions": [{**machine, "versions": {"torch": "2"}}]}
        )
    )
    _scores((*CANDIDATES, CONTROL), METRICS, range(12)).to_parquet(folder / "scores.parquet")
    signed = {criterion(d, f): higher for f in FILLS for d, higher in DIRECTIONS.items()}
    chosen = tuple(best.chosen_on(d, f) for f in ("corners", "grey", "blur") for d in best.SEARCHED)
    _scores((*best.STARTS, *chosen), signed, range(8)).to_parquet(folder / "best.parquet")
    return tmp_path


def test_what_is_told_is_what_is_stored(out: Path) -> None:
    told = report.written(out, out, lambda line: None)
    page = (out / "results.md").read_text()
    assert json.loads((out / "results.json").read_text()) == told
    assert "| toy | 12 of 20 | not yet | 0 of 10 | **not yet judged** | 0.200 |" in page
    assert "These are the first 12 of 20" in page
    assert "judged once" not in page.split("## toy")[1].split("## IG2")[0]
    assert "**Not yet run.**" in page
    scores = Scores.from_parquet(out / "toy" / "scores.parquet")
    claim = hold(Claim("", "", "", "insertion, blur, signed", "agreement", "EG"), scores)
    assert claim.share == pytest.approx(0.1, abs=0.03)
    assert f"**{report._share(claim.share, claim.low, claim.high)}**" in page
    searched = Scores.from_parquet(out / "toy" / "best.parquet")
    cell = told["runs"]["toy"]["carried"]["cells"]["best by deletion, grey"][
        "deletion, ROAD, signed"
    ]
    ours, theirs = (
        searched.of("deletion, ROAD, signed")[searched.methods.index(name)]
        for name in ("best by deletion, grey", "EG")
    )
    assert cell["share"] == pytest.approx((theirs - ours).mean() / theirs.mean())
    assert {file.name for file in out.glob("*.png")} == {"carry-over-toy.png", "weighing-toy.png"}


def test_what_was_held_out_is_told_once_it_is_complete(out: Path) -> None:
    (out / "toy" / "choice.json").write_text(json.dumps({"chosen": "agreement"}))
    (out / "toy" / "scores.parquet").unlink()  # what is told of these is tested above
    (out / "toy" / "best.parquet").unlink()
    names = ("EG", "WG", "agreement", CONTROL)
    for many in (9, 10):
        _scores(names, METRICS, range(20, 20 + many)).to_parquet(out / "toy" / "held-out.parquet")
        told = report.report_of(out)
        page = report.page_of(told)
        assert ("### Held out, judged once: agreement" in page) is (many == 10)
        assert ("**not yet judged**" in page) is (many == 9)
    judged = told["runs"]["toy"]["judged"]
    assert len(judged["criteria"]) == 16
    assert all(row["corrected"] >= row["p"] for row in judged["criteria"])
    gain = np.mean([row["share"] for row in judged["criteria"] if row["than"] == "EG"])
    assert judged["against"]["EG"]["mean"] == pytest.approx(gain)


def test_both_halves_are_told_together(out: Path) -> None:
    """All examples of the halves count once, and p is corrected over the criteria of a run."""
    held = _scores(("EG", "WG", "agreement", CONTROL), METRICS, range(20, 29))
    held.to_parquet(out / "toy" / "held-out.parquet")
    told = report.report_of(out)["whole"]["toy"]
    assert told["examples"] == 21
    first = Scores.from_parquet(out / "toy" / "scores.parquet")
    metric = "deletion, grey, signed"
    ours, theirs = (
        np.concatenate([t.of(metric)[t.methods.index(name)] for t in (first, held)])
        for name in ("WG", "EG")
    )
    claim = next(row for row in told["claims"] if row["metric"] == metric)
    assert claim["share"] == pytest.approx((theirs - ours).mean() / theirs.mean())
    assert claim["wins"] == pytest.approx((ours < theirs).mean())
    ranked = sorted(told["claims"], key=lambda row: row["p"])
    running = np.maximum.accumulate(
        [min(1.0, (len(METRICS) - i) * row["p"]) for i, row in enumerate(ranked)]
    )
    assert [row["corrected"] for row in ranked] == pytest.approx(list(running))
    sized = {row["metric"] for row in told["claims"] if row["size"] is not None}
    assert sized == {f"{d}, corners, {r}" for d in best.SEARCHED for r in ("signed", "magnitude")}
    page = report.page_of(report.report_of(out))
    assert "| judged by | toy, 21 |" in page


def test_rivals_are_told_from_the_claims_of_their_suite(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rival that the suite names and the table has; DiffID by differences, the rest by shares."""
    monkeypatch.setattr(rivals, "RUNS", {"toy": "digits"})
    names = ("IG", "EG", rivals.IG2, rivals.ACCURATE, CONTROL)
    scores = _scores(names, METRICS, range(7))
    metrics = [q for q in METRICS if "signed" in q]
    scores.to_parquet(out / "toy" / "rivals.parquet")
    told = report.report_of(out)
    run = told["rivals"]["toy"]
    pairs = {(row["method"], row["than"]) for row in run["claims"]}
    assert pairs == {(rivals.IG2, "IG"), (rivals.IG2, "EG"), (rivals.ACCURATE, rivals.IG2)}
    assert run["hours"] == pytest.approx(7 * 36 / 3600)
    page = report.page_of(told)
    for metric in metrics:
        ours, theirs = (scores.of(metric)[names.index(name)] for name in (rivals.IG2, "EG"))
        better = (ours - theirs if METRICS[metric] else theirs - ours).mean()
        row = next(line for line in page.split("### toy, 7 of")[1].splitlines() if metric in line)
        cell = row.split("|")[3].replace("**", "").split("(")[0].strip()
        if metric.startswith("DiffID"):
            assert cell == number(better, signed=True)
        else:
            assert cell == signed_percent(better / theirs.mean())
    best_row = next(
        line
        for line in page.split("### toy, 7 of")[1].split("Means, and")[1].splitlines()
        if line.startswith("| deletion, grey, signed")
    )
    means = scores.of("deletion, grey, signed").mean(1)
    assert f"**{number(means.min())}**" in best_row.split("|")[2 + int(means.argmin())]
    best_of_all = verdict(scores, "deletion, grey, signed")
    assert (
        best_of_all.best
        == min((mean, name) for mean, name in zip(means, names, strict=True) if name != CONTROL)[1]
    )
    assert f"* deletion, grey, signed ↓: {best_of_all.words}" in page.splitlines()


def test_effects_of_the_design_are_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(ig2_design.named(row) for row in ig2_design.design())
    metrics = {"insertion, zero": True, "deletion, zero": False}
    file = out / "ig2-design" / "digits" / "digits" / "scores.parquet"
    file.parent.mkdir(parents=True)
    _scores(names, metrics, range(6)).to_parquet(file)
    stable = _scores(tuple(ig2_design.STABLE), {"rank correlation": True}, range(6))
    stable.to_parquet(file.parent.parent / "stability.parquet")
    told = report.report_of(out)
    page = report.page_of(told)
    row = told["ig2"]["digits"]["effects"][0]
    assert f"{report.number(row['mean'], signed=True)} (" in page
    assert "| steps | 10 → 40 |" in page
    assert "| IG2, 1 reference | 1 |" in page


def test_power_is_planned_from_the_first_look() -> None:
    rows = {row["criterion"]: row for row in report.planned()}
    first = rows["deletion, corners, signed"]
    assert first["at"]["50"] == pytest.approx(first["at"]["100"] * 2**0.5, rel=0.03)
    assert (
        0.01 < first["at"]["100"] < 0.0192 < first["at"]["25"]
    )  # the first look's difference is within reach
