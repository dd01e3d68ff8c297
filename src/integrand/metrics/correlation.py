"""How alike two rows of numbers are: Pearson, Spearman, and the ranks between, for any number of rows at once.

Everything is done in float64. A row that is the same everywhere, rounding apart, is like nothing: its correlation is NaN, never 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

Noise = Tensor | float | None
"""By how much a row may vary without meaning it: a number for each row, in its units; or a part of its size."""


def pearson(
    a: Tensor, b: Tensor, present: Tensor | None = None, *, noise: tuple[Noise, Noise] = (None, None)
) -> Tensor:
    """Pearson's correlation of the rows of ``a`` and ``b`` (…, N) → (…); NaN where either does not vary.

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
    a: Tensor, b: Tensor, present: Tensor | None = None, *, noise: tuple[Noise, Noise] = (None, None)
) -> Tensor:
    """Pearson's correlation of the ranks of the rows of ``a`` and ``b`` (…, N) → (…); ties share their mean rank.

    ``present`` and ``noise`` as in ``pearson``.
    """
    whole = torch.ones((), dtype=torch.bool, device=a.device) if present is None else present
    still = constant(a, whole, noise[0]) | constant(b, whole, noise[1])
    return torch.where(still, torch.nan, pearson(ranks(a, present), ranks(b, present), present))


def ranks(values: Tensor, present: Tensor | None = None) -> Tensor:
    """Ranks from 1 of the numbers in each row (…, N); equal numbers share the mean of their places. Absent ones rank last."""
    values = values.double()
    if present is not None:
        values = torch.where(present, values, torch.inf)
    rows = values.reshape(-1, values.shape[-1]).contiguous()
    ordered = rows.sort(-1).values
    below = torch.searchsorted(ordered, rows, right=False)
    upto = torch.searchsorted(ordered, rows, right=True)
    return ((below + 1 + upto).double() / 2).reshape(values.shape)


def rounding(values: Tensor) -> float:
    """The part of numbers of this type that may be rounding."""
    return 8 * torch.finfo(values.dtype if values.is_floating_point() else torch.float64).eps


def constant(values: Tensor, present: Tensor, noise: Noise = None) -> Tensor:
    """(…) whether a row (…, N) does not vary by more than ``noise``. Where nothing is present, nothing varies."""
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
    return torch.where(present, values - mean, 0)
