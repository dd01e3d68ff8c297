"""``ig.text.explain``: from a model, a tokenizer and texts to what every token contributed.

    texts ── tokenizer ──▶ tokens ── embedding layer ──▶ x (B, T, D) ─┐
    model, target ──▶ reader: vectors in, answers out ────────────────┼── ig.explain ──▶ (B, T, D), summed by token
    baseline in words, what is kept ──▶ references (R, B, T, D) ──────┘

The model runs on the ids; only what its embedding layer gives is replaced. Padding and kept tokens
begin where they end, so that they get exactly nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.shapes import describe
from ..errors import InputError, ShapeError
from ..explain import Progress
from ..integration.attribution import ExplainerLike
from .baselines import BaselineLike
from .cost import CostEstimate
from .encoding import (
    Encoded,
    check_tokenizer,
    encode,
    encoded_ids,
    listed_texts,
    with_sources,
)
from .job import Prepared, TextJob
from .keeping import Keep
from .layout import Row
from .memory import Checkpoint
from .models import (
    ModelLike,
    TokenizerLike,
    language_model,
    tokenizer_of,
)
from .questions import Asker
from .result import TextAttribution

Preflight = bool | Callable[[CostEstimate], None]
"""Who is told beforehand what it will take."""


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
    checkpoint: Checkpoint = "auto",
    check_precision: bool = True,
    preflight: Preflight = False,
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
            attention rests), joined by "+"; positions; a mask (T) or (B, T), or a list of one
            for each text; None for none.
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
        checkpoint: whether the model's repeated blocks (modules of one class in an
            ``nn.ModuleList``) run again on the way back, so that the activations of one are kept
            at a time: the same numbers, about 1.5 times the time. "auto" does where what a call
            keeps would take more than half of the memory that is free; ``result.checkpointed``
            says so. Gradient checkpointing of transformers does nothing in eval mode.
        check_precision: of models in half precision, measure what that adds to the map
            (``result.half_precision_error``): six more gradients for each text, and room for the
            weights in float32.
        preflight: say beforehand what it will take: True for a line on stderr, or a callable that
            is given a ``CostEstimate``. A gradient more, and two short passes.
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
    job = _job_of_texts(
        model, tokenizer, texts, keep, sources, max_new_tokens, embeddings, checkpoint
    )
    options = {"tol": tol, "seed": seed, "batch_size": batch_size, "progress": progress, **options}
    prepared = job.prepared(target, method, baseline, per_token=per_token, **options)
    _tell(preflight, job, prepared)
    return job.run(prepared, check_precision=check_precision).by(granularity)


def estimate_cost(
    model: ModelLike,
    tokenizer: TokenizerLike | None,
    texts: Any,
    *,
    target: Any = None,
    method: str | ExplainerLike = "integrated",
    baseline: BaselineLike = "mean",
    keep: Keep = "special+template",
    per_token: bool = False,
    tol: float | None = None,
    seed: int | None = None,
    max_new_tokens: int = 16,
    embeddings: str | nn.Module | None = None,
    batch_size: int | None = None,
    checkpoint: Checkpoint = "auto",
    **options: Any,
) -> CostEstimate:
    """What ``explain`` would take for the same arguments: gradients, memory and time.

    Args:
        model: as in ``explain``.
        tokenizer: as in ``explain``.
        texts: as in ``explain``.
        target: as in ``explain``.
        method: as in ``explain``.
        baseline: as in ``explain``.
        keep: as in ``explain``.
        per_token: as in ``explain``.
        tol: as in ``explain``.
        seed: as in ``explain``.
        max_new_tokens: as in ``explain``.
        embeddings: as in ``explain``.
        batch_size: as in ``explain``.
        checkpoint: as in ``explain``.
        **options: as in ``explain``.

    Returns:
        A ``CostEstimate``, which prints as "2,048 tokens × 16 gradients ≈ 1.1 GB, 3 min".

    Raises:
        IntegrandError: as ``explain``.

    Cost:
        one gradient of the longest text, and forward passes of an eighth and a quarter of it; what
        the target takes, such as writing an answer.
    """
    job = _job_of_texts(model, tokenizer, texts, keep, None, max_new_tokens, embeddings, checkpoint)
    options = {"tol": tol, "seed": seed, "batch_size": batch_size, **options}
    return job.estimate(job.prepared(target, method, baseline, per_token=per_token, **options))


def _job_of_texts(
    model: ModelLike,
    tokenizer: TokenizerLike | None,
    texts: Any,
    keep: Keep,
    sources: Sequence[str] | Sequence[Sequence[str]] | None,
    max_new_tokens: int,
    embeddings: str | nn.Module | None,
    checkpoint: Checkpoint,
) -> TextJob:
    language = language_model(model, embeddings)
    words = tokenizer_of(tokenizer, model)
    check_tokenizer(words, language)
    encoded = [encode(words, entry, language) for entry in listed_texts(texts)]
    encoded = _with_all_sources(encoded, sources)
    asker = Asker(language, words, max_new_tokens)
    return TextJob.of(language, asker, encoded, keep, checkpoint)


def _tell(preflight: Preflight, job: TextJob, prepared: Prepared) -> None:
    """Say what it will take, to whom it is wanted for."""
    if preflight is False:
        return
    if preflight is True:
        print(job.estimate(prepared), file=sys.stderr, flush=True)
    elif callable(preflight):
        preflight(job.estimate(prepared))
    else:
        raise InputError(
            f"preflight is True, False or a callable that is given a CostEstimate, not {preflight!r}."
        )


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
    checkpoint: Checkpoint = "auto",
    check_precision: bool = True,
    preflight: Preflight = False,
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
        keep: as in ``explain``; None keeps nothing. "special" needs the tokenizer. A mask (B, T)
            lies as the ids do.
        per_token: as in ``explain``.
        tol: as in ``explain``.
        seed: as in ``explain``.
        max_new_tokens: as in ``explain``.
        embeddings: as in ``explain``.
        batch_size: as in ``explain``.
        checkpoint: as in ``explain``.
        check_precision: as in ``explain``.
        preflight: as in ``explain``.
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
    job = TextJob(language, asker, encoded, rows, _keep_of_tokens(keep, rows), checkpoint)
    options = {"tol": tol, "seed": seed, "batch_size": batch_size, "progress": progress, **options}
    prepared = job.prepared(target, method, baseline, per_token=per_token, **options)
    _tell(preflight, job, prepared)
    return job.run(prepared, check_precision=check_precision)


# --- what was handed in -----------------------------------------------------------------------------------------------


def _with_all_sources(
    encoded: list[Encoded], sources: Sequence[str] | Sequence[Sequence[str]] | None
) -> list[Encoded]:
    if sources is None:
        return encoded
    if isinstance(sources, str) or not isinstance(sources, Iterable):
        raise InputError(f"sources= is a list of pieces of the prompt, not {sources!r:.60}.")
    several = list(sources)
    shared = not any(isinstance(entry, list | tuple) for entry in several)
    lists: list[Any] = [several] if shared else several
    if len(lists) != len(encoded):
        raise InputError(
            f"There are sources for {len(lists)} texts, and {len(encoded)} texts: give a list of pieces for each."
        )
    return [with_sources(text, pieces) for text, pieces in zip(encoded, lists, strict=True)]


def _ids(input_ids: object) -> Tensor:
    try:
        ids = torch.as_tensor(input_ids)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            "Token ids are whole numbers, rows of them of one length: pad shorter ones, and say where with attention_mask=."
        ) from error
    if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
        raise InputError(f"Token ids are whole numbers, not {ids.dtype}.")
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.ndim != 2 or not ids.numel():
        raise ShapeError(
            f"Token ids have shape {describe(ids.shape)}: give (B, T), one text of T tokens a row."
        )
    return ids.detach().long().cpu()


def _keep_of_tokens(keep: Keep, rows: Sequence[Row]) -> Keep:
    """A mask in the slots of rows, as one of the tokens of each row."""
    mask = keep if isinstance(keep, Tensor) else None
    if mask is None or mask.dtype != torch.bool or mask.shape != (len(rows), len(rows[0].ids)):
        return keep
    return [mask[number, list(row.real)] for number, row in enumerate(rows)]


def _as_shape(entries: object, ids: Tensor, name: str) -> Tensor | None:
    if entries is None:
        return None
    try:
        tensor = torch.as_tensor(entries).detach().cpu()
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{name} holds a whole number for each id, in rows of one length."
        ) from error
    if bool((tensor != tensor.long()).any()):
        raise InputError(f"{name} holds whole numbers, not {tensor.dtype} with fractions.")
    tensor = tensor[None] if tensor.ndim == 1 else tensor
    if tensor.shape != ids.shape:
        raise ShapeError(
            f"{name} has shape {describe(tensor.shape)} beside ids of shape {describe(ids.shape)}: give one entry for each id."
        )
    return tensor.long()


def _types_of(row: Row) -> tuple[int, ...]:
    return tuple(row.types[slot] for slot in row.real) if row.types else ()
