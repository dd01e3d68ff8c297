"""Data frames: pandas, polars and pyarrow tables as numbers with names, and numbers as frames again.

A frame is recognised by its library, which must have been imported for there to be one; it is read
through narwhals, so that all of them are read alike. Columns are whole features, in their order;
a column that holds no numbers is refused by name, never guessed at.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .optional import is_instance, optional

FRAMES = (
    ("pandas", "DataFrame", "columns"),
    ("polars", "DataFrame", "columns"),
    ("pyarrow", "Table", "column_names"),
)
"""The kinds of frames: their library, and what it calls them and the list of their columns."""

_NEEDS = "Reading a data frame"
_CURE = (
    "Encode them as numbers first, or explain the whole pipeline that does: "
    "ig.explain(pipeline, frame)."
)


class FrameLike(Protocol):
    """A data frame: of pandas, polars or pyarrow."""

    @property
    def columns(self) -> Any: ...

    @property
    def shape(self) -> Any: ...


Cell = str | float | None
"""What stands in one cell of a table; None where nothing does."""


@dataclass(frozen=True, eq=False)
class Table:
    """What belongs to numbers (B, N) that came as a table.

    Attributes:
        names: (N,) of the columns.
        index: (B,) labels of the rows, as a pandas frame had them; empty where they are counted.
        shown: for some columns, by name, what (B,) readers see in place of the numbers: words, or
            numbers before they were scaled.
    """

    names: tuple[str, ...]
    index: tuple[Hashable, ...] = ()
    shown: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, frame: object) -> Table:
        """The names of a frame's columns, and its row labels where they say more than a count."""
        index: tuple[Hashable, ...] = ()
        if is_instance(frame, "pandas", "DataFrame"):
            labels = frame.index  # type: ignore[attr-defined]
            if labels.tolist() != list(range(len(labels))):
                index = tuple(labels.tolist())
        return cls(column_names(frame), index)

    def renamed(self, names: Sequence[str]) -> Table:
        """The same table with other names (N,) for its columns.

        Raises:
            InputError: for another number of names, and for a name that comes twice.
        """
        checked = checked_names(names)
        if len(checked) != len(self.names):
            raise InputError(
                f"There are {len(checked)} feature names for {len(self.names)} columns: give one for each."
            )
        new = dict(zip(self.names, checked, strict=True))
        shown = {new[name]: cells for name, cells in self.shown.items()}
        return replace(self, names=tuple(new.values()), shown=shown)

    def at(self, rows: Sequence[int]) -> Table:
        """The same table of some of its rows."""
        return replace(
            self,
            index=tuple(self.index[row] for row in rows) if self.index else (),
            shown={name: tuple(cells[row] for row in rows) for name, cells in self.shown.items()},
        )


def is_frame(value: object) -> bool:
    """Whether a value is a data frame of a library known here."""
    return _labels_of(value) is not None


def checked_names(names: object) -> tuple[str, ...]:
    """Names of columns, as text.

    Raises:
        InputError: for what has no order or is one word, and for a name that comes twice.
    """
    if isinstance(names, str | bytes | Set | Mapping) or not isinstance(names, Iterable):
        raise InputError(
            f"feature_names= is a list with a name for each column in their order, not a {type(names).__name__}."
        )
    listed = tuple(map(str, names))
    twice = next((name for name in listed if listed.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"feature_names= has {twice!r} more than once: give every column a name of its own."
        )
    return listed


def column_names(frame: object) -> tuple[str, ...]:
    """The names of the columns, in their order; what is no text is written as text.

    Raises:
        InputError: for a name that two columns have.
    """
    names = tuple(str(label) for label in _labels_of(frame) or ())
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"The frame has several columns called {twice!r}: rename them.")
    return names


def numbers_of(frame: object, dtype: torch.dtype, columns: Sequence[str] = ()) -> Tensor:
    """The numbers of a frame, (rows, columns); missing entries are NaN.

    Args:
        frame: of pandas, polars or pyarrow.
        dtype: the type they are given.
        columns: which columns, in which order; all, in theirs, unless given.

    Raises:
        InputError: for columns that hold no numbers and for those that the frame lacks.
        MissingExtra: without narwhals.
    """
    names = column_names(frame)
    # Some libraries (LightGBM) keep the names that they were given with underlines for spaces.
    underlined = tuple(name.replace(" ", "_") for name in names)
    if set(columns) != set(names) and sorted(underlined) == sorted(columns):
        names = underlined
    missing = [name for name in columns if name not in names]
    surplus = [name for name in names if name not in columns] if columns else []
    if missing or surplus:
        raise InputError(_unlike(missing, surplus))
    narwhals = optional("narwhals", extra="tables", needs=_NEEDS)
    opened = narwhals.from_native(frame, eager_only=True)
    series = {name: opened[:, position] for position, name in enumerate(names)}
    wrong = [
        f"{name!r} ({column.dtype})"
        for name, column in series.items()
        if not (column.dtype.is_numeric() or column.dtype == narwhals.Boolean)
    ]
    if wrong:
        raise InputError(f"Columns that hold no numbers: {', '.join(wrong)}. {_CURE}")
    table = np.empty((len(opened), len(names)))
    for place, name in enumerate(columns or names):
        floats = series[name].cast(narwhals.Float64)
        table[:, place] = floats.fill_null(float("nan")).to_numpy()
    return torch.from_numpy(table).to(dtype)


def row_as_frame(value: object) -> Any:
    """A pandas Series, such as ``frame.mean()``, as a frame of one row; anything else as it is."""
    if not is_instance(value, "pandas", "Series"):
        return value
    return value.to_frame().T.infer_objects()  # type: ignore[attr-defined]


def frame_of(columns: Mapping[str, Any], index: object = None) -> Any:
    """A pandas DataFrame of named columns.

    Raises:
        MissingExtra: without pandas.
    """
    pandas = optional("pandas", extra="tables", needs="to_pandas()")
    return pandas.DataFrame(dict(columns), index=index)


def _labels_of(value: object) -> list[object] | None:
    """The labels of the columns as the library has them, which may appear twice; None of what is no
    frame."""
    for library, kind, labels in FRAMES:
        if is_instance(value, library, kind):
            return list(getattr(value, labels))
    return None


def _unlike(missing: Sequence[str], surplus: Sequence[str]) -> str:
    parts = [
        f"{word} {', '.join(map(repr, names))}"
        for word, names in (("lacks", missing), ("has besides", surplus))
        if names
    ]
    return f"The frame {' and '.join(parts)}: give the columns of the inputs, in any order."
