"""Saving and loading circuits: one safetensors file, everything but tensors as JSON in its header,
with a digest of all of it."""

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
from ..integration.io import CIRCUIT, digest
from .graph import CircuitGraph
from .result import Circuit, Completeness, NodeScores

_NEEDS = "Saving and loading circuits"
_FORMAT = 1
_OF_NODES = ("node_scores", "node_standard_error", "clean", "corrupt")
_OF_EDGES = ("scores", "standard_error")
_WORDS = ("error", "method", "metric")


def save(result: NodeScores, path: str | Path) -> None:
    """Write a circuit, or scores of nodes, to ``path``, whole or not at all.

    Raises:
        OSError: where the disk refuses.
        MissingExtra: without safetensors.
    """
    write = optional("safetensors.torch", extra="save", needs=_NEEDS).save_file
    names = (*_OF_NODES, *_OF_EDGES) if isinstance(result, Circuit) else _OF_NODES
    tensors: dict[str, Tensor] = {
        name: getattr(result, name).detach().cpu().contiguous().clone() for name in names
    }
    header = {
        "format": _FORMAT,
        "integrand": metadata.version("integrand"),
        "graph": asdict(result.graph),
        "completeness": [list(entry) for entry in result.completeness],
        "cost": asdict(result.cost),
        **{name: getattr(result, name) for name in _WORDS},
    }
    text = json.dumps(header)
    write_tensors(write, tensors, path, {CIRCUIT: text, "digest": digest(text, tensors)})


def read(path: str | Path, written: Mapping[str, str], tensors: dict[str, Any]) -> NodeScores:
    """What ``save`` wrote, from the header and the tensors of the file.

    Raises:
        InputError: for what is not what was written.
    """
    text = written[CIRCUIT]
    if written.get("digest") != digest(text, tensors) or not set(_OF_NODES) <= set(tensors):
        raise InputError(
            f"{str(path)!r} holds no whole circuit: its content has changed since it was written. Save it again."
        )
    header: dict[str, Any] = json.loads(text)
    if header["format"] > _FORMAT:
        raise InputError(
            f"{str(path)!r} was written by integrand {header['integrand']}, in a newer format: upgrade to read it."
        )
    parts: dict[str, Any] = {
        **tensors,
        **{name: header[name] for name in _WORDS},
        "graph": CircuitGraph(**header["graph"]),
        "completeness": tuple(Completeness(*entry) for entry in header["completeness"]),
        "cost": Cost(**header["cost"]),
    }
    return Circuit(**parts) if "scores" in tensors else NodeScores(**parts)
