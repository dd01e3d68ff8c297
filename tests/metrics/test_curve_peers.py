"""Curves beside those of PAIR and Quantus: equal where these are right, and where they are not, shown.

Their numbers are stored in tests/references/curves.npz, made by scripts/curve_references.py; neither has to be installed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.metrics.perturbation import information
from integrand.metrics.perturbation.removal import ranked, scores_without, steps_of

ROOT = Path(__file__).parents[2]
FOUND = np.load(ROOT / "tests" / "references" / "curves.npz")


def _script() -> Any:
    spec = importlib.util.spec_from_file_location(
        "curve_references", ROOT / "scripts" / "curve_references.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "trapz", np.trapezoid, raising=False)
        spec.loader.exec_module(module)
    return module


SCRIPT = _script()


# --- PAIR: performance information curves -------------------------------------------------------------------------------


def _sight() -> tuple[nn.Module, Tensor, list[Tensor]]:
    norm = ig.Normalisation.imagenet()
    x = norm.encode(torch.from_numpy(FOUND["images"]).permute(0, 3, 1, 2).float() / 255)
    return (
        SCRIPT.seer(FOUND["weight"], float(FOUND["bias"])),
        x,
        list(torch.from_numpy(FOUND["maps"])),
    )


KINDS = {"sic": ig.metrics.SIC, "aic": ig.metrics.AIC}


def _information(kind: str) -> ig.metrics.BatchScores:
    net, x, maps = _sight()
    running = ig.metrics.Running(KINDS[kind](least=0.5, mask=torch.from_numpy(FOUND["mask"])))
    with ig.metrics.Subject.of(net, x, 0, normalisation=ig.Normalisation.imagenet()) as subject:
        running.update(subject, ig.metrics.Maps.of(maps, subject.x, subject.layout))
    return running.compute()


@pytest.mark.parametrize("kind", ["sic", "aic"])
@pytest.mark.parametrize("count", ["variation", "webp"])
def test_information_curves_are_those_of_pair(
    monkeypatch: pytest.MonkeyPatch, kind: str, count: str
) -> None:
    """Whole curves, their areas, and the areas under the median and the mean curve."""
    if count == "variation":
        monkeypatch.setattr(information, "_bytes", SCRIPT.variation)
    elif [information._bytes(image) for image in FOUND["images"]] != FOUND["bytes"].tolist():
        pytest.skip("this libwebp compresses otherwise than the one the numbers were stored with")
    found = _information(kind)
    assert found.values.isnan()[:, 3].all()  # one colour: nothing to hide
    assert not found.values[:, :3].isnan().any()
    close = {"rtol": 0, "atol": 2e-6, "equal_nan": True}
    np.testing.assert_allclose(found.measured, FOUND[f"{count}_{kind}_curves"], **close)
    np.testing.assert_allclose(found.values, FOUND[f"{count}_{kind}_areas"], **close)
    np.testing.assert_allclose(found.summary, FOUND[f"{count}_{kind}_merged"][:, 0], **close)
    mean = KINDS[kind](aggregate="mean").summary(found.measured)
    np.testing.assert_allclose(mean, FOUND[f"{count}_{kind}_merged"][:, 1], **close)


def test_pair_shows_a_constant_map_the_whole_image_at_once() -> None:
    """A quantile of equal numbers is all of them. Here shares are what they say, whatever ties."""
    pytest.importorskip("scipy")
    net, x, _ = _sight()
    norm = ig.Normalisation.imagenet()
    rows: list[int] = []
    net.register_forward_pre_hook(
        lambda module, args: rows.append(len(args[0].flatten(1).unique(dim=0)))
    )
    flat = ig.metrics.sic(
        net, x[:1], torch.zeros(1, 48, 64), target=0, normalisation=norm, least=0.5, batch_size=32
    )
    assert max(rows) == 13  # as many pictures as thresholds, all different
    assert 0 < float(flat) < 1
    constant = np.zeros((48, 64))
    assert (
        constant >= np.quantile(constant, 1 - 0.005)
    ).all()  # PAIR's mask at the first threshold


# --- Quantus --------------------------------------------------------------------------------------------------------------


def _flipped() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    net = SCRIPT.small()
    net.load_state_dict(
        {n.removeprefix("net."): torch.from_numpy(FOUND[n]) for n in FOUND if n.startswith("net.")}
    )
    return (
        net,
        torch.from_numpy(FOUND["x"]),
        torch.from_numpy(FOUND["y"]),
        torch.from_numpy(FOUND["flip_maps"]),
    )


def _curves(by: ig.metrics.Metric) -> Tensor:
    net, x, y, maps = _flipped()
    with ig.metrics.Subject.of(net, x, y) as subject:
        return by.measure(subject, ig.metrics.Maps.of(maps, subject.x, subject.layout))[0]


def test_points_of_pixel_flipping_are_those_of_quantus() -> None:
    """``"black"`` is the smallest number of the image; F(x) is not among its points, and here is."""
    found = _curves(ig.metrics.Deletion(each=9, features="elements", fill=ig.baselines.Extreme()))
    assert found.shape == (6, 17)
    np.testing.assert_allclose(found[:, 1:], FOUND["flip_curves"], rtol=0, atol=1e-6)


def test_quantus_area_is_no_area_over_the_unit_interval() -> None:
    """It is a sum of steps that leaves the first out, and so grows with their number; a constant score of 1 would get 15, not 1."""
    curve = _curves(ig.metrics.Deletion(each=9, features="elements", fill=ig.baselines.Extreme()))
    steps = curve.shape[1] - 1
    first = (curve[:, 0] + curve[:, 1]) / 2
    theirs = torch.from_numpy(FOUND["flip_areas"]).float()
    torch.testing.assert_close(theirs, steps * ig.metrics.area(curve) - first, rtol=0, atol=1e-5)
    assert theirs.max() > 1


def test_road_is_that_of_quantus_in_one_batch_and_only_there() -> None:
    net, x, y, maps = _flipped()
    road = ig.metrics.ROAD(
        (0.1, 0.3, 0.5, 0.7, 0.9), fill=ig.baselines.Imputed(noise=0.0), score="accuracy"
    )
    found = _curves(road)
    np.testing.assert_allclose(found.mean(0), FOUND["road_6"], rtol=0, atol=1e-6)
    # In batches of two its number is that of the first two examples.
    np.testing.assert_allclose(found[:2].mean(0), FOUND["road_2"], rtol=0, atol=1e-6)
    assert not np.allclose(FOUND["road_2"], FOUND["road_6"])
    running = ig.metrics.Running(road)
    for first in (0, 2, 4):
        part = slice(first, first + 2)
        with ig.metrics.Subject.of(net, x[part], y[part]) as subject:
            running.update(subject, ig.metrics.Maps.of(maps[part], subject.x, subject.layout))
    torch.testing.assert_close(running.compute().measured[0], found)


def test_imputation_is_that_of_quantus() -> None:
    x = torch.from_numpy(FOUND["coloured"])[None]
    gone = torch.zeros(144, dtype=torch.bool)
    gone[torch.from_numpy(FOUND["gone"])] = True
    found = ig.baselines.Imputed(noise=0.0).without(
        x, gone.reshape(1, 1, 12, 12), torch.zeros(1, dtype=torch.long)
    )
    np.testing.assert_allclose(found[0], FOUND["imputed"], rtol=0, atol=1e-10)


def test_irof_is_that_of_quantus_up_to_scale_and_where_it_begins() -> None:
    """Theirs: L − the area in steps of one from the first removal on, and a triangle too much for images with fewer segments."""
    net, labels = (
        SCRIPT.pooled(FOUND["irof_weight"]),
        torch.from_numpy(FOUND["irof_segments"]).long(),
    )
    x, y, maps = (torch.from_numpy(FOUND[f"irof_{name}"]) for name in ("x", "y", "maps"))
    counts = [len(one.unique()) for one in labels]
    for b, count in enumerate(counts):
        with ig.metrics.Subject.of(net, x[b : b + 1], y[b : b + 1]) as subject:
            seen = ig.metrics.Maps.of(maps[b : b + 1], subject.x, subject.layout)
            ours = float(ig.metrics.IROF(labels[b], fill=0.25)(subject, seen))
            ranking = ranked(subject, seen, labels[b], 0, "mean")
            curve = scores_without(subject, ranking, steps_of(ranking.counts, None, 1), 0.25)[0, 0]
        start, first, last = (curve[[0, 1, -1]] / curve[0]).tolist()
        theirs = count * ours + (start + first) / 2 - (last / 2 if count < max(counts) else 0)
        assert theirs == pytest.approx(float(FOUND["irof"][b]), abs=2e-3)
    assert min(counts) < max(counts)
    together = ig.metrics.irof(net, x, maps, target=y, segments=labels, fill=0.25)
    alone = [ig.metrics.irof(net, x[b : b + 1], maps[b : b + 1], target=y[b : b + 1], segments=labels[b : b + 1], fill=0.25) for b in range(4)]  # fmt: skip
    torch.testing.assert_close(together, torch.cat(alone))


# --- the peers themselves, where they are installed ---------------------------------------------------------------------------


@pytest.fixture
def quantus(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    return pytest.importorskip("quantus")


def test_stored_numbers_are_what_pair_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    if not any(Path(place, "saliency", "metrics", "pic.py").is_file() for place in sys.path):
        pytest.skip("saliency is not installed")
    again = SCRIPT.information()
    for name in (
        "variation_sic_curves",
        "variation_aic_curves",
        "variation_sic_merged",
        "variation_aic_merged",
    ):
        np.testing.assert_allclose(again[name], FOUND[name], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_stored_numbers_are_what_quantus_gives(quantus: Any) -> None:
    again = SCRIPT.flipping()
    for name in ("flip_curves", "flip_areas", "road_6", "road_2", "imputed", "irof"):
        np.testing.assert_allclose(again[name], FOUND[name], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_quantus_road_refuses_colours(quantus: Any) -> None:
    """Numbers of the second and third channel fall out of an image whose pixels are counted once."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    road: Callable[..., Any] = quantus.ROAD(
        percentages=[50], normalise=False, disable_warnings=True
    )
    with pytest.raises(IndexError):
        road(model=net, x_batch=x, y_batch=np.array([0, 1]), a_batch=x, device="cpu")
