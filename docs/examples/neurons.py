"""Which units carry a region of the input, and what a unit looks at."""

import torch

import integrand as ig

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 8), torch.nn.Tanh(),
    torch.nn.Linear(8, 3),
)  # fmt: skip
x = torch.randn(5, 6)

region = torch.tensor([True, True, False, False, False, False])
units = ig.explain(model, x, target=2, method="region_neurons", site="1", region=region)
print(units.values.shape, units.notes["region"][0, 0], units.values.sum(1))

both = ig.explain(model, x, target=2, method="region_neurons", site=["1", "3"])
print([values.shape for values in both.values])

looks_at = ig.explain(model, x, target=ig.targets.Unit("1", 4))
print(looks_at.values[0])
