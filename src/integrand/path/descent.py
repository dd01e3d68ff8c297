"""GradPath: from the input down to where the model represents something else.

    d(z) = ‖φ(z) − φ(reference)‖²          φ: the model's representation
    z_0 = x,   z_{j+1} = clip( z_j − rate · ∇d(z_j) / ‖∇d(z_j)‖ )

The walk starts at the input and ends at a counterfactual z_K near the reference in the model's eyes, so the path chooses its own
baseline; segments are handed out as they are walked, from clock 1 down to clock 0. One forward pass at every point serves
both the gradient that finds the way and the gradient of the explained score, which leaves with the segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..field import Field
from ..parts import part
from ..segment import Evaluation, Segment
from ..shapes import over, total


@part
class Relative:
    """A step length in units of the data: every feature moves ``fraction`` of its range (root mean square) per step."""

    fraction: float = 0.002


@part
class Descent:
    """Normalised gradient descent of the representation distance, from the input towards the references.

    representation  the output of a layer (its name, or the module), any function of the input, or by default the input of
                    the last linear layer
    steps           how many steps; also the number of segments
    rate            length of a step in the norm below and the units of the input, or ``Relative(fraction)`` of the data range
    clip            (low, high): the box the path stays in; by default the range of the field's images where it knows them,
                    else the range of the inputs and references
    norm            "l2": ∇/‖∇‖₂, "l1": ∇/‖∇‖₁, "sign": the sign of ∇
    shrink          a step that would not bring the representation nearer is taken back and halved. Steps of fixed length, the
                    published choice, oscillate once they are longer than the way that is left

    A zero gradient ends the walk where it stands. Notes: "distance" (K+1, R, B), from the end of the walk to the input.
    Cost: steps + 1 joint evaluations per reference, each one forward and two backward passes. Memory does not grow with steps.
    Source: Zhuo and Ge, "IG2: Integrated Gradient on Iterative Gradient Path", TPAMI 2024 (arXiv 2406.10852). Their
    ImageNet notebook differentiates with respect to normalised pixels but steps in raw ones; here both are the same space.
    """

    representation: Any = None
    steps: int = 200
    rate: float | Relative = Relative()
    clip: tuple[float, float] | None = None
    norm: str = "l2"
    shrink: bool = True

    @property
    def segments(self) -> int:
        """As many as steps."""
        return self.steps

    @property
    def gradients(self) -> int:
        """Gradients of the explained score that the walk pays for and hands on."""
        return self.steps + 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"A descent takes at least one step, not {self.steps}.")
        if self.norm not in _NORMS:
            raise InputError(f"norm is one of {', '.join(map(repr, _NORMS))}, not {self.norm!r}.")

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        references, batch = start.shape[:2]
        example = torch.arange(batch, device=end.device).repeat(references)
        pair = torch.arange(references * batch, device=end.device)
        goal = field.distance(start.flatten(0, 1), example, self.representation)
        low, high = self._box(field, start, end)
        if self.shrink:  # an input outside the box would have its jump into it taken back for ever
            low, high = torch.minimum(low, end), torch.maximum(high, end)

        def look(z: Tensor) -> tuple[Evaluation, Tensor, Tensor]:
            own, driver = field.together(z.flatten(0, 1), example, goal, pair)
            shaped = driver.reshape(references, batch)
            return own.reshape(1, references, batch), shaped.value, self._direction(shaped.gradient)

        here = end.expand_as(start)
        rate = self._length(low, high, here)
        own, distance, way = look(here)
        for step in range(self.steps):
            there = torch.minimum(torch.maximum(here - over(rate, here) * way, low), high)
            theirs, nearness, onward = look(there)
            worse = (nearness >= distance) & self.shrink
            if bool(worse.any()):
                rate = torch.where(worse, rate / 2, rate)
                stay = worse.reshape(references, batch, *(1,) * (here.ndim - 2))
                there = torch.where(stay, here, there)
                onward = torch.where(stay, way, onward)
                nearness = torch.where(worse, distance, nearness)
                theirs = _where(worse, own, theirs)
            clock = torch.tensor([self.steps - step - 1, self.steps - step], dtype=torch.float64, device=here.device)
            clock = (clock / self.steps).to(here.dtype)
            yield Segment(
                there[None],
                here[None],
                (clock[:1], clock[1:]),
                at_start=theirs,
                at_end=own,
                notes={"distance": torch.stack([nearness, distance])},
            )
            here, own, distance, way = there, theirs, nearness, onward

    def _direction(self, gradient: Tensor) -> Tensor:
        """∇d scaled to a step of length one; zero where there is nowhere to go."""
        size = _NORMS[self.norm](gradient)
        going = size > torch.finfo(gradient.dtype).tiny
        scale = torch.where(going, 1 / size.clamp_min(torch.finfo(gradient.dtype).tiny), 0)
        unit = gradient.sign() if self.norm == "sign" else gradient
        return unit * over(scale, gradient)

    def _box(self, field: Field, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        if self.clip is not None:
            low, high = (torch.as_tensor(side, dtype=end.dtype, device=end.device) for side in self.clip)
        elif field.normalisation is not None:
            low, high = field.normalisation.range(end)
        else:
            # Each pair's own range, so that neither other examples nor other references change a path.
            low, high = (
                pick(side(start.flatten(2)), side(end.expand_as(start).flatten(2))).reshape(
                    *start.shape[:2], *(1,) * (end.ndim - 1)
                )
                for pick, side in ((torch.minimum, _lowest), (torch.maximum, _highest))
            )
        if bool((low > high).any()):
            raise InputError(f"clip is (low, high) with low below high, not {self.clip}.")
        return low, high

    def _length(self, low: Tensor, high: Tensor, here: Tensor) -> Tensor:
        """The step's length (R, B) in the units of the input and of the norm."""
        if not isinstance(self.rate, Relative):
            return here.new_full(here.shape[:2], float(self.rate))
        span = (high - low).expand_as(here).flatten(2)
        if not bool(torch.isfinite(span).all()):
            raise InputError("A relative rate needs a bounded range: give clip=(low, high), or rate= a number.")
        return _LENGTHS[self.norm](span) * self.rate.fraction


def _lowest(z: Tensor) -> Tensor:
    return z.amin(2)


def _highest(z: Tensor) -> Tensor:
    return z.amax(2)


def _where(chosen: Tensor, one: Evaluation, other: Evaluation) -> Evaluation:
    return Evaluation(
        torch.where(chosen, one.value, other.value),
        torch.where(over(chosen[None], other.gradient), one.gradient, other.gradient),
    )


_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": lambda g: g.flatten(2).norm(dim=2),
    "l1": lambda g: total(g.abs(), 2),
    "sign": lambda g: (total(g.abs(), 2) > 0).to(g.dtype),
}
_LENGTHS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": lambda span: span.square().sum(2).sqrt(),
    "l1": lambda span: span.sum(2),
    "sign": lambda span: span.amax(2),
}
