import torch

import integrand as ig

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
x = torch.randn(8, 4)

result = ig.explain(model, x, target="predicted", baseline=x.mean(0))
print(result.values)  # (8, 4): what each feature contributed to its class score
print(result.gap)  # (8,): how far each map misses the change it should explain
