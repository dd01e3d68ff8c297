"""Attribution to a layer: path corners are mapped to the layer's values, and shares are measured
there.

    z_0 ───────▶ z_1 ───────▶ z_2 = x         the method's path, in the space of the inputs
     │ lift       │ lift       │ lift         the whole model, once for each corner
    h_0 ───────▶ h_1 ───────▶ h_2             straight pieces in the layer's space; nodes run only
                                              what is behind the layer

One piece is layer attribution, many are conductance (their limit is ∫ ∂F/∂h ⊙ dh along the path of
the inputs). On the way from one corner to the next only h moves; what passes the layer by (skip
connections, masks) is as it is at the corner nearer the input. The change that a map is held
against is the real one, F(x) − F(baseline): what goes around the layer shows in the residual.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...baselines.base import Baseline, checked, label_of, labels
from ...baselines.fixed import Given
from ...core.declared import Adopted, name_of
from ...core.segment import Segment
from ...core.shapes import plain, state_dtype, total
from ...core.values import part
from ...errors import BaselineError, IncompleteWarning, InputError, warn
from ...fields import Cast, CountedField, Field, Subset
from ...fields.layer import LayerActivations, LayerField
from ...fields.views import CallCount
from ...model.layout import Layout
from ...model.network import Site, SiteLike, check_side
from ...model.replay import ReplayPlan
from ...paths import Path, Straight
from ...rules import Integrated, Rule
from .. import Method, UntilTolerance
from ..assemble import Watch, residual_of, with_converged
from ..assemble import core as core_of
from ..attribution import INCOMPLETE, Attribution, Explainer, ExplainerLike, Wrapper, as_explainer
from ..cost import Cost, Stopwatch, measured
from ..loop import Frames
from .base import nested, with_core

_BLOCK_ELEMENTS = 1 << 24  # corners are lifted in blocks of about this many numbers


@part
class Layered(Wrapper):
    """A method whose map is of a layer instead of the inputs: values (B, \\*L).

        A(x) = Σ_r w_r Σ_k (h_{k+1} − h_k) ⊙ ∫ ∂F/∂h dt        h_k: what is at the layer at corner k of the method's path

    A layer that returns several tensors (an LSTM, attention) is explained at all of them, and one
    that runs several times in all of its runs; ``ig.fields.Site(layer, tensor=0, run=1)`` names
    one. Maps of several layers and tensors are a tuple from ``ig.explain``, and laid end to end (B,
    n) here; runs are added up (their inputs and baselines too) where they have the same shape. They
    add up to the change together.

    Args:
        site: a layer by name, the module itself, or an ``ig.fields.Site``; a list or a dict of them
            for several at once, which move together; maps come in their order.
        method: any method: its baseline and its path live in the space of the inputs, its rule and
            its weighting in the layer's. Of a wrapper the baseline alone does: ``Layered("1",
            SmoothGrad(…))`` adds noise to the layer's values, ``GreedyPIG`` ranks the layer's
            features. To add noise to the inputs put the layer inside, ``SmoothGrad(Layered("1",
            …))``.
        side: "output" of the layer, or its "input".
        start: what the method's baseline is one of: the "inputs", or values of the "layer" (a
            ``PerPlace`` for several).

    Raises:
        UnknownName: for the layer.
        ModelError: where a layer is no place to explain at.

    Cost:
        One forward pass for every corner of the path (references and inputs are corners); gradients
        run only what is behind the layer. ``inputs`` and ``baselines`` of the result are those of
        the layer. Where something passes the layer by, the residual holds its part of the change.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... )
        >>> method = ig.Layered("1", ig.methods.integrated())
        >>> result = ig.explain(model, torch.randn(5, 4), target=0, method=method)
        >>> result.values.shape
        torch.Size([5, 8])
    """

    site: SiteLike | Sequence[SiteLike] | Mapping[str, SiteLike]
    method: Adopted[ExplainerLike, Explainer] = Adopted(as_explainer)
    side: str = "output"
    start: str = "inputs"

    explains: ClassVar[str] = "layer"
    """The map has the layer's shape, and the inputs need no gradient."""
    complete: ClassVar[bool] = False
    """Only where nothing passes the layer by; a warning says where something does."""

    def __post_init__(self) -> None:
        check_side(self.side)
        if self.start not in ("inputs", "layer"):
            raise InputError(
                f"start is 'inputs' or 'layer', whichever the baseline is one of, not {self.start!r}."
            )
        if self._several and not self.site:
            raise InputError(
                f"site= is an empty {type(self.site).__name__}: name one layer at least."
            )
        *around, core = nested(self.method)
        if not isinstance(core, Method):
            raise InputError(
                f"A layer takes a Method, such as ig.methods.weighted(…) makes, or a wrapper of one, not {name_of(self.method)}."
            )
        if self.method.explains == "layer":
            raise InputError(
                f"{self.method!r} is of a layer already, and there is no layer in a layer's space."
            )
        for number, wrapper in enumerate(around):
            name = name_of(wrapper)
            if not wrapper.at_layers:
                raise InputError(f"{name} explains the inputs only; leave it out at a layer.")
            if number and isinstance(wrapper, UntilTolerance):
                raise InputError(
                    f"At a layer, {name} draws other references in every run of {name_of(self.method)}: leave tol out."
                )
        if around and core.path != Straight():
            raise InputError(
                f"At a layer, {name_of(around[0])} goes with straight lines; leave it out for paths with corners."
            )
        if self.start == "layer" and core.path != Straight():
            raise InputError(
                f"From values of the layer a path goes straight: {core.path!r} goes through the inputs, and needs a baseline there."
            )

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        core = core_of(self.method)
        dtype, x = x.dtype, plain(x).to(state_dtype(x.dtype))
        outer = CountedField(field if dtype == x.dtype else Cast(field, dtype))
        layer_field = field.behind(self._sites, self.side)
        straight = core.path == Straight()
        if not straight and (field.integers or not dtype.is_floating_point):
            raise InputError(
                f"{core.path!r} has corners between the baseline and the input, and between integers there is nothing: use "
                "method='layer', which goes straight in the layer's space."
            )
        with measured(outer, x.device) as stopwatch:
            if self.start == "layer":
                return self._from_the_layer(layer_field, x, dtype, stopwatch, watch)
            references = checked(core.baseline(x, outer), x, core.baseline, outer)
            ends = _lift(layer_field, dtype, torch.cat([x[None], references]))
            inputs, starts = ends[: len(x)], ends[len(x) :]
            outer.check(x, torch.arange(len(x), device=x.device), inputs.value)
            layer_field.hold(inputs)
            path = (
                None
                if straight
                else _LiftedPath(
                    core.path, layer_field, dtype, outer, x, references, inputs, starts
                )
            )
            apart = path is not None and layer_field.bypassed
            attribution = _at_layer(self.method, core, path, starts, len(references), apart=apart)(
                layer_field, inputs.points, watch=watch
            )
        change = inputs.value - (path.first if path else starts).value.reshape(
            len(references), len(x)
        )
        change = change[
            : len(attribution.weights)
        ]  # where there were enough references, not all were taken
        cost = _total_cost(stopwatch.cost(), attribution.cost, layer_field.tally)
        # Where corners bring their surroundings along, F at the ends says nothing of the pieces one
        # by one.
        settled = torch.ones_like(attribution.converged) if apart else attribution.gap <= INCOMPLETE
        if not layer_field.conservative:  # nothing was promised
            settled = torch.zeros_like(settled)
        attribution = self._with_site_names(layer_field.sites)._with_real_change(
            attribution, core, layer_field, inputs.value, change, settled, cost
        )
        return self._by_map(
            layer_field, with_converged(attribution, self.method) if apart else attribution
        )

    def _from_the_layer(
        self,
        layer_field: LayerField,
        x: Tensor,
        dtype: torch.dtype,
        stopwatch: Stopwatch,
        watch: Watch | None,
    ) -> Attribution:
        """From a baseline among the layer's values, where nothing that passes the layer by
        changes."""
        inputs = _lift(layer_field, dtype, x[None])
        layer_field.hold(inputs)
        start = _JointBaseline.of(core_of(self.method).baseline, layer_field.plan)
        method = with_core(self.method, lambda inner: dataclasses.replace(inner, baseline=start))
        attribution = method(layer_field, inputs.points, watch=watch)
        cost = _total_cost(stopwatch.cost(), attribution.cost, layer_field.tally)
        return self._by_map(
            layer_field,
            dataclasses.replace(
                attribution, cost=cost, method=self._with_site_names(layer_field.sites)
            ),
        )

    @property
    def _several(self) -> bool:
        """Whether layers are listed, or named in a dict."""
        return isinstance(self.site, list | tuple | dict)

    @property
    def _sites(self) -> Any:
        """The layer, or a list of those there are."""
        return list(self.site.values()) if isinstance(self.site, dict) else self.site

    def _with_site_names(self, sites: Sequence[Site]) -> Layered:
        """The same, layers by name instead of modules."""
        if not self._several:
            return self if isinstance(self.site, str) else self._at_site(*sites)
        return dataclasses.replace(self, site=tuple(_printed(site, self.side) for site in sites))

    def _at_site(self, site: Site) -> Layered:
        named = _printed(site, site.side)
        return dataclasses.replace(
            self, site=named, side=site.side if isinstance(named, str) else self.side
        )

    def _by_map(self, field: LayerField, attribution: Attribution) -> Attribution:
        """One map for every layer and tensor, the runs of a layer added up; several maps lie end to
        end."""
        plan = field.plan
        if len(plan.places) == 1:
            return attribution
        values = _sum_runs(plan, attribution.values, 1)
        joint_norm, summed_norm = (
            total(maps.square(), 1).sqrt() for maps in (attribution.values, values)
        )
        # Errors of pieces are taken as independent, so that those of runs add up in squares,
        # whatever cancels in the maps.
        error = (
            attribution.error
            * joint_norm
            / summed_norm.clamp_min(torch.finfo(summed_norm.dtype).tiny)
        )
        attribution = dataclasses.replace(
            attribution,
            values=values,
            inputs=_sum_runs(plan, attribution.inputs, 1),
            shares=None if attribution.shares is None else _sum_runs(plan, attribution.shares, 2),
            baselines=None
            if attribution.baselines is None
            else _sum_runs(plan, attribution.baselines, 2),
            frames=attribution.frames
            and Frames(attribution.frames.clock, _sum_runs(plan, attribution.frames.points, 3)),
            layout=_layout_of_maps(plan),
        )
        return (
            attribution
            if len(plan.maps) == len(plan.places)
            else self._judge_summed_runs(field, dataclasses.replace(attribution, error=error))
        )

    def _judge_summed_runs(self, field: LayerField, attribution: Attribution) -> Attribution:
        """Runs that take back what others give leave a small map with the error of large ones."""
        before = attribution.converged
        attribution = with_converged(attribution, self.method)
        attribution = dataclasses.replace(attribution, converged=attribution.converged & before)
        lost = before & ~attribution.converged
        if bool(lost.any()):
            worst = int((attribution.error * lost).argmax())
            warn(
                f"{int(lost.sum())} of {len(attribution)} maps did not reach their tolerance: the runs of layer {self.site!r} cancel in their sum, "
                f"which is off by an estimated relative {float(attribution.error[worst]):.2g} in {field.example_name(worst)}. Explain one run "
                "(ig.fields.Site(layer, run=0)), or ask for a smaller tol.",
                IncompleteWarning,
            )
        return attribution

    def _with_real_change(
        self,
        attribution: Attribution,
        core: Method,
        field: LayerField,
        output: Tensor,
        change: Tensor,
        settled: Tensor,
        cost: Cost,
    ) -> Attribution:
        """The attribution held against the real change of F, and a warning where much of it passes
        the layer by."""
        residual = residual_of(attribution.values, attribution.weights, change)
        attribution = dataclasses.replace(
            attribution,
            output=output,
            change=change,
            residual=residual,
            shares=attribution.shares if "shares" in core.record or len(change) == 1 else None,
            cost=cost,
            method=self,
        )
        around = settled & (attribution.gap > INCOMPLETE)
        if bool(around.any()) and core.rule.complete:
            worst = int((attribution.gap * around).argmax())
            total_change = float((attribution.output - attribution.base)[worst])
            warn(
                f"{int(around.sum())} of {len(attribution)} maps miss more than a tenth of the change, most likely because it passes "
                f"the layer by: {field.example_name(worst)} adds up to {total_change - float(residual[worst]):.3g} at {self.site!r} where F changes by "
                f"{total_change:.3g}. That is right for a layer with others beside it; one that everything passes through leaves "
                "nothing out.",
                IncompleteWarning,
            )
        return attribution


def _lift(layer_field: LayerField, dtype: torch.dtype, z: Tensor) -> LayerActivations:
    """Batches (n, B, \\*s) lifted, flat; in the type the model was given."""
    lifted: LayerActivations = layer_field.lift(
        z.flatten(0, 1).to(dtype), torch.arange(z.shape[1], device=z.device).repeat(len(z))
    )
    return lifted


def _printed(site: Site, side: str) -> str | Site:
    """A site as it is typed: its name, where that says it."""
    if site.tensor is None and site.run is None and site.side == side:
        return site.name
    return dataclasses.replace(site, layer=site.name)


def _sum_runs(plan: ReplayPlan, joint: Tensor, leading: int) -> Tensor:
    """What lies end to end by place (L…, n), by map instead: (L…, \\*L) of one, (L…, m) of
    several."""
    parts = plan.layout.unpack(joint, leading)
    maps = [torch.stack([parts[place] for place in places]).sum(0) for places in plan.maps]
    return (
        maps[0]
        if len(maps) == 1
        else torch.cat([layer_map.flatten(leading) for layer_map in maps], leading)
    )


def _layout_of_maps(plan: ReplayPlan) -> Layout | None:
    """How several maps lie end to end; None for one."""
    if len(plan.maps) == 1:
        return None
    first = [places[0] for places in plan.maps]
    shapes, dtypes = plan.layout.shapes, plan.layout.dtypes
    return Layout(
        None,
        tuple(shapes[place] for place in first),
        tuple(dtypes[place] for place in first),
        False,
    )


@part
class PerPlace(Baseline):
    """Baselines among the values of several layers or tensors, one for each map, in their order."""

    parts: tuple[Baseline, ...]

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        raise InputError(
            "A baseline for each of several layers goes with layers: ig.methods.layer([…], layer_baseline=(…))."
        )


@part
class _JointBaseline(Baseline):
    """A baseline among the values of layers, asked for map by map, and laid end to end as they
    are."""

    baselines: tuple[Baseline, ...]
    layout: Layout
    maps: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, baseline: Baseline, plan: ReplayPlan) -> Baseline:
        if isinstance(baseline, PerPlace):
            if len(baseline.parts) != len(plan.maps):
                raise BaselineError(
                    f"There are {len(baseline.parts)} baselines of layers for {len(plan.maps)} maps: give one for each, or one for all."
                )
            return cls(baseline.parts, plan.layout, plan.maps)
        return (
            baseline
            if len(plan.places) == 1
            else cls((baseline,) * len(plan.maps), plan.layout, plan.maps)
        )

    @property
    def label(self) -> str:
        return label_of(self.baselines[0])

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        parts = [x] if self.layout.single else list(self.layout.unpack(x, 1))
        by_place: list[Tensor] = [x] * len(parts)
        for baseline, places in zip(self.baselines, self.maps, strict=True):
            for place in places:
                by_place[place] = checked(
                    baseline(parts[place], field), parts[place], baseline, field
                )
        counts = {len(references) for references in by_place}
        if len(counts) > 1:
            raise BaselineError(
                f"The layers have {sorted(counts)} references: give as many for each, so that they can move together."
            )
        return (
            by_place[0]
            if self.layout.single
            else torch.cat([references.flatten(2) for references in by_place], 2)
        )


def _total_cost(outer: Cost, inner: Cost, lifts: CallCount) -> Cost:
    """What the whole took; the stopwatch ran all the time."""
    return dataclasses.replace(
        outer,
        gradients=outer.gradients + inner.gradients,
        values=outer.values + inner.values + lifts.values,
        calls=outer.calls + inner.calls + lifts.calls,
    )


def _at_layer(
    method: Explainer,
    core: Method,
    path: _LiftedPath | None,
    starts: LayerActivations,
    references: int,
    *,
    apart: bool,
) -> Explainer:
    """The method in the layer's space."""
    points = starts.points.reshape(references, -1, *starts.points.shape[1:])
    begin = Given(points, names=labels(core.baseline, references))
    if path is None:
        return with_core(method, lambda inner: dataclasses.replace(inner, baseline=begin))
    # All references in one walk: the path knows its corners by their order.
    rule = _PiecewiseRule(core.rule) if apart else core.rule
    return dataclasses.replace(
        core,
        baseline=begin,
        path=path,
        rule=rule,
        record=tuple(dict.fromkeys(("shares", *core.record))),
    )


@dataclass(eq=False)
class _LiftedPath(Path):
    """A path through the layer's space: that of the inputs, its corners lifted. ``first`` is where
    it really began."""

    path: Path
    layer_field: LayerField
    dtype: torch.dtype
    field: Field
    x: Tensor
    references: Tensor
    inputs: LayerActivations
    starts: LayerActivations

    def __post_init__(self) -> None:
        self.clock = float("inf")
        self.first = self.starts
        r, b = self.references.shape[:2]
        examples = torch.arange(b, device=self.x.device).repeat(r)
        self.known = [
            (self.references, self.starts),
            (self.x.expand_as(self.references), self.inputs[examples]),
        ]

    @property
    def segments(self) -> int | None:
        """Those of the path."""
        return self.path.segments

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        per_piece = max(1, start.numel(), self.references.numel())
        most = max(1, _BLOCK_ELEMENTS // per_piece)
        for segment in self.path(self.field, self.references, self.x):
            for begin in range(0, len(segment.start), most):
                yield self._lift(segment, slice(begin, begin + most), start.shape)

    def _lift(self, segment: Segment, pieces: slice, shape: torch.Size) -> Segment:
        begins, ends = segment.start[pieces], segment.end[pieces]
        clock = (segment.clock[0][pieces], segment.clock[1][pieces])
        count = len(begins)
        # Neighbours share a corner, which is lifted once.
        chained = count > 1 and torch.equal(begins[1:], ends[:-1])
        corners = [begins[0], *ends] if chained else [*begins, *ends]
        lifted = self._lift_corners(corners)
        first = LayerActivations.joined(lifted[:count])
        last = LayerActivations.joined(lifted[1:] if chained else lifted[count:])
        self.known = [*self.known[:2], (begins[0], lifted[0]), (ends[-1], lifted[-1])]
        earliest = int(clock[0].argmin())
        if float(clock[0][earliest]) < self.clock:
            self.clock, self.first = float(clock[0][earliest]), lifted[earliest]
        if self.layer_field.bypassed:
            self.layer_field.hold(self.inputs, last)
        notes = {
            name: note[pieces.start : pieces.start + count + 1]
            for name, note in segment.notes.items()
        }
        leading = (count, *shape)
        return Segment(
            first.points.reshape(leading), last.points.reshape(leading), clock, notes=notes
        )

    def _lift_corners(self, corners: list[Tensor]) -> list[LayerActivations]:
        """Each corner (R, B, \\*s) lifted, those that are not known yet in one go."""
        known_lifts = [
            next((activations for at, activations in self.known if torch.equal(at, corner)), None)
            for corner in corners
        ]
        new = [
            corner
            for corner, activations in zip(corners, known_lifts, strict=True)
            if activations is None
        ]
        pairs = self.references.shape[0] * self.references.shape[1]
        new_lifts = _lift(self.layer_field, self.dtype, torch.cat(new)) if new else None
        order = iter(range(len(new)))
        return [
            activations
            if activations is not None
            else new_lifts[(n := next(order)) * pairs : (n + 1) * pairs]  # type: ignore[index]
            for activations in known_lifts
        ]


@part
class _PiecewiseRule(Rule):
    """A rule for pieces that each have their own surroundings: every piece of every pair is an
    example of its own."""

    rule: Rule

    complete: ClassVar[bool] = False
    """Not by F at the ends alone: from corner to corner the surroundings change too."""

    @property
    def gradients(self) -> int | None:
        return self.rule.gradients

    @property
    def tol(self) -> float | None:
        return self.rule.tol

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        pieces, (begins, ends) = segment.leading[0], segment.clock
        if not self.rule.clocked:
            unit = torch.ones_like(begins[:1])
            return self._integrate_pieces(field, segment, slice(0, pieces), (0 * unit, unit))
        singles = [slice(k, k + 1) for k in range(pieces)]
        integrated = [
            self._integrate_pieces(field, segment, k, (begins[k], ends[k])) for k in singles
        ]
        return Integrated(
            torch.cat([piece.share for piece in integrated]),
            torch.cat([piece.error for piece in integrated]),
        )

    def _integrate_pieces(
        self, field: Field, segment: Segment, pieces: slice, clock: tuple[Tensor, Tensor]
    ) -> Integrated:
        """Some pieces at once: all for rules that do not ask when a piece is, else one with its own
        clock."""
        start, end = segment.start[pieces], segment.end[pieces]
        leading, inner = start.shape[:3], start.shape[3:]
        pairs = leading[1] * leading[2]
        rows = leading[0] * pairs
        number = leading[2] + pieces.start * pairs + torch.arange(rows, device=start.device)
        alone = Segment(start.reshape(1, 1, rows, *inner), end.reshape(1, 1, rows, *inner), clock)
        integrated = Integrated.ensure(self.rule(Subset(field, number), alone))
        return Integrated(
            integrated.share.reshape(*leading, *inner), integrated.error.reshape(leading)
        )
