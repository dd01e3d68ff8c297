"""Texts by number: the lines of a file, or the cells of a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from ..core.optional import optional
from ..errors import InputError


def check_length(text: str, longest: int) -> None:
    """Refuse a text of more characters than the recipe allows.

    Raises:
        InputError: for such a text.
    """
    if len(text) > longest:
        raise InputError(
            f"The text has {len(text)} characters, more than data.max_characters = {longest}."
        )


class Texts(ABC):
    """Texts by number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def content(self, number: int) -> bytes:
        """The bytes of a text; the same only for the same text."""

    def text(self, number: int) -> str:
        """The text.

        Raises:
            InputError: for one that is none.
        """
        try:
            return self.content(number).decode()
        except UnicodeDecodeError as error:
            raise InputError(f"The text is not in UTF-8: {error}.") from None


class TextLines(Texts):
    """The lines of a file, found once and read when they are needed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with file.open("rb") as opened:
            lengths = np.fromiter((len(line) for line in opened), np.int64)
        self.ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return len(self.ends)

    def content(self, number: int) -> bytes:
        start = int(self.ends[number - 1]) if number else 0
        with self.file.open("rb") as opened:
            opened.seek(start)
            return opened.read(int(self.ends[number]) - start).rstrip(b"\r\n")


class CellRows(Texts):
    """A column of an Arrow table, of texts, of their bytes or of numbers.

    Args:
        column: its cells.
        name: what it is called.

    Raises:
        InputError: for a column of anything else, such as lists.
    """

    def __init__(self, column: Any, name: str) -> None:
        types = optional("pyarrow.types", extra="run", needs="A run")
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        if types.is_nested(kind):
            raise InputError(f"The column {name!r} holds {column.type}, not texts.")
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def content(self, number: int) -> bytes:
        cell = self.column[number].as_py()
        if isinstance(cell, bytes):
            return cell
        return b"\xff" if cell is None else str(cell).encode()

    def text(self, number: int) -> str:
        if self.column[number].as_py() is None:
            raise InputError("There is no text: the cell is empty.")
        return super().text(number)
