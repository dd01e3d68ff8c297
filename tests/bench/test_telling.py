"""What a suite came to: as JSON, Markdown, a page, and through the command line."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from integrand.bench import results as telling
from integrand.bench import runner as harness
from integrand.bench import suite as recipe
from integrand.bench.problems import Examples, Problem, ProblemOptions, problem
from integrand.bench.problems.base import _PROBLEMS
from integrand.cli.app import app
from integrand.core.formatting import number, percent, signed_percent
from integrand.errors import FitnessWarning, MissingExtra
from integrand.report import suite as pages

RECIPE = """
title = "Toy <suite>"
question = "Does it | work?"
[methods]
IG = "integrated(0.0, rule=GaussLegendre(8))"
Greedy = "greedy_pig(rounds=2, rule=GaussLegendre(2))"
"random map" = "RandomMap()"
[metrics]
deletion = "deletion(steps=4)"
insertion = "insertion(steps=4)"
[[run]]
name = "first"
problem = "toy"
batch = 4
[[run]]
name = "lost"
problem = "toy without its package"
[[claim]]
text = "IG is better than chance"
source = "nobody"
runs = ["first"]
metrics = ["deletion"]
method = "IG"
against = ["random map"]
size = 0.2
"""


@pytest.fixture
def toys() -> Iterator[None]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))

    @problem("toy")
    def toy(setting: ProblemOptions) -> Problem:
        def load(numbers: Sequence[int]) -> Examples:
            return Examples(x[list(numbers)])

        return Problem("toy", model, tuple(f"x{i}" for i in range(8)), load, facts={"rows": 8})

    @problem("toy without its package")
    def lost(setting: ProblemOptions) -> Problem:
        raise MissingExtra("some-package", "bench", "This toy")

    yield
    del _PROBLEMS["toy"], _PROBLEMS["toy without its package"]


def test_json_markdown_and_pages(toys: None, tmp_path: Path) -> None:
    results = harness.run(recipe.parsed("toy", RECIPE), harness.RunOptions(tmp_path))
    told = telling.write(results, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == told
    first = told["runs"]["first"]
    scores = results.finished[0].scores
    assert scores is not None
    mean = next(
        one["mean"]
        for one in first["summaries"]
        if (one["method"], one["metric"]) == ("IG", "deletion")
    )
    assert mean == pytest.approx(float(scores.of("deletion")[0].mean()))
    assert first["costs"]["IG"]["gradients"] == 8
    assert first["costs"]["Greedy"]["gap"] is None, "its card does not claim that it adds up"
    assert first["controls"] == ["random map"]
    assert "some-package" in told["runs"]["lost"]["left out"]
    text = (tmp_path / "results.md").read_text()
    assert "| *random map* |" in text
    assert "some-package" in text
    assert "GaussLegendre(8)" in text
    page = (tmp_path / "index.html").read_text()
    assert "Toy &lt;suite&gt;" in page
    assert 'href="first/index.html"' in page
    assert "IG is better than chance" in page
    assert "<table" in (tmp_path / "first/index.html").read_text()


def test_the_scale_of_claims() -> None:
    told = {"text": "t", "source": "s", "size": 0.36, "run": "r", "metric": "m", "method": "a", "than": "b", "ours": 1.0, "theirs": 2.0, "wins": 0.5, "examples": 9, "verdict": "v"}  # fmt: skip
    (group,) = pages.claims([told | {"share": 0.18, "low": -0.09, "high": 0.36}])
    assert (group.low, group.high) == ("−36 %", "+36 %")
    assert group.rows[0].place == pytest.approx((75.0, 37.5, 100.0))
    assert group.size == 100.0
    (group,) = pages.claims([told | {"share": None, "low": None, "high": None}])
    assert group.rows[0].place is None
    (group,) = pages.claims([told | {"share": 3.0, "low": 0.5, "high": 9.0}])
    assert group.rows[0].place == pytest.approx((100.0, 75.0, 100.0)), (
        "what lies beyond the scale ends at its end"
    )


def test_numbers() -> None:
    assert number(None) == number(np.nan) == percent(None) == signed_percent(None) == "–"
    assert number(0.000123456) == "0.000123"
    assert number(12345.6) == "12,346"
    assert signed_percent(-0.126) == "−13 %"
    assert percent(0.5, decimals=0) == "50 %"
    assert telling.table(["a|b"], [["c"]]) == "| a\\|b |\n| --- |\n| c |"


def test_warnings_of_a_batch_are_said_before_the_next(toys: None, tmp_path: Path) -> None:
    """A suite runs for hours and may be killed: what its batches warned of is not kept till the end."""
    text = RECIPE.replace('"greedy_pig(rounds=2, rule=GaussLegendre(2))"', '"weighted([0.0, 0.0], fill=0.0)"')  # fmt: skip
    told: list[int] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def fitness() -> list[str]:
            return [str(w.message) for w in caught if w.category is FitnessWarning]

        def tell(line: str) -> None:
            if "batch" in line:
                told.append(len(fitness()))

        harness.run(recipe.parsed("toy", text.replace("batch = 4", "batch = 2")), harness.RunOptions(tmp_path), tell)  # fmt: skip
        first, counted = fitness()
    assert told == [1, 1, 1, 1]
    assert first.startswith("Fitness says nothing about ")
    assert "such warnings of single runs in all)" in counted


def test_help_names_the_suites_that_there_are() -> None:
    folder = Path(recipe.__file__).parent / "suites"
    output = CliRunner().invoke(app, ["bench", "--help"], env={"COLUMNS": "200"}).output
    for file in folder.glob("*.toml"):
        assert re.search(rf"(?<![\w-]){re.escape(file.stem)}(?![\w-])", output), file.stem


def test_the_command(toys: None, tmp_path: Path) -> None:
    file = tmp_path / "toy.toml"
    file.write_text(RECIPE)
    done = CliRunner().invoke(
        app, ["bench", str(file), "--out", str(tmp_path / "out"), "--examples", "4"]
    )
    assert done.exit_code == 0, done.output
    assert "first: 4 examples" in done.output
    assert "IG is better than chance (nobody)" in done.output
    assert (tmp_path / "out/results.json").is_file()
    listed = CliRunner().invoke(app, ["bench"])
    assert "weighted" in listed.output
    for arguments, message in (
        ((str(file), "--part", "3/2"), "--part is K/N"),
        ((str(file), "--run", "frist"), "first"),
        (("weigthed",), "weighted"),
        (
            ("paths", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "w")),
            "needs --data",
        ),
    ):
        wrong = CliRunner().invoke(app, ["bench", *arguments])
        assert wrong.exit_code == 2
        assert message in wrong.output
