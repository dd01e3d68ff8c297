"""What a table's attribution tells: columns summed into groups, importance over examples, frames.

Every function takes an attribution whose examples are rows of columns, (B, N), or several such
inputs, which are laid side by side.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.frames import Cell, Table, frame_of
from ..core.shapes import describe, total
from ..errors import InputError, ShapeError, UnknownName
from ..integration.attribution import Attribution, listed, mapped
from .importance import LEVELS, Importance, ImportanceTally

Groups = Mapping[str, Sequence[str | int]]
"""What each group is called → the names of its columns, or their positions."""


# --- one table --------------------------------------------------------------------------------------------------------


def as_table(attribution: Attribution) -> Attribution:
    """The same attribution with one tensor (B, N), columns of several inputs side by side, and a
    name for every column.

    Raises:
        ShapeError: for examples that are no rows of columns.
    """
    if isinstance(attribution.values, Tensor):
        _check_columns(attribution.values, "")
        if attribution.table is not None:
            return attribution
        names = tuple(str(i) for i in range(attribution.values.shape[1]))
        return replace(attribution, table=Table(names))
    parts = listed(attribution.values)
    keys = attribution.values if isinstance(attribution.values, dict) else range(len(parts))
    labels = [str(key) for key in keys]
    for label, part in zip(labels, parts, strict=True):
        _check_columns(part, f" of input {label!r}")
    return replace(
        attribution,
        values=torch.cat(parts, 1),
        inputs=_side_by_side(attribution.inputs, 1),
        shares=_side_by_side(attribution.shares, 2),
        baselines=_side_by_side(attribution.baselines, 2),
        table=_joined(labels, parts, attribution.tables),
    )


def _check_columns(values: Tensor, which: str) -> None:
    if values.ndim != 2:
        raise ShapeError(
            f"The map{which} has shape {describe(values.shape)}: columns are (examples, columns); sum over other axes first."
        )


def _side_by_side(parts: Any, axis: int) -> Any:
    """The tensors of a tuple or dict, columns side by side; None of None."""
    return None if parts is None else torch.cat(listed(parts), axis)


def _joined(
    labels: Sequence[str], parts: Sequence[Tensor], tables: Sequence[Table | None]
) -> Table:
    """One table of those of several inputs; where two have a column of one name, that of the input
    stands before it."""
    names_of = [
        tuple(str(i) for i in range(part.shape[1])) if table is None else table.names
        for part, table in zip(parts, tables or [None] * len(parts), strict=True)
    ]
    flat = [name for names in names_of for name in names]
    prefixed = len(set(flat)) < len(flat)
    names: list[str] = []
    shown: dict[str, tuple[Cell, ...]] = {}
    index: tuple[Hashable, ...] = ()
    for label, own_names, table in zip(
        labels, names_of, tables or [None] * len(parts), strict=True
    ):
        new_names = [f"{label}.{name}" if prefixed else name for name in own_names]
        names += new_names
        if table is not None:
            index = index or table.index
            renamed = dict(zip(own_names, new_names, strict=True))
            shown |= {renamed[name]: cells for name, cells in table.shown.items()}
    return Table(tuple(names), index, shown)


def feature_values(attribution: Attribution) -> dict[str, tuple[Cell, ...]]:
    """What readers see at each column (B,): words where there are some, else the number that was
    explained; None where a sum of several columns has neither."""
    attribution = as_table(attribution)
    assert attribution.table is not None
    names, shown = attribution.table.names, attribution.table.shown
    fits = isinstance(attribution.inputs, Tensor) and (
        attribution.inputs.shape == attribution.values.shape
    )
    columns = attribution.inputs.T.tolist() if fits else [[None] * len(attribution)] * len(names)
    return {
        name: shown[name] if name in shown else tuple(column)
        for name, column in zip(names, columns, strict=True)
    }


# --- groups -----------------------------------------------------------------------------------------------------------


def grouped(attribution: Attribution, groups: Groups) -> Attribution:
    """The attribution of groups of columns: A_g = Σ_{i in g} A_i, so that completeness stays."""
    attribution = as_table(attribution)
    assert attribution.table is not None
    names = attribution.table.names
    members_of = partition(groups, names)
    origin = [0] * len(names)
    for position, members in enumerate(members_of.values()):
        for member in members:
            origin[member] = position
    cells = feature_values(attribution)
    shown = {
        name: cells[names[members[0]]]
        if len(members) == 1
        else _category(attribution, members, names)
        for name, members in members_of.items()
    }
    return decoded(attribution, origin, Table(tuple(members_of), attribution.table.index, shown))


def decoded(attribution: Attribution, origin: Sequence[int], table: Table) -> Attribution:
    """The attribution of other columns (B, M), those of ``table``: column i is summed to the one
    that it comes from, ``origin`` (N,); one that nothing comes from has contributed nothing."""
    index = torch.tensor(origin, dtype=torch.long)
    count = len(table.names)

    def summed(t: Tensor) -> Tensor:
        sums = t.new_zeros((*t.shape[:-1], count))
        return sums.index_add_(-1, index.to(t.device), t)

    values = summed(attribution.values)
    covariance = attribution.covariance  # G C Gᵀ
    if covariance is not None:
        covariance = summed(summed(covariance).transpose(1, 2))
    return replace(
        attribution,
        values=values,
        covariance=covariance,
        shares=mapped(summed, attribution.shares),
        error=_error_of_sums(attribution, values, int(index.bincount().max())),
        table=table,
    )


def partition(groups: Groups, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """All columns in groups, in order of their first; a column that is in none is its own group."""
    positions = {name: i for i, name in enumerate(names)}
    group_of: dict[int, str] = {}
    if not isinstance(groups, Mapping):
        raise InputError(
            f"Groups are a dict of lists of columns by the group's name, not a {type(groups).__name__}."
        )
    for label, members in groups.items():
        group = str(label)
        if isinstance(members, str) or not len(members):
            raise InputError(
                f"Group {group!r} is {members!r}: give a list of the columns that belong to it."
            )
        for member in members:
            i = positions.get(member) if isinstance(member, str) else member
            if i is None or not 0 <= i < len(names):
                raise UnknownName(f"column of group {group!r}", str(member), names)
            if i in group_of:
                raise InputError(
                    f"Column {names[i]!r} is in group {group_of[i]!r} and again in {group!r}: a column counts once."
                )
            group_of[i] = group
    members_of: dict[str, tuple[int, ...]] = {}
    for i, name in enumerate(names):
        group = group_of.get(i, name)
        if i not in group_of and group in map(str, groups):
            raise InputError(
                f"Group {group!r} has the name of a column that is not in it: call one of them otherwise."
            )
        members_of[group] = (*members_of.get(group, ()), i)
    return members_of


def _category(
    attribution: Attribution, members: Sequence[int], names: Sequence[str]
) -> tuple[Cell, ...]:
    """Which of several one-hot columns is on, in each example; None where they are none such."""
    fits = isinstance(attribution.inputs, Tensor) and attribution.inputs.shape[1] == len(names)
    if not fits:
        return (None,) * len(attribution)
    numbers = attribution.inputs[:, list(members)]
    one_hot = bool(((numbers == 0) | (numbers == 1)).all() and (numbers.sum(1) <= 1).all())
    if not one_hot:
        return (None,) * len(attribution)
    labels = [names[i] for i in members]
    shared = _shared_prefix(labels)
    return tuple(labels[int(row.argmax())][shared:] if bool(row.any()) else None for row in numbers)


def _shared_prefix(labels: Sequence[str]) -> int:
    """The length of what names such as origin_japan and origin_usa begin with, up to an
    underscore."""
    first, last = min(labels), max(labels)
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        min(len(first), len(last)),
    )
    return first[:same].rfind("_") + 1


def _error_of_sums(attribution: Attribution, values: Tensor, largest: int) -> Tensor:
    """An upper bound of the relative error of sums: errors of at most ``largest`` columns add up."""
    if largest == 1:
        return attribution.error
    before = attribution.values.double().norm(dim=1)
    after = values.double().norm(dim=1)
    bound = attribution.error.double() * before * largest**0.5 / after
    exact = attribution.error == 0
    return torch.where(exact, 0.0, bound).to(attribution.error.dtype)


# --- importance -------------------------------------------------------------------------------------------------------


def importance(attribution: Attribution, levels: Sequence[float] = LEVELS) -> Importance:
    """Mean |A_i| of every column over the examples, with 95 % intervals and quantiles."""
    table = as_table(attribution)
    tally = ImportanceTally(levels, most=max(1, len(attribution)))
    tally.add(table.values, table.feature_names, table.converged, attribution.cost)
    return tally.importance()


# --- frames -----------------------------------------------------------------------------------------------------------

KINDS = ("values", "examples", "long")


def to_pandas(attribution: Attribution, kind: str = "values") -> Any:
    """The attribution as a DataFrame of one of three kinds."""
    if kind not in KINDS:
        raise UnknownName("kind of frame", kind, KINDS)
    if kind == "examples":
        table = next((table for table in attribution.tables if table is not None), None)
        return frame_of(per_example(attribution), _index(table))
    attribution = as_table(attribution)
    assert attribution.table is not None
    names, index = attribution.table.names, _index(attribution.table)
    values = attribution.values.detach().cpu()
    if kind == "values":
        return frame_of({name: values[:, i].numpy() for i, name in enumerate(names)}, index)
    examples = range(len(values)) if index is None else index
    cells = feature_values(attribution)
    lines = {
        "example": [example for example in examples for _ in names],
        "feature": [*names] * len(values),
        "value": [cells[name][b] for b in range(len(values)) for name in names],
        "contribution": values.flatten().numpy(),
    }
    if attribution.covariance is not None:
        low, high = attribution.interval()
        for name, ends in (("low", low), ("high", high)):
            lines[name] = ends.detach().cpu().flatten().numpy()
    return frame_of(lines)


def _index(table: Table | None) -> list[Any] | None:
    return None if table is None or not table.index else list(table.index)


def per_example(attribution: Attribution) -> dict[str, Any]:
    """What is known of each example's map as a whole, (B,) each.

    "standard_errors" is how many of its own the residual comes to; "missed" is the residual
    relative to Σ |A_i|, which means something where F changes by next to nothing, and the gap does
    not.
    """
    change = attribution.output - attribution.base
    credited = sum(
        (total(part.abs(), 1) for part in listed(attribution.values)), torch.zeros_like(change)
    )
    missed = attribution.residual.abs() / credited
    columns = {
        "output": attribution.output,
        "base": attribution.base,
        "change": change,
        "residual": attribution.residual,
        "standard_errors": attribution.residual_in_errors,
        "gap": attribution.gap,
        "missed": torch.where(attribution.residual == 0, 0.0, missed),
        "error": attribution.error,
        "converged": attribution.converged,
    }
    return {name: column.detach().cpu().numpy() for name, column in columns.items()}
