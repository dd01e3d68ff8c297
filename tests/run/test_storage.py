"""Results lie on disks that lose power and in object stores that fail: what a line says is there."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import integrand as ig
from integrand.errors import InputError
from integrand.run import Local, Recipe, ShardStore, Status, storage
from integrand.run.storage import Disk, ObjectStore, storage_of
from tests.run.faults import contents
from tests.run.here import Here

Build = Callable[..., Recipe]


@pytest.fixture
def undisturbed(recipe: Build, tmp_path: Path) -> dict[str, bytes]:
    out = tmp_path / "undisturbed"
    assert ig.run.run(recipe(), out, base=tmp_path, engine=Here()).complete
    return contents(out)


# --- power ------------------------------------------------------------------------------------------------------------


class PowerRecorder:
    """What would be on the disk after a power loss: of each file what was there at its last fsync,
    of each folder the names at its last."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.files, self.folders = root, {}, {}
        self.moments: list[tuple[dict[int, bytes], dict[int, dict[str, int]]]] = []
        plain = os.fsync

        def fsync(handle: int) -> None:
            plain(handle)
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            number = os.fstat(handle).st_ino
            if path.is_dir():
                names = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
                self.folders[number] = names
            else:
                self.files[number] = path.read_bytes()
            self.moments.append((dict(self.files), dict(self.folders)))

        monkeypatch.setattr(os, "fsync", fsync)

    def rebuild(self, moment: int, out: Path, inode: int) -> None:
        """The folder as it would be found, had the power gone right after a moment."""
        files, folders = self.moments[moment]
        self._fill(out, inode, files, folders)

    def _fill(self, place: Path, inode: int, files: Any, folders: Any) -> None:
        place.mkdir()
        for name, number in folders.get(inode, {}).items():
            if number in folders or number not in files:
                # A folder; one whose names were never synced, and a file that was not, are empty.
                if number in folders or "." not in name:
                    self._fill(place / name, number, files, folders)
                else:
                    (place / name).write_bytes(b"")
            else:
                (place / name).write_bytes(files[number])


def test_a_power_loss_at_any_moment(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lines say is done is on the disk at every moment, and the run goes on from each."""
    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patch:
        recorder = PowerRecorder(out, patch)
        ig.run.run(recipe(), out, base=tmp_path, engine=Here())
    inode = out.stat().st_ino
    done_at = []
    moments = len(recorder.moments)
    assert moments > 4 * 5
    for moment in range(moments):
        after_loss = tmp_path / f"found-{moment}"
        recorder.rebuild(moment, after_loss, inode)
        if not (after_loss / "run.json").exists():
            done_at.append(0)
            continue
        store = ShardStore.open(after_loss)
        entries = store.entries()
        assert all(store.holds(entry) for entry in entries.values()), moment
        done_at.append(len(entries))
    assert sorted(done_at) == done_at
    assert (done_at[0], done_at[-1]) == (0, 4)
    for moment in (done_at.index(1), done_at.index(3), moments - 2):
        after_loss = tmp_path / f"found-{moment}"
        seen: list[Status] = []
        results = ig.run.run(
            recipe(), after_loss, base=tmp_path, engine=Here(), watch=lambda s, _, seen=seen: seen.append(s)
        )  # fmt: skip
        assert seen[0].done == done_at[moment]
        assert results.complete
        assert contents(after_loss) == undisturbed


def test_clocks_that_go_wrong_change_nothing(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, jumps = time.time(), random.Random(0)
    monkeypatch.setattr(time, "time", lambda: now + jumps.uniform(-1e8, 1e8))
    out = tmp_path / "out"
    assert ig.run.run(recipe(), out, base=tmp_path, engine=Here()).complete
    assert contents(out) == undisturbed
    (manifest,) = (out / "manifest").glob("*.jsonl")
    os.utime(manifest, (0, 0))
    seen: list[Status] = []
    ig.run.run(recipe(), out, base=tmp_path, engine=Here(), watch=lambda s, _: seen.append(s))
    assert [status.done for status in seen] == [4]


def test_lines_of_later_drivers_win(recipe: Build, inputs: np.ndarray, tmp_path: Path) -> None:
    """Changed inputs are computed again once, and not with every run from then on."""
    out = tmp_path / "out"
    for change in range(4):
        inputs[0] += 1
        np.save(tmp_path / "inputs.npy", inputs)
        for done in (3 if change else 0, 4):
            seen: list[Status] = []
            ig.run.run(
                recipe(), out, base=tmp_path, engine=Here(), watch=lambda s, _, seen=seen: seen.append(s)
            )  # fmt: skip
            assert seen[0].done == done


def test_a_disk_that_cannot_be_written_to(recipe: Build, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert ig.run.run(recipe(), out, base=tmp_path, engine=Here()).complete
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {small} 2>/dev/null"):
        pytest.skip("mounting needs the right to")
    try:
        shutil.copytree(out, small / "out")
        (small / "out" / "rows" / "00000002.parquet").unlink()
        assert not os.system(f"mount -o remount,ro {small}")
        with pytest.raises(OSError, match="Read-only"):
            ig.run.run(recipe(), small / "out", base=tmp_path, engine=Here())
        opened = ig.run.open(small / "out")  # reading needs no right to write
        assert opened.complete
        assert opened.verify() == [2]
        assert opened.values.shape == (50, 6)
    finally:
        assert not os.system(f"umount {small}")


# --- links ------------------------------------------------------------------------------------------------------------


def test_links_in_a_folder_of_results_lead_nowhere(recipe: Build, tmp_path: Path) -> None:
    out, victim, elsewhere = tmp_path / "out", tmp_path / "victim", tmp_path / "elsewhere"
    victim.write_text("mine")
    elsewhere.mkdir()
    store = ShardStore.create(out, recipe(), 50)
    (out / "rows").mkdir()
    (out / "rows" / "00000000.parquet").symlink_to(victim)
    (out / "scale").symlink_to(elsewhere)
    with pytest.raises(InputError, match="a link to another place"):
        store.storage.write("scale/c/0", b"")
    assert ig.run.run(recipe(), out, base=tmp_path, engine=Here()).complete
    assert victim.read_text() == "mine"
    assert not (out / "rows" / "00000000.parquet").is_symlink()
    (out / "driver.json").unlink()
    (out / "driver.json").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        ig.run.run(recipe(), out, base=tmp_path, engine=Here())
    assert victim.read_text() == "mine"
    assert not list(elsewhere.iterdir())


# --- object stores ----------------------------------------------------------------------------------------------------


def objects(url: str) -> dict[str, bytes]:
    """The objects of maps and rows, as ``contents`` has them of a folder."""
    system, root = fsspec.url_to_fs(url)
    system.invalidate_cache()
    return {
        name.rpartition(f"{root}/")[2]: system.cat_file(name)
        for part in ("values", "rows")
        for name in system.find(f"{root}/{part}")
    }


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    yield f"memory://{tmp_path.name}/out"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_a_store_that_fails_half_its_calls(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes], memory: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    chance, failures = random.Random(1), []

    def failing(name: str) -> Callable[..., Any]:
        plain = getattr(MemoryFileSystem, name)

        def call(self: Any, *args: Any, **options: Any) -> Any:
            if chance.random() < 0.5:
                failures.append(name)
                raise chance.choice([OSError, TimeoutError, RuntimeError])("the network is away")
            return plain(self, *args, **options)

        return call

    monkeypatch.setattr(storage, "_FIRST_WAIT", 1e-5)
    with monkeypatch.context() as patch:
        for name in ("cat_file", "pipe_file", "ls", "rm_file", "makedirs"):
            patch.setattr(MemoryFileSystem, name, failing(name))
        results = ig.run.run(recipe(), memory, base=tmp_path, engine=Here())
        assert results.complete
        assert results.verify() == []
        assert results.table["status"].to_pylist() == ["ok"] * 50
    assert len(failures) > 20
    assert {"cat_file", "pipe_file", "ls"} <= set(failures)
    assert objects(memory) == undisturbed
    np.testing.assert_array_equal(
        results.values[:], ig.run.open(tmp_path / "undisturbed").values[:]
    )


def test_a_store_that_is_away_is_an_error_and_no_endless_wait(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: object, *args: object, **options: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(storage, "_FIRST_WAIT", 1e-5)
    store = ObjectStore(memory)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_file", away)
        with pytest.raises(OSError, match="ConnectionError: no route"):
            store.read("run.json")
    with pytest.raises(FileNotFoundError):
        store.read("run.json")


def test_lines_in_an_object_store_are_few_objects(memory: str, tmp_path: Path) -> None:
    for place in (memory, str(tmp_path / "disk")):
        store = storage_of(place)
        journal = store.journal("manifest/00000001-a")
        lines = [f"line {n}\n" for n in range(600)]
        for n, line in enumerate(lines):
            journal.append(line)
            if n in (0, 255, 256, 599):  # each is there as soon as it is said to be
                read = b"".join(store.read(f"manifest/{name}") for name in store.names("manifest"))
                assert read.decode() == "".join(lines[: n + 1])
        journal.close()
        assert len(store.names("manifest")) == (1 if isinstance(store, Disk) else 3)


def test_drivers_of_an_object_store_know_one_another(memory: str) -> None:
    store = ObjectStore(memory)
    refused = pytest.raises(InputError, match=f"process {os.getpid()}")
    with store.alone("driver.json"), refused, store.alone("driver.json"):
        pass
    gone = {"host": os.uname().nodename, "pid": 2**22 + 1, "time": time.time()}
    store.write("driver.json", json.dumps(gone).encode())
    with store.alone("driver.json"):
        pass
    elsewhere = {"host": "elsewhere", "pid": 1, "time": time.time()}
    store.write("driver.json", json.dumps(elsewhere).encode())
    with pytest.raises(InputError, match="on elsewhere"), store.alone("driver.json"):
        pass
    for stamp in (time.time() - 3600, time.time() + 1e8, "soon"):
        store.write("driver.json", json.dumps({**elsewhere, "time": stamp}).encode())
        with store.alone("driver.json"):
            pass


def test_places_that_are_none(recipe: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no place that fsspec knows"):
        storage_of("nowhere://x")
    with pytest.raises(InputError, match="read from a disk"):
        ig.run.run(recipe(data={"path": "s3://b/inputs.npy"}), tmp_path / "out", base=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        ig.run.run(recipe(), tmp_path / "file", base=tmp_path, engine=Here())


@pytest.mark.filterwarnings("ignore")  # of the client and the server, which leave sockets open
def test_s3(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results in S3, as moto's server has it, computed by a process of its own."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("NO_PROXY", "*"),
        ):
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        url = "s3://bucket/a/out"
        results = ig.run.run(recipe(), url, base=tmp_path, engine=Local(1))
        assert results.complete
        assert objects(url) == undisturbed
        np.testing.assert_array_equal(
            results.values[3:40], ig.run.open(tmp_path / "undisturbed").values[3:40]
        )
        storage_of(url).write("rows/00000001.parquet", b"PAR1")
        assert ig.run.open(url).verify() == [1]
        assert ig.run.run(recipe(), url, base=tmp_path, engine=Here()).verify() == []
        assert objects(url) == undisturbed
    finally:
        server.stop()
