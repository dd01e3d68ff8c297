"""Which modules of a decoder write into its residual stream, and which read from it.

    block:  x ─┬─ attention norm ─ queries, keys, values ─ heads ─ output projection ─(norm)─┬─ + ─┬─ mlp norm ─ mlp ─(norm)─┬─ + ─
               └────────────────────────────────────────────────────────────────────────────┘     └──────────────────────────┘

An ``Architecture`` says so for a kind of model, by the names of its modules; ``ARCHITECTURES`` has
those that are known, by what a model's configuration calls itself (``model_type``). Nothing else
looks for names. A description that does not fit a model is found out when the model runs: the
stream has to be the sum of what is said to be written into it (``stream``).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

from ..core.options import check_choice
from ..core.values import part
from ..errors import InputError, ModelError, UnknownName
from ..text.models import LanguageModel

SIDES = ("q", "k", "v")
FUSED = ("concatenated", "interleaved")


@part
class Architecture:
    """Where the residual stream of a kind of decoder is written and read, by names of modules.

    Names of ``blocks``, ``final_norm`` and ``embeddings`` count from the model, all others from a
    block.

    Args:
        blocks: the list of blocks.
        final_norm: what reads the finished stream.
        queries: the projection that makes the queries of all heads, one head after the other.
        keys: of the key-value heads; the same module where one makes all three (``fused``).
        values: as ``keys``.
        attention_output: the output projection, whose input holds one head after the other.
        mlp: the MLP.
        attention_norm: the norm through which queries, keys and values read the stream; None where
            they read it as it is.
        mlp_norm: the same of the MLP.
        attention_added: what is added to the stream, where an RMS norm stands behind the output
            projection; the output projection unless given.
        mlp_added: the same of the MLP.
        parallel: whether the MLP reads the stream before the attention of its block is added; or the
            entry of the configuration that says so.
        fused: how one module's output holds queries, keys and values: "concatenated" (all queries,
            all keys, all values) or "interleaved" (those of each head together).
        embeddings: the layer that makes vectors of token ids, counted from the model, where it does
            not say itself.
        heads: how many query heads a block has; what the configuration says unless given.
        key_value_heads: the same of key-value heads.

    Example:
        >>> import dataclasses, integrand as ig
        >>> mine = dataclasses.replace(ig.circuits.ARCHITECTURES["llama"], blocks="decoder.blocks")
        >>> mine.blocks, mine.attention_output
        ('decoder.blocks', 'self_attn.o_proj')
    """

    blocks: str
    final_norm: str
    queries: str
    keys: str
    values: str
    attention_output: str
    mlp: str
    attention_norm: str | None = None
    mlp_norm: str | None = None
    attention_added: str | None = None
    mlp_added: str | None = None
    parallel: bool | str = False
    fused: str | None = None
    embeddings: str | None = None
    heads: int | None = None
    key_value_heads: int | None = None

    def __post_init__(self) -> None:
        check_choice("fused", self.fused, (None, *FUSED))
        if (self.fused is not None) != (self.queries == self.keys == self.values):
            raise InputError(
                "Queries, keys and values of one module need fused=, and of three modules none: say 'concatenated' or 'interleaved' for one."
            )


_LLAMA = Architecture(
    blocks="model.layers",
    final_norm="model.norm",
    queries="self_attn.q_proj",
    keys="self_attn.k_proj",
    values="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    mlp="mlp",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
)
_SANDWICHED = dataclasses.replace(
    _LLAMA,
    mlp_norm="pre_feedforward_layernorm",
    attention_added="post_attention_layernorm",
    mlp_added="post_feedforward_layernorm",
)
_QKV = "self_attn.qkv_proj"

ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        queries="attn.c_attn",
        keys="attn.c_attn",
        values="attn.c_attn",
        attention_output="attn.c_proj",
        mlp="mlp",
        attention_norm="ln_1",
        mlp_norm="ln_2",
        fused="concatenated",
    ),
    "gpt_neox": Architecture(
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        queries="attention.query_key_value",
        keys="attention.query_key_value",
        values="attention.query_key_value",
        attention_output="attention.dense",
        mlp="mlp",
        attention_norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
        parallel="use_parallel_residual",
        fused="interleaved",
    ),
    "phi3": dataclasses.replace(_LLAMA, queries=_QKV, keys=_QKV, values=_QKV, fused="concatenated"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _LLAMA),
    **dict.fromkeys(("gemma2", "gemma3_text"), _SANDWICHED),
}
"""The architectures that are known, by ``config.model_type``."""


# --- a model, as its architecture describes it ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Heads:
    """Heads that one module makes queries, keys or values of.

    Attributes:
        sides: (J,) "q", "k" or "v" of each.
        numbers: (J,) of the heads, or of the key-value heads.
        columns: (J, d) where each stands in the output of the module.
    """

    sides: tuple[str, ...]
    numbers: tuple[int, ...]
    columns: Tensor


@dataclass(frozen=True, eq=False)
class DecoderBlock:
    """A block of a model: its modules, as ``Architecture`` calls them.

    ``projections`` are the modules that make queries, keys and values, each once.
    """

    module: nn.Module
    attention_norm: nn.Module | None
    projections: tuple[nn.Module, ...]
    attention_output: nn.Module
    attention_added: nn.Module
    mlp_norm: nn.Module | None
    mlp: nn.Module
    mlp_added: nn.Module

    @property
    def normed_heads(self) -> bool:
        """Whether a norm stands between the output projection and the stream."""
        return self.attention_added is not self.attention_output


@dataclass(frozen=True, eq=False)
class Decoder:
    """A model, as its architecture describes it.

    Attributes:
        blocks: its blocks.
        final_norm: what reads the finished stream.
        heads: query heads of each block.
        key_value_heads: key-value heads of each block.
        parallel: whether the MLP of a block does not read its heads.
    """

    model: LanguageModel
    architecture: Architecture
    blocks: tuple[DecoderBlock, ...]
    final_norm: nn.Module
    heads: int
    key_value_heads: int
    parallel: bool

    @property
    def module(self) -> nn.Module:
        """The user's model."""
        return self.model.module

    def heads_of(self, number: int, width: int) -> Heads:
        """The heads that projection ``number`` of a block makes, from the width of its output.

        Raises:
            ModelError: where the heads do not fill its output.
        """
        if self.architecture.fused is None:
            side = SIDES[number]
            count = self.heads if side == "q" else self.key_value_heads
            columns = self._filled(torch.arange(width), count)
            return Heads((side,) * count, tuple(range(count)), columns)
        counts = (self.heads, self.key_value_heads, self.key_value_heads)
        columns = self._filled(torch.arange(width), sum(counts))
        if self.architecture.fused == "interleaved":
            if self.heads != self.key_value_heads:
                raise ModelError(
                    "Interleaved queries, keys and values go with as many key-value heads as heads."
                )
            columns = columns.reshape(self.heads, 3, -1).transpose(0, 1).flatten(0, 1)
        sides = tuple(side for side, n in zip(SIDES, counts, strict=True) for _ in range(n))
        return Heads(sides, tuple(number for n in counts for number in range(n)), columns)

    def _filled(self, columns: Tensor, count: int) -> Tensor:
        if len(columns) % count:
            raise ModelError(
                f"{count} heads do not fill the {len(columns)} outputs of a projection of {self.model.name}: say heads= and key_value_heads= "
                "in its Architecture."
            )
        return columns.reshape(count, -1)


def decoder_of(model: LanguageModel, architecture: Architecture | None = None) -> Decoder:
    """A model as an architecture describes it; as that of its configuration, unless one is given.

    Raises:
        ModelError: for a model of which there is no description.
        UnknownName: for a name of a module that it does not have.
    """
    described = _described(model) if architecture is None else architecture
    heads = described.heads or _count(model, "num_attention_heads", None)
    key_value = described.key_value_heads or _count(model, "num_key_value_heads", heads)
    listed = submodule(model, model.module, described.blocks, "model")
    blocks = tuple(_block(model, described, block) for block in listed.children())
    if not blocks:
        raise ModelError(f"{described.blocks!r} of {model.name} holds no blocks.")
    final_norm = submodule(model, model.module, described.final_norm, "model")
    parallel = described.parallel
    if isinstance(parallel, str):
        parallel = bool(model.setting(parallel, False))
    return Decoder(model, described, blocks, final_norm, heads, key_value, parallel)


def _described(model: LanguageModel) -> Architecture:
    kind = model.setting("model_type", of=model.module_config)
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"There is no description of {model.name} (model_type {kind!r}) among {', '.join(ARCHITECTURES)}: say which of its modules write "
            "into the residual stream and which read it, with architecture=ig.circuits.Architecture(…)."
        )
    return ARCHITECTURES[kind]


def _count(model: LanguageModel, name: str, default: int | None) -> int:
    count = model.setting(name)
    count = default if count is None else count
    if not isinstance(count, int) or count < 1:
        raise ModelError(
            f"The configuration of {model.name} does not say how many heads a block has ({name}): say heads= in its Architecture."
        )
    return count


def _block(model: LanguageModel, described: Architecture, block: nn.Module) -> DecoderBlock:
    def named(name: str) -> nn.Module:
        return submodule(model, block, name, "block")

    def maybe(name: str | None) -> nn.Module | None:
        return None if name is None else named(name)

    names = dict.fromkeys((described.queries, described.keys, described.values))
    return DecoderBlock(
        block,
        maybe(described.attention_norm),
        tuple(named(name) for name in names),
        named(described.attention_output),
        named(described.attention_added or described.attention_output),
        maybe(described.mlp_norm),
        named(described.mlp),
        named(described.mlp_added or described.mlp),
    )


def submodule(model: LanguageModel, root: nn.Module, name: str, where: str) -> nn.Module:
    """A module of a model by its name.

    Raises:
        UnknownName: where there is none.
    """
    modules: dict[str, nn.Module] = dict(root.named_modules())
    if name not in modules:
        raise UnknownName(f"module of a {where} of {model.name}", name, modules)
    return modules[name]


# --- linear layers ----------------------------------------------------------------------------------------------------


def matrix_of(module: nn.Module, width: int, like: Tensor) -> Tensor:
    """The matrix (out, ``width``) of a linear layer of any make: its derivative, which is exact.

    Raises:
        ModelError: for a layer that has none.
    """
    if is_plain(module):
        return module.weight.detach()
    with torch.enable_grad():
        zeros = like.new_zeros(1, 1, width).requires_grad_()
        count = module(zeros).shape[-1]
        points = like.new_zeros(1, count, width).requires_grad_()
        identity = torch.eye(count, dtype=like.dtype, device=like.device)[None]
        outputs = module(points)
        slopes: tuple[Tensor | None, ...] = (None,)
        if outputs.requires_grad:
            slopes = torch.autograd.grad(outputs, points, identity.to(outputs), allow_unused=True)
    if slopes[0] is None:
        raise ModelError(
            f"A {type(module).__name__} of the Architecture has no gradient, so that its heads cannot be told apart: give the model as it was "
            "before its layers were quantised."
        )
    return slopes[0][0]


def bias_of(module: nn.Module, width: int, like: Tensor) -> Tensor:
    """What a linear layer (out,) makes of nothing."""
    with torch.no_grad():
        bias: Tensor = module(like.new_zeros(1, 1, width))[0, 0]
    return bias


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer does nothing but multiply by its weight: no hook changes it, and nobody has
    put another ``forward`` there, as loaders of weights do."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return type(module) is nn.Linear and not any(hooks) and "forward" not in vars(module)
