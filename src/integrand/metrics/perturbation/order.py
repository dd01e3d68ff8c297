"""Most and least relevant first: MoRF and LeRF, the area over the one (AOPC), the area between the
two (ABPC, SRG)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ...core.features import Features
from ...core.values import part
from ...errors import InputError
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .curve import Curve, area, normalised
from .removal import ranked, scores_without, steps_of

_REGION = 9  # pixels on a side, as published


@metric("morf")
@part
class MoRF(Curve):
    """Most relevant first: the mean of the score while features go, those the map calls most
    relevant first.

    Lower is better.

        c_k = F(x with the k first-ranked features replaced),      (Σ c − (c_0 + c_K)/2) / K

    Cost and pitfalls are those of ``Deletion``, whose number this is; the name is that of the other
    literature.

    Args:
        fill: what removed features become: a number, a tensor, a name, or any baseline; 0 in the
            model's own numbers unless given.
        steps: equal parts the features go in, at most one each.
        each: how many features go at a time, instead of ``steps``.
        features: what goes at a time, as in ``Deletion``: "auto" is pixels for images, tokens for
            (T, D), elements otherwise.
        score: "probability" of the class explained, "output", or a target.
        normalise: "whole": divided by F(x); "range": 0 where everything is gone, 1 at F(x).
        rank: what features are ranked by: "signed", "size" or "magnitude", as in ``Deletion``.
        seed: of the shuffle that breaks ties, the same for all maps.

    Peers:
        Quantus' PixelFlipping and RegionPerturbation return curves without k = 0, in
        ``order="morf"``.

    References:
        Samek et al., "Evaluating the visualization of what a deep neural network has learned",
        2017.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
        >>> result = ig.explain(model, x, target=0)
        >>> ig.metrics.morf(model, x, result, target=0).shape
        torch.Size([5])
    """

    higher: ClassVar[bool] = False
    keep: ClassVar[bool] = False


@metric("lerf")
@part
class LeRF(Curve):
    """Least relevant first: the mean of the score while features go, those the map calls least
    relevant first.

    Higher is better.

        c_k = F(x with the k last-ranked features replaced),      (Σ c − (c_0 + c_K)/2) / K

    The cost is that of ``Deletion``. The curve is ``Insertion``'s with the same fill, read
    backwards.

    Args:
        fill: what removed features become: a number, a tensor, a name, or any baseline; 0 in the
            model's own numbers unless given.
        steps: equal parts the features go in, at most one each.
        each: how many features go at a time, instead of ``steps``.
        features: what goes at a time, as in ``Deletion``: "auto" is pixels for images, tokens for
            (T, D), elements otherwise.
        score: "probability" of the class explained, "output", or a target.
        normalise: "whole": divided by F(x); "range": 0 where everything is gone, 1 at F(x).
        rank: what features are ranked by: "signed", "size" or "magnitude", as in ``Deletion``.
        seed: of the shuffle that breaks ties, the same for all maps.

    Pitfalls:
        Features with negative evidence go first, so that the curve of a signed map may rise above
        F(x).

    References:
        Samek et al., 2017; Ancona et al., 2018.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
        >>> result = ig.explain(model, x, target=0)
        >>> ig.metrics.lerf(model, x, result, target=0).shape
        torch.Size([5])
    """

    higher: ClassVar[bool] = True
    keep: ClassVar[bool] = False

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """The curves (M, B, K+1)."""
        ranking = ranked(subject, maps, self.features, self.seed, self.rank).reversed
        cutoffs = steps_of(ranking.counts, self.steps if self.each is None else None, self.each)
        curve = scores_without(subject, ranking, cutoffs, self.fill, score=self.score)
        return normalised(curve, self.normalise, curve[0, :, 0], curve[0, :, -1])


@metric("aopc")
@part
class AOPC(Metric):
    """The area over the most-relevant-first curve. Higher is better.

        1/(L+1) · Σ_{k=0}^{L} F(x) − F(x with the k first-ranked regions replaced)

    Args:
        most: L, how many steps are taken; all regions where there are fewer.
        each: regions that go at a step.
        features: "auto": squares of 9 pixels for images, as published, and what curves rank
            elsewhere.
        fill: "auto": uniform noise between black and white, as published, for images whose
            normalisation is known, and 0 elsewhere. One draw, the same for all examples; published
            numbers average over several.
        score: "output": the scalar explained, as published; or "probability" …
        rank: as in ``Deletion``.
        seed: of the shuffle that breaks ties.

    Cost:
        L rows for each map and example, F(x) once.

    Pitfalls:
        Grows with the scale of F, so that only maps of one model compare; L regions of 9 × 9 of 224
        × 224 are a sixth of the image.

    Peers:
        Quantus' RegionPerturbation has squares of 8, "black", and returns the differences without k
        = 0, unaveraged.

    References:
        Samek et al., 2017 (L = 100).
    """

    most: int = 100
    each: int = 1
    features: Features = "auto"
    fill: Fill = "auto"
    score: Score = "output"
    rank: str = "signed"
    seed: int = 0

    higher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.most < 1:
            raise InputError(f"At least one step is taken, not most={self.most}.")

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """What the score has lost after each step (M, B, L+1)."""
        image = subject.x.ndim == 4
        auto = isinstance(self.features, str) and self.features == "auto"
        ranking = ranked(
            subject, maps, _REGION if auto and image else self.features, self.seed, self.rank
        )
        cutoffs = steps_of(ranking.counts, None, self.each)[: self.most + 1]
        fill = self.fill
        if isinstance(fill, str) and fill == "auto":
            fill = "noise" if image and subject.field.normalisation is not None else 0.0
        curve = scores_without(subject, ranking, cutoffs, fill, score=self.score)
        return curve[..., :1] - curve

    def values(self, measured: Tensor) -> Tensor:
        return measured.mean(-1)


@metric("abpc")
@part
class ABPC(Curve):
    """The area between the least- and the most-relevant-first curve.

    Higher is better; 0 for an order that says nothing.

        area(F while the least relevant go first) − area(F while the most relevant go first)

    Also called symmetric relevance gain (SRG): what a fill does to the one curve it does to the
    other too, so that rankings of methods depend on it less. A random order scores 0 on average; a
    map and its negative add up to 0 exactly where no two features tie.

    Args:
        fill: what removed features become: a number, a tensor, a name, or any baseline; 0 in the
            model's own numbers unless given.
        steps: equal parts the features go in, at most one each.
        each: how many features go at a time, instead of ``steps``.
        features: what goes at a time, as in ``Deletion``: "auto" is pixels for images, tokens for
            (T, D), elements otherwise.
        score: "probability" of the class explained, "output", or a target.
        normalise: "whole": divided by F(x); "range": 0 where everything is gone, 1 at F(x).
        rank: what features are ranked by: "signed", "size" or "magnitude", as in ``Deletion``.
        seed: of the shuffle that breaks ties, the same for all maps.

    Cost:
        2 (K − 1) rows for each map and example; both ends are shared.

    Peers:
        None of Captum, Quantus and PAIR has it.

    References:
        Samek et al., 2017 (ABPC); Blücher et al., "Decoupling pixel flipping and occlusion
        strategy", 2024 (SRG).

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
        >>> result = ig.explain(model, x, target=0)
        >>> ig.metrics.abpc(model, x, result, target=0).shape
        torch.Size([5])
    """

    higher: ClassVar[bool] = True
    keep: ClassVar[bool] = False

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """How far the curves are apart at each point (M, B, K+1)."""
        ranking = ranked(subject, maps, self.features, self.seed, self.rank).both
        cutoffs = steps_of(ranking.counts, self.steps if self.each is None else None, self.each)
        curve = scores_without(subject, ranking, cutoffs, self.fill, score=self.score)
        most, least = normalised(curve, self.normalise, curve[0, :, 0], curve[0, :, -1]).chunk(2)
        return least - most

    def values(self, measured: Tensor) -> Tensor:
        return area(measured)


morf = functional(MoRF)
lerf = functional(LeRF)
aopc = functional(AOPC)
abpc = functional(ABPC)
