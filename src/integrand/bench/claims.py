"""Testing of claims: claim, our number, its interval, verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compare.scores import Numbers, Scores
from ..compare.statistics import Inference, drawn_counts, paired
from .power import detectable_of
from .suite import Claim

_DRAWS = 10_000
_FEW = 5
"""Examples below which an interval says nothing."""
_SPREAD = 0.25
"""Of a draw's standard error, the least that counts, as a share of the sample's."""


@dataclass(frozen=True)
class ClaimResult:
    """A claim beside what was measured.

    share       how much better the method is, as a share of the other's mean score; low, high its
                95 % interval (studentised bootstrap over examples)
    p           of the paired difference, see ``compare.statistics.paired``
    detectable  the share that these examples show four times of five, were it true
    ours, theirs  the two mean scores;  wins  the share of examples on which the method is better;  examples how many have both
    verdict     "confirmed", "direction confirmed", "not shown", "contradicted", or why nothing can
                be said
    """

    claim: Claim
    ours: float
    theirs: float
    share: float
    low: float
    high: float
    p: float
    detectable: float
    wins: float
    examples: int
    verdict: str

    def told(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {
            **vars(self.claim),
            **{key: value for key, value in vars(self).items() if key != "claim"},
        }


def hold(claim: Claim, scores: Scores, *, seed: int = 0) -> ClaimResult:
    """Hold a claim against the scores of its run.

    better by  s = (their mean − our mean) / |their mean|  where lower is better, and the other way round where higher is. Both means and the
    difference are resampled by examples together, and s is studentised by its standard error to
    first order, so that skewed scores and a mean that varies are allowed for. Confirmed: the
    interval reaches the claimed size, or has the claimed sign where no size is claimed. Direction
    confirmed: it has the sign and stays below the size. Contradicted: it has the other sign. Not
    shown: it holds zero, or the paired difference is not significant; ``detectable`` says which
    share would have been.
    """
    values = scores.of(claim.metric)
    ours, rivals = (values[scores.methods.index(name)] for name in (claim.method, claim.than))
    finite = np.isfinite(ours) & np.isfinite(rivals)
    ours, rivals = ours[finite], rivals[finite]
    sign = 1.0 if scores.is_higher(claim.metric) else -1.0
    if len(ours) < _FEW:
        nan = float("nan")
        means = (float(ours.mean()), float(rivals.mean())) if len(ours) else (nan, nan)
        return ClaimResult(
            claim,
            *means,
            nan,
            nan,
            nan,
            nan,
            nan,
            nan,
            len(ours),
            f"{len(ours)} examples say nothing",
        )
    difference = sign * (ours - rivals)
    share, low, high = _share(difference, rivals, seed)
    p = float(paired(difference, Inference(seed=seed)).p[0])
    scale = abs(float(rivals.mean()))
    return ClaimResult(
        claim,
        float(ours.mean()),
        float(rivals.mean()),
        share,
        low,
        high,
        p,
        detectable_of(difference) / scale if scale else float("nan"),
        float((difference > 0).mean() + (difference == 0).mean() / 2),
        len(ours),
        _verdict(low, high, p, claim.size),
    )


def _share(difference: Numbers, rivals: Numbers, seed: int) -> tuple[float, float, float]:
    """Mean difference over the size of the rivals' mean, and its studentised interval; NaN where that mean is 0.

    To first order the share s of means d and |r| varies as the mean of (dᵢ − s · sign(r) rᵢ) / |r|.
    """
    many = len(difference)
    mean, scale = float(difference.mean()), abs(float(rivals.mean()))
    if not scale:
        return float("nan"), float("nan"), float("nan")
    share = mean / scale
    counts = drawn_counts(np.random.default_rng(seed), many, _DRAWS)
    products = np.stack([difference, rivals, difference**2, difference * rivals, rivals**2], 1)
    d, r, dd, dr, rr = (counts @ products / many).T
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = d / np.abs(r)
        slope = drawn * np.sign(r)
        variance = np.maximum(dd - d**2 - 2 * slope * (dr - d * r) + slope**2 * (rr - r**2), 0)
        error = np.sqrt(variance / (many - 1)) / np.abs(r)
    unshared = difference - share * np.sign(rivals.mean()) * rivals
    own_error = float(unshared.std(ddof=1)) / scale / math.sqrt(many)
    if own_error <= 1e-12 * abs(share) or own_error == 0:
        return share, share, share
    usable = np.isfinite(drawn) & np.isfinite(error)
    t = (drawn[usable] - share) / np.maximum(error[usable], _SPREAD * own_error)
    lower, upper = (float(bound) for bound in np.quantile(t, (0.025, 0.975)))
    return share, share - own_error * upper, share - own_error * lower


def _verdict(low: float, high: float, p: float, size: float | None) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return "the other's mean is zero"
    if not p < 0.05 or low <= 0 <= high:
        return "not shown"
    if high < 0:
        return "contradicted"
    return "confirmed" if size is None or high >= size else "direction confirmed"
