"""Baselines at the decision boundary of the model, and the input itself for paths that choose
their own start."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.random import generator
from ..core.shapes import flattened, over, total
from ..core.values import part
from ..errors import BaselineError
from ..fields import Field
from ..fields.decision import as_decision, class_outputs, side_of
from ..targets import Lead, Target
from .base import Baseline

_BEYOND = 0.02  # how much longer than to the linearised boundary a step is, so that it crosses


@part
class Itself(Baseline):
    """The input itself, once or several times.

    For paths that choose their own start, such as ``ig.paths.Adversarial``.

    Args:
        count: R, how often.
        label: what reports call it.

    Example:
        >>> import torch, integrand as ig
        >>> ig.baselines.Itself(3)(torch.ones(2, 4), ig.fields.Linear(torch.ones(4))).shape
        torch.Size([3, 2, 4])
    """

    count: int = 1
    label: str = "input"

    resolution: ClassVar[str] = "count"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BaselineError(f"Itself() is at least one reference, not {self.count}.")

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        return x.expand(self.count, *x.shape)


@part
class Rivals(Baseline):
    """The input itself, once for each class that the model does not predict.

    For ``ig.paths.Adversarial``, which goes towards another class from each.

    Args:
        most: of them, at most.
        label: what reports call it.

    Cost:
        The outputs for the inputs.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.TorchField(torch.nn.Linear(4, 3), 0)
        >>> ig.baselines.Rivals()(torch.ones(2, 4), field).shape
        torch.Size([2, 2, 4])
    """

    most: int = 20
    label: str = "rival"

    resolution: ClassVar[str] = "most"

    def __post_init__(self) -> None:
        if self.most < 1:
            raise BaselineError(f"Rivals() are at least one class, not {self.most}.")

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        classes = class_outputs(field, x, "An attack").shape[1]
        return x.expand(min(self.most, classes - 1), *x.shape)


@part
class Boundary(Baseline):
    """The nearest point found across the decision boundary of the input.

        min ‖z − x‖₂   such that   decision(z) ≤ 0          decision: z_c − max_{k≠c} z_k, c the class predicted for x

    1. Search: projected gradient steps from x, each to where the linearised decision is zero and 2
       % beyond, kept inside ``clip`` and ``radius``, until the decision has changed.
    2. Bisection of the straight line from x to what was found: ``halvings`` forward passes.
    3. ``rounds`` of drawing nearer: aside along the boundary's tangent, towards the foot of x on
       it, and from there in or out along the line from x, bisected; kept where that is nearer, else
       tried again with a quarter of the way.

    On a linear model of two classes, without a box, the result is the nearest point, to 2 ^
    −halvings of its distance. Elsewhere it is a local one, on the boundary that the search crossed
    first: ``restarts`` begin the search beside x as well, at its linearised distance in directions
    drawn from ``seed`` (the same for all examples), and the nearest is kept.

    Args:
        decision: a function outputs → (N,), or an ``ig.targets`` value, that crosses zero where the
            decision changes, for models without classes.
        steps: of the search, at most.
        clip: (low, high), the box that is searched; by default what images may hold where the field
            knows, else no limit.
        radius: the farthest that is looked, in the L2 norm; by default any distance.
        restarts: how many further searches begin beside x.
        rounds: of drawing nearer.
        halvings: forward passes of each bisection.
        seed: of the directions of the restarts.
        label: what reports call it.

    Raises:
        BaselineError: that names the examples for which no boundary was found; a point that is not
            on the boundary is never handed out as one.

    Cost:
        Per example: the outputs and one joint evaluation (one forward and two backward passes) for
        x; per start at most steps + rounds joint evaluations, and halvings · (rounds + 1) + 2
        rounds values. Those that have been found are not asked any more, and examples do not
        influence each other.

    References:
        Wang, Fredrikson, Datta, "Robust Models Are More Interpretable Because Attributions Look
        Normal", 2021 (arXiv 2103.11257). The authors' code takes the adversarial example of the
        smallest of seven radii at which 40 steps of PGD succeed (or one of Carlini and Wagner's
        attack), which lies up to a radius beyond the boundary; where every attack fails, it takes
        what the last one left.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.eye(2))
        >>> field = ig.TorchField(model, 0)
        >>> ig.baselines.Boundary()(torch.tensor([[3.0, 1.0]]), field).round(decimals=2).tolist()
        [[[2.0, 2.0]]]
    """

    decision: Target | Callable[..., Tensor] | None = None
    steps: int = 40
    clip: tuple[float, float] | None = None
    radius: float | None = None
    restarts: int = 0
    rounds: int = 4
    halvings: int = 16
    seed: int = 0
    label: str = "boundary"
    count: ClassVar[int] = 1

    gradients: ClassVar[int | None] = None
    """It searches; how long, it does not know."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("restarts", 0), ("rounds", 0), ("halvings", 1)):
            if getattr(self, name) < least:
                raise BaselineError(
                    f"A search for the boundary takes {name} of at least {least}, not {getattr(self, name)}."
                )
        if self.radius is not None and not self.radius > 0:
            raise BaselineError(
                f"radius is the farthest distance that is looked, not {self.radius}."
            )
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise BaselineError(f"clip is (low, high) with low below high, not {self.clip}.")

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        search = _BoundarySearch(
            field, self._decision(x, field), x, self._box(x, field), self.radius
        )
        starts = self._starts(search)
        far, crossed = search.across(starts, self.steps)
        missing = (~crossed.any(0)).nonzero()[:, 0].tolist()
        if missing:
            raise BaselineError(self._not_found(missing, len(x)))
        starting, example = crossed.nonzero(as_tuple=True)
        near = search.bisect(x[example], far[starting, example], example, self.halvings)
        reach = x.new_ones(len(example))
        for _ in range(self.rounds):
            near, reach = search.nearer(near, reach, example, self.halvings)
        distance = torch.full(crossed.shape, float("inf"), dtype=x.dtype, device=x.device)
        distance[starting, example] = _length(near - x[example])
        far[starting, example] = near
        best = distance.argmin(0)
        return far[best, torch.arange(len(x), device=x.device)][None]

    def _decision(self, x: Tensor, field: Field) -> Target:
        if self.decision is not None:
            return as_decision(self.decision)
        return Lead(class_outputs(field, x, "A decision boundary").argmax(1))

    def _box(self, x: Tensor, field: Field) -> tuple[Tensor, Tensor]:
        """What the search stays in; an input outside of it stays where it is."""
        if self.clip is not None:
            low, high = (
                torch.as_tensor(side, dtype=x.dtype, device=x.device) for side in self.clip
            )
        elif field.normalisation is not None:
            low, high = field.normalisation.range(x)
        else:
            low, high = (x.new_full((), sign * float("inf")) for sign in (-1, 1))
        return torch.minimum(low, x), torch.maximum(high, x)

    def _starts(self, search: _BoundarySearch) -> Tensor:
        """Where the searches begin (S, B, \\*s): one step from x, and beside x at the distance of
        that step's goal."""
        x = search.x
        examples = torch.arange(len(x), device=x.device)
        height, slope = search.begin()
        starts = [search.step(x, height, slope, examples)]
        stride = height / _length(slope).clamp_min(torch.finfo(x.dtype).tiny)
        for number in range(self.restarts):
            noise = torch.randn(
                x.shape[1:], generator=generator(self.seed, number), dtype=torch.float64
            ).to(x)
            starts.append(search.project(x + over(stride, x) * (noise / noise.norm()), examples))
        return torch.stack(starts)

    def _not_found(self, missing: list[int], batch: int) -> str:
        shown = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        return (
            f"No decision boundary was found for {len(missing)} of {batch} examples (number {shown}) in {self.steps} steps"
            f"{'' if self.radius is None else f' within {self.radius:g}'}. Allow more steps= or restarts=, "
            f"{'' if self.radius is None else 'a larger radius=, '}a wider clip=, or leave these examples out."
        )


@dataclass(eq=False)
class _BoundarySearch:
    """A decision as seen from the inputs x: positive where it stands, negative across."""

    field: Field
    decision: Target
    x: Tensor
    box: tuple[Tensor, Tensor]
    radius: float | None
    side: Tensor = dataclasses.field(init=False)
    """(B,) on which side of zero each input is, so that its own is the positive one."""

    def __post_init__(self) -> None:
        self.side = self.x.new_ones(len(self.x))

    def begin(self) -> tuple[Tensor, Tensor]:
        """The decision and its slope at x, from which sides are told."""
        height, slope = self.look(self.x, torch.arange(len(self.x), device=self.x.device))
        self.side = side_of(height)
        return self.side * height, over(self.side, slope) * slope

    def look(self, z: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
        """The decision (N,) and its slope (N, \\*s) at rows z."""
        _, evaluation = self.field.together(z, example, self.decision, example)
        side = self.side[example]
        return side * evaluation.value, over(side, evaluation.gradient) * evaluation.gradient

    def stands(self, z: Tensor, example: Tensor) -> Tensor:
        """Whether the decision still stands at rows z (N,); a forward pass."""
        outputs = self.field.looked(z, example, self.decision.site)
        return self.side[example] * self.decision(outputs, example).to(z.dtype) >= 0

    def step(self, z: Tensor, height: Tensor, slope: Tensor, example: Tensor) -> Tensor:
        """To where the linearised decision is zero, and a little further; nowhere along a slope of
        zero."""
        steep = total(slope.square(), 1)
        stride = torch.where(
            steep > 0, (1 + _BEYOND) * height / steep.clamp_min(torch.finfo(z.dtype).tiny), 0
        )
        return self.project(z - over(stride, slope) * slope, example)

    def project(self, z: Tensor, example: Tensor) -> Tensor:
        """Rows z brought back into the ball around x and into the box."""
        if self.radius is not None:
            away = z - self.x[example]
            z = self.x[example] + over((self.radius / _length(away)).clamp_max(1), away) * away
        low, high = (side.expand_as(self.x)[example] for side in self.box)
        return torch.minimum(torch.maximum(z, low), high)

    def across(self, starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Points (S, B, \\*s) across the boundary, and where that was reached (S, B)."""
        z, crossed = (
            starts.flatten(0, 1),
            torch.zeros(starts.shape[:2].numel(), dtype=torch.bool, device=starts.device),
        )
        for _ in range(steps):
            rows = (~crossed).nonzero()[:, 0]
            example = rows % len(self.x)
            height, slope = self.look(z[rows], example)
            now_crossed = height < 0
            crossed[rows[now_crossed]] = True
            if bool(crossed.all()):
                break
            standing = ~now_crossed
            z[rows[standing]] = self.step(
                z[rows[standing]], height[standing], slope[standing], example[standing]
            )
        return z.reshape(starts.shape), crossed.reshape(starts.shape[:2])

    def bisect(self, near: Tensor, far: Tensor, example: Tensor, halvings: int) -> Tensor:
        """The far ends of what is left of the lines from ``near``, where the decision stands, to
        ``far``, where it does not."""
        for _ in range(halvings):
            middle = torch.lerp(near, far, 0.5)
            stands = over(self.stands(middle, example), middle)
            near, far = torch.where(stands, middle, near), torch.where(stands, far, middle)
        return far

    def nearer(
        self, z: Tensor, reach: Tensor, example: Tensor, halvings: int
    ) -> tuple[Tensor, Tensor]:
        """Points across the boundary that are nearer to x than rows z, or z; and how far towards
        the foot to go next (N,)."""
        x = self.x[example]
        _, slope = self.look(z, example)
        steep = total(slope.square(), 1).clamp_min(torch.finfo(z.dtype).tiny)
        foot = x + over(total(slope * (z - x), 1) / steep, slope) * slope
        aside = self.project(torch.lerp(z, foot, over(reach, z)), example)
        stretch = _length(z - x) / _length(aside - x).clamp_min(torch.finfo(z.dtype).tiny)
        out = self.project(
            x + over(stretch, x) * (aside - x), example
        )  # as far from x as z is, in that direction
        stands = over(self.stands(aside, example), z)
        lost = self.stands(out, example)
        near, far = torch.where(stands, aside, x), torch.where(stands, out, aside)
        tried = self.bisect(near, far, example, halvings)
        # Nearer by more than bisection is sure of: what is equally near may not be decided by
        # rounding.
        gained = _length(tried - x) < (1 - 0.5**halvings) * _length(z - x)
        gained &= ~(stands.reshape(len(z), -1)[:, 0] & lost)
        reach = torch.where(gained, 2 * reach, reach / 4).clamp_max(1)
        return torch.where(over(gained, z), tried, z), reach


def _length(z: Tensor) -> Tensor:
    """‖z‖₂ of each row (N,)."""
    length: Tensor = flattened(z, 1).norm(dim=1)
    return length
