"""``integrand.run.run``: what is missing is computed, whatever came before."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from .data import kind_of
from .engine import Engine, Job
from .engines import engine_named
from .recipe import Recipe
from .results import RunResults
from .shard import PreparedRecipe
from .storage import Disk, storage_of
from .store import INPUTS, ManifestEntry, ShardStore, Status

Watch = Callable[[Status, float], None]
"""Is told how far a run is, and the seconds since it began."""
RecipeLike = Recipe | Mapping[str, object] | str | Path
Data = str | Path | NDArray[np.generic] | torch.Tensor


@overload
def run(
    recipe: RecipeLike,
    out: str | Path,
    /,
    *,
    engine: Engine | str = ...,
    base: str | Path | None = ...,
    timeout: float | None = ...,
    retry_failed: bool = ...,
    watch: Watch | None = ...,
) -> RunResults: ...
@overload
def run(
    recipe: RecipeLike,
    data: Data | None = ...,
    out: str | Path | None = ...,
    *,
    engine: Engine | str = ...,
    base: str | Path | None = ...,
    timeout: float | None = ...,
    retry_failed: bool = ...,
    watch: Watch | None = ...,
) -> RunResults: ...
def run(
    recipe: RecipeLike,
    data: Data | None = None,
    out: str | Path | None = None,
    *,
    engine: Engine | str = "local",
    base: str | Path | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    watch: Watch | None = None,
) -> RunResults:
    """Explain a dataset: compute the shards that ``out`` does not hold yet.

    Whatever stops it (Ctrl-C, a kill, a full disk), what was done stays done; the same call goes on
    with the rest, and ends with the same bytes as an undisturbed run.

    Args:
        recipe: the path of a recipe, a ``Recipe``, or its sections as nested dicts.
        data: what is explained in place of the recipe's own data: a path, whose kind its ending
            says, or rows (N, …) as an array, of which ``out`` keeps a copy. It may be left out:
            ``run(recipe, out)``.
        out: the folder of the results, or the URL of an object store, such as
            ``s3://bucket/results``.
        engine: who computes: "local" (a process for each core), "ray" or "ray:ADDRESS", or an
            ``Engine``.
        base: where relative paths of the recipe begin; the folder of its file unless given.
        timeout: seconds that a shard, or a batch or row of one that was lost, may take.
        retry_failed: compute shards with failed rows again.
        watch: is told how far it is, now and then.

    Returns:
        The results, read from the disk when they are looked at.

    Raises:
        InputError: for a recipe, data or a folder that does not fit.
        IntegrandError: for a model or method that cannot be had.
        OSError: where the disk or the object store refuses.

    Example:
        >>> import integrand.run                                     # doctest: +SKIP
        >>> integrand.run.run("run.toml", "results").table.num_rows  # doctest: +SKIP
        1024
    """
    if out is None:
        if not isinstance(data, str | Path):
            raise InputError("Where do results go? run(recipe, out) or run(recipe, data, out).")
        out = data
        data = None
    if base is None:
        base = Path(recipe).resolve().parent if isinstance(recipe, str | Path) else Path()
    base = Path(base).resolve()
    section, rows = (None, None) if data is None else _data_section(data, out)
    recipe = _recipe(recipe, section)
    if rows is not None:
        _keep(rows, recipe, out)
    if isinstance(engine, str):
        engine = engine_named(engine)
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
        job = Job(store.storage.url, base, timeout)
        for entry in engine.compute(job, missing) if missing else ():
            manifest.append(entry)
            status = status.with_shard(entry)
            _tell(status, watch, began)
    return RunResults(store)


def _recipe(recipe: RecipeLike, data: dict[str, object] | None) -> Recipe:
    """The recipe, with other data where these are given."""
    if data is None and isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Recipe):
        document: dict[str, object] = recipe.document()
    elif isinstance(recipe, Mapping):
        document = dict(recipe)
    elif data is None:
        return Recipe.read(recipe)
    else:
        document = Recipe.document_of(recipe)
    if data is not None:
        section = document.get("data")
        document["data"] = {**(section if isinstance(section, dict) else {}), **data}
    return Recipe.of(document)


def _data_section(data: Data, out: str | Path) -> tuple[dict[str, object], bytes | None]:
    """What a recipe says of data that were handed over, and the file of them where they are rows."""
    if isinstance(data, str | Path):
        path = Path(data).resolve()
        return {"kind": kind_of(path), "path": str(path)}, None
    storage = storage_of(out)
    if not isinstance(storage, Disk):
        raise InputError(
            "Rows as an array are kept in a folder: give their path, for an object store."
        )
    rows = data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else np.asarray(data)
    if rows.dtype.hasobject:
        raise InputError("The data holds objects, not numbers.")
    if rows.ndim and not len(rows):
        raise InputError("The data are empty: there is no row to explain.")
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    return {"kind": "npy", "path": str(storage.folder / INPUTS)}, buffer.getvalue()


def _keep(rows: bytes, recipe: Recipe, out: str | Path) -> None:
    """Keep rows beside the results, unless these are another run's, which ``create`` then says."""
    storage = storage_of(out)
    if storage.exists("run.json"):
        store = ShardStore.open(out)
        count = len(np.load(io.BytesIO(rows), allow_pickle=False))
        if store.fingerprint != recipe.fingerprint:
            return
        store.check_growth(count)
    elif set(storage.names()) - {INPUTS}:
        return
    storage.write(INPUTS, rows)


def _stands(
    store: ShardStore, work: PreparedRecipe, entry: ManifestEntry, retry_failed: bool
) -> bool:
    """Whether a shard need not be computed again: its files hold what its line says, and its rows
    and the model are what they were."""
    if entry.failed and retry_failed:
        return False
    numbers = store.rows_of(entry.shard)
    return store.holds(entry) and entry.inputs == work.digest(numbers)


def _tell(status: Status, watch: Watch | None, began: float) -> None:
    """Tell the watch how far a run is."""
    if watch is not None:
        watch(status, time.monotonic() - began)
