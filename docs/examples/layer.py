import torch

import integrand as ig

torch.manual_seed(0)
nn = torch.nn
model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
x = torch.randn(8, 4)

layer = ig.explain(model, x, target=2, method="layer", site="1", baseline=x.mean(0))
flow = ig.explain(model, x, target=2, method="conductance", site="1", baseline=x.mean(0), steps=20)
print(layer.values.shape, flow.values.shape)  # (8, 16): a number for every unit of the layer
print(f"{float((layer.values - flow.values).abs().max()):.2g}")  # two ways through the layer's space

first, margin = ig.explain_targets(model, x, targets=[0, ig.targets.Margin(1, 2)], baseline=x.mean(0))
print(first.values.shape, margin.target)
