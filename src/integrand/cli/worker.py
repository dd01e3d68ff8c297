"""The process of a worker of ``integrand explain --jobs N``: ``python -m integrand.cli.worker``.

It is a program of its own and not a copy of the caller's, as the workers of ``integrand.run`` are.

    driver → worker     (options, whether all methods, threads), then pictures one by one
    worker → driver     ("ready", None)  ("done", (record, refused, full, said, error))  ("failed", error)
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

import torch

from ..core.processes import pipe_to_driver
from ..errors import IntegrandError
from ..images import load_model
from .picture import PictureWork
from .session import Session


def serve(pipe: Connection) -> None:
    """Explain the pictures that the driver names, until there is no driver."""
    try:
        request, every, threads = pipe.recv()
        torch.set_num_threads(threads)
        session = Session(request, load_model(request.model).to(request.device), every=every)
        said: list[tuple[str, str]] = []
        session.listener = lambda kind, message: said.append((kind, message))
        pipe.send(("ready", None))
        while True:
            work = PictureWork(session, pipe.recv())
            work.run()
            record = work.finish()
            session.tell_heard()
            cause = None if work.error is None else _named(work.error)
            files = work.files
            pipe.send(("done", (record, files.refused, files.full, tuple(said), cause)))
            said.clear()
    except IntegrandError as error:  # there is no model
        pipe.send(("failed", _named(error)))
    except (EOFError, ConnectionError):
        return


def _named(error: Exception) -> tuple[str, str]:
    return type(error).__name__, str(error)


if __name__ == "__main__":
    handle, parent = sys.argv[1:]
    serve(pipe_to_driver(handle, parent))
