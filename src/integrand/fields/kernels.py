"""Covariance kernels of Gaussian processes, and their integrals along straight lines.

    k(z, z') = κ(ρ_1, …, ρ_C)          ρ_c = Σ_i (z_i − z'_i)² / l_ci²

A stationary kernel is a function of weighted squared distances, one for each component, so that all
its derivatives along a line are a few numbers per point instead of a vector:

    ∂_i k     = Σ_c 2 κ_c (z_i − z'_i) / l_ci²                         κ_c = ∂κ/∂ρ_c
    ∂_i ∂'_j k = −Σ_c 2 κ_c δ_ij / l_ci² − Σ_cd 4 κ_cd (z_i − z'_i)(z_j − z'_j) / (l_ci² l_dj²)

A kernel says κ and its derivatives (``profile``). One that is a sum of Gaussians says so
(``gaussians``), and then has closed forms; ``fields/line_integrals.py`` has both ways.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.shapes import describe
from ..core.values import part
from ..errors import InputError

Number = float | Tensor


@dataclass(frozen=True, eq=False)
class Profile:
    """κ and its derivatives at the same distances.

    value (L…)      first[c] = κ_c (L…)      second[c][d] = κ_cd (L…)
    """

    value: Tensor
    first: list[Tensor]
    second: list[list[Tensor]]


class Kernel(ABC):
    """A stationary covariance k(z, z') = κ(ρ_1, …, ρ_C). Kernels add up and multiply: ``a + b``, ``a
    * b``."""

    @abstractmethod
    def scales(self, features: int) -> list[Tensor]:
        """1 / l_c² (n,) of every component, in float64.

        Raises:
            InputError: for lengthscales that are not as many as the features.
        """

    @abstractmethod
    def profile(self, distances: list[Tensor]) -> Profile:
        """κ and its derivatives at the squared distances ρ_c (L…) of the components."""

    def gaussians(self, features: int) -> list[tuple[float, Tensor]] | None:
        """Pairs of a variance and 1 / l² (n,), where k is a sum of Gaussians v exp(−ρ/2); None
        elsewhere."""
        return None

    def at_zero(self, features: int) -> float:
        """k(z, z), the variance before any data."""
        nothing = [torch.zeros((), dtype=torch.float64) for _ in self.scales(features)]
        return float(self.profile(nothing).value)

    def __add__(self, other: Kernel) -> Kernel:
        return SumKernel((self, other))

    def __mul__(self, other: Kernel) -> Kernel:
        return ProductKernel((self, other))


class _Radial(Kernel):
    """A kernel of one component: v φ(ρ)."""

    lengthscale: Number
    variance: Number

    def __post_init__(self) -> None:
        check_positive("lengthscale", self.lengthscale)
        check_positive("variance", self.variance)
        if isinstance(self.variance, Tensor) and self.variance.numel() != 1:
            raise InputError(
                f"A kernel has one variance, not {describe(self.variance.shape)} of them."
            )

    def scales(self, features: int) -> list[Tensor]:
        scale = torch.as_tensor(self.lengthscale, dtype=torch.float64).detach().reshape(-1)
        if len(scale) not in (1, features):
            raise InputError(
                f"There are {len(scale)} lengthscales for {features} features: give one for each, or one for all."
            )
        return [scale.square().reciprocal().expand(features)]

    def profile(self, distances: list[Tensor]) -> Profile:
        variance = float(self.variance)
        value, first, second = self.radial(distances[0])
        return Profile(variance * value, [variance * first], [[variance * second]])

    @abstractmethod
    def radial(self, rho: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """φ, φ' and φ'' at ρ."""


def check_positive(name: str, value: Number) -> None:
    """Refuse lengthscales, variances and the like that are not positive."""
    numbers = torch.as_tensor(value)
    if not bool((numbers > 0).all()):
        raise InputError(f"{name} is positive, not {value!r}.")


@part
class RBF(_Radial):
    """k = v exp(−ρ/2), the squared exponential (Gaussian) kernel.

    Args:
        lengthscale: l, one for each feature (n,) or one for all; infinite where k does not look at
            a feature.
        variance: v, the variance of the process.

    Example:
        >>> import torch, integrand as ig
        >>> ig.fields.kernels.RBF(2.0).at_zero(3)
        1.0
    """

    lengthscale: float | Tensor = 1.0
    variance: float | Tensor = 1.0

    def radial(self, rho: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = (-rho / 2).exp()
        return value, -value / 2, value / 4

    def gaussians(self, features: int) -> list[tuple[float, Tensor]] | None:
        return [(float(self.variance), self.scales(features)[0])]


@part
class Matern(_Radial):
    """The Matérn kernel of smoothness 3/2 or 5/2, with r = √ρ.

        ν = 3/2:  k = v (1 + √3 r) exp(−√3 r)          ν = 5/2:  k = v (1 + √5 r + 5 r²/3) exp(−√5 r)

    A process of smoothness 1/2 has no gradient anywhere, so that it has no attributions of finite
    variance; it is refused.
    """

    smoothness: float = 2.5
    lengthscale: float | Tensor = 1.0
    variance: float | Tensor = 1.0

    def __post_init__(self) -> None:
        if self.smoothness == 0.5:
            raise InputError(
                "A Matérn process of smoothness 1/2 has no gradient, so that its attributions have no finite variance: use 3/2 or 5/2."
            )
        if self.smoothness not in (1.5, 2.5):
            raise InputError(f"smoothness is 1.5 or 2.5, not {self.smoothness!r}.")
        super().__post_init__()

    def radial(self, rho: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r = rho.sqrt()
        s = math.sqrt(2 * self.smoothness) * r
        fall = (-s).exp()
        if self.smoothness == 1.5:
            # κ'' has a pole at r = 0, which every integral multiplies by ρ.
            steep = fall * (3 * 3**0.5 / 4) / r.clamp_min(torch.finfo(r.dtype).tiny)
            return (1 + s) * fall, -1.5 * fall, steep
        return (1 + s + 5 / 3 * rho) * fall, -5 / 6 * (1 + s) * fall, 25 / 12 * fall


@part
class RationalQuadratic(_Radial):
    """k = v (1 + ρ/2α)^−α, a mixture of RBF kernels of many lengthscales."""

    alpha: float = 1.0
    lengthscale: float | Tensor = 1.0
    variance: float | Tensor = 1.0

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)
        super().__post_init__()

    def radial(self, rho: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        base = 1 + rho / (2 * self.alpha)
        value = base.pow(-self.alpha)
        first = -value / base / 2
        return value, first, -first / base * (self.alpha + 1) / (2 * self.alpha)


@part
class ConstantKernel(Kernel):
    """k = v: an unknown constant, the same everywhere."""

    variance: float | Tensor = 1.0

    def __post_init__(self) -> None:
        check_positive("variance", self.variance)

    def scales(self, features: int) -> list[Tensor]:
        return [torch.zeros(features, dtype=torch.float64)]

    def profile(self, distances: list[Tensor]) -> Profile:
        nothing = torch.zeros_like(distances[0])
        return Profile(nothing + float(self.variance), [nothing], [[nothing]])

    def gaussians(self, features: int) -> list[tuple[float, Tensor]] | None:
        return [(float(self.variance), self.scales(features)[0])]


class _Several(Kernel):
    parts: tuple[Kernel, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError(f"{type(self).__name__} is of one kernel at least.")

    def scales(self, features: int) -> list[Tensor]:
        return [scale for kernel in self.parts for scale in kernel.scales(features)]

    def profiles(self, distances: list[Tensor]) -> list[Profile]:
        """The profile of every part, from its own distances."""
        profiles, begin = [], 0
        features = 1  # how many components a kernel has does not depend on how many features
        for kernel in self.parts:
            end = begin + _components(kernel, features)
            profiles.append(kernel.profile(distances[begin:end]))
            begin = end
        return profiles


def _components(kernel: Kernel, features: int) -> int:
    if isinstance(kernel, _Several):
        return sum(_components(part, features) for part in kernel.parts)
    return 1


@part
class SumKernel(_Several):
    """k = Σ k_p."""

    parts: tuple[Kernel, ...]

    def profile(self, distances: list[Tensor]) -> Profile:
        profiles = self.profiles(distances)
        nothing = torch.zeros_like(distances[0])
        second: list[list[Tensor]] = []
        before = 0
        for profile in profiles:
            after = len(distances) - before - len(profile.first)
            second += [[nothing] * before + row + [nothing] * after for row in profile.second]
            before += len(profile.first)
        value = torch.stack([profile.value for profile in profiles]).sum(0)
        return Profile(value, [first for profile in profiles for first in profile.first], second)

    def gaussians(self, features: int) -> list[tuple[float, Tensor]] | None:
        lists = [kernel.gaussians(features) for kernel in self.parts]
        if any(pairs is None for pairs in lists):
            return None
        return [pair for pairs in lists for pair in pairs or []]


@part
class ProductKernel(_Several):
    """k = Π k_p."""

    parts: tuple[Kernel, ...]

    def profile(self, distances: list[Tensor]) -> Profile:
        profiles = self.profiles(distances)
        joint = profiles[0]
        for profile in profiles[1:]:
            joint = _times(joint, profile)
        return joint

    def gaussians(self, features: int) -> list[tuple[float, Tensor]] | None:
        products = [(1.0, torch.zeros(features, dtype=torch.float64))]
        for kernel in self.parts:
            pairs = kernel.gaussians(features)
            if pairs is None:
                return None
            products = [(v * w, s + t) for v, s in products for w, t in pairs]
        return products


def _times(a: Profile, b: Profile) -> Profile:
    """The profile of a product, whose components are those of ``a`` and then those of ``b``."""
    first = [x * b.value for x in a.first] + [a.value * y for y in b.first]
    upper = [
        [x * b.value for x in row] + [a.first[c] * y for y in b.first]
        for c, row in enumerate(a.second)
    ]
    lower = [
        [x * b.first[d] for x in a.first] + [a.value * y for y in row]
        for d, row in enumerate(b.second)
    ]
    return Profile(a.value * b.value, first, upper + lower)
