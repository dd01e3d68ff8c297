"""Units of layers: what they pass on of a region of the input, and units as what is explained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance, NeuronConductance, NeuronIntegratedGradients
from torch import Tensor, nn

import integrand as ig
from tests.problems import filled, wave

D = torch.float64
FINE = ig.rules.GaussLegendre(40)
X = wave(4, 6)
MASK = torch.tensor([True, False, True, True, False, False])


class Products(nn.Module):
    """H = (x1², x1 x2), G = h1 + h2²."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.hidden(torch.stack([x[:, 0] ** 2, x[:, 0] * x[:, 1]], 1))
        return h[:, 0] + h[:, 1] ** 2


def mlp() -> nn.Sequential:
    layers = [nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 7), nn.Softplus(), nn.Linear(7, 3)]
    return filled(nn.Sequential(*layers)).double()


def neurons(model: Any, x: Tensor, site: Any, region: Tensor | None = None, **options: Any) -> Any:
    options = {"baseline": 0.25, "rule": FINE, "target": 1, **options}
    return ig.explain(model, x, method="region_neurons", site=site, region=region, **options)


def by_hand(model: nn.Sequential, cut: int, x: Tensor, b: Tensor, region: Tensor, n: int) -> Tensor:
    """∫ ∂G/∂h_j Σ_{i ∈ S} ∂h_j/∂x_i (x − b)_i dt for one input, from whole Jacobians at n Gauss-Legendre nodes."""
    below, above = model[: cut + 1], model[cut + 1 :]
    sums = torch.zeros_like(below(x[None])[0])
    for t, w in zip(*np.polynomial.legendre.leggauss(n), strict=True):
        z = b + (t + 1) / 2 * (x - b)
        jacobian = torch.autograd.functional.jacobian(lambda z: below(z[None])[0], z)
        slope = torch.autograd.functional.jacobian(
            lambda h: above(h[None])[0, 1], below(z[None])[0]
        )
        sums += slope * (jacobian * ((x - b) * region)).flatten(sums.ndim).sum(-1) * w / 2
    return sums.detach()


def test_the_known_numbers() -> None:
    x = torch.ones(1, 2, dtype=D)
    options: dict[str, Any] = {"target": ig.targets.Output(), "baseline": 0.0}
    first = neurons(Products(), x, "hidden", torch.tensor([1, 0]), **options)
    second = neurons(Products(), x, "hidden", torch.tensor([0, 1]), **options)
    both = neurons(Products(), x, "hidden", **options)
    torch.testing.assert_close(first.values, torch.tensor([[1, 0.5]], dtype=D))
    torch.testing.assert_close(second.values, torch.tensor([[0, 0.5]], dtype=D))
    torch.testing.assert_close(both.values, torch.tensor([[1, 1.0]], dtype=D))
    torch.testing.assert_close(first.notes["region"][0, 0], torch.tensor([1.5], dtype=D))


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_it_is_the_paper_s_integral(cut: int) -> None:
    model = mlp()
    made = neurons(model, X, str(cut), MASK)
    for i in range(4):
        exact = by_hand(model, cut, X[i], torch.full((6,), 0.25, dtype=D), MASK.to(D), 30)
        torch.testing.assert_close(made.values[i], exact, rtol=0, atol=1e-6)


def test_units_add_up_to_the_region_and_regions_to_the_conductance() -> None:
    model = mlp()
    inside, outside = (neurons(model, X, "1", mask) for mask in (MASK, ~MASK))
    everything = neurons(model, X, "1")
    plain = ig.explain(
        model, X, target=1, method=ig.methods.integrated(0.25, ig.rules.GaussLegendre(80))
    )
    torch.testing.assert_close(inside.values.sum(1), plain.values[:, MASK].sum(1))
    torch.testing.assert_close(inside.notes["region"][0, 0], plain.values[:, MASK].sum(1))
    torch.testing.assert_close(inside.values + outside.values, everything.values)
    torch.testing.assert_close(everything.values.sum(1), everything.output - everything.base)
    assert float(everything.residual.abs().max()) < 1e-7  # of forty nodes
    assert bool(inside.converged.all())
    conductance = ig.explain(
        model, X, target=1, method="conductance", site="1", baseline=0.25, steps=300
    )
    torch.testing.assert_close(everything.values, conductance.values, rtol=0, atol=1e-4)


def test_captum_agrees_where_it_is_fine_enough() -> None:
    model = mlp()
    start = torch.full_like(X, 0.25)
    theirs = LayerConductance(model, model[1]).attribute(X, start, target=1, n_steps=4000)
    everything = neurons(model, X, "1")
    torch.testing.assert_close(everything.values, theirs.detach(), rtol=0, atol=2e-3)
    for unit in (0, 3):
        by_feature = NeuronConductance(model, model[1]).attribute(
            X, unit, start, target=1, n_steps=200, method="gausslegendre"
        )
        ours = neurons(model, X, "1", MASK).values[:, unit]
        torch.testing.assert_close(ours, by_feature[:, MASK].sum(1).detach(), rtol=0, atol=1e-5)


def test_pictures_and_convolutions_with_several_references() -> None:
    model = filled(
        nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
        )
    ).double()
    x = wave(2, 1, 6, 6)
    region = torch.zeros(1, 6, 6)
    region[:, :3, 2:] = 1
    starts = [torch.zeros(1, 6, 6, dtype=D), torch.full((1, 6, 6), 0.5, dtype=D)]
    made = neurons(model, x, "1", region, baseline=starts)
    assert made.values.shape == (2, 3, 4, 4)
    for i in range(2):
        exact = sum(by_hand(model, 1, x[i], b, region.to(D), 12) for b in starts) / 2
        torch.testing.assert_close(made.values[i], exact, rtol=0, atol=1e-5)


def test_several_layers_and_dicts_make_a_map_each() -> None:
    model = mlp()
    both = neurons(model, X, ["1", "3"], MASK)
    named = neurons(model, X, {"early": "1", "late": "3"}, MASK)
    for number, site in enumerate(("1", "3")):
        alone = neurons(model, X, site, MASK)
        torch.testing.assert_close(both.values[number], alone.values)
        torch.testing.assert_close(named.values[number], alone.values)
        torch.testing.assert_close(both.inputs[number], alone.inputs)
        torch.testing.assert_close(alone.inputs, model[: int(site) + 1](X))


class Two(nn.Module):
    """A layer with two outputs, and an operation in place behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.split, self.last = Halves(), nn.Linear(6, 3)
        self.relu = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.split(x)
        return self.last(torch.cat([self.relu(a), a * b], 1))


class Halves(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 3 * x[:, :3], x[:, 3:].sin()


def test_layers_with_several_tensors() -> None:
    model = filled(Two()).double()
    made = neurons(model, X, "split")
    first = neurons(model, X, ig.fields.Site("split", tensor=0))
    second = neurons(model, X, ig.fields.Site("split", tensor=1))
    torch.testing.assert_close(made.values[0], first.values)
    torch.testing.assert_close(made.values[1], second.values)
    total = sum(values.sum(1) for values in made.values)
    torch.testing.assert_close(total, made.output - made.base)
    # Each tensor is made of its own half, so that a unit is its feature.
    plain = ig.explain(model, X, target=1, method=ig.methods.integrated(0.25, FINE))
    torch.testing.assert_close(torch.cat(made.values, 1), plain.values)


class OnlyBackwards(torch.autograd.Function):
    """A cube with a derivative of its own, and no forward one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return slope * 3 * ctx.saved_tensors[0] ** 2


class Cubed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 3)
        self.hidden = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(OnlyBackwards.apply(self.first(x))))


def test_operations_without_a_forward_derivative_are_gone_through_backwards() -> None:
    model = filled(Cubed()).double()
    made = neurons(model, X, "hidden", MASK)
    plain = ig.explain(model, X, target=1, method=ig.methods.integrated(0.25, FINE))
    torch.testing.assert_close(made.values.sum(1), plain.values[:, MASK].sum(1))
    w, c = model.first.weight, model.first.bias
    start, step = w @ torch.full((6,), 0.25, dtype=D) + c, (X - 0.25) @ w.T
    # ∫ 3 (s + t d)² dt · last · (w D_S)
    mean = (start + step) ** 2 + start * (start + step) + start**2
    exact = model.last.weight[1] * mean * (((X - 0.25) * MASK) @ w.T)
    torch.testing.assert_close(made.values, exact.detach())


def test_it_takes_one_pass_forward_and_one_back_for_all_units() -> None:
    model = mlp()
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    one = neurons(model, X[:1], "0", rule=ig.rules.GaussLegendre(8), batch_size=1)
    assert one.cost.gradients == 8 + 2  # and what is at the layer, at x and at the baseline
    assert len(calls) <= 8 + 2 + 2 + 2  # F at both ends, and rows that are checked


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_examples_do_not_depend_on_one_another(dtype: torch.dtype) -> None:
    model, x = mlp().to(dtype), X.to(dtype)
    made = neurons(model, x, "1", MASK)
    assert made.values.dtype == dtype
    for i in range(4):
        torch.testing.assert_close(
            neurons(model, x[i : i + 1], "1", MASK).values[0], made.values[i]
        )
    regions = torch.stack([MASK, ~MASK, MASK, ~MASK])
    each = neurons(model, x, "1", regions)
    torch.testing.assert_close(each.values[1], neurons(model, x, "1", ~MASK).values[1])
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_too_few_nodes_are_seen() -> None:
    steep = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Sigmoid(), nn.Linear(1, 1)).double()
    steep[0].weight.data.fill_(400.0)
    with pytest.warns(ig.errors.IncompleteWarning, match="more nodes"):
        made = neurons(
            steep,
            torch.ones(1, 1, dtype=D),
            "1",
            target=0,
            baseline=-0.7,
            rule=ig.rules.Midpoint(3),
        )
    assert not bool(made.converged.any())


class Again(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.unused = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.cell(x).tanh())


def test_what_cannot_be_explained_is_refused() -> None:
    model = mlp()
    again = filled(Again()).double()
    with pytest.raises(ig.errors.UnknownName, match="no layer named 'hiden'"):
        neurons(model, X, "hiden")
    with pytest.raises(ig.errors.InputError, match="does not broadcast"):
        neurons(model, X, "1", torch.ones(5))
    with pytest.raises(ig.errors.InputError, match="fixed nodes"):
        ig.methods.region_neurons("1", rule=ig.rules.Adaptive())
    with pytest.raises(ig.errors.ModelError, match="runs several times"):
        neurons(again, X, "cell")
    with pytest.raises(ig.errors.ModelError, match="does not run"):
        neurons(again, X, "unused")
    last = neurons(again, X, ig.fields.Site("cell", run=1))
    torch.testing.assert_close(last.values[:, [0, 2]], torch.zeros(4, 2, dtype=D))
    with pytest.raises(ig.errors.ModelError, match="has no layers"):
        neurons(ig.fields.Linear(torch.ones(6, dtype=D)), X, "1", target=None)


# --- units as what is explained ---------------------------------------------------------------------------------------


def test_a_unit_is_explained_as_captum_does() -> None:
    model = mlp()
    for site, unit in (("1", 2), ("3", 6)):
        made = ig.explain(
            model, X, target=ig.targets.Unit(site, unit), method=ig.methods.integrated(0.25, FINE)
        )
        peer = NeuronIntegratedGradients(model, model[int(site)]).attribute(
            X, unit, torch.full_like(X, 0.25), n_steps=60
        )
        torch.testing.assert_close(made.values, peer.detach(), rtol=0, atol=1e-8)
        seen = model[: int(site) + 1](X)[:, unit].detach()
        torch.testing.assert_close(made.output, seen)
        assert float(made.residual.abs().max()) < 1e-10


def test_units_go_with_everything_that_targets_go_with() -> None:
    model = mlp()
    each = ig.explain(model, X, target=ig.targets.Unit("1", torch.tensor([0, 1, 2, 3])))
    torch.testing.assert_close(each.output, model[:2](X).detach().diagonal())
    assert bool(each.converged.all())
    first, second = ig.explain_targets(model, X, targets=[ig.targets.Unit("1", 0), 2])
    torch.testing.assert_close(first.output, model[:2](X)[:, 0].detach())
    torch.testing.assert_close(second.output, model(X)[:, 2].detach())
    entering = ig.explain(model, X, target=ig.targets.Unit(ig.fields.Site("1", "input"), 3))
    torch.testing.assert_close(entering.output, model[0](X)[:, 3].detach())
    picture = filled(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, 2)))
    made = ig.explain(picture.double(), wave(2, 1, 6, 6), target=ig.targets.Unit("1", (1, 0, 3)))
    torch.testing.assert_close(made.output, picture[:2](wave(2, 1, 6, 6))[:, 1, 0, 3].detach())
    # A unit of a layer reaches through an earlier one.
    deep = neurons(model, X, "1", target=ig.targets.Unit("3", 4))
    torch.testing.assert_close(deep.values.sum(1), deep.output - deep.base)


def test_units_of_another_model_are_found_there() -> None:
    one, other = mlp(), mlp()
    other[0].weight.data += 1
    field = ig.TorchField(one, ig.targets.Unit("1", 2)).with_model(other)
    torch.testing.assert_close(field.value(X), other[:2](X)[:, 2].detach())


def test_units_that_there_are_not_are_refused() -> None:
    with pytest.raises(ig.errors.UnknownName, match="layer named 'nine'"):
        ig.explain(mlp(), X, target=ig.targets.Unit("nine", 0))
    with pytest.raises(ig.errors.TargetError, match="does not exist"):
        ig.explain(mlp(), X, target=ig.targets.Unit("1", 9))
    with pytest.raises(ig.errors.TargetError, match="2 classes for 4"):
        ig.explain(mlp(), X, target=ig.targets.Unit("1", torch.tensor([0, 1])))


class Recurrent(nn.Module):
    """An LSTM, whose states have the rows on their second axis, between two linear layers."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.lstm = nn.LSTM(4, 5, layers, batch_first=True)
        self.last = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs, (state, _) = self.lstm(self.first(x))
        return self.last(torch.cat([outputs.mean(1), state[-1]], 1))


SITES = {"cells": "lstm", "early": "first", "late": "last"}
SEQUENCES = wave(3, 4, 3)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3])
@pytest.mark.parametrize("layers", [1, 2])
def test_dicts_of_layers_with_several_tensors(layers: int, batch_size: int | None) -> None:
    """Whatever the number of rows in a call: tensors of an LSTM are (N, T, H), (L, N, H) and (L, N, H)."""
    model = filled(Recurrent(layers))
    made = neurons(model, SEQUENCES, SITES, batch_size=batch_size)
    shapes = [tuple(values.shape[1:]) for values in made.values]
    assert shapes == [(4, 5), (layers, 5), (layers, 5), (4, 4), (3,)]
    change = made.output - made.base
    sums = [values.flatten(1).sum(1) for values in made.values]
    for total in (sums[0] + sums[1] + sums[2], sums[3], sums[4]):
        torch.testing.assert_close(total, change, rtol=0, atol=1e-10)
    with torch.no_grad():
        outputs, (state, cell) = model.lstm(model.first(SEQUENCES))
    for there, expected in zip(
        made.inputs, (outputs, state.movedim(1, 0), cell.movedim(1, 0)), strict=False
    ):
        torch.testing.assert_close(there, expected)
    one = neurons(model, SEQUENCES[1:2], SITES, batch_size=batch_size)
    for alone, together in zip(one.values, made.values, strict=True):
        torch.testing.assert_close(alone[0], together[1], rtol=0, atol=1e-12)


def test_conductance_of_dicts_is_what_units_pass_on() -> None:
    """Without a region: the conductance of every unit of every layer, by corners or by tangents."""
    model = mlp()
    made = neurons(model, X, {"early": "1", "late": "3"})
    for method, options in (("conductance", {"steps": 400}), ("layer", {"rule": FINE})):
        named = ig.explain(
            model, X, target=1, method=method, site={"early": "1"}, baseline=0.25, **options
        )
        alone = ig.explain(model, X, target=1, method=method, site="1", baseline=0.25, **options)
        torch.testing.assert_close(named.values, alone.values)
        if method == "conductance":
            torch.testing.assert_close(made.values[0], alone.values, rtol=0, atol=1e-4)
    listed = ig.explain(model, X, target=1, method="layer", site=["1", "3"], baseline=0.25)
    both = ig.explain(
        model, X, target=1, method="layer", site={"early": "1", "late": "3"}, baseline=0.25
    )
    for one, other in zip(both.values, listed.values, strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ig.errors.InputError, match="empty dict"):
        ig.methods.layer({})


def test_rows_are_told_from_other_axes_of_the_same_length() -> None:
    """Three rows of three steps of three features: shapes tell nothing."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = nn.Identity(), nn.Linear(9, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.inner(x.movedim(0, 1).sin()).movedim(1, 0).flatten(1))

    model = filled(Turned())
    x = wave(3, 3, 3)
    made = neurons(model, x, "inner")
    plain = ig.explain(model, x, target=1, method=ig.methods.integrated(0.25, FINE))
    torch.testing.assert_close(made.values, plain.values, rtol=0, atol=1e-10)
