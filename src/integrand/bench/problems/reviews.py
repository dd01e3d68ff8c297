"""Snippets of reviews of films with the ratings that people gave them, and MiniLM with a linear probe
that tells the good from the bad.

The data are those of VADER, 10,605 snippets with a mean rating between −4 and 4 of at least twenty
people each, and come with the source package of vaderSentiment (MIT licence): nothing of them is
shipped here. They are read where they lie, packed or not.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from ...errors import InputError, MissingData
from .base import Problem, ProblemOptions, problem, shuffled
from .sentences import Probe, minilm, tokenised
from .text import TextSet

_FILE = "movieReviewSnippets_GroundTruth.txt"
_INNER = "hutto_ICWSM_2014.tar.gz"
_PLACES = (
    _FILE,
    f"hutto_ICWSM_2014/{_FILE}",
    _INNER,
    f"additional_resources/{_INNER}",
    f"vaderSentiment-*/additional_resources/{_INNER}",
    "vaderSentiment-*.tar.gz",
)
_COMMAND = "pip download --no-deps --no-binary :all: vaderSentiment==3.2.1"

_CLASSES = ("negative", "positive")
_LONGEST = 32  # tokens without [CLS] and [SEP]; longer snippets, one in four, are left out
_TRAIN, _TEST = 3000, 500  # snippets
_EPOCHS = 60


@dataclass(frozen=True)
class Snippet:
    """A piece of a review and the mean of its ratings, from −4 to 4."""

    rating: float
    text: str


def snippets_of(text: str, place: str) -> list[Snippet]:
    """The distinct snippets of a file whose lines are a number, a rating and a text between tabs.

    Raises:
        InputError: for another line; ``place`` is where the file is said to be.
    """
    distinct: dict[str, Snippet] = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("\t")
        try:
            _, rating, snippet = fields
            found = Snippet(float(rating), " ".join(snippet.split()))
        except ValueError:
            raise InputError(
                f"Line {number} of {place} is not a number, a rating and a text between tabs: {line[:60]!r}."
            ) from None
        distinct.setdefault(found.text.lower(), found)
    return list(distinct.values())


def review_file(setting: ProblemOptions, who: str) -> tuple[str, str]:
    """The text of the file of snippets, and where it is: in a folder, or packed as it is downloaded.

    Raises:
        MissingData: where there is none.
        InputError: for an archive that cannot be read.
    """
    what = f"a folder with {_FILE}, or with the source package that holds it ({_COMMAND})"
    data = setting.needed(who, what)
    files = [data] if data.is_file() else []
    # Beside is a usual place, so that one --data serves a whole suite.
    for folder in (data, data.parent):
        files += [file for place in _PLACES for file in sorted(folder.glob(place))]
    for file in files:
        if file.name == _FILE:
            return file.read_text("utf-8"), str(file)
        if file.name.endswith(".tar.gz"):
            packed = _unpacked(file)
            if packed is not None:
                return packed, str(file)
    raise MissingData(f"{who} looks in {data} and beside it for {what}, and finds none.")


def _unpacked(file: Path) -> str | None:
    """The file of snippets in an archive, or in the one that lies in it; None where there is none."""
    try:
        with file.open("rb") as stream:
            content = _member(stream, _FILE, _INNER)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            f"{file} cannot be read ({error}): download it again with {_COMMAND}."
        ) from None
    return None if content is None else content.decode("utf-8")


def _member(stream: IO[bytes], name: str, inner: str | None = None) -> bytes | None:
    """The content of the member called ``name``, which may lie in the archive called ``inner``."""
    with tarfile.open(fileobj=stream, mode="r:gz") as archive:
        for member in archive:
            last = Path(member.name).name
            if not member.isfile() or last not in (name, inner):
                continue
            content = archive.extractfile(member)
            assert content is not None  # of a file there is one
            if last == name:
                return content.read()
            return _member(content, name)
    return None


def rated(snippets: Sequence[Snippet], neutral: float) -> TextSet:
    """Snippets rated −``neutral`` or less (negative), and ``neutral`` or more (positive)."""
    clear = [snippet for snippet in snippets if abs(snippet.rating) >= neutral]
    return TextSet(
        [snippet.text.lower().split() for snippet in clear],
        torch.tensor([int(snippet.rating > 0) for snippet in clear], dtype=torch.long),
        _CLASSES,
    )


def split(count: int, train: int, test: int) -> tuple[list[int], list[int]]:
    """Numbers below ``count`` to learn from, and others to explain: the same for every seed."""
    order = shuffled(count, 0)
    return order[test : test + train], order[:test]


@problem("reviews")
def reviews(
    setting: ProblemOptions, neutral: float = 1.0, train: int = _TRAIN, test: int = _TEST
) -> Problem:
    """Snippets of reviews of films, and all-MiniLM-L6-v2 with a linear probe that is trained on some
    of them to tell positive from negative.

    Its words are those of ``token_words``; special tokens are nobody's ``neighbours``. Snippets of
    more than 32 tokens are left out, not cut: their end may say the opposite of their beginning.

    Args:
        setting: the data, the cache and the seed.
        neutral: ratings nearer to zero than this are neither positive nor negative, and left out.
        train: snippets that the probe is trained on, at most.
        test: snippets held out to be explained. Which they are does not depend on the seed.

    Raises:
        InputError: for ``neutral`` below 0 or above 4, and where too few snippets are left.
        MissingData: without snippets.
        MissingExtra: without transformers or the package of MiniLM.

    References:
        Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
        Media Text", ICWSM 2014; the snippets are of the reviews of Pang and Lee, 2004.
    """
    if not 0 < neutral < 4:
        raise InputError(f"neutral= is a rating between 0 and 4, not {neutral}.")
    text, place = review_file(setting, "'reviews'")
    snippets = snippets_of(text, place)
    clear = rated(snippets, neutral)
    encoder, tokenizer = minilm("'reviews'")
    lengths = [len(row) for row in tokenised(tokenizer, clear.words)]
    short = clear.at([i for i, length in enumerate(lengths) if length <= _LONGEST])
    learnt, held_out = split(len(short.words), train, test)
    if not learnt:
        raise InputError(
            f"{place} has {len(short.words)} snippets that are clear and short, and {test} are held out: give more, or test= fewer."
        )
    probe = Probe.trained_on(
        short.at(learnt),
        (encoder, tokenizer),
        setting,
        name="reviews",
        epochs=_EPOCHS,
        longest=_LONGEST,
    )
    return probe.problem(
        "reviews of films, good or bad, MiniLM with a linear probe",
        short.at(held_out),
        accuracy_on="snippets held out",
        facts={
            "snippets": len(snippets),
            f"rated nearer to zero than {neutral:g}, left out": len(snippets) - len(clear.words),
            f"of more than {_LONGEST} tokens, left out": len(clear.words) - len(short.words),
        },
    )
