"""Several baselines, weighed by what removing and restoring their first pixels does: the snippet of docs/usage/weightings.md."""

import torch

import integrand as ig

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, padding=1),
    torch.nn.SiLU(),
    torch.nn.AdaptiveAvgPool2d(2),
    torch.nn.Flatten(),
    torch.nn.Linear(32, 3),
)
inputs = torch.rand(2, 3, 16, 16)
baselines = ig.baselines.Given(torch.rand(4, 3, 16, 16))

method = ig.Method(
    baselines,
    rule=ig.rules.GaussLegendre(12),
    weighting=ig.weightings.Areas([ig.baselines.Constant(0.0), ig.baselines.Blurred()]),
)
result = ig.explain(model, inputs, target="predicted", method=method)
print(result.weights[:, 0], result.fitness[:, 0])  # of each baseline, for the first picture
print(result.criterion)  # what the fitness counts
