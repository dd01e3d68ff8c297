"""References drawn until their mean is known well enough.

    stop when  √(Σ_i Var_r(share_ri) / n)  ≤  tol · ‖mean_r share_r‖

The standard error over references, of the vector. Draws are stratified, which the variance of single draws does not see, so what
is reported is an upper estimate.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..attribution import Attribution
from ..baseline.base import checked
from ..cost import measured
from ..errors import InputError
from ..field import Gathered
from ..field.base import Field
from ..parts import part
from ..walk import Walked, side_by_side, walk
from ..weighting import Weighed
from .base import Method
from .mean import Mean
from .outcome import Watch, opened, result

_KEPT_ELEMENTS = 1 << 24


@part
class Sampled:
    """A method whose references are taken in blocks until the standard error over them meets ``tol``.

    tol    relative to the norm of the map, per example; examples that are done leave
    block  references taken at a time; the decision waits for two blocks

    The method's references must come in random order (``Sample`` draws them so), and count the same. Where they run out first, the
    map is returned with its error and is not ``converged``. Cost: the method's, for as many references as it takes.

    Where the method keeps ``shares``, those of references that an example did not take any more are zero, as their weights are. Paths
    are not kept (``InputError``).
    """

    method: Method
    tol: float = 0.05
    block: int = 25

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1:
            raise InputError(f"tol is a relative error between 0 and 1, such as 0.05, not {self.tol}.")
        if self.block < 2:
            raise InputError(f"A block holds at least two references, not {self.block}.")
        if "path" in self.method.record:
            raise InputError(
                "record='path' does not go with draws that stop when they are enough: there are up to thousands of paths, and other "
                "ones for every example. Leave tol out and name a few references instead."
            )

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        method = self.method
        x, meter = opened(field, x, watch)
        with measured(meter, x.device) as stopwatch:
            references = checked(method.baseline(x, meter), x, method.baseline)
            drawn = _Drawn(x, meter.value(x), keeps="shares" in method.record)
            busy = torch.arange(len(x), device=x.device)
            for first in range(0, len(references), self.block):
                some = references[first : first + self.block]
                own, output = Gathered(meter, busy), drawn.output[busy]
                lanes = (first, len(references))
                found = walk(method.path, method.rule, own, _of(some, busy), x[busy], output=output, lanes=lanes)
                drawn.add(found, some, busy)
                busy = busy[drawn.mean.relative()[busy] > self.tol] if first else busy
                if not len(busy):
                    break
            walked, weights = drawn.walked()
        used = references[: len(weights)]
        return result(self, meter, drawn.mean.value, x, walked, Weighed(weights), used, stopwatch.cost())


class _Drawn:
    """What is kept of draws as they come: their running mean, how many each example took, and where their paths began.

    output  (B,) F(x);  mean of shares (B, \\*s);  keeps  whether shares are kept one by one
    """

    def __init__(self, x: Tensor, output: Tensor, *, keeps: bool) -> None:
        self.x = x
        self.output = output
        self.keeps = keeps
        self.mean = Mean(x)
        self.taken = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.blocks: list[Walked] = []
        self.shares: list[Tensor] = []

    def add(self, found: Walked, references: Tensor, busy: Tensor) -> None:
        """A block of ``references`` (R, B, \\*s) that the examples ``busy`` (M,) walked from."""
        x = self.x
        self.mean.add(found.shares, busy)
        self.taken[busy] += len(references)
        whole = dataclasses.replace(
            found,
            shares=x.new_empty(0),
            begin=references,
            change=_spread(found.change, busy, len(x)),
            error=x.new_zeros(len(references), len(x)),
            output=self.output,
            notes={},
            frames=None,
        )
        self.blocks.append(whole)
        if self.keeps:
            self.shares.append(_spread(found.shares, busy, len(x)))

    def walked(self) -> tuple[Walked, Tensor]:
        """All of it as one walk, and the weights (R, B): even over the draws an example took."""
        shares = torch.cat(self.shares) if self.keeps else self.x.new_empty(0)
        walked = side_by_side(self.blocks, shares, _KEPT_ELEMENTS)
        order = torch.arange(len(walked.change), device=self.x.device)[:, None]
        taken = self.taken.to(self.x.dtype)
        weights = torch.where(order < self.taken, 1 / taken, 0)
        # Errors of single draws, such that those of equal weights add up to the standard error.
        error = (self.mean.error() * taken.sqrt()).expand_as(weights)
        return dataclasses.replace(walked, error=error), weights


def _of(references: Tensor, which: Tensor) -> Tensor:
    """References (R, B, \\*s) of some examples; those that all examples share stay shared."""
    if references.stride(1) == 0:
        return references[:, :1].expand(-1, len(which), *references.shape[2:])
    return references[:, which]


def _spread(numbers: Tensor, which: Tensor, batch: int) -> Tensor:
    """Numbers (R, M, …) of some examples, as numbers (R, B, …) of all; zero elsewhere."""
    found = numbers.new_zeros(len(numbers), batch, *numbers.shape[2:])
    found[:, which] = numbers
    return found
