"""Sampling of references until their mean is known to a tolerance.

    stop when  q · √(Σ_i Var_r(share_ri) / n)  ≤  tol · ‖mean_r share_r‖         at two looks that follow one another

The left side is what the mean is off by in 95 of 100 cases at most (``sampling_error``). One look that
happens to meet the tolerance is chosen among many, and says less than it seems to: so two have to.
Draws are stratified, and references drawn without replacement as long as they last, which the
variance of single draws does not see, so what is reported is an upper estimate.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ...baselines.base import References
from ...core.shapes import total
from ...core.values import part
from ...errors import InputError
from ...fields import CountedField, Subset
from ...weightings import Weighed
from ..assemble import Integrals, Integrator
from ..attribution import Wrapper
from ..loop import PathIntegrals, SideBySide, walk
from ..method import Method
from ..sampling_error import Doubt, Spread

_WALKED_ELEMENTS = 1 << 21  # references of a block are walked about this many numbers at a time


@part
class UntilTolerance(Wrapper, Integrator):
    """A method that draws references until their mean is known to ``tol``.

    References are taken in blocks; the tolerance holds in 95 of 100 cases or more.

    ``error`` of the result is that bound; the truth is the mean over all that may be drawn,
    references and positions.

    The method's references must come in random order (``Sample`` draws them so), and count the
    same. Where they run out first, the map is returned with its error and is not ``converged``.

    Where the method keeps ``shares``, those of references that an example did not take any more are
    zero, as their weights are. Paths are not kept (``InputError``).

    Args:
        method: whose references come in random order, such as from ``ig.baselines.Sample``.
        tol: relative L2 error, per example; examples that are done leave.
        block: references taken at a time; an example is done when its 95 % bound meets ``tol``
            after two blocks that follow one another.

    Cost:
        The method's, for as many references as it takes.

    Example:
        >>> import torch, integrand as ig
        >>> drawn = ig.baselines.Sample(torch.randn(500, 4), 500)
        >>> method = ig.UntilTolerance(ig.Method(drawn, rule=ig.rules.MonteCarlo(1)), tol=0.2)
        >>> field = ig.fields.Function(lambda z: z.tanh().sum(1))
        >>> bool(method(field, 3 * torch.ones(1, 4)).converged)
        True
    """

    method: Method
    tol: float = 0.05
    block: int = 25

    samples: ClassVar[bool] = True
    """It goes on with drawing until the tolerance is met."""

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1:
            raise InputError(
                f"tol is a relative error between 0 and 1, such as 0.05, not {self.tol}."
            )
        if self.block < 2:
            raise InputError(f"A block holds at least two references, not {self.block}.")
        if "path" in self.method.record:
            raise InputError(
                "record='path' does not go with draws that stop when they are enough: there are up to thousands of paths, and other "
                "ones for every example. Leave tol out and name a few references instead."
            )

    def integrate(self, field: CountedField, x: Tensor) -> Integrals:
        method = self.method
        references = References.of(method.baseline, x, field)
        drawn = _DrawnReferences(
            x, field.value(x), len(references), keeps="shares" in method.record
        )
        busy = torch.arange(len(x), device=x.device)
        within_tol = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        size = min(self.block, max(1, _WALKED_ELEMENTS // max(1, x.numel())))
        for first in range(0, len(references), self.block):
            busy_field, output = Subset(field, busy), drawn.output[busy]
            last = min(first + self.block, len(references))
            for begin in range(first, last, size):
                chunk = references[begin : min(begin + size, last)]
                paths = walk(
                    method.path,
                    method.rule,
                    busy_field,
                    _of_examples(chunk, busy),
                    x[busy],
                    output=output,
                    reference_block=(begin, len(references)),
                )
                drawn.add(paths, chunk, busy)
                del paths, chunk  # before the next are made
            before, within_tol = within_tol, drawn.spread.doubt().error <= self.tol
            busy = busy[~(before & within_tol)[busy]]
            if not len(busy):
                break
        paths, weights = drawn.walked()
        return Integrals(drawn.spread.value, paths, Weighed(weights), references, drawn)


class _DrawnReferences:
    """What is kept of draws as they come: their spread, how many each example took, and where their
    paths began.

    Attributes:
        output: (B,) F(x);  spread of shares (B, \\*s);  keeps  whether shares are kept one by one.
    """

    def __init__(self, x: Tensor, output: Tensor, references: int, *, keeps: bool) -> None:
        self.x = x
        self.output = output
        self.keeps = keeps
        self.spread = Spread(x)
        self.draw_counts = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.accumulated = SideBySide(references, x)
        self.shares: list[Tensor] = []

    def add(self, integrals: PathIntegrals, references: Tensor, busy: Tensor) -> None:
        """A block of ``references`` (R, B, \\*s) that the examples ``busy`` (M,) walked from."""
        self.spread.add(integrals.shares, integrals.change - total(integrals.shares, 2), busy)
        self.draw_counts[busy] += len(references)
        if self.keeps:
            self.shares.append(_scatter_to_batch(integrals.shares, busy, len(self.x)))
        full = dataclasses.replace(
            integrals,
            begin=references,
            change=_scatter_to_batch(integrals.change, busy, len(self.x)),
            start=_scatter_to_batch(integrals.start, busy, len(self.x)),
            error=_scatter_to_batch(integrals.error, busy, len(self.x)),
            output=self.output,
            notes={},
        )
        self.accumulated.enter(full)

    def walked(self) -> tuple[PathIntegrals, Tensor]:
        """All of it as one walk, and the weights (R, B): even over the draws an example took."""
        walked = self.accumulated.walked(self.x, torch.cat(self.shares) if self.keeps else None)
        order = torch.arange(len(walked.change), device=self.x.device)[:, None]
        weights = (order < self.draw_counts).to(self.x.dtype) / self.draw_counts.to(self.x.dtype)
        return walked, weights

    def doubt(self, values: Tensor, residual: Tensor) -> Doubt:
        """What is known of the mean."""
        return self.spread.doubt()


def _of_examples(references: Tensor, examples: Tensor) -> Tensor:
    """References (R, B, \\*s) of some examples; those that all examples share stay shared."""
    if references.stride(1) == 0:
        return references[:, :1].expand(-1, len(examples), *references.shape[2:])
    return references[:, examples]


def _scatter_to_batch(numbers: Tensor, examples: Tensor, batch: int) -> Tensor:
    """Numbers (R, M, …) of some examples, as numbers (R, B, …) of all; zero elsewhere."""
    full = numbers.new_zeros(len(numbers), batch, *numbers.shape[2:])
    full[:, examples] = numbers
    return full
