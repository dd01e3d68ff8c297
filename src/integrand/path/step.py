"""How a walk downhill goes one step: of fixed length, of shrinking length, or implicitly.

    u(z) = ∇d(z) / ‖∇d(z)‖          d: what is descended;  h: the length of a step

    Fixed      z' = z − h u(z)       the published choice. Near the goal it oscillates: no step is shorter than h
    Shrinking  z' = z − h u(z)       taken back, and h halved, where d would not fall
    Implicit   z' = z − h u(z')      backward Euler: the direction is the one at the end of the step

A step is called with the hill, where the walk stands, and the length of a step (R, B); it returns where the walk stands next and the
length of the next step. It asks the hill to ``look`` exactly ``looks`` times: that is what the walk pays for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

from ..errors import InputError
from ..parts import part
from ..shapes import over, total

if TYPE_CHECKING:
    from .downhill import Hill, Stand


@part
class Relative:
    """A step length in units of the data: every feature moves ``fraction`` of its range (root mean square) per step."""

    fraction: float = 0.002


class Step(Protocol):
    """How a walk goes one step. ``looks``: joint evaluations per step; ``guarded``: whether steps that do not descend are taken back."""

    @property
    def looks(self) -> int: ...

    @property
    def guarded(self) -> bool: ...

    def __call__(self, hill: Hill, here: Stand, length: Tensor) -> tuple[Stand, Tensor]: ...


@part
class Fixed:
    """z' = z − h u(z), always: what was published for IG2, AGI and MFABA. Cost: one look."""

    looks: ClassVar[int] = 1
    guarded: ClassVar[bool] = False

    def __call__(self, hill: Hill, here: Stand, length: Tensor) -> tuple[Stand, Tensor]:
        return hill.look(hill.stride(here.point, here.slope, length), here), length


@part
class Shrinking:
    """z' = z − h u(z); where that does not descend the walk stays and h is halved from then on. Cost: one look."""

    looks: ClassVar[int] = 1
    guarded: ClassVar[bool] = True

    def __call__(self, hill: Hill, here: Stand, length: Tensor) -> tuple[Stand, Tensor]:
        there = hill.look(hill.stride(here.point, here.slope, length), here)
        worse = there.height >= here.height
        if not bool(worse.any()):
            return there, length
        return here.where(worse, there), torch.where(worse, length / 2, length)


@part
class Implicit:
    """z' = z − h u(z'), a backward Euler step of the unit-speed descent, regularised at the goal.

    Where the goal is nearer than h no point satisfies the equation with a gradient that is not zero; its solution in the limit is the
    goal itself. Both cases are one: z' minimises d over the ball of radius h around z (its optimality condition is the equation
    wherever the minimum lies on the sphere). So d never rises, and a walk that has arrived stays.

    It is solved by ``looks`` rounds of averaged fixed-point iteration, from w = z:

        v = clip(z − h u(w)),   w ← w + θ (v − w)   where d falls,   θ = min(1, what is left of d / its slope on the way to v)

    With w = z − h u(w) the rounds have nothing left to do. A round that would not descend is taken back and θ halved, as far as the
    step is concerned; h never shrinks, so that one bend of the way does not make all later steps short.

    Cost: ``looks`` joint evaluations per step, where an explicit step takes one. One round alone is an explicit step that stops at the
    goal. Source: backward Euler as studied for gradient descent by Xu et al., "Convergence of Implicit Gradient Descent for
    Training Two-Layer Physics-Informed Neural Networks", arXiv 2407.02827; its use on descents towards a counterfactual is
    this library's.
    """

    looks: int = 3

    guarded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.looks < 1:
            raise InputError(f"An implicit step takes at least one look, not {self.looks}.")

    def __call__(self, hill: Hill, here: Stand, length: Tensor) -> tuple[Stand, Tensor]:
        found = here
        damping = torch.ones_like(length)
        for _ in range(self.looks):
            way = hill.stride(here.point, found.slope, length) - found.point
            fall = -total(found.slope * way, 2)
            left = hill.degree * found.height.clamp_min(0)
            reach = torch.where(
                fall > 0, damping * (left / fall.clamp_min(torch.finfo(fall.dtype).tiny)).clamp_max(1), 0
            )
            tried = hill.look(found.point + over(reach, way) * way, here)
            better = tried.height < found.height
            found = tried.where(better, found)
            damping = torch.where(better, 1.0, damping / 2)
        return found, length
