"""Testing of claims: claim, our number, its interval, verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compare.scores import Scores
from .suite import Claim

_DRAWS = 10_000
_FEW = 5
"""Examples below which an interval says nothing."""


@dataclass(frozen=True)
class ClaimResult:
    """A claim beside what was measured.

    share      how much better the method is, as a share of the other's mean score; low, high its 95
               % interval (bootstrap over examples)
    ours, theirs  the two mean scores;  wins  the share of examples on which the method is better;  examples how many have both
    verdict    "confirmed", "direction confirmed", "not shown", "contradicted", or why nothing can
               be said
    """

    claim: Claim
    ours: float
    theirs: float
    share: float
    low: float
    high: float
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
    difference are resampled by examples together. Confirmed: the interval reaches the claimed size,
    or has the claimed sign where no size is claimed. Direction confirmed: it has the sign and stays
    below the size. Contradicted: it has the other sign. Not shown: it holds zero.
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
            claim, *means, nan, nan, nan, nan, len(ours), f"{len(ours)} examples say nothing"
        )
    difference = sign * (ours - rivals)
    picks = np.random.default_rng(seed).integers(len(ours), size=(_DRAWS, len(ours)))
    shares = difference[picks].mean(1) / np.abs(rivals[picks].mean(1))
    low, high = (float(bound) for bound in np.quantile(shares, (0.025, 0.975)))
    return ClaimResult(
        claim,
        float(ours.mean()),
        float(rivals.mean()),
        float(difference.mean() / abs(rivals.mean())),
        low,
        high,
        float((difference > 0).mean() + (difference == 0).mean() / 2),
        len(ours),
        _verdict(low, high, claim.size),
    )


def _verdict(low: float, high: float, size: float | None) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return "the other's mean is zero"
    if high < 0:
        return "contradicted"
    if low <= 0:
        return "not shown"
    return "confirmed" if size is None or high >= size else "direction confirmed"
