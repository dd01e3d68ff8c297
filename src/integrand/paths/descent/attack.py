"""Adversarial paths: from the input to where the model decides otherwise (AGI).

    z_0 = x,   z_{j+1} = clip( z_j + rate · ∇f_k(z_j) / ‖∇f_k(z_j)‖ )        until k is predicted

f_k is the probability of a rival class, or, away from the predicted class c, −f_c. The walk starts
at the input and ends at an adversarial example, so the path chooses its own baseline.

Directions are those of log-odds, which are those of probabilities, ∇p = p (1 − p) ∇ log p/(1 − p),
and do not vanish where a probability is 0 or 1 to the last bit. Whether a class is reached is told
by its lead over the best other, which the same forward pass gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.random import generator
from ...core.segment import Segment
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ...fields.decision import as_decision, class_outputs
from ...targets import Lead, LogOdds, Target
from ..base import Path, PathLike
from .objective import Objective
from .step_rules import Fixed, Relative, StepRule
from .walk import box_of, check_walk, downhill, length_of

Goal = str | int | Sequence[int] | Target | Callable[..., Tensor]

_GOALS = ("away", "drawn", "likeliest")


@part
class Adversarial(Path):
    """Adversarial path (AGI): normalised ascent of a rival class until the model predicts it.

    The path needs no references, only to know how many walks there are: ``ig.baselines.Itself()``
    and ``Rivals()`` say that. Which class is predicted, and which are likeliest, is asked of each
    input alone. A walk that does not get there in ``steps`` ends where it is; one that has nothing
    to do (its class is predicted already) stands still. Both are told by the note "lead" (K+1, R,
    B): how far the decision is from changing, below zero where it has changed.

    Args:
        goal: "away": down the probability of the predicted class, until another is predicted,
            whichever that is; "drawn": up that of a rival class, drawn without replacement, another
            for each reference; "likeliest": the rival that the model ranks second for the input,
            third for the second reference, and so on; a class, or a tuple with one for each
            reference: up the probability of that class; a decision function, outputs → (N,), or an
            ``ig.targets`` value: towards zero, until its sign changes.
        steps: at most as many; also the number of segments, of which those after the arrival have
            no length.
        rate: length of a step in the norm below and the units of the input, or
            ``Relative(fraction)`` of the data range.
        clip: (low, high): the box the path stays in; by default the range of the field's images
            where it knows them, else the range of the numbers in the input.
        norm: "l2": ∇/‖∇‖₂, "l1": ∇/‖∇‖₁, "sign": the sign of ∇.
        step: ``Fixed()``, ``Shrinking()`` or ``Implicit()``, see ``ig.paths.Descent``.
        seed: of "drawn".

    Cost:
        The outputs for the input, and one joint evaluation (one forward and two backward passes) at
        every point of every walk up to its arrival, at most steps + 1. Memory does not grow with
        steps.

    References:
        Pan, Li, Zhu, "Explaining Deep Neural Network Models with Adversarial Gradient Integration",
        IJCAI 2021. Their released code adds each step to the original input instead of to the last
        point, so that it never leaves one step's distance of the input and its increments telescope
        to nothing; here the path moves.
    """

    goal: Goal = "away"
    steps: int = 50
    rate: float | Relative = Relative(0.005)
    clip: tuple[float, float] | None = None
    norm: str = "sign"
    step: StepRule = Fixed()
    seed: int = 0

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2
    chooses_start: ClassVar[bool] = True
    stops_early: ClassVar[bool] = True

    @property
    def segments(self) -> int:
        """As many as steps."""
        return self.steps

    @property
    def gradients(self) -> int:
        """Gradients of the explained score that a walk pays for at most; those at the corners are
        handed on."""
        return self.steps * self.step.looks + 1

    def __post_init__(self) -> None:
        check_walk(self.steps, self.norm, self.rate, "An attack")
        object.__setattr__(self, "goal", _checked_goal(self.goal))

    def placed(self, places: Tensor) -> PathLike:
        """The same for references that are some of more: ``places`` (R, B) says which number each
        has."""
        return partial(self._walk, places=places)

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        places = torch.arange(len(start), device=end.device)[:, None].expand(start.shape[:2])
        return self._walk(field, start, end, places=places)

    def _walk(
        self, field: Field, start: Tensor, end: Tensor, *, places: Tensor
    ) -> Iterator[Segment]:
        references, batch = start.shape[:2]
        driver, index, goal = self._driver(field, end, places)
        box = box_of(field, start, end, self.clip, guarded=self.step.guarded)
        origin = end.expand_as(start)
        objective = Objective(field, driver, index, box, self.norm, (references, batch), goal)
        yield from downhill(
            objective,
            origin,
            length_of(self.rate, self.norm, box, origin),
            self.step,
            self.steps,
            "lead",
        )

    def _driver(self, field: Field, end: Tensor, places: Tensor) -> tuple[Target, Tensor, str]:
        """What is descended, what it is asked with for every walk, and where it is to end."""
        if not isinstance(self.goal, str | int | tuple):
            examples = torch.arange(places.shape[1], device=end.device).repeat(len(places))
            return as_decision(self.goal), examples, "across"
        outputs = class_outputs(field, end, "An attack")
        predicted = outputs.argmax(1)
        pair = torch.arange(places.numel(), device=end.device)
        if self.goal == "away":
            return _Chase(predicted.repeat(len(places)), 1.0), pair, "below"
        return _Chase(self._rivals(outputs, predicted, places).flatten(), -1.0), pair, "below"

    def _rivals(self, outputs: Tensor, predicted: Tensor, places: Tensor) -> Tensor:
        """The class that each walk is after (R, B)."""
        classes = outputs.shape[1]
        if isinstance(self.goal, int | tuple):
            named = torch.as_tensor(self.goal, device=outputs.device)
            if named.ndim == 0:
                return named.expand_as(places)
            if int(places.max()) >= len(named):
                raise InputError(
                    f"{len(named)} classes are named, but there are {int(places.max()) + 1} references."
                )
            return named[places]
        if int(places.max()) >= classes - 1:
            raise InputError(
                f"{int(places.max()) + 1} rival classes were asked for, but the model has only {classes - 1} beside the predicted one."
            )
        if self.goal == "likeliest":
            order = outputs.argsort(dim=1, descending=True, stable=True)
        else:
            drawn = torch.randperm(classes, generator=generator(self.seed)).to(predicted.device)
            order = drawn.expand(len(predicted), classes)
            # Each example's own class goes to the front; the others keep their order, whatever it
            # is.
            order = order.gather(
                1, (order != predicted[:, None]).long().argsort(dim=1, stable=True)
            )
        return order.gather(1, places.T + 1).T


def _checked_goal(goal: object) -> Any:
    """A goal that is one: a name, a class, a tuple of classes, or a decision function."""
    if isinstance(goal, str):
        if goal in _GOALS:
            return goal
    elif isinstance(goal, list | tuple):
        if goal and all(isinstance(label, int) and not isinstance(label, bool) for label in goal):
            return tuple(goal)
    elif not isinstance(goal, bool) and (isinstance(goal, int | Target) or callable(goal)):
        return goal
    raise InputError(
        f"goal is one of {', '.join(map(repr, _GOALS))}, a class, a tuple of classes, or a decision function; not "
        f"{repr(goal) if isinstance(goal, str) else type(goal).__name__}. The path of an attack chooses its own baseline."
    )


@part
class _Chase(Target):
    """What an attack descends: ± the lead of a class, with the slope of ± its log-odds.

    ``which`` (M,) holds the class of each walk; ``sign`` is 1 for a class to get away from, −1 for
    one to reach. The value says on which side of the boundary a point is, the slope where the
    probability falls fastest.
    """

    which: Tensor
    sign: float

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        lead, odds = Lead(self.which)(outputs, index), LogOdds(self.which)(outputs, index)
        return self.sign * (lead.detach() + (odds - odds.detach()))
