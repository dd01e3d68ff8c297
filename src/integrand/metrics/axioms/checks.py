"""The axioms as checks: each takes an ``ExplainerAdapter`` and returns the size of the violation,
relative to the size of the maps; 0 where the axiom holds.

Statements are in the docstrings' first paragraphs and are what reports print. Sources:
Sundararajan, Taly, Yan 2017 (completeness, dummy, linearity, implementation invariance, symmetry);
Lundstrom,
Huang, Razaviyayn 2022 (non-decreasing positivity); Lundstrom and Razaviyayn 2025 (affine scale
invariance, proportionality, symmetric monotonicity, the monomial rule); Lerma and Lucas 2021 (paths
and symmetry).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...fields import Field, Function, Linear, Monomial, TorchField
from ...paths import corners
from .adapter import ExplainerAdapter, ask
from .probes import (
    POINTS,
    SCATTERED,
    SLOPES,
    STARTS,
    of_the_sum,
    polynomial,
    rising,
    steeper_in_the_first,
    symmetric,
    twins,
)

Check = Callable[[ExplainerAdapter], float | None]
"""How far an axiom is broken; None where the question does not arise."""

_SCALE, _OFFSET = (
    torch.tensor([2.0, -3.0, 0.5, -1.0]).double(),
    torch.tensor([1.0, -2.0, 0.3, 4.0]).double(),
)


def apart(first: Tensor, second: Tensor, size: Tensor) -> float:
    """The largest difference, relative to the largest number in ``size``."""
    return float((first - second).abs().amax() / size.abs().amax().clamp_min(1e-12))


def complete(adapter: ExplainerAdapter) -> float:
    """A map adds up to F(x) − F(where the path began)."""
    field = Function(symmetric)
    if adapter.method is None:
        values = adapter.explains(field, POINTS, STARTS[:1])
        change = symmetric(POINTS) - symmetric(STARTS[:1])
        return apart(values.sum(1), change, change)
    attribution = ask(adapter.method(STARTS), field, POINTS)
    return float(
        (attribution.residual.abs() / (attribution.output - attribution.base).abs()).amax()
    )


def dummy(adapter: ExplainerAdapter) -> float:
    """A feature that F does not look at gets nothing."""
    values = adapter.explains(Function(symmetric), POINTS, STARTS)
    return apart(values[:, 3], torch.zeros(2).double(), values)


def linear(adapter: ExplainerAdapter) -> float:
    """A(aF + cG) = a A(F) + c A(G)."""
    a, c = 1.5, -0.7
    combined = adapter.explains(
        Function(lambda z: a * symmetric(z) + c * polynomial(z)), POINTS, STARTS
    )
    map_of_f, map_of_g = (
        adapter.explains(Function(f), POINTS, STARTS) for f in (symmetric, polynomial)
    )
    # Weights that go by ranks of features change seldom: they are tried on more features, and
    # references that differ more.
    x, references = torch.ones(1, 8).double(), SCATTERED
    first, second, added = (
        adapter.explains(Linear(w), x, references) for w in (*SLOPES, SLOPES.sum(0))
    )
    return max(
        apart(combined, a * map_of_f + c * map_of_g, combined), apart(added, first + second, added)
    )


def implementation_invariant(adapter: ExplainerAdapter) -> float:
    """Two models of one function have one map."""
    first, second = (adapter.explains(TorchField(model, 0), POINTS, STARTS) for model in twins())
    return apart(first, second, first)


def symmetry(adapter: ExplainerAdapter) -> float:
    """Features that F, the input and the baseline treat alike get the same."""
    values = adapter.explains(Function(symmetric), POINTS, STARTS)
    return apart(values[:, 0], values[:, 1], values)


def positive(adapter: ExplainerAdapter) -> float:
    """Where F never falls on the way, no feature gets less than nothing (non-decreasing
    positivity)."""
    values = adapter.explains(
        Function(rising), torch.ones(1, 4).double(), torch.zeros(1, 4).double()
    )
    return apart(values.clamp_max(0), torch.zeros(1, 4).double(), values)


def affine_scale_invariant(adapter: ExplainerAdapter) -> float:
    """Units do not matter: A(Tx, Tb, F ∘ T⁻¹) = A(x, b, F) for T(z) = c ⊙ z + d."""
    stretched = Function(lambda z: symmetric((z - _OFFSET) / _SCALE))
    scaled = adapter.explains(stretched, _SCALE * POINTS + _OFFSET, _SCALE * STARTS + _OFFSET)
    unscaled = adapter.explains(Function(symmetric), POINTS, STARTS)
    return apart(scaled, unscaled, unscaled)


def proportional(adapter: ExplainerAdapter) -> float:
    """Where only the sum of the features counts, each gets its part of the sum."""
    values = adapter.explains(Function(of_the_sum), POINTS, torch.zeros(1, 4).double())
    rate = values / POINTS
    return apart(rate, rate.mean(1, keepdim=True), rate)


def monotonic(adapter: ExplainerAdapter) -> float:
    """Where F is everywhere at least as steep in i as G is in j, A_i(F)/(x_i − b_i) ≥ A_j(G)/(x_j −
    b_j) (symmetric monotonicity)."""
    zero = torch.zeros(1, 4).double()
    low, high = (
        adapter.explains(Function(f), POINTS, zero) / POINTS
        for f in (of_the_sum, steeper_in_the_first)
    )
    # G against itself is as steep in every feature, so all rates are equal; F is steeper in feature
    # 0 than G is in any.
    return max(
        apart(low.amin(1), low.amax(1), low),
        apart((high[:, :1] - low).clamp_max(0), torch.zeros_like(low), low),
    )


def monomial(adapter: ExplainerAdapter) -> float:
    """F = Π (z_i − b_i)^mᵢ gives feature i the part mᵢ/Σm of F(x)."""
    powers = torch.tensor([3, 1, 2, 0])
    field = Monomial(powers, STARTS[0])
    expected = field.value(POINTS)[:, None] * powers / powers.sum()
    return apart(adapter.explains(field, POINTS, STARTS[:1]), expected, expected)


def equivariant(adapter: ExplainerAdapter) -> float:
    """The order of the features does not matter: permuting model, input and baselines permutes the
    map."""
    order = torch.tensor([2, 0, 3, 1])
    back = order.argsort()
    original = adapter.explains(Function(symmetric), POINTS, STARTS)
    permuted = adapter.explains(
        Function(lambda z: symmetric(z[:, back])), POINTS[:, order], STARTS[:, order]
    )
    return apart(permuted, original[:, order], original)


def tied(adapter: ExplainerAdapter) -> float | None:
    """Features with the same input and baseline move together, without which no monotone path keeps
    symmetry."""
    points = _points(adapter, Function(symmetric), POINTS, STARTS)
    return None if points is None else apart(points[..., 0], points[..., 1], points - points[:1])


def boxed(adapter: ExplainerAdapter) -> float | None:
    """The path stays between its start and the input in every feature."""
    points = _points(adapter, Function(symmetric), POINTS, STARTS)
    if points is None:
        return None
    low, high = torch.minimum(points[0], POINTS), torch.maximum(points[0], POINTS)
    out = torch.maximum(low - points, points - high).clamp_min(0)
    return apart(out, torch.zeros_like(out), high - low)


def monotone(adapter: ExplainerAdapter) -> float | None:
    """No feature ever turns back on the path."""
    points = _points(adapter, Function(symmetric), POINTS, STARTS)
    if points is None:
        return None
    steps = points.diff(dim=0)
    back = torch.minimum(steps.clamp_min(0).sum(0), (-steps).clamp_min(0).sum(0))
    return apart(back, torch.zeros_like(back), points - points[:1])


def _points(
    adapter: ExplainerAdapter, field: Field, x: Tensor, references: Tensor
) -> Tensor | None:
    """The corners of the path (K+1, R, B, n)."""
    if adapter.path is None:
        return None
    return corners(adapter.path, field, references[:, None].expand(-1, len(x), -1), x)[1]


CATALOGUE: dict[str, Check] = {
    "complete": complete,
    "dummy": dummy,
    "linear": linear,
    "implementation-invariant": implementation_invariant,
    "symmetric": symmetry,
    "non-decreasing positivity": positive,
    "affine scale invariant": affine_scale_invariant,
    "proportional": proportional,
    "symmetric monotonicity": monotonic,
    "monomial rule": monomial,
    "permutation-equivariant": equivariant,
    "tied features move together": tied,
    "within the box": boxed,
    "monotone": monotone,
}
