"""Gaussian processes as fields: the posterior mean as F, with exact attributions and their
covariance.

    f | data ~ GP:   m(z) = h(z) + k(z, Z) α        Cov(f(z), f(z')) = k(z, z') − v(z)ᵀ G v(z')
                     v(z) = L⁻¹ k(Z, z),  L Lᵀ = K_ZZ (+ σ² I),  h(z) = c + w·z

Integrated Gradients are linear in f, so that those of a Gaussian process are Gaussian:

    E φ = A α + w ⊙ D        Cov φ = B − (L⁻¹ Aᵀ)ᵀ G (L⁻¹ Aᵀ)        (A, B: fields/line_integrals.py)

Exact regression has G = I; a sparse variational process with q(u) = N(m, S) has Z its inducing
points, G = I − S for whitened u and I − L⁻¹ S L⁻ᵀ for others. Everything is in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from ..core.optional import room
from ..core.segment import Evaluation, Segment
from ..core.shapes import describe, tensor_of
from ..errors import InputError, NoShare, ShapeError
from ..model.autograd import gradients
from ..model.layout import Array
from .analytic import _Alike
from .kernels import RBF, ConstantKernel, Kernel, check_positive
from .line_integrals import (
    cross_covariance,
    point_attributions,
    point_moments,
    prior_covariance,
    squared_distances,
)
from .links import Link, as_link

if TYPE_CHECKING:
    from gpytorch.likelihoods import Likelihood
    from gpytorch.models import ApproximateGP, ExactGP

_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True, eq=False)
class Posterior:
    """A Gaussian process after data.

    kernel                   points Z (M, n)      factor L (M, M)      weights α (M,)
    shrinks G (M, M), None for I                  constant c           slope w (n,)
    """

    kernel: Kernel
    points: Tensor
    factor: Tensor
    weights: Tensor
    shrinks: Tensor | None
    constant: float
    slope: Tensor

    @property
    def features(self) -> int:
        """n."""
        return self.points.shape[1]

    def on(self, device: torch.device) -> Posterior:
        """The same, its tensors on a device."""
        if self.points.device == device:
            return self
        shrinks = None if self.shrinks is None else self.shrinks.to(device)
        moved = (t.to(device) for t in (self.points, self.factor, self.weights, self.slope))
        points, factor, weights, slope = moved
        return replace(
            self, points=points, factor=factor, weights=weights, slope=slope, shrinks=shrinks
        )

    def scaled(self, shift: float, scale: float) -> Posterior:
        """The process shift + scale · f."""
        return replace(
            self,
            kernel=self.kernel * ConstantKernel(scale**2),
            factor=self.factor * scale,
            weights=self.weights / scale,
            constant=shift + scale * self.constant,
            slope=self.slope * scale,
        )

    def moments(self, z: Tensor, *, slopes: bool, variances: bool) -> tuple[Tensor, ...]:
        """m (N,), v (N,), ∂m (N, n) and ∂v (N, n) at rows z (N, n); empty where not asked for."""
        scales = [scale.to(z) for scale in self.kernel.scales(self.features)]
        distances = [squared_distances(z, self.points, scale) for scale in scales]
        profile = self.kernel.profile(distances)
        mean = self.constant + z @ self.slope + profile.value @ self.weights
        none = z.new_empty(0)
        variance, solved = none, none
        if variances:
            half = self._whitened(profile.value.T)
            reduced = half if self.shrinks is None else self.shrinks @ half
            variance = self.kernel.at_zero(self.features) - (half * reduced).sum(0)
            variance = variance.clamp_min(0)
            if slopes:
                solved = -2 * torch.linalg.solve_triangular(self.factor.T, reduced, upper=True).T
        if not slopes:
            return mean, variance, none, none
        rise = self.slope + self._sloped(z, scales, profile.first, self.weights)
        widen = self._sloped(z, scales, profile.first, solved) if variances else none
        return mean, variance, rise, widen

    def _whitened(self, columns: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(self.factor, columns, upper=False)
        return solved

    def _sloped(
        self, z: Tensor, scales: list[Tensor], first: list[Tensor], counted: Tensor
    ) -> Tensor:
        """Σ_n ∂_i k(z, Z_n) counted_n (N, n), for numbers (M,) or (N, M)."""
        centre = self.points.mean(0)
        sums = torch.zeros_like(z)
        for scale, slope in zip(scales, first, strict=True):
            weighed = 2 * slope * counted
            sums += scale * (
                (z - centre) * weighed.sum(1, keepdim=True) - weighed @ (self.points - centre)
            )
        return sums

    def share(self, start: Tensor, step: Tensor) -> Tensor:
        """E φ (L, n) of lines ``start`` + t ``step``."""
        centre = self.points.mean(0)
        sums = self.slope.expand_as(start).clone()
        for scale, j0, j1 in point_moments(self.kernel, start, step, self.points):
            zeroth, first = j0 * self.weights, j1 * self.weights
            sums += scale * (
                (start - centre) * zeroth.sum(1, keepdim=True)
                - zeroth @ (self.points - centre)
                + step * first.sum(1, keepdim=True)
            )
        return step * sums

    def explained(self, start: Tensor, step: Tensor) -> Tensor:
        """L⁻¹ Aᵀ (lines, M, n): what data say of the lines' attributions."""
        a = point_attributions(self.kernel, start, step, self.points)
        lines, n, m = a.shape
        half = self._whitened(a.reshape(lines * n, m).T)
        return half.T.reshape(lines, n, m).mT

    def reduction(self, half: Tensor) -> Tensor:
        """halfᵀ G half (…, n, n)."""
        return half.mT @ (half if self.shrinks is None else self.shrinks @ half)


class GPField(_Alike):
    """F(z) = E f(z), the posterior mean of a Gaussian process, whose attributions are known exactly
    and with their covariance.

        f ~ GP(h, k),  y = f(X) + noise:   F(z) = h(z) + k(z, X) (K + σ² I)⁻¹ (y − h(X))

    ``ig.methods.gaussian_process`` gives means, covariance and intervals; every other method takes
    it as a field with a gradient. ``through("probit")`` is the expected output behind a link.

    Args:
        X: (N, n) inputs of the data.
        y: (N,) their outputs.
        lengthscale: l of an RBF kernel, one for each feature (n,) or one for all.
        variance: of the process, in units of y².
        noise: σ², the variance of the noise in y.
        kernel: another kernel, such as ``ig.fields.kernels.Matern(2.5, 0.3) +
            ig.fields.kernels.RBF()``, in place of lengthscale and variance.
        mean: c of the prior mean c + w·z.
        slope: w (n,) of it; 0 unless given.
        standardise: fit (y − ȳ)/s instead, and give everything back in units of y: variance, noise
            and mean are then those of standardised outputs.

    Raises:
        InputError: for numbers that are not positive, data that hold NaN, and covariances that are
            not positive definite.

    Cost:
        One Cholesky factor of N × N numbers; then no model is run at all.

    Example:
        >>> import torch, integrand as ig
        >>> X, y = torch.tensor([[0.0, 0.0], [1.0, 0.5]]), torch.tensor([0.0, 1.0])
        >>> field = ig.fields.GPField(X, y, lengthscale=1.0, variance=1.0, noise=0.1)
        >>> result = ig.explain(field, torch.tensor([[1.0, 1.0]]), method="gaussian_process")
        >>> result.covariance.shape
        torch.Size([1, 2, 2])
    """

    def __init__(
        self,
        X: Array,  # as the literature writes it
        y: Array,
        *,
        lengthscale: float | Tensor | Sequence[float] | None = None,
        variance: float | Tensor | None = None,
        noise: float | Tensor = 0.0,
        kernel: Kernel | None = None,
        mean: float = 0.0,
        slope: Tensor | None = None,
        standardise: bool = False,
    ) -> None:
        points, outputs = _checked(X, y)
        kernel = _kernel(kernel, lengthscale, variance)
        weight = torch.zeros(points.shape[1]).to(points) if slope is None else slope.to(points)
        shift, scale = 0.0, 1.0
        if standardise:
            shift, scale = float(outputs.mean()), float(outputs.std())
            if not scale > 0:
                raise InputError("standardise=True needs outputs y that differ.")
            outputs = (outputs - shift) / scale
        added = torch.as_tensor(noise, dtype=torch.float64).to(points.device).detach()
        if bool((added < 0).any()) or added.numel() not in (1, len(points)):
            raise InputError(
                f"noise is a variance, 0 or more: one, or one for each of {len(points)} outputs."
            )
        gram = covariance_matrix(kernel, points) + torch.diag(added.expand(len(points)))
        factor = cholesky(gram, "K + noise")
        off = (outputs - mean - points @ weight)[:, None]
        solved = torch.cholesky_solve(off, factor)[:, 0]
        posterior = Posterior(kernel, points, factor, solved, None, float(mean), weight)
        self.posterior = posterior.scaled(shift, scale) if standardise else posterior

    @classmethod
    def of(cls, posterior: Posterior) -> Self:
        """The field of a process that is known already."""
        field = cls.__new__(cls)
        field.posterior = posterior
        return field

    @classmethod
    def from_gpytorch(
        cls,
        model: ExactGP | ApproximateGP,
        likelihood: Likelihood | None = None,
        *,
        output_mean: float = 0.0,
        output_scale: float = 1.0,
    ) -> Self:
        """A trained GPyTorch model: exact (``ExactGP``) or variational (``ApproximateGP``), whitened
        or not.

        RBF, Matérn 3/2 and 5/2, rational quadratic and constant kernels, scaled, added and
        multiplied, on all or some features; zero, constant and linear means. What was read is held
        against what the model itself says at its own points.

        Args:
            model: it is left as it was.
            likelihood: that of an exact model with its noise; the model's own unless given.
            output_mean: what outputs were standardised by before training, (y − output_mean) /
                output_scale; results are in units of y.
            output_scale: likewise.

        Raises:
            InputError: for batches of processes, several tasks, and kernels or means that are not
                known here.
            MissingExtra: without gpytorch.
        """
        check_positive("output_scale", output_scale)
        read = room("fields.gpytorch").posterior_of(model, likelihood)
        return cls.of(read.scaled(output_mean, output_scale))

    def __repr__(self) -> str:
        return f"GPField({describe(self.posterior.points.shape)} points, {self.posterior.kernel!r})"

    @property
    def gated(self) -> bool:
        return True

    @property
    def smooth(self) -> bool:
        return True

    def through(self, link: str | Link) -> GPLinkField:
        """E g(f(z)) as a field: expected attributions behind a link, "exp", "square", "probit" or
        "logistic".

        ``ig.fields.GPLinkField`` takes several processes, for a softmax.
        """
        return GPLinkField([self], link)

    def moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (N,) of f at rows z (N, n), without the noise of observations."""
        rows, posterior = self._rows(z)
        parts = [
            posterior.moments(block, slopes=False, variances=True)[:2]
            for block in torch.split(rows, self._block(posterior))
        ]
        mean, variance = (torch.cat(numbers) for numbers in zip(*parts, strict=True))
        return mean, variance

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        rows, posterior = self._rows(z)
        means, slopes = [], []
        for block in torch.split(rows, self._block(posterior)):
            mean, _, slope, _ = posterior.moments(block, slopes=gradient, variances=False)
            means.append(mean)
            slopes.append(slope)
        value = torch.cat(means).to(z.dtype)
        return Evaluation(
            value, torch.cat(slopes).reshape(z.shape).to(z.dtype) if gradient else z.new_empty(0)
        )

    def share(self, segment: Segment) -> Tensor:
        start, posterior = self._rows(segment.start.flatten(0, 2))
        step, _ = self._rows(segment.step.flatten(0, 2))
        block = self._block(posterior)
        shares = [
            posterior.share(begin, move)
            for begin, move in zip(torch.split(start, block), torch.split(step, block), strict=True)
        ]
        return torch.cat(shares).reshape(segment.start.shape).to(segment.start.dtype)

    def line_covariance(self, start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
        r, b = start.shape[:2]
        begin, posterior = self._rows(start.flatten(0, 1))
        step = self._rows(end.expand_as(start).flatten(0, 1))[0] - begin
        n = posterior.features
        covariance = begin.new_zeros(b, n, n)
        steps, begins, weigh = step.view(r, b, n), begin.view(r, b, n), weights.to(begin)
        half = torch.zeros((), dtype=begin.dtype, device=begin.device)
        for first in range(r):
            solved = posterior.explained(begins[first], steps[first])
            half = half + weigh[first][:, None, None] * solved
            prior = prior_covariance(posterior.kernel, steps[first])
            covariance += weigh[first].square()[:, None, None] * prior
            for second in range(first):
                cross = cross_covariance(posterior.kernel, steps[first], steps[second])
                if cross is None:
                    raise InputError(
                        "The covariance of attributions from several baselines is known for RBF kernels, their sums and products only: "
                        "explain from one baseline, or leave covariance=True out."
                    )
                pair = (weigh[first] * weigh[second])[:, None, None]
                covariance += pair * (cross + cross.mT)
        covariance -= posterior.reduction(half)
        return ((covariance + covariance.mT) / 2).to(start.dtype)

    def _rows(self, z: Tensor) -> tuple[Tensor, Posterior]:
        posterior = self.posterior.on(z.device)
        rows = z.reshape(len(z), -1).to(posterior.points.dtype)
        if rows.shape[1] != posterior.features:
            raise ShapeError(
                f"Examples of shape {describe(z.shape[1:])} have {rows.shape[1]} features, and the process was given {posterior.features}."
            )
        return rows, posterior

    def _block(self, posterior: Posterior) -> int:
        return max(1, _BLOCK_ELEMENTS // max(1, posterior.points.numel()))


class GPLinkField(_Alike):
    """F(z) = E g(f(z)), the expected output behind a link, of one or several independent processes.

    Its Integrated Gradients are the expected attributions of g(f), exactly (Stein's lemma; the
    covariance of f and its slopes is in F's own slope). They are not Gaussian: there is no
    covariance of theirs.

    Args:
        processes: the fields of f; several for a softmax.
        link: "exp", "square", "probit", "logistic", or ``ig.fields.links.Softmax(which)``.

    Example:
        >>> import torch, integrand as ig
        >>> X, y = torch.tensor([[0.0, 0.0], [1.0, 0.5]]), torch.tensor([0.0, 1.0])
        >>> field = ig.fields.GPField(X, y, lengthscale=1.0, variance=1.0, noise=0.1)
        >>> x = torch.tensor([[1.0, 1.0]])
        >>> bool(ig.explain(field.through("probit"), x).converged)
        True
    """

    def __init__(self, processes: Sequence[GPField], link: str | Link) -> None:
        self.processes = tuple(processes)
        self.link = as_link(link)
        expected = self.link.outputs
        fits = len(self.processes) == expected if expected else len(self.processes) > 1
        if not fits:
            raise InputError(
                f"{self.link!r} takes {'several processes' if expected is None else 'one process'}, not {len(self.processes)}."
            )

    def __repr__(self) -> str:
        return f"GPLinkField({list(self.processes)!r}, {self.link!r})"

    @property
    def smooth(self) -> bool:
        return True

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        parts = [self._evaluate(block, gradient) for block in torch.split(z, self._block)]
        value = torch.cat([value for value, _ in parts])
        return Evaluation(
            value, torch.cat([slope for _, slope in parts]) if gradient else z.new_empty(0)
        )

    @property
    def _block(self) -> int:
        return max(1, min(field._block(field.posterior) for field in self.processes) // 16)

    def _evaluate(self, z: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
        moments = []
        for field in self.processes:
            rows, posterior = field._rows(z)
            moments.append(posterior.moments(rows, slopes=gradient, variances=True))
        means, variances, rises, widenings = zip(*moments, strict=True)
        with gradients(gradient):
            mean = torch.stack(means).requires_grad_(gradient)
            variance = torch.stack(variances).requires_grad_(gradient)
            value = self.link.expected(mean, variance)
            if not gradient:
                return value.to(z.dtype), z.new_empty(0)
            by_mean, by_variance = torch.autograd.grad(value.sum(), (mean, variance))
        slope = sum(
            (
                a[:, None] * rise + b[:, None] * widen
                for a, rise, b, widen in zip(by_mean, rises, by_variance, widenings, strict=True)
            ),
            torch.zeros_like(rises[0]),
        )
        return value.detach().to(z.dtype), slope.reshape(z.shape).to(z.dtype)

    def share(self, segment: Segment) -> Tensor:
        raise NoShare(
            "Expected attributions behind a link are integrated by a rule: use method='integrated', or rule=ig.rules.GaussLegendre(60)."
        )


def covariance_matrix(kernel: Kernel, points: Tensor) -> Tensor:
    """K (M, M) of points (M, n)."""
    scales = [scale.to(points) for scale in kernel.scales(points.shape[1])]
    return kernel.profile([squared_distances(points, points, scale) for scale in scales]).value


def cholesky(gram: Tensor, what: str) -> Tensor:
    """The lower factor of a covariance.

    Raises:
        InputError: where it is not positive definite.
    """
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(gram)
    if int(info):
        raise InputError(
            f"{what} is not positive definite: data that lie together need a noise above 0 (1e-6 of the variance)."
        )
    return factor


def _numbers(values: object, name: str) -> Tensor:
    refusal = f"{name} of a process is made of numbers, in a tensor, an array or a frame of them, not {values!r:.60}."
    return tensor_of(values, refusal)


def _checked(X: Array, y: Array) -> tuple[Tensor, Tensor]:
    points = _numbers(X, "X").detach().to(torch.float64)
    outputs = _numbers(y, "y").detach().to(points)
    if points.ndim != 2 or outputs.ndim != 1 or len(points) != len(outputs) or not len(points):
        raise ShapeError(
            f"A process takes X (N, n) and y (N,); got {describe(points.shape)} and {describe(outputs.shape)}. Several outputs are one GPField each."
        )
    if not bool(torch.isfinite(points).all() & torch.isfinite(outputs).all()):
        raise InputError("X or y holds NaN or infinity: fill or leave out missing values first.")
    return points, outputs


def _kernel(
    kernel: Kernel | None,
    lengthscale: float | Tensor | Sequence[float] | None,
    variance: float | Tensor | None,
) -> Kernel:
    if kernel is None:
        if lengthscale is None:
            raise InputError("Give lengthscale= of an RBF kernel, or kernel=.")
        length = (
            lengthscale
            if isinstance(lengthscale, Tensor | int | float)
            else _numbers(lengthscale, "lengthscale")
        )
        return RBF(length, 1.0 if variance is None else variance)
    if lengthscale is not None or variance is not None:
        raise InputError(
            "kernel= has its own lengthscale and variance: leave lengthscale= and variance= out."
        )
    if not isinstance(kernel, Kernel):
        raise InputError(
            f"kernel= is one of ig.fields.kernels, not {type(kernel).__name__}; a GPyTorch model goes into GPField.from_gpytorch."
        )
    return kernel
