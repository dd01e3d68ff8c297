"""Weighted Gradients, six baselines × 25 nodes on EfficientNet-Lite0: what the fitness costs, and against the published search.

    python -m benchmarks.fitness [--threads 1] [--repeats 5]

The other way is the same 150 gradients by the same engine, followed by the search of the authors' released code, written here from a
description of it: for every baseline a bisection over the number of pixels, one image per model call, until the class
probability is within 0.005 of half of what it was, or 100 calls. Its images and probabilities are those of this library (the released code
scores images that were not normalised). Where the curve jumps over the goal by more than 0.005 it makes all 100 calls; the third line is what
it would cost if it always did.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import integrand as ig
from integrand.images import load_model, samples

from .side_by_side import Row, arguments, interleaved, ratio, seconds, tell

NODES = 25
MOST_CALLS, TOLERANCE = 100, 0.005
PHOTOGRAPHS = 8


def published_search(
    net: nn.Module, x: Tensor, share: Tensor, blank: Tensor, target: int, tolerance: float
) -> int:
    """The search for D of one map (1, C, H, W) as the released code makes it; returns the model calls that took."""
    order = share.sum(1).flatten().argsort()
    pixels = len(order)

    def score(count: int) -> float:
        gone = torch.zeros(pixels, dtype=torch.bool)
        gone[order[pixels - count :]] = True
        with torch.no_grad():
            return float(
                net(torch.where(gone.reshape(x.shape[2:]), blank, x)).softmax(1)[0, target]
            )

    goal = score(0) / 2
    low, high, calls = 0, pixels, 0
    while high > low and calls < MOST_CALLS:
        middle = (low + high) // 2
        found = score(middle)
        calls += 1
        if abs(found - goal) < tolerance:
            break
        low, high = (middle, high) if found > goal else (low, middle)
    return calls + 1


class Desk:
    """The photographs, one after the other, and the ways of explaining the one in hand."""

    def __init__(self) -> None:
        self.model = load_model("efficientnet-lite0")
        self.net = self.model.module.eval().requires_grad_(False)
        self.photographs = self.model.prepare(
            *[f"sample:{name}" for name in list(samples())[:PHOTOGRAPHS]]
        )
        self.targets = self.net(self.photographs).argmax(1).tolist()
        self.number = -1
        self.calls: list[int] = []

    def explain(self, method: str, **options: Any) -> ig.Attribution:
        """The photograph in hand, from six baselines by 25 nodes each."""
        i = self.number % len(self.photographs)
        other = self.photographs[(i + 1) % len(self.photographs)]
        noises = [ig.baselines.Uniform(), ig.baselines.Uniform(seed=1)]
        return ig.explain(
            self.net,
            self.photographs[i : i + 1],
            target=self.targets[i],
            method=method,
            baseline=["black", "white", "grey", *noises, ig.baselines.Given(other[None])],
            rule=ig.rules.GaussLegendre(NODES),
            normalisation=self.model.normalisation,
            **options,
        )

    def weighted(self) -> None:
        self.number += 1  # the first of the ways; the others take the same photograph
        self.explain("weighted")

    def optimized(self) -> None:
        self.explain("weighted", optimize=True)

    def gradients(self) -> ig.Attribution:
        return self.explain("expected", record=("shares",))

    def published(self, tolerance: float = TOLERANCE) -> None:
        made = self.gradients()
        assert made.shares is not None
        field = ig.TorchField(self.net, 0)
        blank = ig.baselines.Corners()(made.inputs, field)[0]
        target = self.targets[self.number % len(self.photographs)]
        calls = [
            published_search(self.net, made.inputs, share, blank, target, tolerance)
            for share in made.shares
        ]
        if tolerance:
            self.calls.append(sum(calls))


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    desk = Desk()
    ways = {
        "weighted": desk.weighted,
        "gradients alone": desk.gradients,
        "published": desk.published,
        "published, all calls": lambda: desk.published(0.0),
        "optimized": desk.optimized,
    }
    times = interleaved(ways, repeats)
    # A part of the time: one minus what the gradients alone take.
    part, (low, high) = ratio(times, "gradients alone", "weighted")
    fitness = 100 * (1 - part), (100 * (1 - high), 100 * (1 - low))
    calls = torch.tensor(desk.calls[1:], dtype=torch.float64)
    note = f"the published search made {calls.median():.0f} calls ({calls.min():.0f} to {calls.max():.0f}) for six baselines"
    return [
        Row(
            "Weighted Gradients, six baselines × 25 nodes, EfficientNet-Lite0: the fitness' part of the time",
            *fitness,
            25,
            unit=" %",
            note=seconds(times),
        ),
        Row(
            "Weighted Gradients, how much faster than the same gradients and the published search",
            *ratio(times, "published", "weighted"),
            2.5,
            more=True,
            note=note,
        ),
        Row(
            "the same, if the published search made its 100 calls for every baseline",
            *ratio(times, "published, all calls", "weighted"),
        ),
        Row(
            "the same, with optimize=True here", *ratio(times, "published, all calls", "optimized")
        ),
    ]


def main() -> None:
    found = arguments(__doc__, 5)
    tell(rows(found.repeats))


if __name__ == "__main__":
    main()
