"""XAI-Bench: exact expectations against integrals, sums and draws; golden Shapley values; the stock code's numbers and errors."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.synthetic import expectation
from integrand.synthetic.terms import CosineSteps, Decay, Magnitude, Sine, Slope, Squared, Steps
from tests.problems import filled, wave

bench = ig.metrics.xai_bench
STOCK = json.loads((Path(__file__).parent.parent / "references" / "xai_bench.json").read_text())
TERMS = [
    Slope(-2.5),
    Sine(),
    Magnitude(),
    Squared(),
    Decay(),
    Steps((0.0,), (-1.0, 1.0)),
    Steps((-0.5, 0.0, 0.5), (-2.0, -1.0, 1.0, 2.0)),
    CosineSteps(),
]
FUNCTIONS = ["linear", "nonlinear_additive", "piecewise_constant"]


def every_coalition(features: int) -> Tensor:
    return torch.tensor(list(itertools.product([False, True], repeat=features)))


# --- terms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", TERMS, ids=repr)
@pytest.mark.parametrize("sd", [0.01, 0.3, 0.99, 1.01, 3.0])
def test_means_under_a_normal_distribution(term: Any, sd: float) -> None:
    """A midpoint sum of 200,000 cells over twelve standard deviations; steps cost it 1e-4 at most."""
    z = (torch.arange(200_000).double() + 0.5) / 200_000 * 24 - 12
    weight = (-z.square() / 2).exp() / math.sqrt(2 * math.pi) * 24 / 200_000
    for mean in (-3.2, -0.5, 0.0, 0.61, 2.0):
        expected = (term(mean + sd * z) * weight).sum().item()
        found = term.expected(
            torch.tensor(mean, dtype=torch.float64), torch.tensor(sd, dtype=torch.float64)
        ).item()
        assert found == pytest.approx(
            expected, abs=2e-4 if isinstance(term, Steps | CosineSteps) else 1e-9, rel=1e-9
        )


def test_the_two_ways_to_the_wave_of_steps_meet() -> None:
    """At sd 1 one formula takes over from the other; both are exact to rounding there."""
    mean = torch.linspace(-4, 4, 33).double()
    below, above = (
        CosineSteps().expected(mean, torch.full_like(mean, sd)) for sd in (1.0, 1.0 + 1e-15)
    )
    torch.testing.assert_close(below, above, rtol=0, atol=1e-13)


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_what_is_certain_is_itself(term: Any) -> None:
    z = torch.tensor([-2.0, -1.0, -0.5, -0.2, 0.0, 0.25, 0.5, 1.0, 3.3]).double()
    torch.testing.assert_close(term.expected(z, torch.zeros_like(z)), term(z))
    torch.testing.assert_close(
        term.expected(z + 1e-3, torch.full_like(z, 1e-9)), term(z + 1e-3), rtol=0, atol=1e-6
    )


def test_functions_by_hand() -> None:
    x = torch.tensor(
        [[0.5, -2.0, 3.0, 1.0, 9.0], [0.0, -0.25, 0.5, 0.0, 9.0], [-1.0, 0.25, 1.0, 0.0, 0.0]]
    ).double()
    smooth = bench.Additive.nonlinear_additive().value(x)
    torch.testing.assert_close(smooth[0].item(), math.sin(0.5) + 2 + 9 + math.exp(-1))
    steps = bench.Additive.piecewise_constant().value(x)
    # sign 0 is 1; [−½, 0) is −1, where the stock code says 0; trunc(2 cos(π/2)) is 0 and becomes 1; 2 cos π is −2
    assert steps.tolist() == [1 - 2 - 2, 1 - 1 + 1, -1 + 1 - 2]
    assert bench.Additive.linear([4, 3, 2, 1, 0]).value(x)[0].item() == 2 - 6 + 6 + 1
    torch.testing.assert_close(bench.Additive.piecewise_constant().gradient(x), torch.zeros_like(x))
    torch.testing.assert_close(
        bench.Additive.nonlinear_additive().gradient(x)[0, 3].item(), -math.exp(-1)
    )
    with pytest.raises(ig.errors.InputError, match="terms for 4 features; rows have 3"):
        bench.Additive.nonlinear_additive().value(x[:, :3])
    with pytest.raises(ig.errors.InputError, match="one level more"):
        Steps((0.0, -1.0), (1.0, 2.0, 3.0))


def test_the_stock_middle_branch_is_never_true() -> None:
    x = torch.linspace(-1, 1, 101)
    assert not bool(((x >= 0.5) & (x < 0)).any())
    assert Steps((-0.5, 0.0, 0.5), (-2.0, -1.0, 1.0, 2.0))(torch.tensor([-0.3])).item() == -1


# --- expectations ---------------------------------------------------------------------------------------------------


def test_gaussian_conditionals_are_those_of_the_definition() -> None:
    """N(μ_V + Σ_VS Σ_SS⁻¹ (x_S − μ_S), Σ_VV − Σ_VS Σ_SS⁻¹ Σ_SV), a coalition and a row at a time."""
    root = wave(4, 4, phase=0.3)
    normal = bench.Gaussian(wave(4, phase=2.0), root @ root.mT + 0.1 * torch.eye(4).double())
    x, known = wave(3, 4, phase=1.0), every_coalition(4)
    terms = [Squared(), Magnitude(), CosineSteps(), Decay()]
    found = bench.expected(bench.Additive(tuple(terms)), normal, x, known)
    for s, own in enumerate(known):
        for b, row in enumerate(x):
            mean, spread = normal.middle.clone(), normal.covariance
            if own.any():
                back = spread[:, own] @ torch.linalg.inv(spread[own][:, own])
                mean = mean + back @ (row - mean)[own]
                spread = spread - back @ spread[own]
            value = sum(
                float(term(row[i]) if own[i] else term.normal(mean[i], spread[i, i].sqrt()))
                for i, term in enumerate(terms)
            )
            assert found.value[s, b].item() == pytest.approx(value, abs=1e-10)
    assert found.error.abs().max().item() == 0


def test_mixtures_weigh_their_components_by_what_is_known() -> None:
    """Bayes on a grid: E[g(X_2) | x_1] = ∫ g(z) p(x_1, z) dz / ∫ p(x_1, z) dz, p the density of the mixture."""
    components = (
        bench.Gaussian.equicorrelated(2, 0.6, 1.0),
        bench.Gaussian.equicorrelated(2, -0.2, (-1.0, 0.5)),
    )
    mixed, prior = bench.Mixture(components, (3.0, 1.0)), (0.75, 0.25)
    z = torch.linspace(-12, 12, 48_001, dtype=torch.float64)

    def density(one: float) -> Tensor:
        rows = torch.stack([torch.full_like(z, one), z], 1)
        return sum(
            p * torch.distributions.MultivariateNormal(c.middle, c.covariance).log_prob(rows).exp()
            for p, c in zip(prior, components, strict=True)
        )

    field = bench.Additive((Sine(), Squared()))
    for one in (-2.0, 0.1, 1.7):
        likely = density(one)
        expected = math.sin(one) + (z.square() * likely).sum().item() / likely.sum().item()
        found = bench.expected(
            field,
            mixed,
            torch.tensor([[one, 5.0]], dtype=torch.float64),
            torch.tensor([[True, False]]),
        )
        assert found.value.item() == pytest.approx(expected, abs=1e-9)
    nothing = bench.expected(
        field, mixed, torch.zeros(1, 2).double(), torch.zeros(1, 2, dtype=torch.bool)
    ).value.item()
    assert nothing == pytest.approx(
        0.75 * math.exp(-0.5) * math.sin(1)
        + 0.25 * math.exp(-0.5) * math.sin(-1)
        + 0.75 * 2
        + 0.25 * 1.25
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_multinomials_by_listing_every_outcome(function: str) -> None:
    chances, trials = (0.2, 0.3, 0.1, 0.4), 5
    problem = bench.multinomial(function, trials, chances)
    outcomes = [o for o in itertools.product(range(trials + 1), repeat=4) if sum(o) == trials]
    rows = torch.tensor(outcomes).double()
    likely = torch.tensor(
        [
            math.factorial(trials)
            * math.prod(p**k / math.factorial(k) for p, k in zip(chances, o, strict=True))
            for o in outcomes
        ]
    ).double()
    value = problem.field.value(rows)
    x, known = torch.tensor([[1, 2, 0, 2], [0, 0, 5, 0]]).double(), every_coalition(4)
    found = problem.expected(x, known).value
    drawn = problem.expected(x, known, ig.fields.Function(problem.field), draws=400)
    for s, own in enumerate(known):
        for b, row in enumerate(x):
            fits = (rows[:, own] == row[own]).all(1).double() * likely
            expected = ((value * fits).sum() / fits.sum()).item()
            assert found[s, b].item() == pytest.approx(expected, abs=1e-6)
            assert abs(drawn.value[s, b].item() - expected) <= 4.5 * drawn.error[s, b].item() + 1e-6


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_draws_agree_with_closed_forms_within_their_standard_error(
    function: str, kind: str
) -> None:
    problem = getattr(bench, kind)(function, rho=0.5)
    x, known = problem.data(3, seed=4)[0], every_coalition(5)
    exact = problem.expected(x, known)
    drawn = problem.expected(
        x,
        known,
        ig.fields.Function(problem.field),
        draws=500,
    )
    away = (drawn.value - exact.value) / drawn.error.clamp_min(1e-12)
    assert away.abs().max().item() < 4.5
    free = drawn.error > 1e-9
    # That the standard error is none too large: coalitions are correlated, but not all off by nothing.
    assert away[free].square().mean().item() > 0.05


@pytest.mark.parametrize("block", [1, 100])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = bench.mixture("nonlinear_additive", 4, 0.3)
    x, known = problem.data(3)[0], every_coalition(4)
    drawn = ig.fields.Function(problem.field)
    before = (
        problem.expected(x, known).value,
        problem.expected(x, known, drawn, draws=20).value,
        problem.shapley(x).values,
    )
    monkeypatch.setattr(expectation, "_BLOCK_ELEMENTS", block)
    after = (
        problem.expected(x, known).value,
        problem.expected(x, known, drawn, draws=20).value,
        problem.shapley(x).values,
    )
    torch.testing.assert_close(after, before)


def test_single_precision_stays_single() -> None:
    problem = bench.gaussian("nonlinear_additive", rho=0.3)
    x = problem.data(3)[0].float()
    assert problem.shapley(x).values.dtype == torch.float32
    torch.testing.assert_close(
        problem.shapley(x).values, problem.shapley(x.double()).values.float()
    )
    for by in (
        bench.Faithfulness(problem),
        bench.Monotonicity(problem),
        bench.ShapleyError(problem),
        bench.Infidelity(20),
    ):
        assert ig.metrics.judge(problem.field, x, wave(3, 5).float(), by).dtype == torch.float32


def test_expectations_of_products() -> None:
    """E[X_1 X_2 | X_3 = z] = Cov(1, 2 | 3) + m_1 m_2 for a model that is not additive, and errors that shrink like 1/√n."""
    normal = bench.Gaussian.equicorrelated(3, 0.5)
    field, x = (
        ig.fields.Function(lambda z: z[:, 0] * z[:, 1]),
        torch.tensor([[0.3, -0.2, 1.4], [1.0, 2.0, -3.0]]).double(),
    )
    known = torch.tensor([[False, False, True]])
    expected = 0.5 - 0.25 + (0.5 * x[:, 2]) ** 2
    few, many = (bench.expected(field, normal, x, known, draws=n) for n in (1000, 16_000))
    assert bool(((few.value - expected).abs() < 4.5 * few.error).all())
    assert bool(((many.value - expected).abs() < 4.5 * many.error).all())
    torch.testing.assert_close(many.error, few.error / 4, rtol=0.15, atol=0)
    other = bench.expected(field, normal, x, known, draws=1000, seed=1)
    assert not torch.allclose(other.value, few.value)
    torch.testing.assert_close(bench.expected(field, normal, x, known, draws=1000).value, few.value)
    for b in range(2):
        torch.testing.assert_close(
            bench.expected(field, normal, x[b : b + 1], known).value, few.value[:, b : b + 1]
        )


def test_samples_have_the_moments_they_should() -> None:
    normal = bench.Gaussian.equicorrelated(3, 0.5, (1.0, 0.0, -1.0))
    x = normal.sample(20_000)
    torch.testing.assert_close(x.mean(0), normal.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(x.T.cov(), normal.covariance, rtol=0, atol=0.04)
    mixed = bench.Mixture(
        (bench.Gaussian.equicorrelated(2, 0.0, 5.0), bench.Gaussian.equicorrelated(2, 0.9, -5.0)),
        (0.9, 0.1),
    )
    x = mixed.sample(20_000)
    assert (x[:, 0] > 0).double().mean().item() == pytest.approx(0.9, abs=0.01)
    torch.testing.assert_close(x.mean(0), mixed.mean, rtol=0, atol=0.1)
    low = x[x[:, 0] < 0]
    assert low.T.corrcoef()[0, 1].item() == pytest.approx(0.9, abs=0.03)
    counts = bench.Multinomial(20, (0.2, 0.3, 0.5)).sample(5000)
    assert bool((counts.sum(1) == 20).all())
    torch.testing.assert_close(
        counts.mean(0), torch.tensor([4.0, 6.0, 10.0]).double(), rtol=0, atol=0.12
    )
    torch.testing.assert_close(
        counts.var(0), torch.tensor([3.2, 4.2, 5.0]).double(), rtol=0.06, atol=0
    )


def test_problems_make_data() -> None:
    problem = bench.gaussian("nonlinear_additive", rho=0.25)
    x, y = problem.data(2000, seed=1)
    off = y - problem.field.value(x)
    assert off.std().item() == pytest.approx(0.01, rel=0.1)
    again, _ = problem.data(2000, seed=1)
    other, _ = problem.data(2000, seed=2)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    torch.testing.assert_close(problem.data(50, classes=True)[1], (problem.data(50)[1] >= 0).long())
    single, alone = problem.data(1)
    assert bool(
        alone.isfinite().all()
    )  # standardised within its batch, as in the stock code, it would be NaN
    torch.testing.assert_close(
        y.mean().item(),
        problem.expected(single, torch.zeros(1, 5, dtype=torch.bool)).value.item(),
        rtol=0.05,
        atol=0,
    )


# --- Shapley values -------------------------------------------------------------------------------------------------


def test_golden_conditional_shapley_values() -> None:
    problem = bench.gaussian("linear", rho=0.5, weight=(4, 3, 2, 1, 0))
    x = torch.tensor([[1.0, -1.0, 0.5, 2.0, 0.0]]).double()
    found = problem.shapley(x)
    expected = [4.1475, -6.008055555556, 0.983611111111, 5.221111111111, -0.344166666667]
    assert found.values[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert found.values.sum().item() == pytest.approx(4)
    assert found.base.item() == 0
    apart = bench.gaussian("linear", rho=0.0, weight=(4, 3, 2, 1, 0)).shapley(x)
    assert apart.values[0].tolist() == pytest.approx([4, -3, 1, 2, 0], abs=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "multinomial"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_shapley_values_are_means_over_all_orders(kind: str, function: str) -> None:
    problem = (
        bench.multinomial(function, 8, (0.3, 0.2, 0.4, 0.1))
        if kind == "multinomial"
        else getattr(bench, kind)(function, 4, 0.4)
    )
    x, _ = problem.data(3, seed=2)
    known = every_coalition(4)
    value = {
        tuple(own.tolist()): v
        for own, v in zip(known, problem.expected(x, known).value, strict=True)
    }
    expected = torch.zeros_like(x)
    for order in itertools.permutations(range(4)):
        own = [False] * 4
        for i in order:
            before = value[tuple(own)]
            own[i] = True
            expected[:, i] += (value[tuple(own)] - before) / 24
    found = problem.shapley(x)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        found.values.sum(1) + found.base, problem.field.value(x), rtol=0, atol=1e-9
    )


def test_drawn_shapley_values_have_a_standard_error() -> None:
    problem = bench.mixture("nonlinear_additive", 4, 0.5)
    x, _ = problem.data(4, seed=3)
    exact, drawn = (
        problem.shapley(x),
        problem.shapley(x, ig.fields.Function(problem.field), draws=800),
    )
    away = (drawn.values - exact.values) / drawn.error
    assert away.abs().max().item() < 4.5
    assert away.square().mean().item() > 0.1
    torch.testing.assert_close(
        drawn.values.sum(1) + drawn.base, problem.field.value(x), rtol=0, atol=1e-9
    )
    alone = problem.shapley(x[1:2], ig.fields.Function(problem.field), draws=800)
    torch.testing.assert_close(alone.values, drawn.values[1:2])


def test_enumeration_has_an_end() -> None:
    problem = bench.gaussian("linear", 17)
    with pytest.raises(ig.errors.InputError, match=r"2\^17 coalitions"):
        problem.shapley(torch.zeros(1, 17).double())
    twelve = bench.gaussian("linear", 12, 0.3)
    x, _ = twelve.data(2)
    found = twelve.shapley(x)
    torch.testing.assert_close(found.values.sum(1), twelve.field.value(x))


# --- metrics --------------------------------------------------------------------------------------------------------

X = 2 * wave(30, 5, phase=0.2)
X = X - X.mean(0)
WEIGHTS = {
    "4 3 2 1 .5": (4, 3, 2, 1, 0.5),
    "reversed": (0.5, 1, 2, 3, 4),
    "2 4 .5 3 1": (2, 4, 0.5, 3, 1),
}


def explained(label: str, rho: float, by: Any, **options: Any) -> Tensor:
    """By a metric, the exact explanation w ⊙ x of the linear model that made the stock numbers."""
    problem = bench.gaussian("linear", rho=rho, weight=WEIGHTS[label])
    return ig.metrics.judge(
        problem.field, X, torch.tensor(WEIGHTS[label]).double() * X, by(problem, **options)
    )


@pytest.mark.parametrize("label", WEIGHTS)
@pytest.mark.parametrize("rho", [0.0, 0.5])
@pytest.mark.parametrize("version", ["inc", "dec"])
def test_the_stock_numbers(label: str, rho: float, version: str) -> None:
    """Its own code on exact expectations; monotonicity along the feature's index, as it has it."""
    key = f"w {label}, rho {rho}, {version}"
    found = explained(label, rho, bench.Faithfulness, version=version)
    assert found.mean().item() == pytest.approx(STOCK[f"faithfulness, {key}"], abs=1e-10)
    for average, name in ((True, "monotonicity"), (False, "monotonicity all")):
        found = explained(
            label, rho, bench.Monotonicity, version=version, average=average, xai_bench_compat=True
        )
        assert found.mean().item() == pytest.approx(STOCK[f"{name}, {key}"], abs=1e-12)


@pytest.mark.parametrize("label", WEIGHTS)
@pytest.mark.parametrize("version", ["inc", "dec"])
@pytest.mark.parametrize("conditional", ["observational", "interventional"])
def test_exact_explanations_of_independent_features_are_perfect(
    label: str, version: str, conditional: str
) -> None:
    """Ours say 1 whatever the order of the columns; the stock code's follow it."""
    for by in (bench.Faithfulness, bench.Monotonicity):
        found = explained(label, 0.0, by, version=version, conditional=conditional)
        torch.testing.assert_close(found, torch.ones(30).double())
    stock = STOCK[f"monotonicity, w {label}, rho 0.0, {version}"]
    leaked = STOCK[f"faithfulness interventional, w {label}, {version}"]
    assert stock < 0.8
    assert leaked < 0.5


def slow_interventional(weight: Tensor, *, leak: bool) -> float:
    """The stock loop: with ``leak``, ``x_cond = avg_feature_values`` names the mean instead of copying it."""
    scores, mean = [], X.mean(0)
    for row in X:
        delta = []
        for j in range(5):
            changed = mean if leak else mean.clone()
            mask = torch.ones(5, dtype=torch.bool)
            mask[j] = False
            changed[mask] = row[mask]
            delta.append((weight @ row - weight @ changed).abs())
        scores.append(
            torch.stack([(weight * row).abs(), torch.stack(delta)]).corrcoef()[0, 1].nan_to_num(0)
        )
    return torch.stack(scores).mean().item()


@pytest.mark.parametrize("label", WEIGHTS)
def test_the_mean_is_written_into(label: str) -> None:
    weight = torch.tensor(WEIGHTS[label]).double()
    assert slow_interventional(weight, leak=True) == pytest.approx(
        STOCK[f"faithfulness interventional, w {label}, dec"], abs=1e-9
    )
    assert slow_interventional(weight, leak=False) == pytest.approx(1)


def test_monotonicity_restated() -> None:
    """By rank, an example at a time, on correlated features, for maps that are not exact."""
    problem = bench.gaussian("nonlinear_additive", rho=0.5)
    x, _ = problem.data(6, seed=1)
    maps = wave(2, 6, 5, phase=0.4)
    for version in ("inc", "dec"):
        found = ig.metrics.judge(
            problem.field, x, list(maps), bench.Monotonicity(problem, version=version)
        )
        every = ig.metrics.judge(
            problem.field,
            x,
            list(maps),
            bench.Monotonicity(problem, version=version, average=False),
        )
        for m, b in itertools.product(range(2), range(6)):
            order = maps[m, b].abs().argsort(descending=version == "dec").tolist()
            known = torch.zeros(6, 5, dtype=torch.bool)
            for k, i in enumerate(order):
                known[k + 1 :, i] = True
            y = problem.expected(x[b : b + 1], known).value[:, 0]
            steps = y.diff().abs().tolist()
            pairs = list(itertools.pairwise(steps if version == "inc" else steps[::-1]))
            held = [after >= before for before, after in pairs]
            assert found[m, b].item() == pytest.approx(sum(held) / 4)
            assert every[m, b].item() == float(all(held))


def test_random_maps_are_told_from_exact_ones() -> None:
    problem = bench.gaussian("linear", rho=0.25)
    x, _ = problem.data(100, seed=5)
    truth = problem.shapley(x).values
    noise = torch.randn(100, 5, generator=torch.Generator().manual_seed(0)).double()
    for by in (bench.Faithfulness(problem), bench.ShapleyCorrelation(problem)):
        good, bad = ig.metrics.judge(problem.field, x, [truth, noise], by)
        assert good.mean().item() > bad.mean().item() + 0.3
        assert abs(bad.mean().item()) < 3.5 * bad.std().item() / 10
    good, bad = ig.metrics.judge(problem.field, x, [truth, noise], bench.ShapleyError(problem))
    assert good.max().item() < 1e-20
    assert bad.min().item() > 0


def test_shapley_errors() -> None:
    """The stock formulas on the stock rows, whose truth is given there: the metric's arithmetic, apart from its truth."""
    problem = bench.gaussian("linear")
    measured = (X - wave(30, 5, phase=1.1))[None]
    assert bench.ShapleyError(problem).summary(measured).item() == pytest.approx(
        STOCK["shapley mse"]
    )
    assert bench.ShapleyError(problem, mode="mae").summary(measured).item() == pytest.approx(
        STOCK["shapley mae"]
    )
    stock = bench.ShapleyError(problem, mode="rmse", xai_bench_compat=True).summary(measured).item()
    assert stock == pytest.approx(STOCK["shapley rmse"])
    assert bench.ShapleyError(problem, mode="rmse").summary(measured).item() == pytest.approx(
        STOCK["shapley mse"] ** 0.5
    )
    each = bench.ShapleyError(problem, mode="rmse").values(measured)
    torch.testing.assert_close(each, measured.square().mean(-1).sqrt())
    x, _ = problem.data(8)
    maps, truth = wave(8, 5), problem.shapley(x).values
    found = ig.metrics.judge(problem.field, x, maps, bench.ShapleyCorrelation(problem))
    expected = [
        torch.stack([a, b]).corrcoef()[0, 1].item() for a, b in zip(maps, truth, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected)
    rows = [
        torch.stack([a, b]).corrcoef()[0, 1] for a, b in zip(X, wave(30, 5, phase=1.1), strict=True)
    ]
    assert torch.stack(rows).mean().item() == pytest.approx(STOCK["shapley_corr"])


def test_models_are_judged_by_draws() -> None:
    """A network with per-example targets: its own Shapley values are found again, and a batch equals its examples."""
    problem = bench.gaussian("linear", 3, 0.5)
    x, _ = problem.data(4)
    model = filled(nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)))
    target = torch.tensor([0, 1, 1, 0])
    truth = torch.cat(
        [
            problem.shapley(x[b : b + 1], ig.TorchField(model, int(target[b])), draws=200).values
            for b in range(4)
        ]
    )
    by = bench.ShapleyError(problem, draws=200)
    assert ig.metrics.judge(model, x, truth, by, target=target).max().item() < 1e-20
    for metric in (by, bench.Faithfulness(problem, 200), bench.Monotonicity(problem, 200)):
        whole = ig.metrics.judge(model, x, [wave(4, 3), truth], metric, target=target)
        for b in range(4):
            alone = ig.metrics.judge(
                model,
                x[b : b + 1],
                [wave(4, 3)[b : b + 1], truth[b : b + 1]],
                metric,
                target=int(target[b]),
            )
            torch.testing.assert_close(whole[:, b : b + 1], alone)


def test_infidelity() -> None:
    problem = bench.gaussian("linear", weight=(4, 3, 2, 1, 0.5))
    weight = torch.tensor(WEIGHTS["4 3 2 1 .5"]).double()
    by = bench.Infidelity(draws=300)
    slope, exact, nothing = ig.metrics.judge(
        problem.field, X, [weight.expand_as(X), weight * X, torch.zeros_like(X)], by
    )
    assert slope.max().item() < 1e-20
    assert exact.mean().item() > 0.05  # values of a linear model are no slopes of it
    assert bool(nothing.isnan().all())
    torch.testing.assert_close(
        ig.metrics.judge(problem.field, X, -7 * weight * X, by), exact
    )  # β takes the scale
    # Restated for one row, with the stock code's clips.
    noise = torch.randn(300, 5, generator=ig.core.random.generator(0), dtype=torch.float64)
    row, phi = X[3], (weight * X)[3]
    r = torch.maximum(row - 1, torch.minimum(row, 0.2 * noise + row))
    difference, a = (weight @ row) - (row - r) @ weight, r @ phi
    beta = (difference * a).mean() / (a * a).mean()
    assert exact[3].item() == pytest.approx(
        (difference - beta * a).square().mean().item(), rel=1e-9
    )
    assert ig.metrics.as_metric("xai_bench_infidelity") == bench.Infidelity()


# --- what cannot be asked -------------------------------------------------------------------------------------------


def test_maps_that_say_nothing() -> None:
    problem = bench.gaussian("linear")
    x, _ = problem.data(2)
    flat = torch.full_like(x, 0.3)
    for by in (bench.Faithfulness(problem), bench.ShapleyCorrelation(problem)):
        assert bool(ig.metrics.judge(problem.field, x, flat, by).isnan().all())
    still = bench.gaussian(
        "linear", weight=(0,) * 5, rho=0.5
    )  # a function that nothing moves: rounding is no effect
    assert bool(
        ig.metrics.judge(still.field, x, wave(2, 5), bench.Faithfulness(still)).isnan().all()
    )
    assert ig.metrics.judge(still.field, x, wave(2, 5), bench.Monotonicity(still)).tolist() == [
        1,
        1,
    ]


def test_questions_that_cannot_be_asked() -> None:
    problem = bench.gaussian("linear")
    with pytest.raises(ig.errors.InputError, match="give a Problem"):
        bench.Faithfulness(None)
    with pytest.raises(ig.errors.InputError, match="version="):
        bench.Monotonicity(problem, version="up")
    with pytest.raises(ig.errors.InputError, match="conditional="):
        bench.Faithfulness(problem, conditional="marginal")
    with pytest.raises(ig.errors.InputError, match="mode="):
        bench.ShapleyError(problem, mode="mean")
    with pytest.raises(ig.errors.ShapeError, match="rows of 5 features"):
        ig.metrics.judge(
            ig.fields.Linear(torch.ones(4)),
            torch.ones(1, 4),
            torch.ones(1, 4),
            bench.Faithfulness(problem),
        )
    with pytest.raises(ig.errors.ShapeError, match="rows of 5 features"):
        problem.shapley(torch.zeros(1, 4).double())
    with pytest.raises(ig.errors.InputError, match="positive definite"):
        bench.gaussian("linear", rho=1.0)
    with pytest.raises(ig.errors.ShapeError, match="covariance"):
        bench.Gaussian(torch.zeros(2), torch.eye(3))
    with pytest.raises(ig.errors.UnknownName, match="piecewise_constant"):
        bench.gaussian("piecewise")
    with pytest.raises(ig.errors.InputError, match="3 weights"):
        bench.gaussian("linear", weight=(1, 2, 3))
    with pytest.raises(ig.errors.InputError, match="weight= goes with"):
        bench.mixture("nonlinear_additive", weight=(1, 2, 3, 4, 5))
    with pytest.raises(ig.errors.InputError, match="add up to 1"):
        bench.Multinomial(20, (0.5, 0.6))
    with pytest.raises(ig.errors.InputError, match="counts that add up to 20"):
        bench.multinomial().shapley(torch.zeros(1, 5).double())
    with pytest.raises(ig.errors.InputError, match="same number of features"):
        bench.Mixture((bench.Gaussian.equicorrelated(2), bench.Gaussian.equicorrelated(3)))
    with pytest.raises(ig.errors.InputError, match="as many positive weights"):
        bench.Mixture((bench.Gaussian.equicorrelated(2),), (0.5, 0.5))
    with pytest.raises(ig.errors.InputError, match="two draws at least"):
        problem.expected(
            torch.zeros(1, 5).double(),
            torch.zeros(1, 5, dtype=torch.bool),
            ig.fields.Linear(torch.ones(5).double()),
            draws=1,
        )
