"""Two-stage integration: rank the references cheaply, then integrate only the good ones."""

from __future__ import annotations

from torch import Tensor

from ...baselines.base import References
from ...core.declared import Adopted
from ...core.values import part
from ...fields import CountedField, Subset
from ...rules.base import Rule, RuleLike, as_rule
from ..assemble import Integrals, Integrator, weighed_sum
from ..attribution import Wrapper
from ..loop import walk
from ..method import Method, gradients_per_row
from ..sampling_error import Chance


@part
class TwoStage(Wrapper, Integrator):
    """A method in two stages: rank references cheaply, integrate only those with weight.

    Poor references are dropped, and gradients are spent on the rest.

    The scout integrates every reference roughly; the method's weighting judges those rough maps and
    may give some a weight of zero; only the others are integrated with the method's own rule. The
    weights are those of the first stage, shares and errors that count those of the second.

    Args:
        method: whose weighting may give weights of zero.
        scout: the rule, or something like one, that integrates every reference roughly.

    Cost:
        R × scout + survivors × rule gradients per example, instead of R × rule.

    Example:
        >>> import torch, integrand as ig
        >>> method = ig.methods.weighted(torch.randn(6, 4), keep=0.25, rule=ig.rules.Midpoint(50))
        >>> ig.TwoStage(method, ig.rules.Midpoint(3)).scout
        Midpoint(3)
    """

    method: Method
    scout: Adopted[RuleLike, Rule] = Adopted(as_rule)

    def integrate(self, field: CountedField, x: Tensor) -> Integrals:
        method = self.method
        references = References.of(method.baseline, x, field)
        starts = references[:]
        weigh = method.weighting.prepared(x, field, starts)
        paths = walk(method.path, self.scout, field, starts, x, frames="path" in method.record)
        weighed = weigh(paths.shares)
        r, b = (weighed.weights > 0).nonzero(as_tuple=True)
        # The survivors are a ragged choice of pairs; to paths and rules they look like one
        # reference of a longer batch.
        fine = walk(
            method.path,
            method.rule,
            Subset(field, b),
            starts[r, b][None],
            x[b],
            output=paths.output[b],
            reference_numbers=r[None],
        )
        paths.shares[r, b], paths.error[r, b] = fine.shares[0], fine.error[0]
        chance = None
        if method.rule.unbiased:
            # The rule's noise stays with the pairs; how the references differ is at least as much.
            per_path = gradients_per_row(method.path, method.rule)
            chance = Chance(x, len(starts), per_path or 1, sampled=True)
            chance.add(paths, weighed.weights)
        values = weighed_sum(weighed.weights, paths.shares)
        return Integrals(values, paths, weighed, references, chance)
