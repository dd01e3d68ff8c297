"""IROF: iterative removal of features, superpixel by superpixel."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...core.normalisation import Normalisation
from ...core.optional import optional
from ...core.shapes import describe
from ...core.values import part
from ...errors import InputError, ShapeError
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .curve import ratio
from .removal import ranked, scores_without, steps_of


@metric("irof")
@part
class IROF(Metric):
    """IROF: the area over the curve of F, relative to F(x), while superpixels go, highest mean
    first.

    Higher is better.

        1 − (Σ_{k=0}^{L} c_k − (c_0 + c_L)/2) / L,     c_k = F(x without its k first superpixels) / F(x),  L superpixels of that image

    NaN where F(x) is 0, and where SLIC finds a single superpixel (an image of one colour, or
    smaller than a superpixel): there is no order to judge.

    Needs integrand[curves] (scikit-image) unless label maps are given.

    Args:
        segments: how many superpixels SLIC is asked for (compactness 10, blur 0), on the image as
            the eye sees it where the normalisation is known, else stretched between its smallest
            and largest number; or a label map (H, W) or (B, H, W) of one's own.
        fill: "mean": the image's mean colour. Published: the mean colour of the data set, which is
            a fill like any other.
        score: "probability" …
        seed: of the shuffle that breaks ties.

    Cost:
        L − 1 rows for each map and example, both ends once per example, one segmentation per image.

    Pitfalls:
        A curve that rises above F(x) counts against the map; few superpixels, coarse numbers.

    Peers:
        Quantus subtracts an area in steps (dx = 1) that begins after the first removal from the
        number of segments, so that its scores lie around the number of segments and not between 0
        and 1, zeroes the ratios of images with fewer segments than others but integrates over them,
        and its "mean" is that of the image as it is after the removals before.

    References:
        Rieger & Hansen, "IROF: a low resource evaluation metric for explanation methods", 2020.
    """

    segments: int | Tensor = 100
    fill: Fill = "mean"
    score: Score = "probability"
    seed: int = 0

    higher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.segments, int) and self.segments < 2:
            raise InputError(
                f"An order needs two superpixels at least, not segments={self.segments}."
            )

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """The area over each curve (M, B)."""
        if subject.x.ndim != 4:
            raise ShapeError(
                f"Superpixels are of images (channels, height, width), and an example has shape {describe(subject.x.shape[1:])}. "
                "For other data use morf with features= a label map."
            )
        labels = (
            superpixels(subject.x, self.segments, subject.field.normalisation)
            if isinstance(self.segments, int)
            else self.segments
        )
        ranking = ranked(subject, maps, labels, self.seed, "mean")
        cutoffs = steps_of(
            ranking.counts, None, 1
        )  # an image with fewer superpixels stays empty once it is
        curve = ratio(
            scores_without(subject, ranking, cutoffs, self.fill, score=self.score),
            subject.whole(self.score),
        )
        last = ranking.counts
        ends = (
            curve[..., 0] + curve.gather(2, last[None, :, None].expand(len(curve), -1, 1))[..., 0]
        ) / 2
        reached = torch.arange(len(cutoffs), device=curve.device) <= last[:, None]
        over = 1 - (torch.where(reached, curve, 0).sum(-1) - ends) / last
        return torch.where(last > 1, over, torch.nan)


def superpixels(x: Tensor, segments: int, normalisation: Normalisation | None) -> Tensor:
    """SLIC label maps (B, H, W) of images (B, C, H, W), numbered apart.

    Raises:
        MissingExtra: without scikit-image.
    """
    slic = optional("skimage.segmentation", extra="curves", needs="IROF").slic
    if normalisation is not None:
        pictures = normalisation.decode(x)
    else:
        low, high = x.flatten(1).aminmax(dim=1)
        low, span = low[:, None, None, None], (high - low)[:, None, None, None]
        pictures = (x - low) / torch.where(span > 0, span, 1)
    labels = []
    for picture in pictures.permute(0, 2, 3, 1).double().cpu().numpy():
        labels.append(torch.from_numpy(slic(picture, n_segments=segments, start_label=0).copy()))
    return torch.stack(labels).long()


irof = functional(IROF)
