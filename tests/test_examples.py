"""The scripts in examples/, run as a user would: what they print holds, and their picture shows something."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Run = Callable[[str], str]
ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a script with a folder for its picture; what it printed."""

    def run(name: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, str(tmp_path)])
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        (picture,) = tmp_path.iterdir()
        assert picture.stem == name
        pixels = np.asarray(Image.open(picture).convert("RGB"), np.float64)
        assert min(pixels.shape[:2]) >= 150
        assert pixels.std() > 10, "the picture is blank"
        return capsys.readouterr().out

    return run


def number(pattern: str, text: str) -> float:
    """The number that the group of a pattern finds."""
    match = re.search(pattern, text)
    assert match, f"{pattern!r} is not in {text!r}"
    return float(match[1])


@pytest.mark.slow
def test_images(printed: Run) -> None:
    """The weighted map is as good as the best baseline's, and far from one that knows nothing."""
    text = printed("images")
    area = {name: number(rf"{name} +([\d.]+) is", text) for name in ("grey", "weighted", "random")}
    assert "espresso" in text
    assert area["weighted"] < 1.2 * area["grey"]
    assert area["weighted"] < 0.5 * area["random"]


@pytest.mark.slow
def test_tables(printed: Run) -> None:
    text = printed("tables")
    assert number(r"explains (\d+)%", text) > 40
    assert number(r"shuffling a column: ([\d.]+)", text) > 0.8


@pytest.mark.slow
def test_trees(printed: Run) -> None:
    text = printed("trees")
    assert number(r"new tumours: ([\d.]+)%", text) > 92
    assert number(r"largest residual.*: (\S+)", text) < 1e-10


def test_gaussian_process(printed: Run) -> None:
    """95 % intervals hold 95 of 100 true contributions, about; they are wider where no data are."""
    text = printed("gaussian_process")
    assert 88 <= number(r"interval in (\d+)%", text) <= 99
    tried, not_tried = (
        number(pattern, text) for pattern in (r": ([\d.]+) where", r", ([\d.]+) where")
    )
    assert not_tried > 1.5 * tried


@pytest.mark.slow
def test_graphs(printed: Run) -> None:
    text = printed("graphs")
    assert number(r"(\d+) of 50 unseen", text) >= 48
    assert number(r"with probability ([\d.]+)", text) > 0.85
    assert number(r"largest gap.*: ([\d.]+)%", text) < 3


@pytest.mark.slow
def test_text(printed: Run) -> None:
    text = printed("text")
    loaf, clock = number(r"([\d.]+) \(from.*Freeze", text), number(r"([\d.]+) \(from.*clock", text)
    assert loaf > clock + 0.4
    assert number(r"token is hidden: ([\d.]+)", text) > 0.75


@pytest.mark.slow
def test_time_series(printed: Run) -> None:
    text = printed("time_series")
    mass, share = number(r"beat: (\d+)%", text), number(r"attribution, (\d+)% of the time", text)
    assert mass > 6 * share
    assert number(r"on it in (\d+)%", text) > 95


@pytest.mark.slow
def test_audio(printed: Run) -> None:
    text = printed("audio")
    assert number(r"the call: (\d+)%", text) > 2 * number(r"map, (\d+)% of its time", text)
    assert number(r"its pitch: (\d+)%", text) > 20 * number(r"map, ([\d.]+)% of its area", text)


@pytest.mark.slow
def test_dataset(printed: Run) -> None:
    text = printed("dataset")
    assert number(r"truth from ([\d.]+)", text) > 0.9
    assert number(r"miss r by ([\d.]+)", text) < 0.01


@pytest.mark.slow
def test_pruning(printed: Run) -> None:
    """What is passed on says more than chance; no more is claimed."""
    text = printed("pruning")
    third = {name: number(rf"{name} +.*, ([\d.]+)% with a third", text) for name in ("conductance", "at random")}  # fmt: skip
    assert third["conductance"] > third["at random"] + 10


def test_every_script_is_tested_and_listed() -> None:
    tests, listed = (path.read_text() for path in (Path(__file__), ROOT / "examples" / "README.md"))
    for script in SCRIPTS:
        assert f'printed("{script.stem}")' in tests or f"test_{script.stem}.py" in tests
        assert f"[`{script.name}`]({script.name})" in listed


def test_pictures_are_small() -> None:
    pictures = sorted((ROOT / "docs" / "images" / "examples").iterdir())
    assert {picture.stem for picture in pictures} <= {script.stem for script in SCRIPTS}
    assert [picture.name for picture in pictures if picture.stat().st_size > 150_000] == []
