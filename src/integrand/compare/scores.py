"""Table of raw results: scores of every method by every metric on every example, and costs.

Nothing here is a mean. Shards are computed anywhere and merged by names, in any order; statistics
come afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.files import whole
from ..core.optional import optional
from ..errors import InputError, UnknownName

Numbers = NDArray[np.float64]

AXES = ("methods", "metrics", "examples")
"""Names along the axes of ``values``."""

COSTS = ("gradients", "rows", "seconds", "gap", "error")
"""Fields (M, E) of every map beside its scores."""

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of methods (M) by metrics (Q) on examples (E).

    Args:
        values: (M, Q, E) float64, NaN where a metric has no value or there was no map to judge.
        methods: (M,) names, each only once.
        metrics: (Q,) names, each only once.
        examples: (E,) names, each only once.
        higher: (Q) whether higher is better.
        gradients: (M, E) rows evaluated with a gradient for each map. Rows that serve a whole
            batch, such as references that all its examples share, count in equal parts.
        rows: (M, E) rows evaluated without a gradient.
        seconds: (M, E) wall clock, of a batch in proportion to its rows.
        gap: (M, E) what the map misses of the change of F, relative to it, NaN where its method
            does not claim completeness.
        error: (M, E) the relative error that its method estimates, NaN where it estimates none.
        reasons: why there is no map, by (method, example).
        curves: by metric, what was measured before it became a number (M, E, \\*t); NaN as in
            values.
        controls: which methods are controls.
        about: anything else that JSON can hold.
    """

    values: Numbers
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    higher: tuple[bool, ...]
    examples: tuple[str, ...]
    gradients: Numbers
    rows: Numbers
    seconds: Numbers
    gap: Numbers
    error: Numbers
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)
    curves: Mapping[str, Numbers] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = len(self.methods), len(self.metrics), len(self.examples)
        for kind, names in (
            ("method", self.methods),
            ("metric", self.metrics),
            ("example", self.examples),
        ):
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise InputError(
                    f"There are two {kind}s called {twice!r}: give each a name of its own."
                )
        if self.values.shape != sizes or len(self.higher) != sizes[1]:
            raise InputError(
                f"Values of shape {self.values.shape} are not those of {sizes} methods, metrics, examples."
            )
        for name in COSTS:
            if getattr(self, name).shape != (sizes[0], sizes[2]):
                raise InputError(
                    f"{name} has shape {getattr(self, name).shape}, not {(sizes[0], sizes[2])}."
                )

    def __repr__(self) -> str:
        missing = int(np.isnan(self.values).sum())
        none = f", {missing} without a value" if missing else ""
        return f"<Scores of {len(self.methods)} methods by {len(self.metrics)} metrics on {len(self)} examples{none}>"

    def __len__(self) -> int:
        return len(self.examples)

    # --- reading --------------------------------------------------------------------------------------------------

    def of(self, metric: str) -> Numbers:
        """(M, E) the values of one metric. Raises ``UnknownName`` for another metric."""
        values: Numbers = self.values[:, _place("metric", metric, self.metrics)]
        return values

    def is_higher(self, metric: str) -> bool:
        """Whether higher is better."""
        return self.higher[_place("metric", metric, self.metrics)]

    def select(
        self,
        *,
        methods: Sequence[str] | None = None,
        metrics: Sequence[str] | None = None,
        examples: Sequence[str] | None = None,
    ) -> Scores:
        """Select methods, metrics and examples, in the order given. Raises ``UnknownName``."""
        m = _places("method", methods, self.methods)
        q = _places("metric", metrics, self.metrics)
        e = _places("example", examples, self.examples)
        selected = {self.methods[i] for i in m}, {self.examples[i] for i in e}
        return replace(
            self,
            values=self.values[np.ix_(m, q, e)],
            methods=tuple(self.methods[i] for i in m),
            metrics=tuple(self.metrics[i] for i in q),
            higher=tuple(self.higher[i] for i in q),
            examples=tuple(self.examples[i] for i in e),
            **{name: getattr(self, name)[np.ix_(m, e)] for name in COSTS},
            reasons={
                (a, b): why
                for (a, b), why in self.reasons.items()
                if a in selected[0] and b in selected[1]
            },
            curves={
                name: self.curves[name][np.ix_(m, e)]
                for name in (self.metrics[i] for i in q)
                if name in self.curves
            },
            controls=tuple(name for name in self.controls if name in selected[0]),
        )

    # --- merging --------------------------------------------------------------------------------------------------

    def merge(self, other: Scores) -> Scores:
        """Both tables as a new one. They differ in examples, in methods, or in metrics, and share
        the other two.

        Curves that have another number of points in the other table are left out, their values are
        not.

        Raises:
            InputError: for tables that overlap, or differ in more than one of the three.
        """
        axis = self._differing_axis(other)
        other = other.select(**{name: getattr(self, name) for name in AXES if name != axis})
        if axis != "metrics" and self.higher != other.higher:
            raise InputError("The tables do not agree on which metrics are better when higher.")
        changes: dict[str, Any] = {
            "values": np.concatenate([self.values, other.values], AXES.index(axis)),
            axis: getattr(self, axis) + getattr(other, axis),
        }
        if axis == "metrics":
            changes["higher"] = self.higher + other.higher
            changes["curves"] = {**self.curves, **other.curves}
        else:
            changes |= self._merged_maps(other, 0 if axis == "methods" else 1)
        controls = self.controls + tuple(
            name for name in other.controls if name not in self.controls
        )
        reasons, about = {**self.reasons, **other.reasons}, {**other.about, **self.about}
        return replace(self, **changes, reasons=reasons, controls=controls, about=about)

    def _differing_axis(self, other: Scores) -> str:
        """The only axis in which two tables differ, without overlap."""
        differ = [axis for axis in AXES if set(getattr(self, axis)) != set(getattr(other, axis))]
        if len(differ) != 1:
            axes = " and ".join(differ) if differ else "nothing: they are about the same"
            raise InputError(
                f"Tables merge that differ in examples, in methods or in metrics; these differ in {axes}."
            )
        axis = differ[0]
        twice = sorted(set(getattr(self, axis)) & set(getattr(other, axis)))
        if twice:
            raise InputError(
                f"Both tables hold {axis} {', '.join(map(repr, twice[:5]))}: leave them out of one."
            )
        return axis

    def _merged_maps(self, other: Scores, axis: int) -> dict[str, Any]:
        """Costs and curves of both tables, along methods (0) or examples (1)."""
        costs = {
            name: np.concatenate([getattr(self, name), getattr(other, name)], axis)
            for name in COSTS
        }
        curves = {
            name: np.concatenate([curve, other.curves[name]], axis)
            for name, curve in self.curves.items()
            if name in other.curves and other.curves[name].shape[2:] == curve.shape[2:]
        }
        return {**costs, "curves": curves}

    @staticmethod
    def merged(tables: Iterable[Scores]) -> Scores:
        """Merge any number of tables. Raises ``InputError`` where there is none."""
        result: Scores | None = None
        for table in tables:
            result = table if result is None else result.merge(table)
        if result is None:
            raise InputError("There are no scores to merge.")
        return result

    # --- disk -----------------------------------------------------------------------------------------------------

    def to_parquet(self, path: str | Path) -> None:
        """Write one row for every method, metric and example; the rest as JSON in the file's
        metadata. Needs integrand[save]."""
        arrow, parquet = _pyarrow()
        many = len(self.methods), len(self.metrics), len(self.examples)
        m, q, e = (place.ravel() for place in np.indices(many))
        columns: dict[str, Any] = {
            "method": [self.methods[i] for i in m],
            "metric": [self.metrics[i] for i in q],
            "example": [self.examples[i] for i in e],
            "higher_is_better": [self.higher[i] for i in q],
            "value": self.values.ravel(),
        }
        columns |= {name: getattr(self, name)[m, e] for name in COSTS}
        columns["reason"] = [
            self.reasons.get((self.methods[i], self.examples[k])) for i, k in zip(m, e, strict=True)
        ]
        columns["curve"] = arrow.array(
            [self._curve(i, j, k) for i, j, k in zip(m, q, e, strict=True)],
            arrow.list_(arrow.float64()),
        )
        columns["reason"] = arrow.array(columns["reason"], arrow.string())
        header = {
            "format": _FORMAT,
            "methods": self.methods,
            "metrics": self.metrics,
            "higher": self.higher,
            "examples": self.examples,
            "controls": self.controls,
            "curves": {name: curve.shape[2:] for name, curve in self.curves.items()},
            "about": self.about,
        }
        table = arrow.table(columns).replace_schema_metadata({"integrand": json.dumps(header)})
        with whole(path) as partial:
            parquet.write_table(table, str(partial))

    def _curve(self, m: int, q: int, e: int) -> list[float] | None:
        curve = self.curves.get(self.metrics[q])
        return None if curve is None else curve[m, e].ravel().tolist()

    @classmethod
    def from_parquet(cls, path: str | Path) -> Scores:
        """Read what ``to_parquet`` wrote. Raises ``InputError`` for other files."""
        arrow, parquet = _pyarrow()
        if not Path(path).is_file():
            raise InputError(f"There is no file {str(path)!r}.")
        try:
            table = parquet.read_table(str(path))
            header = json.loads((table.schema.metadata or {})[b"integrand"])
        except KeyError:
            raise InputError(
                f"{str(path)!r} is a Parquet file, but holds no scores of Integrand."
            ) from None
        except arrow.ArrowInvalid as error:
            raise InputError(f"{str(path)!r} cannot be read as a Parquet file: {error}") from error
        if header["format"] > _FORMAT:
            raise InputError(f"{str(path)!r} was written by a newer integrand: upgrade to read it.")
        methods, metrics, examples = (
            tuple(header[axis]) for axis in ("methods", "metrics", "examples")
        )
        many = len(methods), len(metrics), len(examples)
        numbers = {
            name: np.asarray(table[name].to_numpy(), dtype=np.float64).reshape(many)
            for name in ("value", *COSTS)
        }
        curves = np.empty(many, dtype=object)
        curves.ravel()[:] = table["curve"].to_pylist()
        reasons = zip(
            *(table[name].to_pylist() for name in ("method", "example", "reason")), strict=True
        )
        return cls(
            numbers["value"],
            methods,
            metrics,
            tuple(header["higher"]),
            examples,
            numbers["gradients"][:, 0],
            numbers["rows"][:, 0],
            numbers["seconds"][:, 0],
            numbers["gap"][:, 0],
            numbers["error"][:, 0],
            reasons={(method, example): why for method, example, why in reasons if why is not None},
            curves={
                name: np.array(
                    curves[:, metrics.index(name)].tolist(),
                    dtype=np.float64,
                ).reshape(many[0], many[2], *shape)
                for name, shape in header["curves"].items()
            },
            controls=tuple(header["controls"]),
            about=header["about"],
        )


def _place(kind: str, name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise UnknownName(kind, name, names)
    return names.index(name)


def _places(kind: str, wanted: Sequence[str] | None, names: tuple[str, ...]) -> list[int]:
    return (
        list(range(len(names)))
        if wanted is None
        else [_place(kind, name, names) for name in wanted]
    )


def _pyarrow() -> tuple[Any, Any]:
    parquet = optional("pyarrow.parquet", extra="save", needs="Scores on disk")
    return import_module("pyarrow"), parquet
