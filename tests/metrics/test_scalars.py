"""What maps are like, and how far they agree: golden values, slow restatements, and maps that say nothing."""

from __future__ import annotations

import dataclasses
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

import integrand as ig
from integrand.core import ranks
from tests.problems import wave

ONE_TO_FOUR = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).double()


def test_golden_values() -> None:
    assert ig.metrics.sparseness(ONE_TO_FOUR).item() == pytest.approx(0.25, abs=1e-15)
    assert ig.metrics.complexity(ONE_TO_FOUR).item() == pytest.approx(1.279854, abs=5e-7)
    for n in (2, 7, 1000):
        flat, single = torch.full((1, n), 3.0).double(), torch.eye(n)[:1].double() * -2
        assert ig.metrics.sparseness(flat).item() == pytest.approx(0, abs=1e-12)
        assert ig.metrics.sparseness(single).item() == pytest.approx((n - 1) / n)
        assert ig.metrics.complexity(flat).item() == pytest.approx(math.log(n))
        assert ig.metrics.complexity(single).item() == 0
        assert ig.metrics.effective_complexity(single).item() == 1


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12).filter(
        lambda v: sum(map(abs, v)) > 1e-6
    )
)
def test_sparseness_and_complexity_are_their_definitions(values: list[float]) -> None:
    """Gini as half the relative mean absolute difference, entropy as a sum: formulas other than the ones computed."""
    found = torch.tensor([values], dtype=torch.float64)
    n, size = len(values), [abs(v) for v in values]
    gini = sum(abs(a - b) for a in size for b in size) / (2 * n * sum(size))
    assert ig.metrics.sparseness(found).item() == pytest.approx(gini, abs=1e-9)
    share = [v / sum(size) for v in size]
    entropy = -sum(p * math.log(p) for p in share if p > 0)
    assert ig.metrics.complexity(found).item() == pytest.approx(entropy, abs=1e-9)


def test_scale_and_sign_change_nothing() -> None:
    values = wave(3, 7)
    for name in ("sparseness", "complexity", "effective_complexity"):
        measure = getattr(ig.metrics, name)
        torch.testing.assert_close(measure(values), measure(-5 * values))


def test_effective_complexity_counts_what_is_above_its_threshold() -> None:
    values = torch.tensor([[0.0, -0.5, 0.2, 1e-7, 4.0]]).double()
    assert ig.metrics.effective_complexity(values).item() == 3
    assert ig.metrics.effective_complexity(values, eps=0.1).item() == 2  # 0.4 of 4.0
    assert ig.metrics.effective_complexity(values, eps=0.1, relative=False).item() == 3
    assert ig.metrics.effective_complexity(torch.zeros(1, 5)).item() == 0
    with pytest.raises(ig.errors.InputError, match="eps="):
        ig.metrics.EffectiveComplexity(eps=-1)


def test_what_a_feature_is() -> None:
    """Pixels of images, elements of bare pictures, tokens of sentences whose inputs are known; one picture, three ways to give it."""
    heat = wave(2, 5, 6)
    spread = (heat[:, None] / 3).expand(2, 3, 5, 6)
    by_hand = ig.metrics.complexity(heat.reshape(2, 30))
    torch.testing.assert_close(ig.metrics.complexity(heat), by_hand)
    torch.testing.assert_close(ig.metrics.complexity(spread), by_hand)
    torch.testing.assert_close(
        ig.metrics.complexity(spread, features="elements"), by_hand + math.log(3)
    )
    torch.testing.assert_close(
        ig.metrics.complexity(heat, features="tokens"), ig.metrics.complexity(heat.sum(2))
    )
    field, x = ig.fields.Linear(wave(5, 6)), wave(2, 5, 6, phase=1)
    known = ig.methods.integrated(rule=ig.rules.Exact())(field, x)
    torch.testing.assert_close(
        ig.metrics.complexity(known), ig.metrics.complexity(known.values.sum(2))
    )
    torch.testing.assert_close(
        ig.metrics.judge(field, x, known.values, ig.metrics.Complexity()),
        ig.metrics.complexity(known),
    )


def test_superpixels_of_ones_own() -> None:
    labels = torch.tensor([[[0, 0], [1, 2]], [[0, 0], [1, 1]]])
    heat = torch.tensor([[[1.0, 2.0], [2.0, 1.0]], [[1.0, 1.0], [3.0, 3.0]]]).double()[:, None]
    found = ig.metrics.complexity(heat, features=labels)
    torch.testing.assert_close(
        found[:1], ig.metrics.complexity(torch.tensor([[3.0, 2.0, 1.0]]).double())
    )
    torch.testing.assert_close(
        found[1:], ig.metrics.complexity(torch.tensor([[2.0, 6.0]]).double())
    )
    gini = ig.metrics.sparseness(heat, features=labels)
    torch.testing.assert_close(gini[1:], ig.metrics.sparseness(torch.tensor([[2.0, 6.0]]).double()))
    both = ig.metrics.agreement([heat, heat.roll(1, -1)], features=labels)
    torch.testing.assert_close(
        both[1:], ig.metrics.agreement([heat[1:], heat.roll(1, -1)[1:]], features=labels[1])
    )


def test_maps_of_nothing() -> None:
    nothing = torch.zeros(2, 4)
    assert bool(ig.metrics.sparseness(nothing).isnan().all())
    assert bool(ig.metrics.complexity(nothing).isnan().all())
    with pytest.raises(ig.errors.NonFiniteInput, match="NaN or infinity"):
        ig.metrics.sparseness(torch.tensor([[1.0, torch.inf]]))


@pytest.mark.parametrize("block", [1, 70, 1 << 22])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [wave(5, 3, 4, 5), wave(5, 3, 4, 5, phase=1)]
    masks = wave(5, 4, 5) > 0.2
    names = ("sparseness", "complexity", "agreement")
    known = [getattr(ig.metrics, name)(maps) for name in names]
    overlap = ig.metrics.mask_overlap(maps, masks)
    monkeypatch.setattr(ranks, "_BLOCK_ELEMENTS", block)
    for name, expected in zip(names, known, strict=True):
        torch.testing.assert_close(getattr(ig.metrics, name)(maps), expected)
    torch.testing.assert_close(ig.metrics.mask_overlap(maps, masks), overlap)


def test_types_are_those_of_the_maps() -> None:
    for dtype in (torch.float32, torch.float64):
        maps, masks = wave(2, 3, 8, 8).to(dtype), wave(2, 8, 8) > 0
        for name in ("sparseness", "complexity", "effective_complexity", "sparsity", "agreement"):
            assert getattr(ig.metrics, name)([maps, -maps]).dtype == dtype, name
        for name in (
            "pointing_game",
            "relevance_mass",
            "relevance_rank",
            "mask_overlap",
            "localisation_auc",
            "jaccard",
        ):
            assert getattr(ig.metrics, name)(maps, masks).dtype == dtype, name


# --- the gap --------------------------------------------------------------------------------------------------------


def test_linear_maps_have_no_gap() -> None:
    field, x = ig.fields.Linear(wave(4)), wave(3, 4, phase=1)
    for relative in (True, False):
        found = ig.metrics.completeness_gap(
            ig.methods.integrated(rule=ig.rules.Exact())(field, x), relative=relative
        )
        assert bool((found < 1e-12).all())


def test_gaps_are_what_attributions_say() -> None:
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double(),
        torch.randn(5, 4).double() * 3,
    )
    found = ig.explain(model, x, target=1, rule=ig.rules.Midpoint(4))
    torch.testing.assert_close(
        ig.metrics.completeness_gap(found, relative=False), found.residual.abs()
    )
    torch.testing.assert_close(ig.metrics.completeness_gap(found), found.gap)
    changed = dataclasses.replace(
        found, values=found.values + 1
    )  # what the map says counts, not what it said of itself
    torch.testing.assert_close(
        ig.metrics.completeness_gap(changed, relative=False), (found.residual - 4).abs()
    )


def test_a_gap_relative_to_nothing() -> None:
    """x is the baseline: F does not change, and nothing is relative to that; in units of F the gap is 0."""
    field, x = ig.fields.Function(lambda z: 1e3 + z.prod(1)), torch.zeros(2, 3).double()
    found = ig.methods.integrated()(field, x)
    assert bool(ig.metrics.completeness_gap(found).isnan().all())
    assert ig.metrics.completeness_gap(found, relative=False).tolist() == [0, 0]
    with pytest.raises(ig.errors.InputError, match="bare tensor"):
        ig.metrics.completeness_gap(torch.ones(2, 3))


# --- agreement ------------------------------------------------------------------------------------------------------


def slow_agreement(one: list[float], other: list[float], k: int, by: str) -> float:
    """Krishna et al.: the top k features of each by magnitude, as sets of features, ranks and signs."""

    def top(values: list[float]) -> list[int]:
        return sorted(range(len(values)), key=lambda i: -abs(values[i]))[:k]

    a, b = top(one), top(other)
    common = [i for i in a if i in b]
    rank = [i for i in common if a.index(i) == b.index(i)]
    sign = [i for i in common if (one[i] > 0) == (other[i] > 0)]
    found = {
        "features": common,
        "ranks": rank,
        "signs": sign,
        "signed_ranks": [i for i in rank if i in sign],
    }
    return len(found[by]) / k


@pytest.mark.parametrize("by", ["features", "ranks", "signs", "signed_ranks"])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_agreement_at_the_top(by: str, k: int) -> None:
    maps = {
        "a": wave(6, 8),
        "b": wave(6, 8, phase=0.3),
        "c": wave(6, 8) + 0.2 * wave(6, 8, phase=2),
    }
    found = ig.metrics.agreement(maps, by=by, k=k)
    assert found.shape == (6, 3, 3)
    for b in range(6):
        for i, one in enumerate(maps.values()):
            for j, other in enumerate(maps.values()):
                expected = slow_agreement(one[b].tolist(), other[b].tolist(), k, by)
                assert found[b, i, j].item() == pytest.approx(expected)


def test_correlations_of_maps() -> None:
    stats = pytest.importorskip("scipy.stats")
    maps = [wave(3, 3, 5, 4), wave(3, 3, 5, 4, phase=0.5).round(decimals=1), -wave(3, 3, 5, 4)]
    found = ig.metrics.agreement(maps)
    size = ig.metrics.agreement(maps, absolute=True)
    linear = ig.metrics.agreement(maps, by="pearson")
    for b in range(3):
        pixels = [one[b].sum(0).flatten() for one in maps]
        for i in range(3):
            for j in range(3):
                assert found[b, i, j].item() == pytest.approx(
                    stats.spearmanr(pixels[i], pixels[j])[0]
                )
                assert size[b, i, j].item() == pytest.approx(
                    stats.spearmanr(pixels[i].abs(), pixels[j].abs())[0]
                )
                assert linear[b, i, j].item() == pytest.approx(
                    stats.pearsonr(pixels[i], pixels[j])[0]
                )
    torch.testing.assert_close(found[:, 0, 2], -torch.ones(3).double())


@pytest.mark.parametrize(
    "by", ["spearman", "pearson", "features", "ranks", "signs", "signed_ranks"]
)
def test_agreement_is_symmetric_one_for_itself_and_nan_for_constants(by: str) -> None:
    maps = [wave(2, 9), wave(2, 9, phase=1), torch.full((2, 9), 0.3).double()]
    found = ig.metrics.agreement(maps, by=by)
    torch.testing.assert_close(found, found.mT, equal_nan=True)
    torch.testing.assert_close(found[:, [0, 1], [0, 1]], torch.ones(2, 2).double())
    assert bool(found[:, 2].isnan().all())
    assert not bool(found[:, :2, :2].isnan().any())
    for b in range(2):
        alone = ig.metrics.agreement([one[b : b + 1] for one in maps], by=by)
        torch.testing.assert_close(alone[0], found[b], equal_nan=True)


def test_features_without_weight_are_not_among_the_top() -> None:
    """Sparse maps of nothing in common do not agree about the zeros."""
    one, other = torch.zeros(2, 1, 10).double()
    one[0, :2], other[0, 7:] = (
        torch.tensor([3.0, -1.0]).double(),
        torch.tensor([1.0, 2.0, 3.0]).double(),
    )
    for by in ("features", "ranks", "signs", "signed_ranks"):
        assert ig.metrics.agreement([one, other], by=by, k=6)[0].tolist() == [[1, 0], [0, 1]]
    other[0, 0] = 4.0
    assert (
        ig.metrics.agreement([one, other], by="features", k=6)[0, 0, 1].item() == 0.25
    )  # one of the larger number, four
    assert ig.metrics.agreement([one, other], by="features", k=1)[0, 0, 1].item() == 1


def test_random_maps_agree_by_chance() -> None:
    noise = list(torch.randn(2, 200, 40, generator=torch.Generator().manual_seed(0)).double())
    rank = ig.metrics.agreement(noise)[:, 0, 1]
    assert abs(rank.mean().item()) < 3.5 * rank.std().item() / 200**0.5
    top = ig.metrics.agreement(noise, by="features", k=10)[:, 0, 1]
    assert top.mean().item() == pytest.approx(0.25, abs=0.04)


def test_agreements_that_cannot_be_asked() -> None:
    with pytest.raises(ig.errors.UnknownName, match="spearman"):
        ig.metrics.agreement([wave(1, 4)], by="speerman")
    for k in (0, 1.5, 0.0, -0.5):
        with pytest.raises(ig.errors.InputError, match="k= is"):
            ig.metrics.Agreement("features", k)
    with pytest.raises(ig.errors.InputError, match="more than the 4 features"):
        ig.metrics.agreement([wave(1, 4)], by="features", k=5)
    with pytest.raises(ig.errors.InputError, match="list or dict"):
        ig.metrics.agreement(wave(1, 4))
