"""Agreement between several maps of the same prediction.

    agreement({"ig": a, "eg": b, "ig2": c}) -> (B, M, M)

Agreement between methods is no evidence that they are right, and disagreement is evidence that
somebody is wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.correlation import pearson
from ..core.features import Features
from ..core.ranks import average_ranks, blocks
from ..core.values import part
from ..errors import InputError, UnknownName
from .base import without_model
from .map_properties import by_feature
from .maps import Maps, MapsLike
from .task import Subject

_TOP = ("features", "ranks", "signs", "signed_ranks")
_BY = ("spearman", "pearson", *_TOP)


@part
class Agreement:
    """How far maps agree, two by two: ``Agreement()(subject, maps)`` → (B, M, M), symmetric, 1 for
    the same map.

    Rows and columns of maps that are the same everywhere are NaN, the diagonal too: they say
    nothing to agree with. Features of no weight are never among the top: where both maps have fewer
    than k others, shares are of the larger number. Among equal magnitudes at the edge of the top,
    the feature that comes first counts, alike in both maps.

    Args:
        by: "spearman" rank correlation of all features, with sign; ties share ranks "pearson"
            correlation of the values "features" share of the top k features of one that are among
            the top k of the other (feature agreement) "ranks" … that have the same rank in both
            (rank agreement) "signs" … that are in both with the same sign (sign agreement)
            "signed_ranks" … that have the same rank and the same sign in both (signed rank
            agreement).
        k: for the last four: how many are the top, a number, or a fraction of the features such as
            0.25.
        absolute: whether magnitudes are ranked: True for the top k, as published (the largest,
            whichever sign); for correlations False.
        features: "auto" is pixels (channels summed with sign), tokens, or elements, as in
            ``Sparseness``.

    Pitfalls:
        Correlations over all pixels are decided by the many that matter little; agreement at the
        top by few.

    Peers:
        OpenXAI's FA, RA, SA and SRA agree where no two magnitudes are equal; equal ones share a
        rank there, and zeros can be top.

    References:
        Krishna et al., "The disagreement problem in explainable machine learning", 2022.
    """

    by: str = "spearman"
    k: int | float = 0.25
    absolute: bool | None = None
    features: Features = "auto"

    def __post_init__(self) -> None:
        if self.by not in _BY:
            raise UnknownName("agreement", self.by, _BY)
        if not (self.k >= 1 if isinstance(self.k, int) else 0 < self.k <= 1):
            raise InputError(
                f"k= is a number of features (1, 2, …) or a fraction of them (0.25), not {self.k!r}."
            )

    def __call__(self, subject: Subject, maps: Maps) -> Tensor:
        scores, present = by_feature(subject, maps, self.features)
        if not bool(present.all()):
            return torch.cat(
                [self._matrix(scores[:, b : b + 1, mask]) for b, mask in enumerate(present)]
            )
        return torch.cat([self._matrix(scores[:, block]) for block in blocks(scores)])

    def _matrix(self, scores: Tensor) -> Tensor:
        """(M, B, N) → (B, M, M)"""
        scores = scores.movedim(1, 0)
        agreement = self._top(scores) if self.by in _TOP else self._correlated(scores)
        return agreement.to(scores.dtype)

    def _correlated(self, scores: Tensor) -> Tensor:
        values = scores.abs() if self.absolute else scores
        values = average_ranks(values) if self.by == "spearman" else values.double()
        return torch.stack([pearson(row[:, None], values) for row in values.unbind(1)], 1)

    def _top(self, scores: Tensor) -> Tensor:
        size = scores.abs() if self.absolute is None or self.absolute else scores
        k = self._count(scores.shape[-1])
        order = size.argsort(dim=-1, descending=True, stable=True)[..., :k]
        # What each of the top features is said to be; 0 stands for those that are not among the
        # top.
        label = torch.ones_like(order, dtype=scores.dtype).expand_as(order)
        if self.by in ("ranks", "signed_ranks"):
            label = torch.arange(1, k + 1, device=scores.device, dtype=scores.dtype).expand_as(
                order
            )
        labels = scores.new_zeros(scores.shape).scatter_(-1, order, label) * (scores != 0)
        many = (labels > 0).sum(-1)
        signed = self.by in ("signs", "signed_ranks")
        sign = scores.sign()
        rows = []
        for map_labels, map_signs, count in zip(
            labels.unbind(1), sign.unbind(1), many.unbind(1), strict=True
        ):
            same = (map_labels[:, None] == labels) & (labels > 0)
            if signed:
                same &= map_signs[:, None] == sign
            rows.append(same.sum(-1) / torch.maximum(many, count[:, None]))
        agreement = torch.stack(rows, 1).to(scores.dtype)
        dull = size.amax(-1) == size.amin(-1)
        return torch.where(dull[:, :, None] | dull[:, None, :], torch.nan, agreement)

    def _count(self, features: int) -> int:
        if isinstance(self.k, int):
            if self.k > features:
                raise InputError(
                    f"The top k={self.k} are more than the {features} features there are."
                )
            return self.k
        return max(1, round(self.k * features))


def agreement(
    attribution: MapsLike,
    *,
    by: str = "spearman",
    k: int | float = 0.25,
    absolute: bool | None = None,
    features: Features = "auto",
) -> Tensor:
    """How far several maps of the same examples agree, two by two: (B, M, M).

    Args:
        attribution: a list or dict of M attributions or tensors.
        by: as in ``Agreement``.
        k: as in ``Agreement``.
        absolute: as in ``Agreement``.
        features: as in ``Agreement``.

    Example:

    >>> import torch, integrand as ig
    >>> one, other = torch.tensor([[3.0, -2.0, 1.0, 0.0]]), torch.tensor([[3.0, 2.0, 0.0, 1.0]])
    >>> ig.metrics.agreement([one, other], by="features", k=2)[0].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    >>> ig.metrics.agreement([one, other], by="signs", k=2)[0, 0, 1].item()
    0.5
    """
    by_this = Agreement(by, k, absolute, features)
    if not isinstance(attribution, list | dict):
        raise InputError("Agreement is between maps: give a list or dict of several.")
    with without_model(attribution) as (subject, maps):
        return by_this(subject, maps)
