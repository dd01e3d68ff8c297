"""Processes that explain pictures: each is handed one picture at a time.

A process that dies (a model that crashes, no memory left) is replaced; the picture it had is tried
once more, and then counts as failed, with the reason. Ctrl-C is the driver's, which ends them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import torch

from .. import errors
from ..core.processes import ChildProcess, ending, error_named
from ..errors import ModelError
from .records import PictureFile, PictureRecord

_TRIES = 2
"""How often a picture is begun that ends its process."""
_STARTS = 3
"""How often a process is started that does not begin."""
_TICK = 0.5


@dataclass(frozen=True)
class Outcome:
    """What came of a picture.

    Attributes:
        picture: which.
        record: what is known of it; None where its process ended.
        refused: files that could not be written, and why;  ``full``: none can any more.
        said: what is to be told: kinds and messages.
        error: why there is no map, where something else than the picture is the reason.
    """

    picture: PictureFile
    record: PictureRecord | None = None
    refused: Sequence[str] = ()
    full: bool = False
    said: Sequence[tuple[str, str]] = ()
    error: Exception | None = None


@dataclass(frozen=True)
class Start:
    """What a process begins with: options, and whether all methods are meant."""

    request: Any
    every: bool


def explained(
    start: Start, pictures: Sequence[PictureFile], jobs: int, begin: Callable[[PictureFile], None]
) -> Iterator[Outcome | None]:
    """Explain pictures in so many processes; ``begin`` is told of each before it is handed out.
    Yields None now and then.

    Raises:
        IntegrandError: where a process cannot begin.
    """
    queue = deque(map(_PictureAssignment, pictures))
    count = min(jobs, len(queue))
    threads = max(1, torch.get_num_threads() // max(1, count))
    workers = [_PictureWorker(start, threads) for _ in range(count)]
    try:
        while queue or any(worker.assignment for worker in workers):
            for worker in workers:
                if worker.ready and worker.assignment is None and queue:
                    begin(queue[0].picture)
                    worker.give(queue.popleft())
            wait([worker.pipe for worker in workers], _TICK)
            for worker in workers:
                outcome = worker.news(queue)
                if outcome is not None:
                    yield outcome
            yield None
    finally:
        for worker in workers:
            worker.stop()


@dataclass
class _PictureAssignment:
    """A picture to explain, and how often it ended its process."""

    picture: PictureFile
    lost: int = 0


class _PictureWorker:
    """A process, and the picture that it has."""

    def __init__(self, start: Start, threads: int) -> None:
        self.start, self.threads = start, threads
        self.starts = 0
        self._begin()

    def _begin(self) -> None:
        self.starts += 1
        self.ready = False
        self.assignment: _PictureAssignment | None = None
        self.child = ChildProcess(f"{__package__}.worker")
        self.pipe = self.child.pipe
        self.pipe.send((self.start.request, self.start.every, self.threads))

    def give(self, assignment: _PictureAssignment) -> None:
        """Have a picture explained."""
        self.assignment = assignment
        try:
            self.pipe.send(assignment.picture)
        except OSError:  # it died just now, which its end of the pipe tells next
            return

    def news(self, queue: deque[_PictureAssignment]) -> Outcome | None:
        """What came of the picture, if it is done."""
        try:
            while self.pipe.poll():
                kind, content = self.pipe.recv()
                if kind == "ready":
                    self.ready, self.starts = True, 0
                    continue
                assignment, self.assignment = self.assignment, None
                if kind == "failed" or assignment is None:
                    raise rebuilt(*content)
                record, refused, full, said, cause = content
                error_or_none = None if cause is None else rebuilt(*cause)
                return Outcome(assignment.picture, record, refused, full, said, error_or_none)
        except (EOFError, ConnectionError):
            return self._replace(queue)
        return None

    def _replace(self, queue: deque[_PictureAssignment]) -> Outcome | None:
        """Start anew; the picture is tried again, or given up."""
        assignment, how = self.assignment, ending(self.child.exit_code(), "its")
        self.stop()
        if assignment is None and self.starts >= _STARTS:
            raise ModelError(f"A process cannot begin: loading the model {how}.")
        outcome = None
        if assignment is not None:
            assignment.lost += 1
            if assignment.lost < _TRIES:
                queue.appendleft(assignment)
            else:
                error = ModelError(f"Explaining this picture {how}.")
                outcome = Outcome(assignment.picture, error=error)
        self._begin()
        return outcome

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.child.stop()


def rebuilt(name: str, message: str) -> Exception:
    """An error by the name of its type; of types that are none of Integrand's the message says
    which."""
    if name not in vars(errors):
        return ModelError(f"{name}: {message}")
    return error_named(name, message)
