"""Interactions: Integrated Hessians are the double integral, add up, and belong to the right pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import integrand as ig
from integrand.rules.logarithm import gauss_logarithm, nested_logarithm
from tests.problems import filled, wave

FINE = 1e-9


def double_integral(
    function: Callable[[Tensor], Tensor], x: Tensor, b: Tensor, n: int = 12
) -> Tensor:
    """The published formula for one example (d,), by n × n Gauss–Legendre nodes and Hessians of plain autograd."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    alphas, masses = (nodes + 1) / 2, weights / 2
    step, size = x - b, len(x)
    gamma = torch.zeros(size, size, dtype=x.dtype)

    def scalar(z: Tensor) -> Tensor:
        return function(z[None])[0]

    for alpha, first in zip(alphas, masses, strict=True):
        for beta, second in zip(alphas, masses, strict=True):
            z = (b + alpha * beta * step).detach().requires_grad_()
            (slope,) = torch.autograd.grad(scalar(z), z)
            hessian = torch.autograd.functional.hessian(scalar, z.detach())
            gamma += first * second * alpha * beta * torch.outer(step, step) * hessian
            gamma += first * second * torch.diag(step * slope)
    return gamma


def net(activation: nn.Module, inputs: int = 4, outputs: int = 3) -> nn.Module:
    return filled(
        nn.Sequential(
            nn.Linear(inputs, 7), activation, nn.Linear(7, 5), activation, nn.Linear(5, outputs)
        )
    )


X = wave(3, 4, phase=0.4)
BASELINE = wave(4, phase=2.0, scale=0.3)


# --- the quadrature -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 64])
def test_gauss_nodes_integrate_polynomials_against_the_logarithm(n: int) -> None:
    """∫ −ln(s) s^k ds = 1/(k + 1)²."""
    nodes, weights = map(np.array, gauss_logarithm(n))
    for k in range(2 * n):
        assert (weights * nodes**k).sum() == pytest.approx(1 / (k + 1) ** 2, abs=1e-15)
    assert (weights > 0).all()
    assert ((nodes > 0) & (nodes < 1)).all()
    if n < 8:  # and no polynomial of degree 2n
        assert abs((weights * nodes ** (2 * n)).sum() - 1 / (2 * n + 1) ** 2) > 1e-12


def test_two_gauss_nodes_are_the_tabulated_ones() -> None:
    """Stroud and Secrest's table of n = 2."""
    nodes, weights = gauss_logarithm(2)
    assert nodes == pytest.approx((0.112008806166976, 0.602276908118738), abs=1e-14)
    assert weights == pytest.approx((0.718539319030384, 0.281460680969615), abs=1e-14)


@pytest.mark.parametrize("n", [2, 4, 8, 32, 256, 512])
def test_nested_nodes_integrate_polynomials_and_are_kept(n: int) -> None:
    nodes, weights = map(np.array, nested_logarithm(n))
    for k in range(n - 1):
        assert (weights * nodes**k).sum() == pytest.approx(1 / (k + 1) ** 2, abs=1e-14)
    finer = np.array(nested_logarithm(2 * n)[0])
    np.testing.assert_allclose(finer[1::2], nodes, rtol=0, atol=1e-15)
    assert len(finer) == 2 * n - 1


def test_the_double_sum_is_the_products_of_nodes() -> None:
    rule = ig.rules.Trapezoid(4)
    nodes, weights = rule.table()
    table = rule.double_table()
    assert table is not None
    direct = sum(
        v * w * math.exp(p * q)
        for p, v in zip(nodes, weights, strict=True)
        for q, w in zip(nodes, weights, strict=True)
    )
    single = sum(w * math.exp(s) for s, w in zip(*table, strict=True))
    assert single == pytest.approx(direct, abs=1e-15)
    assert len(set(table[0])) == len(table[0])


# --- what is known --------------------------------------------------------------------------------


def test_products_are_shared_by_both_and_by_all_four() -> None:
    """x₀x₁ from 0: every one of Γ₀₀, Γ₀₁, Γ₁₀, Γ₁₁ is a quarter."""
    field = ig.fields.Function(lambda z: z[:, 0] * z[:, 1])
    made = ig.interactions(field, torch.tensor([[2.0, 4.0]], dtype=torch.float64), tol=FINE)
    torch.testing.assert_close(made.values, torch.full((1, 2, 2), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("powers", [(2, 1), (3, 1, 2), (0, 3), (1, 1, 1, 1), (2, 0, 5)])
@pytest.mark.parametrize("rule", [None, ig.rules.GaussLegendre(8)])
def test_monomials_are_shared_by_their_powers(powers: tuple[int, ...], rule: Any) -> None:
    """Γ_ij = m_i m_j/|m|² · (x − b)^m."""
    m = torch.tensor(powers, dtype=torch.float64)
    b = wave(len(powers), phase=1.0)
    x = wave(3, len(powers), phase=0.2)
    field = ig.fields.Function(lambda z: (z - b).pow(m).prod(1))
    made = ig.interactions(field, x, baseline=b, rule=rule, tol=None if rule else FINE)
    share = m[:, None] * m / m.sum() ** 2
    expected = (x - b).pow(m).prod(1)[:, None, None] * share
    torch.testing.assert_close(made.values, expected, rtol=1e-9, atol=1e-12)
    same = ig.interactions(ig.fields.Monomial(m, b), x, baseline=b, tol=FINE)
    torch.testing.assert_close(same.values, expected, rtol=1e-9, atol=1e-12)


def test_sums_of_functions_of_one_feature_do_not_interact() -> None:
    field = ig.fields.Function(lambda z: z[:, 0].sin() + z[:, 1].exp() + 3 * z[:, 2])
    made = ig.interactions(field, X[:, :3], tol=FINE)
    off = made.values * (1 - torch.eye(3))
    assert bool((off == 0).all())
    torch.testing.assert_close(made.main_effects, made.attributions)
    torch.testing.assert_close(made.main_effects[:, 2], 3 * X[:, 2])


def test_linear_fields_have_main_effects_only() -> None:
    field = ig.fields.Linear(torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64))
    made = ig.interactions(field, X)
    torch.testing.assert_close(made.values, torch.diag_embed(X * field.weight))


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Softplus(3.0), nn.GELU(), nn.Sigmoid()])
def test_it_is_the_double_integral(activation: nn.Module) -> None:
    model, target = net(activation), 2
    made = ig.interactions(model, X, target=target, baseline=BASELINE, tol=1e-7)
    for x, values in zip(X[:2], made.values[:2], strict=True):
        exact = double_integral(lambda z: model(z)[:, target], x, BASELINE)
        torch.testing.assert_close(values, exact, rtol=0, atol=2e-8)


@pytest.mark.parametrize("model", [net(nn.Tanh()), net(nn.Softplus())])
@pytest.mark.parametrize("rule", [None, ig.rules.GaussLegendre(24), ig.rules.Midpoint(60)])
def test_it_adds_up_to_the_change_and_rows_to_integrated_gradients(
    model: nn.Module, rule: Any
) -> None:
    made = ig.interactions(
        model, X, target=1, baseline=BASELINE, rule=rule, tol=None if rule else FINE
    )
    atol = 1e-3 if isinstance(rule, ig.rules.Midpoint) else 1e-8
    with torch.no_grad():
        change = model(X)[:, 1] - model(BASELINE[None])[:, 1]
    torch.testing.assert_close(made.values.sum((1, 2)), change, rtol=0, atol=atol)
    torch.testing.assert_close(made.output - made.base, change, rtol=0, atol=1e-12)
    torch.testing.assert_close(made.residual, change - made.values.sum((1, 2)), rtol=0, atol=1e-12)
    gradients = ig.explain(
        model, X, target=1, method=ig.methods.integrated(BASELINE, ig.rules.GaussLegendre(40))
    )
    torch.testing.assert_close(made.values.sum(2), gradients.values, rtol=0, atol=atol)
    torch.testing.assert_close(made.attributions, gradients.values, rtol=0, atol=atol)
    torch.testing.assert_close(made.values, made.values.transpose(1, 2), rtol=0, atol=1e-12)
    assert bool((made.gap < 0.01).all() and made.converged.all())


def test_exclusive_or_is_all_interaction() -> None:
    """A network that has learnt XOR: between its corners main effects cancel what the pair gives each."""

    def xor(z: Tensor) -> Tensor:
        return z[:, 0] + z[:, 1] - 2 * z[:, 0] * z[:, 1]

    corners = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    made = ig.interactions(ig.fields.Function(xor), corners, tol=FINE)
    expected = [[[0.5, -0.5], [-0.5, 0.5]], [[1.0, 0.0], [0.0, 0.0]]]
    torch.testing.assert_close(made.values, torch.tensor(expected, dtype=torch.float64))
    assert made[0].attributions.abs().max() < 1e-12  # Integrated Gradients see nothing
    assert made[0].top(1)[0].strength == pytest.approx(0.5)


def test_dead_features_and_rows_that_do_not_move() -> None:
    model = net(nn.Tanh(), inputs=3)
    field = ig.fields.Function(lambda z: model(z[:, [0, 1, 3]])[:, 0])
    x = torch.cat([X, BASELINE[None]])
    x[0, 1] = BASELINE[1]
    made = ig.interactions(field, x, baseline=BASELINE)
    assert bool((made.values[:, 2] == 0).all() and (made.values[:, :, 2] == 0).all())
    assert bool((made.values[0, 1] == 0).all())
    assert bool((made.values[3] == 0).all())
    assert made.error[3] == 0
    assert bool(made.converged.all())
    assert made.gap[3] == 0


# --- how it is integrated -------------------------------------------------------------------------


@pytest.mark.parametrize("sharpness", [1.0, 4.0, 12.0])
@pytest.mark.parametrize("tol", [0.05, 1e-3])
def test_the_stated_error_holds(sharpness: float, tol: float) -> None:
    field = ig.fields.Function(
        lambda z: (sharpness * (z[:, 0] + 2 * z[:, 1] - 0.7)).tanh() * (1 + z[:, 2]) + z[:, 3]
    )
    made = ig.interactions(field, X, tol=tol)
    exact = ig.interactions(field, X, rule=ig.rules.GaussLegendre(400))
    off = (made.values - exact.values).flatten(1).norm(dim=1) / exact.values.flatten(1).norm(dim=1)
    assert bool((off <= made.error + 1e-12).all())
    assert bool((made.error <= tol).all() and made.converged.all())


def test_examples_take_as_many_nodes_as_they_need() -> None:
    field = ig.fields.Function(lambda z: (20 * (z[:, 0] - 0.5)).sigmoid() * z[:, 1] + z[:, 2] ** 2)
    x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    made = ig.interactions(field, x, tol=1e-6)
    assert made.nodes[0] < made.nodes[1]
    assert bool(made.converged.all())


def test_nodes_that_are_not_enough_are_told() -> None:
    field = ig.fields.Function(lambda z: torch.sigmoid(300 * (z[:, 0] - 0.41)) * z[:, 1])
    x = torch.ones(1, 2, dtype=torch.float64)
    with pytest.warns(ig.errors.IncompleteWarning, match="max_gradients"):
        made = ig.interactions(field, x, rule=ig.rules.Adaptive(1e-3, max_gradients=16))
    assert not bool(made.converged.any())
    assert int(made.nodes) == 15
    assert float(made.error) > 1e-3
    with pytest.warns(ig.errors.IncompleteWarning, match="more nodes"):
        ig.interactions(field, x, rule=ig.rules.Midpoint(2))


def test_no_more_is_asked_than_is_told() -> None:
    calls = []

    def counted(z: Tensor) -> Tensor:
        calls.append(len(z))
        return (z[:, 0] * z[:, 1:].sum(1)).sin()

    made = ig.interactions(ig.fields.Function(counted), X, rule=ig.rules.GaussLegendre(5))
    # A forward pass for each node and block of rows of the matrix, and F at both ends.
    assert sum(calls) == 3 * 5 + 2 * 3 + 2
    assert made.cost.gradients == 3 * 5 * (1 + 4)


def test_several_references_are_averaged() -> None:
    model = net(nn.Tanh())
    references = wave(5, 4, phase=3.0)
    made = ig.interactions(model, X, target=0, references=references, tol=FINE)
    each = [ig.interactions(model, X, target=0, baseline=b, tol=FINE).values for b in references]
    torch.testing.assert_close(made.values, torch.stack(each).mean(0), rtol=0, atol=1e-8)
    listed = ig.interactions(model, X, target=0, baseline=list(references), tol=FINE)
    torch.testing.assert_close(listed.values, made.values, rtol=0, atol=1e-8)
    pairs = torch.utils.data.TensorDataset(references, torch.zeros(5))
    data = ig.interactions(model, X, target=0, references=pairs, tol=FINE)
    torch.testing.assert_close(data.values, made.values, rtol=0, atol=1e-8)


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
def test_draws_come_to_the_mean_over_references() -> None:
    model = net(nn.Tanh())
    references = wave(6, 4, phase=3.0)
    exact = ig.interactions(model, X, target=0, references=references, tol=FINE).values
    size = exact.flatten(1).norm(dim=1)
    inside = []
    for seed in range(40):
        made = ig.interactions(model, X, target=0, references=references, draws=120, seed=seed)
        off = (made.values - exact).flatten(1).norm(dim=1)
        inside.append(off <= made.error * made.values.flatten(1).norm(dim=1))
    assert float(torch.stack(inside).double().mean()) >= 0.95
    many = ig.interactions(model, X, target=0, references=references, draws=30_000)
    assert bool(((many.values - exact).flatten(1).norm(dim=1) < many.error * size).all())
    assert bool((many.error < 0.05).all())
    again = ig.interactions(model, X, target=0, references=references, draws=30_000)
    assert torch.equal(again.values, many.values)


def test_the_baselines_of_examples_are_theirs() -> None:
    model = net(nn.Tanh())
    starts = wave(3, 4, phase=3.0)
    made = ig.interactions(model, X, target=torch.tensor([0, 2, 1]), baseline=starts, tol=FINE)
    for i, (target, start) in enumerate(zip((0, 2, 1), starts, strict=True)):
        alone = ig.interactions(model, X[i : i + 1], target=target, baseline=start, tol=FINE)
        torch.testing.assert_close(made.values[i], alone.values[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_size", [None, 1, 7])
@pytest.mark.parametrize("options", [{}, {"rule": ig.rules.GaussLegendre(6)}, {"of": [1, 3]}])
def test_a_batch_is_its_examples(batch_size: int | None, options: dict[str, Any]) -> None:
    model = net(nn.Tanh())
    made = ig.interactions(model, X, target=1, batch_size=batch_size, **options)
    for i in range(len(X)):
        alone = ig.interactions(model, X[i : i + 1], target=1, **options)
        torch.testing.assert_close(made.values[i], alone.values[0], rtol=0, atol=1e-13)
        torch.testing.assert_close(made.error[i], alone.error[0], equal_nan=True)
        assert made.nodes[i] == alone.nodes[0]


def test_memory_is_kept_to_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net(nn.Tanh())
    whole = ig.interactions(model, X, target=1)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ON_CPU", 1)
    parts = ig.interactions(model, X, target=1)
    torch.testing.assert_close(parts.values, whole.values, rtol=0, atol=1e-14)
    assert torch.equal(parts.nodes, whole.nodes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types(dtype: torch.dtype) -> None:
    model = net(nn.Tanh()).to(dtype)
    exact = ig.interactions(net(nn.Tanh()), X, target=1, tol=FINE)
    made = ig.interactions(model, X.to(dtype), target=1, tol=1e-3)
    assert made.values.dtype == dtype
    torch.testing.assert_close(
        made.values.double(), exact.values, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-7
    )
    assert bool(made.converged.all())


def test_half_precision_is_integrated_in_single() -> None:
    model = net(nn.Tanh()).to(torch.bfloat16)
    made = ig.interactions(model, X.to(torch.bfloat16), target=1, tol=0.3)
    assert made.values.dtype == torch.float32
    exact = ig.interactions(net(nn.Tanh()), X, target=1, tol=FINE)
    off = (made.values.double() - exact.values).flatten(1).norm(dim=1)
    assert bool((off < 0.1 * exact.values.flatten(1).norm(dim=1)).all())


# --- wide inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [[2, 0], [3], 1, torch.tensor([0, 1, 2, 3])])
def test_some_rows(of: Any) -> None:
    model = net(nn.Tanh())
    whole = ig.interactions(model, X, target=1, tol=FINE)
    made = ig.interactions(model, X, target=1, of=of, tol=FINE)
    rows = [of] if isinstance(of, int) else list(of)
    torch.testing.assert_close(made.values, whole.values[:, rows], rtol=0, atol=1e-9)
    torch.testing.assert_close(made.attributions, whole.attributions, rtol=0, atol=1e-9)
    torch.testing.assert_close(made.main_effects, whole.main_effects[:, rows], rtol=0, atol=1e-9)
    assert bool((made.gap < 1e-6).all())
    first = int(rows[0])
    torch.testing.assert_close(made.pair(first, 3), whole.pair(first, 3), rtol=0, atol=1e-9)
    torch.testing.assert_close(made.pair(3, first), whole.pair(first, 3), rtol=0, atol=1e-9)


def test_rows_that_were_not_asked_for_are_refused() -> None:
    made = ig.interactions(net(nn.Tanh()), X, target=1, of=[0, 1])
    with pytest.raises(ig.errors.InputError, match="among the rows"):
        made.pair(2, 3)
    with pytest.raises(ig.errors.ShapeError, match="whole matrix"):
        made.grouped({"a": [0, 1]})
    assert {frozenset((p.first, p.second)) for p in made.top(100)} == {
        frozenset(pair) for pair in ("01", "02", "03", "12", "13")
    }


def picture_model() -> nn.Module:
    return filled(
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3), nn.Tanh())
    )


PICTURES = wave(2, 2, 4, 4, phase=0.2)


def test_pictures_have_a_matrix_of_places() -> None:
    model = picture_model()
    made = ig.interactions(model, PICTURES, target=0, tol=1e-6)
    assert made.values.shape == (2, 2, 4, 4, 2, 4, 4)
    flat = ig.interactions(
        lambda z: model(z.reshape(-1, 2, 4, 4)), PICTURES.flatten(1), target=0, tol=1e-6
    )
    torch.testing.assert_close(made.matrix, flat.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        made.pair((0, 1, 2), (1, 3, 3)), made.values[:, 0, 1, 2, 1, 3, 3], rtol=0, atol=0
    )
    torch.testing.assert_close(made.pair((0, 1, 2), -1), made.values[:, 0, 1, 2, 1, 3, 3])


@pytest.mark.parametrize("features", ["pixels", 2, torch.arange(16).reshape(4, 4) % 3])
def test_groups_are_sums_over_their_members(features: Any) -> None:
    model = picture_model()
    whole = ig.interactions(model, PICTURES, target=0, tol=FINE).matrix
    made = ig.interactions(model, PICTURES, target=0, features=features, tol=FINE)
    labels = {
        "pixels": torch.arange(16).reshape(4, 4),
        "2": torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]),
    }.get(str(features), features)
    member = F.one_hot(labels.expand(2, 4, 4).flatten()).double()
    torch.testing.assert_close(made.values, member.T @ whole @ member, rtol=0, atol=1e-8)
    some = ig.interactions(model, PICTURES, target=0, features=features, of=[1], tol=FINE)
    torch.testing.assert_close(some.values[:, 0], made.values[:, 1], rtol=0, atol=1e-8)
    torch.testing.assert_close(some.attributions, made.attributions, rtol=0, atol=1e-8)


def test_label_maps_of_each_example() -> None:
    model = picture_model()
    labels = torch.stack([torch.arange(16).reshape(4, 4) // 4, torch.arange(16).reshape(4, 4) % 4])
    made = ig.interactions(model, PICTURES, target=0, features=labels, tol=1e-6)
    for i in range(2):
        alone = ig.interactions(model, PICTURES[i : i + 1], target=0, features=labels[i], tol=1e-6)
        torch.testing.assert_close(made.values[i], alone.values[0], rtol=0, atol=1e-9)


def test_matrices_that_are_too_large_are_refused_at_once() -> None:
    with pytest.raises(ig.errors.InputError, match="square patches"):
        ig.interactions(nn.Flatten(), torch.zeros(1, 3, 224, 224), target=0)


# --- models of all kinds --------------------------------------------------------------------------


def test_several_inputs_are_laid_end_to_end() -> None:
    model = net(nn.Tanh(), inputs=6)

    def two(a: Tensor, b: Tensor) -> Tensor:
        return model(torch.cat([a, b], 1))

    a, b = wave(3, 4), wave(3, 2, phase=1.0)
    made = ig.interactions(two, (a, b), target=1, baseline=(0.25, 0.5), tol=FINE)
    start = torch.tensor([0.25] * 4 + [0.5] * 2, dtype=torch.float64)
    joint = ig.interactions(model, torch.cat([a, b], 1), target=1, baseline=start, tol=FINE)
    torch.testing.assert_close(made.values, joint.values, rtol=0, atol=1e-10)
    torch.testing.assert_close(made.pair("0.3", "1.1"), joint.values[:, 3, 5])


def test_frames_have_names() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X.numpy(), columns=list("abcd"))
    model = net(nn.Tanh())
    made = ig.interactions(model, frame, target=1, of=["c", "a"])
    assert made.feature_names == ("a", "b", "c", "d")
    assert made.rows == (2, 0)
    long = ig.interactions(model, frame, target=1).to_pandas()
    assert list(long.columns) == ["example", "feature", "with", "interaction"]
    assert len(long) == 3 * 16
    line = long[(long.example == 1) & (long.feature == "c") & (long["with"] == "d")]
    whole = ig.interactions(model, X, target=1, feature_names=list("abcd"))
    assert float(line.interaction.iloc[0]) == pytest.approx(float(whole.pair("c", "d")[1]))
    mean = whole.to_pandas("mean")
    assert mean.loc["b", "d"] == pytest.approx(float(whole.values[:, 1, 3].mean()))


def test_recurrent_networks_and_attention() -> None:
    torch.manual_seed(0)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)
            self.attention = nn.TransformerEncoderLayer(
                4, 2, 8, batch_first=True, activation="gelu", dropout=0.0
            )
            self.last = nn.Linear(4, 2)

        def forward(self, z: Tensor) -> Tensor:
            states, _ = self.lstm(z)
            mixed = F.scaled_dot_product_attention(states, states, states)
            return self.last(self.attention(mixed).mean(1))

    model = Reader().double().eval()
    x = wave(2, 3, 3)
    made = ig.interactions(model, x, target=0, features="tokens", tol=1e-5)
    assert made.values.shape == (2, 3, 3)
    torch.testing.assert_close(made.values.sum((1, 2)), made.output - made.base, rtol=0, atol=1e-5)
    with sdpa_kernel(SDPBackend.MATH):  # the only one with second derivatives
        exact = double_integral(
            lambda z: model(z.reshape(-1, 3, 3))[:, 0], x[0].flatten(), torch.zeros(9).double(), 6
        )
    blocks = exact.reshape(3, 3, 3, 3).sum((1, 3))
    torch.testing.assert_close(made.values[0], blocks, rtol=0, atol=1e-5)


def test_the_model_is_given_back_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).double()
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(ig.errors.TrainingModeWarning):
        ig.interactions(model, X, target=0)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_what_has_no_second_derivatives_is_refused() -> None:
    class Own(ig.fields.Field):
        def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Any:
            return ig.segments.Evaluation(z.sum(1), torch.ones_like(z))

    with pytest.raises(ig.errors.NoHessian, match="Own has no second derivatives"):
        ig.interactions(Own(), X)
    field = ig.TorchField(net(nn.Tanh()), 0, backward=ig.fields.GuidedReLU())
    with pytest.raises(ig.errors.NoHessian, match="not those of F"):
        ig.interactions(field, X)

    with pytest.raises(ig.errors.NoHessian, match="cannot be differentiated twice"):
        ig.interactions(
            lambda z: torch.nn.functional.embedding_bag(
                torch.zeros(len(z), 4, dtype=torch.long), z, per_sample_weights=z[:, :4], mode="sum"
            ),
            X,
            target=0,
        )


def test_a_derivative_without_a_derivative_is_seen_in_the_gap() -> None:
    """Torch takes what such functions hand back for a constant and says nothing."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, u: Tensor) -> Tensor:
            ctx.save_for_backward(u)
            return u**3

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, slope: Tensor) -> Tensor:
            return slope * 3 * ctx.saved_tensors[0] ** 2

    with pytest.warns(ig.errors.IncompleteWarning, match="not what was asked for"):
        made = ig.interactions(lambda z: Once.apply(z), X, target=0, tol=0.05)
    assert not bool(made.converged.any())


def test_second_derivatives_that_are_infinite_are_told() -> None:
    with pytest.raises(ig.errors.NonFiniteGradient):
        ig.interactions(ig.TorchField(lambda z: z.norm(dim=1, keepdim=True) ** 3 / 0, 0), X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": 0.1, "draws": 5}, "tol= and draws="),
        ({"rule": ig.rules.Midpoint(3), "tol": 0.1}, "rule= and tol="),
        ({"rule": ig.rules.MonteCarlo(5)}, "fixed nodes or to a tolerance"),
        ({"tol": 2.0}, "between 0 and 1"),
        ({"draws": 0}, "draws is 1 at least"),
        ({"of": []}, "one at least"),
        ({"of": [1, 1]}, "each once"),
        ({"of": [4]}, "no feature 4"),
        ({"of": ["age"]}, "no feature named 'age'"),
        ({"baseline": 1.0, "references": X}, "both say where lines start"),
        ({"softplus": 0.0}, "above 0"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ig.errors.InputError, ig.errors.UnknownName), match=message):
        ig.interactions(net(nn.Tanh()), X, target=0, **options)


# --- the result -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> ig.Interactions:
    return ig.interactions(
        net(nn.Tanh()), X, target=1, baseline=BASELINE, tol=1e-6, feature_names=list("abcd")
    )


def test_pairs(made: ig.Interactions) -> None:
    assert torch.equal(made.pair("a", "c"), made.values[:, 0, 2])
    assert torch.equal(made.pair(3, -3), made.values[:, 3, 1])
    strength = made.values.abs().mean(0)
    pairs = sorted(
        ((float(strength[i, j]), "abcd"[i], "abcd"[j]) for i in range(4) for j in range(i)),
        reverse=True,
    )
    top = made.top(3)
    assert [{p.first, p.second} for p in top] == [{i, j} for _, i, j in pairs[:3]]
    assert [p.strength for p in top] == pytest.approx([s for s, _, _ in pairs[:3]])
    assert len(made.top(100)) == 6
    with pytest.raises(ig.errors.UnknownName, match="no feature named 'e'"):
        made.pair("a", "e")


def test_groups_of_columns(made: ig.Interactions) -> None:
    grouped = made.grouped({"both": ["a", "c"]})
    assert grouped.feature_names == ("both", "b", "d")
    member = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]).double()
    torch.testing.assert_close(grouped.values, member.T @ made.values @ member)
    torch.testing.assert_close(grouped.attributions, made.attributions @ member)
    torch.testing.assert_close(grouped.gap, made.gap, rtol=1e-3, atol=1e-12)


def test_examples(made: ig.Interactions) -> None:
    assert torch.equal(made[1].values, made.values[1:2])
    assert torch.equal(made[-1].gap, made.gap[-1:])
    assert torch.equal(made[[2, 0]].nodes, made.nodes[[2, 0]])
    assert len(made[torch.tensor([True, False, True])]) == 2
    with pytest.raises(IndexError):
        made[3]


def test_saved_and_read_back(made: ig.Interactions, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    file = tmp_path / "pairs.safetensors"
    made.save(file)
    read = ig.load(file)
    assert isinstance(read, ig.Interactions)
    for name in ("values", "attributions", "output", "base", "error", "converged", "nodes"):
        assert torch.equal(getattr(read, name), getattr(made, name))
    assert (read.feature_names, read.rows, read.method) == (made.feature_names, None, made.method)
    assert read.cost == made.cost
    assert repr(read.target) == repr(made.target)
    rows = ig.interactions(net(nn.Tanh()), X, target=0, of=[1])
    rows.save(file)
    assert ig.load(file).rows == (1,)
    broken = bytearray(file.read_bytes())
    broken[-1] ^= 1
    file.write_bytes(broken)
    with pytest.raises(ig.errors.InputError, match="has changed"):
        ig.load(file)


def test_numbers_in_a_tuple_of_baselines_are_doubles() -> None:
    """0.1 is no number of float32."""
    made = ig.explain(
        lambda a, b: a + b,
        (X[:, :1], X[:, 1:2]),
        target=0,
        baseline=(0.1, 0.3),
        rule=ig.rules.Midpoint(1),
    )
    torch.testing.assert_close(made.values[0], X[:, :1] - 0.1, rtol=0, atol=1e-15)
    torch.testing.assert_close(made.values[1], X[:, 1:2] - 0.3, rtol=0, atol=1e-15)
