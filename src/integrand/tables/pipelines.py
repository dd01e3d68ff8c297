"""Pipelines of scikit-learn: frames of words and numbers in, contributions of their columns out.

    frame ── steps up to attribute_after ──▶ z (B, N) ── the other steps, and the model ──▶ F
    A(z) (B, N) ── columns that come from one column of the frame are added up ──▶ A (B, M)

A path is straight in z, the numbers that come out of the step ``attribute_after`` (the last before the
model, unless named). Baselines are rows of the frame too, and go through the same steps. What is
added up stays complete: Σ_M A = Σ_N A. A column that comes from several of the frame (of a PCA, say)
has no place among them and stays as it is, which is warned of.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.frames import Cell, Table, column_names, is_frame
from ..core.optional import is_instance, optional
from ..errors import InputError, MixedColumnsWarning, UnknownName, warn
from ..fields.fitted import fitted
from ..model.doors import Door, Encoding, listed
from .transformers import Sources, goes_in, passes, through

_NEEDS = "Explaining a pipeline"


class PipelineEncoding(Encoding):
    """The first steps of a pipeline, as they read tables such as one that is explained.

    Args:
        steps: all steps of the pipeline, fitted, by name.
        count: how many of them are the encoding.
        table: the table that is explained, which may name columns that the pipeline does not.
    """

    def __init__(self, steps: Sequence[tuple[str, Any]], count: int, table: object) -> None:
        self.steps = [step for _, step in steps[:count] if not passes(step)]
        self.last = steps[count - 1][0] if count else "the input"
        """The step that ``columns`` come out of."""
        self.trained = next(step for _, step in steps if not passes(step))
        """The step that is given the table itself, and knows its columns."""
        self.expected = _columns_of(self.trained)
        self._given = self._names_of(table)
        first = _pandas(table).iloc[:1] if is_frame(table) else _numbers(table)[:1]
        if not len(first):
            raise InputError("There are no rows to explain: the table is empty.")
        self._width = self.rows(first).shape[1]

    # --- names --------------------------------------------------------------------------------------------------------

    def _names_of(self, table: object) -> tuple[str, ...]:
        """Names of the columns that go in, in the order of the pipeline."""
        if self.expected is not None:
            return self.expected
        names = (
            column_names(table)
            if is_frame(table)
            else tuple(str(i) for i in range(_numbers(table).shape[1]))
        )
        _check_count(len(names), goes_in(self.trained))
        return names

    @cached_property
    def sources(self) -> Sources:
        """What each column of numbers depends on, of those that go in."""
        return through(self.steps, len(self._given), self._width)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        names: Any = list(self._given)
        try:
            for step in self.steps:
                names = step.get_feature_names_out(names)
        except (AttributeError, ValueError):  # of a transformer that does not say
            names = []
        if len(names) != self._width:
            names = [f"{self.last} {i}" for i in range(self._width)]
        return tuple(map(str, names))

    @cached_property
    def mixed(self) -> tuple[int, ...]:
        """Columns of numbers that come from several columns of the table."""
        return tuple(j for j, column in enumerate(self.sources) if len(column) > 1)

    @cached_property
    def shown_columns(self) -> tuple[int, ...]:
        """Columns that go in and are told of: all but those that are in mixtures only."""
        alone = {i for column in self.sources if len(column) == 1 for i in column}
        mixed = {i for j in self.mixed for i in self.sources[j]}
        return tuple(i for i in range(len(self._given)) if i in alone or i not in mixed)

    @cached_property
    def _left(self) -> tuple[int, ...]:
        """Columns of numbers that stay as they are: mixtures, and constants."""
        return tuple(j for j, column in enumerate(self.sources) if len(column) != 1)

    @cached_property
    def names(self) -> tuple[str, ...]:
        names = [self._given[i] for i in self.shown_columns]
        for j in self._left:
            name = self.columns[j]
            names.append(f"{name} ({self.last})" if name in names else name)
        return tuple(names)

    @cached_property
    def origin(self) -> tuple[int, ...]:
        place = {i: position for position, i in enumerate(self.shown_columns)}
        left = {j: len(place) + position for position, j in enumerate(self._left)}
        return tuple(
            left[j] if j in left else place[next(iter(column))]
            for j, column in enumerate(self.sources)
        )

    # --- tables -------------------------------------------------------------------------------------------------------

    def rows(self, table: object) -> Tensor:
        numbers = self._transformed(self._as_trained(table))
        return torch.from_numpy(np.array(numbers, dtype=np.float64, order="C"))  # of nobody else's

    def _transformed(self, frame: Any) -> NDArray[Any]:
        """What comes out of the steps, as an array."""
        for step in self.steps:
            frame = step.transform(frame)
        if is_frame(frame):
            frame = _pandas(frame).to_numpy()
        elif not isinstance(frame, np.ndarray):  # sparse
            frame = frame.toarray()
        try:
            return np.asarray(frame, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(
                f"Columns that hold no numbers come out of {self.last!r}, where the pipeline's columns are explained: encode them in a step of the "
                "pipeline, and name that or a later one with attribute_after=."
            ) from None

    def _as_trained(self, table: object) -> Any:
        """The table as the pipeline was given it: a frame with its columns, or numbers."""
        if not is_frame(table):
            numbers = _numbers(table)
            _check_count(numbers.shape[1], len(self._given))
            if self.expected is None:
                return numbers
            pandas = optional("pandas", extra="tables", needs=_NEEDS)
            return pandas.DataFrame(numbers, columns=list(self.expected))
        frame = _pandas(table)
        names = column_names(table)
        wanted = self._given
        missing = [name for name in wanted if name not in names]
        if missing:
            raise InputError(
                f"The frame lacks {', '.join(map(repr, missing))}: give the columns that the pipeline was trained on, in any order."
            )
        frame = frame.iloc[:, [names.index(name) for name in wanted]]
        # What was trained on an array counts columns, and would wonder at names.
        counted = self.expected is None and goes_in(self.trained) is not None
        return frame.to_numpy() if counted else frame

    def described(self, table: object) -> Table:
        index: tuple[Hashable, ...] = Table.of(table).index if is_frame(table) else ()
        trained = self._as_trained(table)
        frame = trained if is_frame(trained) else None
        shown: dict[str, tuple[Cell, ...]] = {}
        for name, i in zip(self.names, self.shown_columns, strict=False):
            column = trained[:, i] if frame is None else frame.iloc[:, i].tolist()
            shown[name] = tuple(map(_cell, column))
        if self._left:
            numbers = self.rows(table)
            for position, j in enumerate(self._left, len(self.shown_columns)):
                shown[self.names[position]] = tuple(numbers[:, j].tolist())
        return Table(self.names, index, shown)

    def warn_of_mixtures(self) -> None:
        """Say once which columns stay as they are, and why."""
        if not self.mixed:
            return
        some = [repr(self.columns[j]) for j in self.mixed[:3]]
        more = f" and {len(self.mixed) - 3} more" if len(self.mixed) > 3 else ""
        behind = sorted({i for j in self.mixed for i in self.sources[j]})
        from_names = ", ".join(repr(self._given[i]) for i in behind[:4]) + (
            ", …" if len(behind) > 4 else ""
        )
        warn(
            f"Columns {', '.join(some)}{more}, which come out of step {self.last!r}, depend on several columns of the frame each ({from_names}): "
            "their contributions are shown as their own. To explain the columns of the frame, name the step before they are mixed, "
            "with attribute_after=.",
            MixedColumnsWarning,
        )


class PipelineDoor(Door):
    """Pipelines of scikit-learn, whose last step is a model.

    ``attribute_after`` names the step whose columns are explained: a transformer, the last before
    the model unless given. Steps behind it are part of F, and have to be functions that torch can
    differentiate (``fields.scikit_learn.transformers``).
    """

    options: ClassVar[tuple[str, ...]] = ("attribute_after",)

    def opens(self, model: object) -> bool:
        return is_instance(model, "sklearn.pipeline", "Pipeline")

    def opened(
        self, model: Any, table: object, options: Mapping[str, object]
    ) -> tuple[Encoding, Any]:
        """The steps up to ``attribute_after`` as an encoding, and what is behind them.

        Raises:
            UnknownName: for a step that there is not.
            InputError: for the model itself, and for inputs that are no table.
        """
        if not is_frame(table) and not isinstance(table, Tensor | np.ndarray):
            raise InputError(
                f"A pipeline reads a data frame, or an array of rows, not {type(table).__name__}."
            )
        names = [name for name, _ in model.steps]
        step = options.get("attribute_after")
        last = len(names) - 2 if step is None else _place(step, names)
        with fitted(model):
            encoding = PipelineEncoding(model.steps, last + 1, table)
            encoding.warn_of_mixtures()
        behind = model.steps[last + 1 :]
        return encoding, behind[0][1] if len(behind) == 1 else model[last + 1 :]


def _place(step: object, names: Sequence[str]) -> int:
    if not isinstance(step, str) or step not in names:
        raise UnknownName("step of the pipeline", str(step), names[:-1])
    if step == names[-1]:
        raise InputError(
            f"Step {step!r} is the model itself: attribute_after= names a transformer before it."
        )
    return names.index(step)


def _columns_of(step: Any) -> tuple[str, ...] | None:
    """The names of the columns that a step was trained on; None where they had none."""
    try:
        return tuple(map(str, step.feature_names_in_))
    except AttributeError:
        return None


def _check_count(count: int, wanted: int | None) -> None:
    if wanted is not None and count != wanted:
        raise InputError(f"The pipeline takes {wanted} columns, and there are {count}.")


def _numbers(table: Any) -> NDArray[Any]:
    """Rows of a tensor or array (B, M).

    Raises:
        InputError: for other shapes.
    """
    numbers = table.detach().cpu().numpy() if isinstance(table, Tensor) else np.asarray(table)
    if numbers.ndim != 2:
        raise InputError(
            f"A pipeline reads rows of columns (B, M), and these inputs have shape {tuple(numbers.shape)}."
        )
    return numbers


def _pandas(frame: Any) -> Any:
    """A frame of any library as one of pandas."""
    if is_instance(frame, "pandas", "DataFrame"):
        return frame
    narwhals = optional("narwhals", extra="tables", needs=_NEEDS)
    return narwhals.from_native(frame, eager_only=True).to_pandas()


def _cell(value: Any) -> Cell:
    """What readers see of an entry of a frame."""
    if value is None or value != value or str(value) in ("<NA>", "NaT"):
        return None
    if isinstance(value, int | float | np.number | np.bool_):
        return float(value)
    return str(value)


PIPELINES = listed(PipelineDoor())
"""The door, listed."""
