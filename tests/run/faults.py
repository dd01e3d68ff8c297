"""What the tests of faults share: the bytes of a run, processes by what they do, and drivers to kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from integrand.run import Recipe

_DRIVER = (
    "import json, sys; import integrand.run; from integrand.run import Recipe; "
    "recipe = Recipe.of(json.loads(sys.argv[1])); "
    "integrand.run.run(recipe, sys.argv[2], base=sys.argv[3], engine=sys.argv[4])"
)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of maps and rows: all but what says who computed them, and when."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for part in ("values", "rows")
        for file in sorted((folder / part).rglob("*"))
        if file.is_file()
    }


def workers_of(out: Path) -> dict[int, int]:
    """Processes that compute shards of a folder → the processes that started them."""
    pairs = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if b"integrand.run.worker" in words and str(out).encode() in words:
            pairs[int(process.name)] = int(parent)
    return pairs


def lines_of(out: Path) -> int:
    """Lines in the manifest of a folder."""
    return sum(file.read_bytes().count(b"\n") for file in (out / "manifest").glob("*.jsonl"))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def started_driver(recipe: Recipe, out: Path, base: Path, engine: str) -> subprocess.Popen[bytes]:
    """A driver in a process of its own."""
    words = [json.dumps(recipe.document()), str(out), str(base), engine]
    return subprocess.Popen([sys.executable, "-c", _DRIVER, *words], env=environment())


def wait_until(happened: Callable[[], object], seconds: float = 240) -> None:
    """Wait for something.

    Raises:
        AssertionError: where it does not happen.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
