"""Greedy PIG: explain, reveal the top features, explain the rest from there.

    S ← ∅
    b_S ← x on S, b elsewhere
    a   ← A(x; b_S)                         any method; zero on S, complete for F(x) − F(b_S)
    S  ← S ∪ {the z features outside S with the largest a}      until all are in

What a round reveals, the next one knows: of two features that say the same, the second is worth
nothing once the first is in.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ...core.declared import Adopted
from ...core.features import Features, feature_map, feature_scores
from ...core.shapes import flattened
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ...model.autograd import gradients
from ..assemble import Watch, rearranged
from ..attribution import Attribution, Explainer, ExplainerLike, Wrapper, as_explainer
from .base import (
    FixedBaseline,
    Runs,
    check_wrappable,
    one_call,
    same_start,
    warned_once,
)

_ROUNDS = 10


@part
class GreedyPIG(Wrapper):
    """Greedy PIG: features in the order in which they are revealed, round by round.

    Each round is explained from where the last one left off.

        a_S = A(x; b_S),   b_S = x on S, b elsewhere;   next: the z features outside S with the largest Σ_{i in feature} a_S,i

    ``values`` are ranks: n − position, so n for the first of n features and 1 for the last, on
    every element of a feature. They are an order and no parts of a sum: ``residual`` is what is
    left of F(x) − F(b) after taking ranks away, and means nothing here. What is measured is in
    ``notes``, by feature: "rounds" (rounds, 1, B, n) is a of every round, zero on what was
    revealed; "gain" (1, 1, B, n) the a that a feature was chosen for; "order" (1, 1, B, n) the
    features as they were taken. ``change``, ``weights`` and ``baselines`` are those of the first
    round, ``error`` is the largest of all rounds, and ``converged`` says whether all were.

    Ties go to the feature that comes first; features a label map does not have for an example come
    last.

    Args:
        method: any method that starts at its baseline; every round is complete for F(x) − F(b_S),
            as far as the method is.
        chunk: z, how many features the first round takes; without it as many as make up ``rounds``.
        rounds: at most so many rounds (10, where there is no chunk); the last one takes all that is
            left.
        features: what is revealed at a time: "pixels" (channels summed), an int (square patches of
            that side), "columns", "tokens", or a label map; "auto" is pixels for images, tokens for
            sequences, columns for tables.
        growth: each round takes so many times as many features as the one before.
        largest: the largest (signed) first; False: the smallest first, those that speak most
            against.

    Raises:
        InputError: for methods whose path chooses its own start (IG2), which cannot start at b_S,
            and for those of a layer.

    Cost:
        rounds × the method's; memory rounds × B × n for the notes, and every reference for every
        example from the second round on.

    References:
        Axiotis et al., "Greedy PIG: Adaptive Integrated Gradients", arXiv 2311.06192. No code was
        published; z and the number of rounds of the paper are not known here, ten rounds are our
        choice.

    Example:
        >>> import torch, integrand as ig
        >>> f = lambda z: torch.tanh(3 * (z[:, 0] + z[:, 1])) + 0.4 * z[:, 2]
        >>> field = ig.fields.Function(f)
        >>> x = torch.tensor([[1.0, 0.9, 1.0]])
        >>> ig.methods.integrated()(field, x).values.argsort(descending=True).tolist()
        [[0, 1, 2]]
        >>> greedy = ig.GreedyPIG(ig.methods.integrated(), chunk=1)
        >>> greedy(field, x).values.argsort(descending=True).tolist()
        [[0, 2, 1]]
    """

    method: Adopted[ExplainerLike, Explainer] = Adopted(as_explainer)
    chunk: int | None = None
    rounds: int | None = None
    features: Features = "auto"
    growth: float = 1.0
    largest: bool = True

    complete: ClassVar[bool] = False
    """Ranks add up to nothing."""

    resolution: ClassVar[str] = "rounds"

    def __post_init__(self) -> None:
        check_wrappable(self.method, "GreedyPIG", layers=False)
        if self.chunk is not None and self.chunk < 1:
            raise InputError(f"A round takes at least one feature: chunk={self.chunk} does not.")
        if self.rounds is not None and self.rounds < 1:
            raise InputError(f"There is at least one round, not rounds={self.rounds}.")
        if not 1 <= self.growth < math.inf:
            raise InputError(
                f"growth is how many times more features the next round takes, 1 or more, not {self.growth}."
            )

    def sizes(self, n: int) -> list[int]:
        """How many of n features each round takes."""
        if self.chunk is None:
            rounds = min(n, self.rounds or _ROUNDS)
            steps = [self.growth**k for k in range(rounds)]
            # Where the rounds end, rounded; each takes one at least.
            ends = [round(n * sum(steps[: k + 1]) / sum(steps)) for k in range(rounds)]
            sizes, assigned = [], 0
            for number, end in enumerate(ends):
                last = number == rounds - 1
                size = (
                    n - assigned
                    if last
                    else min(max(1, end - assigned), n - assigned - (rounds - number - 1))
                )
                sizes.append(size)
                assigned += size
            return sizes
        sizes, wanted, left = [], float(self.chunk), n
        while left:
            last = self.rounds is not None and len(sizes) == self.rounds - 1
            sizes.append(left if last else min(left, int(wanted)))
            left -= sizes[-1]
            wanted = min(wanted * self.growth, float(n))
        return sizes

    @one_call
    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        groups = feature_map(self.features, x)
        n = int(groups.max()) + 1
        sizes = self.sizes(n)
        runs = Runs(watch, len(sizes))
        with warned_once(), field.ready(), gradients(False):
            fixed_start = FixedBaseline(self.method, field, x)
            ranking = _Rounds(groups, fixed_start.x, n, largest=self.largest)
            attributions = [runs(fixed_start.starting(self.method), field, x)]
            self._check_start(attributions[0], fixed_start.references)
            ranking.take(attributions[0].values, sizes[0])
            for size in sizes[1:]:
                start = torch.where(ranking.revealed(), fixed_start.x, fixed_start.references)
                attributions.append(runs(fixed_start.starting(self.method, start), field, x))
                ranking.take(attributions[-1].values, size)
            runs.add(fixed_start.cost)
        first = attributions[0]
        return rearranged(
            first,
            ranking.values(),
            error=torch.stack([attribution.error for attribution in attributions]).amax(0),
            converged=torch.stack([attribution.converged for attribution in attributions]).all(0),
            notes={**first.notes, **ranking.notes()},
            cost=runs.cost,
            method=self,
        )

    def _check_start(self, attribution: Attribution, references: Tensor) -> None:
        begin = attribution.baselines
        if begin is not None and not same_start(begin, references):
            raise InputError(
                "GreedyPIG moves the start of the path onto the input, feature by feature, and this method chooses its own start: "
                "wrap one that starts at its baseline, such as ig.methods.integrated(…)."
            )


class _Rounds:
    """Features (B, n) as they are taken, round by round."""

    def __init__(self, groups: Tensor, x: Tensor, n: int, *, largest: bool) -> None:
        self.where = flattened(groups.expand(x.shape), 1)
        self.groups = groups
        self.shape = x.shape
        self.sign = 1 if largest else -1
        self.position = torch.zeros(len(x), n, dtype=torch.long, device=x.device)
        self.revealed_mask = torch.zeros(len(x), n, dtype=torch.bool, device=x.device)
        self.gain = x.new_zeros(len(x), n)
        self.order: list[Tensor] = []
        self.rounds: list[Tensor] = []

    def take(self, values: Tensor, size: int) -> None:
        """The ``size`` features that come first by these values (B, \\*s), of those that are
        left."""
        scores = feature_scores(values[None], self.groups)[0]
        absent = scores == float("-inf")
        scores = scores.masked_fill(absent, 0)
        key = (self.sign * scores).masked_fill(absent, torch.finfo(scores.dtype).min)
        chosen = key.masked_fill(self.revealed_mask, float("-inf")).argsort(
            dim=1, descending=True, stable=True
        )[:, :size]
        count = sum(part.shape[1] for part in self.order)
        places = torch.arange(count, count + size, device=chosen.device).expand_as(chosen)
        self.position.scatter_(1, chosen, places)
        self.gain.scatter_(1, chosen, scores.gather(1, chosen))
        self.revealed_mask.scatter_(1, chosen, True)
        self.order.append(chosen)
        self.rounds.append(scores)

    def revealed(self) -> Tensor:
        """Which elements (B, \\*s) are as in the input by now."""
        return self.revealed_mask.gather(1, self.where).reshape(self.shape)

    def values(self) -> Tensor:
        """n − position (B, \\*s)."""
        rank = self.position.shape[1] - self.position
        return rank.gather(1, self.where).reshape(self.shape).to(self.gain.dtype)

    def notes(self) -> dict[str, Tensor]:
        return {
            "rounds": torch.stack(self.rounds)[:, None],
            "gain": self.gain[None, None],
            "order": torch.cat(self.order, 1)[None, None],
        }
