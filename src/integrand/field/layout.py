"""How a model's inputs are arranged, so that everything else works with one tensor.

A single tensor keeps its shape. A tuple or dict of tensors is laid end to end, one long vector per example, and cut up again
in front of the model; results are cut up the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, IntegerInput, ShapeError
from ..shapes import describe, state_dtype


@dataclass(frozen=True)
class Layout:
    """``names`` of a dict's entries (None for a tuple or a single tensor), and shape and type of each part."""

    names: tuple[Any, ...] | None
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    single: bool

    @classmethod
    def of(cls, inputs: Any, *, integers: bool = False) -> Layout:
        """The layout of a tensor, a tuple or list of tensors, or a mapping of them; checks what they hold.

        ``integers`` are let through where nobody will ask for their gradient.
        """
        if isinstance(inputs, Tensor):
            parts, names, single = [inputs], None, True
        elif isinstance(inputs, Mapping) or hasattr(inputs, "items"):
            entries = dict(inputs.items())
            parts, names, single = list(entries.values()), tuple(entries), False
        elif isinstance(inputs, tuple | list):
            parts, names, single = list(inputs), None, False
        else:
            raise InputError(
                f"Inputs are a tensor with a batch axis, a tuple or a dict of them; got {type(inputs).__name__}."
            )
        labels = [""] if single else [f" {n!r}" for n in (names or range(len(parts)))]
        for label, part in zip(labels, parts, strict=True):
            _check(label, part, integers=integers)
        batches = {len(part) for part in parts}
        if not parts:
            raise InputError("There are no inputs to explain: give at least one tensor.")
        if len(batches) != 1:
            shown = ", ".join(describe(part.shape) for part in parts)
            raise ShapeError(f"Every input needs the same batch size, but the shapes are {shown}.")
        shapes = tuple(tuple(part.shape[1:]) for part in parts)
        return cls(names, shapes, tuple(part.dtype for part in parts), single)

    def pack(self, inputs: Any) -> Tensor:
        """Inputs as the user gave them → one state tensor (B, \\*s)."""
        if self.single:
            return self._state(inputs)
        parts = [inputs[n] for n in self.names] if self.names is not None else list(inputs)
        return torch.cat([self._state(part).reshape(len(part), -1) for part in parts], 1)

    def unpack(self, z: Tensor, leading: int = 1, *, model: bool = False) -> Any:
        """One tensor (L…, \\*s) → the arrangement the user gave; ``model`` also restores the types."""
        if self.single:
            return z.to(self.dtypes[0]) if model else z
        sizes = [max(1, int(torch.Size(shape).numel())) for shape in self.shapes]
        pieces = torch.split(z, sizes, leading)
        parts = [piece.reshape(*z.shape[:leading], *shape) for piece, shape in zip(pieces, self.shapes, strict=True)]
        if model:
            parts = [part.to(dtype) for part, dtype in zip(parts, self.dtypes, strict=True)]
        return dict(zip(self.names, parts, strict=True)) if self.names is not None else tuple(parts)

    def _state(self, part: Tensor) -> Tensor:
        dtype = self.dtypes[0]
        for other in self.dtypes[1:]:
            dtype = torch.promote_types(dtype, other)
        return part.detach().to(state_dtype(dtype))


def _check(label: str, part: Any, *, integers: bool) -> None:
    if not isinstance(part, Tensor):
        raise InputError(f"Input{label} is a {type(part).__name__}, not a tensor.")
    if part.ndim == 0 or len(part) == 0:
        raise ShapeError(
            f"Input{label} has shape {describe(part.shape)}: the first axis is the batch and may not be missing or empty. "
            "For one example add it with x[None]."
        )
    if not part.is_floating_point() and not (integers and not part.is_complex()):
        raise IntegerInput(
            f"Input{label} holds {str(part.dtype).removeprefix('torch.')}, which has no gradient. Convert images with "
            ".float(); give masks and token ids that only accompany the input as extra=; explain tokens at "
            "their embeddings (method='layer', site=the embedding layer)."
        )
