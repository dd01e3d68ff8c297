"""Exact integration by fields with a closed form."""

from __future__ import annotations

from torch import Tensor

from ..core.segment import Segment
from ..core.values import part
from ..fields import Field
from .base import Rule


@part
class Exact(Rule):
    """The field's own closed form of the share.

    Trees, Gaussian processes and linear fields have one.

    Raises:
        NoShare: for fields without a closed form.

    Cost:
        No gradients.
    """

    gradients = 0

    def __call__(self, field: Field, segment: Segment) -> Tensor:
        return field.share(segment)
