"""Models are read once, and again when they have changed.

A model is recognised by itself and by a digest of all that it holds, as it would be saved: one that
was trained again, or further, or whose leaves were written to, is read anew. Nothing is remembered
of a model that is gone, or of one that cannot be saved.
"""

from __future__ import annotations

import hashlib
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Model = TypeVar("Model")
Read = TypeVar("Read")


@dataclass(frozen=True, eq=False)
class _Remembered:
    """What was read of a model, and its digest then."""

    model: weakref.ref[object]
    digest: bytes
    read: object


_REMEMBERED: dict[int, _Remembered] = {}


def read_once(model: Model, read: Callable[[Model], Read]) -> Read:
    """What ``read`` says of a model, read again only if the model has changed.

    Args:
        model: of any library.
        read: reads it; the same for all models of a library.
    """
    digest = content_digest(model)
    if digest is None:
        return read(model)
    remembered = _REMEMBERED.get(id(model))
    if remembered and remembered.model() is model and remembered.digest == digest:
        return remembered.read  # type: ignore[return-value]
    fresh = read(model)
    _remember(model, digest, fresh)
    return fresh


def _remember(model: object, digest: bytes, fresh: object) -> None:
    number = id(model)
    try:
        reference = weakref.ref(model, lambda _: _REMEMBERED.pop(number, None))
    except TypeError:
        return
    _REMEMBERED[number] = _Remembered(reference, digest, fresh)


class _Digest:
    """A file that keeps nothing of what is written to it but a digest."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=32)

    def write(self, data: bytes | memoryview | pickle.PickleBuffer) -> int:
        self.hash.update(data)
        return memoryview(data).nbytes


def content_digest(model: object) -> bytes | None:
    """A digest of what a model holds, None where it cannot be saved."""
    written = _Digest()
    try:
        pickle.Pickler(written, protocol=5).dump(model)
    except Exception:  # libraries and what users put into their models raise anything
        return None
    return written.hash.digest()
