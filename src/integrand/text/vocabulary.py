"""The words of a model as Discretized Integrated Gradients walks over them: their neighbours, found once.

A neighbour graph belongs to an embedding table, and is kept as long as the layer is alive and its
weights are what they were. Special tokens, and rows behind the tokenizer's, are nobody's neighbours:
they are no words, and the latter were never trained.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ..paths import NeighbourGraph
from .models import LanguageModel, Tokenizer

_Key = tuple[Any, ...]
_GRAPHS: WeakKeyDictionary[nn.Module, dict[_Key, NeighbourGraph]] = WeakKeyDictionary()


def neighbours_of(model: LanguageModel, tokenizer: Tokenizer | None, count: int) -> NeighbourGraph:
    """The neighbour graph of a model's words, as far as it is known.

    Args:
        model: whose words they are.
        tokenizer: says which are special; None where that is not known.
        count: how many neighbours a word has.
    """
    without: tuple[int, ...] = ()
    if tokenizer is not None and model.rows is not None:
        without = (*sorted(set(tokenizer.all_special_ids)), *range(len(tokenizer), model.rows))
    weights = tuple((weight.data_ptr(), weight._version) for weight in model.embedding.parameters())
    key = (weights, count, without)
    graphs = _GRAPHS.setdefault(model.embedding, {})
    if key not in graphs:
        # Those of weights that are no more are let go.
        for stale in [known for known in graphs if known[0] != weights]:
            del graphs[stale]
        graphs[key] = NeighbourGraph(count, without)
    return graphs[key]
