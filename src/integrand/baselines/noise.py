"""Noise baselines; the same draws for every example, so that a batch equals its examples one by
one."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..core.options import whole
from ..core.random import generator
from ..core.values import part
from ..errors import BaselineError
from ..fields import Field
from .base import Baseline
from .image import _image


@part
class Uniform(Baseline):
    """Uniform noise between two numbers.

    Without bounds they are those of the field's images (black to white).

    Args:
        low: the smallest number; that of the field's images unless given.
        high: the largest number; that of the field's images unless given.
        count: R, how many references.
        seed: of the noise; the same for every example.
        label: what reports call it.

    Example:
        >>> import torch, integrand as ig
        >>> noise = ig.baselines.Uniform(0.0, 1.0, count=4)
        >>> noise(torch.ones(3, 2), ig.fields.Linear(torch.ones(2))).shape
        torch.Size([4, 3, 2])
    """

    low: float | None = None
    high: float | None = None
    count: int = 1
    seed: int = 0
    label: str = "uniform noise"

    resolution: ClassVar[str] = "count"

    def __post_init__(self) -> None:
        whole("count", self.count, least=1)

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        low: Tensor | float | None = self.low
        high: Tensor | float | None = self.high
        if low is None or high is None:
            if field.normalisation is None:
                raise BaselineError(
                    "Uniform noise needs its bounds: Uniform(low, high), or a field that knows its images "
                    "(normalisation=ig.Normalisation.imagenet())."
                )
            if field.layout is not None and not field.layout.single:
                raise BaselineError(
                    "Uniform noise between black and white is for one image; for several inputs give its bounds, Uniform(low, high), or "
                    "one for each: ig.baselines.PerInput((Uniform(), …))."
                )
            _image(x, "Noise between black and white")
            darkest, lightest = field.normalisation.range(x)
            low, high = (darkest if low is None else low), (lightest if high is None else high)
        shape = (self.count, 1, *x.shape[1:])
        noise = torch.rand(shape, generator=generator(self.seed), dtype=torch.float64).to(x)
        return (low + (high - low) * noise).expand(-1, len(x), *x.shape[1:])


@part
class Gaussian(Baseline):
    """Normal noise around ``mean``, or around the input itself.

    Args:
        std: the standard deviation, in units of the input.
        mean: what the noise lies around: a number, or "input" for the input itself.
        count: R, how many references.
        seed: of the noise; the same for every example.
        label: what reports call it.

    Example:
        >>> import torch, integrand as ig
        >>> noise = ig.baselines.Gaussian(0.1, mean="input", count=4)
        >>> noise(torch.ones(3, 2), ig.fields.Linear(torch.ones(2))).shape
        torch.Size([4, 3, 2])
    """

    std: float = 1.0
    mean: float | str = 0.0
    count: int = 1
    seed: int = 0
    label: str = "gaussian noise"

    resolution: ClassVar[str] = "count"

    def __post_init__(self) -> None:
        whole("count", self.count, least=1)
        if not self.std >= 0:
            raise BaselineError(f"Noise has a positive deviation, or 0, not std={self.std}.")

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        if isinstance(self.mean, str) and self.mean != "input":
            raise BaselineError(f"Gaussian noise is around a number or 'input', not {self.mean!r}.")
        shape = (self.count, 1, *x.shape[1:])
        noise = torch.randn(shape, generator=generator(self.seed), dtype=torch.float64).to(x)
        centre = x[None] if isinstance(self.mean, str) else self.mean
        return (centre + self.std * noise).expand(-1, len(x), *x.shape[1:])
