"""ROAD: remove and debias. What is removed is imputed from its neighbours, so that the mask itself
says little."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ...core.features import Features
from ...core.values import part
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .removal import ranked, scores_without, shares_of


@part
class _Road(Metric):
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    fill: Fill = "imputed"
    score: Score = "probability"
    features: Features = "auto"
    rank: str = "signed"
    seed: int = 0

    keep: ClassVar[bool]

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """The score at each share (M, B, R)."""
        ranking = ranked(subject, maps, self.features, self.seed, self.rank)
        cutoffs = shares_of(ranking.counts, self.shares)
        return scores_without(
            subject, ranking, cutoffs, self.fill, score=self.score, keep=self.keep
        )

    def values(self, measured: Tensor) -> Tensor:
        return measured.mean(-1)


@metric("road")
@part
class ROAD(_Road):
    """ROAD, most relevant first: the score with shares of the most important pixels *removed* and
    imputed.

    Lower is better.

        mean over r of F(x with its r first-ranked pixels imputed)

    ``measure`` has the score for each share.

    Needs integrand[curves] (scipy).

    Args:
        shares: r, the fraction that is removed, rounded down to whole features.
        fill: noisy linear imputation, ``ig.baselines.Imputed(noise=0.01)``, the noise in the
            model's own numbers; any other fill.
        score: "probability", or "accuracy": whether the class explained is still predicted, 0 or 1
            per example.
        features: as in ``Deletion``.
        seed: as in ``Deletion``.
        rank: what pixels are ranked by, as in ``Deletion``.

    Cost:
        One row, and one imputation, for each share, map and example.

    Pitfalls:
        Linear imputation leaves smooth blobs, from which the shape of a mask can still be read.
        Report whether ``ROADLeRF`` ranks methods alike.

    Peers:
        The published code takes the class labelled for accuracy, and for the mean probability class
        0 unless predictions are handed over; a string for its imputation is compared, not assigned,
        and fails. It breaks ties by noise of 1e-4 of the map's range, which also reorders what is
        closer than that. Quantus' ROAD has this order and accuracy only, returns that of the *first
        batch* alone, and draws new noise for each image from NumPy's global generator; it takes
        images of one channel (indices of other channels fall out of the image), and ``batch_size``
        must hold all examples.

    References:
        Rong et al., ICML 2022.
    """

    higher: ClassVar[bool] = False
    keep: ClassVar[bool] = False


@metric("road_lerf")
@part
class ROADLeRF(_Road):
    """ROAD, least relevant first: the score with shares of the most important pixels *kept* and all
    others imputed.

    Higher is better.

        mean over r of F(x with all but its r first-ranked pixels imputed)

    As published, r is what is kept. Cost, pitfalls and peers are as in ``ROAD``.

    Args:
        shares: r, the fraction that is kept, rounded down to whole features.
        fill: noisy linear imputation, ``ig.baselines.Imputed(noise=0.01)``, the noise in the
            model's own numbers; any other fill.
        score: "probability", or "accuracy": whether the class explained is still predicted.
        features: as in ``Deletion``.
        rank: as in ``Deletion``.
        seed: of the shuffle that breaks ties.
    """

    higher: ClassVar[bool] = True
    keep: ClassVar[bool] = True


road = functional(ROAD)
road_lerf = functional(ROADLeRF)
