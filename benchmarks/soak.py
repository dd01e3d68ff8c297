"""Random kills and damage over photographs with Weighted Gradients, and whether anything shows in the end.

    python -m benchmarks.soak FOLDER [--minutes 30] [--seed 0] [--out docs/results/soak]

One undisturbed run comes first. Then drivers are started again and again on another folder: after a random while the driver or a worker is killed (kill -9),
or the driver is told to end (SIGTERM); between two drivers a file is cut off, a bit of one is flipped, or the manifest loses its end. When a run is complete its bytes are compared with those of
the undisturbed one, and the next begins in a folder of its own. It ends with the first complete run after the given time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import integrand as ig
from integrand.bench.runner import machine
from tests.run.faults import contents, lines_of

ORDINARY = "integrand.run.run(recipe, sys.argv[2], engine=integrand.run.Local(int(sys.argv[3])))"
DRIVER = f"import json, sys; import integrand.run; recipe = json.loads(sys.argv[1]); {ORDINARY}"
DAMAGE = ("flipped bit", "file cut off", "end of the manifest cut off")
BLOWS = ("kill -9 of the driver", "kill -9 of a worker", "SIGTERM to the driver")


def recipe_of(photographs: Path) -> dict[str, Any]:
    """Weighted Gradients with three baselines, all that differs from it being small for the sake of time."""
    return {
        "model": {"name": "efficientnet-lite0"},
        "data": {"kind": "images", "path": str(photographs.resolve())},
        "method": {
            "method": "weighted(['black', 'white', 'blur'], rule=GaussLegendre(2))",
            "target": "predicted",
            "batch": 2,
        },
        "store": {"rows_per_shard": 2, "channels": "sum"},
    }


def started(document: dict[str, Any], out: Path, workers: int) -> subprocess.Popen[bytes]:
    """A driver in a process of its own."""
    words = [json.dumps(document), str(out), str(workers)]
    return subprocess.Popen([sys.executable, "-c", DRIVER, *words], stderr=subprocess.DEVNULL)


def workers_of(driver: int) -> list[int]:
    """The processes that a driver started."""
    file = Path(f"/proc/{driver}/task/{driver}/children")
    return [int(number) for number in file.read_text().split()] if file.exists() else []


def disturbed(driver: subprocess.Popen[bytes], draw: random.Random) -> str:
    """Wait a while and strike; what was done, or "complete" where the run was done before."""
    try:
        code = driver.wait(draw.uniform(15, 75))
        return "complete" if code == 0 else f"ended with {code}"
    except subprocess.TimeoutExpired:
        blow = draw.choice(BLOWS)
    if blow == BLOWS[1]:
        workers = workers_of(driver.pid)
        for worker in workers[:1]:
            signal_process(worker, signal.SIGKILL)
        return blow if workers else "nothing: no worker yet"
    driver.send_signal(signal.SIGKILL if blow == BLOWS[0] else signal.SIGTERM)
    driver.wait()
    return blow


def signal_process(process: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def damaged(out: Path, draw: random.Random) -> str | None:
    """Damage a file of the results, now and then; what was done."""
    files = sorted(
        f for part in ("values/c", "rows") for f in (out / part).rglob("*") if f.is_file()
    )
    manifests = sorted((out / "manifest").glob("*.jsonl"))
    kind = draw.choice(DAMAGE)
    if not files or not manifests or draw.random() < 0.5:
        return None
    file = manifests[-1] if kind == DAMAGE[2] else draw.choice(files)
    content = bytearray(file.read_bytes())
    if not content:
        return None
    if kind == DAMAGE[0]:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    else:
        del content[-draw.randrange(1, 1 + min(len(content), 200)) :]
    file.write_bytes(bytes(content))
    return kind


def soak(document: dict[str, Any], place: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Undisturbed once, then disturbed until the time is over and a run is complete."""
    draw, began = random.Random(seed), time.monotonic()
    undisturbed = place / "undisturbed"
    assert started(document, undisturbed, 1).wait() == 0
    alone = time.monotonic() - began
    expected = contents(undisturbed)
    rows = ig.run.open(undisturbed).table.num_rows
    print(f"undisturbed: {rows} rows, {alone:.0f} s", flush=True)
    log: list[dict[str, Any]] = []
    rounds: list[dict[str, Any]] = []
    began = time.monotonic()
    while time.monotonic() - began < 60 * minutes:
        out, round_began = place / f"round-{len(rounds)}", time.monotonic()
        while True:
            before = lines_of(out)
            driver, blow = started(document, out, draw.choice((1, 2))), "nothing"
            while driver.poll() is None:  # a driver whose worker was killed goes on
                blow = disturbed(driver, draw)
                after = lines_of(out)
                log.append({"round": len(rounds), "second": round(time.monotonic() - began, 1), "event": blow, "lines": after - before})  # fmt: skip
                print(log[-1], flush=True)
                before = after
            if blow == "complete":
                break
            if hurt := damaged(out, draw):
                log.append({"round": len(rounds), "second": round(time.monotonic() - began, 1), "event": hurt, "lines": 0})  # fmt: skip
        results = ig.run.open(out)
        same = contents(out) == expected
        table = results.table
        ids = table["id"].to_pylist()
        rounds.append(
            {
                "seconds": round(time.monotonic() - round_began, 1),
                "complete": results.complete,
                "rows": table.num_rows,
                "rows twice": len(ids) - len(set(ids)),
                "lines of shards that were computed again": lines_of(out) - results.status.shards,
                "every byte as undisturbed": same,
            }
        )
        print(rounds[-1], flush=True)
        shutil.rmtree(out)
    return {
        "machine": machine(),
        "recipe": {**document, "data": {**document["data"], "path": Path(document["data"]["path"]).name}},
        "seed": seed,
        "undisturbed": {"rows": rows, "seconds": round(alone, 1)},
        "minutes": round((time.monotonic() - began) / 60, 1),
        "events": dict(Counter(entry["event"] for entry in log)),
        "rounds": rounds,
        "log": log,
    }  # fmt: skip


def page(summary: dict[str, Any]) -> str:
    """What the run says, for docs/results."""
    rounds, alone = summary["rounds"], summary["undisturbed"]
    lost = sum(r["rows"] != alone["rows"] or not r["complete"] for r in rounds)
    good = sum(r["every byte as undisturbed"] for r in rounds)
    lines = [
        "# Soak: random kills and damage",
        "",
        f"`python -m benchmarks.soak` for {summary['minutes']:.0f} minutes, seed {summary['seed']}: {alone['rows']} photographs, EfficientNet-Lite0, Weighted Gradients, shards of two; undisturbed it takes {alone['seconds']:.0f} s on one worker.",
        f"Runs that were brought to their end through what follows: {len(rounds)}. With every byte of maps and rows as in the undisturbed run: {good}. With a row lost: {lost}. Rows that stand twice: {sum(r['rows twice'] for r in rounds)}.",
        "",
        "| event | times |",
        "|---|---|",
        *(f"| {event} | {count} |" for event, count in sorted(summary["events"].items())),
        "",
        "| run | seconds | shards computed again | every byte as undisturbed |",
        "|---|---|---|---|",
        *(
            f"| {n} | {r['seconds']:.0f} | {r['lines of shards that were computed again']} | {'yes' if r['every byte as undisturbed'] else 'NO'} |"
            for n, r in enumerate(rounds, 1)
        ),
        "",
        f"{summary['machine']['processor']}, {summary['machine']['cores']} cores shared with other work. The log is in [soak.json](soak.json).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/soak"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        summary = soak(recipe_of(chosen.photographs), Path(name), chosen.minutes, chosen.seed)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "soak.json").write_text(json.dumps(summary, indent=1) + "\n")
    (chosen.out / "soak.md").write_text(page(summary))


if __name__ == "__main__":
    main()
