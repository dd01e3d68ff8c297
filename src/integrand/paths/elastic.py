"""Elastic-band path: minimises spring energy plus a gradient-magnitude penalty, with fixed end
points.

    E(p) = K Σ_k ‖d_k‖² + β s Σ_k ‖d_k‖ ‖∇F(m_k)‖         d_k = p_{k+1} − p_k, m_k its middle, s so
                                                          that on the line both sums are equal

Springs alone keep the points on the line, evenly spaced. With d_k's direction u_k and ĝ_k = ∇F(m_k)
/ ‖∇F(m_k)‖

    ∂E/∂p_j = 2K (2 p_j − p_{j−1} − p_{j+1}) + β s (c_{j−1} u_{j−1} − c_j u_j + ½ l_{j−1} ∇c_{j−1} + ½ l_j ∇c_j),    c = ‖∇F‖, l = ‖d‖

and ∇c = H ĝ is the change of the gradient along itself, so that a second gradient close by is all
it takes: any field will do. Steps are taken in the springs' own metric (its inverse is a small
matrix), where the first term is solved at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.segment import Segment, polyline
from ..core.shapes import flattened, over
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Path


@part
class ElasticBand(Path):
    """Elastic-band path: the line from baseline to input, relaxed to avoid steep gradients.

    Its ends are fixed, so the map stays complete.

        minimise  K Σ_k ‖d_k‖² + β s Σ_k ‖d_k‖ ‖∇F(m_k)‖     over the corners between K pieces d_k with middles m_k

    The energy of the line bounds that of the path, and so do its two sums: the path is no longer
    than the line in the metric ‖∇F‖ ‖dγ‖ (both measured with the middles of the K pieces). Notes:
    "steepness" (K+1, R, B), that length from the baseline to each corner.

    Args:
        corners: how many points are free (15), which makes K = corners + 1 pieces.
        beta: how much steepness counts against length (0.3); 0 is the straight line.
        iterations: descent steps (30); one that would raise the energy is taken back and halved, so
            that the energy never rises.

    Raises:
        InputError: for corners, beta or iterations out of their range.

    Cost:
        (2 · iterations + 1) · K gradients per reference (two a piece and step: ∇F, and ∇F close
        by), and what the rule takes. All corners move together: memory grows with them.

    References:
        The energy of Salek and Enguehard, "Using the Path of Least Resistance to Explain Deep
        Networks" (arXiv 2502.12108), minimised. Their released code samples it by variational
        inference instead; there steepness is rewarded (the sign is turned), the ends are free,
        norms are taken over the last axis, gradients are those of the sum of all outputs, and the
        map is (x − b) ⊙ Σ ∇F ‖dγ‖, not the integral of ∇F ⊙ dγ, so that it misses the change of F
        by a factor.
    """

    corners: int = 15
    beta: float = 0.3
    iterations: int = 30

    resolution: ClassVar[str] = "corners"
    coarsest: ClassVar[int] = 2
    effort: ClassVar[str] = "iterations"
    divisible: ClassVar[str | None] = None

    @property
    def segments(self) -> int:
        """One more than corners."""
        return self.corners + 1

    @property
    def scouted(self) -> int:
        """Gradients per reference and example that finding the path takes; none is at a corner, so
        none is handed on."""
        return (2 * self.iterations + 1) * self.segments if self.beta else 0

    def __post_init__(self) -> None:
        if self.corners < 1:
            raise InputError(
                f"A path relaxes at its corners, of which there is at least one, not {self.corners}."
            )
        if self.iterations < 1:
            raise InputError(f"A path relaxes in at least one step, not {self.iterations}.")
        if not 0 <= self.beta < float("inf"):
            raise InputError(
                f"beta= weighs steepness against length and is a finite number, 0 at least, not {self.beta}: steep stretches that are "
                "rewarded would be sought out."
            )

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        end = end.expand_as(start)
        distance = flattened(end - start, 2).norm(dim=2)
        scale = torch.where(
            distance > 0, distance, 1
        )  # energies are in units of the squared way, so that all rows are alike
        line = _line(start, end, self.segments)
        if not self.beta:
            yield polyline(line)
            return
        springs = _springs(self.corners).to(start)
        points = line
        gradient = _gradients(field, _middles(points))
        unit = flattened(gradient, 3).norm(dim=3).mean(0)
        terms = _Terms(scale, torch.where(unit > 0, unit, 1), self.beta)
        energy, steepness = terms.energy(points, gradient)
        step = torch.ones_like(distance)
        for _ in range(self.iterations):
            pull = terms.pull(field, points, gradient, springs)
            trial = points.clone()
            trial[1:-1] -= over(step, start) * pull
            trial_gradient = _gradients(field, _middles(trial))
            lower, steep = terms.energy(trial, trial_gradient)
            better = lower < energy
            chosen = over(better, start)
            points, gradient = (
                torch.where(chosen, trial, points),
                torch.where(chosen, trial_gradient, gradient),
            )
            energy, steepness = (
                torch.where(better, lower, energy),
                torch.where(better, steep, steepness),
            )
            step = torch.where(better, (step * _LONGER).clamp_max(1), step * _SHORTER)
        band = polyline(points)
        travelled = torch.cat([torch.zeros_like(distance)[None], steepness.cumsum(0)])
        yield Segment(band.start, band.end, band.clock, notes={"steepness": travelled})


_PROBE = 0.3  # the power of the type's precision that a gradient is looked at beside another, as a fraction of the whole way
_LONGER, _SHORTER = (
    1.3,
    0.5,
)  # how a step changes after one that was good, and after one that was taken back


@dataclass(frozen=True, eq=False)
class _Terms:
    """The energy of paths, relative to that of the springs on the line.

    scale, unit (R, B): the length of the line, and the mean ‖∇F‖ on it, which steepness is counted
    in
    """

    scale: Tensor
    unit: Tensor
    beta: float

    def energy(self, points: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """E (R, B) of paths (K+1, R, B, \\*s) with the gradients at their middles, and ‖∇F‖ ‖d‖ of
        each piece (K, R, B)."""
        length = flattened(points.diff(dim=0), 3).norm(dim=3)
        steepness = length * flattened(gradient, 3).norm(dim=3)
        springs = len(length) * (length / self.scale).square().sum(0)
        return springs + self.beta * (steepness / (self.scale * self.unit)).sum(0), steepness

    def pull(self, field: Field, points: Tensor, gradient: Tensor, springs: Tensor) -> Tensor:
        """The slope of scale² E at the corners, in the springs' own metric (K−1, R, B, \\*s)."""
        step = points.diff(dim=0)
        length, size = (flattened(vectors, 3).norm(dim=3) for vectors in (step, gradient))
        # How far ĝ is followed: far enough for the difference to be more than rounding, and not far
        # on the scale of the path.
        probe = torch.finfo(points.dtype).eps ** _PROBE * self.scale
        near = _middles(points) + over(probe, step[0]) * over(_inverse(size), step) * gradient
        bend = (_gradients(field, near) - gradient) / over(probe, step[0])
        weight = self.beta * self.scale / self.unit
        along = over(weight * size * _inverse(length), step) * step
        across = over(weight * length / 2, step) * bend
        driven = along[:-1] - along[1:] + across[:-1] + across[1:]
        # The springs' part is solved at once: it takes back all that is not on the line.
        bow = points[1:-1] - _line(points[0], points[-1], len(step))[1:-1]
        pushed: Tensor = torch.tensordot(springs, driven, dims=1) / (2 * len(step))
        return bow + pushed


def _gradients(field: Field, points: Tensor) -> Tensor:
    """∇F at points (K, R, B, \\*s)."""
    shape = points.shape[:3]
    example = torch.arange(shape[2], device=points.device).expand(shape).reshape(-1)
    return field.rows(points.flatten(0, 2), example).gradient.reshape(points.shape)


def _middles(points: Tensor) -> Tensor:
    return (points[1:] + points[:-1]) / 2


def _line(start: Tensor, end: Tensor, pieces: int) -> Tensor:
    """(K+1, R, B, \\*s), the ends exactly as they are."""
    clock = torch.linspace(0, 1, pieces + 1, dtype=torch.float64).to(start)
    return torch.lerp(start[None], end[None], clock.reshape(-1, *(1,) * start.ndim))


def _springs(corners: int) -> Tensor:
    """The inverse of the matrix of second differences (2 on the diagonal, −1 beside it): min(i, j)
    − i j / (corners + 1)."""
    i = torch.arange(1, corners + 1, dtype=torch.float64)
    return torch.minimum(i[:, None], i) - i[:, None] * i / (corners + 1)


def _inverse(numbers: Tensor) -> Tensor:
    """1 / numbers, and 0 of 0."""
    nonzero = numbers > torch.finfo(numbers.dtype).tiny
    return torch.where(nonzero, 1 / torch.where(nonzero, numbers, 1), 0)
