"""A lock for one explanation at a time, and undoing every change that it made.

While a model is explained its modules are in eval mode, ask for no parameter gradients and may run
another ``forward``; switches of the whole process (cuDNN, the fused attention, warning filters) are
set as well. All of that is seen by every thread. So threads take turns: one re-entrant lock for the
process, held from the first to the last row of an explanation. One lock cannot be taken in two
orders, however models share layers or are compared with one another, so nobody waits for ever.
Explanations that should run side by side run in processes.

A process that is forked while another of its threads explains gets a lock of its own and its models
as they were before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Turns:
    """Whose turn it is, and what has to be undone at its end."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.holder: int | None = None
        self.depth = 0
        self.pending: list[tuple[object, Callable[[], None]]] = []


_turns = _Turns()


@contextmanager
def turn() -> Iterator[None]:
    """While this lasts no other thread explains anything; re-entrant."""
    lock = _turns.lock  # a forked process puts another in its place
    with lock:
        _turns.holder = threading.get_ident()
        _turns.depth += 1
        try:
            yield
        finally:
            _turns.depth -= 1
            if not _turns.depth:
                _turns.holder = None


@contextmanager
def undone(undo: Callable[[], None]) -> Iterator[None]:
    """``undo`` is called at the end; in a process that is forked meanwhile by another thread, at
    its beginning."""
    entry = (object(), undo)
    _turns.pending.append(entry)
    try:
        yield
    finally:
        _turns.pending.remove(entry)
        undo()


def _after_fork() -> None:
    """In the child process: the thread that held the lock does not exist here, so its changes
    are undone and the lock is replaced."""
    global _turns
    if _turns.holder is None or _turns.holder == threading.get_ident():
        _turns.lock = threading.RLock()
        return
    pending = _turns.pending
    _turns = _Turns()
    for _, undo in reversed(pending):
        undo()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
