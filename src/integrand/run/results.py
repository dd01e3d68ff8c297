"""Results of a run, read from its folder when they are looked at."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.cells import cell
from ..core.files import whole
from ..core.optional import optional
from ..errors import InputError
from .recipe import Recipe
from .store import ShardStore, Status

_NEEDS = "integrand.run"


class RunResults:
    """What a run has computed so far.

    Attributes:
        values: all maps (N, \\*s) in the order of the rows, an array that is read where it is
            indexed; NaN (0 of int8) where a row failed or is not done. Of the largest k (N, k).
        scale: (N,) what int8 maps are multiplied by; None of others.
        indices: (N, k) where in the flattened maps the largest k stood; None of others.
        table: a line for each row that is done, in order, as an Arrow table: id, row, shard, status
            ("ok" or "failed"), reason, note (why the last digits of a row may be others), output,
            base, change, residual, gap, error, converged, and the metrics.
        complete: whether every shard is done.
        status: how far the run is.
        recipe: what was computed.
    """

    def __init__(self, store: ShardStore) -> None:
        self.store = store

    @property
    def recipe(self) -> Recipe:
        return self.store.recipe

    @property
    def status(self) -> Status:
        return self.store.status()

    @property
    def complete(self) -> bool:
        return self.status.complete

    @cached_property
    def values(self) -> Any:
        return self._array("values")

    @cached_property
    def scale(self) -> Any:
        return self._array("scale") if self.recipe.store.dtype == "int8" else None

    @cached_property
    def indices(self) -> Any:
        return None if self.recipe.store.top_k is None else self._array("indices")

    def _array(self, name: str) -> Any:
        zarr = optional("zarr", extra="run", needs=_NEEDS)
        try:
            return zarr.open_array(self.store.storage.zarr(name), mode="r")
        except Exception as error:  # of kinds of its own
            raise InputError(
                f"{self.place}/{name} cannot be read ({type(error).__name__}: {error}): run the recipe again."
            ) from error

    @property
    def place(self) -> str:
        """The folder, or the URL of the object store."""
        return self.store.storage.url

    @property
    def table(self) -> Any:
        pa = optional("pyarrow", extra="run", needs=_NEEDS)
        parquet = optional("pyarrow.parquet", extra="run", needs=_NEEDS)
        tables = []
        for shard in sorted(self.store.entries()):
            name = f"rows/{shard:08d}.parquet"
            try:
                tables.append(parquet.read_table(pa.BufferReader(self.store.storage.read(name))))
            except (OSError, pa.ArrowException) as error:
                raise InputError(
                    f"{self.place}/{name} cannot be read ({error}): run the recipe again."
                ) from error
        if not tables:
            raise InputError(f"{self.place} holds no shard that is done yet.")
        return pa.concat_tables(tables)

    def maps(self, rows: slice | list[int] | Tensor) -> Tensor:
        """The maps (n, \\*s) of some rows as a tensor, int8 ones multiplied by their scale. Of the
        largest k (n, k), which stood at ``indices``."""
        numbers: NDArray[np.int64] = np.arange(self.store.rows)[
            rows.numpy() if isinstance(rows, Tensor) else rows
        ]
        maps = self._rows("values", self.values, numbers)
        if self.scale is None:
            return maps
        scale = self._rows("scale", self.scale, numbers)
        return maps * scale.reshape(-1, *(1,) * (maps.ndim - 1))

    def _rows(self, name: str, array: Any, numbers: NDArray[np.int64]) -> Tensor:
        try:
            return torch.from_numpy(np.asarray(array.oindex[numbers]))
        except Exception as error:  # of kinds of its own, for files that are damaged
            raise InputError(
                f"{self.place}/{name} cannot be read ({type(error).__name__}: {error}): run the recipe again."
            ) from error

    def to_csv(self, path: str | Path) -> None:
        """The table as a CSV that spreadsheets may open: texts that they would take for a formula
        begin with an apostrophe, and control characters are spaces.

        Raises:
            OSError: where the disk refuses.
        """
        pa = optional("pyarrow", extra="run", needs=_NEEDS)
        csv = optional("pyarrow.csv", extra="run", needs=_NEEDS)
        table = self.table
        for place, field in enumerate(table.schema):
            if pa.types.is_list(field.type):  # a CSV has no lists
                lists = [
                    None if words is None else json.dumps(words, ensure_ascii=False)
                    for words in table[place].to_pylist()
                ]
                field = pa.field(field.name, pa.string())
                table = table.set_column(place, field, pa.array(lists, pa.string()))
            if field.type == pa.string():
                cells = [None if text is None else cell(text) for text in table[place].to_pylist()]
                table = table.set_column(place, field, pa.array(cells, pa.string()))
        with whole(path) as partial:
            csv.write_csv(table, str(partial))

    def to_pandas(self) -> Any:
        """The table as a DataFrame, by id."""
        return self.table.to_pandas().set_index("id")

    def verify(self) -> list[int]:
        """Shards whose files are not what was written; ``run`` computes them again."""
        return [n for n, entry in self.store.entries().items() if not self.store.holds(entry)]

    def __repr__(self) -> str:
        status = self.status
        return f"RunResults({self.place!r}, {status.done} of {status.shards} shards)"


def open(folder: str | Path) -> RunResults:  # the verb of zarr and Python for what is read lazily
    """The results in a folder or at a URL, of a run that is done, stopped or going on.

    Raises:
        InputError: for a folder that holds no run.
    """
    return RunResults(ShardStore.open(folder))
