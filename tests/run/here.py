"""An engine in one short class: the shards are computed in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from integrand.errors import InputError
from integrand.run import Engine, Job, ManifestEntry
from integrand.run.shard import ShardWorker


class Here(Engine):
    """Computes in this process."""

    @classmethod
    def named(cls, address: str | None, workers: int | None, device: str) -> Here:
        if address or workers not in (None, 1):
            raise InputError("There is one worker, and it is here.")
        return cls()

    def compute(self, job: Job, shards: Sequence[int]) -> Iterator[ManifestEntry]:
        worker = ShardWorker(job.place, job.base)
        for shard in shards:
            yield worker.do(shard)
