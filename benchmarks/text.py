"""Language models: a continuation beside Captum's LLMGradientAttribution, and the peak memory of long texts with blocks that run again.

    python -m benchmarks.text [--threads 1] [--repeats 5] [--model small|gemma-270m|hf:DIR] [--tokens 4096]
    python -m benchmarks.text --speed gemma-270m [--prompt 32] [--threads 1] [--repeats 3]

Speed: ten target tokens behind a prompt of 32, 8 Gauss-Legendre nodes from token 0, float32; both give the same map. Captum integrates each target
token by itself; ours is one integral for all of them, or, with ``per_token=True``, the same matrix from shared forward passes. The model is a
random Llama (four layers, 64 wide), of which a call costs more than what it computes, or with ``--speed gemma-270m`` one of the shapes of
Gemma-3-270M, of which it does not.

Memory: one gradient of the logit of the next token, F at both ends, and the diagnosis of a map that is incomplete, in a fresh process; the peak of all
that the process ever held, and that less what it held before, with the weights loaded. "small" is a random Gemma 3 (eight layers, 256 wide, 8,000 words), "gemma-270m" one of the shapes of Gemma-3-270M (18 layers, 640
wide, 262,144 words); hf:DIR loads a model from a local folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model.batching import peak_memory

from .memory import _resident
from .side_by_side import Row, begin, interleaved, ratio, seconds, tell

PROMPT, ANSWER, NODES, WORDS = 32, 10, 8, 1000
TOKENS = 4096
_GIB = 2**30
SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "vocab_size": 8000, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 64,
    },
    "gemma-270m": {
        "vocab_size": 262144, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
    },
}  # fmt: skip


# --- speed ------------------------------------------------------------------------------------------------------------


def llama() -> nn.Module:
    """A random Llama, its weights large enough that its answers depend on the prompt."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=64, intermediate_size=176, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model: nn.Module = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


def tokenizer() -> Any:
    """Words w4, w5, …, each a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{number}" for number in range(4, WORDS))]
    table = Tokenizer(
        models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>")
    )
    table.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="<pad>", bos_token="<s>", unk_token="<unk>"
    )


def speed(threads: int, repeats: int, name: str = "", length: int = PROMPT) -> list[Row]:
    """Times of the same map, ours to Captum's."""
    from captum.attr import LayerIntegratedGradients, LLMGradientAttribution, TextTokenInput

    model, words = long_context(name) if name else llama(), tokenizer()
    drawn = torch.randint(4, WORDS, (length + ANSWER,), generator=torch.Generator().manual_seed(0))
    prompt = " ".join(f"w{number}" for number in drawn[:length].tolist())
    answer = drawn[length:]
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    start = embedding(torch.tensor(0)).detach()
    theirs = LLMGradientAttribution(LayerIntegratedGradients(model, embedding), words)

    def captum() -> Any:
        given = TextTokenInput(prompt, words)
        return theirs.attribute(given, target=answer, n_steps=NODES, method="gausslegendre")

    def ours(per_token: bool = False) -> Any:
        return ig.text.explain(
            model, words, prompt, target=ig.text.Continuation(answer.tolist()), baseline=start, keep=None,
            rule=ig.rules.GaussLegendre(NODES), per_token=per_token,
        )  # fmt: skip

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        each = ours(per_token=True).matrix[0]
        one, captums = ours().scores[0], captum()
        ways = {"ours": ours, "ours for each token": lambda: ours(per_token=True), "Captum": captum}
        times = interleaved(ways, repeats, warm=0)  # all have run
    finally:
        torch.set_num_threads(before)
    what = f"{name or 'small Llama'}, {length} + {ANSWER} tokens"
    on = f"time to Captum's on {threads} thread{'s' * (threads > 1)}"
    middle, spread = ratio(times, "ours", "Captum")
    note = f"{seconds(times)}; maps {_apart(one, captums.seq_attr):.0e} apart"
    first = Row(f"{what}, one map, {on}", middle, spread, goal=0.2, note=note)
    middle, spread = ratio(times, "ours for each token", "Captum")
    note = f"maps {_apart(each, captums.token_attr):.0e} apart"
    return [first, Row(f"{what}, a map for each, {on}", middle, spread, goal=1.0, note=note)]


def _apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        raise RuntimeError(f"The maps are of {tuple(one.shape)} and {tuple(other.shape)}.")
    return float((one - other).norm() / other.norm())


# --- memory -----------------------------------------------------------------------------------------------------------


def long_context(name: str) -> nn.Module:
    """A causal language model: random of some shapes, or from a local folder."""
    if name not in SHAPES:
        from integrand.text.demo import model_folder
        from integrand.text.models import language_model

        return language_model(model_folder(name)).module
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    return Gemma3ForCausalLM(Gemma3TextConfig(**SHAPES[name], max_position_embeddings=32768)).eval()


def peak(name: str, tokens: int, *, checkpoint: bool) -> tuple[int, int, float]:
    """Bytes that the process ever held, and of these what a gradient takes at most beside the weights; seconds."""
    model = long_context(name).requires_grad_(False)
    ids = torch.randint(5, 5000, (1, tokens), generator=torch.Generator().manual_seed(0))
    start = model.get_input_embeddings()(torch.tensor(0)).detach()  # type: ignore[operator]

    def explain(some: Tensor) -> None:
        ig.text.explain_ids(
            model, some, target=ig.text.NextToken(7, score="logit"), baseline=start, keep="first",
            rule=ig.rules.Midpoint(1), batch_size=1, checkpoint=checkpoint,
        )  # fmt: skip

    explain(ids[:, :8])  # imports what is needed
    before = _resident()
    began = time.perf_counter()
    explain(ids)
    return peak_memory(), peak_memory() - before, time.perf_counter() - began


def measured(name: str, tokens: int, *, checkpoint: bool) -> tuple[int, int, float]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.text", "--task", "checkpoint" if checkpoint else "plain"]  # fmt: skip
    command += ["--model", name, "--tokens", str(tokens), "--threads", str(torch.get_num_threads())]
    own = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=own).stdout
    whole, beside, took = told.split()
    return int(whole), int(beside), float(took)


def memory(name: str, tokens: int) -> list[Row]:
    """The peak of a process whose blocks run again, and what of it is not there before, to that of one whose blocks do not."""
    whole, again, again_seconds = measured(name, tokens, checkpoint=True)
    first = Row(
        f"{name}, {tokens:,} tokens: peak of the process, blocks run again",
        whole / _GIB,
        goal=4,
        unit=" GiB",
        note=f"{again / _GIB:.2f} GiB more than with the model loaded; {again_seconds:.0f} s for one gradient, the values at both ends and a diagnosis",
    )
    _, plain, plain_seconds = measured(name, tokens, checkpoint=False)
    return [
        first,
        Row(
            f"{name}, {tokens:,} tokens: peak beside the weights, blocks run again to plain",
            again / plain,
            goal=0.5,
            note=f"{again / _GIB:.2f} GiB to {plain / _GIB:.2f} GiB; {again_seconds:.0f} s to {plain_seconds:.0f} s",
        ),
    ]


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    lines = [line for threads in (1, 2) for line in speed(threads, repeats)]
    return [*lines, *memory("small", TOKENS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="torch.set_num_threads")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="", help="small, gemma-270m or hf:DIR: memory alone")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--speed", choices=SHAPES, help="speed alone, of a model of these shapes")
    parser.add_argument("--prompt", type=int, default=PROMPT, help="tokens of it, for --speed")
    parser.add_argument("--task", choices=("plain", "checkpoint"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    begin(asked.threads)
    if asked.task:
        print(*peak(asked.model, asked.tokens, checkpoint=asked.task == "checkpoint"))
    elif asked.speed:
        tell(speed(asked.threads, asked.repeats, asked.speed, asked.prompt))
    elif asked.model:
        tell(memory(asked.model, asked.tokens))
    else:
        tell(rows(asked.repeats))


if __name__ == "__main__":
    main()
