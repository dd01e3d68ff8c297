"""What suites are run on: every problem builds, its words are parts, and methods and metrics run on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import integrand as ig
from integrand.bench.problems import Problem, ProblemOptions, problem_named
from integrand.compare.evaluate import scored
from integrand.expressions import names as vocabulary

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


METHODS = ("integrated(one, rule=GaussLegendre(4))", "expected(several, rule=GaussLegendre(2))")


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["photographs", "questions", "tables"])
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
