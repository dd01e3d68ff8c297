"""How far a run over many pictures is: bars in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID, TextColumn

from ..core.formatting import count, duration, percent
from ..fields.views import CallCount
from . import console

EVERY = 60.0
"""Seconds between lines in a log."""


class PictureProgress:
    """Tells of pictures that are done, and of the methods on the one that is being explained.

    Args:
        total: pictures there are.
        done: how many of them were done before.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done, self.first = total, done, done
        self.began = self.told = time.monotonic()
        self.live = console.err().is_terminal
        self._bars = self._new_bars()
        self._pictures: TaskID | None = None

    def __enter__(self) -> PictureProgress:
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    @staticmethod
    def _new_bars() -> Progress:
        return console.bars(TextColumn("{task.fields[work]}", markup=False))

    def _start(self) -> None:
        self._bars = self._new_bars()
        self._pictures = None
        if self.total > 1:
            self._pictures = self._bars.add_task(
                "pictures", total=self.total, completed=self.done, work=self.words()
            )
        self._bars.start()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """While this lasts other things are printed; bars of methods are gone then."""
        self._bars.stop()
        try:
            yield
        finally:
            self._start()

    def method(self, name: str) -> Callable[[CallCount], None]:
        """A bar for a method; returns what is told of its gradients."""
        task = self._bars.add_task(name, total=None, work="")

        def watch(tally: CallCount) -> None:
            work = f"{tally.gradients} gradients, {tally.values} values"
            self._bars.update(task, completed=tally.gradients, total=tally.expected, work=work)

        return watch

    def step(self) -> None:
        """One more picture is done."""
        self.done += 1
        if self._pictures is not None:
            self._bars.update(self._pictures, completed=self.done, work=self.words())
        self.wait()

    def wait(self) -> None:
        """A log hears now and then of how far it is, also while nothing changes."""
        now = time.monotonic()
        if not self.live and self.total > 1 and now - self.told >= EVERY:
            self.told = now
            console.note(self.words())

    def words(self) -> str:
        """How far it is, and how long the rest takes if it goes on like this."""
        done_percent = percent(self.done / max(1, self.total), decimals=0)
        text = f"{count(self.done)} of {count(self.total)} pictures, {done_percent}"
        since = self.done - self.first
        if not since or self.done >= self.total:
            return text
        left = (time.monotonic() - self.began) / since * (self.total - self.done)
        return f"{text}, about {duration(left)} left"
