"""The gradient at the input alone, times the way from the baseline."""

from __future__ import annotations

from typing import ClassVar

from ..core.values import part
from .base import Table
from .quadrature import Quadrature


@part
class FirstOrder(Quadrature):
    """The gradient at the end of each piece, times its displacement: the first-order term of F(x) −
    F(b).

        share = (x − b) ⊙ ∇F(x)

    What ``Right(1)`` computes, by methods that mean it so: their maps claim no completeness, and
    the residual holds what curvature makes of the change.

    Cost:
        1 gradient.
    """

    complete: ClassVar[bool] = False

    @property
    def gradients(self) -> int:
        return 1

    def table(self) -> Table:
        return (1.0,), (1.0,)
