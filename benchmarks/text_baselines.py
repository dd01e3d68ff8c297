"""Does the baseline move an explanation of a text more than the method does? MiniLM on TREC questions.

    python -m benchmarks.text_baselines --data FOLDER [--examples 200] [--threads 1]

Of each question maps of its tokens are made by one method (Integrated Gradients) from four baselines (padding, [MASK], the mean vector, zero), and by
four methods (Integrated, Discretized, Sequential and Guided Integrated Gradients) from one (padding). Alike are two maps by Spearman's correlation of
their tokens, special ones and padding left out. What is told is how alike maps are, over the six pairs of either kind, and the difference

    d = alike(methods) - alike(baselines)        > 0: the baseline moves the map more

with its 95 % interval over questions (studentised bootstrap, ``integrand.compare.statistics``). Questions of fewer than four tokens are passed over.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import integrand as ig
from integrand.bench.problems import ProblemOptions, problem_named
from integrand.compare.statistics import paired

from .side_by_side import versions

NODES, LEAST = 8, 4


def methods_of(words: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Integrated Gradients from several baselines, and several methods from one."""
    rule = ig.rules.GaussLegendre(NODES)
    start = words["padding"]
    baselines = {
        name: ig.methods.integrated(words[name], rule=rule)
        for name in ("padding", "masked", "mean", "zero")
    }
    methods = {
        "integrated": baselines["padding"],
        "discretized": ig.methods.discretized(
            words["vectors"], start, neighbours=words["neighbours"], steps=10
        ),
        "sequential": ig.methods.sequential(
            "integrated", baseline=start, rule=ig.rules.GaussLegendre(4)
        ),
        "guided": ig.methods.guided(start, steps=16),
    }
    return baselines, methods


def alike(maps: Sequence[Tensor]) -> float:
    """The mean of Spearman's correlations of all pairs of maps (T,)."""
    ranks = [np.argsort(np.argsort(scores.numpy())) for scores in maps]
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in combinations(ranks, 2)]))


def study(data: Path, cache: Path, examples: int) -> dict[str, Any]:
    """How alike maps are, for every question."""
    problem = problem_named("sentences")(ProblemOptions(data, cache))
    baselines, methods = methods_of(problem.words)
    told: list[tuple[float, float]] = []
    for number in range(len(problem.ids)):
        if len(told) == examples:
            break
        loaded = problem.load([number])
        (mask,) = loaded.extra
        real = slice(1, int(mask.sum()) - 1)  # between [CLS] and [SEP]
        if real.stop - real.start < LEAST:
            continue
        maps = {
            name: ig.explain(
                problem.model, loaded.x, target="predicted", method=method, extra=loaded.extra
            )
            .values[0, real]
            .sum(-1)
            for name, method in {**baselines, **methods}.items()
        }
        told.append((alike([maps[n] for n in methods]), alike([maps[n] for n in baselines])))
        print(f"{len(told)}: methods {told[-1][0]:.3f}, baselines {told[-1][1]:.3f}", flush=True)
    by_method, by_baseline = np.array(told).T
    result = paired(by_method - by_baseline)
    return {
        "questions": len(told),
        "alike by four methods": float(by_method.mean()),
        "alike by four baselines": float(by_baseline.mean()),
        "difference": float((by_method - by_baseline).mean()),
        "low": float(result.low[0]),
        "high": float(result.high[0]),
        "p": float(result.p[0]),
        "baseline moves more": float((by_method > by_baseline).mean()),
        "measured on": versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("bench-cache"))
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
    print(json.dumps(study(asked.data, asked.cache, asked.examples), indent=1))


if __name__ == "__main__":
    main()
