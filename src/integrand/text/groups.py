"""Groups of tokens: words, sentences, messages, sources. The score of a group is the sum of its tokens'.

    score(g) = Σ_{i ∈ g} score(i)          every token is in one group, so that completeness stays

Where a token belongs is read off the text by the tokenizer's offsets: to the group in which its
first visible character stands; one that is only space to what it is within (as between two words of
a sentence), else to what comes behind it. Tokens that stand nowhere in the text are groups of their own.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import InputError
from .encoding import Encoded, Piece

GRANULARITIES = ("token", "word", "sentence", "message", "source")

# Scripts that put no spaces between words: a character is the least that can be told apart.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_SENTENCE = re.compile(r"\S.*?(?:[.!?。！？…]+[\"'”’)\]]*(?=\s|$)|(?<=[。！？])|(?=\n)|$)", re.S)


@dataclass(frozen=True)
class Groups:
    """Tokens in groups (G of them).

    Attributes:
        names: (G,) what each is called: its words.
        of: (T,) the number of the group that each token is in.
        spans: (G,) where each stands in the text; (0, 0) for those that do not.
    """

    names: tuple[str, ...]
    of: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def summed(self, scores: Tensor, axis: int = -1) -> Tensor:
        """Scores (…, T) of tokens → (…, G) of groups."""
        index = torch.tensor(self.of, device=scores.device)
        moved = scores.movedim(axis, -1)
        sums = moved.new_zeros(*moved.shape[:-1], len(self.names))
        return sums.index_add_(-1, index, moved).movedim(-1, axis)


def groups_of(text: Encoded, granularity: str) -> Groups:
    """The tokens of a text in groups.

    Raises:
        InputError: for another granularity, and for messages or sources that there are none of.
    """
    if granularity == "token":
        count = range(len(text))
        return Groups(tuple(text.shown(i) for i in count), tuple(count), text.offsets)
    if granularity not in _PIECES:
        raise InputError(
            f"granularity is one of {', '.join(map(repr, GRANULARITIES))}, not {granularity!r}."
        )
    return _grouped(text, _PIECES[granularity](text), rest=granularity in ("message", "source"))


def _words(text: Encoded) -> list[Piece]:
    return _matches(_WORD, text)


def _sentences(text: Encoded) -> list[Piece]:
    return _matches(_SENTENCE, text)


def _matches(pattern: re.Pattern[str], text: Encoded) -> list[Piece]:
    """Pieces that stop at special tokens, and where a pair's texts or a chat's messages do."""
    ends = [end for message in text.messages for end in (message.start, message.stop)]
    for i, special in enumerate(text.special):
        ends += text.offsets[i] if special else ()
    bounds = sorted({0, len(text.text), *ends})
    pieces = []
    for start, stop in pairwise(bounds):
        for match in pattern.finditer(text.text, start, stop):
            if match.end() > match.start():
                pieces.append(Piece(match.group().strip(), match.start(), match.end()))
    return pieces


def _messages(text: Encoded) -> list[Piece]:
    if not text.messages:
        raise InputError(
            "The text has no messages: give a chat, a list of dicts with 'role' and 'content', or another granularity."
        )
    return list(text.messages)


def _sources(text: Encoded) -> list[Piece]:
    if not text.sources:
        raise InputError(
            "The text has no sources: name them, sources=[…], as pieces of the prompt."
        )
    return list(text.sources)


_PIECES: dict[str, Callable[[Encoded], list[Piece]]] = {
    "word": _words,
    "sentence": _sentences,
    "message": _messages,
    "source": _sources,
}


def _grouped(text: Encoded, pieces: Sequence[Piece], *, rest: bool) -> Groups:
    """Tokens by the piece that they stand in. Others each by itself, or, with ``rest``, together
    behind the pieces, each of which is then a group, also without tokens."""
    names = [piece.name for piece in pieces] if rest else []
    spans = [(piece.start, piece.stop) for piece in pieces] if rest else []
    number_of: dict[object, int] = {number: number for number in range(len(names))}
    of: list[int] = []
    starts = [piece.start for piece in pieces]
    for i in range(len(text)):
        inside = _piece_of(text, i, pieces, starts) if text.placed(i) else None
        if inside is not None:
            key: object = inside
            name, span = pieces[inside].name, (pieces[inside].start, pieces[inside].stop)
        elif rest:
            key, name, span = "rest", "everything else", (0, 0)
        else:
            key, name, span = (i, "token"), text.shown(i), text.offsets[i]
        if key not in number_of:
            number_of[key] = len(names)
            names.append(name)
            spans.append(span)
        of.append(number_of[key])
    return Groups(tuple(names), tuple(of), tuple(spans))


def _piece_of(text: Encoded, i: int, pieces: Sequence[Piece], starts: Sequence[int]) -> int | None:
    """The piece that a token is in."""
    start, stop = text.offsets[i]
    around = _piece_at(pieces, starts, start)
    if around is not None and stop <= pieces[around].stop:
        return around
    return _piece_at(pieces, starts, _first_character(text, i))


def _first_character(text: Encoded, i: int) -> int:
    """Where the first visible character of a token stands; of one that is only space, that of what
    comes behind it."""
    start, stop = text.offsets[i]
    part = text.text[start:stop]
    if not part.strip():
        start, part = stop, text.text[stop:]
    return start + len(part) - len(part.lstrip())


def _piece_at(pieces: Sequence[Piece], starts: Sequence[int], place: int) -> int | None:
    """The piece that a character is in; pieces follow one another."""
    number = bisect_right(starts, place) - 1
    return number if number >= 0 and place < pieces[number].stop else None
