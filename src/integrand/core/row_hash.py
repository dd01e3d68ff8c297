"""Hashes of rows of numbers, to find those that hold the same."""

from __future__ import annotations

import torch
from torch import Tensor

from .random import generator

_BLOCK_ELEMENTS = 1 << 20  # rows are hashed in blocks of about this many numbers


def row_bits(rows: Tensor) -> Tensor:
    """The bits of rows (N, F) of numbers, as whole numbers of 32 bits (N, F or 2 F); narrower ones
    are widened, which keeps them apart."""
    rows = rows if rows.element_size() >= 4 else rows.float()
    return rows.contiguous().view(torch.int32)


def row_hashes(rows: Tensor) -> Tensor:
    """Hashes (N,) of 64 bits of rows (N, F) of float32 or float64: equal where rows hold the same,
    bit for bit.

        h = Σ_i f_i u_i + g_i ⌊u_i / 2^15⌋   modulo 2^64, of the halves u_i of the numbers, f and g random

    A sum of products alone would forget what differs in high bits only, such as a sign: 2^63 times
    any factor is 0 or 2^63. Rows that differ have the same hash with a chance of 2^-48 at most.

    Example:
        >>> import torch
        >>> row_hashes(torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])).unique().numel()
        2
    """
    bits = row_bits(rows[:1])
    width = bits.shape[1]
    # Sums of whole numbers do not depend on their order, as those of floating-point numbers do.
    factors = torch.randint(-(2**62), 2**62, (2, width), generator=generator(width))
    low, high = factors.to(rows.device)
    count = max(1, _BLOCK_ELEMENTS // max(1, width))
    hashes = []
    for block in torch.split(rows, count):
        halves = row_bits(block).long()
        hashes.append((halves * low).sum(1) + ((halves >> 15) * high).sum(1))
    return torch.cat(hashes)


def same_rows(rows: Tensor, first: Tensor, second: Tensor) -> bool:
    """Whether rows (N, F) numbered ``first`` (M,) hold the same as those numbered ``second``, bit
    for bit."""
    count = max(1, _BLOCK_ELEMENTS // max(1, rows.shape[1]))
    return all(
        torch.equal(row_bits(rows[some]), row_bits(rows[others]))
        for some, others in zip(torch.split(first, count), torch.split(second, count), strict=True)
    )
