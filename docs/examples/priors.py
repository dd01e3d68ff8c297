"""A model that may not use one of its columns, because the column will not be there tomorrow."""

import torch

import integrand as ig

# What decides between two classes. The logit of one alone could be kept free of a column that the
# other uses.
LEAD = ig.targets.Margin(1, 0)


def columns(n, seed, honest=True):
    """Four weak signs of the class, and a column that says the class in the training data only."""
    stream = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=stream)
    signs = (2 * y - 1)[:, None] + 1.5 * torch.randn(n, 4, generator=stream)
    leak = y if honest else torch.randint(2, (n,), generator=stream)
    leak = 2.0 * leak - 1 + 0.3 * torch.randn(n, generator=stream)
    return torch.cat([signs, leak[:, None]], 1), y


def trained(prior, seed=0):
    x, y = columns(600, seed=1)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    steps = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(60):
        rows = torch.randperm(len(x))[:128]
        loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
        if prior:
            maps = ig.explain(
                model, x[rows], target=LEAD, method="expected", baseline=x, draws=2, seed=step,
                create_graph=True,
            )  # fmt: skip
            loss = loss + prior * maps.values[:, 4].abs().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
    return model


def on_the_leak(model, x):
    """How much of the maps lies on the last column."""
    size = ig.explain(model, x, target=LEAD, baseline=x.mean(0)).values.abs()
    return float(size[:, 4].sum() / size.sum())


def accuracy(model, x, y):
    return float((model(x).argmax(1) == y).float().mean())


broken, labels = columns(2000, seed=2, honest=False)
results = {}
for prior in (0.0, 1.0):
    model = trained(prior)
    results[prior] = on_the_leak(model, broken[:50]), accuracy(model, broken, labels)
    print(f"prior {prior}: {results[prior][0]:.0%} of the maps on the leak, "
          f"accuracy without it {results[prior][1]:.0%}")  # fmt: skip
