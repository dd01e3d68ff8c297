"""Figures: what a reader measures on them is what the attribution holds."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from typing import Any

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.core.formatting import number, percent
from integrand.errors import InputError, MissingExtra, ShapeError, UnknownName
from integrand.integration.attribution import Attribution
from integrand.report.arrays import cells, limit_of
from integrand.report.colours import ramp
from integrand.report.figures import (
    display_image,
    heat_rgb,
    overlay_rgb,
    pixel_map,
    plot,
    signed_rgb,
)
from integrand.report.formatting import headline

pytest.importorskip("matplotlib")


class Pair(torch.nn.Module):
    """A picture and a table."""

    def forward(self, image: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [image.square().sum((1, 2, 3)) + table.cumsum(1).sum(1), table.exp().sum(1)], 1
        )


def explained(*shape: int, batch: int = 3, **options: Any) -> Attribution:
    torch.manual_seed(0)
    width = int(np.prod(shape))
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(width, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)
    )
    return ig.explain(model, torch.rand(batch, *shape), target="predicted", baseline=0.0, **options)


@pytest.fixture(scope="module")
def images() -> Attribution:
    return explained(3, 16, 16, normalisation=ig.Normalisation.unit())


def shown_arrays(figure: Any) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def texts(figure: Any) -> str:
    figure.canvas.draw()
    found = [axes.get_title(loc="left") for axes in figure.axes]
    found += [
        label.get_text()
        for axes in figure.axes
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
    ]
    return " | ".join([*found, *(axes.get_xlabel() for axes in figure.axes)])


def scaled_to(attribution: Attribution, **fields: Any) -> Attribution:
    return dataclasses.replace(attribution, **fields)


# --- maps -------------------------------------------------------------------------------------------------------------


def test_a_map_is_the_signed_sum_over_channels(images: Attribution) -> None:
    expected = images.values[1].double().sum(0)
    np.testing.assert_allclose(pixel_map(images, 1), expected, rtol=1e-12)
    np.testing.assert_allclose(
        pixel_map(images, 1, channels=2), images.values[1, 2].double(), rtol=1e-12
    )


@pytest.mark.parametrize("side", [2, 5, 16, 40])
def test_cells_show_sums_and_keep_their_total(side: int) -> None:
    values = np.random.default_rng(0).normal(size=(16, 13))
    found = cells(values, side)
    assert found.shape == values.shape
    np.testing.assert_allclose(found[0, 0], values[:side, :side].sum())
    corners = found[::side, ::side]
    np.testing.assert_allclose(corners.sum(), values.sum())


def test_the_photograph_is_decoded_or_stretched(images: Attribution) -> None:
    np.testing.assert_allclose(
        display_image(images, 0), images.inputs[0].permute(1, 2, 0), atol=1e-6
    )
    stretched = display_image(
        scaled_to(images, normalisation=None, inputs=images.inputs * 7 - 3), 0
    )
    assert stretched.min() == 0
    assert stretched.max() == 1
    grey = display_image(scaled_to(images, normalisation=None, inputs=images.inputs[:, :1]), 0)
    assert grey.shape == (16, 16, 3)
    flat = display_image(scaled_to(images, normalisation=None, inputs=torch.ones(3, 3, 16, 16)), 0)
    assert (flat == 0.5).all()


def test_the_limit_is_the_percentile_and_never_hides_a_sparse_map() -> None:
    values = np.arange(-50, 51) / 1.0
    assert limit_of([values], 100) == 50
    assert limit_of([values], 50) == np.percentile(abs(values), 50)
    sparse = np.zeros((100, 100))
    sparse[3, 3] = -2
    assert limit_of([sparse]) == 2
    assert limit_of([np.zeros(4)]) == 0
    assert limit_of([np.array([np.nan, 1.0])]) == 1


# --- colours ----------------------------------------------------------------------------------------------------------


def test_the_signed_scale_is_symmetric_in_lightness_and_centred_at_white() -> None:
    values = np.linspace(-1, 1, 255)[None]
    luma = signed_rgb(values, 1.0)[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert abs(luma - luma[::-1]).max() < 22  # equal in OKLCh, nearly so in luma
    assert (np.diff(luma[127:]) <= 1).all()
    assert (np.diff(luma[:128]) >= -1).all()
    centre = signed_rgb(np.zeros((1, 1)), 1.0)[0, 0]
    assert centre.min() > 240
    assert np.ptp(centre) == 0
    np.testing.assert_array_equal(
        signed_rgb(values * 9, 1.0)[0, [0, -1]], signed_rgb(values, 1.0)[0, [0, -1]]
    )


def test_positive_is_orange_and_negative_is_blue() -> None:
    for paint in (signed_rgb, lambda v, limit: overlay_rgb(np.full((1, 2, 3), 0.5), v, limit)):
        (positive, negative) = paint(np.array([[1.0, -1.0]]), 1.0)[0].astype(int)
        assert positive[0] > positive[2] + 60
        assert negative[2] > negative[0] + 60


def test_heat_darkens_with_magnitude_whatever_the_sign() -> None:
    values = np.linspace(0, 1, 64)[None]
    np.testing.assert_array_equal(heat_rgb(values, 1.0), heat_rgb(-values, 1.0))
    assert (np.diff(heat_rgb(values, 1.0)[0].astype(int).sum(1)) < 0).all()


def test_an_overlay_is_grey_where_nothing_is_attributed_and_stronger_where_more_is() -> None:
    photograph = np.random.default_rng(0).random((4, 50, 3))
    blank = overlay_rgb(photograph, np.zeros((4, 50)), 1.0).astype(int)
    assert np.ptp(blank, axis=-1).max() == 0
    strengths = np.tile(np.linspace(0, 1, 50), (4, 1))
    painted = overlay_rgb(np.full((4, 50, 3), 0.5), strengths, 1.0).astype(int)
    assert (np.diff(painted[0, :, 0] - painted[0, :, 2]) >= 0).all()


@pytest.mark.parametrize(
    "paint", [signed_rgb, heat_rgb, lambda v, n: overlay_rgb(np.ones((2, 2, 3)), v, n)]
)
def test_zeros_are_painted_and_what_is_no_number_stands_out(paint: Any) -> None:
    assert paint(np.zeros((2, 2)), 0.0).dtype == np.uint8
    odd = paint(np.array([[np.nan, 0.0], [np.inf, 1.0]]), 1.0)
    assert odd[0, 0].tolist() == odd[1, 0].tolist() == [255, 0, 255]
    assert odd[0, 1].tolist() != [255, 0, 255]


def test_a_ramp_is_what_the_map_is_painted_with() -> None:
    colours, css = ramp("signed", 3)
    np.testing.assert_array_equal(colours, signed_rgb(np.array([[-1.0, 0.0, 1.0]]), 1.0)[0])
    assert all(len(c) == 7 and c.startswith("#") for c in css)


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["auto", "overlay", "signed", "heat"])
def test_the_scale_is_shared_over_the_batch_and_printed(images: Attribution, kind: str) -> None:
    figure = plot(images, kind=kind)
    maps = [pixel_map(images, i) for i in range(3)]
    limit = np.percentile(np.abs(maps), 99)
    paint = {"heat": heat_rgb, "signed": signed_rgb}.get(kind)
    drawn = shown_arrays(figure)[1::2]
    for i in range(3):
        wanted = (
            paint(maps[i], limit)
            if paint
            else overlay_rgb(display_image(images, i), maps[i], limit)
        )
        np.testing.assert_array_equal(drawn[i], wanted)
    bar = figure.axes[-1]
    low, high = bar.get_xlim()
    assert high == pytest.approx(limit)
    assert low == (0 if kind == "heat" else pytest.approx(-limit))
    assert number(limit) in texts(figure)


def test_a_given_scale_is_used(images: Attribution) -> None:
    figure = plot(images, kind="signed", scale=0.5, examples=1)
    np.testing.assert_array_equal(shown_arrays(figure)[1], signed_rgb(pixel_map(images, 1), 0.5))
    assert number(0.5) in texts(figure)


def test_cells_and_channels_are_said_beside_the_scale(images: Attribution) -> None:
    assert "4×4 cell (sum over channels)" in texts(plot(images, cell=4))
    assert "per pixel (channel 1)" in texts(plot(images, channels=1))


def test_titles_say_example_target_output_and_gap(images: Attribution) -> None:
    title = texts(plot(images, examples=[2]))
    which = int(images.target.at(torch.tensor([2])).which)
    assert (
        f"example 2 · Logit({which}) · F = {number(float(images.output[2]))} · gap 0.0 %" in title
    )
    assert "incomplete" not in title


def test_an_incomplete_map_is_marked(images: Attribution) -> None:
    broken = scaled_to(
        images, residual=torch.stack([images.change[0, 0] * 0.25, *images.residual[1:]])
    )
    assert "gap 25.0 % ▲ incomplete" in headline(broken, 0)
    assert "incomplete" not in headline(broken, 1)
    first, second = plot(broken, examples=[0, 1]).axes[:3:2]
    assert first._left_title.get_color() != second._left_title.get_color()


def test_a_map_that_has_not_converged_is_marked(images: Attribution) -> None:
    error = torch.full_like(images.residual, 0.12)
    found = scaled_to(images, error=error, converged=torch.arange(len(images)) > 0)
    assert "· estimated error 12.0 % ▲ not converged" in headline(found, 0)
    assert headline(found, 1).endswith("· estimated error 12.0 %")
    assert "error" not in headline(scaled_to(images, error=torch.full_like(error, float("nan"))), 0)
    first, second = plot(found, examples=[0, 1]).axes[:3:2]
    assert first._left_title.get_color() != second._left_title.get_color()


def test_maps_of_zeros_are_drawn(images: Attribution) -> None:
    for kind in ("overlay", "signed", "heat"):
        figure = plot(scaled_to(images, values=torch.zeros_like(images.values)), kind=kind)
        assert "every map is zero everywhere" in texts(figure)


def test_grey_images_are_drawn() -> None:
    assert len(shown_arrays(plot(explained(1, 16, 12)))) == 6


def test_columns_are_sorted_and_the_rest_is_added_up() -> None:
    made = explained(20, batch=2)
    figure = plot(made, examples=0, top=5, names=[f"$f_{i}" for i in range(20)])
    axes = figure.axes[0]
    lengths = [bar.get_width() for bar in axes.patches]
    ordered = made.values[0].double().abs().sort(descending=True)
    np.testing.assert_allclose(np.abs(lengths[:5]), ordered.values[:5], rtol=1e-6)
    assert sum(lengths) == pytest.approx(float(made.values[0].sum()), rel=1e-5)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*(f"$f_{i}" for i in ordered.indices[:5].tolist()), "15 others"]
    low, high = axes.get_xlim()
    assert low == -high


def test_bars_share_their_scale() -> None:
    axes = plot(explained(6)).axes[:3]
    assert len({one.get_xlim() for one in axes}) == 1


@pytest.mark.parametrize("tokens", [7, 60])
def test_tokens_get_a_bar_each_in_order(tokens: int) -> None:
    made = explained(tokens, 4, batch=2)
    bars = plot(made).axes[0].patches
    lengths = [bar.get_width() if tokens == 7 else bar.get_height() for bar in bars]
    np.testing.assert_allclose(lengths, made.values[0].double().sum(1), rtol=1e-5, atol=1e-9)


def test_one_panel_for_each_input() -> None:
    inputs = {"image": torch.rand(2, 3, 8, 8), "table": torch.rand(2, 5)}
    figure = plot(ig.explain(Pair(), inputs, target=0), names={"table": list("abcde")})
    text = texts(figure)
    assert "table: contribution to F" in text
    assert len(shown_arrays(figure)) == 4
    assert [len(axes.patches) for axes in figure.axes[2:6:3]] == [5, 5]


def test_a_figure_is_saved_shows_itself_and_touches_no_global_state(
    images: Attribution, tmp_path: Any
) -> None:
    figure = plot(images, path=tmp_path / "map.png")
    for written in ((tmp_path / "map.png").read_bytes(), figure._repr_png_()):
        assert written.startswith(b"\x89PNG")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_a_large_batch_says_that_it_is_cut() -> None:
    many = explained(3, 4, 4, batch=9)
    figure = plot(many)
    assert len(shown_arrays(figure)) == 16
    assert "first 8 of 9" in figure._supxlabel.get_text()


def test_the_attribution_plots_itself(images: Attribution) -> None:
    assert len(shown_arrays(images.plot(examples=[0]))) == 2


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"kind": "overley"}, UnknownName, "'overlay'"),
        ({"kind": "bars"}, InputError, "use 'overlay'"),
        ({"examples": [3]}, InputError, "0 to 2"),
        ({"channels": 3}, InputError, "3 channels"),
        ({"channels": "mean"}, InputError, "'sum'"),
        ({"scale": 0.0}, InputError, "positive"),
        ({"percentile": 0.0}, InputError, "between 0 and 100"),
        ({"cell": 0}, InputError, "at least 1"),
    ],
)
def test_what_does_not_fit_is_said(
    images: Attribution, options: dict[str, Any], error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        plot(images, **options)


def test_names_and_shapes_that_do_not_fit_are_said(images: Attribution) -> None:
    with pytest.raises(InputError, match="2 names for 6 features"):
        plot(explained(6), names=["a", "b"])
    with pytest.raises(ShapeError, match="no picture"):
        plot(scaled_to(images, values=images.values[None]))


def test_without_matplotlib_the_extra_is_named(
    images: Attribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"integrand\[plot\]"):
        plot(images)


def test_numbers_read_as_a_person_writes_them() -> None:
    assert [number(v) for v in (1.5, -0.01234, 12345.6, 0.0)] == ["1.50", "−0.0123", "12,346", "0"]
    assert [percent(v) for v in (0.0534, 25.0, float("nan"))] == ["5.3 %", "> 999 %", "–"]


# --- tokens by their names, and titles --------------------------------------------------------------------------------


def tokens(count: int, examples: int = 2) -> ig.Attribution:
    x = torch.linspace(-1, 1.4, examples * count * 3).reshape(examples, count, 3)
    return ig.explain(lambda z: z.tanh().sum((1, 2)), x, target=ig.targets.Output(), baseline=0.0)


def written(figure: Any) -> list[str]:
    return [one.get_text() for axes in figure.axes for one in axes.texts]


@pytest.mark.parametrize("count", [41, 90, 400])
def test_names_of_many_tokens_are_kept_and_stay_inside(count: int) -> None:
    """Every name, in order, none over another and none over the edge."""
    words = [f"wörd{'x' * (i % 9)}{i}" for i in range(count)]
    made = tokens(count)
    figure = made.plot(names=words)
    assert written(figure) == [*words, *words]
    axes = figure.axes[0]
    boxes = [patch.get_bbox() for patch in axes.patches]
    assert len(boxes) == count
    low, high = axes.get_xlim()
    assert all(low <= box.x0 < box.x1 <= high for box in boxes)
    for before, after in itertools.pairwise(boxes):
        assert after.y0 > before.y0 or after.x0 >= before.x1
    bottom, top = axes.get_ylim()
    assert min(bottom, top) <= min(box.y0 for box in boxes)
    assert max(box.y1 for box in boxes) <= max(bottom, top)


def test_tokens_are_coloured_by_what_they_contribute() -> None:
    made = tokens(50, 1)
    figure = made.plot(names=[f"t{i}" for i in range(50)])
    sums = made.values.sum(-1)[0]
    for patch, value in zip(figure.axes[0].patches, sums.tolist(), strict=True):
        red, _, blue, _ = patch.get_facecolor()
        assert (red > blue) == (value > 0) or abs(value) < 0.02 * float(sums.abs().max())


def test_every_example_may_have_names_of_its_own() -> None:
    each = [[f"a{i}" for i in range(5)], [f"b{i}" for i in range(5)]]
    figure = tokens(5).plot(names=each)
    labels = [[tick.get_text() for tick in axes.get_yticklabels()] for axes in figure.axes[:2]]
    assert labels == each
    assert written(tokens(60).plot(names=[[f"a{i}" for i in range(60)], [f"b{i}" for i in range(60)]])) == [f"{c}{i}" for c in "ab" for i in range(60)]  # fmt: skip
    with pytest.raises(ig.errors.InputError, match=r"names for 3 examples of 2"):
        tokens(5).plot(names=[*each, each[0]])
    with pytest.raises(ig.errors.InputError, match=r"There are 4 names for 5 features"):
        tokens(5).plot(names=[each[0], each[1][:4]])


def test_titles_say_what_is_shown() -> None:
    made = tokens(4)
    figure = made.plot(titles=["review 1 · positive", "review 2"])
    heads = [axes.get_title(loc="left") for axes in figure.axes[:2]]
    assert heads[0].startswith("review 1 · positive · F = ")
    assert heads[1].startswith("review 2 · F = ")
    assert (
        made.plot(examples=1, titles="one").axes[0].get_title(loc="left").startswith("one · F = ")
    )
    assert made.plot().axes[1].get_title(loc="left").startswith("example 1 · ")
    with pytest.raises(
        ig.errors.InputError, match=r"There are 3 titles for 2 examples that are drawn"
    ):
        made.plot(titles=["a", "b", "c"])
