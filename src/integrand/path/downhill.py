"""Walks downhill: from the input to where some scalar of the model is smaller, one segment a step.

    z_0 = x,   z_{j+1} = step(z_j),   steps of length ‖z_{j+1} − z_j‖ = h, in a box

What is descended (a representation distance, how far a rival class is behind) is a second target of the same model: one forward
pass at every point serves its gradient, which finds the way, and the gradient of the explained score, which leaves with the
segment. Segments are handed out as they are walked, from clock 1 down to clock 0, so memory does not grow with steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..field import Field
from ..field.decision import side_of
from ..segment import Evaluation, Segment
from ..shapes import flattened, over, total
from ..target import Target
from .step import Relative, Step


@dataclass(frozen=True, eq=False)
class Stand:
    """Where walks stand, and what was seen there.

    point (R, B, \\*s);  own (1, R, B) F and ∇F;  height (R, B) what is descended;  slope (R, B, \\*s) its gradient
    """

    point: Tensor
    own: Evaluation
    height: Tensor
    slope: Tensor

    def where(self, chosen: Tensor, other: Stand) -> Stand:
        """This one where ``chosen`` (R, B), the ``other`` elsewhere."""
        spread = over(chosen, self.point)
        return Stand(
            torch.where(spread, self.point, other.point),
            Evaluation(
                torch.where(chosen, self.own.value, other.own.value),
                torch.where(spread, self.own.gradient, other.own.gradient),
            ),
            torch.where(chosen, self.height, other.height),
            torch.where(spread, self.slope, other.slope),
        )


class Hill:
    """What is descended, for R walks of B examples: how it looks at points, and how far a stride goes.

    driver   the target that is descended, asked with ``index`` (R·B,) for rows numbered over (R, B)
    low, high  the box;  norm: how the length of a stride is measured
    goal     where the walks are to end: at "zero" (of a squared distance), "below" it, or "across" it, on the other side than they
             began. Walks that are below or across rest, and cost nothing from then on
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
        self.degree = 2 if goal == "zero" else 1  # how the height vanishes there
        self.example = torch.arange(leading[1], device=index.device).repeat(leading[0])
        self.resting: Tensor | None = None  # (R, B) once any walk rests
        self._side: Tensor | None = None

    @property
    def idle(self) -> bool:
        """Whether every walk rests."""
        return self.resting is not None and bool(self.resting.all())

    def begin(self, point: Tensor) -> Stand:
        """The first look, at (R, B, \\*s)."""
        own, height, slope = self._seen(point.flatten(0, 1), slice(None))
        if self.goal == "across":
            self._side = side_of(height)
        return Stand(point, *self._shaped(*self._sided(own, height, slope, slice(None)), point.shape))

    def look(self, point: Tensor, before: Stand) -> Stand:
        """One joint evaluation at ``point`` (R, B, \\*s); walks that rest are not looked at and are as they were ``before``."""
        flat = point.flatten(0, 1)
        if self.resting is None:
            own, height, slope = self._sided(*self._seen(flat, slice(None)), slice(None))
        else:
            rows = (~self.resting).flatten().nonzero()[:, 0]
            found = self._sided(*self._seen(flat[rows], rows), rows)
            old = before.own.reshape(len(flat))
            own = Evaluation(
                old.value.index_copy(0, rows, found[0].value), old.gradient.index_copy(0, rows, found[0].gradient)
            )
            height = before.height.flatten().index_copy(0, rows, found[1])
            slope = before.slope.flatten(0, 1).index_copy(0, rows, found[2])
        return Stand(point, *self._shaped(own, height, slope, point.shape))

    def stride(self, point: Tensor, slope: Tensor, length: Tensor) -> Tensor:
        """point − length · slope/‖slope‖, in the box; ``point`` itself for walks that rest or have nowhere to go."""
        there = torch.minimum(torch.maximum(point - over(length, point) * self._unit(slope), self.low), self.high)
        return there if self.resting is None else torch.where(over(self.resting, point), point, there)

    def arrive(self, here: Stand) -> None:
        """Walks that are where they were to end rest from now on."""
        there = here.height < 0
        if self.goal != "zero" and bool(there.any()):
            self.resting = there

    def _seen(self, flat: Tensor, rows: slice | Tensor) -> tuple[Evaluation, Tensor, Tensor]:
        own, driver = self.field.together(flat, self.example[rows], self.driver, self.index[rows])
        return own, driver.value, driver.gradient

    def _sided(
        self, own: Evaluation, height: Tensor, slope: Tensor, rows: slice | Tensor
    ) -> tuple[Evaluation, Tensor, Tensor]:
        if self._side is None:
            return own, height, slope
        side = self._side[rows]
        return own, side * height, over(side, slope) * slope

    def _shaped(
        self, own: Evaluation, height: Tensor, slope: Tensor, shape: torch.Size
    ) -> tuple[Evaluation, Tensor, Tensor]:
        return own.reshape(1, *self.leading), height.reshape(self.leading), slope.reshape(shape)

    def _unit(self, slope: Tensor) -> Tensor:
        """The slope scaled to a stride of length one; zero where there is nowhere to go."""
        size = NORMS[self.norm](slope)
        going = size > torch.finfo(slope.dtype).tiny
        scale = torch.where(going, 1 / size.clamp_min(torch.finfo(slope.dtype).tiny), 0)
        unit = slope.sign() if self.norm == "sign" else slope
        return unit * over(scale, slope)


def downhill(hill: Hill, here: Tensor, length: Tensor, step: Step, steps: int, note: str) -> Iterator[Segment]:
    """The walk from ``here`` (R, B, \\*s), as ``steps`` segments; ``note`` names the noted height (K+1, R, B)."""
    stand = hill.begin(here)
    hill.arrive(stand)
    for number in range(steps):
        if hill.idle:
            there = stand
        else:
            there, length = step(hill, stand, length)
            hill.arrive(there)
        clock = torch.tensor([steps - number - 1, steps - number], dtype=torch.float64, device=here.device)
        clock = (clock / steps).to(here.dtype)
        yield Segment(
            there.point[None],
            stand.point[None],
            (clock[:1], clock[1:]),
            at_start=there.own,
            at_end=stand.own,
            notes={note: torch.stack([there.height, stand.height])},
        )
        stand = there


def box_of(
    field: Field, start: Tensor, end: Tensor, clip: tuple[float, float] | None, *, guarded: bool
) -> tuple[Tensor, Tensor]:
    """The box a walk stays in: as given, what images may hold, or the range of the numbers at both ends."""
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


def length_of(rate: float | Relative, norm: str, box: tuple[Tensor, Tensor], here: Tensor) -> Tensor:
    """A step's length (R, B) in the units of the input and of the norm."""
    if not isinstance(rate, Relative):
        return here.new_full(here.shape[:2], float(rate))
    span = flattened((box[1] - box[0]).expand_as(here), 2)
    if not bool(torch.isfinite(span).all()):
        raise InputError("A relative rate needs a bounded range: give clip=(low, high), or rate= a number.")
    return LENGTHS[norm](span) * rate.fraction


def check_walk(steps: int, norm: str, rate: float | Relative, what: str) -> None:
    """What every walk refuses."""
    if steps < 1:
        raise InputError(f"{what} takes at least one step, not {steps}.")
    if not isinstance(rate, Relative) and not rate > 0:
        raise InputError(
            f"rate is the length of a step, above 0, not {rate}: a walk that goes back climbs where it should fall."
        )
    if norm not in NORMS:
        raise InputError(f"norm is one of {', '.join(map(repr, NORMS))}, not {norm!r}.")


def _lowest(z: Tensor) -> Tensor:
    return z.amin(2)


def _highest(z: Tensor) -> Tensor:
    return z.amax(2)


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": lambda g: flattened(g, 2).norm(dim=2),
    "l1": lambda g: total(g.abs(), 2),
    "sign": lambda g: (total(g.abs(), 2) > 0).to(g.dtype),
}
LENGTHS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": lambda span: span.square().sum(2).sqrt(),
    "l1": lambda span: span.sum(2),
    "sign": lambda span: span.amax(2),
}
