"""``ig.text.explain``: from a model, a tokenizer and texts to what every token contributed.

    texts ── tokenizer ──▶ tokens ── embedding layer ──▶ x (B, T, D) ─┐
    model, target ──▶ reader: vectors in, answers out ────────────────┼── ig.explain ──▶ (B, T, D), summed by token
    baseline in words, what is kept ──▶ references (R, B, T, D) ──────┘

The model runs on the ids; only what its embedding layer gives is replaced. Padding and kept tokens
begin where they end, so that they get exactly nothing.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..baselines import Baseline, Given
from ..core.random import reseeded
from ..core.shapes import describe, norm
from ..errors import (
    InputError,
    IntegrandError,
    IntegrandWarning,
    NonFiniteGradient,
    ShapeError,
    warn,
)
from ..explain import Progress
from ..explain import explain as explain_inputs
from ..explain_targets import explain_targets
from ..integration.attribution import Attribution, ExplainerLike, as_explainer
from ..integration.cost import Cost
from ..methods import about
from .baselines import BaselineLike, Batch, references_of
from .batch_questions import Questions, ask, passes
from .encoding import (
    Encoded,
    check_tokenizer,
    encode,
    encoded_ids,
    listed_texts,
    with_sources,
)
from .forward import OutputReader
from .keeping import Keep, kept_tokens
from .layout import Row, padded_rows
from .models import (
    CAUSAL,
    LanguageModel,
    ModelLike,
    TokenizerLike,
    language_model,
    tokenizer_of,
)
from .questions import Asker
from .result import TextAttribution


def explain(
    model: ModelLike,
    tokenizer: TokenizerLike | None,
    texts: Any,
    *,
    target: Any = None,
    method: str | ExplainerLike = "integrated",
    baseline: BaselineLike = "mean",
    keep: Keep = "special+template",
    granularity: str = "token",
    sources: Sequence[str] | Sequence[Sequence[str]] | None = None,
    per_token: bool = False,
    tol: float | None = None,
    seed: int | None = None,
    max_new_tokens: int = 16,
    embeddings: str | nn.Module | None = None,
    batch_size: int | None = None,
    progress: Progress = False,
    **options: Any,
) -> TextAttribution:
    """Attribute what a model says of texts to their tokens, words, messages or sources.

        A_i = Σ_d (x_id − b_id) ∫₀¹ ∂F/∂x_id (b + t(x − b)) dt,   x: the vectors of the tokens

    F is one forward pass, also for a continuation of many words. Tokens that are kept, and padding,
    do not move and get exactly 0.

    Args:
        model: of Hugging Face: classifiers of sequences and of tokens, masked and causal language
            models, encoder-decoders; or the local folder of one. Other modules that read token ids
            take ``embeddings=``. It is given back as it was.
        tokenizer: the model's; None for that in the model's folder.
        texts: a text, a pair (text, text), a chat (a list of dicts with "role" and "content"), or
            a list of these.
        target: what is asked. Of classifiers a class, its name in the model's configuration, or
            "predicted" (the default); of models that write, a str (the words that follow), None
            for what the model writes itself, "predicted" for the most probable next token,
            ``NextToken``, ``Continuation``, ``Span``; ``MaskedToken``, ``TokenLabel``; whatever
            ``ig.explain`` takes, such as a callable of the model's outputs. A list is one for each
            text.
        method: a published name, or a ``Method``; see ``ig.explain``.
        baseline: where the tokens begin: "mean" (of the embedding table), "zero", "pad", "mask",
            "unk", ``Corrupt(text)``, ``Sampled(count)``, vectors (D), (T, D) or (B, T, D); a list
            is several.
        keep: which tokens stay as they are: "special", "template" (of a chat) and "first" (where
            attention rests), joined by "+"; positions; a mask (T) or (B, T); None for none.
        granularity: what scores are of: "token", "word", "sentence", "message" or "source"; sums,
            so that they still add up. ``result.by("word")`` changes it.
        sources: pieces of the prompt, in its order; for several texts a list for each.
        per_token: explain each token of the target by itself too (``result.matrix``), from the
            same forward passes.
        tol: relative L2 error of the map to reach, 0.05 for most methods unless given.
        seed: mixed into every random part.
        max_new_tokens: how much the model writes, where it is asked to.
        embeddings: the layer that makes vectors of token ids, where the model does not say.
        batch_size: rows per model call, at most.
        progress: as in ``ig.explain``.
        **options: of the published method.

    Returns:
        A ``TextAttribution``: ``tokens`` and ``scores`` of every text, in units of F, with what the
        map misses and its estimated error in ``attribution``.

    Raises:
        IntegrandError: one of the tree in ``integrand.errors``.

    Cost:
        That of the method: about 15 to 300 gradients of the model, by the baseline.

    References:
        Sundararajan, Taly, Yan, ICML 2017 (arXiv 1703.01365). That the first token, where attention
        rests, should stay as it is, was measured here (``docs/usage/text.md``).
    """
    language = language_model(model, embeddings)
    tokenizer = tokenizer_of(tokenizer, model)
    check_tokenizer(tokenizer, language)
    entries = listed_texts(texts)
    encoded = [encode(tokenizer, entry, language) for entry in entries]
    encoded = _with_all_sources(encoded, sources)
    asker = Asker(language, tokenizer, max_new_tokens)
    rows = padded_rows(
        [text.ids for text in encoded],
        [text.types for text in encoded],
        asker.pad,
        left=language.kind == CAUSAL,
    )
    job = _TextJob(language, asker, encoded, rows, keep)
    options = {"tol": tol, "seed": seed, "batch_size": batch_size, "progress": progress, **options}
    return job.run(target, method, baseline, per_token=per_token, **options).by(granularity)


def explain_ids(
    model: ModelLike,
    input_ids: Tensor | Sequence[Sequence[int]],
    *,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    target: Any = None,
    tokenizer: TokenizerLike | None = None,
    method: str | ExplainerLike = "integrated",
    baseline: BaselineLike = "zero",
    keep: Keep = None,
    per_token: bool = False,
    tol: float | None = None,
    seed: int | None = None,
    max_new_tokens: int = 16,
    embeddings: str | nn.Module | None = None,
    batch_size: int | None = None,
    progress: Progress = False,
    **options: Any,
) -> TextAttribution:
    """``explain`` for token ids that are there already.

    Padding may be on either side, and between tokens. Every token that is not padding moves unless
    ``keep`` says otherwise; ``attribution.values`` (B, T, D) lie as the ids do.

    Args:
        model: as in ``explain``; without a tokenizer also modules of your own.
        input_ids: (B, T) or (T,).
        attention_mask: (B, T), 0 where there is padding; none unless given.
        token_type_ids: (B, T), for models that tell two texts apart.
        target: as in ``explain``; words need the tokenizer. Positions count tokens, not padding.
        tokenizer: names the tokens; optional.
        method: as in ``explain``.
        baseline: as in ``explain``; "zero" unless given.
        keep: as in ``explain``; None keeps nothing. "special" needs the tokenizer.
        per_token: as in ``explain``.
        tol: as in ``explain``.
        seed: as in ``explain``.
        max_new_tokens: as in ``explain``.
        embeddings: as in ``explain``.
        batch_size: as in ``explain``.
        progress: as in ``explain``.
        **options: of the published method.

    Returns:
        A ``TextAttribution``, without words: ids alone do not say where these begin.

    Raises:
        IntegrandError: one of the tree in ``integrand.errors``.
    """
    language = language_model(model, embeddings)
    tokenizer = None if tokenizer is None else tokenizer_of(tokenizer, model)
    ids = _ids(input_ids)
    mask = _as_shape(attention_mask, ids, "attention_mask")
    types = _as_shape(token_type_ids, ids, "token_type_ids")
    words = None if tokenizer is None else tokenizer_of(tokenizer, model)
    asker = Asker(language, words, max_new_tokens)
    rows = []
    for number, slots in enumerate(ids.tolist()):
        real = (
            tuple(range(len(slots)))
            if mask is None
            else tuple(mask[number].nonzero()[:, 0].tolist())
        )
        if not real:
            raise InputError(f"Example {number} is empty: its attention mask is 0 everywhere.")
        kinds = () if types is None else tuple(types[number].tolist())
        rows.append(Row(tuple(slots), real, kinds))
    encoded = [encoded_ids(row.tokens, _types_of(row), words, language) for row in rows]
    job = _TextJob(language, asker, encoded, rows, keep)
    options = {"tol": tol, "seed": seed, "batch_size": batch_size, "progress": progress, **options}
    return job.run(target, method, baseline, per_token=per_token, **options)


_WASTED = 0.1
"""What part of slots may be padding before texts are sorted by length."""


# --- what was handed in -----------------------------------------------------------------------------------------------


def _with_all_sources(
    encoded: list[Encoded], sources: Sequence[str] | Sequence[Sequence[str]] | None
) -> list[Encoded]:
    if sources is None:
        return encoded
    lists = [sources] if all(isinstance(source, str) for source in sources) else list(sources)
    if len(lists) != len(encoded):
        raise InputError(
            f"There are sources for {len(lists)} texts, and {len(encoded)} texts: give a list of pieces for each."
        )
    return [
        with_sources(text, [str(source) for source in pieces])
        for text, pieces in zip(encoded, lists, strict=True)
    ]


def _ids(input_ids: object) -> Tensor:
    ids = torch.as_tensor(input_ids)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(f"Token ids are whole numbers, not {ids.dtype}.")
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.ndim != 2 or not ids.numel():
        raise ShapeError(
            f"Token ids have shape {describe(ids.shape)}: give (B, T), one text of T tokens a row."
        )
    return ids.detach().long().cpu()


def _as_shape(entries: object, ids: Tensor, name: str) -> Tensor | None:
    if entries is None:
        return None
    tensor = torch.as_tensor(entries).detach().cpu()
    tensor = tensor[None] if tensor.ndim == 1 else tensor
    if tensor.shape != ids.shape:
        raise ShapeError(
            f"{name} has shape {describe(tensor.shape)} beside ids of shape {describe(ids.shape)}: give one entry for each id."
        )
    return tensor.long()


def _types_of(row: Row) -> tuple[int, ...]:
    return tuple(row.types[slot] for slot in row.real) if row.types else ()


# --- the work ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TextJob:
    """Texts that a model is asked about."""

    model: LanguageModel
    asker: Asker
    texts: Sequence[Encoded]
    rows: Sequence[Row]
    keep: Keep

    def run(
        self,
        target: Any,
        method: str | ExplainerLike,
        baseline: BaselineLike,
        *,
        per_token: bool,
        **options: Any,
    ) -> TextAttribution:
        """Explain the texts."""
        _check_method(method)
        questions = ask(target, self.texts, self.asker, per_token=per_token)
        kept = kept_tokens(self.texts, self.keep, questions)
        parts = self._attributions(
            questions, method, baseline, kept, per_token=per_token, **options
        )
        words = questions.words(self.model, len(self.texts), parts[0].target)
        slots = [row.real for row in self.rows]
        return TextAttribution(
            summed(parts, questions.target) if per_token else parts[0],
            tuple(self.texts),
            tuple(slots),
            tuple(kept),
            words,
            matrices=tuple(
                _matrix(parts, i, len(question.columns), slots[i])
                for i, question in enumerate(questions.questions)
            )
            if per_token
            else (),
            columns=tuple(question.columns for question in questions.questions)
            if per_token
            else (),
        )

    def _attributions(
        self,
        questions: Questions,
        method: str | ExplainerLike,
        baseline: BaselineLike,
        kept: Sequence[tuple[bool, ...]],
        *,
        per_token: bool,
        **options: Any,
    ) -> list[Attribution]:
        """The attribution of the texts; with ``per_token`` one for each token of the target."""
        pad = self.padding
        vectors = self.model.vectors(torch.tensor([row.ids for row in self.rows]))
        moves = torch.zeros(vectors.shape[:2], dtype=torch.bool)
        for number, (row, stays) in enumerate(zip(self.rows, kept, strict=True)):
            moves[number, list(row.real)] = ~torch.tensor(stays)
        moves = moves.to(vectors.device)
        batch = Batch(self.model, self.asker.tokenizer, self.texts, self.rows, vectors, moves)
        seed = options.get("seed")
        if seed is not None:
            baseline = reseeded(baseline, seed)
        start = references_of(baseline, batch)
        arranged = passes(questions, self.rows, self.model, pad)
        if not bool(moves.all()):
            arranged = [{**entries, "moves": moves, "vectors": vectors} for entries in arranged]
        order = self._order(start, method, options)
        with self.model.padding(pad), _degenerate(self.model, start, moves), _numbered(order):
            parts = _explained(
                OutputReader(self.model, questions.score),
                vectors[order],
                questions.at(order),
                per_token=per_token,
                method=method,
                extra={
                    "passes": [
                        {name: entries[name][order] for name in entries} for entries in arranged
                    ]
                },
                **_for_method(method, _ordered(start, order), options, self.model),
                **options,
            )
        back = torch.tensor(order).argsort()
        return [part[back] for part in parts]

    def _order(
        self, start: Baseline, method: str | ExplainerLike, options: dict[str, Any]
    ) -> list[int]:
        """The texts from the shortest to the longest, so that those that share a call share little
        padding; as they are, where something else may be told in their order."""
        lengths = [len(text) for text in self.texts]
        given = list(range(len(lengths)))
        plain = isinstance(method, str) and isinstance(start, Given)
        if not plain or any(isinstance(value, Tensor) for value in options.values()):
            return given
        wasted = 1 - sum(lengths) / (len(lengths) * max(lengths))
        return sorted(given, key=lengths.__getitem__) if wasted > _WASTED else given

    @property
    def padding(self) -> int:
        """The id of padding; where the model has none, one that no text holds."""
        if self.model.setting("pad_token_id") is not None or self.model.rows is None:
            return self.asker.pad
        used = {token for text in self.texts for token in text.ids}
        return next((token for token in range(self.model.rows) if token not in used), 0)


def _explained(
    reader: OutputReader, vectors: Tensor, questions: Questions, *, per_token: bool, **options: Any
) -> list[Attribution]:
    """The attribution of a question, or one for each of its tokens."""
    if per_token:
        return explain_targets(reader, vectors, targets=questions.columns(), **options)
    return [explain_inputs(reader, vectors, target=questions.target, **options)]


def _ordered(start: Baseline, order: Sequence[int]) -> Baseline:
    """References of texts in another order."""
    if not isinstance(start, Given) or list(order) == sorted(order):
        return start
    return dataclasses.replace(start, references=start.references[:, list(order)])


def _check_method(method: str | ExplainerLike) -> None:
    explains = about(method).explains if isinstance(method, str) else as_explainer(method).explains
    if explains == "layer":
        raise InputError(
            f"{method!r} explains a layer, and not the tokens: ask ig.explain(model, ids, method=…, extra={{'attention_mask': …}})."
        )


def _for_method(
    method: str | ExplainerLike, start: Baseline, options: dict[str, Any], model: LanguageModel
) -> dict[str, Any]:
    """What a method is built with that the texts have: where it starts, and the vectors of all
    words."""
    if not isinstance(method, str):
        return {"baseline": start}
    published = about(method)
    wanted: dict[str, Any] = {} if published.start is None else {"baseline": start}
    if "table" in published.needs and "table" not in options:
        wanted["table"] = model.table
    return wanted


@contextmanager
def _numbered(order: Sequence[int]) -> Iterator[None]:
    """Warnings and errors of texts in another ``order`` number them as they were given."""
    if list(order) == sorted(order):
        yield
        return

    def as_given(message: object) -> str:
        return re.sub(
            r"\b(example|text) (\d+)\b",
            lambda match: (
                f"{match[1]} {order[int(match[2])] if int(match[2]) < len(order) else match[2]}"
            ),
            str(message),
        )

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except IntegrandError as error:
        if len(error.args) == 1:
            error.args = (as_given(error),)
        raise
    finally:
        for warning in caught:
            if issubclass(warning.category, IntegrandWarning):
                warn(as_given(warning.message), warning.category)
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )


@contextmanager
def _degenerate(model: LanguageModel, start: Baseline, moves: Tensor) -> Iterator[None]:
    """Where gradients are not finite because vectors begin at zero, that is what is said."""
    try:
        yield
    except NonFiniteGradient as error:
        zero = isinstance(start, Given) and bool((start.references[:, moves] == 0).all(-1).any())
        if not zero:
            raise
        raise NonFiniteGradient(
            f"Tokens begin at the zero vector, which the normalisations of {model.name} cannot take: its gradient is not finite there. Take "
            "baseline='mean', and keep='special' or 'first'."
        ) from error


# --- what comes back --------------------------------------------------------------------------------------------------


def summed(parts: Sequence[Attribution], target: Any) -> Attribution:
    """The attribution of a sum of targets: maps, changes and residuals add up.

    ``error`` is an upper bound, as if the errors of all maps pointed one way.
    """
    first = parts[0]
    values = sum((part.values for part in parts), torch.zeros_like(first.values))
    errors = sum((part.error * norm(part.values) for part in parts), torch.zeros_like(first.error))
    change = sum(
        ((part.weights * part.change).sum(0) for part in parts), torch.zeros_like(first.output)
    )
    exact = errors == 0
    return dataclasses.replace(
        first,
        values=values,
        output=sum((part.output for part in parts), torch.zeros_like(first.output)),
        weights=torch.ones_like(first.output)[None],
        change=change[None],
        residual=sum((part.residual for part in parts), torch.zeros_like(first.residual)),
        error=torch.where(exact, 0.0, errors / norm(values)),
        converged=torch.stack([part.converged for part in parts]).all(0),
        shares=None,
        baselines=first.baselines if len(first.weights) == 1 else None,
        fitness=None,
        reasons=(),
        notes={},
        names=first.names if len(first.weights) == 1 else (),
        cost=sum((part.cost for part in parts), Cost()),
        resolution=max(part.resolution for part in parts),
        target=target,
    )


def _matrix(parts: Sequence[Attribution], i: int, count: int, slots: Sequence[int]) -> Tensor:
    """What each token of a text (T) contributed to each of its targets (Q): (Q, T)."""
    return torch.stack([part.values[i, list(slots)].sum(-1) for part in parts[:count]])
