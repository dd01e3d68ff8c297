"""References weighed by what removing and restoring their top features does, under several fills."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core.features import Features, counts_of, feature_map, feature_scores, kind_of
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Weighed, Weighting
from .fills import Fill, FillMaker, fill_values, name_of
from .replacing import ranks_of, scores_replaced

REMOVED = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Fractions that are removed: closer where curves fall."""
RESTORED = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
"""Fractions that alone are there."""
_ADVICE = "fills= are baselines that fit the inputs, such as ig.baselines.Constant(0.0), or ig.weightings.ReferenceMean()."


@part
class Areas(Weighting):
    """References weighed by the areas under the curves that their own maps make, under several fills.

        w_r = exp(a_r / temperature) / Σ_k exp(a_k / temperature)
        a_r = mean over fills of ∫₀¹ ( p(x with the first q of r restored) − p(x with them replaced) ) dq / p(x)

    ``Fitness`` asks where one curve crosses one line, with one fill; that pays where removed features
    really become that fill. Here a whole curve counts, in both directions, and no single fill
    decides. Features are ranked by the signed sum over each one's elements in the map of r, ties by
    position; the score is the class probability. Curves are piecewise linear between both ends, the
    fractions ``REMOVED`` and ``RESTORED``.

    A reference whose map is zero everywhere ranks nothing and counts as the worst of the others.
    Where all maps are zero, the class probability is none or all areas are one, weights are equal and
    the example is flagged.

    Args:
        fills: what replaced features become, each a baseline (its first reference) or a ``Fill``.
        temperature: how sharply weights tell areas apart: a difference of so much makes the better
            reference e times as heavy.
        features: what is replaced at a time, see ``feature_map``.

    Cost:
        13 forward rows for each reference, example and fill, one for each example and fill, and one
        for each example; no gradients.

    References:
        Ours: no paper has it. Chosen on half of a set of photographs, and judged once on the other
        and on another network (docs/usage/weightings.md).

    Example:
        >>> import torch, integrand as ig
        >>> fills = [ig.baselines.Constant(0.0), ig.baselines.Constant(0.5)]
        >>> method = ig.Method(ig.baselines.Given(torch.randn(4, 6)), weighting=ig.weightings.Areas(fills))
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> result = ig.explain(model, torch.randn(2, 6), target="predicted", method=method)
        >>> result.weights.shape
        torch.Size([4, 2])
    """

    fills: Sequence[FillMaker]
    temperature: float = 0.1
    features: Features = "auto"

    def __post_init__(self) -> None:
        several = isinstance(self.fills, Iterable) and not isinstance(self.fills, str | Tensor)
        fills = tuple(self.fills) if several else ()
        if not fills or not all(isinstance(fill, Fill) or callable(fill) for fill in fills):
            raise InputError(
                "fills= is a list of baselines that say what replaced features become, as in [ig.baselines.Corners(), ig.baselines.Blurred()]."
            )
        object.__setattr__(self, "fills", fills)
        if not self.temperature > 0:
            raise InputError(f"temperature is above 0, not {self.temperature}.")

    def with_fills(self, change: Callable[[FillMaker], FillMaker]) -> Areas:
        """The same with each fill that is a baseline changed."""
        fills = [fill if isinstance(fill, Fill) else change(fill) for fill in self.fills]
        return replace(self, fills=fills)

    def __call__(self, shares: Tensor, x: Tensor, field: Field) -> Weighed:
        return self.prepared(x, field)(shares)

    def prepared(
        self, x: Tensor, field: Field, references: Tensor | None = None
    ) -> Callable[[Tensor], Weighed]:
        """Features, fills and score found fit for these inputs; errors say which are not."""
        groups = feature_map(self.features, x)
        blanks = [fill_values(fill, x, field, references, _ADVICE) for fill in self.fills]
        score = field.score()
        intact, empty = score.value(x), [score.value(blank) for blank in blanks]

        def weigh(shares: Tensor) -> Weighed:
            scores = feature_scores(shares, groups)
            ranked = (scores.isfinite() & (scores != 0)).any(2)
            curves = _Curves.of(scores, groups, x, score, intact)
            merits = torch.stack(list(map(curves.areas, blanks, empty))).mean(0) / intact
            lowest = torch.where(ranked, merits, torch.inf).amin(0)
            merits = torch.where(ranked, merits, lowest)
            finite = merits.isfinite().all(0)
            told_apart = ranked.any(0) & (intact > 0) & finite
            merits = torch.where(told_apart, merits, torch.zeros_like(merits))
            # Behind the best, so that no temperature makes it infinite.
            behind = (merits - merits.amax(0)).double()
            weights = (behind / self.temperature).softmax(0).to(shares.dtype)
            reasons = tuple(
                self._reason(ranked[:, b], merits[:, b], intact[b], bool(finite[b]))
                for b in range(len(x))
            )
            return Weighed(weights, merits, self._criterion(scores.shape[2], x), reasons)

        return weigh

    def _criterion(self, features: int, x: Tensor) -> str:
        names = [name_of(fill, x) for fill in self.fills]
        if len(set(names)) < len(names):  # two of a kind: as they are typed
            names = [repr(fill) for fill in self.fills]
        fills = ", ".join(names)
        return (
            f"Fitness is the area under the class score while {features:,} {kind_of(self.features, x)} come back in the order of the baseline's own map, less "
            f"that while they are replaced, as a fraction of the score, averaged over the fills {fills}. "
            f"The larger, the more it counts (weight ∝ e^(fitness / {self.temperature:g}))"
        )

    @staticmethod
    def _reason(ranked: Tensor, merits: Tensor, intact: Tensor, finite: bool) -> str | None:
        """Why areas say nothing about one example."""
        if not float(intact) > 0:
            return (
                f"the class score ({float(intact):.3g}) is not positive, so there is nothing to take away; explain a class, whose score is its "
                "probability, or a target that is positive"
            )
        if not bool(ranked.any()):
            return "every baseline's map is zero, so no feature ranks above another; give baselines that differ from the input"
        if not finite:
            return "the class score is not finite with features replaced; try other fills"
        slack = 16 * torch.finfo(intact.dtype).eps  # of scores, which are 1 here
        if len(merits) > 1 and float(merits.amax() - merits.amin()) <= slack:
            return "all baselines have the same area: they rank the features alike, or replacing them by these fills changes nothing"
        return None


@dataclass(frozen=True, eq=False)
class _Curves:
    """Curves of the score while features go and come, in the order of every reference's map.

    Attributes:
        intact: (B,) the score of the inputs.
        rank: (R, B, N) of each feature.
        first: (R, B, K) how many features each of ``REMOVED`` and ``RESTORED`` is.
    """

    groups: Tensor
    x: Tensor
    score: Field
    intact: Tensor
    rank: Tensor
    first: Tensor

    @classmethod
    def of(cls, scores: Tensor, groups: Tensor, x: Tensor, score: Field, intact: Tensor) -> _Curves:
        """Those of feature scores (R, B, N)."""
        count = (scores > float("-inf")).sum(2)  # the features that an example has
        first = counts_of((*REMOVED, *RESTORED), count).movedim(0, -1)
        return cls(groups, x, score, intact, ranks_of(scores), first)

    def areas(self, blank: Tensor, empty: Tensor) -> Tensor:
        """The area while features come back less that while they go (R, B), with one fill and its
        score (B,)."""
        rank, first = self.rank, self.first
        r, b, k = (
            index.flatten()
            for index in torch.meshgrid(
                *(torch.arange(size, device=first.device) for size in first.shape), indexing="ij"
            )
        )
        comes = k >= len(REMOVED)

        def removed(rows: slice) -> Tensor:
            among_first = rank[r[rows], b[rows]] < first[r[rows], b[rows], k[rows], None]
            return among_first ^ comes[rows, None]

        values = scores_replaced(self.score, self.x, blank, self.groups, b, removed)
        values = values.reshape(first.shape)
        gone, kept = values[..., : len(REMOVED)], values[..., len(REMOVED) :]
        whole, bare = (end.expand(first.shape[:2])[..., None] for end in (self.intact, empty))
        return _area([bare, kept, whole], RESTORED) - _area([whole, gone, bare], REMOVED)


def _area(pieces: Sequence[Tensor], fractions: Sequence[float]) -> Tensor:
    """The area (R, B) under curves (R, B, K) by trapezoids over 0, the fractions, 1."""
    curve = torch.cat(list(pieces), 2).double()
    at = torch.tensor((0.0, *fractions, 1.0), dtype=curve.dtype, device=curve.device)
    return torch.trapezoid(curve, at, dim=2)
