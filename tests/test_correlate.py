"""Integrated Gradient Correlation, against two passes over all maps in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.problems import tanh_mlp, wave

pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")

X = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.5, -1.0], [2.0, 1.0]]).double()
Y = torch.tensor([3.0, 0.0, -0.5, 5.0]).double()
FIELD = ig.fields.Function(lambda z: z[:, 0] ** 2 + z[:, 0] * z[:, 1])
FINE: dict[str, Any] = {"rule": ig.rules.GaussLegendre(12)}
N = 53
DATA, LABELS = wave(N, 6, phase=1), wave(N, phase=5) + wave(N, 6, phase=1)[:, 0]


def two_passes(maps: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
    """IGC as it is written: population standard deviations, all examples at once."""
    n = len(maps)
    covariance = ((maps - maps.mean(0)) * (labels - labels.mean())[:, None]).sum(0) / n
    return covariance / (labels.std(correction=0) * outputs.std(correction=0))


def cut(sizes: list[int], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(t.split(sizes) for t in tensors), strict=True))


def test_golden() -> None:
    result = ig.correlate(FIELD, [(X, Y)], **FINE)
    expected = torch.tensor([0.749413925273, 0.241746427507], dtype=torch.float64)
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-11)
    assert float(result.total) == pytest.approx(0.991160352781, abs=1e-11)
    auto = torch.tensor([0.771391247551, 0.228608752449], dtype=torch.float64)
    torch.testing.assert_close(result.auto, auto, rtol=0, atol=1e-11)
    assert abs(float(result.residual)) < 1e-12


@pytest.mark.parametrize("sizes", [[N], [1] * N, [50, 3], [7] * 7 + [4], [1, 52]])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_any_cut_into_batches_is_two_passes(sizes: list[int], offset: float) -> None:
    model = tanh_mlp()
    labels = LABELS + offset
    maps = ig.explain(model, DATA, target=1, **FINE)
    result = ig.correlate(model, cut(sizes, DATA, labels), target=1, **FINE)
    expected = two_passes(maps.values, maps.output, labels)
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-14 if not offset else 1e-9)
    pearson = torch.corrcoef(torch.stack([maps.output, labels]))[0, 1]
    torch.testing.assert_close(result.total, pearson, rtol=0, atol=1e-12 if not offset else 1e-9)
    torch.testing.assert_close(result.values.sum(), result.total + result.residual)
    torch.testing.assert_close(result.mean, maps.values.mean(0), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        result.deviation, maps.values.std(0, correction=0), rtol=0, atol=1e-14
    )
    assert result.count == N
    torch.testing.assert_close(result.auto.sum(), torch.tensor(1.0).double(), rtol=0, atol=1e-8)


def test_affine_changes_of_labels_and_of_the_model() -> None:
    model = tanh_mlp()
    batches = cut([20, 33], DATA, LABELS)
    usual = ig.correlate(model, batches, target=0, **FINE)
    labels = ig.correlate(model, [(x, 3 * y - 7) for x, y in batches], target=0, **FINE)
    turned = ig.correlate(model, [(x, -2 * y) for x, y in batches], target=0, **FINE)
    outputs = ig.correlate(lambda z: 5 * model(z) + 2, batches, target=0, **FINE)
    torch.testing.assert_close(labels.values, usual.values, rtol=0, atol=1e-13)
    torch.testing.assert_close(turned.values, -usual.values, rtol=0, atol=1e-13)
    torch.testing.assert_close(outputs.values, usual.values, rtol=0, atol=1e-13)


def test_a_linear_model_has_a_closed_form_and_a_dummy_gets_nothing() -> None:
    weight = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.3, 3.0]).double()
    result = ig.correlate(ig.fields.Linear(weight, 4.0), [(DATA, LABELS)], **FINE)
    f = DATA @ weight
    covariance = ((DATA - DATA.mean(0)) * (LABELS - LABELS.mean())[:, None]).mean(0)
    expected = weight * covariance / (LABELS.std(correction=0) * f.std(correction=0))
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-14)
    assert result.values[3] == 0


def test_labels_that_are_the_predictions_give_the_auto_correlation() -> None:
    model = tanh_mlp()
    with torch.no_grad():
        predictions = model(DATA)[:, 2]
    labelled = ig.correlate(model, [(DATA, predictions)], target=2, **FINE)
    unlabelled = ig.correlate(model, DATA.split(9), target=2, **FINE)
    torch.testing.assert_close(labelled.values, labelled.auto, rtol=0, atol=1e-13)
    torch.testing.assert_close(unlabelled.values, labelled.auto, rtol=0, atol=1e-13)
    assert float(unlabelled.total) == pytest.approx(1)


def test_one_correlation_for_each_class() -> None:
    model = tanh_mlp()
    classes = torch.arange(N) % 3
    hot = torch.nn.functional.one_hot(classes, 3)
    result = ig.correlate(model, cut([30, 23], DATA, hot), target=[0, 1, 2], **FINE)
    assert (result.values.shape, result.total.shape) == ((3, 6), (3,))
    for c in range(3):
        alone = ig.correlate(model, [(DATA, hot[:, c])], target=c, **FINE)
        torch.testing.assert_close(result.values[c], alone.values, rtol=0, atol=1e-13)
        torch.testing.assert_close(result.total[c], alone.total, rtol=0, atol=1e-13)
        torch.testing.assert_close(
            result.standard_error[c], alone.standard_error, rtol=0, atol=1e-13
        )


@pytest.mark.parametrize("sizes", [[N], [10, 43], [1] * N])
def test_standard_errors_leave_out_a_group_at_a_time(sizes: list[int]) -> None:
    model = tanh_mlp()
    maps = ig.explain(model, DATA, target=1, **FINE)
    group = torch.arange(N) % 5
    without = torch.stack(
        [
            two_passes(maps.values[group != g], maps.output[group != g], LABELS[group != g])
            for g in range(5)
        ]
    )
    expected = (4 / 5 * (without - without.mean(0)).square().sum(0)).sqrt()
    result = ig.correlate(model, cut(sizes, DATA, LABELS), target=1, groups=5, **FINE)
    torch.testing.assert_close(result.standard_error, expected, rtol=1e-10, atol=0)
    given = ig.correlate(model, cut(sizes, DATA, LABELS, group + 100), target=1, **FINE)
    torch.testing.assert_close(given.standard_error, expected, rtol=1e-10, atol=0)
    none = ig.correlate(model, cut(sizes, DATA, LABELS), target=1, groups=0, **FINE)
    assert bool(none.standard_error.isnan().all())
    torch.testing.assert_close(none.values, result.values, rtol=0, atol=1e-14)


def test_standard_errors_are_those_of_repeated_samples() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.tensor([1.0, 0.5, 0.0]).double()
    field = ig.fields.Linear(weight)
    values, errors = [], []
    for _ in range(120):
        x = torch.randn(200, 3, generator=generator).double()
        y = x @ weight + torch.randn(200, generator=generator).double()
        result = ig.correlate(field, [(x, y)], rule=ig.rules.Midpoint())
        values.append(result.values)
        errors.append(result.standard_error)
    ratio = torch.stack(errors).mean(0)[:2] / torch.stack(values).std(0)[:2]
    assert bool(((ratio > 0.8) & (ratio < 1.25)).all()), ratio


def test_regions_are_sums_with_errors_of_their_own() -> None:
    model = tanh_mlp()
    result = ig.correlate(model, [(DATA, LABELS)], target=0, groups=6, **FINE)
    regions = result.grouped({"left": [0, 1], "right": torch.arange(6) >= 4})
    assert regions.names == ("left", "right", "rest")
    v = result.values
    expected = torch.stack([v[0] + v[1], v[4] + v[5], v[2] + v[3]])
    torch.testing.assert_close(regions.values, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(regions.values.sum(), result.values.sum())
    sums = result.replicates[:, :2].sum(1)
    error = (5 / 6 * (sums - sums.mean()).square().sum()).sqrt()
    torch.testing.assert_close(regions.standard_error[0], error)
    with pytest.raises(ig.errors.InputError, match="shares features"):
        result.grouped({"a": [0, 1], "b": [1]})
    with pytest.raises(ig.errors.InputError, match="not among 0 to 5"):
        result.grouped({"a": [6]})
    with pytest.raises(ig.errors.InputError, match="mask of region"):
        result.grouped({"a": torch.ones(2, dtype=torch.bool)})


def test_what_maps_miss_is_the_residual() -> None:
    rough = ig.correlate(FIELD, [(X, Y)], rule=ig.rules.Left())
    r = torch.corrcoef(torch.stack([FIELD.value(X), Y]))[0, 1]
    torch.testing.assert_close(rough.total, r)
    torch.testing.assert_close(rough.residual, rough.values.sum() - r)
    assert abs(float(rough.residual)) > 0.1


@pytest.mark.parametrize("method", ["expected", "idgi", "smoothgrad", "guided"])
def test_any_method(method: str) -> None:
    options: dict[str, Any] = {"baseline": wave(4, 6, phase=9)} if method == "expected" else {}
    model = tanh_mlp()
    result = ig.correlate(model, cut([30, 23], DATA, LABELS), target=0, method=method, **options)
    maps = ig.explain(model, DATA, target=0, method=method, **options)
    torch.testing.assert_close(
        result.values, two_passes(maps.values, maps.output, LABELS), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(
    ("batches", "options", "words"),
    [
        ([], {}, "batches is empty"),
        ([(X, Y[:3])], {}, "labels of batch 0 have shape"),
        ([(X, Y[:, None])], {}, "labels of batch 0 have shape"),
        ([(X, Y), X], {}, "Batch 1 lacks labels"),
        ([(X, torch.ones(4))], {}, "The labels do not vary over the 4 examples"),
        ([(X[:1], Y[:1])], {}, "do not vary over the 1 example,"),
        ([(X * 0, Y)], {}, "The predictions do not vary"),
        ([(X, Y * torch.nan)], {}, "labels of batch 0 hold NaN"),
        ([(X, Y, Y)], {}, "groups of batch 0 are whole numbers"),
        ([(X, Y, Y, Y)], {}, "Batch 0 has 4 entries"),
        ([((X, X), Y)], {}, "models of one input tensor"),
        ([(X, Y)], {"groups": -1}, "groups is 0 at least"),
    ],
)
def test_what_does_not_correlate_is_refused(
    batches: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ig.errors.InputError, match=words):
        ig.correlate(FIELD, batches, **FINE, **options)


def test_float32_models_and_data_loaders() -> None:
    model = tanh_mlp().float()
    dataset = torch.utils.data.TensorDataset(DATA.float(), LABELS.float())
    loader = torch.utils.data.DataLoader(dataset, batch_size=10)
    result = ig.correlate(model, loader, target=1, **FINE)
    maps = ig.explain(tanh_mlp(), DATA, target=1, **FINE)
    expected = two_passes(maps.values, maps.output, LABELS)
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-5)
    assert result.count == N


def test_baseline_shapley_is_two_passes_over_all_orders_and_adds_up_to_r() -> None:
    """BSC: maps by all 3! orders of three features, from two baselines, in plain Python."""
    x = wave(17, 3, phase=2)
    y = x[:, 0] * x[:, 1] + 0.3 * wave(17, phase=8)
    baselines = wave(2, 3, phase=6)

    def f(z: Tensor) -> Tensor:
        return torch.tanh(2 * z[:, 0] * z[:, 1]) + z[:, 2].abs()

    maps = torch.zeros_like(x)
    orders = list(itertools.permutations(range(3)))
    for b in baselines:
        for order in orders:
            at = b.expand(17, 3).clone()
            for feature in order:
                after = at.clone()
                after[:, feature] = x[:, feature]
                maps[:, feature] += (f(after) - f(at)) / (len(orders) * len(baselines))
                at = after
    options: dict[str, Any] = {"method": "baseline_shapley", "groups": 4}
    given = ig.baselines.Given(baselines)
    field = ig.fields.Function(f)
    batches = cut([5, 12], x, y)
    exact = ig.correlate(field, batches, baseline=given, permutations=None, **options)
    expected = two_passes(maps, f(x), y)
    torch.testing.assert_close(exact.values, expected, rtol=0, atol=1e-14)
    group = torch.arange(17) % 4
    without = torch.stack(
        [two_passes(maps[group != g], f(x[group != g]), y[group != g]) for g in range(4)]
    )
    error = (3 / 4 * (without - without.mean(0)).square().sum(0)).sqrt()
    torch.testing.assert_close(exact.standard_error, error, rtol=1e-10, atol=0)
    assert exact.cost.gradients == 0
    r = torch.corrcoef(torch.stack([f(x), y]))[0, 1]
    for seed in range(3):
        drawn = ig.correlate(field, batches, baseline=given, permutations=1, seed=seed, **options)
        torch.testing.assert_close(drawn.values.sum(), r, rtol=0, atol=1e-13)
        torch.testing.assert_close(drawn.total, r, rtol=0, atol=1e-13)
        assert bool((drawn.values - exact.values).abs().max() > 1e-3)
    many = ig.correlate(field, batches, baseline=given, permutations=3000, **options)
    torch.testing.assert_close(many.values, expected, rtol=0, atol=0.01)


def test_frames_and_regions_by_the_names_of_columns() -> None:
    pandas = pytest.importorskip("pandas")
    weight = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.3, 3.0]).double()
    field = ig.fields.Linear(weight)
    usual = ig.correlate(field, [(DATA, LABELS)], groups=6, **FINE)
    frame = pandas.DataFrame(DATA.numpy(), columns=list("abcdef"), index=range(100, 100 + N))
    labels = pandas.Series(LABELS.numpy(), index=frame.index)
    parts = [(frame[:20], labels[:20]), (frame[20:], labels[20:])]
    result = ig.correlate(field, parts, groups=6, **FINE)
    torch.testing.assert_close(result.values, usual.values, rtol=0, atol=1e-6)
    assert result.names == tuple("abcdef")
    regions = result.grouped({"ends": ["a", "f"], "inner": [1, "c"]})
    expected = usual.grouped({"ends": [0, 5], "inner": [1, 2]})
    torch.testing.assert_close(regions.values, expected.values, rtol=0, atol=1e-6)
    with pytest.raises(ig.errors.UnknownName, match="no column of region 'g' named 'z'"):
        result.grouped({"g": ["z"]})
