"""Which tokens stay as they are: special ones, those of a chat template, the first, or any by number.

The first token is where attention rests in causal models: moved, it changes everything at once, and
the integral takes many times the nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.shapes import describe
from ..errors import InputError, UnknownName
from .batch_questions import Questions
from .encoding import Encoded

Keep = str | Tensor | Sequence[int] | Sequence[Tensor] | None
"""Which tokens stay as they are: words joined by "+", positions, a mask, or a list of positions or a
mask for each text."""

KEEP = ("special", "template", "first", "none")
_ROWS = (list, tuple, Tensor, np.ndarray)
_EACH = -1  # in place of how many texts there are: what is given is of one of them
_NO_KEEP = "keep is words joined by '+', such as 'special+first', positions counted from 0, or a mask, not {!r:.60}."


def kept_tokens(
    texts: Sequence[Encoded], keep: Keep, questions: Questions
) -> list[tuple[bool, ...]]:
    """(T,) of each text: whether a token stays as it is.

    Raises:
        UnknownName: for a word that says nothing.
        InputError: for positions that a text does not have, masks of another shape, and where
            nothing would move.
    """
    kept = []
    for number, text in enumerate(texts):
        stays = _kept(text, keep, number, len(texts))
        behind = questions.stays(number)
        if behind is not None:
            stays = [stay or i >= behind for i, stay in enumerate(stays)]
        if all(stays):
            raise InputError(
                f"No token of text {number} moves, so that there is nothing to explain: all {len(text)} are kept (keep={keep!r})."
            )
        kept.append(tuple(stays))
    return kept


def kept_in_prompt(prompt: Encoded, keep: Keep, count: int) -> Keep:
    """The same for the prompt's first ``count`` tokens with whatever follows them: positions and
    masks, which are of the prompt, as positions from its start."""
    if keep is None or isinstance(keep, str):
        return keep
    return [i for i, stays in enumerate(_kept(prompt, keep, 0, 1)) if stays and i < count]


def _kept(text: Encoded, keep: Keep, number: int, batch: int) -> list[bool]:
    if keep is None:
        return [False] * len(text)
    if isinstance(keep, str):
        return _by_words(text, keep)
    several = isinstance(keep, list | tuple) and any(isinstance(entry, _ROWS) for entry in keep)
    if several and batch != _EACH:
        if len(keep) != batch:
            raise InputError(
                f"There are {len(keep)} lists of tokens to keep for {batch} texts: give one for each."
            )
        of_text: Any = keep[number]
        return _kept(text, of_text, number, _EACH)
    try:
        keep_tensor = torch.as_tensor(keep)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(_NO_KEEP.format(keep)) from error
    if keep_tensor.numel() and (keep_tensor.is_floating_point() or keep_tensor.is_complex()):
        raise InputError(_NO_KEEP.format(keep))
    if keep_tensor.dtype == torch.bool:
        return _by_mask(text, keep_tensor, number, batch)
    positions = [int(place) for place in keep_tensor.flatten().tolist()]
    wrong = next((place for place in positions if not -len(text) <= place < len(text)), None)
    if wrong is not None:
        raise InputError(
            f"There is no token {wrong} to keep: text {number} has {len(text)}, counted from 0."
        )
    places = {place % len(text) for place in positions}
    return [i in places for i in range(len(text))]


def _by_words(text: Encoded, keep: str) -> list[bool]:
    words = [word.strip() for word in keep.split("+")]
    for word in words:
        if word not in KEEP:
            raise UnknownName("kind of token to keep", word, KEEP)
    return [
        ("special" in words and text.special[i])
        or ("template" in words and text.template[i])
        or ("first" in words and i == 0)
        for i in range(len(text))
    ]


def _by_mask(text: Encoded, keep: Tensor, number: int, batch: int) -> list[bool]:
    mask = keep[number] if keep.ndim == 2 and len(keep) == batch else keep
    if mask.shape[:1] != (len(text),) or mask.ndim != 1:
        raise InputError(
            f"A mask of kept tokens has shape {describe(keep.shape)}, and text {number} has {len(text)} tokens: give an entry for each token, "
            "without padding."
        )
    return [bool(stay) for stay in mask.tolist()]
