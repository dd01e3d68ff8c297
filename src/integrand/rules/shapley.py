"""Baseline Shapley: a segment's change of F, shared out by what each feature adds when it is
switched.

A game of a segment: coalition S is worth F at the point whose features in S are those of the
segment's end, and whose others are those of its start. Orders of the features are drawn
(``_Orders``); along each the values of F telescope, whatever it is. Or all coalitions are asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.features import Features, feature_map, ranks_in
from ..core.random import generator
from ..core.segment import Evaluation, Segment
from ..core.shapes import over, total
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Integrated, Rule, row_picker
from .endpoints import ends_of

_FREEDOM = 16  # degrees of freedom that the error of all shares together is known from, if there are orders enough
_MOST_FEATURES = 16  # of which all coalitions are asked
_RANKS = 1 << 24  # ranks of features that are held at a time


@part
class BaselineShapley(Rule):
    """Baseline Shapley: what each feature adds to F when it is switched from start to end, averaged
    over orders of the features.

        share_i = mean over orders π of F(start, end where π_j ≤ π_i) − F(start, end where π_j < π_i)

    ``permutations`` random orders are drawn for each reference, the same for every example, or,
    with None, all coalitions are asked, which is exact. Shares add up to the change of F whatever
    the orders, because along each of them the differences telescope. F needs no gradient: trees and
    other fields of values are explained too. Of a feature of several numbers, such as a pixel's
    channels, those that differ between start and end get equal parts.

    With two orders or more the share comes with its standard error, read off how groups of orders
    differ. On a path of many short segments shares tend to those of the path's integral
    (Aumann and Shapley): ``Method(path=Straight(50), rule=BaselineShapley(1))`` is nearly Integrated
    Gradients, without gradients.

    Args:
        permutations: orders drawn for each reference; None for all coalitions of up to 16 features.
        seed: of the orders.
        features: what is switched at a time; see ``ig.weightings.feature_map``.

    Raises:
        InputError: for no order at all, and for all coalitions of more than 16 features.

    Cost:
        No gradients. Of n features that differ: permutations × (n − 1) + 2 values, or 2^N for all
        coalitions of N features.

    References:
        Sundararajan, Najmi, "The many Shapley values for model explanation", ICML 2020; sampled as
        in Castro, Gómez, Tejada, Computers & Operations Research 36, 2009.

    Example:
        >>> import torch, integrand as ig
        >>> product = ig.fields.Function(lambda z: z[:, 0] * z[:, 1])
        >>> method = ig.Method(rule=ig.rules.BaselineShapley(None))
        >>> method(product, torch.tensor([[2.0, 3.0]])).values
        tensor([[3., 3.]])
    """

    permutations: int | None = 8
    seed: int = 0
    features: Features = "auto"

    gradients = 0

    def __post_init__(self) -> None:
        if self.permutations is not None and self.permutations < 1:
            raise InputError(
                f"permutations is how many orders are drawn, 1 at least, or None for all coalitions; not {self.permutations}."
            )

    @property
    def unbiased(self) -> bool:
        """Orders that are drawn are right on average; all coalitions are right."""
        return self.permutations is not None

    @property
    def resolution(self) -> str | None:
        """The number of orders, where they are drawn."""
        return None if self.permutations is None else "permutations"

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        switches = _Switches.of(field, segment, self.features)
        if self.permutations is None:
            share = switches.split(_all_coalitions(switches))
            begin, end = (values.reshape(segment.leading) for values in switches.ends)
            return Integrated(share, share.new_zeros(segment.leading), begin, end)
        return self._sampled(switches, self.permutations)

    def _sampled(self, switches: _Switches, permutations: int) -> Integrated:
        segment = switches.segment
        reference_block = segment.reference_block or (0, segment.leading[1])
        # The fewer references there are, the more groups it takes to know how far they may be off.
        groups = min(permutations, max(2, -(-_FREEDOM // reference_block[1]) + 1))
        group = torch.arange(permutations) * groups // permutations
        sizes = torch.bincount(group)
        means = switches.start.new_zeros(groups, *switches.moves.shape)
        block = max(1, _RANKS // max(1, switches.moves.numel()))
        for first in range(0, permutations, block):
            orders = range(first, min(first + block, permutations))
            drawn = torch.stack([self._order(switches, order, reference_block) for order in orders])
            gains = _gains(switches, drawn)
            means.index_add_(0, group[first : orders.stop].to(gains.device), gains)
        means /= over(sizes.to(means), means)
        fraction = (sizes.double() / permutations).to(means)
        share = switches.split(torch.tensordot(fraction, means, 1))
        begin, end = (values.reshape(segment.leading) for values in switches.ends)
        if groups == 1:
            return Integrated(share, share.new_full(segment.leading, torch.inf), begin, end)
        noise = torch.stack([switches.split(mean) for mean in means]).sub_(share)
        noise.mul_(over((fraction / (groups - 1)).sqrt(), noise))
        error = total(noise.square(), 4).sum(0).sqrt()
        return Integrated(share, error, begin, end, noise)

    def _order(self, switches: _Switches, order: int, reference_block: tuple[int, int]) -> Tensor:
        """One order of the features for each piece and reference: the place (K, R, 1, N) that each
        feature has in it."""
        pieces, references, _ = switches.segment.leading
        begins = [round(begin * 2**40) for begin in switches.segment.clock[0].tolist()]
        drawn = torch.stack(
            [
                torch.rand(
                    reference_block[1],
                    switches.moves.shape[-1],
                    generator=generator(self.seed, begin, order),
                    dtype=torch.float64,
                )[reference_block[0] : reference_block[0] + references]
                for begin in begins
            ]
        ).argsort(dim=-1)
        return drawn.reshape(pieces, references, 1, -1).to(switches.start.device)


@dataclass(frozen=True, eq=False)
class _Switches:
    """What of each piece can be switched, feature by feature.

    Attributes:
        groups: (K, R, B, \\*s) the feature that each number belongs to.
        moves: (K, R, B, N) whether a feature differs between start and end.
        ends: F (K·R·B,) at starts and at ends, NaN where nothing differs.
    """

    field: Field
    segment: Segment
    groups: Tensor
    moves: Tensor
    ends: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, field: Field, segment: Segment, features: Features) -> _Switches:
        groups = feature_map(features, segment.end[0, 0])
        count = int(groups.max()) + 1 if groups.numel() else 0
        groups = groups.expand(segment.start.shape)
        differ = (segment.start != segment.end).reshape(*segment.leading, -1)
        moves = torch.zeros(*segment.leading, count, dtype=torch.long, device=groups.device)
        moves.scatter_add_(3, groups.reshape(*segment.leading, -1), differ.long())
        begin, end = ends_of(field, segment, Integrated.ensure(segment.start))
        return cls(field, segment, groups, moves > 0, (begin.reshape(-1), end.reshape(-1)))

    @property
    def start(self) -> Tensor:
        return self.segment.start

    def values(self, line: Tensor, switched: Callable[[slice], Tensor]) -> Tensor:
        """F (n,) at points of lines (n,), numbered over (K, R, B), whose features ``switched(part)``
        (m, N) are those of the end."""
        values = self.start.new_empty(len(line))
        if not len(line):
            return values
        begins, finishes, groups = (
            row_picker(points, line) for points in (self.start, self.segment.end, self.groups)
        )

        def make(part: slice) -> Tensor:
            row = torch.arange(part.start, part.stop, device=line.device)
            begin = begins(row)
            mask = switched(part).gather(1, groups(row).reshape(len(row), -1))
            return torch.where(mask.reshape(begin.shape), finishes(row), begin)

        def use(part: slice, evaluation: Evaluation) -> None:
            values[part] = evaluation.value

        batch = self.segment.leading[2]
        self.field.stream(line % batch, make, use, self.start[0, 0, 0], gradient=False)
        return values

    def split(self, gains: Tensor) -> Tensor:
        """What features (K, R, B, N) gained, in equal parts to those of their numbers that differ
        (K, R, B, \\*s)."""
        leading = self.segment.leading
        differ = (self.start != self.segment.end).reshape(*leading, -1)
        place = self.groups.reshape(*leading, -1)
        numbers = torch.zeros_like(gains).scatter_add_(3, place, differ.to(gains))
        share = (gains / numbers.clamp_min(1)).gather(3, place)
        return torch.where(differ, share, 0).reshape(self.start.shape)


def _gains(switches: _Switches, places: Tensor) -> Tensor:
    """What each feature adds to F in each of P orders (P, K, R, B, N), given by the ``places`` of
    features in them (P, K, R, 1, N)."""
    moves = switches.moves
    orders, features, lines = len(places), moves.shape[-1], moves[..., 0].numel()
    # Features that do not move come last, and are not switched: the value would be the same.
    keys = torch.where(moves, places, features).reshape(orders * lines, features)
    order = keys.argsort(dim=1, stable=True)
    rank = ranks_in(order)
    moving = moves.sum(-1).reshape(-1).repeat(orders)  # (P·lines,)
    step = torch.arange(features + 1, device=order.device)
    walked = switches.start.new_empty(orders * lines, features + 1)
    begin, end = (values.repeat(orders)[:, None] for values in switches.ends)
    walked[:] = torch.where(step < 1, begin, end)
    between = (step >= 1) & (step < moving[:, None])
    row, switched = between.nonzero(as_tuple=True)
    walked[between] = switches.values(
        row % lines, lambda part: rank[row[part]] < switched[part, None]
    )
    gained = walked.diff(dim=1).gather(1, rank)
    return torch.where(moves.reshape(lines, features).repeat(orders, 1), gained, 0).reshape(
        orders, *moves.shape
    )


def _all_coalitions(switches: _Switches) -> Tensor:
    """The Shapley values (K, R, B, N) of the game.

    φ_i = Σ_{S without i} |S|! (N − 1 − |S|)! / N! · (v(S + i) − v(S))
    """
    features = switches.moves.shape[-1]
    if features > _MOST_FEATURES:
        raise InputError(
            f"All coalitions of {features} features are 2^{features}: draw orders (permutations=100), or group features "
            f"(features=) into {_MOST_FEATURES} at most."
        )
    lines = switches.moves[..., 0].numel()
    number = torch.arange(2**features, device=switches.start.device)
    member = (number[:, None] >> torch.arange(features, device=number.device)) & 1 == 1
    worth = switches.start.new_empty(len(number), lines)
    worth[0], worth[-1] = switches.ends
    row = torch.arange(lines * max(0, len(number) - 2), device=number.device)
    values = switches.values(row % lines, lambda part: member[row[part] // lines + 1])
    worth[1:-1] = values.reshape(-1, lines)
    size = member.sum(1)
    factor = torch.tensor(
        [
            math.factorial(k) * math.factorial(features - 1 - k) / math.factorial(features)
            for k in range(features)
        ],
        dtype=torch.float64,
    ).to(worth)
    shares = []
    for feature in range(features):
        without = number[~member[:, feature]]
        gains = worth[without + 2**feature] - worth[without]
        shares.append((gains * factor[size[without], None]).sum(0))
    return torch.stack(shares, 1).reshape(switches.moves.shape)
