"""The score of inputs with some of their features replaced: what weightings ask the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..core.features import ranks_in
from ..core.segment import Evaluation
from ..core.shapes import flattened
from ..fields import Field


def scores_replaced(
    score: Field,
    x: Tensor,
    blank: Tensor,
    groups: Tensor,
    examples: Tensor,
    removed: Callable[[slice], Tensor],
) -> Tensor:
    """The score (N,) of rows, each an example of ``x`` with features of its own replaced.

    Args:
        score: what is asked.
        x: (B, \\*s), the inputs.
        blank: (B, \\*s), what features become.
        groups: the feature that each element belongs to.
        examples: (N,) which example each row is of.
        removed: a slice of the rows → (n, features) which of their features are replaced.
    """
    scores = x.new_empty(len(examples))
    if not len(examples):
        return scores
    feature = groups.expand(x.shape)

    def make(rows: slice) -> Tensor:
        numbers = examples[rows]
        mask = removed(rows).gather(1, flattened(feature[numbers], 1))
        return torch.where(mask.reshape(len(numbers), *x.shape[1:]), blank[numbers], x[numbers])

    def keep(rows: slice, evaluation: Evaluation) -> None:
        scores[rows] = evaluation.value

    score.stream(examples, make, keep, x[0], gradient=False)
    return scores


def ranks_of(scores: Tensor) -> Tensor:
    """The rank of each feature by its score, 0 for the largest, ties by position: (…, N)."""
    return ranks_in(scores.argsort(dim=-1, descending=True, stable=True))
