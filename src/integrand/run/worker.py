"""The process of a worker: ``python -m integrand.run.worker``, started by ``Local``.

It is a program of its own and not a copy of the caller's, so that scripts need no
``if __name__ == "__main__"`` and notebooks can run recipes.

    driver → worker     (shard, doubts)
    worker → driver     ("ready", None)  ("done", entry)  ("failed", error)
                        ("batch", first row)  ("row", number)      before each, where there are doubts
"""

from __future__ import annotations

import errno
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ..core.processes import pipe_to_driver
from ..errors import IntegrandError
from .shard import ShardWorker


def serve(pipe: Connection, place: str, base: Path, device: str) -> None:
    """Compute shards that the driver asks for, until there is no driver."""
    torch.set_num_threads(1)
    try:
        worker = ShardWorker(place, base, device)
    except IntegrandError as error:
        pipe.send(("failed", (type(error).__name__, str(error))))
        return
    except OSError as error:
        pipe.send(("failed", _plain(error)))
        return
    pipe.send(("ready", None))
    while True:
        try:
            shard, doubts = pipe.recv()
            pipe.send(("done", worker.do(shard, doubts, lambda *what: pipe.send(what))))
        except (EOFError, BrokenPipeError):
            return
        except OSError as error:  # a full or read-only disk: the driver says so, and stops
            pipe.send(("failed", _plain(error)))
            return


def _plain(error: OSError) -> OSError:
    """An error that can be sent, whatever kind it is."""
    plain = OSError(error.errno or errno.EIO, error.strerror or str(error), error.filename)
    plain.__cause__ = None
    return plain


if __name__ == "__main__":
    handle, place, base, device, parent = sys.argv[1:]
    serve(pipe_to_driver(handle, parent), place, Path(base), device)
