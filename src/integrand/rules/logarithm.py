"""Quadrature for the density −ln s on [0, 1]: that of a product s = αβ of two uniform numbers.

    ∫₀¹ ∫₀¹ f(αβ) dα dβ = ∫₀¹ −ln(s) f(s) ds

so that a double integral along a straight line is a single one. For polynomials of degree 2n − 1 in
s the left side is a sum over n × n Gauss–Legendre nodes, exactly: that is the measure both rules
here are made of. ``gauss_logarithm`` has the fewest nodes, ``nested_logarithm`` keeps its nodes
when n is doubled.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Table = tuple[tuple[float, ...], tuple[float, ...]]
"""Nodes in [0, 1], and weights that sum to one."""


def _product_measure(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points αβ and masses of the n × n Gauss–Legendre rule."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    alpha = (nodes + 1) / 2
    mass = weights / weights.sum()
    return np.outer(alpha, alpha).ravel(), np.outer(mass, mass).ravel()


@lru_cache(maxsize=64)
def gauss_logarithm(n: int) -> Table:
    """The Gauss rule for −ln s with ``n`` nodes, exact for polynomials of degree 2n − 1.

    Recurrence coefficients of the orthogonal polynomials by Stieltjes' procedure on a discrete
    measure that has the same moments, then the eigenvalues of the Jacobi matrix (Golub and Welsch,
    1969; Gautschi, Orthogonal Polynomials, 2004, section 2.2).
    """
    points, mass = _product_measure(n)
    diagonal, beside = np.empty(n), np.empty(n)
    before, now, norm = np.zeros_like(points), np.ones_like(points), 1.0
    for k in range(n):
        diagonal[k] = (mass * points * now * now).sum()
        after = (points - diagonal[k]) * now - (norm if k else 0.0) * before
        norm = float(np.sqrt((mass * after * after).sum()))
        beside[k] = norm
        before, now = now, after / norm if k < n - 1 else after
    jacobi = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    weights = vectors[0] ** 2
    return tuple(nodes.tolist()), tuple((weights / weights.sum()).tolist())


@lru_cache(maxsize=16)
def nested_logarithm(n: int) -> Table:
    """The rule for −ln s on the n − 1 points (1 + cos(πj/n))/2, ascending: exact for polynomials of
    degree n − 2; 2n keeps every node (Filippi, 1964, for this density).

    Weights integrate the interpolating sum of Chebyshev polynomials U_k.
    """
    angles = np.pi * np.arange(n - 1, 0, -1) / n
    waves = np.sin(np.outer(angles, np.arange(1, n)))  # sin((k + 1) θ) = sin θ U_k(cos θ)
    weights = 2 / n * np.sin(angles) * (waves @ _moments(n - 1))
    return tuple(((1 + np.cos(angles)) / 2).tolist()), tuple(weights.tolist())


def _moments(count: int) -> NDArray[np.float64]:
    """∫ −ln(s) U_k(2s − 1) ds for k below ``count``.

    By parts it is I_{k+1}/(2(k + 1)), I_m = ∫ (T_m(2s − 1) − (−1)^m)/s ds; the three terms of T_m
    make (−1)^m I_m a sequence with second differences 4/(m² − 1) for even m, and 0 for odd.
    """
    m = np.arange(1, count + 1)
    bends = np.where(m[:-1] % 2, 0.0, 4 / (m[:-1] ** 2.0 - 1).clip(1e-300))
    slopes = -2 + np.concatenate([[0.0], np.cumsum(bends)])
    moments: NDArray[np.float64] = np.where(m % 2, -1, 1) * np.cumsum(slopes) / (2 * m)
    return moments
