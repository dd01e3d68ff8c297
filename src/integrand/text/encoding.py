"""Texts, pairs and chats as tokens: what each token is called, where it stands, and what it is for.

    text ── tokenizer ──▶ ids, tokens, offsets      chat ── chat template ──▶ text whose template tokens are known

Offsets are the tokenizer's own, so that words, sentences and sources are found in the text as it
stands, whatever the tokenizer calls its pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, SupportsIndex

import numpy as np
from torch import Tensor

from ..errors import InputError
from .models import LanguageModel, Tokenizer

Message = Mapping[str, Any]
TextLike = str | tuple[str, str] | Sequence[Message]
"""A text, a pair of texts, or the messages of a chat."""

_NOWHERE = (0, 0)


@dataclass(frozen=True)
class Piece:
    """A part of a text with a name: a message, a source."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Encoded:
    """A text as tokens (T of them).

    Attributes:
        text: as the tokenizer was given it; of pairs both texts, of chats what the template made of
            them.
        ids: (T,) token ids.
        tokens: (T,) what the tokenizer calls them.
        offsets: (T,) where each stands in ``text``; (0, 0) for those that are not in it.
        special: (T,) whether each is a special token.
        template: (T,) whether each was put there by a chat template.
        types: (T,) token types, of models that tell two texts apart; else empty.
        messages: of a chat, where its messages stand.
        sources: what was named as a source, where it stands.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    special: tuple[bool, ...]
    template: tuple[bool, ...]
    types: tuple[int, ...] = ()
    messages: tuple[Piece, ...] = ()
    sources: tuple[Piece, ...] = ()
    rendered: bool = False
    """Whether a chat template wrote it, special tokens included."""

    def __len__(self) -> int:
        return len(self.ids)

    def placed(self, i: int) -> bool:
        """Whether a token stands in the text."""
        return self.offsets[i][1] > self.offsets[i][0]

    def shown(self, i: int) -> str:
        """A token as it reads: its part of the text, or its name where it has none."""
        start, stop = self.offsets[i]
        return self.text[start:stop] if stop > start else self.tokens[i]


def encode(
    tokenizer: Tokenizer, text: TextLike | Encoded, model: LanguageModel | None = None
) -> Encoded:
    """A text, a pair or a chat as tokens, checked against the model that shall read them; what is
    encoded already stays as it is.

    Raises:
        InputError: for what is none of these, for empty texts, tokenizers without offsets, tokens
            that the model does not know, and more of them than it reads.
    """
    if isinstance(text, Encoded):
        return text
    if isinstance(text, str):
        _check_text(text)
        encoded = _encoded(tokenizer, text, _tokenised(tokenizer, text))
    elif isinstance(text, tuple):
        encoded = _pair(tokenizer, text)
    elif not isinstance(text, list | Mapping):
        raise InputError(_no_text(text))
    else:
        encoded = _chat(tokenizer, text)
    if not encoded.ids:
        raise InputError("The text is empty: there is no token to explain.")
    if model is not None:
        check_tokens(encoded.ids, model)
    return encoded


def _tokenised(tokenizer: Tokenizer, *texts: str, **options: Any) -> Any:
    for text in texts:
        check_characters(text)
    try:
        return tokenizer(*texts, return_offsets_mapping=True, return_token_type_ids=True, **options)
    except NotImplementedError as error:
        raise InputError(
            f"The tokenizer, a {type(tokenizer).__name__}, does not tell where its tokens stand in the text: load the fast one "
            "(AutoTokenizer does), or explain ids with ig.text.explain_ids."
        ) from error


def _check_text(text: object, *, space: bool = False) -> None:
    """Check that something is a text, and more than space unless that does."""
    if not isinstance(text, str):
        raise InputError(_no_text(text))
    if not (text if space else text.strip()):
        raise InputError("The text is empty: there is no token to explain.")
    check_characters(text)


def check_characters(text: str) -> None:
    """Check that tokenizers can read all characters of a text.

    Raises:
        InputError: for halves of characters.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text holds half of a character at place {error.start} (a surrogate), which no tokenizer reads: decode it from its bytes again."
        ) from error


def _no_text(text: object) -> str:
    """What to say of something that is no text."""
    kind = type(text).__name__
    advice = ": token ids are explained by ig.text.explain_ids" if _holds_numbers(text) else ""
    return f"A text is a str, a pair (text, text) or a list of messages of a chat, not a {kind}{advice}."


def _holds_numbers(text: object) -> bool:
    return isinstance(text, int | Tensor | np.ndarray)


def check_tokens(ids: Sequence[int], model: LanguageModel) -> None:
    """Check that a model knows all of some tokens, and reads as many.

    Raises:
        InputError: that says which it does not.
    """
    if model.rows is not None and ids and max(ids) >= model.rows:
        raise InputError(
            f"There is no token {max(ids)} in the embedding table of {model.name}, which has {model.rows} rows: the ids, or the tokenizer "
            "that made them, are those of another model."
        )
    if ids and min(ids) < 0:
        raise InputError(f"Token ids are 0 or more, and {min(ids)} is among them.")
    if model.longest is not None and len(ids) > model.longest:
        raise InputError(
            f"The text has {len(ids)} tokens, and {model.name} reads {model.longest} at most: shorten it."
        )


def check_tokenizer(tokenizer: Tokenizer, model: LanguageModel) -> None:
    """Check that a tokenizer's vocabulary fits into a model's table.

    Raises:
        InputError: where it is larger.
    """
    if model.rows is not None and len(tokenizer) > model.rows:
        raise InputError(
            f"The tokenizer is that of another model: it has {len(tokenizer)} tokens, and the embedding table of {model.name} has "
            f"{model.rows} rows."
        )


# --- kinds of texts ---------------------------------------------------------------------------------------------------


def _encoded(tokenizer: Tokenizer, text: str, output: Mapping[str, Any]) -> Encoded:
    ids = tuple(int(number) for number in output["input_ids"])
    offsets = _offsets(output, text)
    special = special_ids(tokenizer)
    return Encoded(
        text,
        ids,
        tuple(str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))),
        offsets,
        tuple(number in special for number in ids),
        (False,) * len(ids),
        _types(output, ids),
    )


def _offsets(output: Mapping[str, Any], text: str) -> tuple[tuple[int, int], ...]:
    """Where tokens stand. Tokenizers that leave space out of their offsets (``trim_offsets``) say
    of tokens which are nothing else that they are empty: such a one stands behind the token before
    it."""
    offsets, end = [], 0
    for start, stop in ((int(a), int(b)) for a, b in output["offset_mapping"]):
        space = start == stop > end and not text[end:stop].strip()
        offsets.append((end, stop) if space else (start, stop))
        end = max(end, stop)
    return tuple(offsets)


def special_ids(tokenizer: Tokenizer) -> set[int]:
    """The ids of special tokens. The one for unknown words is none: it stands for a word of the
    text."""
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


def encoded_ids(
    ids: Sequence[int], types: Sequence[int], tokenizer: Tokenizer | None, model: LanguageModel
) -> Encoded:
    """Token ids that there is no text of, named by a tokenizer where there is one.

    Raises:
        InputError: for tokens that the model does not know, and more of them than it reads.
    """
    check_tokens(ids, model)
    names = [str(token) for token in ids]
    special: set[int] = set()
    if tokenizer is not None:
        names = [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]
        special = special_ids(tokenizer)
    return Encoded(
        "",
        tuple(ids),
        tuple(names),
        (_NOWHERE,) * len(ids),
        tuple(token in special for token in ids),
        (False,) * len(ids),
        tuple(types),
    )


def _types(output: Mapping[str, Any], ids: Sequence[int]) -> tuple[int, ...]:
    types = output.get("token_type_ids")
    return () if types is None else tuple(int(number) for number in types)


def _pair(tokenizer: Tokenizer, texts: tuple[str, ...]) -> Encoded:
    if len(texts) != 2:
        raise InputError(
            f"A tuple is a pair of texts, and this one has {len(texts)}: give several texts as a list."
        )
    for text in texts:
        _check_text(text)
    first, second = texts
    output = _tokenised(tokenizer, first, second)
    shift = len(first) + 1
    offsets = [
        (start + shift, stop + shift) if which == 1 else (start, stop)
        for (start, stop), which in zip(
            output["offset_mapping"], output.sequence_ids(), strict=True
        )
    ]
    encoded = _encoded(tokenizer, f"{first}\n{second}", {**output, "offset_mapping": offsets})
    pieces = (Piece("first", 0, len(first)), Piece("second", shift, shift + len(second)))
    return replace(encoded, messages=pieces)


def _chat(tokenizer: Tokenizer, messages: Sequence[Message]) -> Encoded:
    contents = [_content(message) for message in messages]
    if not contents:
        raise InputError("The chat is empty: there is no token to explain.")
    text = _rendered(tokenizer, messages)
    marks = [f"\ue000{number}\ue001" for number in range(len(contents))]
    marked = [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)]
    pieces = _between_marks(messages, contents, text, marks, _rendered(tokenizer, marked))
    if pieces is None:  # a template that looks at what is said
        pieces = tuple(_placed(messages, contents, text))
    output = _tokenised(tokenizer, text, add_special_tokens=False)
    encoded = _encoded(tokenizer, text, output)
    written = [
        any(max(a, piece.start) < min(b, piece.stop) for piece in pieces)
        for a, b in encoded.offsets
    ]
    template = tuple(not inside for inside in written)
    return replace(encoded, template=template, messages=pieces, rendered=True)


def _rendered(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        )
    except (
        Exception
    ) as error:  # a template is a program of its author's, which raises what it likes
        said = str(error).strip().rstrip(".")
        raise InputError(
            f"The tokenizer makes no text of these messages: {said}. Give the prompt as a str."
        ) from error


def _content(message: object) -> str:
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, str) or not isinstance(message, Mapping) or "role" not in message:
        raise InputError(
            f"A message of a chat is a dict with a 'role' and a 'content' that is a text; got {message!r:.80}."
        )
    return content


def _between_marks(
    messages: Sequence[Message],
    contents: Sequence[str],
    text: str,
    marks: Sequence[str],
    marked: str,
) -> tuple[Piece, ...] | None:
    """Where the messages stand in a rendered chat, by what the template writes around marks in
    their place; None where that is not what it writes around them. A message that says "user" is
    told from the template's own word so."""
    around = []
    rest = marked
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        around.append(before)
    around.append(rest)
    if not text.startswith(around[0]):
        return None
    pieces, place = [], len(around[0])
    for message, content, behind in zip(messages, contents, around[1:], strict=True):
        said = next(
            (
                written
                for written in (content, content.strip())
                if text.startswith(written + behind, place)
            ),
            None,
        )
        if said is None:
            return None
        start = place + len(said) - len(said.lstrip())
        pieces.append(Piece(str(message["role"]), start, max(start, place + len(said.rstrip()))))
        place += len(said) + len(behind)
    return tuple(pieces) if place == len(text) else None


def _placed(messages: Sequence[Message], contents: Sequence[str], text: str) -> list[Piece]:
    """Where the messages stand in what the template made of them, one after the other."""
    pieces, behind = [], 0
    for message, content in zip(messages, contents, strict=True):
        content = content.strip()
        start = text.find(content, behind)
        if start < 0:
            raise InputError(
                f"The chat template changes what the {message['role']} says, so that it cannot be told from the template: give the prompt as "
                "a str."
            )
        behind = start + len(content)
        pieces.append(Piece(str(message["role"]), start, behind))
    return pieces


def with_sources(encoded: Encoded, sources: Sequence[str]) -> Encoded:
    """The same with pieces of it named as sources, numbered in their order.

    Raises:
        InputError: for a piece that the text does not hold behind those before it.
    """
    if isinstance(sources, str) or not isinstance(sources, Iterable):
        raise InputError(f"sources= is a list of pieces of the prompt, not {sources!r:.60}.")
    pieces: list[Piece] = []
    behind = 0
    for number, source in enumerate(sources):
        if not isinstance(source, str):
            raise InputError(f"Source {number + 1} is a piece of the prompt, not {source!r:.60}.")
        wanted = source.strip()
        start = encoded.text.find(wanted, behind) if wanted else -1
        if start < 0:
            raise InputError(
                f"Source {number + 1} is not in the prompt behind the sources before it: sources= are pieces of the prompt, in its order."
            )
        behind = start + len(wanted)
        pieces.append(Piece(f"source {number + 1}", start, behind))
    return replace(encoded, sources=tuple(pieces))


# --- several ----------------------------------------------------------------------------------------------------------


def listed_texts(texts: Any) -> list[TextLike]:
    """One text, pair or chat, or a list of them, as a list of them.

    Raises:
        InputError: for an empty list.
    """
    if isinstance(texts, str | tuple | Mapping):
        return [texts if not isinstance(texts, Mapping) else [texts]]
    if isinstance(texts, bytes | Tensor | np.ndarray) or not isinstance(texts, Iterable):
        raise InputError(_no_text(texts))
    entries = list(texts)
    if not entries:
        raise InputError("There are no texts: give one at least.")
    if all(isinstance(entry, Mapping) for entry in entries):
        return [entries]
    return entries


# --- what follows a prompt --------------------------------------------------------------------------------------------


def continuation(tokenizer: Tokenizer, encoded: Encoded, text: str) -> tuple[int, ...]:
    """The tokens that a text has behind a prompt.

    Raises:
        InputError: where its beginning becomes one token with the prompt's end.
    """
    if not text:
        raise InputError("The continuation is empty: give the words that shall follow the prompt.")
    output = _tokenised(tokenizer, encoded.text + text, add_special_tokens=not encoded.rendered)
    ids = [int(number) for number in output["input_ids"]]
    offsets = _offsets(output, encoded.text + text)
    end = len(encoded.text)
    count = _written(encoded)
    straddles = any(a < end < b for a, b in offsets)
    if tuple(ids[:count]) != encoded.ids[:count] or straddles:
        last = encoded.shown(count - 1) if count else ""
        raise InputError(
            f"The target {text!r} becomes one token with the prompt's last, {last!r}, so that it does not follow it: begin it with a space, "
            "drop a space at the prompt's end, or give token ids."
        )
    rest = zip(ids[count:], offsets[count:], strict=True)
    return tuple(number for number, (start, stop) in rest if stop > start)


def _written(encoded: Encoded) -> int:
    """How many tokens a text has without what the tokenizer puts behind it, such as [SEP], which
    comes behind whatever follows."""
    return 1 + max((i for i in range(len(encoded)) if encoded.placed(i)), default=-1)


def written_behind(
    tokenizer: Tokenizer, encoded: Encoded, steps: Sequence[str]
) -> tuple[Encoded, list[int]]:
    """A prompt with texts that follow it, one after the other, as one text whose sources they are;
    and the number of the token that each begins with, with the count of all at the end.

    Raises:
        InputError: for steps without tokens, and where one begins within a token of what stands
            before.
    """
    for step in steps:
        _check_text(step, space=True)
    text = encoded.text + "".join(steps)
    output = _tokenised(tokenizer, text, add_special_tokens=not encoded.rendered)
    joined = _encoded(tokenizer, text, output)
    bounds = list(accumulate((len(step) for step in steps), initial=len(encoded.text)))
    placed = [i for i in range(len(joined)) if joined.placed(i)]
    firsts = []
    for start, step in zip(bounds, steps, strict=False):
        inside = next(
            (i for i in placed if joined.offsets[i][0] < start < joined.offsets[i][1]), None
        )
        if inside is not None:
            raise InputError(
                f"{step[:40]!r} begins within a token, {joined.shown(inside)!r}: begin it with a space, or drop a space at the end of what stands "
                "before it."
            )
        firsts.append(next((i for i in placed if joined.offsets[i][1] > start), placed[-1] + 1))
    count = _written(encoded)
    if count != firsts[0] or joined.ids[:count] != encoded.ids[:count]:
        raise InputError(
            "The tokens of the prompt are others when the steps follow it: begin the first step with a space, or drop a space at the prompt's end."
        )
    firsts.append(placed[-1] + 1)
    for step, (first, stop) in zip(steps, pairwise(firsts), strict=True):
        if first == stop:
            raise InputError(
                f"The tokenizer makes no tokens of the step {step[:40]!r}: leave it out, or join it to the one beside it."
            )
    names = ("prompt", *(f"step {number}" for number in range(1, len(steps))), "answer")
    pieces = tuple(map(Piece, names, (0, *bounds[:-1]), bounds))
    template = (*encoded.template[: firsts[0]], *(False,) * (len(joined) - firsts[0]))
    whole = replace(
        joined,
        template=template,
        messages=encoded.messages,
        sources=pieces,
        rendered=encoded.rendered,
    )
    return whole, firsts


def cut(encoded: Encoded, stop: int) -> Encoded:
    """The first tokens of a text, as a text."""
    end = max((encoded.offsets[i][1] for i in range(stop)), default=0)

    def within(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
        return tuple(replace(p, stop=min(p.stop, end)) for p in pieces if p.start < end)

    return replace(
        encoded,
        text=encoded.text[:end],
        ids=encoded.ids[:stop],
        tokens=encoded.tokens[:stop],
        offsets=encoded.offsets[:stop],
        special=encoded.special[:stop],
        template=encoded.template[:stop],
        types=encoded.types[:stop],
        messages=within(encoded.messages),
        sources=within(encoded.sources),
    )


def token_id(tokenizer: Tokenizer, token: str | SupportsIndex, vocabulary: int | None) -> int:
    """The id of one token, by its text, its name or its number.

    Raises:
        InputError: for a text of several tokens, and for what is no token.
    """
    if not isinstance(token, bool | str) and isinstance(token, SupportsIndex):
        token = int(token.__index__())  # of numpy, of a tensor
    if isinstance(token, bool) or not isinstance(token, int | str):
        raise InputError(f"A token is its text or its id, not {token!r}.")
    if isinstance(token, int):
        if token < 0 or (vocabulary is not None and token >= vocabulary):
            raise InputError(f"There is no token {token}: the vocabulary has {vocabulary}.")
        return token
    if tokenizer is None:
        raise InputError(f"Without a tokenizer the token {token!r} has no id: give its id.")
    check_characters(token)
    ids = tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) == 1:
        return int(ids[0])
    known = tokenizer.get_vocab()
    if token in known:
        return int(known[token])
    pieces = tokenizer.convert_ids_to_tokens(ids)
    raise InputError(
        f"{token!r} is {len(ids)} tokens ({', '.join(map(repr, pieces))}): ig.text.Continuation({token!r}) explains them together."
    )
