"""Rows in a fixed order: what every kind of data is to a run."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ..errors import IntegrandError

T = TypeVar("T")


@dataclass(frozen=True)
class ReadRows:
    """Rows as they were read.

    x        (n, …) those that could be: a tensor, or an Arrow table of n rows
    numbers  (n,) which rows these are
    failed   number → why it could not be read
    """

    x: Any
    numbers: list[int]
    failed: dict[int, str]


class Source(ABC):
    """Rows in a fixed order."""

    feature_names: tuple[str, ...] | None = None
    names: Sequence[str] | None = None
    """What the data calls its rows, where it does."""

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

    def some(self, x: Any, start: int, stop: int) -> Any:
        """Rows ``start`` to ``stop`` of what was read."""
        return x[start:stop]

    @abstractmethod
    def digest(self, numbers: Sequence[int]) -> str:
        """A hash of what the rows hold, which changes whenever one of them does."""

    def read_or_said(self, numbers: Sequence[int]) -> ReadRows:
        """Rows by their numbers; where reading them together fails, those that cannot be read alone
        are said."""
        try:
            return self.read(numbers)
        except Exception as error:  # whatever numpy, pyarrow and zarr raise of damaged files
            if len(numbers) == 1:
                return ReadRows(
                    None, [], {numbers[0]: f"The row cannot be read: {words_of(error)}"}
                )
        parts = [self.read_or_said([number]) for number in numbers]
        kept = [number for part in parts for number in part.numbers]
        failed = {number: reason for part in parts for number, reason in part.failed.items()}
        return ReadRows(self.read(kept).x if kept else None, kept, failed)

    def digest_or_said(self, numbers: Sequence[int]) -> str:
        """The hash of rows, also of some that cannot be read."""
        try:
            return self.digest(numbers)
        except Exception as error:  # as above
            return digest_of([b"unreadable", type(error).__name__.encode()])

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """What rows are called."""
        return [self.name(n) if self.names is None else self.names[n] for n in numbers]

    def name(self, number: int) -> str:
        """What a row is called that the data does not name."""
        return str(number)


def read_each(
    numbers: Sequence[int], read: Callable[[int], T], *, fails_with: tuple[type[Exception], ...]
) -> tuple[list[T], list[int], dict[int, str]]:
    """Rows read one by one, the numbers of those that could be, and why the others could not."""
    rows, kept, failed = [], [], {}
    for number in numbers:
        try:
            rows.append(read(number))
        except fails_with as error:
            failed[number] = words_of(error)
        else:
            kept.append(number)
    return rows, kept, failed


def words_of(error: Exception) -> str:
    """Why something failed, on one line."""
    text = " ".join(str(error).split())
    return (
        text if isinstance(error, IntegrandError | OSError) else f"{type(error).__name__}: {text}"
    )


def digest_of(parts: Sequence[bytes]) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for content in parts:
        hashed.update(len(content).to_bytes(8, "big") + content)
    return hashed.hexdigest()
