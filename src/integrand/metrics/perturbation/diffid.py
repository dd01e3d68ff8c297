"""DiffID: the score without the least important features minus that without the most important."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ...core.features import Features
from ...core.values import part
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .curve import ratio
from .removal import ranked, scores_without, shares_of


@metric("diffid")
@part
class DiffID(Metric):
    """DiffID: insertion minus deletion, at several shares of the features removed.

    Higher is better.

        per share r:   F(x without its r least important) / F(x)  −  F(x without its r most important) / F(x);      then the mean over r

    NaN where F(x) is 0: nothing can be relative to it.

    Args:
        shares: r, of which each is a point; rounded down to whole features.
        fill: what is removed becomes the mean of the numbers that are left of that image, all
            channels together, as published; numbers of different kinds have no mean: for columns
            give one, such as 0.0 or data.mean(0).
        score: "output": the scalar explained, a logit mostly, as published; "accuracy": whether the
            class is still predicted, which is not divided by F(x); "probability" …
        rank: "magnitude": features are ranked by the sum of absolute values over their elements, as
            published; others as in ``Deletion``.
        features: what goes at a time.
        seed: of the shuffle that breaks ties.

    Cost:
        2 rows for each share, map and example, F(x) once.

    Pitfalls:
        A ratio of logits: where F(x) is small it is large whatever the map, and where F(x) is
        negative losing more is winning; look at ``score="probability"`` beside it. "Insertion" here
        removes the least important; nothing is inserted.

    Peers:
        The published code repeats the map over channels and removes single numbers in the order of
        an unstable sort, so that the last pixel may lose some of its channels; here pixels go
        whole. It prints one number per ratio (that is what ``measure`` returns); their mean is one
        choice of several. Others have no DiffID.

    References:
        Yang et al., "Local Path Integration for Attribution", AAAI 2023 (ratios 0.1 … 0.9).
    """

    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    fill: Fill = "mean left"
    score: Score = "output"
    rank: str = "magnitude"
    features: Features = "auto"
    seed: int = 0

    higher: ClassVar[bool] = True

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """Insertion − deletion for each share (M, B, R)."""
        ranking = ranked(subject, maps, self.features, self.seed, self.rank).both
        cutoffs = shares_of(ranking.counts, self.shares)
        curve = scores_without(subject, ranking, cutoffs, self.fill, score=self.score)
        if self.score != "accuracy":
            curve = ratio(curve, subject.whole(self.score))
        most, least = curve.chunk(2)
        return least - most

    def values(self, measured: Tensor) -> Tensor:
        return measured.mean(-1)


diffid = functional(DiffID)
