"""Ranks along the last axis; ties are averaged over their orders.

Where an order is needed and there is none, every order counts the same; the numbers here are means
over all of them, in closed form. Nothing depends on a sorting algorithm, on a seed, or on where in
an image a tie is.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 22


def blocks(scores: Tensor) -> Iterator[slice]:
    """Examples of ``scores`` (M, B, N), a few at a time: sorting takes several times the memory of
    what is sorted."""
    step = max(1, _BLOCK_ELEMENTS // max(1, scores.shape[0] * scores.shape[2]))
    return (slice(start, start + step) for start in range(0, scores.shape[1], step))


def in_groups(values: Tensor, *, descending: bool = False) -> tuple[Tensor, Tensor]:
    """The order of ``values`` (…, N), and which group of equal values each place of that order
    belongs to, from 0."""
    ordered, order = values.sort(dim=-1, descending=descending, stable=True)
    new = torch.zeros_like(order)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    return order, new.cumsum(-1)


def _levelled(numbers: Tensor, group: Tensor) -> Tensor:
    """``numbers`` (…, N) replaced by the mean of their group."""
    sums = torch.zeros_like(numbers).scatter_add_(-1, group, numbers)
    sizes = torch.zeros_like(numbers).scatter_add_(-1, group, torch.ones_like(numbers))
    return (sums / sizes.clamp_min(1)).gather(-1, group)


def average_ranks(values: Tensor) -> Tensor:
    """Ranks of ``values`` (…, N) from 1, the smallest first; equal values share the mean of their
    ranks."""
    order, group = in_groups(values)
    ranks = torch.arange(1, values.shape[-1] + 1, device=values.device, dtype=torch.float64).expand(
        values.shape
    )
    return torch.empty_like(ranks).scatter_(-1, order, _levelled(ranks, group))


def found_among_first(scores: Tensor, marked: Tensor) -> Tensor:
    """How many ``marked`` (…, N) are among the k with the highest ``scores`` (…, N), for k = 0 … N:
    (…, N+1).

    Where scores are equal, the mean over their orders.
    """
    order, group = in_groups(scores, descending=True)
    hit = marked.expand(scores.shape).gather(-1, order).double()
    counts = hit.new_zeros(*scores.shape[:-1], scores.shape[-1] + 1)
    counts[..., 1:] = _levelled(hit, group).cumsum(-1)
    return counts
