"""Texts of like length explained together, so that padding is not computed.

    rows (B, T)  ──▶  packs of rows (b, t), t the longest of the pack  ──▶  maps (b, t, D)  ──▶  (B, T, D), as given

Sorted by length, texts share a pack as long as little of it is padding. What comes back lies as the
rows did: in their order, in their slots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..baselines import Given
from ..integration.attribution import Attribution, Explainer
from ..integration.join import concat
from .layout import Row

_WASTED = 0.1
"""What part of a pack's slots may be padding."""


def packs_of(lengths: Sequence[int], *, alike: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Numbers of texts in packs of like length, the shortest first.

    Args:
        lengths: tokens of each text.
        alike: of each text what those of a pack have to share beside their length, so that it
            holds no padding; None where it may hold some.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if alike is not None:
        shared: dict[Hashable, list[int]] = {}
        for number in order:
            shared.setdefault((lengths[number], alike[number]), []).append(number)
        return list(shared.values())
    packs: list[list[int]] = []
    tokens = 0
    for number in order:
        longest = lengths[number]
        if packs and tokens + longest >= (1 - _WASTED) * longest * (len(packs[-1]) + 1):
            packs[-1].append(number)
            tokens += longest
        else:
            packs.append([number])
            tokens = longest
    return packs


@dataclass(frozen=True)
class Pack:
    """Some of the rows, in as few slots as these need.

    Attributes:
        order: (b,) which rows.
        rows: (b,) as they lie here.
        slots: (b, t) where each slot lies in its row, -1 for padding.
    """

    order: tuple[int, ...]
    rows: tuple[Row, ...]
    slots: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], order: Sequence[int], pad: int, *, left: bool) -> Pack:
        """The rows ``order``, without the padding that all of them have."""
        chosen = [rows[number] for number in order]
        width = max(row.real[-1] + 1 - row.real[0] for row in chosen)
        packed, slots = [], torch.full((len(chosen), width), -1)
        for number, row in enumerate(chosen):
            first, behind = row.real[0], row.real[-1] + 1
            gap = width - (behind - first)
            before, after = (gap, 0) if left else (0, gap)
            ids = (*[pad] * before, *row.ids[first:behind], *[pad] * after)
            types = row.types and (*[0] * before, *row.types[first:behind], *[0] * after)
            packed.append(Row(ids, tuple(slot - first + before for slot in row.real), types))
            slots[number, before : before + behind - first] = torch.arange(first, behind)
        return cls(tuple(order), tuple(packed), slots)

    def taken(self, tensor: Tensor) -> Tensor:
        """Of (B, T, …) what these rows have in their slots: (b, t, …). Of padding any row's."""
        rows = torch.tensor(self.order, device=tensor.device)[:, None]
        return tensor[rows, self.slots.to(tensor.device).clamp_min(0)]

    def start(self, given: Given) -> Given:
        """References (R, B, T, D) as those of these rows (R, b, t, D)."""
        references = torch.stack([self.taken(reference) for reference in given.references])
        return dataclasses.replace(given, references=references)

    def laid_back(self, attribution: Attribution, vectors: Tensor) -> Attribution:
        """An attribution of these rows with its maps in the slots of ``vectors`` (B, T, D): zeros,
        or the vectors themselves, where there are none."""
        packed = vectors[torch.tensor(self.order, device=vectors.device)]
        frames = attribution.frames
        if frames is not None:
            frames = dataclasses.replace(frames, points=self._spread(frames.points, packed))
        return dataclasses.replace(
            attribution,
            values=self._spread(attribution.values, torch.zeros_like(packed)),
            inputs=self._spread(attribution.inputs, packed),
            shares=self._spread(attribution.shares, torch.zeros_like(packed)),
            baselines=self._spread(attribution.baselines, packed),
            notes={name: self._note(note, packed) for name, note in attribution.notes.items()},
            frames=frames,
        )

    def _note(self, note: Tensor, own: Tensor) -> Tensor:
        """What was measured along paths, (K+1, R, b), or for every slot, (K+1, R, b, t[, D])."""
        if note.shape[3:] == self.slots.shape[1:]:
            zeros = torch.zeros_like(own[..., :1])
            spread: Tensor = self._spread(note[..., None], zeros)
            return spread[..., 0]
        width = (self.slots.shape[1], own.shape[-1])
        return self._spread(note, torch.zeros_like(own)) if note.shape[3:] == width else note

    def _spread(self, tensor: Any, filling: Tensor) -> Any:
        """(…, b, t, D) → (…, b, T, D), filled with ``filling`` (b, T, D) where nothing is put."""
        if tensor is None:
            return None
        leading = tensor.shape[:-3]
        wide = filling.to(tensor).expand(*leading, *filling.shape).clone()
        row, slot = (self.slots >= 0).to(tensor.device).nonzero(as_tuple=True)
        place = self.slots.to(tensor.device)[row, slot]
        wide[..., row, place, :] = tensor[..., row, slot, :]
        return wide


def joined(parts: Sequence[Attribution], packs: Sequence[Pack], method: Explainer) -> Attribution:
    """Attributions of packs, laid back, as one of all rows in their order; ``method`` is what
    explained them, started from the references of all."""
    # What fitness counts says among how many tokens: of all rows, among those of the longest.
    widest = max(range(len(packs)), key=lambda number: packs[number].slots.shape[1])
    criterion = parts[widest].criterion
    same = [dataclasses.replace(part, method=method, criterion=criterion) for part in parts]
    back = torch.tensor([number for pack in packs for number in pack.order]).argsort()
    return concat(same)[back]
