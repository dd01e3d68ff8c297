"""Side by side with Quantus 0.6: the same numbers where both are right, and where they are not.

The numbers stand in tests/references/quantus_maps.json, which says how they were made. Where Quantus is installed, the tests
that bear its name run it again.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import wave

REFERENCE = json.loads(
    (Path(__file__).parent.parent / "references" / "quantus_maps.json").read_text()
)
ROWS, COLUMNS = torch.meshgrid(torch.arange(12), torch.arange(10), indexing="ij")
MAPS = wave(4, 1, 12, 10, phase=0.4)
MASKS = torch.stack([(ROWS // 3 + COLUMNS // 4 + b) % 3 == 0 for b in range(4)])


def quoted(name: str) -> Tensor:
    return torch.tensor(REFERENCE[name], dtype=torch.float64)


AGREED: dict[str, tuple[Any, float]] = {
    "Sparseness": (lambda: ig.metrics.sparseness(MAPS), 5e-7),  # it adds 1e-7 to every magnitude
    "Complexity": (lambda: ig.metrics.complexity(MAPS), 1e-9),
    "EffectiveComplexity, eps 1e-5, abs": (lambda: ig.metrics.effective_complexity(MAPS), 0),
    "EffectiveComplexity, eps 0.3, abs": (
        lambda: ig.metrics.effective_complexity(MAPS, eps=0.3),
        0,
    ),
    "RelevanceRankAccuracy": (lambda: ig.metrics.relevance_rank(MAPS, MASKS), 1e-12),
    "RelevanceMassAccuracy, abs": (
        lambda: ig.metrics.relevance_mass(MAPS, MASKS, pool="absolute"),
        1e-12,
    ),
    "AttributionLocalisation": (
        lambda: ig.metrics.relevance_mass(MAPS, MASKS, pool="absolute"),
        1e-10,
    ),  # 1e-9 below
    "PointingGame": (lambda: ig.metrics.pointing_game(MAPS, MASKS, tolerance=0), 0),
    "AUC": (lambda: ig.metrics.localisation_auc(MAPS, MASKS), 1e-12),
    "TopKIntersection, k 17": (lambda: ig.metrics.top_intersection(MAPS, MASKS, k=17), 1e-12),
}


@pytest.mark.parametrize("name", AGREED)
def test_the_same_numbers(name: str) -> None:
    ours, gap = AGREED[name]
    torch.testing.assert_close(ours(), quoted(name), rtol=0, atol=gap)


# --- where it is wrong ----------------------------------------------------------------------------------------------


def test_empty_masks_are_no_hits() -> None:
    """Quantus writes NaN into an array of booleans, which makes it True."""
    masks = MASKS.clone()
    masks[1] = False
    assert quoted("PointingGame, mask 1 empty")[1].item() == 1
    assert ig.metrics.pointing_game(MAPS, masks, tolerance=0).isnan().tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_constant_maps_do_not_always_hit() -> None:
    flat = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None, None] * torch.ones_like(MAPS)
    assert quoted("PointingGame, a constant map for each").tolist() == [1, 1, 1, 1]
    found = ig.metrics.pointing_game(flat, MASKS, tolerance=0)
    torch.testing.assert_close(found, MASKS.double().mean((1, 2)))


def test_the_mass_of_signed_relevance_is_no_share() -> None:
    theirs = quoted("RelevanceMassAccuracy, signed")
    heat = MAPS[:, 0]
    torch.testing.assert_close(theirs, (heat * MASKS).sum((1, 2)) / heat.sum((1, 2)))
    assert theirs.min().item() < 0
    assert theirs.max().item() > 1
    with pytest.raises(ig.errors.InputError, match="no sign"):
        ig.metrics.relevance_mass(MAPS, MASKS, pool="sum")


def test_weighted_localisation_depends_on_the_size_of_the_batch() -> None:
    """It divides by the numbers in all examples but the first two (``x_batch[2:].size``) instead of those in one."""
    theirs, plain = quoted("AttributionLocalisation, weighted"), quoted("AttributionLocalisation")
    size = MASKS.double().sum((1, 2))
    torch.testing.assert_close(theirs, plain * size / ((4 - 2) * 120))
    assert not torch.allclose(theirs, plain * size / 120)


def test_exact_maps_are_complete() -> None:
    """Quantus: False for the exact map of a linear model, divided by its maximum (the default) or not."""
    for normalised in (True, False):
        assert quoted(f"Completeness, exact map, normalise {normalised}").tolist() == [0, 0, 0, 0]
    model = nn.Sequential(nn.Flatten(), nn.Linear(120, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(wave(2, 120, phase=0.3))
        model[1].bias.zero_()
    x = wave(4, 1, 12, 10, phase=0.9).float()
    found = ig.explain(model, x, target=0)
    assert bool((ig.metrics.completeness_gap(found) < 1e-4).all())


# --- where it is installed ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quantus() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus", minversion="0.6")


def asked(metric: Any, maps: Tensor, masks: Tensor | None, x: Tensor | None = None) -> list[float]:
    model = nn.Sequential(nn.Flatten(), nn.Linear(120, 2)).eval()
    x = torch.zeros_like(maps) if x is None else x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metric(
            model=model,
            x_batch=x.float().numpy(),
            y_batch=torch.zeros(len(maps), dtype=torch.long).numpy(),
            a_batch=maps.numpy().copy(),
            s_batch=None if masks is None else masks[:, None].numpy(),
            device="cpu",
        )
    return [float(value) for value in found]


def test_quantus_still_says_so(quantus: Any) -> None:
    options = SimpleNamespace(
        signed={"abs": False, "normalise": False, "disable_warnings": True},
        sized={"abs": True, "normalise": False, "disable_warnings": True},
    )
    empty = MASKS.clone()
    empty[1] = False
    for name, metric, masks in [
        ("Sparseness", quantus.Sparseness(**options.sized), None),
        ("Complexity", quantus.Complexity(**options.sized), None),
        ("RelevanceRankAccuracy", quantus.RelevanceRankAccuracy(**options.signed), MASKS),
        ("RelevanceMassAccuracy, abs", quantus.RelevanceMassAccuracy(**options.sized), MASKS),
        ("RelevanceMassAccuracy, signed", quantus.RelevanceMassAccuracy(**options.signed), MASKS),
        ("AUC", quantus.AUC(**options.signed), MASKS),
        ("TopKIntersection, k 17", quantus.TopKIntersection(k=17, **options.signed), MASKS),
        ("PointingGame", quantus.PointingGame(**options.signed), MASKS),
        ("PointingGame, mask 1 empty", quantus.PointingGame(**options.signed), empty),
        (
            "AttributionLocalisation, weighted",
            quantus.AttributionLocalisation(
                weighted=True, positive_attributions=True, **options.sized
            ),
            MASKS,
        ),
    ]:
        found = asked(metric, MAPS, masks)
        assert found == pytest.approx(REFERENCE[name], abs=1e-9), name
    assert math.isclose(sum(REFERENCE["PointingGame"]), 2)
