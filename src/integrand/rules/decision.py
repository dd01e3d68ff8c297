"""Integrated Decision Gradients, and rescaling of shares to completeness.

    Decision    ∫ g ⊙ γ' · dF/dα dα                           gradients count as much as F moves where they are taken (IDG)
    Rescaled    share · ΔF / Σ share                          any rule, made to add up

``IntegratedDecisionGradients`` is not linear in F and adds up to ∫ (dF/dα)² dα;
``Rescaled(IntegratedDecisionGradients())`` is its complete cousin.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ..core.declared import Adopted
from ..core.segment import Segment
from ..core.shapes import over, total
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from ..fields.line_scan import equal_change, midpoints, pilot
from .base import Integrated, Rule, RuleLike, Table, as_rule, mean_gradient
from .endpoints import ends_of


@part
class IntegratedDecisionGradients(Rule):
    """Integrated Decision Gradients (IDG): gradients weighed by how fast F changes on the path.

        share_i = ∫ g_i γ_i' · φ' dα,   φ(α) = F(γ(α)),   φ' = g · γ'

    Adds up to ∫ φ'² dα ≥ (ΔF)²: in squared units of F, four times as large for 2F, and the same for
    −F. ``Rescaled(IntegratedDecisionGradients())`` adds up to ΔF. Nodes are the midpoints of
    ``steps`` steps, placed by a look at F alone at ``pilot`` + 1 even positions so that F changes
    equally over each (a tenth of them is spread evenly); φ' is the chain rule's and comes with the
    gradient. ``pilot=1`` leaves the steps even. α is the path's clock: on a path of several
    segments, each takes ``steps`` nodes of its own.

    Args:
        steps: how many gradients, in the middle of as many steps.
        pilot: F alone is looked at in so many even cells, to place the steps; 1 leaves them even.

    Cost:
        ``steps`` gradients and ``pilot`` + 1 values. Error O(1/steps²) for smooth F.

    References:
        Walker et al., "Integrated Decision Gradients", AAAI 2024 (arXiv 2305.20052). The authors'
        code deviates: its sampler places steps by slopes that are shifted to begin at zero and
        skips cells without samples without moving on, so that where F is flat at first all samples
        fall in front of the decision (nothing is then explained); φ' is a backward difference; and
        the mean over steps is divided by their number once more. Here the integral is what is
        computed.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Linear(torch.tensor([1.0, 2.0]))
        >>> rule = ig.rules.IntegratedDecisionGradients()
        >>> ig.Method(rule=rule)(field, torch.ones(1, 2)).values.round(decimals=3).tolist()
        [[3.0, 6.0]]
    """

    steps: int = 50
    pilot: int = 50

    complete: ClassVar[bool] = False
    """Σ = ∫ φ'² dα."""

    clocked: ClassVar[bool] = True
    """What a piece gets depends on its clock."""

    resolution: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"A decision is looked at in at least one step, not {self.steps}.")
        if self.pilot < 1:
            raise InputError(
                f"A pilot needs at least one cell, not {self.pilot}; with pilot=1 the steps are even."
            )

    @property
    def gradients(self) -> int:
        """Gradients per segment, reference and example."""
        return self.steps

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        values = pilot(field, segment.start, segment.end, self.pilot, leading=3)
        nodes, weights = midpoints(equal_change(values, self.steps))
        step = segment.step
        flat = step.reshape(-1, *step.shape[3:])

        def by_slope(gradient: Tensor, rows: Tensor) -> Tensor:
            return gradient * over(total(gradient * flat[rows], 1), gradient)

        begins, ends = segment.clock
        mean = mean_gradient(field, segment, nodes, weights, by_slope)
        integrated = Integrated.ensure(mean.mul_(step) / over((ends - begins).to(step), step))
        return Integrated(integrated.share, integrated.error, values[0], values[-1])


@part
class Rescaled(Rule):
    """The shares of another ``rule``, scaled to add up to the change of F over each piece.

        share' = share · (F(end) − F(start)) / Σ_i share_i

    Makes a rule complete that is not by itself (``IntegratedDecisionGradients``, ``PathWeighted``),
    piece by piece: with one segment the whole map is scaled by one number. Where the shares of a
    piece cancel to less than rounding there is no such number and they are left as they are; the
    residual then tells. A factor is only as good as the sum it divides by: shares that nearly
    cancel are blown up.

    Cost:
        That of the rule, and F at ends that neither it nor the path has come by. Error: the rule's,
        scaled alike.
    """

    rule: Adopted[RuleLike, Rule] = Adopted(as_rule, IntegratedDecisionGradients())

    @property
    def gradients(self) -> int | None:
        """As many as the rule's."""
        return self.rule.gradients

    @property
    def inner(self) -> Rule:
        """The rule that is scaled."""
        return self.rule

    def with_inner(self, inner: Rule) -> Rescaled:
        """The same of another rule."""
        return replace(self, rule=inner)

    @property
    def tol(self) -> float | None:
        """The rule's."""
        return self.rule.tol

    @property
    def clocked(self) -> bool:
        """Whether the rule is."""
        return self.rule.clocked

    def table(self) -> Table | None:
        """The rule's, if it has one: what the path has paid for is as good here as there."""
        return self.rule.table()

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        integrated = Integrated.ensure(self.rule(field, segment))
        begin, end = ends_of(field, segment, integrated)
        summed = total(integrated.share, 3)
        smallest = torch.finfo(summed.dtype).eps ** 0.5 * total(integrated.share.abs(), 3)
        factor = torch.where(summed.abs() > smallest, (end - begin) / summed, 1)
        return Integrated(
            integrated.share * over(factor, integrated.share),
            integrated.error * factor.abs(),
            begin,
            end,
        )
