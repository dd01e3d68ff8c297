"""A segment is a straight piece of a path; a path is a stream of them.

Displacements live on segments and gradients at points. Keeping both in one value is what stops
nodes, steps and weights from drifting apart, the commonest defect of hand-written path loops. A
segment also carries what was already paid for: a path that had to look at the gradient to find its
way hands it on with the segment, and no rule pays for it again.

    start ──────────────▶ end          clock 0 at the baseline, 1 at the input
    at_start              at_end       evaluations already made there, if any
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A field's value and gradient at the same points.

    Attributes:
        value: (L…) F at the points.
        gradient: (L…, \\*s) ∇F there; empty where it was not asked for.
        passes: how often the model was asked for them.
    """

    value: Tensor
    gradient: Tensor
    passes: int = 1

    def reshape(self, *leading: int) -> Evaluation:
        """The same numbers with the leading axes folded into ``leading``."""
        inner = self.gradient.shape[self.value.ndim :]
        return Evaluation(self.value.reshape(leading), self.gradient.reshape(*leading, *inner))


@dataclass(frozen=True, eq=False)
class Curvature:
    """A field's value and gradient at rows, and its Hessian times each of K directions there.

    Attributes:
        value: (N,) F at the rows.
        gradient: (N, \\*s) ∇F there.
        products: (K, N, \\*s) the Hessian times each of K directions there.
    """

    value: Tensor
    gradient: Tensor
    products: Tensor


@dataclass(frozen=True, eq=False)
class Segment:
    """K straight pieces of R paths for B examples, stacked.

    Attributes:
        start: (K, R, B, \\*s), the ends on the baseline's side.
        end: (K, R, B, \\*s), the ends on the input's side.
        clock: (begins (K,), ends (K,)), the part of the path each piece covers, 0 at the baseline
            and 1 at the input.
        at_start: an ``Evaluation`` (K, R, B) at the starts that the path has already paid for, or
            None.
        at_end: likewise at the ends.
        notes: named numbers worth keeping, measured at the K+1 corners (K+1, R, B).
        weights: (R, B) how the references are weighed in the end, where that is known already.
        reference_block: (first, of) when these R references are a block out of more; randomised rules
            stratify over all of them.
    """

    start: Tensor
    end: Tensor
    clock: tuple[Tensor, Tensor]
    at_start: Evaluation | None = None
    at_end: Evaluation | None = None
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Tensor | None = None
    reference_block: tuple[int, int] | None = None

    @property
    def leading(self) -> tuple[int, int, int]:
        """(K, R, B)."""
        k, r, b = self.start.shape[:3]
        return k, r, b

    @property
    def step(self) -> Tensor:
        """The displacement ``end − start`` (K, R, B, \\*s)."""
        return self.end - self.start

    def moving(self) -> Tensor:
        """The rows, numbered over (K, R, B), whose piece has a length; the others have no share and
        cost nothing."""
        return (
            (self.start != self.end).reshape(*self.leading, -1).any(-1).reshape(-1).nonzero()[:, 0]
        )


def polyline(corners: Tensor, clock: Tensor | None = None) -> Segment:
    """The K segments between K + 1 corners.

    Args:
        corners: (K+1, R, B, \\*s), the points of a way, in order.
        clock: (K+1,) when each is reached, from 0 to 1; even unless given.

    Returns:
        The K pieces, stacked.

    Example:
        >>> import torch, integrand as ig
        >>> pieces = ig.segments.polyline(torch.tensor([0.0, 1.0, 4.0])[:, None, None, None])
        >>> pieces.step.flatten().tolist(), pieces.clock[1].tolist()
        ([1.0, 3.0], [0.5, 1.0])
    """
    if clock is None:
        clock = torch.linspace(0, 1, len(corners), dtype=corners.dtype, device=corners.device)
    return Segment(corners[:-1], corners[1:], (clock[:-1], clock[1:]))
