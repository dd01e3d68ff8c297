"""``TreeField``: a tree ensemble and a target, with an exact share.

Targets that are weighted sums of outputs (a class, a margin between two) are walked tree by tree,
leaf by leaf. Any other, such as a probability through a softmax of margins, is asked between all
jumps of the ensemble along the way, and each jump of it is credited.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.segment import Evaluation, Segment
from ...core.shapes import describe, flattened
from ...errors import ModelError, TargetError
from ...model.autograd import gradients
from ...targets import Target, as_target
from ..base import Field
from ..labels import class_target
from ..steps import (
    Booleans,
    CrossingTimes,
    Floats,
    FunctionSteps,
    Integers,
    Jumps,
    StepField,
    as_array,
    credits,
    spread_out,
)
from .catboost import CatBoost
from .ensemble import TreeEnsemble, compiled, in_threads
from .lightgbm import LightGBM
from .model import TreeModel, TreeReader
from .once import read_once
from .scikit_learn import ScikitLearn
from .xgboost import XGBoost

READERS: tuple[TreeReader, ...] = (ScikitLearn(), XGBoost(), LightGBM(), CatBoost())
"""The libraries whose models are read."""

_STEPS = 1 << 21  # steps that are put in order at a time


def reader_of(model: object) -> TreeReader | None:
    """The reader of a model's library; None where it is no tree model of any."""
    return next((reader for reader in READERS if reader.reads(model)), None)


def read_trees(model: object) -> TreeModel:
    """A library's model as trees.

    Raises:
        ModelError: for models of no library that is read, and for those that cannot be.
    """
    if isinstance(model, TreeModel):
        return model
    reader = reader_of(model)
    if reader is None:
        raise ModelError(
            f"{type(model).__name__} is no tree model that is read: those of scikit-learn, XGBoost, LightGBM and CatBoost are."
        )
    return read_once(model, reader.read)


class TreeField(StepField):
    """F(z) = target(outputs of a tree ensemble at z), exactly integrated along any straight way.

        A_i = Σ_k J_k s_{k,i}:  every jump of F goes to the feature whose threshold is crossed

    Outputs are class probabilities of scikit-learn's trees and forests, and the raw margins of
    boosted trees: (−m, m) where a binary classifier has one margin m, so that a class is explained
    by what speaks for it. ``ig.targets.Probability`` is the probability of either.

    Features that reach their thresholds at one time share the jump by their Shapley values. A number
    that is equal to a threshold at an end is on the side the library takes it to. A category, and a
    feature that is missing (NaN) at one end, have no way between: they switch halfway.

    Args:
        model: of scikit-learn (trees, forests, extra trees, gradient boosting), XGBoost,
            LightGBM or CatBoost.
        target: a class, an ``ig.targets`` value, or a callable outputs → (N,); a regression with one
            output needs none.

    Raises:
        ModelError: for models that cannot be read, and where the trees do not say what the model
            says.

    Cost:
        For each row, one walk through each tree, over the leaves that are reached on the way; for
        targets that are no weighted sums, one value of the target for each jump as well.

    References:
        Merrill et al., arXiv 1909.01869.

    Example:
        >>> import numpy as np, integrand as ig
        >>> from sklearn.tree import DecisionTreeRegressor
        >>> X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> tree = DecisionTreeRegressor(random_state=0).fit(X, [0.0, 0.0, 0.0, 1.0])
        >>> field = ig.fields.TreeField(tree)
        >>> x = torch.ones(1, 2, dtype=torch.float64)
        >>> ig.methods.generalized()(field, x).values.tolist()
        [[0.5, 0.5]]
    """

    def __init__(self, model: object, target: Any = None) -> None:
        self.trees = read_trees(model)
        self.target = class_target(target, self.trees.labels, self.trees.name)
        self._check_default(target)

    def _check_default(self, target: Any) -> None:
        outputs = self.trees.link.outputs(torch.zeros(1, len(self.ensemble.base)))
        if target is None and outputs[0].numel() > 1:
            raise TargetError(
                f"This {self.trees.name} has outputs of shape {describe(outputs.shape[1:])}, and nothing says which is meant: give target=, "
                "such as a class or 'predicted'."
            )

    def __repr__(self) -> str:
        return f"TreeField({self.trees.name}, {self.target!r})"

    @classmethod
    def adopts(cls, model: object) -> bool:
        return not isinstance(model, nn.Module) and reader_of(model) is not None

    @classmethod
    def adopted(cls, model: object, target: Any) -> Field:
        return cls(model, target)

    @property
    def ensemble(self) -> TreeEnsemble:
        return self.trees.ensemble

    @property
    def columns(self) -> Sequence[str]:
        return self.ensemble.names or ()

    @property
    def input_dtype(self) -> torch.dtype:
        return torch.float64  # thresholds lie between float32 numbers

    @property
    def takes_missing(self) -> bool:
        return self.ensemble.takes_missing

    @property
    def players(self) -> int:
        return self.ensemble.features

    # --- values -------------------------------------------------------------------------------------------------

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        value = z.new_empty(0) if gradient else self.scalars(self._raw(z), index)
        return self.evaluation(value, z, gradient=gradient)

    def _raw(self, z: Tensor) -> Tensor:
        return torch.from_numpy(self.ensemble.outputs(self.prepared(z)))

    def prepared(self, z: Tensor) -> Floats:
        """Rows (N, \\*s) as the trees compare them (N, F)."""
        return self.ensemble.prepared(as_array(flattened(z, 1)))

    def scalars(self, raw: Tensor, index: Tensor) -> Tensor:
        """F (N,) from what the trees add up to (N, C), in float64."""
        return self._of_target(self.target, raw, index)

    def _of_target(self, target: Target | None, raw: Tensor, index: Tensor) -> Tensor:
        link, target = self.trees.link, self._as_read(target)
        outputs = link.log_probabilities(raw) if target.normalises else link.outputs(raw)
        scalars = target(outputs, index.to(raw.device))
        if not isinstance(scalars, Tensor) or scalars.shape != (len(raw),):
            raise TargetError(
                f"The target returned {describe(scalars.shape) if isinstance(scalars, Tensor) else type(scalars).__name__} for {len(raw)} rows: "
                "it must be one number for each."
            )
        return scalars.detach().double()

    def look(self, z: Tensor, index: Tensor | None, site: Any = None) -> Tensor:
        if site is not None:
            return super().look(z, index, site)
        return self.trees.link.outputs(self._raw(z)).to(z)

    @property
    def pooled(self) -> bool:
        return True

    # --- other questions ----------------------------------------------------------------------------------------

    def with_target(self, target: Any) -> TreeField:
        field = copy.copy(self)
        field.target = as_target(target)
        return field

    def with_targets(self, targets: Sequence[Target]) -> Field:
        return _SeveralTargets(self, targets)

    def score(self) -> Field:
        assert self.target is not None
        return self.with_target(self.target.score())

    # --- shares -------------------------------------------------------------------------------------------------

    def share(self, segment: Segment) -> Tensor:
        k, r, b = segment.leading
        # Rows with one end in common follow one another: those of a reference, or of an example.
        by_example = r > b
        sides = [
            side.transpose(1, 2) if by_example else side for side in (segment.start, segment.end)
        ]
        example = torch.arange(b)
        index = (example[:, None].expand(b, r) if by_example else example.expand(r, b)).expand(
            k, -1, -1
        )
        with gradients(False):
            start, end = (self.prepared(side.flatten(0, 2)) for side in sides)
            shares = self._shares(start, end, index.flatten())
        ordered = torch.from_numpy(shares).to(segment.start).reshape(sides[0].shape)
        return ordered.transpose(1, 2).contiguous() if by_example else ordered

    def _shares(self, start: Floats, end: Floats, index: Tensor) -> Floats:
        """Shares (N, F) on the ways between prepared rows of the examples ``index`` (N,)."""
        weights = self._output_weights(index)
        if weights is not None:
            return self.ensemble.shares(start, end, weights)
        return self._jump_shares(start, end, index)

    def _output_weights(self, index: Tensor) -> Floats | None:
        """What each raw output counts in F (N, C), where F is a weighted sum of them; else None."""
        if not self.linear:
            return None
        raw = torch.zeros(len(index), len(self.ensemble.base), dtype=torch.float64)
        with gradients(True):
            (slope,) = torch.autograd.grad(
                self._differentiable(raw.requires_grad_(), index).sum(), raw
            )
        return np.ascontiguousarray(slope.numpy())

    @property
    def linear(self) -> bool:
        """Whether F is a weighted sum of the ensemble's raw outputs."""
        return self._as_read(self.target).linear

    def _as_read(self, target: Target | None) -> Target:
        """A target as it is asked of these outputs."""
        assert target is not None
        return target.of_probabilities() if self.trees.link.normalised else target

    def _differentiable(self, raw: Tensor, index: Tensor) -> Tensor:
        return self._as_read(self.target)(self.trees.link.outputs(raw), index)

    def _jump_shares(self, start: Floats, end: Floats, index: Tensor) -> Floats:
        """Shares (N, F) of a target that is asked between jumps, some rows at a time."""
        shares = np.zeros_like(start)
        rows = np.arange(len(start))
        for part in self._parts(start, end, rows):
            jumps, before, after = self._jumps(start[part], end[part], index[part])

            def limits(
                which: Integers, far: Booleans, jumps: Jumps = jumps, part: Integers = part
            ) -> Floats:
                at = CrossingTimes(jumps.row[which], jumps.low[which], jumps.high[which])
                return self._limits(start[part], end[part], index[part], at, far)

            summed = np.zeros((len(part), start.shape[1]))
            spread_out(jumps.steps, *credits(jumps, after - before, limits, self.players), summed)
            shares[part] = summed
        return shares

    def _parts(self, start: Floats, end: Floats, rows: Integers) -> list[Integers]:
        """Rows (N,) in parts, the steps of each part few enough to hold."""
        most = max(1, _STEPS // max(1, 4 * len(self.ensemble.trees)))
        return [rows[first : first + most] for first in range(0, len(rows), most)]

    def _jumps(self, start: Floats, end: Floats, index: Tensor) -> tuple[Jumps, Floats, Floats]:
        """The ensemble's jumps between prepared rows, and F (G,) before and after each."""
        jumps = Jumps.of(tree_steps(self.ensemble, start, end))
        before, after = jumps.levels(self.ensemble.outputs(start))
        example = index[torch.from_numpy(jumps.row)]
        scalars = [
            self.scalars(torch.from_numpy(levels), example).numpy() for levels in (before, after)
        ]
        return jumps, scalars[0], scalars[1]

    def steps(self, start: Tensor, end: Tensor, index: Tensor) -> FunctionSteps:
        jumps, before, after = self._jumps(self.prepared(start), self.prepared(end), index)
        change = np.zeros((len(jumps.jump), 1))
        change[np.searchsorted(jumps.jump, np.arange(len(jumps.row))), 0] = after - before
        return FunctionSteps(jumps.steps.row, jumps.steps.time, jumps.steps.player, change)

    def limits(
        self, start: Tensor, end: Tensor, index: Tensor, at: CrossingTimes, far: Booleans
    ) -> Floats:
        return self._limits(self.prepared(start), self.prepared(end), index, at, far)

    def _limits(
        self, start: Floats, end: Floats, index: Tensor, at: CrossingTimes, far: Booleans
    ) -> Floats:
        raw = np.tile(self.ensemble.base, (len(at.row), 1))
        switches = self.ensemble.switches(start, end)
        kernels, trees = compiled(), self.ensemble.packed.arrays

        def walk(part: slice) -> None:
            moments = at.row[part], at.low[part], at.high[part]
            kernels.add_limits(start, end, switches, *moments, far[part], *trees, raw[part])

        in_threads(len(at.row), walk)
        scalars: Floats = self.scalars(
            torch.from_numpy(raw), index[torch.from_numpy(at.row)]
        ).numpy()
        return scalars


def tree_steps(ensemble: TreeEnsemble, start: Floats, end: Floats) -> FunctionSteps:
    """The steps of an ensemble's outputs on the ways between prepared rows (N, F)."""
    trees, switches = ensemble.packed, ensemble.switches(start, end)
    counts = np.zeros(len(start), dtype=np.int64)
    places = np.zeros(len(start), dtype=np.int64)
    kernels = compiled()

    def listed(total: int) -> tuple[Integers, Floats]:
        events, moments = np.zeros((total, 2), dtype=np.int64), np.zeros(total)

        def walk(p: slice) -> None:
            rows = start[p], end[p], switches[p], trees.nodes, trees.words, trees.roots
            kernels.list_steps(*rows, trees.depth, places[p], counts[p], events, moments)

        in_threads(len(start), walk)
        return events, moments

    listed(0)  # counts them
    places[1:] = np.cumsum(counts)[:-1]
    total = int(counts.sum())
    events, moments = listed(total)
    leaf = np.where(events[:, 1] <= -2, -2 - events[:, 1], events[:, 1])
    sign = np.where(events[:, 1] >= 0, 1.0, -1.0)
    change = np.zeros((total, len(ensemble.base)))
    real = np.nonzero(events[:, 1] != -1)[0]
    output = trees.first_output[np.searchsorted(trees.roots, leaf[real], side="right") - 1]
    for k in range(trees.values.shape[1]):
        change[real, np.minimum(output + k, change.shape[1] - 1)] += (
            sign[real] * trees.values[leaf[real], k]
        )
    row = np.repeat(np.arange(len(start)), counts)
    return FunctionSteps(row, moments, events[:, 0], change)


class _SeveralTargets(TreeField):
    """An ensemble asked T things: example b·T + t is example b, asked about target t."""

    def __init__(self, field: TreeField, targets: Sequence[Target]) -> None:
        self.trees = field.trees
        self.target = None
        self.targets = tuple(targets)

    def __repr__(self) -> str:
        return f"TreeField({self.trees.name}, {list(self.targets)!r})"

    @property
    def linear(self) -> bool:
        return all(self._as_read(target).linear for target in self.targets)

    def scalars(self, raw: Tensor, index: Tensor) -> Tensor:
        return self._each(raw, index, self._of_target)

    def _differentiable(self, raw: Tensor, index: Tensor) -> Tensor:
        outputs = self.trees.link.outputs(raw)
        return self._each(
            outputs, index, lambda target, some, example: self._as_read(target)(some, example)
        )

    def _each(self, rows: Tensor, index: Tensor, ask: Any) -> Tensor:
        """Every row's own target, asked of that row."""
        count = len(self.targets)
        scalars = rows.new_zeros(len(rows))
        for number, target in enumerate(self.targets):
            which = (index % count == number).nonzero()[:, 0]
            if len(which):
                answers = ask(target, rows[which], index[which] // count)
                scalars = scalars.index_put((which,), answers)
        return scalars

    def with_target(self, target: Any) -> TreeField:
        raise TargetError("A field of several targets has these: take one that asks one thing.")

    def score(self) -> Field:
        field = copy.copy(self)
        field.targets = tuple(target.score() for target in self.targets)
        return field
