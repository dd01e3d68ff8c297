"""Descents of an objective from the input, one segment per step.

    z_0 = x,   z_{j+1} = step(z_j),   steps of length ‖z_{j+1} − z_j‖ = h, in a box

What is descended (a representation distance, how far a rival class is behind) is a second target of
the same model: one forward pass at every point serves its gradient, which finds the way, and the
gradient of the explained score, which leaves with the segment. Segments are handed out as they are
walked, from clock 1 down to clock 0, so memory does not grow with steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...core.options import check_choice
from ...core.segment import Segment
from ...core.shapes import flattened
from ...errors import InputError
from ...fields import Field
from .objective import NORMS, Objective
from .step_rules import Relative, StepRule


def downhill(
    objective: Objective, origin: Tensor, length: Tensor, step: StepRule, steps: int, note: str
) -> Iterator[Segment]:
    """The walk from ``origin`` (R, B, \\*s), as ``steps`` segments; ``note`` names the noted value
    of the objective (K+1, R, B)."""
    state = objective.start(origin)
    objective.stop_arrived(state)
    for number in range(steps):
        if objective.finished:
            following = state
        else:
            following, length = step(objective, state, length)
            objective.stop_arrived(following)
        clock = torch.tensor(
            [steps - number - 1, steps - number], dtype=torch.float64, device=origin.device
        )
        clock = (clock / steps).to(origin.dtype)
        yield Segment(
            following.point[None],
            state.point[None],
            (clock[:1], clock[1:]),
            at_start=following.score,
            at_end=state.score,
            notes={note: torch.stack([following.value, state.value])},
        )
        state = following


def box_of(
    field: Field, start: Tensor, end: Tensor, clip: tuple[float, float] | None, *, guarded: bool
) -> tuple[Tensor, Tensor]:
    """The box a walk stays in: as given, what images may hold, or the range of the numbers at both
    ends."""
    if clip is not None:
        low, high = (torch.as_tensor(side, dtype=end.dtype, device=end.device) for side in clip)
    elif field.normalisation is not None:
        low, high = field.normalisation.range(end)
    else:
        # Each pair's own range, so that neither other examples nor other references change a path.
        low, high = (
            pick(side(flattened(start, 2)), side(flattened(end.expand_as(start), 2))).reshape(
                *start.shape[:2], *(1,) * (end.ndim - 1)
            )
            for pick, side in ((torch.minimum, _lowest), (torch.maximum, _highest))
        )
    if bool((low > high).any()):
        raise InputError(f"clip is (low, high) with low below high, not {clip}.")
    if guarded:  # an input outside the box would have its jump into it taken back for ever
        low, high = torch.minimum(low, end), torch.maximum(high, end)
    return low, high


def length_of(
    rate: float | Relative, norm: str, box: tuple[Tensor, Tensor], points: Tensor
) -> Tensor:
    """A step's length (R, B) in the units of the input and of the norm."""
    if not isinstance(rate, Relative):
        return points.new_full(points.shape[:2], float(rate))
    span = flattened((box[1] - box[0]).expand_as(points), 2)
    if not bool(torch.isfinite(span).all()):
        raise InputError(
            "A relative rate needs a bounded range: give clip=(low, high), or rate= a number."
        )
    return LENGTHS[norm](span) * rate.fraction


def check_walk(steps: int, norm: str, rate: float | Relative, who: str) -> None:
    """What every walk refuses."""
    if steps < 1:
        raise InputError(f"{who} takes at least one step, not {steps}.")
    if not isinstance(rate, Relative) and not rate > 0:
        raise InputError(
            f"rate is the length of a step, above 0, not {rate}: a walk that goes back climbs where it should fall."
        )
    check_choice("norm", norm, NORMS)


def _lowest(z: Tensor) -> Tensor:
    return z.amin(2)


def _highest(z: Tensor) -> Tensor:
    return z.amax(2)


LENGTHS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": lambda span: span.square().sum(2).sqrt(),
    "l1": lambda span: span.sum(2),
    "sign": lambda span: span.amax(2),
}
