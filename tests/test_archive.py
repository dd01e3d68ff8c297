"""Attributions on disk: everything comes back, nothing runs."""

from __future__ import annotations

import json
import random
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
from tests.catalogue import BUILD, fits
from tests.problems import PROBLEMS, Two, filled, tanh_mlp, wave

TENSORS = ("output", "weights", "change", "residual", "error", "converged", "fitness")
ARRANGED = ("values", "inputs", "shares", "baselines")


def attribution(kind: str) -> ig.Attribution:
    left, right = wave(3, 4), wave(3, 2, 3, phase=1)
    inputs: Any = {
        "single": wave(3, 6),
        "tuple": (left, right),
        "dict": {"left": left, "right": right},
    }[kind]
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
    for name in (
        *TENSORS,
        *ARRANGED,
        "reasons",
        "criterion",
        "names",
        "notes",
        "cost",
        "normalisation",
    ):
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
        tanh_mlp(),
        wave(2, 6),
        target=0,
        method="expected",
        baseline=wave(3, 6, phase=1),
        rule=ig.rules.Midpoint(9),
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
    path.write_bytes(
        {"cut": whole[: len(whole) // 2], "garbage": b"\x05" * 200, "empty": b""}[damage]
    )
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
    save_file(
        {"values": wave(2)},
        tmp_path / "map",
        {"integrand": json.dumps({"format": 99, "integrand": "9.0"})},
    )
    with pytest.raises(
        ig.errors.InputError, match=r"written by integrand 9.0, in a newer format: upgrade"
    ):
        ig.load(tmp_path / "map")


@pytest.mark.parametrize("name", ["safetensors", "safetensors.torch"])
def test_without_safetensors(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = attribution("single")
    monkeypatch.setitem(sys.modules, name, None)
    act = ig.load if name == "safetensors" else made.save
    with pytest.raises(ig.errors.MissingExtra, match=r"pip install 'integrand\[save\]'"):
        act(tmp_path / "map")


# --- what does not fit together ---------------------------------------------------------------------------------------


def opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["integrand"]), tensors


def test_a_newer_format_is_not_called_damaged(tmp_path: Path) -> None:
    save_file(
        {"values": wave(2)},
        tmp_path / "map",
        {"integrand": json.dumps({"format": 2, "integrand": "9.0"})},
    )
    with pytest.raises(ig.errors.InputError) as caught:
        ig.load(tmp_path / "map")
    assert str(caught.value).endswith(
        "map' was written by integrand 9.0, in a newer format: upgrade to read it."
    )


@pytest.mark.parametrize(
    "name", [name for name in (*TENSORS, "values", "inputs") if name != "fitness"]
)
def test_a_part_that_is_missing(name: str, tmp_path: Path) -> None:
    attribution("single").save(tmp_path / "map")
    header, tensors = opened(tmp_path / "map")
    del tensors[name]
    save_file(tensors, tmp_path / "part", {"integrand": json.dumps(header)})
    with pytest.raises(
        ig.errors.InputError, match=rf"it lacks {name}|not an attribution's \(KeyError\('{name}'\)"
    ):
        ig.load(tmp_path / "part")


@pytest.mark.parametrize("name", [*TENSORS, *ARRANGED, "notes", "frames/points", "frames/clock"])
@pytest.mark.parametrize("fault", ["shorter", "flat", "integers"])
def test_a_part_that_does_not_fit(name: str, fault: str, tmp_path: Path) -> None:
    made = attribution("single")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        noted = ig.explain(
            tanh_mlp(), wave(3, 6), target=0, method="ig2", baseline=wave(4, 6, phase=1), steps=3
        )
    (noted if name == "notes" else made).save(tmp_path / "map")
    header, tensors = opened(tmp_path / "map")
    key = f"notes/{header['notes'][0]}" if name == "notes" else name
    if fault == "integers":
        if name in ("fitness", "inputs", "baselines", "notes", "frames/points", "frames/clock"):
            pytest.skip("may be whole numbers, or is a picture")
        tensors[key] = tensors[key].nan_to_num().long()
    else:
        whole = tensors[key]
        tensors[key] = (whole.flatten()[:-1] if fault == "flat" else whole[..., :-1] if whole.ndim < 3 else whole[:, :, :-1] if "/" in key else whole[:, :-1]).contiguous()  # fmt: skip
        if (name, fault) in {("values", "shorter"), ("inputs", "shorter")}:
            tensors[key] = whole[:-1].contiguous()
    save_file(tensors, tmp_path / "odd", {"integrand": json.dumps(header)})
    with pytest.raises(ig.errors.InputError, match=r"holds no whole attribution"):
        ig.load(tmp_path / "odd")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("reasons", ["one"]), ("reasons", [1, 2, 3]), ("names", [1]), ("names", None), ("criterion", 7), ("method", None), ("target", []),
        ("cost", {"seconds": "long"}), ("cost", {"gradients": None}), ("cost", {"euros": 1}), ("cost", []), ("notes", ["gone"]), ("format", "1"),
        ("arranged", {"values": "tensor"}), ("normalisation", {"mean": [0.5], "std": [0.0]}), ("normalisation", {"mean": [0.5, 0.5], "std": [1.0]}),
        ("normalisation", {"mean": []}), ("normalisation", 3),
    ],
)  # fmt: skip
def test_a_header_entry_that_is_something_else(entry: str, value: Any, tmp_path: Path) -> None:
    attribution("single").save(tmp_path / "map")
    header, tensors = opened(tmp_path / "map")
    save_file(tensors, tmp_path / "odd", {"integrand": json.dumps({**header, entry: value})})
    with pytest.raises(ig.errors.InputError):
        ig.load(tmp_path / "odd")


def looked_at(read: ig.Attribution) -> None:
    """Everything that a reader does first."""
    repr(read)
    read._repr_html_()
    read[0]
    _ = read.gap, read.base


@pytest.mark.parametrize("kind", ["single", "tuple", "dict"])
@pytest.mark.parametrize("digest", [True, False])
def test_damage_anywhere_is_seen_or_harmless(kind: str, digest: bool, tmp_path: Path) -> None:
    """Bits turned, bytes lost, doubled and zeroed, all over the file. A file that knows its digest gives what was saved, or is refused;
    one of 0.1, which has none, gives something that can be looked at, or is refused."""
    made, path = attribution(kind), tmp_path / "map"
    made.save(path)
    if not digest:
        header, tensors = opened(path)
        save_file(tensors, path, {"integrand": json.dumps(header)})
    whole = path.read_bytes()
    top = 8 + int.from_bytes(whole[:8], "little")
    rng, loaded = random.Random(f"{kind} {digest}"), 0
    for trial in range(120):
        data = bytearray(whole)
        at = rng.randrange(top) if trial % 2 else rng.randrange(top, len(data))
        match rng.randrange(5):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.randrange(1, 40)]
            case 3:
                data[at:at] = data[at : at + rng.randrange(1, 40)]
            case _:
                data[at : at + rng.randrange(1, 40)] = bytes(min(len(data) - at, 8))
        path.write_bytes(bytes(data))
        try:
            read = ig.load(path)
        except (ig.errors.IntegrandError, OSError):
            continue
        loaded += 1
        looked_at(read)
        if digest:
            for name in (*TENSORS, *ARRANGED):
                same(getattr(read, name), getattr(made, name))
    assert loaded < 100 if digest else loaded > 0


@pytest.mark.parametrize("problem", ["relu mlp", "softplus cnn"])
def test_every_published_method_is_read_back(problem: str, tmp_path: Path) -> None:
    """What is refused in damaged files is nothing that some method makes."""
    given, read_back = PROBLEMS[problem], 0
    for name in (name for name in BUILD if fits(name, given)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
            try:
                made = ig.explain(
                    given.model, given.inputs, target=given.target, method=BUILD[name](given)
                )
            except ig.errors.IntegrandError:  # a wrapper that is not for such a model
                continue
        made.save(tmp_path / name)
        read = ig.load(tmp_path / name)
        looked_at(read)
        same(read.values, made.values)
        read_back += 1
    assert read_back >= 20
