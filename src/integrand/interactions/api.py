"""``interactions``: Integrated and Expected Hessians, from a model and inputs to the result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..backprop.softplus import RELUS
from ..baselines import Baseline, ReferencesLike, StartLike
from ..baselines.base import References
from ..baselines.names import baseline_of
from ..core.declared import name_of
from ..core.features import Features, feature_map
from ..core.options import whole
from ..core.shapes import flattened
from ..core.values import shown
from ..errors import IncompleteWarning, InputError, KinkWarning, warn
from ..explain import baseline_arranger
from ..fields import CountedField, Field
from ..integration.assemble import core, opened
from ..integration.attribution import INCOMPLETE
from ..integration.cost import measured
from ..integration.loop import checked_output
from ..methods import expected
from ..model.layout import Layout
from ..rules import Adaptive, GaussLegendre, Rule
from ..rules.base import RuleLike, as_rule
from ..targets import TargetLike
from ..task import Task
from .integral import EVERYTHING, Estimate, HessianLines, completed, drawn, fixed, nested, rounding
from .result import Feature, Interactions, number_of

_MOST_NODES = 255  # of a line, unless a rule says otherwise
_MOST = 1 << 29  # numbers of the matrices of all examples that are never made without a word


def interactions(
    model: Callable[..., Any] | Field,
    inputs: Any,
    *,
    target: TargetLike | None = None,
    baseline: StartLike = 0.0,
    references: ReferencesLike | None = None,
    draws: int | None = None,
    rule: RuleLike | None = None,
    tol: float | None = None,
    of: Sequence[Feature] | Feature | None = None,
    features: Features = "elements",
    softplus: float | None = None,
    seed: int = 0,
    extra: Sequence[Any] | Mapping[str, Any] = (),
    feature_names: Sequence[str] | None = None,
    batch_size: int | None = None,
) -> Interactions:
    """Integrated Hessians: how much of a model's output belongs to every pair of features.

        Γ_ij = D_i D_j ∫∫ αβ ∂_ij F(b + αβ D) dα dβ                                 i ≠ j,  D = x − b
        Γ_ii = D_i² ∫∫ αβ ∂_ii F(b + αβ D) dα dβ + D_i ∫∫ ∂_i F(b + αβ D) dα dβ

    Integrated Gradients of Integrated Gradients. Everything adds up to F(x) − F(b), row i to the
    Integrated Gradient of feature i. With ``references`` it is the mean over them, Expected
    Hessians. The double integral is taken as ∫ −ln(s) … ds, at nodes for that weight.

    ReLUs have no second derivatives, and their kinks are what makes features interact: such models
    warn, and the matrix misses it. ``softplus=10`` explains the model with softplus in their place,
    which is another function: ``output`` and everything else is that one's.

    Args:
        model: as in ``explain``, or a Field.
        inputs: as in ``explain``, without loaders; several inputs are laid end to end.
        target: as in ``explain``; "predicted" is what the model itself predicts.
        baseline: as in ``explain``; a list of several averages over them.
        references: (N, \\*s) or a dataset, in place of ``baseline``: their mean.
        draws: that many random α, β and references are drawn, as published; without it every
            reference is integrated.
        rule: one with fixed nodes: ``GaussLegendre(n)`` takes the n nodes that are exact for
            whatever its n × n double sum is exact for, other rules take the double sum itself.
            ``Adaptive(tol, max_gradients)`` says how far to go. Unless given, nodes are doubled
            until two rules agree to ``tol``.
        tol: relative L2 error of the matrix to reach, 0.05 unless given.
        of: features whose rows are wanted, by number, place or name; all of them unless given.
        features: what counts as one feature, such as "pixels", 16 (square patches), "tokens", or a
            label map; every number unless given. A group costs as much as a single number.
        softplus: the sharpness β of a softplus in place of every ReLU.
        seed: of the draws.
        extra: as in ``explain``.
        feature_names: as in ``explain``.
        batch_size: as in ``explain``.

    Returns:
        ``Interactions``: values (B, \\*s, \\*s), (B, G, G) of groups of features, or the rows asked
        for; in units of F.

    Raises:
        InputError: for options that do not go together, and matrices too large to be held.
        NoHessian: for models and fields without second derivatives.

    Cost:
        d products of the Hessian for each node and reference (of G groups or r rows, as many and
        one), each about three gradients; 15 nodes for smooth models. Memory of 6 matrices for each
        example of a block, 1 with fixed nodes.

    References:
        Janizek, Sturmfels, Lee, "Explaining Explanations: Axiomatic Feature Interactions for Deep
        Networks", JMLR 22, 2021 (arXiv 2002.04138).

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Function(lambda z: z[:, 0] * z[:, 1])
        >>> ig.interactions(field, torch.tensor([[2.0, 4.0]])).values.round(decimals=4).tolist()
        [[[2.0, 2.0], [2.0, 2.0]]]
    """
    integration = _Integration.of(rule, tol, draws, seed)
    task = Task.of(model, inputs, target, extra=extra, batch_size=batch_size)
    layout = task.layout
    if feature_names is not None and features == "elements":
        layout = layout.named(feature_names)
    arrange = baseline_arranger(inputs, layout, task.x)
    start = _start(baseline, references, draws, seed, arrange)
    with _ready(task, softplus) as field:
        x, counted = opened(field, task.x, None)
        label, shape = _labels(features, x, single=layout.single)
        names = _names(layout, shape, label, feature_names)
        rows = None if of is None else _rows(of, shape, names)
        with measured(counted, x.device) as stopwatch:
            starts = References.of(start, x, counted)[:]
            lines = _lines(x, starts, label, shape, rows)
            kinks = _kinks(counted, starts, x)
            output = checked_output(counted.value(x), counted)
            base = counted.value(starts, leading=2).mean(0)
            estimate = integration.run(counted, lines, x.shape[1:], output, base, kinks=bool(kinks))
    result = Interactions(
        **_result(estimate, lines, shape, output, base),
        rows=rows,
        feature_names=names,
        softplus=softplus,
        kinks=kinks,
        resolution=field.resolution,
        cost=stopwatch.cost(),
        method=f"{integration.name} from {shown(start)}",
        target=field.target,
    )
    return integration.with_converged(result)


# --- how it is integrated ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Integration:
    """Which nodes are taken: so many ``draws``, those of a ``rule``, or as many as ``tol`` needs."""

    tol: float | None
    most: int = _MOST_NODES
    rule: Rule | None = None
    draws: int | None = None
    seed: int = 0

    @classmethod
    def of(
        cls, rule: RuleLike | None, tol: float | None, draws: int | None, seed: int
    ) -> _Integration:
        given = [
            name
            for name, value in (("rule", rule), ("tol", tol), ("draws", draws))
            if value is not None
        ]
        if len(given) > 1:
            raise InputError(
                f"{' and '.join(name + '=' for name in given)} both say how to integrate: give one of them."
            )
        if draws is not None:
            return cls(None, draws=whole("draws", draws, least=1), seed=whole("seed", seed))
        if rule is None:
            return cls(Adaptive().tol if tol is None else Adaptive(tol).tol)
        known = as_rule(rule)
        if known.double_table() is not None:
            return cls(None, rule=known)
        if known.tol is not None:
            return cls(known.tol, known.budget or _MOST_NODES)
        raise InputError(
            f"Interactions are integrated at fixed nodes or to a tolerance: give rule=ig.rules.GaussLegendre(20), tol=0.01, or draws=200, not "
            f"{name_of(rule)}."
        )

    @property
    def name(self) -> str:
        """How it prints."""
        if self.draws is not None:
            return f"Expected Hessians, {self.draws} draws,"
        how = f"to {self.tol:g}" if self.rule is None else f"by {self.rule!r}"
        return f"Integrated Hessians {how}"

    def run(
        self,
        field: CountedField,
        lines: HessianLines,
        shape: torch.Size,
        output: Tensor,
        base: Tensor,
        *,
        kinks: bool,
    ) -> Estimate:
        if self.draws is not None:
            each = -(-self.draws // len(lines.start))
            return drawn(field, lines, shape, each, self.seed)
        if self.rule is not None:
            table = self.rule.double_table()
            assert table is not None
            nodes, weights = (torch.tensor(t, dtype=torch.float64).to(lines.end) for t in table)
            return fixed(field, lines, shape, nodes, weights)
        assert self.tol is not None
        floor = rounding(output, base)
        return nested(field, lines, shape, self.tol, self.most, output - base, floor, kinks=kinks)

    def with_converged(self, result: Interactions) -> Interactions:
        """The result with its verdict, and a warning where what was promised was not kept."""
        complete = result.gap <= INCOMPLETE
        converged = complete & ~(result.error > INCOMPLETE)
        if self.tol is not None:
            converged = (result.error <= self.tol) & (complete | (not result.kinks))
        result = dataclasses.replace(result, converged=converged)
        if result.kinks:
            _warn_of_kinks(result)
        elif not bool(converged.all()):
            self._warn(result)
        return result

    def _warn(self, result: Interactions) -> None:
        missed = ~result.converged
        gap, error = result.gap, result.error.nan_to_num(torch.inf)
        worst = int((gap if self.tol is None else error).masked_fill(~missed, -1).argmax())
        known = float(result.error[worst])
        estimate = (
            f", with an estimated relative error of {known:.2g}" if math.isfinite(known) else ""
        )
        if self.draws is not None:
            cure = f"Take more draws (draws={4 * self.draws}), or none: without draws= every reference is integrated."
        elif self.rule is not None:
            cure = "Take more nodes, or ask for a tolerance (tol=0.05)."
        else:
            cure = f"Allow more nodes (rule=ig.rules.Adaptive({self.tol:g}, max_gradients={4 * self.most})), or ask for less (a larger tol)."
        warn(
            f"{int(missed.sum())} of {len(result)} matrices of interactions are not what was asked for: that of example {worst} misses "
            f"{float(gap[worst]):.1%} of the change of F{estimate}. {cure}",
            IncompleteWarning,
        )


def _warn_of_kinks(result: Interactions) -> None:
    worst = int(result.gap.argmax()) if len(result) else 0
    names = ", ".join(result.kinks)
    gap = f"{float(result.gap[worst]):.1%}" if len(result) else "some"
    if set(result.kinks) & RELUS:
        cure = "softplus=10 puts a smooth function in their place, and explains the model that this makes."
    else:
        cure = "Mean pooling, or another smooth operation, has them."
    warn(
        f"F goes through {names}, whose second derivatives are zero but at kinks, where no node sees them: interactions that come of kinks are "
        f"missed, and matrices miss up to {gap} of the change of F. {cure}",
        KinkWarning,
    )


# --- what is asked ----------------------------------------------------------------------------------


@contextmanager
def _ready(task: Task, softplus: float | None) -> Iterator[Field]:
    """The field, smoothed where that is asked for; classes are those that the model predicts
    itself."""
    with task.ready() as field:
        yield field if softplus is None else field.with_softplus(softplus)


def _start(
    baseline: StartLike,
    references: ReferencesLike | None,
    draws: int | None,
    seed: int,
    arrange: Callable[[Any, bool], Any],
) -> Baseline:
    """Where lines start: a baseline, or references, of which no more are taken than are drawn."""
    if references is None:
        return baseline_of(arrange(baseline, False))
    if not (isinstance(baseline, int | float) and baseline == 0):
        raise InputError("baseline= and references= both say where lines start: give one of them.")
    # With a rule every reference is taken, whatever the rule.
    rule = GaussLegendre(1) if draws is None else None
    start: Baseline = core(expected(arrange(references, True), draws, rule, seed=seed)).baseline
    return start


def _labels(
    features: Features, x: Tensor, *, single: bool
) -> tuple[Tensor | None, tuple[int, ...]]:
    """The feature that each number belongs to, (1 or B, n), None where every number is one; and the
    shape of features."""
    if isinstance(features, str) and features in ("elements", "columns"):
        return None, tuple(x.shape[1:])
    if not single:
        raise InputError(
            "features= are those of one input: leave it out for several, or group the result (result.grouped)."
        )
    groups = feature_map(features, x)
    per_example = groups.ndim == x.ndim
    label = groups.flatten(1) if per_example else groups.reshape(1, -1)
    return label, (int(label.max()) + 1,)


def _names(
    layout: Layout, shape: tuple[int, ...], label: Tensor | None, given: Sequence[str] | None
) -> tuple[str, ...]:
    """What features are called; empty where numbers do."""
    if label is not None and given is not None:
        if len(given) != shape[0]:
            raise InputError(
                f"There are {len(given)} feature names for {shape[0]} features: give one for each."
            )
        return tuple(map(str, given))
    if label is not None:
        return ()
    if layout.single:
        return layout.columns(0)
    names: list[str] = []
    for key, part in zip(layout.keys, layout.shapes, strict=True):
        columns = layout.columns(key) or map(str, range(math.prod(part)))
        names += [f"{key}.{column}" for column in columns]
    return tuple(names)


def _rows(of: Any, shape: tuple[int, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers of the features whose rows are wanted."""
    if isinstance(of, Tensor):
        of = of.tolist()
    place = isinstance(of, tuple) and len(shape) > 1 and len(of) == len(shape)
    single = isinstance(of, str | int) or (place and all(isinstance(axis, int) for axis in of))
    numbers = tuple(number_of(feature, shape, names) for feature in ([of] if single else of))
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError("of= names the features whose rows are wanted, each once, one at least.")
    return numbers


def _lines(
    x: Tensor,
    starts: Tensor,
    label: Tensor | None,
    shape: tuple[int, ...],
    rows: tuple[int, ...] | None,
) -> HessianLines:
    features = math.prod(shape)
    count = features if rows is None else len(rows)
    if len(x) * count * features > _MOST:
        raise InputError(
            f"{len(x)} matrices of {count} x {features} interactions do not fit into memory: group features (features='pixels', or 16 for square "
            "patches), or name those whose rows are wanted (of=[…])."
        )
    numbers = range(features) if rows is None else (*rows, EVERYTHING)
    return HessianLines(
        flattened(starts, 2),
        flattened(x, 1),
        None if label is None else label.to(x.device),
        features,
        torch.tensor(list(numbers), device=x.device),
    )


def _kinks(field: CountedField, starts: Tensor, x: Tensor) -> tuple[str, ...]:
    """Operations that second derivatives do not see, met by the first example."""
    if not len(x):
        return ()
    index = torch.zeros(2, dtype=torch.long, device=x.device)
    return field.kinked_operations(torch.stack([starts[0, 0], x[0]]), index)


def _result(
    estimate: Estimate, lines: HessianLines, shape: tuple[int, ...], output: Tensor, base: Tensor
) -> dict[str, Tensor]:
    """The tensors of the result: the row of everything apart from those that were asked for."""
    batch, wanted = len(output), lines.wanted
    values, every = estimate.values[:, :wanted], estimate.values[:, wanted:]
    attributions = every[:, 0] if every.shape[1] else values.sum(1)
    rows = shape if wanted == lines.features and not every.shape[1] else (wanted,)
    return {
        "values": values.reshape(batch, *rows, *shape),
        "attributions": attributions.reshape(batch, *shape),
        "output": output,
        "base": base,
        "residual": output - base - completed(estimate.values, lines),
        "error": estimate.error,
        "converged": torch.zeros_like(output, dtype=torch.bool),
        "nodes": estimate.nodes,
    }
