"""The folder of a run: what is done, and what it holds, whatever was killed meanwhile.

    run.json                      the recipe, its fingerprint, and how rows are cut into shards
    manifest/DRIVER.jsonl         a line for each shard that is done; the truth about the run
    values/zarr.json, c/S/0…      maps, a Zarr v3 array with one shard per shard
    rows/S.parquet                a line for each row: id, status, F, change, residual, gap, error …

A shard is done where a line says so, the line's fingerprint is the run's, and its files hold what
the line says. Files are written first, each whole (``storage``), and the line comes last: whatever
is killed in between leaves files that nothing points at, and that the next run writes again.
"""

from __future__ import annotations

import functools
import gc
import io
import json
import math
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..core.files import digest
from ..core.optional import optional
from ..errors import InputError
from .recipe import Recipe, differences
from .storage import Journal, Storage, storage_of

_NEEDS = "integrand.run"
optional("pydantic", extra="run", needs=_NEEDS)
from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter  # noqa: E402

_FORMAT = 2
_CHUNK_BYTES = 2**18
INPUTS = "inputs.npy"
"""Rows that were handed over as an array: the one file that may lie in a folder before its run does."""

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Place = Annotated[
    str,
    StringConstraints(pattern=r"^(?:rows/[0-9]+\.parquet|(?:values|scale|indices)/c(?:/[0-9]+)+)$"),
]
"""Where a shard's files lie."""


@dataclass(frozen=True)
class ManifestEntry:
    """A line of the manifest: one shard that is done.

    shard        its number
    fingerprint  of the recipe
    inputs       hash of the rows it was computed from, and of the model and the references
    files        file, relative to the folder → hash of its bytes
    rows         how many;  failed  how many of them could not be explained
    incomplete   how many did not converge
    gradients    rows evaluated with a gradient;  seconds  wall clock of the worker
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    shard: _Count
    fingerprint: str
    inputs: str
    files: dict[_Place, str]
    rows: _Count
    failed: _Count
    incomplete: _Count
    gradients: _Count
    seconds: float
    versions: str

    def line(self) -> str:
        """The entry on one line, behind a hash of it: a line that was cut off is none."""
        text = json.dumps(vars(self), sort_keys=True, separators=(",", ":"))
        return f"{digest(text.encode())} {text}\n"

    @classmethod
    def parsed(cls, line: str) -> ManifestEntry | None:
        """The entry of a line; None where it is cut off or damaged."""
        entries = cls.all_of(line.encode("utf-8", "replace"))
        return entries[0] if len(entries) == 1 else None

    @staticmethod
    def all_of(lines: bytes) -> list[ManifestEntry]:
        """The entries of many lines, without those that are cut off or damaged, of another type
        than they should be, or that name files elsewhere."""
        texts = []
        for line in lines.split(b"\n"):
            mark, _, text = line.partition(b" ")
            if text and mark == digest(text).encode():
                texts.append(text)
        try:
            return _ENTRIES.validate_json(b"[" + b",".join(texts) + b"]")
        except ValueError:
            if len(texts) < 2:
                return []
        # Halves, so that one that is none costs no more than a few looks at the others.
        middle = len(texts) // 2
        halves = (texts[:middle], texts[middle:])
        return [
            entry
            for half in halves
            for entry in ManifestEntry.all_of(b"\n".join(_marked(text) for text in half))
        ]


_ENTRIES = TypeAdapter(list[ManifestEntry])


@dataclass(frozen=True)
class Array:
    """An array of the store: name, shape of one row, NumPy type, and what stands where nothing
    is."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    fill: float


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        shards: how many there are;  ``done``: of them.
        rows: how many of the done shards;  ``total``: of all.
        failed: rows that could not be explained.
        incomplete: maps that did not converge to their tolerance.
        gradients, seconds: what the done shards took, over all workers.
    """

    shards: int
    done: int
    rows: int
    total: int
    failed: int
    incomplete: int
    gradients: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every shard is done."""
        return self.done == self.shards

    def with_shard(self, entry: ManifestEntry) -> Status:
        """The same with one more shard done."""
        return replace(
            self,
            done=self.done + 1,
            rows=self.rows + entry.rows,
            failed=self.failed + entry.failed,
            incomplete=self.incomplete + entry.incomplete,
            gradients=self.gradients + entry.gradients,
            seconds=self.seconds + entry.seconds,
        )


class ShardStore:
    """The results of one run, in a folder or an object store."""

    def __init__(self, storage: Storage, recipe: Recipe, rows: int) -> None:
        self.storage, self.recipe, self.rows = storage, recipe, rows
        self.size = recipe.store.rows_per_shard
        self.fingerprint = recipe.fingerprint

    # --- opening --------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, place: str | Path, recipe: Recipe, rows: int) -> ShardStore:
        """The store of a recipe, made, or taken up where an earlier run left it.

        Raises:
            InputError: for a folder that holds another recipe's results, or something else.
        """
        storage = storage_of(place)
        if storage.exists("run.json"):
            earlier = cls(storage, *cls._read(storage))
            changed = differences(earlier.recipe, recipe)
            if changed:
                raise InputError(
                    f"{place} holds results of another recipe (it differs in {', '.join(changed)}): give another --out, or remove it."
                )
            earlier.check_growth(rows)
        elif set(storage.names()) - {INPUTS}:
            raise InputError(f"{place} is no run, and not empty: give another --out.")
        head = {
            "format": _FORMAT,
            "rows": rows,
            "fingerprint": recipe.fingerprint,
            "recipe": recipe.document(),
        }
        storage.write("run.json", json.dumps(head, indent=1).encode())
        return cls(storage, recipe, rows)

    @classmethod
    def open(cls, place: str | Path) -> ShardStore:
        """The store in a folder.

        Raises:
            InputError: for a folder that is none.
        """
        storage = storage_of(place)
        try:
            return cls(storage, *cls._read(storage))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{place} holds no run: there is no run.json in it.") from None

    @staticmethod
    def _read(storage: Storage) -> tuple[Recipe, int]:
        name = f"{storage.url}/run.json"
        try:
            document = json.loads(storage.read("run.json").decode())
            written_as, rows = document["format"], document["rows"]
            recipe = Recipe.of(document["recipe"], name)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{name} is damaged ({error}).") from error
        if written_as != _FORMAT:
            raise InputError(f"{name} was written by another version of integrand: upgrade.")
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
            raise InputError(f"{name} is damaged (rows = {rows!r}).")
        return recipe, rows

    def check_growth(self, rows: int) -> None:
        """Check that data of so many rows may go on here.

        Raises:
            InputError: where there were more.
        """
        if rows < self.rows:
            raise InputError(
                f"{self.storage.url} holds results of {self.rows} rows and the data has {rows}: data may grow, not shrink. Give another --out."
            )

    # --- shards ---------------------------------------------------------------------------------------------------

    @property
    def shards(self) -> int:
        """How many shards the rows are cut into."""
        return -(-self.rows // self.size)

    def rows_of(self, shard: int) -> range:
        """The numbers of a shard's rows."""
        return range(shard * self.size, min((shard + 1) * self.size, self.rows))

    def entries(self) -> dict[int, ManifestEntry]:
        """The shards that a line says are done, by number: those of this recipe and these rows."""
        with _no_collection():
            return self._entries()

    def _entries(self) -> dict[int, ManifestEntry]:
        entries: dict[int, ManifestEntry] = {}
        full, rest = divmod(self.rows, self.size)
        for name in self.storage.names("manifest"):
            if not name.endswith(".jsonl"):
                continue
            for entry in ManifestEntry.all_of(self.storage.read(f"manifest/{name}")):
                rows = self.size if entry.shard < full else rest if entry.shard == full else 0
                if entry.rows == rows > 0 and entry.fingerprint == self.fingerprint:
                    entries[entry.shard] = entry  # of two, the later: it wrote over the files
        return entries

    def holds(self, entry: ManifestEntry) -> bool:
        """Whether the files of a shard are what its line says."""
        return all(self._hash_of(name) == expected for name, expected in entry.files.items())

    def _hash_of(self, name: str) -> str | None:
        try:
            return digest(self.storage.read(name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def status(self) -> Status:
        """How far the run is, by its manifest alone."""
        return self.status_of(self.entries().values())

    def status_of(self, entries: Collection[ManifestEntry]) -> Status:
        """How far a run is with these shards done."""
        rows = sum(entry.rows for entry in entries)
        failed = sum(entry.failed for entry in entries)
        incomplete = sum(entry.incomplete for entry in entries)
        gradients = sum(entry.gradients for entry in entries)
        seconds = sum(entry.seconds for entry in entries)
        return Status(
            self.shards, len(entries), rows, self.rows, failed, incomplete, gradients, seconds
        )

    # --- writing --------------------------------------------------------------------------------------------------

    def lay_out(self, arrays: Iterable[Array]) -> None:
        """Write what Zarr needs to know of the arrays, for as many rows as there are."""
        for array in arrays:
            memory = self._in_memory(array, self.rows)
            self.storage.write(f"{array.name}/zarr.json", memory["zarr.json"])

    def write(self, shard: int, arrays: Mapping[Array, NDArray[Any]], table: Any) -> dict[str, str]:
        """Write a shard's files, each whole or not at all. Returns file → hash of its bytes."""
        files: dict[str, bytes] = {}
        for array, content in arrays.items():
            full = np.full((self.size, *array.shape), array.fill, array.dtype)
            full[: len(content)] = content
            encoded = self._in_memory(array, self.size, full)
            chunk = f"c/0{'/0' * len(array.shape)}"
            name = f"{array.name}/{chunk.replace('c/0', f'c/{shard}', 1)}"
            # Zarr leaves out shards that hold nothing but the fill value.
            if chunk in encoded:
                files[name] = encoded[chunk]
            else:
                self.storage.remove(name)
        parquet = optional("pyarrow.parquet", extra="run", needs=_NEEDS)
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, compression="zstd")
        files[f"rows/{shard:08d}.parquet"] = buffer.getvalue()
        for name, encoded_file in files.items():
            self.storage.write(name, encoded_file)
        return {name: digest(encoded_file) for name, encoded_file in files.items()}

    def _in_memory(
        self, array: Array, rows: int, content: NDArray[Any] | None = None
    ) -> dict[str, bytes]:
        """The bytes of the keys of a Zarr array of so many rows."""
        zarr = optional("zarr", extra="run", needs=_NEEDS)
        contents: dict[str, Any] = {}
        stored = zarr.create_array(
            zarr.storage.MemoryStore(contents),
            shape=(rows, *array.shape),
            dtype=array.dtype,
            chunks=(_rows_per_chunk(array, self.size), *array.shape),
            shards=(self.size, *array.shape),
            fill_value=array.fill,
            compressors=zarr.codecs.ZstdCodec(level=3, checksum=True),
        )
        if content is not None:
            stored[:] = content
        return {key: value.to_bytes() for key, value in contents.items()}

    # --- one driver -----------------------------------------------------------------------------------------------

    @contextmanager
    def driving(self) -> Iterator[Manifest]:
        """While this lasts, this process alone hands out the shards of the folder.

        Raises:
            InputError: where another driver does.
        """
        with self.storage.alone("driver.json"):
            # Numbered, so that the lines of later drivers are read later, whatever the clocks say.
            taken = [name.partition("-")[0] for name in self.storage.names("manifest")]
            number = 1 + max((int(n) for n in taken if n.isascii() and n.isdecimal()), default=0)
            name = f"manifest/{number:08d}-{secrets.token_hex(4)}"
            manifest = Manifest(self.storage.journal(name))
            try:
                yield manifest
            finally:
                manifest.journal.close()


class Manifest:
    """The lines that a driver writes: each is safe before the next shard counts as done."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def append(self, entry: ManifestEntry) -> None:
        """A shard is done."""
        self.journal.append(entry.line())


def _rows_per_chunk(array: Array, size: int) -> int:
    """How many rows are compressed together: a divisor of a shard's size.

    A chunk costs most of a millisecond, whatever it holds, and reading one row reads its chunk: small
    rows share one.
    """
    row = math.prod(array.shape) * np.dtype(array.dtype).itemsize
    fitting = max(1, _CHUNK_BYTES // max(row, 1))
    return max(n for n in range(1, min(size, fitting) + 1) if size % n == 0)


@functools.cache
def versions() -> str:
    """What computed: versions of the packages that decide the last bits."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("integrand", "torch", "numpy"))


@contextmanager
def _no_collection() -> Iterator[None]:
    """While this lasts, the garbage collector does not look again and again through what is being
    read, none of which is garbage."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _marked(text: bytes) -> bytes:
    return digest(text).encode() + b" " + text
