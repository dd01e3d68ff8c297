"""Random generators from explicit seeds; the global ones of torch, NumPy and Python are never
touched.

Draws are made on the CPU and moved, so that a seed means the same numbers on every device, and they
are shared by the examples of a batch, so that a batch of eight equals eight single runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, TypeVar

import torch

from .options import whole

T = TypeVar("T")


def generator(*seed: int) -> torch.Generator:
    """A CPU generator for this sequence of integers; different sequences give unrelated streams."""
    # torch's CPU generator looks at 32 bits of its seed only: all bits of the sequence have to end
    # up in them.
    digest = hashlib.blake2b(repr(tuple(map(int, seed))).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def reseeded(part: T, seed: int) -> T:
    """``part`` (a frozen dataclass, nested to any depth) with ``seed`` mixed into every field named
    ``seed``."""
    seed = whole("seed", seed)
    if isinstance(part, tuple | list):
        return type(part)(reseeded(item, seed) for item in part)
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    changes: dict[str, Any] = {}
    for spec in dataclasses.fields(part):
        old = getattr(part, spec.name)
        new = old + 1_000_003 * seed if spec.name == "seed" else reseeded(old, seed)
        if new is not old:
            changes[spec.name] = new
    return dataclasses.replace(part, **changes) if changes else part
