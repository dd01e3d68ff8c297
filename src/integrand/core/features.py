"""Features: the groups of numbers of an example that are ranked, replaced or revealed together.

    (C, H, W)   "pixels": all channels of a place;  an int: square patches of that side;  a label map (H, W): superpixels
    (T, D)      "tokens": a whole row
    (C, L)      "steps": all channels of a time step
    any         "elements" / "columns": each number alone
    "auto"      pixels for three axes, tokens for two, elements otherwise, and where there is one
                row only

A shape does not say whether its two axes are (T, D) or (C, L): for series of several channels say
"steps", or each channel is a feature. One row alone cannot be ranked, so that each step of a series
of one channel (1, L) is a feature.

Whoever ranks, replaces or reveals features asks here which elements belong together, so that all
mean the same by a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError, ShapeError
from .shapes import describe

Features = str | int | Tensor
"""A name, the side of square patches, or a label map: (H, W) or (B, H, W) of pictures, (B, T, 1) of
rows of tokens, or what else has as many axes as the batch."""

_AUTO = {3: "pixels", 2: "tokens"}  # what a feature is, by how many axes an example has


def kind_of(features: Features, x: Tensor) -> str:
    """What features are called: "pixels", "tokens", "patches" …"""
    if isinstance(features, Tensor):
        if features.ndim == x.ndim == 3:
            return "tokens"
        return "groups of columns" if x.ndim == 2 else "superpixels"
    if isinstance(features, int):
        return "patches"
    if features != "auto":
        return features
    return "elements" if x.ndim == 3 and x.shape[1] == 1 else _AUTO.get(x.ndim - 1, "elements")


def feature_map(features: Features, x: Tensor) -> Tensor:
    """Which feature each element of an example belongs to: (\\*s), or (B, \\*s) for label maps of
    their own; numbered from 0.

    "pixels" (C, H, W): all channels of a place;  an int: square patches of that many pixels, those
                                                  at the far edges cut off;
    "tokens" (T, D): a whole row;  "steps" (C, L): all channels of a time step;  "elements" / "columns": each number alone;
    "auto": pixels for three axes, tokens for two (elements if there is one row), elements otherwise;  a label map (H, W) or (B, H, W): superpixels.

    Args:
        features: a name, the side of patches, or a label map.
        x: (B, \\*s), the inputs.
    """
    shape = x.shape[1:]
    if isinstance(features, Tensor):
        return _label_map(features, x)
    if isinstance(features, int) and not isinstance(features, bool) and len(shape) == 3:
        return _patches(features, x)
    kind = kind_of(features, x)
    if kind in ("elements", "columns"):
        return torch.arange(math.prod(shape), device=x.device).reshape(shape)
    if kind == "pixels" and len(shape) == 3:
        places = shape[1] * shape[2]
        return torch.arange(places, device=x.device).reshape(1, *shape[1:]).expand(shape)
    if kind == "tokens" and len(shape) >= 2:
        column = torch.arange(shape[0], device=x.device).reshape(-1, *(1,) * (len(shape) - 1))
        return column.expand(shape)
    if kind == "steps" and len(shape) == 2:
        return torch.arange(shape[1], device=x.device).expand(shape)
    known = (
        "'pixels' (C, H, W), an int (patches of that side), 'tokens' (T, D), 'steps' (C, L), 'columns', 'elements', 'auto', or a "
        "label map"
    )
    raise ShapeError(
        f"features={features!r} does not fit examples of shape {describe(shape)}; choose from {known}."
    )


def _patches(side: int, x: Tensor) -> Tensor:
    if side < 1:
        raise InputError(f"A patch is at least one pixel wide, not {side}.")
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device) // side
    columns = torch.arange(width, device=x.device) // side
    return (rows[:, None] * -(-width // side) + columns).expand(x.shape[1:])


def _label_map(labels: Tensor, x: Tensor) -> Tensor:
    if labels.is_floating_point():
        raise InputError(f"A label map holds whole numbers, not {labels.dtype}.")
    labels = labels.to(x.device).long()
    whole = labels.ndim == x.ndim and len(labels) == len(x)
    flat = labels.ndim == x.ndim - 1 and len(labels) == len(x) and x.ndim == 4
    per_example = whole or flat
    shape = x.shape if per_example else x.shape[1:]
    # Numbered from 0 without gaps, so that every number between is a feature that can be replaced.
    numbered: Tensor = torch.unique(labels, return_inverse=True)[1]
    if flat:
        numbered = numbered[:, None]
    try:
        return numbered.expand(shape)
    except RuntimeError:
        raise ShapeError(
            f"A label map of shape {describe(labels.shape)} does not fit examples of shape {describe(x.shape[1:])}."
        ) from None


def feature_scores(maps: Tensor, groups: Tensor) -> Tensor:
    """Maps (R, B, \\*s) summed, with sign, over the elements of each feature → (R, B, N).

    A feature that an example does not have (label maps of their own) gets −∞ and so ranks last.

    Args:
        maps: (R, B, \\*s).
        groups: of ``feature_map``.
    """
    count = int(groups.max()) + 1
    leading = maps.shape[:2]
    if groups.shape == maps.shape[2:] and count == groups.numel():
        place = groups.flatten()
        if torch.equal(
            place, torch.arange(count, device=place.device)
        ):  # every number is a feature
            return maps.reshape(*leading, count)
    where = groups.expand(maps.shape[1:]).reshape(1, leading[1], -1).expand(*leading, -1)
    sums = maps.new_zeros(*leading, count).scatter_add_(2, where, maps.reshape(*leading, -1))
    present = torch.zeros_like(sums, dtype=torch.bool).scatter_(2, where, True)
    return sums.masked_fill(~present, float("-inf"))


def ranks_in(order: Tensor) -> Tensor:
    """Features by rank (…, N) → the rank of each feature (…, N): the inverse permutation."""
    ranks = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, ranks)


def counts_of(fractions: Sequence[float], counts: Tensor) -> Tensor:
    """How many features each fraction is of ``counts`` (…), rounded down: (K, …)."""
    exact = torch.tensor(tuple(fractions), dtype=torch.float64, device=counts.device)
    exact = exact.reshape(-1, *(1,) * counts.ndim) * counts
    return (exact + 1e-9).floor().long()  # 0.3 · 10 is 3, whatever its last digit says
