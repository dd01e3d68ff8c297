"""Weights by areas of removal and insertion, against curves that are written out one by one."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.compare.subset import narrowed
from integrand.expressions import names
from tests.problems import softplus_cnn, tanh_mlp

GONE = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
KEPT = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
FILLS = (ig.baselines.Constant(0.25), ig.baselines.Constant(-0.5))


def maps(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probability(model: nn.Module, z: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(model(z[None]).softmax(1)[0, target])


def merit(model: nn.Module, share: Tensor, x: Tensor, target: int, fills: tuple[float, ...], channels: int = 1) -> float:  # fmt: skip
    """a of one reference, row by row and trapezoid by trapezoid."""
    by_feature = share.reshape(channels, -1).sum(0) if channels > 1 else share.flatten()
    n = len(by_feature)
    order = sorted(range(n), key=lambda i: (-float(by_feature[i]), i))
    whole, total = probability(model, x, target), 0.0
    for fill in fills:
        empty = probability(model, torch.full_like(x, fill), target)

        def curve(fractions: tuple[float, ...], ends: tuple[float, float], comes: bool, fill: float = fill) -> float:  # fmt: skip
            points = [(0.0, ends[0])]
            for q in fractions:
                first = order[: math.floor(q * n + 1e-9)]
                replaced = [i for i in range(n) if (i in first) != comes]
                z = x.clone().reshape(channels, -1)
                z[:, replaced] = fill
                points.append((q, probability(model, z.reshape(x.shape), target)))
            points.append((1.0, ends[1]))
            return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))  # fmt: skip

        total += curve(KEPT, (empty, whole), True) - curve(GONE, (whole, empty), False)
    return total / len(fills) / whole


@pytest.mark.parametrize("count", [3, 60])
def test_columns_against_curves_written_out(count: int) -> None:
    model = tanh_mlp(count).double()
    x, shares = maps(2, count, seed=2), maps(3, 2, count)
    targets = model(x).argmax(1)
    field = ig.fields.TorchField(model, targets)
    weighed = ig.weightings.Areas(FILLS, temperature=0.05)(shares, x, field)
    for b in range(2):
        expected = [merit(model, shares[r, b], x[b], int(targets[b]), (0.25, -0.5)) for r in range(3)]  # fmt: skip
        assert weighed.fitness[:, b].tolist() == pytest.approx(expected)
        exponents = [math.exp(a / 0.05) for a in expected]
        weights = [e / sum(exponents) for e in exponents]
        assert weighed.weights[:, b].tolist() == pytest.approx(weights)
    assert weighed.reasons == (None, None)
    assert "averaged over the fills Constant(0.25), Constant(-0.5). The larger" in weighed.criterion


def test_pixels_are_ranked_by_the_sum_over_channels_and_replaced_in_all() -> None:
    model = softplus_cnn().double()
    x = maps(1, 3, 8, 8, seed=3)
    shares = maps(2, 1, 3, 8, 8, seed=4)
    target = int(model(x).argmax(1))
    field = ig.fields.TorchField(model, torch.tensor([target]))
    weighed = ig.weightings.Areas(FILLS[:1])(shares, x, field)
    expected = [merit(model, shares[r, 0], x[0], target, (0.25,), channels=3) for r in range(2)]
    assert weighed.fitness[:, 0].tolist() == pytest.approx(expected)


def test_a_map_of_what_the_model_reads_weighs_more() -> None:
    """A logistic model that reads two of ten columns: the map that ranks them first beats the one that ranks them last."""
    net = nn.Linear(10, 2, bias=False).double()
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1, :2] = 3.0
    x = torch.ones(1, 10, dtype=torch.float64)
    right = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0.5], dtype=torch.float64)
    shares = torch.stack([right, right.flip(0)])[:, None]
    field = ig.fields.TorchField(net, torch.tensor([1]))
    weighed = ig.weightings.Areas([ig.baselines.Constant(0.0)])(shares, x, field)
    assert float(weighed.weights[0, 0]) > 0.95


def test_it_is_a_weighting() -> None:
    ig.testing.check_weighting(ig.weightings.Areas(FILLS))


def test_maps_of_nothing() -> None:
    model = tanh_mlp(5).double()
    x, shares = maps(2, 5, seed=2), maps(3, 2, 5)
    shares[1, 0] = 0  # one reference of the first example
    shares[:, 1] = 0  # all of the second
    field = ig.fields.TorchField(model, model(x).argmax(1))
    weighed = ig.weightings.Areas(FILLS)(shares, x, field)
    assert float(weighed.fitness[1, 0]) == float(weighed.fitness[[0, 2], 0].min())
    assert weighed.weights[:, 1].tolist() == pytest.approx([1 / 3] * 3)
    assert weighed.reasons[0] is None
    assert "every baseline's map is zero" in str(weighed.reasons[1])


def test_a_score_that_is_nothing_is_flagged() -> None:
    field = ig.fields.Function(lambda z: z.sum(1) * 0)
    x, shares = maps(1, 5, seed=2), maps(3, 1, 5)
    weighed = ig.weightings.Areas(FILLS)(shares, x, field)
    assert weighed.weights[:, 0].tolist() == pytest.approx([1 / 3] * 3)
    assert "is not positive" in str(weighed.reasons[0])


def test_in_a_method_with_the_references_as_a_fill() -> None:
    model = tanh_mlp(6).double()
    x, references = maps(2, 6, seed=2), maps(4, 6, seed=5)
    fills = [ig.baselines.Constant(0.0), ig.weightings.ReferenceMean()]
    method = ig.Method(
        ig.baselines.Given(references), weighting=ig.weightings.Areas(fills), record=("shares",)
    )
    result = ig.explain(model, x, target="predicted", method=method, tol=0.01)
    assert result.weights.sum(0).tolist() == pytest.approx([1.0, 1.0])
    torch.testing.assert_close(result.values, (result.weights[..., None] * result.shares).sum(0))
    assert "mean of the references" in result.criterion
    with pytest.raises(ig.errors.InputError, match="made of the references"):
        ig.weightings.Areas(fills)(maps(4, 2, 6), x, ig.fields.TorchField(model, torch.tensor([0, 1])))  # fmt: skip


@pytest.mark.parametrize("fills", [(), "corners", ("corners",), ig.baselines.Constant(0.0)])
def test_what_are_no_fills(fills: object) -> None:
    with pytest.raises(ig.errors.InputError, match="fills= is a list of baselines"):
        ig.weightings.Areas(fills)


def test_no_temperature() -> None:
    with pytest.raises(ig.errors.InputError, match="temperature is above 0, not 0"):
        ig.weightings.Areas(FILLS, temperature=0)


def test_fills_of_each_example_go_with_it_to_targets_and_portions() -> None:
    model = tanh_mlp(5).double()
    x, references = maps(3, 5, seed=2), maps(4, 5, seed=5)
    own = torch.tensor([0.25, -0.5, 1.0], dtype=torch.float64)[None, :, None].expand(1, 3, 5)

    def method(fill: object) -> ig.Method:
        weighting = ig.weightings.Areas([FILLS[0], fill])
        return ig.Method(
            ig.baselines.Given(references),
            rule=ig.rules.GaussLegendre(4),
            weighting=weighting,
            record=("shares",),
        )

    each = method(ig.baselines.Given(own))
    results = ig.explain_targets(model, x, targets=[0, 2], method=each)
    for target, result in zip((0, 2), results, strict=True):
        for b in range(3):
            fills = (0.25, float(own[0, b, 0]))
            expected = [merit(model, result.shares[r, b], x[b], target, fills) for r in range(4)]
            assert result.fitness[:, b].tolist() == pytest.approx(expected)
            part = ig.explain(model, x[[b]], target=target, method=narrowed(each, [b], x))
            assert part.fitness[:, 0].tolist() == pytest.approx(expected)


def test_any_temperature_above_zero() -> None:
    model = tanh_mlp(5).double()
    x, shares = maps(2, 5, seed=2), maps(3, 2, 5)
    field = ig.fields.TorchField(model, model(x).argmax(1))
    weighed = ig.weightings.Areas(FILLS, temperature=1e-320)(shares, x, field)
    best = weighed.fitness.argmax(0)
    assert weighed.weights.tolist() == torch.eye(3)[:, best].tolist()


def test_areas_that_say_nothing_are_flagged() -> None:
    model = tanh_mlp(5).double()
    x, shares = maps(1, 5, seed=2), maps(3, 1, 5)
    field = ig.fields.TorchField(model, model(x).argmax(1))
    unchanged = ig.weightings.Areas([ig.baselines.Given(x)])(shares, x, field)
    assert "all baselines have the same area" in str(unchanged.reasons[0])
    infinite = ig.fields.Function(lambda z: 1 / (z == x).all(1).double())
    weighed = ig.weightings.Areas(FILLS)(shares, x, infinite)
    assert weighed.weights[:, 0].tolist() == pytest.approx([1 / 3] * 3)
    assert "not finite" in str(weighed.reasons[0])


def test_in_recipes() -> None:
    """``Uniform`` among fills is the baseline, not the weighting of that name."""
    areas = ig.weightings.Areas([ig.baselines.Uniform(), ig.baselines.Blurred(3.0)], 0.05)
    method = ig.Method(ig.baselines.Constant(0.5), weighting=areas)
    assert names.method(repr(method), {}) == method
    assert isinstance(names.method(repr(method), {}).weighting.fills[0], ig.baselines.Uniform)


def test_fills_that_do_not_fit_the_inputs() -> None:
    areas = ig.weightings.Areas([FILLS[0], ig.baselines.Blurred()])
    method = ig.Method(ig.baselines.Constant(0.0), weighting=areas)
    with pytest.raises(ig.errors.BaselineError, match=r"needs images .* fills= are baselines"):
        ig.explain(tanh_mlp(5).double(), maps(2, 5), target=0, method=method)


def test_fills_of_one_kind_are_named_as_they_are_typed() -> None:
    model, x = tanh_mlp(5).double(), maps(2, 5)
    method = ig.Method(ig.baselines.Given(maps(3, 5)), weighting=ig.weightings.Areas(FILLS))
    said = ig.explain(model, x, target=0, method=method).criterion
    assert "averaged over the fills Constant(0.25), Constant(-0.5). The larger" in said
    other = ig.weightings.Areas([FILLS[0], ig.weightings.ReferenceMean()])
    method = ig.Method(ig.baselines.Given(maps(3, 5)), weighting=other)
    assert "over the fills constant, " in ig.explain(model, x, target=0, method=method).criterion


RULE = ig.rules.GaussLegendre(4)


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
@pytest.mark.parametrize("several", [False, True])
def test_at_a_layer_it_is_the_network_behind_that_is_asked(*, several: bool) -> None:
    """Features are the layer's own: as if its values were the inputs of what stands behind it."""
    model = softplus_cnn().double().eval()
    x, starts = maps(2, *shape_of(model), seed=3), maps(3, *shape_of(model), seed=4)
    first, behind = model[:1], model[1:]
    areas = ig.weightings.Areas([ig.baselines.Constant(0.0), ig.baselines.Constant(0.3)])
    inner = ig.Method(ig.baselines.Given(starts), rule=RULE, weighting=areas, record=("shares",))
    targets = model(x).argmax(1)
    site = ["0"] if several else "0"
    found = ig.explain(model, x, target=targets, method=ig.methods.layer(site).with_inner(inner))
    values = found.values[0] if several and isinstance(found.values, tuple) else found.values
    with torch.no_grad():
        there, begins = first(x), first(starts)
    alone = ig.explain(
        behind, there, target=targets,
        method=ig.Method(ig.baselines.Given(begins), rule=RULE, weighting=areas, record=("shares",)),
    )  # fmt: skip
    torch.testing.assert_close(found.weights, alone.weights)
    torch.testing.assert_close(found.fitness, alone.fitness)
    torch.testing.assert_close(values, alone.values)
    assert found.weights.std(0).min() > 1e-6  # they differ


def shape_of(model: nn.Module) -> tuple[int, int, int]:
    convolution = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    return (convolution.in_channels, 8, 8)
