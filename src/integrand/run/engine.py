"""What an engine is: something that has shards computed, wherever, and tells of each as it is done.

Adding an engine is a subclass with ``compute``, and its name in ``ENGINES``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .store import ManifestEntry


@dataclass(frozen=True)
class Job:
    """What workers need to begin: the folder of the store, and where the recipe lies.

    timeout   seconds that a shard may take before its worker is stopped; None for any time
    """

    folder: Path
    base: Path
    timeout: float | None = None


class Engine(ABC):
    """Has shards computed by ``ShardWorker``s."""

    @abstractmethod
    def compute(self, job: Job, shards: Sequence[int]) -> Iterator[ManifestEntry | None]:
        """Compute shards, in any order.

        Yields:
            The line of each shard whose files are written; None now and then, as a sign of life.

        Raises:
            IntegrandError: where workers cannot begin, for the first reason.
        """
