"""Distributions of rows (D,), and their conditional distributions given some features.

    distribution.given(x, known)      x (B, D) rows, known (S, B, D) or (S, 1, D) which features of
                                      each are known in S coalitions

A ``Conditional`` is what the expectations need: the means of functions of one feature, in closed
form, and rows drawn with the known features fixed. Draws come from one seed and are the same for
every coalition and example, so that differences between coalitions are less noisy than the
coalitions, and a batch equals its examples.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.random import generator
from ..core.shapes import describe
from ..core.values import part
from ..errors import InputError, ShapeError
from .terms import Slope, Term


class Conditional(ABC):
    """A distribution conditional on known features, for S coalitions of B examples."""

    @property
    @abstractmethod
    def weights(self) -> Tensor:
        """(K, S, B) how likely each of K components is; columns add up to one."""

    @abstractmethod
    def expected(self, terms: Sequence[Term]) -> Tensor:
        """E Σ_i g_i(X_i) (S, B), exactly."""

    @abstractmethod
    def rows(self, component: int, noise: Tensor, coalition: Tensor, example: Tensor) -> Tensor:
        """Rows (N, D) made of noise (N, …), each for a coalition (N,) and an example (N,)."""


class Distribution(ABC):
    """A distribution of rows (D,). Subclasses are frozen ``@part`` values."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """(D,)"""

    @property
    def features(self) -> int:
        """D"""
        return len(self.mean)

    @abstractmethod
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """(n, D) independent rows."""

    @abstractmethod
    def noise(self, component: int, n: int, seed: int) -> Tensor:
        """The noise from which n rows of one component are computed."""

    @abstractmethod
    def _given(self, x: Tensor, known: Tensor) -> Conditional: ...

    def given(self, x: Tensor, known: Tensor) -> Conditional:
        """The conditional distribution. Raises ``InputError`` for rows with another number of
        features."""
        if x.ndim != 2 or x.shape[1] != self.features or known.shape[-1] != self.features:
            raise ShapeError(
                f"{type(self).__name__} has rows of {self.features} features; got inputs {describe(x.shape)} and known features "
                f"{describe(known.shape)}."
            )
        return self._given(x.double(), known)


# --- normal ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Normal:
    """One component: x_V | x_S ~ N(μ_V + Σ_VS Σ_SS⁻¹ (x_S − μ_S), Σ_VV − Σ_VS Σ_SS⁻¹ Σ_SV).

    Args:
        gain: (S, B or 1, D, D) Σ_·S Σ_SS⁻¹, zero in columns that are not known.
        mean: (S, B, D) of every feature; x where known.
        sd: (S, B or 1, D); 0 where known.
        density: (S, B) log p(x_S).
    """

    known: Tensor
    gain: Tensor
    mean: Tensor
    sd: Tensor
    density: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor, x: Tensor, known: Tensor) -> _Normal:
        mean, covariance, known = mean.to(x), covariance.to(x), known.to(x.device)
        indicator = known.to(x)
        # Σ_SS, with ones on the diagonal where nothing is known: inverse and determinant are those
        # of Σ_SS.
        inner = indicator[..., :, None] * covariance * indicator[..., None, :] + torch.diag_embed(
            1 - indicator
        )
        factor = torch.linalg.cholesky(inner)
        gain = torch.cholesky_solve(indicator[..., :, None] * covariance, factor).mT
        off = indicator * (x - mean)
        middle = torch.where(known, x, mean + (gain @ off[..., None])[..., 0])
        rest = (covariance.diagonal() - (gain * covariance).sum(-1)).clamp_min(0)
        white = torch.linalg.solve_triangular(factor, off[..., None], upper=False)[..., 0]
        determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        density = (
            -white.square().sum(-1) / 2
            - determinant
            - indicator.sum(-1) * math.log(2 * math.pi) / 2
        )
        return cls(known, gain, middle, torch.where(known, 0, rest.sqrt()), density)


@dataclass(frozen=True, eq=False)
class _GivenNormals(Conditional):
    x: Tensor
    parts: tuple[_Normal, ...]
    prior: Tensor

    @property
    def weights(self) -> Tensor:
        """The posterior weight of each component: prior times the density of what is known, in
        logarithms."""
        likely = (
            torch.stack([part.density for part in self.parts])
            + self.prior.to(self.x).log()[:, None, None]
        )
        posterior: Tensor = likely.softmax(0)
        return posterior

    def expected(self, terms: Sequence[Term]) -> Tensor:
        expectations = torch.stack([self._expected_by(part, terms) for part in self.parts])
        return (self.weights * expectations).sum(0)

    @staticmethod
    def _expected_by(part: _Normal, terms: Sequence[Term]) -> Tensor:
        sd = part.sd.expand_as(part.mean)
        total = torch.zeros_like(part.mean[..., 0])
        for i, term in enumerate(terms):
            total = total + term.expected(part.mean[..., i], sd[..., i])
        return total

    def rows(self, component: int, noise: Tensor, coalition: Tensor, example: Tensor) -> Tensor:
        # Matheron's rule: a draw, corrected by how far off it is where it should be x.
        part, x = self.parts[component], self.x[example]
        position = example if part.gain.shape[1] > 1 else torch.zeros_like(example)
        moved = noise + (part.gain[coalition, position] @ (x - noise)[..., None])[..., 0]
        return torch.where(part.known[coalition, position], x, moved)


class _Normals(Distribution):
    """Gaussians and mixtures of them."""

    @property
    @abstractmethod
    def parts(self) -> tuple[MultivariateNormal, ...]:
        """The components."""

    @property
    @abstractmethod
    def prior(self) -> Tensor:
        """(K,) their weights."""

    def noise(self, component: int, n: int, seed: int) -> Tensor:
        """Rows of the component with nothing known."""
        part = self.parts[component]
        drawn = torch.randn(
            n, self.features, generator=generator(seed, component), dtype=torch.float64
        )
        factor: Tensor = torch.linalg.cholesky(part.covariance)
        return part.middle + drawn.to(factor) @ factor.mT

    def _given(self, x: Tensor, known: Tensor) -> Conditional:
        parts = tuple(_Normal.of(part.middle, part.covariance, x, known) for part in self.parts)
        return _GivenNormals(x, parts, self.prior)


@part
class MultivariateNormal(_Normals):
    """X ~ N(middle, covariance).

    Args:
        middle: (D,) the mean.
        covariance: (D, D), positive definite.

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.xai_bench.Gaussian.equicorrelated(3, rho=0.5).covariance.tolist()
    [[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]]
    """

    middle: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        middle, covariance = (
            torch.as_tensor(t, dtype=torch.float64) for t in (self.middle, self.covariance)
        )
        if middle.ndim != 1 or covariance.shape != (len(middle), len(middle)):
            raise ShapeError(
                f"A Gaussian has a mean (D,) and a covariance (D, D); got {describe(middle.shape)} and {describe(covariance.shape)}."
            )
        if (
            not torch.equal(covariance, covariance.mT)
            or int(torch.linalg.cholesky_ex(covariance).info) > 0
        ):
            raise InputError(
                "The covariance is not symmetric and positive definite, so some features decide others."
            )
        object.__setattr__(self, "middle", middle)
        object.__setattr__(self, "covariance", covariance)

    @classmethod
    def equicorrelated(
        cls, features: int = 5, rho: float = 0.0, mean: float | Sequence[float] = 0.0
    ) -> MultivariateNormal:
        """Variance 1, correlation ``rho`` between any two features: Σ = (1 − ρ) I + ρ 11ᵀ, −1/(D −
        1) < ρ < 1."""
        middle = torch.as_tensor(mean, dtype=torch.float64).expand(features).clone()
        off = torch.full((features, features), rho, dtype=torch.float64)
        return cls(middle, off.fill_diagonal_(1.0))

    @property
    def mean(self) -> Tensor:
        return self.middle

    @property
    def parts(self) -> tuple[MultivariateNormal, ...]:
        return (self,)

    @property
    def prior(self) -> Tensor:
        return torch.ones(1, dtype=torch.float64)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        return self.noise(0, n, seed)


@part
class Mixture(_Normals):
    """X ~ Σ_k weight_k N(mean_k, covariance_k). Once features are known, each component's weight is
    its posterior one.

    The stock code draws all n rows from *one* component picked at random, so its expectations over
    mixtures are wrong however large n is; and it does not run (``np.rand``, ``mask_dict`` without
    ``precompute``).

    Args:
        components: Gaussians.
        weights: (K,), equal unless given.
    """

    components: tuple[MultivariateNormal, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.components or len({component.features for component in self.components}) > 1:
            raise InputError(
                "A mixture is made of Gaussians with the same number of features, one at least."
            )
        if self.weights and (
            len(self.weights) != len(self.components) or not all(w > 0 for w in self.weights)
        ):
            raise InputError(
                f"A mixture of {len(self.components)} needs as many positive weights, not {self.weights}."
            )

    @property
    def parts(self) -> tuple[MultivariateNormal, ...]:
        return self.components

    @property
    def prior(self) -> Tensor:
        weights = torch.tensor(self.weights or [1.0] * len(self.components), dtype=torch.float64)
        return weights / weights.sum()

    @property
    def mean(self) -> Tensor:
        return (
            self.prior[:, None] * torch.stack([component.middle for component in self.components])
        ).sum(0)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        # A seed of its own: which component a row is of may not depend on what the components draw.
        component = torch.multinomial(
            self.prior, n, replacement=True, generator=generator(seed, -1)
        )
        rows = torch.stack([self.noise(k, n, seed) for k in range(len(self.components))])
        return rows[component, torch.arange(n)]


# --- multinomial ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _GivenCounts(Conditional):
    """x_V | x_S ~ Multinomial(n − Σ x_S, p_V / Σ p_V).

    Args:
        left: (S, B) trials left.
        chance: (S, B or 1, D) of each feature that is not known, 0 for those that are.
    """

    x: Tensor
    known: Tensor
    left: Tensor
    chance: Tensor
    trials: int

    @property
    def weights(self) -> Tensor:
        return torch.ones_like(self.left)[None]

    def expected(self, terms: Sequence[Term]) -> Tensor:
        counts = torch.arange(self.trials + 1, device=self.x.device, dtype=self.x.dtype)
        total = torch.zeros_like(self.left)
        for i, term in enumerate(terms):
            is_known, chance = (
                self.known[..., i].expand_as(total),
                self.chance[..., i].expand_as(total),
            )
            if isinstance(term, Slope):
                chanced = term(self.left * chance)
            else:
                chanced = (_binomial(counts, self.left, chance) * term(counts)).sum(-1)
            total = total + torch.where(is_known, term(self.x[:, i]), chanced)
        return total

    def rows(self, component: int, noise: Tensor, coalition: Tensor, example: Tensor) -> Tensor:
        position = example if self.known.shape[1] > 1 else torch.zeros_like(example)
        chance, known = self.chance[coalition, position], self.known[coalition, position]
        edges = chance.cumsum(-1)
        edges = edges / edges[:, -1:].clamp_min(1e-300)  # the last is 1, whatever rounding did
        features = torch.searchsorted(edges, noise.contiguous(), right=True).clamp_max(
            chance.shape[-1] - 1
        )
        used = (
            torch.arange(self.trials, device=self.x.device) < self.left[coalition, example][:, None]
        )
        drawn = torch.zeros_like(chance).scatter_add_(1, features, used.to(chance))
        return torch.where(known, self.x[example], drawn)


def _binomial(counts: Tensor, trials: Tensor, chance: Tensor) -> Tensor:
    """P(K = k) (…, n+1) of K ~ Binomial(trials, chance) (…)."""
    trials, chance = trials[..., None], chance[..., None]
    rest = (trials - counts).clamp_min(0)
    log_coefficient = torch.lgamma(trials + 1) - torch.lgamma(counts + 1) - torch.lgamma(rest + 1)
    likely = (
        log_coefficient + torch.special.xlogy(counts, chance) + torch.special.xlog1py(rest, -chance)
    )
    return torch.where(counts <= trials, likely.exp(), 0.0)


@part
class Multinomial(Distribution):
    """Counts of ``trials`` independent draws among D features with ``probabilities`` (D,).

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.xai_bench.Multinomial(20, (0.2, 0.3, 0.1, 0.1, 0.3)).mean.tolist()
    [4.0, 6.0, 2.0, 2.0, 6.0]
    """

    trials: int
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        chances = self.probabilities
        if self.trials < 1 or not all(p > 0 for p in chances) or abs(sum(chances) - 1) > 1e-9:
            raise InputError(
                f"A multinomial has one trial at least and positive probabilities that add up to 1; got {self.trials} and {chances}."
            )

    @property
    def mean(self) -> Tensor:
        return self.trials * torch.tensor(self.probabilities, dtype=torch.float64)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        chances = torch.tensor(self.probabilities, dtype=torch.float64)
        drawn = torch.multinomial(
            chances.expand(n, -1), self.trials, replacement=True, generator=generator(seed, -1)
        )
        return torch.zeros(n, self.features, dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones_like(drawn).double()
        )

    def noise(self, component: int, n: int, seed: int) -> Tensor:
        return torch.rand(n, self.trials, generator=generator(seed, component), dtype=torch.float64)

    def _given(self, x: Tensor, known: Tensor) -> Conditional:
        if (
            bool((x < 0).any())
            or not torch.equal(x, x.round())
            or bool((x.sum(1) != self.trials).any())
        ):
            raise InputError(f"Rows of this multinomial are counts that add up to {self.trials}.")
        known = known.to(x.device)
        chance = torch.where(
            known, 0, torch.tensor(self.probabilities, dtype=x.dtype, device=x.device)
        )
        left = self.trials - torch.where(known, x, 0).sum(-1)
        total = chance.sum(-1, keepdim=True)
        return _GivenCounts(
            x, known, left, chance / torch.where(total > 0, total, 1.0), self.trials
        )
