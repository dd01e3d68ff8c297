"""Attention weights that are taken as given on the way back, or handed gradients at a higher
temperature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.torch_calls import Arguments, Function, Keywords
from ...core.values import part
from ...errors import InputError, ModelError
from .base import Changed, During, check_open
from .instead import instead

_SOFTMAX: frozenset[Function] = frozenset(
    {F.softmax, torch.softmax, torch.special.softmax, Tensor.softmax}
)
_AXES = 3  # of a softmax over what is attended to: rows, places, and those attended to

Weights = Callable[[Tensor, Tensor], Tensor]
"""(scores, their softmax) → the softmax with another way back."""


@part
class SoftmaxTemperature:
    """Attention hands gradients back to its scores as if it were less sharp.

        p = softmax(s)  hands back  p̃ ⊙ (g − Σ p̃ g),   p̃ = softmax(s / temperature);   p itself is what it is

    Where one place has nearly all of the attention, the ordinary gradient at the scores is nearly
    zero, whatever depends on them, and where two say the same, each is made up for by the other.
    ``temperature=1`` is the ordinary gradient. Covers ``F.scaled_dot_product_attention``, and
    softmaxes over the last of three axes or more, which is how attention is written out.

    Args:
        temperature: above 0.

    Raises:
        InputError: for another temperature.
        ModelError: for compiled and scripted modules, for ``nn.MultiheadAttention``, and for models
            of Hugging Face whose attention is a kernel (flash, flex), inside which nothing is seen.

    Cost:
        that of the ordinary gradient; of ``F.scaled_dot_product_attention`` with its matrix of
        weights in memory.

    References:
        Edin, Csordás, Ruotsalo, Wu, Maistro, Huang, Maaløe, "GIM: Improved Interpretability for
        Large Language Models", 2025 (arXiv 2505.17630), with 2.

    Example:
        >>> import integrand as ig
        >>> method = ig.methods.integrated(rule=ig.rules.GaussLegendre(8))
        >>> ig.Backward(ig.fields.SoftmaxTemperature(3.0), method).rule
        SoftmaxTemperature(3.0)
    """

    temperature: float = 2.0

    layers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"A temperature is above 0, not {self.temperature}.")

    def bound(self, module: nn.Module | None) -> During:
        _check(module, repr(self))
        return partial(Changed, partial(_attention, self._tempered))

    def _tempered(self, scores: Tensor, weights: Tensor) -> Tensor:
        masked = scores == -torch.inf
        softer = (scores.detach() / self.temperature).softmax(-1).masked_fill(masked, 0)
        finite = scores.masked_fill(masked, 0)
        # The derivative of this, with ``softer`` constant, is that of a softmax which gives
        # ``softer``.
        return instead(weights, softer * (finite - (softer * finite).sum(-1, keepdim=True)))


@part
class FrozenAttention:
    """Attention hands gradients back to its values alone: who attends to whom is taken as given.

        a = p v,  p = softmax(s)  hands back  pᵀ g  to v, and nothing to s

    Covers what ``SoftmaxTemperature`` does.

    Raises:
        ModelError: as there.

    Cost:
        that of the ordinary gradient; of ``F.scaled_dot_product_attention`` with its matrix of
        weights in memory.

    References:
        Ali et al., "XAI for Transformers", ICML 2022 (arXiv 2202.07304).

    Example:
        >>> import integrand as ig
        >>> ig.fields.BackwardRules((ig.fields.FrozenNorm(), ig.fields.FrozenAttention()))
        BackwardRules((FrozenNorm(), FrozenAttention()))
    """

    layers: ClassVar[bool] = False

    def bound(self, module: nn.Module | None) -> During:
        _check(module, repr(self))
        return partial(Changed, partial(_attention, lambda scores, weights: weights.detach()))


def _check(module: nn.Module | None, who: str) -> None:
    check_open(module, who)
    for name, inner in () if module is None else module.named_modules():
        if isinstance(inner, nn.MultiheadAttention):
            raise ModelError(
                f"{who} has to see attention's own operations, and those inside nn.MultiheadAttention ({name or 'the model'!r}) are not shown: "
                "write it with F.scaled_dot_product_attention."
            )
        fused = _fused(inner)
        if fused is not None:
            raise ModelError(
                f"{who} has to see attention's own operations, and those inside {fused!r} are not shown: load the model with "
                "attn_implementation='eager' or 'sdpa'."
            )


def _fused(module: nn.Module) -> str | None:
    """The kernel that attention of a model of Hugging Face runs in whole, as its configuration
    calls it; None where there is none. Kernels of the hub are named as folders there."""
    config = vars(module).get("config")  # other modules may call something else so
    name = getattr(config, "_attn_implementation", None)
    if not isinstance(name, str):
        return None
    return name if any(mark in name for mark in ("flash", "flex", "/")) else None


def _attention(change: Weights, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    if func is F.scaled_dot_product_attention:
        return _scaled_dot_product(change, *args, **kwargs)
    if func not in _SOFTMAX:
        return NotImplemented
    scores = args[0] if args else kwargs["input"]
    axis = args[1] if len(args) > 1 else kwargs.get("dim")
    if scores.ndim < _AXES or axis not in (-1, scores.ndim - 1):
        return NotImplemented
    weights: Tensor = func(*args, **kwargs)
    return change(scores.to(weights.dtype), weights)


def _scaled_dot_product(
    change: Weights,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The kernel's value, and the derivative of attention written out with other weights; without
    dropout, for models are explained in eval mode."""
    output = F.scaled_dot_product_attention(
        query.detach(),
        key.detach(),
        value.detach(),
        attn_mask,
        0.0,
        is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
    )
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (entry.repeat_interleave(groups, -3) for entry in (key, value))
    root = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.transpose(-2, -1) * root
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    if attn_mask is not None:
        boolean = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if boolean else scores + attn_mask
    # A place that sees none, such as padding on the left, has no weights: the kernel gives zeros.
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    scores = scores.masked_fill(blind, 0)
    weights = change(scores, scores.softmax(-1)).masked_fill(blind, 0)
    return instead(output, weights @ value)
