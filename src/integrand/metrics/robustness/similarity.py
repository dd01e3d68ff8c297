"""How alike two maps of the same example are."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.correlation import pearson, rounding, spearman
from ...core.features import Features
from ...core.optional import optional
from ...core.options import check_choice
from ...core.shapes import describe
from ...errors import ShapeError
from ..perturbation.subsets import Cells

SIMILARITIES = ("spearman", "pearson", "ssim")


def check_similarity(similarity: str) -> None:
    """Check the name of a similarity.

    Raises:
        InputError: for one that is not in ``SIMILARITIES``.
    """
    check_choice("similarity=", similarity, SIMILARITIES)


def map_similarity(
    first: Tensor,
    second: Tensor,
    similarity: str,
    features: Features = "auto",
    *,
    absolute: bool = False,
) -> Tensor:
    """Similarity (M, B) of maps (M, B, \\*s), by the sum of each feature or its size; NaN where a
    map is the same everywhere."""
    if similarity == "ssim":
        return _ssim(first, second, absolute=absolute)
    cells = Cells.of(features, first[0])
    a, b = (cells.shares(maps) for maps in (first, second))
    noise = tuple(rounding(first) * shares.abs().amax(-1) for shares in (a, b))
    if absolute:
        a, b = a.abs(), b.abs()
    by = spearman if similarity == "spearman" else pearson
    return by(a, b, cells.present, noise=(noise[0], noise[1])).to(first.dtype)


def _ssim(first: Tensor, second: Tensor, *, absolute: bool) -> Tensor:
    """Structural similarity of the maps' channel sums, each divided by its largest size: within [0,
    1] or [−1, 1]."""
    structural_similarity = optional(
        "skimage.metrics", extra="images", needs="Structural similarity"
    ).structural_similarity
    if first.ndim != 5:
        raise ShapeError(
            f"SSIM compares maps of images (C, H, W), not of {describe(first.shape[2:])}: take another similarity=."
        )
    if min(first.shape[-2:]) < 7:
        raise ShapeError(
            f"SSIM looks through windows of 7 × 7 pixels, and these maps are {describe(first.shape[-2:])}."
        )
    similarities = first.new_full(first.shape[:2], torch.nan)
    images = [maps.sum(2).double() for maps in (first, second)]
    if absolute:
        images = [image.abs() for image in images]
    sizes = [image.abs().amax((-2, -1)) for image in images]
    varied = torch.stack(
        [
            (i.amax((-2, -1)) - i.amin((-2, -1))) > rounding(first) * s
            for i, s in zip(images, sizes, strict=True)
        ]
    )
    a, b = ((i / s[..., None, None]).cpu().numpy() for i, s in zip(images, sizes, strict=True))
    for m, e in varied.all(0).nonzero().tolist():
        likeness = structural_similarity(a[m, e], b[m, e], data_range=1.0 if absolute else 2.0)
        similarities[m, e] = float(likeness)
    return similarities
