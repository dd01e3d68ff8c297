"""What is kept of a map: channels summed, pooled to n × n, in fewer bytes. Sums stay sums."""

from __future__ import annotations

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
    """Maps as they are stored: values (n, \\*r), and a scale (n,) for each where they are int8."""

    values: Tensor
    scale: Tensor | None = None


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

    @classmethod
    def of(cls, section: StoreSection, shape: tuple[int, ...], dtype: torch.dtype) -> Reduction:
        """The reduction that a recipe asks for."""
        stored = None if section.dtype is None else _TYPES[section.dtype]
        return cls(shape, dtype, section.channels, section.pool, stored)

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """The shape of one map as it is stored."""
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
        if self.stored is not torch.int8:
            return Reduced(values.to(self.kept_dtype))
        largest = (
            values.flatten(1).abs().amax(1) if values[0].numel() else values.new_zeros(len(values))
        )
        scale = torch.where(largest > 0, largest / 127, 1).to(torch.float32)
        steps = values / scale.reshape(-1, *(1,) * (values.ndim - 1))
        return Reduced(steps.round().clamp(-127, 127).to(torch.int8), scale)
