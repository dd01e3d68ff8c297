"""How much each column contributes over many examples: means, spreads and quantiles, gathered batch
by batch.

Means and sums of squares are merged exactly, whatever the sizes of batches (Chan's formula).
Quantiles are read from the rows that are kept: all of them, or of more than ``most`` a random sample,
those with the smallest of the random numbers that each row is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.formatting import number
from ..core.frames import frame_of
from ..core.optional import room
from ..core.options import whole
from ..core.random import generator
from ..errors import InputError, UnknownName
from ..integration.cost import Cost
from ..integration.sampling_error import quantile as chance_quantile

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Which quantiles are read unless others are asked for."""


@dataclass(frozen=True, eq=False, repr=False)
class Importance:
    """How much each column contributes over B examples: mean |A_i|, with its interval.

    Attributes:
        names: (N,) of the columns, the most important first.
        importance: (N,) mean of |A_i| over the examples, in units of F.
        low: (N,) where its 95 % interval begins: the mean less Student's t times the standard
            error; NaN for one example.
        high: (N,) where it ends.
        mean: (N,) mean of A_i, with its sign.
        examples: how many there are.
        deviation: (N,) standard deviation of A_i over the examples; NaN for one.
        standard_error: (N,) of ``importance``; NaN for one example.
        levels: (Q,) which quantiles of A_i there are.
        quantiles: (Q, N) they, interpolated between neighbours.
        kept: how many examples ``quantiles`` are read from, a random sample if less than all.
        converged: how many examples' maps are.
        cost: of all explanations.
    """

    names: tuple[str, ...]
    importance: Tensor
    low: Tensor
    high: Tensor
    mean: Tensor
    examples: int
    deviation: Tensor
    standard_error: Tensor
    levels: tuple[float, ...]
    quantiles: Tensor
    kept: int
    converged: int
    cost: Cost

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.names, self.importance.tolist(), strict=True)

    def __getitem__(self, name: str) -> float:
        """The importance of a column.

        Raises:
            UnknownName: for one that there is not.
        """
        if name not in self.names:
            raise UnknownName("column", name, self.names)
        return float(self.importance[self.names.index(name)])

    def __repr__(self) -> str:
        wide = max(len(name) for name in self.names)
        lines = [
            f"{name:<{wide}}  {number(mean)}  [{number(low)}, {number(high)}]"
            for name, mean, low, high in zip(
                self.names,
                self.importance.tolist(),
                self.low.tolist(),
                self.high.tolist(),
                strict=True,
            )
        ]
        return "\n".join(
            [
                f"Importance over {self.examples} examples: mean |contribution|, 95 % interval",
                *lines,
            ]
        )

    def to_pandas(self) -> Any:
        """A DataFrame with a line for each column, and what is above as its columns, quantiles as
        "5%" and so on. Needs pandas."""
        columns = ("importance", "low", "high", "standard_error", "mean", "deviation")
        numbers = {name: getattr(self, name).tolist() for name in columns}
        for level, contributions in zip(self.levels, self.quantiles.tolist(), strict=True):
            numbers[f"{100 * level:g}%"] = contributions
        return frame_of(numbers, list(self.names))

    def plot(self, top: int = 10) -> Any:
        """Draw the ``top`` columns as bars with their intervals. Needs integrand[plot]."""
        return room("report.columns").importance_bars(self, top)


class ImportanceTally:
    """Contributions (B, N) of batch after batch, as few numbers as ``Importance`` needs.

    Args:
        levels: which quantiles are read.
        most: rows kept for them.
        seed: of the sample, where there are more rows.
    """

    def __init__(self, levels: Sequence[float] = LEVELS, most: int = 10_000, seed: int = 0) -> None:
        self.levels = tuple(float(level) for level in levels)
        wrong = next((level for level in self.levels if not 0 <= level <= 1), None)
        if wrong is not None:
            raise InputError(f"A quantile's level is between 0 and 1, not {wrong}.")
        self.most = whole("most", most, least=1)
        self.seed = seed
        self.names: tuple[str, ...] = ()
        self.count = self.converged = self.batches = 0
        self.cost = Cost()
        self.mean = self.size = self.squares = self.size_squares = torch.zeros(())
        self.rows, self.keys = torch.zeros(0, 0), torch.zeros(0)

    def add(self, values: Tensor, names: tuple[str, ...], converged: Tensor, cost: Cost) -> None:
        """Contributions (B, N) of more examples.

        Raises:
            InputError: for other columns than before.
        """
        if self.batches and names != self.names:
            raise InputError(
                f"Batch {self.batches} has the columns {names} and those before it {self.names}: give tables alike."
            )
        values = values.detach().double().cpu()
        if not self.batches:
            self.names = names
            self.mean, self.size, self.squares, self.size_squares = values.new_zeros(
                4, values.shape[1]
            )
            self.rows = values[:0]
        self.batches += 1
        self.converged += int(converged.sum())
        self.cost += cost
        if len(values):
            self._add_moments(values)
            self._keep(values)

    def _add_moments(self, values: Tensor) -> None:
        before, count = self.count, self.count + len(values)
        part, scale = len(values) / count, before * len(values) / count
        for mean, squares, numbers in (
            ("mean", "squares", values),
            ("size", "size_squares", values.abs()),
        ):
            known, added = getattr(self, mean), numbers.mean(0)
            step = added - known
            spread = (numbers - added).square().sum(0) + scale * step.square()
            setattr(self, mean, known + part * step)
            setattr(self, squares, getattr(self, squares) + spread)
        self.count = count

    def _keep(self, values: Tensor) -> None:
        """Keep the rows with the smallest random numbers, whatever batch they came in."""
        stream = generator(self.seed, self.batches)
        keys = torch.rand(len(values), generator=stream, dtype=torch.float64)
        self.rows, self.keys = torch.cat([self.rows, values]), torch.cat([self.keys, keys])
        if len(self.keys) > self.most:
            self.keys, kept = self.keys.topk(self.most, largest=False)
            self.rows = self.rows[kept]

    def importance(self) -> Importance:
        """What was gathered.

        Raises:
            InputError: for no examples at all.
        """
        if not self.count:
            raise InputError("There are no examples to sum up.")
        freedom = self.count - 1
        several = freedom > 0
        nothing = torch.full_like(self.size, torch.nan)
        deviation = (self.squares / freedom).sqrt() if several else nothing
        error = (self.size_squares / freedom / self.count).sqrt() if several else nothing
        margin = nothing
        if several:
            t = chance_quantile(torch.ones(()).double(), torch.tensor(float(freedom)).double())
            margin = torch.where(error == 0, 0.0, t.sqrt() * error)
        quantiles = torch.from_numpy(np.quantile(self.rows.numpy(), self.levels, axis=0))
        order = self.size.argsort(descending=True, stable=True)
        return Importance(
            names=tuple(self.names[i] for i in order.tolist()),
            importance=self.size[order],
            low=(self.size - margin).clamp_min(0)[order],
            high=(self.size + margin)[order],
            mean=self.mean[order],
            examples=self.count,
            deviation=deviation[order],
            standard_error=error[order],
            levels=self.levels,
            quantiles=quantiles[:, order],
            kept=len(self.rows),
            converged=self.converged,
            cost=self.cost,
        )
