"""Metrics of one map, of several at once, of shards, and one of one's own: the snippets of docs/usage/metrics.md."""

from dataclasses import dataclass
from typing import ClassVar

import torch

import integrand as ig

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
inputs = torch.randn(16, 12)

result = ig.explain(model, inputs, target="predicted")
print(ig.metrics.deletion(model, inputs, result, target="predicted"))

other = ig.explain(model, inputs, target="predicted", method="guided", steps=100)
print(
    ig.metrics.insertion(
        model, inputs, {"integrated": result, "guided": other}, target="predicted", steps=10
    )
)

left, right = ig.metrics.Running("deletion"), ig.metrics.Running("deletion")
for running, part in ((left, slice(0, 8)), (right, slice(8, 16))):
    with ig.metrics.Subject.of(model, inputs[part], "predicted") as subject:
        running.update(subject, ig.metrics.Maps.of(result.values[part], subject.x, subject.layout))
print(left.merge(right).compute().summary)


@dataclass(frozen=True)
class TopShare(ig.metrics.Metric):
    """The share of a map's magnitude in its largest tenth."""

    higher: ClassVar[bool] = True

    def measure(self, subject, maps):
        size = maps.values.abs().flatten(2).sort(descending=True).values
        return size[..., : max(1, size.shape[-1] // 10)].sum(-1) / size.sum(-1)


print(ig.metrics.judge(model, inputs, result, TopShare(), target="predicted"))
