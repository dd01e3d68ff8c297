"""Deletion and insertion: the score while features go, or come, in the order of a map."""

from __future__ import annotations

from typing import Any, ClassVar

from ...core.values import part
from ..base import functional, metric
from ..task import Fill, Subject
from .curve import Curve


@metric("deletion")
@part
class Deletion(Curve):
    """Deletion: the area under the score while features go, most important first. Lower is better.

        c_k = F(x with the k first-ranked features replaced),  k = 0 … N,      (Σ c − (c_0 + c_K)/2) / K

    Args:
        fill: what removed features become: a number, a tensor, a name, or any baseline; 0 in the
            model's own numbers, as published (the mean colour for inputs normalised by their mean,
            black for others: look at what it means for yours).
        steps: equal parts the features go in, at most one each.
        each: how many features go at a time, instead of ``steps`` (224 in RISE).
        features: what goes at a time: "auto" is pixels for images (all channels together), tokens
            for (T, D), elements otherwise; an int is square patches; a label map (H, W)
            superpixels.
        score: "probability" of the class explained, "output" (the scalar explained, a logit
            mostly), or a target.
        normalise: "whole": divided by F(x); "range": 0 where everything is gone, 1 at F(x).
        rank: what features are ranked by: "signed", the sum of their elements; "size", |Σ|;
            "magnitude", Σ|·|. On photographs this choice moves insertion more than the choice of
            method does: always say which.
        seed: of the shuffle that breaks ties, the same for all maps.

    Cost:
        K − 1 rows for each map and example, one sort; F(x) and F(all gone) once per example for all
        maps.

    Pitfalls:
        Half-deleted inputs look like nothing the model was trained on, and fills differ in how
        much; magnitudes do not count, ranks do; explanations of negative evidence do well late in
        the curve only.

    Peers:
        Quantus' PixelFlipping removes single numbers (a channel of a pixel) with "black" meaning
        the smallest number of the image, leaves F(x) out of the curve, and does not divide by its
        length; PAIR and Captum have none.

    References:
        Petsiuk et al., "RISE", 2018 (fill zero in normalised space, K = 224).

    Example:

    >>> import torch, integrand as ig
    >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
    >>> ig.metrics.deletion(model, x, ig.explain(model, x, target=0), target=0).shape
    torch.Size([5])
    """

    higher: ClassVar[bool] = False
    keep: ClassVar[bool] = False


@metric("insertion")
@part
class Insertion(Curve):
    """Insertion: the area under the score while features come back, most important first.

    Higher is better.

        c_k = F(fill with the k first-ranked features of x),  k = 0 … N,      (Σ c − (c_0 + c_K)/2) / K

    Args:
        fill: as in ``Deletion``; "auto" is the blurred input for images and 0 for anything else.
        steps: as in ``Deletion``.
        each: as in ``Deletion``.
        features: as in ``Deletion``.
        score: as in ``Deletion``.
        normalise: as in ``Deletion``.
        rank: as in ``Deletion``.
        seed: as in ``Deletion``.

    Cost:
        As deletion.

    Pitfalls:
        On a blurred start, smooth maps that uncover whole regions do well; ranks only.

    Peers:
        RISE blurs with an 11 × 11 Gaussian of σ 5, cut off nearly flat;
        ``fill=ig.baselines.Blurred(5.0)`` comes near.

    References:
        Petsiuk et al., "RISE", 2018.
    """

    fill: Fill = "auto"

    higher: ClassVar[bool] = True
    keep: ClassVar[bool] = True

    def _fill(self, subject: Subject) -> Any:
        if isinstance(self.fill, str) and self.fill == "auto":
            return "blurred" if subject.x.ndim == 4 else 0.0
        return self.fill


deletion = functional(Deletion)
insertion = functional(Insertion)
