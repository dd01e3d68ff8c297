"""What suites are run on: every problem builds, its words are parts, and methods and metrics run on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import integrand as ig
from integrand.bench import names as vocabulary
from integrand.bench.problems import Problem, ProblemOptions, motifs, problem_named
from integrand.bench.problems.digits import DigitTransformer
from integrand.compare.evaluate import scored

MODEL = """
import torch
from integrand.images import ImageModel

def load():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 5, 4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 49, 5)
    )
    return ImageModel("toy", net.eval(), size=32)
"""
QUESTIONS = {"NUM": "How many {} are there ?", "LOC": "Where do {} live ?", "HUM": "Who likes {} ?"}
WORDS = ("cats", "dogs", "birds", "fish", "horses", "lions")


@pytest.fixture
def photographs(tmp_path: Path) -> Problem:
    torch.manual_seed(1)
    for i in range(6):
        pixels = (torch.rand(40, 48, 3) * 255).byte().numpy()
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "net.py").write_text(MODEL)
    setting = ProblemOptions(tmp_path / "pictures", tmp_path / "cache")
    return problem_named("photographs")(setting, model=f"{tmp_path / 'net.py'}:load")


@pytest.fixture
def questions(tmp_path: Path) -> Problem:
    folder = tmp_path / "trec"
    folder.mkdir()
    lines = [
        f"{label}:x {text.format(word)}" for label, text in QUESTIONS.items() for word in WORDS
    ]
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "test.txt").write_text("\n".join(lines[::4]))
    (tmp_path / "pictures").mkdir()  # texts are found beside a folder of photographs
    return problem_named("questions")(
        ProblemOptions(tmp_path / "pictures", tmp_path / "cache"), epochs=4
    )


@pytest.fixture
def tables(tmp_path: Path) -> Problem:
    return problem_named("tables")(ProblemOptions(None, tmp_path / "cache"), epochs=2)


@pytest.fixture
def records(tmp_path: Path) -> Problem:
    return problem_named("records")(
        ProblemOptions(None, tmp_path / "cache"), data="wine", epochs=10
    )


METHODS = ("integrated(one, rule=GaussLegendre(4))", "expected(several, rule=GaussLegendre(2))")


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["photographs", "questions", "tables", "records"])
def test_methods_run_on_every_problem(name: str, request: pytest.FixtureRequest) -> None:
    problem: Problem = request.getfixturevalue(name)
    assert len(problem.ids) == len(set(problem.ids)) >= 4
    walk = "ig2(others(1), steps=2, clip=(low, high))"
    methods = {text: vocabulary.method(text, problem.words) for text in (*METHODS, walk)}
    metrics = ["deletion(steps=4)", "insertion(steps=4, fill=zero)"]
    if name == "tables":
        metrics += ["Faithfulness(table, draws=50)", "ShapleyCorrelation(table, draws=50)"]
    with problem.subject([0, 2]) as subject:
        found = scored(
            subject, methods, {text: vocabulary.metric(text, problem.words) for text in metrics}
        )
    assert found.reasons == {}
    assert bool((found.values == found.values).all())
    same = problem.load([2]).x
    torch.testing.assert_close(
        subject.x[1:], same
    )  # an example is the same in whatever batch it comes


def test_what_is_known_of_models_trained_here(questions: Problem, tables: Problem) -> None:
    assert questions.facts["distinct questions trained on"] == 18
    assert questions.facts["accuracy on the test file"] > 0.6
    assert tables.facts["accuracy on the rest"] > 0.65  # two epochs; guessing has 0.5


def test_problems_without_their_data(tmp_path: Path) -> None:
    for name in ("photographs", "questions"):
        with pytest.raises(ig.errors.InputError, match="needs --data"):
            problem_named(name)(ProblemOptions(None, tmp_path))
    with pytest.raises(ig.errors.InputError, match=r"train\.txt"):
        problem_named("questions")(ProblemOptions(tmp_path, tmp_path))
    with pytest.raises(ig.errors.InputError, match="at least three"):
        problem_named("photographs")(ProblemOptions(tmp_path, tmp_path))
    with pytest.raises(ig.errors.UnknownName, match="photographs"):
        problem_named("photogaphs")


# --- trees on columns -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kind", ["forest", "boosting"])
@pytest.mark.parametrize(("name", "options"), [("records", {"data": "wine"}), ("tables", {})])
def test_trees_are_explained_exactly(
    name: str, options: dict[str, str], kind: str, tmp_path: Path
) -> None:
    setting = ProblemOptions(None, tmp_path)
    problem = problem_named(name)(setting, model=kind, **options)
    assert problem.facts["accuracy on the rest"] > 0.8
    assert kind in problem.name
    texts = (
        "generalized(one)",
        "expected(several, rule=Exact())",
        "weighted(several, rule=Exact())",
    )
    methods = {text: vocabulary.method(text, problem.words) for text in texts}
    metrics = {"deletion": vocabulary.metric("deletion(each=1, fill=one)", problem.words)}
    with problem.subject([0, 3]) as subject:
        scores = scored(subject, methods, metrics)
    assert scores.reasons == {}
    assert float(scores.gap.max()) < 1e-6


def test_tables_and_models_that_there_are_not(tmp_path: Path) -> None:
    setting = ProblemOptions(None, tmp_path)
    with pytest.raises(ig.errors.UnknownName, match="breast_cancer"):
        problem_named("records")(setting, data="breast")
    with pytest.raises(ig.errors.UnknownName, match="boosting"):
        problem_named("records")(setting, data="wine", model="bosting")


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    pytest.importorskip("torch_geometric")
    setting = ProblemOptions(None, tmp_path_factory.mktemp("cache"))
    return problem_named("motif_graphs")(setting, train=120, epochs=12)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    pytest.importorskip("torch_geometric")
    return problem_named("motif_nodes")(
        ProblemOptions(None, tmp_path_factory.mktemp("cache")), epochs=10
    )


def test_evidence_of_a_graph_is_its_motif(graphs: Problem) -> None:
    """A house has six edges and a ring of six as well, each in both directions; they are those of
    the last nodes, which the tree does not have."""
    assert {name.split()[1] for name in graphs.ids} == {"house", "ring"}
    for number in range(4):
        examples = graphs.load([number])
        assert examples.masks is not None
        assert int(examples.masks.sum()) == 12
        question = examples.words["GNNExplainer"]().question
        inside = (question.edges >= 20).all(0)
        assert torch.equal(examples.masks[0], inside)
        assert len(question.x) == (25 if "house" in graphs.ids[number] else 26)


def test_a_node_is_explained_by_all_that_reaches_it(nodes: Problem) -> None:
    """The part of the graph around a node says what the whole graph says of it."""
    data, x = motifs._houses(seed=0)
    for number in range(3):
        examples = nodes.load([number])
        assert examples.field is not None
        assert examples.masks is not None
        node = int(nodes.ids[number].split()[1])
        with torch.no_grad():
            whole = nodes.model(x, data.edge_index)[node]
        with nodes.subject_of(examples) as subject:
            torch.testing.assert_close(subject.field.value(subject.x)[0], whole.max())
        assert examples.masks.shape == examples.x.shape[:2]
        assert int(examples.masks.sum()) == 5
        assert bool(examples.masks[0, examples.words["node"]])


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["graphs", "nodes"])
def test_methods_and_peers_run_on_graphs(name: str, request: pytest.FixtureRequest) -> None:
    problem: Problem = request.getfixturevalue(name)
    examples = problem.load([1])
    words = {**problem.words, **examples.words}
    texts = ["integrated(one)", "expected(several)", "GNNExplainer(epochs=3)", "CaptumIG()"]
    texts += ["graph(edges, node, paths='mean')"] if name == "nodes" else ["PGExplainer(epochs=1)"]
    methods = {text: vocabulary.method(text, words) for text in texts}
    by = ig.metrics.LocalisationAUC(pool="l1")
    with problem.subject_of(examples) as subject:
        scores = scored(subject, methods, {"AUROC": by})
    assert scores.reasons == {}
    assert bool((scores.values >= 0).all())
    assert bool((scores.values <= 1).all())
    with pytest.raises(ig.errors.InputError, match="batch = 1"):
        problem.load([0, 1])


def test_graphs_are_made_from_their_seed_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, labels = motifs._two_motifs(8, seed=3)
    again, same = motifs._two_motifs(8, seed=3)
    other, _ = motifs._two_motifs(8, seed=4)
    assert torch.equal(labels, same)
    assert all(torch.equal(a.edge_index, b.edge_index) for a, b in zip(first, again, strict=True))
    assert not all(
        a.edge_index.shape == b.edge_index.shape and torch.equal(a.edge_index, b.edge_index)
        for a, b in zip(first, other, strict=True)
    )
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_the_transformer_of_digits_is_explained_completely() -> None:
    """Digits do not see one another, and the map adds up; the change is that of two forward passes."""
    torch.manual_seed(0)
    model = DigitTransformer().eval()
    x = torch.rand(3, 1, 28, 28)
    assert model(x).shape == (3, 10)
    torch.testing.assert_close(model(x)[1], model(x[1:2])[0], atol=1e-5, rtol=0)
    result = ig.explain(model, x, target=4, tol=0.02)
    change = (model(x) - model(torch.zeros_like(x)))[:, 4]
    torch.testing.assert_close(result.values.sum((1, 2, 3)), change, atol=1e-4, rtol=0)
    assert bool(result.converged.all())
