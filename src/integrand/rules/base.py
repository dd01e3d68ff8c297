"""Base class of rules, and the loop over nodes that all rules with nodes use.

A rule is any callable ``(field, segment) -> share (K, R, B, \\*s)``: what the path's piece
contributes to the attribution. Shares, not gradients, leave a rule, because not every way of giving
credit is displacement times gradient.

What a rule may say of itself is listed in the base class ``Rule``. Users' rules need no base class:
what they say is read by ``as_rule``, once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from ..core.declared import Part, Stranger, check_callable, declared
from ..core.features import Features
from ..core.segment import Evaluation, Segment
from ..core.shapes import ROUNDING, over, unravelled
from ..fields import Field
from ..fields.base import SmoothPart


@dataclass(frozen=True, eq=False)
class Integrated:
    """A share, with its error estimate and the values of F its rule came by.

    Attributes:
        share: (K, R, B, \\*s).
        error: (K, R, B) the estimated L2 error, NaN where the rule estimates none.
        begin: (K, R, B) F at the pieces' starts where the rule came by it, NaN elsewhere; None
            where it did not.
        end: (K, R, B) likewise at their ends.
        noise: (G, K, R, B, \\*s) of a rule with random nodes: G vectors whose products add up, on
            average, to the covariance of the share, of which G − 1 are independent; None of other
            rules, and where there are too few nodes to tell.
    """

    share: Tensor
    error: Tensor
    begin: Tensor | None = None
    end: Tensor | None = None
    noise: Tensor | None = None

    @classmethod
    def ensure(cls, result: Tensor | Integrated) -> Integrated:
        """Wrap a bare tensor; its error estimate is NaN (unknown)."""
        if isinstance(result, Integrated):
            return result
        return cls(result, result.new_full(result.shape[:3], float("nan")))


def exactly(field: Field, segment: Segment) -> Integrated:
    """The field's own share, whose error is nothing but rounding."""
    share = field.share(segment)
    return Integrated(share, share.new_zeros(share.shape[:3]))


def between_jumps(
    field: Field, segment: Segment, smooth: Callable[[], RuleLike]
) -> Integrated | None:
    """The share of a field that jumps: of its jumps exactly, and of what lies between them by
    ``smooth()``, a rule for smooth functions, whose errors are independent. None for fields that
    have no jumps."""
    if not field.jumps:
        return None
    index = torch.arange(segment.leading[2], device=segment.start.device)
    parts = field.decomposed(segment, index)
    if parts is None:
        return exactly(field, segment)
    share = parts.jumps.clone()
    error = share.new_zeros(share.shape[:3])
    rule = smooth()
    for part in parts.smooth:
        integrated = Integrated.ensure(rule(part.field, part.segment))
        share += _placed(integrated.share, part, share)
        squares = _placed(integrated.error.square(), part, error)
        error = (error.square() + squares).sqrt()
    return Integrated(share, error)


def _placed(numbers: Tensor, smooth: SmoothPart, whole: Tensor) -> Tensor:
    """Numbers of a smooth part, added up over the pieces of the whole that they belong to."""
    if smooth.row is None:
        return numbers
    flat = torch.zeros_like(whole).flatten(0, 2)
    return flat.index_add_(0, smooth.row, numbers.flatten(0, 2)).reshape(whole.shape)


Table = tuple[tuple[float, ...], tuple[float, ...]]
"""Nodes in [0, 1], and weights that sum to one."""


def products_of_nodes(nodes: Sequence[float], weights: Sequence[float]) -> Table:
    """The nodes α_p β_q and weights w_p w_q of the double sum, equal nodes put together."""
    sums: dict[float, float] = {}
    for p, first in enumerate(nodes):
        for q, second in enumerate(nodes[: p + 1]):
            weight = weights[p] * weights[q] * (1 if p == q else 2)
            sums[first * second] = sums.get(first * second, 0.0) + weight
    places = sorted(sums)
    return tuple(places), tuple(sums[place] for place in places)


class RuleLike(Protocol):
    """Anything callable as a rule: ``(field, segment) -> share``."""

    def __call__(self, field: Field, segment: Segment) -> Tensor | Integrated: ...


class RoughShares(Protocol):
    """What a rule has seen of a segment at a first look: shares that can be refined where they
    count."""

    @property
    def segment(self) -> Segment: ...

    def refined(self, weights: Tensor | None = None, tol: float | None = None) -> Integrated: ...


class Rule(Part, ABC):
    """How a segment is integrated: to a share, or to a share and what is known of its error."""

    @abstractmethod
    def __call__(self, field: Field, segment: Segment) -> Tensor | Integrated: ...

    @declared
    def gradients(self) -> int | None:
        """Gradients per segment, reference and example; None where that is not known beforehand."""
        return None

    @declared
    def complete(self) -> bool:
        """Whether shares are meant to add up to the change of F; maps that are not are not warned
        of."""
        return True

    @declared
    def unbiased(self) -> bool:
        """Whether it is right on average over random nodes, so that what one share is wrong by is
        chance."""
        return False

    @declared
    def clocked(self) -> bool:
        """Whether it asks when on the path a segment is (``Segment.clock``), and not only where it
        lies."""
        return False

    @declared
    def tol(self) -> float | None:
        """The relative L2 error it integrates to; None where it has no tolerance."""
        return None

    @declared
    def budget(self) -> int | None:
        """The most gradients that it takes on a path to reach its tolerance; None where it sets no
        limit."""
        return None

    @declared
    def features(self) -> Features | None:
        """What one feature is, where it asks; label maps (B, H, W) hold something for each
        example."""
        return None

    @declared
    def inner(self) -> Rule | None:
        """The rule it takes its gradients by, of a rule around a rule."""
        return None

    @declared
    def differentiable(self) -> bool:
        """Whether it is a sum of gradients at nodes that do not depend on F, ``nodes_on`` a segment,
        so that its shares can be trained on."""
        return self.overrides(Rule, "nodes_on")

    @declared
    def looks(self) -> bool:
        """Whether it can wait with refining until it is known how much each reference counts: it
        has ``look``."""
        return self.overrides(Rule, "look")

    def table(self) -> Table | None:
        """Its nodes and weights, the same on every segment; a path's gradients at ends with a node
        are used. None where it has none."""
        return None

    def nodes_on(self, segment: Segment) -> tuple[Tensor, Tensor]:
        """Its nodes on a segment, and their weights: (n,) each, or (n, K, R, B)."""
        raise NotImplementedError(f"{self!r} takes nodes that depend on F.")

    def double_table(self) -> Table | None:
        """Nodes s and weights of ∫∫ f(αβ) dα dβ over α, β in [0, 1], for integrals over a line of
        integrals over a line (``ig.interactions``): the products of every two of its nodes, unless
        it knows better. None where it has no table."""
        table = self.table()
        return None if table is None else products_of_nodes(*table)

    def look(self, field: Field, segment: Segment) -> RoughShares:
        """A first look at a segment, to be refined later."""
        raise NotImplementedError(f"{self!r} integrates at once.")

    def with_inner(self, inner: Rule) -> Self:
        """The same around another rule."""
        raise NotImplementedError(f"{self!r} is no rule around a rule.")


class _StrangerRule(Stranger, Rule):
    """A user's callable as a rule."""

    @declared
    def resolution(self) -> str | None:
        return self.grows_with("gradients")


def as_rule(rule: RuleLike) -> Rule:
    """Convert to a ``Rule``; a user's callable is wrapped, and keeps the attributes it declares."""
    if isinstance(rule, Rule):
        return rule
    check_callable(rule, "a rule", "(field, segment) -> share", "ig.rules.GaussLegendre(50)")
    return _StrangerRule(rule)


Credit = Callable[[Tensor, Tensor], Tensor]
"""Gradients (n, \\*s) and the rows (n,) they belong to, numbered over (K, R, B) → what counts in
their place (n, \\*s)."""


def missed(summed: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """What shares that add up to ``summed`` miss of the change from F = ``begin`` to ``end``;
    nothing where rounding explains it.

    Steps that were halved many times change F by less than a difference of two of its values can
    tell.
    """
    off = (summed - (end - begin)).abs()
    rounding = ROUNDING * torch.finfo(begin.dtype).eps * torch.maximum(begin.abs(), end.abs())
    return torch.where((off <= rounding) & off.isfinite(), 0, off)


def least_norm(moving: Tensor) -> Tensor:
    """The norm of the smallest vector in ``moving`` (n,) numbers that adds up to 1: no map that
    misses a change is nearer than this times it."""
    return moving.clamp_min(1).rsqrt()


def mean_gradient(
    field: Field, segment: Segment, nodes: Tensor, weights: Tensor, credit: Credit | None = None
) -> Tensor:
    """The weighted mean of gradients at nodes of each piece.

        Σ_q w_q ∇F(start + t_q (end − start))

    Args:
        field: the scalar that is explained.
        segment: K straight pieces of R references of B examples.
        nodes: (n,) t_q, from 0 at the start of a piece to 1 at its end.
        weights: (n,) w_q, which add up to one.
        credit: what each gradient counts as, as in ``mean_gradients``; itself unless given.

    Returns:
        (K, R, B, \\*s) in float32 at least; zero on pieces of no length, which are not asked about.

    Cost:
        n gradients for each piece, in as many model calls as memory takes; memory does not grow
        with n.

    Example:
        >>> import torch, integrand as ig
        >>> corners = torch.tensor([[0.0, 0.0], [2.0, 4.0]])[:, None, None]
        >>> field = ig.fields.Function(lambda z: z.prod(1))
        >>> middle, one = torch.tensor([0.5]), torch.tensor([1.0])
        >>> ig.rules.mean_gradient(field, ig.segments.polyline(corners), middle, one).flatten().tolist()
        [2.0, 1.0]
    """
    group = torch.zeros(len(nodes), dtype=torch.long, device=segment.start.device)
    return mean_gradients(field, segment, nodes, weights, group, 1, credit)[0]


def mean_gradients(
    field: Field,
    segment: Segment,
    nodes: Tensor,
    weights: Tensor,
    group: Tensor,
    groups: int,
    credit: Credit | None = None,
) -> Tensor:
    """Σ_q w_q ∇F(start + t_q (end − start)) over the nodes q of each ``group`` (n,) → (groups, K,
    R, B, \\*s).

    ``nodes`` and ``weights`` are (n,) for all rows alike, or broadcast to (n, K, R, B). Points are
    made when the model is ready for them and gradients are added where they belong at once, so
    memory does not grow with n. Pieces of no length cost nothing. With ``credit`` the sum is over
    what that makes of each gradient.
    """
    leading = segment.leading
    inner = segment.start.shape[3:]
    total_rows = math.prod(leading)
    mean = segment.start.new_zeros(groups * total_rows, *inner)
    place = segment.moving()
    if not len(nodes) or not len(place):
        return mean.reshape(groups, *leading, *inner)
    begins, finishes = row_picker(segment.start, place), row_picker(segment.end, place)
    t, w = (_per_row(numbers, leading, place) for numbers in (nodes, weights))
    rows, group = len(place), group.to(place.device)
    example = (place % leading[2]).repeat(len(nodes))

    def whole(part: slice) -> bool:
        """Whether a part is a number of nodes for all rows, as most are: then nothing need be
        picked, it is broadcast."""
        return rows == total_rows and part.start % rows == 0 and part.stop % rows == 0

    def make(part: slice) -> Tensor:
        if whole(part):
            at = t[part].reshape(-1, *leading, *(1,) * len(inner))
            return torch.lerp(segment.start, segment.end, at).flatten(0, 3)
        row = torch.arange(part.start, part.stop, device=place.device) % rows
        begin = begins(row)
        return torch.lerp(begin, finishes(row), over(t[part], begin))

    def add(part: slice, evaluation: Evaluation) -> None:
        row = torch.arange(part.start, part.stop, device=place.device) % rows
        gradient = (
            evaluation.gradient if credit is None else credit(evaluation.gradient, place[row])
        )
        weighted = gradient * over(w[part], gradient)
        if groups == 1 and whole(part):
            mean.add_(weighted.reshape(-1, *mean.shape).sum(0))
        else:
            node = torch.arange(part.start, part.stop, device=place.device) // rows
            mean.index_add_(0, group[node] * total_rows + place[row], weighted)

    field.stream(example, make, add, segment.start[0, 0, 0], whole=rows)
    return mean.reshape(groups, *leading, *inner)


def row_picker(points: Tensor, place: Tensor) -> Callable[[Tensor], Tensor]:
    """Points (K, R, B, \\*s) → a function that picks those numbered ``place[which]`` over (K, R,
    B), copying no others."""
    try:
        flat = points.view(-1, *points.shape[3:])
    except (
        RuntimeError
    ):  # broadcast over references or examples: a flat one would be as many copies
        k, r, b = unravelled(place, points.shape[:3])
        return lambda row: points[k[row], r[row], b[row]]
    return lambda row: flat[place[row]]


def _per_row(numbers: Tensor, leading: tuple[int, int, int], place: Tensor) -> Tensor:
    """(n,) or (n, K, R, B) → one number per node and row that is looked at, flat, nodes
    outermost."""
    if numbers.ndim == 1:
        return numbers[:, None].expand(-1, len(place)).reshape(-1)
    return numbers.expand(-1, *leading).reshape(len(numbers), -1)[:, place].reshape(-1)
