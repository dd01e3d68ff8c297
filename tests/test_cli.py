"""The command line: what is typed, what is printed, what is written, and with which exit status it ends."""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

import integrand as ig
from integrand.core import optional
from integrand.core.files import appended
from integrand.errors import BaselineError

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

from typer.testing import CliRunner, Result  # noqa: E402

from integrand.cli import app_main, doctor  # noqa: E402
from integrand.cli import console as tell  # noqa: E402
from integrand.cli import explain as command  # noqa: E402
from integrand.cli import picture as picture_command  # noqa: E402
from integrand.cli import session as session_command  # noqa: E402
from integrand.cli import signals as stopping  # noqa: E402
from integrand.cli.app import app  # noqa: E402
from integrand.images import load_model  # noqa: E402

# Names the strongest colour of a picture; curved, so that nodes matter, and quick.
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
            self.head.weight.copy_(10 * torch.eye(3))

    def forward(self, z):
        return self.head((2 * z - 1).tanh().mean((2, 3)))

def colours():
    return ImageModel("colours", Colours().eval(), ig.Normalisation.unit(), 16, ("red", "green", "dark blue"), crop=1.0)

def training():
    return ImageModel("training", nn.Sequential(nn.Dropout(0.1), Colours()), ig.Normalisation.unit(), 16)

def plain():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))

def jumpy():
    class Jumpy(Colours):
        def forward(self, z):
            return super().forward(torch.tanh(400 * (z - 0.47)) + z)
    return ImageModel("jumpy", Jumpy().eval(), ig.Normalisation.unit(), 16)
"""


ALWAYS = {
    "index.html",
    "summary.parquet",
    "summary.csv",
    "summary.json",
    "records",
    "thumbs",
}
"""What is in every folder of results beside pages and maps."""


@pytest.fixture
def place(pictures_folder: Callable[[str], Path]) -> Path:
    return pictures_folder(CODE)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def explain(*words: str, model: str = "toys.py:colours") -> Result:
    return run("explain", *words, "--model", model)


def text(result: Result) -> str:
    """What was said on stderr, however it was wrapped."""
    return " ".join(result.stderr.split())


def cells(line: str) -> list[str]:
    """What stands in the columns of a table's line, which are two spaces apart at least."""
    return re.split(r"\s{2,}", line.strip())


# --- explain ----------------------------------------------------------------------------------------------------------


def test_four_methods_explain_a_picture(place: Path) -> None:
    methods = ("integrated", "expected", "weighted", "ig2")
    flags = [word for method in methods for word in ("--method", method)]
    result = explain("many/rose.png", *flags, "--references", "many", "--nodes", "5", "--save")
    assert result.exit_code == 0, result.output
    assert "red (0)  ◀ explained" in result.stdout
    rows = {
        cells(line)[0]: cells(line)
        for line in result.stdout.splitlines()
        if line.startswith(methods)
    }
    assert [rows[method][-2] for method in methods[:3]] == ["5", "30", "30"]
    assert all("%" in rows[method][2] for method in methods)
    assert "Wrote integrand-out/index.html" in result.stdout
    made = {file.name for file in (place / "integrand-out").iterdir()}
    assert made == ALWAYS | {"rose.html"} | {
        f"rose-{method}.{end}" for method in methods for end in ("png", "safetensors")
    }
    html = (place / "integrand-out/index.html").read_text("utf-8")
    assert all(method in html for method in methods)
    with Image.open(place / "integrand-out/rose-ig2.png") as drawn:
        assert drawn.width > 100


def test_all_methods_explain_the_same_class(place: Path) -> None:
    result = explain(
        "many/rose.png",
        "--method",
        "integrated",
        "--method",
        "expected",
        "--target",
        "blue",
        "--save",
        "--out",
        "here",
    )
    assert result.exit_code == 0, result.output
    assert "dark blue (2)  ◀ explained" in result.stdout
    for method in ("integrated", "expected"):
        assert repr(ig.load(place / f"here/rose-{method}.safetensors").target) == "Logit(2)"


def test_numbers_are_those_of_the_library(place: Path) -> None:
    assert (
        explain("many/sky.png", "--method", "integrated", "--baseline", "white", "--save").exit_code
        == 0
    )
    found = ig.load(place / "integrand-out/sky-integrated.safetensors")
    model = load_model("toys.py:colours")
    wanted = ig.explain(model.module, model.prepare("many/sky.png"), target=2, baseline=1.0)
    assert torch.allclose(found.values, wanted.values, atol=1e-6)


def test_the_copy_says_the_same(place: Path) -> None:
    for folder, flags in (("plain", ()), ("fast", ("--optimize",))):
        assert (
            explain(
                "many/sky.png", "--method", "integrated", "--save", "--out", folder, *flags
            ).exit_code
            == 0
        )
    plain, fast = (
        ig.load(place / folder / "sky-integrated.safetensors").values
        for folder in ("plain", "fast")
    )
    assert torch.allclose(plain, fast, atol=1e-6)


def test_the_seed_changes_noise_and_nothing_else(place: Path) -> None:
    found = {}
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        flags = ("--method", "integrated", "--baseline", "noise", "--nodes", "3", "--save")
        assert explain("many/sky.png", *flags, "--seed", seed, "--out", folder).exit_code == 0
        found[folder] = ig.load(place / folder / "sky-integrated.safetensors").values
    assert torch.equal(found["a"], found["b"])
    assert not torch.equal(found["a"], found["c"])


def test_a_tolerance(place: Path) -> None:
    """The maps are those of the library at that tolerance, and a tighter one takes more gradients."""
    spent = []
    for tol in ("0.1", "0.001"):
        result = explain(
            "many/rose.png", "--method", "integrated", "--baseline", "white", "--tol", tol, "--save"
        )
        assert result.exit_code == 0, result.output
        found = ig.load(place / "integrand-out/rose-integrated.safetensors")
        model = load_model("toys.py:colours")
        wanted = ig.explain(
            model.module, model.prepare("many/rose.png"), target=0, baseline=1.0, tol=float(tol)
        )
        assert torch.allclose(found.values, wanted.values, atol=1e-6)
        assert float(found.error) <= float(tol)
        row = next(
            line.split() for line in result.stdout.splitlines() if line.startswith("integrated")
        )
        assert row[-2] == str(wanted.cost.gradients)
        spent.append(wanted.cost.gradients)
    assert spent[0] < spent[1]


def test_a_tolerance_for_every_method(place: Path) -> None:
    methods = ("integrated", "expected", "weighted", "ig2")
    flags = [word for method in methods for word in ("--method", method)]
    result = explain("many/rose.png", *flags, "--references", "many", "--tol", "0.1", "--save")
    assert result.exit_code == 0, result.output
    for method in methods:
        found = ig.load(place / f"integrand-out/rose-{method}.safetensors")
        assert float(found.error) <= 0.1
        assert bool(found.converged.all())


def test_nodes_or_a_tolerance(place: Path) -> None:
    result = explain("many/rose.png", "--tol", "0.1", "--nodes", "5")
    assert result.exit_code == 2
    assert "--nodes and --tol both say how to integrate: give one of them." in text(result)
    assert not (place / "integrand-out").exists()  # refused before anything was made


@pytest.mark.parametrize("tol", ["0", "1.5", "much"])
def test_no_tolerance_at_all(place: Path, tol: str) -> None:
    result = explain("many/rose.png", "--method", "integrated", "--tol", tol)
    assert result.exit_code == 2
    assert "tol" in text(result)


def test_every_picture_of_a_folder_has_a_page(place: Path) -> None:
    result = explain("many", "many/sky.png", "--method", "integrated", "--nodes", "2")
    assert result.exit_code == 0, result.output
    assert "3 pictures, 3 maps, 6 gradients" in result.stdout
    assert "Wrote integrand-out/index.html; summary.parquet, summary.csv, summary.json" in result.stdout  # fmt: skip
    made = {file.name for file in (place / "integrand-out").iterdir()}
    assert made == ALWAYS | {
        f"{name}{end}" for name in ("leaf", "rose", "sky") for end in (".html", "-integrated.png")
    }


def test_pictures_of_one_name_do_not_overwrite_each_other(place: Path) -> None:
    (place / "more").mkdir()
    (place / "many/sky.png").rename(place / "more/ROSE.png")
    result = explain("many/rose.png", "more/ROSE.png", "--method", "integrated", "--nodes", "2")
    assert result.exit_code == 0, result.output
    names = sorted(file.name for file in (place / "integrand-out").glob("*.png"))
    assert names == ["ROSE-2-integrated.png", "rose-integrated.png"]


def test_the_photo_baseline_is_another_photograph(place: Path) -> None:
    flags = (
        "--method",
        "integrated",
        "--baseline",
        "photo",
        "--baseline",
        "black",
        "--nodes",
        "2",
        "--save",
    )
    pytest.importorskip("skimage")
    references = ("--references", "many/sky.png")
    for extra, source, name in (
        (references, "many/sky.png", "sky"),
        ((), "sample:rocket", "rocket"),  # and not a picture that happens to be beside it
    ):
        assert explain("many/rose.png", "many/leaf.png", *flags, *extra).exit_code == 0
        found = ig.load(place / "integrand-out/rose-integrated.safetensors")
        other = load_model("toys.py:colours").prepare(source)
        assert found.names == (f"photo ({name})", "black")
        assert torch.equal(found.baselines[0], other)


def test_without_another_photograph_it_is_left_out_and_said_so(place: Path, monkeypatch) -> None:
    monkeypatch.setattr(command.presets, "PHOTOGRAPHS", ())
    flags = ("--method", "weighted", "--method", "expected", "--nodes", "2")
    starts = ("--baseline", "black", "--baseline", "photo")
    result = explain("many/rose.png", *flags, *starts)
    assert result.exit_code == 0, result.output
    assert text(result).count("There is no other photograph, so that baseline is left out") == 1
    stuck = explain("many/rose.png", "--method", "integrated", "--method", "ig2", "--out", "stuck")
    assert stuck.exit_code == 2
    assert "give some with --references" in text(stuck)
    assert not (place / "stuck").exists()  # refused before the first gradient


def test_a_gap_is_marked_and_explained(place: Path) -> None:
    result = explain(
        "many/rose.png", "--method", "integrated", "--nodes", "2", model="toys.py:jumpy"
    )
    assert result.exit_code == 0, result.output
    assert "% *" in result.stdout
    assert "* These maps miss more than a tenth of the change" in result.stdout
    assert "Warning" not in result.stderr
    fine = explain("many/rose.png", "--method", "integrated")
    assert "% *" not in fine.stdout
    assert "more than a tenth" not in fine.stdout


def test_methods_that_do_not_claim_to_add_up_are_not_blamed(place: Path) -> None:
    result = explain(
        "many/rose.png",
        "--method",
        "path_weighted",
        "--method",
        "greedy_pig",
        "--nodes",
        "2",
        model="toys.py:jumpy",
    )
    assert result.exit_code == 0, result.output
    rows = [
        line
        for line in result.stdout.splitlines()
        if line.startswith(("path_weighted", "greedy_pig"))
    ]
    assert ["not claimed" in row for row in rows] == [True, True]
    assert "*" not in result.stdout
    page = (place / "integrand-out/index.html").read_text("utf-8")
    assert "▲ incomplete" not in page
    assert page.count("<td>not claimed</td>") == 2
    assert "Methods whose gap is not claimed" in page


def test_the_estimated_error_is_told_and_marked(place: Path) -> None:
    result = explain(
        "many/rose.png", "--method", "integrated", "--tol", "1e-9", model="toys.py:jumpy"
    )
    assert result.exit_code == 0, result.output
    assert "% †" in result.stdout
    assert (
        "† These maps stopped before their estimated error was within the tolerance"
        in result.stdout
    )
    assert "▲ not converged" in (place / "integrand-out/index.html").read_text("utf-8")
    fine = explain("many/rose.png", "--method", "integrated", "--tol", "0.05")
    row = next(cells(line) for line in fine.stdout.splitlines() if line.startswith("integrated"))
    assert len(row) == 6
    assert 0 <= float(row[3].removesuffix(" %")) <= 5
    assert "†" not in fine.stdout
    nodes = explain("many/rose.png", "--method", "integrated", "--nodes", "5")
    assert (
        next(cells(line)[3] for line in nodes.stdout.splitlines() if line.startswith("integrated"))
        == "–"
    )


def test_every_method_explains_a_picture(place: Path, monkeypatch) -> None:
    """Of some that stand for all; tests/images/test_presets.py sets up every one."""
    some = (
        "integrated",
        "ig2",
        "latent",
        "geodesic",
        "decision",
        "greedy_pig",
        "artificial_distancing",
        "layer",
        "blur",
        "pattern_guided",
    )
    monkeypatch.setattr(command.presets, "every", lambda: some)
    result = explain("many/rose.png", "--method", "all", "--references", "many", "--nodes", "2")
    assert result.exit_code == 0, result.output
    made = {file.name for file in (place / "integrand-out").iterdir()}
    left_out = {name for name in some if f"rose-{name}.png" not in made}
    assert left_out == {
        "artificial_distancing",
        "layer",
    }  # too few photographs, and a model without places
    for name in left_out:
        assert f"{name} is left out: " in text(result)
    sheets = {"rose-methods.png", "rose-methods-same-scale.png"}
    assert made == ALWAYS | {"rose.html"} | sheets | {
        f"rose-{name}.png" for name in set(some) - left_out
    }
    assert "latent: autoencoder of 8 × 8 patches" in text(result)
    page = (place / "integrand-out/index.html").read_text("utf-8")
    assert page.count('<figure class="card">') == len(some) - 2
    assert "about a hundred gradients" not in page  # nodes were asked for
    assert all(f"<code>{name}</code> " in page for name in left_out)


def test_one_method_that_cannot_be_had_is_an_error_where_it_was_asked_for(place: Path) -> None:
    result = explain("many/rose.png", "--method", "layer", "--references", "many")
    assert result.exit_code == 2
    assert "has no layer with at least 12" in text(result)


def test_warnings_are_told_once_and_tidily(place: Path) -> None:
    flags = ("--method", "integrated", "--method", "expected", "--nodes", "2")
    result = explain("many", *flags, model="toys.py:training")
    assert result.exit_code == 0, result.output
    assert text(result).count("Warning: The model is in training mode and has Dropout") == 1
    assert ".py:" not in text(result).replace("toys.py:", "")


def test_fitness_that_says_nothing_is_told_with_the_picture(place: Path) -> None:
    result = explain(
        "many/rose.png", "--method", "weighted", "--target", "dark blue", "--nodes", "2"
    )
    assert result.exit_code == 0, result.output
    assert "Warning: rose, weighted: Fitness says nothing" in text(result)


def test_a_bare_module_is_told_what_is_assumed_of_it(place: Path) -> None:
    result = explain(
        "many/rose.png", "--method", "integrated", "--nodes", "1", model="toys.py:plain"
    )
    assert result.exit_code == 0, result.output
    assert "toys.py:plain is taken to want 224 x 224 pixels and Normalisation(mean=(0.485," in text(
        result
    )
    assert "class 0 (0)" in result.stdout


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_unreadable_pictures_are_passed_over(place: Path) -> None:
    (place / "many/bad.png").write_bytes(b"no picture")
    result = explain(
        "gone.png", "many/bad.png", "many/sky.png", "--method", "integrated", "--nodes", "2"
    )
    assert result.exit_code == 1
    assert "'gone.png' cannot be read as a picture: there is no such file. Skipped." in text(result)
    assert (
        "'many/bad.png' cannot be read as a picture: its content is in no picture format"
        in text(result)
    )
    assert (place / "integrand-out/sky-integrated.png").exists()
    assert (place / "integrand-out/index.html").exists()


def test_nothing_readable_writes_nothing(place: Path) -> None:
    (place / "empty").mkdir()
    result = explain("empty", "gone.png", "--method", "integrated")
    assert result.exit_code == 2
    assert "'empty' holds no pictures" in text(result)
    assert "None of the pictures could be read." in text(result)
    assert not (place / "integrand-out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "integratd"), "no method named 'integratd'. Did you mean 'integrated'"),
        (("--baseline", "blak"), "no baseline named 'blak'. Did you mean 'black'"),
        (("--target", "9"), "Target class 9 does not exist: the model has 3 classes, 0 to 2."),
        (("--target", "e"), "Target 'e' could be any of 0 'red', 1 'green', 2 'dark blue'"),
        (("--target", "gren"), "no class named 'gren'. Did you mean 'green'"),
        (
            ("--model", "toys.py:colors"),
            "no function in 'toys.py' named 'colors'. Did you mean 'colours'",
        ),
        (
            ("--model", "efficientnet"),
            "no model named 'efficientnet'. Did you mean 'efficientnet-lite",
        ),
        (("--device", "abacus"), "cannot be moved to 'abacus'"),
        (("--baseline", "nan", "--method", "integrated"), "'nan' holds NaN or infinity"),
        (("--out", "toys.py"), "toys.py"),
    ],
)
def test_mistakes_get_one_line_and_status_two(
    place: Path, words: tuple[str, ...], said: str
) -> None:
    result = run("explain", "many/rose.png", "--model", "toys.py:colours", *words)
    assert result.exit_code == 2
    assert said in text(result)
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def test_an_unknown_sample_is_a_mistake(place: Path) -> None:
    pytest.importorskip("skimage")
    result = explain("sample:chelsae")
    assert result.exit_code == 2
    assert "Did you mean 'chelsea'" in text(result)


def test_debug_shows_where_it_happened(place: Path) -> None:
    result = explain("many/rose.png", "--baseline", "nan", "--debug")
    assert isinstance(result.exception, BaselineError)


def test_packages_are_looked_for_before_the_work(place: Path, monkeypatch) -> None:
    monkeypatch.setattr(optional, "find_spec", lambda name: None if name == "jinja2" else name)
    result = explain("many/rose.png")
    assert result.exit_code == 2
    assert "'jinja2': install it with pip install 'integrand[report]'" in text(result)
    assert not (place / "integrand-out").exists()


def test_what_is_done_when_stopped_is_written(place: Path, monkeypatch) -> None:
    real, calls = picture_command.explain, []

    def stopped_at_the_fourth(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(picture_command, "explain", stopped_at_the_fourth)
    result = explain("many", "--method", "integrated", "--method", "expected", "--nodes", "2")
    assert result.exit_code == 130
    assert "Stopped. What was finished is written." in text(result)
    html = (place / "integrand-out/index.html").read_text("utf-8")
    assert "leaf" in html
    assert "rose" in html
    assert len(list((place / "integrand-out").glob("*.png"))) == 3
    assert "<code>expected</code>" not in (place / "integrand-out/rose.html").read_text("utf-8")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, as in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_until_a_file_is_whole(interruptible: None) -> None:
    before, done = signal.getsignal(signal.SIGINT), []

    def interrupted() -> None:
        with picture_command.undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is before


def test_foreign_warnings_go_where_they_would_have_gone(place: Path) -> None:
    session = session_command.Session(
        session_command.ExplainOptions(("many",)), load_model("toys.py:colours")
    )
    with warnings.catch_warnings(record=True) as seen, session.hearing():
        warnings.simplefilter("always")
        warnings.warn("of somebody else's", UserWarning, stacklevel=1)
    assert [str(one.message) for one in seen] == ["of somebody else's"]


# --- methods, cite, doctor --------------------------------------------------------------------------------------------


def test_examples_of_methods_fit_on_a_terminal() -> None:
    """``integrand methods NAME`` leaves code as it is; nothing of it is folded."""
    for name, method in ig.methods.known().items():
        lines = tell.folded(inspect.getdoc(method.build) or "", 80)
        assert max(map(len, lines)) <= 80, name


@pytest.mark.parametrize("width", [80, 120])
def test_methods_are_listed_with_formula_costs_axioms_defaults_and_source(
    monkeypatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    said = run("methods").stdout
    assert max(map(len, said.splitlines())) == width
    assert not any(line.endswith(" ") for line in said.splitlines())
    words = " ".join(said.replace("\xa0", " ").split())
    for name, one in ig.methods.known().items():
        card = words[words.index(f"{name} {one.title}") :]
        card = card[: card.index(one.key) + len(one.key)]
        assert all(" ".join(part.split()) in card for part in (one.formula, f"cost {one.cost}"))
        assert f"measured {one.measured}" in card
        assert all(f"{argument}={value!r}" in card for argument, value in one.defaults.items())
        assert ("needs " + ", ".join(one.needs) in card) == bool(one.needs)
    assert "weighted Weighted Gradients C D – S I W M" in words
    assert "C complete D dummy L linear" in words
    assert ig.methods.counted_on() in words


def test_a_narrow_terminal_breaks_lines_and_loses_nothing(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = run("methods").stdout
    assert (
        "nonuniform  Integrated Gradients with non-uniform interpolation\n  C D L S I W M\n" in said
    )


def test_one_method_is_told_in_full() -> None:
    said = run("methods", "weighted").stdout
    assert max(map(len, said.partition("@")[0].splitlines())) <= 80
    assert "@misc{tran2025weighted" in said or "@article{tran2025weighted" in said
    said = " ".join(said.split())
    assert "ig.methods.weighted(baselines, path=Straight(), rule=Adaptive(), ratio=0.5" in said
    assert "the fewest" in said or "smallest number of features" in said
    wrong = run("methods", "weigthed")
    assert wrong.exit_code == 2
    assert "Did you mean 'weighted'" in text(wrong)


def test_methods_as_json() -> None:
    found = json.loads(run("methods", "--json").stdout)
    assert [one["name"] for one in found] == list(ig.methods.known())
    assert found[0]["axioms"]["complete"] is True
    guided = next(one for one in found if one["name"] == "guided")
    assert guided["measured"] == {"gradients": 201, "values": 2}
    assert guided["defaults"]["rule"] == "Trapezoid()"
    assert guided["family"].startswith("Paths that choose")
    assert json.loads(run("methods", "ig2", "--json").stdout)[0]["key"] == "zhuo2024ig2"


def test_citations() -> None:
    said = run("cite", "ig2", "integrated", "ig2").stdout
    assert said.count("@article{zhuo2024ig2") == 1
    assert "@inproceedings{sundararajan2017axiomatic" in said
    nameless = run("cite")
    assert nameless.exit_code == 2
    assert "Name the methods to cite, of integrated, expected" in text(nameless)
    assert "Did you mean 'expected'" in text(run("cite", "expcted"))


def test_doctor_finds_everything_in_order() -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert torch.__version__ in result.stdout
    assert "Self-check on cpu: passed" in result.stdout


def test_doctor_names_what_is_missing_and_what_is_wrong(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "jinja2" else "1.0")
    monkeypatch.setattr(doctor, "self_check", lambda device: doctor.Check(device, 0.1, 0.0))
    result = run("doctor")
    assert result.exit_code == 1
    assert "missing jinja2" in result.stdout
    assert "FAILED" in result.stdout
    assert set(doctor.extras()) >= {"cli", "plot", "report", "save", "demo"}
    assert "test" not in doctor.extras()


# --- the entry --------------------------------------------------------------------------------------------------------


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.delitem(sys.modules, "integrand.cli.app")
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as stopped:
        app_main()
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert (
        said.err
        == "The command line needs the package 'typer': install it with pip install 'integrand[cli]'.\n"
    )
    assert not said.out


def test_help_names_every_command() -> None:
    said = run("--help").stdout
    assert all(name in said for name in ("explain", "methods", "cite", "doctor", "--version"))
    assert run("explain", "-h").exit_code == 0


def test_as_a_program_on_a_terminal_that_knows_only_ascii() -> None:
    quiet = {**os.environ, "PYTHONIOENCODING": "ascii"}
    made = subprocess.run(
        [sys.executable, "-m", "integrand", "methods"],
        capture_output=True,
        text=True,
        env=quiet,
        timeout=60,
        check=True,
    )
    assert "Integrated Gradients" in made.stdout
    assert not made.stderr


def test_docstrings_are_folded_to_the_width() -> None:
    text = "One line that is long\nand goes on.\n\nname   says what\n       it is\n\n    A = b + c\n\n>>> code stays  as it is, however long\nanswer"
    assert tell.folded(text, 16) == [
        "One line that is",
        "long and goes",
        "on.",
        "",
        "name   says what",
        "       it is",
        "",
        "    A = b + c",
        "",
        ">>> code stays  as it is, however long",
        "answer",
    ]


def test_what_passes_a_layer_by_is_told(place: Path) -> None:
    """The table has no gap for methods that do not claim to add up."""
    (place / "skip.py").write_text(CODE + SKIP)
    (place / "many/more.png").write_bytes((place / "many/sky.png").read_bytes())
    result = explain(
        "many/rose.png",
        "--method",
        "layer",
        "--references",
        "many",
        "--nodes",
        "3",
        model="skip.py:skip",
    )
    assert result.exit_code == 0, result.output
    assert "layer: at body, 3 channels of 16 × 16 places" in text(result)
    assert (
        "Warning: rose, layer: 1 of 1 maps miss more than a tenth of the change, most likely because it passes the layer by"
        in text(result)
    )


SKIP = """
class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.body.weight.copy_(torch.eye(3)[:, :, None, None] / 4)
            self.body.bias.zero_()

    def forward(self, z):
        return 9 * (z + self.body(z)).mean((2, 3))

def skip():
    return ImageModel("skip", Skip().eval(), ig.Normalisation.unit(), 16)
"""


# --- files, disks and names -------------------------------------------------------------------------------------------


def links(page: Path) -> set[str]:
    """Where a page's links lead."""
    return {
        unquote(link)
        for link in re.findall(r'<a [^>]*href="([^"#:]+)"', page.read_text("utf-8"))
        if not link.startswith("summary.")
    }


def test_pages_lead_to_one_another(place: Path) -> None:
    shutil.copy(place / "many/sky.png", place / "many/ciel d'été #1.png")
    shutil.copy(place / "many/sky.png", place / "many/index.png")
    assert explain("many", "--method", "integrated", "--nodes", "2").exit_code == 0
    out = place / "integrand-out"
    pages = {"leaf.html", "rose.html", "sky.html", "ciel_d_été_1.html", "index-2.html"}
    assert {file.name for file in out.glob("*.html")} == pages | {"index.html"}
    assert links(out / "index.html") == pages
    assert all(links(out / name) == {"index.html"} for name in pages)
    assert '<a href="ciel_d_%C3%A9t%C3%A9_1.html">ciel d&#39;été #1</a>' in (
        out / "index.html"
    ).read_text("utf-8")


def test_of_a_single_picture_the_first_page_is_its_own(place: Path) -> None:
    assert explain("many/rose.png", "--method", "integrated", "--nodes", "2").exit_code == 0
    out = place / "integrand-out"
    assert links(out / "index.html") == set()
    assert "<h2>rose</h2>" in (out / "index.html").read_text("utf-8")
    assert links(out / "rose.html") == {"index.html"}


def test_a_later_run_removes_what_an_earlier_one_wrote_and_nothing_else(place: Path) -> None:
    flags = ("--method", "integrated", "--nodes", "2")
    assert explain("many", *flags, "--save").exit_code == 0
    out = place / "integrand-out"
    (out / "mine.png").write_bytes(b"of the user's own")
    (out / "page-9.html").write_text("of the user's own")
    (out / "leaf.html").write_text("replaced by the user's own")
    result = explain("many/sky.png", "many/rose.png", *flags)
    assert result.exit_code == 0, result.output
    assert "3 maps and pages of an earlier run in integrand-out were removed." in text(result)
    left = {file.name for file in out.iterdir()}
    saved = {
        f"{name}-integrated.safetensors" for name in ("leaf", "rose", "sky")
    }  # attributions are not thrown away
    pages = {f"{name}{end}" for name in ("sky", "rose") for end in (".html", "-integrated.png")}
    assert left == saved | pages | ALWAYS | {"mine.png", "page-9.html", "leaf.html"}
    assert {file.name[:4] for file in (out / "thumbs").iterdir()} == {"sky.", "sky-", "rose"}
    again = explain("many/sky.png", "many/rose.png", *flags)
    assert "removed" not in text(again)


def test_names_in_a_journal_cannot_remove_files_elsewhere(place: Path) -> None:
    out = place / "integrand-out"
    (out / "records").mkdir(parents=True)
    kept = [
        place / "precious.png",
        out / "toys.py",
        out / "more/deep.png",
        out / "more.safetensors",
    ]
    for file in kept:
        file.parent.mkdir(exist_ok=True)
        file.write_text("kept")
    (out / "ours.png").write_text("ours")
    (out / "link.png").symlink_to(place / "precious.png")
    names = ["../precious.png", str(place / "precious.png"), "toys.py", "more/deep.png", "ours.png", "more.safetensors", "link.png", "thumbs/../toys.py", 3]  # fmt: skip
    appended(out / "records/1-of-1.jsonl", {"begun": "x", "files": names})
    assert explain("many/sky.png", "--method", "integrated", "--nodes", "2").exit_code == 0
    assert all(file.read_text() == "kept" for file in kept)
    assert not (out / "ours.png").exists()


def test_another_command_s_folder_is_refused(place: Path) -> None:
    out = place / "integrand-out"
    out.mkdir()
    page = '<head><meta name="generator" content="integrand compare"></head>'
    (out / "index.html").write_text(page)
    result = explain("many/sky.png", "--method", "integrated")
    assert result.exit_code == 2
    assert "integrand-out holds what integrand compare wrote: give another --out" in text(result)
    assert (out / "index.html").read_text() == page


def test_a_page_of_unknown_origin_is_replaced_and_named(place: Path) -> None:
    out = place / "integrand-out"
    out.mkdir()
    (out / "index.html").write_text("somebody's")
    result = explain("many/sky.png", "--method", "integrated", "--nodes", "2")
    assert result.exit_code == 0
    assert "index.html says nothing of integrand explain; it will be replaced." in text(result)


def test_pictures_of_one_name_can_be_told_apart(place: Path) -> None:
    (place / "more").mkdir()
    (place / "many/sky.png").rename(place / "more/rose.png")
    result = explain("many/rose.png", "more/rose.png", "--method", "integrated", "--nodes", "2")
    assert result.exit_code == 0, result.output
    page = (place / "integrand-out/index.html").read_text("utf-8")
    assert '<a href="rose.html">many/rose.png</a>' in page
    assert '<a href="rose-2.html">more/rose.png</a>' in page
    assert "many/rose.png" in result.stdout


def test_long_names_are_shortened_and_stay_apart(place: Path) -> None:
    for end in "ab":
        shutil.copy(place / "many/sky.png", place / f"{'x' * 245}{end}.png")
    names = sorted(file.name for file in place.glob("x*.png"))
    result = explain(*names, "many/rose.png", "--method", "integrated", "--nodes", "2", "--save")
    assert result.exit_code == 0, result.output
    made = sorted(file.name for file in (place / "integrand-out").glob("x*"))
    assert len(made) == 6
    assert max(map(len, made)) < 160
    assert (place / "integrand-out/rose-integrated.safetensors").exists()


def test_a_name_that_no_disk_takes_is_passed_over(place: Path) -> None:
    result = explain("y" * 300, "many/rose.png", "--method", "integrated", "--nodes", "2")
    assert result.exit_code == 1
    assert "cannot be read as a picture: File name too long. Skipped." in text(result)
    assert (place / "integrand-out/rose-integrated.png").exists()


def test_a_file_that_cannot_be_written_is_told_and_the_rest_goes_on(place: Path) -> None:
    """A folder stands where the map of the second picture belongs."""
    (place / "integrand-out/rose-integrated.png").mkdir(parents=True)
    result = explain("many", "--method", "integrated", "--nodes", "2")
    assert result.exit_code == 1, result.output
    assert "Error: integrand-out/rose-integrated.png: Is a directory. It is not written." in text(
        result
    )
    assert "Traceback" not in result.output
    assert {file.name for file in (place / "integrand-out").glob("*.png") if file.is_file()} == {"leaf-integrated.png", "sky-integrated.png"}  # fmt: skip
    page = (place / "integrand-out/rose.html").read_text("utf-8")
    assert "map alone" in page  # its map is on the page all the same


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    disk = place / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True, check=False).returncode:  # fmt: skip
        pytest.skip("mounting a small disk is not permitted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def filled(path: Path) -> None:
    """Take up all room that there is on a disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))


def test_a_full_disk_ends_without_a_traceback_and_leaves_the_earlier_page(small_disk: Path) -> None:
    flags = ("--method", "integrated", "--nodes", "2", "--out", str(small_disk))
    assert explain("many/rose.png", *flags).exit_code == 0
    before = (small_disk / "index.html").read_bytes()
    filled(small_disk / "fill")
    result = explain("many", *flags, "--save")
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "No space left on device. It is not written." in text(result)
    assert "Nothing was written." in text(result)
    assert (small_disk / "index.html").read_bytes() == before
    assert not [file for file in small_disk.iterdir() if file.name.startswith(".")]


def test_a_disk_that_fills_up_keeps_what_was_finished(place: Path, monkeypatch) -> None:
    """Nothing can be written from the second picture's page on; later there is room again."""
    real, full = os.fsync, []

    def fsync(handle: int) -> None:
        full.append("rose.html" in os.listdir(place / "integrand-out"))
        if any(full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    flags = ("many", "--method", "integrated", "--nodes", "2")
    out = place / "integrand-out"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        result = explain(*flags)
    assert result.exit_code == 2, result.output
    assert "No space left on device" in text(result)
    assert "make room, then --resume" in text(result)
    assert (out / "leaf.html").exists()
    assert not (out / "sky.html").exists()
    again = explain(*flags, "--resume")
    assert again.exit_code == 0, again.output
    assert "1 of 3 pictures are done already." in text(again)
    assert links(out / "index.html") == {"leaf.html", "rose.html", "sky.html"}


@pytest.mark.parametrize("out", ["toys.py/inside", "none/such/../../toys.py"])
def test_folders_that_cannot_be_made(place: Path, out: str) -> None:
    result = explain("many/rose.png", "--method", "integrated", "--out", out)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert not (place / "none").exists()


def test_no_empty_folder_is_left_behind(place: Path) -> None:
    (place / "kept").mkdir()
    for out in ("new/deeper", "kept"):
        assert explain("many/rose.png", "--target", "9", "--out", out).exit_code == 2
    assert not (place / "new").exists()
    assert (place / "kept").is_dir()  # it was there before


EVIL = """
def evil():
    return ImageModel("evil", Colours().eval(), ig.Normalisation.unit(), 16, ("\\x1b[31mRED\\x1b]0;title\\x07", "[red]green[/red]", "dark\\nblue\\x9b2J"))
"""


def test_names_give_the_terminal_no_orders(place: Path) -> None:
    (place / "evil.py").write_text(CODE + EVIL)
    name = "\x1b]0;pwn\x1b[41m[bold]rose"
    shutil.copy(place / "many/rose.png", place / f"{name}.png")
    result = explain(
        f"{name}.png",
        "\x1b[2Jgone.png",
        "--method",
        "integrated",
        "--nodes",
        "2",
        model="evil.py:evil",
    )
    assert result.exit_code == 1, result.output
    for stream in (result.stdout, result.stderr):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", stream)
    assert "␛]0;pwn␛[41m[bold]rose" in result.stdout
    assert "␛[31mRED␛]0;title" in result.stdout
    assert "[red]green[/red] (1)" in result.stdout
    assert "dark␊blue�2J (2)" in result.stdout
    assert "␛[2Jgone.png" in result.stderr or "\\x1b[2Jgone.png" in result.stderr
    pages = [file.read_text("utf-8") for file in (place / "integrand-out").glob("*.html")]
    assert any("[red]green[/red]" in page for page in pages)
    several = explain("many/rose.png", "--target", "e", model="evil.py:evil")
    assert "\x1b" not in several.stderr


def test_control_signs_are_shown() -> None:
    assert tell.visible("a\x1b[0m\x07\x9b\u202e\nb") == "a␛[0m␇��\nb"
    assert tell.line("a\nb") == "a␊b"


def test_markup_in_messages_is_text(capsys) -> None:
    tell.fail("no [red]markup[/red] :smile:")
    tell.out().print("[bold]as it is[/bold]")
    said = capsys.readouterr()
    assert "no [red]markup[/red] :smile:" in said.err
    assert "[bold]as it is[/bold]" in said.out


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_sigterm_ends_like_ctrl_c(place: Path, monkeypatch) -> None:
    real, calls = picture_command.explain, []

    def terminated_at_the_third(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(*args, **options)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(picture_command, "explain", terminated_at_the_third)
    result = explain("many", "--method", "integrated", "--nodes", "2")
    assert result.exit_code == 143
    assert "Stopped. What was finished is written." in text(result)
    html = (place / "integrand-out/index.html").read_text("utf-8")
    assert all(f'<a href="{name}.html">{name}</a>' in html for name in ("leaf", "rose"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_waits_until_a_file_is_whole() -> None:
    done = []

    def stopped() -> None:
        with stopping.terminable(), stopping.undisturbed():
            signal.raise_signal(signal.SIGTERM)
            done.append("whole")

    with pytest.raises(stopping.Terminated):
        stopped()
    assert done == ["whole"]


@pytest.mark.slow
def test_a_real_process_is_terminated_politely(place: Path) -> None:
    (place / "slow.py").write_text(CODE + SLOW)
    words = [
        "explain",
        "many/leaf.png",
        "many/rose.png",
        "--model",
        "slow.py:slow",
        "--method",
        "integrated",
        "--nodes",
        "2",
    ]
    run = subprocess.Popen(
        [sys.executable, "-m", "integrand", *words], stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if (place / "integrand-out/leaf-integrated.png").exists():
            break
        time.sleep(0.1)
    time.sleep(0.5)  # in the middle of the second picture
    run.terminate()
    _, said = run.communicate(timeout=60)
    assert run.returncode == 143, said
    assert "Stopped. What was finished is written." in said
    assert "leaf.html" in (place / "integrand-out/index.html").read_text("utf-8")


SLOW = """
import time

def slow():
    class Slow(Colours):
        def forward(self, z):
            time.sleep(1.0)
            return super().forward(z)
    return ImageModel("slow", Slow().eval(), ig.Normalisation.unit(), 16)
"""


# --- what is said -----------------------------------------------------------------------------------------------------


def test_pages_are_called_as_the_model_is(place: Path) -> None:
    assert explain("many/rose.png", "--method", "integrated", "--nodes", "2").exit_code == 0
    assert "<title>rose · colours explained</title>" in (
        place / "integrand-out/index.html"
    ).read_text("utf-8")


def test_maps_are_titled_by_picture_class_and_method(place: Path, monkeypatch) -> None:
    titles = []
    monkeypatch.setattr(
        ig.Attribution, "plot", lambda made, **options: titles.append(options["titles"])
    )
    explain(
        "many/rose.png", "--method", "integrated,expected", "--nodes", "2", "--target", "dark blue"
    )
    assert titles == ["rose · dark blue · integrated", "rose · dark blue · expected"]


def test_what_closes_the_gap_is_said_of_the_maps_that_it_is_true_of(place: Path) -> None:
    """The advice is followed: at the tolerance it names, the maps it names add up."""
    result = explain(
        "many/rose.png", "--method", "integrated,left", "--nodes", "2", model="toys.py:jumpy"
    )
    told = re.search(r"--tol 0\.05 integrates (.*?) more closely", " ".join(result.stdout.split()))
    assert told is not None, result.stdout
    assert "--nodes close" not in result.stdout
    again = explain(
        "many/rose.png",
        "--method",
        told[1].replace(" ", ""),
        "--tol",
        "0.05",
        model="toys.py:jumpy",
    )
    assert "more than a tenth" not in again.stdout


def test_methods_are_found_by_the_acronyms_of_their_papers() -> None:
    for alias, title in {"IG": "Integrated Gradients", "EG": "Expected Gradients", "WG": "Weighted Gradients", "agi": "Adversarial Gradient Integration"}.items():  # fmt: skip
        assert run("methods", alias).stdout.startswith(f"{title}  (")
    assert "tran2025weighted" in run("cite", "WG").stdout
    elsewhere = run("methods", "lime")
    assert elsewhere.exit_code == 2
    assert "LIME is not in this library" in text(elsewhere)


def test_doctor_says_what_to_type(monkeypatch) -> None:
    monkeypatch.setattr(
        doctor, "_version", lambda package: None if package in ("jinja2", "safetensors") else "1.0"
    )
    said = " ".join(run("doctor").stdout.split())
    assert re.search(r"pip install 'integrand\[[\w,]*report[\w,]*save[\w,]*\]'", said)
    assert "llm-demo" in doctor.extras()  # shown, but its licence is its own
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0")
    assert "pip install" not in run("doctor").stdout
