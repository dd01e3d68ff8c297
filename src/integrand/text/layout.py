"""Rows of tokens as a model reads them: without padding in front, and with what is appended.

    slots      as they were given     [pad  a  b  c]        x (T, D), one vector a slot; padding anywhere
    sequence   as the model reads     [a  b  c  y1  y2  pad]

What stands behind is never seen by what stands before, in no model; and positions count as they do
for the text alone. So batches are what single runs are, wherever the padding was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .models import LanguageModel


@dataclass(frozen=True)
class Row:
    """An example: the ids (T) of its slots, and which of these are tokens; the rest is padding."""

    ids: tuple[int, ...]
    real: tuple[int, ...]
    types: tuple[int, ...] = ()

    @property
    def block(self) -> bool:
        """Whether no padding stands between its tokens."""
        return self.real == tuple(range(self.real[0], self.real[-1] + 1))

    @property
    def places(self) -> tuple[int, ...]:
        """Where in the sequence its tokens stand: at its front, or where they stood if there are
        gaps between them."""
        return tuple(range(len(self.real))) if self.block else self.real

    @property
    def tokens(self) -> tuple[int, ...]:
        """Its ids without padding."""
        return tuple(self.ids[slot] for slot in self.real)


def padded_rows(
    ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]], pad: int, *, left: bool
) -> list[Row]:
    """Rows of different length in as many slots as the longest has."""
    longest = max(map(len, ids))
    rows = []
    for tokens, kinds in zip(ids, types, strict=True):
        gap = longest - len(tokens)
        before, behind = (gap, 0) if left else (0, gap)
        slots = (*[pad] * before, *tokens, *[pad] * behind)
        filled = (*[0] * before, *kinds, *[0] * behind) if kinds else ()
        rows.append(Row(slots, tuple(range(before, before + len(tokens))), filled))
    return rows


def token_labels(rows: Sequence[Row]) -> Tensor | None:
    """The token (B, T, 1) that each slot belongs to, numbered from 0 in each row; padding, which
    is no feature, goes with the first. None where there is no padding."""
    if all(len(row.real) == len(row.ids) for row in rows):
        return None
    labels = torch.zeros(len(rows), len(rows[0].ids), 1, dtype=torch.long)
    for number, row in enumerate(rows):
        labels[number, list(row.real), 0] = torch.arange(len(row.real))
    return labels


def sequences(
    rows: Sequence[Row], tails: Sequence[Sequence[int]], model: LanguageModel, pad: int
) -> dict[str, Any]:
    """What the model is run on, an entry for each example.

    Returns:
        ``ids`` (B, S) and ``mask`` (B, S) of the sequences; ``types`` (B, S) where there are some;
        ``tail`` (B, L, D), the vectors of what is appended, and ``source`` (B, S), which slot or
        which appended token stands where, unless slots are the sequence already; ``back`` (B, T),
        where each slot stands in the sequence, -1 for padding, with ``source``.
    """
    slots = len(rows[0].ids)
    most = max(map(len, tails))
    length = max(row.places[-1] + 1 + len(tail) for row, tail in zip(rows, tails, strict=True))
    length = max(length, slots) if all(map(_stays, rows)) and not most else length
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    types = torch.zeros_like(mask)
    source = torch.arange(length).clamp_max(slots - 1).repeat(len(rows), 1)
    back = torch.full((len(rows), slots), -1)
    for number, (row, tail) in enumerate(zip(rows, tails, strict=True)):
        places, real = list(row.places), list(row.real)
        end = places[-1] + 1
        ids[number, places] = torch.tensor(row.tokens)
        mask[number, places] = 1
        source[number, places] = torch.tensor(real)
        back[number, real] = torch.tensor(places)
        if row.types:
            types[number, places] = torch.tensor(row.types)[real]
        ids[number, end : end + len(tail)] = torch.tensor(list(tail), dtype=torch.long)
        mask[number, end : end + len(tail)] = 1
        source[number, end : end + len(tail)] = slots + torch.arange(len(tail))
    arranged: dict[str, Any] = {"ids": ids, "mask": mask}
    if any(row.types for row in rows):
        arranged["types"] = types
    if most:
        filled = [[*tail, *[pad] * (most - len(tail))] for tail in tails]
        arranged["tail"] = model.vectors(torch.tensor(filled))
    if most or length != slots or not all(map(_stays, rows)):
        arranged |= {"source": source, "back": back}
    return {name: tensor.to(model.device) for name, tensor in arranged.items()}


def _stays(row: Row) -> bool:
    """Whether its tokens stand in the sequence where they stand among its slots."""
    return row.places == row.real
