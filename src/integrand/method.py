"""A method is four parts and one loop.

    A(x) = Σ_r w_r · Σ_segments share(segment)

    references = baseline(x, field)                                  where paths start
    for segment in path(field, references, x):                       which way
        share += rule(field, segment)                                how a piece is integrated
    values = Σ_r weighting(shares, x, field)_r · share_r             how references are weighed

The change of F is measured between where every path really began and the input, so paths that choose their own start report
an honest residual without special cases. References whose weights are known beforehand are taken in blocks and added up as
they come: two hundred of them need no two hundred maps.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .attribution import Attribution, Cost, Frames
from .baseline.base import Baseline, checked, labels
from .baseline.fixed import Constant
from .errors import FitnessWarning, IncompleteWarning, InputError
from .field import Field, Gathered, Metered
from .field.wrap import Tally
from .parts import part
from .path.base import Path
from .path.straight import Straight
from .rule.base import Rule
from .rule.quadrature import GaussLegendre
from .segment import Segment
from .shapes import total
from .weighting import Uniform, Weighed, Weighting, beforehand

_BLOCK_ELEMENTS = 1 << 24  # references are taken in blocks of about this many numbers when they need not be kept
_FRAMES = 9  # points of a recorded path
_RECORDS = ("shares", "path")
_INCOMPLETE = 0.1

Watch = Callable[[Tally], None]


@part
class Method:
    """A path attribution: a baseline, a path, a rule and a weighting.

        A(x) = Σ_r w_r ∫ ∇F(γ_r(t)) ⊙ dγ_r(t)

    Called with a field and inputs x (B, \\*s) it returns an ``Attribution``. ``record`` asks it to keep more than the sum:
    "shares" a map per reference, "path" nine points along every path.

    Cost: references × segments × nodes gradients per example, plus one value per reference and per example.

    >>> import torch, integrand as ig
    >>> method = ig.Method(ig.baselines.Constant(0.0), ig.paths.Straight(), ig.rules.GaussLegendre(8))
    >>> method(ig.fields.Linear(torch.ones(3)), torch.ones(1, 3)).values
    tensor([[1., 1., 1.]])
    """

    baseline: Baseline = Constant(0.0)
    path: Path = Straight()
    rule: Rule = GaussLegendre(50)
    weighting: Weighting = Uniform()
    record: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.record) - set(_RECORDS)
        if unknown:
            raise InputError(f"record takes {', '.join(map(repr, _RECORDS))}; got {', '.join(map(repr, unknown))}.")

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        meter = Metered(field, watch=watch)
        with _measured(meter, x) as cost, meter.ready():
            references = checked(self.baseline(x, meter), x, self.baseline)
            meter.tally.expected = gradients_per_row(self.path, self.rule) * len(x) * len(references)
            known = beforehand(self.weighting, *references.shape[:2])
            if known is None or "shares" in self.record or len(references) == 1:
                walk = self.walk(meter, references, x)
                weighed = Weighed.ensure(self.weighting(walk.shares, x, meter))
                values = _weighed_sum(weighed.weights, walk.shares)
            else:
                weighed = Weighed(known.to(x))
                values, walk = self._blocks(meter, references, x, weighed.weights)
            names = labels(self.baseline, x, meter, len(references))
            output = meter.value(x) if walk.output is None else walk.output
        return result(self, values, x, output, walk, weighed, names, cost())

    def walk(self, field: Field, references: Tensor, x: Tensor, lanes: tuple[int, int] | None = None) -> Walk:
        """Every path from its reference to the input, integrated: one share per reference."""
        walk = Walk(references.new_zeros(references.shape))
        clock = torch.linspace(0, 1, _FRAMES) if "path" in self.record else None
        for segment in self.path(field, references, x):
            if lanes:
                segment = segment.among(*lanes)
            walk.add(segment, self.rule(field, segment), clock)
        walk.measure(field, x)
        return walk

    def _blocks(self, field: Field, references: Tensor, x: Tensor, weights: Tensor) -> tuple[Tensor, Walk]:
        """The weighted sum of shares, a block of references at a time, without keeping them."""
        count = len(references)
        size = max(1, _BLOCK_ELEMENTS // x.numel())
        values = torch.zeros_like(x)
        walks = []
        for first in range(0, count, size):
            part = slice(first, first + size)
            walk = self.walk(field, references[part], x, (first, count))
            values += _weighed_sum(weights[part], walk.shares)
            walks.append(walk)
        return values, Walk.joined(walks, keep_begin=count <= size)


@dataclass
class Walk:
    """What is gathered while paths are walked: shares, and where the paths began."""

    shares: Tensor
    begin: Tensor | None = None
    change: Tensor | None = None
    output: Tensor | None = None
    notes: dict[str, Tensor] = field(default_factory=dict)
    frames: Frames | None = None
    _earliest: float = 2.0
    _begin_value: Tensor | None = None
    _notes: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)
    _points: dict[int, Tensor] = field(default_factory=dict)

    def add(self, segment: Segment, share: Tensor, clock: Tensor | None) -> None:
        """Take in one stack of segments."""
        self.shares += share.sum(0)
        first = int(segment.clock[0].argmin())
        if float(segment.clock[0][first]) < self._earliest:
            self._earliest = float(segment.clock[0][first])
            self.begin = segment.start[first]
            paid = segment.at_start
            self._begin_value = paid.value[first] if paid is not None else None
        last = int(segment.clock[1].argmax())
        if segment.at_end is not None and float(segment.clock[1][last]) >= 1:
            self.output = segment.at_end.value[last, 0]
        if segment.notes:
            inner = 1 if float(segment.clock[1][last]) < 1 else 0  # shared corners are noted once, by who starts there
            corners = torch.cat([segment.clock[0], segment.clock[1][-1:]])
            keep = len(corners) - inner
            self._notes.append((corners[:keep], {n: note[:keep] for n, note in segment.notes.items()}))
        if clock is not None:
            self._keep_points(segment, clock)

    def _keep_points(self, segment: Segment, clock: Tensor) -> None:
        begins, ends = (side.tolist() for side in segment.clock)
        for piece, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            for frame, moment in enumerate(clock.tolist()):
                if begin <= moment < end or moment == end == 1.0:
                    at = (moment - begin) / (end - begin)
                    self._points[frame] = torch.lerp(segment.start[piece], segment.end[piece], at)

    def measure(self, field: Field, x: Tensor) -> None:
        """The change of F along every path, and what was noted on the way, in order."""
        if self.begin is None:
            raise InputError("The path made no segments; a path yields at least one.")
        if self.output is None:
            self.output = field.value(x)
        start = self._begin_value
        self.change = self.output - (field.value(self.begin, leading=2) if start is None else start)
        if self._notes:
            order = torch.cat([clock for clock, _ in self._notes]).argsort(stable=True)
            names = self._notes[0][1]
            self.notes = {n: torch.cat([notes[n] for _, notes in self._notes])[order] for n in names}
        if self._points:
            clock = torch.linspace(0, 1, _FRAMES)
            self.frames = Frames(clock, torch.stack([self._points[i] for i in range(_FRAMES)]))

    @classmethod
    def joined(cls, walks: list[Walk], *, keep_begin: bool) -> Walk:
        """Blocks of references side by side again; shares are already added up."""
        whole = cls(walks[0].shares.new_empty(0))
        whole.change = torch.cat([w.change for w in walks if w.change is not None])
        whole.output = walks[0].output
        whole.notes = {n: torch.cat([w.notes[n] for w in walks], 1) for n in walks[0].notes}
        if keep_begin:
            whole.begin = walks[0].begin
        frames = [w.frames for w in walks if w.frames is not None]
        if frames:
            whole.frames = Frames(frames[0].clock, torch.cat([f.points for f in frames], 1))
        return whole


@part
class Staged:
    """A method in two stages: rank the references with a cheap rule, drop the poor ones, spend the gradients on the rest.

    ``scout`` integrates every reference roughly; the method's weighting judges those rough maps and may give some a weight of
    zero; only the others are integrated with the method's own rule. The weights are those of the first stage.

    Cost: R × scout + survivors × rule gradients per example, instead of R × rule.
    """

    method: Method
    scout: Rule

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        method = self.method
        meter = Metered(field, watch=watch)
        with _measured(meter, x) as cost, meter.ready():
            references = checked(method.baseline(x, meter), x, method.baseline)
            rough = replace(method, rule=self.scout).walk(meter, references, x)
            weighed = Weighed.ensure(method.weighting(rough.shares, x, meter))
            r, b = (weighed.weights > 0).nonzero(as_tuple=True)
            chosen = Gathered(meter, b)
            fine = replace(method, record=()).walk(chosen, references[r, b][None], x[b])
            rough.shares[r, b] = fine.shares[0]
            values = _weighed_sum(weighed.weights, rough.shares)
            names = labels(method.baseline, x, meter, len(references))
        assert rough.output is not None
        return result(self, values, x, rough.output, rough, weighed, names, cost())


def _weighed_sum(weights: Tensor, shares: Tensor) -> Tensor:
    """Σ_r w_r · share_r, without a weighted copy of every share."""
    return torch.einsum("rb,rb...->b...", weights, shares)


def gradients_per_row(path: Any, rule: Any) -> int:
    """Gradients that a path and a rule need for one reference and one example; ends the path has paid for are not paid twice."""
    walked = getattr(path, "gradients", 0)
    nodes = rule.table()[0] if walked and hasattr(rule, "table") else None
    each = getattr(rule, "gradients", 0) if nodes is None else sum(0 < t < 1 for t in nodes)
    return int(walked + getattr(path, "segments", 1) * each)


def result(
    method: Any,
    values: Tensor,
    x: Tensor,
    output: Tensor,
    walk: Walk,
    weighed: Weighed,
    names: tuple[str, ...],
    cost: Cost,
) -> Attribution:
    """The attribution, with its completeness measured and its warnings given."""
    assert walk.change is not None
    residual = (weighed.weights * walk.change).sum(0) - total(values, 1)
    made = Attribution(
        values=values,
        inputs=x,
        output=output,
        weights=weighed.weights,
        change=walk.change,
        residual=residual,
        error=torch.full_like(residual, float("nan")),
        converged=torch.ones_like(residual, dtype=torch.bool),
        shares=walk.shares if walk.shares.numel() else None,
        baselines=walk.begin,
        fitness=weighed.fitness,
        reasons=weighed.reasons,
        names=names,
        notes=walk.notes,
        frames=walk.frames,
        cost=cost,
        method=method,
    )
    made = replace(made, converged=made.gap <= _INCOMPLETE)
    _warn(made)
    return made


def _warn(made: Attribution) -> None:
    core = getattr(made.method, "method", made.method)
    if getattr(core.rule, "complete", True) and not bool(made.converged.all()):
        worst = int(made.gap.argmax())
        explained = float(total(made.values, 1)[worst])
        change = float((made.weights * made.change).sum(0)[worst])
        warnings.warn(
            f"{int((~made.converged).sum())} of {len(made)} maps miss more than a tenth of the change they should explain; "
            f"example {worst} adds up to {explained:.3g} where F changes by {change:.3g}. {_advice(core)}",
            IncompleteWarning,
            stacklevel=4,
        )
    for example, reason in enumerate(made.reasons):
        if reason:
            warnings.warn(
                f"Fitness says nothing about example {example}: {reason}.",
                FitnessWarning,
                stacklevel=4,
            )


def _advice(method: Method) -> str:
    nodes = getattr(method.rule, "gradients", 0)
    if hasattr(method.path, "steps"):
        return "Integrate each step with more nodes (rule=ig.rules.Midpoint(4)), or take shorter steps."
    return f"Use more nodes than {nodes}, or a baseline that is less degenerate for this model."


@contextmanager
def _measured(meter: Metered, x: Tensor) -> Iterator[Callable[[], Cost]]:
    """Time and memory of a block; the yielded function reads them off afterwards."""
    cuda = x.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(x.device)
    began = time.perf_counter()
    seconds = [0.0]

    def read() -> Cost:
        peak = torch.cuda.max_memory_allocated(x.device) if cuda else _process_peak()
        tally = meter.tally
        return Cost(tally.gradients, tally.values, tally.calls, seconds[0], peak)

    try:
        yield read
    finally:
        seconds[0] = time.perf_counter() - began


def _process_peak() -> int:
    try:
        import resource
    except ImportError:  # not a Unix
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
