"""Normalisation of images: the mapping from the numbers of a tensor to colours.

A model sees ``(colour − mean) / std``; a person sees colours between 0 (black) and 1 (white).
Whoever needs a black baseline, a data range to stay inside, or a picture to draw asks this one
value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Normalisation:
    """``z = (colour − mean) / std`` per channel, colour in [0, 1].

    >>> import integrand as ig
    >>> n = ig.Normalisation.imagenet()
    >>> n.decode(n.encode(torch.full((3, 2, 2), 0.5))).unique().tolist()
    [0.5]

    Args:
        mean: one for each channel, or one for all.
        std: likewise; above 0.

    Raises:
        InputError: for numbers that are none, and for other counts than one or the same.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.mean or not all(math.isfinite(number) for number in self.mean):
            raise InputError(
                f"Normalisation takes a finite mean for each channel, not mean={self.mean}."
            )
        if not self.std or not all(math.isfinite(number) and number > 0 for number in self.std):
            raise InputError(
                f"Normalisation divides by std=, which is above 0 for each channel, not std={self.std}."
            )
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise InputError(
                f"Normalisation has {len(self.mean)} means and {len(self.std)} deviations: give one of each for every channel."
            )

    @classmethod
    def unit(cls) -> Normalisation:
        """Inputs are colours in [0, 1], as they are."""
        return cls()

    @classmethod
    def imagenet(cls) -> Normalisation:
        """torchvision's usual mean and standard deviation."""
        return cls((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @classmethod
    def symmetric(cls) -> Normalisation:
        """Colours stretched to [−1, 1]."""
        return cls((0.5,), (0.5,))

    def _column(self, numbers: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(numbers, dtype=like.dtype, device=like.device)[:, None, None]

    def encode(self, colour: Tensor) -> Tensor:
        """Colours (…, C, H, W) in [0, 1] → what the model sees."""
        return (colour - self._column(self.mean, colour)) / self._column(self.std, colour)

    def decode(self, z: Tensor) -> Tensor:
        """What the model sees (…, C, H, W) → colours in [0, 1]."""
        return (z * self._column(self.std, z) + self._column(self.mean, z)).clamp(0, 1)

    def range(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and largest number an image may hold, per channel (C|1, 1, 1)."""
        zero = torch.zeros(len(self.mean), 1, 1, dtype=like.dtype, device=like.device)
        return self.encode(zero), self.encode(zero + 1)


def checked_normalisation(value: object) -> Normalisation | None:
    """What ``normalisation=`` takes, a ``Normalisation`` or None.

    Raises:
        InputError: for anything else.
    """
    if value is None or isinstance(value, Normalisation):
        return value
    raise InputError(
        f"normalisation= is an ig.Normalisation, such as ig.Normalisation.imagenet() or ig.Normalisation(mean=(0.5,), std=(0.5,)), not {repr(value)[:60]}."
    )
