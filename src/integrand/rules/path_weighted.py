"""Path-weighted integration, and integration up to the saturation of F."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.declared import Adopted
from ..core.segment import Segment
from ..core.shapes import over
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from ..fields.line_scan import pilot
from .adaptive.adaptive import Adaptive
from .base import Integrated, Rule, RuleLike, Table, as_rule
from .path_weights import mass_of, means_of, weight_at, weight_of
from .quadrature import GaussLegendre, Quadrature, at_nodes


@part
class PathWeighted(Rule):
    """Integration with a weight along the path (PWIG).

        share = ∫ w(α) g(γ(α)) ⊙ γ'(α) dα,   α the path's clock

    The weight is one of the whole path: on the k-th of several segments it is looked up at the
    clocks of that segment, and the weights of a segment's nodes are scaled to the integral of w
    over it, so that linear functions are integrated exactly. Adds up to ∫ w φ' dα, φ(α) = F(γ(α)),
    which is ΔF for a constant w only. Linear in F.

    Args:
        weight: a name ("sqrt", "linear_late", "quadratic_late", "linear_early", "quadratic_early",
            "logarithmic", "exponential", "beta22"), a part of ``ig.rules.path_weights``, or any
            callable of α.
        rule: where gradients are taken: a rule with fixed nodes, on every segment.
        mass: what ∫ w dα over the whole path is made to be; None leaves w as it is.

    Raises:
        InputError: for a weight that has no finite integral (1/α: the published sum over K nodes
            depends on K), is negative, or is infinite at a node.
        UnknownName: for a name that is none.

    Cost:
        Cost and order are those of ``rule``, where w is as smooth as the gradient.

    References:
        Kamalov, Al Falasi, Thabtah, arXiv 2509.17491. The authors' code takes the mean gradient of
        each of K cells and the weight at the cell's right end, normalised by the sum of those,
        which comes to the same integral with an error of O(1/K).

    Example:
        >>> import torch, integrand as ig
        >>> rule = ig.rules.PathWeighted("linear_late", ig.rules.GaussLegendre(4))
        >>> # φ' = 2α ‖x‖², and ∫ 2α · 2α dα = 4/3
        >>> field = ig.fields.Function(lambda z: z.square().sum(1))
        >>> ig.Method(rule=rule)(field, torch.ones(1, 2).double()).values.round(decimals=4).tolist()
        [[1.3333, 1.3333]]
    """

    weight: Any = "exponential"
    rule: Quadrature = GaussLegendre(50)
    mass: float | None = 1.0

    complete: ClassVar[bool] = False
    """Σ = ∫ w φ' dα."""

    clocked: ClassVar[bool] = True
    """What a piece gets depends on its clock."""

    def __post_init__(self) -> None:
        weight_of(self.weight)
        if not isinstance(self.rule, Quadrature):
            raise InputError(
                f"A path is weighed at fixed nodes: give a rule such as ig.rules.GaussLegendre(50), not {self.rule!r}."
            )
        if self.mass is not None and not self.mass > 0:
            raise InputError(
                f"mass is what the weight integrates to, above 0, or None to leave it; not {self.mass}."
            )

    @property
    def gradients(self) -> int:
        """As many as the rule's."""
        return self.rule.gradients

    @property
    def inner(self) -> Quadrature:
        """The rule whose nodes are weighed."""
        return self.rule

    def with_inner(self, inner: Rule) -> PathWeighted:
        """The same at other nodes."""
        return replace(self, rule=inner)  # type: ignore[arg-type]  # refused unless it is a Quadrature

    def table(self) -> Table:
        """That of the rule, before the path's weight."""
        return self.rule.table()

    def __call__(self, field: Field, segment: Segment) -> Tensor:
        nodes, weights = self.rule.table()
        weight = weight_of(self.weight)
        scale = 1.0 if self.mass is None else self.mass / mass_of(weight)
        begins, ends = (side.to("cpu", torch.float64) for side in segment.clock)
        clock = begins + torch.tensor(nodes, dtype=torch.float64)[:, None] * (ends - begins)
        weighed = (
            weight_at(weight, clock.clamp(0, 1))
            * torch.tensor(weights, dtype=torch.float64)[:, None]
        )
        # Nodes say how the gradient changes; what the weight comes to is known better than by so
        # few of them.
        rule_mass, mean = weighed.sum(0), means_of(weight, begins, ends)
        weighed = weighed * torch.where(
            rule_mass > 0, scale * mean / torch.where(rule_mass > 0, rule_mass, 1), 0
        )
        return at_nodes(field, segment, nodes, weighed.to(segment.start)[:, :, None, None])


@part
class Saturation:
    """The first moment at which F has reached a fraction of its largest value on the path.

        α* = min {α : F(γ(α)) ≥ above + fraction · (max F − above)}

    Where F never rises above that level there is nothing to saturate, and α* = 1. Where F is beyond
    the threshold from the start, α* = 0.

    Args:
        fraction: of the way from that level to the largest value of F.
        above: the level F is counted from: 0 as published, for scores that are about 0 at the
            baseline (probabilities); None for F where the path begins, which shifts along with F
            (logits, log-probabilities).
        pilot: how many even cells of the clock F is looked at in; between their ends it is taken to
            change evenly.

    Cost:
        ``pilot`` + 1 values, at least two for each segment.

    Example:
        >>> import integrand as ig
        >>> ig.rules.SaturationCutoff(ig.rules.Saturation(0.8, above=None))
        SaturationCutoff(Saturation(0.8, None))
    """

    fraction: float = 0.9
    above: float | None = 0.0
    pilot: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise InputError(
                f"fraction is that of F's largest value that is reached, above 0 and at most 1, not {self.fraction}."
            )
        if self.pilot < 1:
            raise InputError(f"A pilot needs at least one cell, not {self.pilot}.")

    def moment(self, field: Field, segment: Segment) -> tuple[Tensor, Tensor, Tensor]:
        """α* (R, B), and F at both ends of every piece (K, R, B), for the pieces of a whole
        path."""
        begins, ends = segment.clock
        if not (
            float(begins[0]) == 0 and float(ends[-1]) == 1 and torch.equal(begins[1:], ends[:-1])
        ):
            raise InputError(
                f"Where F is largest is known only of a whole path at once, and this segment covers the clock from {float(begins[0]):g} "
                f"to {float(ends[-1]):g}: give the limit as a number (ig.rules.SaturationCutoff(0.5)), or take ig.paths.Straight()."
            )
        pieces, references, batch = segment.leading
        cells = -(-self.pilot // pieces)
        values = pilot(field, segment.start, segment.end, cells, leading=3)  # (cells + 1, K, R, B)
        inside = torch.linspace(0, 1, cells + 1, dtype=torch.float64).to(begins)[:, None]
        clock = (begins + inside * (ends - begins)).T.reshape(-1).to(values)
        along = values.transpose(0, 1).reshape(-1, references, batch)
        level = along[0] if self.above is None else torch.full_like(along[0], self.above)
        largest = along.amax(0)
        threshold = level + self.fraction * (largest - level)
        threshold = torch.minimum(threshold, largest)  # rounding may not put it out of reach
        first = (along >= threshold).to(torch.uint8).argmax(0)
        before = (first - 1).clamp_min(0)
        high, low = along.gather(0, first[None])[0], along.gather(0, before[None])[0]
        part_of_cell = torch.where(
            high > low, (threshold - low) / torch.where(high > low, high - low, 1), 1
        )
        crossing = torch.where(first > 0, torch.lerp(clock[before], clock[first], part_of_cell), 0)
        return torch.where(largest > level, crossing, 1), values[0], values[-1]


@part
class SaturationCutoff(Rule):
    """Integration from the baseline up to a moment of the path (Left-IG).

        share = ∫₀^{α*} g(γ(α)) ⊙ γ'(α) dα

    Adds up to F(γ(α*)) − F(b), so what happens behind α* is in the residual: small where F is
    saturated there. With ``Saturation`` not linear in F.

    Args:
        limit: a moment on the path's clock, or ``Saturation()``: where F has come to most of what
            it comes to. That has to see the whole path at once: straight lines, and paths that come
            in one stack.
        rule: how what is left of each segment is integrated, by as many nodes as a whole one; what
            lies beyond costs no gradients.

    Raises:
        InputError: for a path in several stacks with ``Saturation``, and for rules that read the
            clock of a segment, which a shortened one no longer keeps.

    Cost:
        At most the rule's gradients, and the values of ``Saturation``.

    References:
        Miglani et al., arXiv 2010.12697 (Left-IG). Reimplementations often divide by the number of
        nodes to the left, so that the map adds up to a 1/α* multiple of that; here it is the
        integral.
    """

    limit: float | Saturation = Saturation()
    rule: Adopted[RuleLike, Rule] = Adopted(as_rule, Adaptive())

    complete: ClassVar[bool] = False
    """Σ = F(γ(α*)) − F(b)."""

    clocked: ClassVar[bool] = True
    """What a piece gets depends on its clock."""

    def __post_init__(self) -> None:
        if not isinstance(self.limit, Saturation) and not 0 < self.limit <= 1:
            raise InputError(
                f"limit is a moment on the path's clock, above 0 and at most 1, not {self.limit}."
            )
        if self.rule.clocked:
            raise InputError(
                f"{self.rule!r} counts by the clock of whole segments, and a shortened one keeps none: for a weight that ends early "
                "give ig.rules.PathWeighted one of your own, such as lambda a: (a < 0.5).double()."
            )

    @property
    def gradients(self) -> int | None:
        """As many as the rule's, at most."""
        return self.rule.gradients

    @property
    def tol(self) -> float | None:
        """The rule's."""
        return self.rule.tol

    @property
    def inner(self) -> Rule:
        """The rule that integrates what is left."""
        return self.rule

    def with_inner(self, inner: Rule) -> SaturationCutoff:
        """The same of another rule."""
        return replace(self, rule=inner)

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        begins, ends = segment.clock
        start_value = end_value = None
        if isinstance(self.limit, Saturation):
            moment, start_value, end_value = self.limit.moment(field, segment)
        else:
            moment = segment.start.new_full(segment.leading[1:], self.limit)
        begins, ends = (side.to(moment)[:, None, None] for side in (begins, ends))
        left = ((moment - begins) / (ends - begins)).clamp(0, 1)  # of each piece (K, R, B)
        uncut = left == 1
        cut = segment
        if not bool(uncut.all()):
            end = torch.lerp(segment.start, segment.end, over(left, segment.start))
            cut = replace(segment, end=end, at_end=None)
        integrated = Integrated.ensure(self.rule(field, cut))
        if start_value is None:
            start_value = integrated.begin
            end_value = (
                None if integrated.end is None else torch.where(uncut, integrated.end, float("nan"))
            )
        return replace(integrated, begin=start_value, end=end_value)
