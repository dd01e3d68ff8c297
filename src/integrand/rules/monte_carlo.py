"""Monte Carlo integration with stratified random nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ..core.options import whole
from ..core.random import generator
from ..core.segment import Segment
from ..core.shapes import over, total
from ..core.values import part
from ..fields import Field
from .base import Integrated, Rule, between_jumps, exactly, mean_gradients

_FREEDOM = 16  # degrees of freedom that the error of a share, or of all shares together, is known from, if the nodes suffice


@part
class MonteCarlo(Rule):
    """Monte Carlo integration: stratified random nodes, unbiased for every n.

    Every reference has nodes of its own.

    All R·n draws of a segment share [0, 1]: each takes one of R·n equal strata, in random order, at
    a random place inside (Latin hypercube), so the draws of different references complement one
    another. The draws are the same for every example. With two nodes or more the share comes with
    its standard error, read off how groups of nodes differ (strata that make it smaller are not
    seen); one node says nothing of its own error. Error O((Rn)^{-3/2}) where references do not
    matter, O((Rn)^{-1/2}) where they do.

    Args:
        n: nodes per segment and reference.
        seed: of the nodes; the same for every example.

    Cost:
        n gradients.

    References:
        Sampling of Expected Gradients (Erion et al., 2021), with strata instead of independent
        draws.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Linear(torch.tensor([1.0, 2.0]))
        >>> ig.Method(rule=ig.rules.MonteCarlo(4))(field, torch.ones(1, 2)).values.tolist()
        [[1.0, 2.0]]
    """

    n: int = 1
    seed: int = 0
    complete: ClassVar[bool] = False
    unbiased: ClassVar[bool] = True
    """Complete in expectation: what one map misses is chance, and more draws make it less."""

    resolution: ClassVar[str] = "n"

    def __post_init__(self) -> None:
        whole("n", self.n, least=1)

    @property
    def gradients(self) -> int:
        return self.n

    def nodes_on(self, segment: Segment) -> tuple[Tensor, Tensor]:
        t = self._draws(segment)
        return t, torch.full_like(t, 1 / self.n)

    def _draws(self, segment: Segment) -> Tensor:
        """Where gradients are taken, (n, K, R, B)."""
        leading = segment.leading
        first, of = segment.reference_block or (0, leading[1])
        draws = of * self.n
        nodes = []
        for begin in segment.clock[0].tolist():
            stream = generator(self.seed, round(begin * 2**40))
            strata = torch.randperm(draws, generator=stream)
            inside = torch.rand(draws, generator=stream, dtype=torch.float64)
            nodes.append(((strata + inside) / draws).reshape(self.n, of))
        drawn = torch.stack(nodes, 1)[:, :, first : first + leading[1]]
        return drawn[..., None].to(segment.start).expand(self.n, *leading)

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        if field.flat:  # nothing is left to chance but which references there are
            integrated = exactly(field, segment)
            return replace(
                integrated, noise=integrated.share.new_zeros(()).expand(1, *integrated.share.shape)
            )
        jumping = between_jumps(field, segment, lambda: self)
        if jumping is not None:
            return jumping
        leading = segment.leading
        of = segment.reference_block[1] if segment.reference_block else leading[1]
        t = self._draws(segment)
        # The fewer references there are, the more groups it takes to know how far they may be off.
        groups = min(self.n, max(2, -(-_FREEDOM // of) + 1))
        group = torch.arange(self.n) * groups // self.n
        sizes = torch.bincount(group)
        weights = (1 / sizes.double())[group].to(t)[:, None, None, None].expand_as(t)
        means = mean_gradients(field, segment, t, weights, group, groups)
        fraction = (sizes.double() / self.n).to(t)
        share = torch.tensordot(fraction, means, 1).mul_(segment.step)
        if groups == 1:
            return Integrated(share, share.new_full(leading, torch.inf))
        means.mul_(segment.step).sub_(share).mul_(over((fraction / (groups - 1)).sqrt(), means))
        return Integrated(share, total(means.square(), 4).sum(0).sqrt(), noise=means)
