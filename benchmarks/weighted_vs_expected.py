"""Does weighing baselines pay? Expected Gradients against Weighted Gradients on photographs, same maps, same gradients.

    python -m benchmarks.weighted_vs_expected FOLDER [--images N] [--nodes 25] [--out results.json]

For every photograph in FOLDER (class = predicted), six baselines (black, white, grey, two uniform noises, the next photograph) are
integrated by the same rule on EfficientNet-Lite0's logit. Expected Gradients is the plain mean of the six maps, Weighted Gradients
their weighted sum, so every difference between the two is the weights'. Judged by deletion (lower is better) and insertion
(higher is better): 26 points of softmax probability, pixels ranked by signed channel sum, corner colour as fill. Also shown: the
single baseline of smallest D. Intervals are 95 % bootstraps of the mean paired difference over photographs.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import integrand as ig
from integrand.compare.statistics import Inference, interval
from integrand.images import load_model, pictures

from .curves import curve_areas

METHODS = ("expected", "weighted", "best single")
PERCENTILE = Inference(bootstrap="percentile")


@dataclass(frozen=True)
class Row:
    """One photograph: areas per method, and what the weights were."""

    name: str
    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    fitness: tuple[int, ...]
    weights: tuple[float, ...]
    reason: str | None
    gap: float


def measure(field: ig.TorchField, name: str, x: Tensor, other: Tensor, nodes: int) -> Row:
    """Areas for one photograph x (1, C, H, W), the other photograph being one of the baselines."""
    baselines = [
        "black",
        "white",
        "grey",
        ig.baselines.Uniform(),
        ig.baselines.Uniform(seed=1),
        ig.baselines.Given(other),
    ]
    made = ig.methods.weighted(baselines, rule=ig.rules.GaussLegendre(nodes))(field, x)
    assert made.shares is not None
    assert made.fitness is not None
    best = int(made.fitness[:, 0].argmin())
    maps = torch.cat([made.shares.mean(0), made.values, made.shares[best]])
    blank = ig.baselines.Corners()(x, field)[0]
    deletion, insertion = curve_areas(field, x, maps, blank)
    return Row(
        name,
        tuple(deletion.tolist()),
        tuple(insertion.tolist()),
        tuple(made.fitness[:, 0].tolist()),
        tuple(made.weights[:, 0].tolist()),
        made.reasons[0],
        float(made.gap[0]),
    )


def summary(rows: list[Row]) -> str:
    """The table."""
    lines = [
        f"{len(rows)} photographs, six baselines; areas under 26-point curves of the class probability",
        "",
    ]
    for title, better, areas in (
        ("deletion (lower is better)", -1, torch.tensor([r.deletion for r in rows])),
        ("insertion (higher is better)", 1, torch.tensor([r.insertion for r in rows])),
    ):
        lines.append(title)
        lines += [
            f"  {m:12s} mean {a.mean():.4f}  median {a.median():.4f}"
            for m, a in zip(METHODS, areas.T, strict=True)
        ]
        for other in (1, 2):
            difference = areas[:, other] - areas[:, 0]
            low, high = interval(difference.numpy(), PERCENTILE)
            wins = (better * difference > 0).float().mean()
            relative = difference.mean() / areas[:, 0].mean()
            lines.append(
                f"  {METHODS[other]} − expected: {difference.mean():+.4f} [{low:+.4f}, {high:+.4f}] ({relative:+.1%}); "
                f"better on {wins:.0%} of the photographs"
            )
        lines.append("")
    flagged = [r for r in rows if r.reason]
    weights = torch.tensor([r.weights for r in rows])
    lines.append(
        f"largest weight: median {weights.amax(1).median():.2f}; fitness said nothing on {len(flagged)} photographs"
    )
    lines += [f"  {r.name}: {r.reason}" for r in flagged]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--nodes", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model("efficientnet-lite0")
    paths = pictures(arguments.folder)[: arguments.images]
    photographs = model.prepare(*paths)
    rows: list[Row] = []
    began = time.perf_counter()
    for i, path in enumerate(paths):
        x, other = photographs[i : i + 1], photographs[(i + 1) % len(paths)][None]
        target = ig.targets.Logit(int(model.module(x).argmax(1)))
        field = ig.TorchField(model.module, target, normalisation=model.normalisation)
        rows.append(measure(field, Path(path).name, x, other, arguments.nodes))
        print(
            f"\r{i + 1}/{len(paths)} after {time.perf_counter() - began:.0f} s", end="", flush=True
        )
        if arguments.out:
            arguments.out.write_text(json.dumps([row.__dict__ for row in rows], indent=1))
    print("\n" + summary(rows))


if __name__ == "__main__":
    main()
