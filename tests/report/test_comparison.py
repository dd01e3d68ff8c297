"""Figures and the page of a comparison: what is drawn is what was measured, and every text is escaped."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import integrand as ig
from integrand.compare.scores import COSTS, Scores
from integrand.compare.statistics import Inference

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("PIL.Image")

from integrand.report import comparison as report
from integrand.report.charts import front, method_styles

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def made() -> ig.Comparison:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 3)
    )
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def failing(field: Any, x: torch.Tensor, *, watch: Any = None) -> ig.Attribution:
        if len(x) > 1 or bool(x[0, 0, 0, 0] > 0.5):
            raise ig.errors.BaselineError("none <b>here</b>")
        return ig.methods.integrated()(field, x)

    return ig.compare(
        model,
        x,
        methods={"integrated": "integrated", "blur": "blur", "<script>": failing},
        metrics=[ig.metrics.Deletion(steps=5), ig.metrics.Insertion(steps=5)],
        vary_baseline=["zero", "mean"],
        gradients=8,
        inference=Inference(draws=199),
        normalisation=ig.Normalisation.unit(),
        ids=["a", "b", "c", "d", "e & f"],
    )


class Checked(HTMLParser):
    """Every tag that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag != "script"
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(text: str) -> str:
    parser = Checked()
    parser.feed(text)
    assert parser.open == []
    return " ".join(" ".join(parser.text).split())


def test_the_page_says_what_was_measured(made: ig.Comparison) -> None:
    page = report.page(made)
    text = checked(page)
    for metric in made.scores.metrics:
        assert made.verdict(metric).words in text
    for row in made.table():
        assert report.number(row["mean"]) in text
    assert "BaselineError: none <b>here</b>" in text
    assert "<b>here" not in page
    assert "8 gradients per example" in text
    assert page.count("data:image/png") == 1 + len(made.shown)
    assert "http://" not in re.sub(r"http://www.w3.org/\S+", "", page)
    assert "prefers-color-scheme: dark" in page
    assert "#24272b" not in page  # figures take the colours of the page


def test_it_can_be_made_from_disk(made: ig.Comparison, tmp_path: Any) -> None:
    pytest.importorskip("pyarrow")
    made.save(tmp_path)
    assert checked((tmp_path / "index.html").read_text("utf-8"))
    text = checked(report.page(ig.Comparison.load(tmp_path)))
    assert "What the maps look like" not in text  # maps are only kept in the page


def test_the_fragment(made: ig.Comparison) -> None:
    fragment = made._repr_html_()
    text = checked(fragment)
    assert made.verdict("deletion").words in text
    assert "<script>" not in fragment


def test_a_page_without_pictures_curves_or_values() -> None:
    values = np.full((2, 1, 3), np.nan)
    scores = Scores(
        values,
        ("a", "b"),
        ("score",),
        (True,),
        ("1", "2", "3"),
        **{name: np.zeros((2, 3)) for name in COSTS},
    )
    text = checked(report.page(ig.Comparison(scores, "a")))
    assert "no winner: no method has a value" in text
    values[0], values[1] = 1, [[1, 2, 4]]
    assert "Curves" not in checked(report.page(ig.Comparison(scores, "a", Inference(draws=99))))
    single = scores.select(examples=["1"])
    assert "one example says nothing" in checked(report.page(ig.Comparison(single, "a")))


def test_figures_show_the_numbers(made: ig.Comparison) -> None:
    curves = made.plot_curves()
    lines = {line.get_label(): line for line in curves.axes[0].lines}
    np.testing.assert_allclose(lines["blur"].get_ydata(), made.scores.curves["deletion"][1].mean(0))
    np.testing.assert_allclose(lines["blur"].get_xdata(), np.linspace(0, 1, 6))
    boxes = made.plot_boxes("insertion")
    labels = [label.get_text() for label in boxes.axes[0].get_yticklabels()]
    means = {name: made.summaries[name, "insertion"].mean for name in made.scores.methods}
    assert labels == sorted(means, key=lambda name: -means[name])
    some = dataclasses.replace(made, scores=made.scores.select(examples=["a", "b"])).plot_boxes(
        "insertion"
    )
    assert (len(boxes.axes[0].patches), len(some.axes[0].patches)) == (
        len(labels) - 1,
        0,
    )  # one method fails on some
    pareto = made.plot_pareto("deletion", cost="seconds")
    points = {line.get_label(): line for line in pareto.axes[0].lines}
    assert points["blur"].get_ydata()[0] == made.summaries["blur", "deletion"].mean
    assert points["blur"].get_xdata()[0] == pytest.approx(made.scores.seconds[1].mean())


def test_figures_that_cannot_be_drawn(made: ig.Comparison) -> None:
    with pytest.raises(ig.errors.InputError, match="cost="):
        made.plot_pareto(cost="euros")
    with pytest.raises(ig.errors.UnknownName, match="delation"):
        made.plot_boxes("delation")
    bare = dataclasses.replace(made, scores=dataclasses.replace(made.scores, curves={}))
    with pytest.raises(ig.errors.InputError, match="no curves"):
        bare.plot_curves()


def test_the_front() -> None:
    """Worked by hand: b is dearer and worse than a, d is dearer than c and no better; a control is not on it."""
    values = np.array([[1.0, 1], [0.5, 0.5], [2, 2], [2, 2], [9, 9]])[:, None]
    costs = {name: np.zeros((5, 2)) for name in COSTS}
    costs["gradients"] = np.array([[1.0, 1], [2, 2], [3, 3], [4, 4], [0, 0]])
    for higher, expected in ((True, ["a", "c"]), (False, ["a", "b"])):
        scores = Scores(
            values, tuple("abcde"), ("score",), (higher,), ("1", "2"), **costs, controls=("e",)
        )
        comparison = ig.Comparison(scores, "a", Inference(draws=99))
        assert (
            front(comparison, "score", {name: cost[0] for name, cost in comparison.cost().items()})
            == expected
        )


def test_every_method_looks_different() -> None:
    many = 14
    scores = Scores(
        np.zeros((many, 1, 2)), tuple(map(str, range(many))), ("score",), (True,), ("1", "2"),
        **{name: np.zeros((many, 2)) for name in COSTS}, controls=("11", "12", "13"),
    )  # fmt: skip
    found = method_styles(ig.Comparison(scores, "0"))
    assert len({(one.colour, str(one.line)) for one in found.values()}) == many
