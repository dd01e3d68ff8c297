"""Geodesics in latent space: a chain of codes whose decoded polyline is made as short as possible.

    E(z) = T/2 Σ_i ‖D(z_{i+1}) − D(z_i)‖²,     z_i ← z_i − rate · η_i,   η_i = ∂E/∂z_i        the ends stay

With a rate that is given, these are the steps. They pass a bend on from point to point, so a chain
of T points takes of the order of T² of them. Without one, the step is the same gradient in the norm
of the chain's differences,

    z ← z − rate · L⁻¹η,     (Lz)_i = 2 z_i − z_{i−1} − z_{i+1},

which moves all points at once and is there in one step where D is an isometry; its rate follows the
curvature it met.

Every chain has a rate of its own and stops by itself. E falls with every step that is kept: one
that would raise it is taken back and tried again, shorter, at the bottom of the parabola through
what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .autoencoder import Borrowed

_GROWTH = 10.0  # the most by which a rate grows or shrinks from one step to the next
_LEAST = 1e-3  # no step is shortened by more than this factor at once …
_SHORTER = 0.5  # … and by this at least


@dataclass(frozen=True, eq=False)
class Relaxation:
    """See ``LatentGeodesic``."""

    codec: Borrowed
    rate: float | None
    iterations: int
    tolerance: float
    energy: float | None

    def __call__(self, codes: Tensor) -> Tensor:
        """Chains (N, T, L), relaxed."""
        codes = codes.clone()
        if codes.shape[1] < 3 or not self.iterations:
            return codes
        energy, slope = self.codec.stretch(codes)
        direction = self._direction(slope)
        fall = _inner(slope, direction)  # by which E falls along the way, per unit of rate
        rate = self._first_rate(codes, energy)
        busy = self._unfinished(torch.arange(len(codes), device=codes.device), energy, fall, rate)
        for _ in range(self.iterations):
            if not len(busy):
                break
            current, along, before, length, falls = (
                codes[busy],
                direction[busy],
                energy[busy],
                rate[busy],
                fall[busy],
            )
            trial = current - length[:, None, None] * along
            after, onward = self.codec.stretch(trial)
            accepted = after <= before
            onto = accepted[:, None, None]
            further = self._direction(onward)
            codes[busy] = torch.where(onto, trial, current)
            direction[busy] = torch.where(onto, further, along)
            energy[busy] = torch.where(accepted, after, before)
            fall[busy] = torch.where(accepted, _inner(onward, further), falls)
            bent = self._next_rate(length, falls, falls - _inner(onward, along))
            rate[busy] = torch.where(
                accepted, bent, _shorten(length, length * falls, after - before)
            )
            busy = self._unfinished(busy, energy, fall, rate)
        return codes

    def _direction(self, slope: Tensor) -> Tensor:
        """The direction of a step; the ends stay."""
        direction = torch.zeros_like(slope)
        inner = slope[:, 1:-1]
        direction[:, 1:-1] = (
            inner
            if self.rate is not None
            else torch.einsum("ij,njl->nil", _inverse_laplacian(inner), inner)
        )
        return direction

    def _first_rate(self, codes: Tensor, energy: Tensor) -> Tensor:
        if self.rate is not None:
            return codes.new_full((len(codes),), self.rate)
        # If D stretched all codes alike, E would be that stretch times the energy of the codes, and
        # this the step to its bottom.
        return codes.diff(dim=1).flatten(1).square().sum(1) / (2 * energy).clamp_min(
            torch.finfo(codes.dtype).tiny
        )

    def _next_rate(self, rate: Tensor, fall: Tensor, lost: Tensor) -> Tensor:
        """Barzilai and Borwein: the rate to where the slope along the step, which has ``lost`` some
        of its ``fall``, would be zero."""
        if self.rate is not None:
            return rate
        factor = fall / lost.clamp_min(torch.finfo(rate.dtype).tiny)
        return rate * factor.clamp(1 / _GROWTH, _GROWTH)

    def _unfinished(self, busy: Tensor, energy: Tensor, fall: Tensor, rate: Tensor) -> Tensor:
        going = rate[busy] * fall[busy] > self.tolerance * energy[busy]
        if self.energy is not None:
            going &= energy[busy] >= self.energy
        return busy[going]


def _inner(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).flatten(1).sum(1)


def _inverse_laplacian(inner: Tensor) -> Tensor:
    """L⁻¹ for the n points of ``inner`` (N, n, L): min(i, j) (n + 1 − max(i, j)) / (n + 1)."""
    n = inner.shape[1]
    place = torch.arange(1, n + 1, dtype=inner.dtype, device=inner.device)
    low, high = torch.minimum(place[:, None], place), torch.maximum(place[:, None], place)
    return low * (n + 1 - high) / (n + 1)


def _shorten(rate: Tensor, promised: Tensor, rise: Tensor) -> Tensor:
    """The step at the bottom of the parabola that falls by ``promised`` to first order, and rose by
    ``rise`` instead."""
    factor = promised / (2 * (rise + promised)).clamp_min(torch.finfo(rate.dtype).tiny)
    return rate * factor.clamp(_LEAST, _SHORTER)
