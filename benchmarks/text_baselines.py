"""Does the baseline move an explanation of a text more than the method does?

    python -m benchmarks.text_baselines --problem sentences --data FOLDER --out FILE.json [--examples 200] [--threads 1]
    python -m benchmarks.text_baselines --problem reviews --data FOLDER --out FILE.json
    python -m benchmarks.text_baselines --problem code_lines --out FILE.json

Of each text maps of its tokens are made by one method (Integrated Gradients) from the baselines that the problem has (padding, [MASK], the mean vector, zero),
and by as many methods (Integrated, Discretized, Sequential, Guided Integrated Gradients) from padding. Alike are two maps by Spearman's correlation of their
tokens. What is told is how alike maps are, over all pairs of either kind, and the difference

    d = alike(methods) - alike(baselines)        > 0: the baseline moves the map more

with its 95 % interval over texts (studentised bootstrap, ``integrand.compare.statistics``). Texts of fewer than four tokens are passed over. What each text
came to is kept in FILE.json as it comes; a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import integrand as ig
from integrand.bench.problems import Problem, ProblemOptions, problem_named
from integrand.bench.runner import machine
from integrand.compare.statistics import paired
from integrand.core.files import write_text

NODES, LEAST = 8, 4
BASELINES = ("padding", "masked", "mean", "zero")


def methods_of(words: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Integrated Gradients from several baselines, and as many methods from one."""
    rule = ig.rules.GaussLegendre(NODES)
    start = words["padding"]
    baselines = {
        name: ig.methods.integrated(words[name], rule=rule) for name in BASELINES if name in words
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
    return baselines, dict(list(methods.items())[: len(baselines)])


def alike(maps: Sequence[Tensor]) -> float:
    """The mean of Spearman's correlations of all pairs of maps (T,)."""
    ranks = [np.argsort(np.argsort(scores.numpy())) for scores in maps]
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in combinations(ranks, 2)]))


def likeness(problem: Problem, number: int) -> tuple[float, float] | None:
    """How alike the maps of a text are, by several methods and from several baselines; None of a
    short one."""
    loaded = problem.load([number])
    if loaded.x.shape[1] < LEAST:
        return None
    baselines, methods = methods_of({**problem.words, **loaded.words})
    maps = {
        name: ig.explain(problem.model, loaded.x, target="predicted", method=method)
        .values[0]
        .sum(-1)
        for name, method in {**baselines, **methods}.items()
    }
    return alike([maps[name] for name in methods]), alike([maps[name] for name in baselines])


def summary(texts: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """What all texts come to."""
    by_method, by_baseline = np.array(list(texts.values())).T
    result = paired(by_method - by_baseline)
    return {
        "alike by methods": float(by_method.mean()),
        "alike by baselines": float(by_baseline.mean()),
        "difference": float((by_method - by_baseline).mean()),
        "low": float(result.low[0]),
        "high": float(result.high[0]),
        "p": float(result.p[0]),
        "baseline moves more": float((by_method > by_baseline).mean()),
    }


def study(problem: Problem, examples: int, file: Path) -> dict[str, Any]:
    """How alike maps are, for every text; kept in ``file``."""
    texts = json.loads(file.read_text("utf-8"))["texts"] if file.exists() else {}
    baselines, methods = methods_of(problem.words)
    told: dict[str, Any] = {}
    for number, name in enumerate(problem.ids):
        if name not in texts and len(texts) < examples:
            pair = likeness(problem, number)
            if pair is None:
                continue
            texts[name] = list(pair)
            print(f"{len(texts)}: methods {pair[0]:.3f}, baselines {pair[1]:.3f}", flush=True)
        if len(texts) >= 5:
            told = {
                "problem": problem.name,
                "baselines": list(baselines),
                "methods": list(methods),
                "examples": len(texts),
                **summary(texts),
                "machine": machine(),
                "texts": texts,
            }
            write_text(file, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        if len(texts) >= examples:
            break
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--problem", choices=("sentences", "reviews", "code_lines"), default="sentences"
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("bench-cache"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
    problem = problem_named(asked.problem)(ProblemOptions(asked.data, asked.cache))
    told = study(problem, asked.examples, asked.out)
    print(json.dumps({key: value for key, value in told.items() if key != "texts"}, indent=1))


if __name__ == "__main__":
    main()
