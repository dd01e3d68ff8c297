"""Figures of interactions: what is drawn is what the numbers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.report.colours import signed_rgb

pytest.importorskip("matplotlib")

X = torch.tensor([[1.0, 2.0, -1.0], [2.0, 1.0, 0.5]], dtype=torch.float64)
NAMES = ["age", "income", "hours"]


@pytest.fixture(scope="module")
def made() -> ig.Interactions:
    field = ig.fields.Function(lambda z: z[:, 0] * z[:, 1] - z[:, 2] ** 2)
    return ig.interactions(field, X, feature_names=NAMES)


def test_a_heat_map_has_the_colours_of_the_mean(made: ig.Interactions) -> None:
    figure = made.plot()
    picture = figure.axes[0].images[0].get_array()
    mean = made.values.mean(0).numpy()
    assert np.array_equal(picture, signed_rgb(mean, np.abs(mean).max()))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == NAMES
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:2] == ["0.500", "0.500"]
    assert texts[8] == "−0.625"
    assert "mean of 2 examples" in figure.axes[0].get_title(loc="left")


def test_without_main_effects_the_scale_is_that_of_pairs(made: ig.Interactions) -> None:
    figure = made.plot(example=1, main_effects=False)
    off = made.values[1].numpy() * (1 - np.eye(3))
    assert np.array_equal(figure.axes[0].images[0].get_array(), signed_rgb(off, 0.5))


def test_a_network_has_a_line_for_each_pair(made: ig.Interactions) -> None:
    figure = made.plot(kind="network")
    lines = figure.axes[0].lines
    assert len(lines) == 1  # the only pair that interacts
    assert lines[0].get_linewidth() == 9.0
    (discs,) = figure.axes[0].collections
    sizes = discs.get_sizes()
    assert sizes[2] == sizes.max()
    assert "pairs add, up to 1" in figure._supxlabel.get_text()
    few = made.plot(kind="network", features=2)
    assert "1 features are not shown" in few._supxlabel.get_text()


def test_rows_and_files(made: ig.Interactions, tmp_path: Path) -> None:
    field = ig.fields.Function(lambda z: z[:, 0] * z[:, 1] - z[:, 2] ** 2)
    rows = ig.interactions(field, X, feature_names=NAMES, of=["hours", "age"])
    figure = rows.plot(path=tmp_path / "rows")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["hours", "age"]
    assert (tmp_path / "rows.png").stat().st_size > 1000
    no_diagonal = rows.plot(main_effects=False).axes[0].images[0].get_array()
    expected = rows.values.mean(0).clone()
    expected[0, 2] = expected[1, 0] = 0
    assert np.array_equal(no_diagonal, signed_rgb(expected.numpy(), 0.5))
    with pytest.raises(ig.errors.ShapeError, match="whole matrix"):
        rows.plot(kind="network")


def test_wide_matrices_have_no_names_and_dead_ones_no_colours() -> None:
    field = ig.fields.Function(lambda z: 0 * z.sum(1))
    made = ig.interactions(field, torch.ones(1, 50))
    figure = made.plot()
    assert list(figure.axes[0].get_xticks()) == []
    assert len(made.plot(kind="network").axes[0].lines) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "pie"}, "kind is one of"),
        ({"names": ["a"]}, "1 names for 3 features"),
        ({"top": -1}, "top is 0 at least"),
    ],
)
def test_nonsense_is_refused(made: ig.Interactions, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        made.plot(**options)
