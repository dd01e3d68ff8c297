"""What an engine is: something that has shards computed, wherever, and hands on the line of each as
it is done.

Adding an engine is a subclass with ``compute`` and ``named``, and its name in ``ENGINES``
(``engines.py``). It keeps no truth of its own: what it loses, the next run computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .store import ManifestEntry


@dataclass(frozen=True)
class Job:
    """What workers need to begin.

    place     where the results lie: a folder, or the URL of an object store
    base      the folder of the recipe, where its relative paths begin
    timeout   seconds that a shard may take before its worker is stopped; None for any time
    """

    place: str
    base: Path
    timeout: float | None = None


class Engine(ABC):
    """Has shards computed by ``ShardWorker``s."""

    @classmethod
    @abstractmethod
    def named(cls, address: str | None, workers: int | None, device: str) -> Engine:
        """The engine as the command line asks for it: ``--engine NAME[:ADDRESS]``, ``--jobs``,
        ``--device``.

        Raises:
            InputError: for what this engine does not know.
        """

    @abstractmethod
    def compute(self, job: Job, shards: Sequence[int]) -> Iterator[ManifestEntry]:
        """Compute shards, in any order.

        Yields:
            The line of each shard whose files are written, as soon as it is.

        Raises:
            IntegrandError: where workers cannot begin, for the first reason.
            OSError: where the disk or the object store refuses.
        """
