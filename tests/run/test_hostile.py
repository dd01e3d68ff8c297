"""Inputs that are wrong in the ways inputs are: said with the reason, or explained rightly, and nothing else suffers."""

from __future__ import annotations

import csv
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import integrand as ig
from integrand.errors import InputError
from integrand.run import Local, Recipe
from integrand.run.local import _Assignment
from tests.run.here import Here

Build = Callable[..., Recipe]
PICTURES = """
import torch
from integrand.core.normalisation import Normalisation
from integrand.images import ImageModel
def load():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    return ImageModel("toy", module, size=8, crop=1.0)
"""


def header_only(width: int, height: int) -> bytes:
    """A PNG whose head promises pixels that nobody should make room for."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of all kinds, and beside them plain ones that show the same."""
    folder, plain = tmp_path / "pictures", tmp_path / "plain"
    folder.mkdir()
    plain.mkdir()
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (12, 8, 3), "uint8")

    def both(name: str, shown: np.ndarray) -> Path:
        Image.fromarray(shown).save(plain / f"{Path(name).stem}.png")
        return folder / name

    Image.fromarray(colours).save(both("rgb.png", colours))
    cmyk = Image.fromarray(rng.integers(0, 256, (8, 8, 4), "uint8"), "CMYK")
    ink = np.asarray(cmyk).astype(int)
    cmyk.save(both("cmyk.tif", np.asarray(cmyk.convert("RGB"))))
    assert np.abs(np.asarray(cmyk.convert("RGB")) - (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255).max() <= 1  # fmt: skip
    deep = rng.integers(0, 65536, (8, 8)).astype("uint16")
    deep[0, 0] = 65535
    grey = np.repeat((deep / 257).round().astype("uint8")[..., None], 3, 2)
    Image.fromarray(deep).save(both("deep.png", grey))
    frames = [np.full((8, 8, 3), value, "uint8") for value in (40, 200)]
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(both("animated.gif", frames[0]), save_all=True, append_images=images[1:])
    turned = Image.Exif()
    turned[0x0112] = 6  # shown a quarter turn clockwise
    Image.fromarray(colours).save(both("turned.png", np.rot90(colours, -1)), exif=turned)
    Image.fromarray(colours[:1, :1]).save(both("dot.png", colours[:1, :1]))
    Image.fromarray(colours).save(both("=cmd|'calc'!A0.png", colours))
    Image.fromarray(colours).save(both("\x1b[31mred<script>.png", colours))

    (folder / "empty.png").write_bytes(b"")
    (folder / "words.png").write_text("no picture at all")
    whole = (folder / "rgb.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "bomb.png").write_bytes(header_only(20_000, 20_000))
    (folder / "liar.png").write_bytes(header_only(9_000, 9_000))  # within the limit, and no pixels
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(whole)
    (tmp_path / "my.py").write_text(PICTURES)
    return folder


def test_pictures_of_all_kinds(pictures: Path, tmp_path: Path) -> None:
    def explained(name: str, **data: object) -> ig.run.RunResults:
        document = {
            "model": {"import": "my.py:load"},
            "data": {"kind": "images", "path": name, **data},
            "method": {"method": "integrated(baseline=0.0, rule=GaussLegendre(2))", "target": 1, "batch": 4},
            "store": {"rows_per_shard": 64},
        }  # fmt: skip
        return ig.run.run(document, tmp_path / f"out-{name}", base=tmp_path, engine=Here())

    results, plain = explained("pictures"), explained("plain")
    rows = {row["id"]: row for row in results.table.to_pylist()}
    assert {row["status"] for row in plain.table.to_pylist()} == {"ok"}
    expected = {Path(row["id"]).stem: row for row in plain.table.to_pylist()}
    failed = {name: row["reason"] for name, row in rows.items() if row["status"] != "ok"}
    assert set(failed) == {"empty.png", "words.png", "cut.png", "bomb.png", "liar.png"}
    assert "the file is empty" in failed["empty.png"]
    assert "no picture format" in failed["words.png"]
    assert "400000000 pixels" in failed["bomb.png"]
    surrogate = [name for name in rows if name.endswith("udcff.png")]
    assert len(surrogate) == 1
    assert rows[surrogate[0]]["output"] == pytest.approx(rows["rgb.png"]["output"], rel=1e-4)
    for name, row in rows.items():
        if row["status"] == "ok" and name not in surrogate:
            reference = expected[Path(name).stem]
            assert row["output"] == pytest.approx(reference["output"], rel=1e-4, abs=1e-5), name
            assert row["change"] == pytest.approx(reference["change"], rel=1e-4, abs=1e-5), name
    assert len(rows) == 14
    assert explained("plain").complete
    assert Image.MAX_IMAGE_PIXELS == 89_478_485  # Pillow's own limit is as it was

    # A spreadsheet computes nothing, and no cell holds what steers a terminal.
    results.to_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as opened:
        ids = [row["id"] for row in csv.DictReader(opened)]
    assert "'=cmd|'calc'!A0.png" in ids
    assert " [31mred<script>.png" in ids
    assert not any(name.startswith(("=", "+", "-", "@")) for name in ids)


def test_pictures_in_tables_are_those_of_a_folder(pictures: Path, tmp_path: Path) -> None:
    """As bytes in Parquet, and as ``datasets.Image`` keeps them; a path in a cell is not followed."""
    names = ["rgb.png", "cut.png", "turned.png", "empty.png", "bomb.png", "deep.png"]
    files: list[bytes | None] = [(pictures / name).read_bytes() for name in names]
    cells = [*files, None]
    kept = [{"bytes": file, "path": None} for file in files]
    kept.append({"bytes": None, "path": str(pictures / "rgb.png")})
    struct_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {"who": [*names, "none"], "label": list(range(7))}
    pa.parquet.write_table(pa.table({**columns, "image": cells}), tmp_path / "pictures.parquet")
    saved_to_disk(tmp_path / "hf", pa.table({**columns, "image": pa.array(kept, struct_type)}))

    def explained(data: dict[str, object]) -> ig.run.RunResults:
        document = {
            "model": {"import": "my.py:load"},
            "data": data,
            "method": {"method": "integrated(baseline=0.0, rule=GaussLegendre(2))", "target": 1, "batch": 1},
            "store": {"rows_per_shard": 4},
        }  # fmt: skip
        return ig.run.run(document, tmp_path / f"out-{data['kind']}", base=tmp_path, engine=Here())

    folder = explained({"kind": "images", "path": "pictures"})
    places = {name: n for n, name in enumerate(folder.table["id"].to_pylist())}
    expected = folder.values[:][[places[name] for name in names]]
    parquet = explained({"kind": "parquet", "path": "pictures.parquet", "id": "who"})
    assert parquet.table["id"].to_pylist() == [*names, "none"]
    np.testing.assert_array_equal(parquet.values[:][:6], expected)
    reasons = parquet.table["reason"].to_pylist()
    assert [reason is None for reason in reasons] == [True, False, True, False, False, True, False]
    assert "the file is empty" in reasons[3]
    assert "400000000 pixels" in reasons[4]
    assert "the cell is empty" in reasons[6]
    hugging_face = explained({"kind": "huggingface", "path": "hf", "columns": ["image"]})
    assert hugging_face.table["id"].to_pylist() == list("0123456")
    np.testing.assert_array_equal(hugging_face.values[:][:6], expected)
    assert "its path alone" in hugging_face.table["reason"][6].as_py()
    for change in ({"columns": ["who"]}, {"columns": ["image", "who"]}):
        with pytest.raises(InputError, match=r"reads one column of their bytes: .* are: 'image'"):
            explained({"kind": "parquet", "path": "pictures.parquet", **change})


def test_the_limit_of_pixels_is_the_recipes(pictures: Path) -> None:
    from integrand.images.files import read

    with pytest.raises(ig.errors.ImageError, match="12 pixels, and no more than 95 are read"):
        read(pictures / "rgb.png", max_pixels=95)
    assert read(pictures / "rgb.png", max_pixels=96).size == (8, 12)


# --- texts and tables -------------------------------------------------------------------------------------------------

TEXTS = """
import torch
from integrand.run import EncodedText
def letters(texts):
    if any("!" in text for text in texts): raise ValueError("no shouting")
    return torch.tensor([[float(text.count(c)) for c in "abc"] for text in texts])
def load():
    linear = torch.nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1., 2., 3.], [0., -1., 0.5]])); linear.bias.zero_()
    return EncodedText(linear, letters, (3,))
"""


def texts_of(tmp_path: Path, data: dict[str, object]) -> ig.run.RunResults:
    (tmp_path / "texts.py").write_text(TEXTS)
    document = {
        "model": {"import": "texts.py:load"},
        "data": data,
        "method": {"method": "integrated(baseline=0.0)", "target": 0, "batch": 4},
        "store": {"rows_per_shard": 4},
    }
    out = tmp_path / f"out-{data['kind']}"
    return ig.run.run(document, out, base=tmp_path, engine=Here())


def test_lines_of_texts(tmp_path: Path) -> None:
    lines = [b"abca", b"", b"  b\x00b\r", b"\xff\xfe", b"c" * 10_000_000, b"stop!", "aé".encode()]
    (tmp_path / "texts.txt").write_bytes(b"\n".join(lines))
    results = texts_of(tmp_path, {"kind": "text", "path": "texts.txt"})
    rows = results.table.to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "failed", "failed", "failed", "ok"]
    assert "not in UTF-8" in rows[3]["reason"]
    assert "10000000 characters, more than data.max_characters = 1000000" in rows[4]["reason"]
    assert rows[5]["reason"] == "ValueError: no shouting"
    # A linear model: each letter counts as often as it is there, times its weight.
    expected = [[2, 2, 3], [0, 0, 0], [0, 4, 0], [1, 0, 0]]
    np.testing.assert_allclose(results.values[:][[0, 1, 2, 6]], expected, atol=1e-6)
    assert np.isnan(results.values[3:6]).all()


def saved_to_disk(folder: Path, table: pa.Table) -> None:
    """What ``datasets.Dataset.save_to_disk`` writes: Arrow streams and two files that list them."""
    folder.mkdir()
    names = []
    for number, part in enumerate((table.slice(0, 2), table.slice(2))):
        names.append(f"data-{number:05d}-of-00002.arrow")
        with pa.OSFile(str(folder / names[-1]), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:  # fmt: skip
            stream.write_table(part)
    state = {"_data_files": [{"filename": name} for name in names], "_indices_files": None, "_split": None}  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def test_directories_of_hugging_face(recipe: Build, tmp_path: Path) -> None:
    words = ["abc", None, "cc", "b"]
    lists = np.arange(24, dtype="float32").reshape(4, 6)
    table = pa.table(
        {"text": words, "who": ["a", "b", "c", "d"], "x": list(lists), "n": [1, 2, 3, 4]}
    )
    saved_to_disk(tmp_path / "hf", table)
    results = texts_of(
        tmp_path, {"kind": "huggingface", "path": "hf", "columns": ["text"], "id": "who"}
    )
    assert results.table["id"].to_pylist() == ["a", "b", "c", "d"]
    assert results.table["status"].to_pylist() == ["ok", "failed", "ok", "ok"]
    assert "the cell is empty" in results.table["reason"][1].as_py()
    np.testing.assert_allclose(results.values[:][[0, 2, 3]], [[1, 2, 3], [0, 0, 6], [0, 2, 0]], atol=1e-6)  # fmt: skip

    source = ig.run.shard.PreparedRecipe.of(
        recipe(data={"kind": "huggingface", "path": "hf", "columns": ("x",)}), tmp_path
    ).source
    np.testing.assert_array_equal(source.read([1, 3]).x, lists[[1, 3]])
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for change, sentence in (
        ({"path": "both"}, "the splits 'train', 'test'"),
        ({"columns": ("n", "text")}, "'text' holds string"),
        ({"columns": ("z",)}, "no column 'z'"),
    ):
        data = {"kind": "huggingface", "path": "hf", **change}
        with pytest.raises(InputError, match=sentence):
            ig.run.run(recipe(data=data), tmp_path / "none", base=tmp_path)
    state = tmp_path / "hf" / "state.json"
    state.write_text(state.read_text().replace("data-00000-of-00002.arrow", "../hf/data.arrow"))
    with pytest.raises(InputError, match="outside itself"):
        ig.run.run(
            recipe(data={"kind": "huggingface", "path": "hf"}), tmp_path / "no", base=tmp_path
        )
    assert not (tmp_path / "none").exists()


TABLES = """
import numpy as np, pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
def load():
    frame = pd.DataFrame({"colour": ["red", "blue"] * 10, "size": np.arange(20.0)})
    y = 3 * (frame["colour"] == "red") + 0.5 * frame["size"]
    columns = ColumnTransformer([("words", OneHotEncoder(), ["colour"])], remainder="passthrough")
    return make_pipeline(columns, LinearRegression()).fit(frame, y)
"""


def test_tables_with_words(tmp_path: Path) -> None:
    """F = 3 [red] + size/2 + c: a map is each column's part of the way from a blue row of size 4."""
    pytest.importorskip("sklearn")
    (tmp_path / "tables.py").write_text(TABLES)
    (tmp_path / "t.csv").write_text(
        "who,colour,size\nann,red,10\nbob,blue,6\neve,red,\nzoe,green,1\n"
    )
    document = {
        "model": {"import": "tables.py:load"},
        "data": {"kind": "csv", "path": "t.csv", "door": "tables", "id": "who"},
        "method": {"method": "integrated(baseline=references)", "references": "start.npy"},
        "store": {"rows_per_shard": 3},
    }
    np.save(tmp_path / "start.npy", np.array([[0.0, 0.0]]))
    document["method"] = {"method": "integrated"}
    results = ig.run.run(document, tmp_path / "out", base=tmp_path, engine=Here())
    rows = {row["id"]: row for row in results.table.to_pylist()}
    assert results.values.shape == (4, 2)
    assert rows["ann"]["status"] == rows["bob"]["status"] == "ok"
    assert rows["eve"]["status"] == "failed"  # no number there
    np.testing.assert_allclose(results.values[:2].sum(1), [rows[n]["change"] for n in ("ann", "bob")], atol=1e-6)  # fmt: skip
    difference = results.values[0] - results.values[1]
    np.testing.assert_allclose(difference, [3.0, 0.5 * 4], atol=1e-6)


def test_the_largest_numbers_of_each_map(recipe: Build, tmp_path: Path) -> None:
    whole = ig.run.run(recipe(), tmp_path / "whole", base=tmp_path, engine=Here())
    store = {"top_k": 2}
    largest = ig.run.run(recipe(store=store), tmp_path / "largest", base=tmp_path, engine=Here())
    maps = whole.values[:]
    order = np.argsort(-np.abs(maps), axis=1, kind="stable")[:, :2]
    np.testing.assert_array_equal(largest.indices[:], order)
    np.testing.assert_array_equal(largest.values[:], np.take_along_axis(maps, order, 1))
    assert largest.verify() == []
    with pytest.raises(InputError, match="more than the 6 numbers"):
        ig.run.run(recipe(store={"top_k": 7}), tmp_path / "none", base=tmp_path)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_rows_that_need_more_memory_are_noted(
    recipe: Build, inputs: np.ndarray, tmp_path: Path
) -> None:
    """Model calls that do not fit are made smaller; what that changed is in the table, and only there."""
    class_one = {"target": 1}
    plain = ig.run.run(recipe(method=class_one), tmp_path / "plain", base=tmp_path, engine=Here())
    inputs[5, 0], inputs[30, 0] = 50.0, 60.0
    np.save(tmp_path / "inputs.npy", inputs)
    results = ig.run.run(
        recipe("greedy", method=class_one), tmp_path / "out", base=tmp_path, engine=Here()
    )
    rows = results.table.to_pylist()
    assert [row["row"] for row in rows if row["status"] != "ok"] == [30]
    assert "does not fit into memory" in rows[30]["reason"]
    noted = {row["row"]: row["note"] for row in rows if row["note"]}
    assert set(noted) >= set(range(8))
    assert not set(noted) & {n for n in range(50) if n // 8 not in (0, 3)}
    assert "Memory ran out in a model call of" in noted[5]
    kept = [n for n in range(50) if n not in (5, 30)]
    np.testing.assert_allclose(results.values[:][kept], plain.values[:][kept], rtol=1e-4, atol=1e-6)
    same = [n for n in kept if n // 8 not in (0, 3)]
    np.testing.assert_array_equal(results.values[:][same], plain.values[:][same])


def test_kills_from_outside_are_nobodys_fault_at_first() -> None:
    """Twice a shard, twice its batch, twice the row: only then is the row left out."""
    task, seen = _Assignment(3), []
    for at in (None, None, ("batch", 8), ("batch", 8), ("row", 9), ("row", 9)):
        seen.append(task.doubts)
        task.was_lost(at, "ended the process (signal 9)", from_outside=True)
    assert [doubt.announced for doubt in seen] == [False, False, True, True, True, True]
    assert [sorted(doubt.alone) for doubt in seen] == [[], [], [], [], [8], [8]]
    assert not any(doubt.skip for doubt in seen)
    assert task.doubts.skip == {9: "Explaining this row ended the process (signal 9)."}
    # A process that ends itself is its row's fault at once.
    task = _Assignment(3)
    for at in (None, ("batch", 8), ("row", 9)):
        task.was_lost(at, "ended the process (9)", from_outside=False)
    assert set(task.doubts.skip) == {9}


# --- arguments --------------------------------------------------------------------------------------------------------


def test_rows_as_an_array_and_data_by_their_path(
    recipe: Build, inputs: np.ndarray, tmp_path: Path
) -> None:
    expected = ig.run.run(recipe(), tmp_path / "plain", base=tmp_path, engine=Here()).values[:]
    document = recipe().document()
    del document["data"]
    for data in (inputs, torch.from_numpy(inputs), tmp_path / "inputs.npy"):
        out = tmp_path / f"out-{type(data).__name__}"
        results = ig.run.run(document, data, out, engine=Here())
        np.testing.assert_array_equal(results.values[:], expected)
    out = tmp_path / "out-ndarray"
    with pytest.raises(InputError, match="may grow, not shrink"):
        ig.run.run(document, inputs[:10], out, engine=Here())
    other = {**document, "method": {**document["method"], "seed": 9}}
    with pytest.raises(InputError, match=r"differs in method.seed"):
        ig.run.run(other, inputs * 2, out, engine=Here())
    seen = []
    ig.run.run(document, inputs, out, engine=Here(), watch=lambda s, _: seen.append(s))
    assert [status.done for status in seen] == [4]
    with pytest.raises(InputError, match="Where do results go"):
        ig.run.run(document, inputs)
    pyarrow.parquet.write_table(pa.table({"a": [1.0]}), tmp_path / "t.odd")
    with pytest.raises(InputError, match="What kind of data"):
        ig.run.run(document, tmp_path / "t.odd", tmp_path / "none")
    assert isinstance(ig.run.engine_named("local", 1), Local)
