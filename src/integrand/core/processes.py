"""Processes that work for this one: a program of its own each, at the other end of a pipe.

    driver                              child                  python -m MODULE HANDLE ARGUMENTS… PARENT
    ChildProcess(module, …)  ◀──pipe──▶ pipe_to_driver(…)

A program of its own is no copy of the caller's, so that scripts need no ``if __name__ ==
"__main__"``, and notebooks have workers.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection

from .. import errors
from ..errors import IntegrandError

_STDERR = 2
_TICK = 0.5


class ChildProcess:
    """A process, and the pipe to it.

    Args:
        module: what is run, as ``python -m`` takes it.
        arguments: between the handle of its end of the pipe and the number of this process.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        ours, theirs = socket.socketpair()
        handle = theirs.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(handle), *arguments, str(os.getpid())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[handle],
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,  # what models print is no result
            start_new_session=True,  # Ctrl-C is the driver's, which then stops the others
        )
        theirs.close()
        self.pipe = Connection(ours.detach())

    def exit_code(self) -> int | None:
        """With which code it ended; None where it goes on without its pipe."""
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.pipe.close()


def ending(code: int | None, whose: str = "the") -> str:
    """How a process ended, as the end of a sentence.

    >>> ending(-9), ending(7, "its"), ending(None)
    ('ended the process (signal 9)', 'ended its process (7)', 'closed the connection')
    """
    if code is None:
        return "closed the connection"
    return f"ended {whose} process ({f'signal {-code}' if code < 0 else code})"


def error_named(name: str, message: str) -> IntegrandError:
    """An error of another process, by the name of its type."""
    kind = vars(errors).get(name, IntegrandError)
    try:
        error: IntegrandError = kind(message)
    except TypeError:  # errors that are made of parts
        return IntegrandError(message)
    return error


def pipe_to_driver(handle: str, parent: str) -> Connection:
    """The child's end of the pipe. The child ends with its driver: nobody would hear of what it
    does."""
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    return Connection(int(handle))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_TICK)
    os._exit(1)
