"""Attributions on disk: everything comes back, nothing runs."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

import integrand as ig
from tests.problems import Two, filled, tanh_mlp, wave

TENSORS = ("output", "weights", "change", "residual", "error", "converged", "fitness")
ARRANGED = ("values", "inputs", "shares", "baselines")


def attribution(kind: str) -> ig.Attribution:
    left, right = wave(3, 4), wave(3, 2, 3, phase=1)
    inputs: Any = {"single": wave(3, 6), "tuple": (left, right), "dict": {"left": left, "right": right}}[kind]
    model = tanh_mlp() if kind == "single" else filled(Two())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(
            model,
            inputs,
            target=torch.tensor([0, 1, 2]),
            method="weighted",
            baseline=["zero", 1.0, ig.baselines.Uniform(0, 1)],
            fill=0.0,
            record=("path",),
            normalisation=ig.Normalisation.imagenet() if kind == "single" else None,
        )


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("kind", ["single", "tuple", "dict"])
def test_there_and_back(kind: str, tmp_path: Path) -> None:
    made = attribution(kind)
    made.save(tmp_path / "map.safetensors")
    read = ig.load(tmp_path / "map.safetensors")
    for name in (*TENSORS, *ARRANGED, "reasons", "criterion", "names", "notes", "cost", "normalisation"):
        same(getattr(read, name), getattr(made, name))
    same(read.frames.points, made.frames.points)
    same(read.frames.clock, made.frames.clock)
    assert repr(read.method) == repr(made.method)
    assert repr(read.target) == repr(made.target)
    assert repr(read) == repr(made)
    same(read.gap, made.gap)
    same(read[1].values, made[1].values)


def test_what_was_not_kept_stays_away(tmp_path: Path) -> None:
    made = ig.explain(
        tanh_mlp(), wave(2, 6), target=0, method="expected", baseline=wave(3, 6, phase=1), rule=ig.rules.Midpoint(9)
    )
    made.save(tmp_path / "map")
    read = ig.load(str(tmp_path / "map"))
    assert (read.shares, read.fitness, read.frames, read.normalisation) == (None, None, None, None)
    assert read.reasons == ()
    same(read.values, made.values)


def test_a_slice_of_a_batch_holds_nothing_of_the_rest(tmp_path: Path) -> None:
    made = attribution("single")
    made.save(tmp_path / "all")
    made[0].save(tmp_path / "one")
    same(ig.load(tmp_path / "one").values, made[0].values)
    with safetensors.safe_open(tmp_path / "one", "pt") as file:
        assert {len(file.get_tensor(name)) for name in ("values", "output")} == {1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_survive_to_the_last_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    made = ig.explain(tanh_mlp().to(dtype), wave(2, 6).to(dtype) / 3, target=0)
    made.save(tmp_path / "map")
    assert ig.load(tmp_path / "map").values.dtype == dtype
    same(ig.load(tmp_path / "map").values, made.values)


def test_loading_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods and targets come back as words, whatever they say; no pickle, no eval, no import."""
    made = attribution("single")
    made.save(tmp_path / "map")
    path = tmp_path / "evil"
    evil = "__import__('os').system('touch ran')"
    with safetensors.safe_open(tmp_path / "map", "pt") as file:
        header = json.loads(file.metadata()["integrand"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header["method"] = header["target"] = evil
    save_file(tensors, path, {"integrand": json.dumps(header)})
    for name in ("pickle.loads", "pickle.load", "builtins.eval", "builtins.exec", "torch.load"):
        module, _, function = name.rpartition(".")
        monkeypatch.setattr(sys.modules[module], function, _forbidden)
    monkeypatch.chdir(tmp_path)
    read = ig.load(path)
    assert repr(read.method) == repr(read.target) == evil
    assert isinstance(read.method, str)
    repr(read)
    read[0]
    assert not (tmp_path / "ran").exists()


def _forbidden(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("code from the file was about to run")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"values": wave(2)}, tmp_path / "map.pt")
    with pytest.raises(ig.errors.InputError, match=r"map.pt' cannot be read as a safetensors file"):
        ig.load(tmp_path / "map.pt")


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_file(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "map"
    attribution("single").save(path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"\x05" * 200, "empty": b""}[damage])
    with pytest.raises(ig.errors.InputError, match=r"cannot be read as a safetensors file"):
        ig.load(path)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    save_file({"weights": wave(2)}, tmp_path / "model")
    with pytest.raises(ig.errors.InputError, match=r"holds tensors, but no attribution"):
        ig.load(tmp_path / "model")
    with pytest.raises(ig.errors.InputError, match=r"There is no file"):
        ig.load(tmp_path / "nothing")


@pytest.mark.parametrize("header", ["{}", "[]", '{"format": 1}', "not json", '{"format": "one"}'])
def test_a_header_that_says_something_else(header: str, tmp_path: Path) -> None:
    save_file({"values": wave(2)}, tmp_path / "map", {"integrand": header})
    with pytest.raises(ig.errors.InputError):
        ig.load(tmp_path / "map")


def test_a_newer_format(tmp_path: Path) -> None:
    save_file({"values": wave(2)}, tmp_path / "map", {"integrand": json.dumps({"format": 99, "integrand": "9.0"})})
    with pytest.raises(ig.errors.InputError, match=r"written by integrand 9.0, in a newer format: upgrade"):
        ig.load(tmp_path / "map")


@pytest.mark.parametrize("name", ["safetensors", "safetensors.torch"])
def test_without_safetensors(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = attribution("single")
    monkeypatch.setitem(sys.modules, name, None)
    act = ig.load if name == "safetensors" else made.save
    with pytest.raises(ig.errors.MissingExtra, match=r"pip install 'integrand\[save\]'"):
        act(tmp_path / "map")
