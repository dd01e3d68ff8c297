"""Pearson and Spearman correlation of batches of rows, with missing values and a tolerance for
rounding.

Everything is done in float64. A row that is the same everywhere, rounding apart, is like nothing:
its correlation is NaN, never 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .ranks import average_ranks

Noise = Tensor | float | None
"""By how much a row may vary without meaning it: a number for each row, in its units; or a part of
its size."""


def pearson(
    a: Tensor,
    b: Tensor,
    present: Tensor | None = None,
    *,
    noise: tuple[Noise, Noise] = (None, None),
) -> Tensor:
    """Pearson's correlation of the rows of ``a`` and ``b`` (…, N) → (…); NaN where either does not
    vary.

        Σ (a − ā)(b − b̄) / √( Σ (a − ā)² · Σ (b − b̄)² )

    present  (…, N) bool, which entries count; all unless given
    noise    of a and of b; rounding of their type unless given
    """
    if present is None:
        present = torch.ones((), dtype=torch.bool, device=a.device)
    still = constant(a, present, noise[0]) | constant(b, present, noise[1])
    a, b = _centred(a, present), _centred(b, present)
    top = (a * b).sum(-1)
    bottom = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(still | (bottom == 0), torch.nan, top / bottom).clamp(-1, 1)


def spearman(
    a: Tensor,
    b: Tensor,
    present: Tensor | None = None,
    *,
    noise: tuple[Noise, Noise] = (None, None),
) -> Tensor:
    """Pearson's correlation of the ranks of the rows of ``a`` and ``b`` (…, N) → (…); ties share
    their mean rank.

    ``present`` and ``noise`` as in ``pearson``.
    """
    if present is None:
        present = torch.ones((), dtype=torch.bool, device=a.device)
    still = constant(a, present, noise[0]) | constant(b, present, noise[1])
    # Absent entries rank last, and so leave the others' ranks alone.
    a, b = (average_ranks(torch.where(present, rows, torch.inf)) for rows in (a, b))
    return torch.where(still, torch.nan, pearson(a, b, present))


def rounding(values: Tensor) -> float:
    """The part of numbers of this type that may be rounding."""
    return 8 * torch.finfo(values.dtype if values.is_floating_point() else torch.float64).eps


def constant(values: Tensor, present: Tensor, noise: Noise = None) -> Tensor:
    """(…) whether a row (…, N) does not vary by more than ``noise``. Where nothing is present,
    nothing varies."""
    low = torch.where(present, values, torch.inf).amin(-1)
    high = torch.where(present, values, -torch.inf).amax(-1)
    if noise is None:
        noise = rounding(values)
    allowed = noise if isinstance(noise, Tensor) else noise * torch.maximum(low.abs(), high.abs())
    return ~(high - low > allowed)


def _centred(values: Tensor, present: Tensor) -> Tensor:
    values, present = values.double(), present.expand(values.shape)
    count = present.sum(-1, keepdim=True).clamp_min(1)
    mean = torch.where(present, values, 0).sum(-1, keepdim=True) / count
    centred = torch.where(present, values - mean, 0)
    # Scaled: the squares of small numbers are no numbers any more.
    largest = centred.abs().amax(-1, keepdim=True)
    return centred / torch.where(largest == 0, 1, largest)
