"""What a run is computed with, beside its recipe and its rows, as a hash: the model and the references.

A recipe names a model by a folder or a function, and what these give may be another one at the next
start. Shards that another model computed are then computed again, like those whose rows changed.
"""

from __future__ import annotations

from pathlib import Path

from ..core.files import digest_of_file
from .source import digest_of

_OF_MODELS = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".py"}
"""Endings of what ``save_pretrained`` writes: configuration, weights, tokenizer, template."""


def digest_of_folder(folder: Path) -> str:
    """A hash of the files of a model of Hugging Face."""
    files = sorted(file for file in folder.iterdir() if file.suffix in _OF_MODELS)
    parts = [f"{file.name} {digest_of_file(file)}".encode() for file in files if file.is_file()]
    return digest_of(parts)
