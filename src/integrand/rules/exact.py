"""Exact integration by fields with a closed form, and by fields that know their jumps."""

from __future__ import annotations

from ..core.declared import Adopted
from ..core.segment import Segment
from ..core.values import part
from ..errors import NoShare
from ..fields import Field
from .adaptive.adaptive import Adaptive
from .base import Integrated, Rule, RuleLike, as_rule, between_jumps, exactly


def _as_smooth(rule: RuleLike | None) -> Rule | None:
    return None if rule is None else as_rule(rule)


@part
class Exact(Rule):
    """The field's own closed form of the share.

        share = Σ_k J_k s_k + ∫ ∇F ⊙ dγ between the jumps J_k

    Trees, Gaussian processes and linear fields have one. Mixtures of trees and networks
    (``ig.fields.Sum``, ``ig.fields.Compose``) know the share of their jumps; ``smooth`` integrates
    what lies between. The error is that of ``smooth``, and zero where nothing is left to it.

    Args:
        smooth: the rule for the smooth parts of mixtures, ``Adaptive(1e-3)`` unless given; given, it
            also integrates fields that are smooth throughout.

    Raises:
        NoShare: for fields without a closed form, where no ``smooth`` is given.

    Cost:
        No gradients, but for the smooth parts of mixtures.
    """

    smooth: Adopted[RuleLike | None, Rule | None] = Adopted(_as_smooth, None)

    gradients = 0

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        smooth = self.smooth
        jumping = between_jumps(
            field, segment, lambda: Adaptive(1e-3) if smooth is None else smooth
        )
        if jumping is not None:
            return jumping
        try:
            return exactly(field, segment)
        except NoShare:
            if smooth is None:
                raise
            return Integrated.ensure(smooth(field, segment))
