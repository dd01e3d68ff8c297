"""Reasoning, hop by hop: the answer by the steps that lead to it, each step by what stands before it.

    prompt ──▶ step 1 ──▶ … ──▶ answer      a complete map of log p(step | all before it) for each

A single map of the answer stops at the last step: what that one takes from the prompt it hides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..core.formatting import number, percent
from ..errors import InputError, TargetError, UnknownName
from ..integration.attribution import ExplainerLike
from .baselines import BaselineLike
from .encoding import TextLike, check_tokenizer, check_tokens, cut, encode, written_behind
from .groups import GRANULARITIES, groups_of
from .job import TextJob
from .keeping import Keep, kept_in_prompt
from .memory import Checkpoint
from .models import CAUSAL, ModelLike, TokenizerLike, language_model, tokenizer_of
from .questions import Asker
from .result import Scored, TextAttribution
from .targets import Span


@dataclass(frozen=True, eq=False)
class Hops:
    """What every step of a text owes to what stands before it (K steps, the answer the last).

    Attributes:
        steps: (K,) a map of each step, of the log-probability of all its tokens; of every step but
            the answer also one for each of its tokens (``matrix``).
        names: (K + 1,) "prompt", "step 1", …, "answer".
        starts: (K,) the token that each step begins with, counted from the prompt's first.
    """

    steps: tuple[TextAttribution, ...]
    names: tuple[str, ...]
    starts: tuple[int, ...]

    @property
    def credit(self) -> Tensor:
        """(K, K), in nats: what the prompt and each step but the answer contributed to each step; 0
        from itself on. Rows add up to the change of F, but for the gap."""
        count = len(self.steps)
        credit = torch.zeros(count, count, dtype=torch.float64)
        for k, step in enumerate(self.steps):
            (scores,) = step.by("token").scores
            bounds = (0, *self.starts[: k + 1])
            for column, (first, stop) in enumerate(pairwise(bounds)):
                credit[k, column] = scores[first:stop].sum()
        return credit

    @property
    def gap(self) -> Tensor:
        """(K,) what each map misses of its change of F, as a fraction."""
        return torch.stack([step.attribution.gap[0] for step in self.steps])

    @property
    def error(self) -> Tensor:
        """(K,) the estimated error of each map, relative."""
        return torch.stack([step.attribution.error[0] for step in self.steps])

    @property
    def chained_scores(self) -> Tensor:
        """(T,) what each token of the prompt contributed to the answer, directly and through the
        steps.

            c_i = a_i + Σ_j c_j M_ji / Σ_i' |M_ji'|,    j: tokens of the steps, the last first

        a: the map of the answer; M: that of each token of a step. A step's token hands on what it
        was credited with to what it owes itself to. The sum is no longer the change of F, as hands
        of both signs cancel: the maps of the hops are complete, this is a summary of them.
        """
        *reasoning, answer = self.steps
        scores = answer.by("token").scores[0].double().clone()
        for step, first in reversed(list(zip(reasoning, self.starts, strict=False))):
            owed = step.by("token").matrix[0].double()[:, :first]
            owed = owed / owed.abs().sum(1, keepdim=True).clamp_min(torch.finfo(owed.dtype).tiny)
            scores[:first] += scores[first : first + len(owed)] @ owed
        return scores[: self.starts[0]]

    def chained(self, granularity: str = "word") -> list[Scored]:
        """``chained_scores`` of the words, sentences … of the prompt."""
        prompt = cut(self.steps[0].texts[0], self.starts[0])
        groups = groups_of(prompt, granularity)
        sums = groups.summed(self.chained_scores).tolist()
        return [Scored(*pair) for pair in zip(groups.names, sums, strict=True)]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> TextAttribution:
        """The map of a step; -1 is the answer's."""
        return self.steps[index]

    def __str__(self) -> str:
        rows = [["", *self.names[:-1], "gap", "error"]]
        for k, (row, name) in enumerate(zip(self.credit.tolist(), self.names[1:], strict=True)):
            cells = [number(entry, signed=True) if j <= k else "" for j, entry in enumerate(row)]
            error = float(self.error[k])
            stated = percent(error) if error == error else ""
            rows.append([name, *cells, percent(float(self.gap[k])), stated])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )

    def __repr__(self) -> str:
        worst = percent(float(self.gap.max()))
        return f"<Hops of {len(self.steps) - 1} steps and an answer, worst gap {worst}>"


def explain_hops(
    model: ModelLike,
    tokenizer: TokenizerLike | None,
    prompt: TextLike,
    steps: Sequence[str],
    *,
    method: str | ExplainerLike = "integrated",
    baseline: BaselineLike = "mean",
    keep: Keep = "special+template",
    granularity: str = "word",
    tol: float | None = None,
    seed: int | None = None,
    embeddings: str | nn.Module | None = None,
    batch_size: int | None = None,
    checkpoint: Checkpoint = "auto",
    **options: Any,
) -> Hops:
    """Explain an answer by the reasoning that leads to it, and every step of that by what stands before.

        F_k = Σ_t log p(y_kt | prompt, y_1 … y_{k−1}, y_k,<t),    each with a complete map

    Args:
        model: a causal language model, as in ``ig.text.explain``.
        tokenizer: as there.
        prompt: a text or a chat.
        steps: what was written behind it, piece by piece, the answer the last.
        method: as in ``ig.text.explain``.
        baseline: as there.
        keep: as there; positions and a mask are of the prompt's tokens, and words also of those of
            the steps before.
        granularity: what scores of the maps are of.
        tol: as there, of each map.
        seed: as there.
        embeddings: as there.
        batch_size: as there.
        checkpoint: as there.
        **options: of the published method.

    Returns:
        A ``Hops``: a map of each step with its gap and its error, how much each owes to the prompt
        and to every step before it, and ``chained``, what words of the prompt contributed to the
        answer through all of them.

    Raises:
        TargetError: for models that do not write on.
        UnknownName: for a granularity that there is not.
        InputError: without steps, and for steps without tokens or that begin within one.

    Cost:
        an explanation of the answer, and of every step one with a backward pass for each of its
        tokens (``per_token=True``).

    References:
        Pan et al., "FlashTrace", ICML 2026 (arXiv 2602.01914), who hop through reasoning with
        attention, unsigned.

    Example:
        >>> hops = ig.text.explain_hops(  # doctest: +SKIP
        ...     model, tokenizer, "3 apples and 4 pears make", [" 3 + 4", " = 7"]
        ... )
        >>> print(hops, hops.chained())  # doctest: +SKIP
    """
    language = language_model(model, embeddings)
    words = tokenizer_of(tokenizer, model)
    check_tokenizer(words, language)
    if language.kind != CAUSAL:
        raise TargetError(
            f"Hops are steps of causal language models, and {language.name} is a {language.kind}."
        )
    if isinstance(steps, str) or not steps:
        raise InputError(
            'steps= is a list of texts, the answer the last, as in [" 3 + 4", " = 7"].'
        )
    encoded = encode(words, prompt, language)
    whole, bounds = written_behind(words, encoded, list(steps))
    check_tokens(whole.ids[: bounds[-1]], language)
    if granularity not in GRANULARITIES:
        raise UnknownName("granularity", granularity, GRANULARITIES)
    groups_of(whole, granularity)  # said before any gradient
    keep = kept_in_prompt(encoded, keep, bounds[0])
    asker = Asker(language, words)
    options = {"tol": tol, "seed": seed, "batch_size": batch_size, **options}

    def hop(first: int, stop: int) -> TextAttribution:
        text = cut(whole, stop)
        job = TextJob.of(language, asker, [text], keep, checkpoint)
        per_token = stop < bounds[-1]
        prepared = job.prepared(Span(first, stop), method, baseline, per_token=per_token, **options)
        return job.run(prepared).by(granularity)

    maps = tuple(map(hop, bounds, bounds[1:]))
    return Hops(maps, tuple(piece.name for piece in whole.sources), tuple(bounds[:-1]))
