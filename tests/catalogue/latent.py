"""Paths through a latent space: latent_guided, latent, manifold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import wave

CODES = 5


class Codec(nn.Module):
    """Codes of five numbers: a linear encoder, a decoder with a bend; its reconstructions are poor, as small ones are."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        features = int(torch.Size(shape).numel())
        self.down = nn.Parameter(wave(CODES, features, phase=0.2, scale=1.5 / features**0.5))
        self.up = nn.Parameter(wave(features, CODES, phase=1.1, scale=0.5))
        self.bend = nn.Parameter(wave(features, CODES, phase=2.3, scale=0.8))

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.down.T + 0.1

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.up.T + 0.4 * torch.tanh(z @ self.bend.T)).unflatten(1, self.shape)


def codec(x: Tensor) -> Codec:
    """A codec for examples like those of ``x`` (B, *s)."""
    return Codec(*x.shape[1:])


GAUSS = ig.rules.GaussLegendre(6)


def guided(codec: Any, references: Any) -> ig.Method:
    return ig.methods.latent_guided(codec, references, 8, 0.3, slerp=False, ends=3, rule=GAUSS)


def latent(codec: Any, references: Any) -> ig.Method:
    return ig.methods.latent(codec, references, 6, ends=3, rule=GAUSS)


def manifold(codec: Any, references: Any) -> ig.Method:
    return ig.methods.manifold(codec, references, 7, ends=3, rule=GAUSS)


MAKE = {"latent_guided": guided, "latent": latent, "manifold": manifold}

BUILD = {
    name: lambda p, make=make: make(codec(p.packed()), ig.baselines.Given(p.references[:1]))
    for name, make in MAKE.items()
}

AXIOMATIC = {
    name: lambda field, x, refs, make=make: (
        make(codec(x), ig.baselines.Given(refs[:1]))(field, x).values
    )
    for name, make in MAKE.items()
}
