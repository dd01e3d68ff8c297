"""GradPath of IG2: descend the representation distance from the input to a reference.

    d(z) = ‖φ(z) − φ(reference)‖²          φ: the model's representation
    z_0 = x,   z_{j+1} = clip( z_j − rate · ∇d(z_j) / ‖∇d(z_j)‖ )

The walk starts at the input and ends at a counterfactual z_K near the reference in the model's
eyes, so the path chooses its own baseline. One forward pass at every point serves both gradients
(``walk``); how one step goes is a part of its own (``step_rules``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.segment import Segment
from ...core.values import part
from ...fields import Field
from ..base import Path
from .objective import Objective
from .step_rules import Relative, Shrinking, StepRule
from .walk import box_of, check_walk, downhill, length_of


@part
class Descent(Path):
    """GradPath (IG2): normalised descent of the representation distance towards the references.

    A zero gradient ends the walk where it stands. Notes: "distance" (K+1, R, B), from the end of
    the walk to the input.

    Args:
        representation: the output of a layer (its name, or the module), any function of the input,
            or by default the input of the last linear layer.
        steps: how many steps; also the number of segments.
        rate: length of a step in the norm below and the units of the input, or
            ``Relative(fraction)`` of the data range.
        clip: (low, high): the box the path stays in; by default the range of the field's images
            where it knows them, else the range of the inputs and references.
        norm: "l2": ∇/‖∇‖₂, "l1": ∇/‖∇‖₁, "sign": the sign of ∇.
        step: ``Fixed()`` steps, the published choice, oscillate once they are longer than the way
            that is left; ``Shrinking()`` ones are taken back and halved then; ``Implicit()`` ones
            stop at the goal and keep their length.

    Cost:
        steps + 1 joint evaluations per reference, each one forward and two backward passes (steps ×
        looks + 1 with ``Implicit(looks)``). Memory does not grow with steps.

    References:
        Zhuo and Ge, "IG2: Integrated Gradient on Iterative Gradient Path", TPAMI 2024 (arXiv
        2406.10852). Their ImageNet notebook differentiates with respect to normalised pixels but
        steps in raw ones; here both are the same space.
    """

    representation: Any = None
    steps: int = 200
    rate: float | Relative = Relative()
    clip: tuple[float, float] | None = None
    norm: str = "l2"
    step: StepRule = Shrinking()

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2
    chooses_start: ClassVar[bool] = True

    def turned(self, name: str, value: int) -> Descent:
        """Another number of steps that go as far together."""
        changes: dict[str, Any] = {name: value}
        if name == "steps":
            factor = self.steps / value
            rate = self.rate
            changes["rate"] = (
                Relative(rate.fraction * factor) if isinstance(rate, Relative) else rate * factor
            )
        return dataclasses.replace(self, **changes)

    @property
    def segments(self) -> int:
        """As many as steps."""
        return self.steps

    @property
    def gradients(self) -> int:
        """Gradients of the explained score that the walk pays for; those at the corners are handed
        on."""
        return self.steps * self.step.looks + 1

    def __post_init__(self) -> None:
        check_walk(self.steps, self.norm, self.rate, "A descent")

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        references, batch = start.shape[:2]
        example = torch.arange(batch, device=end.device).repeat(references)
        pair = torch.arange(references * batch, device=end.device)
        goal = field.distance(start.flatten(0, 1), example, self.representation)
        box = box_of(field, start, end, self.clip, guarded=self.step.guarded)
        origin = end.expand_as(start)
        objective = Objective(field, goal, pair, box, self.norm, (references, batch), "zero")
        yield from downhill(
            objective,
            origin,
            length_of(self.rate, self.norm, box, origin),
            self.step,
            self.steps,
            "distance",
        )
