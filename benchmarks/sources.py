"""Which source of a prompt was it? Maps of sources beside removal and beside ContextCite's linear surrogate, where the truth is known.

    pip install -e '.[llm-demo,tables]'
    python -m benchmarks.sources [--model hf:DIR] [--prompts 12] [--threads 1] [--out docs/results/sources]

Every prompt says of six people where they live, in an order drawn by chance, and asks for one of them; F is the log-probability of the town that the
prompt gives. Each way scores the six sentences:

    map         ig.text.explain, sums over the tokens of a sentence, 10 % tolerance, from the mean vector
    removal     ig.text.without_sources: what F falls by without the sentence
    surrogate   a linear model of logit p(answer) of 32 and of 64 prompts in which each sentence is there with probability one half, by the lasso
                (Cohen-Wang et al., "ContextCite", NeurIPS 2024)

Told are how often the right sentence comes first, what F falls by when the two sentences that come first are taken out together (more is better), and what
it took. Only prompts whose answer the model gets right are counted.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import integrand as ig
from integrand.text.demo import GEMMA, model_folder
from integrand.text.models import language_model, tokenizer_of

from .side_by_side import begin, versions

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry")
TOWNS = ("Oslo", "Rome", "Paris", "Madrid", "Vienna", "Berlin", "Athens", "London")
SOURCES = 6
ABLATIONS = (32, 64)
PENALTY = 0.01  # of the lasso, on standardised columns, as published


class Asked(NamedTuple):
    """Sentences, the question behind them, the answer, and the sentence that holds it."""

    sources: tuple[str, ...]
    question: str
    answer: str
    right: int

    def prompt(self, kept: Sequence[bool] | None = None) -> str:
        """The prompt, or that with some of the sentences."""
        left = [s for i, s in enumerate(self.sources) if kept is None or kept[i]]
        return " ".join([*left, self.question])


def asked(number: int) -> Asked:
    """The n-th prompt."""
    draw = random.Random(number)
    names, towns = draw.sample(NAMES, SOURCES), draw.sample(TOWNS, SOURCES)
    right = draw.randrange(SOURCES)
    sources = tuple(f"{name} lives in {town}." for name, town in zip(names, towns, strict=True))
    return Asked(sources, f"So {names[right]} lives in", f" {towns[right]}", right)


class Reader:
    """A language model that tells log p(answer | prompt)."""

    def __init__(self, folder: str | Path) -> None:
        self.model = language_model(folder).module.requires_grad_(False)
        self.tokenizer = tokenizer_of(folder, self.model)

    def log_probability(self, prompt: str, answer: str) -> float:
        """Of all tokens of the answer together."""
        ids = self.tokenizer(prompt)["input_ids"]
        behind = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = self.model(torch.tensor([[*ids, *behind]])).logits[0].log_softmax(-1)
        return float(sum(logits[len(ids) - 1 + i, token] for i, token in enumerate(behind)))

    def knows(self, case: Asked) -> bool:
        """Whether the town that the prompt gives is the likeliest of all towns."""
        scores = [self.log_probability(case.prompt(), f" {town}") for town in TOWNS]
        return f" {TOWNS[int(np.argmax(scores))]}" == case.answer


def by_map(reader: Reader, case: Asked) -> list[float]:
    """Sums over the tokens of each sentence of a map with a stated error."""
    result = ig.text.explain(
        reader.model, reader.tokenizer, case.prompt(), target=case.answer, sources=list(case.sources),
        granularity="source", tol=0.1, batch_size=8,
    )  # fmt: skip
    scores: list[float] = result.scores[0][: len(case.sources)].tolist()
    return scores


def by_removal(reader: Reader, case: Asked) -> list[float]:
    """What F falls by without each sentence."""
    drops: list[float] = ig.text.without_sources(
        reader.model, reader.tokenizer, case.prompt(), list(case.sources), target=case.answer
    ).tolist()
    return drops


def by_surrogate(reader: Reader, case: Asked, ablations: int, seed: int) -> list[float]:
    """The coefficients of a sparse linear model of logit p(answer) in which sentences are there."""
    from sklearn.linear_model import Lasso
    from sklearn.preprocessing import StandardScaler

    masks = np.random.default_rng(seed).random((ablations, len(case.sources))) < 0.5
    logs = np.array([reader.log_probability(case.prompt(mask), case.answer) for mask in masks])
    logits = logs - np.log1p(-np.exp(np.minimum(logs, -1e-9)))
    scaled = StandardScaler().fit(masks.astype(float))
    spread = logits.std() or 1.0
    fit = Lasso(alpha=PENALTY).fit(
        scaled.transform(masks.astype(float)), (logits - logits.mean()) / spread
    )
    coefficients: list[float] = (fit.coef_ * spread / scaled.scale_).tolist()
    return coefficients


def judged(reader: Reader, number: int) -> dict[str, Any] | None:
    """All ways on one prompt; None where the model does not know the answer."""
    case = asked(number)
    if not reader.knows(case):
        return None
    ways: dict[str, Callable[[], list[float]]] = {
        "map": lambda: by_map(reader, case),
        "removal": lambda: by_removal(reader, case),
    }
    for count in ABLATIONS:
        ways[f"surrogate, {count}"] = lambda count=count: by_surrogate(reader, case, count, number)
    whole = reader.log_probability(case.prompt(), case.answer)
    line: dict[str, Any] = {"prompt": case.prompt(), "right": case.right, "log p": whole}
    for name, way in ways.items():
        began = time.perf_counter()
        scores = way()
        seconds = time.perf_counter() - began
        first = sorted(range(SOURCES), key=lambda i: -scores[i])[:2]
        without = case.prompt([i not in first for i in range(SOURCES)])
        line[name] = {
            "scores": scores,
            "found": first[0] == case.right,
            "drop": whole - reader.log_probability(without, case.answer),
            "seconds": seconds,
        }
    return line


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Means over prompts, in Markdown."""
    rows = ["| way | right sentence first | F falls without the first two by | seconds, median |", "|---|---|---|---|"]  # fmt: skip
    ways = [name for name, entry in lines[0].items() if isinstance(entry, dict)]
    for way in ways:
        found = sum(line[way]["found"] for line in lines)
        drops = np.array([line[way]["drop"] for line in lines])
        spread = drops.std(ddof=1) / np.sqrt(len(drops)) if len(drops) > 1 else float("nan")
        seconds = float(np.median([line[way]["seconds"] for line in lines]))
        rows.append(
            f"| {way} | {found} of {len(lines)} | {drops.mean():.2f} ± {spread:.2f} nats | {seconds:.1f} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=GEMMA, help="hf:DIR, or the default")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    begin(options.threads)
    reader = Reader(model_folder(options.model))
    lines, unknown = [], 0
    for number in range(options.prompts):
        line = judged(reader, number)
        if line is None:
            unknown += 1
            continue
        lines.append(line)
        print(number, {k: v["found"] for k, v in line.items() if isinstance(v, dict)}, flush=True)
        if options.out:
            kept(options.out, options.model, lines, unknown)
    print(table(lines) if lines else "The model knows none of the answers.")


def kept(out: Path, model: str, lines: Sequence[dict[str, Any]], unknown: int) -> None:
    """Write lines.json and results.md."""
    out.mkdir(parents=True, exist_ok=True)
    made = {"model": model, "versions": versions("transformers", "scikit-learn"), "not known": unknown, "lines": list(lines)}  # fmt: skip
    (out / "lines.json").write_text(json.dumps(made, indent=1) + "\n")
    (out / "results.md").write_text(
        "# Which source was it?\n\n"
        f"`python -m benchmarks.sources`, {model}; {made['versions']}. {len(lines)} prompts of {SOURCES} sentences, one of which holds the answer; "
        f"{unknown} more whose answer the model does not give. Means with standard errors; seconds of a machine that was shared.\n\n{table(lines)}\n"
    )


if __name__ == "__main__":
    main()
