"""Which rule inside IG2's steps? Completeness, deletion and insertion of each, on the same descents.

    python -m benchmarks.ig2_rules FOLDER [--images 12] [--steps 50] [--references 2] [--fixed]

Every photograph is walked with steps that shrink when the distance would rise, and with ``--fixed`` also with steps of fixed length;
all rules integrate the same segments. References are other photographs of the folder that the model gives another class. Ranking is by the
signed channel sum (and by its magnitude, for insertion), corner colour as fill, 26 points. ``extra`` counts gradients per step that the
walk has not already paid for; ``sum/change`` is 1 for a complete map.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import integrand as ig
from integrand.images import load_model, pictures

from .curves import curve_areas

RULES = {
    "Right (published)": ig.rules.Right(),
    "Trapezoid": ig.rules.Trapezoid(),
    "Midpoint": ig.rules.Midpoint(),
    "Simpson": ig.rules.Simpson(),
    "Midpoint(2)": ig.rules.Midpoint(2),
    "GaussLegendre(2)": ig.rules.GaussLegendre(2),
    "Simpson(2)": ig.rules.Simpson(2),
    "Midpoint(4)": ig.rules.Midpoint(4),
}


@dataclass
class Line:
    """One rule on one kind of walk, over photographs."""

    name: str
    extra: int
    numbers: list[tuple[float, float, float, float]]


def walk_once(
    field: ig.TorchField, x: Tensor, references: Tensor, path: ig.paths.Descent
) -> dict[str, Tensor]:
    """Every rule's map (1, C, H, W) of one walk, and the change it should explain under the key ``change``."""
    maps = {name: torch.zeros_like(x) for name in RULES}
    change = torch.zeros(())
    with field.ready():
        for segment in path(field, references, x):
            assert segment.at_start is not None
            assert segment.at_end is not None
            change = change + (segment.at_end.value - segment.at_start.value).mean()
            slopes = slopes_at(field, segment)
            for name, rule in RULES.items():
                for node, weight in zip(*rule.table(), strict=True):
                    maps[name] += weight * (segment.step * slopes[node]).sum(0).mean(0)
    return {**maps, "change": change}


def slopes_at(field: ig.TorchField, segment: ig.Segment) -> dict[float, Tensor]:
    """Gradients (K, R, B, C, H, W) at every node that some rule uses, each evaluated once."""
    assert segment.at_start is not None
    assert segment.at_end is not None
    slopes = {0.0: segment.at_start.gradient, 1.0: segment.at_end.gradient}
    for node in sorted({node for rule in RULES.values() for node in rule.table()[0]} - set(slopes)):
        slopes[node] = field.gradient(torch.lerp(segment.start, segment.end, node), leading=3)
    return slopes


def measure(
    field: ig.TorchField, x: Tensor, references: Tensor, path: ig.paths.Descent, lines: list[Line]
) -> None:
    """Add one photograph's numbers to every line."""
    found = walk_once(field, x, references, path)
    blank = ig.baselines.Corners()(x, field)[0]
    signed = torch.cat([found[line.name] for line in lines])
    unsigned = signed.sum(1, keepdim=True).abs().expand_as(signed)
    deletion, insertion = curve_areas(field, x, torch.cat([signed, unsigned]), blank)
    for i, line in enumerate(lines):
        ratio = float(signed[i].sum() / found["change"])
        areas = float(deletion[i]), float(insertion[i]), float(insertion[len(lines) + i])
        line.numbers.append((ratio, *areas))


def table(title: str, lines: list[Line]) -> str:
    """Medians of sum/change, means of the areas."""
    rows = [
        title,
        f"  {'rule':20s} extra  sum/change (10-90 %)      deletion  insertion  insertion |.|",
    ]
    for line in lines:
        numbers = torch.tensor(line.numbers)
        low, middle, high = numbers[:, 0].quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
        means = numbers[:, 1:].mean(0).tolist()
        rows.append(
            f"  {line.name:20s} {line.extra:5d}  {middle:6.2f} ({low:.2f} to {high:.2f})".ljust(56)
            + "{:8.3f}  {:9.3f}  {:13.3f}".format(*means)
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--references", type=int, default=2)
    parser.add_argument("--fixed", action="store_true", help="also walk with steps of fixed length")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model("efficientnet-lite0")
    photographs = model.prepare(*pictures(arguments.folder))
    chosen = torch.linspace(0, len(photographs) - 1, arguments.images).long().tolist()
    every = {
        "steps of fixed length": (
            ig.paths.Descent(steps=arguments.steps, step=ig.paths.Fixed()),
            _lines(),
        ),
        "steps that shrink": (ig.paths.Descent(steps=arguments.steps), _lines()),
    }
    walks = (
        every
        if arguments.fixed
        else {k: v for k, v in every.items() if v[0].step == ig.paths.Shrinking()}
    )
    for done, i in enumerate(chosen):
        x, others = photographs[i : i + 1], photographs[torch.arange(len(photographs)) != i]
        target = ig.targets.Logit(int(model.module(x).argmax(1)))
        field = ig.TorchField(model.module, target, normalisation=model.normalisation)
        references = ig.baselines.OtherClass(others, arguments.references)(x, field)
        for path, lines in walks.values():
            measure(field, x, references, path, lines)
        print(f"{done + 1}/{len(chosen)} photographs", flush=True)
        for title, (_, lines) in walks.items():
            print(table(title, lines), flush=True)


def _lines() -> list[Line]:
    return [Line(name, sum(0 < t < 1 for t in rule.table()[0]), []) for name, rule in RULES.items()]


if __name__ == "__main__":
    main()
