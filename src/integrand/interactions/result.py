"""The result: a matrix of interactions for every example, and what it adds up to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.frames import frame_of
from ..core.optional import room
from ..core.options import check_choice, whole
from ..core.shapes import describe, unravelled
from ..errors import InputError, ShapeError, UnknownName
from ..integration.attribution import rounding
from ..integration.cost import Cost
from ..tables.results import Groups, partition

Feature = int | str | tuple[int, ...]
"""A feature: its number, counted over an example laid flat, its place, or its name."""

FRAMES = ("long", "mean")


class Pair(NamedTuple):
    """Two features, and how they interact over the examples: the mean of |Γ_ij|, and of Γ_ij."""

    first: str
    second: str
    strength: float
    mean: float


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """How much of the change of F belongs to every pair of features, for B examples.

        Σ_ij Γ_ij + residual = F(x) − mean_r F(b_r)          Σ_j Γ_ij = IG_i          Γ_ij = Γ_ji

    Attributes:
        values: (B, \\*s, \\*s) Γ; (B, G, G) of G groups of features or of several inputs laid end to
            end; with ``rows`` (B, r, \\*s) or (B, r, G).
        attributions: (B, \\*s) or (B, G) Σ_j Γ_ij of every feature, which are Integrated (or
            Expected) Gradients.
        output: (B,) F(x); of the smoothed model, where ``softplus`` says so.
        base: (B,) the mean of F at the references.
        residual: (B,) what all interactions together miss of the change.
        error: (B,) the estimated relative L2 error of ``values``; NaN for fixed nodes, a bound for
            95 of 100 where chance decides.
        converged: (B,) whether the tolerance was met; without one, whether the gap is at most a
            tenth.
        nodes: (B,) places on each line where second derivatives were taken.
        rows: the features whose rows there are; None for all of them.
        feature_names: names, where features have some.
        softplus: the sharpness β of what stood for every ReLU; None where nothing was smoothed.
        kinks: names of operations that second derivatives do not see.
        resolution: how far apart, relatively, the numbers lie that F was computed in.
        cost: gradients are counted with a product of the Hessian as one.
        method: how it was integrated, as it prints.
        target: what was explained.
    """

    values: Tensor
    attributions: Tensor
    output: Tensor
    base: Tensor
    residual: Tensor
    error: Tensor
    converged: Tensor
    nodes: Tensor
    rows: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] = ()
    softplus: float | None = None
    kinks: tuple[str, ...] = ()
    resolution: float = 0.0
    cost: Cost = Cost()
    method: str = ""
    target: Any = None

    # --- numbers ------------------------------------------------------------------------------------

    @property
    def shape(self) -> torch.Size:
        """The shape of the features of an example, \\*s or G."""
        return self.attributions.shape[1:]

    @property
    def gap(self) -> Tensor:
        """(B,) the residual relative to the change it should explain; a change that rounding may have
        made is taken for as large as rounding makes it."""
        summed = self.attributions.flatten(1).abs().sum(1)
        floor = rounding(self.output, self.base, summed, self.resolution)
        change = torch.maximum((self.output - self.base).abs(), floor)
        relative = self.residual.abs() / change.clamp_min(torch.finfo(change.dtype).tiny)
        return relative.nan_to_num(nan=torch.inf, posinf=torch.inf)

    @property
    def matrix(self) -> Tensor:
        """(B, r, n) the rows with features laid flat."""
        return self.values.reshape(len(self), -1, math.prod(self.shape))

    @property
    def main_effects(self) -> Tensor:
        """Γ_ii, what each feature contributes by itself: (B, \\*s) or (B, G), or (B, r) of rows."""
        matrix = self.matrix
        if self.rows is None:
            return matrix.diagonal(dim1=1, dim2=2).reshape(self.attributions.shape)
        rows = torch.tensor(self.rows, device=matrix.device)
        return matrix.gather(2, rows[None, :, None].expand(len(self), -1, 1))[..., 0]

    def pair(self, first: Feature, second: Feature) -> Tensor:
        """(B,) Γ_ij, which stands twice in the matrix: the pair adds 2 Γ_ij to F.

        Args:
            first: a feature by its number, its place or its name; one of ``rows``, where there are
                not all.
            second: another, or the same for its main effect.

        Raises:
            UnknownName: for a name that there is not.
            InputError: for a number that there is not, and rows that were not asked for.
        """
        i, j = self._number(first), self._number(second)
        if self.rows is None:
            return self.matrix[:, i, j]
        for row, column in ((i, j), (j, i)):
            if row in self.rows:
                return self.matrix[:, self.rows.index(row), column]
        raise InputError(
            f"Neither {first!r} nor {second!r} is among the rows that were asked for: name one of them in of=."
        )

    def top(self, k: int = 10) -> list[Pair]:
        """The ``k`` pairs of different features whose |Γ_ij| is largest, on average over the
        examples."""
        k = whole("k", k, least=0)
        matrix = self.matrix
        strength, mean = matrix.abs().mean(0), matrix.mean(0)
        row, column = self._pairs()
        row, column = row.to(matrix.device), column.to(matrix.device)
        order = strength[row, column].argsort(descending=True, stable=True)[:k]
        numbers = range(math.prod(self.shape)) if self.rows is None else self.rows
        return [
            Pair(
                self.name(numbers[r]),
                self.name(c),
                float(strength[r, c]),
                float(mean[r, c]),
            )
            for r, c in zip(row[order].tolist(), column[order].tolist(), strict=True)
        ]

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Every pair of different features once: rows and columns."""
        features = math.prod(self.shape)
        if self.rows is None:
            row, column = torch.triu_indices(features, features, 1)
            return row, column
        places = {number: place for place, number in enumerate(self.rows)}
        pairs = [
            (place, column)
            for number, place in places.items()
            for column in range(features)
            if column != number and places.get(column, len(places)) > place
        ]
        table = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def name(self, number: int) -> str:
        """What a feature is called: its name, its place in an example of several axes, or its
        number."""
        if self.feature_names:
            return self.feature_names[number]
        if len(self.shape) < 2:
            return str(number)
        place = unravelled(torch.tensor(number), self.shape)
        return "(" + ", ".join(str(int(axis)) for axis in place) + ")"

    def _number(self, feature: Feature) -> int:
        return number_of(feature, self.shape, self.feature_names)

    # --- groups and frames ----------------------------------------------------------------------------

    def grouped(self, groups: Groups) -> Interactions:
        """Sum features that belong together: Γ_gh = Σ_{i ∈ g} Σ_{j ∈ h} Γ_ij, so that completeness
        and row sums stay.

        Args:
            groups: what a group is called → the names of its features, or their numbers. Features in
                none stay as they are.

        Returns:
            The same with values (B, G, G), in the order of their first features; ``error`` is an
            upper bound.

        Raises:
            UnknownName, InputError: as ``Attribution.grouped``.
            ShapeError: where there are some rows only.
        """
        if self.rows is not None:
            raise ShapeError("Groups need the whole matrix: leave of= out.")
        features = math.prod(self.shape)
        names = [self.name(number) for number in range(features)]
        members = partition(groups, names)
        index = torch.empty(features, dtype=torch.long)
        for place, numbers in enumerate(members.values()):
            index[list(numbers)] = place
        index = index.to(self.values.device)

        def summed(t: Tensor) -> Tensor:
            return t.new_zeros(*t.shape[:-1], len(members)).index_add_(-1, index, t)

        values = summed(summed(self.matrix).transpose(1, 2)).transpose(1, 2)
        largest = max(map(len, members.values()))
        size = values.flatten(1).norm(dim=1)
        bound = self.error * self.matrix.flatten(1).norm(dim=1) * largest / size
        return dataclasses.replace(
            self,
            values=values,
            attributions=summed(self.attributions.flatten(1)),
            error=torch.where(self.error == 0, self.error, bound),
            feature_names=tuple(members),
        )

    def to_pandas(self, kind: str = "long") -> Any:
        """The interactions as a pandas DataFrame.

        Args:
            kind: "long": a line for each entry of each example's matrix (example, feature, with,
                interaction); "mean": the matrix of means over the examples, features on both sides.

        Raises:
            MissingExtra: without pandas.
            InputError: for another kind.
        """
        check_choice("kind", kind, FRAMES)
        features = math.prod(self.shape)
        names = [self.name(number) for number in range(features)]
        rows = names if self.rows is None else [names[number] for number in self.rows]
        matrix = self.matrix.detach().cpu()
        if kind == "mean":
            mean = matrix.mean(0)
            return frame_of({name: mean[:, j].numpy() for j, name in enumerate(names)}, rows)
        count = len(rows) * features
        return frame_of(
            {
                "example": [b for b in range(len(self)) for _ in range(count)],
                "feature": [row for row in rows for _ in names] * len(self),
                "with": names * len(rows) * len(self),
                "interaction": matrix.flatten().numpy(),
            }
        )

    # --- examples -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.output)

    def __getitem__(self, index: int | slice | Tensor | list[int]) -> Interactions:
        """The interactions of one or some examples, batch axis kept; ``cost`` is their part of that
        of the batch, an even share for each example."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"There is no example {index} among {len(self)}.")
            index = [index % len(self)]
        chosen: Any = index
        numbers = torch.arange(len(self))[chosen].tolist()
        return dataclasses.replace(
            self,
            **{name: getattr(self, name)[chosen] for name in BY_EXAMPLE},
            cost=self.cost.of_examples(numbers, len(self)),
        )

    def __repr__(self) -> str:
        worst = float(self.gap.max()) if len(self) else 0.0
        return (
            f"<Interactions of {len(self)} example{'s' * (len(self) != 1)}, values {tuple(self.values.shape)}, by {self.method}, "
            f"worst gap {worst:.2%}, {self.cost.gradients} gradients and products in {self.cost.seconds:.2f} s>"
        )

    # --- doors to the floors above ----------------------------------------------------------------------

    def plot(self, **options: Any) -> Any:
        """Draw a heat map or a network; see ``integrand.report.interactions.plot``. Needs
        integrand[plot]."""
        return room("report.interactions").plot(self, **options)

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file, whole or not at all; ``ig.load`` reads it back. Needs
        integrand[save]."""
        room("interactions.io").save(self, path)


BY_EXAMPLE = (
    "values",
    "attributions",
    "output",
    "base",
    "residual",
    "error",
    "converged",
    "nodes",
)
"""What has examples on its first axis."""


def number_of(feature: object, shape: Sequence[int], names: Sequence[str]) -> int:
    """The number of a feature that is given by number, place or name.

    Raises:
        UnknownName: for a name that there is not.
        InputError: for any other that there is not.
    """
    features = math.prod(shape)
    if isinstance(feature, str):
        if feature not in names:
            raise UnknownName("feature", feature, names)
        return list(names).index(feature)
    if isinstance(feature, tuple):
        inside = len(feature) == len(shape) and all(
            -size <= place < size for place, size in zip(feature, shape, strict=False)
        )
        if not inside:
            raise InputError(
                f"There is no feature at {feature} of examples of shape {describe(shape)}."
            )
        number = 0
        for place, size in zip(feature, shape, strict=True):
            number = number * size + place % size
        return number
    number = whole("A feature", feature)
    if not -features <= number < features:
        raise InputError(f"There is no feature {number} among {features}.")
    return number % features
