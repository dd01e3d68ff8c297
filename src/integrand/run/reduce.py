"""What is kept of a map: channels summed, pooled to n × n, the largest k, in fewer bytes. Sums stay
sums."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .recipe import StoreSection

_TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "int8": torch.int8,
}


@dataclass(frozen=True)
class Reduced:
    """Maps as they are stored: values (n, \\*r); where they are int8 a scale (n,) for each; of the
    largest k, (n, k) places in the flattened map."""

    values: Tensor
    scale: Tensor | None = None
    places: Tensor | None = None


@dataclass(frozen=True)
class Reduction:
    """How maps of rows of a ``shape`` are kept.

    Raises:
        InputError: for a reduction that does not fit the shape.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels: str = "keep"
    pool: int | None = None
    stored: torch.dtype | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.channels == "sum" and len(self.shape) < 2:
            raise InputError(
                f'store.channels = "sum" needs rows with channels, not of shape {self.shape}.'
            )
        if self.pool is not None and (
            len(self.shape) < 2 or any(side % self.pool for side in self.shape[-2:])
        ):
            raise InputError(
                f"store.pool = {self.pool} does not divide the last two sides of rows of shape {self.shape}."
            )
        if self.top_k is not None and self.top_k > math.prod(self.map_shape):
            raise InputError(
                f"store.top_k = {self.top_k} is more than the {math.prod(self.map_shape)} numbers of a map."
            )

    @classmethod
    def of(cls, section: StoreSection, shape: tuple[int, ...], dtype: torch.dtype) -> Reduction:
        """The reduction that a recipe asks for."""
        stored = None if section.dtype is None else _TYPES[section.dtype]
        return cls(shape, dtype, section.channels, section.pool, stored, section.top_k)

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """The shape of one map as it is stored."""
        return self.map_shape if self.top_k is None else (self.top_k,)

    @property
    def map_shape(self) -> tuple[int, ...]:
        """The shape of one map before its largest numbers are picked."""
        shape = self.shape[1:] if self.channels == "sum" else self.shape
        return shape if self.pool is None else (*shape[:-2], self.pool, self.pool)

    @property
    def kept_dtype(self) -> torch.dtype:
        """The type that maps are stored in."""
        return self.stored or self.dtype

    def __call__(self, values: Tensor) -> Reduced:
        """Maps (n, \\*shape) → what is stored of them."""
        if self.channels == "sum":
            values = values.sum(1)
        if self.pool is not None:
            *outer, height, width = values.shape
            blocks = (self.pool, height // self.pool, self.pool, width // self.pool)
            values = values.reshape(*outer, *blocks).sum((-3, -1))
        places = None
        if self.top_k is not None:
            flat = values.flatten(1)
            # Of equal sizes the first, whatever the machine: sorting is stable, topk is not.
            order = flat.abs().sort(dim=1, descending=True, stable=True).indices
            places = order[:, : self.top_k]
            values = flat.gather(1, places)
        if self.stored is not torch.int8:
            return Reduced(values.to(self.kept_dtype), None, places)
        largest = (
            values.flatten(1).abs().amax(1) if values[0].numel() else values.new_zeros(len(values))
        )
        scale = torch.where(largest > 0, largest / 127, 1).to(torch.float32)
        steps = values / scale.reshape(-1, *(1,) * (values.ndim - 1))
        return Reduced(steps.round().clamp(-127, 127).to(torch.int8), scale, places)
