"""Shared by all curves: the area, normalisation, and the steps in which features are replaced."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.features import Features
from ...core.values import part
from ...errors import InputError
from ..base import Metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .removal import ranked, scores_without, steps_of


def area(curve: Tensor) -> Tensor:
    """The area under a curve (…, K+1) over [0, 1] by the trapezoid rule, both ends included: (Σ c −
    (c_0 + c_K)/2) / K."""
    return (curve.sum(-1) - (curve[..., 0] + curve[..., -1]) / 2) / (curve.shape[-1] - 1)


def ratio(numbers: Tensor, base: Tensor) -> Tensor:
    """``numbers`` (…, B, K) ÷ ``base`` (B,); NaN where the base is 0."""
    return numbers / torch.where(base == 0, torch.nan, base)[:, None]


def normalised(curve: Tensor, how: str | None, full: Tensor, emptied: Tensor) -> Tensor:
    """A curve (M, B, K+1) relative to the score of the input (B,), or between that and the score
    with everything gone (B,)."""
    if how is None:
        return curve
    if how == "whole":
        return ratio(curve, full)
    if how == "range":
        return ratio(curve - emptied[:, None], full - emptied)
    raise InputError(f'normalise= is None, "whole" or "range", not {how!r}.')


@part
class Curve(Metric):
    """The score from the first feature to the last; ``keep`` says whether the ranked features go or
    come."""

    fill: Fill = 0.0
    steps: int = 50
    each: int | None = None
    features: Features = "auto"
    score: Score = "probability"
    normalise: str | None = None
    rank: str = "signed"
    seed: int = 0

    keep: ClassVar[bool]

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """The curves (M, B, K+1)."""
        ranking = ranked(subject, maps, self.features, self.seed, self.rank)
        cutoffs = steps_of(ranking.counts, self.steps if self.each is None else None, self.each)
        curve = scores_without(
            subject, ranking, cutoffs, self._fill(subject), score=self.score, keep=self.keep
        )
        ends = curve[0, :, 0], curve[0, :, -1]
        emptied, full = ends if self.keep else ends[::-1]
        return normalised(curve, self.normalise, full, emptied)

    def values(self, measured: Tensor) -> Tensor:
        return area(measured)

    def _fill(self, subject: Subject) -> Any:
        return self.fill
