"""GPyTorch models read as a posterior; what was read is held against what the model says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core.optional import optional
from ..errors import InputError
from ..model.turns import turn
from .gaussian_process import Posterior, cholesky, covariance_matrix
from .kernels import (
    RBF,
    ConstantKernel,
    Kernel,
    Matern,
    ProductKernel,
    RationalQuadratic,
    SumKernel,
)

if TYPE_CHECKING:
    from gpytorch.kernels import Kernel as GPyTorchKernel
    from gpytorch.likelihoods import Likelihood
    from gpytorch.means import Mean
    from gpytorch.models import ApproximateGP, ExactGP

_NEEDS = "GPField.from_gpytorch"
_SAME = 1e-3  # of the largest number, that means and variances may differ by from the model's own
_SAMPLE = 64


def posterior_of(model: ExactGP | ApproximateGP, likelihood: Likelihood | None = None) -> Posterior:
    """The posterior of a trained GPyTorch model, in float64.

    Raises:
        InputError: for what is not an exact or variational model, and for what is not known of it.
    """
    gpytorch = optional("gpytorch", extra="gp", needs=_NEEDS)
    with turn(), _evaluated(model, likelihood), torch.no_grad():
        if isinstance(model, gpytorch.models.ExactGP):
            posterior = _exact(gpytorch, model, likelihood)
        elif isinstance(model, gpytorch.models.ApproximateGP):
            posterior = _variational(gpytorch, model)
        else:
            raise InputError(
                f"{type(model).__name__} is no ExactGP and no ApproximateGP of gpytorch: give one of these, or data to GPField(X, y, …)."
            )
        _check(gpytorch, model, posterior)
    return posterior


@contextmanager
def _evaluated(*modules: nn.Module | None) -> Iterator[None]:
    """Modules in eval mode while this lasts; afterwards each is as it was."""
    modes = [
        (part, part.training)
        for module in modules
        if isinstance(module, nn.Module)
        for part in module.modules()
    ]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _exact(gpytorch: ModuleType, model: ExactGP, likelihood: Likelihood | None) -> Posterior:
    inputs, targets = model.train_inputs, model.train_targets
    if inputs is None or len(inputs) != 1:
        raise InputError(
            "The model has no training data, or several inputs: it needs one tensor X."
        )
    points = _points(inputs[0])
    if targets.ndim != 1:
        raise InputError(
            "Several tasks, or a batch of processes, are several functions: train one model for each output, and make a GPField of each."
        )
    likelihood = model.likelihood if likelihood is None else likelihood
    kernel, (constant, slope) = _parts(gpytorch, model, points)
    empty = gpytorch.distributions.MultivariateNormal(
        torch.zeros(len(points)).to(inputs[0]), torch.eye(len(points)).to(inputs[0])
    )
    noisy = likelihood(empty, inputs[0]).covariance_matrix.to(torch.float64)
    noise = noisy - torch.eye(len(points)).to(noisy)
    factor = cholesky(covariance_matrix(kernel, points) + noise, "K + noise")
    off = targets.to(torch.float64) - constant - points @ slope
    weights = torch.cholesky_solve(off[:, None], factor)[:, 0]
    return Posterior(kernel, points, factor, weights, None, constant, slope)


def _variational(gpytorch: ModuleType, model: ApproximateGP) -> Posterior:
    strategy = model.variational_strategy
    whitened = type(strategy) is gpytorch.variational.VariationalStrategy
    if not whitened and type(strategy) is not gpytorch.variational.UnwhitenedVariationalStrategy:
        raise InputError(
            f"{type(strategy).__name__} is not read: give a model with VariationalStrategy or UnwhitenedVariationalStrategy, one process of one "
            "task each."
        )
    points = _points(strategy.inducing_points)
    kernel, (constant, slope) = _parts(gpytorch, model, points)
    jitter = gpytorch.settings.variational_cholesky_jitter.value(strategy.inducing_points.dtype)
    gram = covariance_matrix(kernel, points)
    factor = cholesky(gram + jitter * torch.eye(len(points)).to(gram), "K of the inducing points")
    if not bool(strategy.variational_params_initialized):
        raise InputError("The variational distribution was not trained yet: train the model first.")
    q = strategy.variational_distribution
    mean, spread = q.mean.to(torch.float64), q.covariance_matrix.to(torch.float64)
    if mean.ndim != 1:
        raise InputError(
            "A batch of variational processes is several functions: make a GPField of each."
        )
    identity = torch.eye(len(points)).to(gram)
    if whitened:
        half = mean
    else:
        half = _lower(factor, (mean - constant - points @ slope)[:, None])[:, 0]
        spread = _lower(factor, _lower(factor, spread).T)
    weights = torch.linalg.solve_triangular(factor.T, half[:, None], upper=True)[:, 0]
    return Posterior(kernel, points, factor, weights, identity - spread, constant, slope)


def _lower(factor: Tensor, columns: Tensor) -> Tensor:
    solved: Tensor = torch.linalg.solve_triangular(factor, columns, upper=False)
    return solved


def _points(inputs: Tensor) -> Tensor:
    if inputs.ndim != 2:
        raise InputError(
            f"Inputs of shape {tuple(inputs.shape)} are a batch of processes: make a GPField of each, of a model with inputs (N, n)."
        )
    points: Tensor = inputs.detach().to(torch.float64)
    return points


def _parts(
    gpytorch: ModuleType, model: ExactGP | ApproximateGP, points: Tensor
) -> tuple[Kernel, tuple[float, Tensor]]:
    """The kernel and the prior mean of a model, which it holds under the names that GPyTorch's own
    documentation gives them."""
    for name in ("covar_module", "mean_module"):
        if not isinstance(dict(model.named_children()).get(name), nn.Module):
            raise InputError(
                f"The model has no {name}, so that its kernel or mean cannot be read: call them covar_module and mean_module."
            )
    return (
        _kernel(gpytorch.kernels, model.covar_module, points.shape[1]),
        _mean(gpytorch.means, model.mean_module, points),
    )


def _kernel(kernels: ModuleType, module: GPyTorchKernel, features: int) -> Kernel:
    if len(module.batch_shape):
        raise InputError("The kernel is of a batch of processes: make a GPField of each.")
    kind = type(module)
    if kind is kernels.ScaleKernel:
        scaled = _kernel(kernels, module.base_kernel, features)
        return scaled * ConstantKernel(float(module.outputscale))
    if kind in (kernels.AdditiveKernel, kernels.ProductKernel):
        parts = tuple(_kernel(kernels, inner, features) for inner in module.kernels)
        return SumKernel(parts) if kind is kernels.AdditiveKernel else ProductKernel(parts)
    if kind is kernels.ConstantKernel:
        return ConstantKernel(float(module.constant))
    if kind is kernels.RBFKernel:
        return RBF(_lengthscale(module, features))
    if kind is kernels.MaternKernel:
        return Matern(float(module.nu), _lengthscale(module, features))
    if kind is kernels.RQKernel:
        return RationalQuadratic(float(module.alpha), _lengthscale(module, features))
    raise InputError(
        f"{kind.__name__} is neither read nor integrated here: RBF, Matérn 3/2 and 5/2, RQ and constant kernels are, scaled, added and multiplied."
    )


def _lengthscale(module: GPyTorchKernel, features: int) -> Tensor:
    """l (n,), infinite for features that the kernel does not look at."""
    lengths: Tensor = module.lengthscale.detach().to(torch.float64).reshape(-1)
    if module.active_dims is None:
        return lengths
    active = torch.full((features,), torch.inf, dtype=torch.float64)
    active[module.active_dims.cpu()] = lengths.cpu()
    return active


def _mean(means: ModuleType, module: Mean, points: Tensor) -> tuple[float, Tensor]:
    kind, flat = type(module), torch.zeros(points.shape[1]).to(points)
    if kind is means.ZeroMean:
        return 0.0, flat
    if kind is means.ConstantMean:
        return float(module.constant), flat
    if kind is means.LinearMean:
        bias = 0.0 if module.bias is None else float(module.bias)
        return bias, module.weights.detach().to(points).reshape(-1)
    raise InputError(f"{kind.__name__} is not read: zero, constant and linear means are.")


def _check(gpytorch: ModuleType, model: ExactGP | ApproximateGP, posterior: Posterior) -> None:
    """Whether what was read says what the model says, at its own points and between them: a model
    whose forward does more than its mean and its kernel does not."""
    points = posterior.points[:_SAMPLE]
    sample = torch.cat([points, points.roll(1, 0).lerp(points, 0.7)])
    like = next(iter(model.parameters()))
    with gpytorch.settings.fast_computations(False, False, False):
        said = model(sample.to(like))
    mean, variance, _, _ = posterior.moments(sample, slopes=False, variances=True)
    prior = posterior.kernel.at_zero(posterior.features)
    loose = _SAME if like.dtype == torch.float64 else 10 * _SAME
    off = (said.mean.to(mean) - mean).abs().max() / (mean.abs().max() + prior**0.5)
    spread = (said.variance.to(mean) - variance).abs().max() / prior
    if not (float(off) <= loose and float(spread) <= loose):
        raise InputError(
            f"The model says something else than its kernel and its mean (means differ by {float(off):.1g}, variances by {float(spread):.1g} of the "
            "prior's): its forward transforms inputs or outputs. Take the transformed data instead: GPField(X, y, kernel=…)."
        )
