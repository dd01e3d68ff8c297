"""Step rules of descents: fixed length, shrinking length, or implicit.

    u(z) = ∇d(z) / ‖∇d(z)‖          d: what is descended;  h: the length of a step

    Fixed      z' = z − h u(z)       the published choice. Near the goal it oscillates: no step is shorter than h
    Shrinking  z' = z − h u(z)       taken back, and h halved, where d would not fall
    Implicit   z' = z − h u(z')      backward Euler: the direction is the one at the end of the step

A step is called with the objective, where the walk stands, and the length of a step (R, B); it
returns where the walk stands next and the length of the next step. It asks the objective to
``look`` exactly ``looks`` times: that is what the walk pays for.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ...core.shapes import over, total
from ...core.values import part
from ...errors import InputError
from .objective import Objective, State


@part
class Relative:
    """A step length relative to the range of the data.

    Every feature moves ``fraction`` of its range (root mean square) per step.
    """

    fraction: float = 0.002

    def __post_init__(self) -> None:
        if not self.fraction > 0:
            raise InputError(
                f"fraction is a fraction of the data's range, above 0, not {self.fraction}."
            )


class StepRule(Protocol):
    """How a walk goes one step.

    ``looks``: joint evaluations per step; ``guarded``: whether steps that do not descend are taken
    back.
    """

    @property
    def looks(self) -> int: ...

    @property
    def guarded(self) -> bool: ...

    def __call__(
        self, objective: Objective, state: State, length: Tensor
    ) -> tuple[State, Tensor]: ...


@part
class Fixed:
    """Steps of fixed length.

        z' = z − h u(z), always: what was published for IG2, AGI and MFABA

    Cost:
        One look.
    """

    looks: ClassVar[int] = 1
    guarded: ClassVar[bool] = False

    def __call__(self, objective: Objective, state: State, length: Tensor) -> tuple[State, Tensor]:
        return objective.evaluate(
            objective.advance(state.point, state.gradient, length), state
        ), length


@part
class Shrinking:
    """Steps that are taken back and halved where they do not descend.

        z' = z − h u(z); where that does not descend the walk stays and h is halved from then on

    Cost:
        One look.
    """

    looks: ClassVar[int] = 1
    guarded: ClassVar[bool] = True

    def __call__(self, objective: Objective, state: State, length: Tensor) -> tuple[State, Tensor]:
        following = objective.evaluate(
            objective.advance(state.point, state.gradient, length), state
        )
        worse = following.value >= state.value
        if not bool(worse.any()):
            return following, length
        return state.where(worse, following), torch.where(worse, length / 2, length)


@part
class Implicit:
    """Implicit (backward Euler) steps of the unit-speed descent.

        z' = z − h u(z'), regularised at the goal

    Where the goal is nearer than h no point with a gradient satisfies the equation; its limit is
    the goal itself. Both cases are one: z' minimises d over the ball of radius h around z (the
    equation is that minimum's optimality condition wherever it lies on the sphere). So d never
    rises, and a walk that has arrived stays.

    It is solved by ``looks`` rounds of averaged fixed-point iteration, from w = z:

        v = clip(z − h u(w)),   w ← w + θ (v − w) where d falls by it,   θ = min(1, what is left of d / its slope on the way to v)

    At w = z − h u(w) the rounds have nothing left to do. After a round that does not descend, θ is
    that of the parabola through what was seen; where no round descends, the walk stays and h is
    halved.

    Cost:
        ``looks`` joint evaluations per step, where an explicit step takes one. For as many
        evaluations an implicit walk has fewer, better steps, not a nearer end: ``Shrinking()`` gets
        as near (docs/design/0005).

    References:
        Backward Euler as studied for gradient descent by Xu et al., "Convergence of Implicit
        Gradient Descent for Training Two-Layer Physics-Informed Neural Networks", arXiv 2407.02827;
        its use on the way to a counterfactual is this library's.
    """

    looks: int = 3

    guarded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.looks < 1:
            raise InputError(f"An implicit step takes at least one look, not {self.looks}.")

    def __call__(self, objective: Objective, state: State, length: Tensor) -> tuple[State, Tensor]:
        best = state
        damping = torch.ones_like(length)
        for _ in range(self.looks):
            direction = objective.advance(state.point, best.gradient, length) - best.point
            fall = -total(best.gradient * direction, 2)
            falling = fall > 0
            remaining = objective.degree * best.value.clamp_min(0)
            fraction = damping * (remaining / torch.where(falling, fall, 1)).clamp_max(1)
            fraction = torch.where(falling, fraction, 0)
            trial = objective.evaluate(best.point + over(fraction, direction) * direction, state)
            better = trial.value < best.value
            # The parabola through both values and the slope has its minimum at this fraction of the
            # direction that was tried.
            lowest = (
                fraction
                * fall
                / (2 * (trial.value - best.value + fraction * fall)).clamp_min(_tiny(fall))
            )
            damping = (
                damping * torch.where(better, lowest.clamp(1, 4), lowest.clamp(0.1, 0.5))
            ).clamp_max(1)
            best = trial.where(better, best)
        solved = best.value < state.value
        return best, torch.where(solved, length, length / 2)


def _tiny(like: Tensor) -> float:
    return float(torch.finfo(like.dtype).tiny)
