"""Gradients until a map is within 10 % and 5 %: EfficientNet-Lite0 from black, photograph by photograph.

    python -m benchmarks.gradients_needed FOLDER [--images 50] [--out results.json]

Error is ‖map − reference‖ / ‖reference‖, the reference being 192 chords graded like t² (itself within about 0.5 %). Fixed rules climb a
ladder of counts until they are below 5 %, and are charged the first count from which on they stay below; "Adaptive" is charged
what it spends until it stops by itself, so its price includes knowing its error. One line per photograph is kept in the file
given, and a second run goes on from there. Prints medians and 95th percentiles.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import integrand as ig
from benchmarks.candidates import Graded
from benchmarks.problems import relative
from integrand.images import load_model, pictures

LADDERS: dict[str, tuple[Callable[[int], ig.rules.Rule], tuple[int, ...], int]] = {
    "GaussLegendre (Captum's rule)": (ig.rules.GaussLegendre, (20, 28, 40, 56, 80, 112, 160), 0),
    "Midpoint, graded t²": (Graded, (16, 22, 32, 45, 64, 90, 128), 0),
    "Chords, graded t²": (ig.rules.Chords, (8, 11, 13, 16, 19, 22, 26, 32, 45), 1),
}
TOLERANCES = (0.1, 0.05)


def climbed(errors: dict[int, float], tolerance: float) -> float:
    """The first count from which on errors stay below the tolerance."""
    found = float("inf")
    for count in sorted(errors, reverse=True):
        if errors[count] > tolerance:
            break
        found = count
    return found


def photograph(field: ig.TorchField, x: Tensor) -> dict[str, Any]:
    """Errors by count of every ladder, and what Adaptive spent, said and reached."""
    start = ig.baselines.black()

    def made(rule: ig.rules.Rule) -> ig.Attribution:
        return ig.Method(start, rule=rule)(field, x)

    reference = made(ig.rules.Chords(192)).values
    ladders: dict[str, dict[int, float]] = {}
    for name, (rule, counts, more) in LADDERS.items():
        errors = ladders[name] = {}
        for n in counts:
            errors[n + more] = float(relative(made(rule(n)).values, reference))
            if errors[n + more] < 0.9 * TOLERANCES[-1]:
                break
    adaptive = {}
    for tolerance in TOLERANCES:
        stopped = made(ig.rules.Adaptive(tolerance))
        adaptive[str(tolerance)] = {
            "gradients": stopped.cost.gradients,
            "error": float(relative(stopped.values, reference)),
            "estimate": float(stopped.error),
        }
    return {"ladders": ladders, "adaptive": adaptive}


def table(lines: list[dict[str, Any]]) -> str:
    """Medians and 95th percentiles over photographs, in the words of the README."""

    def spread(numbers: list[float]) -> str:
        ordered = torch.tensor(numbers, dtype=torch.float64).sort().values
        return f"{ordered[len(ordered) // 2]:.0f} ({ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]:.0f})"

    rows = ["| rule | gradients for 10 % | for 5 % |", "|---|---|---|"]
    for name in LADDERS:
        by_count = [{int(k): v for k, v in line["ladders"][name].items()} for line in lines]
        cells = [
            spread([climbed(errors, tolerance) for errors in by_count]) for tolerance in TOLERANCES
        ]
        rows.append(f"| {name} | {cells[0]} | {cells[1]} |")
    cells = [spread([line["adaptive"][str(t)]["gradients"] for line in lines]) for t in TOLERANCES]
    rows.append(f"| Adaptive, stopped by itself | {cells[0]} | {cells[1]} |")
    for tolerance in TOLERANCES:
        own = [line["adaptive"][str(tolerance)] for line in lines]
        below = sum(one["error"] <= one["estimate"] for one in own) / len(own)
        rows.append(
            f"\nAdaptive({tolerance}): true error {spread([100 * one['error'] for one in own])} %, below its estimate on {below:.0%} of "
            f"{len(own)} photographs."
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=None, help="one JSON line per photograph; a second run goes on"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
    net = load_model("efficientnet-lite0")
    paths = pictures(arguments.folder)
    chosen = [paths[int(i)] for i in torch.linspace(0, len(paths) - 1, arguments.images)]
    known: dict[str, Any] = {}
    if arguments.out and arguments.out.exists():
        known = {
            line["picture"]: line
            for line in map(json.loads, arguments.out.read_text().splitlines())
        }
    for path in chosen:
        if Path(path).name in known:
            continue
        x = net.prepare(path)
        with torch.no_grad():
            target = ig.targets.Logit(net.module(x).argmax(1))
        field = ig.TorchField(net.module, target, normalisation=net.normalisation)
        known[Path(path).name] = {"picture": Path(path).name, **photograph(field, x)}
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps(known[Path(path).name]) + "\n")
    print(table([known[Path(path).name] for path in chosen]))


if __name__ == "__main__":
    main()
