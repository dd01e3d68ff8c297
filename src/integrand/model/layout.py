"""Arrangement of a model's inputs in one tensor: packing several inputs and unpacking them.

A single tensor keeps its shape. A tuple or dict of tensors is laid end to end, one long vector per
example, and cut up again in front of the model; results are cut up the same way. NumPy arrays are
taken as tensors.

Numbers reach the model as they were given. Whole numbers of 32 or 64 bits, such as ids, are carried
in float64, which holds them exactly up to 2^53; they are compared and looked up, never averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.shapes import carried, carrier, describe
from ..errors import InputError, IntegerInput, ShapeError

Array = Tensor | NDArray[Any]

InputsLike = Array | Sequence[Array] | Mapping[Any, Array]
"""What ``inputs`` take: a tensor or array (B, \\*s), or a tuple, list or mapping of them."""


@dataclass(frozen=True)
class Layout:
    """``names`` of a dict's entries (None for a tuple or a single tensor), and shape and type of
    each part."""

    names: tuple[Any, ...] | None
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    single: bool

    @classmethod
    def of(cls, inputs: InputsLike, *, integers: bool = False) -> Layout:
        """The layout of a tensor, a tuple or list of tensors, or a mapping of them; checks what
        they hold.

        ``integers`` are let through where nobody will ask for their gradient.
        """
        single, names = False, None
        if isinstance(inputs, Tensor | np.ndarray):
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
            _tensor(part, f"Input{label}") for label, part in zip(labels, parts, strict=True)
        ]
        for label, part in zip(labels, tensors, strict=True):
            _check(label, part, integers=integers)
        if len({len(part) for part in tensors}) != 1:
            shown = ", ".join(describe(part.shape) for part in tensors)
            raise ShapeError(f"Every input needs the same batch size, but the shapes are {shown}.")
        shapes = tuple(tuple(part.shape[1:]) for part in tensors)
        return cls(names, shapes, tuple(part.dtype for part in tensors), single)

    @property
    def keys(self) -> tuple[Any, ...]:
        """What the parts are called: the names of a dict's entries, or their numbers."""
        return tuple(range(len(self.shapes))) if self.names is None else self.names

    def pack(self, inputs: InputsLike) -> Tensor:
        """Inputs as the user gave them → one state tensor (B, \\*s)."""
        values = (
            [inputs]
            if self.single
            else [inputs[n] for n in self.names]
            if self.names is not None
            else inputs
        )
        parts = [_tensor(part, "Input").detach() for part in values]
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
        if self.single:
            return parts[0]
        return dict(zip(self.names, parts, strict=True)) if self.names is not None else tuple(parts)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether something has entries by name; what a tokenizer returns does, and is no
    ``Mapping``."""
    return isinstance(value, Mapping) or hasattr(value, "items")


def _restored(part: Tensor, dtype: torch.dtype) -> Tensor:
    """A part in the type the model was given; whole numbers are what they were, or an error."""
    restored = part.to(dtype)
    if not dtype.is_floating_point and not bool((restored == part).all()):
        raise IntegerInput(
            f"An input of {str(dtype).removeprefix('torch.')} would be given to the model with numbers that are not whole, or too large "
            "for it, such as the mean of several ids: start from a baseline of whole numbers."
        )
    return restored


def _tensor(part: object, who: str) -> Tensor:
    """A part as a tensor: arrays are copied, so that nothing is shared with their owner."""
    if isinstance(part, Tensor):
        return part
    if not isinstance(part, np.ndarray):
        raise InputError(f"{who} is a {type(part).__name__}, not a tensor.")
    try:
        return torch.from_numpy(np.array(part, dtype=part.dtype.newbyteorder("="), order="C"))
    except TypeError:
        raise InputError(f"{who} is an array of {part.dtype}, not of numbers.") from None


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
