"""Attributions of a Gaussian process, with what is not known of them."""

import torch

import integrand as ig

stream = torch.Generator().manual_seed(0)
X = torch.randn(60, 3, generator=stream)
y = X[:, 0] + torch.sin(2 * X[:, 1]) + 0.1 * torch.randn(60, generator=stream)

field = ig.fields.GPField(X, y, lengthscale=[2.0, 1.0, 3.0], variance=2.0, noise=0.01)
result = ig.explain(field, X[:4], method="gaussian_process", baseline=X.mean(0))
low, high = result.interval(0.95)
print(result.values[0], low[0], high[0])

rough = ig.fields.kernels.Matern(2.5, 1.5) + ig.fields.kernels.RBF(3.0)
other = ig.fields.GPField(X, y, kernel=rough, noise=0.01, standardise=True)
print(ig.explain(other, X[:4], method="gaussian_process").covariance.shape)

rate = ig.explain(field.through("exp"), X[:4], baseline=X.mean(0))
print(rate.values.sum(1), rate.output - rate.base)
