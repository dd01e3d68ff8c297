"""Tokens noised by their importance, every map to the same amount: soft comprehensiveness, soft sufficiency."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...core.features import Features, feature_map, feature_scores
from ...core.options import whole
from ...core.random import generator
from ...core.segment import Evaluation
from ...core.values import part
from ...errors import InputError
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .removal import replacement


def chances(scores: Tensor, mass: Tensor) -> Tensor:
    """Probabilities in proportion to importance that come to the same for all maps.

        q_i = min(1, c a_i),  c such that Σ_i q_i = mass,   a_i = s_i − min s

    Where fewer tokens than ``mass`` have any importance, these get 1, and the rest what is left,
    evenly; where none has, all get the same.

    Args:
        scores: (M, B, N) of features, −∞ for those that an example does not have.
        mass: (B,) what each row adds up to, at most as many as it has features.
    """
    real = scores > float("-inf")
    finite = scores.double()
    lowest = finite.masked_fill(~real, torch.inf).amin(-1, keepdim=True)
    weight = (finite - lowest).masked_fill(~real, 0.0)
    left = mass.double().expand(scores.shape[:-1])[..., None]
    q = torch.zeros_like(weight)
    full = torch.zeros_like(real)
    for _ in range(scores.shape[-1] + 1):  # each round fills one more, or is the last
        open_weight = weight.masked_fill(full, 0.0)
        total = open_weight.sum(-1, keepdim=True)
        over = left - full.sum(-1, keepdim=True)
        q = torch.where(
            full, 1.0, open_weight * over / total.clamp_min(torch.finfo(total.dtype).tiny)
        )
        beyond = (q > 1) & ~full
        if not bool(beyond.any()):
            break
        full |= beyond
    rest = left - q.sum(-1, keepdim=True)
    idle = real & (q == 0)
    fill = rest / idle.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(idle & (rest > 1e-9), fill, q).clamp(0, 1)


@part
class _SoftTokens(Metric):
    retained: float = 0.5
    draws: int = 16
    fill: Fill = 0.0
    features: Features = "auto"
    seed: int = 0

    score: ClassVar[Score] = "probability"
    keep: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.retained < 1:
            raise InputError(f"retained= is a fraction between 0 and 1, not {self.retained}.")
        whole("draws", self.draws, least=1)

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """F(x) − F(x noised) for each draw (M, B, draws)."""
        x = subject.x
        groups = feature_map(self.features, x)
        scores = feature_scores(maps.values, groups)
        counts = (scores[0] > float("-inf")).sum(-1)
        fraction = self.retained if self.keep else 1 - self.retained
        q = chances(scores, fraction * counts)
        stays = q if self.keep else 1 - q
        index = groups.expand(x.shape).reshape(1, len(x), -1).expand(len(stays), -1, -1)
        stays = stays.gather(2, index).reshape(len(stays), *x.shape)
        return subject.whole(self.score)[:, None] - self._scores(subject, stays)

    def _scores(self, subject: Subject, stays: Tensor) -> Tensor:
        """F (M, B, draws) with elements replaced, each with its own chance to stay (M, B, \\*s)."""
        x, replace = subject.x, replacement(subject, self.fill)
        methods, batch = stays.shape[:2]
        shape = (self.draws, *x.shape[1:])
        # The same for all maps and examples: what differs between maps is their doing.
        noise = torch.rand(shape, generator=generator(self.seed), dtype=torch.float64).to(x.device)
        values = x.new_empty(methods * batch * self.draws)
        numbers = torch.arange(len(values), device=x.device)
        draw, pair = numbers % self.draws, numbers // self.draws
        example, flat = pair % batch, stays.flatten(0, 1)

        def rows(some: slice) -> Tensor:
            gone = noise[draw[some]] >= flat[pair[some]]
            return replace(x.index_select(0, example[some]), gone, example[some])

        def use(some: slice, evaluation: Evaluation) -> None:
            values[some] = evaluation.value

        field = subject.score(self.score)
        field.stream(example, rows, use, x[0], gradient=False)
        return values.reshape(methods, batch, self.draws)

    def values(self, measured: Tensor) -> Tensor:
        return measured.mean(-1)


@metric("soft_comprehensiveness")
@part
class SoftComprehensiveness(_SoftTokens):
    """Soft comprehensiveness: what the probability loses when tokens are noised by their importance.

    Higher is better.

        mean over draws of  p(x) − p(x̃),   x̃_id = x_id with probability 1 − q_i, else the fill,   Σ_i q_i = (1 − retained) T

    q is in proportion to the signed score of a token less the smallest, cut off at 1; the same
    amount is replaced for every map, so that a map with many large scores has no advantage.

    Args:
        retained: the fraction of the numbers that stays, on average.
        draws: of which numbers stay; the same for all maps and examples.
        fill: what replaces a number: a number or a tensor in the space of the inputs, mostly the
            embedding of [MASK] or of padding.
        features: "auto": tokens for (T, D), columns for (F,), pixels for images.
        seed: of the draws.

    Cost:
        ``draws`` rows for each map and example, p(x) once.

    Pitfalls:
        As for ``Comprehensiveness``; and noised vectors are those of no word. Tokens beside an
        important one are always noised a little, unless they are the least important.

    Peers:
        Soft-NC of Zhao and Aletras takes q = the scores scaled to [0, 1], of whatever mean, and
        divides by what an empty text loses, which is the same for all maps.

    References:
        Zhao and Aletras, "Incorporating Attribution Importance for Improving Faithfulness Metrics",
        ACL 2023 (arXiv 2305.10496). That maps are to retain equally much is of later work (arXiv
        2601.03089); how q reaches it is ours.
    """

    higher: ClassVar[bool] = True


@metric("soft_sufficiency")
@part
class SoftSufficiency(_SoftTokens):
    """Soft sufficiency: what the probability loses when tokens stay by their importance.

    Lower is better.

        mean over draws of  p(x) − p(x̃),   x̃_id = x_id with probability q_i, else the fill,   Σ_i q_i = retained T

    Cost, pitfalls, peers and sources as for ``SoftComprehensiveness``.

    Args:
        retained: the fraction of the numbers that stays, on average.
        draws: of which numbers stay; the same for all maps and examples.
        fill: what replaces a number: a number or a tensor in the space of the inputs.
        features: "auto": tokens for (T, D), columns for (F,), pixels for images.
        seed: of the draws.
    """

    higher: ClassVar[bool] = False
    keep: ClassVar[bool] = True


soft_comprehensiveness = functional(SoftComprehensiveness)
soft_sufficiency = functional(SoftSufficiency)
