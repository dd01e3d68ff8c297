"""The process of a worker: ``python -m integrand.run.worker``, started by ``Local``.

It is a program of its own and not a copy of the caller's, so that scripts need no
``if __name__ == "__main__"`` and notebooks can run recipes.

    driver → worker     (shard, rows to skip, whether row by row)
    worker → driver     ("ready", None)  ("row", number)  ("done", entry)  ("failed", error)
"""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ..errors import IntegrandError
from .shard import ShardWorker

_TICK = 0.5


def serve(pipe: Connection, folder: Path, base: Path, device: str) -> None:
    """Compute shards that the driver asks for, until there is no driver."""
    torch.set_num_threads(1)
    try:
        worker = ShardWorker(folder, base, device)
    except IntegrandError as error:
        pipe.send(("failed", (type(error).__name__, str(error))))
        return
    pipe.send(("ready", None))
    while True:
        try:
            shard, skip, by_row = pipe.recv()
            announce = (lambda row: pipe.send(("row", row))) if by_row else None
            pipe.send(("done", worker.do(shard, skip, announce)))
        except (EOFError, BrokenPipeError):
            return
        except OSError as error:  # a full or read-only disk: the driver says so, and stops
            pipe.send(("failed", error))
            return


def _end_with(parent: int) -> None:
    """End this process when the driver is gone: nobody would hear of what it does."""
    while os.getppid() == parent:
        time.sleep(_TICK)
    os._exit(1)


if __name__ == "__main__":
    handle, folder, base, device, parent = sys.argv[1:]
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    serve(Connection(int(handle)), Path(folder), Path(base), device)
