"""Workers on this machine: a process each, handed one shard at a time.

A worker that dies or hangs is replaced, and its shard is given out again. What keeps being lost is
narrowed down: the shard is computed again with each batch announced before it begins, a batch that
is lost is computed row by row, and a row that is lost is left out, with the reason in the table.
Only the batch with that row is computed otherwise than it would have been. A worker that was killed
from outside may have been anybody's victim, so that this takes two losses at each step.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait

import torch

from ..core.processes import ChildProcess, ending, error_named
from ..errors import InputError, ModelError
from .engine import Engine, Job
from .shard import Doubts
from .store import ManifestEntry

_TICK = 0.5
_SUSPECT = 2
"""How often something is lost by kills from outside before it is suspected."""
_OUTSIDE = (-signal.SIGTERM, -9)
"""Exit codes of processes that were killed: by the kernel for their memory, or by somebody."""
_STARTS = 3
"""How often a worker is started that does not begin."""


class Local(Engine):
    """Processes on this machine, one thread each.

    Args:
        workers: how many; one for each core unless given.
        device: "cpu", or "cuda" for one worker on each GPU.

    Raises:
        InputError: for a number that is none, and for GPUs that are not there.
    """

    def __init__(self, workers: int | None = None, device: str = "cpu") -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers is 1 or more, not {workers}.")
        gpus = torch.cuda.device_count() if device == "cuda" else 0
        if device == "cuda" and not gpus:
            raise InputError("There is no GPU here that torch can use: leave out device.")
        self.devices = [f"cuda:{i}" for i in range(gpus)] or [device]
        self.workers = workers or gpus or _cores()

    @classmethod
    def named(cls, address: str | None, workers: int | None, device: str) -> Local:
        if address is not None:
            raise InputError(f"The engine local has no address, such as {address!r}.")
        return cls(workers, device)

    def compute(self, job: Job, shards: Sequence[int]) -> Iterator[ManifestEntry]:
        count = min(self.workers, len(shards))
        crew = Crew(job, [self.devices[i % len(self.devices)] for i in range(count)])
        try:
            yield from crew.compute(shards)
        finally:
            crew.stop()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Crew:
    """Worker processes, one for each of ``devices``, which stay for one call after the other."""

    def __init__(self, job: Job, devices: Sequence[str]) -> None:
        self._workers: list[_Worker] = []
        try:
            for device in devices:
                self._workers.append(_Worker(job, device))
        except BaseException:
            self.stop()
            raise

    def compute(self, shards: Sequence[int]) -> Iterator[ManifestEntry]:
        """Compute shards; yields the line of each as it is done.

        Raises:
            IntegrandError: where a worker cannot begin.
            OSError: where the disk refuses.
        """
        waiting, lost = deque(shards), deque[_Assignment]()
        while waiting or lost or any(worker.task for worker in self._workers):
            for worker in self._workers:
                if worker.ready and worker.task is None and (lost or waiting):
                    worker.give(lost.popleft() if lost else _Assignment(waiting.popleft()))
            wait([worker.pipe for worker in self._workers], _TICK)
            for worker in self._workers:
                entry = worker.news(lost)
                if entry is not None:
                    yield entry

    def stop(self) -> None:
        """End the processes, whatever they do."""
        for worker in self._workers:
            worker.stop()


@dataclass
class _Assignment:
    """A shard to compute, and what is known of its losses.

    losses  by what was announced last: nothing (None), a batch or a row, by ("batch", first row)
    """

    shard: int
    doubts: Doubts = field(default_factory=Doubts)
    losses: Counter[tuple[str, int] | None] = field(default_factory=Counter)

    def was_lost(self, at: tuple[str, int] | None, reason: str, from_outside: bool) -> None:
        """The worker is gone; ``at`` is what it had announced."""
        self.losses[at] += 1
        if from_outside and self.losses[at] < _SUSPECT:
            return
        if at is None:
            self.doubts = self.doubts.announcing()
        elif at[0] == "batch":
            self.doubts = self.doubts.row_by_row(at[1])
        else:
            self.doubts = self.doubts.without(at[1], f"Explaining this row {reason}.")


class _Worker:
    """A process, the shard that it has, and what it said last."""

    def __init__(self, job: Job, device: str) -> None:
        self.job, self.device = job, device
        self.starts = 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        self.child = ChildProcess(
            f"{__package__}.worker", self.job.place, str(self.job.base), self.device
        )
        self.pipe = self.child.pipe
        self.ready, self.began = False, time.monotonic()
        self.task: _Assignment | None = None
        self.announced: tuple[str, int] | None = None

    def give(self, task: _Assignment) -> None:
        """Have a shard computed."""
        self.task, self.announced, self.began = task, None, time.monotonic()
        try:
            self.pipe.send((task.shard, task.doubts))
        except OSError:  # it died just now, which its end of the pipe tells next
            return

    def news(self, lost: deque[_Assignment]) -> ManifestEntry | None:
        """What the worker has to say: the line of a shard, if that is done.

        Raises:
            IntegrandError: where it could not begin.
            OSError: where the disk refuses.
        """
        try:
            while self.pipe.poll():
                kind, content = self.pipe.recv()
                if kind == "failed":
                    raise error_of(content)
                if kind == "ready":
                    self.ready, self.starts = True, 0
                elif kind == "done":
                    self.task = None
                    entry: ManifestEntry = content
                    return entry
                else:
                    self.announced, self.began = (kind, content), time.monotonic()
        except (EOFError, ConnectionError):
            code = self.child.exit_code()
            self._replace(lost, ending(code), code in _OUTSIDE)
            return None
        if self._late():
            self._replace(lost, f"took longer than {self.job.timeout:g} s", False)
        return None

    def _late(self) -> bool:
        limit = self.job.timeout
        waited = time.monotonic() - self.began
        return self.task is not None and limit is not None and waited > limit

    def _replace(self, lost: deque[_Assignment], reason: str, from_outside: bool) -> None:
        """Start anew; the shard is given out again."""
        task = self.task
        self.stop()
        if task is not None:
            task.was_lost(self.announced, reason, from_outside)
            lost.append(task)
        elif self.starts >= _STARTS:
            raise ModelError(f"A worker cannot begin: loading the model {reason}.")
        self._start()

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.child.stop()


def error_of(content: tuple[str, str] | OSError) -> Exception:
    """What a worker failed with, by the name of its type."""
    if isinstance(content, OSError):
        return content
    return error_named(*content)
