"""Maps against masks: each definition restated slowly, ties as means over orders, and masks that ask nothing."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

import integrand as ig
from integrand.core.correlation import pearson, spearman
from integrand.core.ranks import average_ranks, found_among_first
from integrand.metrics.localisation import POOLS
from tests.problems import wave

DOORS = {
    "pointing_game": {"tolerance": 1.2},
    "relevance_mass": {},
    "relevance_rank": {},
    "mask_overlap": {},
    "localisation_auc": {},
    "top_intersection": {"k": 17},
}


@pytest.fixture
def maps() -> Tensor:
    return wave(4, 3, 12, 10, phase=0.4)


@pytest.fixture
def masks() -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(10), indexing="ij")
    return torch.stack([(rows // 3 + columns // 4 + b) % 3 == 0 for b in range(4)])


def measured(name: str, maps: Tensor | list[Tensor], masks: Tensor, **options: object) -> Tensor:
    found: Tensor = getattr(ig.metrics, name)(maps, masks, **{**DOORS[name], **options})
    return found


# --- restated -------------------------------------------------------------------------------------------------------


def slow(name: str, heat: Tensor, mask: Tensor) -> float:
    """One example (3, H, W), (H, W), by loops."""
    places = list(itertools.product(range(heat.shape[1]), range(heat.shape[2])))
    score = {p: float(heat[:, p[0], p[1]].sum()) for p in places}
    inside = {p for p in places if mask[p]}
    order = sorted(places, key=lambda p: -score[p])
    if name == "pointing_game":
        return float(any(math.dist(order[0], p) < 1.2 for p in inside))
    if name == "relevance_mass":
        return sum(max(score[p], 0) for p in inside) / sum(max(score[p], 0) for p in places)
    if name == "relevance_rank":
        return len(inside & set(order[: len(inside)])) / len(inside)
    if name == "top_intersection":
        return len(inside & set(order[:17])) / 17
    if name == "localisation_auc":
        pairs = [(p, q) for p in inside for q in places if q not in inside]
        return sum(score[p] > score[q] for p, q in pairs) / len(pairs)
    precision = []
    for p in range(1, 101):
        k = int(len(inside) * p / 100)
        precision.append(len(inside & set(order[:k])) / k if k else 0.0)
    return sum((a + b) / 2 for a, b in itertools.pairwise(precision)) / 99


@pytest.mark.parametrize("name", DOORS)
def test_definitions(name: str, maps: Tensor, masks: Tensor) -> None:
    expected = [slow(name, heat, mask) for heat, mask in zip(maps, masks, strict=True)]
    torch.testing.assert_close(measured(name, maps, masks), torch.tensor(expected).double())


@pytest.mark.parametrize("name", DOORS)
def test_a_batch_equals_its_examples_and_several_maps_go_together(
    name: str, maps: Tensor, masks: Tensor
) -> None:
    both = measured(name, [maps, maps.roll(3, -1)], masks)
    assert both.shape == (2, 4)
    for b in range(4):
        torch.testing.assert_close(both[0, b], measured(name, maps[b : b + 1], masks[b : b + 1])[0])
    torch.testing.assert_close(both[1], measured(name, maps.roll(3, -1), masks))


@pytest.mark.parametrize("name", [n for n in DOORS if n != "relevance_mass"])
def test_ranks_only(name: str, maps: Tensor, masks: Tensor) -> None:
    heat = maps.sum(1)
    torch.testing.assert_close(measured(name, heat, masks), measured(name, heat.exp(), masks))
    assert not torch.allclose(measured(name, heat, masks), measured(name, -heat, masks))


@pytest.mark.parametrize("name", DOORS)
def test_the_mask_is_the_best_map_and_its_opposite_the_worst(name: str, masks: Tensor) -> None:
    masks = torch.zeros(1, 40, 40, dtype=torch.bool)
    masks[0, 5:20, 7:22] = True  # 225 places, so that a hundredth is one at least
    best, worst = masks.double(), (~masks).double()
    worst[0, :25] = 0  # far away
    assert measured(name, best, masks).item() == 1
    assert measured(name, worst, masks).item() <= (0.5 if name == "localisation_auc" else 0)


@pytest.mark.parametrize("name", DOORS)
def test_random_maps_score_what_chance_does(name: str, masks: Tensor) -> None:
    """100 random maps bracket the score of a constant map, which is chance by construction."""
    noise = torch.rand(100, 12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = masks[:1].expand(100, -1, -1)
    seen = measured(name, noise, own)
    chance = measured(name, torch.ones(1, 12, 10).double(), masks[:1]).item()
    assert abs(seen.mean().item() - chance) < 3.5 * seen.std().item() / 10
    if name not in ("localisation_auc", "pointing_game"):
        assert chance == pytest.approx(masks[0].double().mean().item(), abs=0.02)
    if name == "localisation_auc":
        assert chance == pytest.approx(0.5)


# --- ties -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_ties_are_the_mean_over_all_orders(pairs: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([[float(score) for score, _ in pairs]])
    marked = torch.tensor([[own for _, own in pairs]])
    found = []
    for order in itertools.permutations(range(len(pairs))):
        ranked = [pairs[i] for i in order]
        if all(a[0] >= b[0] for a, b in itertools.pairwise(ranked)):
            found.append([0, *itertools.accumulate(int(own) for _, own in ranked)])
    expected = torch.tensor(found).double().mean(0, keepdim=True)
    torch.testing.assert_close(found_among_first(scores, marked), expected)


def test_pointing_at_several_places() -> None:
    heat = torch.zeros(1, 1, 8, 8).double()
    heat[0, 0, [0, 0, 7, 7], [0, 7, 0, 7]] = 2
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 0, :] = True
    assert ig.metrics.pointing_game(heat, mask, tolerance=0).item() == 0.5
    assert ig.metrics.pointing_game(heat, mask, tolerance=7).item() == 0.5  # strictly less
    assert ig.metrics.pointing_game(heat, mask, tolerance=7.01).item() == 1


@given(st.integers(0, 10_000), st.floats(0, 12))
def test_tolerance_is_a_distance(seed: int, tolerance: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    heat = torch.rand(1, 1, 7, 9, generator=rng)
    mask = torch.rand(1, 7, 9, generator=rng) > 0.9
    if not mask.any():
        mask[0, 3, 3] = True
    top = divmod(int(heat.argmax()), 9)
    nearest = min(math.dist(top, place) for place in mask[0].nonzero().tolist())
    hit = ig.metrics.pointing_game(heat, mask, tolerance=tolerance).item()
    assert hit == float(nearest < tolerance or nearest == 0)


def test_tokens_and_columns_have_no_distance() -> None:
    values = torch.tensor([[[0.0, 0.0], [2.0, 2.0], [0.0, 1.0]]])
    own = torch.tensor([[True, False, False]])
    with ig.metrics.Subject.of(
        ig.fields.Linear(torch.ones(3, 2)), torch.ones(1, 3, 2), masks=own
    ) as subject:
        maps = ig.metrics.Maps.of(values, subject.x, subject.layout)
        assert ig.metrics.PointingGame(tolerance=15)(subject, maps).item() == 0
        assert ig.metrics.RelevanceMass()(subject, maps).item() == 0
    assert ig.metrics.pointing_game(values.sum(2), own).item() == 0


# --- pooling --------------------------------------------------------------------------------------------------------


def test_pooling() -> None:
    channels = torch.tensor([[3.0, -1.0], [-4.0, 2.0]])[..., None]  # places, channels
    values = channels.permute(1, 0, 2)[None]  # (1, C=2, H=2, W=1)
    mask = torch.tensor([[[True], [False]]])
    mass = {
        "positive": (2, 0),
        "absolute": (2, 2),
        "l1": (4, 6),
        "l2": (10**0.5, 20**0.5),
        "l2_squared": (10, 20),
        "max": (3, 4),
    }
    assert set(mass) | {"sum"} == set(POOLS)
    for pool, (inside, outside) in mass.items():
        found = ig.metrics.relevance_mass(values, mask, pool=pool).item()
        assert found == pytest.approx(inside / (inside + outside)), pool


def test_relevance_that_is_a_mass_has_no_sign() -> None:
    with pytest.raises(ig.errors.InputError, match=r"no sign.*'positive'"):
        ig.metrics.RelevanceMass(pool="sum")
    with pytest.raises(ig.errors.InputError, match="choose from 'sum'"):
        ig.metrics.RelevanceRank(pool="mean")


@pytest.mark.parametrize("pool", [pool for pool in POOLS if pool != "sum"])
def test_relevance_mass_stays_in_its_interval(pool: str, maps: Tensor, masks: Tensor) -> None:
    """Signed sums leave it on the same maps (the slow restatement of what Quantus does without abs)."""
    found = ig.metrics.relevance_mass(maps, masks, pool=pool)
    assert bool(((found >= 0) & (found <= 1)).all())
    heat = wave(4, 12, 10, phase=0.4)
    signed = (heat * masks).sum((1, 2)) / heat.sum((1, 2))
    assert bool(((signed < 0) | (signed > 1)).any())


# --- what cannot be asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOORS)
def test_empty_masks_are_nan_and_never_a_hit(name: str, maps: Tensor, masks: Tensor) -> None:
    masks[1] = False
    found = measured(name, maps, masks)
    assert found.isnan().tolist() == [False, True, False, False]
    with ig.metrics.Subject.of(
        ig.fields.Linear(torch.ones(3, 12, 10)), maps, masks=masks
    ) as subject:
        metric = ig.metrics.known()[name](**DOORS[name])
        seen = metric.measure(subject, ig.metrics.Maps.of(maps, subject.x, subject.layout))
        torch.testing.assert_close(metric.summary(seen), found[[0, 2, 3]].mean()[None])


@pytest.mark.parametrize("name", DOORS)
def test_full_masks(name: str, maps: Tensor) -> None:
    """Everything is inside: a hit, all of the mass, every rank; but no way to be higher than outside."""
    found = measured(name, maps, torch.ones(4, 12, 10, dtype=torch.bool))
    if name == "localisation_auc":
        assert bool(found.isnan().all())
    elif name == "mask_overlap":  # the first hundredth of 120 places is one
        torch.testing.assert_close(found, torch.ones(4).double())
    else:
        torch.testing.assert_close(found, torch.ones(4).double())


def test_small_masks_cannot_reach_one_in_the_published_overlap() -> None:
    mask = torch.arange(400).reshape(1, 20, 20) < 50
    best = ig.metrics.mask_overlap(mask.double(), mask).item()
    k = [p * 50 // 100 for p in range(1, 101)]
    assert best == pytest.approx((sum(one > 0 for one in k) - (0 + 1) / 2) / 99)
    assert best < 1


def test_a_map_without_relevance_has_no_share_of_it(masks: Tensor) -> None:
    assert bool(ig.metrics.relevance_mass(torch.zeros(4, 12, 10), masks).isnan().all())
    assert bool(ig.metrics.relevance_mass(-torch.ones(4, 12, 10), masks).isnan().all())


@pytest.mark.parametrize("name", DOORS)
def test_bad_masks(name: str, maps: Tensor, masks: Tensor) -> None:
    with pytest.raises(ig.errors.ShapeError, match="do not fit"):
        measured(name, maps, masks[:, :5])
    with pytest.raises(ig.errors.ShapeError, match="do not fit"):
        measured(name, maps, masks[:3])
    with pytest.raises(ig.errors.NonFiniteInput, match="masks hold NaN"):
        measured(name, maps, torch.where(masks, torch.nan, 0.0))
    maps[2, 0, 0, 0] = torch.nan
    with pytest.raises(ig.errors.NonFiniteInput, match="NaN or infinity for example 2"):
        measured(name, maps, masks)


def test_the_top_of_everything_is_refused(maps: Tensor, masks: Tensor) -> None:
    with pytest.raises(ig.errors.InputError, match="top k=1000 of 120 places"):
        ig.metrics.top_intersection(maps, masks)
    with pytest.raises(ig.errors.InputError, match="at least one"):
        ig.metrics.TopIntersection(k=0)
    with pytest.raises(ig.errors.InputError, match="distance in pixels"):
        ig.metrics.PointingGame(tolerance=-1)
    assert (
        ig.metrics.top_intersection(
            wave(1, 3, 40, 40), torch.ones(1, 40, 40, dtype=torch.bool)
        ).item()
        == 1
    )


def test_without_masks_nothing_is_located() -> None:
    with pytest.raises(ig.errors.InputError, match="needs masks="):
        ig.metrics.judge(
            ig.fields.Linear(torch.ones(4)),
            torch.ones(1, 4),
            torch.ones(1, 4),
            ig.metrics.RelevanceRank(),
        )


def test_masks_of_every_layout(maps: Tensor, masks: Tensor) -> None:
    """Masks with channels mark a place if they mark any channel; numbers that are not zero mark."""
    expected = ig.metrics.relevance_rank(maps, masks)
    spread = torch.zeros(4, 3, 12, 10, dtype=torch.bool)
    spread[:, 1] = masks
    torch.testing.assert_close(ig.metrics.relevance_rank(maps, spread), expected)
    torch.testing.assert_close(ig.metrics.relevance_rank(maps, masks * 7.0), expected)
    torch.testing.assert_close(ig.metrics.relevance_rank(maps, masks[:, None]), expected)


# --- ranks ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=12), st.integers(0, 1000))
def test_ranks_and_correlations_are_scipys(values: list[int], seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    one = torch.tensor(values, dtype=torch.float64)
    other = torch.randint(-3, 4, one.shape, generator=torch.Generator().manual_seed(seed)).double()
    torch.testing.assert_close(
        average_ranks(one), torch.from_numpy(stats.rankdata(values)).double()
    )
    flat = bool((one == one[0]).all() or (other == other[0]).all())
    if flat:
        assert bool(spearman(one, other).isnan())
        assert bool(pearson(one, other).isnan())
    else:
        assert spearman(one, other).item() == pytest.approx(
            stats.spearmanr(one, other)[0], abs=1e-12
        )
        assert pearson(one, other).item() == pytest.approx(stats.pearsonr(one, other)[0], abs=1e-12)


def test_correlations_of_very_small_and_very_large_numbers() -> None:
    one = torch.tensor([1.0, 2.0, 4.0]).double()
    assert pearson(one * 1e-200, one * 1e200).item() == pytest.approx(1)
