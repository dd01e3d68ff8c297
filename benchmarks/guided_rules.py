"""Which rule inside Guided IG's steps? Completeness, map error, deletion and insertion of each, on the same walks.

    python -m benchmarks.guided_rules FOLDER [--images 8] [--first 0] [--steps 50] [--stray 0.02] [--reference 8] [--json FILE]

The walk from black is the same for all rules, so the exact map is the integral along it; it is taken with ``--reference`` Gauss–Legendre
nodes in every step. ``error`` is ‖map − exact‖ / ‖exact‖ over all numbers of the map, ``squares`` the same after sums over squares of 8 × 8
pixels, which is what pages show. ``extra`` counts gradients that the walk has not already paid for. Ranking is by the signed channel sum,
corner colour as fill, 26 points. A run over a part of the photographs (``--first``, ``--images``) adds its numbers to ``--json FILE``, and
the table is of all that are in there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import integrand as ig
from integrand.images import load_model, pictures

from .curves import curve_areas

RULES = {
    "Left (published)": ig.rules.Left(),
    "Right": ig.rules.Right(),
    "Trapezoid": ig.rules.Trapezoid(),
    "Midpoint": ig.rules.Midpoint(),
    "Simpson": ig.rules.Simpson(),
    "GaussLegendre(2)": ig.rules.GaussLegendre(2),
}
COLUMNS = ("gap", "error", "squares", "deletion", "insertion")
Numbers = dict[str, list[float]]


def walked(
    field: ig.TorchField, x: Tensor, path: ig.paths.Guided, exact: ig.rules.GaussLegendre
) -> dict[str, Tensor]:
    """Every rule's map (1, C, H, W) of one walk from black, and the exact one under the key ``exact``."""
    rules = {**RULES, "exact": exact}
    maps = {name: torch.zeros_like(x) for name in rules}
    with field.ready():
        start = ig.baselines.black()(x, field)
        for segment in path(field, start, x):
            assert segment.at_start is not None
            slopes = {0.0: segment.at_start.gradient}
            if segment.at_end is not None:
                slopes[1.0] = segment.at_end.gradient
            nodes = {node for rule in rules.values() for node in rule.table()[0]} - set(slopes)
            for node in sorted(nodes):
                slopes[node] = field.gradient(
                    torch.lerp(segment.start, segment.end, node), leading=3
                )
            for name, rule in rules.items():
                for node, weight in zip(*rule.table(), strict=True):
                    maps[name] += weight * (segment.step * slopes[node]).sum(0).mean(0)
        change = field.value(x) - field.value(start[0])
    return {**maps, "change": change}


def measured(
    model: ig.images.ImageModel, x: Tensor, path: ig.paths.Guided, exact: ig.rules.GaussLegendre
) -> Numbers:
    """One photograph's numbers: rule → gap, error, error of squares, deletion, insertion."""
    field = ig.TorchField(
        model.module,
        ig.targets.Logit(int(model.module(x).argmax(1))),
        normalisation=model.normalisation,
    )
    found = walked(field, x, path, exact)
    change, true = found.pop("change"), found["exact"]
    blank = ig.baselines.Corners()(x, field)[0]
    deletion, insertion = curve_areas(field, x, torch.cat(list(found.values())), blank)
    made = {}
    for place, (name, values) in enumerate(found.items()):
        gap = float((change - values.sum()).abs() / change.abs())
        errors = [
            float((one(values) - one(true)).norm() / one(true).norm())
            for one in (torch.clone, _squares)
        ]
        made[name] = [gap, *errors, float(deletion[place]), float(insertion[place])]
    return made


def _squares(values: Tensor) -> Tensor:
    return avg_pool2d(values.sum(1, keepdim=True), 8)


def table(photographs: list[Numbers], steps: int) -> str:
    """Medians with the worst in brackets; means of the areas."""
    unpaid = {"Left (published)": 0, "Right": 1, "Trapezoid": 1}
    rows = [
        "| rule | extra gradients | gap, median (worst) | error of the map | … of 8 × 8 squares | deletion ↓ | insertion ↑ |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in photographs[0]:
        numbers = torch.tensor([one[name] for one in photographs])
        middle, worst, mean = (
            numbers.quantile(0.5, 0).tolist(),
            numbers.max(0).values.tolist(),
            numbers.mean(0).tolist(),
        )
        rule = RULES.get(name)
        inside = 0 if rule is None else sum(0 < node < 1 for node in rule.table()[0]) * steps
        ends = unpaid.get(name, int(rule is not None and 1.0 in rule.table()[0]))
        extra = "" if rule is None else str(inside + ends)
        parts = [
            f"{100 * m:.1f} % ({100 * w:.0f} %)" for m, w in zip(middle[:3], worst[:3], strict=True)
        ]
        rows.append(f"| {name} | {extra} | {' | '.join(parts)} | {mean[3]:.4f} | {mean[4]:.4f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--images", type=int, default=8, help="how many photographs, evenly spaced over the folder"
    )
    parser.add_argument("--first", type=int, default=0, help="of those, where to begin")
    parser.add_argument("--last", type=int, help="of those, where to stop")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--stray", type=float, default=0.02)
    parser.add_argument(
        "--reference", type=int, default=8, help="nodes of the exact map in every step"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = load_model("efficientnet-lite0")
    model.module.requires_grad_(False)
    files = pictures(asked.folder)
    files = [files[i * len(files) // asked.images] for i in range(asked.images)][
        asked.first : asked.last
    ]
    path = ig.paths.Guided(asked.steps, stray=asked.stray)
    known = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else {}
    for file in files:
        known[str(file)] = measured(
            model, model.prepare(file), path, ig.rules.GaussLegendre(asked.reference)
        )
        print(
            f"{file}: {', '.join(f'{name} {100 * n[0]:.1f} %' for name, n in known[str(file)].items())}",
            flush=True,
        )
        if asked.json:
            asked.json.write_text(json.dumps(known))
    print(table(list(known.values()), asked.steps))


if __name__ == "__main__":
    main()
