"""Many methods on one picture, and on one page by families."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.report import Case, page, sheet
from integrand.report.method_grid import _places
from integrand.report.views import MANY, families_of, regions_of, spread

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

NAMES = ("integrated", "blur", "idgi", "decision", "path_weighted", "left", "greedy_pig", "layer")


@pytest.fixture(scope="module")
def case() -> Case:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 4, 4),
        torch.nn.Softplus(),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 16 * 16, 3),
    ).eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    options = {
        "greedy_pig": {"rounds": 2, "rule": ig.rules.Midpoint(2)},
        "layer": {"site": "1"},
        "blur": {"steps": 3},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        results = {
            name: ig.explain(
                model,
                x,
                target=0,
                method=name,
                normalisation=ig.Normalisation.unit(),
                **options.get(name, {}),
            )
            for name in reversed(NAMES)
        }
    picture = x[0].permute(1, 2, 0).numpy()
    return Case(
        "Cat",
        [("cat", 0.7)],
        "logit of cat",
        results,
        {"blur": "out of focus"},
        {"latent": "no codec"},
        picture,
    )


def test_families_stand_in_the_order_of_the_catalogue(case: Case) -> None:
    found = families_of([*case.results, "mine"], str)
    assert [name for _, names in found for name in names] == [*NAMES, "mine"]
    families = [family for family, _ in found]
    assert families == [*dict.fromkeys(ig.methods.about(name).family for name in NAMES), "Others"]


def test_the_page_shows_every_method_with_residual_and_cost(case: Case) -> None:
    text = page([case], title="all")
    cards = text.split('<figure class="card">')[1:]
    assert len(cards) == len(NAMES)
    for name, card in zip(NAMES, cards, strict=True):
        made = case.results[name]
        card = card.partition("</figure>")[0]
        assert f"<code>{name}</code>" in card
        assert f"{made.cost.gradients:,} gradients, {made.cost.values:,} forward row" in card
        assert ("adds up: not claimed" in card) == (not made.claims_completeness)
        assert ("residual" in card) == made.claims_completeness
        assert ("out of focus" in card) == (name == "blur")
        assert card.count('src="data:image/png;base64,') == (1 if name == "layer" else 2)
    assert "<code>latent</code> no codec" in text
    assert "about a hundred gradients" not in text
    assert "about a hundred gradients" in page([dataclasses.replace(case, brief=True)], title="all")


def test_a_few_methods_stand_side_by_side_as_ever(case: Case) -> None:
    some = dict(list(case.results.items())[1:MANY])
    text = page([dataclasses.replace(case, results=some)], title="few")
    assert 'class="card"' not in text
    assert "Left out: <code>latent</code>" in text


def test_places_of_a_layer_stand_over_their_pixels() -> None:
    values, photograph = np.arange(6.0).reshape(2, 3), np.zeros((4, 9, 3))
    shown = spread(values, photograph)
    assert shown.shape == (4, 9)
    assert shown[:2, :3].tolist() == [[0.0] * 3] * 2
    assert shown[2:, 6:].tolist() == [[5.0] * 3] * 2
    uneven = spread(values, np.zeros((3, 4, 3)))
    assert uneven.tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5]]


def test_squares_are_summed_and_places_are_not(case: Case) -> None:
    photograph = case.photograph
    whole = regions_of(case.results["integrated"], photograph)
    side = 64 // 14
    assert whole[0, 0] == pytest.approx(
        float(case.results["integrated"].values[0, :, :side, :side].sum()), rel=1e-5
    )
    layer = regions_of(case.results["layer"], photograph)
    assert layer[0, 0] == pytest.approx(
        float(case.results["layer"].values[0, :, 0, 0].sum()), rel=1e-5
    )


def test_the_sheet_is_drawn_with_words_under_every_map(case: Case, tmp_path: Path) -> None:
    figure = sheet(case, tmp_path / "all.png")
    with Image.open(tmp_path / "all.png") as drawn:
        assert drawn.width > 1000
    words = {text.get_text() for axes in figure.axes for text in axes.texts}
    titles = {axes.get_title(loc="left") for axes in figure.axes}
    assert titles >= {"Cat", *NAMES}
    assert "adds up: not claimed" in words
    made = case.results["integrated"]
    assert any(
        f"{made.cost.gradients} gradients, {made.cost.values} forward" in text for text in words
    )
    assert sum(bool(axes.images) for axes in figure.axes) == 1 + len(NAMES)


def test_families_keep_together_where_they_fit() -> None:
    places = _places(
        [("a", tuple("1234")), ("b", tuple("5")), ("c", tuple("678")), ("d", tuple("ABCDEFGH"))]
    )
    at = {name: (row, column) for row, column, _, name in places}
    assert [at[n] for n in "1234"] == [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert at["5"] == (0, 5)
    assert [at[n] for n in "678"] == [(1, 0), (1, 1), (1, 2)]
    assert [at[n] for n in "ABFGH"] == [(2, 0), (2, 1), (2, 5), (3, 0), (3, 1)]
    assert [family for *_, family, _ in places if family] == ["a", "b", "c", "d"]


def test_on_the_same_scale_only_maps_in_units_of_the_change_share_one(
    case: Case, tmp_path: Path
) -> None:
    figure = sheet(case, tmp_path / "same.png", same_scale=True)
    ends = {
        axes.get_title(loc="left"): next(
            text.get_text() for text in axes.texts if "scale: ±" in text.get_text()
        )
        for axes in figure.axes
        if axes.get_title(loc="left") in NAMES
    }
    parts = [name for name in NAMES if case.results[name].claims_completeness]
    assert 1 < len(parts) < len(NAMES)
    assert len({ends[name] for name in parts}) == 1
    assert all(ends[name].startswith("its own scale") for name in NAMES if name not in parts)
