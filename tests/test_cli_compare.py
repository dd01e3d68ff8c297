"""``integrand compare``: what is typed, printed and written, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

for package in ("typer", "rich", "jinja2", "matplotlib", "pyarrow"):
    pytest.importorskip(package)
Image = pytest.importorskip("PIL.Image")

from typer.testing import CliRunner, Result  # noqa: E402

import integrand as ig  # noqa: E402
from integrand.cli.app import app  # noqa: E402
from integrand.images import load_model  # noqa: E402

CODE = """
import torch
from torch import nn
import integrand as ig
from integrand.images import ImageModel

class Colours(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(4 * torch.eye(3))

    def forward(self, z):
        return self.head((2 * z - 1).tanh().mean((2, 3)))

def colours():
    return ImageModel("colours", Colours().eval(), ig.Normalisation.unit(), 12, ("red", "green", "blue"), crop=1.0)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "toys.py").write_text(CODE)
    (tmp_path / "many").mkdir()
    for number in range(5):
        colours = np.random.default_rng(number).integers(0, 150, (14, 14, 3), dtype=np.uint8)
        colours[:, :, number % 3] += 100
        Image.fromarray(colours).save(tmp_path / "many" / f"picture{number}.png")
    return tmp_path


def compare(*words: str) -> Result:
    return CliRunner().invoke(app, ["compare", *words, "--model", "toys.py:colours"])


def text(result: Result) -> str:
    return " ".join(result.stderr.split())


def test_methods_are_compared(place: Path) -> None:
    result = compare(
        "many", "--method", "integrated,blur", "--method", "idgi", "--budget", "8", "--out", "here"
    )
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[:10])) <= 80
    rows = [line.split()[0] for line in result.stdout.splitlines() if " 8  " in line]
    assert sorted(rows) == sorted(["integrated", "blur", "idgi"] * 2)
    assert (
        "no winner: 5 examples are too few for any difference to be significant; 8 may do"
        in result.stdout
    )
    assert "Wrote here/index.html" in result.stdout
    assert {file.name for file in Path("here").iterdir()} == {
        "index.html",
        "scores.parquet",
        "comparison.json",
    }

    made = ig.Comparison.load("here")
    assert made.scores.examples == tuple(f"picture{i}" for i in range(5))
    model = load_model("toys.py:colours")
    x = model.prepare(*(f"many/picture{i}.png" for i in range(5)))
    target = model.logits(x).argmax(1)
    method = ig.methods.integrated(ig.baselines.black(), ig.rules.GaussLegendre(8))
    found = ig.explain(
        model.module, x, target=target, method=method, normalisation=model.normalisation
    )
    expected = ig.metrics.deletion(model.module, x, found, target=target)
    np.testing.assert_allclose(made.scores.of("deletion")[0], expected, atol=1e-5)


@pytest.mark.parametrize("many", [1, 2, 5])
def test_ig2_is_compared_on_any_number_of_pictures(place: Path, many: int) -> None:
    """Its references are taken from the pool by the class that the model gives them, for one picture and for several."""
    pictures = [f"many/picture{number}.png" for number in range(many)]
    words = [
        "--method",
        "integrated,guided,blur,ig2",
        "--metric",
        "deletion,insertion",
        "--budget",
        "60",
        "--no-controls",
    ]
    result = compare(*pictures, *words, "--references", "many")
    assert result.exit_code == 0, result.output
    scores = ig.Comparison.load(place / "integrand-compare").scores
    assert scores.examples == tuple(f"picture{number}" for number in range(many))
    assert np.isfinite(scores.values).all()
    assert not scores.reasons


def test_ig2_counts_the_pictures_of_other_classes(place: Path) -> None:
    """Pictures 0 and 3 are red, 1 and 4 green, 2 blue: of this pool one is of another class than the red ones, two than the green one."""
    from integrand.cli import compare as command

    session = command.Session(command.Explaining(("many",), references=("many/picture0.png", "many/picture1.png", "many/picture3.png")), load_model("toys.py:colours"))  # fmt: skip
    for pictures, others in ((["picture0"], 1), (["picture1"], 2), (["picture1", "picture3"], 1)):
        x = session.model.prepare(*(f"many/{name}.png" for name in pictures))
        request = command.CompareOptions(("many",), ("ig2",))
        (method,) = command._methods(request, session, x, session.model.logits(x)).values()
        assert method.baseline.count == min(2, others)


def test_a_folder_of_another_command_is_refused(place: Path) -> None:
    (place / "integrand-compare").mkdir()
    page = '<meta name="generator" content="integrand explain">'
    (place / "integrand-compare/index.html").write_text(page)
    result = compare("many", "--method", "integrated")
    assert result.exit_code == 2
    assert "holds what integrand explain wrote" in text(result)


def test_nothing_is_left_behind_by_what_fails(place: Path) -> None:
    assert compare("gone.png", "--method", "integrated", "--out", "new/deeper").exit_code == 2
    assert not (place / "new").exists()


def test_other_questions(place: Path) -> None:
    result = compare(
        "many", "--method", "integrated,weighted", "--metric", "insertion", "--tol", "0.1", "--target", "green",
        "--compare-to", "weighted", "--no-controls", "--vary-baseline", "black,white", "--references", "many/picture0.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    made = ig.Comparison.load("integrand-compare")
    assert (made.reference, made.scores.metrics, made.scores.controls) == (
        "weighted",
        ("insertion",),
        (),
    )
    assert made.sensitivity is not None
    assert made.sensitivity.baselines == ("black", "white")
    assert "Likeness of maps from black, white: integrated" in result.stdout
    header = json.loads(Path("integrand-compare/comparison.json").read_text())
    assert header["about"]["tol"] == 0.1


def test_a_picture_that_cannot_be_read_is_passed_over(place: Path) -> None:
    (place / "many/broken.png").write_text("no picture")
    result = compare("many", "--method", "integrated", "--budget", "4")
    assert result.exit_code == 1
    assert "broken.png" in text(result)
    assert len(ig.Comparison.load("integrand-compare").scores) == 5
    nothing = compare("many/broken.png", "--method", "integrated")
    assert nothing.exit_code == 2
    assert "nothing to compare on" in text(nothing)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "integratd"], "integrated"),
        (["--method", "integrated", "--metric", "delation"], "deletion"),
        (["--method", "integrated", "--budget", "5", "--tol", "0.1"], "give one of them"),
        (["--method", "integrated", "--reference", "blur"], "compare with"),
        (["--method", "layer"], "explains a layer"),
        (["--method", "integrated", "--level", "2"], "probability"),
        (["--method", "integrated", "--vary", "black"], "--vary takes at least two"),
        (["--method", ""], "--method names nothing"),
        (["--method", "integrated", "--metric", ","], "--metric names nothing"),
    ],
)
def test_what_cannot_be_asked(place: Path, words: list[str], message: str) -> None:
    result = compare("many", *words)
    assert result.exit_code == 2
    assert message in text(result)
    assert not (place / "integrand-compare/index.html").exists()
