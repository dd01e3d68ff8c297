"""``integrand.run.run``: what is missing is computed, whatever came before."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .engine import Engine, Job
from .local import Local
from .recipe import Recipe
from .results import RunResults
from .shard import PreparedRecipe
from .store import ManifestEntry, ShardStore, Status

Watch = Callable[[Status, float], None]
"""Is told how far a run is, and the seconds since it began."""


def run(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    engine: Engine | None = None,
    base: str | Path | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    watch: Watch | None = None,
) -> RunResults:
    """Explain a dataset: compute the shards that ``out`` does not hold yet.

    Whatever stops it (Ctrl-C, a kill, a full disk), what was done stays done; the same call goes on
    with the rest, and ends with the same bytes as an undisturbed run.

    Args:
        recipe: a ``Recipe``, or the path of one.
        out: the folder of the results.
        engine: who computes; a process for each core unless given.
        base: where relative paths of the recipe begin; the folder of its file unless given.
        timeout: seconds that a shard, or a row of it when it is computed row by row, may take.
        retry_failed: compute shards with failed rows again.
        watch: is told how far it is, now and then.

    Returns:
        The results, read from the disk when they are looked at.

    Raises:
        InputError: for a recipe, data or a folder that does not fit.
        IntegrandError: for a model or method that cannot be had.
        OSError: where the disk refuses.

    Example:
        >>> import integrand.run                                     # doctest: +SKIP
        >>> integrand.run.run("run.toml", "results").table.num_rows  # doctest: +SKIP
        1024
    """
    if isinstance(recipe, str | Path):
        base = Path(recipe).resolve().parent if base is None else base
        recipe = Recipe.read(recipe)
    base, out = Path(base or Path()).resolve(), Path(out)
    work = PreparedRecipe.of(recipe, base)  # what cannot be had is said before a folder is made
    store = ShardStore.create(out, recipe, len(work.source))
    with store.driving() as manifest:
        store.lay_out(work.arrays.values())
        entries = {
            shard: entry
            for shard, entry in store.entries().items()
            if _stands(store, work, entry, retry_failed)
        }
        missing = [shard for shard in range(store.shards) if shard not in entries]
        began = time.monotonic()
        status = store.status_of(entries.values())
        _tell(status, watch, began)
        if missing:
            job = Job(store.folder.resolve(), base, timeout)
            for entry in (engine or Local()).compute(job, missing):
                manifest.beat()
                if entry is not None:
                    manifest.append(entry)
                    status = status.with_shard(entry)
                    _tell(status, watch, began)
    return RunResults(store)


def _stands(
    store: ShardStore, work: PreparedRecipe, entry: ManifestEntry, retry_failed: bool
) -> bool:
    """Whether a shard need not be computed again: its files hold what its line says, and its rows
    are what they were."""
    if entry.failed and retry_failed:
        return False
    numbers = store.rows_of(entry.shard)
    return store.holds(entry) and entry.inputs == work.source.digest(numbers)


def _tell(status: Status, watch: Watch | None, began: float) -> None:
    """Tell the watch how far a run is."""
    if watch is not None:
        watch(status, time.monotonic() - began)
