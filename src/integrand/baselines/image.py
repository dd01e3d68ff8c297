"""Image baselines: even colours, blurred and averaged inputs."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ..core.declared import factory
from ..core.shapes import describe, over
from ..core.values import part
from ..errors import BaselineError
from ..fields import Field
from .per_input import OfEach, unlike


def _image(x: Tensor, who: str) -> None:
    if x.ndim != 4:
        raise BaselineError(
            f"{who} needs images of shape (channels, height, width), but an example has shape {describe(x.shape[1:])}. "
            "Use ig.baselines.Constant, Given or Sample."
        )


@part
class Colour(OfEach):
    """An even colour, in the units of the eye: 0 is black, 1 is white, per channel or for all.

    The field's normalisation turns it into the model's numbers.

    Args:
        colour: from 0 to 1, one number for all channels or one for each; black unless given.
        label: what reports call it.

    Raises:
        BaselineError: for what is no image.

    Example:
        >>> import integrand as ig
        >>> ig.baselines.Colour((0.5,), "grey")
        Colour((0.5,), 'grey')
    """

    colour: tuple[float, ...] = (0.0,)
    label: str = "colour"
    count: ClassVar[int] = 1

    def of(self, x: Tensor, field: Field) -> Tensor:
        if field.normalisation is None:
            raise BaselineError(
                f"A {self.label} baseline needs to know which number the model takes for {self.label}: pass normalisation= "
                "(e.g. ig.Normalisation.imagenet(), or .unit() for images in [0, 1]), or give the number as the baseline."
            )
        _image(x, f"A {self.label} baseline")
        colour = torch.tensor(self.colour, dtype=x.dtype, device=x.device)[:, None, None]
        return field.normalisation.encode(colour.expand(x.shape[1:])).expand(1, *x.shape)


@factory
def black() -> Colour:
    """Black to the eye, whatever the model's normalisation."""
    return Colour((0.0,), "black")


@factory
def white() -> Colour:
    """White to the eye."""
    return Colour((1.0,), "white")


@factory
def grey(level: float = 0.5) -> Colour:
    """An even grey; 0.5 is half way between black and white.

    Args:
        level: from 0, black, to 1, white.
    """
    return Colour((level,), "grey")


@part
class Extreme(OfEach):
    """An even image of the input's own smallest number, or its ``largest``: XRAI's black and
    white.

    Args:
        largest: whether it is the largest number, not the smallest.
    """

    largest: bool = False
    count: ClassVar[int] = 1

    @property
    def label(self) -> str:
        return "lightest" if self.largest else "darkest"

    def of(self, x: Tensor, field: Field) -> Tensor:
        if x.ndim < 3:
            unlike(x, f"The {'largest' if self.largest else 'smallest'} number")
        numbers = x.flatten(1)
        number = numbers.amax(1) if self.largest else numbers.amin(1)
        return over(number, x).expand(1, *x.shape)


@part
class Blurred(OfEach):
    """The input under a Gaussian blur.

    Edges are reflected, and the kernel is cut at 3 σ.

    Args:
        sigma: the standard deviation of the blur, in pixels.
        label: what reports call it.

    Raises:
        BaselineError: for what is no image.

    Cost:
        Two one-dimensional convolutions per image.

    Example:
        >>> import torch, integrand as ig
        >>> start = ig.baselines.Blurred(3.0)
        >>> start(torch.ones(2, 3, 8, 8), ig.fields.Linear(torch.ones(3, 8, 8))).shape
        torch.Size([1, 2, 3, 8, 8])
    """

    sigma: float = 10.0
    label: str = "blurred"
    count: ClassVar[int] = 1

    def of(self, x: Tensor, field: Field) -> Tensor:
        _image(x, "A blurred baseline")
        if self.sigma < 0:
            raise BaselineError(f"A blur has a positive width, not sigma={self.sigma}.")
        return blur(x, self.sigma)[None]


def blur(x: Tensor, sigma: float) -> Tensor:
    """Images (N, C, H, W) under a Gaussian of ``sigma`` pixels; edges are reflected as often as the
    kernel needs."""
    if sigma == 0:
        return x
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    for axis in (2, 3):
        length = x.shape[axis]
        # One long reflection, period 2 · length: …2 1 0 | 0 1 2 … n | n …
        where = torch.arange(-radius, length + radius, device=x.device) % (2 * length)
        where = torch.where(where < length, where, 2 * length - 1 - where)
        shape = [1, 1, 1, 1]
        shape[axis] = len(kernel)
        weight = kernel.reshape(shape).expand(channels, *shape[1:])
        x = torch.nn.functional.conv2d(x.index_select(axis, where), weight, groups=channels)
    return x


@part
class Mean(OfEach):
    """The input's own mean colour, per channel (C, …).

    Args:
        label: what reports call it.

    Raises:
        BaselineError: for columns and other numbers of different kinds.
    """

    label: str = "mean"
    count: ClassVar[int] = 1

    def of(self, x: Tensor, field: Field) -> Tensor:
        unlike(x, "The mean")
        return over(x.flatten(2).mean(-1), x).expand(1, *x.shape)


@part
class Median(OfEach):
    """The input's own median colour, per channel (C, …).

    Args:
        label: what reports call it.

    Raises:
        BaselineError: for columns and other numbers of different kinds.
    """

    label: str = "median"
    count: ClassVar[int] = 1

    def of(self, x: Tensor, field: Field) -> Tensor:
        unlike(x, "The median")
        return over(x.flatten(2).quantile(0.5, -1), x).expand(1, *x.shape)


@part
class Corners(OfEach):
    """The mean colour of the four corners, a guess at the background.

    Each corner patch is a tenth of the height on a side.

    Per channel; the four patch means are averaged.

    Args:
        share: the side of a corner's patch, as a fraction of the image's.
        label: what reports call it.

    Raises:
        BaselineError: for what is no image.

    References:
        The fill of Weighted Gradients (arXiv 2505.03201).

    Example:
        >>> import torch, integrand as ig
        >>> start = ig.baselines.Corners()
        >>> start(torch.ones(2, 3, 8, 8), ig.fields.Linear(torch.ones(3, 8, 8))).shape
        torch.Size([1, 2, 3, 8, 8])
    """

    share: float = 0.1
    label: str = "corners"
    count: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 0.5:
            raise BaselineError(
                f"share is the fraction of the height that a corner takes, above 0 and up to 0.5, not {self.share}."
            )

    def of(self, x: Tensor, field: Field) -> Tensor:
        _image(x, "The corner colour")
        side = max(1, math.floor(self.share * x.shape[2]))
        low, high = slice(None, side), slice(-side, None)
        patches = [x[:, :, rows, columns] for rows in (low, high) for columns in (low, high)]
        colour = torch.stack([patch.flatten(2).mean(-1) for patch in patches]).mean(0)
        return colour[:, :, None, None].expand(1, *x.shape)
