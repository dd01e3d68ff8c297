"""Pairs of prompts, and F of the model's logits.

    clean     Mary and John went … John gave a drink to     ──▶ F(clean)
    corrupt   Mary and John went … Mary gave a drink to     ──▶ F(corrupt)

Prompts are compared position by position, so those of a pair have as many tokens. Pairs of the same
length share model calls; there is no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backprop.modified.base import During
from ..core.shapes import describe
from ..errors import InputError, TargetError
from ..targets import Custom, Target, as_target, output_tensor
from ..text.batch_questions import Questions, ask, passes
from ..text.encoding import (
    Encoded,
    check_tokenizer,
    encode,
    encoded_ids,
    listed_texts,
)
from ..text.forward import OutputReader
from ..text.layout import Row
from ..text.models import CAUSAL, OTHER, LanguageModel, Tokenizer, TokenizerLike, tokenizer_of
from ..text.questions import Asker
from ..text.targets import Continuation, NextToken, Span

Ids = Tensor | NDArray[np.integer[Any]] | Sequence[int]
"""Token ids (T)."""

Prompts = str | Sequence[str] | Ids | Sequence[Ids]
"""A prompt or several: texts, or token ids (T), (B, T)."""

Metric = (
    Target
    | NextToken
    | Continuation
    | Span
    | Sequence[NextToken | Continuation | Span]
    | Callable[[Tensor], Tensor]
)
"""F: a target of texts, or one for each pair; a target of outputs; or a function of the logits
(N, T, V) of N rows that returns N numbers."""

_TEXT_TARGETS = (NextToken, Continuation, Span)


@dataclass(frozen=True, eq=False)
class _OfLogits:
    """A user's function of logits, as a target of outputs has it."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, outputs: object) -> Tensor:
        logits = output_tensor(outputs)
        half = logits.dtype in (torch.float16, torch.bfloat16)
        return self.function(logits.float() if half else logits)

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


@dataclass(frozen=True, eq=False)
class Group:
    """Pairs that share model calls, for all have T tokens.

    Attributes:
        numbers: (P,) of the pairs.
        clean: what the model is run on for the clean prompts, an entry for each pair.
        corrupt: the same for the corrupt ones.
    """

    reader: OutputReader
    target: Target
    numbers: Tensor
    clean: dict[str, Tensor]
    corrupt: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def tokens(self) -> int:
        """How many tokens the model reads of each."""
        return int(self.clean["ids"].shape[1])

    def at(self, rows: Tensor) -> Group:
        """Some of its pairs, each as often as it is named."""

        def picked(arranged: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: entries[rows.to(entries.device)] for name, entries in arranged.items()}

        return Group(
            self.reader,
            self.target,
            self.numbers[rows],
            picked(self.clean),
            picked(self.corrupt),
        )

    def value(self, *, corrupt: bool = False, during: During = nullcontext) -> Tensor:
        """F (N,) of the clean prompts, or of the corrupt ones, as the model runs now; ``during`` is
        for the model's operations alone.

        Raises:
            TargetError: where the metric returns anything else than a number for each row.
        """
        arranged = self.corrupt if corrupt else self.clean
        vectors = self.reader.language_model.vectors(arranged["given"])
        entries = {name: arranged[name] for name in arranged if name != "given"}
        with during():
            outputs = self.reader(vectors, [entries])
        numbers = self.target(outputs, self.numbers)
        if not isinstance(numbers, Tensor) or numbers.shape != self.numbers.shape:
            got = describe(numbers.shape) if isinstance(numbers, Tensor) else repr(numbers)
            raise TargetError(
                f"The metric is one number for each row: of logits of {len(self)} rows it returns {got}."
            )
        return numbers


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs.

    Attributes:
        groups: those of one length each.
        count: how many pairs there are.
        metric: F, to readers.
    """

    groups: tuple[Group, ...]
    count: int
    metric: str


def pairs_of(
    model: LanguageModel,
    clean: Prompts,
    corrupt: Prompts,
    metric: Metric,
    tokenizer: TokenizerLike | None,
    *,
    described: bool,
) -> Pairs:
    """Clean and corrupt prompts, and F; of a model that the user has ``described`` it is enough that
    it is of no other kind.

    Raises:
        InputError: for prompts of a pair that have different numbers of tokens.
        TargetError: for metrics of another kind of model.
    """
    if model.kind not in ((CAUSAL, OTHER) if described else (CAUSAL,)):
        raise InputError(
            f"Circuits are found in causal language models, and {model.name} is a {model.kind}: a decoder of your own needs architecture=."
        )
    named = None if tokenizer is None else tokenizer_of(tokenizer, model.module)
    if named is not None:
        check_tokenizer(named, model)
    texts = [_encoded(prompts, named, model) for prompts in (clean, corrupt)]
    if len(texts[0]) != len(texts[1]):
        raise InputError(
            f"There are {len(texts[0])} clean prompts and {len(texts[1])} corrupt ones: give a pair of each."
        )
    for number, (first, second) in enumerate(zip(*texts, strict=True)):
        if len(first) != len(second):
            raise InputError(
                f"Pair {number} has a clean prompt of {len(first)} tokens and a corrupt one of {len(second)}: circuits compare position by "
                "position, so give prompts of equal length."
            )
    asker = Asker(model, named)
    questions = _questions(metric, texts[0], asker)
    return Pairs(
        tuple(_groups(texts, questions, asker)),
        len(texts[0]),
        repr(questions.target),
    )


def in_words(prompts: object) -> bool:
    """Whether prompts are texts, and not token ids."""
    if isinstance(prompts, str):
        return True
    return isinstance(prompts, Sequence) and any(isinstance(entry, str) for entry in prompts)


def _encoded(prompts: Any, tokenizer: Tokenizer | None, model: LanguageModel) -> list[Encoded]:
    if isinstance(prompts, Mapping) or not isinstance(prompts, Sequence | Tensor | np.ndarray):
        advice = ": give its 'input_ids', without padding" if isinstance(prompts, Mapping) else ""
        raise InputError(
            f"Prompts are texts, or token ids (T) or (B, T), not a {type(prompts).__name__}{advice}."
        )
    if in_words(prompts):
        if tokenizer is None:
            raise InputError("Prompts in words need tokenizer=; without one give token ids.")
        return [encode(tokenizer, text, model) for text in listed_texts(prompts)]
    rows = _rows_of_ids(prompts)
    _check_padding(rows, model)
    return [encoded_ids(row, (), tokenizer, model) for row in rows]


def _rows_of_ids(prompts: Any) -> list[list[int]]:
    """Token ids as lists, one for each prompt."""
    if isinstance(prompts, Tensor | np.ndarray):
        ids = torch.as_tensor(prompts)
        if ids.is_floating_point() or ids.ndim not in (1, 2) or not ids.numel():
            raise InputError(
                f"Token ids are whole numbers (T) or (B, T), not {ids.dtype} {describe(ids.shape)}."
            )
        prompts = ids.tolist()
    listed: list[Any] = [
        row.tolist() if isinstance(row, Tensor | np.ndarray) else row for row in prompts
    ]
    if not listed:
        raise InputError("There are no prompts: give one pair at least.")
    rows: list[Any] = listed if isinstance(listed[0], Sequence) else [listed]
    if not all(isinstance(row, Sequence) and row and _all_ids(row) for row in rows):
        raise InputError("A prompt is a text, or a list of token ids that holds one at least.")
    return [list(row) for row in rows]


def _all_ids(row: Sequence[Any]) -> bool:
    return all(type(token) is int for token in row)


def _check_padding(rows: Sequence[Sequence[int]], model: LanguageModel) -> None:
    """Check that prompts of token ids are not padded, for the model would read padding as text."""
    pad = model.setting("pad_token_id")
    marks = [model.setting(name) for name in ("bos_token_id", "eos_token_id")]
    used = [entry for mark in marks for entry in (mark if isinstance(mark, list) else [mark])]
    if pad is None or pad in used or len(rows) == 1:
        return
    padded = next((n for n, row in enumerate(rows) if pad in (row[0], row[-1])), None)
    if padded is not None:
        raise InputError(
            f"Prompt {padded} has padding (token {pad}) at its end or its beginning: give lists of token ids without padding, pairs of "
            "different lengths go together."
        )


def _questions(metric: Metric, texts: Sequence[Encoded], asker: Asker) -> Questions:
    listed = isinstance(metric, list | tuple) and all(isinstance(m, _TEXT_TARGETS) for m in metric)
    if isinstance(metric, _TEXT_TARGETS) or listed:
        questions = ask([*metric] if isinstance(metric, list | tuple) else metric, texts, asker)
        if len(questions.questions[0].passes) != 1:
            raise TargetError(
                "Two continuations of different length are read in two passes, which have no stream in common: compare tokens that follow the "
                "same words."
            )
        return questions
    if not isinstance(metric, Target) and callable(metric):
        return Questions(Custom(_OfLogits(metric)))
    if not isinstance(metric, Target):
        raise TargetError(
            "metric= is ig.text.NextToken, Continuation or Span (or a list, one for each pair), an ig.targets value, or a function of the "
            "logits (N, T, V) that returns N numbers."
        )
    if metric.site is not None:
        raise TargetError("The metric of a circuit is one of logits, not of a layer.")
    metric.check_batch(len(texts))
    return Questions(as_target(metric))


def _groups(
    texts: Sequence[Sequence[Encoded]], questions: Questions, asker: Asker
) -> Iterator[Group]:
    kinds: dict[tuple[int, int], list[int]] = {}
    for number, text in enumerate(texts[0]):
        asked = questions.questions[number].passes[0] if questions.questions else None
        kinds.setdefault((len(text), len(asked.tail) if asked else 0), []).append(number)
    for numbers in kinds.values():
        group_questions = questions.at(numbers) if questions.questions else questions
        arranged = []
        for side in texts:
            rows = [Row(side[i].ids, tuple(range(len(side[i])))) for i in numbers]
            (entries,) = passes(group_questions, rows, asker.model, asker.pad)
            given = torch.tensor([row.ids for row in rows], device=asker.model.device)
            arranged.append({**entries, "given": given})
        reader = OutputReader(asker.model, group_questions.score)
        yield Group(reader, group_questions.target, torch.tensor(numbers), *arranged)
