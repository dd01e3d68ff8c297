"""How good maps of one photograph are under several fills, in both directions, from few forward rows.

    deletion    area under p(class) while the pixels ranked first go: at DELETED and both ends, by trapezoids         lower is better
    insertion   area under p(class) while they come back: at KEPT and both ends                                       higher is better
    DiffID      mean over the shares r of BOTH:  (F without the last r − F without the first r) / F(x), F the logit   higher is better

With imputed pixels (ROAD) deletion and insertion are the means of p at BOTH, as published, because an imputation is dearer than a row.
Points are closer where curves fall: the area of a deletion is decided by the first tenth of the pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import integrand as ig
from integrand.metrics import Subject
from integrand.metrics.perturbation.removal import Ranking, replacement, shares_of

DELETED = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
KEPT = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
BOTH = (0.2, 0.4, 0.6, 0.8)

FILLS: Mapping[str, ig.baselines.Baseline] = {
    "corners": ig.baselines.Corners(),
    "grey": ig.baselines.grey(),
    "blur": ig.baselines.Blurred(),
    "ROAD": ig.baselines.Imputed(),
}
IMPUTED = "ROAD"
DIRECTIONS = {"deletion": False, "insertion": True, "DiffID": True}
"""What is measured, and whether higher is better."""
RANKS = ("signed", "magnitude")

Predict = Callable[[Tensor], Tensor]
"""Rows (N, C, H, W) → logits (N, classes)."""


def criterion(direction: str, fill: str, rank: str = "signed") -> str:
    """The name of a metric: "deletion, corners, signed"."""
    return f"{direction}, {fill}, {rank}"


def frozen(net: nn.Module, like: Tensor) -> Predict:
    """The network traced, frozen and with channels innermost, for forward rows: half of the time, the same logits.

    Raises:
        AssertionError: where the logits are not the same to a thousandth.
    """
    like = like[:1].expand(4, *like.shape[1:]).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of its tracer
        double = torch.jit.freeze(torch.jit.trace(net.eval(), like))
        apart = float((double(like) - net(like)).abs().max())
    assert apart < 1e-3, f"the frozen network's logits are {apart} apart"

    def predict(rows: Tensor) -> Tensor:
        with torch.inference_mode():
            return double(rows.contiguous(memory_format=torch.channels_last))

    return predict


@dataclass(frozen=True, eq=False)
class Judge:
    """Curves of maps of one example x (1, C, H, W) for the class ``target``.

    ``rows`` counts the forward rows so far, in its only entry.
    """

    subject: Subject
    predict: Predict
    target: int
    fills: Mapping[str, ig.baselines.Baseline] = field(default_factory=lambda: FILLS)
    chunk: int = 4
    rows: list[int] = field(default_factory=lambda: [0])

    def score(self, rows: Tensor) -> Tensor:
        """Logit and probability of the class: (N, 2)."""
        self.rows[0] += len(rows)
        logits = self.predict(rows).double()
        return torch.stack([logits[:, self.target], logits.softmax(1)[:, self.target]], 1)

    def ends(self, fill: str) -> Tensor:
        """Logit and probability with nothing and with everything replaced: (2, 2)."""

        def scored() -> Tensor:
            blank = replacement(self.subject, self.fills[fill])(
                self.subject.x.clone(),
                torch.ones((1, *self.subject.x.shape[1:]), dtype=torch.bool),
                torch.zeros(1, dtype=torch.long),
            )
            return torch.cat(
                [self.subject.once("whole", lambda: self.score(self.subject.x)), self.score(blank)]
            )

        return self.subject.once(("ends", fill), scored)

    def curves(self, maps: Tensor, fill: str, rank: str) -> tuple[Tensor, Tensor]:
        """Logits and probabilities of maps (M, C, H, W) with the first pixels gone (M, D, 2) and with them alone kept (M, K, 2)."""
        gone, kept = points(fill)
        ranking = Ranking.of(maps[:, None], self.subject.x, rank=rank)
        away = torch.cat(
            [shares_of(ranking.counts, gone)[:, 0], shares_of(ranking.counts, kept)[:, 0]]
        )
        keep = torch.tensor([False] * len(gone) + [True] * len(kept))
        replace = replacement(self.subject, self.fills[fill])
        asked = [(m, k) for m in range(len(maps)) for k in range(len(away))]
        scores = torch.cat(
            [
                self.score(self._rows(ranking.place, part, away, keep, replace))
                for part in _chunks(asked, self.chunk)
            ]
        )
        return scores.reshape(len(maps), len(away), 2).split([len(gone), len(kept)], 1)

    def _rows(
        self,
        place: Tensor,
        part: Sequence[tuple[int, int]],
        away: Tensor,
        keep: Tensor,
        replace: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> Tensor:
        m, k = torch.tensor(part).T
        ranks, count = place[m, 0], away[k].reshape(-1, *(1,) * (place.ndim - 2))
        first = ranks < count
        mask = first ^ keep[k].reshape(count.shape)
        example = torch.zeros(len(m), dtype=torch.long)
        return replace(self.subject.x.index_select(0, example), mask, example)

    def measured(self, maps: Tensor, fill: str, rank: str) -> Measured:
        """Every direction's number for maps (M, C, H, W), and the curves behind them."""
        gone, kept = points(fill)
        whole, blank = self.ends(fill)
        deleted, inserted = self.curves(maps, fill, rank)
        curves = {
            "deletion": _between(whole[1], deleted[..., 1], blank[1]),
            "insertion": _between(blank[1], inserted[..., 1], whole[1]),
        }
        values = {
            "deletion": _area(curves["deletion"], gone, fill),
            "insertion": _area(curves["insertion"], kept, fill),
        }
        without_first = deleted[:, [gone.index(r) for r in BOTH], 0]
        without_last = inserted[:, [kept.index(round(1 - r, 6)) for r in BOTH], 0]
        values["DiffID"] = ((without_last - without_first) / whole[0]).mean(1)
        return Measured(values, curves)


@dataclass(frozen=True, eq=False)
class Measured:
    """What maps (M) come to.

    values  by direction (M,)
    curves  of deletion and insertion (M, points): the probability at both ends and between
    """

    values: Mapping[str, Tensor]
    curves: Mapping[str, Tensor]


def points(fill: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The shares that go, and those that alone are kept."""
    return (BOTH, BOTH) if fill == IMPUTED else (DELETED, KEPT)


def _between(first: Tensor, between: Tensor, last: Tensor) -> Tensor:
    """Curves (M, K) with the ends that they share: (M, K + 2)."""
    many = len(between)
    return torch.cat([first.expand(many, 1), between, last.expand(many, 1)], 1)


def _area(curves: Tensor, shares: tuple[float, ...], fill: str) -> Tensor:
    """The area (M,) under curves (M, K + 2) by trapezoids over 0, the shares, 1; of imputed pixels the mean at the shares."""
    if fill == IMPUTED:
        return curves[:, 1:-1].mean(1)
    return torch.trapezoid(curves, torch.tensor((0.0, *shares, 1.0), dtype=curves.dtype), dim=1)


def _chunks(items: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
