"""Recipes: what is read, what is refused, and that every suite of the package spells parts that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import integrand as ig
from integrand.bench import names as vocabulary
from integrand.bench import suite as recipe
from integrand.expressions.reader import spelled

TOY = """
title = "Toy"
[methods]
IG = "integrated(one, rule=GaussLegendre(nodes))"
half = "integrated(one, rule=GaussLegendre(nodes // 2))"
[metrics]
deletion = "deletion(steps=4)"
[[run]]
name = "first"
problem = "toy"
words = { nodes = 8 }
[[claim]]
text = "more nodes are better"
source = "nobody"
runs = ["first"]
metrics = ["deletion"]
method = "IG"
against = ["half"]
size = 0.1
"""


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("n", 6),
        ("-n // 2 + 1", -2),
        ("[1, 'two', (3.0, True, None)]", [1, "two", (3.0, True, None)]),
        ("dict(a=n, b=dict(c=[n]))", {"a": 6, "b": {"c": [6]}}),
    ],
)
def test_spelled(text: str, made: object) -> None:
    assert spelled(text, {"n": 6, "dict": dict}) == made


def test_parts_are_read_as_they_print() -> None:
    for part in (
        ig.rules.GaussLegendre(25),
        ig.baselines.Blurred(5.0),
        ig.methods.integrated(0.5, rule=ig.rules.Midpoint(4)),
    ):
        again = vocabulary.method(repr(part), {})
        assert again == part


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GausLegendre(3)", "GaussLegendre"),
        ("__import__('os').system('true')", "neither a number"),
        ("(lambda: 1)()", "neither a number"),
        ("GaussLegendre(", "cannot be read"),
        ("GaussLegendre(3, nodes=4)", "does not fit"),
        ("n(3)", "not something to call"),
        ("[x for x in (1, 2)]", "neither a number"),
        ("GaussLegendre.__class__", "neither a number"),
    ],
)
def test_nothing_else_is_executed(text: str, message: str) -> None:
    with pytest.raises(ig.errors.IntegrandError, match=message):
        vocabulary.method(text, {"n": 6})


def test_a_recipe() -> None:
    suite = recipe.parsed("toy", TOY)
    (run,) = suite.runs
    assert run.reference == "IG"
    assert dict(run.words) == {"nodes": 8}
    (claim,) = suite.claims
    assert (claim.method, claim.than, claim.size) == ("IG", "half", 0.1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[run]]", "[[other]]", "has no"),
        ('problem = "toy"', 'problm = "toy"', "problem"),
        ('name = "first"', "", "no name="),
        ('method = "IG"', 'method = "IGG"', "IG"),
        ('runs = ["first"]', 'runs = ["second"]', "first"),
        ('metrics = ["deletion"]', 'metrics = ["insertion"]', "deletion"),
        ("size = 0.1", "sise = 0.1", "size"),
        ('source = "nobody"', "", "no source="),
        ("title", "title = = ", "no TOML"),
        ("words = { nodes = 8 }", 'reference = "nobody"', "IG"),
    ],
)
def test_recipes_that_are_refused(old: str, new: str, message: str) -> None:
    assert old in TOY
    with pytest.raises(ig.errors.IntegrandError, match=message):
        recipe.parsed("toy", TOY.replace(old, new))


def test_an_order_is_pairs() -> None:
    told = TOY.replace('method = "IG"\nagainst = ["half"]', 'order = ["half", "IG", "half"]')
    assert [(one.method, one.than) for one in recipe.parsed("toy", told).claims] == [
        ("half", "IG"),
        ("IG", "half"),
    ]


def test_suites_by_name_and_by_file(tmp_path: Path) -> None:
    assert {"weighted", "ig2", "paths", "tables", "graphs", "text"} <= set(recipe.names())
    file = tmp_path / "own.toml"
    file.write_text(TOY)
    assert recipe.suite(str(file)).name == "own"
    with pytest.raises(ig.errors.UnknownName, match="weighted"):
        recipe.suite("weigthed")
    with pytest.raises(ig.errors.InputError, match="no recipe"):
        recipe.suite("missing.toml")


@pytest.mark.parametrize("name", recipe.names())
def test_every_suite_spells_parts_that_exist(name: str) -> None:
    """Methods and metrics can be built from the words that the problems promise."""
    x = torch.zeros(4, 3, 8, 8)
    words = {
        "one": ig.baselines.Constant(0.0),
        "several": [0.0, 1.0],
        "pool": x,
        "references": lambda count=2: ig.baselines.Given(x[:count]),
        "others": lambda count=2: ig.baselines.Given(x[:count]),
        "low": 0.0,
        "high": 1.0,
        "corners": ig.baselines.Corners(),
        "blurred": ig.baselines.Blurred(),
        "padding": ig.baselines.Constant(0.0),
        "masked": ig.baselines.Constant(0.0),
        "unknown": ig.baselines.Constant(0.0),
        "zero": ig.baselines.Constant(0.0),
        "grey": ig.baselines.grey(),
        "table": ig.metrics.xai_bench.gaussian(),
        "vectors": torch.zeros(5, 3),
        "neighbours": ig.paths.NeighbourGraph(2),
        "distance": 1.0,
        "attention": lambda texts: None,
        **{
            name: getattr(ig.metrics.xai_bench, name)
            for name in ("Faithfulness", "Monotonicity", "ShapleyCorrelation")
        },
        "mean": ig.baselines.Constant(0.5),
        "edges": torch.tensor([[0], [1]]),
        "node": 1,
        "number": 3,
        **{
            name: lambda epochs=1: ig.methods.integrated()
            for name in ("GNNExplainer", "PGExplainer", "CaptumIG")
        },
        "TreeSHAP": lambda references: ig.methods.integrated(),
    }
    suite = recipe.suite(name)
    assert suite.title
    assert suite.question
    for run in suite.runs:
        known = {**words, **run.words}
        assert all(callable(vocabulary.method(text, known)) for text in run.methods.values())
        for text in run.metrics.values():
            assert isinstance(vocabulary.metric(text, known), ig.metrics.Metric)
        trees = run.options.get("model") in ("forest", "boosting")  # which have no gradient
        controls = {"random map"} if trees else {"random map", "gradient", "input × gradient"}
        assert controls <= set(run.methods), "controls run in every suite"


def test_recipes_of_earlier_days_are_read() -> None:
    """Methods by the names they had before."""
    assert vocabulary.method("important(0.0, steps=5)", {}) == ig.methods.idgi(0.0, steps=5)
    assert vocabulary.method("smooth(of='integrated', draws=3)", {}) == ig.methods.smoothgrad(
        draws=3
    )
