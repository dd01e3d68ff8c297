"""Data of a run: rows in a fixed order, read by their numbers, each with an id and a hash.

A kind of data is a ``Source``: how many rows there are, what they are called, and how some of them
are read. Rows that cannot be read are said, with the reason, beside those that can. What a model
reads decides how rows are handed to it: numbers as they are (``ArraySource``), pictures as an
``ImageModel`` prepares them, texts as an ``EncodedText`` encodes them, tables as frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.optional import optional
from ..core.shapes import describe
from ..errors import ImageError, InputError
from ..images.models import ImageModel
from ..model.doors import door_of
from .language import LanguageRows, TextModel
from .pictures import FolderPictures, Pictures, TablePictures
from .recipe import DataSection
from .source import ReadRows, Source, digest_of, read_each
from .texts import CellRows, TextLines, Texts, check_length

_NEEDS = "A run"


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
        return digest_of([np.ascontiguousarray(self._rows(numbers)).tobytes()])

    def _rows(self, numbers: Sequence[int]) -> NDArray[Any]:
        first = numbers[0] if numbers else 0
        if list(numbers) == list(range(first, first + len(numbers))):
            return np.asarray(self.array[first : first + len(numbers)])
        return np.stack([np.asarray(self.array[n]) for n in numbers])


class TableSource(ArraySource):
    """Columns of a table, as float64 where they are and float32 otherwise."""

    def __init__(self, table: Any, columns: Sequence[str] | None, id_column: str | None) -> None:
        types = optional("pyarrow.types", extra="run", needs=_NEEDS)

        def is_number(kind: Any) -> bool:
            return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))

        fields = {field.name: field.type for field in table.schema}
        if not len(table):  # whose columns have no types either; that it is empty is told by all
            super().__init__(np.zeros((0, len(fields))), _ids_of(table, id_column))
            return
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
        super().__init__(np.stack(cells, 1), _ids_of(table, id_column))
        self.feature_names = tuple(names)


class FrameSource(Source):
    """Rows of a table as frames with names, words included, for models that read tables."""

    def __init__(
        self, table: Any, columns: Sequence[str] | None, id_column: str | None, model: object
    ) -> None:
        names = columns or [name for name in table.column_names if name != id_column]
        self.names = _ids_of(table, id_column)
        self.table = table.select(names)
        if not len(table):
            raise InputError("The table has no rows.")
        door = door_of(model)
        encoding = None if door is None else door.opened(model, self.table.slice(0, 1), {})[0]
        self.feature_names = tuple(names) if encoding is None else encoding.names

    def __len__(self) -> int:
        return len(self.table)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.feature_names or ()),)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    def read(self, numbers: Sequence[int]) -> ReadRows:
        return ReadRows(self.table.take(list(numbers)), list(numbers), {})

    def some(self, x: Any, start: int, stop: int) -> Any:
        return x.slice(start, stop - start)

    def digest(self, numbers: Sequence[int]) -> str:
        rows = self.table.take(list(numbers)).to_pylist()
        return digest_of(
            [repr(list(row.values())).encode("utf-8", "backslashreplace") for row in rows]
        )


class EncodedText:
    """A model behind a function that turns texts into the numbers that it reads.

    Args:
        module: what is explained: (B, \\*shape) → outputs.
        encode: a list of B texts → a tensor (B, \\*shape): embeddings of tokens, say.
        shape: of one text's numbers.

    Example:
        >>> import torch
        >>> from integrand.run import EncodedText
        >>> def letters(texts):
        ...     return torch.tensor([[text.count(c) for c in "abc"] for text in texts]).float()
        >>> EncodedText(torch.nn.Linear(3, 2), letters, (3,)).shape
        (3,)
    """

    def __init__(
        self,
        module: Callable[..., Any],
        encode: Callable[[list[str]], Tensor],
        shape: Sequence[int],
    ) -> None:
        self.module, self.encode, self.shape = module, encode, tuple(shape)


class TextSource(Source):
    """Texts: the lines of a file, or a column of a table. A text that is too long, or that the
    encoder refuses, is said."""

    def __init__(
        self,
        texts: Texts,
        model: EncodedText,
        longest: int,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.texts, self.model, self.longest, self.names = texts, model, longest, ids

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.model.shape

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def read(self, numbers: Sequence[int]) -> ReadRows:
        encoded, kept, failed = read_each(
            numbers,
            lambda number: self._encoded(self.texts.text(number)),
            fails_with=(Exception,),  # the user's encoder raises what it likes
        )
        return ReadRows(torch.cat(encoded) if encoded else None, kept, failed)

    def _encoded(self, text: str) -> Tensor:
        check_length(text, self.longest)
        rows = self.model.encode([text])
        if not isinstance(rows, Tensor) or tuple(rows.shape) != (1, *self.shape):
            raise InputError(
                f"The encoder made {describe(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__} of one text; "
                f"a tensor of shape {(1, *self.shape)} was promised."
            )
        return rows.detach()

    def digest(self, numbers: Sequence[int]) -> str:
        return digest_of([self.texts.content(number) for number in numbers])


class ImageSource(Source):
    """Pictures of a folder or of a table, prepared as a model sees them; a picture that cannot be
    read is said."""

    def __init__(
        self,
        pictures: Pictures,
        model: ImageModel,
        max_pixels: int,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.pictures, self.model, self.max_pixels, self.names = pictures, model, max_pixels, ids

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, self.model.size, self.model.size)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def read(self, numbers: Sequence[int]) -> ReadRows:
        prepared, kept, failed = read_each(
            numbers, self._prepared, fails_with=(ImageError, OSError)
        )
        return ReadRows(torch.stack(prepared) if prepared else None, kept, failed)

    def _prepared(self, number: int) -> Tensor:
        picture = self.pictures.picture(number)
        return self.model.prepare(picture, max_pixels=self.max_pixels)[0]

    def digest(self, numbers: Sequence[int]) -> str:
        return digest_of([self.pictures.content(number) for number in numbers])

    def name(self, number: int) -> str:
        return self.pictures.name(number)


def _ids_of(table: Any, column: str | None) -> list[str] | None:
    return None if column is None else [str(value) for value in table[column].to_pylist()]


# --- kinds ------------------------------------------------------------------------------------------------------------


def source_of(section: DataSection, folder: Path, model: object) -> Source:
    """The data of a recipe; a relative path begins at ``folder``, where the recipe lies.

    Raises:
        InputError: for data that is not there, or not what the recipe says.
    """
    path = Path(folder, section.path)
    if "://" in section.path:
        raise InputError(
            f"Data is read from a disk, not from {section.path!r}: mount it, or copy it; results may go to such a place."
        )
    named = section.columns or section.id or section.continuation
    if section.kind in ("npy", "zarr", "images", "text") and named:
        raise InputError(f"Data of kind {section.kind!r} has no columns to choose from.")
    if isinstance(model, TextModel) and section.kind in ("npy", "zarr"):
        raise InputError(
            f'A model of Hugging Face reads texts, not numbers: kind = "{section.kind}" is none of "text", "csv", "parquet" and "huggingface".'
        )
    if section.continuation is not None and not isinstance(model, TextModel):
        raise InputError(
            "data.continuation is for models of Hugging Face: no other reads words that follow."
        )
    try:
        if not path.exists():
            raise InputError(f"There is no data at {str(path)!r}.")
        source = _KINDS[section.kind](section, path, model)
        if not len(source):
            raise InputError(f"The data at {str(path)!r} are empty: there is no row to explain.")
        return source
    except (InputError, ImportError):
        raise
    except Exception as error:  # whatever numpy, pyarrow and zarr raise of damaged files
        raise InputError(
            f"{str(path)!r} cannot be read as {section.kind}: {type(error).__name__}: {error}."
        ) from error


def kind_of(path: Path) -> str:
    """The kind of data at a path, by its ending and by what lies in it.

    Raises:
        InputError: where neither says.
    """
    kind = _ENDINGS.get(path.suffix.lower())
    if kind is not None:
        return kind
    if (path / "zarr.json").is_file() or (path / ".zarray").is_file():
        return "zarr"
    if (path / _HF_STATE).is_file() or (path / "dataset_dict.json").is_file():
        return "huggingface"
    if path.is_dir():
        return "images"
    raise InputError(f"What kind of data is {str(path)!r}? Say so in [data]: kind = ...")


def _npy(section: DataSection, path: Path, model: object) -> Source:
    return ArraySource(np.load(path, mmap_mode="r", allow_pickle=False))


def _zarr(section: DataSection, path: Path, model: object) -> Source:
    return ArraySource(optional("zarr", extra="run", needs=_NEEDS).open_array(path, mode="r"))


def _csv(section: DataSection, path: Path, model: object) -> Source:
    table = optional("pyarrow.csv", extra="run", needs=_NEEDS).read_csv(path)
    return _of_table(section, table, model)


def _parquet(section: DataSection, path: Path, model: object) -> Source:
    if path.suffix in (".arrow", ".feather"):
        table = optional("pyarrow.feather", extra="run", needs=_NEEDS).read_table(path)
    else:
        table = optional("pyarrow.parquet", extra="run", needs=_NEEDS).read_table(path)
    return _of_table(section, table, model)


def _huggingface(section: DataSection, path: Path, model: object) -> Source:
    """What ``datasets.Dataset.save_to_disk`` wrote: Arrow streams, listed in a file."""
    pa = optional("pyarrow", extra="run", needs=_NEEDS)
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text("utf-8"))["splits"]
        raise InputError(
            f'{str(path)!r} holds the splits {", ".join(map(repr, splits))}: name one as path = "{section.path}/{splits[0]}".'
        )
    state = json.loads((path / _HF_STATE).read_text("utf-8"))
    if state.get("_indices_files"):
        raise InputError(f"{str(path)!r} is a selection: save dataset.flatten_indices() instead.")
    tables = []
    for name in [entry["filename"] for entry in state["_data_files"]]:
        if Path(name).name != name:
            raise InputError(f"{str(path)!r} names a file outside itself: {name!r}.")
        tables.append(pa.ipc.open_stream(pa.memory_map(str(path / name))).read_all())
    return _of_table(section, pa.concat_tables(tables), model)


def _of_table(section: DataSection, table: Any, model: object) -> Source:
    """A table as its model reads it: one column of texts, frames, or numbers."""
    chosen = (*(section.columns or ()), section.id, section.continuation)
    for name in filter(None, chosen):
        if name not in table.column_names:
            raise InputError(
                f"The data has no column {name!r}; it has {', '.join(map(repr, table.column_names[:12]))}."
            )
    if isinstance(model, EncodedText | TextModel):
        (name, *more) = section.columns or ("",)
        if more or not name:
            raise InputError('A model of texts reads one column: name it, columns = ["text"].')
        ids = _ids_of(table, section.id)
        if isinstance(model, EncodedText):
            return TextSource(CellRows(table[name], name), model, section.max_characters, ids)
        words = section.continuation
        follows = None if words is None else CellRows(table[words], words)
        return LanguageRows(CellRows(table[name], name), model, section, ids, follows)
    if isinstance(model, ImageModel):
        return _of_pictures(section, table, model)
    if section.door == "tables":
        return FrameSource(table, section.columns, section.id, model)
    if section.columns and len(section.columns) == 1:
        rows = _lists(table[section.columns[0]])
        if rows is not None:
            return ArraySource(rows, _ids_of(table, section.id))
    return TableSource(table, section.columns, section.id)


def _of_pictures(section: DataSection, table: Any, model: ImageModel) -> Source:
    """A table with a column of pictures: bytes of files, or what ``datasets.Image`` makes of them."""
    fitting = [name for name in table.column_names if TablePictures.takes(table.schema.field(name))]
    names = section.columns or tuple(fitting)
    if len(names) != 1 or names[0] not in fitting:
        columns = ", ".join(map(repr, fitting)) or "none"
        raise InputError(
            f'A model of pictures reads one column of their bytes: name it, columns = ["image"]. Here such columns are: {columns}.'
        )
    cells = TablePictures(table[names[0]])
    return ImageSource(cells, model, section.max_pixels, _ids_of(table, section.id))


def _lists(column: Any) -> NDArray[Any] | None:
    """A column of lists of numbers, all of one length, as (N, length); None for any other."""
    types = optional("pyarrow.types", extra="run", needs=_NEEDS)
    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in kinds):
        return None
    lengths = {len(row) if row is not None else None for row in column.to_pylist()}
    if len(lengths) != 1 or None in lengths:
        raise InputError("The lists of a column are rows of numbers, all of one length.")
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(len(column), -1)


def _images(section: DataSection, path: Path, model: object) -> Source:
    if not isinstance(model, ImageModel):
        raise InputError(
            "Pictures need a model that says how they are prepared: return an integrand.images.ImageModel."
        )
    return ImageSource(FolderPictures(path), model, section.max_pixels)


def _text(section: DataSection, path: Path, model: object) -> Source:
    if isinstance(model, TextModel):
        return LanguageRows(TextLines(path), model, section)
    if not isinstance(model, EncodedText):
        raise InputError(
            'Texts need a model that reads them: name = "hf:FOLDER", the folder of a model of Hugging Face, or a function that returns an '
            "integrand.run.TextModel or an integrand.run.EncodedText."
        )
    return TextSource(TextLines(path), model, section.max_characters)


_HF_STATE = "state.json"
_KINDS: dict[str, Callable[[DataSection, Path, object], Source]] = {
    "npy": _npy,
    "zarr": _zarr,
    "csv": _csv,
    "parquet": _parquet,
    "huggingface": _huggingface,
    "images": _images,
    "text": _text,
}
_ENDINGS = {
    ".npy": "npy",
    ".zarr": "zarr",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "parquet",
    ".feather": "parquet",
    ".txt": "text",
}
