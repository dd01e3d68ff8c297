"""What a run is computed with, beside its recipe and its rows, as a hash: the model and the references.

A recipe names a model by a folder or a function, and what these give may be another one at the next
start. Shards that another model computed are then computed again, like those whose rows changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.files import digest_of_file
from .source import digest_of

_OF_MODELS = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".py"}
"""Endings of what ``save_pretrained`` writes: configuration, weights, tokenizer, template."""


def digest_of_folder(folder: Path) -> str:
    """A hash of the files of a model of Hugging Face."""
    files = sorted(file for file in folder.iterdir() if file.suffix in _OF_MODELS)
    parts = [f"{file.name} {digest_of_file(file)}".encode() for file in files if file.is_file()]
    return digest_of(parts)


def digest_of_weights(module: nn.Module) -> str:
    """A hash of a module's parameters and buffers, by name, type and shape."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, tensor in _tensors(module):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if not tensor.is_meta:  # what is kept elsewhere until it is needed has no bytes here
            hashed.update(_bytes_of(tensor))
    return hashed.hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _bytes_of(tensor: Tensor) -> Any:
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else b""
