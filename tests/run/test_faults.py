"""Whatever is killed, cut off, flipped or poisoned: what is missing is computed, and every byte is as if nothing had been."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import integrand as ig
from integrand.errors import InputError, ModelError
from integrand.run import Local, Recipe, ShardStore, Status
from tests.run.faults import contents, lines_of, started_driver, wait_until
from tests.run.models import DIES, HANGS, RAISES

Build = Callable[..., Recipe]


def children() -> list[int]:
    """Processes that this one started, those that are gone aside."""
    numbers = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            numbers.append(int(stat.parent.name))
    return numbers


@pytest.fixture
def undisturbed(recipe: Build, tmp_path: Path) -> dict[str, bytes]:
    results = ig.run.run(recipe("slow"), tmp_path / "undisturbed", base=tmp_path, engine=Local(1))
    assert results.complete
    assert results.table["status"].to_pylist() == ["ok"] * 50
    return contents(tmp_path / "undisturbed")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_workers_and_drivers_leave_no_trace(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    before = set(children())
    killed = []

    def kill_one(status: Status, seconds: float) -> None:
        workers = sorted(set(children()) - before)
        if status.done == 1 and not killed and workers:
            os.kill(workers[0], signal.SIGKILL)
            killed.append(workers[0])

    out = tmp_path / "worker"
    results = ig.run.run(recipe("slow"), out, base=tmp_path, engine=Local(2), watch=kill_one)
    assert killed
    assert results.complete
    assert contents(out) == undisturbed
    assert set(children()) == before

    # The driver, in a process of its own: kill -9 once a shard is done, and go on from there.
    out = tmp_path / "driver"
    driver = started_driver(recipe("slow"), out, tmp_path, "local")
    wait_until(lambda: driver.poll() is not None or lines_of(out))
    assert driver.poll() is None
    driver.kill()
    driver.wait()
    done = ig.run.open(out).status.done
    assert 0 < done < 4
    computed = []
    results = ig.run.run(
        recipe("slow"), out, base=tmp_path, engine=Local(1), watch=lambda s, _: computed.append(s)
    )
    assert computed[0].done == done  # what stood was not computed again
    assert results.complete
    assert contents(out) == undisturbed


def test_damaged_files_and_lines_are_computed_again(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "undisturbed"
    flipped = out / "values" / "c" / "1" / "0"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 3] ^= 4
    flipped.write_bytes(content)
    cut = out / "rows" / "00000002.parquet"
    cut.write_bytes(cut.read_bytes()[:-7])
    (manifest,) = (out / "manifest").glob("*.jsonl")
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    lost = {json.loads(lines[-1].partition(" ")[2])["shard"]}
    results = ig.run.open(out)
    assert set(results.verify()) == {1, 2} - lost
    assert not results.complete
    results = ig.run.run(recipe("slow"), out, base=tmp_path, engine=Local(1))
    assert results.complete
    assert results.verify() == []
    assert contents(out) == undisturbed


def test_rows_that_fail_are_said_and_the_others_explained(
    recipe: Build, inputs: np.ndarray, tmp_path: Path
) -> None:
    plain = ig.run.run(recipe(), tmp_path / "plain", base=tmp_path, engine=Local(1))
    poison = inputs.copy()
    poison[3, 0], poison[20, 0], poison[40, 0], poison[41, 2] = RAISES, HANGS, DIES, np.nan
    np.save(tmp_path / "inputs.npy", poison)
    out = tmp_path / "out"
    results = ig.run.run(recipe("poisoned"), out, base=tmp_path, engine=Local(2), timeout=8)
    rows = results.table.to_pylist()
    failed = {row["row"]: row["reason"] for row in rows if row["status"] != "ok"}
    assert set(failed) == {3, 20, 40, 41}
    assert "this model cannot take 101" in failed[3]
    assert not any("\n" in reason for reason in failed.values())
    assert failed[20] == "Explaining this row took longer than 8 s."
    assert failed[40] == "Explaining this row ended the process (9)."
    assert "NaN" in failed[41]
    kept = [n for n in range(50) if n not in failed]
    values, expected = np.asarray(results.values), np.asarray(plain.values)
    np.testing.assert_allclose(values[kept], expected[kept], rtol=1e-4, atol=1e-6)
    assert np.isnan(values[list(failed)]).all()
    assert results.status.failed == 4
    assert results.complete

    # Mended inputs are other inputs: their shards are computed again, and nothing else.
    np.save(tmp_path / "inputs.npy", inputs)
    seen = []
    results = ig.run.run(
        recipe("poisoned"), out, base=tmp_path, engine=Local(1), watch=lambda s, _: seen.append(s)
    )
    assert seen[0].done == 1
    assert results.status.failed == 0


def test_retry_failed(recipe: Build, inputs: np.ndarray, tmp_path: Path) -> None:
    inputs[3, 0] = RAISES
    np.save(tmp_path / "inputs.npy", inputs)
    for retry, stands in ((False, 0), (False, 4), (True, 3)):
        seen: list[Status] = []
        ig.run.run(
            recipe("poisoned"), tmp_path / "out", base=tmp_path, engine=Local(1),
            retry_failed=retry, watch=lambda s, _, seen=seen: seen.append(s),
        )  # fmt: skip
        assert seen[0].done == stands


def test_a_full_disk_stops_cleanly(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "full"
    before = signal.signal(
        signal.SIGXFSZ, signal.SIG_IGN
    )  # so that writing fails as on a full disk
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        with pytest.raises(OSError, match="too large"):
            ig.run.run(recipe("slow"), out, base=tmp_path, engine=Local(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not ig.run.open(out).complete
    assert not list(out.rglob("*.partial*"))
    results = ig.run.run(recipe("slow"), out, base=tmp_path, engine=Local(1))
    assert results.complete
    assert contents(out) == undisturbed


def test_two_drivers_are_refused_and_dead_ones_forgotten(recipe: Build, tmp_path: Path) -> None:
    store = ShardStore.create(tmp_path / "out", recipe(), 50)
    with store.driving(), pytest.raises(InputError, match=f"process {os.getpid()}"):
        ig.run.run(recipe(), tmp_path / "out", base=tmp_path)
    lock = tmp_path / "out" / "driver.json"
    assert lock.read_text() == ""
    lock.write_text(json.dumps({"host": os.uname().nodename, "pid": 1}))  # it was killed
    with store.driving():
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    lock.write_text('{"ho')  # it was killed while it wrote
    with store.driving():
        pass
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    with pytest.raises(InputError, match="elsewhere"), store.driving():
        pass
    os.utime(lock, (time.time() - 3600,) * 2)
    with store.driving():
        pass


def test_a_model_that_ends_the_process_as_it_is_loaded(recipe: Build, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(
        "import os, torch\n"
        "def load():\n"
        f"    if os.getpid() != {os.getpid()}: os._exit(7)\n"
        "    return torch.nn.Linear(6, 3)\n"
    )
    broken = recipe(model={"import": "ends.py:load"})
    with pytest.raises(ModelError, match=r"loading the model ended the process \(7\)"):
        ig.run.run(broken, tmp_path / "out", base=tmp_path, engine=Local(1))
