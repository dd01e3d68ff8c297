"""Straight paths with uneven steps: placed by a scan of F on each line, or by a fitted schedule.

    pilot   F at N + 1 even positions of the line, forward passes only
    clock   0 = t_0 ≤ t_1 ≤ … ≤ t_K = 1, close together where F changes       (``line_scan``)
    γ       b + t_k (x − b), k = 0 … K

Only the corners are moved along the line: the integral is that of the straight line, and a rule
that errs spends its nodes where it would err most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ..core.memory_budget import at_once
from ..core.options import check_choice
from ..core.segment import Segment
from ..core.shapes import flattened, over
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from ..fields.line_scan import EVEN, bend, quantiles
from ..fields.line_scan import pilot as look_along
from .base import Path


@part
class NonUniform(Path):
    """The straight line in steps whose lengths follow F on it.

        γ(t) = b + t (x − b), in ``steps`` pieces placed by a pilot of F on the line of every reference and example

    Any rule integrates any clock; one node to a piece (``Midpoint()``, ``Left()``) is where spacing
    helps, if F saturates or changes abruptly. A change that is smooth and rests on both sides even
    steps integrate well already, for their errors cancel. The first piece begins at the baseline
    and the last ends at the input, so that a rule's weights, the lengths of the pieces, add up to
    one whatever the pilot saw.

    Args:
        steps: how many pieces (50).
        pilot: how many even cells F is looked at in (50): one forward pass at each end of them, no
            gradients.
        by: "change": every piece carries an equal share of Σ |ΔF|, as in Integrated Decision
            Gradients and non-uniform interpolation; "left", "midpoint": lengths that bound the
            error of the rule of that name best, from differences of the pilot's values.
        even: the fraction of the pieces that is spread evenly (a tenth), so that none is longer
            than 1 / (even · steps): F may rest where ∇F does not, and a pilot may miss a change
            that begins and ends inside a cell. With ``by="change", even=0`` every piece carries
            exactly 1/K of the change.

    Cost:
        pilot + 1 values per reference, and one piece's nodes × steps gradients. Memory does not
        grow with either.

    References:
        Bhat and Raychowdhury, "Non-Uniform Interpolation in Integrated Gradients for Low-Latency
        Explainable-AI", ISCAS 2023 (arXiv 2302.11107); the sampler of Walker et al., AAAI 2024
        (arXiv 2305.20052), whose published code leaves its place on the line where cells are empty,
        so that samples come to lie in front of the decision they were meant for: here they do not.
        Lengths that bound the error: Swain and Singhi (arXiv 2410.04118), in closed form and from
        the input's own pilot.
    """

    steps: int = 50
    pilot: int = 50
    by: str = "change"
    even: float = EVEN

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2

    @property
    def segments(self) -> int:
        """As many as steps."""
        return self.steps

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"A path has at least one step, not {self.steps}.")
        check_choice("by", self.by, _DENSITIES)
        least = _LEAST[self.by]
        if self.pilot < least:
            raise InputError(
                f"Steps placed by {self.by!r} take a pilot of at least {least} cells, not {self.pilot}."
            )
        if not 0 <= self.even <= 1:
            raise InputError(
                f"even= is the fraction of the steps that is spread evenly, from 0 to 1, not {self.even}."
            )

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        end = end.expand_as(start)
        values = look_along(field, start, end, self.pilot)
        yield from _pieces(
            start, end, quantiles(_DENSITIES[self.by](values), self.steps, self.even)
        )


@part
class Scheduled(Path):
    """The straight line, cut at the positions of a schedule.

        γ(t) = b + t (x − b), cut at the same positions for every reference and example

    ``Scheduled.fitted`` finds one that suits a model, on some inputs once; after that steps of
    different lengths cost no more than even ones. Memory does not grow with the number of steps.

    Args:
        clock: 0 = t_0 < t_1 < … < t_K = 1, numbers or a tensor (K + 1,).

    Raises:
        InputError: for a schedule that turns back or does not go from 0 to 1.

    References:
        Swain and Singhi, "RiemannOpt" (arXiv 2410.04118).

    Example:
        >>> import integrand as ig
        >>> ig.paths.Scheduled((0.0, 0.5, 0.75, 1.0)).segments
        3
    """

    clock: tuple[float, ...] | Tensor

    @property
    def segments(self) -> int:
        """One less than positions."""
        return len(self.clock) - 1

    def __post_init__(self) -> None:
        positions = self._positions()
        if (
            positions.ndim != 1
            or len(positions) < 2
            or float(positions[0]) != 0
            or float(positions[-1]) != 1
        ):
            raise InputError(
                "A schedule is a list of positions on the line, the first of which is 0 and the last 1."
            )
        turns = (~(positions.diff() > 0)).nonzero()
        if len(turns):
            k = int(turns[0])
            raise InputError(
                f"A schedule goes forward: position {k + 1} is {float(positions[k + 1]):g}, after {float(positions[k]):g}. Sort the "
                "positions and drop those that come twice."
            )

    @classmethod
    def fitted(
        cls,
        field: Field,
        start: Tensor,
        end: Tensor,
        steps: int = 50,
        pilot: int = 200,
        by: str = "midpoint",
        even: float = EVEN,
    ) -> Scheduled:
        """Fit a schedule to some lines, to be used for others like them.

        As ``NonUniform`` places its steps, with the median over all lines of what it goes by
        (``by``).

        Args:
            field: the scalar explained.
            start: (R, B, \\*s) where lines begin.
            end: (B, \\*s) the inputs, where they end.
            steps: as in ``NonUniform``.
            pilot: as in ``NonUniform``.
            by: as in ``NonUniform``.
            even: as in ``NonUniform``.

        Returns:
            The schedule.

        Cost:
            pilot + 1 values per line, once.
        """
        spacing = NonUniform(steps, pilot, by, even)  # refuses what cannot be
        with field.ready(), torch.no_grad():
            values = look_along(field, start, end.expand_as(start), spacing.pilot)
        density = flattened(_DENSITIES[by](values.double()), 1).median(1).values
        return cls(quantiles(density, steps, even))

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        place = self._positions().to(start).reshape(-1, 1, 1).expand(-1, *start.shape[:2])
        yield from _pieces(start, end.expand_as(start), place)

    def _positions(self) -> Tensor:
        return torch.as_tensor(self.clock, dtype=torch.float64)


def _pieces(start: Tensor, end: Tensor, place: Tensor) -> Iterator[Segment]:
    """The lines from start to end (R, B, \\*s), cut at place (K + 1, R, B), stacked in blocks."""
    steps = len(place) - 1
    clock = (torch.arange(steps + 1, dtype=torch.float64) / steps).to(start)
    most = at_once(start.numel(), start.device)
    corner = start[None]
    for first in range(0, steps, most):
        last = min(first + most, steps)
        onward = torch.lerp(start, end, over(place[first + 1 : last + 1], start[None]))
        points = torch.cat([corner, onward])
        yield Segment(points[:-1], points[1:], (clock[first:last], clock[first + 1 : last + 1]))
        corner = points[-1:].clone()  # a view would keep the whole block
        del points, onward


_DENSITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "change": lambda values: values.diff(dim=0).abs(),
    "left": lambda values: bend(values, 1),
    "midpoint": lambda values: bend(values, 2),
}
_LEAST = {"change": 1, "left": 2, "midpoint": 3}
