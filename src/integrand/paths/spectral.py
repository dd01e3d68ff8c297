"""Spectral paths: strong components of the change enter first, weak ones last.

    x − b = Σ_i c_i,   s_i ∈ [0, 1] the strength of component i
    γ(α) = b + Σ_i φ_i(α) c_i,   φ_i(α) = gate( (α − τ_i) / ω ),   τ_i = (1 − ω)(1 − s_i)

Component i enters while the clock runs from τ_i to τ_i + ω. The overlap ω says how much of the way
components share: with ω = 1 all enter together, which is the straight line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ..core.memory_budget import in_blocks
from ..core.segment import Segment, polyline
from ..core.shapes import describe
from ..core.values import part
from ..errors import InputError, ShapeError
from ..fields import Field
from .base import Path
from .bases import SVD, Basis

Gate = Callable[[Tensor], Tensor]

_STEEPNESS = 12.0  # of the sigmoid gate, as published

GATES: dict[str, Gate] = {
    "linear": lambda u: u,
    "cosine": lambda u: (1 - torch.cos(torch.pi * u)) / 2,
    # The logistic function, stretched so that it runs from 0 to 1 exactly.
    "sigmoid": lambda u: (
        (1 + torch.tanh(_STEEPNESS / 2 * (u - 0.5)) / torch.tanh(u.new_tensor(_STEEPNESS / 4))) / 2
    ),
    "step": lambda u: (u >= 0.5).to(u),
}


@part
class Spectral(Path):
    """Spectral path: components of x − b enter one after the other, strong ones first.

        γ(α) = b + Σ_i φ_i(α) c_i,   c_i the components of x − b

    For images (C, H, W), channels by themselves, and matrices (H, W). The path does not look at F.
    It leaves the box between b and x, and coordinates turn back; maps are complete, but pixels that
    F treats alike may get unlike shares. Once the weakest component is in, at 1 − (1 − ω)·min s,
    the path stands still, and such pieces cost nothing.

    Args:
        steps: how many pieces; the path is straight between its corners at α = 0, 1/steps, …, 1.
        overlap: ω in (0, 1], the fraction of the way that one component takes; 1 is the straight
            line.
        basis: what x − b is taken apart by: ``SVD(joint=False)``, ``DCT()``, ``Haar(levels=4)``,
            ``Pyramid(levels=4)``, or a callable change (N, C, H, W) → ``Split``.
        gate: how a component enters: "linear", "cosine", "sigmoid" (steepness 12), "step" (at once,
            half way through), or a function of progress that goes from 0 at 0 to 1 at 1 and never
            back.

    Raises:
        InputError: for an overlap, a gate or strengths out of their range.
        ShapeError: for inputs that are no matrices.

    Cost:
        One decomposition of x − b, and one sum of components per corner. Memory does not grow with
        steps.

    References:
        Kim, Lim, Lee, Choi, "Spectral Integrated Gradients for Coarse-to-Fine Feature Attribution",
        KDD 2026 (arXiv 2605.19607). Their code takes ``steps`` points, one piece less. It allows ω
        = 0, with which the strongest component is in from the start: its path does not begin at the
        baseline.

    Example:
        >>> import integrand as ig
        >>> ig.paths.Spectral(100, basis=ig.paths.Haar(3))
        Spectral(100, basis=Haar(3))
    """

    steps: int = 200
    overlap: float = 0.4
    basis: Basis = SVD()
    gate: str | Gate = "linear"

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2

    @property
    def segments(self) -> int:
        """As many as steps."""
        return self.steps

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"A spectral path takes at least one step, not {self.steps}.")
        if not 0 < self.overlap <= 1:
            raise InputError(
                f"overlap is in (0, 1], not {self.overlap}: with 0 the strongest component would be in from the start, and the path "
                "would not begin at the baseline."
            )
        if not callable(self.basis):
            raise InputError(
                f"basis is ig.paths.SVD(), DCT(), Haar(), Pyramid(), or a callable of the change, not {self.basis!r}."
            )
        if not callable(self.gate) and self.gate not in GATES:
            raise InputError(
                f"gate is one of {', '.join(map(repr, GATES))}, or a function, not {self.gate!r}."
            )
        _check_gate(self._gate)

    @property
    def _gate(self) -> Gate:
        return self.gate if callable(self.gate) else GATES[self.gate]

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        if end.ndim not in (3, 4):
            raise ShapeError(
                "A spectral path needs images of shape (channels, height, width) or matrices (height, width), but an example has "
                f"shape {describe(end.shape[1:])}: reshape the input where it has two such axes, else use ig.paths.Straight()."
            )
        image = (-1, 1 if end.ndim == 3 else end.shape[1], *end.shape[-2:])
        begin, finish = start.reshape(image), end.expand_as(start).reshape(image)
        split = self.basis(finish - begin)
        strengths = split.strengths
        if not bool(((strengths >= 0) & (strengths <= 1)).all()):
            raise InputError(
                f"The basis {self.basis!r} gave strengths from {float(strengths.min()):.3g} to {float(strengths.max()):.3g}; they "
                "are between 0 and 1."
            )
        opens = (1 - self.overlap) * (1 - strengths)

        def corners(clock: Tensor) -> Tensor:
            alpha = clock.to(start).reshape(-1, *(1,) * opens.ndim)
            progress = torch.where(alpha < 1, (alpha - opens) / self.overlap, 1).clamp(0, 1)
            inside = (progress > 0) & (progress < 1)
            gates = torch.where(
                inside, self._gate(progress), progress
            )  # shut before and open after, to the last digit
            points = begin + split.compose(gates)
            # Where everything is in, the path is at x: not at b + the sum of the components, which
            # rounds.
            arrived = (gates == 1).reshape(*gates.shape[:2], -1).all(2)[..., None, None, None]
            return torch.where(arrived, finish, points).reshape(-1, *start.shape)

        for clock, points in in_blocks(self.steps, start.numel(), start.device, corners):
            yield polyline(points, clock.to(start))


def _check_gate(gate: Gate) -> None:
    """Refuse a gate that does not go from shut to open, or goes back on its way."""
    opened = gate(torch.linspace(0, 1, 101, dtype=torch.float64))
    ends = opened[0].item(), opened[-1].item()
    if abs(ends[0]) > 1e-6 or abs(ends[1] - 1) > 1e-6:
        raise InputError(
            f"A gate goes from 0 to 1 as its progress does, but this one goes from {ends[0]:.3g} to {ends[1]:.3g}."
        )
    if bool((opened.diff() < -1e-6).any()):
        raise InputError(
            "A gate never goes back, but this one falls: a component would enter, leave, and enter again."
        )
