"""An autoencoder of small patches, fitted to a few photographs in a second, for latent paths
without a better one.

    encode   z = U (p − m)                      p: patches of side × side pixels, U: their first principal directions
    decode   p = m + Uᵀ z + V tanh(W z + c)     what principal components leave out, as far as a bend can tell it

A patch knows nothing of its neighbours, so this says what paths through a latent space do, and not
what a model of images would make of them. Convolutions of one pixel do all of it; there is no
random number but from the seed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.random import generator
from ..core.shapes import describe
from ..errors import InputError
from ..model.autograd import gradients

_SIDES = (8, 7, 10, 9, 6, 5, 4, 2)
"""Of a patch, the first that divides the picture."""
_STEPS, _ROWS, _RATE = 200, 512, 1e-3  # of Adam


class Patches(nn.Module):
    """An autoencoder (N, C, H, W) ↔ (N, codes, H / side, W / side) in the units of the pictures.

    ``Patches.fit(photographs)`` makes one; ``error(x)`` says how well it redraws pictures.
    """

    def __init__(self, side: int, mean: Tensor, basis: Tensor, hidden: int) -> None:
        super().__init__()
        codes, numbers = basis.shape
        self.side = side
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.inner = nn.Parameter(mean.new_zeros(hidden, codes))
        self.shift = nn.Parameter(mean.new_zeros(hidden))
        self.outer = nn.Parameter(mean.new_zeros(numbers, hidden))

    @classmethod
    def fit(cls, photographs: Tensor, codes: int = 24, hidden: int = 64, seed: int = 0) -> Patches:
        """Fitted to photographs (N, C, H, W): the directions at once, the bend by 200 steps of
        Adam.

        Raises:
            InputError: where no patch divides them.

        Cost:
            No look at any model; about a second for ten photographs of 224 × 224.
        """
        side = next(
            (side for side in _SIDES if not any(size % side for size in photographs.shape[2:])),
            None,
        )
        if side is None:
            raise InputError(
                f"Pictures of {describe(photographs.shape[2:])} pixels cannot be cut into even patches."
            )
        with gradients(False):
            rows = F.pixel_unshuffle(photographs, side).movedim(1, -1).flatten(0, -2)
            mean = rows.mean(0)
            spread, directions = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
            basis = directions[:, -codes:].T.flip(0).contiguous()
            patches = cls(side, mean, basis, hidden)
            scale = spread[-codes:].flip(0).clamp_min(1e-12).sqrt()
            noise = torch.randn(patches.inner.shape, generator=generator(seed, 0))
            patches.inner.copy_(noise.to(rows) / (scale * len(basis) ** 0.5))
        patches._bend(rows, seed)
        return patches.eval().requires_grad_(False)

    def _bend(self, rows: Tensor, seed: int) -> None:
        """Train what is left over."""
        optimiser = torch.optim.Adam([self.inner, self.shift, self.outer], lr=_RATE)
        with gradients(True):
            for step in range(_STEPS):
                chosen = torch.randint(len(rows), (_ROWS,), generator=generator(seed, 1, step)).to(
                    rows.device
                )
                patch = rows[chosen, :, None, None]
                loss = (self._patches(self._codes(patch)) - patch).square().mean()
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        for parameter in self.parameters():
            parameter.grad = None

    def encode(self, x: Tensor) -> Tensor:
        """Codes of pictures."""
        return self._codes(F.pixel_unshuffle(x, self.side))

    def decode(self, z: Tensor) -> Tensor:
        """Pictures of codes."""
        return F.pixel_shuffle(self._patches(z), self.side)

    def error(self, x: Tensor) -> float:
        """‖D(E(x)) − x‖ / ‖x − mean of x‖ over pictures (N, C, H, W)."""
        with gradients(False):
            return float((self.decode(self.encode(x)) - x).norm() / (x - x.mean()).norm())

    def _codes(self, patches: Tensor) -> Tensor:
        centred = patches - self.get_buffer("mean")[:, None, None]
        return F.conv2d(centred, self.get_buffer("basis")[:, :, None, None])

    def _patches(self, z: Tensor) -> Tensor:
        basis, mean = self.get_buffer("basis"), self.get_buffer("mean")
        bend = F.conv2d(
            torch.tanh(F.conv2d(z, self.inner[:, :, None, None], self.shift)),
            self.outer[:, :, None, None],
        )
        return F.conv2d(z, basis.T[:, :, None, None], mean) + bend
