"""Pictures of tables: what is drawn is what the numbers say."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import integrand as ig
from integrand.errors import InputError, UnknownName
from integrand.report.columns import Waterfall

# Two nodes, so that there is a residual to draw.
pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")


@pytest.fixture
def result() -> ig.Attribution:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(30, 4)), columns=["a", "b", "c $x_1$", "d"])
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).eval()
    return ig.explain(net, frame, target=0, rule=ig.rules.GaussLegendre(2))


def test_a_waterfall_leads_from_the_baseline_to_the_output(result: ig.Attribution) -> None:
    for top in (1, 2, 15):
        steps = Waterfall(result, range(30), top).steps
        for example, line in steps.items():
            assert line[0].start == pytest.approx(float(result.base[example]), abs=1e-6)
            joined = itertools.pairwise(line)
            assert all(step.end == pytest.approx(after.start) for step, after in joined)
            missed = abs(float(result.residual[example]))
            end = float(result.output[example])
            # What is left out of the picture is no more than a thousandth.
            assert line[-1].end == pytest.approx(
                end, abs=1e-6 + 2e-3 * abs(end - line[0].start) + 1e-3
            )
            shown = [step for step in line if step.kind == "residual"]
            if missed > 0.01:
                assert shown
                assert shown[0].end - shown[0].start == pytest.approx(
                    float(result.residual[example]), abs=1e-5
                )


@pytest.mark.parametrize("kind", ["waterfall", "importance", "beeswarm", "dependence", "bars"])
def test_every_kind_is_drawn_and_written(result: ig.Attribution, kind: str, tmp_path: Path) -> None:
    figure = result.plot(kind=kind, path=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000
    labels = [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
    if kind != "dependence":
        assert any(label.startswith("c $x_1$") for label in labels)
    if kind in ("waterfall", "bars"):
        value = float(result.inputs[0, 0])
        assert any(
            label.startswith("a = ") and f"{abs(value):.2f}"[:3] in label for label in labels
        )


def test_a_beeswarm_has_a_point_for_every_example(result: ig.Attribution) -> None:
    axes = result.plot(kind="beeswarm").axes[0]
    ranked = result.importance()
    for row, name in zip(axes.collections, ranked.names, strict=True):
        column = result.values[:, result.feature_names.index(name)]
        drawn = np.sort(np.asarray(row.get_offsets())[:, 0])
        np.testing.assert_allclose(drawn, np.sort(column.numpy()), rtol=1e-6)


def test_dependence_draws_contribution_over_value(result: ig.Attribution) -> None:
    points = np.asarray(
        result.plot(kind="dependence", feature="b").axes[0].collections[0].get_offsets()
    )
    np.testing.assert_allclose(points[:, 0], result.inputs[:, 1], rtol=1e-6)
    np.testing.assert_allclose(points[:, 1], result.values[:, 1], rtol=1e-6)
    with pytest.raises(UnknownName, match="'e'"):
        result.plot(kind="dependence", feature="e")
    with pytest.raises(InputError, match="sum of several"):
        result.grouped({"ab": ["a", "b"]}).plot(kind="dependence", feature="ab")
