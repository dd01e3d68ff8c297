"""Weight functions along a path.

A path weight is any callable ``w(α) → (…)`` of the path's clock α in [0, 1] (float64, 0 at the
baseline and 1 at the input), finite and at least 0. Where it knows its integral it says so in
``mass`` (see ``PathWeight``); else that is found numerically. ``NAMED`` holds the weights of
Path-Weighted Integrated Gradients by the names their authors' code gives them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..core.declared import Part, Stranger, declared
from ..core.values import part
from ..errors import InputError, UnknownName

PathWeightLike = Callable[[Tensor], Tensor]


class PathWeight(Part, ABC):
    """How much each moment α of a path's clock counts: ``w(α)``, shaped as α."""

    @abstractmethod
    def __call__(self, alpha: Tensor) -> Tensor: ...

    @declared
    def mass(self) -> float | None:
        """∫₀¹ w(α) dα, where it is known; else it is found numerically."""
        return None


class _StrangerPathWeight(Stranger, PathWeight):
    """A user's callable as a path weight."""


_PANELS = 256
_FEW = 16  # panels for one of the pieces of a path
_SURE = 2e-3  # what twice as many panels may change an integral by


@part
class Power(PathWeight):
    """w(α) = α^exponent: late parts of the path count more. ∫w = 1 / (exponent + 1)."""

    exponent: float = 1.0

    def __post_init__(self) -> None:
        if self.exponent <= -1:
            raise InputError(
                f"α^{self.exponent:g} has no finite integral: the sum over n nodes would be whatever the node nearest to the "
                "baseline makes of it, and change with n. Take an exponent above -1, or ig.rules.path_weights.Fade for weights that fall."
            )

    def __call__(self, alpha: Tensor) -> Tensor:
        return alpha**self.exponent

    @property
    def mass(self) -> float:
        return 1 / (self.exponent + 1)


@part
class Fade(PathWeight):
    """w(α) = (1 − α)^exponent: early parts of the path count more. ∫w = 1 / (exponent + 1)."""

    exponent: float = 1.0

    def __post_init__(self) -> None:
        if self.exponent <= -1:
            raise InputError(
                f"(1 − α)^{self.exponent:g} has no finite integral: take an exponent above -1."
            )

    def __call__(self, alpha: Tensor) -> Tensor:
        return (1 - alpha) ** self.exponent

    @property
    def mass(self) -> float:
        return 1 / (self.exponent + 1)


@part
class Logarithmic(PathWeight):
    """w(α) = log(1 + cα), c > 0. ∫w = ((1 + c) log(1 + c) − c) / c."""

    c: float = 1.0

    def __post_init__(self) -> None:
        if not self.c > 0:
            raise InputError(f"log(1 + cα) is a weight for c above 0, not for {self.c:g}.")

    def __call__(self, alpha: Tensor) -> Tensor:
        return (self.c * alpha).log1p()

    @property
    def mass(self) -> float:
        return ((1 + self.c) * math.log1p(self.c) - self.c) / self.c


@part
class Exponential(PathWeight):
    """w(α) = exp(β(α − 1)): late parts count more, or early ones for β < 0. ∫w = (1 − exp(−β)) /
    β."""

    beta: float = 1.0

    def __call__(self, alpha: Tensor) -> Tensor:
        return (self.beta * (alpha - 1)).exp()

    @property
    def mass(self) -> float:
        return -math.expm1(-self.beta) / self.beta if self.beta else 1.0


@part
class Beta(PathWeight):
    """w(α) = α^(a−1) (1 − α)^(b−1) / B(a, b), the Beta density: the middle of the path counts most.
    ∫w = 1."""

    a: float = 2.0
    b: float = 2.0

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0):
            raise InputError(f"A Beta density has a and b above 0, not {self.a:g} and {self.b:g}.")

    def __call__(self, alpha: Tensor) -> Tensor:
        scale = math.exp(math.lgamma(self.a + self.b) - math.lgamma(self.a) - math.lgamma(self.b))
        return scale * alpha ** (self.a - 1) * (1 - alpha) ** (self.b - 1)

    @property
    def mass(self) -> float:
        return 1.0


NAMED: dict[str, PathWeight] = {
    "sqrt": Power(0.5),
    "linear_late": Power(1.0),
    "quadratic_late": Power(2.0),
    "linear_early": Fade(1.0),
    "quadratic_early": Fade(2.0),
    "logarithmic": Logarithmic(1.0),
    "exponential": Exponential(1.0),
    "beta22": Beta(2.0, 2.0),
}
"""√α, α, α², 1 − α, (1 − α)², log(1 + α), exp(α − 1), 6α(1 − α). The ninth of the authors,
"inverse" (1/α), is refused."""


def weight_of(value: object) -> PathWeight:
    """Convert a path weight: a name, or a callable.

    Raises:
        UnknownName: for a name that is none.
        InputError: for 1/α.
    """
    if value == "inverse":
        Power(-1)  # says why not
    if isinstance(value, str):
        if value not in NAMED:
            raise UnknownName("path weight", value, NAMED)
        return NAMED[value]
    if not callable(value):
        raise InputError(
            f"A path weight is a name ({', '.join(NAMED)}) or a callable of the clock α, not {type(value).__name__}."
        )
    return value if isinstance(value, PathWeight) else _StrangerPathWeight(value)


def mass_of(weight: PathWeightLike) -> float:
    """∫₀¹ w(α) dα: what the weight says of itself, or by Gauss–Legendre nodes that crowd towards
    both ends."""
    declared_mass = weight_of(weight).mass
    unit_interval = (
        torch.tensor([0.0], dtype=torch.float64),
        torch.tensor([1.0], dtype=torch.float64),
    )
    mass = (
        float(declared_mass)
        if declared_mass is not None
        else float(means_of(weight, *unit_interval, panels=_PANELS))
    )
    if declared_mass is None and not abs(
        float(means_of(weight, *unit_interval, panels=2 * _PANELS)) - mass
    ) <= _SURE * abs(mass):
        raise InputError(
            f"The integral of the path weight {weight!r} over [0, 1] is infinite, or too rough to be found: take a weight that has one, "
            "or give the weight a ``mass``."
        )
    if not (mass > 0 and math.isfinite(mass)):
        raise InputError(
            f"The path weight {weight!r} has the integral {mass:g}; it must be finite and above 0."
        )
    return mass


def means_of(weight: PathWeightLike, begins: Tensor, ends: Tensor, *, panels: int = _FEW) -> Tensor:
    """The mean of w between clocks (K,) and (K,), by Gauss–Legendre nodes that crowd towards both
    ends."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    u = torch.from_numpy((np.arange(panels)[:, None] + (nodes + 1) / 2).reshape(-1) / panels)[
        :, None
    ]
    slope = torch.from_numpy(np.tile(weights / 2 / panels, panels))[:, None] * 6 * u * (1 - u)
    alpha = begins + (ends - begins) * (u * u * (3 - 2 * u))
    return (weight_at(weight, alpha.clamp(0, 1)) * slope).sum(0)


def weight_at(weight: PathWeightLike, alpha: Tensor) -> Tensor:
    """w at clocks (…), float64.

    Raises:
        InputError: where it is negative or not finite, or shaped otherwise.
    """
    values = torch.as_tensor(weight(alpha), dtype=torch.float64)
    if values.shape not in (alpha.shape, torch.Size()):
        raise InputError(
            f"The path weight {weight!r} returned shape {tuple(values.shape)} for {tuple(alpha.shape)} clocks; it returns one number for each."
        )
    values = values.expand(alpha.shape)
    wrong = ~(torch.isfinite(values) & (values >= 0))
    if bool(wrong.any()):
        raise InputError(
            f"The path weight {weight!r} is {float(values[wrong][0]):g} at α = {float(alpha[wrong][0]):g}; it must be finite and at least 0 "
            "wherever the rule has a node (ig.rules.GaussLegendre has none at the ends)."
        )
    return values
