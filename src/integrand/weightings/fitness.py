"""Weighted Gradients: references weighed by how few of their top features carry the class score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core.features import Features, feature_map, feature_scores, kind_of
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Weighed, Weighting
from .fills import FillMaker, fill_values, is_blank, name_of
from .replacing import ranks_of, scores_replaced

FEW = 128
"""Up to so many features every k is looked at: at most as many forward rows as a few dozen
gradients take."""

_FIRST_ROUND = 8  # the first round looks at every k below this; each further round at as many as all before it together


@part
class Fitness(Weighting):
    """Weighted Gradients: references weighed by how few top features carry the class score.

        w_r = (1/D_r) / Σ_k (1/D_k),   D_r the fewest top-ranked features that carry the class score

        D_r = min { k : s_r(k) ≤ ratio · p(x) },   s_r(k) = p(x with the k features that share r
                                                   ranks highest replaced by ``fill``)

    Ranking is by the signed sum over each feature's elements, descending, ties by position. The
    score is the class probability on the same inputs and the same class as the gradient.

    D is a k that halves the score while k − 1 does not. It is the smallest one, as in the formula,

    * always for up to 128 features (``FEW``: columns, tokens, superpixels), because every k is
      looked at, from 1 on;
    * for more features where the score falls monotonically with k. There the search is a bisection
      between 0 and N features. Where replacing all N is not enough, k = 1, 2, 4, … are looked at
      first, and the bisection is below the first of them that halves; a score that halves only
      between two of them is not found.

    A reference of which no k that was looked at halves the score gets the worst D, the number of
    features, as does one whose share is zero everywhere (it equals the input) and so ranks nothing.
    Where that is so of all references the example is flagged.

    A fill made of the references is no blank: the model gives it a class, and where that is the
    example's, nothing halves the score (that of a binary classifier falls below one half on the
    other side only). Where no reference's D exists for that reason, an example's features are
    replaced by the reference of the lowest score instead. Where that does not halve it either, because all references are of the example's class,
    D is the smallest k that takes away half of what replacing all features does, s_r(k) ≤ s(N) +
    ratio · (p(x) − s(N)), provided that this is ``least`` or more; else the example is flagged.

    Args:
        fill: a baseline that says what replaced features become (its first reference), or a
            ``Fill`` made of the references.
        ratio: how far the score must fall (½ in the paper).
        keep: drop references whose weight is under ``keep`` × the mean weight, and share theirs out
            (¼ in the paper's filtered variant; 0 keeps all).
        features: what is replaced at a time, see ``feature_map``.
        least: a class probability under this, or a change of it, is too low to halve meaningfully;
            the example is flagged.

    Cost:
        2 B rows, and R for examples whose score a fill of references does not halve. For few features fewer than 2 D rows per reference and example (7 if D is under 4,
        N − 1 at most), in about log2 N − 2 rounds. For many, one row in each of ⌈log2 N⌉ rounds;
        and ⌈log2 N⌉ rows in one round before them where replacing everything is not enough. All
        references and examples search in lock-step.

    References:
        Tran et al., "Enhancing Visual Feature Attribution via Weighted Integrated Gradients", arXiv
        2505.03201. The released code searches with an absolute tolerance, returns the last midpoint
        rather than the smallest k, and scores images that were not normalised; here the definition
        is computed.
    """

    fill: FillMaker
    ratio: float = 0.5
    keep: float = 0.0
    features: Features = "auto"
    least: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise InputError(f"ratio is between 0 and 1, not {self.ratio}.")
        if not 0 <= self.keep <= 1:
            raise InputError(
                f"keep is between 0 (keep all) and 1 (at least average), not {self.keep}."
            )

    def __call__(self, shares: Tensor, x: Tensor, field: Field) -> Weighed:
        return self.prepared(x, field)(shares)

    def prepared(
        self, x: Tensor, field: Field, references: Tensor | None = None
    ) -> Callable[[Tensor], Weighed]:
        """Features, fill and score found fit for these inputs; errors say which are not."""
        groups = feature_map(self.features, x)
        blank = fill_values(self.fill, x, field, references)
        score = field.score()
        intact = score.value(
            x
        )  # on its own, because a field that remembers what was said of x is asked for nothing
        search = _HalvingSearch(
            groups, x, blank, score, intact, self.ratio * intact, score.value(blank)
        )

        def weigh(shares: Tensor) -> Weighed:
            scores = feature_scores(shares, groups)
            halving, asked = search(scores), search
            if references is not None and not is_blank(self.fill, x):
                halving, asked = self._searched_again(search, scores, halving, references)
            weights = self._drop_light(1 / halving.count.to(shares.dtype))
            reasons = tuple(self._reason(halving, asked, b) for b in range(len(x)))
            return Weighed(weights, halving.count, self._criterion(scores.shape[2], x), reasons)

        return weigh

    def _searched_again(
        self, search: _HalvingSearch, scores: Tensor, halving: _Halving, references: Tensor
    ) -> tuple[_Halving, _HalvingSearch]:
        """Where no reference's features halve the score: how many do with the reference of the
        lowest score in their place; and where these do not, how many halve what all take away."""
        lost = ~halving.halves.any(0) & halving.ranked.any(0) & (search.intact > 0)
        if not bool(lost.any()):
            return halving, search
        search = search.lowered(references, lost)
        halving = halving.but(search(scores, lost), lost)
        change = search.intact - search.empty
        lost = lost & ~halving.halves.any(0) & (change >= self.least)
        if bool(lost.any()):
            goal = torch.where(lost, search.empty + self.ratio * change, search.goal)
            halving = halving.but(replace(search, goal=goal)(scores, lost), lost)
        return halving, search

    def _criterion(self, features: int, x: Tensor) -> str:
        blank = is_blank(self.fill, x)
        instead = "" if blank else ", or the one of lowest score where that keeps too much"
        halfway = "" if blank else ", or half way to what it is with all replaced"
        return (
            f"Fitness is the fewest of {features:,} {kind_of(self.features, x)}, in the order of the baseline's own map, whose replacement "
            f"(fill: {name_of(self.fill, x)}{instead}) brings the class score to {self.ratio:g} of what it was{halfway}. "
            "The fewer, the better that map found what the model looks at, and the more it counts (weight ∝ 1/fitness)"
        )

    def _drop_light(self, merit: Tensor) -> Tensor:
        weights = merit / merit.sum(0)
        # Equal baselines are all exactly average; rounding may not drop them.
        slack = 1 - 16 * torch.finfo(weights.dtype).eps
        retained = weights * (weights >= slack * self.keep / len(weights))
        return retained / retained.sum(0)

    def _reason(self, halving: _Halving, search: _HalvingSearch, example: int) -> str | None:
        """Why D says nothing about one example."""
        count, intact = halving.count[:, example], float(search.intact[example])
        if not intact > 0:
            return (
                f"the class score ({intact:.3g}) is not positive, so there is nothing to halve; explain a class, whose score is "
                "its probability, or a target that is positive"
            )
        if not bool(halving.ranked[:, example].any()):
            return "every baseline's map is zero, so no feature ranks above another; give baselines that differ from the input"
        if not bool(halving.halves[:, example].any()):
            if not is_blank(self.fill, search.x):
                return (
                    f"the class score is {intact:.3g}, and {float(search.empty[example]):.3g} with everything replaced by the "
                    "references, which are of the same class, so that there is next to nothing to take away; give references of other classes "
                    "too (ig.baselines.OtherClass), or another fill"
                )
            return (
                f"the class score ({intact:.3g}) does not fall to {self.ratio:g} of itself, {halving.looked} replaced; "
                "try another fill"
            )
        if intact < self.least:
            return f"the class probability is only {intact:.3g}, too low to be halved meaningfully; explain a likelier class"
        if len(count) > 1 and bool((count == count[0]).all()):
            return f"all baselines need the same number of features ({int(count[0])})"
        return None


@dataclass(frozen=True, eq=False)
class _Halving:
    """What a search found.

    Attributes:
        count: (R, B) D; the number of features where no k was seen to halve the score.
        halves: (R, B) whether the score with ``count`` features replaced is low enough.
        ranked: (R, B) whether a reference tells features apart at all.
        looked: which numbers of features the search has looked at where it found none.
    """

    count: Tensor
    halves: Tensor
    ranked: Tensor
    looked: str

    def but(self, other: _Halving, examples: Tensor) -> _Halving:
        """The same, but of some ``examples`` (B,) what another search found."""
        return replace(
            self,
            count=torch.where(examples, other.count, self.count),
            halves=torch.where(examples, other.halves, self.halves),
        )


@dataclass(frozen=True, eq=False)
class _HalvingSearch:
    """The smallest k whose k top-ranked features carry the score, for all references and examples
    in lock-step.

    Attributes:
        intact, goal, empty: (B,) the score of the input, what it must fall to, and the score with
            everything replaced.
    """

    groups: Tensor
    x: Tensor
    blank: Tensor
    score: Field
    intact: Tensor
    goal: Tensor
    empty: Tensor

    def __call__(self, scores: Tensor, among: Tensor | None = None) -> _Halving:
        """Feature scores (R, B, N) → D (R, B), with what is known of it; only some examples are
        searched where it says ``among`` (B,) which."""
        ranked = (scores.isfinite() & (scores != 0)).any(2)
        rank = ranks_of(scores)
        features = (scores > float("-inf")).sum(2)  # those this example has
        wanted = ranked & (self.intact > 0)
        if among is not None:
            wanted = wanted & among
        emptied = ((self.empty <= self.goal) & (self.intact > 0)).expand_as(features)
        if scores.shape[2] <= FEW:
            looked = "whichever number of features is"
            count, halves = self._search_from_one(rank, features, emptied, wanted)
        else:
            looked = f"with 1, 2, 4, … or all {scores.shape[2]:,} features"
            low, high, halves = self._bracket(rank, features, emptied, wanted)
            count = self._bisect(rank, low, high, wanted & halves)
        return _Halving(count, halves, ranked, looked)

    def lowered(self, references: Tensor, among: Tensor) -> _HalvingSearch:
        """The same search, features of the examples ``among`` (B,) replaced by the one of
        ``references`` (R, B, \\*s) whose score is lowest, if that is lower."""
        examples = among.nonzero()[:, 0]
        lowest = self.score.at(examples).value(references[:, examples], leading=2).min(0)
        lower = lowest.values < self.empty[examples]
        examples, number = examples[lower], lowest.indices[lower]
        return replace(
            self,
            blank=self.blank.clone().index_copy_(0, examples, references[number, examples]),
            empty=self.empty.index_copy(0, examples, lowest.values[lower]),
        )

    def _search_from_one(
        self, rank: Tensor, features: Tensor, emptied: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Every k from 1 on, in rounds that double, until one halves: the smallest k (R, B), and
        whether there is one.

        That it need not look further than twice the smallest k is what makes this cheap: D is small
        for a map that is any good.
        """
        count, halves, searched = features, emptied, wanted
        first, stop = 1, _FIRST_ROUND
        while len(pairs := (searched & (first < features)).nonzero()):
            k = torch.arange(first, stop, device=rank.device).repeat(len(pairs))
            r, b = pairs.repeat_interleave(stop - first, 0).T
            partial = k < features[r, b]  # all features replaced is ``empty``
            smallest = self._smallest(rank, r[partial], b[partial], k[partial])
            hit = smallest < features
            count, halves, searched = (
                torch.where(hit, smallest, count),
                halves | hit,
                searched & ~hit,
            )
            first, stop = stop, 2 * stop
        return count, halves

    def _bracket(
        self, rank: Tensor, features: Tensor, emptied: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Between which numbers of features (R, B) to bisect, and whether the upper one halves the
        score.

        0 and all of them where replacing all is enough; elsewhere the first of 1, 2, 4, … that
        halves, and the one before it.
        """
        pairs = (wanted & ~emptied).nonzero()
        steps = max(1, (rank.shape[2] - 1).bit_length())
        k = (2 ** torch.arange(steps, device=rank.device)).repeat(len(pairs))
        r, b = pairs.repeat_interleave(steps, 0).T
        partial = k < features[r, b]
        smallest = self._smallest(rank, r[partial], b[partial], k[partial])
        hit = smallest < features
        return (
            torch.where(hit, smallest // 2, 0),
            torch.where(hit, smallest, features),
            emptied | hit,
        )

    def _bisect(self, rank: Tensor, low: Tensor, high: Tensor, wanted: Tensor) -> Tensor:
        """The k (R, B) above ``low`` and up to ``high`` that halves while k − 1 does not.

        Invariant: ``high`` features replaced are enough and ``low`` are not, whether or not the
        score falls monotonically.
        """
        low, high = low.clone(), high.clone()
        while len(pairs := ((high - low > 1) & wanted).nonzero()):
            r, b = pairs.T
            middle = (low[r, b] + high[r, b]) // 2
            enough = self._score_replaced(rank, r, b, middle) <= self.goal[b]
            high[r, b] = torch.where(enough, middle, high[r, b])
            low[r, b] = torch.where(enough, low[r, b], middle)
        return high

    def _smallest(self, rank: Tensor, r: Tensor, b: Tensor, k: Tensor) -> Tensor:
        """Of the k looked at the smallest that halves, for each reference and example (R, B); N
        where none does."""
        references, batch, features = rank.shape
        enough = self._score_replaced(rank, r, b, k) <= self.goal[b]
        smallest = k.new_full((references * batch,), features)
        place = r[enough] * batch + b[enough]
        return smallest.scatter_reduce_(0, place, k[enough], "amin").reshape(references, batch)

    def _score_replaced(self, rank: Tensor, r: Tensor, b: Tensor, k: Tensor) -> Tensor:
        """The score of each row's example ``b`` with the ``k`` features replaced that reference
        ``r`` ranks highest."""

        def removed(rows: slice) -> Tensor:
            return rank[r[rows], b[rows]] < k[rows, None]

        return scores_replaced(self.score, self.x, self.blank, self.groups, b, removed)
