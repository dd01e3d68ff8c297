"""Texts as vectors of their tokens, and what recipes may say of them.

Texts come one at a time, at their own length: a share of their tokens is then a share of words that
are there, and no method spends gradients on padding.

    of the problem   ``padding`` and ``one``, ``mean``, ``zero``; ``masked`` and ``unknown`` where there are
                     such tokens;
                     ``vectors`` of all words and their ``neighbours``; ``low``, ``high``; ``attention``
    of the text      ``several`` (mean, padding, masked or else zero, two noises, another text),
                     ``references(n)`` and ``others(n)``, texts of as many tokens of which the model
                     says something else; ``distance``, how far another text is on average
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...baselines import Constant, Gaussian, OtherClass, Relevant
from ...errors import InputError
from ...paths import NeighbourGraph
from ..attention import Attends
from .base import Examples

POOL = 16
"""Other texts of as many tokens that a text's counterfactuals are chosen from."""


def same_length(texts: Sequence[Tensor], length: int, count: int = POOL) -> Tensor:
    """The first texts (T,) that have so many tokens, then the first longer ones, cut: (count, length).

    Raises:
        InputError: where there are fewer.
    """
    fitting = [text for text in texts if len(text) == length][:count]
    longer = (text for text in texts if len(text) > length)
    fitting += [text[:length] for text, _ in zip(longer, range(count - len(fitting)), strict=False)]
    if len(fitting) < count:
        raise InputError(
            f"Only {len(fitting)} texts have {length} tokens or more, and {count} are to be chosen from: give longer ones."
        )
    return torch.stack(fitting)


def by_length(texts: Sequence[Tensor], most: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Texts (T,) in batches of one length: their numbers (N,), and themselves (N, T)."""
    groups: dict[int, list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault(len(text), []).append(number)
    for _, numbers in sorted(groups.items()):
        for first in range(0, len(numbers), most):
            chosen = numbers[first : first + most]
            yield torch.tensor(chosen), torch.stack([texts[number] for number in chosen])


def problem_words(
    table: Tensor,
    padding: int,
    neighbours: NeighbourGraph,
    attention: Attends,
    masked: int | None = None,
    unknown: int | None = None,
) -> dict[str, Any]:
    """Words of a problem whose tokens are rows of ``table`` (V, D)."""
    start = Constant(table[padding][None], label="padding")
    special = {"masked": (masked, "[MASK]"), "unknown": (unknown, "[UNK]")}
    return {
        **{
            name: Constant(table[number][None], label=label)
            for name, (number, label) in special.items()
            if number is not None
        },
        "one": start,
        "padding": start,
        "mean": Constant(table.mean(0, keepdim=True), label="mean vector"),
        "zero": Constant(0.0),
        "vectors": table,
        "neighbours": neighbours,
        "low": float(table.min()),
        "high": float(table.max()),
        "attention": attention,
    }


def text_examples(
    rows: Sequence[Tensor],
    pool: Sequence[Tensor],
    table: Tensor,
    words: dict[str, Any],
    seed: int,
) -> Examples:
    """Texts (T,) of one length with their own words; ``pool`` are the texts that others are chosen from.

    Raises:
        InputError: for texts of several lengths.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise InputError(
            f"Texts of {sorted(lengths)} tokens cannot share a batch: a recipe takes them one at a time, with batch = 1."
        )
    x = table[torch.stack(list(rows))]
    others = table[same_length(pool, lengths.pop())]
    another = OtherClass(others, 1, seed, label="another text")
    spread = float(table.std())
    third = words.get("masked", words["zero"])
    noises = [Gaussian(spread), Gaussian(spread, seed=1)]
    apart = (x[:, None] - others).flatten(2).norm(dim=2)
    return Examples(
        x,
        words={
            "several": [words["mean"], words["padding"], third, *noises, another],
            "references": lambda count=2: Relevant(others, count, seed=seed),
            "others": lambda count=2: OtherClass(others, count, seed),
            "distance": float(apart.mean()),
        },
    )
