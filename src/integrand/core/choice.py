"""Which number of an output a target is about: a class or a position, one for all examples or one
for each.

Choices are read from what people give, checked against the outputs and the batch, and followed
where a batch is narrowed to some of its examples or laid back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import TargetError
from .shapes import describe, flattened

Index = int | Tensor | tuple[int, ...]
"""A class, a class for each example (B,), a position in a longer output, or a position for each
example (B, P)."""

ChoiceLike = SupportsIndex | Tensor | NDArray[Any] | Sequence[int | tuple[int, ...]]
"""A class as people give it: an int of any kind, or an array, list or tuple that ``Index`` takes as
a tensor or a position."""


def checked_choice(choice: object) -> Index:
    if isinstance(choice, bool):
        raise TargetError("A target class is an integer, not True or False.")
    if isinstance(choice, list) or type(choice).__module__ == "numpy":
        choice = _choices_tensor(choice)
    if isinstance(choice, Tensor):
        if (
            choice.is_floating_point()
            or choice.is_complex()
            or choice.dtype == torch.bool
            or choice.ndim > 2
        ):
            raise TargetError(
                f"Target classes are integers, one or one per example; got {choice.dtype} of shape {describe(choice.shape)}."
            )
        if choice.numel() == 1:  # one for all examples, also where it comes in a list
            return int(choice)
        classes: Tensor = choice.detach().long()
        if classes.ndim == 2 and len(classes) == 1:  # one position for all
            return tuple(classes[0].tolist())
        return classes[:, 0] if classes.ndim == 2 and classes.shape[1] == 1 else classes
    if isinstance(choice, tuple):
        if not choice or not all(_is_whole(axis) for axis in choice):
            raise TargetError(f"A position in the output is a tuple of ints, not {choice!r}.")
        return tuple(int(axis) for axis in choice)
    if not isinstance(choice, SupportsIndex):
        raise TargetError(
            f"{choice!r} is not a class: give an int, a tensor of ints, or a position."
        )
    return int(choice.__index__())


def _is_whole(number: object) -> bool:
    """Whether something is a whole number: also NumPy's, or a tensor of one, but no bool."""
    if isinstance(number, Tensor):
        return number.numel() == 1 and number.dtype not in _NOT_WHOLE and not number.is_complex()
    return isinstance(number, SupportsIndex) and not isinstance(number, bool)


_NOT_WHOLE = (torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _choices_tensor(choices: object) -> Tensor:
    """A list of classes, or of positions of one length, one for each example."""
    if isinstance(choices, list) and any(isinstance(entry, tuple | list) for entry in choices):
        lengths = {len(entry) if isinstance(entry, tuple | list) else 0 for entry in choices}
        if len(lengths) > 1:
            raise TargetError(
                f"Target positions are tuples of one length, one for each example; got lengths {', '.join(map(str, sorted(lengths)))}."
            )
    try:
        return torch.as_tensor(choices)
    except (TypeError, ValueError, RuntimeError):
        raise TargetError(
            f"Target classes are integers, one or one per example; got {choices!r}."
        ) from None


def pick(out: Tensor, choice: Index, index: Tensor) -> Tensor:
    """``out[n, which]`` for one class, a class per example, or a position in a longer output."""
    if isinstance(choice, tuple):
        _check_position(choice, choice, out)
        where: tuple[slice | int, ...] = (slice(None), *choice)
        return out[where]
    if isinstance(choice, Tensor) and choice.ndim == 2:
        _check_position(choice.unbind(1), tuple(choice[0].tolist()), out)
        place = _flat_positions(choice, out.shape[1:])[index.to(choice.device)]
        return flattened(out, 1).gather(1, place.to(out.device))[:, 0]
    if out.ndim != 2:
        raise TargetError(
            f"One output has shape {describe(out.shape[1:])}, so a class alone does not name a number: "
            "give a tuple with a position for each axis, or a callable."
        )
    _check_class(choice, out.shape[1])
    if isinstance(choice, int):
        return out[:, choice]
    chosen = (choice.to(out.device) % out.shape[1])[index.to(out.device)]
    return out.gather(1, chosen[:, None])[:, 0]


def _check_class(index: int | Tensor, classes: int) -> None:
    extremes = [int(i) for i in index.aminmax()] if isinstance(index, Tensor) else [index]
    wrong = next((i for i in extremes if not -classes <= i < classes), None)
    if wrong is not None:
        raise TargetError(
            f"Target class {wrong} does not exist: the model has {classes} classes, 0 to {classes - 1}."
        )


def _check_position(position: Sequence[int | Tensor], shown: tuple[int, ...], out: Tensor) -> None:
    """Whether one output has as many axes as a position has places, and each place."""
    if len(position) != out.ndim - 1:
        raise TargetError(
            f"Target {shown} has {len(position)} positions, but one output has shape {describe(out.shape[1:])}: "
            f"give {out.ndim - 1}."
        )
    for axis, place in enumerate(position):
        _check_class(place, out.shape[1 + axis])


def _flat_positions(positions: Tensor, shape: torch.Size) -> Tensor:
    """Positions (B, P) as places in the output laid flat (B, 1)."""
    place = torch.zeros_like(positions[:, :1])
    for axis, size in enumerate(shape):
        place = place * size + (positions[:, axis : axis + 1] % size)
    return place


def check_length(choice: Index, batch: int) -> None:
    """Whether classes or positions of each example are as many as there are examples."""
    if isinstance(choice, Tensor) and len(choice) != batch:
        kind = "positions" if choice.ndim == 2 else "classes"
        raise TargetError(
            f"The target names {len(choice)} {kind} for {batch} examples: give one for each, or one for all."
        )


def choice_at(choice: Index, index: Tensor) -> Index:
    return choice[index.to(choice.device)] if isinstance(choice, Tensor) else choice


def scatter_choice(choice: Index, index: Tensor) -> Index:
    return scatter_to_batch(choice, index) if isinstance(choice, Tensor) else choice


def scatter_to_batch(entries: Tensor, index: Tensor) -> Tensor:
    """Entries of B examples at their places ``index`` in a batch; zeros for the others, which are
    never looked up."""
    index = index.to(entries.device)
    batch_entries = entries.new_zeros(int(index.max()) + 1, *entries.shape[1:])
    batch_entries[index] = entries
    if not torch.equal(batch_entries[index], entries):
        raise TargetError(
            "The target says different things of an example that the batch holds twice: explain the two apart."
        )
    return batch_entries
