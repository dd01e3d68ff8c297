"""Saving and reading attributions of texts: the file of their attribution, with the texts in its
header and matrices among its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..integration.attribution import Attribution
from ..integration.io import save as save_attribution
from .encoding import Encoded, Piece
from .result import TextAttribution

_MATRIX = "text/matrix/"


def save(result: TextAttribution, path: str | Path) -> None:
    """Write to ``path``, whole or not at all.

    Raises:
        OSError: where the disk refuses.
        MissingExtra: without safetensors.
    """
    header = {
        "texts": [asdict(text) for text in result.texts],
        "slots": result.slots,
        "kept": result.kept,
        "targets": result.targets,
        "columns": result.columns,
        "granularity": result.granularity,
        "checkpointed": result.checkpointed,
        # No JSON has NaN.
        "half_precision_error": [
            None if math.isnan(error) else error for error in result.half_precision_error
        ],
    }
    matrices = {f"{_MATRIX}{i}": matrix for i, matrix in enumerate(result.matrices)}
    save_attribution(result.attribution, path, text=header, beside=matrices)


def read(
    header: Mapping[str, Any], attribution: Attribution, tensors: Mapping[str, Tensor]
) -> TextAttribution:
    """The texts of a file beside the attribution that was in it.

    Raises:
        InputError: where these do not belong together.
    """
    count = sum(name.startswith(_MATRIX) for name in tensors)
    result = TextAttribution(
        attribution,
        tuple(_encoded(entry) for entry in header["texts"]),
        tuple(tuple(map(int, slots)) for slots in header["slots"]),
        tuple(tuple(map(bool, stays)) for stays in header["kept"]),
        tuple(map(str, header["targets"])),
        tuple(tensors[f"{_MATRIX}{i}"] for i in range(count)),
        tuple(tuple(map(str, names)) for names in header["columns"]),
        str(header["granularity"]),
        bool(header.get("checkpointed", False)),
        tuple(
            math.nan if error is None else float(error)
            for error in header.get("half_precision_error", ())
        ),
    )
    width = attribution.values.shape[1]
    for text, slots, kept in zip(result.texts, result.slots, result.kept, strict=True):
        fits = len(text) == len(slots) == len(kept) == len(text.tokens) == len(text.offsets)
        if not fits or not all(0 <= slot < width for slot in slots):
            raise InputError("its texts are not those of its map")
    return result


def _encoded(entry: Mapping[str, Any]) -> Encoded:
    def pieces(name: str) -> tuple[Piece, ...]:
        return tuple(Piece(**piece) for piece in entry[name])

    return Encoded(
        text=str(entry["text"]),
        ids=tuple(map(int, entry["ids"])),
        tokens=tuple(map(str, entry["tokens"])),
        offsets=tuple((int(a), int(b)) for a, b in entry["offsets"]),
        special=tuple(map(bool, entry["special"])),
        template=tuple(map(bool, entry["template"])),
        types=tuple(map(int, entry["types"])),
        messages=pieces("messages"),
        sources=pieces("sources"),
        rendered=bool(entry["rendered"]),
    )
