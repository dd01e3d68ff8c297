"""Is the true error below the one that is stated? ``Adaptive`` on more than 500 rows that it was not tuned on.

    python -m benchmarks.calibration [--examples 100]

The networks of ``benchmarks.problems`` with another seed (other weights, other data), and sentences of MiniLM where that is installed.
Each row is explained alone at 10 %, 5 % and 2 %.
"""

from __future__ import annotations

import argparse
import itertools
import warnings

import torch

import integrand as ig
from benchmarks.problems import sentences, small
from benchmarks.work_precision import spread, stopped

SEED = 1
TOLERANCES = (0.1, 0.05, 0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100, help="of each network")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
    print("| network | rows | tol | gradients | true error, median / worst | below its estimate | below tol |")
    print("|---|---|---|---|---|---|---|")
    below: dict[float, list[bool]] = {tolerance: [] for tolerance in TOLERANCES}
    for p in itertools.chain(small(arguments.examples, SEED), sentences(min(24, arguments.examples))):
        reference = ig.Method(p.start, rule=p.truth)(p.field, p.x).values
        for tolerance in TOLERANCES:
            spent, true, estimate = stopped(p, reference, tolerance)
            held = true <= estimate
            below[tolerance] += held.tolist()
            print(
                f"| {p.name} | {len(p.x)} | {tolerance} | {spread(spent)} | {true.median():.4f} / {true.max():.4f} | "
                f"{held.double().mean():.0%} | {(true <= tolerance).double().mean():.0%} |",
                flush=True,
            )
    for tolerance, held in below.items():
        print(
            f"\nAll {len(held)} rows at {tolerance}: the true error is below the estimate on {sum(held) / len(held):.1%}."
        )


if __name__ == "__main__":
    main()
