"""Weighted Gradients, six baselines × 25 nodes on EfficientNet-Lite0: what the fitness costs, and against the published search.

    python -m benchmarks.fitness [--threads 1] [--repeats 5]

The other way is the same 150 gradients by the same engine, followed by the search of the authors' released code, written here from a
description of it: for every baseline a bisection over the number of pixels, one image per model call, until the class
probability is within 0.005 of half of what it was, or 100 calls. Its images and probabilities are those of this library (the released code
scores images that were not normalised). Where the curve jumps over the goal by more than 0.005, the search runs into its 100 calls.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import integrand as ig
from integrand.vision import load_model, samples

from .side_by_side import Row, arguments, interleaved, ratio, seconds, tell

NODES = 25
MOST_CALLS, TOLERANCE = 100, 0.005
PHOTOGRAPHS = 8


def published_search(net: nn.Module, x: Tensor, share: Tensor, blank: Tensor, target: int) -> tuple[int, int]:
    """D of one map (1, C, H, W) as the released code finds it, and the model calls that took."""
    order = share.sum(1).flatten().argsort()
    pixels = len(order)

    def score(count: int) -> float:
        gone = torch.zeros(pixels, dtype=torch.bool)
        gone[order[pixels - count :]] = True
        with torch.no_grad():
            return float(net(torch.where(gone.reshape(x.shape[2:]), blank, x)).softmax(1)[0, target])

    goal = score(0) / 2
    low, high, middle, calls = 0, pixels, 0, 1
    while high > low and calls <= MOST_CALLS:
        middle = (low + high) // 2
        found = score(middle)
        calls += 1
        if abs(found - goal) < TOLERANCE:
            break
        low, high = (middle, high) if found > goal else (low, middle)
    return middle, calls


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    model = load_model("efficientnet-lite0")
    net = model.module.eval().requires_grad_(False)
    names = list(samples())[:PHOTOGRAPHS]
    photographs = model.prepare(*[f"sample:{name}" for name in names])
    turn = iter([i % len(photographs) for i in range(1000)])
    calls: list[int] = []
    gradients = 0.0
    shares_of_fitness: list[float] = []
    current = {}

    def given() -> tuple[Tensor, int, list[object]]:
        x = photographs[current["i"]][None]
        other = photographs[(current["i"] + 1) % len(photographs)][None]
        baselines = ["black", "white", "grey", ig.baselines.Uniform(), ig.baselines.Uniform(seed=1), ig.baselines.Given(other)]
        return x, int(net(x).argmax()), baselines

    def weighted() -> None:
        current["i"] = next(turn)
        x, target, baselines = given()
        rule = ig.rules.GaussLegendre(NODES)
        ig.explain(net, x, target=target, method="weighted", baseline=baselines, rule=rule, normalisation=model.normalisation)

    def same_gradients() -> Tensor:
        x, target, baselines = given()
        rule = ig.rules.GaussLegendre(NODES)
        made = ig.explain(net, x, target=target, method="expected", baseline=baselines, rule=rule, record=("shares",), normalisation=model.normalisation)
        assert made.shares is not None
        return made.shares

    def published() -> None:
        x, target, _ = given()
        blank = ig.baselines.Corners()(x, ig.TorchField(net, target))[0]
        calls.append(sum(published_search(net, x, share, blank, target)[1] for share in same_gradients()))

    times = interleaved({"weighted": weighted, "gradients": same_gradients, "published": published}, repeats)
    _, (low, high) = ratio(times, "gradients", "weighted")
    share = 100 * (1 - ratio(times, "gradients", "weighted")[0])
    del gradients, shares_of_fitness
    many = torch.tensor(calls[1:], dtype=torch.float64)
    note = f"{seconds(times)}; the published search made {many.median():.0f} calls ({many.min():.0f} to {many.max():.0f}) for six baselines"
    return [
        Row("Weighted Gradients, six baselines × 25 nodes: the fitness' part of the time", share, (100 * (1 - high), 100 * (1 - low)), 25, unit=" %", note=note),
        Row("how much faster than the same gradients and the published search", *ratio(times, "published", "weighted"), 2.5, more=True),
    ]


def main() -> None:
    found = arguments(__doc__, 5)
    tell(rows(found.repeats))


if __name__ == "__main__":
    main()
