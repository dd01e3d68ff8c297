"""Two-stage integration: rank the references cheaply, then integrate only the good ones."""

from __future__ import annotations

from torch import Tensor

from ...baselines.base import References
from ...core.declared import Adopted
from ...core.values import part
from ...fields import Field, Subset
from ...rules.base import Rule, RuleLike, as_rule
from ..assemble import Watch, opened, result, weighed_sum
from ..attribution import Attribution, Wrapper
from ..cost import measured
from ..loop import walk
from ..method import Method, gradients_per_row
from ..sampling_error import Chance


@part
class TwoStage(Wrapper):
    """A method in two stages: rank references cheaply, integrate only those with weight.

    Poor references are dropped, and gradients are spent on the rest.

    ``scout`` integrates every reference roughly; the method's weighting judges those rough maps and
    may give some a weight of zero; only the others are integrated with the method's own rule. The
    weights are those of the first stage, shares and errors that count those of the second.

    Cost:
        R × scout + survivors × rule gradients per example, instead of R × rule.
    """

    method: Method
    scout: Adopted[RuleLike, Rule] = Adopted(as_rule)

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        method = self.method
        x, meter = opened(field, x, watch)
        with measured(meter, x.device) as stopwatch:
            lazy_references = References.of(method.baseline, x, meter)
            references = lazy_references[:]
            weigh = method.weighting.prepared(x, meter, references)
            rough = walk(
                method.path, self.scout, meter, references, x, frames="path" in method.record
            )
            weighed = weigh(rough.shares)
            r, b = (weighed.weights > 0).nonzero(as_tuple=True)
            # The survivors are a ragged choice of pairs; to paths and rules they look like one
            # reference of a longer batch.
            fine = walk(
                method.path,
                method.rule,
                Subset(meter, b),
                references[r, b][None],
                x[b],
                output=rough.output[b],
                places=r[None],
            )
            rough.shares[r, b], rough.error[r, b] = fine.shares[0], fine.error[0]
            values = weighed_sum(weighed.weights, rough.shares)
            chance = None
            if method.rule.unbiased:
                # The rule's noise stays with the pairs; how the references differ is at least as
                # much.
                per_path = gradients_per_row(method.path, method.rule)
                chance = Chance(x, len(references), per_path or 1, sampled=True)
                chance.add(rough, weighed.weights)
        return result(
            self, meter, values, x, rough, weighed, lazy_references, stopwatch.cost(), chance
        )
