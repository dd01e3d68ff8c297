"""Damaged files of every kind that is read, and what reads them: an error of ours or a result, never anything else.

    python -m tests.run.fuzzing 100000        counts cases by kind and by outcome

A case is a seed: a file that is right is cut, flipped, repeated or replaced in places that the seed draws.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from PIL import Image

import integrand as ig
from integrand.errors import IntegrandError
from integrand.images.files import read as read_picture
from integrand.run import Recipe, ShardStore
from integrand.run.data import source_of
from integrand.run.recipe import DataSection
from integrand.run.store import Array, ManifestEntry

RECIPE = """
[model]
import = "my.py:load"
[data]
kind = "csv"
path = "rows.csv"
columns = ["a", "b"]
[method]
method = "integrated(baseline=0.0, rule=GaussLegendre(8))"
target = "predicted"
seed = 0
[store]
rows_per_shard = 4
dtype = "float16"
"""
_WORDS = [b"\0", b"\xff", b"nan", b"=", b"-1", b"1e999", b"../../x", b"\n", b"{", b"]" * 50, b"\x1b[2J", b"9" * 40]  # fmt: skip


def damaged(content: bytes, seed: int) -> bytes:
    """A file in which a few places are not what they were."""
    chance = random.Random(seed)
    out = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(6):
            case 0:
                del out[at:]
            case 1:
                del out[at : at + chance.randrange(1, 40)]
            case 2 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 3:
                out[at : at + 8] = chance.randbytes(chance.randrange(12))
            case 4:
                out[at:at] = chance.choice(_WORDS)
            case _:
                out[at:at] = out[at // 2 : at // 2 + chance.randrange(1, 30)]
    return bytes(out)


class Target:
    """A kind of file: one that is right, its name, and what reads it."""

    def __init__(self, name: str, content: bytes, reads: Callable[[Path], object]) -> None:
        self.name, self.content, self.reads = name, content, reads

    def case(self, folder: Path, seed: int) -> str:
        """What comes of one case: "read", or the name of the error of ours that said why not.

        Raises:
            Exception: any other, which is a bug.
        """
        file = folder / self.name
        file.write_bytes(damaged(self.content, seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.reads(file)
            except IntegrandError as error:
                return type(error).__name__
        return "read"


def _rows(kind: str, **more: object) -> Callable[[Path], None]:
    """Reading data as a run does."""

    def reads(file: Path) -> None:
        section = DataSection.model_validate({"kind": kind, "path": file.name, **more})
        source = source_of(section, file.parent, None)
        numbers = list(range(min(len(source), 6)))
        source.read_or_said(numbers)
        source.digest_or_said(numbers)
        source.ids(numbers)

    return reads


def targets(folder: Path) -> list[Target]:
    """Every kind of file, made in a folder."""
    rows = np.random.default_rng(0).normal(size=(6, 2))
    table = pa.table({"who": list("abcdef"), "a": rows[:, 0], "b": rows[:, 1]})
    npy, csv, parquet, picture = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    arrow = pa.BufferOutputStream()
    np.save(npy, rows)
    pyarrow.csv.write_csv(table, csv)
    pyarrow.parquet.write_table(table, parquet)
    with pa.ipc.new_stream(arrow, table.schema) as stream:
        stream.write_table(table)
    Image.fromarray((rows * 50).astype("uint8")).resize((9, 7)).save(picture, "PNG")
    jpeg = io.BytesIO()
    Image.fromarray(np.zeros((9, 9, 3), "uint8")).save(jpeg, "JPEG")
    hugging_face = folder / "hf"
    hugging_face.mkdir()
    (hugging_face / "state.json").write_text(json.dumps({"_data_files": [{"filename": "d.arrow"}], "_indices_files": None}))  # fmt: skip
    state = (hugging_face / "state.json").read_bytes()
    (hugging_face / "d.arrow").write_bytes(arrow.getvalue().to_pybytes())
    entry = _store(folder / "out")
    attribution = ig.explain(torch.nn.Linear(3, 2), torch.ones(2, 3), target=0, method="integrated")
    attribution.save(folder / "map.safetensors")
    out = folder / "out"

    def opened(file: Path) -> None:
        results = ig.run.open(out)
        _ = results.complete, results.verify()
        with contextlib.suppress(IntegrandError):
            _ = results.table
        results.maps([0, 3])

    def line(file: Path) -> None:
        entry = ManifestEntry.parsed(file.read_bytes().decode("utf-8", "replace"))
        assert entry is None or all(".." not in name for name in entry.files)

    def table_of(file: Path) -> None:
        _ = ig.run.open(out).table

    def in_out(name: str, reads: Callable[[Path], object]) -> Target:
        return Target(f"out/{name}", (out / name).read_bytes(), reads)

    manifest = next((out / "manifest").iterdir()).name
    return [
        Target("run.toml", RECIPE.encode(), Recipe.read),
        Target("rows.npy", npy.getvalue(), _rows("npy")),
        Target("rows.csv", csv.getvalue(), _rows("csv", id="who")),
        Target("rows.parquet", parquet.getvalue(), _rows("parquet", columns=["b", "a"])),
        Target("hf/d.arrow", arrow.getvalue().to_pybytes(), lambda file: _rows("huggingface")(file.parent)),
        Target("hf/state.json", state, lambda file: _rows("huggingface")(file.parent)),
        Target("picture.png", picture.getvalue(), read_picture),
        Target("picture.jpg", jpeg.getvalue(), read_picture),
        Target("map.safetensors", (folder / "map.safetensors").read_bytes(), ig.load),
        Target("line", entry.line().encode(), line),
        in_out("run.json", opened),
        in_out(f"manifest/{manifest}", opened),
        in_out("values/zarr.json", opened),
        in_out("values/c/0/0", opened),
        in_out("rows/00000000.parquet", table_of),
    ]  # fmt: skip


def _store(out: Path) -> ManifestEntry:
    """A folder of results with one shard of four rows, and its line."""
    store = ShardStore.create(out, Recipe.parsed(RECIPE), 4)
    array = Array("values", (3,), "float16", float("nan"))
    with store.driving() as manifest:
        store.lay_out([array])
        table = pa.table({"id": list("abcd"), "status": ["ok"] * 4})
        files = store.write(0, {array: np.ones((4, 3), "float16")}, table)
        entry = ManifestEntry(0, store.fingerprint, "a" * 32, files, 4, 0, 0, 32, 0.5, "v")
        manifest.append(entry)
    return entry


def names_in(folder: Path) -> set[str]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def main(cases: int) -> None:
    """Run so many cases, and say what came of them."""
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        kinds = targets(folder)
        for kind in kinds:
            outcomes: Counter[str] = Counter()
            for seed in range(cases // len(kinds)):
                try:
                    outcomes[kind.case(folder, seed)] += 1
                except Exception as error:
                    outcomes[f"BUG seed {seed}: {type(error).__name__}: {error}"[:160]] += 1
            (folder / kind.name).write_bytes(kind.content)
            print(f"{kind.name:28} {sum(outcomes.values()):7} {dict(outcomes.most_common(6))}", flush=True)  # fmt: skip
        print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
