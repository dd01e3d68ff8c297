"""Ray computes what one process does, byte for byte, whatever of it is killed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

import integrand as ig  # noqa: E402
from integrand.errors import InputError  # noqa: E402
from integrand.run import Local, ManifestEntry, Ray, Recipe, Status, engine_named  # noqa: E402
from integrand.run.engine import Job  # noqa: E402
from integrand.run.ray import _ENVIRONMENT as PATIENT  # noqa: E402
from integrand.run.ray import ShardActor, _error  # noqa: E402
from tests.run.faults import contents, environment, lines_of, started_driver, wait_until, workers_of  # noqa: E402
from tests.run.models import RAISES  # noqa: E402

Build = Callable[..., Recipe]
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of files and sockets that it leaves open
]


@pytest.fixture(scope="session")
def started() -> Iterator[str]:
    """Ray on this machine, shared by all tests that need one; its address."""
    with Ray(workers=2).connected():
        yield ray.get_runtime_context().gcs_address


@pytest.fixture
def undisturbed(recipe: Build, tmp_path: Path) -> dict[str, bytes]:
    out = tmp_path / "undisturbed"
    assert ig.run.run(recipe("slow"), out, base=tmp_path, engine=Local(1)).complete
    return contents(out)


def listening(pids: set[int]) -> set[str]:
    """Addresses that processes listen at, as the kernel writes them."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(link))
            except OSError:
                continue
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                addresses.add(words[1].partition(":")[0])
    return addresses


def family(root: int) -> set[int]:
    """A process and all that came of it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    kin = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in kin} - kin
        if not more:
            return kin
        kin |= more


def test_a_killed_worker_of_ray_leaves_no_trace(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes], started: str
) -> None:
    out, killed = tmp_path / "out", []
    addresses: set[str] = set()

    def kill_one(status: Status, seconds: float) -> None:
        actors = set(workers_of(out).values())
        if status.done == 1 and not killed and actors:
            addresses.update(listening(family(os.getpid())))
            killed.append(actors.pop())
            os.kill(killed[0], signal.SIGKILL)

    results = ig.run.run(recipe("slow"), out, base=tmp_path, engine="ray", watch=kill_one)
    assert killed
    assert results.complete
    assert contents(out) == undisturbed
    assert lines_of(out) == 4
    # 127.0.0.1, plain and as an address of IPv6: nothing else can be reached from elsewhere.
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_a_killed_driver_of_ray_leaves_no_trace(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes], started: str
) -> None:
    out = tmp_path / "out"
    driver = started_driver(recipe("slow"), out, tmp_path, f"ray:{started}")
    try:
        wait_until(lambda: driver.poll() is not None or lines_of(out))
    finally:
        driver.kill()
        driver.wait()
    done = ig.run.open(out).status.done
    assert 0 < done < 4
    seen: list[Status] = []
    results = ig.run.run(
        recipe("slow"), out, base=tmp_path, engine="ray", watch=lambda s, _: seen.append(s)
    )
    assert seen[0].done == done
    assert results.complete
    assert contents(out) == undisturbed


def test_an_actor_hands_back_lines_and_what_fails(
    recipe: Build, inputs: np.ndarray, tmp_path: Path
) -> None:
    """Without Ray: what it runs is a class that is handed numbers."""
    inputs[5, 0] = RAISES
    np.save(tmp_path / "inputs.npy", inputs)
    out = tmp_path / "out"
    store = ig.run.ShardStore.create(out, recipe("poisoned"), 50)
    actor = ShardActor(Job(str(out), tmp_path), "cpu")
    try:
        said = actor({"shard": np.array([0])})
        entry = ManifestEntry.parsed(said["line"][0])
        assert said["error"] == [""]
        assert entry is not None
        assert (entry.shard, entry.failed) == (0, 1)
        assert store.holds(entry)
        (out / "rows").rename(tmp_path / "rows")
        (out / "rows").write_text("in the way")
        said = actor({"shard": np.array([1])})
        assert said["line"] == [""]
        assert isinstance(_error(said["error"][0]), OSError)
    finally:
        actor.crew.stop()


def test_engines_by_name() -> None:
    engine = engine_named("ray:10.0.0.1:6379", workers=3)
    assert isinstance(engine, Ray)
    assert (engine.address, engine.workers, engine.dashboard) == ("10.0.0.1:6379", 3, False)
    assert isinstance(engine_named("local", 1), Local)
    with pytest.raises(InputError, match="has no address"):
        engine_named("local:here")
    with pytest.raises(ig.errors.UnknownName, match="local"):
        engine_named("locla")
    with pytest.raises(InputError, match="1 or more"):
        Ray(workers=0)


# --- two nodes --------------------------------------------------------------------------------------------------------


class Node:
    """What ``ray start`` starts, on this machine, with one core and files of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        command = [sys.executable, "-c", _START, "start", "--block", "--num-cpus=1"]
        command += ["--object-store-memory=80000000", "--disable-usage-stats", *words]
        environ = {**environment(), **PATIENT}
        self.path = folder / f"node-{len(words)}.log"
        self.log = self.path.open("wb")
        self.process = subprocess.Popen(
            command, env=environ, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def started(self) -> bool:
        """Whether it says that it has.

        Raises:
            AssertionError: where it ended.
        """
        text = self.path.read_text()
        assert self.process.poll() is None, text
        return "runtime started" in text

    def kill(self) -> None:
        """All of the node at once, as a machine that loses power."""
        for pid in family(self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        self.log.close()


_START = (
    "import ray.util; from ray._private import services; "
    "here = lambda *address: '127.0.0.1'; services.get_node_ip_address = here; "
    "ray.util.get_node_ip_address = here; from ray.scripts.scripts import main; main()"
)
"""``ray start``, on loopback."""


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Node, Node, int]]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    head = other = None
    try:
        port = free_port()
        head = begun(tmp_path, "--head", f"--port={port}", "--include-dashboard=false")
        other = begun(tmp_path, f"--address=127.0.0.1:{port}")
        yield head, other, port
    finally:
        for node in (other, head):
            if node is not None and node.process.poll() is None:
                node.kill()


def begun(folder: Path, *words: str) -> Node:
    """A node that has started; one that is too slow for Ray's own limits is begun again."""
    for left in (2, 1, 0):
        node = Node(folder, *words)
        try:
            wait_until(node.started, 150)
        except AssertionError:
            node.kill()
            if not left:
                raise
        else:
            return node
    raise AssertionError


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["other", "head"])
def test_a_killed_node_leaves_no_trace(
    recipe: Build, tmp_path: Path, undisturbed: dict[str, bytes], nodes: tuple[Node, Node, int], victim: str
) -> None:  # fmt: skip
    head, other, port = nodes
    out = tmp_path / "out"
    driver = started_driver(recipe("slow"), out, tmp_path, f"ray:127.0.0.1:{port}")
    try:
        wait_until(
            lambda: driver.poll() is not None or (lines_of(out) and len(workers_of(out)) > 1)
        )
        assert driver.poll() is None
        (head if victim == "head" else other).kill()
        if victim == "other":  # the node that is left does it all
            assert driver.wait(400) == 0
        else:
            driver.wait(400)
    finally:
        driver.kill()
        driver.wait()
    results = ig.run.run(recipe("slow"), out, base=tmp_path, engine=Local(1))
    assert results.complete
    assert contents(out) == undisturbed
