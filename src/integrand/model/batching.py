"""Batch-size search: how many rows a model call should hold, timed while working.

No size is right everywhere: on a CPU four rows of 224² can be twice as fast per row as forty-eight
(the allocator's page faults grow with the batch), a small tabular model wants thousands, a GPU the
most that fits. So the first rows of real work are run at doubling sizes, the time per row is
watched, and the best size stays. Nothing is run only to be timed. When memory runs out the size is
halved and the same rows are taken again; what was done stays done.

Chords are the exception: every cut takes a row along again, so calls of two or three are dear
whatever a few timings on a busy machine say, and only memory makes them smaller than ``CHORDS``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from weakref import WeakKeyDictionary

import torch

from ..core.options import option
from ..errors import InputError, ModelTooLarge, SmallerCallsWarning, warn

_START_ELEMENTS = 1 << 15  # the first call holds about this many input elements …
_MOST_ON_CPU = (
    1 << 22
)  # … and on a CPU, where running out of memory is not an error but the end, no call more than this many
_MOST_ELSEWHERE = 1 << 30
CHORDS = 8  # rows of a call of chords, at least, as far as memory goes …
_CHORD_ELEMENTS = (
    1 << 20
)  # … of which the first call holds up to half, if they are no more input elements than this
_TRIES = 2  # timings of the first size, which pays for warming up, and of one that disappoints; the better one counts
_GAIN = 0.97  # a larger size must at least be this much faster per row to be worth its memory
_SEVERAL = 2  # wholes in a call from which on the rows left over are worth leaving to the next
_GROWTH = (
    3 << 27
)  # bytes that the next larger call may be expected to take more, if it is to be tried
_DEAR = 1 << 26  # bytes that it may take more only if the last doubling …
_PAYING = 0.9  # … came down to this fraction of the time per row: a few per cent are as often noise
_GPU_SHARE = 0.7  # of the free memory that a call may take
_CPU_SHARE = 0.5  # the same of a machine's, which others use too, and where there is no second try


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def make_room(rows: int, failure: str) -> None:
    """After a call of some rows ran out of memory: give back what torch keeps for later ones.

    Raises:
        ModelTooLarge: for a call of one row, which cannot be made smaller.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if rows == 1:
        raise ModelTooLarge(
            "A single row does not fit into memory. Use a smaller input, a smaller model, half precision, or gradient "
            f"checkpointing in the model. torch said: {failure}"
        )


def warn_of_smaller_calls(before: int, now: int) -> None:
    """Say that calls have fewer rows than they were told to have."""
    warn(
        f"Memory ran out in a model call of {before} rows: calls of {now} go on, whose last digits may be others.",
        SmallerCallsWarning,
    )


@dataclass
class _Size:
    """What is known about one kind of call."""

    rows: int
    most: int
    least: int = 1
    settled: bool = False
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def best(self, rows: int) -> float:
        return min(self.seconds[rows])

    def fitting(self, total: int) -> int:
        """The size for ``total`` rows of work: too few to try the next size on, they are done at
        the best one known."""
        if self.settled or self.rows <= max(total, self.least) or not self.seconds:
            return self.rows
        return min(self.seconds, key=self.best)

    def learn(self, rows: int, seconds_per_row: float) -> None:
        """Take a timing of a full call, in seconds per row; move to the next size, or settle on the
        best."""
        if self.settled or rows != self.rows:
            return
        timings = self.seconds.setdefault(rows, [])
        timings.append(seconds_per_row)
        if rows < self.least:  # too small, however fast
            self.rows = min(rows * 2, self.most)
            return
        tried = sorted(self.seconds)
        gains = [
            self.best(later) <= _GAIN * self.best(earlier) for earlier, later in pairwise(tried)
        ]
        # Two sizes in a row that gain nothing end the climb; one alone may be noise, and is timed
        # again. No more than that: a size too large costs far more time than it takes to see it.
        stalled = len(gains) >= 2 and not any(gains[-2:])
        if not stalled and len(timings) < _TRIES and not (gains and gains[-1]):
            return
        if stalled or rows >= self.most:
            self.enough()
        else:
            self.rows = min(rows * 2, self.most)

    @property
    def paying(self) -> bool:
        """Whether the last doubling was so much faster that the next may take a lot of memory; also
        where there was none, or the size is too small anyway."""
        tried = sorted(self.seconds)
        if len(tried) < 2 or tried[-1] < self.least:
            return True
        return self.best(tried[-1]) <= _PAYING * self.best(tried[-2])

    def enough(self) -> None:
        """No larger sizes than those tried: the smallest that was as fast as any."""
        if self.seconds:
            tried = sorted(self.seconds)
            # Where memory ended the climb below the least size, the largest tried is the nearest to
            # it.
            tried = [size for size in tried if size >= self.least] or tried[-1:]
            worth = min(map(self.best, tried)) / _GAIN
            self.rows = next(size for size in tried if self.best(size) <= worth)
        self.settled = True

    def shrink(self, failed: int) -> None:
        """``failed`` rows did not fit."""
        self.rows = self.most = max(1, failed // 2)
        self.settled = True

    def fill(self, rows: int, used: int, free: int) -> None:
        """On a device that is fastest when full: as many rows as ``free`` bytes allow, judged by
        the last call."""
        fits = int(rows * _GPU_SHARE * free / max(used, 1))
        self.rows = max(1, min(self.most, max(rows, fits)))
        self.settled = rows >= self.rows


def peak_memory() -> int:
    """The most memory the process has used so far, in bytes; 0 where the system does not say."""
    try:
        # Not getrusage's: on Linux that is never less than what the process that started this one
        # had used by then.
        status = Path("/proc/self/status").read_text("ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # not a Unix
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_budget(device: torch.device) -> int | None:
    """The bytes that what is kept of a model call may come to: a fraction of what is free now; None
    where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(_GPU_SHARE * (free + spare))
    free_here = _available_memory()
    return None if free_here is None else int(_CPU_SHARE * free_here)


def _available_memory() -> int | None:
    """Bytes that this process may still take: of the machine, and of its container."""
    known: list[int] = []
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        known.append(1024 * int(text.split("MemAvailable:")[1].split()[0]))
    except (OSError, IndexError, ValueError):
        pass
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text("ascii") for name in ("max", "current"))
        known.append(max(0, int(limit) - int(used)))  # "max" where there is no limit
    except (OSError, ValueError):
        pass
    return min(known, default=None)


def packer_for(model: object, rows: int | None, run: str = "itself") -> BatchSizer:
    """A packer of ``rows``, or the one that already knows this model, ``run`` as itself or as
    something that stands in for it."""
    if rows is not None:
        return BatchSizer(rows)
    try:
        return _PACKERS.setdefault(model, {}).setdefault(run, BatchSizer())
    except TypeError:  # not every callable can be remembered
        return BatchSizer()


class BatchSizer:
    """Cuts work into model calls of a good size.

    ``rows`` fixes the size; without it the size is found per kind of call (row shape, type, device,
    forward or gradient).
    """

    def __init__(self, rows: int | None = None) -> None:
        rows = option("batch_size", rows, (int, type(None)))
        if rows is not None and rows < 1:
            raise InputError(
                f"A model call holds at least one row, not {rows}: batch_size says how many."
            )
        self.rows = rows
        self._sizes: dict[Hashable, _Size] = {}

    def __repr__(self) -> str:
        return f"BatchSizer({self.rows})" if self.rows else "BatchSizer()"

    def size(self, like: torch.Tensor, kind: str) -> int:
        """How many rows shaped like ``like`` (\\*s) the next call of this kind would hold."""
        return self._size(like, kind).rows

    def _size(self, like: torch.Tensor, kind: str) -> _Size:
        key = (tuple(like.shape), like.dtype, like.device, kind, torch.get_num_threads())
        if key not in self._sizes:
            elements = max(1, like.numel())
            most = max(
                1, (_MOST_ON_CPU if like.device.type == "cpu" else _MOST_ELSEWHERE) // elements
            )
            start, least = max(1, min(most, _START_ELEMENTS // elements)), 1
            if kind.startswith("chords"):
                least = min(most, CHORDS)
                start = max(start, least // 2 if least * elements <= 2 * _CHORD_ELEMENTS else 1)
            if self.rows:
                self._sizes[key] = _Size(self.rows, self.rows, settled=True)
            else:
                self._sizes[key] = _Size(start, most, least)
        return self._sizes[key]

    def run(
        self,
        total: int,
        call: Callable[[slice], float | None],
        like: torch.Tensor,
        kind: str,
        whole: int = 1,
        fitting: Callable[[int, int], int] | None = None,
    ) -> None:
        """``call(slice)`` over ``range(total)``, each slice as long as is good; ``call`` may be
        repeated after a failure.

        ``whole`` rows are better not torn apart: calls that hold several times as many hold a
        multiple of them. A ``call`` that was an easy one returns how many times as long others of
        its size take. Where calls hold more than their slice, ``fitting(first, rows)`` says how
        many of these rows from the first on fit into a call of so many; a fixed size is kept to.
        """
        size = self._size(like, kind)
        start = 0
        while start < total:
            full = size.fitting(total)
            even = full - full % whole if full >= _SEVERAL * whole else full
            rows = min(even, total - start)
            if fitting is not None and self.rows:
                rows = fitting(start, rows)
            failure: str | None = None
            longer = 1.0
            # Asking the system takes as long as a small call, so it is asked only about calls that
            # a size is looked for with.
            watched = rows == even and full == size.rows and not size.settled
            before = peak_memory() if watched else 0
            began = time.perf_counter()
            try:
                longer = call(slice(start, start + rows)) or 1.0
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # Only the words survive: the traceback holds the tensors that did not fit.
                failure = str(error)
            if failure is not None:
                self._make_room(size, rows, failure)
                if self.rows:
                    warn_of_smaller_calls(rows, size.rows)
                continue
            start += rows
            if watched:
                self._watch(size, full, rows, longer * (time.perf_counter() - began), like.device)
                # On a CPU memory that runs out is not an error but the end. A call twice as large
                # takes twice as much more of it.
                if like.device.type == "cpu":
                    more = 2 * (peak_memory() - before)
                    if more > _GROWTH or (more > _DEAR and not size.paying):
                        size.enough()

    @staticmethod
    def _make_room(size: _Size, rows: int, failure: str) -> None:
        make_room(rows, failure)
        size.shrink(rows)

    @staticmethod
    def _watch(size: _Size, full: int, rows: int, seconds: float, device: torch.device) -> None:
        if device.type != "cuda":
            size.learn(full, seconds / rows)
            return
        used = torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
        free, _ = torch.cuda.mem_get_info(device)
        size.fill(rows, used, free + used)


_PACKERS: WeakKeyDictionary[object, dict[str, BatchSizer]] = WeakKeyDictionary()
"""What was learnt about each model that is still alive."""
