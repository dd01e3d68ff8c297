"""Classes by their labels, of models that know what their classes are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

from ..errors import LabelWarning, TargetError, warn
from ..targets import Output, Target, TargetLike, as_target


def class_target(target: TargetLike | None, labels: Sequence[object], name: str) -> Target:
    """The target of a model with ``labels``: a word is a label, an int the place of a class.

    A model whose labels are other whole numbers than the places is warned of, once an int comes:
    of classes labelled 1 and 2 the class in place 1 is the one called 2.

    Raises:
        TargetError: for a word that is no label.
    """
    if target is None:
        return Output()
    words = [str(label) for label in labels]
    if isinstance(target, str):
        if target not in words:
            known = f": its classes are {', '.join(map(repr, words))}" if words else ""
            raise TargetError(f"{name} has no class {target!r}{known}.")
        return as_target(words.index(target))
    if isinstance(target, SupportsIndex) and _are_other_numbers(labels):
        place = int(target.__index__())
        if -len(labels) <= place < len(labels):
            warn(
                f"target={place} is the class in place {place} of {name}, which is labelled {words[place]!r}; its labels are "
                f"{', '.join(words)}. Call it by its label, target={words[place]!r}, to be sure.",
                LabelWarning,
            )
    return as_target(target)


def _are_other_numbers(labels: Sequence[object]) -> bool:
    """Whether labels are whole numbers, and not the places 0, 1, 2, …"""
    numbers = [
        int(label.__index__())
        for label in labels
        if isinstance(label, SupportsIndex) and not isinstance(label, bool)
    ]
    return len(numbers) == len(labels) and numbers != list(range(len(labels)))
