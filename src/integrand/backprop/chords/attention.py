"""Chords of attention: composed of matrix products and a softmax.

Both functions do what torch's do for every call they take; calls with dropout or with keys and
values of their own are left to torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .table import composite


@composite(F.scaled_dot_product_attention)
def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    if dropout_p:
        return NotImplemented
    if enable_gqa:
        heads = query.shape[-3]
        key = key.repeat_interleave(heads // key.shape[-3], -3)
        value = value.repeat_interleave(heads // value.shape[-3], -3)
    if is_causal:
        attn_mask = torch.ones(
            query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device
        ).tril()
    return _attend(query, key, value, attn_mask, scale)[0]


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """What is read, and the weights it is read with."""
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(
        -2, -1
    )
    if mask is None:
        weights = scores.softmax(-1)
    else:
        mask = _additive(mask, scores)
        # Whoever may look at nothing sees nothing, as in torch.
        blind = (mask == float("-inf")).all(-1, keepdim=True)
        weights = (scores + mask.masked_fill(blind, 0)).softmax(-1) * (~blind)
    return weights @ value, weights


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, float("-inf"))


@composite(F.multi_head_attention_forward)
def multi_head_attention(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None, training: bool = True,
    key_padding_mask: Tensor | None = None, need_weights: bool = True, attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None, static_k: Tensor | None = None, static_v: Tensor | None = None, average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:  # fmt: skip
    unusual = (
        any(part is not None for part in (bias_k, bias_v, static_k, static_v)) or add_zero_attn
    )
    if unusual or (training and dropout_p) or query.ndim != 3 or (is_causal and attn_mask is None):
        return NotImplemented
    weights: Sequence[Tensor]
    if use_separate_proj_weight:
        separate = (q_proj_weight, k_proj_weight, v_proj_weight)
        weights = [weight for weight in separate if weight is not None]
    else:
        assert in_proj_weight is not None
        weights = in_proj_weight.chunk(3)
    biases: Sequence[Tensor | None] = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)

    def heads(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(T, B, E) → (B, H, T, E/H)."""
        projected = F.linear(tokens.transpose(0, 1), weight, bias)
        return projected.view(*projected.shape[:2], num_heads, -1).transpose(1, 2)

    q, k, v = (
        heads(tokens, weight, bias)
        for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )
    attended, weighed = _attend(q, k, v, _mask(attn_mask, key_padding_mask, q, k))
    output = F.linear(
        attended.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias
    ).transpose(0, 1)
    if not need_weights:
        return output, None
    return output, weighed.mean(1) if average_attn_weights else weighed


def _mask(mask: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """One additive mask (B, H, T, S); here True means hidden."""
    if mask is not None:
        mask = _additive(~mask if mask.dtype == torch.bool else mask, q)
        mask = mask.view(*q.shape[:3], k.shape[2]) if mask.ndim == 3 else mask
    if padding is None:
        return mask
    hidden = _additive(~padding if padding.dtype == torch.bool else padding, q)[:, None, None]
    return hidden if mask is None else mask + hidden
