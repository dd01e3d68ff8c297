"""``summarize``: what columns contribute over a whole dataset, explained batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from .explain import baseline_by_example, explain, explained_by_batch
from .fields import Field
from .integration.attribution import ExplainerLike
from .tables.importance import LEVELS, Importance, ImportanceTally
from .tables.results import as_table, grouped
from .targets import TargetLike


def summarize(
    model: Callable[..., Any] | Field,
    batches: Iterable[Any],
    *,
    target: TargetLike | None = None,
    method: str | ExplainerLike = "integrated",
    groups: Mapping[str, Sequence[str | int]] | None = None,
    quantiles: Sequence[float] = LEVELS,
    most: int = 10_000,
    **options: Any,
) -> Importance:
    """Sum up the maps of a whole dataset, column by column, without keeping them.

        importance_i = mean over examples of |A_i|,   with its standard error and 95 % interval

    The same as ``ig.concat([...]).importance()`` for the maps of all batches, in the memory of one
    batch and of the rows that quantiles are read from.

    Args:
        model: as in ``explain``.
        batches: inputs in any sizes: a DataLoader, or any iterable of tensors, arrays or frames
            (B, N); of a pair (x, y) x.
        target: as in ``explain``; what it has for each example is taken apart as batches come.
        method: as in ``explain``.
        groups: columns that are added up before anything else (``Attribution.grouped``).
        quantiles: levels of the quantiles of A_i, between 0 and 1.
        most: rows kept for quantiles; of more examples they are those of a random sample.
        **options: of ``explain`` and of the method.

    Returns:
        An ``integrand.tables.Importance``: mean |A_i|, standard errors, mean, deviation and
        quantiles, the most important column first; ``.to_pandas()``, ``.plot()``.

    Raises:
        InputError: for no examples, and for batches of different columns.
        ShapeError: for examples that are no rows of columns.

    Cost:
        That of ``explain`` for every example.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Linear(torch.tensor([1.0, -2.0]))
        >>> data = torch.tensor([[1.0, 1.0], [3.0, 1.0], [-1.0, 2.0]])
        >>> ranked = ig.summarize(field, data.split(2), feature_names=["a", "b"])
        >>> ranked.names, [round(size, 3) for _, size in ranked]
        (('b', 'a'), [2.667, 1.667])
    """
    seed = options.get("seed")
    tally = ImportanceTally(quantiles, most, 0 if seed is None else seed)
    explain_batch = partial(explain, model, method=method, **options)
    by_example = baseline_by_example(method, options.get("baseline"), options)
    for attribution in explained_by_batch(explain_batch, batches, target, by_example):
        table = as_table(attribution)
        table = table if groups is None else grouped(table, groups)
        tally.add(table.values, table.feature_names, table.converged, attribution.cost)
    return tally.importance()
