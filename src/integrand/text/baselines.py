"""Where paths begin, in words: "mean", "zero", "pad", "mask", "unk", another text, sampled contexts.

references (R, B, T, D) = the word's vectors where tokens move, the text's own where they stay
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..baselines import Baseline, Given, as_baseline
from ..core.random import generator
from ..core.shapes import describe
from ..core.values import part
from ..errors import BaselineError, OneTokenWarning, UnknownName, warn
from ..fields import Field
from .encoding import Encoded, TextLike, check_tokens, encode, listed_texts
from .layout import Row
from .models import LanguageModel

WORDS = ("mean", "zero", "pad", "mask", "unk")

BaselineLike = Any
"""A word, a ``Corrupt``, a ``Sampled``, vectors (D), (T, D) or (B, T, D), whatever ``ig.explain``
takes, or a list of these."""


@part
class Corrupt:
    """Another text of as many tokens: what is explained is the difference between the two.

    Tokens that are the same in both do not move and get nothing. Where a single token differs it
    gets the whole change, whatever the model does with it: such a pair is for layers, heads and
    edges, and ranks no tokens.

    Args:
        text: a text, pair or chat, or token ids (T,); a list of them for several texts.

    Example:
        >>> import integrand as ig
        >>> ig.text.Corrupt("The capital of Italy is")
        Corrupt('The capital of Italy is')
    """

    text: Any


@part
class Sampled:
    """Contexts of tokens that are drawn by chance: several references.

    Every token that moves becomes one drawn from ``pool``, a list of texts, or evenly from the
    vocabulary without special tokens. ``method="weighted"`` weighs the contexts by how well their
    maps find the tokens that matter.

    Args:
        count: how many contexts.
        pool: texts whose tokens are drawn from, as often as they occur there.
        seed: of the draws.

    Example:
        >>> import integrand as ig
        >>> ig.text.Sampled(8, seed=1)
        Sampled(seed=1)
    """

    count: int = 8
    pool: Sequence[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BaselineError(f"Sampled contexts are 1 or more, not {self.count}.")
        if isinstance(self.pool, str):
            raise BaselineError(
                f"pool is a list of texts that tokens are drawn from, not a text: pool=[{self.pool[:40]!r}]."
            )


@dataclass(frozen=True)
class Batch:
    """Texts as they are explained, for baselines to be made of.

    Attributes:
        model, tokenizer: that read them.
        texts: as tokens.
        rows: their slots.
        vectors: (B, T, D) of the slots.
        moves: (B, T) whether a slot's token may move.
    """

    model: LanguageModel
    tokenizer: Any
    texts: Sequence[Encoded]
    rows: Sequence[Row]
    vectors: Tensor
    moves: Tensor

    def kept(self, references: Tensor) -> Tensor:
        """References (R, B, T, D) with the text's own vectors where nothing moves."""
        return torch.where(self.moves[..., None], references.to(self.vectors), self.vectors)


def references_of(baseline: BaselineLike, batch: Batch) -> Baseline:
    """A baseline in words, as the vectors that paths begin at.

    Raises:
        UnknownName: for a word that is none.
        BaselineError: for tokens that a tokenizer does not have, texts of another length, and
            vectors of another shape.
    """
    if isinstance(baseline, list):
        if not baseline:
            raise BaselineError("The list of baselines is empty: give one at least.")
        parts = [references_of(entry, batch) for entry in baseline]
        if all(isinstance(entry, Given) for entry in parts):
            references = [entry.references for entry in parts if isinstance(entry, Given)]
            names = [
                name
                for entry in parts
                if isinstance(entry, Given)
                for name in entry.names or (entry.label,) * len(entry.references)
            ]
            return Given(torch.cat(references), "several", tuple(names))
        raise BaselineError(
            "A list of baselines holds words, texts and vectors: give another baseline by itself."
        )
    if isinstance(baseline, str):
        return _in_words(baseline, batch)
    if isinstance(baseline, Corrupt):
        return _corrupt(baseline, batch)
    if isinstance(baseline, Sampled):
        return _sampled(baseline, batch)
    if isinstance(baseline, Tensor):
        return Given(batch.kept(_vectors(baseline, batch)), "given vectors")
    if isinstance(baseline, int | float):
        return Given(
            batch.kept(torch.full_like(batch.vectors, float(baseline))[None]), f"{baseline:g}"
        )
    return Kept(as_baseline(baseline), batch.moves)


@part
class Kept(Baseline):
    """A baseline that leaves some tokens of each text as they are."""

    baseline: Baseline
    moves: Tensor

    @property
    def label(self) -> str:
        return str(self.baseline.label)

    @property
    def count(self) -> int | None:
        return self.baseline.count

    @property
    def names(self) -> tuple[str, ...]:
        return self.baseline.names

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        return torch.where(self.moves[..., None], self.baseline(x, field), x)


# --- words ------------------------------------------------------------------------------------------------------------


def _in_words(word: str, batch: Batch) -> Given:
    if word == "corrupt":
        raise BaselineError(
            "Which text is the corrupt one? Give it: baseline=ig.text.Corrupt('another text of as many tokens')."
        )
    if word == "sampled":
        return _sampled(Sampled(), batch)
    vector = _word_vectors(batch).get(word)
    if vector is None:
        raise UnknownName("baseline of texts", word, (*WORDS, "sampled"))
    references = vector().expand(1, *batch.vectors.shape)
    return Given(batch.kept(references), f"{word} embedding")


def _word_vectors(batch: Batch) -> dict[str, Callable[[], Tensor]]:
    def of_token(name: str) -> Tensor:
        number = getattr(batch.tokenizer, f"{name}_token_id", None)
        if number is None:
            number = batch.model.setting(f"{name}_token_id")
        if number is None:
            raise BaselineError(
                f"There is no {name} token: the tokenizer has none. Take baseline='mean', or a vector."
            )
        rows = batch.model.rows
        if number < 0 or (rows is not None and number >= rows):
            raise BaselineError(
                f"The {name} token is {number}, and the embedding table of {batch.model.name} has {rows} rows. Take baseline='mean', or a vector."
            )
        return batch.model.vectors(torch.tensor([int(number)]))[0]

    return {
        "mean": lambda: batch.model.mean,
        "zero": lambda: torch.zeros_like(batch.vectors[0, 0]),
        **{name: lambda name=name: of_token(name) for name in ("pad", "mask", "unk")},  # type: ignore[misc]
    }


def _vectors(value: Tensor, batch: Batch) -> Tensor:
    """Vectors as they were given, as references (R, B, T, D)."""
    shape = batch.vectors.shape
    fits = [shape[2:], shape[1:], shape]
    if value.shape in fits:
        return value.expand(1, *shape)
    if value.ndim == 4 and value.shape[1:] == shape:
        return value
    if value.ndim == 0:
        return value.expand(1, *shape)
    raise BaselineError(
        f"A baseline of shape {describe(value.shape)} does not fit texts of {shape[1]} tokens and vectors of {shape[2]}: give vectors "
        f"{describe(shape[2:])} for all tokens, {describe(shape[1:])} for each, or {describe(shape)} for each text."
    )


# --- other texts ------------------------------------------------------------------------------------------------------


def _corrupt(baseline: Corrupt, batch: Batch) -> Given:
    others = _other_ids(baseline, batch)
    references = batch.vectors.clone()
    for number, (row, ids, text) in enumerate(zip(batch.rows, others, batch.texts, strict=True)):
        tokens = row.tokens
        if len(ids) != len(tokens):
            raise BaselineError(
                f"The corrupt text has {len(ids)} tokens, and text {number} has {len(tokens)}: tokens are exchanged one for one, so give "
                "prompts of equal length."
            )
        check_tokens(ids, batch.model)
        differing = [k for k, (a, b) in enumerate(zip(tokens, ids, strict=True)) if a != b]
        if not differing:
            raise BaselineError(f"The corrupt text of text {number} is the text itself.")
        moves = batch.moves[number]
        differing = [k for k in differing if bool(moves[row.real[k]])]
        if not differing:
            raise BaselineError(
                f"The corrupt text of text {number} differs in tokens that are kept in place only, so that there is nothing to explain: keep "
                "fewer (keep=), or corrupt others."
            )
        if len(differing) == 1:
            warn(
                f"The corrupt text differs from text {number} in one token, {text.tokens[differing[0]]!r}, which gets the whole change by "
                "construction: such a pair says which layers, heads and edges matter, and not which tokens.",
                OneTokenWarning,
            )
        slots = torch.tensor(row.real, device=references.device)[differing]
        references[number, slots] = batch.model.vectors(torch.tensor(ids)[differing])
    return Given(batch.kept(references[None]), "corrupt text")


def _other_ids(baseline: Corrupt, batch: Batch) -> list[list[int]]:
    given = baseline.text
    count = len(batch.texts)
    if isinstance(given, Tensor | np.ndarray):
        given = given.tolist()
    if _are_ids(given):
        others: list[list[int]] = [list(given)]
    elif isinstance(given, list) and given and all(map(_are_ids, given)):
        others = [list(ids) for ids in given]
    else:
        if batch.tokenizer is None:
            raise BaselineError("Without a tokenizer the corrupt text is given as token ids.")
        texts: list[TextLike] = listed_texts(given)
        others = [list(encode(batch.tokenizer, text).ids) for text in texts]
    if len(others) == 1:
        others = others * count
    if len(others) != count:
        raise BaselineError(
            f"There are {len(others)} corrupt texts for {count} texts: give one for each."
        )
    return others


def _are_ids(given: object) -> bool:
    return (
        isinstance(given, list | tuple)
        and bool(given)
        and all(isinstance(token, int) and not isinstance(token, bool) for token in given)
    )


def _sampled(baseline: Sampled, batch: Batch) -> Given:
    pool = _pool(baseline, batch)
    references = batch.vectors.expand(baseline.count, *batch.vectors.shape).clone()
    for number, moves in enumerate(batch.moves):
        slots = moves.nonzero()[:, 0]
        # The same draws for every text, so that a batch is what single runs are.
        chance = generator(baseline.seed)
        drawn = pool[torch.randint(len(pool), (len(slots), baseline.count), generator=chance)]
        references[:, number, slots] = batch.model.vectors(drawn.T).to(references)
    names = tuple(f"context {number + 1}" for number in range(baseline.count))
    return Given(references, "sampled contexts", names)


def _pool(baseline: Sampled, batch: Batch) -> Tensor:
    """The ids that contexts are drawn from."""
    special = set() if batch.tokenizer is None else set(batch.tokenizer.all_special_ids)
    if baseline.pool is None:
        count = batch.model.rows
        if count is None:
            raise BaselineError("The vocabulary is not known: give pool= texts.")
        if batch.tokenizer is not None:
            count = min(count, len(batch.tokenizer))  # rows behind it are never trained
        ids = [number for number in range(count) if number not in special]
    else:
        if batch.tokenizer is None:
            raise BaselineError("Without a tokenizer a pool of texts has no tokens: leave it out.")
        ids = [
            token
            for text in baseline.pool
            for token in batch.tokenizer(text, add_special_tokens=False)["input_ids"]
            if token not in special
        ]
    if not ids:
        raise BaselineError("There are no tokens to draw contexts from.")
    return torch.tensor(ids)
