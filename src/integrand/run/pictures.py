"""Pictures by number: the files of a folder, or the cells of a table."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ..core.optional import optional
from ..errors import ImageError
from ..images.files import pictures as pictures_in


class Pictures(ABC):
    """Pictures by number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def picture(self, number: int) -> Path | bytes:
        """The file of a picture, or its bytes.

        Raises:
            ImageError: where there is none.
        """

    @abstractmethod
    def content(self, number: int) -> bytes:
        """Bytes that are the same only for the same picture."""

    @abstractmethod
    def name(self, number: int) -> str:
        """What a row is called."""


class FolderPictures(Pictures):
    """The pictures of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = [Path(name) for name in pictures_in(folder)]

    def __len__(self) -> int:
        return len(self.files)

    def picture(self, number: int) -> Path:
        return self.files[number]

    def content(self, number: int) -> bytes:
        try:
            with self.files[number].open("rb") as opened:
                return hashlib.file_digest(opened, "blake2b").digest()
        except OSError as error:
            return f"unreadable: {error.errno}".encode()

    def name(self, number: int) -> str:
        return str(self.files[number].relative_to(self.folder))


class TablePictures(Pictures):
    """A column of an Arrow table: the bytes of files, or a struct of bytes and path, which is how
    Hugging Face's ``datasets.Image`` keeps them."""

    def __init__(self, column: Any) -> None:
        self.column = column

    @staticmethod
    def takes(field: Any) -> bool:
        """Whether an Arrow field holds pictures, as far as its type says."""
        types = optional("pyarrow.types", extra="run", needs="integrand.run")

        def are_bytes(kind: Any) -> bool:
            return bool(types.is_binary(kind) or types.is_large_binary(kind))

        if not types.is_struct(field.type):
            return are_bytes(field.type)
        place = field.type.get_field_index("bytes")
        return place >= 0 and are_bytes(field.type.field(place).type)

    def __len__(self) -> int:
        return len(self.column)

    def picture(self, number: int) -> bytes:
        cell = self.column[number].as_py()
        if not isinstance(cell, dict):
            cell = {"bytes": cell}
        content: bytes | None = cell["bytes"]
        if content is None:
            # A path in a table may lead anywhere: it is not followed.
            path = cell.get("path")
            raise ImageError(
                "There is no picture: the cell is empty."
                if path is None
                else f"The picture is not in the table, which has its path alone, {path!r}."
            )
        return content

    def content(self, number: int) -> bytes:
        try:
            return hashlib.blake2b(self.picture(number)).digest()
        except ImageError:
            return b""

    def name(self, number: int) -> str:
        return str(number)
