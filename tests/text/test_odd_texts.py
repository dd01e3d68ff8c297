"""Texts, options and models that are odd but allowed, and those that one sentence refuses."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

import integrand as ig
from tests.text.tiny import V, byte_tokenizer, integral, tiny

FEW = ig.rules.GaussLegendre(4)
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def words() -> Any:
    return byte_tokenizer()


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("llama")


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Four nodes miss what they miss."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        warnings.simplefilter("ignore", ig.errors.FitnessWarning)
        yield


# --- fitness ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("by_object", [False, True])
def test_fitness_counts_the_tokens_of_each_text(name: str, by_object: bool, words: Any) -> None:
    """Texts of 2, 11 and 12 tokens: the longer two share a pack in which one is padded."""
    model = tiny(name)
    texts = [
        "Rome",
        "The capital of Italy is Rome. Paris is old",
        "The capital of Italy is Rome. Paris is old is",
    ]
    method: Any = ig.methods.weighted(0.0, rule=FEW, fill=0.0) if by_object else "weighted"
    options: dict[str, Any] = {"target": "predicted", "method": method, "baseline": ig.text.Sampled(4)}  # fmt: skip
    if not by_object:
        options["rule"] = FEW
    batch = ig.text.explain(model, words, texts, **options)
    for i, text in enumerate(texts):
        single = ig.text.explain(model, words, text, **options)
        fitness = single.attribution.fitness
        assert fitness is not None
        assert batch.attribution.fitness is not None
        assert torch.equal(batch.attribution.fitness[:, i], fitness[:, 0])
        torch.testing.assert_close(batch.scores[i], single.scores[0], rtol=1e-9, atol=1e-12)
    assert "the fewest of 12 tokens" in batch.attribution.criterion


def test_fitness_of_padded_ids_is_the_rank_that_halves_by_hand(words: Any) -> None:
    """D of Fitness, counted by removing tokens one after the other, of a row with padding in front."""
    model = tiny("qwen2")
    ids = list(words("The capital of Italy is Rome. Paris is old")["input_ids"])
    other = list(words("The capital of Italy is Rome. Paris is old is")["input_ids"])
    rows = torch.tensor([[0] * (len(other) - len(ids)) + ids, other])
    mask = torch.ones_like(rows)
    mask[0, : len(other) - len(ids)] = 0
    result = ig.text.explain_ids(model, rows, attention_mask=mask, target="predicted", tokenizer=words, keep="special", method="weighted", baseline=ig.text.Sampled(4), rule=FEW, fill=0.0)  # fmt: skip
    attribution: Any = result.attribution
    table = model.get_input_embeddings()
    vectors = table(torch.tensor([ids])).detach()
    chosen = int(model(inputs_embeds=vectors).logits[0, -1].argmax())

    def probability(kept: list[int]) -> float:
        changed = torch.zeros_like(vectors)
        changed[0, [0, *kept]] = vectors[0, [0, *kept]]  # the first token stays whatever is removed
        return float(model(inputs_embeds=changed).logits[0, -1].softmax(-1)[chosen].detach())

    whole = probability(list(range(len(ids))))
    gap = len(other) - len(ids)
    for r in range(4):
        scores = attribution.shares[r, 0, gap:].sum(-1)
        order = scores.argsort(descending=True, stable=True).tolist()
        halving = next(
            (k for k in range(1, len(ids) + 1) if probability(order[k:]) <= whole / 2), len(ids)
        )
        assert int(attribution.fitness[r, 0]) == halving


@pytest.mark.parametrize("method", ["smoothgrad", "guided", "baseline_shapley", "integrated"])
def test_methods_that_draw_and_search_meet_no_padding(method: str, words: Any) -> None:
    """Texts of 11 and 12 tokens, which share calls where that changes nothing."""
    model = tiny("qwen2")
    texts = ["The capital of Italy is Rome. Paris is old", "The capital of Italy is Rome. Paris is old is"]  # fmt: skip
    options: dict[str, Any] = {"target": "predicted", "method": method, "seed": 3}
    batch = ig.text.explain(model, words, texts, **options)
    for i, text in enumerate(texts):
        single = ig.text.explain(model, words, text, **options)
        torch.testing.assert_close(batch.scores[i], single.scores[0], rtol=1e-9, atol=1e-12)


WEIGHTED = ig.methods.weighted(0.0, rule=FEW, fill=0.0)
OF_UNLIKE_LENGTH = [
    "The capital of Italy is Rome. Paris is old",
    "Rome",
    "The capital of Italy is Rome. Paris is old is",
    "The capital of France is",
    "The capital of Italy is",
    "Paris",
]


@pytest.mark.parametrize(
    "method",
    [
        ig.SmoothGrad(WEIGHTED, draws=3),
        ig.SmoothGrad(ig.methods.integrated(0.0, rule=FEW), draws=3),
        ig.methods.ig2(0.0, steps=4),
        ig.methods.guided(0.0, steps=4),
        WEIGHTED,
    ],
    ids=["smoothgrad of weighted", "smoothgrad", "ig2", "guided", "weighted"],
)
def test_methods_that_are_objects_meet_no_padding(method: Any, words: Any) -> None:
    """Nor do wrappers, whose draws would be scaled to what padding holds."""
    model = tiny("qwen2")
    options: dict[str, Any] = {"target": "predicted", "method": method, "baseline": ig.text.Sampled(4)}  # fmt: skip
    batch = ig.text.explain(model, words, OF_UNLIKE_LENGTH, **options)
    for i, text in enumerate(OF_UNLIKE_LENGTH):
        single = ig.text.explain(model, words, text, **options)
        torch.testing.assert_close(batch.scores[i], single.scores[0], rtol=1e-9, atol=1e-12)


def test_a_batch_of_counterfactual_paths_is_what_single_runs_are(words: Any) -> None:
    """Two texts of one length, whose continuations have different ones: a representation is that
    of the places where its text is asked."""
    model = tiny("qwen2")
    targets = [" is", " Rome is old.", " Rome", " Paris, in", " Rome", " is"]
    for baseline in ("mean", ig.text.Sampled(2)):
        options: dict[str, Any] = {"method": "ig2", "baseline": baseline, "steps": 4}
        batch = ig.text.explain(model, words, OF_UNLIKE_LENGTH, target=targets, **options)
        for i, (text, target) in enumerate(zip(OF_UNLIKE_LENGTH, targets, strict=True)):
            single = ig.text.explain(model, words, text, target=target, **options)
            torch.testing.assert_close(batch.scores[i], single.scores[0], rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(batch.attribution.residual[i], single.attribution.residual[0], rtol=1e-9, atol=1e-12)  # fmt: skip


def test_methods_that_hold_numbers_of_slots_or_are_the_users_see_all_texts_at_once(
    words: Any,
) -> None:
    """Their numbers, here how wide noise is at every slot, would fit no pack."""
    inner = ig.methods.integrated(0.0, rule=FEW)
    texts = OF_UNLIKE_LENGTH[:2]
    longest = len(words(texts[0])["input_ids"])

    seen: list[tuple[int, ...]] = []

    @dataclass(frozen=True)
    class Own:
        method: Any

        def __call__(self, field: Any, x: torch.Tensor, *, watch: Any = None) -> Any:
            seen.append(tuple(x.shape[:2]))
            return self.method(field, x, watch=watch)

    for method in (
        Own(inner),
        ig.SmoothGrad(inner, draws=2, sigma=torch.full((longest, 16), 0.01)),
    ):
        result = ig.text.explain(tiny("qwen2"), words, texts, target="predicted", method=method)
        assert [len(scores) for scores in result.scores] == [longest, 2]
    assert seen == [(2, longest)]


# --- chats ------------------------------------------------------------------------------------------------------------


def test_a_message_that_says_what_the_template_says(llama: Any, words: Any) -> None:
    for content in ("user", "s", "a", "\nuser "):
        chat = [{"role": "user", "content": content}, {"role": "system", "content": "assistant"}]
        result = ig.text.explain(llama, words, chat, target=" Paris", rule=FEW, granularity="message")  # fmt: skip
        text = result.texts[0]
        # The template writes <s>role, a line, the content, </s>; roles are not what people say.
        first = len("<s>user\n") + len(content) - len(content.lstrip())
        second = len(f"<s>user\n{content}</s><s>system\n")
        spans = [(piece.start, piece.stop) for piece in text.messages]
        assert spans == [(first, first + len(content.strip())), (second, second + 9)]
        moving = {i for i, kept in enumerate(result.kept[0]) if not kept}
        inside = {
            i
            for i, (a, b) in enumerate(text.offsets)
            if any(max(a, start) < min(b, stop) for start, stop in spans)
        }
        assert moving == inside


def test_a_template_that_looks_at_what_is_said(llama: Any) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<s>{% if 'Rome' in m['content'] %}Italy: {% endif %}{{ m['content'] }}</s>{% endfor %}"  # fmt: skip
    chat = [{"role": "user", "content": "Rome is old."}]
    result = ig.text.explain(llama, tokenizer, chat, target=" Paris", rule=FEW)
    (piece,) = result.texts[0].messages
    assert result.texts[0].text[piece.start : piece.stop] == "Rome is old."
    assert piece.start == len("<s>Italy: ")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{% for m in messages %}{{ m['content'] ", "unexpected end of template"),
        ("{{ messages[5]['content'] }}", "no element 5"),
        ("{{ messages[0]['content'] + 3 }}", "can only concatenate str"),
    ],
)
def test_templates_that_refuse_a_chat(template: str, said: str, llama: Any) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    chat = [{"role": "system", "content": "Rome is old."}]
    with pytest.raises(ig.errors.InputError, match=rf"no text of these messages: .*{said}.*\. Give the prompt"):  # fmt: skip
        ig.text.explain(llama, tokenizer, chat, target=" Paris")


# --- what a model writes ----------------------------------------------------------------------------------------------


def test_token_0_is_a_word_where_nothing_says_that_it_is_padding() -> None:
    model = tiny("gpt2")
    model.config.pad_token_id = None
    ids = torch.tensor([[5, 6, 7]])
    model.generate = lambda **options: torch.tensor([[5, 6, 7, 9, 0, 11, 2]])
    result = ig.text.explain_ids(model, ids, target=None, baseline="mean", rule=FEW)
    assert result.targets == ("log-probability of '9 0 11'",)
    logits = model(torch.tensor([[5, 6, 7, 9, 0]])).logits[0, 2:].log_softmax(-1)
    expected = sum(logits[i, token] for i, token in enumerate((9, 0, 11)))
    torch.testing.assert_close(result.attribution.output[0], expected.detach())


def test_a_decoder_reads_so_many_tokens() -> None:
    size = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}  # fmt: skip
    torch.manual_seed(0)
    config = BartConfig(vocab_size=V, d_model=16, max_position_embeddings=12, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None, **size)  # fmt: skip
    model = BartForConditionalGeneration(config).double().eval()
    ids, answer = torch.tensor([[5, 6, 7, 8]]), (7, 30, 9)
    result = ig.text.explain_ids(model, ids, target=ig.text.Continuation(answer), baseline="mean", rule=ig.rules.GaussLegendre(24))  # fmt: skip
    table = model.get_encoder().get_input_embeddings()
    end = table(ids).detach()
    start = table(torch.arange(V)).detach().mean(0).expand_as(end)

    def function(vectors: Any) -> Any:
        read = torch.tensor([[2, *answer[:-1]]]).expand(len(vectors), -1)
        steps = model(inputs_embeds=vectors, decoder_input_ids=read, use_cache=False).logits
        return sum(steps.log_softmax(-1)[:, i, token] for i, token in enumerate(answer))

    truth = integral(function, start, end)[0].sum(-1)
    torch.testing.assert_close(result.scores[0], truth, rtol=1e-6, atol=1e-9)
    ig.text.explain_ids(model, ids, target=ig.text.Continuation((7,) * 12), baseline="mean", rule=FEW)  # fmt: skip
    with pytest.raises(ig.errors.InputError, match="The target has 13 tokens, and the decoder of BartForConditionalGeneration reads 12 at most"):  # fmt: skip
        ig.text.explain_ids(model, ids, target=ig.text.Continuation((7,) * 13), baseline="mean")


# --- tokens that are kept ---------------------------------------------------------------------------------------------


def test_masks_of_kept_tokens_for_texts_of_unlike_length(llama: Any, words: Any) -> None:
    texts = [PROMPT, "Rome is"]
    masks = [[True, False, True, False, False, False], [True, False, False]]
    for keep in (masks, [torch.tensor(mask) for mask in masks], [[0, 2], [0]]):
        result = ig.text.explain(llama, words, texts, target=" Paris", keep=keep, rule=FEW)
        assert [list(kept) for kept in result.kept] == masks
    ids = torch.tensor([words(texts[0])["input_ids"], [0] * 3 + words(texts[1])["input_ids"]])
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    slots = torch.tensor([masks[0], [False] * 3 + masks[1]])
    padded = ig.text.explain_ids(llama, ids, attention_mask=mask, target=ig.text.Continuation((7,)), keep=slots, rule=FEW)  # fmt: skip
    assert [list(kept) for kept in padded.kept] == masks
    assert float(padded.scores[1][0]) == 0 != float(padded.scores[1][1])


def test_corrupt_texts_are_counted_by_what_moves(llama: Any, words: Any) -> None:
    ids = list(words(PROMPT)["input_ids"])
    first = [3, *ids[1:]]
    with pytest.raises(ig.errors.BaselineError, match="differs in tokens that are kept in place only"):  # fmt: skip
        ig.text.explain(llama, words, PROMPT, target=" Paris", baseline=ig.text.Corrupt(first), rule=FEW)  # fmt: skip
    both = [3, ids[1], 9, *ids[3:]]
    with pytest.warns(ig.errors.OneTokenWarning, match="differs from text 0 in one token"):
        result = ig.text.explain(llama, words, PROMPT, target=" Paris", baseline=ig.text.Corrupt(np.array(both)), rule=FEW)  # fmt: skip
    assert [float(score) != 0 for score in result.scores[0]] == [False, False, True] + [False] * 3


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": " \ud800"}, "half of a character at place 25"),
        ({"target": ig.text.NextToken("\ud800")}, "half of a character at place 0"),
        ({"sources": "The capital"}, "sources= is a list of pieces of the prompt, not 'The capital'"),
        ({"sources": 5}, "sources= is a list of pieces of the prompt, not 5"),
        ({"sources": [1, 2]}, "Source 1 is a piece of the prompt, not 1"),
        ({"keep": [[True], [False]]}, "There are 2 lists of tokens to keep for 1 texts"),
        ({"keep": ["first"]}, r"keep is words joined by '\+', .* not \['first'\]"),
        ({"keep": [0.5]}, r"keep is words joined by '\+', .* not \[0\.5\]"),
        ({"baseline": []}, "The list of baselines is empty"),
        ({"baseline": ig.text.Corrupt([[]])}, "The chat is empty"),
    ],
)  # fmt: skip
def test_options_of_texts(options: dict[str, Any], message: str, llama: Any, words: Any) -> None:
    with pytest.raises(ig.errors.IntegrandError, match=message):
        ig.text.explain(llama, words, PROMPT, **{"target": " Paris", "rule": FEW, **options})


@pytest.mark.parametrize("pad", [-1, 9999])
def test_padding_that_the_table_does_not_hold(pad: int) -> None:
    model = tiny("llama")
    model.config.pad_token_id = pad
    with pytest.raises(ig.errors.BaselineError, match=f"The pad token is {pad}, and the embedding table of LlamaForCausalLM has 340 rows"):  # fmt: skip
        ig.text.explain_ids(model, [[5, 6]], target=ig.text.Continuation((7,)), baseline="pad")


@pytest.mark.parametrize("mask", [[[1], [1, 1]], "abc", [[0.5, 1, 1]]])
def test_masks_of_ids(mask: Any, llama: Any) -> None:
    with pytest.raises(ig.errors.InputError, match=r"attention_mask holds (a )?whole number"):
        ig.text.explain_ids(llama, [[5, 6, 7]], attention_mask=mask, target=ig.text.Continuation(7))


@pytest.mark.parametrize("tokens", [b"x", [1.5], 3.5, True, torch.tensor([1.5]), ["a", 3]])
def test_continuations_that_are_neither_words_nor_tokens(tokens: Any) -> None:
    with pytest.raises(ig.errors.TargetError, match="words, or whole numbers of tokens"):
        ig.text.Continuation(tokens)
    assert ig.text.Continuation(np.array([5, 6])) == ig.text.Continuation((5, 6))
    assert ig.text.Continuation(torch.tensor([5])) == ig.text.Continuation(5)


def test_pools_and_prompts_of_the_wrong_kind(llama: Any, words: Any) -> None:
    with pytest.raises(ig.errors.BaselineError, match=re.escape("pool=['abc']")):
        ig.text.Sampled(2, pool="abc")
    chat: Any = [{"role": "user", "content": "Rome is old. Paris is big"}]
    with pytest.raises(ig.errors.InputError, match="The prompt that sources are taken out of is a str, not a list"):  # fmt: skip
        ig.text.without_sources(llama, words, chat, ["Rome is old."], target=" Paris")
    with pytest.raises(ig.errors.InputError, match="sources= is a list of pieces"):
        ig.text.without_sources(llama, words, "Rome is old.", "Rome", target=" Paris")


def test_nothing_is_held_against_itself(llama: Any, words: Any) -> None:
    ids = torch.tensor([words(PROMPT)["input_ids"]])
    predicted = int(llama(ids).logits[0, -1].argmax())
    for target in (
        ig.text.NextToken("P", against="P"),
        ig.text.NextToken(against=predicted),
        ig.text.Continuation(" Paris", against=" Paris"),
    ):
        with pytest.raises(ig.errors.TargetError, match="is held against itself, which is 0"):
            ig.text.explain(llama, words, PROMPT, target=target)


def test_the_command_line_warns_in_lines(llama: Any, words: Any, tmp_path: Path) -> None:
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from integrand.cli.app import app

    llama.save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    typed = ["explain", "--text", PROMPT, "--model", f"hf:{tmp_path / 'model'}", "--target-text", " Paris", "--nodes", "1", "--out", str(tmp_path / "out")]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("always", ig.errors.IncompleteWarning)
        done = CliRunner().invoke(app, typed)
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.output.splitlines() if "miss more than a tenth" in line]
    assert line.startswith("Warning: 1 of 1 maps miss")
    assert ".py:" not in line
