"""Every snippet in the documentation is a file that runs, and every page's links lead somewhere."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.bench import names as vocabulary
from integrand.bench import suite as recipe
from integrand.compare.scores import Scores
from integrand.core.formatting import number, percent
from integrand.methods import registry
from scripts import docs

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
METRICS = importlib.import_module(
    "integrand.metrics.base"
)  # ``ig.metrics.metric`` is the decorator
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


SLOW = {"photograph"}
"""Examples that take the real network some hundred times through a photograph."""


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
        for path in EXAMPLES
    ],
)
def test_examples_run(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an example publishes or registers is gone after it.
    monkeypatch.setattr(registry, "_PUBLISHED", dict(registry._PUBLISHED))
    monkeypatch.setattr(METRICS, "_METRICS", dict(METRICS._METRICS))
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip(), "an example shows something"


def test_the_readme_shows_the_file_that_runs() -> None:
    (block, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block == (ROOT / "docs" / "examples" / "ten_lines.py").read_text()


def test_the_extending_page_shows_the_files_that_run() -> None:
    text = (ROOT / "docs" / "usage" / "extending.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    files = "".join(
        (ROOT / "docs" / "examples" / name).read_text() for name in ("own_path.py", "own_parts.py")
    )
    assert [block for block in blocks if block.strip() not in files] == []
    every = {
        "Detour",
        "Boole",
        "Quantiles",
        "Sparse",
        "Entropy",
        "Quadratic",
        "TotalVariation",
        "Positive",
    }
    assert set(re.findall(r"^class (\w+)", "".join(blocks), re.M)) >= every


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.parametrize(
    "name", ["circuits", "extending", "gaussian_processes", "graphs", "tables", "weightings"]
)
def test_snippets_of_a_page_run_as_they_are_pasted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, from an empty session: the first brings what all of them need."""
    monkeypatch.setattr(registry, "_PUBLISHED", dict(registry._PUBLISHED))
    monkeypatch.setattr(METRICS, "_METRICS", dict(METRICS._METRICS))
    page = (ROOT / "docs" / "usage" / f"{name}.md").read_text()
    session: dict[str, Any] = {"__name__": "pasted"}
    monkeypatch.setitem(sys.modules, "pasted", ModuleType("pasted"))
    for place, block in enumerate(re.findall(r"```python\n(.*?)```", page, re.S)):
        exec(compile(block, f"{name}.md, snippet {place}", "exec"), session)


def test_the_extending_page_names_what_there_is() -> None:
    """Every check of the kit, and nothing of ``ig`` that is not there."""
    text = (ROOT / "docs" / "usage" / "extending.md").read_text()
    assert [
        name for name in ig.testing.__all__ if name.startswith("check_") and f"`{name}`" not in text
    ] == []
    missing = set()
    for dotted in set(re.findall(r"\big\.((?:\w+\.)*\w+)", text)):
        place: Any = ig
        for name in dotted.split("."):
            place = getattr(place, name, None)
        if place is None:
            missing.add(dotted)
    assert missing == set()


def test_the_compare_page_shows_the_file_that_runs() -> None:
    (block, *_) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "usage" / "compare.md").read_text(), re.S
    )
    assert block.strip() in (ROOT / "docs" / "examples" / "compare.py").read_text()


def test_the_metrics_page_shows_lines_of_the_file_that_runs() -> None:
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "usage" / "metrics.md").read_text(), re.S
    )
    text = (ROOT / "docs" / "examples" / "metrics.py").read_text()
    assert len(blocks) == 4
    assert [block for block in blocks if block.strip() not in text] == []


def test_the_recipe_of_the_bench_page_can_be_run() -> None:
    (block,) = re.findall(
        r"```toml\n(.*?)```", (ROOT / "docs" / "usage" / "bench.md").read_text(), re.S
    )
    suite = recipe.parsed("my", block)
    words = {"blurred": ig.baselines.Blurred(), "corners": ig.baselines.Corners()}
    (run,) = suite.runs
    assert [callable(vocabulary.method(text, words)) for text in run.methods.values()] == [True] * 3
    assert isinstance(vocabulary.metric(run.metrics["deletion"], words), ig.metrics.Deletion)
    assert suite.claims[0].than == "black"


def test_the_layers_page_shows_lines_of_the_file_that_runs() -> None:
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "usage" / "layers.md").read_text(), re.S
    )
    text = (ROOT / "docs" / "examples" / "layer.py").read_text()
    assert [
        block for block in blocks if "attention_mask" not in block and block.strip() not in text
    ] == []


@pytest.mark.parametrize(
    "name", ["circuits", "gaussian_processes", "graphs", "neurons", "text", "weightings"]
)
def test_pages_show_lines_of_their_files_that_run(name: str) -> None:
    text = (ROOT / "docs" / "examples" / f"{name}.py").read_text()
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "usage" / f"{name}.md").read_text(), re.S
    )
    lines = [line for block in blocks for line in block.splitlines() if line]
    assert lines
    assert [line for line in lines if line not in text] == []


def test_the_tables_page_shows_the_files_that_run() -> None:
    page = (ROOT / "docs" / "usage" / "tables.md").read_text()
    files = [
        (ROOT / "docs" / "examples" / f"{name}.py").read_text() for name in ("tables", "pipelines")
    ]
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 5
    assert [block for block in blocks if not any(block.strip() in text for text in files)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"


def test_no_line_of_the_glossary_is_left_over() -> None:
    """Every line begins an entry, or goes on with a sentence of the one before."""
    lines = (ROOT / "docs" / "glossary.md").read_text().splitlines()[2:]
    orphans = [
        line
        for before, line in itertools.pairwise(lines)
        if not line.startswith("**") and before.endswith(".")
    ]
    assert orphans == []
    assert len({line.partition("**")[2] for line in lines if line.startswith("**")}) == sum(
        line.startswith("**") for line in lines
    )


def test_why_goals_are_missed_is_said_of_missed_goals() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    reasons = page[page.index("Why goals are missed") : page.index("<!-- image_gradients -->")]
    assert "Captum's default call" not in reasons  # both of its goals are met in the tables below
    assert (
        "Captum's default call | 0.308× | 0.304 to 0.322 | ≤ 0.5× | met" in page
        or "to Captum's default call" in page
    )


def test_paths_in_docstrings_lead_somewhere() -> None:
    named = {
        (file, path)
        for file in (ROOT / "src").rglob("*.py")
        for path in re.findall(r"docs/[\w/-]+\.md", file.read_text())
    }
    assert [(file.name, path) for file, path in named if not (ROOT / path).is_file()] == []


# --- what is said of every method -------------------------------------------------------------------------------------


def test_tables_of_methods_are_what_is_known_of_them() -> None:
    assert docs.stale() == [], "run make docs"


def test_a_changed_card_makes_the_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    card = dataclasses.replace(ig.methods.about("guided"), cost="nothing at all")
    monkeypatch.setitem(registry._PUBLISHED, "guided", card)
    assert docs.stale() == [ROOT / "docs" / "usage" / "how-to-choose.md"]


def test_quality_is_shown_once_it_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = {
        "suite": "paths",
        "runs": {
            "left out": {"left out": "why"},
            "lite0": {
                "examples": 12,
                "methods": {
                    "first": "ig2(references(2), steps=12)",
                    "second": "ig2(references(8))",
                    "chance": "RandomMap()",
                },
                "metrics": {"deletion": "deletion()"},
                "higher": {"deletion": False},
                "summaries": [
                    {"method": "first", "metric": "deletion", "mean": 0.0581},
                    {"method": "second", "metric": "deletion", "mean": 0.9},
                    {"method": "chance", "metric": "deletion", "mean": None},
                ],
            },
        },
    }
    (tmp_path / "paths.json").write_text(json.dumps(told))
    monkeypatch.setattr(docs, "QUALITY", tmp_path / "paths.json")
    lines = docs.blocks()["methods"].splitlines()
    assert lines[0].endswith("| deletion ↓ |")
    assert next(line for line in lines if "`ig2`" in line).endswith("| 0.0581 |")
    assert next(line for line in lines if "`guided`" in line).endswith("| – |")
    assert any("12 photographs" in line and "../results/paths/results.md" in line for line in lines)
    columns = [line.count(" |") for line in lines if line.startswith("| ")]
    assert len(set(columns)) == 1


def test_without_a_gallery_there_are_still_the_cards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(docs, "GALLERY", tmp_path / "none.json")
    monkeypatch.setattr(docs, "QUALITY", tmp_path / "none.json")
    monkeypatch.setattr(docs, "EXAMPLES", tmp_path / "none.json")
    made = docs.blocks()
    assert list(made) == ["methods", "metrics", "family"]
    assert "photograph" not in made["methods"]
    for name, one in ig.methods.known().items():
        assert f"| `{name}` {one.title} | " in made["methods"]
        assert f"| {one.cost} | " in made["methods"]


def test_what_is_written_by_hand_stays(tmp_path: Path) -> None:
    page = "Before.\n<!-- methods -->\nold\n<!-- /methods -->\nAfter."
    assert (
        docs.written(page, "methods", "new")
        == "Before.\n<!-- methods -->\nnew\n<!-- /methods -->\nAfter."
    )
    with pytest.raises(ValueError, match="no <!-- methods -->"):
        docs.written("A page.", "methods", "new")


def test_the_gallery_is_read_off_the_maps(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    x, of = torch.ones(1, 4), {"target": ig.targets.Output(), "steps": 4}
    claims = ig.explain(lambda z: z.square().sum(1), x, method="idgi", **of)
    other = ig.explain(lambda z: z.square().sum(1), x, method="decision", **of)
    claims.save(tmp_path / "cat-idgi.safetensors")
    other.save(tmp_path / "cat-decision.safetensors")
    found = docs.taken_in(tmp_path)["methods"]
    assert list(found) == ["idgi", "decision"]
    assert found["idgi"]["gap"] == pytest.approx(float(claims.gap))
    assert found["idgi"]["gradients"] == claims.cost.gradients == 4
    assert (found["decision"]["gap"], found["decision"]["residual"]) == (None, None)
    assert found["idgi"]["setup"] == "Method(rule=IDGI(4))"
    block = "\n".join(docs.gallery({"made": "here", "methods": found}))
    assert "| `decision` Integrated Decision Gradients | 4.00 | – | not claimed | 4 |" in block
    assert "Not for photographs, or not measured yet: `integrated`" in block


def test_numbers_in_prose_are_those_of_the_results(tmp_path: Path) -> None:
    claim = {"run": "r", "metric": "m", "method": "a", "than": "b", "share": 0.28, "low": 0.1, "high": 0.4, "wins": 0.83, "examples": 24, "verdict": "confirmed", "detectable": 0.17}  # fmt: skip
    told = {
        "claims": [claim],
        "runs": {
            "r": {
                "examples": 24,
                "summaries": [
                    {"method": "a", "metric": "m", "mean": 0.12345, "low": 0.1, "high": 0.2}
                ],
                "costs": {"a": {"gradients": 50.0, "gap": 0.07}},
            }
        },
    }
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "results.json").write_text(json.dumps(told))
    other = {"difference": 0.12345, "examples": 60, "r": {"m": {"a>b": claim}}}
    (tmp_path / "s" / "other.json").write_text(json.dumps(other))
    keys = ("difference", "examples", *(f"r/m/a>b/{key}" for key in ("share", "interval", "wins", "detectable", "verdict")))  # fmt: skip
    page = " ".join(f"<!--= s/other.json/{key} -->9<!--/-->" for key in keys)
    made = re.sub(r"<!--.*?-->", "", docs.numbered(page, tmp_path))
    assert made == "0.123 60 +28 % +10 % to +40 % 83 % 17 % confirmed"
    page = "x <!--= s/r/m/a/mean -->9<!--/--> <!--= s/r/m/a/interval -->?<!--/--> <!--= s/r/m/a>b/share -->?<!--/--> <!--= s/r/m/a>b/wins -->?<!--/--> <!--= s/r/m/a>b/detectable -->?<!--/--> <!--= s/r/examples -->?<!--/--> <!--= s/r/m/a/gap -->?<!--/--> y"
    made = docs.numbered(page, tmp_path)
    assert re.sub(r"<!--.*?-->", "", made) == "x 0.123 0.100 to 0.200 +28 % 83 % 17 % 24 7 % y"
    assert docs.numbered(made, tmp_path) == made
    for wrong in ("s/r/m/c/mean", "s/r/m/a>c/share"):
        with pytest.raises(KeyError):
            docs.numbered(f"<!--= {wrong} -->?<!--/-->", tmp_path)


def test_numbers_of_rivals_are_those_of_the_table_beside_them() -> None:
    """Means and paired differences on the page, from the scores themselves."""
    results = ROOT / "docs" / "results"
    scores = Scores.from_parquet(results / "truth" / "lite0" / "rivals.parquet")
    of = dict(zip(scores.methods, scores.of("DiffID, grey, signed"), strict=True))
    ours, theirs = of["IG2 as published"], of["EG"]
    said = {
        what: docs.found_number(f"truth/lite0/rivals/{what}", results)
        for what in (
            "examples",
            "DiffID, grey, signed/EG/mean",
            "DiffID, grey, signed/EG/gradients",
            "DiffID, grey, signed/IG2 as published>EG/difference",
            "DiffID, grey, signed/IG2 as published>EG/wins",
        )
    }
    assert list(said.values()) == [
        str(len(ours)),
        number(theirs.mean()),
        "48",
        number((ours - theirs).mean(), signed=True),
        percent(np.mean((ours > theirs) + (ours == theirs) / 2), decimals=0),
    ]
    interval = docs.found_number(
        "truth/lite0/rivals/DiffID, grey, signed/IG2 as published>EG/difference interval", results
    )
    low, high = (float(end.replace("−", "-")) for end in interval.split(" to "))
    half = 1.984 * (ours - theirs).std(ddof=1) / len(ours) ** 0.5  # Student's, near the studentised
    assert low == pytest.approx((ours - theirs).mean() - half, abs=0.01)
    assert high == pytest.approx((ours - theirs).mean() + half, abs=0.01)


SCRIPT = '''"""What is a wave?

A story in
two lines.
"""
import pathlib, sys
(pathlib.Path(sys.argv[1]) / "long_wave.png").write_bytes(b"x")
print("height: 3 m")
print("length: 40 m")
'''


def test_examples_are_told_by_what_they_say_and_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "docs" / "images" / "examples"
    for folder in (tmp_path / "examples", pictures):
        folder.mkdir(parents=True)
    (tmp_path / "examples" / "long_wave.py").write_text(SCRIPT)
    monkeypatch.setattr(docs, "SCRIPTS", tmp_path / "examples")
    monkeypatch.setattr(docs, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(docs, "EXAMPLES", tmp_path / "examples.json")
    docs.run_examples([])
    told = json.loads((tmp_path / "examples.json").read_text())
    assert told["examples"]["long_wave"]["printed"] == ["height: 3 m", "length: 40 m"]
    block = "\n".join(docs.examples(told))
    assert "### Long wave\n\n**What is a wave?** A story in two lines.\n" in block
    assert "![What is a wave?](images/examples/long_wave.png)" in block
    assert "```\nheight: 3 m\nlength: 40 m\n```" in block
    assert "[`examples/long_wave.py`](../examples/long_wave.py), " in block


def test_the_family_is_counted() -> None:
    """Everything by its name, and what is no method of single examples beside it."""
    block = docs.blocks()["family"]
    beside = sum(len(named) for _, named in docs.BESIDE)
    assert block.startswith(f"{len(ig.methods.known()) + beside} published methods:")
    for name, card in ig.methods.known().items():
        assert f"`{name}` {card.title}" in block
    assert "`ig.correlate` Integrated Gradient Correlation" in block
