"""Bases that decompose the change from a baseline to an image, strong and coarse components first.

A basis is any callable ``change (N, C, H, W) -> Split``. The pieces themselves are seldom made: a
``Split`` knows how strong each is, and how to put together a sum in which piece i counts φ_i. All
ones put together the change itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..core.values import part
from ..errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """A change decomposed into components.

    Attributes:
        strengths: (N|1, …) how strong each piece is, from 1 (enters first) to 0 (enters last).
        compose: gates (k, \\*strengths.shape) → Σ_i gate_i · piece_i (k, N, C, H, W).
    """

    strengths: Tensor
    compose: Callable[[Tensor], Tensor]


class Basis(Protocol):
    """Takes a change (N, C, H, W) apart."""

    def __call__(self, change: Tensor) -> Split: ...


@part
class SVD:
    """Singular value decomposition.

        Δ = Σ_i σ_i u_i v_iᵀ,   strength σ_i/σ_1

    Of every channel's H × W matrix by itself, or with ``joint`` of the channels on top of one
    another, (C·H) × W, which keeps colours together. Singular vectors are not unique where singular
    values are equal, but then all of these count alike, and their sum is.

    Cost:
        One thin decomposition, min(H, W) rank-one pieces that are never made.
    """

    joint: bool = False

    def __call__(self, change: Tensor) -> Split:
        matrices = change.flatten(1, 2)[:, None] if self.joint else change
        left, values, right = torch.linalg.svd(matrices, full_matrices=False)
        top = values[..., :1]
        strengths = torch.where(top > 0, values / top, 1)  # no change at all is as strong as any

        def compose(gates: Tensor) -> Tensor:
            composed: Tensor = (left * (values * gates)[..., None, :]) @ right
            return composed.reshape(-1, *change.shape)

        return Split(strengths, compose)


@part
class DCT:
    """The orthonormal two-dimensional cosine transform (DCT-II) of every channel.

    The strength of a component is 1 − r/max r.

    r is the distance of a frequency (u, v) from the constant, each counted in parts of the highest
    along its axis.

    Cost:
        Two products with H × H and W × W matrices per sum.
    """

    def __call__(self, change: Tensor) -> Split:
        height, width = change.shape[-2:]
        rows, columns = (_cosines(size).to(change) for size in (height, width))
        coefficients = rows @ change @ columns.T
        vertical, horizontal = (
            torch.linspace(0, 1, size, dtype=torch.float64) for size in (height, width)
        )
        radius = torch.hypot(vertical[:, None], horizontal)
        strengths = (1 - radius / radius.max().clamp_min(1e-300)).clamp(0, 1).to(change)[None]

        def compose(gates: Tensor) -> Tensor:
            composed: Tensor = rows.T @ (coefficients * gates[:, :, None]) @ columns
            return composed

        return Split(strengths, compose)


def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II (size, size): a row per frequency."""
    place = torch.arange(size, dtype=torch.float64)
    matrix: Tensor = torch.cos(torch.pi / size * place[:, None] * (place + 0.5)) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix


@part
class Haar:
    """Haar wavelets: averages first, then differences from the coarsest level to the finest.

    Differences are between neighbours, and strengths are even from 1 to 0.

    Every level has three pieces: differences along the width, along the height, and along both.
    ``levels`` are halvings, as many as the smaller side allows; a last row or column that has no
    neighbour is paired with itself.

    Cost:
        Two passes over the pixels per sum. In the published code differences enter from the finest
        level to the coarsest, and a side that is odd ends the halving.
    """

    levels: int = 4

    def __post_init__(self) -> None:
        _check_levels(self.levels)

    def __call__(self, change: Tensor) -> Split:
        low, details = change, list[tuple[tuple[Tensor, ...], Shape]]()
        while len(details) < self.levels and min(low.shape[-2:]) >= 2:
            size = low.shape[-2:]
            low, *bands = _analyse(low)
            details.insert(0, (tuple(bands), size))  # the coarsest first

        def compose(gates: Tensor) -> Tensor:
            gate = iter(_per_piece(gates))
            composed: Tensor = low * next(gate)
            for bands, (height, width) in details:
                composed = _synthesise(composed, *(band * next(gate) for band in bands))[
                    ..., :height, :width
                ]
            return composed

        return Split(_even_strengths(1 + 3 * len(details), change), compose)


def _analyse(z: Tensor) -> tuple[Tensor, ...]:
    """Averages and three differences of 2 × 2 pixels (N, C, ⌈H/2⌉, ⌈W/2⌉), orthonormal where sides
    are even."""
    odd_rows, odd_columns = (size % 2 for size in z.shape[-2:])
    if odd_rows or odd_columns:
        z = functional.pad(z, (0, odd_columns, 0, odd_rows), mode="replicate")
    a, b, c, d = z[..., ::2, ::2], z[..., ::2, 1::2], z[..., 1::2, ::2], z[..., 1::2, 1::2]
    return (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2


def _synthesise(low: Tensor, along: Tensor, down: Tensor, diagonal: Tensor) -> Tensor:
    """What ``_analyse`` took apart, (…, H, W) → (…, 2H, 2W)."""
    *leading, height, width = low.shape
    merged = low.new_empty(*leading, 2 * height, 2 * width)
    merged[..., ::2, ::2] = low + along + down + diagonal
    merged[..., ::2, 1::2] = low - along + down - diagonal
    merged[..., 1::2, ::2] = low + along - down - diagonal
    merged[..., 1::2, 1::2] = low - along - down + diagonal
    return merged.div_(2)


@part
class Pyramid:
    """The Laplacian pyramid: the smallest picture first, then what each larger one adds.

    Strengths are even from 1 to 0.

    ``levels`` are halvings by averages of 2 × 2 pixels, as many as the smaller side allows; a
    level's piece is what bilinear enlargement of the next smaller picture misses.

    Cost:
        One enlargement per level and sum. In the published code pieces enter from the finest level
        to the coarsest.
    """

    levels: int = 4

    def __post_init__(self) -> None:
        _check_levels(self.levels)

    def __call__(self, change: Tensor) -> Split:
        small, details = change, list[Tensor]()
        while len(details) < self.levels and min(small.shape[-2:]) >= 2:
            large = small
            small = functional.avg_pool2d(
                large, 2, ceil_mode=True
            )  # a last row or column alone is its own average
            details.insert(0, large - _enlarge(small, large.shape[-2:]))

        def compose(gates: Tensor) -> Tensor:
            gate = iter(_per_piece(gates))
            composed: Tensor = small * next(gate)
            for detail in details:
                composed = _enlarge(composed, detail.shape[-2:]) + detail * next(gate)
            return composed

        return Split(_even_strengths(1 + len(details), change), compose)


def _enlarge(z: Tensor, size: Shape) -> Tensor:
    """(…, C, h, w) → (…, C, H, W)."""
    enlarged = functional.interpolate(
        z.flatten(0, -4), size=tuple(size), mode="bilinear", align_corners=False
    )
    return enlarged.reshape(*z.shape[:-2], *size)


def _check_levels(levels: int) -> None:
    if levels < 1:
        raise InputError(
            f"levels is how often the picture is halved, at least once, not {levels} times."
        )


def _even_strengths(count: int, like: Tensor) -> Tensor:
    """Strengths (1, count) from 1 to 0; of one piece alone, 1."""
    return torch.linspace(1, 0, count, dtype=torch.float64).to(like)[None]


def _per_piece(gates: Tensor) -> Tensor:
    """Gates (k, 1, n) → (n, k, 1, 1, 1, 1): for each piece what multiplies it (N, C, h, w)."""
    return gates[:, 0].T[..., None, None, None, None]
