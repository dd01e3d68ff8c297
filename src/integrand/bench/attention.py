"""Attention as a map: what a Transformer's own weights say of its tokens. Controls of suites, no
methods: they are asked of the model's insides, and know no target.

They have the interface of methods, ``(field, x) -> Attribution``; a problem's word says how its
model attends, and recipes hand it on: ``AttentionRollout(attention)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compare.controls import Control
from ..core.shapes import describe
from ..core.values import part
from ..errors import ShapeError
from ..fields import Field


@dataclass(frozen=True, eq=False)
class Attention:
    """How a Transformer attends while it reads texts of T explained tokens among S.

    layers   of each layer (B, H, S, S): how much a position (row) takes from another (column);
             rows add up to 1
    readout  (S,) how the output is read from the last states: 1 at the last position, 1/S each of
             their mean
    tokens   where the explained tokens stand among the S positions
    """

    layers: tuple[Tensor, ...]
    readout: Tensor
    tokens: slice


Attends = Callable[[Tensor], Attention]
"""Texts (B, T, D) → how the model attends to them."""


def rollout(layers: tuple[Tensor, ...]) -> Tensor:
    """How much of each position's last state comes from each token: (B, S, S), rows add up to 1.

        R = Ā_L ⋯ Ā_1,   Ā = (mean of the heads + 1) / 2,  half for the residual stream

    References:
        Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv
        2005.00928).
    """
    share = torch.eye(layers[0].shape[-1]).to(layers[0])
    flow = share
    for weights in layers:
        flow = (weights.mean(1) + share) / 2 @ flow
    return flow


@part
class _AttentionControl(Control):
    """What tokens give to where the output is read: s = readoutᵀ W.

    Args:
        attends: a word of the problem, texts → how its model attends to them.
    """

    attends: Attends

    def _weights(self, layers: tuple[Tensor, ...]) -> Tensor:
        """W (B, S, S) of the attention of all layers."""
        raise NotImplementedError

    def _map(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        attention = self.attends(x)
        weights = self._weights(attention.layers)
        scores = attention.readout.to(weights) @ weights
        return _over_tokens(scores, attention, x), field.value(x)


@part
class AttentionRollout(_AttentionControl):
    """Attention rollout, read where the output is: s = readoutᵀ Ā_L ⋯ Ā_1.

    Args:
        attends: a word of the problem, texts → how its model attends to them.

    Cost:
        One forward pass, which returns the weights of its attention.
    """

    label = "attention rollout"

    def _weights(self, layers: tuple[Tensor, ...]) -> Tensor:
        return rollout(layers)


@part
class LastAttention(_AttentionControl):
    """Attention of the last layer, the mean of its heads, read where the output is: s = readoutᵀ A_L.

    Args:
        attends: a word of the problem, texts → how its model attends to them.

    Cost:
        One forward pass, which returns the weights of its attention.
    """

    label = "attention, last layer"

    def _weights(self, layers: tuple[Tensor, ...]) -> Tensor:
        return layers[-1].mean(1)


def _over_tokens(scores: Tensor, attention: Attention, x: Tensor) -> Tensor:
    """Scores (B, S) of positions as a map (B, T, D): every number of a token gets an equal part."""
    explained = scores[:, attention.tokens]
    if explained.shape != x.shape[:2]:
        raise ShapeError(
            f"The model attends to {describe(explained.shape)} explained tokens, and the texts have "
            f"{describe(x.shape[:2])}."
        )
    return (explained[..., None].to(x) / x.shape[2]).expand(x.shape).contiguous()
