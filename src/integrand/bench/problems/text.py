"""Questions and what they ask for (TREC), and Kim's convolutional network, which tells what.

The data are a folder with train.txt and test.txt, one question a line, its label before the first
space ("NUM:dist How far …"; what follows the colon is a finer label, passed over unless asked for).
What is explained are word vectors, so a feature is a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...baselines import Constant, Gaussian, OtherClass, Relevant
from ...errors import InputError, MissingData
from ..training import accuracy, trained
from .base import Examples, Problem, ProblemOptions, problem, shuffled

_POOL = 96
_LENGTH = 24  # tokens; 99 % of TREC's questions are no longer
_PAD, _UNKNOWN = 0, 1


@dataclass(frozen=True)
class TextSet:
    """Texts as words, and their classes as numbers."""

    words: list[list[str]]
    labels: Tensor
    classes: tuple[str, ...]

    def at(self, numbers: Sequence[int]) -> TextSet:
        """The texts with these numbers, in their order."""
        rows = list(numbers)
        return TextSet([self.words[i] for i in rows], self.labels[rows], self.classes)


def lines_of(file: Path, classes: Sequence[str] | None = None, *, fine: bool = False) -> TextSet:
    """The distinct questions of a file. TREC's own training file holds most of them twice; a split
    of it would leak.

    ``fine`` labels are the whole ones, "NUM:dist" for "NUM".

    Raises:
        InputError: for a line without a label, or with one that is not among ``classes``.
    """
    lines = dict.fromkeys(
        line.strip() for line in file.read_text(encoding="latin-1").splitlines() if line.strip()
    )
    pairs = [line.split(None, 1) for line in lines]
    bad = next((pair for pair in pairs if len(pair) != 2), None)
    if bad is not None:
        raise InputError(
            f"A line of {file} holds {bad} only: every line is a label, a space, and a text."
        )
    labels = [label if fine else label.split(":")[0] for label, _ in pairs]
    known = tuple(classes) if classes is not None else tuple(sorted(set(labels)))
    unknown = next((label for label in labels if label not in known), None)
    if unknown is not None:
        raise InputError(f"{file} holds the label {unknown!r}, which the training file does not.")
    return TextSet(
        [text.lower().split() for _, text in pairs],
        torch.tensor([known.index(label) for label in labels]),
        known,
    )


def question_files(
    setting: ProblemOptions, who: str, *, fine: bool = False
) -> tuple[TextSet, TextSet]:
    """The questions of train.txt and of test.txt.

    Raises:
        MissingData: where there are none.
    """
    data = setting.needed(who, "a folder with train.txt and test.txt")
    # Beside a folder of photographs is a usual place for texts, so that one --data serves a whole
    # suite.
    for folder in (data, data / "trec", data.parent / "trec"):
        if (folder / "train.txt").is_file() and (folder / "test.txt").is_file():
            train = lines_of(folder / "train.txt", fine=fine)
            return train, lines_of(folder / "test.txt", train.classes, fine=fine)
    raise MissingData(
        f"{who} looks for train.txt and test.txt in {data}, in its subfolder trec and beside it, and finds none."
    )


class KimNet(nn.Module):
    """Kim's network: word vectors (N, T, D) → convolutions over 3, 4 and 5 words → the largest of
    each → logits.

    The representation is what ``head`` is given. ``embedding`` is not part of the forward pass:
    what is explained are its vectors.
    """

    def __init__(self, vocabulary: int, classes: int, width: int = 300, filters: int = 100) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=_PAD)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, filters, n, padding=n // 2) for n in (3, 4, 5)
        )
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3 * filters, classes)

    def forward(self, vectors: Tensor) -> Tensor:
        if not vectors.is_floating_point():  # while it is trained
            vectors = self.embedding(vectors)
        columns = vectors.transpose(1, 2)
        features = torch.cat([layer(columns).relu().amax(2) for layer in self.convolutions], 1)
        logits: Tensor = self.head(self.drop(features))
        return logits


@problem("questions")
def questions(setting: ProblemOptions, epochs: int = 8) -> Problem:
    """Questions, and Kim's convolutional network (word vectors of 300, trained with it).

    Words: ``one`` (the vector of padding: zero), ``several`` (zero, the mean vector, the unknown
    word's, two noises, another question), ``references(n)``, ``others(n)``; ``low`` and ``high``
    are the extremes of the table of vectors.
    """
    train, test = question_files(setting, "'questions'")
    words = sorted({word for text in train.words for word in text})
    number = {word: i + 2 for i, word in enumerate(words)}
    tokens = _numbered(train.words, number)
    model = trained(
        lambda: KimNet(len(words) + 2, len(train.classes)),
        tokens,
        train.labels,
        cache=setting.cache,
        name="questions",
        epochs=epochs,
        seed=setting.seed,
    )
    assert isinstance(model, KimNet)
    table = model.embedding.weight.detach()
    tests = _numbered(test.words, number)
    order = shuffled(len(tests), setting.seed)
    pool = table[tokens[shuffled(len(tokens), setting.seed + 1)[:_POOL]]]

    def load(numbers: Sequence[int]) -> Examples:
        return Examples(table[tests[[order[i] for i in numbers]]])

    return Problem(
        "TREC questions, Kim's network",
        model,
        tuple(f"{order[i]:03d} {' '.join(test.words[order[i]])[:60]}" for i in range(len(tests))),
        load,
        words=_words(pool, table, table[_UNKNOWN], setting),
        facts={
            "distinct questions trained on": len(tokens),
            "accuracy on the test file": round(accuracy(model, tests, test.labels), 4),
            "tokens": _LENGTH,
        },
    )


def _numbered(texts: list[list[str]], number: dict[str, int]) -> Tensor:
    rows = [[number.get(word, _UNKNOWN) for word in text[:_LENGTH]] for text in texts]
    return torch.tensor([row + [_PAD] * (_LENGTH - len(row)) for row in rows])


def _words(pool: Tensor, table: Tensor, unknown: Tensor, setting: ProblemOptions) -> dict[str, Any]:
    another = OtherClass(pool, 1, setting.seed, label="another question")
    spread = float(table.std())
    mean = Constant(table.mean(0).expand(pool.shape[1:]), label="mean vector")
    zero = Constant(0.0)
    return {
        "one": zero,
        "zero": zero,
        "mean": mean,
        "photo": another,
        "several": [
            zero,
            mean,
            Constant(unknown.expand(pool.shape[1:]), label="unknown word"),
            Gaussian(spread),
            Gaussian(spread, seed=1),
            another,
        ],
        "references": lambda count=2: Relevant(pool, count, seed=setting.seed),
        "others": lambda count=2: OtherClass(pool, count, setting.seed),
        "low": float(table.min()),
        "high": float(table.max()),
    }
