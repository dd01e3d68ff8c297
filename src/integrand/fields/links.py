"""Expectations E g(f) of a link g over Gaussian f, for Gaussian processes behind other likelihoods.

    G(m, v) = E g(m + √v ξ)        ξ ~ N(0, 1)

By Stein's lemma the expected integrand of an attribution, E[g'(f) ∂_i f] = ∂_i m E g'(f) + Cov(f,
∂_i f) E g''(f), is the slope of z ↦ G(m(z), v(z)): expected attributions are those of that function.
exp, square and probit are closed forms. The logistic function is integrated by the trapezoidal rule,
which converges geometrically for functions that are analytic in a strip: over f where v is small, and
over the logistic noise ε in g(f) = P(f + ε > 0) where it is large, so that it is exact to rounding
for every v. A softmax is a race of f_c plus Gumbel noise: with independent f_c one integral of a
product, however many classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..core.values import part
from ..errors import InputError, UnknownName

_WIDE = 9.0  # standard deviations of a Gaussian that are looked at
_FLAT = 9.0  # variances above which the noise of the logistic is integrated over, and not f
_FINE = 0.05
_TINY = 1e-300


class Link(ABC):
    """What stands between f and what is explained: g, through its expectation over Gaussian f."""

    outputs: int | None = 1
    """How many processes it looks at; None for any number above one."""

    @abstractmethod
    def expected(self, mean: Tensor, variance: Tensor) -> Tensor:
        """E g(f) (N,) for means and variances (C, N) of independent f; differentiable."""


@part
class Exp(Link):
    """g = exp(f): rates of counts. E g = exp(m + v/2)."""

    def expected(self, mean: Tensor, variance: Tensor) -> Tensor:
        return (mean[0] + variance[0] / 2).exp()


@part
class SquareLink(Link):
    """g = f²: variances and intensities. E g = m² + v."""

    def expected(self, mean: Tensor, variance: Tensor) -> Tensor:
        return mean[0].square() + variance[0]


@part
class Probit(Link):
    """g = Φ(f): the probability of class 1. E g = Φ(m / √(1 + v))."""

    def expected(self, mean: Tensor, variance: Tensor) -> Tensor:
        probability: Tensor = torch.special.ndtr(mean[0] / (1 + variance[0]).sqrt())
        return probability


@part
class Logistic(Link):
    """g = 1 / (1 + e^−f): the probability of class 1."""

    def expected(self, mean: Tensor, variance: Tensor) -> Tensor:
        m, v = mean[0][:, None], variance[0][:, None]
        xi = _grid(_WIDE, _FINE, mean)
        density = _FINE * (-xi.square() / 2).exp() / math.sqrt(2 * math.pi)
        over_f = (torch.sigmoid(m + _root(v.clamp_max(_FLAT)) * xi) * density).sum(1)
        noise = _grid(40.0, 0.5, mean)
        density = 0.5 * torch.sigmoid(noise) * torch.sigmoid(-noise)
        over_noise = (torch.special.ndtr((m + noise) / v.clamp_min(_FLAT).sqrt()) * density).sum(1)
        return torch.where(variance[0] < _FLAT, over_f, over_noise)


@part
class Softmax(Link):
    """g = exp(f_c) / Σ_j exp(f_j) of independent processes f_j: the probability of class c.

    Args:
        which: the class c.
    """

    which: int = 0

    outputs = None

    def expected(self, mean: Tensor, variance: Tensor) -> Tensor:
        count = len(mean)
        if not -count <= self.which < count:
            raise InputError(f"There is no class {self.which} among {count} processes.")
        spread = variance.clamp_min(0).sqrt().detach()
        low = float((mean.detach() - _WIDE * spread).amax(0).min()) - 4
        high = float((mean.detach() + _WIDE * spread).amax()) + 40
        race = torch.arange(low, high, 0.2, dtype=mean.dtype, device=mean.device)
        # With √v above this step the Gumbel noise is as narrow as the grid of f is coarse.
        step = min(0.5, 0.25 / max(float(spread.max()), 1e-3))
        xi = _grid(_WIDE, step, mean)
        density = step * (-xi.square() / 2).exp() / math.sqrt(2 * math.pi)
        others = torch.zeros_like(mean[0])[:, None]
        winner = others
        for c, (m, v) in enumerate(zip(mean, variance, strict=True)):
            # E over f_c of P(f_c + noise ≤ race), and for the winner its density.
            lead = m[:, None, None] + _root(v)[:, None, None] * xi - race[:, None]
            gumbel = (-lead.clamp_max(300).exp()).exp()
            if c == self.which % count:
                rising = (lead - lead.clamp_max(300).exp()).clamp_min(-700).exp()
                winner = (rising * density).sum(-1)
            else:
                others = others + (gumbel * density).sum(-1).clamp_min(_TINY).log()
        return 0.2 * (winner * others.exp()).sum(1)


_LINKS = {
    "exp": Exp(),
    "square": SquareLink(),
    "probit": Probit(),
    "logistic": Logistic(),
}


def as_link(link: str | Link) -> Link:
    """A link by its name, or as it is.

    Raises:
        UnknownName: with the nearest names.
    """
    if isinstance(link, Link):
        return link
    if link not in _LINKS:
        raise UnknownName("link", link, (*_LINKS, "Softmax(which)"))
    return _LINKS[link]


def _grid(reach: float, step: float, like: Tensor) -> Tensor:
    count = math.ceil(reach / step)
    return torch.arange(-count, count + 1).to(like) * step


def _root(variance: Tensor) -> Tensor:
    """√v, with a finite slope at 0."""
    return variance.clamp_min(torch.finfo(variance.dtype).eps ** 2).sqrt()
