"""What a target means for a text and a model: which tokens are asked about, at which positions.

Continuation(y)     prompt, y_1 … y_{n-1} are read;  y_t is asked about at the position before it
NextToken(y)        the same with one token, which need not be read
Span(a, b)          the text itself, of which what stands before a is explained
MaskedToken, TokenLabel     a token, a label, asked about where it stands
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.options import whole
from ..core.shapes import describe
from ..core.values import part
from ..errors import InputError, TargetError, UnknownName
from ..model.autograd import gradients
from ..model.borrowed import borrowed
from ..targets import Target, output_tensor
from .encoding import Encoded, check_characters, continuation, token_id
from .models import CAUSAL, CLASSIFIER, MASKED, OTHER, SEQ2SEQ, TAGGER, LanguageModel
from .targets import Continuation, MaskedToken, NextToken, Span, TokenLabel, Tokens


@dataclass(frozen=True)
class Ask:
    """Tokens asked about in one forward pass.

    Attributes:
        tail: what is read behind the text; of encoder-decoders, what the decoder reads.
        positions: where each is asked about: the number of a token of text and tail together (of
            the decoder).
        tokens: each one's id.
        against: what each is held against, or empty.
    """

    tail: tuple[int, ...]
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    against: tuple[int, ...] = ()

    def apart(self) -> tuple[Ask, Ask]:
        """The same as two: the tokens, and what they are held against."""
        return replace(self, against=()), replace(self, tokens=self.against, against=())


@dataclass(frozen=True)
class Question:
    """What is asked of one text.

    Attributes:
        passes: one forward pass, or that of a continuation and that of another.
        words: F, to readers.
        columns: what is asked about one by one, to readers.
        score: what an answer is.
        stays: from which token on the text stays as it is; None where all of it may move.
    """

    passes: tuple[Ask, ...]
    words: str
    columns: tuple[str, ...]
    score: str = "log-probability"
    stays: int | None = None


@part
class TextAnswer(Target):
    """The sum of a model's answers (N, Q), or one of them.

    Args:
        words: F, as it is written.
        score: what an answer is; "log-odds" where it is held against another.
        column: which; all of them unless given.
    """

    words: str
    score_kind: str = "log-probability"
    column: int | None = None

    by_row: ClassVar[bool] = True

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        answers = output_tensor(outputs)
        return answers.sum(1) if self.column is None else answers[:, self.column]

    def score(self) -> Target:
        inverse = {"log-probability": torch.exp, "log-odds": torch.sigmoid}
        apply = inverse.get(self.score_kind)
        return self if apply is None else _TokenProbability(self, apply)

    def __repr__(self) -> str:
        return self.words


@part
class _TokenProbability(Target):
    """The probability that an answer is the logarithm, or the log-odds, of."""

    answer: TextAnswer
    inverse: Callable[[Tensor], Tensor]
    by_row: ClassVar[bool] = True

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        return self.inverse(self.answer(outputs, index))


@dataclass
class Asker:
    """Finds what targets mean for texts.

    Args:
        model: which is asked.
        tokenizer: None where there are only ids.
        most: how many tokens the model writes at most, where a continuation is its own.
        written: what it has written of each text.
    """

    model: LanguageModel
    tokenizer: Any
    most: int = 16
    written: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.most = whole("max_new_tokens", self.most, least=1)

    def question(self, target: object, text: Encoded) -> Question:
        """What a target means for a text.

        Raises:
            TargetError: for targets of other kinds of models.
        """
        if isinstance(target, NextToken):
            return self._next_token(target, text)
        if isinstance(target, Continuation):
            return self._continuation(target, text)
        if isinstance(target, Span):
            return self._span(target, text)
        if isinstance(target, MaskedToken):
            return self._masked(target, text)
        assert isinstance(target, TokenLabel)
        return self._labelled(target, text)

    # --- language models ------------------------------------------------------------------------------------------

    def _writes(self, target: object) -> None:
        if not self.model.generates:
            raise TargetError(
                f"{type(target).__name__} is a target of models that write texts, and {self.model.name} is a {self.model.kind}: give a class, "
                "'predicted', or ig.text.MaskedToken."
            )

    def _next_token(self, target: NextToken, text: Encoded) -> Question:
        self._writes(target)
        token = self._generated(text, 1)[0] if target.token is None else self._id(target.token)
        against = () if target.against is None else (self._id(target.against),)
        ask = self._ask(text, (token,), against)
        words = self._words(target.score, (token,), against)
        score = "log-odds" if against else target.score
        return Question((ask,), words, (self.written_as((token,)),), score)

    def _continuation(self, target: Continuation, text: Encoded) -> Question:
        self._writes(target)
        tokens = self.tokens(target.text, text)
        against = () if target.against is None else self.tokens(target.against, text)
        words = self._words("log-probability", tokens, against)
        columns = tuple(self.written_as((token,)) for token in tokens)
        if not against:
            return Question((self._ask(text, tokens),), words, columns)
        if tokens[:-1] == against[:-1]:  # what leads to the last tokens is the same
            ask = self._ask(text, tokens[-1:], against[-1:], lead=tokens[:-1])
            return Question((ask,), words, columns[-1:], "log-odds")
        asks = (self._ask(text, tokens), self._ask(text, against))
        return Question(asks, words, columns, "log-odds")

    def _ask(
        self,
        text: Encoded,
        tokens: tuple[int, ...],
        against: tuple[int, ...] = (),
        lead: tuple[int, ...] = (),
    ) -> Ask:
        read = (*lead, *tokens[:-1])
        if self.model.kind == SEQ2SEQ:
            start = self.model.setting("decoder_start_token_id")
            if start is None:
                raise TargetError(
                    f"The configuration of {self.model.name} does not say what its decoder begins with: set decoder_start_token_id."
                )
            read, first = (int(start), *read), len(lead)
            longest = self.model.longest
            if longest is not None and len(read) > longest:
                raise InputError(
                    f"The target has {len(lead) + len(tokens)} tokens, and the decoder of {self.model.name} reads {longest} at most: shorten it."
                )
        else:
            first = len(text) - 1 + len(lead)
            longest = self.model.longest
            if longest is not None and len(text) + len(read) > longest:
                raise InputError(
                    f"The text has {len(text)} tokens, and {len(read)} of its target are read behind it, but {self.model.name} reads "
                    f"{longest} at most: shorten one of them."
                )
        return Ask(read, tuple(range(first, first + len(tokens))), tokens, against)

    def _span(self, target: Span, text: Encoded) -> Question:
        if self.model.kind != CAUSAL:
            raise TargetError(
                f"Span is a target of causal language models, and {self.model.name} is a {self.model.kind}."
            )
        start, stop, _ = slice(target.start, target.stop).indices(len(text))
        if not 0 < start < stop:
            raise TargetError(
                f"{target!r} holds none of the {len(text)} tokens that another stands before: give the first and the one behind the last, "
                "counted from 0."
            )
        tokens = text.ids[start:stop]
        ask = Ask((), tuple(range(start - 1, stop - 1)), tokens)
        columns = tuple(self.written_as((token,)) for token in tokens)
        return Question((ask,), self._words("log-probability", tokens, ()), columns, stays=start)

    def tokens(self, words: Tokens | None, text: Encoded) -> tuple[int, ...]:
        """The tokens of words that follow a text; None for what the model writes."""
        if words is None:
            return self._written(text)
        if isinstance(words, str):
            return self._tokens_of_words(words, text)
        vocabulary = self.model.rows
        words = (words,) if isinstance(words, int) else words
        return tuple(token_id(self.tokenizer, int(token), vocabulary) for token in words)

    def _tokens_of_words(self, words: str, text: Encoded) -> tuple[int, ...]:
        if self.tokenizer is None:
            raise TargetError(f"Without a tokenizer {words!r} has no tokens: give their ids.")
        if self.model.kind == SEQ2SEQ:
            check_characters(words)
            ids = self.tokenizer(text_target=words, add_special_tokens=False)["input_ids"]
            tokens = tuple(int(token) for token in ids)
        else:
            tokens = continuation(self.tokenizer, text, words)
        if not tokens:
            raise TargetError(f"{words!r} has no tokens: give the words that shall follow.")
        return tokens

    def _written(self, text: Encoded) -> tuple[int, ...]:
        """What the model writes, greedily, without what ends it."""
        key = hash(text.ids)
        if key not in self.written:
            self.written[key] = self._generated(text, self.most)
        return self.written[key]

    def _generated(self, text: Encoded, most: int) -> tuple[int, ...]:
        module: Any = self.model.module
        ids = torch.tensor([text.ids], device=self.model.device)
        if self.model.longest is not None and self.model.kind == CAUSAL:
            # The last token that is written need not be read.
            most = min(most, self.model.longest + 1 - len(text))
        with borrowed(module), gradients(False):
            output = module.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.pad,
            )
        first = 1 if self.model.kind == SEQ2SEQ else len(text)
        written = [int(token) for token in output[0, first:].tolist()]
        ends = self._ends()
        kept = [token for token in written if token not in ends]
        tokens = tuple(kept or written[:1])
        if not tokens:
            raise TargetError("The model writes nothing here: give a target.")
        return tokens

    def _ends(self) -> set[int | None]:
        ends = self.model.setting("eos_token_id")
        listed = ends if isinstance(ends, list | tuple) else [ends]
        return {int(end) for end in listed if end is not None} | {self._known_pad}

    @property
    def pad(self) -> int:
        """The id that padding has."""
        return 0 if self._known_pad is None else self._known_pad

    @property
    def _known_pad(self) -> int | None:
        """The id that model or tokenizer says padding has; None where there is none, and 0 may be a
        word."""
        for where in (self.model.config, self.tokenizer):
            pad = getattr(where, "pad_token_id", None)
            if isinstance(pad, int) and 0 <= pad < (self.model.rows or pad + 1):
                return pad
        return None

    # --- at a token -----------------------------------------------------------------------------------------------

    def _masked(self, target: MaskedToken, text: Encoded) -> Question:
        if self.model.kind != MASKED:
            raise TargetError(
                f"MaskedToken is a target of masked language models, and {self.model.name} is a {self.model.kind}."
            )
        position = self._mask_position(text) if target.position is None else target.position
        position = _position(position, text)
        token = (
            int(self.logits(text)[position].argmax())
            if target.token is None
            else self._id(target.token)
        )
        against = () if target.against is None else (self._id(target.against),)
        words = self._words(target.score, (token,), against)
        score = "log-odds" if against else target.score
        return Question(
            (Ask((), (position,), (token,), against),), words, (self.written_as((token,)),), score
        )

    def _mask_position(self, text: Encoded) -> int:
        mask = getattr(self.tokenizer, "mask_token_id", None)
        places = [i for i, token in enumerate(text.ids) if token == mask]
        if len(places) != 1:
            raise TargetError(
                f"The text has {len(places) or 'no'} mask{'s' * (len(places) > 1)}: say position= in MaskedToken."
            )
        return places[0]

    def _labelled(self, target: TokenLabel, text: Encoded) -> Question:
        if self.model.kind != TAGGER:
            raise TargetError(
                f"TokenLabel is a target of token classifiers, and {self.model.name} is a {self.model.kind}."
            )
        position = _position(target.position, text)
        label = (
            int(self.logits(text)[position].argmax())
            if target.label is None
            else label_number(self.model, target.label)
        )
        name = label_name(self.model, label)
        words = f"logit of {name} at {text.shown(position)!r}"
        return Question((Ask((), (position,), (label,)),), words, (name,), "logit")

    def logits(self, text: Encoded) -> Tensor:
        """The model's outputs for each token of a text (T, V)."""
        ids = torch.tensor([text.ids], device=self.model.device)
        types = torch.tensor([text.types], device=self.model.device) if text.types else None
        arguments = {"attention_mask": torch.ones_like(ids), "token_type_ids": types}
        with borrowed(self.model.module), gradients(False):
            outputs = self.model.run(self.model.vectors(ids), ids, arguments)
        logits = output_tensor(outputs)
        if logits.ndim != 3:
            raise TargetError(f"{self.model.name} has outputs {describe(logits.shape)}.")
        return logits[0]

    # --- words ----------------------------------------------------------------------------------------------------

    def _id(self, token: str | int) -> int:
        return token_id(self.tokenizer, token, self.model.rows)

    def written_as(self, tokens: Sequence[int]) -> str:
        """Tokens as they read; their ids without a tokenizer."""
        if self.tokenizer is None:
            return " ".join(map(str, tokens))
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    def _words(self, score: str, tokens: Sequence[int], against: Sequence[int]) -> str:
        words = repr(self.written_as(tokens))
        if tuple(tokens) == tuple(against):
            raise TargetError(
                f"{words} is held against itself, which is 0 whatever the text says: give against= another."
            )
        if against:
            return f"log-odds of {words} against {self.written_as(against)!r}"
        return f"{score} of {words}"


def _position(position: int, text: Encoded) -> int:
    if not -len(text) <= position < len(text):
        raise TargetError(f"There is no token {position}: the text has {len(text)}.")
    return position % len(text)


def label_number(model: LanguageModel, label: str | int) -> int:
    """The number of a class, by its name in the model's configuration or its number.

    Raises:
        UnknownName: for a name that it does not have.
        TargetError: for a number that it does not have, and for names where it has no head.
    """
    if not isinstance(label, str):
        label, count = index(label), model.classes
        if count and not -count <= label < count:
            raise TargetError(f"There is no class {label}: {model.name} has {count}.")
        return label % count if count else label
    known = model.labels
    exact = known.get(label)
    if exact is None:  # as people write it
        exact = {name.casefold(): number for name, number in known.items()}.get(label.casefold())
    if exact is None:
        if model.kind == OTHER:
            raise TargetError(
                f"{model.name} neither writes nor classifies, so that there is no {label!r} to ask it about: give a callable of its outputs, or the model "
                "with its head."
            )
        raise UnknownName("class", label, known)
    return exact


def label_name(model: LanguageModel, number: int) -> str:
    """What a class is called."""
    return next((name for name, known in model.labels.items() if known == number), str(number))


def default_target(model: LanguageModel, target: object) -> Any:
    """A target as people write it → one of ours, or what ``ig.explain`` takes.

    Raises:
        TargetError: where nothing says what is asked.
    """
    if model.generates:
        if target is None:
            return Continuation()
        if isinstance(target, str):
            return NextToken() if target == "predicted" else Continuation(target)
        if isinstance(target, int) and not isinstance(target, bool):
            return NextToken(target)
    if target is None and model.kind == MASKED:
        return MaskedToken()
    if model.kind == MASKED and isinstance(target, str):
        return MaskedToken(None if target == "predicted" else target)
    if target is None and model.kind == CLASSIFIER:
        return "predicted"
    if target is None:
        raise TargetError(
            f"Nothing says what is asked of {model.name}, a {model.kind}: give target=, such as a class, ig.text.TokenLabel(3, 'B-PER') or a "
            "callable of its outputs."
        )
    return target


def alike(questions: Sequence[Question]) -> list[Question]:
    """Questions with one number of forward passes.

    Raises:
        InputError: where they are asked for different things.
    """
    scores = sorted({question.score for question in questions})
    if len(scores) > 1:
        raise InputError(f"The texts are asked for {' and '.join(scores)}: explain them apart.")
    if len({len(question.passes) for question in questions}) == 1:
        return list(questions)
    return [
        replace(question, passes=question.passes[0].apart())
        if len(question.passes) == 1
        else question
        for question in questions
    ]
