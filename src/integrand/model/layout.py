"""Arrangement of a model's inputs in one tensor: packing several inputs and unpacking them.

A single tensor keeps its shape. A tuple or dict of tensors is laid end to end, one long vector per
example, and cut up again in front of the model; results are cut up the same way. NumPy arrays are
taken as tensors, and data frames as tensors whose columns have names.

Numbers reach the model as they were given. Whole numbers of 32 or 64 bits, such as ids, are carried
in float64, which holds them exactly up to 2^53; they are compared and looked up, never averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.frames import FrameLike, Table, checked_names, is_frame, numbers_of
from ..core.shapes import as_tensor, carried, carrier, describe
from ..errors import InputError, IntegerInput, ShapeError
from .doors import Encoding, encoded_as_given

Array = Tensor | NDArray[Any]

InputsLike = Array | FrameLike | Sequence[Array | FrameLike] | Mapping[Any, Array | FrameLike]
"""What ``inputs`` take: a tensor or array (B, \\*s), a data frame, or a tuple, list or mapping of them."""


@dataclass(frozen=True)
class Layout:
    """How inputs are arranged.

    Attributes:
        names: of a dict's entries; None for a tuple or a single tensor.
        shapes: of one example of each part.
        dtypes: of each part, which the model is given.
        single: whether there is one tensor, array or frame.
        tables: column names and row labels of each part; None where they have none.
        encoding: how the rows of a table became those of the one input; None where they are it.
        source: what maps of that table are told in; None without an encoding.
    """

    names: tuple[Any, ...] | None
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    single: bool
    tables: tuple[Table | None, ...] = field(default=(), compare=False)
    encoding: Encoding | None = field(default=None, compare=False)
    source: Table | None = field(default=None, compare=False)

    @classmethod
    def of(cls, inputs: InputsLike, *, integers: bool = False) -> Layout:
        """The layout of a tensor, a tuple or list of tensors, or a mapping of them; checks what
        they hold, and lets ``integers`` through where nobody will ask for their gradient."""
        return cls._read(inputs, integers=integers, dtype=None)[0]

    @classmethod
    def packed(
        cls,
        inputs: InputsLike,
        *,
        integers: bool = False,
        dtype: torch.dtype | None = None,
        columns: Sequence[str] = (),
    ) -> tuple[Layout, Tensor]:
        """The layout of inputs, and what ``pack`` makes of them, each of them read once.

        Args:
            inputs: tensors, arrays and data frames are parts alike.
            integers: let whole numbers through, where nobody will ask for their gradient.
            dtype: what the numbers of frames, and float64 arrays, which nobody chose, become; the
                default type of torch, and float64, unless given.
            columns: the order that the columns of a frame are read in; their own unless given.
        """
        layout, tensors = cls._read(inputs, integers=integers, dtype=dtype, columns=columns)
        return layout, layout._state(tensors)

    @classmethod
    def encoded(
        cls, encoding: Encoding, table: object, dtype: torch.dtype | None = None
    ) -> tuple[Layout, Tensor]:
        """The layout of a table that an ``encoding`` reads, and its rows of numbers."""
        x = encoding.rows(table)
        x = x if dtype is None else x.to(dtype)
        _check("", x, integers=False)
        source = encoding.described(table)
        tables = (Table(encoding.columns, source.index),)
        layout = cls(None, (tuple(x.shape[1:]),), (x.dtype,), True, tables, encoding, source)
        return layout, x

    def numbers(self, table: Any, key: Any, dtype: torch.dtype) -> Tensor:
        """A frame, or with an encoding other rows of its table, as numbers of one part."""
        if self.encoding is None:
            return numbers_of(table, dtype, self.columns(key))
        rows = (
            self.encoding.rows(table) if is_frame(table) else encoded_as_given(self.encoding, table)
        )
        return rows.to(dtype)

    def repeated(self, times: int) -> Layout:
        """The layout of the same inputs, each of them ``times`` over, one after the other."""

        def each(table: Table | None) -> Table | None:
            rows = 0 if table is None else max(len(table.index), *map(len, table.shown.values()), 0)
            return table and table.at([row for row in range(rows) for _ in range(times)])

        return replace(self, tables=tuple(map(each, self.tables)), source=each(self.source))

    @classmethod
    def _read(
        cls,
        inputs: InputsLike,
        *,
        integers: bool,
        dtype: torch.dtype | None,
        columns: Sequence[str] = (),
    ) -> tuple[Layout, list[Tensor]]:
        """The layout, and every part as a tensor."""
        single, names = False, None
        if isinstance(inputs, Tensor | np.ndarray) or is_frame(inputs):
            parts, single = [inputs], True
        elif is_mapping(inputs):
            entries = dict(inputs.items())
            parts, names = list(entries.values()), tuple(entries)
        elif isinstance(inputs, tuple | list):
            parts = list(inputs)
        else:
            raise InputError(
                f"Inputs are a tensor with a batch axis, a tuple or a dict of them; got {type(inputs).__name__}."
            )
        if not parts:
            raise InputError("There are no inputs to explain: give at least one tensor.")
        labels = [""] if single else [f" {n!r}" for n in (names or range(len(parts)))]
        tensors = [
            _tensor(part, f"Input{label}", dtype, columns if single else ())
            for label, part in zip(labels, parts, strict=True)
        ]
        for label, part in zip(labels, tensors, strict=True):
            _check(label, part, integers=integers)
        if len({len(part) for part in tensors}) != 1:
            shown = ", ".join(describe(part.shape) for part in tensors)
            raise ShapeError(f"Every input needs the same batch size, but the shapes are {shown}.")
        shapes = tuple(tuple(part.shape[1:]) for part in tensors)
        tables = tuple(Table.of(part) if is_frame(part) else None for part in parts)
        if single and columns and tables[0] is not None:
            tables = (replace(tables[0], names=tuple(columns)),)
        layout = cls(names, shapes, tuple(part.dtype for part in tensors), single, tables)
        return layout, tensors

    @property
    def keys(self) -> tuple[Any, ...]:
        """What the parts are called: the names of a dict's entries, or their numbers."""
        return tuple(range(len(self.shapes))) if self.names is None else self.names

    def named(self, feature_names: Sequence[str]) -> Layout:
        """The same layout with names for the columns of its one input.

        Raises:
            InputError: for another number of names, and for inputs that are no rows of columns.
        """
        if self.source is not None:
            return replace(self, source=self.source.renamed(feature_names))
        names = checked_names(feature_names)
        if not self.single or len(self.shapes[0]) != 1 or len(names) != self.shapes[0][0]:
            shapes = ", ".join(describe(shape) for shape in self.shapes)
            raise InputError(
                f"There are {len(names)} feature names for examples of shape {shapes}: give one for each column of (B, N)."
            )
        table = self.tables[0] or Table(())
        return replace(self, tables=(replace(table, names=names),))

    @property
    def features(self) -> Tensor | None:
        """Which numbers of an example are one feature of the table that was encoded, a label map
        (N,); None without an encoding."""
        return None if self.encoding is None else torch.tensor(self.encoding.origin)

    def columns(self, key: Any) -> tuple[str, ...]:
        """The names of the columns of one part; none where it is no frame."""
        table = dict(zip(self.keys, self.tables, strict=False)).get(key)
        return () if table is None else table.names

    def pack(self, inputs: InputsLike) -> Tensor:
        """Inputs as the user gave them → one state tensor (B, \\*s)."""
        given: Any = inputs
        values = [given] if self.single else given
        if self.names is not None:
            values = [given[name] for name in self.names]
        parts = [
            _tensor(part, "Input", dtype, self.columns(key))
            for key, part, dtype in zip(self.keys, values, self.dtypes, strict=True)
        ]
        return self._state(parts)

    def _state(self, tensors: Sequence[Tensor]) -> Tensor:
        """Parts (B, \\*s_i) → one state tensor (B, \\*s), in a type that carries them all."""
        parts = [part.detach() for part in tensors]
        dtype = reduce(torch.promote_types, (carrier(part.dtype, part.device) for part in parts))
        labels = [""] if self.single else [f" {key!r}" for key in self.keys]
        state = [
            carried(part, dtype, f"Input{label}") for label, part in zip(labels, parts, strict=True)
        ]
        return state[0] if self.single else self.join(state)

    def split(self, z: Tensor, leading: int = 1) -> list[Tensor]:
        """One tensor (L…, \\*s) → that of each part (L…, \\*s_i)."""
        if self.single:
            return [z]
        pieces = torch.split(z, [math.prod(shape) for shape in self.shapes], leading)
        return [
            piece.reshape(*z.shape[:leading], *shape)
            for piece, shape in zip(pieces, self.shapes, strict=True)
        ]

    def join(self, parts: Sequence[Tensor], leading: int = 1) -> Tensor:
        """What ``split`` made, laid end to end again."""
        if self.single:
            return parts[0]
        return torch.cat([part.reshape(*part.shape[:leading], -1) for part in parts], leading)

    def unpack(self, z: Tensor, leading: int = 1, *, model: bool = False) -> Any:
        """One tensor (L…, \\*s) → the arrangement the user gave; ``model`` also restores the
        types."""
        parts = self.split(z, leading)
        if model:
            parts = [_restored(part, dtype) for part, dtype in zip(parts, self.dtypes, strict=True)]
        return self.arranged(parts)

    def arranged(self, parts: Sequence[Any]) -> Any:
        """Something for each part, arranged as the parts were."""
        if self.single:
            return parts[0]
        return dict(zip(self.names, parts, strict=True)) if self.names is not None else tuple(parts)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether something has entries by name; what a tokenizer returns does, and is no
    ``Mapping``."""
    return isinstance(value, Mapping) or (hasattr(value, "items") and not is_frame(value))


def _restored(part: Tensor, dtype: torch.dtype) -> Tensor:
    """A part in the type the model was given; whole numbers are what they were, or an error."""
    restored = part.to(dtype)
    if not dtype.is_floating_point and not bool((restored == part).all()):
        raise IntegerInput(
            f"An input of {str(dtype).removeprefix('torch.')} would be given to the model with numbers that are not whole, or too large "
            "for it, such as the mean of several ids: start from a baseline of whole numbers."
        )
    return restored


def _tensor(
    part: object, who: str, dtype: torch.dtype | None = None, columns: Sequence[str] = ()
) -> Tensor:
    """A part as a tensor: arrays are copied, so that nothing is shared with their owner."""
    if isinstance(part, Tensor):
        return as_tensor(part)
    if is_frame(part):
        return numbers_of(part, dtype or torch.get_default_dtype(), columns)
    if isinstance(part, np.ma.MaskedArray) and bool(np.ma.getmaskarray(part).any()):
        raise InputError(
            f"{who} is an array with masked entries, and a model has no mask: fill them first, with array.filled(value)."
        )
    if not isinstance(part, np.ndarray):
        raise InputError(f"{who} is a {type(part).__name__}, not a tensor.")
    try:
        array = torch.from_numpy(np.array(part, dtype=part.dtype.newbyteorder("="), order="C"))
    except TypeError:
        raise InputError(f"{who} is an array of {part.dtype}, not of numbers.") from None
    return array.to(dtype) if dtype is not None and array.dtype == torch.float64 else array


def _check(label: str, part: Tensor, *, integers: bool) -> None:
    if part.layout != torch.strided or part.is_nested or part.is_quantized:
        kind, cure = (
            ("nested", "pad it and give the mask as extra=")
            if part.is_nested
            else ("quantized", "give it as .dequantize()")
            if part.is_quantized
            else ("sparse", "give it as .to_dense()")
        )
        raise InputError(f"Input{label} is a {kind} tensor: {cure}.")
    if part.device.type == "meta":
        raise InputError(
            f"Input{label} is on the meta device and holds no numbers: give it on a real one."
        )
    if part.ndim == 0 or len(part) == 0:
        raise ShapeError(
            f"Input{label} has shape {describe(part.shape)}: the first axis is the batch and may not be missing or empty. "
            "For one example add it with x[None]."
        )
    if part.numel() == 0:
        raise ShapeError(
            f"Input{label} has shape {describe(part.shape)}: examples without numbers cannot be explained."
        )
    if part.is_complex():
        raise InputError(
            f"Input{label} holds {str(part.dtype).removeprefix('torch.')}: complex numbers have no real gradient. Give real and imaginary "
            "parts as numbers of their own, torch.view_as_real(x), and let the model join them."
        )
    if not part.is_floating_point() and not integers:
        raise IntegerInput(
            f"Input{label} holds {str(part.dtype).removeprefix('torch.')}, which has no gradient. Convert images with "
            ".float(); give masks and token ids that only accompany the input as extra=; explain tokens at "
            "their embeddings (method='layer', site=the embedding layer)."
        )
