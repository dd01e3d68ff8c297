"""Tokens taken and kept: comprehensiveness, sufficiency, log-odds."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ...core.features import Features
from ...core.values import part
from ...errors import InputError
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .removal import ranked, scores_without, shares_of


@part
class _Tokens(Metric):
    percent: tuple[float, ...] = (1.0, 5.0, 10.0, 20.0, 50.0)
    fill: Fill = 0.0
    features: Features = "auto"
    seed: int = 0

    score: ClassVar[Score] = "probability"
    keep: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.percent or not all(0 < share <= 100 for share in self.percent):
            raise InputError(
                f"percent= are shares of the tokens above 0 and up to 100, not {self.percent}."
            )

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """F(x) − F(x replaced) for each share (M, B, P)."""
        ranking = ranked(subject, maps, self.features, self.seed)
        cutoffs = shares_of(ranking.counts, [share / 100 for share in self.percent]).clamp(min=1)
        scores = scores_without(
            subject, ranking, cutoffs, self.fill, score=self.score, keep=self.keep
        )
        return subject.whole(self.score)[:, None] - scores

    def values(self, measured: Tensor) -> Tensor:
        return measured.mean(-1)


@metric("comprehensiveness")
@part
class Comprehensiveness(_Tokens):
    """Comprehensiveness: what the probability loses with the most important tokens replaced.

    Higher is better.

        mean over k of  p(x) − p(x with its k % first-ranked tokens replaced)

    Tokens are ranked by their signed sum.

    Args:
        percent: k, of all tokens, rounded down but one token at least: a short text would otherwise
            lose nothing, and score 0.
        fill: what replaces a token: a number or a tensor in the space of the inputs, mostly the
            embedding of [MASK] or of padding.
        features: "auto": tokens for (T, D), columns for (F,), pixels for images.
        seed: of the shuffle that breaks ties.

    Cost:
        One row for each share, map and example, p(x) once.

    Pitfalls:
        Texts with holes are like nothing the model was trained on; k is coarse for short texts; the
        class explained counts, which need not be the predicted or the labelled one. Special and
        padding tokens are tokens here and count among the k %; ``fill=ig.baselines.Masked(vector,
        positions)`` leaves them where they are.

    Peers:
        ERASER and DIG cut tokens out of the text and number positions anew, which asks the model
        about another length; here tokens are replaced and stay where they are. DIG returns p(x) −
        p(x) = 0 where k % is less than a token.

    References:
        DeYoung et al., "ERASER", 2020 (k = 1, 5, 10, 20, 50); Sanyal & Ren, "Discretized Integrated
        Gradients", 2021 (k = 20).
    """

    higher: ClassVar[bool] = True


@metric("sufficiency")
@part
class Sufficiency(_Tokens):
    """Sufficiency: what the probability loses when only the most important tokens stay.

    Lower is better.

        mean over k of  p(x) − p(x with all but its k % first-ranked tokens replaced)

    Cost, pitfalls and peers as for ``Comprehensiveness``. Where k % is less than a token one token
    stays; DIG returns 0 then, its best value.

    Args:
        percent: k, of all tokens, rounded down but one token at least.
        fill: what replaces a token: a number or a tensor in the space of the inputs, mostly the
            embedding of [MASK] or of padding.
        features: "auto": tokens for (T, D), columns for (F,), pixels for images.
        seed: of the shuffle that breaks ties.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)), torch.randn(5, 4, 3)
        >>> result = ig.explain(model, x, target=0)
        >>> ig.metrics.sufficiency(model, x, result, target=0).shape
        torch.Size([5])
    """

    higher: ClassVar[bool] = False
    keep: ClassVar[bool] = True


@metric("log_odds")
@part
class LogOdds(_Tokens):
    """Log-odds: how the log-probability changes with the most important tokens replaced.

    Lower is better.

        mean over k of  log p(x with its k % first-ranked tokens replaced) − log p(x)

    Cost and pitfalls as for ``Comprehensiveness``; tokens are replaced in the literature too.
    Despite its name it is a ratio of probabilities, not of odds.

    Args:
        percent: k, of all tokens, rounded down but one token at least.
        fill: what replaces a token: a number or a tensor in the space of the inputs, mostly the
            embedding of [MASK] or of padding.
        features: "auto": tokens for (T, D), columns for (F,), pixels for images.
        seed: of the shuffle that breaks ties.

    References:
        Shrikumar et al., "DeepLIFT", 2017; Sanyal & Ren, 2021 (k = 20).

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)), torch.randn(5, 4, 3)
        >>> result = ig.explain(model, x, target=0)
        >>> ig.metrics.log_odds(model, x, result, target=0).shape
        torch.Size([5])
    """

    higher: ClassVar[bool] = False
    score: ClassVar[Score] = "loss"  # −log p, so that F(x) − F(x replaced) is the change of log p


comprehensiveness = functional(Comprehensiveness)
sufficiency = functional(Sufficiency)
log_odds = functional(LogOdds)
