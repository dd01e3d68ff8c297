"""Data of a run: rows in a fixed order, read by their numbers, each with an id and a hash.

A kind of data is a ``Source``: how many rows there are, what they are called, and how some of them
are read. Rows that cannot be read are said, with the reason, beside those that can.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.optional import optional
from ..errors import ImageError, InputError
from ..images.files import pictures as pictures_in
from ..images.models import ImageModel
from .recipe import DataSection

_NEEDS = "A run"


@dataclass(frozen=True)
class ReadRows:
    """Rows as they were read.

    x        (n, …) those that could be
    numbers  (n,) which rows these are
    failed   number → why it could not be read
    """

    x: Tensor | None
    numbers: list[int]
    failed: dict[int, str]


class Source(ABC):
    """Rows in a fixed order."""

    feature_names: tuple[str, ...] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of a row."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The type that rows are explained in."""

    @abstractmethod
    def read(self, numbers: Sequence[int]) -> ReadRows:
        """Rows by their numbers."""

    @abstractmethod
    def digest(self, numbers: Sequence[int]) -> str:
        """A hash of what the rows hold, which changes whenever one of them does."""

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """What rows are called."""
        return [str(number) for number in numbers]


class ArraySource(Source):
    """Rows of an array (N, …) on the disk, of numbers."""

    def __init__(self, array: Any, ids: Sequence[str] | None = None) -> None:
        self.array, self.names = array, ids
        if array.ndim < 2:
            raise InputError(
                f"The data has shape {tuple(array.shape)}: the first axis is rows, and each has numbers."
            )
        if array.dtype.kind not in "fiub":
            raise InputError(f"The data holds {array.dtype}, not numbers.")

    def __len__(self) -> int:
        return int(self.array.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(int, self.array.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.array.dtype == np.float64 else torch.float32

    def read(self, numbers: Sequence[int]) -> ReadRows:
        x = torch.from_numpy(np.array(self._rows(numbers))).to(self.dtype)
        return ReadRows(x, list(numbers), {})

    def digest(self, numbers: Sequence[int]) -> str:
        return _digest([np.ascontiguousarray(self._rows(numbers)).tobytes()])

    def ids(self, numbers: Sequence[int]) -> list[str]:
        return super().ids(numbers) if self.names is None else [self.names[n] for n in numbers]

    def _rows(self, numbers: Sequence[int]) -> NDArray[Any]:
        first = numbers[0] if numbers else 0
        if list(numbers) == list(range(first, first + len(numbers))):
            return np.asarray(self.array[first : first + len(numbers)])
        return np.stack([np.asarray(self.array[n]) for n in numbers])


class TableSource(ArraySource):
    """Columns of a table, as float64 where they are and float32 otherwise."""

    def __init__(self, table: Any, columns: Sequence[str] | None, id_column: str | None) -> None:
        for name in (*(columns or ()), *((id_column,) if id_column else ())):
            if name not in table.column_names:
                raise InputError(
                    f"The data has no column {name!r}; it has {', '.join(map(repr, table.column_names[:12]))}."
                )
        types = optional("pyarrow.types", extra="run", needs=_NEEDS)

        def is_number(kind: Any) -> bool:
            return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))

        fields = {field.name: field.type for field in table.schema}
        names = columns or [
            name for name, kind in fields.items() if is_number(kind) and name != id_column
        ]
        wrong = [name for name in names if not is_number(fields[name])]
        if wrong or not names:
            raise InputError(
                f"The column {wrong[0]!r} holds {fields[wrong[0]]}, not numbers: leave it out of columns."
                if wrong
                else "The data has no column of numbers."
            )
        wide = any(str(fields[name]) in ("double", "int64", "uint64") for name in names)
        dtype = np.float64 if wide else np.float32
        cells = [
            table[name].cast("float64").to_numpy(zero_copy_only=False).astype(dtype)
            for name in names
        ]
        ids = None if id_column is None else [str(v) for v in table[id_column].to_pylist()]
        super().__init__(np.stack(cells, 1) if len(table) else np.zeros((0, len(names))), ids)
        self.feature_names = tuple(names)


class ImageSource(Source):
    """Pictures of a folder, by name, prepared as a model sees them; a picture that cannot be read
    is said."""

    def __init__(self, folder: Path, model: ImageModel) -> None:
        self.folder, self.model = folder, model
        self.files = [Path(name) for name in pictures_in(folder)]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, self.model.size, self.model.size)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def read(self, numbers: Sequence[int]) -> ReadRows:
        pictures, kept, failed = [], [], {}
        for number in numbers:
            try:
                pictures.append(self.model.prepare(self.files[number])[0])
                kept.append(number)
            except (ImageError, OSError) as error:
                failed[number] = str(error)
        return ReadRows(torch.stack(pictures) if pictures else None, kept, failed)

    def digest(self, numbers: Sequence[int]) -> str:
        return _digest([_content(self.files[number]) for number in numbers])

    def ids(self, numbers: Sequence[int]) -> list[str]:
        return [str(self.files[number].relative_to(self.folder)) for number in numbers]


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "blake2b").digest()
    except OSError as error:
        return f"unreadable: {error.errno}".encode()


def _digest(parts: Sequence[bytes]) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for content in parts:
        hashed.update(len(content).to_bytes(8, "big") + content)
    return hashed.hexdigest()


# --- kinds ------------------------------------------------------------------------------------------------------------


def source_of(section: DataSection, folder: Path, model: object) -> Source:
    """The data of a recipe; a relative path begins at ``folder``, where the recipe lies.

    Raises:
        InputError: for data that is not there, or not what the recipe says.
    """
    path = Path(folder, section.path)
    if not path.exists():
        raise InputError(f"There is no data at {str(path)!r}.")
    if section.kind in ("npy", "zarr") and section.columns:
        raise InputError(f"Data of kind {section.kind!r} has no columns to choose from.")
    try:
        return _KINDS[section.kind](section, path, model)
    except (InputError, ImportError):
        raise
    except Exception as error:  # whatever numpy, pyarrow and zarr raise of damaged files
        raise InputError(
            f"{str(path)!r} cannot be read as {section.kind}: {type(error).__name__}: {error}."
        ) from error


def _npy(section: DataSection, path: Path, model: object) -> Source:
    return ArraySource(np.load(path, mmap_mode="r", allow_pickle=False))


def _csv(section: DataSection, path: Path, model: object) -> Source:
    table = optional("pyarrow.csv", extra="run", needs=_NEEDS).read_csv(path)
    return TableSource(table, section.columns, section.id)


def _parquet(section: DataSection, path: Path, model: object) -> Source:
    if path.suffix in (".arrow", ".feather"):
        table = optional("pyarrow.feather", extra="run", needs=_NEEDS).read_table(path)
    else:
        table = optional("pyarrow.parquet", extra="run", needs=_NEEDS).read_table(path)
    return TableSource(table, section.columns, section.id)


def _images(section: DataSection, path: Path, model: object) -> Source:
    if not isinstance(model, ImageModel):
        raise InputError(
            "Pictures need a model that says how they are prepared: return an integrand.images.ImageModel."
        )
    return ImageSource(path, model)


def _zarr(section: DataSection, path: Path, model: object) -> Source:
    return ArraySource(optional("zarr", extra="run", needs=_NEEDS).open_array(path, mode="r"))


_KINDS: dict[str, Callable[[DataSection, Path, object], Source]] = {
    "npy": _npy,
    "csv": _csv,
    "parquet": _parquet,
    "images": _images,
    "zarr": _zarr,
}
