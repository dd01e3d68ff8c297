"""Workers on a cluster of Ray, or on this machine by Ray.

    shard ids ── Ray Data, map_batches over a pool of actors ──▶ lines of the manifest

Ray hands out numbers and hands back lines; it keeps no truth, and no row or map passes through it.
Each actor has a worker process of its own beside it (``Crew``), so that a row that ends or hangs its
process is found and left out exactly as by ``Local``. An actor that is lost with its node is begun
elsewhere by Ray, and its shard is given out again.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..core.optional import optional
from ..errors import InputError, IntegrandError
from .engine import Engine, Job
from .local import Crew, Local, error_of
from .store import ManifestEntry

_NEEDS = "The engine ray"
_LOOPBACK = "127.0.0.1"
_PATIENCE = 2.0
"""Seconds that a machine's own address has to answer."""
_STARTS = 3
"""How often Ray is started: its processes wait fifteen seconds for one another, too little where a
machine is busy."""
_WINDOW = 4096
"""Shards that Ray knows of at a time, so that a driver's memory does not grow with their number."""
_LOSSES = 20
"""How many workers may be lost over one shard, with their nodes, before the run stops."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_DATA_USAGE_DISABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_register_timeout_seconds": "300",  # on a busy machine
}
"""Settings of Ray that a user's own stand before."""


class Ray(Engine):
    """Actors of Ray, one for each shard that is computed at a time.

    Without an address Ray is started on this machine for the time of the run, on the loopback
    interface alone. Where the process is connected to Ray already, that is used.

    Args:
        address: of a cluster ("10.0.0.1:6379", "ray://…", or "auto" for the one on this machine).
        workers: how many at most; as many as there are cores, or GPUs, unless given.
        device: "cpu", or "cuda" for a GPU each.
        dashboard: whether Ray, where it is started here, shows its pages (on loopback).

    Raises:
        InputError: for a number that is none.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        device: str = "cpu",
        dashboard: bool = False,
    ) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers is 1 or more, not {workers}.")
        self.address, self.workers, self.device = address, workers, device
        self.dashboard = dashboard

    @classmethod
    def named(cls, address: str | None, workers: int | None, device: str) -> Ray:
        return cls(address, workers, device)

    def compute(self, job: Job, shards: Sequence[int]) -> Iterator[ManifestEntry]:
        data = optional("ray.data", extra="run-ray", needs=_NEEDS)
        with self.connected(), _quiet(data):
            most = self.workers or self._places()
            for start in range(0, len(shards), _WINDOW):
                window = shards[start : start + _WINDOW]
                yield from self._window(data, job, window, min(most, len(window)))

    def _window(
        self, data: ModuleType, job: Job, shards: Sequence[int], workers: int
    ) -> Iterator[ManifestEntry]:
        # A block for each shard: its line comes as soon as it is done, and nothing else is lost
        # with it.
        numbers = data.from_items([{"shard": n} for n in shards], override_num_blocks=len(shards))
        lines = numbers.map_batches(
            ShardActor,
            fn_constructor_kwargs={"job": job, "device": self.device},
            batch_size=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            num_cpus=1,
            num_gpus=int(self.device == "cuda"),
            max_restarts=-1,
            max_task_retries=_LOSSES,
        )
        for batch in lines.iter_batches(batch_size=None, prefetch_batches=0):
            for line, error in zip(batch["line"], batch["error"], strict=True):
                if error:
                    raise _error(str(error))
                entry = ManifestEntry.parsed(str(line))
                if entry is None:
                    raise IntegrandError(
                        "A worker sent a line that is none: its version is another."
                    )
                yield entry

    def _is_local(self, ray: ModuleType) -> bool:
        """Whether Ray is, or is to be, on this machine's loopback interface alone."""
        if self.address is None:
            return True
        host, _, port = self.address.rpartition(":")
        if host not in ("localhost", _LOOPBACK) or not port.isdecimal():
            return False
        with socket.socket() as end:
            end.settimeout(_PATIENCE)
            return end.connect_ex((ray.util.get_node_ip_address(), int(port))) != 0

    def _places(self) -> int:
        """How many workers the cluster has room for."""
        ray = optional("ray", extra="run-ray", needs=_NEEDS)
        places = int(ray.cluster_resources().get("GPU" if self.device == "cuda" else "CPU", 0))
        if places < 1:
            raise InputError(
                f"Ray has no {'GPU' if self.device == 'cuda' else 'CPU'}: start nodes that have."
            )
        return places

    @contextmanager
    def connected(self) -> Iterator[None]:
        """While this lasts, this process is connected to Ray, and all runs in it share what was
        started.

        Raises:
            InputError: where Ray cannot be reached, or listens to more than loopback.
        """
        ray = optional("ray", extra="run-ray", needs=_NEEDS)
        with _environment():
            if ray.is_initialized():
                yield
                return
            self._connect(ray)
            try:
                here = ray.util.get_node_ip_address()
                if self.address is None and here != _LOOPBACK:
                    raise InputError(
                        f'This version of Ray listens at {here}, not on loopback alone: start it yourself and say engine = "ray:auto".'
                    )
                yield
            finally:
                ray.shutdown()

    def _connect(self, ray: ModuleType) -> None:
        options: dict[str, Any] = {"address": self.address}
        if self.address is None:
            options = {
                "address": "local",
                "include_dashboard": self.dashboard,
                "dashboard_host": _LOOPBACK,
                "num_cpus": self.workers or Local().workers,
            }
        tries = _STARTS if self.address is None else 1
        with _handlers_kept(), _on_loopback(self._is_local(ray)):
            for left in reversed(range(tries)):
                try:
                    ray.init(**options, configure_logging=False, log_to_driver=False)
                    return
                except Exception as error:  # Ray has kinds of its own, and plain ones
                    ray.shutdown()
                    if not left:
                        place = "started here" if tries > 1 else f"reached at {self.address!r}"
                        raise InputError(f"Ray cannot be {place}: {error}") from error


class ShardActor:
    """What Ray runs: shard numbers in, lines out. The work is done by a process beside it."""

    def __init__(self, job: Job, device: str) -> None:
        self.crew = Crew(job, [device])

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        lines, errors = [], []
        for shard in batch["shard"]:
            line, error = "", ""
            try:
                (entry,) = self.crew.compute([int(shard)])
                line = entry.line()
            except OSError as failure:
                error = json.dumps([failure.errno, failure.strerror, str(failure.filename)])
            except IntegrandError as failure:
                error = json.dumps([type(failure).__name__, str(failure)])
            lines.append(line)
            errors.append(error)
        return {"line": lines, "error": errors}


def _error(text: str) -> Exception:
    content = json.loads(text)
    return OSError(*content) if len(content) == 3 else error_of((content[0], content[1]))


@contextmanager
def _quiet(data: ModuleType) -> Iterator[None]:
    """While this lasts, Ray Data draws no bars of its own, and tells of errors alone."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        with data.DataContext.current(context):
            try:
                yield
            finally:
                logger.setLevel(level)


@contextmanager
def _on_loopback(wanted: bool) -> Iterator[None]:
    """While this lasts, a Ray that is started listens on the loopback interface alone.

    Ray has no public option for it on Linux: an address of loopback is put in place by the one that
    others reach. What it does on a Mac is what is wanted here.
    """
    constants = optional("ray._private.ray_constants", extra="run-ray", needs=_NEEDS)
    before = constants.ENABLE_RAY_CLUSTER
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Ray says of its next version is not ours to mend
        constants.ENABLE_RAY_CLUSTER = before and not wanted
        try:
            yield
        finally:
            constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _environment() -> Iterator[None]:
    """While this lasts, processes that are started find what this one finds."""
    before = dict(os.environ)
    paths = [str(Path(entry).resolve()) for entry in sys.path if entry]
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        yield
    finally:
        for name in (*_ENVIRONMENT, "PYTHONPATH"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """SIGTERM stays whose it was: Ray would take it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
