"""Small random models of every kind, and tokenizers made of a few lines: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

V = 340
_SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}  # fmt: skip
_GROUPED = {**_SIZE, "num_key_value_heads": 2}
_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip

_T5: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2}
_T5["feed_forward_proj"] = "gated-gelu"  # without kinks

MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=V, **_GPT2)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=V, **_GROUPED)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(vocab_size=V, **_GROUPED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(vocab_size=V, **_GROUPED, head_dim=8)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(vocab_size=V, **_GROUPED, head_dim=8)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=V, **_GROUPED, head_dim=8)),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=V, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, **_T5)
    ),
    "bert": lambda: BertForSequenceClassification(
        BertConfig(vocab_size=V, **_SIZE, num_labels=3, id2label={0: "calm", 1: "glad", 2: "sad"})
    ),
    "roberta": lambda: RobertaForSequenceClassification(
        RobertaConfig(vocab_size=V, **_SIZE, max_position_embeddings=40)
    ),
    "bert-masked": lambda: BertForMaskedLM(BertConfig(vocab_size=V, **_SIZE)),
    "bert-tags": lambda: BertForTokenClassification(BertConfig(vocab_size=V, **_SIZE)),
    "gpt2-classes": lambda: GPT2ForSequenceClassification(
        GPT2Config(vocab_size=V, **_GPT2, num_labels=3)
    ),
}


def tiny(name: str, *, scale: float = 4.0, dtype: torch.dtype = torch.float64) -> Any:
    """A random model, its weights large enough that its outputs say something."""
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3 if name == "t5" else scale)
    return model


LINES = [
    "The capital of France is Paris, in Europe.",
    "The capital of Italy is Rome.",
    "Rome is old. Paris is big!",
    "What is this? system user assistant",
] * 3
CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def byte_tokenizer() -> Any:
    """Byte-level pairs, with a token in front of every text and a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=V,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=CHAT)  # fmt: skip


def word_tokenizer() -> Any:
    """Whole words between [CLS] and [SEP], two texts told apart by their types."""
    words = sorted(
        {w for line in LINES for w in line.replace(",", " ,").replace(".", " .").split()}
    )
    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", unk_token="[UNK]")  # fmt: skip


def integral(function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor) -> Tensor:
    """(end − start) ⊙ ∫₀¹ ∇function dt by 24 panels of Gauss–Legendre rules of 8 nodes; the function takes
    points (N, T, D) to (N,)."""
    places, weights = np.polynomial.legendre.leggauss(8)
    panels = np.arange(24)[:, None]
    times = torch.tensor(((panels + (places + 1) / 2) / 24).ravel())
    shares = torch.tensor(np.tile(weights / 48, 24))
    points = (start + times[:, None, None] * (end - start)).requires_grad_()
    (slopes,) = torch.autograd.grad(function(points).sum(), points)
    return (shares[:, None, None] * slopes).sum(0, keepdim=True) * (end - start)
