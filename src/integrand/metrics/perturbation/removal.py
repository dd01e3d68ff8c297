"""The score of inputs whose features are replaced in the order of a map: the engine of every curve.

    maps (M, B, *s) ── one sort ──▶ rank (M, B, N) ── k < … ──▶ gone ── fill ──▶ rows ── packed ──▶
    score (M, B, K+1)

All maps of all examples run together. A curve's two ends, nothing gone and everything gone, are the
same for every map of an example and are computed once; everything between is one row per map,
example and step, built when a model call needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.features import Features, counts_of, feature_map, feature_scores, ranks_in
from ...core.random import generator
from ...core.segment import Evaluation
from ...core.shapes import over
from ...errors import InputError, UnknownName
from ...fields import Field
from ..maps import Maps
from ..task import Fill, Score, Subject

Replace = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x rows (N, \\*s), gone (N, \\*s or broadcast), example (N,)) -> rows with what is gone replaced.

``gone`` is bool, or 0 and 1 in the type of the rows, which is quickest. The rows may be written to:
give copies.
"""


def replacement(subject: Subject, fill: Fill) -> Replace:
    """How removed features are replaced: by a baseline, or by one that looks at what is left
    (``without``)."""
    fill = subject.filling(fill)
    if fill.sees_what_is_left:
        seeing = fill.without
        if not subject.layout.single:
            raise InputError(
                f"fill={fill!r} looks at what is left of one input, and this model has several: give a number, a name such as 'zero', or one "
                "for each, ig.baselines.PerInput((…))."
            )
        return lambda rows, mask, example: seeing(rows, mask.bool(), example)
    blank = subject.fill(fill)
    shared = blank[:1] if blank.stride(0) == 0 or len(blank) == 1 else None

    def replace(rows: Tensor, mask: Tensor, example: Tensor) -> Tensor:
        # At 0 and 1 an interpolation is exact, and several times as fast as torch.where.
        return rows.lerp_(
            blank.index_select(0, example) if shared is None else shared, mask.to(rows.dtype)
        )

    return replace


def _size(values: Tensor, groups: Tensor) -> Tensor:
    scores = feature_scores(values, groups)
    return torch.where(
        scores > float("-inf"), scores.abs(), scores
    )  # features that an example does not have stay last


def _mean(values: Tensor, groups: Tensor) -> Tensor:
    return feature_scores(values, groups) / feature_scores(
        torch.ones_like(values[:1]), groups
    ).clamp(min=1)


RANKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "signed": feature_scores,
    "size": _size,
    "magnitude": lambda values, groups: feature_scores(values.abs(), groups),
    "mean": _mean,
}
"""What features are ranked by: the sum of their elements, its size |Σ|, the sum of the sizes Σ|·|,
or the mean of the elements."""


def merits(values: Tensor, groups: Tensor, rank: str = "signed") -> Tensor:
    """The score (M, B, N) by which each feature is ranked. Raises ``UnknownName`` for another
    ``rank``."""
    if rank not in RANKS:
        raise UnknownName("way to rank features", rank, RANKS)
    return RANKS[rank](values, groups)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Which features go first.

    Args:
        place: (M, B, \\*s') the rank of each element's feature, 0 first; axes along which all
            elements share a feature are 1 long.
        counts: (B,) how many features each example has.
    """

    place: Tensor
    counts: Tensor

    @classmethod
    def of(
        cls,
        values: Tensor,
        x: Tensor,
        features: Features = "auto",
        *,
        seed: int = 0,
        rank: str = "signed",
    ) -> Ranking:
        """Features ranked by a statistic of their elements (``RANKS``), largest first.

        Ties are broken by one seeded shuffle, the same for every map and example: the order of
        places would prefer a corner of the image. A map that is the same everywhere therefore ranks
        at random.
        """
        groups = feature_map(features, x)
        scores = merits(values, groups, rank)
        shuffle = torch.randperm(scores.shape[2], generator=generator(seed)).to(x.device)
        order = shuffle[_descending(scores.index_select(2, shuffle))]
        placed = ranks_in(order)
        thin = unexpanded(groups)
        labels = (
            thin.expand(len(x), *thin.shape[-(x.ndim - 1) :]) if thin.ndim == x.ndim - 1 else thin
        )
        where = labels.reshape(1, len(x), -1).expand(len(values), -1, -1)
        place = placed.gather(2, where).reshape(len(values), *labels.shape)
        return cls(place, (scores[0] > float("-inf")).sum(1))

    @property
    def reversed(self) -> Ranking:
        """The least important first."""
        counts = self.counts.reshape(-1, *(1,) * (self.place.ndim - 2))
        return Ranking(counts - 1 - self.place, self.counts)

    @property
    def both(self) -> Ranking:
        """All maps from their most important feature on, then all from their least important on: (2
        M, …)."""
        return Ranking(torch.cat([self.place, self.reversed.place]), self.counts)


def _descending(scores: Tensor) -> Tensor:
    """Places of scores (M, B, N) from the largest to the smallest; of equal ones the first comes
    first."""
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64):
        # NumPy sorts several times as fast as torch, though not stably: where nothing ties that is
        # the same.
        order = torch.from_numpy(np.argsort(-scores.numpy(), axis=2))
        ranked = scores.gather(2, order)
        if not bool((ranked[..., 1:] == ranked[..., :-1]).any()):
            return order
    return scores.argsort(dim=2, descending=True, stable=True)


def unexpanded(groups: Tensor) -> Tensor:
    """``groups`` without the axes along which it was only expanded."""
    for axis, (stride, size) in enumerate(zip(groups.stride(), groups.shape, strict=True)):
        if stride == 0 and size > 1:
            groups = groups.narrow(axis, 0, 1)
    return groups


def steps_of(counts: Tensor, steps: int | None, each: int | None) -> Tensor:
    """How many features are removed at each point of a curve: (K+1, B), from 0 to all of them.

    ``steps`` equal parts, at most one per feature; or ``each`` features at a time.
    """
    most = int(counts.max())
    if (steps is None) == (each is None):
        raise InputError("A curve has either steps= equal parts or each= features at a time.")
    if each is not None:
        if each < 1:
            raise InputError(f"At least one feature goes at a time, not each={each}.")
        points = torch.arange(0, most + each, each, device=counts.device)
        return torch.minimum(points[:, None], counts)
    assert steps is not None
    if steps < 1:
        raise InputError(f"A curve has at least one step, not {steps}.")
    shares = torch.linspace(0, 1, min(steps, most) + 1, dtype=torch.float64, device=counts.device)
    return (shares[:, None] * counts).round().long()


def scores_without(
    subject: Subject,
    ranking: Ranking,
    cutoffs: Tensor,
    fill: Fill,
    *,
    score: Score = "probability",
    keep: bool = False,
) -> Tensor:
    """The score with the ``cutoffs`` (K+1, B) first-ranked features replaced: (M, B, K+1).

    ``keep`` replaces all the others instead. Rows in which nothing or everything is replaced are
    evaluated once per example.

    Cost:
        M · B · (K − 1) rows and one more per example.
    """
    field = subject.score(score)
    replace = replacement(subject, fill)
    methods, batch, points = len(ranking.place), len(subject), len(cutoffs)
    cutoffs = cutoffs.T.to(subject.x.device)  # (B, K+1)
    scores = subject.x.new_empty(methods, batch, points)

    removed = ranking.counts[:, None] - cutoffs if keep else cutoffs
    full_points, emptied_points = removed == 0, removed == ranking.counts[:, None]
    scores[:] = torch.where(full_points, subject.whole(score)[:, None], 0)
    if bool(emptied_points.any()):
        emptied = _emptied(subject, field, replace)
        scores[:] = torch.where(emptied_points, emptied[:, None], scores)

    b, k = (~(full_points | emptied_points)).nonzero().T
    # Ranks and counts as numbers of the rows' type: then comparing them writes 0 and 1 in that
    # type, without a mask between.
    exact = torch.float32 if int(ranking.counts.max()) < 1 << 24 else torch.float64
    kind = torch.promote_types(scores.dtype, exact)
    places = ranking.place.flatten(0, 1).to(kind)
    cuts = cutoffs[b, k].to(kind).repeat(methods)
    pair = (torch.arange(methods, device=b.device)[:, None] * batch + b).flatten()
    m = torch.arange(methods, device=b.device).repeat_interleave(len(b))
    b, k = b.repeat(methods), k.repeat(methods)
    values = scores.new_empty(len(b))
    compare = torch.ge if keep else torch.lt

    def make(part: slice) -> Tensor:
        example = b[part]
        place = places.index_select(0, pair[part])
        away = compare(place, over(cuts[part], place), out=place)
        return replace(subject.x.index_select(0, example), away, example)

    def use(part: slice, evaluation: Evaluation) -> None:
        values[part] = evaluation.value

    if len(b):
        field.stream(b, make, use, subject.x[0], gradient=False)
        scores[m, b, k] = values
    return scores


def _emptied(subject: Subject, field: Field, replace: Replace) -> Tensor:
    """(B,) the score with every feature removed."""
    example = torch.arange(len(subject), device=subject.x.device)
    mask = torch.ones(
        (len(subject), *(1,) * (subject.x.ndim - 1)), dtype=torch.bool, device=subject.x.device
    )
    return field.value(replace(subject.x.clone(), mask, example))


def shares_of(counts: Tensor, shares: Sequence[float]) -> Tensor:
    """How many features are shares of all of them, in [0, 1], rounded down: (K, B)."""
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise InputError(f"Shares of the features lie between 0 and 1, not {tuple(shares)}.")
    return counts_of(shares, counts)


def ranked(
    subject: Subject, maps: Maps, features: Features, seed: int, rank: str = "signed"
) -> Ranking:
    """The ranking of all maps."""
    return Ranking.of(maps.values, subject.x, features, seed=seed, rank=rank)
