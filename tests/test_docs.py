"""Every snippet in the documentation is a file that runs, and every page's links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip(), "an example shows something"


def test_the_readme_shows_the_file_that_runs() -> None:
    (block, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block == (ROOT / "docs" / "examples" / "ten_lines.py").read_text()


def test_the_extending_page_shows_the_file_that_runs() -> None:
    (block, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "usage" / "extending.md").read_text(), re.S)
    assert block.strip() in (ROOT / "docs" / "examples" / "own_path.py").read_text()


def test_the_compare_page_shows_the_file_that_runs() -> None:
    (block, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "usage" / "compare.md").read_text(), re.S)
    assert block.strip() in (ROOT / "docs" / "examples" / "compare.py").read_text()


def test_the_layers_page_shows_lines_of_the_file_that_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "usage" / "layers.md").read_text(), re.S)
    text = (ROOT / "docs" / "examples" / "layer.py").read_text()
    assert [block for block in blocks if "attention_mask" not in block and block.strip() not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"
