"""What depends on a context, by leaving it out: no gradients, a forward pass each.

    which words of the answer   KL( p(· | context, y_<t) ‖ p(· | y_<t) ) at every token y_t of it
    which source                log p(y | prompt) − log p(y | prompt without the source)

The first says what is worth explaining. The second stands beside a map of sources: it takes a source
out, where a map puts the baseline in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, TargetError
from ..model.autograd import gradients
from ..model.borrowed import borrowed
from .batch_questions import Questions, ask, passes
from .encoding import Encoded, TextLike, check_tokenizer, encode, with_sources
from .forward import OutputReader
from .layout import padded_rows
from .models import LanguageModel, ModelLike, TokenizerLike, language_model, tokenizer_of
from .questions import Asker
from .targets import Continuation, Tokens


@dataclass(frozen=True, eq=False)
class ContextDependence:
    """How much each token of an answer depends on a context.

    Attributes:
        tokens: (Q,) of the answer.
        divergence: (Q,) KL(p(· | context, y_<t) ‖ p(· | y_<t)), in nats.
        log_probabilities: (Q,) of each token with the context.
        without: (Q,) the same without.
    """

    tokens: tuple[str, ...]
    divergence: Tensor
    log_probabilities: Tensor
    without: Tensor

    def sensitive(self, nats: float = 0.1) -> list[int]:
        """The numbers of the tokens whose distribution the context changes by more than ``nats``."""
        return (self.divergence > nats).nonzero()[:, 0].tolist()

    def __repr__(self) -> str:
        count = len(self.sensitive())
        return f"<ContextDependence of {len(self.tokens)} tokens, {count} of which the context changes by more than 0.1 nats>"


def context_dependence(
    model: ModelLike,
    tokenizer: TokenizerLike | None,
    prompt: TextLike,
    without: TextLike,
    *,
    target: Tokens | None = None,
    max_new_tokens: int = 16,
    embeddings: str | nn.Module | None = None,
) -> ContextDependence:
    """Which tokens of an answer depend on a context.

        KL_t = Σ_v p(v | prompt, y_<t) log( p(v | prompt, y_<t) / p(v | without, y_<t) )

    Args:
        model: a causal language model or an encoder-decoder, as in ``ig.text.explain``.
        tokenizer: as there.
        prompt: with the context.
        without: the same without it.
        target: the answer y, words or token ids; what the model writes for ``prompt`` unless given.
        max_new_tokens: how much that is, at most.
        embeddings: as in ``ig.text.explain``.

    Returns:
        A ``ContextDependence``; ``sensitive()`` are the tokens that are worth explaining, the rows
        of ``ig.text.explain(…, per_token=True).matrix``.

    Raises:
        TargetError: for models that write no texts.

    Cost:
        two forward passes, and what writing the answer takes.

    References:
        Sarti, Chrupała, Nissim, Bisazza, "Quantifying the Plausibility of Context Reliance in
        Neural Machine Translation", ICLR 2024 (arXiv 2310.01188), whose first step this is.
    """
    asker = _asker(model, tokenizer, max_new_tokens, embeddings)
    first, second = (encode(asker.tokenizer, text, asker.model) for text in (prompt, without))
    tokens = asker.tokens(target, first)
    answer = Continuation(tokens)
    logs = [_log_probabilities(asker, text, answer) for text in (first, second)]
    picked = [log[torch.arange(len(tokens)), list(tokens)] for log in logs]
    divergence = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
    names = tuple(asker.written_as((token,)) for token in tokens)
    return ContextDependence(names, divergence.clamp_min(0), *picked)


def without_sources(
    model: ModelLike,
    tokenizer: TokenizerLike | None,
    prompt: str,
    sources: Sequence[str],
    *,
    target: Tokens | None = None,
    max_new_tokens: int = 16,
    embeddings: str | nn.Module | None = None,
) -> Tensor:
    """What the log-probability of an answer falls by when a source is taken out of the prompt.

        D_s = log p(y | prompt) − log p(y | prompt without source s)

    Args:
        model: as in ``context_dependence``.
        tokenizer: as there.
        prompt: the whole of it.
        sources: pieces of the prompt, in its order.
        target: the answer y; what the model writes for ``prompt`` unless given.
        max_new_tokens: how much that is, at most.
        embeddings: as in ``ig.text.explain``.

    Returns:
        (S,) one for each source, to hold beside the scores of ``granularity="source"``.

    Raises:
        InputError: for a source that is not in the prompt, and for a prompt that is no str.

    Cost:
        S + 1 forward passes, and what writing the answer takes.

    References:
        Cohen-Wang, Shah, Georgiev, Madry, "ContextCite", NeurIPS 2024 (arXiv 2409.00729), who fit a
        surrogate to many such removals.
    """
    if not isinstance(prompt, str):
        raise InputError(
            f"The prompt that sources are taken out of is a str, not a {type(prompt).__name__}: write a chat as the text that its template makes."
        )
    asker = _asker(model, tokenizer, max_new_tokens, embeddings)
    text = with_sources(encode(asker.tokenizer, prompt, asker.model), sources)
    answer = Continuation(asker.tokens(target, text))
    shorter = [prompt[: piece.start] + prompt[piece.stop :].lstrip() for piece in text.sources]
    texts = [text, *(encode(asker.tokenizer, other, asker.model) for other in shorter)]
    sums = torch.stack([_answers(asker, other, answer).sum() for other in texts])
    return sums[0] - sums[1:]


def _asker(
    model: ModelLike, tokenizer: TokenizerLike | None, most: int, embeddings: str | nn.Module | None
) -> Asker:
    language = language_model(model, embeddings)
    tokenizer = tokenizer_of(tokenizer, model)
    check_tokenizer(tokenizer, language)
    if not language.generates:
        raise TargetError(
            f"What depends on a context is asked of models that write texts, and {language.name} is a {language.kind}."
        )
    return Asker(language, tokenizer, most)


def _answers(asker: Asker, text: Encoded, answer: Continuation) -> Tensor:
    """log p (Q,) of each token of an answer."""
    questions, arranged = _arranged(asker, text, answer)
    reader = OutputReader(asker.model, questions.score)
    with borrowed(asker.model.module), gradients(False):
        answers: Tensor = reader(_vectors(asker.model, text), arranged)
    return answers[0]


def _log_probabilities(asker: Asker, text: Encoded, answer: Continuation) -> Tensor:
    """log p (Q, V) of all tokens, where each token of an answer stands."""
    _, arranged = _arranged(asker, text, answer)
    reader = OutputReader(asker.model, "log-probability")
    with borrowed(asker.model.module), gradients(False):
        logits = reader.logits(_vectors(asker.model, text), arranged[0])
    return logits[0].log_softmax(-1)


def _arranged(
    asker: Asker, text: Encoded, answer: Continuation
) -> tuple[Questions, list[dict[str, Any]]]:
    questions = ask(answer, [text], asker)
    rows = padded_rows([text.ids], [text.types], asker.pad, left=False)
    return questions, passes(questions, rows, asker.model, asker.pad)


def _vectors(model: LanguageModel, text: Encoded) -> Tensor:
    return model.vectors(torch.tensor([text.ids]))
