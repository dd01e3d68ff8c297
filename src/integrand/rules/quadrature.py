"""Quadrature rules with fixed nodes.

    share = (end − start) ⊙ Σ_q w_q ∇F(start + t_q (end − start))

Of fields that jump (trees, and mixtures with them) the share of the jumps is exact, and nodes are
for what lies between. A rule is its table of nodes and weights; weights sum to one. What the path has already paid for at
the ends of a segment is used, not evaluated again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..core.segment import Segment
from ..core.shapes import over
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Integrated, Rule, Table, between_jumps, mean_gradient
from .logarithm import gauss_logarithm


class Quadrature(Rule):
    """A table of nodes in [0, 1] and weights that sum to one; more nodes cost more."""

    @property
    def resolution(self) -> str | None:
        """Its nodes, where it can have more of them."""
        return "n" if "n" in vars(self) else None

    @abstractmethod
    def table(self) -> Table:
        """(nodes, weights)."""

    @property
    def gradients(self) -> int:
        """Gradients per segment, reference and example, of which the path may have paid for the
        ends."""
        return len(self.table()[0])

    def nodes_on(self, segment: Segment) -> tuple[Tensor, Tensor]:
        nodes, weights = (torch.tensor(t, dtype=torch.float64) for t in self.table())
        return nodes.to(segment.start), weights.to(segment.start)

    def __call__(self, field: Field, segment: Segment) -> Tensor | Integrated:
        jumping = between_jumps(field, segment, lambda: self)
        if jumping is not None:
            return jumping
        nodes, weights = self.table()
        return at_nodes(
            field, segment, nodes, torch.tensor(weights, dtype=torch.float64).to(segment.start)
        )


def at_nodes(field: Field, segment: Segment, nodes: Sequence[float], weights: Tensor) -> Tensor:
    """(end − start) ⊙ Σ_q w_q ∇F(start + t_q (end − start)); ``weights`` (n,) or broadcast to (n,
    K, R, B).

    Gradients at the ends that the path has paid for are used, not evaluated again.
    """
    known = [{0.0: segment.at_start, 1.0: segment.at_end}.get(node) for node in nodes]
    unknown = [q for q, paid in enumerate(known) if paid is None]
    times = torch.tensor([nodes[q] for q in unknown], dtype=torch.float64).to(segment.start)
    mean = mean_gradient(field, segment, times, weights[unknown])
    for weight, paid in zip(weights, known, strict=True):
        if paid is not None:
            mean += over(weight, paid.gradient) * paid.gradient
    return mean.mul_(segment.step)


def _checked_pieces(n: int) -> int:
    if n < 1:
        raise InputError(f"A rule needs at least one node, not {n}.")
    return n


@part
class Left(Quadrature):
    """Left Riemann sum: the gradient at the start of each of ``n`` equal pieces.

        t = q/n,   w = 1/n,   error O(1/n)

    Args:
        n: how many equal pieces each segment of the path is cut into.

    Cost:
        n gradients.
    """

    n: int = 1

    def table(self) -> Table:
        n = _checked_pieces(self.n)
        return tuple(q / n for q in range(n)), (1 / n,) * n


@part
class Right(Quadrature):
    """Right Riemann sum: the gradient at the end of each of ``n`` equal pieces.

        t = (q+1)/n,   w = 1/n,   error O(1/n)

    On a descent from the input this is the published rule of IG2: its gradients come with the path,
    for nothing.

    Args:
        n: how many equal pieces each segment of the path is cut into.

    Cost:
        n gradients.
    """

    n: int = 1

    def table(self) -> Table:
        n = _checked_pieces(self.n)
        return tuple((q + 1) / n for q in range(n)), (1 / n,) * n


@part
class Midpoint(Quadrature):
    """Midpoint rule: the gradient in the middle of each of ``n`` equal pieces.

        t = (q+½)/n,   w = 1/n,   error O(1/n²)

    Args:
        n: how many equal pieces each segment of the path is cut into.

    Cost:
        n gradients.
    """

    n: int = 1

    def table(self) -> Table:
        n = _checked_pieces(self.n)
        return tuple((q + 0.5) / n for q in range(n)), (1 / n,) * n


@part
class Trapezoid(Quadrature):
    """Trapezoid rule: the mean gradient of both ends of each of ``n`` equal pieces.

        t = q/n,   w = ½, 1, …, 1, ½ over n,   error O(1/n²)

    Args:
        n: how many equal pieces each segment of the path is cut into.

    Cost:
        n + 1 gradients. The weights sum to one (peers' sum to (n − 1)/n).
    """

    n: int = 1

    def table(self) -> Table:
        n = _checked_pieces(self.n)
        return tuple(q / n for q in range(n + 1)), (0.5 / n, *(1 / n,) * (n - 1), 0.5 / n)


@part
class Simpson(Quadrature):
    """Simpson's rule on ``n`` equal pieces: parabolas through both ends and the middle.

        w = 1/6, 4/6, 2/6, …, 1/6 over n

    Error O(1/n⁴).

    Args:
        n: how many equal pieces each segment of the path is cut into.

    Cost:
        2n + 1 gradients; where the path has paid for the ends (a descent), one per segment.
    """

    n: int = 1

    def table(self) -> Table:
        n = _checked_pieces(self.n)
        inner = [(4 if q % 2 else 2) / (6 * n) for q in range(1, 2 * n)]
        return tuple(q / (2 * n) for q in range(2 * n + 1)), (1 / (6 * n), *inner, 1 / (6 * n))


@part
class GaussLegendre(Quadrature):
    """Gauss–Legendre quadrature with ``n`` nodes.

    Exact for gradients that are polynomials of degree 2n − 1 along the segment.

    The best fixed rule for smooth models; on kinks (ReLU) its error falls like 1/n.

    Args:
        n: nodes on each segment of the path.

    Cost:
        n gradients.
    """

    n: int = 50

    def table(self) -> Table:
        return _gauss_legendre(_checked_pieces(self.n))

    def double_table(self) -> Table:
        """The Gauss rule for the density −ln s of s = αβ: n nodes that are exact for what all n² of
        the double sum are."""
        return gauss_logarithm(_checked_pieces(self.n))


@lru_cache(maxsize=64)
def _gauss_legendre(n: int) -> Table:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    half = weights / weights.sum()
    return tuple(((nodes + 1) / 2).tolist()), tuple(half.tolist())


@part
class ClenshawCurtis(Quadrature):
    """Clenshaw–Curtis quadrature with ``n`` + 1 nodes, n even.

        t = (1 − cos(π j / n)) / 2

    About as good as Gauss–Legendre, and doubling n uses every node again.

    Cost:
        n + 1 gradients.

    References:
        Clenshaw and Curtis, Numerische Mathematik 2, 1960.
    """

    n: int = 16

    def table(self) -> Table:
        return _clenshaw_curtis(_checked_pieces(self.n))


@lru_cache(maxsize=64)
def _clenshaw_curtis(n: int) -> Table:
    if n % 2:
        raise InputError(f"Clenshaw–Curtis takes an even number of pieces, not {n}.")
    angles = np.pi * np.arange(n + 1) / n
    # The integral of the interpolating cosine series, term by term.
    terms = np.arange(2, n + 1, 2)
    factors = np.where(terms == n, 1, 2) / (1 - terms**2.0)
    weights = (1 + (factors * np.cos(np.outer(angles, terms))).sum(1)) / n
    weights[[0, -1]] /= 2
    return tuple(((1 - np.cos(angles)) / 2).tolist()), tuple(weights.tolist())
