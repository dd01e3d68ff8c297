"""Weightings: how references are weighed once their shares are known. ``(shares, x, field) -> weights (R, B)``.

    values = Σ_r w_r · share_r,      Σ_r w_r = 1

``Uniform`` is Expected Gradients; ``Fitness`` is Weighted Gradients: a baseline counts for more the fewer of the features it
ranks highest must be taken away to halve the class probability. No labels are used. A weighting that is known beforehand
(``beforehand``) lets shares be added up as they come instead of being kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .errors import BaselineError, InputError
from .features import Features, kind_of
from .features import feature_map as feature_map
from .features import feature_scores as feature_scores
from .field import Field
from .parts import part
from .segment import Evaluation
from .shapes import checked_references, flattened


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


def prepared(weighting: Any, x: Tensor, field: Field) -> Callable[[Tensor], Weighed]:
    """A weighting that has looked at the inputs and found them fit, waiting for shares.

    Weightings with a ``prepared(x, field)`` of their own say there, before any gradient, what they cannot work with.
    """
    own = getattr(weighting, "prepared", None)
    if own is not None:
        ready: Callable[[Tensor], Weighed] = own(x, field)
        return ready
    return lambda shares: Weighed.ensure(weighting(shares, x, field))


def beforehand(weighting: Any, references: int, batch: int) -> Tensor | None:
    """The weights of a weighting that needs no shares, else None."""
    known = getattr(weighting, "beforehand", None)
    return None if known is None else known(references, batch)


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
    features: Features = "auto"
    least: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise InputError(f"ratio is between 0 and 1, not {self.ratio}.")
        if not 0 <= self.keep <= 1:
            raise InputError(f"keep is between 0 (keep all) and 1 (at least average), not {self.keep}.")

    def __call__(self, shares: Tensor, x: Tensor, field: Field) -> Weighed:
        return self.prepared(x, field)(shares)

    def prepared(self, x: Tensor, field: Field) -> Callable[[Tensor], Weighed]:
        """Features, fill and score found fit for these inputs; errors say which are not."""
        groups = feature_map(self.features, x)
        blank = self._blank(x, field)
        score = field.score()
        whole = score.value(x)  # on its own, because a field that remembers what was said of x is asked for nothing
        search = _Search(groups, x, blank, score, whole, self.ratio * whole, score.value(blank))

        def weigh(shares: Tensor) -> Weighed:
            scores = feature_scores(shares, groups)
            count = search(scores)
            weights = self._filtered(1 / count.to(shares.dtype))
            return Weighed(weights, count, self._criterion(scores.shape[2], x), self._reasons(count, search))

        return weigh

    def _blank(self, x: Tensor, field: Field) -> Tensor:
        try:
            return checked_references(self.fill(x, field), x, "The fill of the fitness")[0]
        except BaselineError as error:
            raise BaselineError(
                f"{error} Features are replaced by fill=: a number, a tensor, 'mean', 'blurred', or a baseline."
            ) from None

    def _criterion(self, features: int, x: Tensor) -> str:
        kind = kind_of(self.features, x)
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

    def _reasons(self, count: Tensor, search: _Search) -> tuple[str | None, ...]:
        return tuple(
            self._reason(count[:, b], float(search.whole[b]), bool(search.possible[b])) for b in range(count.shape[1])
        )

    def _reason(self, count: Tensor, whole: float, possible: bool) -> str | None:
        """Why D says nothing about one example, whose score is ``whole``."""
        if not possible:
            return (
                f"the class score ({whole:.3g}) does not fall to {self.ratio:g} of itself even with every feature replaced; "
                "try another fill"
            )
        if whole < self.least:
            return f"the class probability is only {whole:.3g}, too low to be halved meaningfully; explain a likelier class"
        if len(count) > 1 and bool((count == count[0]).all()):
            return f"all baselines need the same number of features ({int(count[0])})"
        return None


@dataclass(frozen=True, eq=False)
class _Search:
    """The smallest k whose k top-ranked features carry the score, for all references and examples in lock-step.

    whole, goal, empty  (B,) the score of the input, what it must fall to, and the score with everything replaced
    """

    groups: Tensor
    x: Tensor
    blank: Tensor
    score: Field
    whole: Tensor
    goal: Tensor
    empty: Tensor

    @property
    def possible(self) -> Tensor:
        """(B,) A score that is not positive cannot be halved, and one that never falls has no k."""
        return (self.whole > 0) & (self.empty <= self.goal)

    def __call__(self, scores: Tensor) -> Tensor:
        """Feature scores (R, B, N) → k (R, B); the number of features where there is none."""
        ranked = (scores.isfinite() & (scores != 0)).any(2)
        order = scores.argsort(dim=2, descending=True, stable=True)
        places = torch.arange(scores.shape[2], device=scores.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(2, order, places)
        high = (scores > float("-inf")).sum(2)  # the features this example has
        low = torch.zeros_like(high)
        # Invariant: the score with ``high`` features replaced is low enough. It holds whether or not the score is monotone.
        while len(pairs := ((high - low > 1) & self.possible & ranked).nonzero()):
            r, b = pairs.T
            middle = (low[r, b] + high[r, b]) // 2
            enough = self._without(rank[r, b], middle, b) <= self.goal[b]
            high[r, b] = torch.where(enough, middle, high[r, b])
            low[r, b] = torch.where(enough, low[r, b], middle)
        return high

    def _without(self, rank: Tensor, count: Tensor, example: Tensor) -> Tensor:
        """The score of each row's example with its ``count`` highest-ranked features replaced."""
        found = self.x.new_empty(len(example))
        groups = self.groups.expand(self.x.shape)

        def make(part: slice) -> Tensor:
            b = example[part]
            gone = rank[part] < count[part, None]
            mask = gone.gather(1, flattened(groups[b], 1)).reshape(len(b), *self.x.shape[1:])
            return torch.where(mask, self.blank[b], self.x[b])

        def keep(part: slice, seen: Evaluation) -> None:
            found[part] = seen.value

        self.score.stream(example, make, keep, self.x[0], gradient=False)
        return found
