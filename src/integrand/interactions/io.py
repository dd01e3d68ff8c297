"""Saving and loading interactions: one safetensors file, everything but tensors as JSON in its
header, with a digest of all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.files import write_tensors
from ..core.optional import optional
from ..errors import InputError
from ..integration.cost import Cost
from ..integration.io import INTERACTIONS, PrintedText, digest
from .result import BY_EXAMPLE, Interactions

_NEEDS = "Saving and loading interactions"
_FORMAT = 1
_WORDS = ("rows", "feature_names", "softplus", "kinks", "resolution", "method")


def save(interactions: Interactions, path: str | Path) -> None:
    """Write interactions to ``path``, whole or not at all.

    Raises:
        OSError: where the disk refuses.
        MissingExtra: without safetensors.
    """
    write = optional("safetensors.torch", extra="save", needs=_NEEDS).save_file
    tensors: dict[str, Tensor] = {
        name: getattr(interactions, name).detach().cpu().contiguous().clone() for name in BY_EXAMPLE
    }
    header = {
        "format": _FORMAT,
        "integrand": metadata.version("integrand"),
        "cost": asdict(interactions.cost),
        "target": repr(interactions.target),
        **{name: getattr(interactions, name) for name in _WORDS},
    }
    text = json.dumps(header)
    write_tensors(write, tensors, path, {INTERACTIONS: text, "digest": digest(text, tensors)})


def read(path: str | Path, written: Mapping[str, str], tensors: dict[str, Any]) -> Interactions:
    """Interactions from the header and the tensors of a file that ``Interactions.save`` wrote; the
    target is a text, as it printed.

    Raises:
        InputError: for what is not what was written.
    """
    text = written[INTERACTIONS]
    if written.get("digest") != digest(text, tensors) or set(tensors) != set(BY_EXAMPLE):
        raise InputError(
            f"{str(path)!r} holds no whole interactions: its content has changed since it was written. Save them again."
        )
    header: dict[str, Any] = json.loads(text)
    if header["format"] > _FORMAT:
        raise InputError(
            f"{str(path)!r} was written by integrand {header['integrand']}, in a newer format: upgrade to read it."
        )
    words = {name: header[name] for name in _WORDS}
    for name in ("feature_names", "kinks"):
        words[name] = tuple(words[name])
    words["rows"] = None if words["rows"] is None else tuple(words["rows"])
    return Interactions(
        **tensors, **words, cost=Cost(**header["cost"]), target=PrintedText(header["target"])
    )
