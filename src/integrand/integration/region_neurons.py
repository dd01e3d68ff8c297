"""Attributions of the units of layers, for a region of the input: how what moves there reaches F
through each of them.

    N_j(S) = Σ_{i ∈ S} M_ij,     M_ij = (x − b)_i ∫ ∂F/∂h_j ∂h_j/∂x_i dt

At every node of the rule the model runs forward once, with the tangent of the region's part of the
way, and back once, for all units of all layers. The sum over i for fixed j is the conductance of the
unit, the sum over j for fixed i (of a layer that everything passes) the Integrated Gradient of i.
The gradient at the inputs comes with the same backward pass: it says how well the nodes integrate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..baselines.base import Baseline, References, StartLike, labels
from ..baselines.fixed import Constant
from ..baselines.names import baseline_of
from ..core.declared import Adopted, name_of
from ..core.shapes import describe, over, total
from ..core.values import part
from ..errors import IncompleteWarning, InputError, warn
from ..fields import CountedField, Field
from ..model.flow import LayerFlow
from ..model.layout import Layout
from ..model.network import Site
from ..rules.base import Rule, RuleLike, as_rule
from ..rules.quadrature import GaussLegendre
from .assemble import Watch, opened, residual_of
from .attribution import INCOMPLETE, Attribution, Explainer
from .cost import measured

Sites = str | nn.Module | Site | Sequence[str | nn.Module | Site]


@part
class RegionNeurons(Explainer):
    """What each unit of a layer passes on of a region of the input: values (B, \\*L).

        N_j(S) = ∫ ∂F/∂h_j (γ(t)) · [J_h(γ(t)) (x − b)_S]_j dt,     γ straight from b to x

    Σ_j N_j(S) is the sum of Integrated Gradients over S, for a layer that everything passes through;
    over disjoint regions N adds up, and for all features it is the conductance of the units. Several
    layers, and tensors of a layer, make a map each; each layer is counted by itself.

    The result's ``notes`` hold "region", Σ_{i ∈ S} IG_i by the same nodes, and "all", the same over
    all features (1, R, B); ``converged`` says whether "all" is the change of F to a tenth.
    ``inputs`` are the layer's values at x; ``residual`` holds what is not of the region, too.

    Args:
        site: a layer by name, the module, or an ``ig.fields.Site``; a list or a dict of them for
            several.
        region: a mask that broadcasts to the inputs (B, \\*s): True, or 1, where features belong to
            S; between 0 and 1 they count in part. None for all features.
        baseline: as everywhere.
        rule: one with fixed nodes.

    Raises:
        UnknownName: for the layer.
        ModelError: for layers that do not run once, or give no tensor with one entry per row.
        ShapeError: for a region of another shape.

    Cost:
        A forward pass with tangents and a backward pass for each node and reference, however many
        units and layers.
    """

    site: Sites | dict[str, str | nn.Module | Site]
    region: Tensor | None = None
    baseline: Adopted[StartLike, Baseline] = Adopted(baseline_of, Constant(0.0))
    rule: Adopted[RuleLike, Rule] = Adopted(as_rule, GaussLegendre(32))

    explains: ClassVar[str] = "layer"
    complete: ClassVar[bool] = False
    """It adds up to what the region contributes."""

    at_layers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.rule.table() is None:
            raise InputError(
                f"Neurons are integrated at fixed nodes: give a rule that has some, such as ig.rules.GaussLegendre(50), not {name_of(self.rule)}."
            )
        if not self._sites:
            raise InputError("site= is empty: name one layer at least.")

    @property
    def _sites(self) -> list[str | nn.Module | Site]:
        if isinstance(self.site, dict):
            return list(self.site.values())
        if isinstance(self.site, str | nn.Module | Site):
            return [self.site]
        return list(self.site)

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        x, meter = opened(field, x, watch)
        mask = _mask(self.region, x)
        with measured(meter, x.device) as stopwatch:
            references = References.of(self.baseline, x, meter)[:]
            table = self.rule.table()
            assert table is not None
            meter.tally.expected = len(table[0]) * references.shape[:2].numel()
            sums = _FlowSums(meter, x, references, mask, self._sites, *table)
            start = meter.value(references, leading=2)
            at_input, at_start = sums.activations(x[None]), sums.activations(references)
        change = sums.output - start
        weights = torch.full_like(change, 1 / len(references))
        values = sums.shares.mean(0)
        result = Attribution(
            values=values,
            inputs=at_input[0],
            output=sums.output,
            weights=weights,
            change=change,
            residual=residual_of(values, weights, change),
            error=torch.full_like(sums.output, torch.nan),
            converged=torch.ones_like(sums.output, dtype=torch.bool),
            shares=sums.shares,
            baselines=at_start,
            names=labels(self.baseline, len(references)),
            notes={"region": sums.of_region[None], "all": sums.of_all[None]},
            cost=stopwatch.cost(),
            method=self,
            layout=sums.layout,
            resolution=field.resolution,
        )
        return self._with_converged(result)

    def _with_converged(self, attribution: Attribution) -> Attribution:
        """Whether the nodes integrate F, by the gradients that came along."""
        change, weights = attribution.change, attribution.weights
        explained = (weights * attribution.notes["all"][0]).sum(0)
        actual = (weights * change).sum(0)
        eps = torch.finfo(actual.dtype).eps
        floor = 64 * max(attribution.resolution, eps) * attribution.output.abs()
        missed = (explained - actual).abs() / torch.maximum(actual.abs(), floor).clamp_min(
            torch.finfo(actual.dtype).tiny
        )
        converged = missed <= INCOMPLETE
        if not bool(converged.all()):
            worst = int(missed.nan_to_num(torch.inf).argmax())
            warn(
                f"{int((~converged).sum())} of {len(attribution)} maps are of nodes that miss more than a tenth of the change of F: in example "
                f"{worst} gradients add up to {float(explained[worst]):.3g} where F changes by {float(actual[worst]):.3g}. Take more nodes "
                "(rule=ig.rules.GaussLegendre(200)), or another baseline.",
                IncompleteWarning,
            )
        return dataclasses.replace(attribution, converged=converged)


def _mask(region: Tensor | None, x: Tensor) -> Tensor:
    if region is None:
        return torch.ones_like(x)
    try:
        mask = torch.as_tensor(region).to(x).expand(x.shape)
    except RuntimeError:
        raise InputError(
            f"region= of shape {describe(region.shape)} does not broadcast to inputs of shape {describe(x.shape)}: give a mask of one example, "
            "or one for each."
        ) from None
    if not bool(torch.isfinite(mask).all()):
        raise InputError(
            "region= holds NaN or infinity: it is a mask, True where features belong to it."
        )
    return mask


class _FlowSums:
    """The integral over all nodes, references and examples, a model call at a time.

    shares (R, B, \\*L) or (R, B, n)      of_region, of_all (R, B)      output (B,) F(x)
    """

    def __init__(
        self,
        field: CountedField,
        x: Tensor,
        references: Tensor,
        mask: Tensor,
        sites: Sequence[Any],
        nodes: Sequence[float],
        weights: Sequence[float],
    ) -> None:
        self.field, self.sites = field, sites
        r, b = references.shape[:2]
        pairs, features = r * b, x.shape[1:]
        begin = references.reshape(pairs, *features)
        end = x.expand(r, *x.shape).reshape(pairs, *features)
        inside = mask.expand(r, *mask.shape).reshape(pairs, *features)
        example = torch.arange(b, device=x.device).repeat(r)
        t, w = (torch.tensor(t, dtype=torch.float64).to(x) for t in (nodes, weights))
        self.layout: Layout | None = None
        self._flat = x.new_empty(0)
        self.of_region, self.of_all = x.new_zeros(pairs), x.new_zeros(pairs)

        def call(part: slice) -> None:
            place = torch.arange(part.start, part.stop, device=x.device)
            node, pair = place // pairs, place % pairs
            step = end[pair] - begin[pair]
            z = torch.lerp(begin[pair], end[pair], over(t[node], step))
            inner = step * inside[pair]
            flow = field.flow(z, example[pair], inner, sites)
            self._add(pair, flow, w[node], pairs)
            self.of_region.index_add_(0, pair, w[node] * total(flow.gradient * inner, 1))
            self.of_all.index_add_(0, pair, w[node] * total(flow.gradient * step, 1))

        field.packer.run(len(t) * pairs, call, x[0], "gradient")
        self.shares: Tensor = self._flat.reshape(r, b, *self._flat.shape[1:])
        self.of_region, self.of_all = self.of_region.reshape(r, b), self.of_all.reshape(r, b)
        self.output: Tensor = field.value(x)

    def _add(self, pair: Tensor, flow: LayerFlow, weight: Tensor, pairs: int) -> None:
        fresh = not self._flat.numel()
        if fresh and len(flow.shares) > 1:
            shapes = tuple(tuple(share.shape[1:]) for share in flow.shares)
            dtypes = tuple(share.dtype for share in flow.shares)
            self.layout = Layout(None, shapes, dtypes, False)
        rows = _end_to_end(flow.shares)
        if fresh:
            self._flat = rows.new_zeros(pairs, *rows.shape[1:])
        self._flat.index_add_(0, pair, rows * over(weight, rows))

    def activations(self, z: Tensor) -> Tensor:
        """What is at the layers for stacks of batches z (R, B, \\*s)."""
        r, b = z.shape[:2]
        rows = z.reshape(r * b, *z.shape[2:])
        example = torch.arange(b, device=z.device).repeat(r)
        parts: list[Tensor] = []

        def call(part: slice) -> None:
            still = torch.zeros_like(rows[part])
            flow = self.field.flow(rows[part], example[part], still, self.sites)
            parts.append(_end_to_end(flow.activations))

        self.field.packer.run(len(rows), call, rows[0], "gradient")
        seen = torch.cat(parts)
        return seen.reshape(r, b, *seen.shape[1:])


def _end_to_end(tensors: tuple[Tensor, ...]) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    return torch.cat([tensor.flatten(1) for tensor in tensors], 1)
