"""Whole datasets: start-up, memory of the driver, workers, Ray's overhead, and a manifest of 10⁵ shards.

    python -m benchmarks.run_scale [startup memory workers loop ray status simulation] [--rows 1000000]

The model is cheap on purpose (a linear map of four features), so that what is measured is the run itself and not the model; for
``workers`` and ``loop`` each batch of it takes a few milliseconds. Times are the best of three where they are short. The driver's memory
is the peak of a fresh process that has one worker beside it. ``simulation`` holds docs/examples/scale.py against runs of four workers that wait more
than they compute, undisturbed and with workers killed at a rate that is stated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import integrand as ig
from integrand.model.batching import peak_memory

MODELS = """
import time
import torch
def cheap():
    return torch.nn.Linear(4, 2)
def costly():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(256, 256), torch.nn.Tanh()] * 4
    return torch.nn.Sequential(torch.nn.Linear(4, 256), *layers, torch.nn.Linear(256, 2)).eval()
class Paced(torch.nn.Linear):
    def forward(self, x):
        time.sleep(0.1)
        return super().forward(x)
def paced():
    return Paced(4, 2).eval()
"""
DRIVER = "import sys; from benchmarks.run_scale import drive; drive(*sys.argv[1:])"


def recipe(model: str, rows_per_shard: int, nodes: int) -> dict[str, Any]:
    """A recipe over ``inputs.npy``."""
    return {
        "model": {"import": f"models.py:{model}"},
        "data": {"kind": "npy", "path": "inputs.npy"},
        "method": {
            "method": f"integrated(baseline=0.0, rule=GaussLegendre({nodes}))",
            "target": 0,
            "batch": min(rows_per_shard, 1024),
        },
        "store": {"rows_per_shard": rows_per_shard},
    }


def prepared(folder: Path, rows: int) -> Path:
    """A folder with models and so many rows."""
    folder.mkdir(parents=True)
    (folder / "models.py").write_text(MODELS)
    np.save(
        folder / "inputs.npy", np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")
    )
    return folder


def drive(
    folder: str, model: str, rows_per_shard: str, nodes: str, engine: str, workers: str
) -> None:
    """A driver in a process of its own: seconds, seconds to the first shard, and the peak of its memory."""
    before, began, first = peak_memory(), time.monotonic(), []

    def watch(status: ig.run.Status, seconds: float) -> None:
        if status.done and not first:
            first.append(time.monotonic() - began)

    chosen = ig.run.engine_named(engine, int(workers))
    document = recipe(model, int(rows_per_shard), int(nodes))
    out = Path(tempfile.mkdtemp(dir=folder))
    results = ig.run.run(document, out, base=folder, engine=chosen, watch=watch)
    assert results.complete
    seconds = time.monotonic() - began
    said = {"seconds": seconds, "first": first[0], "before": before, "peak": peak_memory()}
    print(
        json.dumps({**said, "shards": results.status.shards, "of workers": results.status.seconds})
    )


def driven(folder: Path, *words: object) -> dict[str, float]:
    """What a driver says."""
    command = [sys.executable, "-c", DRIVER, str(folder), *map(str, words)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    said: dict[str, float] = json.loads(output.splitlines()[-1])
    return said


def startup(place: Path, rows: int) -> None:
    folder = prepared(place / "startup", 64)
    best = min(driven(folder, "cheap", 64, 1, "local", 1)["seconds"] for _ in range(3))
    print(f"start-up of local, one worker, one shard of 64 rows: {best:.1f} s")


def memory(place: Path, rows: int) -> None:
    for count in sorted({1_000, 100_000, rows}):
        said = driven(prepared(place / f"memory-{count}", count), "cheap", 1024, 1, "local", 1)
        grown = (said["peak"] - said["before"]) / 2**20
        print(
            f"{count} rows: {said['seconds']:.0f} s, driver {said['peak'] / 2**20:.0f} MiB, of which {grown:.1f} MiB are the run's",
            flush=True,
        )


def workers(place: Path, rows: int) -> None:
    folder = prepared(place / "workers", 16_384)
    took = {}
    for count in (1, 2):
        said = [driven(folder, "costly", 1024, 32, "local", count) for _ in range(3)]
        took[count] = min(one["seconds"] - one["first"] for one in said)
    # The first shard of each worker is not counted: it comes with the start-up.
    print(f"after start-up: one worker {took[1] / 15:.2f} s a shard, two {took[2] / 14:.2f} s: {took[1] / 15 / (took[2] / 14):.2f} times as fast")  # fmt: skip


def loop(place: Path, rows: int) -> None:
    folder = prepared(place / "loop", 16_384)
    sys.path.insert(0, str(folder))
    torch.set_num_threads(1)
    from models import costly  # type: ignore[import-not-found]

    model, x = costly(), torch.from_numpy(np.load(folder / "inputs.npy"))
    method = ig.methods.integrated(0.0, ig.rules.GaussLegendre(32))
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        for batch in x.split(1024):
            ig.explain(model, batch, target=0, method=method, batch_size=1024)
        seconds.append(time.monotonic() - began)
    said = min(driven(folder, "costly", 1024, 32, "local", 1)["of workers"] for _ in range(3))
    print(f"in memory {min(seconds):.2f} s, one worker {said:.2f} s: {min(seconds) / said:.2f} of the speed")  # fmt: skip


def ray(place: Path, rows: int) -> None:
    folder = prepared(place / "ray", 20_000)
    said = {name: driven(folder, "cheap", 100, 1, name, 1) for name in ("local", "ray")}
    each = {n: (s["seconds"] - s["first"]) / (s["shards"] - 1) for n, s in said.items()}
    print(f"a shard of 100 cheap rows: local {1e3 * each['local']:.0f} ms, ray {1e3 * each['ray']:.0f} ms; first shard after {said['local']['first']:.1f} s and {said['ray']['first']:.1f} s")  # fmt: skip


def status(place: Path, rows: int) -> None:
    for count in (10_000, 100_000):
        document = ig.run.Recipe.of(recipe("cheap", 16, 1))
        store = ig.run.ShardStore.create(place / f"status-{count}", document, 16 * count)
        files = {"rows/00000000.parquet": "a" * 32, "values/c/0/0": "b" * 32}
        lines = [
            ig.run.ManifestEntry(
                n, store.fingerprint, "c" * 32, files, 16, 0, 0, 16, 1.0, "v"
            ).line()
            for n in range(count)
        ]
        store.storage.write("manifest/00000001-a.jsonl", "".join(lines).encode())
        seconds, processor = [], []
        for _ in range(5):
            began, used = time.monotonic(), time.process_time()
            assert store.status().done == count
            seconds.append(time.monotonic() - began)
            processor.append(time.process_time() - used)
        print(f"status of {count} shards: {min(seconds):.2f} s ({min(processor):.2f} s of the processor)")  # fmt: skip


def simulation(place: Path, rows: int) -> None:
    hours = runpy.run_path("docs/examples/scale.py")["hours"]
    size, shards, crew, kills = 16, 120, 4, 60.0  # times an hour that each worker is taken away
    for rate in (0.0, kills):
        folder = prepared(place / f"simulation-{rate:g}", size * shards)
        chance, due = random.Random(0), [math.inf]
        struck = [0]
        firsts: list[float] = []

        def watch(
            status: ig.run.Status,
            seconds: float,
            rate: float = rate,
            due: list[float] = due,
            struck: list[int] = struck,
            firsts: list[float] = firsts,
            chance: random.Random = chance,
        ) -> None:
            if status.done and not firsts:
                firsts.append(seconds)
            if not rate or not firsts:
                return
            if due[0] == math.inf:
                due[0] = seconds + chance.expovariate(rate * crew / 3600)
            workers = [w for w in children() if b"run.worker" in command(w)]
            if seconds > due[0] and workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
                struck[0] += 1
                due[0] = seconds + chance.expovariate(rate * crew / 3600)

        began = time.monotonic()
        document = recipe("paced", size, 8)
        results = ig.run.run(document, folder / "out", base=folder, engine=ig.run.Local(crew), watch=watch)  # fmt: skip
        took = time.monotonic() - began
        assert results.complete
        each = np.array([entry.seconds for entry in results.store.entries().values()])
        start = firsts[0] - each.mean()
        predicted = [
            3600 * hours(shards, crew, each.mean(), float(np.log(each).std()), rate, start, 0.0, 0.005, start, seed)
            for seed in range(50)
        ]  # fmt: skip
        low, high = np.quantile(predicted, (0.05, 0.95))
        print(f"{shards} shards of {each.mean():.2f} s, {crew} workers, {rate:g} kills an hour and worker ({struck[0]} struck): "
              f"measured {took:.1f} s, simulated {np.mean(predicted):.1f} ({low:.1f} to {high:.1f})", flush=True)  # fmt: skip


def children() -> list[int]:
    """The processes that this one started."""
    own = os.getpid()
    return [int(n) for n in Path(f"/proc/{own}/task/{own}/children").read_text().split()]


def command(process: int) -> bytes:
    """What a process runs; nothing for one that is gone."""
    file = Path(f"/proc/{process}/cmdline")
    return file.read_bytes() if file.exists() else b""


PARTS: dict[str, Callable[[Path, int], None]] = {
    "startup": startup,
    "memory": memory,
    "workers": workers,
    "loop": loop,
    "ray": ray,
    "status": status,
    "simulation": simulation,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for part in arguments.parts:
            PARTS[part](Path(name), arguments.rows)


if __name__ == "__main__":
    main()
