"""Norms whose scale is taken as given on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.torch_calls import Arguments, Function, Keywords
from ...core.values import part
from .base import Changed, During, check_open
from .instead import instead

_LAYER_NORMS: frozenset[Function] = frozenset({F.layer_norm, torch.layer_norm})
_RMS_NORMS: frozenset[Function] = frozenset({F.rms_norm, torch.rms_norm})
_INVERSE_ROOTS: frozenset[Function] = frozenset({torch.rsqrt, Tensor.rsqrt})


@part
class FrozenNorm:
    """Norms hand gradients back as if their scale were a constant.

        y = w ⊙ (x − mean x) s + b  hands back  s (w ⊙ g − mean(w ⊙ g)),   s = 1/√(var x + ε) as it is at x
        y = w ⊙ x s                 hands back  s w ⊙ g,                   s = 1/√(mean x² + ε) as it is at x

    The ordinary gradient of a norm says nothing of what only makes its input longer: a part that is
    removed is made up for by the scale. Covers layer norms and RMS norms of PyTorch
    (``nn.LayerNorm``, ``F.layer_norm``, ``nn.RMSNorm``, ``F.rms_norm``), and those written out with
    ``rsqrt``, as the RMS norms of Llama, Qwen, Gemma and T5 are: what ``rsqrt`` gives is a
    constant, wherever it stands. Batch norms in eval mode are linear as they are.

    Raises:
        ModelError: for compiled and scripted modules, whose operations are not seen.

    Cost:
        that of the ordinary gradient.

    References:
        Ali, Schnake, Eberle, Montavon, Müller, Wolf, "XAI for Transformers: Better Explanations
        through Conservative Propagation", ICML 2022 (arXiv 2202.07304); Edin et al., "GIM", 2025
        (arXiv 2505.17630).

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Linear(4, 3))
        >>> field = ig.TorchField(model, 0, backward=ig.fields.FrozenNorm())
        >>> field.gradient(torch.randn(2, 4)).shape
        torch.Size([2, 4])
    """

    layers: ClassVar[bool] = False

    def bound(self, module: nn.Module | None) -> During:
        check_open(module, repr(self))
        return partial(Changed, _frozen)


def _frozen(func: Function, args: Arguments, kwargs: Keywords) -> Any:
    if func in _LAYER_NORMS:
        return _layer_norm(func, args, kwargs)
    if func in _RMS_NORMS:
        return _rms_norm(func, args, kwargs)
    if func in _INVERSE_ROOTS:
        return func(*args, **kwargs).detach()
    return NotImplemented


def _named(args: Arguments, kwargs: Keywords, names: Sequence[str]) -> Keywords:
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _layer_norm(func: Function, args: Arguments, kwargs: Keywords) -> Tensor:
    value: Tensor = func(*args, **kwargs)
    given = _named(args, kwargs, ("input", "normalized_shape", "weight", "bias", "eps"))
    x = _precise(given["input"])
    axes = _axes(given["normalized_shape"])
    spread = x.detach().var(axes, correction=0, keepdim=True)
    scaled = (x - x.mean(axes, keepdim=True)) * (spread + given.get("eps", 1e-5)).rsqrt()
    return instead(value, _weighted(scaled, given.get("weight")))


def _rms_norm(func: Function, args: Arguments, kwargs: Keywords) -> Tensor:
    value: Tensor = func(*args, **kwargs)
    given = _named(args, kwargs, ("input", "normalized_shape", "weight", "eps"))
    x = _precise(given["input"])
    eps = given.get("eps")
    eps = torch.finfo(given["input"].dtype).eps if eps is None else eps
    size = x.detach().square().mean(_axes(given["normalized_shape"]), keepdim=True)
    return instead(value, _weighted(x * (size + eps).rsqrt(), given.get("weight")))


def _axes(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(-len(shape), 0))


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _weighted(scaled: Tensor, weight: Tensor | None) -> Tensor:
    return scaled if weight is None else scaled * weight
