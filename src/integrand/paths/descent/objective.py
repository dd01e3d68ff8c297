"""The objective of a walk, and the state of walks.

    z' = z − h g / ‖g‖,  within the box,   g = ∇d(z)       d: the objective, such as a squared distance of representations

One forward pass at every point gives d and its gradient, which finds the way, and F and its
gradient, which is what the map is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.segment import Evaluation
from ...core.shapes import flattened, over, total
from ...fields import Field
from ...fields.decision import side_of
from ...targets import Target

NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": lambda g: flattened(g, 2).norm(dim=2),
    "l1": lambda g: total(g.abs(), 2),
    "sign": lambda g: (total(g.abs(), 2) > 0).to(g.dtype),
}


@dataclass(frozen=True, eq=False)
class State:
    """Where R walks of B examples are, and what the model says there.

    Attributes:
        point: (R, B, \\*s) where the walks are.
        score: (1, R, B) F and ∇F.
        value: (R, B) of the objective.
        gradient: (R, B, \\*s) of the objective.
    """

    point: Tensor
    score: Evaluation
    value: Tensor
    gradient: Tensor

    def where(self, chosen: Tensor, fallback: State) -> State:
        """This one where ``chosen`` (R, B), the ``fallback`` elsewhere."""
        spread = over(chosen, self.point)
        return State(
            torch.where(spread, self.point, fallback.point),
            Evaluation(
                torch.where(chosen, self.score.value, fallback.score.value),
                torch.where(spread, self.score.gradient, fallback.score.gradient),
            ),
            torch.where(chosen, self.value, fallback.value),
            torch.where(spread, self.gradient, fallback.gradient),
        )


class Objective:
    """What is descended, for R walks of B examples: its value and gradient, and where a step of a
    given length ends.

    Args:
        driver: the target that is descended, asked with ``index`` (R·B,) for rows numbered over (R,
            B).
        low, high: the box;  norm: how the length of a step is measured.
        goal: where the walks are to end: at "zero" (of a squared distance), "below" it, or "across"
            it, on the other side than they began. Walks that are below or across stop, and cost
            nothing from then on.
    """

    def __init__(
        self,
        field: Field,
        driver: Target,
        index: Tensor,
        box: tuple[Tensor, Tensor],
        norm: str,
        leading: tuple[int, int],
        goal: str,
    ) -> None:
        self.field = field
        self.driver = driver
        self.index = index
        self.low, self.high = box
        self.norm = norm
        self.leading = leading
        self.goal = goal
        self.degree = 2 if goal == "zero" else 1  # how the value vanishes there
        self.example = torch.arange(leading[1], device=index.device).repeat(leading[0])
        self.stopped: Tensor | None = None  # (R, B) once any walk has stopped
        self._side: Tensor | None = None

    @property
    def finished(self) -> bool:
        """Whether every walk has stopped."""
        return self.stopped is not None and bool(self.stopped.all())

    def start(self, point: Tensor) -> State:
        """The first evaluation, at (R, B, \\*s)."""
        score, value, gradient = self._evaluate(point.flatten(0, 1), slice(None))
        if self.goal == "across":
            self._side = side_of(value)
        return State(
            point,
            *self._reshaped(*self._oriented(score, value, gradient, slice(None)), point.shape),
        )

    def evaluate(self, point: Tensor, before: State) -> State:
        """One joint evaluation at ``point`` (R, B, \\*s); walks that have stopped are not evaluated
        and stay as they were ``before``."""
        flat = point.flatten(0, 1)
        if self.stopped is None:
            score, value, gradient = self._oriented(*self._evaluate(flat, slice(None)), slice(None))
        else:
            rows = (~self.stopped).flatten().nonzero()[:, 0]
            evaluated = self._oriented(*self._evaluate(flat[rows], rows), rows)
            old = before.score.reshape(len(flat))
            score = Evaluation(
                old.value.index_copy(0, rows, evaluated[0].value),
                old.gradient.index_copy(0, rows, evaluated[0].gradient),
            )
            value = before.value.flatten().index_copy(0, rows, evaluated[1])
            gradient = before.gradient.flatten(0, 1).index_copy(0, rows, evaluated[2])
        return State(point, *self._reshaped(score, value, gradient, point.shape))

    def advance(self, point: Tensor, gradient: Tensor, length: Tensor) -> Tensor:
        """point − length · gradient/‖gradient‖, in the box; ``point`` itself for walks that have
        stopped or have nowhere to go."""
        moved = torch.minimum(
            torch.maximum(point - over(length, point) * self._unit(gradient), self.low), self.high
        )
        return (
            moved if self.stopped is None else torch.where(over(self.stopped, point), point, moved)
        )

    def stop_arrived(self, state: State) -> None:
        """Stop the walks that are where they were to end."""
        arrived = state.value < 0
        if self.goal != "zero" and bool(arrived.any()):
            self.stopped = arrived

    def _evaluate(self, flat: Tensor, rows: slice | Tensor) -> tuple[Evaluation, Tensor, Tensor]:
        score, driver = self.field.together(flat, self.example[rows], self.driver, self.index[rows])
        return score, driver.value, driver.gradient

    def _oriented(
        self, score: Evaluation, value: Tensor, gradient: Tensor, rows: slice | Tensor
    ) -> tuple[Evaluation, Tensor, Tensor]:
        if self._side is None:
            return score, value, gradient
        side = self._side[rows]
        return score, side * value, over(side, gradient) * gradient

    def _reshaped(
        self, score: Evaluation, value: Tensor, gradient: Tensor, shape: torch.Size
    ) -> tuple[Evaluation, Tensor, Tensor]:
        return score.reshape(1, *self.leading), value.reshape(self.leading), gradient.reshape(shape)

    def _unit(self, gradient: Tensor) -> Tensor:
        """The gradient scaled to a step of length one; zero where there is nowhere to go."""
        size = NORMS[self.norm](gradient)
        nonzero = size > torch.finfo(gradient.dtype).tiny
        scale = torch.where(nonzero, 1 / size.clamp_min(torch.finfo(gradient.dtype).tiny), 0)
        unit = gradient.sign() if self.norm == "sign" else gradient
        return unit * over(scale, gradient)
