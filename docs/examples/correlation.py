import torch

import integrand as ig

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
x = torch.randn(500, 6)
with torch.no_grad():
    y = model(x)[:, 0] + 0.3 * torch.randn(500)
batches = list(zip(x.split(64), y.split(64), strict=True))

result = ig.correlate(model, batches, target=0, tol=0.01)
print(result.values, result.standard_error)
print(f"r = {float(result.total):.3f}, maps miss {float(result.residual):.1g} of it")
print(result.grouped({"first": [0, 1], "second": [2, 3]}).values)  # and the rest

shapley = ig.correlate(model, batches, target=0, method="baseline_shapley")
print(shapley.values, float(shapley.residual))

maps = ig.concat([ig.explain(model, part, target=0) for part in x.split(64)])
print(len(maps), maps.cost.gradients)

ranked = ig.summarize(model, x.split(64), target=0, groups={"first": [0, 1]})
print(ranked.to_pandas())
