"""Is the true error below the one that is stated? The default rule on networks that it was not tuned on.

    python -m benchmarks.calibration [--seeds 1] [--rows 6] [--trained 0]

Small networks of 20 families with random weights (``benchmarks.honesty``: narrow ones whose ReLUs are dead or saturated, recurrent,
normalised and convolutional ones, attention), logits and probabilities, by four methods. Of every method the truth is the same method along
the same path with many nodes. ``--trained n`` adds the trained networks of ``benchmarks.problems`` and sentences of MiniLM, n rows each.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import warnings
from typing import Any

import torch

import integrand as ig
from benchmarks.honesty import FAMILIES, Honesty, drawn, generated, relative
from benchmarks.problems import sentences, small
from benchmarks.work_precision import spread, stopped

SEED = 1
TOLERANCES = (0.1, 0.05, 0.02)
ASKED: dict[str, tuple[str, float, dict[str, Any], Any]] = {
    "integrated, logit": ("integrated", 0.05, {}, ig.rules.Midpoint(2000)),
    "integrated, logit, tol 0.01": ("integrated", 0.01, {}, ig.rules.Midpoint(2000)),
    "integrated, probability": (
        "integrated",
        0.05,
        {"target": ig.targets.Probability},
        ig.rules.Midpoint(2000),
    ),
    "weighted": ("weighted", 0.05, {"references": 3, "fill": 0.0}, ig.rules.Midpoint(1000)),
    "guided": ("guided", 0.05, {"steps": 8}, ig.rules.Simpson(60)),
    "ig2": (
        "ig2",
        0.05,
        {"references": 2, "steps": 4, "rate": ig.paths.Relative(0.1)},
        ig.rules.Simpson(60),
    ),
}
"""What is asked: the method, its tolerance, its options, and the rule whose map is taken for the truth."""


def measured(name: str, family: str, seed: int, rows: int) -> list[Honesty]:
    """One way of asking, on one random network."""
    method, tol, options, fine = ASKED[name]
    options = dict(options)
    make, shape = FAMILIES[family]
    net = drawn(make, 100 + seed)
    x = generated(2000 + seed, rows, *shape, scale=1.5)
    classes = net(x).argmax(1)
    target = options.pop("target", ig.targets.Logit)(classes)
    if many := options.pop("references", 0):
        options["baseline"] = 0.5 * generated(3000 + seed, many, *shape)
    ask = dict(target=target, method=method, **options)
    made, exact = (ig.explain(net, x, **ask, **how) for how in ({"tol": tol}, {"rule": fine}))
    truth = exact.values
    if method == "weighted":  # with the weights that were found
        exact = ig.Method(ig.baselines.Given(made.baselines), rule=fine, record=("shares",))(
            ig.TorchField(net, target), x
        )
        truth = torch.einsum("rb,rb...->b...", made.weights, exact.shares)
    return [
        Honesty(
            name, family, float(made.error[i]), relative(made.values[i], truth[i]), bool(made.converged[i]),
            made.cost.gradients / rows,
        )
        for i in range(rows)
    ]  # fmt: skip


def table(seeds: int, rows: int) -> None:
    print(
        "| asked (tol 0.05) | maps | converged | NaN | converged, true > tol | > 2 tol | worst of them | true > estimate | gradients a map |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (_, tol, _, _) in ASKED.items():
        found = [
            one
            for family in FAMILIES
            for seed in range(seeds)
            for one in measured(name, family, seed, rows)
        ]
        bad = [one for one in found if one.dishonest(tol)]
        above = sum(not one.true <= one.claimed + 1e-9 for one in found)
        print(
            f"| {name} | {len(found)} | {sum(one.converged for one in found)} | {sum(math.isnan(one.claimed) for one in found)} | "
            f"{len(bad)} = {len(bad) / len(found):.1%} | {sum(one.true > 2 * tol for one in bad)} | "
            f"{max((one.true for one in bad), default=0):.3f} | {above} = {above / len(found):.1%} | "
            f"{sum(one.gradients for one in found) / len(found):.0f} |",
            flush=True,
        )


def trained(examples: int) -> None:
    """Networks of ``benchmarks.problems`` with another seed, each row explained alone."""
    print(
        "\n| network | rows | tol | gradients | true error, median / worst | below its estimate | below tol |"
    )
    print("|---|---|---|---|---|---|---|")
    for p in itertools.chain(small(examples, SEED), sentences(min(24, examples))):
        reference = ig.Method(p.start, rule=p.truth)(p.field, p.x).values
        for tolerance in TOLERANCES:
            spent, true, estimate = stopped(p, reference, tolerance)
            print(
                f"| {p.name} | {len(p.x)} | {tolerance} | {spread(spent)} | {true.median():.4f} / {true.max():.4f} | "
                f"{(true <= estimate).double().mean():.0%} | {(true <= tolerance).double().mean():.0%} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="random networks of each family")
    parser.add_argument("--rows", type=int, default=6, help="maps of each network")
    parser.add_argument("--trained", type=int, default=0, help="rows of each trained network")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
    began = time.perf_counter()
    table(arguments.seeds, arguments.rows)
    if arguments.trained:
        trained(arguments.trained)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
