"""SmoothGrad: the mean of maps of noisy inputs.

    A(x) = mean_d A(x + ε_d),   ε_d ~ N(0, σ²)

A map that changes with every small change of the input says little; what the maps of neighbours
have in common says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.declared import Adopted
from ...core.options import check_choice
from ...core.random import generator
from ...core.shapes import flattened, over
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ...model.autograd import gradients
from ...model.layout import Layout
from ..assemble import Watch, rearranged
from ..attribution import INCOMPLETE, Attribution, Explainer, ExplainerLike, Wrapper, as_explainer
from ..running_mean import RunningMean
from ..sampling_error import Spread
from .base import (
    FixedBaseline,
    Runs,
    check_wrappable,
    nan_like,
    one_call,
    same_start,
    warned_once,
)

Sigma = float | Tensor | tuple[float | Tensor, ...] | Mapping[Any, float | Tensor]
"""How wide noise is: for one input, or for each of several."""


_REDUCTIONS = ("mean", "square", "variance")


@part
class SmoothGrad(Wrapper):
    """A method's map, averaged over noisy copies of the input.

        A(x) = mean_d A_d,   A_d = the map of x + ε_d,   ε_d ~ N(0, σ²)

    ``error`` is what the mean over draws is off by, relative to what infinitely many would give, in
    95 of 100 cases at most; infinite for a single draw, and for "variance" nobody estimates it
    (NaN). ``converged`` says whether the integrals of all draws met their own tolerance, and the
    error too, where it is known (a tenth where they have none); a few dozen draws are seldom
    enough. The map adds up to mean_d F(x + ε_d) − F(b), not to F(x) − F(b): ``residual`` holds the
    difference, and ``notes["noised"]`` (draws, 1, B) is F(x + ε_d).

    Args:
        method: any method; where it starts from is asked for x once, and no noise is added to it.
        draws: how many noisy copies.
        sigma: the standard deviation, relative to the range (largest − smallest number) of each
            example; or a tensor that broadcasts to an example: the deviation itself, in units of
            the input, for columns of different units. Of a model with several inputs, relative to
            the range of each; or a tuple or dict with one for each input.
        seed: of the noise; all examples of a batch get the same, scaled to their range.
        reduce: "mean": SmoothGrad;  "square": mean_d A_d², SmoothGrad-Squared;  "variance": the
            (unbiased) variance of A_d, VarGrad.

    Raises:
        InputError: for integers, which take no noise.

    Cost:
        draws × the method's, and one value per example. Memory does not grow with draws.

    References:
        Smilkov et al., "SmoothGrad: removing noise by adding noise", arXiv 1706.03825 (25 draws, σ
        0.15 of the range); squares: Hooker et al., arXiv 1806.10758; variance: Adebayo et al.,
        arXiv 1810.03307. Published code squares by default and calls that SmoothGrad too; here
        squares have to be asked for.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Function(lambda z: z.exp().sum(1))
        >>> method = ig.SmoothGrad(ig.methods.integrated(), draws=50)
        >>> result = method(field, torch.tensor([[1.0, 0.5]]))
        >>> result.values.shape, result.notes["noised"].shape
        (torch.Size([1, 2]), torch.Size([50, 1, 1]))
    """

    method: Adopted[ExplainerLike, Explainer] = Adopted(as_explainer)
    draws: int = 25
    sigma: Sigma = 0.15
    seed: int = 0
    reduce: str = "mean"

    complete: ClassVar[bool] = False
    """The map adds up for noisy inputs, not for x."""

    resolution: ClassVar[str] = "draws"

    def __post_init__(self) -> None:
        check_wrappable(self.method, "SmoothGrad", layers=True)
        if self.draws < 1 + (self.reduce == "variance"):
            raise InputError(f"{self.draws} draws are too few: a mean takes one, a variance two.")
        several = tuple(self.sigma.values()) if isinstance(self.sigma, Mapping) else self.sigma
        for deviation in several if isinstance(several, tuple) else (several,):
            if isinstance(deviation, bool) or not isinstance(deviation, int | float | Tensor):
                raise InputError(
                    f"sigma is a number or a tensor, not {deviation!r}; for several inputs, one for each."
                )
            if not bool(torch.as_tensor(deviation).ge(0).all()):
                raise InputError(f"A standard deviation is not negative: sigma={self.sigma!r}.")
        check_choice("reduce", self.reduce, _REDUCTIONS)

    @one_call
    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        if field.integers or not x.is_floating_point():
            raise InputError(
                "SmoothGrad adds noise to its inputs, and integers take none: explain the embeddings themselves, as floating-point inputs."
            )
        runs = Runs(watch, self.draws)
        with warned_once(), field.ready(), gradients(False):
            fixed_start = FixedBaseline(self.method, field, x)
            method, width = (
                fixed_start.starting(self.method),
                self._width(fixed_start.x, field.layout),
            )
            sums: _RunningSums | None = None
            for draw in range(self.draws):
                attribution = runs(
                    method,
                    field,
                    (fixed_start.x + width * self._noise(draw, fixed_start.x)).to(x.dtype),
                )
                sums = sums or _RunningSums(attribution, self.reduce)
                sums.add(attribution)
            assert sums is not None
            output = fixed_start.output()
            runs.add(fixed_start.cost)
            noiseless = flattened((width == 0).expand_as(fixed_start.x), 1).all(1)
            error = torch.where(noiseless, 0, sums.error())
            tol = self.method.tol
            close = error <= (INCOMPLETE if tol is None else tol)
        return rearranged(
            sums.first,
            sums.map(),
            **sums.summary(output, fixed_start),
            error=error,
            converged=sums.converged & (close | error.isnan()),
            inputs=sums.first.inputs if self.explains == "layer" else fixed_start.x,
            cost=runs.cost,
            method=self,
        )

    def _noise(self, draw: int, x: Tensor) -> Tensor:
        """Standard normal numbers (\\*s) of one draw."""
        return torch.randn(
            x.shape[1:], generator=generator(self.seed, draw), dtype=torch.float64
        ).to(x)

    def _width(self, x: Tensor, layout: Layout | None) -> Tensor:
        """The standard deviation, broadcasting to (B, \\*s); each of several inputs has its own."""
        if layout is None or layout.single:
            return _deviation(self.sigma, x)
        sigma = self.sigma
        if isinstance(sigma, tuple | Mapping):
            entries = dict(enumerate(sigma)) if isinstance(sigma, tuple) else dict(sigma)
            if set(entries) != set(layout.keys):
                raise InputError(
                    f"sigma= is for {sorted(map(str, entries))}, the inputs are {sorted(map(str, layout.keys))}: give one for each."
                )
        elif isinstance(sigma, Tensor) and sigma.ndim:
            return _deviation(sigma, x)
        else:
            entries = dict.fromkeys(layout.keys, sigma)
        parts = zip(layout.keys, layout.split(x), strict=True)
        return layout.join([_deviation(entries[key], part).expand_as(part) for key, part in parts])


def _deviation(sigma: object, x: Tensor) -> Tensor:
    """The standard deviation of the noise on one input, broadcasting to (B, \\*s)."""
    if isinstance(sigma, Tensor):
        try:
            return sigma.to(x).expand(x.shape[1:])
        except RuntimeError:
            raise InputError(
                f"sigma of shape {tuple(sigma.shape)} does not broadcast to an example of shape {tuple(x.shape[1:])}."
            ) from None
    if not isinstance(sigma, int | float):
        raise InputError(
            f"sigma= is a number, or a tensor for one input; several inputs take a tuple or dict with one for each, not {sigma!r}."
        )
    numbers = flattened(x, 1)
    return over(sigma * (numbers.amax(1) - numbers.amin(1)), x)


class _RunningSums:
    """What is kept of runs, added up as they come."""

    def __init__(self, first: Attribution, reduce: str) -> None:
        self.first = first
        self.reduce = reduce
        self.maps: RunningMean | Spread = (
            RunningMean(first.values) if reduce == "variance" else Spread(first.values)
        )
        self.base = RunningMean(first.base)
        self.begin = RunningMean(first.change)
        self.weights = RunningMean(first.weights)
        self.same_references = True
        self.converged = torch.ones_like(first.converged)
        self.outputs: list[Tensor] = []

    def add(self, attribution: Attribution) -> None:
        self.maps.add(
            (attribution.values.square() if self.reduce == "square" else attribution.values)[None]
        )
        self.base.add(attribution.base[None])
        self.same_references = (
            self.same_references and attribution.weights.shape == self.first.weights.shape
        )
        if self.same_references:
            self.begin.add((attribution.output - attribution.change)[None])
            self.weights.add(attribution.weights[None])
        self.converged &= attribution.converged
        self.outputs.append(attribution.output)

    def map(self) -> Tensor:
        """What the runs come to (B, \\*s)."""
        return self.maps.variance() if isinstance(self.maps, RunningMean) else self.maps.value

    def error(self) -> Tensor:
        """What that is wrong by (B,), relative to it."""
        return (
            nan_like(self.first.error)
            if isinstance(self.maps, RunningMean)
            else self.maps.doubt().error
        )

    def summary(self, output: Tensor, fixed_start: FixedBaseline) -> dict[str, Any]:
        """The rest of the attribution, for x itself: F(x) (B,), and where its paths began, where
        that is one place for all draws."""
        begin = self.first.baselines
        fixed = (
            self.same_references and begin is not None and same_start(begin, fixed_start.references)
        )
        # Methods that take as many references as they need take another number for every draw: what
        # counts is their mean.
        weights = self.weights.value if self.same_references else torch.ones_like(output)[None]
        start = self.begin.value if self.same_references else self.base.value[None]
        return {
            "output": output,
            "weights": weights,
            "change": output - start,
            "baselines": begin if fixed else None,
            "names": self.first.names if self.same_references else ("all references",),
            "fitness": None,
            "criterion": "",
            "reasons": (),
            "frames": None,
            "notes": {"noised": torch.stack(self.outputs)[:, None]},
        }
