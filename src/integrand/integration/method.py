"""``Method``: a baseline, a path, a rule and a weighting.

    A(x) = Σ_r w_r · Σ_segments share(segment)

    references = baseline(x, field)                         where paths start
    shares     = walk(path, rule, field, references, x)     which way, and how a piece is integrated
    weights    = weighting(shares, x, field)                how references are weighed
    values     = Σ_r weights_r · shares_r

References whose weights are known beforehand are taken in blocks and added up as they come: two
hundred of them need no two hundred maps. Completeness is measured on every result, never assumed.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..baselines.base import Baseline, References, StartLike
from ..baselines.fixed import Constant
from ..baselines.names import baseline_of
from ..core.declared import Adopted
from ..core.memory_budget import at_once
from ..core.values import part
from ..errors import InputError
from ..fields import CountedField, Field
from ..paths.base import Path, PathLike, as_path
from ..paths.straight import Straight
from ..rules.adaptive.adaptive import Adaptive
from ..rules.base import Rule, RuleLike, as_rule
from ..weightings import Uniform, Weighed, Weighting, WeightingLike, as_weighting
from .assemble import Integrals, Integrator, Watch, weighed_sum
from .attached import attached
from .attribution import Attribution
from .loop import DeferredRefinement, PathIntegrals, SideBySide, walk
from .sampling_error import Chance

_RECORDS = ("shares", "path")


@part
class Method(Integrator):
    """A path attribution: a baseline, a path, a rule and a weighting.

        A(x) = Σ_r w_r ∫ ∇F(γ_r(t)) ⊙ dγ_r(t)

    Called with a field and inputs x (B, \\*s).

    Args:
        baseline: where paths start, zero unless given: a number, a tensor, a name, a list of them,
            or any of ``ig.baselines``.
        path: which way to the input, any of ``ig.paths``; straight unless given.
        rule: how each piece is integrated, any of ``ig.rules``; adaptively, to a relative error of
            5 %, unless given.
        weighting: how references are weighed, any of ``ig.weightings``; alike unless given.
        record: what the result keeps beside the map: "shares", a map per reference; "path", nine
            points along every path.

    Returns:
        Called, an ``Attribution`` with values (B, \\*s), in units of F; ``watch`` is shown a
        running tally meanwhile.

    Raises:
        BaselineError, InputError: for what is no baseline, path, rule or weighting.

    Cost:
        references × segments × nodes gradients per example, and one value per reference and per
        example where the rule does not evaluate F at the ends.

    Example:
        >>> import torch, integrand as ig
        >>> baseline, rule = ig.baselines.Constant(0.0), ig.rules.GaussLegendre(8)
        >>> method = ig.Method(baseline, ig.paths.Straight(), rule)
        >>> method(ig.fields.Linear(torch.ones(3)), torch.ones(1, 3)).values
        tensor([[1., 1., 1.]])
    """

    baseline: Adopted[StartLike, Baseline] = Adopted(baseline_of, Constant(0.0))
    path: Adopted[PathLike, Path] = Adopted(as_path, Straight())
    rule: Adopted[RuleLike, Rule] = Adopted(as_rule, Adaptive())
    weighting: Adopted[WeightingLike, Weighting] = Adopted(as_weighting, Uniform())
    record: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.record) - set(_RECORDS)
        if unknown:
            raise InputError(
                f"record takes {', '.join(map(repr, _RECORDS))}; got {', '.join(map(repr, unknown))}."
            )

    @property
    def complete(self) -> bool:
        """As the rule says; one that is right on average counts as well, for what one of its maps
        misses is an error of that map."""
        return self.rule.complete or self.rule.unbiased

    @property
    def tol(self) -> float | None:
        """The rule's."""
        return self.rule.tol

    @property
    def padding_takes_part(self) -> bool:
        """On straight lines it does not, but for rules that switch features."""
        return type(self.path) is not Straight or self.rule.features is not None

    def attached(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        return attached(self, self, field, x, watch)

    def integrate(self, field: CountedField, x: Tensor) -> Integrals:
        references = References.of(self.baseline, x, field)
        # Of fields that jump, some or all of the share takes no gradients.
        per_path = None if field.jumps else gradients_per_row(self.path, self.rule)
        # A baseline may have been searched for; what that took is known by now.
        searched, walks = field.tally.gradients, len(x) * len(references)
        field.tally.expected = None if per_path is None else searched + per_path * walks
        fixed_weights = self.weighting.beforehand(len(references), len(x))
        chance = None
        if self.rule.unbiased:
            chance = Chance(x, len(references), per_path or 1, sampled=references.sampled)
        if fixed_weights is None:
            weighed, paths = self._weighed_afterwards(field, references[:], x)
            values = weighed_sum(weighed.weights, paths.shares)
            if chance:
                chance.add(paths, weighed.weights)
        else:
            weighed = Weighed(fixed_weights.to(x))
            values, paths = self._blocks(field, references, x, weighed.weights, chance)
        return Integrals(values, paths, weighed, references, chance)

    def _weighed_afterwards(
        self, field: Field, references: Tensor, x: Tensor
    ) -> tuple[Weighed, PathIntegrals]:
        """Weights that need shares: judged on a first look where the rule has one, which is then
        refined where it counts."""
        weigh = self.weighting.prepared(x, field, references)
        rule = DeferredRefinement(self.rule)
        walked = walk(self.path, rule, field, references, x, frames="path" in self.record)
        weighed = weigh(walked.shares)
        return weighed, rule.settle(walked, weighed.weights)

    def _blocks(
        self,
        field: Field,
        references: References,
        x: Tensor,
        weights: Tensor,
        chance: Chance | None,
    ) -> tuple[Tensor, PathIntegrals]:
        """The weighted sum of shares, a block of references at a time, without keeping them unless
        asked to."""
        keeps = "shares" in self.record or len(references) == 1
        size = len(references) if keeps else at_once(x.numel(), x.device)
        values = torch.zeros_like(x)
        accumulated = SideBySide(len(references), x)
        for first in range(0, len(references), size):
            rows = slice(first, first + size)
            block = walk(
                self.path,
                self.rule,
                field,
                references[rows],
                x,
                frames="path" in self.record,
                output=accumulated.output,
                reference_block=(first, len(references)),
                weights=weights[rows],
            )
            values += weighed_sum(weights[rows], block.shares)
            if chance:
                chance.add(block, weights[rows])
            if keeps:
                return values, dataclasses.replace(block, noise=None)
            accumulated.enter(block)
            del block  # before the next is made
        return values, accumulated.walked(x)


def gradients_per_row(path: PathLike, rule: RuleLike) -> int | None:
    """Gradients a path and a rule need for one reference of one example; what the path paid for is
    not paid twice.

    ``path.gradients`` are at its corners and are handed on, ``path.scouted`` are elsewhere and are
    not. A path that pays for its corners may leave one end of the whole way ``unpaid``: 0.0 where
    it begins, 1.0 the input. None for paths that cannot tell beforehand how many pieces or
    gradients they come to (theirs are None), and for rules that do not say (``Adaptive``).
    """
    path, rule = as_path(path), as_rule(rule)
    walked, pieces, per_piece = path.gradients, path.segments, rule.gradients
    if walked is None or pieces is None or per_piece is None:
        return None
    table = rule.table()
    if walked and table is not None:
        nodes = table[0]
        per_piece = sum(0 < node < 1 for node in nodes)
        walked += len(set(path.unpaid) & set(nodes))
    return walked + path.scouted + pieces * per_piece
