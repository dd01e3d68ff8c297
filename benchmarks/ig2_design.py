"""Which choices of IG2 matter? A designed experiment: all seven at once, on the same examples, by a quarter of a quarter of a half of all ways.

    python -m benchmarks.ig2_design PROBLEM --out docs/results/truth/ig2-design [--data FOLDER] [--examples 100] [--minutes 60]
    python -m benchmarks.ig2_design PROBLEM --out docs/results/truth/ig2-design --stability [...]

Seven factors at two levels in 16 of the 128 combinations (2⁷⁻³, resolution IV: E = ABC, F = BCD, G = ACD), so that no main effect is mixed up
with another or with an interaction of two factors. Every combination explains every example; the effect of a factor on an example is the mean
score over the 8 combinations at its high level minus that over the 8 at its low level, and examples are what intervals are over. The recipe is
written here and run as any suite is: OUT/PROBLEM/scores-….parquet are its batches, and a later run goes on where this one stopped.

``--stability`` asks how far maps agree that should be the same: of other draws of references (IG2), other baselines (IG), other draws (EG).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

import integrand as ig
from integrand.bench import runner, suite
from integrand.bench.names import method
from integrand.bench.problems import Problem, ProblemOptions, problem_named
from integrand.compare.evaluate import explained
from integrand.compare.map_agreement import agreement
from integrand.compare.scores import Numbers, Scores
from integrand.compare.statistics import holm, paired


@dataclass(frozen=True)
class Factor:
    """A choice of IG2: what it is called, and its low and high level, in words and as typed."""

    name: str
    low: str
    high: str
    typed: tuple[str, str]


@dataclass(frozen=True)
class Setting:
    """What the experiment is on a problem: levels that depend on it, metrics, and how many examples are explained together."""

    factors: tuple[Factor, ...]
    metrics: Mapping[str, str]
    batch: int
    clip: bool = True
    options: str = ""


def _factors(
    steps: tuple[int, int], rates: tuple[float, float], layers: tuple[str, str], many: int
) -> tuple[Factor, ...]:
    """The seven factors, A to G, low levels first: as published where the papers say so."""
    return (
        Factor("steps", str(steps[0]), str(steps[1]), (str(steps[0]), str(steps[1]))),
        Factor("rate", f"{rates[0]:g}", f"{rates[1]:g}", (str(rates[0]), str(rates[1]))),
        Factor("representation", "before the last layer", "further in", layers),
        Factor("references", "1", str(many), ("1", str(many))),
        Factor("classes", "any other", "the likeliest others", ("others", "references")),
        Factor("rule", "gradient at the end", "Simpson(2)", ("Right()", "Simpson(2)")),
        Factor("steps that shrink", "no", "yes", ("Fixed()", "Shrinking()")),
    )


_CURVES = {
    "insertion": "insertion(steps=20, fill={fill})",
    "deletion": "deletion(steps=20, fill={fill})",
}


def _metrics(**fills: str) -> dict[str, str]:
    named = {
        f"{direction}, {fill}": text.format(fill=typed)
        for fill, typed in fills.items()
        for direction, text in _CURVES.items()
    }
    return {**named, "DiffID": "diffid()"}


SETTINGS: Mapping[str, Setting] = {
    "digits": Setting(
        _factors((10, 40), (0.1, 0.4), ("None", "'features.5'"), 4),
        _metrics(zero="zero", blur="blurred"),
        batch=20,
    ),
    "photographs": Setting(
        _factors((10, 30), (0.4, 1.55), ("None", "'_blocks.10'"), 3),
        _metrics(corners="corners", blur="blurred"),
        batch=1,
    ),
    "tables": Setting(
        _factors((10, 40), (0.05, 0.2), ("None", "'body.1'"), 4),
        {
            "faithfulness": "Faithfulness(table, draws=100)",
            "Shapley correlation": "ShapleyCorrelation(table, draws=100)",
        },
        batch=25,
    ),
}


def design(count: int = 7) -> Numbers:
    """The combinations (16, 7): −1 low, +1 high; columns A, B, C, D, E = ABC, F = BCD, G = ACD."""
    a, b, c, d = np.array(
        [[1 if run >> bit & 1 else -1 for bit in range(4)] for run in range(16)], dtype=float
    ).T
    return np.stack([a, b, c, d, a * b * c, b * c * d, a * c * d], 1)[:, :count]


def named(levels: Sequence[float]) -> str:
    """What a combination is called: "A+ B− …"."""
    return " ".join(
        f"{letter}{'+' if level > 0 else '−'}"
        for letter, level in zip("ABCDEFG", levels, strict=True)
    )


def typed(setting: Setting, levels: Sequence[float]) -> str:
    """IG2 of a combination, as typed in Python."""
    steps, rate, layer, many, classes, rule, step = (
        factor.typed[int(level > 0)] for factor, level in zip(setting.factors, levels, strict=True)
    )
    clip = ", clip=(low, high)" if setting.clip else ""
    return f"ig2({classes}({many}), representation={layer}, steps={steps}, rate={rate}, rule={rule}, step={step}{clip})"


def recipe(name: str) -> str:
    """The experiment on a problem as a suite's recipe."""
    setting = SETTINGS[name]
    lines = [
        'title = "IG2 by design"',
        'question = "Which of its choices matter?"',
        "[methods]",
        *(f'"{named(row)}" = "{typed(setting, row)}"' for row in design()),
        "[metrics]",
        *(f'"{metric}" = "{text}"' for metric, text in setting.metrics.items()),
        "[[run]]",
        f'name = "{name}"',
        f'problem = "{name}"',
        f"batch = {setting.batch}",
    ]
    return "\n".join(lines) + "\n"


# --- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """What a factor does to a metric, from its low to its high level: mean over examples, interval, and p corrected for all of
    the experiment's tests; ``better`` where higher is better turned round, so that positive is always an improvement."""

    factor: str
    metric: str
    examples: int
    mean: float
    low: float
    high: float
    p: float
    corrected: float
    relative: float


def contrasts(values: Numbers) -> Numbers:
    """Effects (7, E) of the factors on every example, of scores (16, E) in the order of the design."""
    result: Numbers = design().T @ values / 8
    return result


def effects(scores: Scores, factors: Sequence[Factor]) -> list[Effect]:
    """The effect of every factor on every metric, on examples that all combinations have a value for."""
    order = [scores.methods.index(named(row)) for row in design()]
    rows = []
    for metric in scores.metrics:
        values = scores.of(metric)[order]
        values = values[:, ~np.isnan(values).any(0)]
        sign = 1.0 if scores.is_higher(metric) else -1.0
        by_factor = sign * contrasts(values)
        mean = paired(by_factor)
        scale = abs(float(values.mean())) if values.size else np.nan
        rows += [
            (
                factor,
                metric,
                values.shape[1],
                float(row.mean()),
                *numbers,
                float(row.mean()) / scale,
            )
            for factor, row, *numbers in zip(
                factors, by_factor, mean.low, mean.high, mean.p, strict=True
            )
        ]
    corrected = holm([row[6] for row in rows])
    return [
        Effect(factor.name, metric, n, mean, float(low), float(high), float(p), float(c), relative)
        for (factor, metric, n, mean, low, high, p, relative), c in zip(
            rows, corrected, strict=True
        )
    ]


# --- stability --------------------------------------------------------------------------------------------------------

DRAWS = 4
STABLE: Mapping[str, tuple[str, ...]] = {
    "IG2, 1 reference": tuple(
        f"ig2(Relevant(pool, 1, seed={s}), steps=25, rate=rate, clip=(low, high))"
        for s in range(DRAWS)
    ),
    "IG2, 4 references": tuple(
        f"ig2(Relevant(pool, 4, seed={s}), steps=25, rate=rate, clip=(low, high))"
        for s in range(DRAWS)
    ),
    "IG2, 4 references, accurate, shrinking": tuple(
        f"ig2(Relevant(pool, 4, seed={s}), steps=25, rate=rate, rule=Simpson(2), step=Shrinking(), clip=(low, high))"
        for s in range(DRAWS)
    ),
    "IG, other baselines": tuple(
        f"integrated({b}, rule=GaussLegendre(25))" for b in ("zero", "mean", "blurred", "Uniform()")
    ),
    "EG, 6 references": tuple(
        f"expected(OtherClass(pool, 6, seed={s}), rule=GaussLegendre(8))" for s in range(DRAWS)
    ),
}
"""Families of maps that should be the same, were it not for what is drawn or chosen."""
RATES = {"digits": 0.4, "photographs": 1.55}


def stability(problem: Problem, name: str, numbers: Sequence[int]) -> Scores:
    """How far the maps of a family agree on each example: mean Spearman correlation and mean share of the first tenth in common, over pairs."""
    words = {**problem.words, "rate": RATES[name]}
    flat = {
        f"{family} {i}": method(text, words)
        for family, texts in STABLE.items()
        for i, text in enumerate(texts)
    }
    with problem.subject(numbers) as subject, warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        seen = explained(subject, flat)
        found = agreement(seen)
    values = np.full((len(STABLE), 2, len(numbers)), np.nan)
    for f, (family, texts) in enumerate(STABLE.items()):
        places = [list(flat).index(f"{family} {i}") for i in range(len(texts))]
        for q, table in enumerate((found.ranks, found.first)):
            values[f, q] = np.mean([table[a, b] for a, b in combinations(places, 2)], axis=0)
    by_family = [
        [list(flat).index(f"{family} {i}") for i in range(len(texts))]
        for family, texts in STABLE.items()
    ]
    costs = {
        cost: np.stack([getattr(seen, cost)[places].mean(0) for places in by_family])
        for cost in ("gradients", "rows", "seconds")
    }
    nothing = np.full((len(STABLE), len(numbers)), np.nan)
    return Scores(
        values,
        tuple(STABLE),
        ("rank correlation", "first tenth in common"),
        (True, True),
        tuple(problem.ids[i] for i in numbers),
        **costs,
        gap=nothing,
        error=nothing,
    )


def go_on_stability(
    problem: Problem, name: str, numbers: Sequence[int], file: Path, minutes: float | None
) -> None:
    """Agreement on the examples that ``file`` does not hold yet, batch by batch."""
    until = None if minutes is None else time.monotonic() + 60 * minutes
    scores = Scores.from_parquet(file) if file.is_file() else None
    done = () if scores is None else scores.examples
    left = [i for i in numbers if problem.ids[i] not in done]
    for batch in _batches(left, SETTINGS[name].batch):
        if until is not None and time.monotonic() > until:
            break
        rows = stability(problem, name, batch)
        scores = rows if scores is None else scores.merge(rows)
        file.parent.mkdir(parents=True, exist_ok=True)
        scores.to_parquet(file)
        print(f"{len(scores)} examples", flush=True)


def _batches(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problem", choices=list(SETTINGS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stability", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
    if asked.stability:
        problem = problem_named(asked.problem)(
            ProblemOptions(asked.data, asked.out / asked.problem / "models")
        )
        numbers = range(min(asked.examples, len(problem.ids)))
        file = asked.out / asked.problem / "stability.parquet"
        go_on_stability(problem, asked.problem, numbers, file, asked.minutes)
        return
    options = runner.RunOptions(
        asked.out / asked.problem, asked.data, asked.examples, asked.minutes
    )
    parsed = suite.parsed(f"ig2-design-{asked.problem}", recipe(asked.problem))
    results = runner.run(parsed, options, lambda line: print(line, flush=True))
    scores = results.finished[0].scores
    if scores is not None:
        for effect in effects(scores, SETTINGS[asked.problem].factors):
            print(
                f"{effect.metric:24s} {effect.factor:18s} {effect.mean:+.4f} ({effect.low:+.4f} to {effect.high:+.4f}), p {effect.corrected:.3g}"
            )


if __name__ == "__main__":
    main()
