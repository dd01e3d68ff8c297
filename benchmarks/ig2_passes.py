"""IG2 on EfficientNet-Lite0, 8 references: one forward pass serves two gradients, against two separate passes per step.

    python -m benchmarks.ig2_passes [--threads 1] [--repeats 5] [--steps 10]

Every step of the descent needs the gradient of the representation distance, which finds the way, and the gradient of the class, which is
integrated. The published run takes 201 steps; the time per step does not depend on their number, so fewer are timed here, and their number
is in the table. The other way is written by hand, with the best of several call sizes and the same steps. With b the time of a backward
pass in forward passes, the ratio cannot be under (1 + 2b) / (2 + 2b).
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import integrand as ig
from integrand.images import load_model, samples

from .side_by_side import Row, begin, interleaved, ratio, seconds, tell

REFERENCES = 8
RATE = 0.5
CHUNKS = (2, 4, 8)  # rows per call of the other way; the best is taken


class Apart:
    """The published loop: a forward and a backward pass for the distance, and again for the class."""

    def __init__(self, net: nn.Module, target: int, rows: int) -> None:
        self.net, self.target, self.rows = net, target, rows
        self.layer = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]

    def represented(self, z: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        self.net(z)
        hook.remove()
        return seen[0]

    def __call__(self, x: Tensor, references: Tensor, steps: int) -> Tensor:
        with torch.no_grad():
            goal = torch.cat([self.represented(part) for part in references.split(self.rows)])
        here = x.expand_as(references)
        total = torch.zeros_like(references)
        for _ in range(steps):
            way, slope = torch.empty_like(here), torch.empty_like(here)
            for first in range(0, len(here), self.rows):
                part = slice(first, first + self.rows)
                rows = here[part].detach().clone().requires_grad_()
                distance = (self.represented(rows) - goal[part]).square().sum()
                (way[part],) = torch.autograd.grad(distance, rows)
                rows = here[part].detach().clone().requires_grad_()
                (slope[part],) = torch.autograd.grad(self.net(rows)[:, self.target].sum(), rows)
            there = here - RATE * way / way.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
            total += (here - there) * slope
            here = there
        return total.mean(0, keepdim=True)


def rows(repeats: int, steps: int = 10) -> list[Row]:
    """The line of the table."""
    model = load_model("efficientnet-lite0")
    net = model.module.eval().requires_grad_(False)
    photographs = model.prepare(*[f"sample:{name}" for name in list(samples())[: REFERENCES + 1]])
    x, references = photographs[:1], photographs[1:]
    target = int(net(x).argmax())
    field = ig.TorchField(net, target)
    method = ig.methods.ig2(references, steps=steps, rate=RATE, clip=(-100.0, 100.0))
    sizes = interleaved(
        {str(n): lambda n=n: Apart(net, target, n)(x, references, 2) for n in CHUNKS}, 2
    )
    apart = Apart(net, target, int(min(sizes, key=lambda size: min(sizes[size]))))
    fast = ig.TorchField(net, target, optimize=True)
    # Two steps, for descents of one network in other roundings part ways.
    found = ig.methods.ig2(references, steps=2, rate=RATE, clip=(-100.0, 100.0))(field, x).values
    by_hand = apart(x, references, 2)
    difference = float((found - by_hand).norm() / by_hand.norm())
    assert difference < 1e-2, f"the two walk differently: {difference}"
    # Integrand also looks at where the walk ends: steps + 1 points, so the other way is given one more.
    ways = {
        "integrand": lambda: method(field, x),
        "optimized": lambda: method(fast, x),
        "two passes": lambda: apart(x, references, steps + 1),
    }
    times = interleaved(ways, repeats)
    line = f"IG2, {steps} of 201 steps × {REFERENCES} references, EfficientNet-Lite0: to two separate passes per point"
    note = f"{seconds(times)}; by hand {apart.rows} rows per call; maps of two steps differ by {difference:.0e}"
    return [
        Row(line, *ratio(times, "integrand", "two passes"), 0.8, note=note),
        Row("the same with optimize=True", *ratio(times, "optimized", "two passes")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    asked = parser.parse_args()
    begin(asked.threads)
    tell(rows(asked.repeats, asked.steps))


if __name__ == "__main__":
    main()
