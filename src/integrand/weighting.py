"""Weightings: how references are weighed once their shares are known. ``(shares, x, field) -> weights (R, B)``.

    values = Σ_r w_r · share_r,      Σ_r w_r = 1

``Uniform`` is Expected Gradients; ``Fitness`` is Weighted Gradients: a baseline counts for more the fewer of the features it
ranks highest must be taken away to halve the class probability. No labels are used. A weighting that is known beforehand
(``beforehand``) lets shares be added up as they come instead of being kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .errors import InputError, ShapeError
from .field import Field
from .parts import part
from .segment import Evaluation
from .shapes import describe


@dataclass(frozen=True, eq=False)
class Weighed:
    """Weights (R, B), and what they were judged by.

    fitness    (R, B) or None
    criterion  what the fitness counts, in a sentence
    reasons    per example, why the fitness cannot tell its baselines apart; None where it can
    """

    weights: Tensor
    fitness: Tensor | None = None
    criterion: str = ""
    reasons: tuple[str | None, ...] = ()

    @classmethod
    def ensure(cls, weights: Tensor | Weighed) -> Weighed:
        """A bare tensor is weights without further notes."""
        return weights if isinstance(weights, Weighed) else cls(weights)


class Weighting(Protocol):
    """How references are weighed: ``(shares (R, B, \\*s), x (B, \\*s), field) -> weights (R, B)`` or ``Weighed``."""

    def __call__(self, shares: Tensor, x: Tensor, field: Field) -> Tensor | Weighed: ...


@part
class Uniform:
    """Every reference counts the same: w_r = 1/R."""

    def beforehand(self, references: int, batch: int) -> Tensor:
        """The weights, which do not depend on shares."""
        return torch.full((references, batch), 1 / references, dtype=torch.float64)

    def __call__(self, shares: Tensor, x: Tensor, field: Field) -> Tensor:
        return self.beforehand(*shares.shape[:2]).to(shares)


def beforehand(weighting: Any, references: int, batch: int) -> Tensor | None:
    """The weights of a weighting that needs no shares, else None."""
    known = getattr(weighting, "beforehand", None)
    return None if known is None else known(references, batch)


# --- features ---------------------------------------------------------------------------------------------------------


_AUTO = {3: "pixels", 2: "tokens"}  # what a feature is, by how many axes an example has


def feature_map(features: str | Tensor, x: Tensor) -> Tensor:
    """Which feature each element of an example belongs to: (\\*s), or (B, \\*s) for label maps of their own; numbered from 0.

    "pixels" (C, H, W): all channels of a place;  "tokens" (T, D): a whole row;  "elements" / "columns": each number alone;
    "auto": pixels for three axes, tokens for two, elements otherwise;  a label map (H, W) or (B, H, W): superpixels.
    """
    shape = x.shape[1:]
    if isinstance(features, Tensor):
        return _label_map(features, x)
    if features == "auto":
        features = _AUTO.get(len(shape), "elements")
    if features in ("elements", "columns"):
        return torch.arange(math.prod(shape), device=x.device).reshape(shape)
    if features == "pixels" and len(shape) == 3:
        places = shape[1] * shape[2]
        return torch.arange(places, device=x.device).reshape(1, *shape[1:]).expand(shape)
    if features == "tokens" and len(shape) >= 2:
        column = torch.arange(shape[0], device=x.device).reshape(-1, *(1,) * (len(shape) - 1))
        return column.expand(shape)
    known = "'pixels' (C, H, W), 'tokens' (T, D), 'columns', 'elements', 'auto', or a label map"
    raise ShapeError(f"features={features!r} does not fit examples of shape {describe(shape)}; choose from {known}.")


def _label_map(labels: Tensor, x: Tensor) -> Tensor:
    if labels.is_floating_point():
        raise InputError(f"A label map holds whole numbers, not {labels.dtype}.")
    labels = labels.to(x.device).long()
    own = labels.ndim == x.ndim - 1 and labels.shape[0] == len(x) and x.ndim == 4
    shape = x.shape if own else x.shape[1:]
    # Numbered from 0 without gaps, so that every number between is a feature that can be replaced.
    numbered: Tensor = torch.unique(labels, return_inverse=True)[1]
    if own:
        numbered = numbered[:, None]
    try:
        return numbered.expand(shape)
    except RuntimeError:
        raise ShapeError(
            f"A label map of shape {describe(labels.shape)} does not fit examples of shape {describe(x.shape[1:])}."
        ) from None


def feature_scores(maps: Tensor, groups: Tensor) -> Tensor:
    """Maps (R, B, \\*s) summed, with sign, over the elements of each feature → (R, B, N).

    A feature that an example does not have (label maps of their own) gets −∞ and so ranks last.
    """
    count = int(groups.max()) + 1
    leading = maps.shape[:2]
    where = groups.expand(maps.shape[1:]).reshape(1, leading[1], -1).expand(*leading, -1)
    sums = maps.new_zeros(*leading, count).scatter_add_(2, where, maps.reshape(*leading, -1))
    present = torch.zeros_like(sums, dtype=torch.bool).scatter_(2, where, True)
    return sums.masked_fill(~present, float("-inf"))


# --- fitness ----------------------------------------------------------------------------------------------------------


@part
class Fitness:
    """Weighted Gradients: w_r = (1/D_r) / Σ_k (1/D_k), D_r the fewest top-ranked features that carry the class score.

        D_r = min { k : p(x with the k features that share r ranks highest replaced by ``fill``) ≤ ratio · p(x) }

    fill      a baseline that says what replaced features become (its first reference)
    ratio     how far the score must fall (½ in the paper)
    keep      drop references whose weight is under ``keep`` × the mean weight, and share theirs out (¼ in the paper's
              filtered variant; 0 keeps all)
    features  what is replaced at a time, see ``feature_map``
    least     a class probability under this is too low to halve meaningfully; the example is flagged

    Ranking is by the signed sum over each feature's elements, descending, ties by position. The score is the class probability on
    the same inputs and the same class as the gradient. The search keeps ``score(k) ≤ ratio · p(x)`` true of the k it returns
    even where the score is not monotone in k; there it may not be the smallest. A reference whose share is zero everywhere (it
    equals the input) ranks nothing and gets the worst D, the number of features.

    Cost: 2 B rows, then R·B rows in each of ⌈log2 N⌉ rounds: all references and examples search in lock-step.
    Source: Tran et al., "Enhancing Visual Feature Attribution via Weighted Integrated Gradients", arXiv 2505.03201. The
    released code searches with an absolute tolerance, returns the last midpoint rather than the smallest k, and scores
    images that were not normalised; here the definition is computed.
    """

    fill: Callable[[Tensor, Field], Tensor]
    ratio: float = 0.5
    keep: float = 0.0
    features: str | Tensor = "auto"
    least: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise InputError(f"ratio is between 0 and 1, not {self.ratio}.")
        if not 0 <= self.keep <= 1:
            raise InputError(f"keep is between 0 (keep all) and 1 (at least average), not {self.keep}.")

    def __call__(self, shares: Tensor, x: Tensor, field: Field) -> Weighed:
        groups = feature_map(self.features, x)
        scores = feature_scores(shares, groups)
        blank = self.fill(x, field)[0].to(x)
        count, reasons = self._search(scores, groups, x, blank, field.score())
        weights = self._filtered(1 / count.to(shares.dtype))
        return Weighed(weights, count, self._criterion(scores.shape[2], x), reasons)

    def _criterion(self, features: int, x: Tensor) -> str:
        kind = self.features if isinstance(self.features, str) else "superpixels"
        if kind == "auto":
            kind = _AUTO.get(x.ndim - 1, "elements")
        fill = getattr(self.fill, "label", type(self.fill).__name__.lower())
        return (
            f"D is the fewest of {features:,} {kind}, in the order of the baseline's own map, whose replacement "
            f"(fill: {fill}) brings the class score to {self.ratio:g} of what it was"
        )

    def _filtered(self, merit: Tensor) -> Tensor:
        weights = merit / merit.sum(0)
        # Equal baselines are all exactly average; rounding may not drop them.
        slack = 1 - 16 * torch.finfo(weights.dtype).eps
        kept = weights * (weights >= slack * self.keep / len(weights))
        return kept / kept.sum(0)

    def _search(
        self, scores: Tensor, groups: Tensor, x: Tensor, blank: Tensor, score: Field
    ) -> tuple[Tensor, tuple[str | None, ...]]:
        """D (R, B), and why it says nothing about an example."""
        references, batch, features = scores.shape
        ends = score.value(torch.stack([x, blank]), leading=2)
        whole, goal = ends[0], self.ratio * ends[0]
        # A score that is not positive cannot be halved, and one that never falls has no D.
        possible = (whole > 0) & (ends[1] <= goal)
        ranked = scores.isfinite().logical_and(scores != 0).any(2)
        order = scores.argsort(dim=2, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(2, order, torch.arange(features, device=x.device).expand_as(order))
        low = torch.zeros(references, batch, dtype=torch.long, device=x.device)
        high = (scores > float("-inf")).sum(2)  # the features this example has
        while True:
            open_rows = ((high - low > 1) & possible & ranked).nonzero()
            if not len(open_rows):
                break
            r, b = open_rows.T
            middle = (low[r, b] + high[r, b]) // 2
            enough = _score_without(rank[r, b], middle, groups, x, blank, b, score) <= goal[b]
            high[r, b] = torch.where(enough, middle, high[r, b])
            low[r, b] = torch.where(enough, low[r, b], middle)
        return high, self._reasons(high, whole, possible)

    def _reasons(self, count: Tensor, whole: Tensor, possible: Tensor) -> tuple[str | None, ...]:
        reasons: list[str | None] = []
        for b in range(count.shape[1]):
            p = float(whole[b])
            if not bool(possible[b]):
                reasons.append(
                    f"the class score ({p:.3g}) does not fall to {self.ratio:g} of itself even with every feature replaced; "
                    "try another fill"
                )
            elif p < self.least:
                reasons.append(
                    f"the class probability is only {p:.3g}, too low to be halved meaningfully; explain a likelier class"
                )
            elif len(count) > 1 and bool((count[:, b] == count[0, b]).all()):
                reasons.append(f"all baselines need the same number of features ({int(count[0, b])})")
            else:
                reasons.append(None)
        return tuple(reasons)


def _score_without(
    rank: Tensor,
    count: Tensor,
    groups: Tensor,
    x: Tensor,
    blank: Tensor,
    example: Tensor,
    score: Field,
) -> Tensor:
    """The score of each row's example with its ``count`` highest-ranked features replaced by ``blank``."""
    found = x.new_empty(len(example))
    groups = groups.expand(x.shape)

    def make(part: slice) -> Tensor:
        b = example[part]
        gone = rank[part] < count[part, None]
        mask = gone.gather(1, groups[b].flatten(1)).reshape(len(b), *x.shape[1:])
        return torch.where(mask, blank[b], x[b])

    def keep(part: slice, seen: Evaluation) -> None:
        found[part] = seen.value

    score.stream(example, make, keep, x[0], gradient=False)
    return found
