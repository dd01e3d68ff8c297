"""Rules against their formulas, their orders of convergence, and their costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.core.segment import Evaluation, polyline
from integrand.rules.base import mean_gradient
from tests.problems import Counting, wave

RULES = {
    "Left": ig.rules.Left,
    "Right": ig.rules.Right,
    "Midpoint": ig.rules.Midpoint,
    "Trapezoid": ig.rules.Trapezoid,
    "Simpson": ig.rules.Simpson,
    "GaussLegendre": ig.rules.GaussLegendre,
    "ClenshawCurtis": lambda n: ig.rules.ClenshawCurtis(2 * n),  # its pieces come in pairs
}
ORDERS = {"Left": 1, "Right": 1, "Midpoint": 2, "Trapezoid": 2, "Simpson": 4}
WEIGHT = wave(3, phase=0.5)


def smooth(z: Tensor) -> Tensor:
    return torch.exp(0.7 * z @ WEIGHT.to(z)) + torch.sin(z).prod(1)


def line(start: Tensor, end: Tensor) -> ig.Segment:
    """One straight piece from start (B, *s) to end (B, *s)."""
    return polyline(torch.stack([start, end])[:, None])


def stack() -> ig.Segment:
    """K = 2 pieces of R = 2 paths for B = 3 examples of three features."""
    return polyline(wave(3, 2, 3, 3, phase=0.2))


def expected_table(name: str, n: int) -> tuple[list[float], list[float]]:
    """The nodes and weights of the textbook, one piece at a time."""
    nodes: dict[float, float] = {}
    for q in range(n):
        begin, end = q / n, (q + 1) / n
        piece = {
            "Left": {begin: 1.0},
            "Right": {end: 1.0},
            "Midpoint": {(begin + end) / 2: 1.0},
            "Trapezoid": {begin: 0.5, end: 0.5},
            "Simpson": {begin: 1 / 6, (begin + end) / 2: 4 / 6, end: 1 / 6},
        }[name]
        for node, weight in piece.items():
            near = next((known for known in nodes if abs(known - node) < 1e-12), node)
            nodes[near] = nodes.get(near, 0.0) + weight / n
    return sorted(nodes), [nodes[t] for t in sorted(nodes)]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("name", list(ORDERS))
def test_tables_are_the_textbook(name: str, n: int) -> None:
    nodes, weights = RULES[name](n).table()
    expected_nodes, expected_weights = expected_table(name, n)
    assert nodes == pytest.approx(expected_nodes, abs=1e-14)
    assert weights == pytest.approx(expected_weights, abs=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50, 200])
@pytest.mark.parametrize("name", list(RULES))
def test_weights_sum_to_one(name: str, n: int) -> None:
    nodes, weights = RULES[name](n).table()
    assert abs(math.fsum(weights) - 1) <= 1e-15
    assert all(0 <= t <= 1 for t in nodes)
    assert list(nodes) == sorted(set(nodes))
    assert RULES[name](n).gradients == len(nodes)


@pytest.mark.parametrize("name", list(RULES))
def test_at_least_one_node(name: str) -> None:
    with pytest.raises(ig.errors.InputError, match=r"at least one node, not 0"):
        RULES[name](0).table()


def observed_order(rule: Callable[[int], ig.rules.Rule], counts: list[int]) -> float:
    """Minus the slope of log error over log n, by least squares."""
    field = ig.fields.Function(smooth)
    segment = line(wave(1, 3, phase=3), wave(1, 3, phase=1) + 1)
    truth = ig.rules.GaussLegendre(60)(field, segment)
    errors = [float((rule(n)(field, segment) - truth).abs().max()) for n in counts]
    x, y = torch.tensor(counts).double().log(), torch.tensor(errors).double().log()
    x, y = x - x.mean(), y - y.mean()
    return float(-(x * y).sum() / (x * x).sum())


@pytest.mark.parametrize(("name", "order"), list(ORDERS.items()))
def test_order_of_convergence(name: str, order: int) -> None:
    counts = [4, 8, 16, 32] if order == 4 else [16, 32, 64, 128]
    assert observed_order(RULES[name], counts) == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize("name", list(RULES))
def test_nodes_and_segments_are_interchangeable(name: str) -> None:
    """n nodes on one segment and one node on n segments are the same composite rule (not so for those of high order)."""
    field, start, end = ig.fields.Function(smooth), wave(1, 3, phase=3), wave(1, 3, phase=1)
    one = RULES[name](6)(field, line(start, end)).sum(0)
    many = torch.zeros_like(one)
    for segment in ig.paths.Straight(6)(field, start[None], end):
        many += RULES[name](1)(field, segment).sum(0)
    assert torch.allclose(one, many, rtol=0, atol=1e-13) is (name in ORDERS)


def error_at_degree(rule: ig.rules.Rule, degree: int) -> float:
    """F = z^{d+1} has a gradient of degree d along [0, 1], and its integral is one."""
    field = ig.fields.Function(lambda z: z[:, 0] ** (degree + 1))
    return abs(float(rule(field, line(torch.zeros(1, 1).double(), torch.ones(1, 1).double()))) - 1)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_gauss_legendre_is_exact_to_degree_2n_minus_1(n: int) -> None:
    rule = ig.rules.GaussLegendre(n)
    assert all(error_at_degree(rule, degree) < 1e-14 for degree in range(2 * n))
    assert error_at_degree(rule, 2 * n) > 1e-6


@pytest.mark.parametrize("n", [2, 4, 6, 8])
def test_clenshaw_curtis_is_exact_to_degree_n_plus_1(n: int) -> None:
    """n + 1 nodes interpolate degree n; one more comes with the symmetry of an even n."""
    rule = ig.rules.ClenshawCurtis(n)
    assert all(error_at_degree(rule, degree) < 1e-14 for degree in range(n + 2))
    assert error_at_degree(rule, n + 2) > 1e-8


def test_clenshaw_curtis_is_the_textbook() -> None:
    assert ig.rules.ClenshawCurtis(2).table()[1] == pytest.approx([1 / 6, 4 / 6, 1 / 6], abs=1e-15)
    nodes, weights = ig.rules.ClenshawCurtis(4).table()
    half = 0.5**0.5 / 2
    assert nodes == pytest.approx([0, 0.5 - half, 0.5, 0.5 + half, 1], abs=1e-15)
    assert weights == pytest.approx([1 / 30, 4 / 15, 2 / 5, 4 / 15, 1 / 30], abs=1e-15)


@pytest.mark.parametrize("n", [2, 8, 16, 64])
def test_clenshaw_curtis_nodes_are_used_again(n: int) -> None:
    """Doubling keeps every node, to the last bit but one."""
    few, many = ig.rules.ClenshawCurtis(n).table(), ig.rules.ClenshawCurtis(2 * n).table()
    assert many[0][::2] == pytest.approx(few[0], abs=1e-15)
    assert all(weight > 0 for weight in many[1])


@pytest.mark.parametrize("n", [1, 3, 17])
def test_clenshaw_curtis_wants_an_even_number(n: int) -> None:
    with pytest.raises(ig.errors.InputError, match=f"an even number of pieces, not {n}"):
        ig.rules.ClenshawCurtis(n).table()


@pytest.mark.parametrize("name", ["GaussLegendre", "ClenshawCurtis"])
def test_high_orders_converge_faster_than_powers(name: str) -> None:
    """Between n and 2n the order is above that of Simpson's rule, and it grows."""
    assert observed_order(RULES[name], [2, 4]) > 4.5
    assert observed_order(RULES[name], [3, 6]) > observed_order(RULES[name], [2, 4]) + 1


@pytest.mark.parametrize("name", list(RULES))
def test_share_is_the_formula(name: str) -> None:
    """share = (end − start) ⊙ Σ_q w_q ∇F(start + t_q (end − start)), looped by hand over K, R, B and q."""
    rule, field, segment = RULES[name](3), ig.fields.Function(smooth), stack()
    found = rule(field, segment)
    nodes, weights = rule.table()
    for k in range(2):
        for r in range(2):
            for b in range(3):
                a, z = segment.start[k, r, b], segment.end[k, r, b]
                mean = torch.zeros(3).double()
                for t, w in zip(nodes, weights, strict=True):
                    point = (a + t * (z - a))[None].requires_grad_()
                    (gradient,) = torch.autograd.grad(smooth(point), point)
                    mean += w * gradient[0]
                torch.testing.assert_close(found[k, r, b], (z - a) * mean, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", list(RULES))
def test_linear_field(name: str) -> None:
    segment = stack()
    share = RULES[name](4)(ig.fields.Linear(WEIGHT), segment)
    torch.testing.assert_close(share, segment.step * WEIGHT, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", list(RULES))
def test_what_the_path_paid_for_is_used_and_not_evaluated(name: str) -> None:
    """Evaluations handed on with a segment stand in for the nodes at its ends; a wrong one shows that they are believed."""
    segment = stack()
    counted = ig.fields.CountedField(ig.fields.Function(smooth))
    field = ig.fields.Function(smooth)
    at = lambda z: Evaluation(field.value(z, 3), field.gradient(z, 3))  # noqa: E731
    paid = ig.Segment(
        segment.start,
        segment.end,
        segment.clock,
        at_start=at(segment.start),
        at_end=at(segment.end),
    )
    rule = RULES[name](2)
    torch.testing.assert_close(rule(counted, paid), rule(field, segment), rtol=0, atol=1e-14)
    ends = sum(t in (0.0, 1.0) for t in rule.table()[0])
    assert counted.tally.gradients == (rule.gradients - ends) * 2 * 2 * 3
    wrong = Evaluation(paid.at_start.value, paid.at_start.gradient + 1)
    lied = rule(field, ig.Segment(segment.start, segment.end, segment.clock, at_start=wrong))
    assert torch.equal(lied, rule(field, segment)) is (0.0 not in rule.table()[0])


@pytest.mark.parametrize(
    "rule", [ig.rules.GaussLegendre(50), ig.rules.ClenshawCurtis(50)], ids=repr
)
def test_float64_weights_stay_float64(rule: ig.rules.Rule) -> None:
    """Peers cast quadrature weights to float32: their sum is then off by 1e-9."""
    field = ig.fields.Linear(torch.ones(1, dtype=torch.float64))
    share = rule(field, line(torch.zeros(1, 1).double(), torch.ones(1, 1).double()))
    assert abs(float(share) - 1) < 1e-15


def test_pieces_of_no_length_cost_nothing_and_give_zero() -> None:
    corners = wave(3, 2, 3, 3, phase=0.2)
    corners[1, 0] = corners[0, 0]  # the first piece of reference 0 goes nowhere
    corners[2, :, 1] = corners[1, :, 1]  # the second piece of example 1 neither
    counted = ig.fields.CountedField(ig.fields.Function(smooth))
    share = ig.rules.Midpoint(4)(counted, polyline(corners))
    still = torch.zeros(2, 2, 3, dtype=torch.bool)
    still[0, 0] = still[1, :, 1] = True
    assert bool((share[still] == 0).all())
    assert bool((share[~still] != 0).any(-1).all())
    assert counted.tally.gradients == 4 * int((~still).sum())


def test_a_path_without_any_length() -> None:
    corner = wave(2, 3)
    counted = ig.fields.CountedField(ig.fields.Function(smooth))
    assert ig.rules.GaussLegendre(5)(counted, line(corner, corner)).abs().max() == 0
    assert counted.tally.gradients == 0


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
def test_nodes_per_call_do_not_matter(batch_size: int) -> None:
    model = Counting(lambda z: smooth(z)[:, None])

    def share(rows):
        return ig.rules.GaussLegendre(5)(ig.TorchField(model, 0, batch_size=rows), stack())

    whole = share(1000)
    model.reset()
    torch.testing.assert_close(share(batch_size), whole, rtol=0, atol=1e-14)
    assert model.largest == min(batch_size, 5 * 12)
    assert model.calls == -(-5 * 12 // batch_size)


def test_nodes_of_their_own_for_every_row() -> None:
    field, segment = ig.fields.Function(smooth), stack()
    t = 0.5 + 0.5 * wave(4, 2, 2, 3)
    w = 0.5 + 0.5 * wave(4, 2, 2, 3, phase=1)
    found = mean_gradient(field, segment, t, w)
    points = segment.start + t[..., None] * segment.step
    expected = (w[..., None] * field.gradient(points, 4)).sum(0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


# --- Exact ------------------------------------------------------------------------------------------------------------


def test_exact_asks_the_field() -> None:
    segment = stack()
    integrated = ig.rules.Exact()(ig.fields.Linear(WEIGHT), segment)
    assert torch.equal(integrated.share, segment.step * WEIGHT)
    assert not integrated.error.any()
    assert ig.rules.Exact().gradients == 0


def test_exact_on_a_field_without_a_share() -> None:
    with pytest.raises(ig.errors.NoShare, match=r"Function has no exact share: use a quadrature"):
        ig.rules.Exact()(ig.fields.Function(smooth), stack())


# --- MonteCarlo -------------------------------------------------------------------------------------------------------


def draws(
    rule: ig.rules.MonteCarlo, corners: Tensor, reference_block: tuple[int, int] | None = None
) -> Tensor:
    """Where the rule looked along a path from 0 to 1 in one feature, (n, K, R): F = z²/2 has the gradient z."""
    seen: list[Tensor] = []

    def spy(z: Tensor) -> Tensor:
        seen.append(z.detach().clone())
        return z.square().sum(1) / 2

    segment = polyline(corners)
    if reference_block:
        segment = dataclasses.replace(segment, reference_block=reference_block)
    rule(ig.fields.Function(spy), segment)
    return torch.cat(seen).reshape(rule.n, *segment.leading)[..., 0]


def ramp(k: int, r: int, b: int = 1) -> Tensor:
    """K pieces from 0 to 1, for R references and B examples of one feature."""
    return (
        torch.linspace(0, 1, k + 1, dtype=torch.float64)
        .reshape(-1, 1, 1, 1)
        .expand(-1, r, b, 1)
        .contiguous()
    )


def test_monte_carlo_is_the_mean_of_its_draws() -> None:
    rule, corners = ig.rules.MonteCarlo(5, seed=3), ramp(1, 4)
    share = rule(ig.fields.Function(lambda z: z.square().sum(1) / 2), polyline(corners))
    torch.testing.assert_close(
        share.share[0, :, 0, 0], draws(rule, corners)[:, 0].mean(0), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize(("n", "r"), [(1, 8), (5, 1), (3, 7)])
def test_monte_carlo_takes_one_draw_from_every_stratum(n: int, r: int) -> None:
    found = draws(ig.rules.MonteCarlo(n, seed=1), ramp(1, r)).flatten()
    assert sorted((found * n * r).floor().long().tolist()) == list(range(n * r))
    assert not torch.equal(found, found.sort().values)


def test_monte_carlo_is_unbiased() -> None:
    """The mean over 2000 seeds of one draw of ∫ 3z² dz = 1 is within four standard errors."""
    field = ig.fields.Function(lambda z: z[:, 0] ** 3)
    shares = torch.stack(
        [
            ig.rules.MonteCarlo(1, seed)(field, polyline(ramp(1, 1))).share.squeeze()
            for seed in range(2000)
        ]
    )
    assert abs(float(shares.mean()) - 1) < 4 * float(shares.std()) / 2000**0.5
    assert float(shares.std()) > 0.5


def test_monte_carlo_strata_beat_independent_draws() -> None:
    field = ig.fields.Function(lambda z: z[:, 0] ** 3)

    def spread(r: int, n: int) -> float:
        means = [
            ig.rules.MonteCarlo(n, seed)(field, polyline(ramp(1, r))).share.mean()
            for seed in range(200)
        ]
        return float(torch.stack(means).std())

    # Independent draws of 3z² have the standard deviation 2/√5, their mean over 64 draws an eighth of that.
    independent = 2 / 5**0.5 / 8
    assert spread(1, 64) < independent / 10
    assert spread(64, 1) < independent / 10
    # Ten times the draws lower the error by 10^1.5.
    assert spread(80, 1) < spread(8, 1) / 15


def test_monte_carlo_draws_do_not_depend_on_blocks() -> None:
    rule, corners = ig.rules.MonteCarlo(3, seed=5), ramp(1, 6)
    whole = draws(rule, corners)
    parts = [draws(rule, corners[:, first : first + 2], (first, 6)) for first in (0, 2, 4)]
    assert torch.equal(torch.cat(parts, 2), whole)


def test_monte_carlo_draws_are_the_same_for_every_example() -> None:
    found = draws(ig.rules.MonteCarlo(2), ramp(1, 3, b=4))
    assert found.shape == (2, 1, 3)  # column b = 0
    segment = polyline(ramp(1, 3, b=4))
    share = ig.rules.MonteCarlo(2)(ig.fields.Function(lambda z: z.square().sum(1)), segment).share
    assert torch.equal(share, share[:, :, :1].expand_as(share))


@pytest.mark.parametrize(("n", "r"), [(2, 30), (5, 3), (40, 1)])
def test_monte_carlo_knows_its_error(n: int, r: int) -> None:
    """Noise adds up, on average over seeds, to no less than the real squared error and to no more than that of independent draws."""
    field = ig.fields.Function(lambda z: z[:, 0] ** 3)
    real, stated, each = [], [], []
    for seed in range(300):
        found = ig.rules.MonteCarlo(n, seed)(field, polyline(ramp(1, r)))
        torch.testing.assert_close(
            found.error, found.noise.square().sum(0).flatten(3).sum(3).sqrt(), rtol=1e-12, atol=0
        )
        real.append((found.share - 1).square().mean())
        stated.append(found.error.square().mean())
        each.append(len(found.noise))
    independent = (9 / 5 - 1) / n  # the variance of 3z² over uniform z is 4/5
    assert (
        float(torch.stack(real).mean())
        <= 1.1 * float(torch.stack(stated).mean())
        <= 1.3 * independent
    )
    assert set(each) == {min(n, max(2, -(-16 // r) + 1))}


def test_one_random_node_knows_nothing_of_its_error() -> None:
    found = ig.rules.MonteCarlo(1)(ig.fields.Function(smooth), stack())
    assert bool(found.error.isinf().all())
    assert found.noise is None


def test_monte_carlo_seeds() -> None:
    one, same, other = (draws(ig.rules.MonteCarlo(4, seed), ramp(1, 3)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.isclose(one, other).any()


@pytest.mark.parametrize("segments", [3, 4, 8])
def test_monte_carlo_draws_anew_for_every_segment(segments: int) -> None:
    """Positions inside the segments of Straight(n) differ from one segment to the next, for powers of two as well."""
    found = draws(ig.rules.MonteCarlo(1), ramp(segments, 1)).flatten()
    inside = found * segments - torch.arange(segments)
    assert bool(((inside >= 0) & (inside <= 1)).all())
    assert len(set(inside.mul(1e9).round().tolist())) == segments


def test_monte_carlo_says_what_it_costs() -> None:
    rule = ig.rules.MonteCarlo(7)
    counted = ig.fields.CountedField(ig.fields.Function(smooth))
    rule(counted, stack())
    assert counted.tally.gradients == rule.gradients * 12
    assert rule.complete is False
