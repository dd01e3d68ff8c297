"""Placing steps on a straight line: close together where F changes, far apart where it is flat.

    F at N + 1 even positions  →  a density on the N cells between them  →  its quantiles are the clock

A clock (steps + 1, …) begins at 0, ends at 1 and never turns back, so that its steps tile the line
whatever the density: a sum over them, each weighed by its length, stays a quadrature. A part
``even`` of the steps is spread evenly, which bounds the longest by 1 / (even · steps): F may rest
where its gradient does not, because features cancel.

Sources: Bhat and Raychowdhury, "Non-Uniform Interpolation in Integrated Gradients", ISCAS 2023
(arXiv 2302.11107); Walker et al., "Integrated Decision Gradients", AAAI 2024 (arXiv 2305.20052);
Swain and Singhi, "RiemannOpt" (arXiv 2410.04118).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.segment import Evaluation
from ..core.shapes import over
from ..errors import InputError
from . import Field

EVEN = 0.1
"""The part of the steps that is spread evenly unless another is asked for."""


def pilot(field: Field, start: Tensor, end: Tensor, cells: int, leading: int = 2) -> Tensor:
    """F at ``cells`` + 1 even positions of the lines from ``start`` to ``end``, shaped alike with
    ``leading`` axes, the last B.

    Returns:
        (cells + 1, leading…).

    Cost:
        cells + 1 values for every line and no gradients; memory does not grow with ``cells``.
    """
    if cells < 1:
        raise InputError(f"A pilot needs at least one cell, not {cells}.")
    shape = start.shape[:leading]
    lines = math.prod(shape)
    begins, ends = (
        start.reshape(lines, *start.shape[leading:]),
        end.reshape(lines, *start.shape[leading:]),
    )
    example = torch.arange(shape[-1], device=start.device).expand(cells + 1, *shape).reshape(-1)
    times = torch.linspace(0, 1, cells + 1, dtype=torch.float64).to(start).repeat_interleave(lines)
    values = start.new_empty(len(example))

    def rows(part: slice) -> Tensor:
        line = torch.arange(part.start, part.stop, device=start.device) % lines
        begin = begins[line]
        return torch.lerp(begin, ends[line], over(times[part], begin))

    def use(part: slice, evaluation: Evaluation) -> None:
        values[part] = evaluation.value

    field.stream(example, rows, use, begins[0], gradient=False, whole=lines)
    return values.reshape(cells + 1, *shape)


def equal_change(values: Tensor, steps: int, even: float = EVEN) -> Tensor:
    """F at even positions (N + 1, …) → the clock (steps + 1, …) whose steps carry equal shares of
    Σ|ΔF|.

    Inside a cell F is taken to change evenly. With ``even=0`` every step carries exactly |ΔF| /
    steps, and what does not change gets no step of its own. Where F does not change at all the
    clock is even.
    """
    return quantiles(values.diff(dim=0).abs(), steps, even)


def bend(values: Tensor, order: int) -> Tensor:
    """F at even positions (N + 1, …) → |dᵖ⁺¹F/dtᵖ⁺¹|^(1/(p+1)) of each cell (N, …), p the order, up
    to a factor.

    One node per step of length h errs by c · |dᵖ⁺¹F/dtᵖ⁺¹| · hᵖ⁺¹, p the order (1 for the left end,
    2 for the midpoint). For a given number of steps the sum is least where h ∝
    |dᵖ⁺¹F/dtᵖ⁺¹|^(−1/(p+1)), so that each step carries an equal part of this density: the closed
    form of what RiemannOpt looks for with an optimiser. Derivatives are differences of ``values``,
    of which there must be at least p + 2.
    """
    if order < 1:
        raise InputError(f"The order of a rule is at least 1, not {order}.")
    if len(values) < order + 2:
        raise InputError(
            f"A rule of order {order} needs F at {order + 2} positions at least, not at {len(values)}."
        )
    curved = values.diff(
        n=order + 1, dim=0
    ).abs()  # at N − order places in the middle of order + 1 cells each
    cells = len(values) - 1
    place = (torch.arange(cells, device=values.device) - order // 2).clamp(0, len(curved) - 1)
    return curved[place] ** (1 / (order + 1))


def quantiles(density: Tensor, steps: int, even: float = EVEN) -> Tensor:
    """A density on equal cells (N, …), at least 0 and of any scale → the clock (steps + 1, …) whose
    steps carry equal mass."""
    if steps < 1:
        raise InputError(f"A line is cut into at least one step, not {steps}.")
    if not 0 <= even <= 1:
        raise InputError(
            f"even= is the fraction of the steps that is spread evenly, from 0 to 1, not {even}."
        )
    cells = len(density)
    # Few numbers, and rounding may not turn the clock back: float64, which not every device has.
    mass = density.detach().to("cpu", torch.float64).reshape(cells, -1).T.contiguous()
    total_mass = mass.cumsum(1)[
        :, -1:
    ]  # in order, unlike a sum: a line's clock does not depend on how many lines there are
    if not bool(torch.isfinite(total_mass).all()) or bool((mass < 0).any()):
        raise InputError(
            "Steps cannot be placed by a density that holds NaN, infinity or negative numbers."
        )
    flat = total_mass <= torch.finfo(torch.float64).tiny
    share = torch.where(flat, 1 / cells, mass / torch.where(flat, 1.0, total_mass))
    below = torch.nn.functional.pad(((1 - even) * share + even / cells).cumsum(1), (1, 0))
    below = below / below[:, -1:]
    wanted = (
        (torch.arange(steps + 1, dtype=torch.float64) / steps).expand(len(below), -1).contiguous()
    )
    cell = torch.searchsorted(below[:, 1:].contiguous(), wanted).clamp_max(cells - 1)
    low, high = below.gather(1, cell), below.gather(1, cell + 1)
    inside = torch.where(
        high > low, (wanted - low) / (high - low).clamp_min(torch.finfo(torch.float64).tiny), 0.0
    )
    clock = ((cell + inside.clamp(0, 1)) / cells).cummax(1).values
    clock[:, 0], clock[:, -1] = 0, 1
    return clock.T.reshape(steps + 1, *density.shape[1:]).to(density)


def midpoints(clock: Tensor) -> tuple[Tensor, Tensor]:
    """The middle of every step of a clock (steps + 1, …) and its length, (steps, …) each: nodes and
    weights that add up to 1."""
    return (clock[1:] + clock[:-1]) / 2, clock.diff(dim=0)
