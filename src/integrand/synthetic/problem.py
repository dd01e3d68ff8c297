"""The benchmark's problems: a distribution, and a function of its draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.random import generator
from ..core.values import part
from ..errors import InputError, UnknownName
from ..fields import Field
from .distributions import Distribution, Mixture, Multinomial, MultivariateNormal
from .expectation import Expected, Shapley, expected, shapley
from .terms import Additive

_FUNCTIONS = ("linear", "nonlinear_additive", "piecewise_constant")


@part
class SyntheticProblem:
    """y = F(X) + noise, X of a known distribution.

    Targets are left as they are. The stock code standardises them *within every batch it
    generates*, the draws for a conditional expectation included, whose mean is then 0 whatever is
    known, and which is NaN for a single row: "dataset as model" means nothing there. Whoever trains
    a model standardises by the training set.

    Args:
        distribution: ``Gaussian``, ``Mixture``, or ``Multinomial``.
        field: F: an ``Additive``, whose expectations are exact, or any other field, whose are
            drawn.
        noise: standard deviation of what is added to y.

    Example:

    >>> import integrand as ig
    >>> x, y = ig.metrics.xai_bench.gaussian("linear", rho=0.5).data(100)
    >>> x.shape, y.shape
    (torch.Size([100, 5]), torch.Size([100]))
    """

    distribution: Distribution
    field: Field
    noise: float = 0.01

    def data(self, n: int, seed: int = 0, *, classes: bool = False) -> tuple[Tensor, Tensor]:
        """Rows x (n, D) and y (n,); with ``classes``, whether y ≥ 0, as 0 and 1."""
        x = self.distribution.sample(n, seed)
        more = torch.randn(n, generator=generator(seed, -2), dtype=torch.float64)
        y = self.field.value(x) + self.noise * more.to(x.device)
        return x, (y >= 0).long() if classes else y

    def expected(
        self,
        x: Tensor,
        known: Tensor,
        field: Field | None = None,
        *,
        draws: int = 1000,
        seed: int = 0,
    ) -> Expected:
        """E[F(X) | X_S = x_S] of the problem's own function, or of a model; see ``expected``."""
        return expected(
            self.field if field is None else field,
            self.distribution,
            x,
            known,
            draws=draws,
            seed=seed,
        )

    def shapley(
        self, x: Tensor, field: Field | None = None, *, draws: int = 1000, seed: int = 0
    ) -> Shapley:
        """Conditional Shapley values of the problem's own function, or of a model; see
        ``shapley``."""
        return shapley(
            self.field if field is None else field, self.distribution, x, draws=draws, seed=seed
        )


def _function(name: str | Field, features: int, weight: Sequence[float] | None) -> Field:
    if isinstance(name, Field):
        return name
    if name not in _FUNCTIONS:
        raise UnknownName("function", name, _FUNCTIONS)
    if name != "linear":
        if weight is not None:
            raise InputError(f"weight= goes with the linear function; {name!r} has none.")
        return (
            Additive.nonlinear_additive()
            if name == "nonlinear_additive"
            else Additive.piecewise_constant()
        )
    weight = range(features - 1, -1, -1) if weight is None else weight
    if len(weight) != features:
        raise InputError(f"{len(weight)} weights were given for {features} features: one for each.")
    return Additive.linear(weight)


def gaussian(
    function: str | Field = "linear",
    features: int = 5,
    rho: float = 0.0,
    *,
    mean: float | Sequence[float] = 0.0,
    weight: Sequence[float] | None = None,
    noise: float = 0.01,
) -> SyntheticProblem:
    """XAI-Bench's Gaussian problems: variances 1, correlations ``rho`` (0, .25, .5, .75, .99
    there).

    Args:
        function: "linear", "nonlinear_additive", "piecewise_constant", or a field.
        weight: of the linear function; (D − 1, …, 1, 0), so (4, 3, 2, 1, 0).

    Example:

    >>> import torch, integrand as ig
    >>> problem = ig.metrics.xai_bench.gaussian("nonlinear_additive")
    >>> problem.expected(torch.zeros(1, 5), torch.zeros(1, 5, dtype=torch.bool)).value.item()  # √(2/π) + 1 + √e
    3.446...
    """
    return SyntheticProblem(
        MultivariateNormal.equicorrelated(features, rho, mean),
        _function(function, features, weight),
        noise,
    )


def mixture(
    function: str | Field = "linear",
    features: int = 5,
    rho: float = 0.0,
    *,
    means: Sequence[float] = (1.0, -1.0),
    weight: Sequence[float] | None = None,
    noise: float = 0.01,
) -> SyntheticProblem:
    """XAI-Bench's mixtures: equally likely Gaussians around (m, …, m) for each m of ``means``,
    otherwise as ``gaussian``."""
    components = tuple(MultivariateNormal.equicorrelated(features, rho, mean) for mean in means)
    return SyntheticProblem(Mixture(components), _function(function, features, weight), noise)


def multinomial(
    function: str | Field = "linear",
    trials: int = 20,
    probabilities: Sequence[float] = (0.2, 0.3, 0.1, 0.1, 0.3),
    *,
    weight: Sequence[float] | None = None,
    noise: float = 0.01,
) -> SyntheticProblem:
    """XAI-Bench's multinomial problem: counts of ``trials`` draws; weights as in ``gaussian``."""
    chances = tuple(map(float, probabilities))
    return SyntheticProblem(
        Multinomial(trials, chances), _function(function, len(chances), weight), noise
    )
