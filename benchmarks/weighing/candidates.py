"""Weightings that are tried: what is known of the baselines of one photograph → their weights.

Each is given the fills it may look at. One that is held against a fill it did not see is given all fills but that one, and never ROAD's
imputation, which no weighting sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

TEMPERATURE = 0.1
"""Of weights by areas: a tenth of the score between them makes the better one e times as heavy."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of R baselines of one photograph, all of it without labels.

    fitness      fill → D (R,): the fewest pixels, first-ranked by the baseline's own map, that halve the probability
    removal, insertion  fill → areas (R,) of the baseline's own map under that fill, over p(x)
    probability  (R,) p(class) of the baselines themselves;  classes  how many classes there are
    scores       (R, N) what each baseline's map gives each pixel, over all channels
    """

    fitness: Mapping[str, Tensor]
    removal: Mapping[str, Tensor]
    insertion: Mapping[str, Tensor]
    probability: Tensor
    classes: int
    scores: Tensor

    def __len__(self) -> int:
        return len(self.probability)


def normalised(merit: Tensor) -> Tensor:
    """Merits (R,) as weights that add up to 1; equal ones where none has any."""
    merit = merit.double()
    total = merit.sum()
    return merit / total if float(total) > 0 else torch.full_like(merit, 1 / len(merit))


def uniform(evidence: Evidence, seen: Sequence[str]) -> Tensor:
    """Expected Gradients: 1/R."""
    return normalised(torch.ones(len(evidence)))


def by_fitness(evidence: Evidence, seen: Sequence[str]) -> Tensor:
    """Weighted Gradients, averaged over fills: the mean over fills of (1/D_r) / Σ_k (1/D_k)."""
    return torch.stack([normalised(1 / evidence.fitness[fill]) for fill in seen]).mean(0)


def sureness(evidence: Evidence, seen: Sequence[str]) -> float:
    """How far D says the same under all fills: the mean correlation of log D between pairs of fills, 0 where it is negative.

    1 where there is one fill only; 0 where D does not vary under one of two fills.
    """
    logs = {fill: evidence.fitness[fill].double().log() for fill in seen}
    if len(logs) < 2:
        return 1.0
    found = [_correlation(logs[a], logs[b]) for a, b in combinations(logs, 2)]
    return max(0.0, sum(found) / len(found))


def shrunk(evidence: Evidence, seen: Sequence[str]) -> Tensor:
    """``by_fitness`` drawn towards equal weights by how unsure D is:  s · w + (1 − s) / R,  s of ``sureness``."""
    sure = sureness(evidence, seen)
    return sure * by_fitness(evidence, seen) + (1 - sure) * uniform(evidence, seen)


def by_areas(evidence: Evidence, seen: Sequence[str]) -> Tensor:
    """Areas of removal and insertion in place of a threshold:  w_r ∝ exp(a_r / TEMPERATURE),  a the mean over fills of insertion − removal."""
    gains = torch.stack(
        [(evidence.insertion[fill] - evidence.removal[fill]).double() for fill in seen]
    ).mean(0)
    return (gains / TEMPERATURE).softmax(0)


def by_agreement(evidence: Evidence, seen: Sequence[str]) -> Tensor:
    """w_r ∝ the cosine between a baseline's map and the sum of the others, pixel by pixel; 0 where it is negative."""
    scores = evidence.scores.double()
    others = scores.sum(0) - scores
    return normalised(torch.cosine_similarity(scores, others, dim=1).clamp(min=0))


def by_calibration(evidence: Evidence, seen: Sequence[str]) -> Tensor:
    """References whose class probability is far from the uninformed one count less:  w_r ∝ 1 / (1 + |ln(classes · p_r)|)."""
    off = (evidence.classes * evidence.probability.double().clamp(min=1e-12)).log().abs()
    return normalised(1 / (1 + off))


@dataclass(frozen=True)
class Candidate:
    """A weighting under trial.

    weigh   (evidence, fills) → weights (R,)
    seen    the fills it looks at, whoever judges; None: all but the judge's
    needs   what it takes: "fitness" and "areas" of each fill it sees, "outputs" of the baselines
    """

    weigh: Callable[[Evidence, Sequence[str]], Tensor]
    seen: tuple[str, ...] | None = ()
    needs: tuple[str, ...] = ()

    def sees(self, judged: str, fills: Sequence[str]) -> tuple[str, ...]:
        """The fills it looks at when ``judged`` is the judge's."""
        return tuple(f for f in fills if f != judged) if self.seen is None else self.seen


CANDIDATES: Mapping[str, Candidate] = {
    "EG": Candidate(uniform),
    "WG": Candidate(by_fitness, ("corners",), ("fitness",)),
    "WG, grey": Candidate(by_fitness, ("grey",), ("fitness",)),
    "WG, blur": Candidate(by_fitness, ("blur",), ("fitness",)),
    "1/D, other fills": Candidate(by_fitness, None, ("fitness",)),
    "1/D, shrunk": Candidate(shrunk, None, ("fitness",)),
    "areas, other fills": Candidate(by_areas, None, ("areas",)),
    "agreement": Candidate(by_agreement),
    "calibration": Candidate(by_calibration, (), ("outputs",)),
}
"""WG is the published one: D with the corners' colour. All others are ours."""


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else 0.0
