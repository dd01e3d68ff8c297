"""Blur path (Blur IG): from the input under a wide Gaussian to the input itself.

    γ(σ) = G_σ ∗ x,   σ from its maximum down to 0

Everything is one convolution per axis and per σ. With the border folded in, a convolution along an
axis of n is an n × n matrix, so that a blur wider than the picture costs no more than a narrow one;
axes too long for matrices take Fourier's way. Both start from the same ring: the kernel's weights
by offset modulo 2n, since the reflected axis has that period and the zero border needs no more
room.

    reflect   M[i, j] = ring[j − i] + ring[−1 − j − i]       … c b a | a b c … x y z | z y x …
    zero      M[i, j] = ring[j − i]                          … 0 0 0 | a b c … x y z | 0 0 0 …
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..core.memory_budget import in_blocks
from ..core.options import check_choice
from ..core.segment import Segment, polyline
from ..core.shapes import describe
from ..core.values import part
from ..errors import InputError, ShapeError
from ..fields import Field
from .base import Path

_TRUNCATE = 4.0  # kernels end at this many sigmas
_DENSE = 1024  # axes up to this length are blurred by a matrix, longer ones by a Fourier transform

_BORDERS = ("reflect", "zero")
_SPACINGS: dict[str, Callable[[Tensor], Tensor]] = {"linear": lambda left: left, "sqrt": torch.sqrt}


@part
class Blur(Path):
    """Blur path: the input comes into focus as the blur falls from ``sigma`` to 0.

        γ(σ) = G_σ ∗ x

    The path chooses its own start: of the references only their number is used. Maps add up to F(x)
    − F(G_sigma ∗ x). The path does not look at F; it is linear in x, leaves the box between its
    ends, and turns back. Kernels are sampled in double precision and end at 4 σ, as those of
    scipy's ``gaussian_filter`` do. A step too small to blur (σ below an eighth of a pixel) has no
    length and costs nothing.

    Args:
        sigma: the widest blur, in pixels (or samples); where the path begins.
        steps: how many pieces; the path is straight between the blurs at σ_0 = sigma > σ_1 > … >
            σ_steps = 0.
        border: what lies beyond the edges: "reflect", the input mirrored (wide blurs tend to the
            mean colour), or "zero", the number 0 (wide blurs tend to 0; for normalised inputs that
            is not black). Of the two only "reflect" is the same blur before and after a
            normalisation.
        spacing: "linear": σ falls evenly; "sqrt": σ² does, so that more steps are spent on wide
            blurs.
        axes: which axes of an example are blurred, such as (-1,) for the time of a series or of a
            spectrogram; by default both of an image (C, H, W) or (H, W).

    Raises:
        InputError: for a sigma, a border or a spacing that is none.
        ShapeError: for inputs without the axes.

    Cost:
        One blur per corner: for an axis of n, n multiplications per number of x, however wide it is
        (100 corners of a 3 × 224² photograph: 0.3 s on one core; scipy: 1.9 s). Memory does not
        grow with steps.

    References:
        Xu, Venugopalan, Sundararajan, "Attribution in Scale and Space", CVPR 2020 (arXiv
        2004.03383). Their code pads with zeros, takes the blur's derivative by a forward difference
        of .01 in σ, so that its maps add up to F's change only as far as both allow, and its
        square-root spacing ends at √sigma instead of sigma.

    Example:
        >>> import torch, integrand as ig
        >>> field, start = ig.fields.Linear(torch.ones(3, 3)), torch.zeros(1, 1, 3, 3)
        >>> _, corners = ig.paths.corners(ig.paths.Blur(1.0, 2), field, start, torch.eye(3)[None])
        >>> corners[-1, 0, 0].tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    sigma: float = 50.0
    steps: int = 100
    border: str = "reflect"
    spacing: str = "linear"
    axes: tuple[int, ...] | None = None

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2

    @property
    def segments(self) -> int:
        """As many as steps."""
        return self.steps

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise InputError(
                f"sigma is the width of the widest blur, a positive number of pixels, not {self.sigma}."
            )
        if self.steps < 1:
            raise InputError(f"A blur path takes at least one step, not {self.steps}.")
        check_choice("border", self.border, _BORDERS)
        check_choice("spacing", self.spacing, _SPACINGS)

    def widths(self, clock: Tensor) -> Tensor:
        """σ (k,) at clocks (k,): ``sigma`` at 0, nothing at 1."""
        return self.sigma * _SPACINGS[self.spacing](1 - clock)

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        axes = self._axes(end)
        matrices = sum(end.shape[axis] ** 2 for axis in axes if end.shape[axis] <= _DENSE)

        def corners(clock: Tensor) -> Tensor:
            blurs = blurred(end, self.widths(clock), axes, self.border)
            if float(clock[-1]) == 1:
                blurs[-1] = end  # no blur at all, to the last digit
            return blurs

        for clock, points in in_blocks(self.steps, end.numel() + matrices, end.device, corners):
            repeated = points[:, None].expand(-1, len(start), *end.shape)
            yield polyline(repeated, clock.to(end))

    def _axes(self, end: Tensor) -> tuple[int, ...]:
        """The axes to blur, counted from the last."""
        count = end.ndim - 1
        if self.axes is None:
            if count not in (2, 3):
                raise ShapeError(
                    f"A blur needs axes along which neighbours belong together, but an example has shape {describe(end.shape[1:])}, "
                    "which is no image (channels, height, width) or (height, width). Name them: axes=(-1,) blurs along the last."
                )
            return (-2, -1)
        counted = tuple(axis if axis < 0 else axis - count for axis in self.axes)
        if (
            not counted
            or len(set(counted)) < len(counted)
            or not all(-count <= axis < 0 for axis in counted)
        ):
            raise ShapeError(
                f"axes={self.axes} are not different axes of an example of shape {describe(end.shape[1:])}: count them from "
                "-1, the last, without the batch."
            )
        return counted


def blurred(x: Tensor, widths: Tensor, axes: Sequence[int], border: str = "reflect") -> Tensor:
    """``x`` under Gaussians of ``widths`` (k,), along ``axes`` counted from the last → (k,
    \\*x.shape)."""
    result = x[None]
    for axis in axes:
        last = result.movedim(axis, -1)
        rows = last.reshape(len(last), -1, last.shape[-1])
        convolved = _convolve(rows, widths, border)
        result = convolved.reshape(len(widths), *last.shape[1:]).movedim(-1, axis)
    return result.contiguous()


def _convolve(rows: Tensor, widths: Tensor, border: str) -> Tensor:
    """Rows (1|k, m, n) under the Gaussian of each width → (k, m, n)."""
    length = rows.shape[-1]
    ring = _ring(widths, length, border)
    if length <= _DENSE:
        dense: Tensor = rows @ _matrices(ring, border).to(rows)
        return dense
    beyond = rows.flip(-1) if border == "reflect" else torch.zeros_like(rows)
    spectrum = torch.fft.rfft(torch.cat([rows, beyond], -1))
    transfer = torch.fft.rfft(ring).real.to(rows)[
        :, None
    ]  # kernels are even, so are their transforms real
    filtered: Tensor = torch.fft.irfft(spectrum * transfer, n=2 * length)
    return filtered[..., :length]


def _ring(widths: Tensor, length: int, border: str) -> Tensor:
    """Every kernel's weight by offset modulo twice the ``length`` of the axis (k, 2n), on the CPU
    and in double precision."""
    width = widths.detach().to("cpu", torch.float64)[:, None]
    radius = torch.floor(_TRUNCATE * width + 0.5)
    widest = int(radius.max())
    offset = torch.arange(-widest, widest + 1)
    weight = torch.exp(-0.5 * (offset / width.clamp_min(1e-100)) ** 2) * (offset.abs() <= radius)
    weight = weight / weight.sum(1, keepdim=True)
    if border == "zero":
        weight = weight * (
            offset.abs() < length
        )  # further away there is nothing to weigh, and the ring would come round
    return weight.new_zeros(len(width), 2 * length).index_add_(1, offset % (2 * length), weight)


def _matrices(ring: Tensor, border: str) -> Tensor:
    """The n × n matrix of each kernel (k, n, n); it is symmetric."""
    period = ring.shape[1]
    place = torch.arange(period // 2)
    matrices = ring[:, (place - place[:, None]) % period]
    if border == "reflect":
        matrices = matrices + ring[:, (-1 - place - place[:, None]) % period]
    return matrices
