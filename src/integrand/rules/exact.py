"""Exact integration by fields with a closed form, and by fields that know their jumps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.declared import Adopted
from ..core.segment import Segment
from ..core.values import part
from ..errors import NoShare
from ..fields import Field
from ..fields.base import Decomposition, SmoothPart
from .adaptive.adaptive import Adaptive
from .base import Integrated, Rule, RuleLike, as_rule, exactly


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
        index = torch.arange(segment.leading[2], device=segment.start.device)
        parts = field.decomposed(segment, index)
        if parts is not None:
            return self._joined(parts)
        try:
            return exactly(field, segment)
        except NoShare:
            if self.smooth is None:
                raise
            return Integrated.ensure(self.smooth(field, segment))

    def _joined(self, parts: Decomposition) -> Integrated:
        """The share of the jumps, and those of the smooth parts, whose errors are independent."""
        share = parts.jumps.clone()
        error = share.new_zeros(share.shape[:3])
        rule = Adaptive(1e-3) if self.smooth is None else self.smooth
        for smooth in parts.smooth:
            integrated = Integrated.ensure(rule(smooth.field, smooth.segment))
            share += _placed(integrated.share, smooth, share)
            squares = _placed(integrated.error.square(), smooth, error)
            error = (error.square() + squares).sqrt()
        return Integrated(share, error)


def _placed(numbers: Tensor, smooth: SmoothPart, whole: Tensor) -> Tensor:
    """Numbers of a smooth part, added up over the pieces of the whole that they belong to."""
    if smooth.row is None:
        return numbers
    flat = torch.zeros_like(whole).flatten(0, 2)
    return flat.index_add_(0, smooth.row, numbers.flatten(0, 2)).reshape(whole.shape)
