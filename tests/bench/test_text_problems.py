"""Texts as problems: one at a time, at their own length; a classifier that frames words, and a language
model of sources, none of which leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import integrand as ig
from benchmarks import text_baselines
from integrand.bench import names as vocabulary
from integrand.bench import suite as recipe
from integrand.bench.claims import hold
from integrand.bench.problems import Problem, ProblemOptions, code_lines, problem_named
from integrand.bench.problems.sentences import SentenceClassifier
from integrand.bench.problems.text import lines_of
from integrand.bench.problems.token_words import by_length, same_length
from integrand.compare.evaluate import scored
from integrand.compare.scores import COSTS, Scores

SEED = 0


# --- texts of one length ----------------------------------------------------------------------------------------------


def test_texts_to_choose_from_have_as_many_tokens() -> None:
    texts = [torch.arange(n) + 10 * i for i, n in enumerate((3, 5, 2, 3, 4))]
    assert same_length(texts, 3, 2).tolist() == [[0, 1, 2], [30, 31, 32]]
    assert same_length(texts, 3, 4).tolist() == [
        [0, 1, 2],
        [30, 31, 32],
        [10, 11, 12],
        [40, 41, 42],
    ]
    with pytest.raises(ig.errors.InputError, match="Only 1 texts have 5 tokens"):
        same_length(texts, 5, 2)


def test_texts_of_one_length_share_batches() -> None:
    texts = [torch.full((n,), i) for i, n in enumerate((3, 2, 3, 3, 2))]
    batches = [(numbers.tolist(), rows.tolist()) for numbers, rows in by_length(texts, most=2)]
    assert [numbers for numbers, _ in batches] == [[1, 4], [0, 2], [3]]
    assert batches[1][1] == [[0, 0, 0], [2, 2, 2]]


def test_fine_labels_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    file.write_text("NUM:dist How far ?\nLOC:city Where ?\nNUM:count How many ?\n")
    assert lines_of(file).classes == ("LOC", "NUM")
    fine = lines_of(file, fine=True)
    assert fine.classes == ("LOC:city", "NUM:count", "NUM:dist")
    assert fine.labels.tolist() == [2, 0, 1]


# --- a classifier of sentences ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier() -> SentenceClassifier:
    """A random BERT of two layers."""
    transformers: Any = pytest.importorskip("transformers")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = transformers.BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            attn_implementation="eager",
        )
        encoder = transformers.BertModel(config).eval()
        model = SentenceClassifier(encoder, torch.nn.Linear(16, 3), begin=1, end=2)
    return model.eval().requires_grad_(False)


def test_words_are_framed_as_the_tokenizer_would(classifier: SentenceClassifier) -> None:
    """What is said of vectors of words is what the encoder says of their ids, special ones included."""
    ids = torch.tensor([[5, 6, 7, 8], [9, 6, 30, 31]])
    table = classifier.encoder.embeddings.word_embeddings.weight
    framed = torch.tensor([[1, *row, 2] for row in ids.tolist()])
    with torch.no_grad():
        states = classifier.encoder(input_ids=framed).last_hidden_state
        mean = torch.stack([row.sum(0) / 6 for row in states])
        expected = classifier.head(mean / mean.norm(dim=1, keepdim=True))
        torch.testing.assert_close(classifier(table[ids]), expected)


def test_attention_is_that_of_the_pass(classifier: SentenceClassifier) -> None:
    """The last layer's states are what its weights make of the values before it."""
    x = classifier.encoder.embeddings.word_embeddings.weight[torch.tensor([[5, 6, 7]])]
    attention = classifier.attends(x)
    assert [tuple(layer.shape) for layer in attention.layers] == [(1, 2, 5, 5)] * 2
    assert attention.readout.tolist() == pytest.approx([0.2] * 5)
    assert attention.tokens == slice(1, 4)
    seen: list[Tensor] = []
    layer = classifier.encoder.encoder.layer[-1].attention.self
    handles = [
        layer.value.register_forward_hook(lambda module, args, out: seen.append(out)),
        layer.register_forward_hook(lambda module, args, out: seen.append(out[0])),
    ]
    try:
        with torch.no_grad():
            classifier(x)
    finally:
        for handle in handles:
            handle.remove()
    values, context = seen
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        torch.testing.assert_close(
            context[0][:, part], attention.layers[-1][0, head] @ values[0][:, part]
        )


# --- a language model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty files of code that share some lines and have some of their own."""
    folder = tmp_path_factory.mktemp("sources")
    for i in range(20):
        lines = [
            "import os, sys, re, json, string, random, functools",
            f"def function_number_{i}(first, second, third=None):",
            f"    if first is None and second != 'name_{i * 7}':",
            "        raise ValueError('the first argument is missing here')",
            f"    return {{'key_{i}': first + second * {i + 3}, 'other': third}}",
            "",
        ]
        (folder / f"module_{i:02d}.py").write_text("\n".join(lines * 3))
    return folder


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer tokens, so that training takes no time."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(code_lines, "_VOCABULARY", 300)
    monkeypatch.setattr(code_lines, "_WIDTH", 16)
    monkeypatch.setattr(code_lines, "_LAYERS", 2)


def test_files_are_held_out_whatever_their_order_and_their_lines_are_their_own(
    sources: Path,
) -> None:
    texts = code_lines.standard_library(sources)
    shares = code_lines.split(texts, SEED)
    assert shares == code_lines.split(dict(reversed(texts.items())), SEED)
    assert code_lines.split(texts, SEED + 1).held_out.keys() != shares.held_out.keys()
    assert len(shares.held_out) == 2
    assert not shares.held_out.keys() & shares.learnt.keys()
    assert {**shares.learnt, **shares.held_out} == texts
    asked = shares.held_out_lines()
    assert len(asked) == len(set(asked)) == 3 * 2  # three of five lines of each name the file
    learnt = "\n".join(shares.learnt.values())
    assert not any(line.strip() in learnt for line in asked)
    changed = {**texts, "module_00.py": texts["module_00.py"] + "\n"}
    assert code_lines.split(changed, SEED).digest != shares.digest


def test_what_is_learnt_does_not_know_what_was_held_out(
    sources: Path, pairs: None, tmp_path: Path
) -> None:
    """Other held-out files, the same training: tokenizer, model and texts to choose from."""
    first = _problem(sources, tmp_path / "a")
    held_out = code_lines.split(code_lines.standard_library(sources), SEED).held_out
    other = tmp_path / "other"
    other.mkdir()
    for file in sources.glob("*.py"):
        text = file.read_text()
        (other / file.name).write_text(text.upper() if file.name in held_out else text)
    second = _problem(other, tmp_path / "b")
    assert first.ids != second.ids
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):  # type: ignore[attr-defined]
        assert torch.equal(a, b)
    assert torch.equal(first.words["vectors"], second.words["vectors"])


def test_the_same_problem_every_time_and_from_the_cache(
    sources: Path, pairs: None, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    first = _problem(sources, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)
    assert len(list((tmp_path / "a").glob("code-lines-*.safetensors"))) == 1
    for again in (_problem(sources, tmp_path / "a"), _problem(sources, tmp_path / "b")):
        assert again.ids == first.ids
        assert again.facts == first.facts
        x = first.load([0]).x
        assert torch.equal(again.load([0]).x, x)
        assert torch.equal(again.model(x), first.model(x))
    assert (
        float(first.words["vectors"][0].norm()) > 0.01
    )  # padding is learnt: zero has no direction


def _problem(sources: Path, cache: Path) -> Problem:
    return problem_named("code_lines")(
        ProblemOptions(None, cache, SEED), count=64, folder=str(sources)
    )


@pytest.mark.usefixtures("quiet")
def test_methods_of_the_suite_run_on_beginnings_of_lines(
    sources: Path, pairs: None, tmp_path: Path
) -> None:
    problem = _problem(sources, tmp_path)
    run = recipe.suite("text").run("stdlib")
    examples = problem.load([1])
    words = {**problem.words, **examples.words}
    methods = {name: vocabulary.method(text, words) for name, text in run.methods.items()}
    metrics = {name: vocabulary.metric(text, words) for name, text in run.metrics.items()}
    with problem.subject_of(examples) as subject:
        scores = scored(subject, methods, metrics)
        said = subject.field.value(subject.x)
        torch.testing.assert_close(subject.whole("probability"), said.exp())
    assert scores.reasons == {}
    assert bool(np.isfinite(scores.values).all())
    torch.testing.assert_close(problem.model(examples.x).exp().sum(1), torch.ones(1))


def test_the_next_token_is_that_of_the_whole_model(
    sources: Path, pairs: None, tmp_path: Path
) -> None:
    """Vectors behind the beginning's are what the language model says of ids behind its first."""
    problem = _problem(sources, tmp_path)
    model: Any = problem.model
    ids = torch.tensor([[5, 9, 7, 12, 60]])
    expected = model.head(
        model.backbone(input_ids=torch.tensor([[1, 5, 9, 7, 12, 60]])).last_hidden_state
    )[:, -1].log_softmax(-1)
    torch.testing.assert_close(model(problem.words["vectors"][ids]), expected)
    lengths = [len(problem.load([i]).x[0]) for i in range(len(problem.ids))]
    with pytest.raises(ig.errors.InputError, match="batch = 1"):
        problem.load([lengths.index(min(lengths)), lengths.index(max(lengths))])


def test_there_are_no_sources_in_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ig.errors.MissingData, match="finds none"):
        code_lines.standard_library(tmp_path)


@pytest.mark.usefixtures("quiet")
def test_likeness_of_maps_is_kept_text_by_text(
    sources: Path, pairs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study of baselines against methods: its numbers by SciPy's correlation of maps made one by
    one, and what is kept is not made again."""
    problem = _problem(sources, tmp_path)
    told = text_baselines.study(problem, 5, tmp_path / "five.json")
    assert told["baselines"] == ["padding", "mean", "zero"]
    assert told["methods"] == ["integrated", "discretized", "sequential"]
    name = next(iter(told["texts"]))
    loaded = problem.load([problem.ids.index(name)])
    maps = []
    for start in (problem.words["padding"], problem.words["mean"], 0.0):
        result = ig.explain(
            problem.model,
            loaded.x,
            target="predicted",
            baseline=start,
            rule=ig.rules.GaussLegendre(8),
        )
        maps.append(result.values[0].sum(-1))
    pairs_of_maps = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean([stats.spearmanr(maps[a], maps[b]).statistic for a, b in pairs_of_maps])
    assert told["texts"][name][1] == pytest.approx(expected)
    each = np.array(list(told["texts"].values()))
    assert told["difference"] == pytest.approx((each[:, 0] - each[:, 1]).mean())
    assert told["low"] < told["difference"] < told["high"]
    made: list[int] = []
    likeness = text_baselines.likeness
    monkeypatch.setattr(
        text_baselines, "likeness", lambda *given: made.append(given[1]) or likeness(*given)
    )
    again = text_baselines.study(problem, 6, tmp_path / "five.json")
    assert len(made) == 1
    assert {**again["texts"], **told["texts"]} == again["texts"]


# --- claims -----------------------------------------------------------------------------------------------------------


def test_claims_of_the_suite_on_a_planted_table() -> None:
    """Scores in which Sequential beats Discretized by a tenth, Discretized loses to IG, WG equals EG."""
    suite = recipe.suite("text")
    run = suite.run("minilm")
    base = np.linspace(0.3, 0.7, 40)
    jitter = 0.01 * np.sin(np.arange(40))
    planted = {"Discretized": base, "Sequential": 1.1 * base + jitter, "IG": 1.2 * base + jitter}
    values = np.stack([planted.get(name, base) for name in run.methods])
    metrics = tuple(run.metrics)
    higher = tuple("comprehensiveness" in name for name in metrics)
    stacked = np.stack(
        [values if up else 1 - values for up in higher], axis=1
    )  # less is better there
    scores = Scores(
        methods=tuple(run.methods),
        metrics=metrics,
        examples=tuple(str(i) for i in range(40)),
        values=stacked,
        higher=higher,
        **{name: np.zeros((len(run.methods), 40)) for name in COSTS},
    )
    few = ("comprehensiveness", "sufficiency, mean")
    verdicts = {
        (claim.method, claim.than, claim.metric): hold(claim, scores).verdict
        for claim in suite.claims
        if claim.run == "minilm" and claim.metric in few
    }
    for metric in few:
        assert verdicts["Sequential", "Discretized", metric] == "confirmed"
        assert verdicts["Discretized", "IG", metric] == "contradicted"
        assert verdicts["Sequential", "IG", metric] == "contradicted"
        assert verdicts["WG", "EG", metric] == "not shown"
        assert verdicts["IG", "attention rollout", metric] == "confirmed"
