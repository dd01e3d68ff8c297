"""Questions to several texts, as what a model is run on and a target of its answers.

texts, target ──▶ Questions: score, passes (a dict of tensors (B, …) each), targets for the field
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, TargetError
from ..targets import Target, as_target
from .encoding import Encoded
from .layout import Row, sequences
from .models import CLASSIFIER, MASKED, SEQ2SEQ, TAGGER, LanguageModel
from .questions import (
    Ask,
    Asker,
    Question,
    TextAnswer,
    alike,
    default_target,
    label_name,
    label_number,
)
from .targets import Continuation, MaskedToken, NextToken, Span, TextTarget, TokenLabel


@dataclass(frozen=True)
class Questions:
    """What is asked of B texts.

    Attributes:
        target: what ``ig.explain`` is asked of the model's outputs, or answers.
        questions: a question for each text; empty where the target is one of the model's outputs.
    """

    target: Any
    questions: tuple[Question, ...] = ()

    @property
    def score(self) -> str | None:
        """What an answer is; None where outputs are explained."""
        if not self.questions:
            return None
        score = self.questions[0].score
        return "log-probability" if score == "log-odds" else score

    @property
    def count(self) -> int:
        """How many answers the longest question has."""
        return max((len(question.columns) for question in self.questions), default=1)

    def columns(self) -> list[TextAnswer]:
        """Targets that are one answer each."""
        return [replace(self.target, column=number) for number in range(self.count)]

    def words(self, model: LanguageModel, batch: int, target: object) -> tuple[str, ...]:
        """F of each text, to readers; ``target`` is that of the attribution."""
        if self.questions:
            return tuple(question.words for question in self.questions)
        return tuple(_target_words(model, target, number) for number in range(batch))

    def stays(self, number: int) -> int | None:
        """From which token on a text stays as it is."""
        return self.questions[number].stays if self.questions else None

    def places(self, batch: int) -> list[tuple[tuple[int, ...], ...]]:
        """Where the model is asked, in each forward pass of each text."""
        if not self.questions:
            return [()] * batch
        return [tuple(ask.positions for ask in question.passes) for question in self.questions]

    def at(self, order: Sequence[int]) -> Questions:
        """Those of the texts in another order."""
        if self.questions:
            return replace(self, questions=tuple(self.questions[i] for i in order))
        if isinstance(self.target, str):
            return self
        return replace(self, target=as_target(self.target).at(torch.tensor(order)))


def ask(
    target: object, texts: Sequence[Encoded], asker: Asker, *, per_token: bool = False
) -> Questions:
    """What a target means for texts.

    Raises:
        TargetError: for targets of another kind of model, and for another number of targets than
            texts.
    """
    model = asker.model
    if per_token:
        several = _for_each_token(target, texts, asker)
        if several is not None:
            return _answers(several)
    targets = _listed(target, texts, model)
    if targets is not None:
        pairs = zip(targets, texts, strict=True)
        return _answers([asker.question(target, text) for target, text in pairs])
    if per_token:
        raise TargetError(
            "per_token=True asks about each token of a continuation, of a span, or of a token classifier's text: this target is one number."
        )
    return Questions(_output_target(target, model))


def _answers(questions: Sequence[Question]) -> Questions:
    questions = alike(questions)
    words = {question.words for question in questions}
    score = questions[0].score
    name = words.pop() if len(words) == 1 else f"{score} of each text's own words"
    return Questions(TextAnswer(name, score), tuple(questions))


def _listed(target: Any, texts: Sequence[Encoded], model: LanguageModel) -> list[TextTarget] | None:
    """A target of ours for each text; None where the target is one of the model's outputs."""
    several = isinstance(target, list) and not all(isinstance(entry, int) for entry in target)
    if several:
        if len(target) != len(texts):
            raise TargetError(
                f"There are {len(target)} targets for {len(texts)} texts: give one for each, or one for all."
            )
        resolved = [_ours(entry, model) for entry in target]
        if any(entry is None for entry in resolved):
            return None
        return [entry for entry in resolved if entry is not None]
    if isinstance(target, list) and model.generates and len(target) == len(texts):
        return [NextToken(int(entry)) for entry in target]
    shared = _ours(target, model)
    return None if shared is None else [shared] * len(texts)


def _ours(target: object, model: LanguageModel) -> TextTarget | None:
    target = default_target(model, target)
    if model.kind == TAGGER and isinstance(target, tuple) and len(target) == 2:
        return TokenLabel(*target)
    kinds = (NextToken, Continuation, Span, MaskedToken, TokenLabel)
    return target if isinstance(target, kinds) else None


def _output_target(target: object, model: LanguageModel) -> Any:
    """A target of the model's outputs, its classes as numbers."""
    target = default_target(model, target)
    if isinstance(target, str) and target != "predicted":
        return label_number(model, target)
    if isinstance(target, list) and any(isinstance(entry, str) for entry in target):
        return torch.tensor([label_number(model, entry) for entry in target])
    if isinstance(target, int) and not isinstance(target, bool) and model.kind == CLASSIFIER:
        return label_number(model, target)
    return target


def _for_each_token(
    target: object, texts: Sequence[Encoded], asker: Asker
) -> list[Question] | None:
    """The label, or the token, that is predicted at every token of each text; None for targets
    that are several tokens already."""
    model = asker.model
    if model.kind not in (TAGGER, MASKED) or target not in (None, "predicted"):
        return None
    questions = []
    for text in texts:
        places = [i for i in range(len(text)) if not text.special[i]]
        if model.kind == MASKED:
            mask = asker.tokenizer.mask_token_id if asker.tokenizer is not None else None
            places = [i for i, token in enumerate(text.ids) if token == mask] or places
        if not places:
            raise InputError("The text holds special tokens only: there is none to ask about.")
        predicted = asker.logits(text)[places].argmax(-1).tolist()
        tagger = model.kind == TAGGER
        columns = tuple(
            f"{text.shown(i)}: {label_name(model, n) if tagger else asker.written_as((n,))}"
            for i, n in zip(places, predicted, strict=True)
        )
        score = "logit" if tagger else "log-probability"
        words = f"{score} of what is predicted at each token"
        questions.append(
            Question((Ask((), tuple(places), tuple(predicted)),), words, columns, score)
        )
    return questions


def _target_words(model: LanguageModel, target: object, number: int) -> str:
    """A target of outputs, to readers."""
    if isinstance(target, Target):
        which = target.at(torch.tensor([number])).class_index
        if isinstance(which, Tensor) and which.numel() == 1:
            which = int(which)
        if isinstance(which, int) and model.labels:
            return f"{type(target).__name__.lower()} of {label_name(model, which)}"
        if isinstance(which, int):
            return f"{type(target).__name__.lower()} of class {which}"
    return repr(target)


# --- what the model is run on -----------------------------------------------------------------------------------------


def passes(
    questions: Questions, rows: Sequence[Row], model: LanguageModel, pad: int
) -> list[dict[str, Any]]:
    """What the model is run on, for each forward pass: tensors with an entry for each text."""
    if not questions.questions:
        arranged = sequences(rows, [()] * len(rows), model, pad)
        if model.kind == SEQ2SEQ:
            start = model.setting("decoder_start_token_id", pad)
            arranged["decoder"] = torch.full((len(rows), 1), start, device=model.device)
        return [arranged]
    return [
        _pass([question.passes[number] for question in questions.questions], rows, model, pad)
        for number in range(len(questions.questions[0].passes))
    ]


def _pass(
    asks: Sequence[Ask], rows: Sequence[Row], model: LanguageModel, pad: int
) -> dict[str, Any]:
    decodes = model.kind == SEQ2SEQ
    tails = [() if decodes else question.tail for question in asks]
    arranged = sequences(rows, tails, model, pad)
    places = [
        ask.positions if decodes else tuple(_place(row, k) for k in ask.positions)
        for ask, row in zip(asks, rows, strict=True)
    ]
    more = {
        "positions": _padded(places, 0),
        "tokens": _padded([ask.tokens for ask in asks], 0),
        "counts": _padded([(1,) * len(ask.tokens) for ask in asks], 0),
    }
    if any(ask.against for ask in asks):
        more["against"] = _padded([ask.against for ask in asks], 0)
    if decodes:
        more["decoder"] = _padded([ask.tail for ask in asks], pad)
    for name, tensor in more.items():
        arranged[name] = tensor.to(model.device)
    return arranged


def _place(row: Row, token: int) -> int:
    """Where in the sequence the k-th token of a text, or of what is appended to it, stands."""
    count = len(row.real)
    return row.places[token] if token < count else row.places[-1] + 1 + token - count


def _padded(entries: Sequence[Sequence[int]], filling: int) -> Tensor:
    longest = max(map(len, entries))
    return torch.tensor([[*entry, *[filling] * (longest - len(entry))] for entry in entries])
