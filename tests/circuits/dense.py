"""Decoders written out slowly: every reader of the stream sums its own input, every writer is kept.

Nothing of the library is used, and of the models only their weights, MLPs and rotations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from tests.text import tiny as texts

V = 24
_SIZE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": V, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
MORE: dict[str, Callable[[], nn.Module]] = {
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**_SIZE, num_key_value_heads=1, head_dim=8)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_SIZE, num_key_value_heads=2)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**_SIZE, num_key_value_heads=2)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_SIZE)),
}
ROUNDING = {"gemma2": 1e-6}
"""Of models whose own attention goes through float32; 1e-9 of all others."""
KINDS = ("gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "phi3", "gpt_neox")  # fmt: skip


def decoder(kind: str, scale: float = 3.0, *, own_norms: bool = False) -> Any:
    """A random decoder in float64, biases and norms included, whose RMS norms do not go through float32 unless
    they are its own."""
    if kind in MORE:
        torch.manual_seed(0)
        model: Any = MORE[kind]().double().eval()
    else:
        model = texts.tiny(kind, scale=1.0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
            elif "norm" in name or "ln_" in name or "bias" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng).double())
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and not own_norms:
            module.forward = Rms(module)
    return model


class Rms:
    """w ⊙ x / √(mean x² + ε), in the type that it is given."""

    def __init__(self, module: Any) -> None:
        gemma = type(module).__name__.startswith("Gemma")
        self.weight = module.weight.detach() + 1.0 if gemma else module.weight.detach()
        self.eps = module.eps if gemma else module.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return self.weight * x * self.scale(x)

    def scale(self, x: Tensor) -> Tensor:
        return (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()


@dataclass
class Parts:
    """Matrices (out, in) and biases of a block, by what they are for."""

    attention_norm: Callable[[Tensor], Tensor]
    mlp_norm: Callable[[Tensor], Tensor]
    q: Tensor
    k: Tensor
    v: Tensor
    biases: tuple[Tensor | float, Tensor | float, Tensor | float]
    out: Tensor
    out_bias: Tensor | float
    mlp: Callable[[Tensor], Tensor]
    head_norms: tuple[Any, Any] | None = None
    post: tuple[Any, Any] | None = None


def _bias(module: Any) -> Tensor | float:
    return 0.0 if module.bias is None else module.bias.detach()


def parts(kind: str, model: Any, layer: int) -> Parts:
    if kind == "gpt2":
        block = model.transformer.h[layer]
        q, k, v = block.attn.c_attn.weight.detach().T.chunk(3)
        biases = block.attn.c_attn.bias.detach().chunk(3)
        proj = block.attn.c_proj
        return Parts(block.ln_1, block.ln_2, q, k, v, biases, proj.weight.detach().T, proj.bias.detach(), block.mlp)  # fmt: skip
    if kind == "gpt_neox":
        block = model.gpt_neox.layers[layer]
        fused = block.attention.query_key_value
        d = 16 // 4
        weight = fused.weight.detach().view(4, 3, d, 16)
        bias = fused.bias.detach().view(4, 3, d)
        q, k, v = (weight[:, i].reshape(16, 16) for i in range(3))
        biases = tuple(bias[:, i].reshape(16) for i in range(3))
        dense = block.attention.dense
        return Parts(block.input_layernorm, block.post_attention_layernorm, q, k, v, biases, dense.weight.detach(), dense.bias.detach(), block.mlp)  # fmt: skip
    block = model.model.layers[layer]
    attention = block.self_attn
    if kind == "phi3":
        q, k, v = attention.qkv_proj.weight.detach().split([16, 8, 8])
        biases = (0.0, 0.0, 0.0)
    else:
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (p.weight.detach() for p in projections)
        biases = tuple(_bias(p) for p in projections)
    sandwich = kind in ("gemma2", "gemma3")
    mlp_norm = block.pre_feedforward_layernorm if sandwich else block.post_attention_layernorm
    return Parts(
        block.input_layernorm,
        mlp_norm,
        q,
        k,
        v,
        biases,
        attention.o_proj.weight.detach(),
        _bias(attention.o_proj),
        block.mlp,
        (attention.q_norm, attention.k_norm) if kind in ("qwen3", "gemma3") else None,
        (block.post_attention_layernorm, block.post_feedforward_layernorm) if sandwich else None,
    )


def heads(kind: str) -> tuple[int, int]:
    """Heads and key-value heads."""
    return {"gpt2": (2, 2), "gpt_neox": (4, 4), "gemma": (4, 1)}.get(kind, (4, 2))


def starts(kind: str, model: Any, ids: Tensor) -> Tensor:
    """The stream before the first block."""
    if kind == "gpt2":
        places = torch.arange(ids.shape[1])
        return model.transformer.wte(ids) + model.transformer.wpe(places)
    embed = model.gpt_neox.embed_in if kind == "gpt_neox" else model.model.embed_tokens
    return embed(ids)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    width = cos.shape[-1]
    part, rest = x[..., :width], x[..., width:]
    half = torch.cat([-part[..., width // 2 :], part[..., : width // 2]], -1)
    return torch.cat([part * cos + half * sin, rest], -1)


def rotation(kind: str, model: Any, layer: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
    if kind == "gpt2":
        return None
    places = torch.arange(x.shape[1])[None]
    inner = model.gpt_neox if kind == "gpt_neox" else model.model
    if kind == "gemma3":
        return inner.rotary_emb(x, places, model.config.layer_types[layer])
    return inner.rotary_emb(x, places)


Read = Callable[[str, Mapping[str, Tensor], Tensor], Tensor]


def run(
    kind: str,
    model: Any,
    start: Tensor,
    read: Read,
    override: Callable[[str, dict[str, Tensor]], None] = lambda name, written: None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and what every node wrote. ``read(sink, written, biases)`` is the input of a sink."""
    written: dict[str, Tensor] = {"input": start}
    constant = torch.zeros_like(start[0, 0])
    for layer in range(2):
        p = parts(kind, model, layer)
        before, constant_before = dict(written), constant
        for h, result in enumerate(attended(kind, model, layer, p, written, constant, read)):
            written[f"a{layer}.h{h}"] = result
        override(f"a{layer}", written)
        constant = constant + p.out_bias
        if kind == "gpt_neox":
            stream = read(f"m{layer}", before, constant_before)
        else:
            stream = read(f"m{layer}", written, constant)
        output = p.mlp(p.mlp_norm(stream))
        written[f"m{layer}"] = p.post[1](output) if p.post else output
        override(f"m{layer}", written)
    final = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}
    last = model.get_submodule(final.get(kind, "model.norm"))(read("logits", written, constant))
    logits = model.get_output_embeddings()(last)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return (logits if cap is None else cap * torch.tanh(logits / cap)), written


def attended(
    kind: str,
    model: Any,
    layer: int,
    p: Parts,
    before: dict[str, Tensor],
    constant: Tensor,
    read: Read,
) -> list[Tensor]:
    """What each head of a layer writes."""
    count, grouped = heads(kind)
    label = "h" if count == grouped else "kv"
    before = dict(before)
    length = before["input"].shape[1]
    causal = torch.full((length, length), -torch.inf, dtype=torch.float64).triu(1)
    d = len(p.q) // count
    turn = rotation(kind, model, layer, before["input"])

    def made(side: str, h: int, matrix: Tensor, bias: Any, norm: Any) -> Tensor:
        stream = read(f"a{layer}.{'h' if side == 'q' else label}{h}<{side}>", before, constant)
        rows = slice(h * d, (h + 1) * d)
        shift = bias if isinstance(bias, float) else bias[rows]
        x = p.attention_norm(stream) @ matrix[rows].T + shift
        x = x if norm is None else norm(x)
        return x if turn is None or side == "v" else turned(x, *turn)

    q_norm, k_norm = p.head_norms or (None, None)
    keys = [made("k", h, p.k, p.biases[1], k_norm) for h in range(grouped)]
    values = [made("v", h, p.v, p.biases[2], None) for h in range(grouped)]
    results = []
    for h in range(count):
        query = made("q", h, p.q, p.biases[0], q_norm)
        of = h * grouped // count
        root = getattr(model.config, "query_pre_attn_scalar", d) ** -0.5
        products = query @ keys[of].transpose(1, 2) * root
        cap = getattr(model.config, "attn_logit_softcapping", None)
        products = products if cap is None else cap * torch.tanh(products / cap)
        weights = (products + causal).softmax(-1)
        results.append(weights @ values[of] @ p.out[:, h * d : (h + 1) * d].T)
    if p.post:
        norm = p.post[0].forward
        factor = norm.weight * norm.scale(sum(results))
        results = [result * factor for result in results]
    return results


def plain(sink: str, written: Mapping[str, Tensor], constant: Tensor) -> Tensor:
    """Everything that was written before."""
    return sum(written.values()) + constant
