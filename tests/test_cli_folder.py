"""``integrand explain FOLDER``: a summary of everything, nothing done twice, and no picture changes another's map."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.core.files import appended, take_lock

for package in ("typer", "rich", "jinja2", "matplotlib", "pyarrow", "safetensors"):
    pytest.importorskip(package)
Image = pytest.importorskip("PIL.Image")

import pyarrow.parquet  # noqa: E402

from integrand.cli import pages, progress, summary  # noqa: E402
from integrand.cli import picture as picture_command  # noqa: E402
from integrand.cli import session as session_command  # noqa: E402
from integrand.core import formatting  # noqa: E402
from integrand.images import load_model  # noqa: E402
from tests.pictures import coloured  # noqa: E402
from tests.test_cli import CODE, SLOW, explain, text  # noqa: E402

FLAGS = ("--method", "integrated", "--nodes", "2")
MODELS = (
    CODE
    + SLOW.replace("time.sleep(1.0)", "time.sleep(0.3)")
    + """
class Curved(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Linear(6 * 7 * 7, 4)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) / 4)

    def forward(self, z):
        hidden = torch.tanh(3 * self.first(z))
        return self.second(nn.functional.max_pool2d(hidden, 2).flatten(1))

def curved():
    return ImageModel("curved", Curved().eval(), ig.Normalisation.unit(), 16, crop=1.0)

def of_photographs():
    return ImageModel("curved", Curved().eval(), ig.Normalisation.unit(), 16, crop=1.0, photographs=True)

def names():
    return ImageModel("names", Colours().eval(), ig.Normalisation.unit(), 16, ("=cmd()", "<script>alert(1)</script>", "@blue"), crop=1.0)

def fussy():
    class Fussy(Colours):
        def forward(self, z):
            if z.mean() > 0.8:
                raise ValueError("too bright for me")
            return super().forward(z)
    return ImageModel("fussy", Fussy().eval(), ig.Normalisation.unit(), 16)

def deadly():
    import os
    class Deadly(Colours):
        def forward(self, z):
            if z.mean() > 0.8:
                os._exit(7)
            return super().forward(z)
    return ImageModel("deadly", Deadly().eval(), ig.Normalisation.unit(), 16)
"""
)


@pytest.fixture
def place(pictures_folder: Callable[[str], Path]) -> Path:
    return pictures_folder(MODELS)


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch) -> None:
    """Figures are another file's business, and slow: a few bytes stand for each."""

    def plot(self: ig.Attribution, path: Path, titles: str) -> None:
        path.write_bytes(titles.encode("utf-8", "replace"))

    monkeypatch.setattr(ig.Attribution, "plot", plot)


def rows(folder: str = "integrand-out") -> list[dict[str, Any]]:
    """The summary, of which all formats are checked to say the same."""
    loaded: list[dict[str, Any]] = json.loads(Path(folder, "summary.json").read_text("utf-8"))
    parquet = pyarrow.parquet.read_table(Path(folder, "summary.parquet")).to_pylist()
    assert [formatting.json_ready(row) for row in parquet] == loaded
    with Path(folder, "summary.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [list(line) for line in lines] == [list(row) for row in loaded]
    for line, row in zip(lines, loaded, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                assert float(line[name]) == value
            elif isinstance(value, str):
                assert line[name] in (value, f"'{value}")
    return loaded


def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every map that is computed."""
    real, calls = picture_command.explain, []

    def counting(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return real(*args, **options)

    monkeypatch.setattr(picture_command, "explain", counting)
    return calls


def maps(folder: str, name: str = "rose", method: str = "integrated") -> torch.Tensor:
    values: torch.Tensor = ig.load(Path(folder, f"{name}-{method}.safetensors")).values
    return values


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))


# --- the summary ------------------------------------------------------------------------------------------------------


def test_the_summary_has_a_row_for_every_map(place: Path) -> None:
    (place / "many/torn.png").write_bytes(b"no picture")
    result = explain("many", "--method", "integrated,expected", "--seed", "3", "--save", "--nodes", "3", "--target", "green")  # fmt: skip
    assert result.exit_code == 1, result.output
    table = rows()
    assert list(table[0]) == list(summary.COLUMNS)
    assert [(Path(row["file"]).stem, row["method"], row["status"]) for row in table] == [
        *((name, method, "ok") for name in ("leaf", "rose", "sky") for method in ("integrated", "expected")),
        ("torn", None, "failed"),
    ]  # fmt: skip
    model = load_model("toys.py:colours")
    for row in table[:-1]:
        x = model.prepare(row["file"])
        logits = model.module(x).detach()
        saved = ig.load(place / "integrand-out" / row["attribution"])
        assert (row["class"], row["class_index"], row["seed"]) == ("green", 1, 3)
        assert row["predicted_index"] == int(logits.argmax())
        assert row["probability"] == pytest.approx(float(logits.softmax(1)[0, 1]), rel=1e-6)
        assert row["output"] == pytest.approx(float(logits[0, 1]), rel=1e-6)
        start = float((saved.weights[:, 0] * (saved.output - saved.change)[:, 0]).sum())
        change = float(logits[0, 1]) - start
        assert row["change"] == pytest.approx(change, rel=1e-4)
        missed = change - float(saved.values.sum())
        assert row["residual"] == pytest.approx(missed, abs=2e-4 * abs(change))
        assert row["gap"] == pytest.approx(abs(missed / change), abs=2e-4)
        assert row["incomplete"] is bool(row["gap"] > 0.1)
        assert row["gradients"] == (3 if row["method"] == "integrated" else 15)
        assert row["versions"].startswith(f"integrand {ig.__version__}, torch {torch.__version__}")
        assert (place / "integrand-out" / row["page"]).is_file()
        assert (place / "integrand-out" / row["map"]).is_file()
    assert "in no picture format that Pillow knows" in table[-1]["reason"]
    assert len({row["hash"] for row in table}) == 4


def test_names_are_harmless_wherever_they_stand(place: Path) -> None:
    """Formulas in a spreadsheet, markup on a page, orders to the terminal, bytes that are no text."""
    evil = ["=HYPERLINK(A1).png", "-1+cmd.png", "<img src=x onerror=alert(1)>.png", 'a" onload="x.png', "\x1b[31mred.png", "--><script>.png", os.fsdecode(b"caf\xe9.png")]  # fmt: skip
    for name in evil:
        shutil.copy(place / "many/sky.png", place / "many" / name)
    result = explain("many", *FLAGS, model="toys.py:names")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout + result.stderr
    table = rows()
    assert len(table) == 3 + len(evil)
    with Path("integrand-out/summary.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    dangerous = [cell for cell in cells if cell.startswith(("=", "@", "+", "|", "\t")) or (cell.startswith("-") and not re.fullmatch(r"-[\d.e-]+", cell))]  # fmt: skip
    assert dangerous == []
    assert "'=cmd()" in cells
    page = Path("integrand-out/index.html").read_text("utf-8")
    found = Tags()
    found.feed(page)
    assert [tag for tag, _ in found.tags].count("script") == 1  # its own
    assert all(not name.startswith("on") for _, names in found.tags for name in names)
    images = [names["src"] for tag, names in found.tags if tag == "img"]
    assert len(images) == 2 * len(table)
    assert all(Path("integrand-out", unquote(source)).is_file() for source in images)
    assert escape("<img src=x onerror=alert(1)>", quote=False) in page
    assert "caf�" in page


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_a_map_does_not_depend_on_the_pictures_beside_it(place: Path) -> None:
    """Bit for bit, also of methods that stop at a tolerance: where other rows round otherwise, they stop elsewhere."""
    methods = ("--method", "integrated,expected", "--tol", "0.05", "--save")
    companies = {
        "alone": ["many/rose.png"],
        "before": ["many/leaf.png", "many/rose.png"],
        "after": ["many/rose.png", "many/sky.png", "many/leaf.png"],
    }
    for out, files in companies.items():
        result = explain(*files, *methods, "--out", out, model="toys.py:curved")
        assert result.exit_code == 0, result.output
    for method in ("integrated", "expected"):
        alone = ig.load(f"alone/rose-{method}.safetensors")
        for out in ("before", "after"):
            other = ig.load(f"{out}/rose-{method}.safetensors")
            assert torch.equal(alone.values, other.values)
            assert alone.cost.gradients == other.cost.gradients
            assert torch.equal(alone.weights, other.weights)
    keys = ("hash", "method", "probability", "change", "residual", "gap", "error", "gradients")
    told = [{key: row[key] for key in keys} for row in rows("alone")]
    for out in ("before", "after"):
        mine = [row for row in rows(out) if row["page"] == "rose.html"]
        assert [{key: row[key] for key in keys} for row in mine] == told


def test_calls_of_the_model_hold_as_many_rows_each_time(place: Path) -> None:
    """So many as the size of a picture says, and not as timings do."""
    sizes = {}
    for side in (8, 16, 224, 2000):
        model = ig.images.ImageModel("any", torch.nn.Identity(), size=side)
        sizes[side] = session_command.Session(session_command.ExplainOptions(()), model).rows
    assert sizes == {8: 1024, 16: 1024, 224: 8, 2000: 8}


def test_a_photograph_is_a_baseline_of_models_that_know_photographs(place: Path) -> None:
    pytest.importorskip("skimage")
    flags = ("many/rose.png", "many/leaf.png", "--method", "expected", "--nodes", "2", "--save")
    cases = {
        "curved": ((), None),
        "of_photographs": ((), "photo (rocket)"),
        "asked": (("--baseline", "photo", "--baseline", "black"), "photo (rocket)"),
        "given": (("--references", "many/sky.png"), "photo (sky)"),
    }
    for name, (extra, expected) in cases.items():
        model = name if name in ("curved", "of_photographs") else "curved"
        result = explain(*flags, *extra, "--out", name, model=f"toys.py:{model}")
        assert result.exit_code == 0, result.output
        for picture in ("rose", "leaf"):
            labels = ig.load(f"{name}/{picture}-expected.safetensors").names
            assert [label for label in labels if label.startswith("photo")] == (
                [expected] if expected else []
            )
        page = Path(name, "rose.html").read_text("utf-8")
        assert (escape(str(expected)) in page) is (expected is not None)


def test_a_sample_is_not_its_own_baseline(place: Path) -> None:
    pytest.importorskip("skimage")
    result = explain("sample:rocket", "sample:coffee", "--method", "expected", "--nodes", "1", "--save", model="toys.py:of_photographs")  # fmt: skip
    assert result.exit_code == 0, result.output
    for name, other in (("rocket", "coffee"), ("coffee", "rocket")):
        labels = ig.load(f"integrand-out/{name}-expected.safetensors").names
        assert f"photo ({other})" in labels


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_nothing_is_computed_twice(place: Path, monkeypatch) -> None:
    calls = computed(monkeypatch)
    assert explain("many", *FLAGS).exit_code == 0
    assert len(calls) == 3
    again = explain("many", *FLAGS, "--resume")
    assert again.exit_code == 0, again.output
    assert "3 of 3 pictures are done already." in text(again)
    assert len(calls) == 3
    coloured(place / "many/late.png", 5)  # one more
    coloured(place / "many/rose.png", 8)  # another one under an old name
    (place / "integrand-out/sky-integrated.png").unlink()  # and one whose map is gone
    more = explain("many", *FLAGS, "--resume")
    assert more.exit_code == 0, more.output
    assert "1 of 4 pictures are done already." in text(more)
    assert len(calls) == 6
    assert [Path(row["file"]).stem for row in rows()] == ["late", "leaf", "rose", "sky"]
    assert (place / "integrand-out/sky-integrated.png").exists()


@pytest.mark.parametrize(
    "change", [("--nodes", "3"), ("--target", "green"), ("--baseline", "white"), ("--seed", "1")]
)
def test_other_settings_are_other_results(place: Path, monkeypatch, change) -> None:
    calls = computed(monkeypatch)
    flags = ("many/rose.png", "many/sky.png", "--method", "integrated", "--nodes", "2")
    assert explain(*flags).exit_code == 0
    first = rows()
    result = explain(*flags, *change, "--resume")
    assert result.exit_code == 0, result.output
    name = change[0].removeprefix("--").replace("baseline", "baselines")
    assert f"was made with other settings ({name}) and is computed again" in text(result)
    assert len(calls) == 4
    assert {row["settings"] for row in first}.isdisjoint(row["settings"] for row in rows())
    assert len(rows()) == 2


def test_other_weights_are_other_settings(place: Path, monkeypatch) -> None:
    calls = computed(monkeypatch)
    assert explain("many/rose.png", *FLAGS).exit_code == 0
    (place / "toys.py").write_text(MODELS.replace("10 * torch.eye(3)", "11 * torch.eye(3)"))
    result = explain("many/rose.png", *FLAGS, "--resume")
    assert "other settings (weights)" in text(result)
    assert len(calls) == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, signal.SIGTERM])
def test_what_was_stopped_goes_on(place: Path, monkeypatch, stop: Any) -> None:
    """In the second of two methods on the second picture."""
    flags = ("many", "--method", "integrated,expected", "--nodes", "2", "--save")
    assert explain(*flags, "--out", "whole").exit_code == 0
    real, calls = picture_command.explain, []

    def stopped(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            if stop is KeyboardInterrupt:
                raise KeyboardInterrupt
            signal.raise_signal(stop)
        return real(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(picture_command, "explain", stopped)
        result = explain(*flags)
    assert result.exit_code == (130 if stop is KeyboardInterrupt else 143)
    assert [(row["page"], row["method"]) for row in rows()] == [
        ("leaf.html", "integrated"),
        ("leaf.html", "expected"),
        ("rose.html", "integrated"),
    ]
    count = computed(monkeypatch)
    result = explain(*flags, "--resume")
    assert result.exit_code == 0, result.output
    assert "1 of 3 pictures are done already." in text(result)
    assert len(count) == 4  # both pictures that were not finished
    for name in ("leaf", "rose", "sky"):
        for method in ("integrated", "expected"):
            assert torch.equal(maps("whole", name, method), maps("integrand-out", name, method))


def test_a_signal_while_a_page_is_written_costs_no_picture(place: Path, monkeypatch) -> None:
    real, drawn = picture_command.page, []

    def signalled(*args: Any, **options: Any) -> Any:
        drawn.append(1)
        if len(drawn) == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(*args, **options)

    monkeypatch.setattr(picture_command, "page", signalled)
    assert explain("many", *FLAGS).exit_code == 143
    assert [row["page"] for row in rows()] == ["leaf.html", "rose.html"]
    result = explain("many", *FLAGS, "--resume")
    assert "2 of 3 pictures are done already." in text(result)


def test_a_line_that_was_cut_off_is_none(place: Path, monkeypatch) -> None:
    assert explain("many", *FLAGS).exit_code == 0
    journal = place / "integrand-out/records/1-of-1.jsonl"
    content = journal.read_bytes()
    journal.write_bytes(content[:-40])
    calls = computed(monkeypatch)
    result = explain("many", *FLAGS, "--resume")
    assert result.exit_code == 0, result.output
    assert len(calls) == 1
    assert len(rows()) == 3


def test_one_process_writes_a_part(place: Path) -> None:
    assert explain("many/rose.png", *FLAGS).exit_code == 0
    before = Path("integrand-out/index.html").read_bytes()
    with Path("integrand-out/records/.1-of-1.lock").open("w") as held:
        assert take_lock(held.fileno())
        journal = Path("integrand-out/records/1-of-1.jsonl")
        appended(journal, {"begun": "sky", "files": []})
        content = journal.read_bytes()
        for flags in ((), ("--resume",)):
            result = explain("many", *FLAGS, *flags)
            assert result.exit_code == 2
            assert "Another process is writing integrand-out" in text(result)
            assert journal.read_bytes() == content
    assert Path("integrand-out/index.html").read_bytes() == before


# --- parts and processes ----------------------------------------------------------------------------------------------


def told(folder: str) -> list[tuple[Any, ...]]:
    """What the summary says of each map, but for the time it took."""
    return [
        tuple(value for name, value in row.items() if name not in ("seconds",))
        for row in rows(folder)
    ]


def test_parts_are_disjoint_and_join(place: Path, monkeypatch) -> None:
    for seed in range(3, 5):
        coloured(place / f"many/p{seed}.png", seed)
    calls = computed(monkeypatch)
    assert explain("many", *FLAGS, "--out", "whole").exit_code == 0
    assert len(calls) == 5
    for part, count in (("1/2", 8), ("2/2", 10)):
        result = explain("many", *FLAGS, "--part", part, "--out", "one")
        assert result.exit_code == 0, result.output
        assert len(calls) == count
    assert told("one") == told("whole")
    index = Path("one/index.html").read_text("utf-8")
    assert all(f'<a href="{name}.html">' in index for name in ("leaf", "rose", "sky", "p3", "p4"))
    # On two machines, copied together: the next run finds everything.
    for part in ("1/2", "2/2"):
        assert explain("many", *FLAGS, "--part", part, "--out", part[0]).exit_code == 0
    assert {row["file"] for row in rows("1")}.isdisjoint(row["file"] for row in rows("2"))
    for part in "12":
        shutil.copytree(part, "both", dirs_exist_ok=True)
    count = len(calls)
    joined = explain("many", *FLAGS, "--resume", "--out", "both")
    assert joined.exit_code == 0, joined.output
    assert len(calls) == count
    assert told("both") == told("whole")


def test_a_part_begun_afresh_leaves_the_others(place: Path, monkeypatch) -> None:
    for part in ("1/2", "2/2", "2/2"):
        assert explain("many", *FLAGS, "--part", part).exit_code == 0
    assert len(rows()) == 3
    assert explain("many/rose.png", *FLAGS).exit_code == 0  # not a part: all of it is new
    assert len(rows()) == 1
    assert not Path("integrand-out/leaf.html").exists()


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_what_is_no_part(place: Path, part: str) -> None:
    result = explain("many", *FLAGS, "--part", part)
    assert result.exit_code == 2
    assert "--part is K/N" in text(result)


def test_more_parts_than_pictures(place: Path) -> None:
    result = explain("many", *FLAGS, "--part", "4/5")
    assert result.exit_code == 0, result.output
    assert "Part 4/5 has no pictures" in text(result)
    assert not Path("integrand-out").exists()


@pytest.mark.slow
def test_processes_do_what_one_does(place: Path) -> None:
    flags = ("many", "--method", "integrated,weighted", "--save")
    assert explain(*flags, "--out", "one", model="toys.py:curved").exit_code == 0
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # as many as each of the processes has
        assert explain(*flags, "--out", "one", model="toys.py:curved").exit_code == 0
    finally:
        torch.set_num_threads(threads)
    result = explain(*flags, "--out", "two", "--jobs", "2", model="toys.py:curved")
    assert result.exit_code == 0, result.output
    for name in ("leaf", "rose", "sky"):
        for method in ("integrated", "weighted"):
            assert torch.equal(maps("one", name, method), maps("two", name, method))
    assert told("one") == told("two")


@pytest.mark.slow
def test_a_picture_that_ends_its_process_is_passed_over(place: Path) -> None:
    Image.new("RGB", (20, 20), "white").save(place / "many/bright.png")
    result = explain("many", *FLAGS, "--jobs", "2", model="toys.py:deadly")
    assert result.exit_code == 1, result.output
    (failed,) = (row for row in rows() if row["status"] == "failed")
    assert failed["file"] == "many/bright.png"
    assert failed["reason"] == "Explaining this picture ended its process (7)."
    assert len(rows()) == 4


# --- stopping for real ------------------------------------------------------------------------------------------------


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "integrand", "explain", "many", *FLAGS, "--save"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [*command, "--model", "toys.py:slow", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for(file: Path) -> None:
    for _ in range(1200):
        if file.exists():
            return
        time.sleep(0.1)
    pytest.fail(f"{file} does not come")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_process_that_is_killed_goes_on(place: Path, monkeypatch, how, jobs: str) -> None:
    for seed in range(3, 6):
        coloured(place / f"many/p{seed}.png", seed)
    with start("--jobs", jobs) as process:
        wait_for(place / "integrand-out/leaf.html")
        time.sleep(0.3)  # in the middle of another picture
        process.send_signal(how)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == (143 if how == signal.SIGTERM else -signal.SIGKILL), said
    if how == signal.SIGTERM:
        assert "Stopped. What was finished is written." in said
        assert any(row["page"] == "leaf.html" for row in rows())
    finished = len(pages.RecordJournal(place / "integrand-out", (1, 1)).all().popitem()[1])
    assert finished >= 1
    calls = computed(monkeypatch)
    quick = CODE + SLOW.replace("time.sleep(1.0)", "pass")  # the same numbers, sooner
    (place / "toys.py").write_text(quick)
    result = explain("many", *FLAGS, "--save", "--resume", model="toys.py:slow")
    assert result.exit_code == 0, result.output
    assert len(calls) <= 6 - finished + 1  # one may have been stopped between its methods
    assert explain("many", *FLAGS, "--save", "--out", "whole", model="toys.py:slow").exit_code == 0
    assert told("integrand-out") == told("whole")
    for name in ("leaf", "rose", "sky", "p3", "p4", "p5"):
        assert torch.equal(maps("integrand-out", name), maps("whole", name))


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_strict_is_not_content_with_less(place: Path) -> None:
    for flags, model in (
        (("--nodes", "2"), "jumpy"),  # incomplete
        (("--tol", "1e-9"), "jumpy"),  # not converged
    ):
        words = ("many/rose.png", "--method", "integrated", *flags)
        assert explain(*words, model=f"toys.py:{model}").exit_code == 0
        strict = explain(*words, "--strict", "--resume", model=f"toys.py:{model}")
        assert strict.exit_code == 1, strict.output
    assert explain("many/rose.png", "--method", "integrated", "--strict").exit_code == 0


def poisoned(folder: Path) -> dict[str, str]:
    """Pictures that are none, or hardly; and what is said of those that cannot be explained."""
    folder.mkdir()
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("not a picture")
    Image.new("RGB", (1, 1), "red").save(folder / "one-pixel.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    Image.new("CMYK", (30, 30), (10, 90, 20, 5)).save(folder / "cmyk.jpg")
    grey = np.linspace(0, 65535, 900, dtype=np.uint16).reshape(30, 30)
    Image.fromarray(grey).save(folder / "sixteen-bits.png")
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("green", "blue")]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    upright = Image.fromarray(np.arange(2700, dtype=np.uint8).reshape(30, 30, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    upright.save(folder / "turned.png", exif=exif)
    whole = (folder / "cmyk.jpg").read_bytes()
    (folder / "cut-off.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    return {
        "empty.png": "the file is empty",
        "text.jpg": "no picture format",
        "huge.png": "exceeds limit",
        "cut-off.jpg": "Truncated",
    }


def test_poisoned_pictures_are_recorded_and_the_run_goes_on(place: Path) -> None:
    reasons = poisoned(place / "odd")
    result = explain("odd", "many/rose.png", "odd/gone.png", *FLAGS, "--save")
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    table = {Path(row["file"]).name: row for row in rows()}
    failed = {name: row["reason"] for name, row in table.items() if row["status"] == "failed"}
    assert failed.keys() == reasons.keys() | {"gone.png"}
    assert all(reasons[name] in failed[name] for name in reasons)
    fine = {"one-pixel.png", "cmyk.jpg", "sixteen-bits.png", "animated.gif", "turned.png"}
    assert table.keys() - failed.keys() == fine | {"rose.png"}
    # The first frame counts, and a picture is explained as it is looked at: upright.
    assert table["animated.gif"]["predicted"] == "green"
    turned = np.rot90(np.arange(2700, dtype=np.uint8).reshape(30, 30, 3), -1)
    Image.fromarray(np.ascontiguousarray(turned)).save(place / "upright.png")
    model = load_model("toys.py:colours")
    seen = ig.load("integrand-out/turned-integrated.safetensors").inputs
    assert torch.equal(seen, model.prepare("upright.png"))
    page = Path("integrand-out/index.html").read_text("utf-8")
    assert page.count('data-flags="failed"') == 5
    assert "failed 5" in page


def test_a_model_that_refuses_some_pictures(place: Path) -> None:
    Image.new("RGB", (20, 20), "white").save(place / "many/bright.png")
    result = explain("many", *FLAGS, model="toys.py:fussy")
    assert result.exit_code == 1, result.output
    assert "too bright for me" in text(result)
    (failed,) = (row for row in rows() if row["status"] == "failed")
    assert failed["file"] == "many/bright.png"
    assert "too bright for me" in failed["reason"]
    assert sum(row["status"] == "ok" for row in rows()) == 3
    again = explain("many", *FLAGS, "--resume", model="toys.py:fussy")
    assert again.exit_code == 1  # it is tried again, and refused again
    assert "3 of 4 pictures are done already." in text(again)


def test_a_model_that_refuses_all_is_an_error(place: Path) -> None:
    for number in range(4):
        Image.new("RGB", (20, 20), "white").save(place / f"bright{number}.png")
    result = explain(*(f"bright{number}.png" for number in range(4)), *FLAGS, model="toys.py:fussy")
    assert result.exit_code == 2
    assert text(result).count("too bright for me") == 1
    assert not Path("integrand-out").exists()


# --- progress ---------------------------------------------------------------------------------------------------------


def test_a_log_hears_now_and_then(place: Path, monkeypatch, capsys) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.PictureProgress(401, 1) as bar:
        for _ in range(100):
            clock[0] += 9.0
            bar.step()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 14  # every seventh picture, after 63 seconds each
    assert lines[0] == "8 of 401 pictures, 2 %, about 59 min left"
    assert lines[-1] == "99 of 401 pictures, 25 %, about 45 min left"


def test_a_folder_without_records_is_empty(place: Path) -> None:
    journal = pages.RecordJournal(place / "nothing", (1, 1))
    assert journal.all() == {}
    (place / "nothing/records").mkdir(parents=True)
    appended(journal.file, {"picture": {"file": 3, "maps": []}})
    appended(journal.file, {"picture": "x"})
    appended(journal.file, {"files": 7})
    assert journal.all() == {journal.file: []}
    assert math.isnan(pages._largest([math.nan]))
