"""Subsets of a batch as batches of their own: the field, and methods and metrics that hold
something for each example."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..baselines.base import Union
from ..baselines.fixed import Given, Plain
from ..baselines.per_input import Own, PerInput
from ..fields import Field, Subset
from ..fields.memory import OutputCache
from ..metrics import Subject
from ..targets import Target


class Counts:
    """Rows that were evaluated for each example of a batch, with a gradient and without."""

    def __init__(self, batch: int) -> None:
        self.gradients = torch.zeros(batch, dtype=torch.float64)
        self.values = torch.zeros(batch, dtype=torch.float64)

    def add(self, index: Tensor | None, rows: int, *, gradient: bool, times: int = 1) -> None:
        """Count rows of the examples ``index``; rows of no example are shared by all."""
        counted = self.gradients if gradient else self.values
        if index is None:
            counted += times * rows / len(counted)
        else:
            counted += times * torch.bincount(index.cpu(), minlength=len(counted))


class Portion(Subset):
    """The field of some examples of a batch, which counts the rows evaluated for each."""

    def __init__(self, inner: Field, index: Tensor, counts: Counts | None = None) -> None:
        super().__init__(inner, index)
        self.counts = counts or Counts(len(index))

    def _seen(
        self,
        z: Tensor,
        index: Tensor | None,
        value: Tensor | None = None,
        *,
        gradient: bool = False,
        passes: int = 1,
    ) -> None:
        self.counts.add(index, len(z), gradient=gradient, times=passes)


def portion(subject: Subject, examples: Sequence[int], counts: Counts | None = None) -> Subject:
    """A subject of some of the examples, whose evaluated rows are counted in ``counts``; its model
    stays ready."""
    index = torch.tensor(list(examples), dtype=torch.long, device=subject.x.device)
    x = subject.x[index]
    field = Portion(subject.field, index, counts)
    known = subject.field.memory
    if known is not None and known.x is subject.x and known.outputs is not None:
        field.memory = OutputCache(x, known.outputs[index])
    masks = None if subject.masks is None else subject.masks[index.to(subject.masks.device)]
    return Subject(field, x, subject.layout, masks)


def narrowed(part: object, which: Sequence[int], x: Tensor) -> Any:
    """A method or a metric for some examples of the batch ``x`` (B, \\*s), where it holds something
    for each: baselines, fills, label maps, classes."""
    if len(which) == len(x) or not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    index = torch.tensor(list(which), dtype=torch.long)
    changes: dict[str, Any] = {}
    for spec in dataclasses.fields(part):
        old = getattr(part, spec.name)
        new = _narrowed(spec.name, old, index, which, x)
        if new is not old:
            changes[spec.name] = new
    return dataclasses.replace(part, **changes) if changes else part


def _narrowed(name: str, old: object, index: Tensor, examples: Sequence[int], x: Tensor) -> Any:
    if name in ("baseline", "fill"):
        return _references(old, index, x)
    if name == "fills" and isinstance(old, tuple):
        fills = tuple(_references(fill, index, x) for fill in old)
        return old if all(a is b for a, b in zip(fills, old, strict=True)) else fills
    if name == "score" and isinstance(old, Target):
        target = old.at(index)
        # What is the same for all examples stays one object, which metrics share.
        return old if target == old else target
    if name in _AXES and isinstance(old, Tensor) and old.ndim == _AXES[name] and len(old) == len(x):
        return old[index.to(old.device)]
    return narrowed(old, examples, x) if name in ("method", "rule", "weighting", "of") else old


_AXES = {"other": 1, "features": 3}
"""Axes of tensors that hold an entry for each example: classes (B,), label maps (B, H, W)."""


def _references(old: object, index: Tensor, x: Tensor) -> Any:
    """The references of some examples, where each example has its own; anything else as it is."""
    if isinstance(old, Tensor):
        return _narrowed_tensor(old, index, x)
    if isinstance(old, Union):
        parts = tuple(_references(part, index, x) for part in old.parts)
        return old if all(a is b for a, b in zip(parts, old.parts, strict=True)) else Union(parts)
    if isinstance(old, PerInput):
        return _narrowed_inputs(old, index, x)
    if isinstance(old, Own):
        return Own(old.references[:, index.to(old.references.device)])
    if isinstance(old, Given) and old.references.shape[1:] == x.shape:
        return dataclasses.replace(
            old, references=old.references[:, index.to(old.references.device)]
        )
    if isinstance(old, Plain):
        content = _references(old.content, index, x)
        return old if content is old.content else dataclasses.replace(old, content=content)
    return old


def _narrowed_tensor(tensor: Tensor, index: Tensor, x: Tensor) -> Tensor:
    """A tensor like x (B, \\*s), or several (R, B, \\*s), for some examples; others as they are."""
    if tensor.shape == x.shape:
        return tensor[index.to(tensor.device)]
    if tensor.shape[1:] == x.shape:
        return tensor[:, index.to(tensor.device)]
    return tensor


def _narrowed_inputs(baseline: PerInput, index: Tensor, x: Tensor) -> PerInput:
    """A baseline for each of several inputs, for some examples."""
    entries = baseline.baselines
    if isinstance(entries, tuple):
        return PerInput(tuple(_references(entry, index, x) for entry in entries))
    return PerInput({name: _references(entry, index, x) for name, entry in entries.items()})
