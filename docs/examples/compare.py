"""Which of four methods suits a model: the same examples, the same number of gradients, two metrics."""

import torch

import integrand as ig

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
inputs = torch.randn(40, 12)

result = ig.compare(
    model,
    inputs,
    target="predicted",
    methods=["integrated", "guided", "idgi", "expected"],
    metrics=["deletion", ig.metrics.Insertion(score="output")],
    references=torch.randn(100, 12),
    gradients=30,
)
print(result)
print(result.winner("deletion"))
