"""Functions of one feature whose mean under a normal distribution is known, and the additive fields
made of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.segment import Evaluation
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from ..model.autograd import gradients


class Term(ABC):
    """A function g of one number. Subclasses are frozen ``@part`` values."""

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """g(z), number by number."""

    @abstractmethod
    def normal(self, mean: Tensor, sd: Tensor) -> Tensor:
        """E g(Z) for Z normal with ``mean`` and ``sd`` > 0, number by number."""

    def expected(self, mean: Tensor, sd: Tensor) -> Tensor:
        """E g(Z), also where ``sd`` is 0 and Z is its mean."""
        certain = sd <= 0
        return torch.where(certain, self(mean), self.normal(mean, torch.where(certain, 1.0, sd)))


def _below(z: Tensor) -> Tensor:
    """Φ(z), with full relative precision far below 0 too."""
    probability: Tensor = torch.special.ndtr(z)
    return probability


@part
class Slope(Term):
    """g(z) = weight · z."""

    weight: float

    def __call__(self, z: Tensor) -> Tensor:
        return self.weight * z

    def normal(self, mean: Tensor, sd: Tensor) -> Tensor:
        return self.weight * mean


@part
class Sine(Term):
    """g(z) = sin z;  E = exp(−s²/2) sin m."""

    def __call__(self, z: Tensor) -> Tensor:
        return z.sin()

    def normal(self, mean: Tensor, sd: Tensor) -> Tensor:
        return (-sd.square() / 2).exp() * mean.sin()


@part
class Magnitude(Term):
    """g(z) = |z|;  E = s √(2/π) exp(−m²/2s²) + m (1 − 2Φ(−m/s))."""

    def __call__(self, z: Tensor) -> Tensor:
        return z.abs()

    def normal(self, mean: Tensor, sd: Tensor) -> Tensor:
        away = mean / sd
        return sd * math.sqrt(2 / math.pi) * (-away.square() / 2).exp() + mean * (
            1 - 2 * _below(-away)
        )


@part
class Squared(Term):
    """g(z) = z²;  E = m² + s²."""

    def __call__(self, z: Tensor) -> Tensor:
        return z.square()

    def normal(self, mean: Tensor, sd: Tensor) -> Tensor:
        return mean.square() + sd.square()


@part
class Decay(Term):
    """g(z) = exp(−z);  E = exp(−m + s²/2)."""

    def __call__(self, z: Tensor) -> Tensor:
        return (-z).exp()

    def normal(self, mean: Tensor, sd: Tensor) -> Tensor:
        return (sd.square() / 2 - mean).exp()


@part
class Steps(Term):
    """g(z) = level_i for edge_{i−1} ≤ z < edge_i;  E = level_0 + Σ_i (level_{i+1} − level_i) Φ((m −
                                                    edge_i) / s).

    XAI-Bench's second piece has levels −2, −1, 1, 2 between −½, 0 and ½. The stock code asks for
    ``(x >= 0.5) * (x < 0)``, which nothing is, and so has 0 instead of −1 on [−½, 0).
    """

    edges: tuple[float, ...]
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.edges) + 1 or list(self.edges) != sorted(self.edges):
            raise InputError(
                f"Steps have ascending edges and one level more; got edges {self.edges}, levels {self.levels}."
            )

    def __call__(self, z: Tensor) -> Tensor:
        where = torch.bucketize(z.detach().contiguous(), z.new_tensor(self.edges), right=True)
        return z.new_tensor(self.levels)[where]

    def normal(self, mean: Tensor, sd: Tensor) -> Tensor:
        expectation = torch.full_like(mean, self.levels[0])
        for edge, low, high in zip(self.edges, self.levels[:-1], self.levels[1:], strict=True):
            expectation = expectation + (high - low) * _below((mean - edge) / sd)
        return expectation


@part
class CosineSteps(Term):
    """g(z) = trunc(2 cos πz), and 1 where that is 0;  E = 1 − 2 P(Z mod 2 ∈ (⅔, 4⁄3)).

    Up to even integers, where it is 2, and odd ones, where it is −2 (which a normal distribution
    never meets), g is −1 around odd integers and 1 elsewhere. The probability is a sum of
    differences of Φ for narrow distributions, and for wide ones a Fourier series, of which three
    terms leave 1e-19.
    """

    def __call__(self, z: Tensor) -> Tensor:
        steps = (2 * (math.pi * z).cos()).trunc()
        return torch.where(steps == 0, 1.0, steps)

    def normal(self, mean: Tensor, sd: Tensor) -> Tensor:
        mean = mean.remainder(2)
        narrow, wide = sd.clamp_max(1)[..., None], sd.clamp_min(1)[..., None]
        start = 2 * torch.arange(-6, 7, device=mean.device, dtype=mean.dtype)
        away = mean[..., None] - start
        inside = (_below((away - 2 / 3) / narrow) - _below((away - 4 / 3) / narrow)).sum(-1)
        n = torch.arange(1, 4, device=mean.device, dtype=mean.dtype) * math.pi
        height = ((4 / 3 * n).sin() - (2 / 3 * n).sin()) / n
        series = 1 / 3 + (
            height * (-(n * wide).square() / 2).exp() * (n * mean[..., None]).cos()
        ).sum(-1)
        return 1 - 2 * torch.where(sd <= 1, inside, series)


@part
class Additive(Field):
    """F(z) = Σ_i g_i(z_i) over the first features of rows (N, D); the others do nothing.

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.xai_bench.Additive.linear([4.0, 3.0]).value(torch.ones(1, 5)).item()
    7.0
    """

    terms: tuple[Term, ...]

    @classmethod
    def linear(cls, weight: Sequence[float]) -> Additive:
        """F(z) = weight · z."""
        return cls(tuple(Slope(float(w)) for w in weight))

    @classmethod
    def nonlinear_additive(cls) -> Additive:
        """F(z) = sin z_1 + |z_2| + z_3² + exp(−z_4)."""
        return cls((Sine(), Magnitude(), Squared(), Decay()))

    @classmethod
    def piecewise_constant(cls) -> Additive:
        """F(z) = sign z_1 (1 at 0) + steps −2, −1, 1, 2 of z_2 + trunc(2 cos πz_3) (1 where 0)."""
        return cls(
            (
                Steps((0.0,), (-1.0, 1.0)),
                Steps((-0.5, 0.0, 0.5), (-2.0, -1.0, 1.0, 2.0)),
                CosineSteps(),
            )
        )

    def __call__(self, z: Tensor) -> Tensor:
        """Rows (…, D) → (…)."""
        if z.shape[-1] < len(self.terms):
            raise InputError(
                f"F has terms for {len(self.terms)} features; rows have {z.shape[-1]}."
            )
        total = torch.zeros_like(z[..., 0])
        for i, term in enumerate(self.terms):
            total = total + term(z[..., i])
        return total

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        with gradients(gradient):
            leaf = (
                z.clone().requires_grad_(gradient)
                if z.is_inference()
                else z.detach().requires_grad_(gradient)
            )
            value = self(leaf)
            if not gradient:
                return Evaluation(value, z.new_empty(0))
            # Steps are flat: their gradient is 0, which autograd would call missing.
            (slope,) = torch.autograd.grad(value.sum() + 0 * leaf.sum(), leaf)
        return Evaluation(value.detach(), slope)

    @property
    def additive(self) -> Sequence[Term]:
        return self.terms

    def questions(self, index: Tensor) -> Tensor:
        return torch.zeros_like(index)
