"""Attributions of batches, joined to one of the whole dataset."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.shapes import describe
from ..errors import InputError, ShapeError
from ..targets import Target
from .attribution import BY_EXAMPLE, BY_REFERENCE, Attribution, Parts
from .cost import Cost
from .io import PrintedText
from .loop import Frames


def concat(attributions: Sequence[Attribution]) -> Attribution:
    """Join attributions of batches: examples one after the other, costs added up.

        concat([explain(model, x[:3]), explain(model, x[3:])]) = explain(model, x)

    Args:
        attributions: of one method, one target and one number of references; maps and inputs of one
            arrangement and shape. Per-example targets are joined as the examples are.

    Returns:
        The attribution of all examples. What only some of them have kept (shares, baselines,
        frames) is left out; ``cost`` counts all of them, its ``peak_bytes`` the largest. Where some
        were read from files (``ig.load``), which know method and target as texts, those of the
        result are texts too.

    Raises:
        InputError: for none at all, and for those of different methods, targets or arrangements.
        ShapeError: for maps of different shapes and for different numbers of references.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Linear(torch.tensor([1.0, -2.0]))
        >>> parts = [ig.explain(field, x) for x in torch.ones(5, 2).split(2)]
        >>> len(ig.concat(parts)), ig.concat(parts).cost.gradients == sum(p.cost.gradients for p in parts)
        (5, True)
    """
    parts = list(attributions)
    if not parts:
        raise InputError("There are no attributions to join: give one at least.")
    for number, attribution in enumerate(parts):
        if not isinstance(attribution, Attribution):
            raise InputError(
                f"concat joins attributions, and entry {number} is a {type(attribution).__name__}."
            )
    parts = _as_printed(parts)
    first = parts[0]
    for number, attribution in enumerate(parts):
        _check_alike(first, attribution, number)

    def by_example(name: str, axis: int) -> Parts:
        return _joined([getattr(part, name) for part in parts], axis)

    reasons = any(part.reasons for part in parts)
    return dataclasses.replace(
        first,
        **{name: by_example(name, 0) for name in BY_EXAMPLE},
        **{name: by_example(name, 1) for name in BY_REFERENCE},
        table=_table([part.table for part in parts]),
        notes=_notes(parts),
        frames=_frames(parts),
        reasons=tuple(reason for part in parts for reason in (part.reasons or (None,) * len(part)))
        if reasons
        else (),
        cost=sum((part.cost for part in parts), Cost()),
        target=_target(parts),
        resolution=max(part.resolution for part in parts),
    )


def _table(tables: Sequence[Any]) -> Any:
    """The rows of tables one after the other; None where one has none."""
    first = tables[0]
    if any(table is None for table in tables):
        return None
    if isinstance(first, dict):
        return {key: _table([table[key] for table in tables]) for key in first}
    if isinstance(first, tuple):
        return tuple(_table(parts) for parts in zip(*tables, strict=True))
    indexed = all(table.index for table in tables)
    shown = [name for name in first.shown if all(name in table.shown for table in tables)]
    return dataclasses.replace(
        first,
        index=tuple(label for table in tables for label in table.index) if indexed else (),
        shown={name: tuple(c for table in tables for c in table.shown[name]) for name in shown},
    )


def _check_alike(first: Attribution, other: Attribution, number: int) -> None:
    if other.feature_names != first.feature_names:
        raise InputError(
            f"Entry {number} has the columns {other.feature_names} and the first {first.feature_names}: give tables alike."
        )
    if other.method != first.method:
        raise InputError(
            f"Entry {number} was made by {other.method!r} and the first by {first.method!r}: maps of different methods are not joined."
            f"{_HIDDEN if repr(other.method) == repr(first.method) else ''}"
        )
    if other.normalisation != first.normalisation or other.layout != first.layout:
        raise InputError(
            f"The inputs of entry {number} are arranged or normalised otherwise than those of the first: join those that were explained alike."
        )
    if _arrangement(other.values) != _arrangement(first.values) or _arrangement(
        other.inputs
    ) != _arrangement(first.inputs):
        raise ShapeError(
            f"The maps of entry {number} are {_shown(other.values)}, those of the first {_shown(first.values)}: examples of one shape are joined."
        )
    if len(other.weights) != len(first.weights):
        raise ShapeError(
            f"Entry {number} has {len(other.weights)} references and the first {len(first.weights)}: join maps from equally many."
        )
    if other.criterion != first.criterion:
        raise InputError(
            f"The fitness of entry {number} counts {other.criterion or 'nothing'}, that of the first {first.criterion or 'nothing'}."
        )


_HIDDEN = (
    " They print alike, and differ in numbers that are not printed, such as those of a tensor."
)


def _as_printed(parts: Sequence[Attribution]) -> list[Attribution]:
    """Attributions of which some were read from files, where methods and targets are what they
    printed as: then those of all are, as if all had been read."""
    if not any(isinstance(part.method, PrintedText) for part in parts):
        return list(parts)
    return [
        dataclasses.replace(part, method=_method_text(part), target=_target_text(part.target))
        for part in parts
    ]


def _method_text(attribution: Attribution) -> PrintedText:
    text = PrintedText(repr(attribution.method))
    text.complete = attribution.claims_completeness
    return text


def _target_text(target: object) -> PrintedText:
    return target if isinstance(target, PrintedText) else PrintedText(repr(target))


def _arrangement(parts: Parts) -> Any:
    """What has to be the same for all: kinds and names of parts, their shapes and types."""
    if isinstance(parts, Tensor):
        return tuple(parts.shape[1:]), parts.dtype
    entries = parts.items() if isinstance(parts, dict) else enumerate(parts)
    return type(parts), [(name, _arrangement(part)) for name, part in entries]


def _shown(parts: Parts) -> str:
    if isinstance(parts, Tensor):
        return f"(B, {describe(parts.shape[1:])}) of {str(parts.dtype).removeprefix('torch.')}"
    entries = parts.items() if isinstance(parts, dict) else enumerate(parts)
    return f"a {type(parts).__name__} of " + ", ".join(f"{n!r} {_shown(p)}" for n, p in entries)


def _joined(parts: Sequence[Parts], axis: int) -> Parts:
    """Tensors, or what holds tensors, one after the other; nothing where one is missing."""
    if any(part is None for part in parts):
        return None
    first = parts[0]
    if isinstance(first, Tensor):
        if any(part.shape[:axis] != first.shape[:axis] for part in parts):
            return None
        return torch.cat(list(parts), axis)
    if isinstance(first, dict):
        return {name: _joined([part[name] for part in parts], axis) for name in first}
    return tuple(_joined(entries, axis) for entries in zip(*parts, strict=True))


def _notes(parts: Sequence[Attribution]) -> dict[str, Tensor]:
    """Notes that all of them have, of as many corners: (K+1, R, B)."""
    joined = {name: _joined([part.notes.get(name) for part in parts], 2) for name in parts[0].notes}
    return {name: note for name, note in joined.items() if note is not None}


def _frames(parts: Sequence[Attribution]) -> Frames | None:
    frames = [part.frames for part in parts if part.frames is not None]
    alike = all(torch.equal(frame.clock, frames[0].clock) for frame in frames)
    if len(frames) < len(parts) or not alike:
        return None
    return Frames(frames[0].clock, torch.cat([frame.points for frame in frames], 2))


def _target(parts: Sequence[Attribution]) -> Any:
    """The target of all examples: what it says of each, one after the other."""
    targets = [part.target for part in parts]
    if not isinstance(targets[0], Target):  # a text, of what was read from a file
        if all(target == targets[0] for target in targets) and not isinstance(targets[0], str):
            return targets[0]
        joined_text = _joined_text(targets, [len(part) for part in parts])
        if joined_text is not None:
            return joined_text
    else:
        joined = _joined_target(targets, [len(part) for part in parts])
        if joined is not None:
            return joined
    shown = ", ".join(sorted({repr(target) for target in targets}))
    raise InputError(f"Maps of several questions are not joined; their targets are {shown}.")


def _joined_text(texts: Sequence[Any], counts: Sequence[int]) -> Any:
    """A target that was read from files as the text it printed as; None where these differ in more
    than how many examples they hold something for."""
    first = texts[0]
    if any(type(text) is not type(first) for text in texts) or not isinstance(first, str):
        return None
    split = [_BY_EXAMPLE_ENTRY.split(text) for text in texts]
    if len({len(pieces) for pieces in split}) > 1:
        return None
    words = [_joined_words(pieces, counts) for pieces in zip(*split, strict=True)]
    return None if None in words else type(first)("".join(map(str, words)))


_BY_EXAMPLE_ENTRY = re.compile(r"(tensor<\d+>|(?<![\w.])-?\d+(?![\w.]))")
"""What may stand in a printed target for something that each example has: of one example a number."""


def _joined_words(words: Sequence[str], counts: Sequence[int]) -> str | None:
    """A piece of several printed targets as one; None where they say different things."""
    each = [
        word == f"tensor<{count}>" or (count == 1 and _BY_EXAMPLE_ENTRY.fullmatch(word) is not None)
        for word, count in zip(words, counts, strict=True)
    ]
    alike = all(word == words[0] for word in words)
    if all(each) and not (alike and "tensor" not in words[0]):
        return f"tensor<{sum(counts)}>"
    return words[0] if alike else None


def _joined_target(targets: Sequence[Any], counts: Sequence[int]) -> Target | None:
    """Targets of batches as one; None where they ask different things."""
    first: Any = targets[0]
    if any(type(target) is not type(first) for target in targets):
        return None
    if not dataclasses.is_dataclass(first):
        alike: Target = first
        return alike if all(target == first for target in targets) else None
    changes = {}
    for spec in dataclasses.fields(first):
        entries = [getattr(target, spec.name) for target in targets]
        each = [_by_example(t, spec.name, n) for t, n in zip(targets, counts, strict=True)]
        if any(_holds_each(target, spec.name) for target in targets) or not all(
            _equal(entry, entries[0]) for entry in entries
        ):
            present = [tensor for tensor in each if tensor is not None]
            if len(present) < len(each):
                return None
            changes[spec.name] = torch.cat(present)
    merged: Any = dataclasses.replace(first, **changes)  # type: ignore[type-var]
    joined: Target = merged
    return joined


def examples_named(target: Target) -> int | None:
    """How many examples a target says something of, each its own; None where it says the same of
    all."""
    parts: Any = target
    if not dataclasses.is_dataclass(parts):
        return None
    each = [spec.name for spec in dataclasses.fields(parts) if _holds_each(target, spec.name)]
    return len(getattr(target, each[0])) if each else None


def _holds_each(target: Target, name: str) -> bool:
    """Whether a field of a target is a tensor with an entry for each example."""
    entry = getattr(target, name)
    if not isinstance(entry, Tensor) or not entry.ndim:
        return False
    # Of one example more than there are: entries of two may be equal, and stay what they are.
    more = torch.zeros(len(entry) + 1, dtype=torch.long)
    return not _equal(entry, getattr(target.at(more), name))


def _by_example(target: Target, name: str, count: int) -> Tensor | None:
    """A field with an entry for each of ``count`` examples: also the class of a batch of one."""
    entry = getattr(target, name)
    if isinstance(entry, int) and not isinstance(entry, bool) and count == 1:
        return torch.tensor([entry])
    if isinstance(entry, Tensor) and (count == 1 or _holds_each(target, name)):
        return entry if len(entry) == count else None
    return None


def _equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and torch.equal(first, second)
    return type(first) is type(second) and bool(first == second)
