"""XRAI around any method: regions ranked slowly and quickly, and what becomes of a map that is known."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import integrand as ig
from integrand.integration.wrappers.xrai import _masks_of_labels, _rank_segments
from tests.catalogue import BUILD
from tests.catalogue.wrapped import quarters
from tests.problems import PROBLEMS, Counting, Problem, wave

PLAIN = ig.methods.integrated(0.25, ig.rules.Midpoint(10))
IMAGES = ["img", "softplus cnn"]


def run(problem: Problem, method: Any, **options: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(
            problem.model, problem.inputs, target=problem.target, method=method, **options
        )


def ranked_slowly(pixels: Tensor, masks: list[Tensor], least: int) -> tuple[Tensor, Tensor]:
    """The paper: the mask with the largest mean over what is not taken, again and again; regions numbered by falling mean."""
    left = torch.ones_like(pixels, dtype=torch.bool)
    waiting = list(masks)
    found = []
    while waiting := [mask for mask in waiting if int((mask & left).sum()) >= least]:
        best = max(waiting, key=lambda mask: float(pixels[mask & left].mean()))
        waiting = [mask for mask in waiting if mask is not best]
        region = best & left
        found.append((float(pixels[region].mean()), region))
        left = left & ~region
    heat, number = torch.zeros_like(pixels), torch.zeros_like(pixels, dtype=torch.long)
    found.sort(key=lambda one: -one[0])
    if bool(left.any()):
        found.append((float(pixels[left].mean()), left))
    for place, (mean, region) in enumerate(found):
        heat[region], number[region] = mean, place
    return heat, number


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    masks=st.integers(1, 12),
    least=st.integers(1, 6),
    phase=st.floats(0, 6),
)
def test_the_ranking_is_the_papers(
    height: int, width: int, masks: int, least: int, phase: float
) -> None:
    pixels = wave(height, width, phase=phase)
    some = wave(masks, height, width, phase=2 * phase + 1) > 0.3
    heat, number = _rank_segments(pixels, some.flatten(1), least)
    slow, places = ranked_slowly(pixels, list(some), least)
    torch.testing.assert_close(heat, slow, rtol=0, atol=1e-12)
    assert torch.equal(number, places)


def test_regions_are_ranked_by_their_new_pixels() -> None:
    """Without what is taken already, the second mask is the worse one; with it, it would come before the third."""
    pixels = torch.tensor([[9.0, 9.0, 1.0, 3.0]])
    masks = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]).bool()
    heat, number = _rank_segments(pixels, masks, 1)
    assert heat.tolist() == [[9.0, 9.0, 1.0, 3.0]]
    assert number.tolist() == [[0, 0, 2, 1]]


@pytest.mark.parametrize("channels", ["max", "sum"])
@pytest.mark.parametrize("problem", IMAGES)
def test_is_the_definition(problem: str, channels: str) -> None:
    p = PROBLEMS[problem]
    made = run(p, ig.XRAI(PLAIN, dilation=0, least=1, channels=channels, segments=quarters))
    plain = run(p, PLAIN)
    labels = quarters(p.inputs[0])
    masks = [one == k for one in labels for k in range(int(one.max()) + 1)]
    for b in range(5):
        pixels = plain.values[b].amax(0) if channels == "max" else plain.values[b].sum(0)
        heat, number = ranked_slowly(pixels, masks, 1)
        torch.testing.assert_close(made.values[b].sum(0), heat, rtol=0, atol=1e-12)
        assert torch.equal(made.notes["regions"][0, 0, b], number)
        torch.testing.assert_close(made.values[b][0], made.values[b][2], rtol=0, atol=0)
    if channels == "sum":
        torch.testing.assert_close(made.residual, plain.residual, rtol=0, atol=1e-12)
    else:
        assert bool((made.residual - plain.residual).abs().gt(1e-3).all())
    assert torch.equal(made.converged, plain.converged)
    assert bool(made.error.isnan().all())


@pytest.mark.parametrize("problem", IMAGES)
def test_one_region_is_uniform(problem: str) -> None:
    p = PROBLEMS[problem]
    whole = torch.zeros(1, *p.inputs.shape[2:], dtype=torch.long)
    made = run(p, ig.XRAI(PLAIN, dilation=0, segments=whole, least=1))
    assert not made.notes["regions"].any()
    for b in range(5):
        mean = run(p, PLAIN).values[b].amax(0).mean()
        torch.testing.assert_close(
            made.values[b].sum(0), mean.expand(p.inputs.shape[2:]), rtol=0, atol=1e-12
        )


def test_a_region_for_every_pixel_is_the_map_itself() -> None:
    p = PROBLEMS["img"]
    made = run(p, ig.XRAI(PLAIN, dilation=0, segments=torch.arange(16).reshape(1, 4, 4), least=1))
    torch.testing.assert_close(made.values.sum(1), run(p, PLAIN).values.amax(1), rtol=0, atol=1e-13)
    ranks = made.notes["regions"][0, 0].flatten(1)
    assert torch.equal(ranks.argsort(), made.values.sum(1).flatten(1).argsort(descending=True))


# --- segments ---------------------------------------------------------------------------------------------------------


def disk_by_hand(mask: Tensor, radius: int) -> Tensor:
    """Every pixel within ``radius`` of one of the mask's."""
    i, j = torch.meshgrid(torch.arange(mask.shape[0]), torch.arange(mask.shape[1]), indexing="ij")
    grown = torch.zeros_like(mask)
    for a, b in mask.nonzero().tolist():
        grown |= (i - a) ** 2 + (j - b) ** 2 <= radius**2
    return grown


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_segments_grow_by_a_disk(radius: int) -> None:
    labels = (wave(9, 13) > 0).long() + 2 * (torch.arange(13) // 5)
    masks = _masks_of_labels(labels.numpy(), radius)
    values = labels.unique().tolist()
    assert len(masks) == len(values)
    for mask, value in zip(masks, values, strict=True):
        assert torch.equal(torch.from_numpy(mask), disk_by_hand(labels == value, radius))


def two_squares() -> Tensor:
    """A dark 3x48x48 image with a light square at the upper left and a grey one at the lower right."""
    image = torch.zeros(3, 48, 48)
    image[:, 4:20, 4:20] = 1.0
    image[:, 28:44, 28:44] = 0.6
    return image


def of_the_grey_square() -> ig.fields.Field:
    weight = torch.zeros(3, 48, 48)
    weight[:, 28:44, 28:44] = 0.3
    weight[:, 4:20, 4:20] = -0.1
    return ig.fields.Linear(weight)


def test_felzenszwalb_finds_the_square_that_matters() -> None:
    made = ig.methods.xrai(baseline=0.0, rule=ig.rules.Midpoint(2))(
        of_the_grey_square(), two_squares()[None]
    )
    heat, number = made.values[0].sum(0), made.notes["regions"][0, 0, 0]
    best = number == 0
    square = torch.zeros(48, 48, dtype=torch.bool)
    square[28:44, 28:44] = True
    # Most of the square and nothing beyond what it was grown by; the warmest there is, and the other square is cold.
    assert int((best & square).sum()) > 0.8 * 256
    assert int((best & ~disk_by_hand(square, 5)).sum()) == 0
    assert float(heat[best].min()) > float(heat[~best].max())
    assert float(heat[8, 8]) < 0


def test_segments_are_of_the_colours_that_the_eye_sees() -> None:
    """The same picture in another normalisation has the same segments."""
    seen: list[Tensor] = []

    def watched(picture: Tensor) -> Tensor:
        seen.append(picture)
        return quarters(picture)

    image = two_squares()[None].double()
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 48 * 48, 2)).double()
    method = ig.XRAI(PLAIN, dilation=0, segments=watched)
    normalisation = ig.Normalisation.imagenet()
    for x, known in (
        (image, None),
        (normalisation.encode(image), normalisation),
        (3 * image - 7, None),
    ):
        ig.explain(model, x, target=0, method=method, normalisation=known)
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(seen[2], seen[0], rtol=0, atol=1e-12)
    assert float(seen[0].amin()) == 0
    assert float(seen[0].amax()) == 1


def test_even_images_are_one_region() -> None:
    made = ig.methods.xrai(baseline=0.0)(of_the_grey_square(), torch.ones(1, 3, 48, 48))
    assert not made.notes["regions"].any()


# --- the published code -----------------------------------------------------------------------------------------------


def pair(name: str) -> tuple[Tensor, Tensor]:
    """What XRAI of PAIR's saliency 0.2.1 made, with its defaults, of ``the_cat``: region numbers (H, W) from 0, and their means.

    "given": of the map u ⊙ x, which it was handed; "ig": of its own Integrated Gradients of Σ u ⊙ x + w ⊙ x²/2, in float32.
    """
    with np.load(Path(__file__).parent / "references" / "xrai.npz", allow_pickle=False) as file:
        return torch.from_numpy(file[f"{name}_regions"]).long(), torch.from_numpy(
            file[f"{name}_heat"]
        )


def the_cat() -> Tensor:
    """Every fourth pixel of scikit-image's, between −1 and 1: 1x3x75x113."""
    from skimage import data

    return (
        torch.from_numpy(data.chelsea()[::4, ::4] / 127.5 - 1).permute(2, 0, 1)[None].contiguous()
    )


U, W = wave(3, 75, 113, phase=0.3), wave(3, 75, 113, phase=2.0)


@pytest.mark.parametrize(
    ("name", "field", "baseline", "tolerance"),
    [
        ("given", ig.fields.Linear(U), 0.0, 1e-14),
        # Gradients along the line are linear: the published mean of them is the integral too.
        ("ig", ig.fields.Function(lambda z: (U * z + W * z * z / 2).flatten(1).sum(1)), None, 1e-7),
    ],
)
def test_is_the_published_code(
    name: str, field: ig.fields.Field, baseline: Any, tolerance: float
) -> None:
    regions, means = pair(name)
    made = ig.methods.xrai(baseline=baseline, rule=ig.rules.Midpoint(1))(field, the_cat())
    assert torch.equal(made.notes["regions"][0, 0, 0], regions)
    torch.testing.assert_close(made.values[0].sum(0), means[regions], rtol=0, atol=tolerance)


@pytest.mark.parametrize("other", [{"dilation": 4}, {"least": 120}, {"scales": (50.0, 100.0)}])
def test_the_published_numbers_tell_other_defaults_apart(other: dict[str, Any]) -> None:
    regions, _ = pair("given")
    made = ig.methods.xrai(baseline=0.0, rule=ig.rules.Midpoint(1), **other)(
        ig.fields.Linear(U), the_cat()
    )
    assert not torch.equal(made.notes["regions"][0, 0, 0], regions)


# --- with other parts -------------------------------------------------------------------------------------------------


FELZENSZWALB = ig.methods.xrai(scales=(50.0, 500.0), dilation=1, least=2, rule=ig.rules.Midpoint(5))


@pytest.mark.parametrize(
    ("problem", "method"),
    [
        ("img", BUILD["xrai"](PROBLEMS["img"])),
        ("softplus cnn", BUILD["xrai"](PROBLEMS["softplus cnn"])),
        ("softplus cnn", FELZENSZWALB),
    ],
    ids=["img", "softplus cnn", "Felzenszwalb"],
)
def test_five_at_once_are_five_alone(problem: str, method: Any) -> None:
    p = PROBLEMS[problem]
    whole = run(p, method)
    torch.testing.assert_close(
        whole.values.flatten(1).sum(1) + whole.residual,
        whole.output - whole.base,
        rtol=0,
        atol=1e-12,
    )
    for b in (0, 4):
        alone = run(p.only(b), method, batch_size=7)
        torch.testing.assert_close(alone.values[0], whole.values[b], rtol=0, atol=1e-12)
        assert torch.equal(alone.notes["regions"], whole[b].notes["regions"])


def test_costs_what_the_method_costs() -> None:
    p = PROBLEMS["softplus cnn"]
    model = Counting(p.model)
    tallies: list[Any] = []
    made = run(
        replace(p, model=model),
        ig.XRAI(PLAIN, dilation=0, least=1, segments=quarters),
        progress=lambda tally: tallies.append((tally.gradients, tally.expected)),
    )
    assert model.gradients == made.cost.gradients == 50
    assert model.values == made.cost.values
    assert tallies[-1] == (50, 50)


def test_the_published_baselines_are_the_images_own_extremes() -> None:
    p = PROBLEMS["img"]
    made = run(p, "xrai", dilation=0, least=1, segments=quarters, rule=ig.rules.Midpoint(9))
    assert made.names == ("darkest", "lightest")
    for b in range(5):
        for r, number in enumerate((p.inputs[b].min(), p.inputs[b].max())):
            torch.testing.assert_close(made.baselines[r, b], number.expand(3, 4, 4), rtol=0, atol=0)
    maps = [
        run(p, ig.methods.integrated(one, ig.rules.Midpoint(9))).values for one in made.baselines
    ]
    both = (maps[0] + maps[1]) / 2
    slow = ranked_slowly(
        both[2].amax(0), [one == k for one in quarters(p.inputs[2]) for k in range(2)], 1
    )[0]
    torch.testing.assert_close(made.values[2].sum(0), slow, rtol=0, atol=1e-12)


def test_around_and_inside_other_wrappers() -> None:
    p = PROBLEMS["softplus cnn"]
    around = run(p, ig.XRAI(ig.SmoothGrad(PLAIN, 2), dilation=0, least=1, segments=quarters))
    assert around.notes["noised"].shape == (2, 1, 5)
    inside = run(p, ig.SmoothGrad(ig.XRAI(PLAIN, dilation=0, least=1, segments=quarters), 2))
    assert inside.values.shape == p.inputs.shape
    ranked = run(p, ig.XRAI(ig.GreedyPIG(PLAIN, 20), dilation=0, least=1, segments=quarters))
    assert {"order", "regions"} <= set(ranked.notes)


def test_several_targets() -> None:
    p = PROBLEMS["softplus cnn"]
    method = ig.XRAI(PLAIN, dilation=0, least=1, segments=quarters)
    made = ig.explain_targets(p.model, p.inputs, targets=[0, p.target], method=method)
    torch.testing.assert_close(made[1].values, run(p, method).values, rtol=0, atol=1e-12)
    assert torch.equal(made[1].notes["regions"], run(p, method).notes["regions"])


def test_saved_and_read_back(tmp_path: Path) -> None:
    made = run(
        PROBLEMS["img"],
        ig.XRAI(PLAIN, dilation=0, least=1, segments=torch.zeros(1, 4, 4, dtype=torch.long)),
    )
    assert repr(made.method) == (
        "XRAI(Method(Constant(0.25), rule=Midpoint(10)), dilation=0, least=1, segments=tensor<1x4x4>)"
    )
    made.save(tmp_path / "map.safetensors")
    assert torch.equal(
        ig.load(tmp_path / "map.safetensors").notes["regions"], made.notes["regions"]
    )


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ig.XRAI("integrated"), r"XRAI wraps a Method"),
        (lambda: ig.XRAI(ig.methods.layer("0")), r"XRAI explains the inputs, and Layered"),
        (lambda: ig.XRAI(ig.Method(), ()), r"scales are one or more positive numbers, not \(\)"),
        (lambda: ig.XRAI(ig.Method(), dilation=-1), r"not -1 and 50"),
        (lambda: ig.XRAI(ig.Method(), channels="mean"), r"'max' or 'sum', not 'mean'"),
    ],
)
def test_nonsense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        make()


def test_only_images_have_regions() -> None:
    with pytest.raises(
        ig.errors.ShapeError,
        match=r"an example has shape 6\. For other data rank groups of features",
    ):
        run(PROBLEMS["relu mlp"], ig.XRAI(PLAIN))


def test_small_images_are_told_what_is_too_large() -> None:
    with pytest.raises(ig.errors.InputError, match=r"an image of 4x4 pixels can add least=50"):
        run(PROBLEMS["img"], ig.XRAI(PLAIN))


@pytest.mark.parametrize(
    "segments", [torch.zeros(4, 4).long(), torch.zeros(1, 3, 4).long(), torch.zeros(1, 4, 4)]
)
def test_label_maps_that_do_not_fit(segments: Tensor) -> None:
    with pytest.raises(
        ig.errors.ShapeError,
        match=r"segments are label maps \(S, height, width\) of whole numbers; for images of 4x4",
    ):
        run(PROBLEMS["img"], ig.XRAI(PLAIN, dilation=0, least=1, segments=segments))


def test_without_scikit_image_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any gradient; with segments of one's own and no dilation it is not needed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skimage", None)
    p = PROBLEMS["softplus cnn"]
    model = Counting(p.model)
    with pytest.raises(ig.errors.MissingExtra, match=r"pip install 'integrand\[images\]'"):
        run(replace(p, model=model), ig.XRAI(PLAIN, least=1))
    assert model.calls == 0
    assert np.isfinite(
        run(p, ig.XRAI(PLAIN, dilation=0, least=1, segments=quarters)).values.numpy()
    ).all()
