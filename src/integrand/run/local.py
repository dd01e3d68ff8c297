"""Workers on this machine: a process each, handed one shard at a time.

A worker that dies or hangs is replaced and its shard is given out again. A shard that was lost
twice is computed row by row; the row that a worker said it begins and never ended is skipped from
then on, with the reason in the table.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

import torch

from .. import errors
from ..errors import InputError, IntegrandError, ModelError
from .engine import Engine, Job
from .store import ManifestEntry

_TICK = 0.5
_LOST_BEFORE_ROWS = 2
"""How often a shard is lost before it is computed row by row."""
_STDERR = 2
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

    def compute(self, job: Job, shards: Sequence[int]) -> Iterator[ManifestEntry | None]:
        queue = deque(map(_Assignment, shards))
        count = min(self.workers, len(queue))
        workers = [_Worker(job, self.devices[i % len(self.devices)]) for i in range(count)]
        try:
            while queue or any(worker.task for worker in workers):
                for worker in workers:
                    if worker.ready and worker.task is None and queue:
                        worker.give(queue.popleft())
                wait([worker.pipe for worker in workers], _TICK)
                for worker in workers:
                    entry = worker.news(queue)
                    if entry is not None:
                        yield entry
                yield None
        finally:
            for worker in workers:
                worker.stop()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@dataclass
class _Assignment:
    """A shard to compute, and what happened to it so far."""

    shard: int
    lost: int = 0
    skip: dict[int, str] = field(default_factory=dict)

    @property
    def by_row(self) -> bool:
        return self.lost >= _LOST_BEFORE_ROWS


class _Worker:
    """A process, the shard that it has, and what it said last."""

    def __init__(self, job: Job, device: str) -> None:
        self.job, self.device = job, device
        self.starts = 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", f"{__package__}.worker", str(theirs.fileno())]
        command += [str(self.job.folder), str(self.job.base), self.device, str(os.getpid())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,  # what models print is no result
            start_new_session=True,  # Ctrl-C is the driver's, which then stops the workers
        )
        theirs.close()
        self.pipe = Connection(ours.detach())
        self.ready, self.began = False, time.monotonic()
        self.task: _Assignment | None = None
        self.row: int | None = None

    def give(self, task: _Assignment) -> None:
        """Have a shard computed."""
        self.task, self.row, self.began = task, None, time.monotonic()
        try:
            self.pipe.send((task.shard, task.skip, task.by_row))
        except OSError:  # it died just now, which its end of the pipe tells next
            return

    def news(self, queue: deque[_Assignment]) -> ManifestEntry | None:
        """What the worker has to say: the line of a shard, if that is done.

        Raises:
            IntegrandError: where it could not begin.
            OSError: where the disk refuses.
        """
        try:
            while self.pipe.poll():
                kind, content = self.pipe.recv()
                if kind == "failed":
                    raise _error(content)
                if kind == "ready":
                    self.ready, self.starts = True, 0
                elif kind == "row":
                    self.row, self.began = content, time.monotonic()
                else:
                    self.task = None
                    entry: ManifestEntry = content
                    return entry
        except (EOFError, ConnectionError):
            self._replace(queue, self._died())
            return None
        if self._late():
            self._replace(queue, f"took longer than {self.job.timeout:g} s")
        return None

    def _late(self) -> bool:
        limit = self.job.timeout
        waited = time.monotonic() - self.began
        return self.task is not None and limit is not None and waited > limit

    def _died(self) -> str:
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed the connection"
        return f"ended the process (signal {-code})" if code < 0 else f"ended the process ({code})"

    def _replace(self, queue: deque[_Assignment], reason: str) -> None:
        """Start anew; the shard is given out again."""
        task, row = self.task, self.row
        self.stop()
        if task is not None:
            if task.by_row and row is not None:
                task.skip[row] = f"Explaining this row {reason}."
            task.lost += 1
            queue.appendleft(task)
        elif self.starts >= _STARTS:
            raise ModelError(f"A worker cannot begin: loading the model {reason}.")
        self._start()

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.pipe.close()


def _error(content: tuple[str, str] | OSError) -> Exception:
    """What a worker failed with, by the name of its type."""
    if isinstance(content, OSError):
        return content
    name, message = content
    kind = vars(errors).get(name, IntegrandError)
    try:
        error: Exception = kind(message)
    except TypeError:  # errors that are made of parts
        error = IntegrandError(message)
    return error
