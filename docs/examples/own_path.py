from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import integrand as ig


@dataclass(frozen=True)
class Detour:
    """To the input by way of a point of your own."""

    via: Tensor

    def __call__(self, field: ig.fields.Field, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        corners = torch.stack([start, self.via.expand_as(start), end.expand_as(start)])
        yield ig.segments.polyline(corners)


def compare() -> dict[str, ig.Attribution]:
    """The straight line and the detour, both accurate, from two weighted baselines."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    x = torch.randn(5, 3)
    made = {}
    for name, path in (("straight", ig.paths.Straight()), ("detour", Detour(torch.ones(3)))):
        method = ig.Method(
            ig.baselines.Union((ig.baselines.Constant(0.0), ig.baselines.Constant(-1.0))), path
        )
        made[name] = ig.explain(model, x, target=0, method=method)
    return made


if __name__ == "__main__":
    for name, result in compare().items():
        print(name, result.values.mean(0).tolist(), f"worst gap {float(result.gap.max()):.1e}")
