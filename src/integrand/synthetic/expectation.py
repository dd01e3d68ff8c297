"""E[F(X) | X_S = x_S], exact for additive functions and from seeded draws for others; conditional
Shapley values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.segment import Evaluation
from ..errors import InputError
from ..fields import Field
from .distributions import Conditional, Distribution

_MOST = 16  # features whose coalitions are enumerated
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True, eq=False)
class Expected:
    """Conditional expectations (S, B) and their standard errors (S, B): 0 where they are exact."""

    value: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Shapley:
    """Conditional Shapley values (B, D), their standard errors (B, D), and E F(X) (B,).

    Args:
        values: (B, D), which add up to F(x) − base.
        error: (B, D), 0 where values are exact.
        base: (B,) E F(X).
    """

    values: Tensor
    error: Tensor
    base: Tensor


def expected(
    field: Field,
    distribution: Distribution,
    x: Tensor,
    known: Tensor,
    *,
    draws: int = 1000,
    seed: int = 0,
    index: Tensor | None = None,
) -> Expected:
    """E[F(X) | X_S = x_S] for S coalitions of B rows.

    Args:
        field: an additive one, such as ``Additive``, has closed forms; of any other, the mean over
            ``draws`` of each component, with its standard error.
        distribution: of X.
        x: (B, D) rows.
        known: (S, D) which features each coalition knows, or (S, B, D) where they differ between
            examples.
        draws: for each component.
        seed: of the draws.
        index: (B,) the examples of the field that the rows belong to; 0 … B−1 unless given.

    Returns:
        ``Expected``: means (S, B) and their standard errors.

    Cost:
        Nothing for additive functions; otherwise S · B · draws rows for each component.

    Example:

    >>> import torch, integrand as ig
    >>> bench = ig.metrics.xai_bench
    >>> normal, known = bench.Gaussian.equicorrelated(2, rho=0.5), torch.tensor([[True, False]])
    >>> bench.expected(bench.Additive.linear([0.0, 1.0]), normal, torch.tensor([[3.0, 0.0]]), known).value.item()
    1.5
    """
    known = _coalitions(known)
    if field.additive is not None:
        # Coalitions in blocks: each holds a matrix (D, D), for each example where they differ.
        step = max(1, _BLOCK_ELEMENTS // (x.shape[1] * max(len(x), known.shape[1] * x.shape[1])))
        parts = (known[start : start + step] for start in range(0, len(known), step))
        value = torch.cat(
            [distribution.given(x, block).expected(field.additive) for block in parts]
        ).to(x)
        return Expected(value, torch.zeros_like(value))
    estimates = [
        (sampled.mean(-1), _standard_error(sampled))
        for sampled in _samples(field, distribution, x, known, draws, seed, index)
    ]
    mean, error = (torch.cat(parts, 1).to(x) for parts in zip(*estimates, strict=True))
    return Expected(mean, error)


def shapley(
    field: Field,
    distribution: Distribution,
    x: Tensor,
    *,
    draws: int = 1000,
    seed: int = 0,
    index: Tensor | None = None,
) -> Shapley:
    """Conditional Shapley values by enumeration of all 2^D coalitions.

        φ_i = Σ_{S ∌ i} |S|! (D − |S| − 1)! / D! · (v(S ∪ i) − v(S)),      v(S) = E[F(X) | X_S = x_S]

    Exact for additive functions. For others from ``draws`` rows, the same for all coalitions, with
    the standard error of φ itself.

    Args:
        field: F.
        distribution: of X.
        x: (B, D) rows.
        draws: for each component.
        seed: of the draws.
        index: (B,) the examples of the field that the rows belong to; 0 … B−1 unless given.

    Returns:
        ``Shapley``: values (B, D), their standard errors, and E F(X).

    Raises:
        InputError: for more than 16 features.

    Cost:
        Nothing for additive functions; otherwise 2^D · B · draws rows for each component.

    Peers:
        The stock code solves a weighted regression on 20,000 draws for every coalition, with weight
        1e6 on the empty and the full one and *no intercept*: its values add up to F(x), not to F(x)
        − E F(X), unless E F(X) is 0 (as that of standardised targets is).

    Example:

    >>> import torch, integrand as ig
    >>> bench = ig.metrics.xai_bench
    >>> problem = bench.gaussian("linear", rho=0.5, weight=(4, 3, 2, 1, 0))
    >>> bench.shapley(problem.field, problem.distribution, torch.tensor([[1.0, -1.0, 0.5, 2.0, 0.0]]).double()).values[0].tolist()
    [4.147..., -6.008..., 0.983..., 5.221..., -0.344...]
    """
    features = distribution.features
    if features > _MOST:
        raise InputError(
            f"Shapley values of {features} features need 2^{features} coalitions; {_MOST} is the most."
        )
    known = (torch.arange(2**features)[:, None] >> torch.arange(features)) & 1 > 0
    weight = _kernel(known).to(x.device)
    if field.additive is not None:
        value = expected(field, distribution, x.double(), known).value
        values = (weight @ value).T.to(x)
        return Shapley(values, torch.zeros_like(values), value[0].to(x))
    means, errors, bases = [], [], []
    for sampled in _samples(field, distribution, x, _coalitions(known), draws, seed, index):
        contributions = torch.einsum("ds,sbn->bdn", weight, sampled)
        means.append(contributions.mean(-1))
        errors.append(_standard_error(contributions))
        bases.append(sampled[0].mean(-1))
    return Shapley(torch.cat(means).to(x), torch.cat(errors).to(x), torch.cat(bases).to(x))


def _coalitions(known: Tensor) -> Tensor:
    """(S, D) or (S, B, D) → (S, B or 1, D) of booleans."""
    return (known[:, None] if known.ndim == 2 else known).bool()


def _kernel(known: Tensor) -> Tensor:
    """(D, 2^D) what v(S) counts in φ_i."""
    features = known.shape[1]
    orders = [
        math.factorial(s) * math.factorial(features - s - 1) / math.factorial(features)
        for s in range(features)
    ]
    weight = torch.tensor([*orders, 0.0], dtype=torch.float64)
    size = known.sum(1)
    with_it, without = weight[(size - 1).clamp_min(0)], weight[size]
    return torch.where(known.T, with_it, -without)


def _standard_error(samples: Tensor) -> Tensor:
    """Of the mean over the last axis."""
    error: Tensor = samples.std(-1) / samples.shape[-1] ** 0.5
    return error


def _samples(
    field: Field,
    distribution: Distribution,
    x: Tensor,
    known: Tensor,
    draws: int,
    seed: int,
    index: Tensor | None,
) -> Iterator[Tensor]:
    """Independent unbiased estimates of v (S, b, draws), for blocks of examples one after another.

    A draw is one of each component, weighed by how likely they are: less noise than picking one,
    and as many rows.
    """
    if draws < 2:
        raise InputError(f"A mean and its standard error need two draws at least, not {draws}.")
    index = torch.arange(len(x), device=x.device) if index is None else index
    components = len(
        distribution.given(x[:1], torch.ones(1, 1, distribution.features, dtype=torch.bool)).weights
    )
    noise = [distribution.noise(k, draws, seed).to(x.device) for k in range(components)]
    step = max(1, _BLOCK_ELEMENTS // (len(known) * draws))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        coalitions = known[:, part] if known.shape[1] > 1 else known
        conditional = distribution.given(x[part], coalitions)
        weights = conditional.weights.expand(components, len(known), len(x[part]))
        values = torch.stack(
            [
                _values_of_draws(field, conditional, k, noise[k], x[part], index[part], len(known))
                for k in range(components)
            ]
        )
        yield (weights[..., None] * values.double()).sum(0)


def _values_of_draws(
    field: Field,
    conditional: Conditional,
    component: int,
    noise: Tensor,
    x: Tensor,
    index: Tensor,
    count: int,
) -> Tensor:
    """F (S, b, n) of rows drawn with what each coalition knows."""
    draws, examples = len(noise), len(x)
    number = torch.arange(count * examples * draws, device=x.device)
    example, values = number // draws % examples, x.new_empty(len(number))

    def rows(part: slice) -> Tensor:
        numbers = number[part]
        return conditional.rows(
            component, noise[numbers % draws], numbers // (draws * examples), example[part]
        ).to(x)

    def use(part: slice, evaluation: Evaluation) -> None:
        values[part] = evaluation.value

    field.stream(index[example], rows, use, x[0], gradient=False)
    return values.reshape(count, examples, draws)
