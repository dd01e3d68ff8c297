"""What half precision adds to a map: the same map of a few nodes, once more in float32.

    error = ‖A₃(half) − A₃(float32)‖ / ‖A₃(float32)‖        A₃: three Gauss–Legendre nodes, the first baseline

Both start and end at the same vectors, so that the difference is the model's own rounding. More nodes
average some of it away: what is stated is rather too much than too little.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from ..model.batching import memory_budget
from .models import LanguageModel

HALF = (torch.float16, torch.bfloat16)
NODES = 3


def is_half(model: LanguageModel) -> bool:
    """Whether a model computes in half precision."""
    return any(weight.dtype in HALF for weight in model.module.parameters())


def in_float32(model: LanguageModel) -> LanguageModel | None:
    """A copy of a model in float32; None where there is no room for one, where its weights come
    and go by the hand of others, and where it cannot be copied or is of no other type (4 bits)."""
    module = model.module
    weights = [*module.parameters(), *module.buffers()]
    budget = memory_budget(model.device)
    size = 4 * sum(weight.numel() for weight in weights)
    elsewhere = any(weight.is_meta for weight in weights)
    changed = any("forward" in vars(part) for part in module.modules())
    if elsewhere or changed or (budget is not None and size > budget):
        return None
    try:
        copied = copy.deepcopy(module).float()
    except Exception:  # the user's module holds what it likes, a lock for one
        return None
    return LanguageModel(copied, _named(model), model.checkpoint)


def _named(model: LanguageModel) -> str | nn.Module | None:
    """The embedding layer of a copy, as it is told."""
    if not isinstance(model.embeddings, nn.Module):
        return model.embeddings
    names: dict[int, str] = {id(part): name for name, part in model.module.named_modules()}
    return names[id(model.embeddings)]
