"""Lines of Python's standard library, and a small causal language model trained on it here: what does
the beginning of a line say of its next token?

The sources are those that the running Python came with (PSF licence); nothing is downloaded. One file
in ten is held out of everything: the tokenizer's pairs, the model, and the texts that others are
chosen from. Of held-out lines only those are asked about that no other file holds.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.optional import optional
from ...core.random import generator
from ...errors import MissingData
from ...paths import NeighbourGraph
from ..attention import Attention
from ..training import trained
from .base import Examples, Problem, ProblemOptions, problem, shuffled
from .token_words import by_length, problem_words, text_examples

_PAD, _BEGIN = "<pad>", "<s>"
_VOCABULARY = 1024
_WINDOW = 48  # tokens that the model is trained on at a time
_SHORTEST, _LONGEST = 6, 20  # tokens of a beginning
_HELD_OUT = 10  # one file in so many
_HIDDEN = 0.05  # of the tokens in training are replaced by padding, so that it means "not known"
_QUESTIONS, _POOL = 1000, 4000  # lines to ask about, and to choose others from
_NEIGHBOURS = 200  # of a token on a discretized path
_LAYERS, _WIDTH = 3, 128


@dataclass(frozen=True)
class Sources:
    """Texts of files, by name, in the order of their names: those to learn from, and those held out."""

    learnt: dict[str, str]
    held_out: dict[str, str]

    @property
    def digest(self) -> str:
        """What the files are, in a few letters."""
        told = hashlib.blake2b(digest_size=6)
        for name, text in sorted({**self.learnt, **self.held_out}.items()):
            told.update(f"{name}\0{text}\0".encode())
        return told.hexdigest()

    def held_out_lines(self) -> list[str]:
        """Distinct lines of held-out files that no file to learn from holds, whatever their
        indentation."""
        known = {line.strip() for text in self.learnt.values() for line in text.splitlines()}
        lines = dict.fromkeys(
            line.rstrip() for text in self.held_out.values() for line in text.splitlines()
        )
        return [line for line in lines if line.strip() not in known]


def split(texts: dict[str, str], seed: int) -> Sources:
    """Files to learn from and files held out, one in ten, drawn by the order of their names alone."""
    names = sorted(texts)
    held_out = {names[i] for i in shuffled(len(names), seed)[::_HELD_OUT]}
    return Sources(
        {name: texts[name] for name in names if name not in held_out},
        {name: texts[name] for name in names if name in held_out},
    )


def standard_library(folder: Path | None = None) -> dict[str, str]:
    """The modules of the standard library that are one file each, by name.

    Raises:
        MissingData: where the installation holds none.
    """
    place = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    texts = {file.name: file.read_text("utf-8") for file in sorted(place.glob("*.py"))}
    if not texts:
        raise MissingData(f"The problem 'code_lines' looks for *.py in {place} and finds none.")
    return texts


class CodeTokens:
    """Pairs of bytes that occur often as tokens, learnt from texts; padding is 0, the beginning 1."""

    def __init__(self, texts: Sequence[str]) -> None:
        tokenizers = optional("tokenizers", extra="text", needs="The problem 'code_lines'")
        self.tokenizer = tokenizers.ByteLevelBPETokenizer()
        self.tokenizer.train_from_iterator(
            texts,
            vocab_size=_VOCABULARY,
            special_tokens=[_PAD, _BEGIN],
            show_progress=False,
        )

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def of(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of the tokens of each text."""
        return [encoded.ids for encoded in self.tokenizer.encode_batch(list(texts))]

    def text(self, numbers: Sequence[int]) -> str:
        """What tokens spell."""
        return str(self.tokenizer.decode(list(numbers)))


class Learner(nn.Module):
    """The language model while it is trained: tokens (N, T) → logits (N, V, T) of the next."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        transformers = optional("transformers", extra="text", needs="The problem 'code_lines'")
        config = transformers.LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=_WIDTH,
            intermediate_size=352,
            num_hidden_layers=_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=_WINDOW + 1,
            tie_word_embeddings=False,
            pad_token_id=None,  # whose vector would stay zero: padding is learnt, as every token is
            bos_token_id=1,
            eos_token_id=1,
            attn_implementation="eager",  # other implementations do not tell its weights
        )
        self.language = transformers.LlamaForCausalLM(config)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.language(input_ids=tokens, use_cache=False).logits
        return logits.transpose(1, 2)


class NextToken(nn.Module):
    """Log-probabilities of the token that follows: vectors of tokens (N, T, D) → (N, V).

    The token that stands at every beginning is put in front and never moves.
    """

    begin: Tensor

    def __init__(self, language: Any) -> None:
        super().__init__()
        self.backbone, self.head = language.model, language.lm_head
        self.register_buffer("begin", language.model.embed_tokens.weight[1].detach().clone())

    def framed(self, vectors: Tensor) -> Tensor:
        """Vectors (N, T, D) behind that of the beginning."""
        return torch.cat([self.begin.to(vectors).expand(len(vectors), 1, -1), vectors], 1)

    def forward(self, vectors: Tensor) -> Tensor:
        states = self.backbone(inputs_embeds=self.framed(vectors), use_cache=False)
        logits: Tensor = self.head(states.last_hidden_state[:, -1])
        return logits.log_softmax(-1)

    @torch.no_grad()
    def attends(self, vectors: Tensor) -> Attention:
        """How it attends to texts (N, T, D)."""
        out = self.backbone(
            inputs_embeds=self.framed(vectors), use_cache=False, output_attentions=True
        )
        last = torch.zeros(vectors.shape[1] + 1)
        last[-1] = 1
        return Attention(tuple(out.attentions), last, slice(1, None))


def pieces_of(
    tokens: Sequence[Sequence[int]], starts: Sequence[Sequence[int]], count: int, seed: int
) -> Tensor:
    """Pieces of files that begin where a line begins, behind the token of beginnings: (N, WINDOW + 1).

    Args:
        tokens: of each file.
        starts: where the lines of each file begin.
        count: how many, at most.
        seed: of their choice.
    """
    places = [
        (file, start)
        for file, places in enumerate(starts)
        for start in places
        if start + _WINDOW <= len(tokens[file])
    ]
    rows = [
        [1, *tokens[places[i][0]][places[i][1] : places[i][1] + _WINDOW]]
        for i in shuffled(len(places), seed)[:count]
    ]
    return torch.tensor(rows).reshape(-1, _WINDOW + 1)


def _files_of_lines(
    texts: Sequence[str], spelling: CodeTokens
) -> tuple[list[list[int]], list[list[int]]]:
    """Files as tokens, and where their lines begin. Lines are read one by one, as they are asked about."""
    tokens: list[list[int]] = []
    starts: list[list[int]] = []
    for text in texts:
        lines = spelling.of(text.splitlines(keepends=True))
        tokens.append([number for line in lines for number in line])
        starts.append(list(accumulate(map(len, lines[:-1]), initial=0)))
    return tokens, starts


def beginnings(
    lines: Sequence[str], spelling: CodeTokens, count: int, seed: int
) -> list[tuple[Tensor, int]]:
    """Distinct beginnings (T,) of lines, cut at random before their last token, and the token that
    follows."""
    stream = generator(seed, 23)
    chosen: dict[tuple[int, ...], int] = {}
    for i in shuffled(len(lines), seed):
        if len(chosen) == count:
            break
        (row,) = spelling.of([lines[i]])
        last = min(_LONGEST, len(row) - 1)
        if last < _SHORTEST:
            continue
        cut = int(torch.randint(_SHORTEST, last + 1, (), generator=stream))
        chosen.setdefault(tuple(row[:cut]), row[cut])
    return [(torch.tensor(beginning), token) for beginning, token in chosen.items()]


@problem("code_lines")
def code_lines(
    setting: ProblemOptions, count: int = 16_000, rate: float = 2e-3, folder: str | None = None
) -> Problem:
    """Beginnings of lines of the standard library's own sources, and a causal language model (a Llama
    of three layers, 128 wide) trained on ``count`` pieces of other files. F is the log-probability of
    the token that the model finds the likeliest.

    Its words are those of ``token_words``; padding is what hides a token of twenty in training.

    Args:
        setting: the cache and the seed; no data are needed.
        count: pieces of 48 tokens that the model is trained on, once each.
        rate: of the training's steps.
        folder: where the sources are; those of the running Python unless given.

    Raises:
        MissingData: where there are no sources.
        MissingExtra: without transformers.
    """
    sources = split(standard_library(None if folder is None else Path(folder)), setting.seed)
    spelling = CodeTokens(list(sources.learnt.values()))
    language, learnt = _learnt(sources, spelling, setting, count, rate)
    model = NextToken(language).eval().requires_grad_(False)
    table = language.model.embed_tokens.weight.detach()
    asked = beginnings(sources.held_out_lines(), spelling, _QUESTIONS, setting.seed)
    texts = [text for text, _ in asked]
    others = [line for text in sources.learnt.values() for line in text.splitlines()]
    pool = [text for text, _ in beginnings(others, spelling, _POOL, setting.seed)]
    words = problem_words(table, 0, NeighbourGraph(_NEIGHBOURS, [0, 1]), model.attends)

    def load(numbers: Sequence[int]) -> Examples:
        return text_examples([texts[i] for i in numbers], pool, table, words, setting.seed)

    return Problem(
        "lines of the standard library, a causal language model trained on it",
        model,
        tuple(f"{i:03d} {spelling.text(text.tolist())}" for i, text in enumerate(texts)),
        load,
        words=words,
        facts={
            "sources": sources.digest,
            "files learnt from": len(sources.learnt),
            "files held out": len(sources.held_out),
            "tokens trained on": learnt,
            **_told(model, table, asked),
        },
    )


def _learnt(
    sources: Sources, spelling: CodeTokens, setting: ProblemOptions, count: int, rate: float
) -> tuple[Any, int]:
    """The trained model, and on how many tokens."""
    files = _files_of_lines(list(sources.learnt.values()), spelling)
    pieces = pieces_of(*files, count, setting.seed)
    read, following = pieces[:, :-1].clone(), pieces[:, 1:]
    hidden = torch.rand(read.shape, generator=generator(setting.seed, 29)) < _HIDDEN
    hidden[:, 0] = False
    read[hidden] = 0
    learner = trained(
        lambda: Learner(len(spelling)),
        read,
        following,
        cache=setting.cache,
        name=f"code-lines-{sources.digest}",
        epochs=1,
        rate=rate,
        batch=32,
        seed=setting.seed,
    )
    assert isinstance(learner, Learner)
    return learner.language, following.numel()


@torch.no_grad()
def _told(model: nn.Module, table: Tensor, asked: list[tuple[Tensor, int]]) -> dict[str, float]:
    """How well it knows what follows: of held-out beginnings, the share of right tokens, and nats."""
    following = torch.tensor([token for _, token in asked])
    right, nats = 0.0, 0.0
    for numbers, rows in by_length([text for text, _ in asked]):
        said = model(table[rows])
        true = following[numbers]
        right += float((said.argmax(1) == true).sum())
        nats -= float(said.gather(1, true[:, None]).sum())
    return {
        "right next tokens of held-out lines": round(right / len(asked), 4),
        "nats a token": round(nats / len(asked), 3),
    }
