"""The folder of a run: lines, arrays, growth, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import integrand as ig
from integrand.core.files import digest
from integrand.errors import InputError, IntegrandError
from integrand.run import Local, ManifestEntry, Recipe, ShardStore
from integrand.run.store import Array

Build = Callable[..., Recipe]
ENTRY = ManifestEntry(
    3, "f" * 32, "a" * 32, {"rows/00000003.parquet": "b" * 32}, 16, 1, 2, 300, 1.5, "v"
)


def test_a_line_says_what_it_said_or_nothing() -> None:
    line = ENTRY.line()
    assert ManifestEntry.parsed(line) == ENTRY
    assert line.endswith("\n")
    for cut in range(len(line) - 1):
        assert ManifestEntry.parsed(line[:cut]) is None


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(vars(ENTRY))),
        st.none() | st.integers() | st.text(max_size=5) | st.dictionaries(st.text(max_size=9), st.text(max_size=3), max_size=2),
    ),
    st.text(max_size=20),
)  # fmt: skip
def test_lines_of_others_are_no_entries(changed: dict[str, object], noise: str) -> None:
    """Also those whose hash is right: nothing is read from elsewhere, and no type is another."""
    text = json.dumps({**vars(ENTRY), **changed})
    entry = ManifestEntry.parsed(f"{digest(text.encode())} {text}")
    if entry is not None:
        assert type(entry.shard) is int
        assert all(".." not in name for name in entry.files)
    assert ManifestEntry.parsed(noise) is None


def test_arrays_are_zarr_and_hold_what_was_written(recipe: Build, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    store = ShardStore.create(tmp_path / "out", recipe(), 50)
    assert (store.shards, list(store.rows_of(3))) == (4, [48, 49])
    array = Array("values", (2, 3), "float32", float("nan"))
    store.lay_out([array])
    content = np.arange(12, dtype="float32").reshape(2, 2, 3)
    files = store.write(3, {array: content}, pa.table({"row": [48, 49]}))
    assert sorted(files) == ["rows/00000003.parquet", "values/c/3/0/0"]
    opened = zarr.open_array(tmp_path / "out" / "values", mode="r")
    assert opened.shape == (50, 2, 3)
    np.testing.assert_array_equal(opened[48:50], content)
    assert np.isnan(opened[:48]).all()
    assert store.write(3, {array: content}, pa.table({"row": [48, 49]})) == files  # the same bytes
    assert sorted(store.write(3, {array: np.full_like(content, np.nan)}, pa.table({"row": [48, 49]}))) == ["rows/00000003.parquet"]  # fmt: skip
    assert np.isnan(np.asarray(opened)).all()


def test_another_recipe_and_other_folders_are_refused(recipe: Build, tmp_path: Path) -> None:
    ShardStore.create(tmp_path / "out", recipe(), 50)
    with pytest.raises(InputError, match=r"another recipe \(it differs in method.seed\)"):
        ShardStore.create(tmp_path / "out", recipe(method={"seed": 5}), 50)
    with pytest.raises(InputError, match="may grow, not shrink"):
        ShardStore.create(tmp_path / "out", recipe(), 49)
    assert ShardStore.create(tmp_path / "out", recipe(), 51).rows == 51
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="no run, and not empty"):
        ShardStore.create(tmp_path / "other", recipe(), 50)
    with pytest.raises(InputError, match="holds no run"):
        ig.run.open(tmp_path / "other")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99, "rows": 1, "recipe": {}}', '{"format": 1}'])  # fmt: skip
def test_damaged_heads_are_errors_of_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(IntegrandError):
        ig.run.open(tmp_path)


def test_data_may_grow(recipe: Build, inputs: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ig.run.run(recipe(), out, base=tmp_path, engine=Local(1))
    grown = np.concatenate([inputs, inputs[:20]])
    np.save(tmp_path / "inputs.npy", grown)
    seen = []
    results = ig.run.run(
        recipe(), out, base=tmp_path, engine=Local(1), watch=lambda s, _: seen.append(s)
    )
    assert (seen[0].done, seen[-1].done) == (3, 5)  # the last shard was not full
    assert results.complete
    assert results.table.num_rows == 70
    assert results.values.shape == (70, 6)
    np.testing.assert_allclose(results.values[50:70], results.values[:20], rtol=1e-5, atol=1e-6)


def test_how_far_a_run_of_many_shards_is(recipe: Build, tmp_path: Path) -> None:
    """A hundred thousand lines are read in about a second, in time that grows as their number; one that is none costs little."""
    seconds = {}
    for count in (5_000, 50_000):
        store = ShardStore.create(tmp_path / str(count), recipe(), 16 * count)
        whole = replace(ENTRY, shard=0, fingerprint=store.fingerprint).line().partition(" ")[2]
        before, after = whole.split('"shard":0')
        texts = [f'{before}"shard":{shard}{after}'.rstrip() for shard in range(count)]
        texts[7] = texts[7].replace(
            '"rows":16', '"rows":-16'
        )  # not of its type, with a hash that is right
        lines = [f"{digest(text.encode())} {text}" for text in texts]
        lines[9] = lines[9][:-1]
        store.storage.write("manifest/00000001-a.jsonl", "\n".join(lines).encode())
        began = time.process_time()
        status = store.status()
        seconds[count] = time.process_time() - began
        assert (status.done, status.shards) == (count - 2, count)
        assert (status.failed, status.gradients) == (count - 2, 300 * (count - 2))
    assert seconds[50_000] < 25 * seconds[5_000]
    assert seconds[50_000] < 5


@pytest.mark.parametrize(
    ("shape", "dtype", "size", "rows"),
    [((3, 224, 224), "float32", 64, 1), ((30,), "float32", 1024, 1024), ((1000,), "float64", 100, 25),
     ((), "float32", 7, 7), ((8, 8192), "float32", 7, 1)],
)  # fmt: skip
def test_small_rows_share_a_chunk(
    recipe: Build, tmp_path: Path, shape: tuple[int, ...], dtype: str, size: int, rows: int
) -> None:
    """Chunks hold whole rows, a divisor of a shard's, and at most a quarter of a MiB unless one row is larger."""
    zarr = pytest.importorskip("zarr")
    store = ShardStore.create(tmp_path / "out", recipe(store={"rows_per_shard": size}), 3 * size)
    store.lay_out([Array("values", shape, dtype, 0.0)])
    array = zarr.open_array(tmp_path / "out" / "values")
    assert array.chunks == (rows, *shape)
    assert array.shards == (size, *shape)
