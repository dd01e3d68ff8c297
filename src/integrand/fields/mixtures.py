"""Mixtures of fields: sums, smooth functions of several, and trees on what a network makes of the
input.

    Sum       F(z) = Σ_m w_m F_m(z)
    Compose   F(z) = Φ(F_1(z), …, F_M(z))         Φ smooth: a stacker, a calibration, a link

Parts that jump are constant in between, so that F is smooth there: its smooth parts are left to a
rule, piece by piece, and at every jump F is asked before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..core.segment import Evaluation, Segment
from ..core.shapes import flattened, over
from ..errors import InputError
from ..model.autograd import gradients
from .base import Decomposition, Field, SmoothPart
from .steps import (
    Booleans,
    CrossingTimes,
    Floats,
    FunctionSteps,
    Integers,
    Jumps,
    StepField,
    credits,
    no_gradient,
    spread_out,
)


class _FieldMixture(Field):
    """What mixtures have in common: several fields of the same rows and examples."""

    def __init__(self, fields: Sequence[Field]) -> None:
        if not fields:
            raise InputError(f"{type(self).__name__} needs at least one field.")
        wrong = next((field for field in fields if not isinstance(field, Field)), None)
        if wrong is not None:
            raise InputError(
                f"{type(self).__name__} is made of fields, not of {type(wrong).__name__}: say which output is meant, with "
                "ig.TorchField(model, target) or ig.fields.TreeField(model, target)."
            )
        self.fields = tuple(fields)
        self.packer = next((field.packer for field in fields if not field.flat), fields[0].packer)

    @property
    def flat(self) -> bool:
        return all(field.flat for field in self.fields)

    @property
    def jumps(self) -> bool:
        return any(field.jumps for field in self.fields)

    @property
    def takes_missing(self) -> bool:
        return all(field.takes_missing for field in self.fields)

    @contextmanager
    def ready(self) -> Iterator[None]:
        with ExitStack() as stack:
            for field in self.fields:
                stack.enter_context(field.ready())
            yield


class Sum(_FieldMixture):
    """F(z) = Σ_m w_m F_m(z): an ensemble of models of any kind.

    Shares are the sum of those of its parts: exact ones of trees, and integrals of the others.

    Args:
        fields: what is added up.
        weights: one for each; 1 unless given.

    Example:
        >>> import torch, integrand as ig
        >>> linear = ig.fields.Linear(torch.tensor([1.0, -1.0]))
        >>> field = ig.fields.Sum([linear, ig.fields.Monomial(torch.tensor([1, 1]))], [2.0, 1.0])
        >>> result = ig.methods.generalized()(field, torch.tensor([[2.0, 1.0]]))
        >>> result.values.round(decimals=4).tolist()
        [[5.0, -1.0]]
    """

    def __init__(self, fields: Sequence[Field], weights: Sequence[float] | None = None) -> None:
        super().__init__(fields)
        self.weights = tuple(
            float(weight) for weight in ([1.0] * len(fields) if weights is None else weights)
        )
        if len(self.weights) != len(fields):
            raise InputError(
                f"Sum needs a weight for each of its {len(fields)} fields, not {len(self.weights)}."
            )

    def __repr__(self) -> str:
        return f"Sum({list(self.fields)!r}, {list(self.weights)!r})"

    @property
    def exact(self) -> bool:
        return all(field.exact for field in self.fields)

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        if gradient and self.jumps:
            raise no_gradient(self)
        value, slope = z.new_zeros(len(z)), z.new_zeros(z.shape if gradient else 0)
        for field, weight in zip(self.fields, self.weights, strict=True):
            evaluation = field.evaluate(z, index, gradient=gradient)
            value = value + weight * evaluation.value
            slope = slope + weight * evaluation.gradient
        return Evaluation(value, slope)

    def share(self, segment: Segment) -> Tensor:
        shares = [
            weight * field.share(segment)
            for field, weight in zip(self.fields, self.weights, strict=True)
        ]
        return torch.stack(shares).sum(0)

    def decomposed(self, segment: Segment, index: Tensor) -> Decomposition | None:
        if self.exact:
            return None
        jumps = torch.zeros_like(segment.start)
        smooth: list[SmoothPart] = []
        for field, weight in zip(self.fields, self.weights, strict=True):
            parts = field.decomposed(segment, index)
            if parts is not None:
                jumps = jumps + weight * parts.jumps
                smooth += [
                    replace(part, field=_Scaled(part.field, weight)) for part in parts.smooth
                ]
            elif field.exact:
                jumps = jumps + weight * field.at(index).share(segment)
            else:
                smooth.append(SmoothPart(_Scaled(field.at(index), weight), _bare(segment)))
        return Decomposition(jumps, smooth)


class _Scaled(Field):
    """A field times a number."""

    def __init__(self, field: Field, weight: float) -> None:
        self.field = field
        self.weight = weight
        self.packer = field.packer

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        return _times(self.field.evaluate(z, index, gradient=gradient), self.weight)

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        return _times(self.field.evaluate_chords(z, index, before), self.weight)

    @property
    def gated(self) -> bool:
        return self.field.gated

    @property
    def smooth(self) -> bool:
        return self.field.smooth


def _times(evaluation: Evaluation, weight: float) -> Evaluation:
    return replace(
        evaluation, value=weight * evaluation.value, gradient=weight * evaluation.gradient
    )


def _bare(segment: Segment) -> Segment:
    """The segment without what was evaluated at its ends, which was the whole field."""
    return replace(segment, at_start=None, at_end=None, weights=None)


class Compose(_FieldMixture):
    """F(z) = Φ(F_1(z), …, F_M(z)) for a smooth Φ: stacked and calibrated models, a network and
    trees under one link.

    At a jump Φ is asked with the trees before and after, the smooth parts frozen; between jumps

        A_i = D_i ∫ Σ_m ∂_m Φ ∂_i F_m dt

    Args:
        outer: Φ, values of the fields (N, M) → (N,), that torch can differentiate.
        fields: what it is a function of. Each is smooth, or flat but where it jumps.

    Cost:
        One value of every smooth field at each jump, and the gradients of the rule for each piece
        between two of them.

    Example:
        >>> import torch, integrand as ig
        >>> product = ig.fields.Compose(
        ...     lambda v: v[:, 0] * v[:, 1],
        ...     ig.fields.Linear(torch.tensor([1.0, 0.0])),
        ...     ig.fields.Linear(torch.tensor([0.0, 1.0])),
        ... )
        >>> result = ig.methods.generalized()(product, torch.tensor([[2.0, 3.0]]))
        >>> result.values.round(decimals=4).tolist()
        [[3.0, 3.0]]
    """

    def __init__(self, outer: Callable[[Tensor], Tensor], *fields: Field) -> None:
        super().__init__(fields)
        self.outer = outer
        mixed = next((field for field in fields if field.jumps and not field.flat), None)
        if mixed is not None:
            raise InputError(
                f"A part of Compose is smooth, or flat but where it jumps; {type(mixed).__name__} is a mixture of both: give what it is "
                "made of, each as a part of its own, and let outer put them together."
            )
        self.step_fields = [field for field in fields if isinstance(field, StepField)]
        self.places = [place for place, field in enumerate(fields) if isinstance(field, StepField)]
        self.smooth_places = [place for place in range(len(fields)) if place not in self.places]

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, (self.outer, *self.fields)))})"

    def outer_of(self, values: Tensor) -> Tensor:
        """Φ (N,) of values (N, M), and that it is so shaped."""
        scalars = self.outer(values)
        if not isinstance(scalars, Tensor) or scalars.shape != values.shape[:1]:
            raise InputError(
                "The outer function of Compose takes values (rows, fields) and returns one number per row."
            )
        return scalars

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        if gradient and self.jumps:
            raise no_gradient(self)
        return self.with_steps(z, index, z.new_zeros(len(z), 0), gradient=gradient, asked=True)

    def with_steps(
        self,
        z: Tensor,
        index: Tensor,
        levels: Tensor,
        *,
        gradient: bool,
        asked: bool = False,
    ) -> Evaluation:
        """Φ at rows z (N, \\*s), the fields with jumps held at ``levels`` (N, S), or ``asked``."""
        places = range(len(self.fields)) if asked else self.smooth_places
        smooth = [self.fields[place].evaluate(z, index, gradient=gradient) for place in places]
        values = z.new_zeros(len(z), len(self.fields))
        values[:, list(places)] = torch.stack([part.value for part in smooth], 1).to(values)
        if not asked:
            values[:, self.places] = levels.to(values)
        with gradients(gradient):
            leaf = values.requires_grad_(gradient)
            scalars = self.outer_of(leaf)
            if not gradient:
                return Evaluation(scalars.detach(), z.new_empty(0))
            (slope,) = torch.autograd.grad(scalars.sum(), leaf)
        total = torch.zeros_like(z)
        for place, part in zip(places, smooth, strict=True):
            total = total + over(slope[:, place], z) * part.gradient
        return Evaluation(scalars.detach(), total)

    def share(self, segment: Segment) -> Tensor:
        if not self.flat:
            return super().share(segment)
        index = torch.arange(segment.leading[2], device=segment.start.device)
        return self._jump_shares(segment, index)[0]

    @property
    def exact(self) -> bool:
        return self.flat

    def decomposed(self, segment: Segment, index: Tensor) -> Decomposition | None:
        if self.flat:
            return None
        if not self.step_fields:
            return Decomposition(
                torch.zeros_like(segment.start), [SmoothPart(self.at(index), _bare(segment))]
            )
        shares, jumps, starts, after = self._jump_shares(segment, index)
        return Decomposition(shares, [self._between(segment, index, jumps, starts, after)])

    def _jump_shares(self, segment: Segment, index: Tensor) -> tuple[Tensor, Jumps, Floats, Floats]:
        """The share of the jumps, the jumps, and what fields with jumps say at the start of rows
        (N, S) and after each jump (G, S)."""
        k, r, _ = segment.leading
        start, end = segment.start.flatten(0, 2), segment.end.flatten(0, 2)
        example = index.repeat(k * r)
        with gradients(False):
            jumps = Jumps.of(
                self._steps(start, end, example),
                max(field.simultaneous for field in self.step_fields),
            )
            starts = np.stack([_values(field, start, example) for field in self.step_fields], 1)
            before, after = jumps.levels(starts)
            moments = CrossingTimes(jumps.row, jumps.low, jumps.high)
            smooth = self._smooth_values(start, end, example, moments)
            size = self._scalars(smooth, after) - self._scalars(smooth, before)

            def limits(which: Integers, far: Booleans) -> Floats:
                at = CrossingTimes(jumps.row[which], jumps.low[which], jumps.high[which])
                levels, first = [], 0
                for field in self.step_fields:
                    crossed = np.ascontiguousarray(far[:, first : first + field.players])
                    levels.append(field.limits(start, end, example, at, crossed))
                    first += field.players
                return self._scalars(smooth[which], np.stack(levels, 1))

            players = sum(field.players for field in self.step_fields)
            shares = np.zeros(tuple(flattened(start, 1).shape))
            spread_out(jumps.steps, *credits(jumps, size, limits, players), shares)
        placed = torch.from_numpy(shares).to(segment.start).reshape(segment.start.shape)
        return placed, jumps, starts, after

    def _steps(self, start: Tensor, end: Tensor, example: Tensor) -> FunctionSteps:
        """The steps of all fields with jumps, a column of changes and players of its own for
        each."""
        parts, first = [], 0
        features = flattened(start, 1).shape[1]
        for column, field in enumerate(self.step_fields):
            steps = field.steps(start, end, example)
            change = np.zeros((len(steps.row), len(self.step_fields)))
            change[:, column] = steps.change[:, 0]
            spread = steps.spread
            if spread is None:
                spread = np.zeros((len(steps.row), features))
                spread[np.arange(len(steps.row)), steps.player] = 1
            parts.append(FunctionSteps(steps.row, steps.time, steps.player + first, change, spread))
            first += field.players
        return FunctionSteps(
            np.concatenate([part.row for part in parts]),
            np.concatenate([part.time for part in parts]),
            np.concatenate([part.player for part in parts]),
            np.concatenate([part.change for part in parts]),
            np.concatenate([part.spread for part in parts if part.spread is not None]),
        )

    def _smooth_values(
        self, start: Tensor, end: Tensor, example: Tensor, at: CrossingTimes
    ) -> Floats:
        """What the smooth fields say (M, smooth) at moments of the ways."""
        row = torch.from_numpy(at.row)
        time = torch.from_numpy((at.low + at.high) / 2).to(start)
        points = torch.lerp(start[row], end[row], over(time, start))
        values = np.zeros((len(row), len(self.smooth_places)))
        for column, place in enumerate(self.smooth_places):
            values[:, column] = _values(self.fields[place], points, example[row])
        return values

    def _scalars(self, smooth: Floats, levels: Floats) -> Floats:
        """Φ (M,) from what smooth fields and those with jumps say."""
        values = torch.zeros(len(levels), len(self.fields), dtype=torch.float64)
        values[:, self.smooth_places] = torch.from_numpy(smooth)
        values[:, self.places] = torch.from_numpy(levels)
        scalars: Floats = self.outer_of(values).detach().double().numpy()
        return scalars

    def _between(
        self, segment: Segment, index: Tensor, jumps: Jumps, starts: Floats, after: Floats
    ) -> SmoothPart:
        """The pieces between jumps, each with what the fields with jumps say there."""
        k, r, _ = segment.leading
        start, end = segment.start.flatten(0, 2), segment.end.flatten(0, 2)
        count = len(start)
        row = np.concatenate([np.arange(count), jumps.row])
        begin = np.concatenate([np.zeros(count), jumps.high])
        levels = np.concatenate([starts, after])
        order = np.lexsort((begin, np.arange(len(row)) >= count, row))
        row, begin, levels = row[order], begin[order], levels[order]
        finish = np.ones(len(row))
        lows = np.concatenate([np.zeros(count), jumps.low])[order]
        same = row[1:] == row[:-1]
        finish[:-1][same] = lows[1:][same]
        some = finish > begin
        row, begin, finish, levels = row[some], begin[some], finish[some], levels[some]
        place = torch.from_numpy(row).to(start.device)

        def points(time: Floats) -> Tensor:
            t = torch.from_numpy(time).to(start)
            return torch.lerp(start[place], end[place], over(t, start))[None, None]

        clock = torch.tensor([0.0, 1.0]).to(start)
        pieces = Segment(points(begin), points(finish), (clock[:1], clock[1:]))
        field = _Between(self, index.repeat(k * r)[place], torch.from_numpy(levels).to(start))
        return SmoothPart(field, pieces, place)


class _Between(Field):
    """Φ between jumps: every example is a piece, with the levels (N, S) of fields with jumps on it,
    and the example (N,) that it belongs to."""

    def __init__(self, whole: Compose, example: Tensor, levels: Tensor) -> None:
        self.whole = whole
        self.example = example
        self.levels = levels
        self.packer = whole.packer

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        return self.whole.with_steps(z, self.example[index], self.levels[index], gradient=gradient)


def _values(field: Field, z: Tensor, example: Tensor) -> Floats:
    values: Floats = field.rows(z, example, gradient=False).value.double().cpu().numpy()
    return values
