"""``integrand run``: the commands of the page, as a reader types them, one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

for package in ("typer", "rich"):
    pytest.importorskip(package)

from typer.testing import CliRunner  # noqa: E402

from integrand.cli.app import app  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "usage" / "run.md"


def test_the_page_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    recipe = re.findall(r"```toml\n(.*?)```", text, re.S)[0]
    (tmp_path / "run.toml").write_text(recipe)
    (tmp_path / "my.py").write_text(
        "import torch\ndef load():\n    torch.manual_seed(0)\n    return torch.nn.Linear(6, 3)\n"
    )
    np.save("inputs.npy", np.random.default_rng(0).normal(size=(70, 6)))
    commands = [
        shlex.split(line.partition("#")[0])[1:] for line in re.findall(r"^integrand run .*$", text, re.M)
    ]  # fmt: skip
    assert len(commands) == 2
    outputs = []
    for words in (*commands, commands[0]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        outputs.append(result.output)
    assert "my.py:load (your code, which is run)" in outputs[0]
    assert re.search(r"rows\s+70 of 70", outputs[1])
    assert "2 of 2 shards stand already" in outputs[2]
    np.save("inputs.npy", np.random.default_rng(0).normal(size=(60, 6)))
    assert CliRunner().invoke(app, commands[0]).exit_code == 2  # fewer rows than before


def test_a_run_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["run", "none.toml"], ["run", "none.toml", "--status"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
