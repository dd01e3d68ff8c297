"""Orderly exit on Ctrl-C (SIGINT) and SIGTERM, as cron and Slurm send it: what is finished is
written first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM: unwinds as Ctrl-C does, and ends with a status of its own."""


STATUS = {KeyboardInterrupt: 130, Terminated: 143}
"""Exit statuses, 128 and the number of the signal, as shells have them."""


@contextmanager
def terminable() -> Iterator[None]:
    """While this lasts, SIGTERM raises ``Terminated``."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears of signals
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until this is over, so that no file and no table is left half
    done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: stopped.append(number))
        for number in _SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        signal.raise_signal(stopped[-1])
