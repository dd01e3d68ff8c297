"""Parts of the path that count more than others (PWIG, PS-IG), and parts that are left out (Left-IG)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import polyline
from integrand.model.row_independence import ROWS
from integrand.rules.path_weights import (
    NAMED,
    Beta,
    Exponential,
    Fade,
    Logarithmic,
    Power,
    mass_of,
    weight_at,
)
from tests.problems import T6_INPUT, Counting, filled, img, img_input, t6, wave
from tests.test_credit import Paid

PATHS = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())
Given = ig.baselines.Given
FINE = ig.rules.GaussLegendre(40)
STRAIGHT = ig.paths.Straight()

FORMULAS: dict[str, Callable[[float], float]] = {
    "sqrt": lambda a: a**0.5,
    "linear_late": lambda a: a,
    "quadratic_late": lambda a: a**2,
    "linear_early": lambda a: 1 - a,
    "quadratic_early": lambda a: (1 - a) ** 2,
    "logarithmic": lambda a: math.log(1 + a),
    "exponential": lambda a: math.exp(a - 1),
    "beta22": lambda a: 6 * a * (1 - a),
}


def smooth(z: Tensor) -> Tensor:
    return torch.exp(0.4 * z @ wave(4, phase=0.5).to(z)) + torch.sin(z).prod(1)


FIELD = ig.fields.Function(smooth)
X, STARTS = 1 + 0.5 * wave(3, 4), wave(2, 3, 4, phase=2)


def near(found: Tensor, expected: Any, tolerance: float = 1e-12) -> None:
    expected = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found, expected.reshape(found.shape), rtol=0, atol=tolerance)


def mapped(
    rule: Any, path: Any = STRAIGHT, field: Any = FIELD, x: Tensor = X, starts: Tensor = STARTS
) -> Any:
    """All references' maps."""
    return ig.Method(Given(starts), path, rule, record=("shares",))(field, x)


def by_hand(
    weight: Callable[[float], float], b: int, r: int, nodes: list[float], weights: list[float]
) -> Tensor:
    """Δ ⊙ Σ_q v_q w(α_q) g(α_q) / Σ_q v_q w(α_q) for one pair."""
    step = X[b] - STARTS[r, b]
    share, whole = torch.zeros(4).double(), 0.0
    for node, own in zip(nodes, weights, strict=True):
        share += own * weight(node) * FIELD.gradient((STARTS[r, b] + node * step)[None])[0]
        whole += own * weight(node)
    return step * share / whole


# --- the weights ------------------------------------------------------------------------------------------------------


def test_every_named_weight_has_its_formula() -> None:
    assert set(NAMED) == set(FORMULAS)
    clock = torch.linspace(0, 1, 11, dtype=torch.float64)
    for name, formula in FORMULAS.items():
        near(weight_at(NAMED[name], clock), [formula(float(a)) for a in clock], 1e-15)


@pytest.mark.parametrize(
    "weight",
    [
        *NAMED.values(),
        Power(0.0),
        Power(5),
        Fade(3.5),
        Logarithmic(30.0),
        Exponential(-4.0),
        Exponential(0.0),
        Beta(1.5, 3.0),
    ],
    ids=repr,
)
def test_masses_are_the_integrals(weight: Any) -> None:
    """Simpson's rule with many pieces in u, α = u² (3 − 2u): no corner of a weight is too sharp for that."""
    u = torch.linspace(0, 1, 4001, dtype=torch.float64)
    alpha = u**2 * (3 - 2 * u)
    values = weight(alpha) * 6 * u * (1 - u)
    simpson = (values[:-2:2] + 4 * values[1:-1:2] + values[2::2]).sum() / 3 / 4000
    assert weight.mass == pytest.approx(float(simpson), rel=1e-7)
    assert mass_of(lambda a: weight(a)) == pytest.approx(
        weight.mass, rel=1e-9
    )  # found, where nobody says it


def test_masses_of_rough_weights() -> None:
    assert mass_of(lambda a: (a < 0.3).double()) == pytest.approx(0.3, rel=2e-3)
    assert mass_of(lambda a: a**-0.5) == pytest.approx(2, rel=1e-9)
    assert mass_of(lambda a: torch.ones_like(a)) == pytest.approx(1, rel=1e-12)


# --- PWIG -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(NAMED))
def test_weighted_is_the_definition(name: str) -> None:
    """Δ ⊙ ∫ w g dα / ∫ w, both at the nodes of the rule; the first alone where the weight is left as it is."""
    formula = FORMULAS[name]
    rule = ig.rules.Simpson(3)
    made = mapped(ig.rules.PathWeighted(name, rule))
    nodes, weights = rule.table()
    for r in range(2):
        for b in range(3):
            near(made.shares[r, b], by_hand(formula, b, r, nodes, weights))
    unscaled = mapped(ig.rules.PathWeighted(name, rule, mass=None))
    near(unscaled.shares, made.shares * NAMED[name].mass)


@pytest.mark.parametrize("name", ["sqrt", "linear_late", "linear_early", "exponential", "beta22"])
def test_the_published_discretisation(name: str) -> None:
    """50 cells, the mean gradient of each, the weight at its right end over the sum of those: paths.json. Both come to one integral."""
    field, x = ig.TorchField(img, 0), img_input()
    published = PATHS[f"PWIG {name}"]["official"]

    def official(k: int) -> Tensor:
        """The library's trapezoids, a segment for each cell, weighed as the authors do."""
        (segment,) = ig.paths.Straight(k)(field, torch.zeros(1, 1, 3, 4, 4).double(), x)
        cells = ig.rules.Trapezoid()(field, segment)[:, 0, 0] * k
        weight = torch.tensor([FORMULAS[name]((q + 1) / k) for q in range(k)], dtype=torch.float64)
        return (cells * (weight / weight.sum()).reshape(-1, 1, 1, 1)).sum(0)

    near(official(50), published, 1e-12)
    limit = mapped(
        ig.rules.PathWeighted(name, ig.rules.GaussLegendre(200)),
        STRAIGHT,
        field,
        x,
        torch.zeros(1, 3, 4, 4).double(),
    )
    errors = [float((official(k) - limit.values[0]).abs().max()) for k in (50, 200, 800)]
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3
    made = ig.methods.path_weighted(weight=name)(field, x)
    assert float((made.values - limit.values).abs().max()) < 2e-4
    assert made.cost.gradients == 51


@pytest.mark.parametrize("name", list(NAMED))
def test_the_weight_is_one_of_the_whole_path(name: str) -> None:
    """Segments are looked up at their own clocks, in whichever order they come."""
    one = mapped(ig.rules.PathWeighted(name, ig.rules.GaussLegendre(200)))
    rule = ig.rules.PathWeighted(name, ig.rules.GaussLegendre(5))
    many = mapped(rule, ig.paths.Straight(6))
    near(many.values, one.values, 1e-4 if name == "sqrt" else 1e-8)
    for path in (
        Paid(6, ""),
        Paid(6, "", backwards=True),
        Paid(6, "", backwards=True, together=True),
    ):
        near(mapped(rule, path).values, many.values)
    plain = mapped(ig.rules.GaussLegendre(5), ig.paths.Straight(6))
    assert (
        float((plain.values - one.values).abs().max()) > 1e-2
    )  # which a weight by each segment's own clock would also be


@pytest.mark.parametrize("name", list(NAMED))
@pytest.mark.parametrize(
    "rule", [ig.rules.Right(), ig.rules.Trapezoid(3), ig.rules.GaussLegendre(2)], ids=repr
)
def test_linear_functions_are_exact(name: str, rule: Any) -> None:
    """However few nodes: w ⊙ Δ, in one segment or in several."""
    if name in ("linear_early", "quadratic_early", "beta22") and rule == ig.rules.Right():
        return  # the only node is where the weight is zero
    slope = wave(4, phase=3)
    for path in (STRAIGHT, ig.paths.Straight(3)):
        if rule == ig.rules.Right() and path != STRAIGHT:
            continue
        made = mapped(ig.rules.PathWeighted(name, rule), path, ig.fields.Linear(slope))
        near(made.shares, slope * (X - STARTS), 1e-12)


@pytest.mark.parametrize("sides", ["start", "end", "start end"])
def test_gradients_at_the_ends_are_not_paid_twice(sides: str) -> None:
    rule = ig.rules.PathWeighted("linear_late", ig.rules.Simpson())
    expected = mapped(rule, ig.paths.Straight(4))
    made = mapped(rule, Paid(4, sides))
    near(made.values, expected.values)
    assert (
        made.cost.gradients == 4 * 6 * 3
    )  # two looks at the ends and one node inside; what is known is not asked again
    walk = ig.paths.Descent(torch.tanh, 5, 0.05, (-9.0, 9.0))
    assert ig.integration.gradients_per_row(walk, rule) == 6 + 5
    assert mapped(rule, walk).cost.gradients == 6 * (6 + 5)


@given(phase=st.floats(0, 6), which=st.sampled_from(sorted(NAMED)), factor=st.floats(0.1, 50))
def test_only_the_shape_of_a_weight_counts(phase: float, which: str, factor: float) -> None:
    x = wave(3, 4, phase=phase)
    one = mapped(ig.rules.PathWeighted(which, ig.rules.Midpoint(7)), x=x)
    other = mapped(
        ig.rules.PathWeighted(lambda a: factor * NAMED[which](a), ig.rules.Midpoint(7)), x=x
    )
    near(other.values, one.values, 1e-8)
    doubled = mapped(ig.rules.PathWeighted(which, ig.rules.Midpoint(7), mass=2.0), x=x)
    near(doubled.values, 2 * one.values)


@pytest.mark.parametrize(
    "weight", [Power(0), Exponential(0.0), Beta(1.0, 1.0), lambda a: torch.full_like(a, 7.0)]
)
def test_a_constant_weight_is_integrated_gradients(weight: Any) -> None:
    near(mapped(ig.rules.PathWeighted(weight, FINE)).values, mapped(FINE).values, 1e-12)


@pytest.mark.parametrize("name", list(NAMED))
def test_what_it_adds_up_to(name: str) -> None:
    """∫ w φ' = w(1) F(x) − w(0) F(b) − ∫ w' φ, and not the change of F."""
    made = mapped(ig.rules.PathWeighted(name, ig.rules.GaussLegendre(400), mass=None))
    nodes, weights = ig.rules.GaussLegendre(400).table()
    formula = FORMULAS[name]
    for r in range(2):
        for b in range(3):
            line = [STARTS[r, b] + t * (X[b] - STARTS[r, b]) for t in (*nodes, 0.0, 1.0)]
            phi = smooth(torch.stack(line)).tolist()
            slopes = [(formula(t + 1e-7) - formula(t - 1e-7)) / 2e-7 for t in nodes]
            inside = sum(v * s * f for v, s, f in zip(weights, slopes, phi, strict=False))
            near(
                made.shares[r, b].sum(),
                formula(1.0) * phi[-1] - formula(0.0) * phi[-2] - inside,
                5e-3 if name == "sqrt" else 1e-6,
            )
    assert float((made.change - made.shares.sum(-1)).abs().min()) > 1e-3


def test_float32_paths() -> None:
    """Clocks of float32 reach past 1 by rounding; (1 − α)^p may not be NaN there."""
    made = mapped(
        ig.rules.PathWeighted(Fade(0.5), ig.rules.Trapezoid(2)),
        ig.paths.Straight(7),
        x=X.float(),
        starts=STARTS.float(),
    )
    assert made.values.dtype == torch.float32
    exact = mapped(ig.rules.PathWeighted(Fade(0.5), ig.rules.Trapezoid(2)), ig.paths.Straight(7))
    torch.testing.assert_close(made.values.double(), exact.values, rtol=1e-4, atol=1e-5)


# --- PS-IG ------------------------------------------------------------------------------------------------------------


def test_path_sampled_is_the_mean_over_baselines_on_the_path() -> None:
    """E_t of integrated gradients from γ(t), t uniform: by Gauss–Legendre over t, a whole map for each."""
    nodes, weights = ig.rules.GaussLegendre(20).table()
    step = X - STARTS[0]
    drawn = torch.stack([STARTS[0] + t * step for t in nodes])
    mean = torch.einsum(
        "r,rbi->bi", torch.tensor(weights, dtype=torch.float64), mapped(FINE, starts=drawn).shares
    )
    made = ig.methods.path_sampled(Given(STARTS[:1]))(FIELD, X)
    near(made.values, mean, 1e-10)
    # So it adds up to F(x) minus the mean of F on the path.
    on_path = (FIELD.value(drawn, 2) * torch.tensor(weights, dtype=torch.float64)[:, None]).sum(0)
    near(made.values.sum(1), smooth(X) - on_path, 1e-10)
    near(made.residual, on_path - smooth(STARTS[0]), 1e-10)


def test_path_sampled_by_draws() -> None:
    """The definition with real draws of t ~ Beta(2, 1), whose distribution function is α²."""
    draws = (torch.arange(4000).double() + 0.5) / 4000
    t = draws.sqrt()
    start = STARTS[:1, :1]
    drawn = start + t[:, None, None] * (X[:1] - start)
    mean = mapped(ig.rules.GaussLegendre(6), starts=drawn, x=X[:1]).values
    near(ig.methods.path_sampled(Given(start), Power(2.0))(FIELD, X[:1]).values, mean, 1e-5)
    near(ig.methods.path_sampled(Given(start), "quadratic_late")(FIELD, X[:1]).values, mean, 1e-5)


# --- at a layer -------------------------------------------------------------------------------------------------------


class Around(nn.Module):
    """The input goes around ``first``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x), x)

    def rest(self, h: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(torch.cat([h, x], 1)))
        return out


@pytest.mark.parametrize("which", ["weighted", "decision", "until"])
def test_pieces_of_a_layers_path_keep_their_clocks(which: str) -> None:
    """Where something passes the layer by, pieces are taken apart, each with what passes at its upper corner."""
    model, pieces = filled(Around()), 6
    rules = {
        "weighted": ig.rules.PathWeighted("linear_late", ig.rules.Midpoint()),
        "decision": ig.rules.IntegratedDecisionGradients(1, 1),
        "until": ig.rules.SaturationCutoff(0.5, ig.rules.Midpoint()),
    }
    method = ig.Layered(
        "first", ig.Method(Given(STARTS[:1]), ig.paths.Straight(pieces), rules[which])
    )
    made = method(ig.TorchField(model, 1), X)
    expected = torch.zeros(3, 3).double()
    for k in range(pieces):
        low, high = (STARTS[0] + t / pieces * (X - STARTS[0]) for t in (k, k + 1))
        with torch.enable_grad():
            step = (model.first(high) - model.first(low)).detach()
            h = (model.first((low + high) / 2)).detach().requires_grad_()
            (slope,) = torch.autograd.grad(model.rest(h, high)[:, 1].sum(), h)
        count = {
            "weighted": torch.tensor(2 * (k + 0.5) / pieces).expand(3),
            "decision": (slope * step).sum(1) * pieces,
            "until": torch.tensor(float(k < pieces / 2)).expand(3),
        }[which]
        expected += step * slope * count[:, None]
    near(made.values, expected, 1e-7)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ig.methods.path_weighted(weight="inverse"),
            r"no finite integral: .* change with n",
        ),
        (lambda: Power(-1.0), r"α\^-1 has no finite integral"),
        (lambda: Fade(-2), r"\(1 − α\)\^-2 has no finite integral"),
        (lambda: Logarithmic(-0.5), r"for c above 0, not for -0\.5"),
        (lambda: Beta(0, 1), r"above 0, not 0 and 1"),
        (
            lambda: ig.rules.PathWeighted(3),
            r"a name \(sqrt, .*\) or a callable of the clock α, not int",
        ),
        (
            lambda: ig.rules.PathWeighted("sqrt", ig.rules.Adaptive()),
            r"at fixed nodes: give a rule such as .*, not Adaptive",
        ),
        (lambda: ig.rules.PathWeighted("sqrt", mass=0), r"above 0, or None to leave it; not 0"),
        (lambda: ig.rules.SaturationCutoff(0.0), r"above 0 and at most 1, not 0\.0"),
        (lambda: ig.rules.SaturationCutoff(1.5), r"above 0 and at most 1, not 1\.5"),
        (
            lambda: ig.rules.SaturationCutoff(0.5, ig.rules.PathWeighted("sqrt")),
            r"a shortened one keeps none",
        ),
        (
            lambda: ig.rules.SaturationCutoff(0.5, ig.rules.Rescaled()),
            r"a shortened one keeps none",
        ),
        (lambda: ig.rules.Saturation(0), r"above 0 and at most 1, not 0"),
        (lambda: ig.rules.Saturation(pilot=0), r"at least one cell, not 0"),
    ],
)
def test_nonsense_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        build()


def test_names_are_looked_up() -> None:
    with pytest.raises(
        ig.errors.UnknownName,
        match=r"no path weight named 'exponental'. Did you mean 'exponential'",
    ):
        ig.rules.PathWeighted("exponental")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (lambda a: 1 / a, r"over \[0, 1\] is infinite, or too rough"),
        (lambda a: a - 0.5, r"is -0\.5 at α = 1\.8\S+; it must be finite and at least 0"),
        (lambda a: a[:1], r"returned shape .* one number for each"),
        (lambda a: 0 * a, r"integral 0; it must be finite and above 0"),
        (Power(-0.5), r"is inf at α = 0; .* has none at the ends"),
    ],
    ids=["1/α", "negative", "shape", "nothing", "infinite at a node"],
)
def test_weights_that_are_none(weight: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        mapped(ig.rules.PathWeighted(weight, ig.rules.Trapezoid(4)))


def test_the_reason_for_refusing_the_inverse() -> None:
    """The published sum with 1/α: what it gives depends on how many nodes it has, and does not settle."""
    shares = []
    for k in (10, 1000, 100_000):
        weight = 1 / ((torch.arange(k).double() + 1) / k)
        shares.append(float(weight[0] / weight.sum()))
    assert (
        shares[0] > 2 * shares[1] > 3 * shares[2] > 0.1
    )  # the first of 100 000 cells still counts for a twelfth


# --- Left-IG ----------------------------------------------------------------------------------------------------------


def rising(z: Tensor) -> Tensor:
    """Saturates along the diagonal: F = 1 − exp(−3 s), s the mean."""
    return 1 - torch.exp(-3 * z.mean(1))


def test_left_is_the_integral_to_where_f_saturates() -> None:
    field, x = (
        ig.fields.Function(rising),
        torch.ones(2, 4).double() * torch.tensor([[1.0], [2.0]]).double(),
    )
    made = ig.methods.left(pilot=2000, rule=FINE)(field, x)
    for b in range(2):
        moment = -math.log(1 - 0.9 * float(rising(x)[b])) / 3 / float(x[b, 0])
        end = moment * x[b]
        expected = ig.methods.integrated(rule=FINE)(field, end[None]).values[0]
        near(made.values[b], expected, 1e-5)
        near(made.values[b].sum(), 0.9 * rising(x)[b], 1e-5)
        near(made.residual[b], 0.1 * rising(x)[b], 1e-5)


def first_by_hand(values: list[float], fraction: float, above: float) -> float:
    """The first crossing of the threshold on the pilot's values, joined by straight lines."""
    cells = len(values) - 1
    largest = max(values)
    if largest <= above:
        return 1.0
    threshold = min(above + fraction * (largest - above), largest)
    if values[0] >= threshold:
        return 0.0
    j = next(j for j, value in enumerate(values) if value >= threshold)
    return (j - 1 + (threshold - values[j - 1]) / (values[j] - values[j - 1])) / cells


@given(
    phase=st.floats(0, 6),
    fraction=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    above=st.sampled_from([0.0, None, -1.0]),
    cells=st.integers(1, 9),
    pieces=st.integers(1, 3),
)
def test_until_saturation_by_hand(
    phase: float, fraction: float, above: float | None, cells: int, pieces: int
) -> None:
    """Every pair has its own moment; up to it the map is integrated gradients of the shorter line."""
    x, starts = wave(3, 4, phase=phase), wave(2, 3, 4, phase=phase + 1)
    wavy = ig.fields.Function(lambda z: torch.sin(2 * z.sum(1)) + 0.3 * z[:, 0])
    rule = ig.rules.SaturationCutoff(ig.rules.Saturation(fraction, above, cells), FINE)
    made = mapped(rule, ig.paths.Straight(pieces), wavy, x, starts)
    cells = pieces * -(-cells // pieces)
    for r in range(2):
        for b in range(3):
            points = torch.stack(
                [starts[r, b] + j / cells * (x[b] - starts[r, b]) for j in range(cells + 1)]
            )
            values = wavy.value(points).tolist()
            moment = first_by_hand(values, fraction, values[0] if above is None else above)
            end = starts[r, b] + moment * (x[b] - starts[r, b])
            expected = mapped(FINE, STRAIGHT, wavy, end[None], starts[r, b][None, None]).values[0]
            near(made.shares[r, b], expected, 1e-7)
            near(made.shares[r, b].sum(), wavy.value(end[None])[0] - values[0], 1e-7)
    near(made.change, wavy.value(x) - wavy.value(starts, 2))


@pytest.mark.parametrize("limit", [0.05, 0.3, 0.5, 0.99, 1.0])
@pytest.mark.parametrize(
    "path",
    [STRAIGHT, ig.paths.Straight(4), Paid(4, "start end", backwards=True)],
    ids=["1", "4", "paid"],
)
def test_until_a_moment(path: Any, limit: float) -> None:
    """A moment of the clock goes with every path, also one that comes piece by piece."""
    made = mapped(ig.rules.SaturationCutoff(limit, FINE), path)
    ends = STARTS + limit * (X - STARTS)
    near(made.shares.sum(-1), FIELD.value(ends, 2) - FIELD.value(STARTS, 2), 1e-10)
    near(made.change, FIELD.value(X) - FIELD.value(STARTS, 2))
    for r in range(2):
        near(made.shares[r], mapped(FINE, x=ends[r], starts=STARTS[r : r + 1]).values, 1e-10)


def test_until_the_end_is_the_rule_itself() -> None:
    for path in (STRAIGHT, ig.paths.Straight(3), Paid(3, "start end")):
        one, other = (
            mapped(ig.rules.SaturationCutoff(1.0, ig.rules.Simpson()), path),
            mapped(ig.rules.Simpson(), path),
        )
        assert torch.equal(one.values, other.values)
        assert one.cost.gradients == other.cost.gradients
        assert one.cost.values == other.cost.values


def test_until_goes_with_other_rules(quiet: None) -> None:
    """IDGI telescopes to F(γ(α*)); a tolerance is met for what is integrated."""
    ends = STARTS + 0.6 * (X - STARTS)
    change = FIELD.value(ends, 2) - FIELD.value(STARTS, 2)
    near(mapped(ig.rules.SaturationCutoff(0.6, ig.rules.IDGI(4))).shares.sum(-1), change)
    asked = ig.explain(
        t6, T6_INPUT, target=ig.targets.Output(), method="left", tol=0.001, above=None
    )
    assert bool(asked.converged.all())
    fine = ig.explain(
        t6, T6_INPUT, target=ig.targets.Output(), method="left", rule=FINE, above=None
    )
    assert float((asked.values - fine.values).norm() / fine.values.norm()) < 0.001


def test_what_lies_beyond_costs_nothing() -> None:
    model = Counting(t6)
    field = ig.TorchField(model, ig.targets.Output())
    made = ig.Method(
        path=ig.paths.Straight(10), rule=ig.rules.SaturationCutoff(0.35, ig.rules.Midpoint(2))
    )(field, T6_INPUT)
    assert model.gradients == made.cost.gradients == 4 * 2
    model.reset()
    made = ig.methods.left(above=None, pilot=20, rule=ig.rules.Midpoint(6))(field, T6_INPUT)
    assert model.gradients == made.cost.gradients == 6
    assert model.values == made.cost.values == 21 + ROWS  # both ends are among them
    # F falls from 0 on T6: it never rises above where it begins, and the whole line is taken; published, above 0.
    near(made.residual, [0.0], 0.05)


def test_saturated_from_the_start() -> None:
    """F is largest at the baseline: nothing is left of it, as published; counted from there, the line is whole."""
    field = ig.fields.Function(lambda z: 2 - z.sum(1))
    x = torch.full((1, 2), 0.5).double()
    published = ig.methods.left(rule=FINE)(field, x)
    assert torch.equal(published.values, torch.zeros(1, 2).double())
    near(published.residual, [-1.0])
    near(ig.methods.left(above=None, rule=FINE)(field, x).values, [-0.5, -0.5])


def test_the_maximum_needs_the_whole_path() -> None:
    with pytest.raises(
        ig.errors.InputError, match=r"covers the clock from 0 to 0\.25: give the limit as a number"
    ):
        mapped(ig.rules.SaturationCutoff(), Paid(4, ""))
    corners = wave(4, 2, 3, 4)
    rule = ig.rules.SaturationCutoff(ig.rules.Saturation(above=None, pilot=9), FINE)
    stacked = rule(FIELD, polyline(corners))
    assert bool(torch.isfinite(stacked.share).all())
    near(stacked.begin[0], FIELD.value(corners[0], 2))
    near(stacked.end[-1], FIELD.value(corners[-1], 2))


def test_moments_do_not_depend_on_neighbours() -> None:
    rule = ig.rules.SaturationCutoff(ig.rules.Saturation(0.5, None, 7), ig.rules.Midpoint(5))
    whole = mapped(rule)
    for b in range(3):
        alone = mapped(rule, x=X[b : b + 1], starts=STARTS[:, b : b + 1])
        near(alone.shares[:, 0], whole.shares[:, b], 1e-13)
