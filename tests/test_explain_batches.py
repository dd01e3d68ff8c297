"""Batches into a folder: the same numbers as in memory, whole or not at all, and not computed twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import integrand as ig
from integrand.core.files import appended, checked_lines
from integrand.errors import InputError
from tests.problems import tanh_mlp, wave

pytest.importorskip("safetensors")
pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")

X = wave(10, 6)
FINE: dict[str, Any] = {"rule": ig.rules.GaussLegendre(5)}


class Counting(torch.nn.Module):
    """A model that counts the rows it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.rows = tanh_mlp(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.inner(x)


def test_a_folder_holds_what_memory_would(tmp_path: Path) -> None:
    model = tanh_mlp()
    loader = DataLoader(TensorDataset(X, torch.zeros(len(X))), batch_size=4)
    folder = ig.explain_batches(model, loader, target="predicted", out=tmp_path / "out", **FINE)
    whole = ig.explain(model, X, target="predicted", **FINE)
    assert [len(batch) for batch in folder] == [4, 4, 2]
    assert (len(folder), folder.examples, folder.complete) == (3, 10, True)
    for opened in (folder, ig.load(tmp_path / "out")):
        joined = ig.concat(opened)
        torch.testing.assert_close(joined.values, whole.values, rtol=0, atol=1e-12)
        torch.testing.assert_close(joined.residual, whole.residual, rtol=0, atol=1e-12)
        assert repr(joined.target) == "Logit(tensor<10>)"
    assert torch.equal(folder[-1].inputs, X[8:])
    assert torch.equal(ig.concat(folder[1:]).inputs, X[4:])


def test_targets_of_examples_are_taken_apart(tmp_path: Path) -> None:
    model, classes = tanh_mlp(), torch.arange(10) % 3
    generator: Iterator[Tensor] = iter(X.split(3))
    folder = ig.explain_batches(model, generator, target=classes, out=tmp_path, **FINE)
    for i, attribution in enumerate(ig.concat(folder)):
        alone = ig.explain(model, X[i : i + 1], target=int(classes[i]), **FINE)
        torch.testing.assert_close(attribution.values, alone.values, rtol=0, atol=1e-12)


def test_arrays_and_dicts_are_batches_too(tmp_path: Path) -> None:
    arrays = ig.explain_batches(
        tanh_mlp(), [X[:4].numpy(), X[4:].numpy()], target=0, out=tmp_path / "arrays", **FINE
    )
    assert np.array_equal(arrays[1].inputs, X[4:])

    def both(a: Tensor, b: Tensor) -> Tensor:
        return a * b

    parts = [{"a": X[:2], "b": X[2:4]}, {"a": X[4:5], "b": X[5:6]}]
    folder = ig.explain_batches(both, parts, target=lambda y: y.sum(1), out=tmp_path / "dicts")
    total = (X[:2] * X[2:4]).sum(1)
    mapped = folder[0].values["a"].sum(1) + folder[0].values["b"].sum(1)
    torch.testing.assert_close(mapped, total, rtol=1e-4, atol=1e-5)


def test_files_are_read_when_they_are_looked_at(tmp_path: Path) -> None:
    ig.explain_batches(tanh_mlp(), X.split(4), target=0, out=tmp_path, **FINE)
    folder = ig.load(tmp_path)
    (tmp_path / "batch-000001.safetensors").unlink()
    assert len(folder[0]) == 4
    assert folder.examples == 10
    with pytest.raises(InputError, match="batch-000001"):
        folder[1]
    with pytest.raises(IndexError, match="no batch 3 among 3"):
        folder[3]


def stopped_at(count: int) -> Iterator[Tensor]:
    """Batches, and Ctrl-C in the place of one."""
    for number, batch in enumerate(X.split(4)):
        if number == count:
            raise KeyboardInterrupt
        yield batch


def test_what_is_stopped_is_partial_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ig.explain_batches(Counting(), stopped_at(2), target=0, out=tmp_path, **FINE)
    partial = ig.load(tmp_path)
    assert (len(partial), partial.examples, partial.complete) == (2, 8, False)
    assert "partial" in repr(partial)
    model = Counting()
    folder = ig.explain_batches(model, X.split(4), target=0, out=tmp_path, resume=True, **FINE)
    rest = Counting()
    ig.explain(rest, X[8:], target=0, **FINE)
    assert model.rows == rest.rows  # the third batch and nothing else
    assert folder.complete
    again = Counting()
    assert ig.explain_batches(again, X.split(4), target=0, out=tmp_path, resume=True, **FINE).complete  # fmt: skip
    assert again.rows == 0


def test_a_damaged_or_changed_batch_is_computed_again(tmp_path: Path) -> None:
    ig.explain_batches(Counting(), X.split(4), target=0, out=tmp_path, **FINE)
    file = tmp_path / "batch-000000.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    changed = X.clone()
    changed[5] += 1
    model = Counting()
    folder = ig.explain_batches(
        model, changed.split(4), target=0, out=tmp_path, resume=True, **FINE
    )
    fresh = ig.explain(tanh_mlp(), changed, target=0, **FINE)
    torch.testing.assert_close(ig.concat(folder).values, fresh.values, rtol=0, atol=1e-12)
    both = Counting()
    for batch in changed.split(4)[:2]:
        ig.explain(both, batch, target=0, **FINE)
    assert model.rows == both.rows


def test_a_shorter_series_leaves_nothing_behind(tmp_path: Path) -> None:
    ig.explain_batches(tanh_mlp(), X.split(2), target=0, out=tmp_path, **FINE)
    folder = ig.explain_batches(
        tanh_mlp(), X[:4].split(2), target=0, out=tmp_path, resume=True, **FINE
    )
    assert (len(folder), folder.examples, folder.complete) == (2, 4, True)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("change", ["model", "target", "method", "baseline", "rule"])
def test_other_settings_never_mix(tmp_path: Path, change: str) -> None:
    call: dict[str, Any] = {"target": 0, "method": "integrated", "baseline": 0.0, **FINE}
    model = tanh_mlp()
    ig.explain_batches(model, X.split(4), out=tmp_path, **call)
    if change == "model":
        with torch.no_grad():
            next(model.parameters())[0, 0] += 1e-6
    else:
        other = {
            "target": 1,
            "method": "idgi",
            "baseline": X[:1] + 1,
            "rule": ig.rules.GaussLegendre(6),
        }
        call[change] = other[change]
    with pytest.raises(InputError, match="another model, method or target"):
        ig.explain_batches(model, X.split(4), out=tmp_path, resume=True, **call)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    ig.explain_batches(tanh_mlp(), X.split(4), target=0, out=tmp_path, **FINE)
    with pytest.raises(InputError, match="resume=True"):
        ig.explain_batches(tanh_mlp(), X.split(4), target=0, out=tmp_path, **FINE)


def test_lines_that_were_cut_off_are_none(tmp_path: Path) -> None:
    ig.explain_batches(tanh_mlp(), X.split(4), target=0, out=tmp_path, **FINE)
    manifest = tmp_path / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    for length in range(0, len(lines[3]), 9):
        manifest.write_text("\n".join([*lines[:3], lines[3][:length]]))
        folder = ig.load(tmp_path)
        assert (len(folder), folder.complete) == (2, False)
    appended(manifest, {"more": 1})  # behind a line without an end
    assert json.loads(checked_lines(manifest)[-1]) == {"more": 1}
    assert len(checked_lines(manifest)) == 4


def test_a_manifest_leads_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    ig.explain_batches(tanh_mlp(), X.split(4), target=0, out=folder, **FINE)
    line = {"batch": 0, "file": "../batch-000000.safetensors", "examples": 4, "inputs": ""}
    appended(folder / "manifest.jsonl", line)
    with pytest.raises(InputError, match="none of its folder's"):
        ig.load(folder)


def test_a_folder_of_saved_files_is_a_sequence(tmp_path: Path) -> None:
    for name in "ba":
        ig.explain(tanh_mlp(), X[: 1 + (name == "a")], target=0, **FINE).save(
            tmp_path / f"{name}.safetensors"
        )
    folder = ig.load(tmp_path)
    assert [len(batch) for batch in folder] == [2, 1]
    assert (folder.examples, folder.complete) == (3, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no attributions"):
        ig.load(tmp_path / "empty")


@pytest.mark.parametrize("name", ["extra", "create_graph"])
def test_what_has_no_meaning_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        ig.explain_batches(tanh_mlp(), X.split(4), target=0, out=tmp_path, **{name: True})
    with pytest.raises(InputError, match=r"use ig\.explain"):
        ig.explain_batches(tanh_mlp(), X, target=0, out=tmp_path)


KILLED = """
import sys, time, torch, integrand as ig
from tests.problems import tanh_mlp, wave
def batches():
    for number, batch in enumerate(wave(10, 6).split(2)):
        if number == 3:
            print("third", flush=True)
            time.sleep(60)
        yield batch
ig.explain_batches(tanh_mlp(), batches(), target=0, out=sys.argv[1], rule=ig.rules.GaussLegendre(5))
"""


@pytest.mark.slow
def test_a_killed_process_leaves_whole_batches(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"third\n"
        process.send_signal(signal.SIGKILL)
    assert (len(ig.load(tmp_path)), ig.load(tmp_path).complete) == (3, False)
    folder = ig.explain_batches(tanh_mlp(), X.split(2), target=0, out=tmp_path, resume=True, **FINE)
    undisturbed = ig.explain_batches(
        tanh_mlp(), X.split(2), target=0, out=tmp_path / "whole", **FINE
    )
    assert torch.equal(ig.concat(folder).values, ig.concat(undisturbed).values)
