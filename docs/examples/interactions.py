"""Which features act together, and on whom."""

import torch

import integrand as ig

torch.manual_seed(0)
names = ["age", "dose", "weight", "site"]
x = torch.randn(400, 4)
y = x[:, 0] * x[:, 1] + x[:, 2]  # age and dose act together
model = torch.nn.Sequential(
    torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)
)  # fmt: skip
steps = torch.optim.Adam(model.parameters(), lr=0.02)
for _ in range(300):
    steps.zero_grad()
    (model(x)[:, 0] - y).square().mean().backward()
    steps.step()

pairs = ig.interactions(model, x[:20], target=0, feature_names=names)
print(pairs.values.shape, pairs.top(2))
print(pairs.pair("age", "dose")[0], pairs.main_effects[0])
print(float(pairs.gap.max()), float(pairs.error.max()))  # what is missed, and how wrong it may be

average = ig.interactions(model, x[:20], target=0, references=x[100:150], feature_names=names)
drawn = ig.interactions(model, x[:2], target=0, references=x, draws=16_000, feature_names=names)
print(average.top(1), drawn.error)

rows = ig.interactions(model, x[:20], target=0, of=["age"], feature_names=names)
groups = pairs.grouped({"patient": ["age", "weight"]})
print(rows.values.shape, groups.values.shape)

relu = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
smooth = ig.interactions(relu, x[:20], target=0, softplus=10, feature_names=names)
print(smooth)
