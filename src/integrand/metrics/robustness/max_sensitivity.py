"""Sensitivity of maps to small changes of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ...core.random import generator
from ...core.shapes import describe, flattened
from ...core.values import part
from ...errors import InputError, ShapeError
from ..base import Metric, functional, metric
from ..maps import Maps, explained
from ..task import Subject


@metric("max_sensitivity")
@part
class MaxSensitivity(Metric):
    """Max-sensitivity: by how much a map changes at most when its input moves a little.

    Lower is better, 0 at best.

        max over draws of  ‖φ(x + δ) − φ(x)‖ / ‖φ(x)‖,      δ uniform in [−radius, radius] for each number

    The norm is Frobenius', over all numbers of a map. measured (M, B, draws) are the relative
    changes.

    Needs to know how the maps were made: an Attribution knows, a tensor goes with ``method=``. φ(x)
    is the map as given: a tensor that was changed since, made absolute or smoothed, is compared
    with raw ones and seems unstable.

    Undefined (NaN): maps of zeros, which nothing is relative to.

    Args:
        radius: in the units of the input, such as 0.2 for pixels in [0, 1] (Yeh et al.) and 0.02 by
            default (Captum).
        draws: of δ, the same for all methods and examples.
        how: "max", or "mean" for average sensitivity (Bhatt et al.).
        noise: a function (x (B, \\*s), generator) → δ like x, or (1, \\*s), instead of uniform
            noise.
        seed: of the draws.

    Cost:
        ``draws`` explanations of every example by every method.

    Pitfalls:
        The largest of a few draws, a lower bound of the maximum, grows with their number; a
        constant map is perfectly stable; the prediction may change within the radius, and then the
        map should.

    Peers:
        Captum's sensitivity_max and Quantus' MaxSensitivity agree (to 1e-5 for the same noise); for
        maps of zeros Captum divides by 1. Quantus' radius is 0.2, of 200 draws.

    References:
        Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
        >>> result = ig.explain(model, x, target=0)
        >>> found = ig.metrics.max_sensitivity(model, x, result, target=0)
        >>> bool((found < 0.2).all())
        True
    """

    radius: float = 0.02
    draws: int = 10
    how: str = "max"
    noise: Callable[[Tensor, torch.Generator], Tensor] | None = None
    seed: int = 0

    higher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.how not in ("max", "mean"):
            raise InputError(f'how= is "max" or "mean", not {self.how!r}.')
        if self.draws < 1 or self.radius <= 0:
            raise InputError(
                f"There is one draw at least, from a radius above 0: got {self.draws} and {self.radius}."
            )

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        methods = maps.explainers()
        x = subject.x
        changes = []
        for draw in range(self.draws):
            near = x + self._shift(x, draw)
            perturbed = torch.stack([explained(method, subject.field, near) for method in methods])
            changes.append(flattened(perturbed - maps.values, 2).norm(dim=-1))
        size = flattened(maps.values, 2).norm(dim=-1)[..., None]
        return torch.stack(changes, -1) / torch.where(size == 0, torch.nan, size)

    def values(self, measured: Tensor) -> Tensor:
        return measured.amax(-1) if self.how == "max" else measured.mean(-1)

    def _shift(self, x: Tensor, draw: int) -> Tensor:
        random = generator(self.seed, draw)
        if self.noise is None:
            shift = 2 * torch.rand(1, *x.shape[1:], generator=random, dtype=torch.float64) - 1
            return self.radius * shift.to(x)
        shift = self.noise(x, random)
        if shift.shape[1:] != x.shape[1:] or len(shift) not in (1, len(x)):
            raise ShapeError(
                f"noise= returned {describe(shift.shape)} for inputs of shape {describe(x.shape)}: return as many numbers, "
                "or one example's for all."
            )
        return shift.to(x)


max_sensitivity = functional(MaxSensitivity)
