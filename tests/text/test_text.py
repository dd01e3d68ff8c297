"""The door: what goes in as text, what is asked, where paths begin, what stays, and what comes back."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import integrand as ig
from integrand.report.text import terminal
from tests.text.tiny import byte_tokenizer, tiny, word_tokenizer

PROMPT = "The capital of France is"
FEW = ig.rules.GaussLegendre(4)  # too few for maps that add up: most tests are not about that
pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")


@pytest.fixture(scope="module")
def bytes_of() -> Any:
    return byte_tokenizer()


@pytest.fixture(scope="module")
def words_of() -> Any:
    return word_tokenizer()


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("llama")


@pytest.fixture(scope="module")
def bert() -> Any:
    return tiny("bert")


def total(result: ig.text.TextAttribution) -> torch.Tensor:
    return torch.stack([scores.sum() for scores in result.scores]) + result.attribution.residual


# --- texts ------------------------------------------------------------------------------------------------------------


def test_tokens_words_and_offsets(llama: Any, bytes_of: Any) -> None:
    result = ig.text.explain(llama, bytes_of, [PROMPT, "Rome is"], target=[" Paris", " old."])
    ids = bytes_of(PROMPT)["input_ids"]
    assert result.tokens[0] == bytes_of.convert_ids_to_tokens(ids)
    assert [len(scores) for scores in result.scores] == [len(ids), 3]
    words = result.words()
    assert [word.text for word in words[0]] == ["<s>", *PROMPT.split()]
    for (start, stop), token in zip(result.offsets[0][1:], result.tokens[0][1:], strict=True):
        assert PROMPT[start:stop].strip() == token.lstrip("Ġ")
    for by_word, scores in zip(words, result.scores, strict=True):
        assert sum(word.score for word in by_word) == pytest.approx(float(scores.sum()))
    change = result.attribution.output - result.attribution.base
    torch.testing.assert_close(total(result), change)
    assert result.targets == ("log-probability of ' Paris'", "log-probability of ' old.'")
    second = result[1]
    assert len(second) == 1
    assert second.tokens == [result.tokens[1]]
    assert torch.equal(second.scores[0], result.scores[1])


def test_words_are_sums_of_the_tokens_that_stand_in_them(llama: Any, bytes_of: Any) -> None:
    text = "Unbelievable,  Rome\nis 永遠の old."
    result = ig.text.explain(llama, bytes_of, text, target=" Paris", rule=FEW)
    (words,), (tokens,) = result.words(), result.scores
    expected = ["<s>", "Unbelievable,", "Rome", "is", "永", "遠", "の", "old."]
    assert [word.text for word in words] == expected
    spans = [text.index(word) for word in expected[1:]]
    slow = [0.0] * len(spans)
    for (a, _), score in zip(result.offsets[0][1:], tokens[1:].tolist(), strict=True):
        rest = text[a:]
        first = a + len(rest) - len(rest.lstrip())  # where something is to be seen
        slow[max(i for i, s in enumerate(spans) if s <= max(first, spans[0]))] += score
    assert [word.score for word in words[1:]] == pytest.approx(slow)


def test_messages_and_the_template_of_a_chat(llama: Any, bytes_of: Any) -> None:
    chat = [{"role": "system", "content": "Rome is old."}, {"role": "user", "content": "What is the capital of France?"}]  # fmt: skip
    result = ig.text.explain(llama, bytes_of, chat, target="Paris", rule=FEW)
    text = bytes_of.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert result.texts[0].text == text
    kept = "".join(result.texts[0].shown(i) for i, stays in enumerate(result.kept[0]) if stays)
    assert kept == text.replace("Rome is old.", "").replace("What is the capital of France?", "")
    assert all(float(s) == 0 for s, stays in zip(result.scores[0], result.kept[0], strict=True) if stays)  # fmt: skip
    messages = result.by("message")
    assert messages.tokens == [["system", "user", "everything else"]]
    assert float(messages.scores[0].sum()) == pytest.approx(float(result.scores[0].sum()))
    assert float(messages.scores[0][2]) == 0
    # A list of chats is several.
    both = ig.text.explain(llama, bytes_of, [chat, chat[1:]], target="Paris", rule=FEW)
    torch.testing.assert_close(both.scores[0], result.scores[0])
    single = ig.text.explain(llama, bytes_of, chat[1:], target="Paris", rule=FEW)
    torch.testing.assert_close(both.scores[1], single.scores[0])


def test_sources_and_sentences(llama: Any, bytes_of: Any) -> None:
    sources = ["Rome is old.", "Paris is big!"]
    prompt = f"{sources[0]} {sources[1]} What is this?"
    result = ig.text.explain(llama, bytes_of, prompt, target=" Paris", sources=sources, granularity="source", rule=FEW)  # fmt: skip
    assert result.tokens == [["source 1", "source 2", "everything else"]]
    by_sentence = result.by("sentence")
    assert by_sentence.tokens == [["<s>", *sources, "What is this?"]]
    torch.testing.assert_close(by_sentence.scores[0][1:], result.scores[0])
    names = [text for text, _ in result.top(1)[0]]
    assert names == [result.tokens[0][int(result.scores[0].abs().argmax())]]


def test_pairs_keep_their_types(bert: Any, words_of: Any) -> None:
    pair = ("Rome is old.", "Paris is big!")
    result = ig.text.explain(bert, words_of, pair, target="glad", rule=FEW)
    output = words_of(*pair, return_token_type_ids=True)
    assert result.texts[0].types == tuple(output["token_type_ids"])
    plain = bert(**{name: torch.tensor([output[name]]) for name in ("input_ids", "token_type_ids")})
    torch.testing.assert_close(result.attribution.output, plain.logits[:, 1].detach())
    assert [w.text for w in result.words()[0]] == ["[CLS]", "Rome", "is", "old.", "[SEP]", "Paris", "is", "big!", "[SEP]"]  # fmt: skip


# --- targets ----------------------------------------------------------------------------------------------------------


def test_classes_by_name_number_and_prediction(bert: Any, words_of: Any) -> None:
    texts = ["Rome is old.", "Paris is big!", "What is this?"]
    logits = torch.cat([bert(torch.tensor([words_of(text)["input_ids"]])).logits for text in texts])
    named = ig.text.explain(bert, words_of, texts, target="Glad", rule=FEW)
    torch.testing.assert_close(named.attribution.output, logits[:, 1].detach())
    assert named.targets[0] == "logit of glad"
    guessed = ig.text.explain(bert, words_of, texts, rule=FEW)
    torch.testing.assert_close(guessed.attribution.output, logits.amax(1).detach())
    each = ig.text.explain(bert, words_of, texts, target=["sad", 0, "glad"], rule=FEW)
    torch.testing.assert_close(each.attribution.output, logits[range(3), [2, 0, 1]].detach())
    margin = ig.text.explain(bert, words_of, texts, target=ig.targets.Margin(1, 2), rule=FEW)
    torch.testing.assert_close(margin.attribution.output, (logits[:, 1] - logits[:, 2]).detach())
    free = ig.text.explain(bert, words_of, texts, target=lambda out: out.logits[:, 2], rule=FEW)
    torch.testing.assert_close(free.attribution.output, logits[:, 2].detach())


def test_what_the_model_writes_is_the_target_where_none_is_given(llama: Any, bytes_of: Any) -> None:
    result = ig.text.explain(llama, bytes_of, PROMPT, max_new_tokens=3, rule=FEW)
    ids = torch.tensor([bytes_of(PROMPT)["input_ids"]])
    written = []
    for _ in range(3):
        written.append(int(llama(torch.cat([ids, torch.tensor([written], dtype=torch.long)], 1)).logits[0, -1].argmax()))  # fmt: skip
    assert 0 not in written
    assert 2 not in written
    same = ig.text.explain(llama, bytes_of, PROMPT, target=ig.text.Continuation(written), rule=FEW)
    torch.testing.assert_close(result.scores[0], same.scores[0])
    first = ig.text.explain(llama, bytes_of, PROMPT, target="predicted", rule=FEW)
    top = ig.text.explain(llama, bytes_of, PROMPT, target=ig.text.NextToken(written[0]), rule=FEW)
    torch.testing.assert_close(first.scores[0], top.scores[0])


def test_next_tokens_and_their_scores(llama: Any, bytes_of: Any) -> None:
    ids = bytes_of(PROMPT)["input_ids"]
    logits = llama(torch.tensor([ids])).logits[0, -1].detach()
    paris = bytes_of(" Paris", add_special_tokens=False)["input_ids"]
    rome = bytes_of(" Rome", add_special_tokens=False)["input_ids"]
    assert len(paris) == len(rome) == 1
    expected = {
        "log-probability": logits.log_softmax(0)[paris[0]],
        "logit": logits[paris[0]],
        "probability": logits.softmax(0)[paris[0]],
    }
    for score, value in expected.items():
        target = ig.text.NextToken(" Paris", score=score)
        result = ig.text.explain(llama, bytes_of, PROMPT, target=target, rule=FEW)
        torch.testing.assert_close(result.attribution.output[0], value)
    target = ig.text.NextToken(" Paris", against=" Rome")
    result = ig.text.explain(llama, bytes_of, PROMPT, target=target, rule=FEW)
    torch.testing.assert_close(result.attribution.output[0], logits[paris[0]] - logits[rome[0]])


def test_several_continuations_of_several_lengths_against_others(llama: Any, bytes_of: Any) -> None:
    pairs = [(" Paris, in", " Rome"), (" Paris", " Rome"), (" old", " big!")]
    texts = [PROMPT, "Rome is", "The capital of Italy is"]
    targets = [ig.text.Continuation(a, against=b) for a, b in pairs]
    batch = ig.text.explain(llama, bytes_of, texts, target=targets, rule=FEW)
    for i, text in enumerate(texts):
        single = ig.text.explain(llama, bytes_of, text, target=targets[i], rule=FEW)
        torch.testing.assert_close(batch.scores[i], single.scores[0])


def test_tags_of_every_token(words_of: Any) -> None:
    model = tiny("bert-tags")
    text = "Rome is old."
    result = ig.text.explain(model, words_of, text, target="predicted", per_token=True, rule=FEW)
    logits = model(torch.tensor([words_of(text)["input_ids"]])).logits[0].detach()
    assert result.matrix[0].shape == (4, 6)
    torch.testing.assert_close(result.attribution.output[0], logits[1:-1].amax(-1).sum())
    named = ig.text.explain(model, words_of, text, target=(1, "LABEL_1"), rule=FEW)
    torch.testing.assert_close(named.attribution.output[0], logits[1, 1])
    masked = ig.text.explain(
        tiny("bert-masked"), words_of, "Rome is [MASK].", target="old", rule=FEW
    )
    assert masked.kept_tokens() == ["[CLS]", "[MASK]", "[SEP]"]


@pytest.mark.usefixtures("quiet")
def test_weighted_gradients_measure_fitness_on_the_probability(bytes_of: Any) -> None:
    model = tiny("gpt2", scale=12.0)
    result = ig.text.explain(model, bytes_of, PROMPT, target="predicted", method="weighted", baseline=["mean", "pad"], rule=FEW)  # fmt: skip
    assert result.attribution.weights.shape == (2, 1)
    torch.testing.assert_close(
        result.attribution.weights.sum(0), torch.ones(1, dtype=torch.float64)
    )
    assert result.attribution.names == ("mean embedding", "pad embedding")


# --- where paths begin, and what stays --------------------------------------------------------------------------------


def test_baselines_in_words_are_vectors(llama: Any, bytes_of: Any) -> None:
    table = llama.get_input_embeddings().weight.detach()
    words = {"mean": table.mean(0), "zero": torch.zeros(16).double(), "pad": table[0]}
    for word, vector in words.items():
        result = ig.text.explain(llama, bytes_of, PROMPT, target=" Paris", baseline=word, rule=FEW)
        given = ig.text.explain(llama, bytes_of, PROMPT, target=" Paris", baseline=vector, rule=FEW)
        start = result.attribution.baselines[0, 0]
        torch.testing.assert_close(start[1:], vector.expand(5, 16))
        torch.testing.assert_close(start[0], table[1])
        torch.testing.assert_close(result.scores[0], given.scores[0])


def test_scaled_embeddings_begin_at_scaled_vectors(bytes_of: Any) -> None:
    model = tiny("gemma3")
    scaled = model.get_input_embeddings()(torch.arange(340)).detach()
    assert float(
        scaled.norm() / model.get_input_embeddings().weight.detach().norm()
    ) == pytest.approx(4, rel=0.01)
    result = ig.text.explain(model, bytes_of, PROMPT, target=" Paris", rule=FEW)
    torch.testing.assert_close(result.attribution.baselines[0, 0, 1:], scaled.mean(0).expand(5, 16))
    assert torch.equal(result.attribution.inputs[0], scaled[bytes_of(PROMPT)["input_ids"]])


def test_a_corrupt_text(llama: Any, bytes_of: Any) -> None:
    other = "The capital of Italy is"
    with pytest.warns(ig.errors.OneTokenWarning, match="one token, 'ĠFrance'"):
        result = ig.text.explain(llama, bytes_of, PROMPT, target=" Paris", baseline=ig.text.Corrupt(other), rule=FEW)  # fmt: skip
    assert [float(s) != 0 for s in result.scores[0]] == [False] * 4 + [True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ig.errors.OneTokenWarning)
        ids = list(bytes_of(other)["input_ids"])
        ids[1] = 50
        ig.text.explain(llama, bytes_of, PROMPT, target=" Paris", baseline=ig.text.Corrupt(ids), rule=FEW)  # fmt: skip


def test_sampled_contexts_are_those_of_single_runs(llama: Any, bytes_of: Any) -> None:
    texts = [PROMPT, "Rome is"]
    options: dict[str, Any] = {"target": " Paris", "baseline": ig.text.Sampled(3, pool=["Rome is old."]), "rule": FEW}  # fmt: skip
    batch = ig.text.explain(llama, bytes_of, texts, **options)
    table = llama.get_input_embeddings().weight.detach()
    pool = table[bytes_of("Rome is old.", add_special_tokens=False)["input_ids"]]
    drawn = batch.attribution.baselines[:, 0, 1:].reshape(-1, 16)
    assert bool((drawn[:, None] == pool).all(-1).any(1).all())
    for i, text in enumerate(texts):
        single = ig.text.explain(llama, bytes_of, text, **options)
        torch.testing.assert_close(batch.scores[i], single.scores[0])
    reseeded = ig.text.explain(llama, bytes_of, texts, **options, seed=1)
    assert not torch.allclose(reseeded.scores[0], batch.scores[0])


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("method", ["smoothgrad", "ig2", "guided", "sequential", "discretized", "expected"])  # fmt: skip
def test_kept_tokens_get_nothing_by_any_method(llama: Any, bytes_of: Any, method: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "smoothgrad": {"draws": 2} if "draws" in ig.methods.about("smoothgrad").options else {},
        "ig2": {"steps": 3},
        "guided": {"steps": 5},
        "discretized": {"steps": 3, "neighbours": 20},
        "expected": {"draws": 8},
    }
    baseline = ig.text.Sampled(2) if method in ("ig2", "expected") else "mean"
    result = ig.text.explain(llama, bytes_of, [PROMPT, "Rome is"], target=" Paris", method=method, baseline=baseline, keep=[0, -1], **options.get(method, {}))  # fmt: skip
    for scores in result.scores:
        assert float(scores[0]) == float(scores[-1]) == 0
        assert bool((scores[1:-1] != 0).all())
    assert bool((result.attribution.values[1, : 6 - 3] == 0).all()), "padding, on the left"


NEED_MORE = {  # other options, other data than embeddings, or an output of several classes
    *("adversarial", "mfaba", "boundary", "latent_guided", "latent", "manifold", "geodesic"),
    *("pattern_guided", "xrai", "artificial_distancing", "graph", "gaussian_process"),
    *("layer", "conductance", "region_neurons"),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("method", sorted(set(ig.methods.known()) - NEED_MORE))
def test_every_method_on_a_batch_is_its_single_runs(llama: Any, bytes_of: Any, method: str) -> None:
    """Texts and answers of unlike length: neither padding nor the other texts take part."""
    texts = {PROMPT: " Paris", "Rome is": " Rome now", "The capital of Italy is not": " a", "Paris is": " Rome"}  # fmt: skip
    options: dict[str, Any] = {"method": method, "baseline": ig.text.Sampled(2, pool=["Rome is old.", "Paris is"])}  # fmt: skip
    batch = ig.text.explain(llama, bytes_of, list(texts), target=list(texts.values()), **options)
    for (text, target), scores in zip(texts.items(), batch.scores, strict=True):
        single = ig.text.explain(llama, bytes_of, text, target=target, **options)
        assert float(single.scores[0].abs().max()) > 0
        torch.testing.assert_close(scores, single.scores[0])


def test_what_is_kept(llama: Any, bytes_of: Any) -> None:
    for keep, expected in (
        ("special", [0]),
        (None, []),
        ("none", []),
        ("first+special", [0]),
        ([1, -1], [1, 5]),
        (torch.tensor([True, False, False, True, False, False]), [0, 3]),
    ):
        result = ig.text.explain(llama, bytes_of, PROMPT, target=" Paris", keep=keep, rule=FEW)
        assert [i for i, stays in enumerate(result.kept[0]) if stays] == expected
        assert [i for i, s in enumerate(result.scores[0].tolist()) if s == 0] == expected
    assert "1 of 6 tokens kept in place" in repr(ig.text.explain(llama, bytes_of, PROMPT, target=" Paris", rule=FEW))  # fmt: skip


def test_the_model_is_given_back_as_it_was(bytes_of: Any) -> None:
    model = tiny("gpt2-classes")
    before = model.state_dict(), {n: p.requires_grad for n, p in model.named_parameters()}
    ig.text.explain(model, bytes_of, [PROMPT, "Rome is"], target=1, rule=FEW)
    assert model.config.pad_token_id is None
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before[1]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_logits_are_made_where_something_is_asked(bytes_of: Any) -> None:
    model, seen = tiny("llama"), []
    model.lm_head.register_forward_hook(lambda m, args, out: seen.append(out.shape[1]))
    ig.text.explain(model, bytes_of, [PROMPT, "Rome is"], target=" Paris, in", rule=FEW)
    assert seen
    assert set(seen) <= {3, 6}, "three tokens asked about, behind prompts of two lengths"


# --- what comes back --------------------------------------------------------------------------------------------------


HOSTILE = "Rome <script>alert(1)</script> \x1b[31mis\x07 \u202eold"


@pytest.fixture(scope="module")
def hostile(llama: Any, bytes_of: Any) -> ig.text.TextAttribution:
    return ig.text.explain(llama, bytes_of, [HOSTILE, "Rome is"], target=[" <u>", " old."], per_token=True, rule=FEW)  # fmt: skip


def test_pages_show_hostile_texts_and_obey_nothing(hostile: ig.text.TextAttribution, tmp_path: Path) -> None:  # fmt: skip
    page = hostile.to_html(tmp_path / "page.html", title="<i>")
    assert (tmp_path / "page.html").read_text("utf-8") == page
    for text in (page, hostile._repr_html_(), hostile.by("word").to_html()):
        assert "<script" not in text
        assert "<u>" not in text
        assert "<i>" not in text
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert "src=" not in text
        assert "http" not in text
    assert "&lt;script&gt;" in hostile.by("word").to_html()
    assert "gap" in page
    assert "Kept in place" in page
    plain, coloured = terminal(hostile, colour=False), terminal(hostile, colour=True)
    assert "\x1b" not in plain
    assert "␛" in plain
    assert "\x1b[31m" not in coloured
    assert "\x07" not in coloured
    assert "\u202e" not in coloured


def test_numbers_out(hostile: ig.text.TextAttribution) -> None:
    stated = json.loads(json.dumps(hostile.to_json()))
    assert stated["texts"][0]["tokens"] == hostile.tokens[0]
    assert stated["texts"][0]["scores"] == hostile.scores[0].tolist()
    pandas = pytest.importorskip("pandas")
    frame = hostile.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.groupby("text")["score"].sum().tolist() == pytest.approx([float(s.sum()) for s in hostile.scores])  # fmt: skip
    assert len(hostile.to_pandas("texts")) == 2
    count = sum(m.numel() for m in hostile.matrix)
    assert len(hostile.to_pandas("matrix")) == count


def test_saved_and_read_back(hostile: ig.text.TextAttribution, tmp_path: Path) -> None:
    file = tmp_path / "text.safetensors"
    hostile.by("word").save(file)
    read = ig.load(file)
    assert isinstance(read, ig.text.TextAttribution)
    assert read.texts == hostile.texts
    assert read.kept == hostile.kept
    assert read.tokens == hostile.by("word").tokens
    for a, b in zip(read.by("token").matrix, hostile.matrix, strict=True):
        assert torch.equal(a, b)
    assert read.to_html() == hostile.by("word").to_html()


def test_a_folder_is_a_model(llama: Any, bytes_of: Any, tmp_path: Path, capsys: Any) -> None:
    llama.save_pretrained(tmp_path / "model")
    bytes_of.save_pretrained(tmp_path / "model")
    by_object = ig.text.explain(llama, bytes_of, PROMPT, target=" Paris", rule=FEW)
    by_folder = ig.text.explain(tmp_path / "model", None, PROMPT, target=" Paris", rule=FEW)
    torch.testing.assert_close(by_folder.scores[0].double(), by_object.scores[0], rtol=1e-3, atol=1e-5)  # fmt: skip
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from integrand.cli.app import app

    out = tmp_path / "out"
    words = ["explain", "--text", PROMPT, "--model", f"hf:{tmp_path / 'model'}", "--target-text", " Paris", "--against", " Rome", "--nodes", "4", "--out", str(out), "--save"]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "log-odds of ' Paris' against ' Rome'" in done.output
    assert (out / "index.html").is_file()
    assert (out / "texts.safetensors").is_file()
    (text,) = json.loads((out / "texts.json").read_text("utf-8"))["texts"]
    assert text["tokens"] == ["<s>", *PROMPT.split()]
    wrong = CliRunner().invoke(app, ["explain", "--text", PROMPT])
    assert wrong.exit_code == 2


# --- what is refused --------------------------------------------------------------------------------------------------


def test_bad_input_is_said_in_a_sentence(
    llama: Any, bert: Any, bytes_of: Any, words_of: Any
) -> None:
    from tests.text.tiny import MODELS

    def refused(message: str, *args: Any, **options: Any) -> None:
        with pytest.raises(ig.errors.IntegrandError, match=message):
            ig.text.explain(*args, **options)

    ig.errors.InputError("")
    from transformers import LlamaConfig, LlamaForCausalLM

    small = LlamaForCausalLM(LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2))  # fmt: skip
    refused("tokenizer is that of another model: it has", small, bytes_of, PROMPT)
    refused("becomes one token with the prompt's last", llama, bytes_of, "The capital of Fr", target="ance is")  # fmt: skip
    refused("exchanged one for one", llama, bytes_of, PROMPT, target=" Paris", baseline=ig.text.Corrupt("Rome"))  # fmt: skip
    refused("text itself", llama, bytes_of, PROMPT, target=" Paris", baseline=ig.text.Corrupt(PROMPT))  # fmt: skip
    refused("The text is empty", llama, bytes_of, "  ", target=" Paris")
    refused("There are no texts", llama, bytes_of, [], target=" Paris")
    refused("reads 64 at most", MODELS["gpt2"](), bytes_of, "Rome " * 80, target=" Paris")
    refused("reads 38 at most|reads 38", MODELS["roberta"](), bytes_of, "Rome " * 39, target=1)
    refused("does not say which layer makes vectors", torch.nn.Linear(2, 2), bytes_of, PROMPT, target=0)  # fmt: skip
    refused("No token of text 0 moves", llama, bytes_of, PROMPT, target=" Paris", keep=[0, 1, 2, 3, 4, 5])  # fmt: skip
    refused("class", bert, words_of, PROMPT, target="angry")
    refused("no class 7|There is no class", bert, words_of, PROMPT, target=7)
    refused("models that write texts", bert, words_of, PROMPT, target=ig.text.Continuation("x"))
    refused("baseline of texts", llama, bytes_of, PROMPT, target=" Paris", baseline="men")
    refused("Give it: baseline=ig.text.Corrupt", llama, bytes_of, PROMPT, target=" Paris", baseline="corrupt")  # fmt: skip
    refused("There is no mask token", llama, bytes_of, PROMPT, target=" Paris", baseline="mask")
    refused("kind of token to keep", llama, bytes_of, PROMPT, target=" Paris", keep="specials")
    refused("no messages", llama, bytes_of, PROMPT, target=" Paris", granularity="message")
    refused("no sources", llama, bytes_of, PROMPT, target=" Paris", granularity="source")
    refused("Source 1 is not in the prompt", llama, bytes_of, PROMPT, target=" Paris", sources=["Bern"])  # fmt: skip
    refused("2 targets for 1", llama, bytes_of, PROMPT, target=[" Paris", " Rome"])
    refused("explains a layer", llama, bytes_of, PROMPT, target=" Paris", method="layer")
    refused("is 2 tokens|tokens", llama, bytes_of, PROMPT, target=ig.text.NextToken(" Paris, in"))
    refused("one number", bert, words_of, PROMPT, target=1, per_token=True)
    refused("Nothing is downloaded", "no/such/folder", bytes_of, PROMPT)
    refused("holds no", "/", bytes_of, PROMPT)
    refused("A tuple is a pair", llama, bytes_of, ("a", "b", "c"), target=" Paris")
    refused("A message of a chat", llama, bytes_of, [{"role": "user"}], target=" Paris")
    with pytest.raises(ig.errors.ShapeError, match="attention_mask"):
        ig.text.explain_ids(
            llama, torch.ones(1, 4).long(), attention_mask=torch.ones(1, 3), target=5
        )
    with pytest.raises(ig.errors.InputError, match="token 500"):
        ig.text.explain_ids(llama, torch.tensor([[4, 500]]), target=5)


def test_a_degenerate_baseline_is_refused() -> None:
    class Normalised(torch.nn.Module):
        """Vectors of length one, which zero has no direction for."""

        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(10, 4)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            vectors = self.words(input_ids)
            return (vectors / vectors.norm(dim=-1, keepdim=True)).sum(1)

    model = Normalised().double()
    with pytest.raises(ig.errors.NonFiniteGradient, match="begin at the zero vector"):
        ig.text.explain_ids(model, torch.tensor([[1, 2, 3]]), target=0, embeddings="words")
    result = ig.text.explain_ids(model, torch.tensor([[1, 2, 3]]), target=0, embeddings="words", baseline="mean")  # fmt: skip
    assert bool(result.attribution.converged.all())
