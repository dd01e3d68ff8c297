"""Greedy paths (Guided IG, SAMP): at every step the coordinates of least cost move first.

    p_0 = b,   g = ∇F(p_k),   ‖x − p_{k+1}‖₁ = (1 − (k+1)/K) ‖x − b‖₁

A step covers a K-th of the L1 distance from the baseline to the input. Coordinates are ranked by a
cost that is read off the gradient at the step's start, the cheapest part of them moves as far as it
may, then the next cheapest, until the distance is covered. ``Guided`` and ``SAMP`` differ in the
cost alone. Which coordinates move is all that a path decides: a step is handed on as one straight
segment with the gradient at its start, and rules integrate it as they like.

Where a coordinate is, is kept as its own fraction α_i = (p_i − b_i)/(x_i − b_i) of its way: then
the band, what may still move and what has arrived are comparisons with one number. It is kept in
float64 also where the model computes in float32. The order in which coordinates move is chaotic:
where two gradients nearly tie, a difference in the last place of one point makes another path, and
what is rounded away here would add to what the model rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.options import check_choice
from ..core.segment import Segment
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Path, handed_on
from .greedy_step import at_most, cheapest, group_of, shut

_ROUNDING = 64  # what a sum of distances may be off by, in units of its last place
_STILL = 2.0  # where coordinates are kept that have no way to go: past the end, so that nothing ever moves them

Cost = Callable[[Tensor, Tensor], Tensor]
"""(gradient, way left to the input) (M, \\*s) → what it costs to move each coordinate; the least
moves first."""


@part
class Guided(Path):
    """Guided IG: the coordinates with the smallest absolute gradient move first.

        S = the ``fraction`` of coordinates with the smallest |∂_i F(p)| among those that may move;   p_S moves towards x_S

    Args:
        steps: gradients, and segments: each covers a K-th of the L1 distance.
        fraction: of all coordinates, how many move at a time; ties move together.
        stray: δ, how far a coordinate's own fraction of its way may be from the path's: after k of
            K steps it lies between k/K − δ and k/K + δ. 0 is the straight line, 1 leaves the path
            free.

    Cost:
        One gradient per step, of all references and examples in one batch, handed on as
        ``at_start`` (and, but for the last step, as its predecessor's ``at_end``). Memory does not
        grow with steps. The path stays in the box between baseline and input and no coordinate
        turns back.

    References:
        Kapishnikov, Venugopalan, Avci, Wedin, Terry, Bolukbasi, "Guided Integrated Gradients: an
        Adaptive Path Method for Removing Noise", CVPR 2021 (arXiv 2106.09788). The band and the
        defaults are those of the published code (PAIR-code/saliency); the paper keeps the path near
        the line by anchors instead: ``Composed(Guided(stray=1.0), anchors=20)``. Distances here are
        compared relative to ‖x − b‖₁, there to 1e-9 absolutely, which inputs in small units run
        into.
    """

    steps: int = 200
    fraction: float = 0.25
    stray: float = 0.02
    unpaid: ClassVar[tuple[float, ...]] = (1.0,)
    """The walk has no need to look at the input; a rule with a node there pays for it."""

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_options(self.steps, self.fraction)
        if not 0 <= self.stray <= 1:
            raise InputError(
                f"stray is a fraction of the way between 0 (the straight line) and 1 (no bound), not {self.stray}."
            )

    @property
    def segments(self) -> int:
        """As many as steps."""
        return self.steps

    @property
    def gradients(self) -> int:
        """Gradients that the path pays for and hands on."""
        return self.steps

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        return _walk(field, start, end, _StepOptions(self.steps, self.fraction, self.stray), _slope)


@part
class SAMP(Path):
    """Salient manipulation path (SAMP): the coordinates that change F most move first.

    The opposite of ``Guided``.

        S = the ``fraction`` of coordinates with the largest ∂_i F(p) (x_i − p_i) among those not
        yet there

    The published insertion is ``SAMP()`` from a blurred baseline; the published deletion goes from
    the input to black and takes away what lowers F most, ``Reversed(SAMP(first="lowest"))``. The
    published map is the sum of the two.

    Args:
        steps: gradients, and segments: each covers a K-th of the L1 distance.
        fraction: of all coordinates, how many move at a time.
        first: "highest": what raises F most moves first; "lowest": what lowers it most.
        tie: coordinates whose change of F is within this fraction of the last one chosen move with
            it.

    Cost:
        Cost and properties are those of ``Guided``.

    References:
        Zhang, Zheng, Zhou, Lu, "Path Choice Matters for Clear Attribution in Path Methods" (SAMP),
        ICLR 2024 (arXiv 2401.10442). There a gradient moves five pixels, about 20000 gradients at
        224² (here ``SAMP(10_000, 1e-4)``), colours of a pixel move together, and ties are taken
        within an absolute 1e-6 in the implementation that is public, by which all pixels tie where
        gradients are small; here the tolerance is relative. Momentum (SAMP++) is left out: neither
        the abstract nor any code that is public says what is carried on from step to step.
    """

    steps: int = 200
    fraction: float = 0.005
    first: str = "highest"
    tie: float = 1e-6
    unpaid: ClassVar[tuple[float, ...]] = (1.0,)
    """The walk has no need to look at the input; a rule with a node there pays for it."""

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_options(self.steps, self.fraction)
        check_choice("first", self.first, _FIRST)
        if not 0 <= self.tie < 1:
            raise InputError(f"tie is a relative distance, at least 0 and below 1, not {self.tie}.")

    @property
    def segments(self) -> int:
        """As many as steps."""
        return self.steps

    @property
    def gradients(self) -> int:
        """Gradients that the path pays for and hands on."""
        return self.steps

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        return _walk(
            field,
            start,
            end,
            _StepOptions(self.steps, self.fraction, 1.0, self.tie),
            _FIRST[self.first],
        )


def _check_options(steps: int, fraction: float) -> None:
    if steps < 1:
        raise InputError(f"A path takes at least one step, not {steps}.")
    if not 0 < fraction <= 1:
        raise InputError(
            f"fraction is a fraction of the coordinates, above 0 and at most 1, not {fraction}."
        )


def _slope(gradient: Tensor, left: Tensor) -> Tensor:
    return gradient.abs()


def _gain(gradient: Tensor, left: Tensor) -> Tensor:
    return gradient * left


def _loss(gradient: Tensor, left: Tensor) -> Tensor:
    return -gradient * left


_FIRST: dict[str, Cost] = {"highest": _loss, "lowest": _gain}  # the least cost first


@dataclass(frozen=True)
class _StepOptions:
    """How far steps go and how many coordinates move at a time."""

    steps: int
    fraction: float
    stray: float
    tie: float = 0.0

    def band(self, step: int) -> tuple[float, float]:
        """Between which fractions of its way every coordinate lies after ``step`` of the steps."""
        along = step / self.steps
        return max(along - self.stray, 0.0), min(along + self.stray, 1.0)


def _walk(
    field: Field, start: Tensor, end: Tensor, moves: _StepOptions, cost: Cost
) -> Iterator[Segment]:
    return handed_on(_steps(field, start, end, moves, cost))


def _steps(
    field: Field, start: Tensor, end: Tensor, moves: _StepOptions, cost: Cost
) -> Iterator[Segment]:
    """The steps of all R·B rows at once, each with what the field says at its start."""
    references, batch = start.shape[:2]
    example = torch.arange(batch, device=end.device).repeat(references)
    point, goal = start.flatten(0, 1), end.expand_as(start).flatten(0, 1)
    state = start.dtype if start.device.type == "mps" else torch.float64
    low, high = point.to(state), goal.to(state)
    far = (high - low).abs().reshape(len(point), -1)
    total = far.sum(1, keepdim=True)
    at = torch.where(far > 0, 0.0, _STILL).to(far)
    for step in range(1, moves.steps + 1):
        evaluation = field.rows(point, example)
        if step < moves.steps:
            ranked = cost(evaluation.gradient, goal - point).reshape(far.shape)
            at = _move(at, ranked, far, total, step, moves)
            following = torch.lerp(low, high, at.reshape(low.shape)).to(point.dtype)
        else:
            following = (
                goal  # all that is left goes, in whatever order, and arrives without rounding
            )
        clock = torch.tensor([step - 1, step], dtype=torch.float64) / moves.steps
        clock = clock.to(point)
        yield Segment(
            point.reshape(1, *start.shape),
            following.reshape(1, *start.shape),
            (clock[:1], clock[1:]),
            at_start=evaluation.reshape(1, references, batch),
        )
        point = following


def _move(
    at: Tensor, cost: Tensor, far: Tensor, total: Tensor, step: int, moves: _StepOptions
) -> Tensor:
    """Where the coordinates (M, n) are after ``step``, each a fraction of its way.

    Those that lag are brought up to the band; the others go towards the band's end, cheapest first.
    """
    low, high = moves.band(step)
    if low > 0:
        at = at.clamp_min(low)
    room = high - at
    cost = shut(cost, at_most(room, 0.0).to(cost))
    room.mul_(far)
    distance = room.sum(1, keepdim=True) - total * (high - step / moves.steps)
    enough = _ROUNDING * torch.finfo(far.dtype).eps * total
    moved = cheapest(
        cost, room, distance, enough, group_of(moves.fraction, far.shape[1]), moves.tie
    )
    moved_fully = at_most(cost, moved.full)
    moved_part = torch.lerp(
        moved_fully.to(room),
        at_most(cost, moved.partly).maximum(moved_fully).to(room),
        moved.fraction,
    )
    return torch.lerp(at, at.new_tensor(high), moved_part)
