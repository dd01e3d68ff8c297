"""Bad input: one sentence each, before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.text.tiny import V, byte_tokenizer, tiny, word_tokenizer

PROMPT = "The capital of France is"
FEW = ig.rules.GaussLegendre(2)
pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")


@pytest.fixture(scope="module")
def bytes_of() -> Any:
    return byte_tokenizer()


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return tiny("gpt2")


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("llama")


NO_TEXT = r"A text is a str, a pair \(text, text\) or a list of messages of a chat, not a "


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, NO_TEXT + "NoneType"),
        (3, NO_TEXT + "int: token ids are explained by ig.text.explain_ids"),
        (b"Rome", NO_TEXT + "bytes"),
        ([PROMPT, None], NO_TEXT + "NoneType"),
        ([3, 4], NO_TEXT + "int: token ids"),
        (torch.tensor([[3, 4]]), NO_TEXT + "Tensor: token ids"),
        (np.array([3, 4]), NO_TEXT + "ndarray: token ids"),
        ("Rome \ud800 is", "holds half of a character at place 5"),
        ("", "The text is empty"),
        ([PROMPT, " \n"], "The text is empty"),
        (("", PROMPT), "The text is empty"),
        ((PROMPT, None), NO_TEXT + "NoneType"),
        ([], "There are no texts"),
    ],
)
def test_what_is_no_text(texts: Any, message: str, llama: Any, bytes_of: Any) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.text.explain(llama, bytes_of, texts, target=" Paris", rule=FEW)


def test_texts_that_are_longer_than_the_context(gpt2: Any, bytes_of: Any) -> None:
    """Sixty-four tokens are read, the last of a continuation excepted."""
    count = 64 - len(bytes_of(PROMPT)["input_ids"])
    fitting = ig.text.Continuation([7] * (count + 1))
    assert ig.text.explain(gpt2, bytes_of, PROMPT, target=fitting, rule=FEW).targets
    longer = ig.text.Continuation([7] * (count + 2))
    with pytest.raises(ig.errors.InputError, match=f"has 6 tokens, and {count + 1} of its target are read behind it, but GPT2LMHeadModel reads 64 at most"):  # fmt: skip
        ig.text.explain(gpt2, bytes_of, PROMPT, target=longer, rule=FEW)
    with pytest.raises(ig.errors.InputError, match="The text has 70 tokens, and GPT2LMHeadModel reads 64"):  # fmt: skip
        ig.text.explain_ids(gpt2, torch.ones(1, 70).long(), target=5)


def test_a_model_writes_as_far_as_it_reads(gpt2: Any) -> None:
    ids = torch.randint(5, V, (1, 62), generator=torch.Generator().manual_seed(0))
    result = ig.text.explain_ids(gpt2, ids, target=None, max_new_tokens=30, rule=FEW, per_token=True, baseline="mean", keep="first")  # fmt: skip
    written: list[int] = []
    for _ in range(3):
        read = torch.cat([ids, torch.tensor([written], dtype=torch.long)], 1)
        written.append(int(gpt2(read).logits[0, -1].argmax()))
    assert [int(name) for name in result.columns[0]] == [t for t in written if t not in (0, 2)]


@pytest.mark.parametrize("most", [0, -3, "3", 2.5])
def test_how_much_a_model_writes(most: Any, gpt2: Any, bytes_of: Any) -> None:
    with pytest.raises(ig.errors.InputError, match="max_new_tokens is"):
        ig.text.explain(gpt2, bytes_of, PROMPT, max_new_tokens=most, rule=FEW)


def test_ids_of_another_table(llama: Any, bytes_of: Any) -> None:
    message = "no token 900 in the embedding table of LlamaForCausalLM, which has 340 rows"
    with pytest.raises(ig.errors.InputError, match=message):
        ig.text.explain_ids(llama, [[4, 900]], target=5)
    with pytest.raises(ig.errors.InputError, match=message):
        ig.text.explain(llama, bytes_of, "Rome", target=" Paris", baseline=ig.text.Corrupt([1, 900]), rule=FEW)  # fmt: skip
    for target in (ig.text.Continuation([5, 900]), ig.text.NextToken(900)):
        with pytest.raises(ig.errors.InputError, match="There is no token 900: the vocabulary has 340"):  # fmt: skip
            ig.text.explain(llama, bytes_of, "Rome", target=target, rule=FEW)


def test_corrupt_texts_of_another_length_or_number(llama: Any, bytes_of: Any) -> None:
    texts = ["Rome is", PROMPT]
    with pytest.raises(ig.errors.BaselineError, match="corrupt text has 3 tokens, and text 1 has 6: tokens are exchanged one for one"):  # fmt: skip
        ig.text.explain(llama, bytes_of, texts, target=" Paris", baseline=ig.text.Corrupt([[1, 9, 9], [1, 9, 9]]), rule=FEW)  # fmt: skip
    with pytest.raises(ig.errors.BaselineError, match="3 corrupt texts for 2 texts"):
        ig.text.explain(llama, bytes_of, texts, target=" Paris", baseline=ig.text.Corrupt([[1, 9, 9]] * 3), rule=FEW)  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[3, 4], [5]], "rows of them of one length: pad shorter ones"),
        (["ab"], "Token ids are whole numbers"),
        ([[3, -4]], "Token ids are 0 or more, and -4 is among them"),
        ([[3.0, 4.0]], "Token ids are whole numbers, not torch.float32"),
        ([[]], "give \\(B, T\\)"),
    ],
)
def test_what_are_no_ids(ids: Any, message: str, llama: Any) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.text.explain_ids(llama, ids, target=5)


# --- models and tokenizers ----------------------------------------------------------------------------------------------


class OfVectors(nn.Module):
    """Takes vectors, and no ids."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(30, 4), nn.Linear(4, 2)

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        return self.head(inputs_embeds.mean(1))


class OfIds(OfVectors):
    """Takes ids, and no vectors: what it reads is exchanged inside it all the same."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return super().forward(self.words(input_ids))


class OfAnother(OfIds):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Embedding(30, 4)
        self.bag = nn.EmbeddingBag(30, 4)


def asked(model: nn.Module, layer: str) -> ig.text.TextAttribution:
    return ig.text.explain_ids(model, [[3, 4]], target=0, embeddings=layer, baseline="mean")


def test_models_without_inputs_embeds_are_explained_and_without_ids_refused() -> None:
    torch.manual_seed(0)
    model = OfIds().double()
    result = asked(model, "words")
    start = model.words.weight.mean(0)
    expected = (model.words(torch.tensor([3, 4])) - start) @ model.head.weight[0] / 2
    torch.testing.assert_close(result.scores[0], expected.detach())
    with pytest.raises(ig.errors.ModelError, match="OfVectors takes vectors \\(inputs_embeds\\) and no token ids"):  # fmt: skip
        asked(OfVectors(), "words")


def test_folders_without_all_the_weights(llama: Any, tmp_path: Path) -> None:
    """A head that was not saved would be drawn by chance, and explained as if it had been learned."""
    llama.model.save_pretrained(tmp_path)  # the decoder alone
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ig.errors.InputError, match=r"lacks weights of its LlamaForSequenceClassification: score\.weight\. Name"):  # fmt: skip
        ig.text.explain_ids(tmp_path, [[3, 4]], target=0)


def test_folders_without_a_pooler_that_nobody_asks(bytes_of: Any, tmp_path: Path) -> None:
    """Models with a head of their own are saved without it; what else they say is as it was."""
    bert = tiny("bert-tags").bert.float()
    bert.save_pretrained(tmp_path)

    def first(outputs: Any) -> torch.Tensor:
        hidden: torch.Tensor = outputs.last_hidden_state[:, 0, 0]
        return hidden

    by_folder = ig.text.explain_ids(tmp_path, [[3, 4, 5]], target=first)
    by_object = ig.text.explain_ids(bert, [[3, 4, 5]], target=first)
    torch.testing.assert_close(by_folder.scores[0], by_object.scores[0])


def test_classes_of_one_name_are_counted_one_by_one() -> None:
    bert = tiny("bert")
    bert.config.id2label = {0: "other", 1: "other", 2: "glad"}
    rule = ig.rules.GaussLegendre(2)
    last, third = (
        ig.text.explain_ids(bert, [[3, 4, 5]], target=target, rule=rule).attribution.output
        for target in (-1, 2)
    )
    logits = bert(torch.tensor([[3, 4, 5]])).logits.detach()
    assert float(third) == pytest.approx(float(logits[0, 2]))
    assert torch.equal(last, third)


def test_words_asked_of_a_model_without_a_head(llama: Any, bytes_of: Any) -> None:
    with pytest.raises(ig.errors.TargetError, match="LlamaModel neither writes nor classifies, so that there is no ' Paris'"):  # fmt: skip
        ig.text.explain(llama.model, bytes_of, PROMPT, target=" Paris")


def test_layers_that_make_no_vectors() -> None:
    with pytest.raises(ig.errors.ModelError, match="does not run the layer that it says makes its vectors"):  # fmt: skip
        asked(OfAnother(), "unused")
    with pytest.raises(ig.errors.ModelError, match="EmbeddingBag, does not make a vector of each"):
        asked(OfAnother(), "bag")


@pytest.mark.parametrize("ids", [[[3, 4, 5]], [[3, 4, 5], [6, 7, 8], [9, 8, 7]]])
def test_models_that_rearrange_ids_before_they_look_them_up(ids: list[list[int]]) -> None:
    """XLNet wants tokens first; where there are as many texts as tokens, no shape tells."""
    transformers = pytest.importorskip("transformers")
    config = transformers.XLNetConfig(
        vocab_size=V, d_model=16, n_layer=2, n_head=2, d_inner=32, num_labels=3
    )
    model = transformers.XLNetForSequenceClassification(config).eval()
    with pytest.raises(ig.errors.ModelError, match="rearranges token ids before it looks up"):
        ig.text.explain_ids(model, torch.tensor(ids), target=1, rule=FEW)


def test_what_is_no_tokenizer(llama: Any) -> None:
    with pytest.raises(ig.errors.InputError, match="The tokenizer is a int: give the one of the model"):  # fmt: skip
        ig.text.explain(llama, 3, PROMPT, target=" Paris")  # type: ignore[arg-type]
    with pytest.raises(ig.errors.InputError, match="There is no folder 'x': models and tokenizers"):
        ig.text.explain(llama, "x", PROMPT, target=" Paris")
    with pytest.raises(ig.errors.InputError, match="makes no text of these messages"):
        ig.text.explain(llama, word_tokenizer(), [{"role": "user", "content": "Rome"}], target=" a")
