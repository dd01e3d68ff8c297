"""Prediction gaps: the change of the score when important features are perturbed (PGI), and when
all others are (PGU)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...baselines import Gaussian, Given
from ...core.features import Features
from ...core.shapes import checked_references, flattened
from ...core.values import part
from ...errors import InputError
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .removal import ranked, scores_without, shares_of


@part
class _Gap(Metric):
    share: float = 0.25
    fill: Fill = Gaussian(0.1, mean="input", count=100)
    rank: str = "magnitude"
    score: Score = "probability"
    features: Features = "auto"
    seed: int = 0

    keep: ClassVar[bool]

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(
                f"share= is the fraction of the features that is important, between 0 and 1, not {self.share}."
            )

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """The mean gap (M, B)."""
        ranking = ranked(subject, maps, self.features, self.seed, self.rank)
        cutoffs = shares_of(ranking.counts, (self.share,)).clamp(min=1)
        draws = checked_references(
            subject.filling(self.fill)(subject.x, subject.field), subject.x, "The fill"
        )
        full_scores = subject.whole(self.score)
        gaps = torch.zeros_like(flattened(maps.values, 2)[..., 0])
        for draw in draws:
            fill = Given(draw[None])
            scores = scores_without(
                subject, ranking, cutoffs, fill, score=self.score, keep=self.keep
            )
            gaps += (full_scores - scores[..., 0]).abs()
        return gaps / len(draws)


@metric("pgi")
@part
class PGI(_Gap):
    """Prediction gap on important features: how far the score moves when the most important
    features change a little.

    Higher is better.

        mean over draws of |F(x) − F(x with its most important features redrawn)|

    Args:
        share: of the features that are important, rounded down but one at least.
        fill: what they become, a reference for each draw: 100 draws of the input plus normal noise
            of 0.1, in the model's numbers.
        rank: "magnitude": by the sum of absolute values over a feature's elements, as published;
            others as in ``Deletion``.
        score: "probability" of the class explained, "output", or a target.
        features: what is redrawn at a time, as in ``Deletion``.
        seed: of the shuffle that breaks ties.

    Cost:
        One row for each draw, map and example, F(x) once. the draws, as many copies of the inputs.

    Pitfalls:
        Local, as wide as the noise: compare it only under the same fill. Draws are shared by
        examples and maps.

    Peers:
        OpenXAI draws anew for every example from the global generators, and takes the first of the
        model's outputs whatever class was explained.

    References:
        Dai et al., 2022; Agarwal et al., "OpenXAI", 2022.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
        >>> result = ig.explain(model, x, target=0)
        >>> ig.metrics.pgi(model, x, result, target=0).shape
        torch.Size([5])
    """

    higher: ClassVar[bool] = True
    keep: ClassVar[bool] = False


@metric("pgu")
@part
class PGU(_Gap):
    """Prediction gap on unimportant features: how far the score moves when all but the most
    important change.

    Lower is better.

        mean over draws of |F(x) − F(x with all but its most important features redrawn)|

    Cost, pitfalls and peers are as in ``PGI``.

    Args:
        share: of the features that are important, rounded down but one at least.
        fill: what they become, a reference for each draw: 100 draws of the input plus normal noise
            of 0.1, in the model's numbers.
        rank: "magnitude": by the sum of absolute values over a feature's elements, as published;
            others as in ``Deletion``.
        score: "probability" of the class explained, "output", or a target.
        features: what is redrawn at a time, as in ``Deletion``.
        seed: of the shuffle that breaks ties.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
        >>> result = ig.explain(model, x, target=0)
        >>> ig.metrics.pgu(model, x, result, target=0).shape
        torch.Size([5])
    """

    higher: ClassVar[bool] = False
    keep: ClassVar[bool] = True


pgi = functional(PGI)
pgu = functional(PGU)
