"""Damaged files of every kind are errors of ours, and nothing is written anywhere else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

for package in ("typer", "rich"):
    pytest.importorskip(package)

from typer.testing import CliRunner  # noqa: E402

from integrand.cli.app import app  # noqa: E402
from tests.run.fuzzing import RECIPE, Target, names_in, targets  # noqa: E402


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Target]]:
    folder = tmp_path_factory.mktemp("fuzz")
    return folder, targets(folder)


@pytest.mark.parametrize("number", range(15))
def test_damaged_files(kinds: tuple[Path, list[Target]], number: int) -> None:
    folder, all_kinds = kinds
    assert len(all_kinds) == 15
    kind = all_kinds[number]
    before = names_in(folder)
    outcomes = {kind.case(folder, seed) for seed in range(40)}
    (folder / kind.name).write_bytes(kind.content)
    kind.reads(folder / kind.name)  # undamaged it is read
    # Lines of a manifest that are damaged are no lines, and most of what is no CSV is one.
    assert outcomes - {"read"} or kind.name.startswith(("line", "rows.csv", "out/manifest/"))
    assert names_in(folder) <= before | {
        "rows.npy",
        "rows.csv",
        "rows.parquet",
        "run.toml",
        "line",
    } | {kind.name}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arguments")
    (folder / "run.toml").write_text(RECIPE)
    (folder / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    return folder


words = st.sampled_from(
    ["run.toml", "none.toml", "--out", "out/x", "", "--status", "--retry-failed", "--jobs", "1", "0", "-1",
     "--engine", "local", "ray:x", "locla", "local:x", "--timeout", "nan", "--device", "cuda", "--", "nowhere://x", "\0", "é" * 300]
) | st.text(max_size=6)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(words, max_size=6))
def test_any_arguments(workplace: Path, arguments: list[str]) -> None:
    """The model is not there, so that nothing is ever computed: whatever is typed is refused in words."""
    before = names_in(workplace)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        result = CliRunner().invoke(app, ["run", *arguments])
    assert result.exit_code in (0, 1, 2), (arguments, result.exception)
    assert "Traceback" not in result.output
    assert result.exit_code != 0 or "--help" in arguments
    assert names_in(workplace) == before


def test_relative_paths_of_a_recipe_write_nothing_outside(tmp_path: Path) -> None:
    """Whatever a recipe says, files come to lie in --out alone."""
    place, outside = tmp_path / "a" / "b", tmp_path / "a"
    place.mkdir(parents=True)
    (place / "my.py").write_text("import torch\ndef load(): return torch.nn.Linear(2, 2)\n")
    (outside / "rows.csv").write_text("who,a,b\n../../x,1,2\n/etc/x,3,4\n")
    text = RECIPE.replace('"rows.csv"', '"../rows.csv"\nid = "who"')
    (place / "run.toml").write_text(text.replace('"predicted"', "1"))
    shutil.rmtree(place / "__pycache__", ignore_errors=True)
    before = names_in(tmp_path)
    command: Callable[..., object] = CliRunner().invoke
    result = command(
        app, ["run", str(place / "run.toml"), "--out", str(place / "out"), "--jobs", "1"]
    )
    assert result.exit_code in (0, 1), result.output  # type: ignore[attr-defined]
    new = {name for name in names_in(tmp_path) - before if "__pycache__" not in name}
    assert new
    assert all(name.startswith("a/b/out") for name in new)
