"""How long a run takes on many workers: shards that vary, workers that are taken away, a store that is far."""

import heapq
import math
import random


def hours(
    shards: int,
    workers: int,
    seconds: float,  # a shard on one worker
    spread: float = 0.2,  # of their logarithms
    preempted: float = 0.0,  # times an hour that a worker is taken away
    restart: float = 90.0,  # seconds until another has loaded the model
    latency: float = 0.3,  # seconds that a shard's files take to the store
    line: float = 0.05,  # seconds that the driver takes for a line of the manifest
    start: float = 60.0,
    seed: int = 0,
) -> float:
    """Hours until the last line is written."""
    chance = random.Random(seed)
    free = [start] * workers  # when each worker is
    written = 0.0
    while shards:
        now = heapq.heappop(free)
        takes = seconds * math.exp(chance.gauss(-(spread**2) / 2, spread)) + latency
        lost = chance.expovariate(preempted / 3600) if preempted else math.inf
        if lost < takes:  # the shard is given out again
            heapq.heappush(free, now + lost + restart)
            continue
        heapq.heappush(free, now + takes)
        written = max(written, now + takes) + line
        shards -= 1
    return written / 3600


if __name__ == "__main__":
    rows, gradients, milliseconds = 10_000_000, 20, 2.0
    print("rows per shard   GPUs   hours   of the best possible")
    for size in (64, 512, 4096):
        for gpus in (10, 100, 1000):
            shard = size * gradients * milliseconds / 1e3
            best = rows * gradients * milliseconds / 1e3 / gpus / 3600
            took = hours(rows // size, gpus, shard, preempted=0.05)
            print(f"{size:14d} {gpus:6d} {took:7.2f} {best / took:7.0%}")
