"""What a weighting is: ``(shares, x, field) -> weights (R, B)``; equal weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ..core.declared import Part, Stranger, check_callable, declared, with_fields
from ..core.features import Features
from ..core.values import part
from ..fields import Field
from .fills import Fill


@dataclass(frozen=True, eq=False)
class Weighed:
    """Weights (R, B) of references, with the fitness they come from.

    Attributes:
        weights: (R, B), which add up to one over the references.
        fitness: (R, B) what they come from, or None.
        criterion: what the fitness counts, in a sentence.
        reasons: per example, why the fitness cannot tell its baselines apart; None where it can.

    Example:
        >>> import torch, integrand as ig
        >>> ig.weightings.Weighed(torch.full((2, 3), 0.5)).weights.sum(0).tolist()
        [1.0, 1.0, 1.0]
    """

    weights: Tensor
    fitness: Tensor | None = None
    criterion: str = ""
    reasons: tuple[str | None, ...] = ()

    @classmethod
    def ensure(cls, weights: Tensor | Weighed) -> Weighed:
        """A bare tensor is weights without further notes."""
        return weights if isinstance(weights, Weighed) else cls(weights)


class WeightingLike(Protocol):
    """Anything callable as a weighting: ``(shares, x, field) -> weights``."""

    def __call__(self, shares: Tensor, x: Tensor, field: Field) -> Tensor | Weighed: ...


class Weighting(Part, ABC):
    """Base class of weightings: how references are weighed.

    (shares (R, B, \\*s), x (B, \\*s), field) -> weights (R, B) or ``Weighed``
    """

    @abstractmethod
    def __call__(self, shares: Tensor, x: Tensor, field: Field) -> Tensor | Weighed: ...

    @declared
    def features(self) -> Features | None:
        """What one feature is, where it asks; label maps (B, H, W) hold something for each
        example."""
        return None

    @declared
    def fill(self) -> Any:
        """What replaced features become, where it replaces any; baselines may hold something for
        each example."""
        return None

    def with_fills(self, change: Callable[[Any], Any]) -> Self:
        """The same with other baselines for what replaced features become: those that hold
        something for each example are taken apart or repeated as the examples are.

        Args:
            change: a fill that is a baseline → another.
        """
        if self.fill is None or isinstance(self.fill, Fill):
            return self
        return with_fields(self, fill=change(self.fill))

    def beforehand(self, references: int, batch: int) -> Tensor | None:
        """The weights (R, B) of a weighting that needs no shares, so that these can be added up as
        they come; else None.

        Args:
            references: R.
            batch: B.

        Returns:
            (R, B), or None.
        """
        return None

    def prepared(self, x: Tensor, field: Field, references: Tensor) -> Callable[[Tensor], Weighed]:
        """The weighting once it has looked at the inputs and the references (R, B, \\*s), waiting
        for shares.

        What it cannot work with it says here, before any gradient.

        Args:
            x: (B, \\*s), the inputs.
            field: the scalar explained.
            references: (R, B, \\*s), where paths are to start.

        Returns:
            A function of the shares (R, B, \\*s).
        """
        return lambda shares: Weighed.ensure(self(shares, x, field))


class _StrangerWeighting(Stranger, Weighting):
    """A user's callable as a weighting."""


def as_weighting(weighting: WeightingLike) -> Weighting:
    """Convert to a ``Weighting``; a user's callable is wrapped, and keeps the attributes it declares."""
    if isinstance(weighting, Weighting):
        return weighting
    check_callable(
        weighting, "a weighting", "(shares, x, field) -> weights", "ig.weightings.Uniform()"
    )
    return _StrangerWeighting(weighting)


@part
class Uniform(Weighting):
    """Equal weights: w_r = 1/R."""

    def beforehand(self, references: int, batch: int) -> Tensor:
        """The weights, which do not depend on shares."""
        return torch.full((references, batch), 1 / references, dtype=torch.float64)

    def __call__(self, shares: Tensor, x: Tensor, field: Field) -> Tensor:
        return self.beforehand(*shares.shape[:2]).to(shares)
