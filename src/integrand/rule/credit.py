"""Rules that give credit otherwise than by displacement times gradient.

    Important   Σ_k g_k² / ‖g_k‖² · (F(p_{k+1}) − F(p_k))     what F changed by, shared out along the gradient (IDGI)
    Decision    ∫ g ⊙ γ' · dF/dα dα                           gradients count as much as F moves where they are taken (IDG)
    Rescaled    share · ΔF / Σ share                          any rule, made to add up

Neither of the first two is linear in F. ``Important`` adds up exactly, by telescoping; ``Decision`` adds up to ∫ (dF/dα)² dα, and
``Rescaled(Decision())`` is its complete cousin.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from ..field import Field
from ..parts import part
from ..segment import Evaluation, Segment
from ..shapes import over, total
from ..spacing import equal_change, midpoints, pilot
from .base import Integrated, Rule, _picker, mean_gradient
from .quadrature import Table


@part
class Important:
    """The change of F over each of ``n`` equal pieces p_k → p_{k+1}, shared out by the squared gradient at p_k (IDGI).

        share_i = Σ_k g_i(p_k)² / ‖g(p_k)‖² · (F(p_{k+1}) − F(p_k))

    Of each step only the part along the gradient counts, so within a piece all features have the sign of its ΔF. Shares add up to the
    change of F exactly, whatever n; the map itself is one of n pieces and changes with n. Goes with any path: on one that is cut into
    segments already (``Straight(50)``, ``Descent``), n = 1 takes its own. Where the gradient is exactly zero there is no direction to
    give credit along: nothing is given, and the change over that piece is left to the residual.

    Cost: n gradients, of which the path may have paid for the first; F comes free with them, and at the end of the last piece, where
    the path does not know it, for one value. Memory does not grow with n.
    Source: Yang, Wang, Bilgic, "IDGI: A Framework to Eliminate Explanation Noise from Integrated Gradients", CVPR 2023.

    >>> import torch, integrand as ig
    >>> method = ig.Method(rule=ig.rules.Important(4))
    >>> method(ig.fields.Linear(torch.tensor([1.0, 2.0])), torch.ones(1, 2)).values
    tensor([[0.6000, 2.4000]])
    """

    n: int = 1

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"A segment is cut into at least one piece, not {self.n}.")

    @property
    def gradients(self) -> int:
        """Gradients per segment, reference and example, of which the path may have paid for the first."""
        return self.n

    def table(self) -> Table:
        """Where gradients are looked at, and the part of the segment that each speaks for."""
        return tuple(q / self.n for q in range(self.n)), (1 / self.n,) * self.n

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        pieces, references, batch = segment.leading
        n, lanes, inner = self.n, references * batch, segment.start.shape[3:]
        moving = _moving(segment)
        after = _after(segment, moving, n)
        value = segment.start.new_full((pieces, n + 1, lanes), float("nan"))
        if segment.at_start is not None:
            value[:, 0] = segment.at_start.value.reshape(pieces, lanes)
        if segment.at_end is not None:
            value[:, n] = segment.at_end.value.reshape(pieces, lanes)
        else:
            wanted = moving & (after == _numbers(after, n))
            value[:, n] = _filled(field, segment.end, value[:, n].reshape(segment.leading), wanted).reshape(
                pieces, lanes
            )
        share = segment.start.new_zeros(pieces * lanes, *inner)
        seen = value.reshape(-1)

        # From the last piece to the first: then F at the end of a piece is known when its gradient comes, and no gradient waits for it.
        first = 0 if segment.at_start is None else 1
        piece, node, lane = (
            numbers.flip(0) for numbers in moving[:, None].expand(-1, n - first, -1).nonzero(as_tuple=True)
        )
        node = node + first
        place = piece * lanes + lane
        here = (piece * (n + 1) + node) * lanes + lane
        onward = torch.where(node == n - 1, after[piece, lane], here + lanes)
        begins, finishes = _picker(segment.start, place), _picker(segment.end, place)
        times = (torch.arange(n, dtype=torch.float64) / n).to(segment.start)

        def make(part: slice) -> Tensor:
            which = torch.arange(part.start, part.stop, device=place.device)
            begin = begins(which)
            return torch.lerp(begin, finishes(which), over(times[node[part]], begin))

        def give(part: slice, found: Evaluation) -> None:
            seen[here[part]] = found.value
            change = seen[onward[part]] - found.value
            share.index_add_(0, place[part], _portions(found.gradient) * over(change, found.gradient))

        if len(place):
            field.stream(lane % batch, make, give, segment.start[0, 0, 0], whole=lanes)
        if segment.at_start is not None:
            end = seen[after] if n == 1 else value[:, 1]
            change = torch.where(moving, end - value[:, 0], 0).reshape(-1)
            paid = segment.at_start.gradient.reshape(pieces * lanes, *inner)
            share += _portions(paid) * over(change, paid)

        found = Integrated.ensure(share.reshape(*segment.leading, *inner))
        return Integrated(
            found.share,
            found.error,
            found.converged,
            value[:, 0].reshape(segment.leading),
            seen[after].reshape(segment.leading),
        )


def _portions(gradient: Tensor) -> Tensor:
    """g² / ‖g‖² per row (N, \\*s), zero where g is; scaled first, so that the squares of small gradients do not vanish."""
    flat = gradient.reshape(len(gradient), -1)
    largest = flat.abs().amax(1)
    squares = (flat / torch.where(largest > 0, largest, 1)[:, None]).square()
    return (squares / squares.sum(1, keepdim=True).clamp_min(1)).reshape(gradient.shape)


def _moving(segment: Segment) -> Tensor:
    """(K, R·B): which pieces have a length."""
    k, r, b = segment.leading
    moving = torch.zeros(k * r * b, dtype=torch.bool, device=segment.start.device)
    moving[segment.moving()] = True
    return moving.reshape(k, r * b)


def _chained(segment: Segment) -> bool:
    """Whether each piece of the stack begins where the one before it ends."""
    return torch.equal(segment.start[1:], segment.end[:-1])


def _numbers(after: Tensor, n: int) -> Tensor:
    """Where F at the end of each piece stands in a table (K, n + 1, R·B) that has a place of its own for it."""
    pieces, lanes = after.shape
    places = torch.arange(pieces * (n + 1) * lanes, device=after.device)
    return places.reshape(pieces, n + 1, lanes)[:, n]


def _after(segment: Segment, moving: Tensor, n: int) -> Tensor:
    """The same, but where the next piece that moves begins with it, the place of that: it comes free with its gradient."""
    pieces, lanes = moving.shape
    own = _numbers(moving, n)
    if segment.at_end is not None or not _chained(segment):
        return own
    number = torch.arange(pieces, device=moving.device)[:, None]
    coming = torch.where(moving, number, pieces).flip(0).cummin(0).values.flip(0)[1:]
    coming = torch.cat([coming, torch.full_like(own[:1], pieces)])
    lane = torch.arange(lanes, device=moving.device)
    return torch.where(coming < pieces, coming * (n + 1) * lanes + lane, own)


def _filled(field: Field, points: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
    """``known`` values (K, R, B) of F at ``points`` (K, R, B, \\*s), with those that are ``wanted`` evaluated."""
    place, values = wanted.reshape(-1).nonzero()[:, 0], known.reshape(-1).clone()
    if not len(place):
        return values.reshape(known.shape)
    pick = _picker(points, place)

    def use(part: slice, found: Evaluation) -> None:
        values[place[part]] = found.value

    def make(part: slice) -> Tensor:
        return pick(torch.arange(part.start, part.stop, device=place.device))

    field.stream(place % points.shape[2], make, use, points[0, 0, 0], gradient=False)
    return values.reshape(known.shape)


@part
class Decision:
    """Gradients that count as much as F moves where they are taken (Integrated Decision Gradients).

        share_i = ∫ g_i γ_i' · φ' dα,   φ(α) = F(γ(α)),   φ' = g · γ'

    Adds up to ∫ φ'² dα ≥ (ΔF)²: in squared units of F, four times as large for 2F, and the same for −F. ``Rescaled(Decision())`` adds up
    to ΔF. Nodes are the midpoints of ``steps`` steps, placed by a look at F alone at ``pilot`` + 1 even positions so that F changes
    equally over each (a tenth of them is spread evenly); φ' is the chain rule's and comes with the gradient. ``pilot=1`` leaves the
    steps even. α is the path's clock: on a path of several segments, each takes ``steps`` nodes of its own.

    Cost: ``steps`` gradients and ``pilot`` + 1 values. Error O(1/steps²) for smooth F.
    Source: Walker et al., "Integrated Decision Gradients", AAAI 2024 (arXiv 2305.20052). The authors' code deviates: its sampler
    places steps by slopes that are shifted to begin at zero and skips cells without samples without moving on, so that where F is flat at first all samples
    fall in front of the decision (nothing is then explained); φ' is a backward difference; and the mean over steps is divided by
    their number once more. Here the integral is what is computed.
    """

    steps: int = 50
    pilot: int = 50

    complete: ClassVar[bool] = False
    """Σ = ∫ φ'² dα."""

    clocked: ClassVar[bool] = True
    """What a piece gets depends on its clock."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"A decision is looked at in at least one step, not {self.steps}.")
        if self.pilot < 1:
            raise InputError(f"A pilot needs at least one cell, not {self.pilot}; with pilot=1 the steps are even.")

    @property
    def gradients(self) -> int:
        """Gradients per segment, reference and example."""
        return self.steps

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        values = pilot(field, segment.start, segment.end, self.pilot, leading=3)
        nodes, weights = midpoints(equal_change(values, self.steps))
        step = segment.step
        flat = step.reshape(-1, *step.shape[3:])

        def by_slope(gradient: Tensor, rows: Tensor) -> Tensor:
            return gradient * over(total(gradient * flat[rows], 1), gradient)

        begins, ends = segment.clock
        mean = mean_gradient(field, segment, nodes, weights, by_slope)
        found = Integrated.ensure(mean.mul_(step) / over((ends - begins).to(step), step))
        return Integrated(found.share, found.error, found.converged, values[0], values[-1])


@part
class Rescaled:
    """The shares of another ``rule``, scaled to add up to the change of F over each piece.

        share' = share · (F(end) − F(start)) / Σ_i share_i

    Makes a rule complete that is not by itself (``Decision``, ``Weighted``), piece by piece: with one segment the whole map is scaled by one
    number. Where the shares of a piece cancel to less than rounding there is no such number and they are left as they are; the
    residual then tells. A factor is only as good as the sum it divides by: shares that nearly cancel are blown up.

    Cost: that of the rule, and F at ends that neither it nor the path has come by. Error: the rule's, scaled alike.
    """

    rule: Rule = Decision()

    @property
    def gradients(self) -> int:
        """As many as the rule's."""
        return int(self.rule.gradients)  # type: ignore[attr-defined]

    @property
    def tol(self) -> float | None:
        """The rule's."""
        return getattr(self.rule, "tol", None)

    @property
    def clocked(self) -> bool:
        """Whether the rule is."""
        return bool(getattr(self.rule, "clocked", False))

    @property
    def table(self) -> Any:
        """The rule's, if it has one: what the path has paid for is as good here as there."""
        return self.rule.table  # type: ignore[attr-defined]

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        found = Integrated.ensure(self.rule(field, segment))
        begin, end = _ends(field, segment, found)
        whole = total(found.share, 3)
        smallest = torch.finfo(whole.dtype).eps ** 0.5 * total(found.share.abs(), 3)
        factor = torch.where(whole.abs() > smallest, (end - begin) / whole, 1)
        return Integrated(
            found.share * over(factor, found.share), found.error * factor.abs(), found.converged, begin, end
        )


def _ends(field: Field, segment: Segment, found: Integrated) -> tuple[Tensor, Tensor]:
    """F at both ends of every piece that moves (K, R, B): what the path or the rule knows, the rest evaluated."""
    begin, end = _known(segment.at_start, found.begin, found), _known(segment.at_end, found.end, found)
    moving = _moving(segment).reshape(segment.leading)
    chained = _chained(segment)
    if chained:
        begin = torch.cat([begin[:1], torch.where(begin[1:].isnan(), end[:-1], begin[1:])])
    begin = _filled(field, segment.start, begin, moving & begin.isnan())
    if chained:
        end = torch.cat([torch.where(end[:-1].isnan(), begin[1:], end[:-1]), end[-1:]])
    return begin, _filled(field, segment.end, end, moving & end.isnan())


def _known(paid: Evaluation | None, seen: Tensor | None, found: Integrated) -> Tensor:
    """F at one end of the pieces (K, R, B), from the path or from the rule; NaN where neither knows it."""
    if paid is not None:
        return paid.value
    return torch.full_like(found.error, float("nan")) if seen is None else seen
