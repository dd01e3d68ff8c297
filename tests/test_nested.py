"""Paths that have paid for both ends of every piece, integrated to a tolerance: nodes between, by halving."""

from __future__ import annotations

import dataclasses
import warnings
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import Evaluation, polyline
from integrand.fields import CountedField
from integrand.rules.base import Integrated
from tests.problems import Counting, filled, wave
from tests.test_adaptive import gelu_mlp, grown, met, norm, relu_mlp

B, R, STEPS = 8, 2, 10
TOL = 0.02
CLASSES = torch.arange(B) % 3
NETWORKS = {"gelu mlp": gelu_mlp, "relu mlp": relu_mlp}


def paid(segment: ig.Segment, field: ig.fields.Field) -> ig.Segment:
    """The same pieces, knowing what is at their ends."""
    at = lambda z: Evaluation(field.value(z, 3), field.gradient(z, 3))  # noqa: E731
    return dataclasses.replace(segment, at_start=at(segment.start), at_end=at(segment.end))


def integrated(
    field: ig.fields.Field, segment: ig.Segment, tol: float, most: int = 1000
) -> tuple[Integrated, int]:
    meter = CountedField(field)
    found = ig.rules.Adaptive(tol, most)(meter, segment)
    return found, meter.tally.gradients


@cache
def walked(name: str) -> tuple[ig.TorchField, list[ig.Segment], Tensor]:
    """Ten steps of a descent of twelve paths, and the share of every step by brute force."""
    field = ig.TorchField(grown(NETWORKS[name], 5), CLASSES)
    x = wave(B, 8, phase=0.3, scale=1.5)
    references = wave(R, 8, phase=1.1, scale=1.5)[:, None].expand(R, *x.shape)
    with field.ready():
        segments = list(
            ig.paths.Descent(steps=STEPS, rate=ig.paths.Relative(0.03))(field, references, x)
        )
    fine = ig.rules.Midpoint(2000)
    bare = [dataclasses.replace(s, at_start=None, at_end=None) for s in segments]
    return field, segments, torch.cat([fine(field, one) for one in bare])


@pytest.mark.parametrize("tol", [0.1, TOL, 0.002])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_piece_is_as_exact_as_asked(name: str, tol: float) -> None:
    field, segments, truth = walked(name)
    found = [integrated(field, segment, tol)[0] for segment in segments]
    share, error = (torch.cat([getattr(one, part) for one in found]) for part in ("share", "error"))
    moved = norm(truth) > 0
    real = norm(share - truth)[moved]
    assert len(real) >= 100
    done = error <= tol * norm(share)
    assert float(done.double().mean()) >= (0.97 if tol < 0.01 else 1)
    assert float((real <= tol * norm(truth)[moved]).double().mean()) >= 0.9
    assert float((real <= error[moved] + 1e-12).double().mean()) >= 0.8
    whole = norm((share - truth).sum(0)[None]) / norm(truth.sum(0)[None])
    assert float(whole.max()) <= tol  # errors of pieces do not add up


def test_smaller_tolerances_err_less_and_cost_more() -> None:
    field, segments, truth = walked("relu mlp")
    costs, errors = [], []
    for tol in (0.1, 0.02, 0.002):
        found = [integrated(field, segment, tol) for segment in segments]
        costs.append(sum(cost for _, cost in found))
        errors.append(float(norm(torch.cat([one.share for one, _ in found]) - truth).mean()))
    assert costs == sorted(set(costs))
    assert errors == sorted(set(errors), reverse=True)
    assert costs[0] <= 4 * int((norm(truth) > 0).sum())


def test_ends_are_those_the_path_paid_for() -> None:
    field, segments, _ = walked("gelu mlp")
    found, _ = integrated(field, segments[0], TOL)
    assert found.begin is not None
    assert found.end is not None
    torch.testing.assert_close(found.begin, field.value(segments[0].start, 3), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.end, field.value(segments[0].end, 3), rtol=0, atol=1e-12)


# --- what is easy is cheap --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tol", [0.1, 1e-9])
def test_linear_pieces_take_their_middle_only(tol: float) -> None:
    weight = wave(6, phase=2)
    field = ig.fields.Linear(weight)
    segment = paid(polyline(wave(4, 2, 3, 6, phase=0.2)), field)
    found, cost = integrated(field, segment, tol)
    torch.testing.assert_close(found.share, segment.step * weight, rtol=0, atol=1e-14)
    assert cost == 3 * 2 * 3
    assert float(found.error.max()) <= 1e-12


def test_simpson_at_first_sight() -> None:
    """One node between is Simpson's rule: exact for a cubic gradient's integral, T_2 and T_1 told apart."""
    field = ig.fields.Function(lambda z: z[:, 0] ** 4)
    segment = paid(polyline(torch.tensor([0.5, 2.0]).double().reshape(2, 1, 1, 1)), field)
    found, cost = integrated(field, segment, 0.5)
    assert cost == 1
    assert float(found.share) == pytest.approx(16 - 0.0625, abs=1e-13)
    one = 1.5 * (4 * 0.125 + 4 * 8) / 2
    two = 1.5 * (4 * 0.125 + 2 * 4 * 1.25**3 + 4 * 8) / 4
    assert float(found.error) == pytest.approx(2.5 * abs((4 * two - one) / 3 - two), rel=1e-12)


def test_doubling_is_simpsons_rule_of_more_pieces() -> None:
    field = ig.fields.Function(lambda z: torch.tanh(8 * (z[:, 0] - 0.4)) * z[:, 1])
    bare = polyline(torch.tensor([[0.0, 0.5], [1.0, 1.5]]).double()[:, None, None])
    found, cost = integrated(field, paid(bare, field), 1e-3)
    assert cost in (7, 15, 31, 63)
    simpson = ig.rules.Simpson((cost + 1) // 2)(field, bare)
    torch.testing.assert_close(found.share, simpson, rtol=0, atol=1e-13)


def test_pieces_of_no_length_cost_nothing() -> None:
    field, _, _ = walked("relu mlp")
    corners = wave(4, R, B, 8, phase=0.7)
    corners[1, 0] = corners[0, 0]
    corners[2, :, 5] = corners[1, :, 5]
    segment = paid(polyline(corners), field)
    still = (segment.step == 0).all(-1)
    assert int(still.sum()) == B + R
    found, cost = integrated(field, segment, TOL)
    assert not found.share[still].any()
    assert not found.error[still].any()
    assert met(found, TOL)
    gone = paid(polyline(corners[:1].expand(2, R, B, 8)), field)
    nothing, none = integrated(field, gone, TOL)
    assert none == 0
    assert not nothing.share.any()
    assert not nothing.error.any()
    rest = 0
    for k, r, b in (~still).nonzero().tolist():
        one = polyline(torch.stack([segment.start[k, r, b], segment.end[k, r, b]])[:, None, None])
        own = field.at(torch.tensor([b]))
        share, price = integrated(own, paid(one, own), TOL)
        torch.testing.assert_close(share.share[0, 0, 0], found.share[k, r, b], rtol=0, atol=1e-11)
        rest += price
    assert cost == rest


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [5, 16, 40])
def test_max_gradients(most: int) -> None:
    field, segments, truth = walked("relu mlp")
    counted = Counting(field.network.model)
    own = ig.TorchField(counted, CLASSES)
    found = ig.rules.Adaptive(1e-9, most)(own, segments[0])
    moved = norm(truth[:1]) > 0
    assert counted.gradients <= most * int(moved.sum())
    assert counted.gradients > most / 4 * int(moved.sum())
    assert not met(found, 1e-9)
    assert bool(torch.isfinite(found.share).all())


def test_rounding_is_not_doubled_down_on() -> None:
    """A tiny step far up: F changes in its last places only, which no number of nodes makes better."""
    model = nn.Linear(4, 1).float()
    with torch.no_grad():
        model.weight.copy_(wave(4).float()[None])
        model.bias.fill_(1000.0)
    field = ig.TorchField(model, ig.targets.Output())
    x = wave(3, 4).float()
    segment = paid(
        polyline(torch.stack([x + 1e-4 * wave(3, 4, phase=1).float(), x])[:, None]), field
    )
    found, cost = integrated(field, segment, 0.01)
    assert cost == 3
    assert met(found, 0.01)


def test_a_step_across_the_slope() -> None:
    """F ends where it began: what the sum misses is not held against a change of nothing."""
    field = ig.fields.Function(lambda z: z.square().sum(1) + 0.01 * torch.relu(z[:, 0]))
    end = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    start = end.flip(1) * torch.tensor([1.0, 1.0]).double()
    segment = paid(polyline(torch.stack([start, end])[:, None]), field)
    found, cost = integrated(field, segment, 0.02)
    truth = ig.rules.Midpoint(4000)(field, dataclasses.replace(segment, at_start=None, at_end=None))
    assert met(found, 0.02)
    assert cost <= 3
    assert float((found.share - truth).norm()) <= 0.02 * float(truth.norm())


# --- in a method ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(NETWORKS))
def test_ig2_with_a_tolerance(name: str) -> None:
    model = Counting(grown(NETWORKS[name], 5))
    x, references = wave(B, 8, phase=0.3, scale=1.5), wave(R, 8, phase=1.1, scale=1.5)
    options = dict(target=CLASSES, method="ig2", baseline=references, steps=STEPS)
    model.reset()
    made = ig.explain(model, x, tol=TOL, **options)
    # A walk of steps + 1 gradients, and at least the middle of every step that was taken.
    assert R * B * (STEPS + 1) < model.gradients == made.cost.gradients
    fine = ig.explain(model, x, rule=ig.rules.Simpson(400), **options)
    torch.testing.assert_close(
        made.baselines, fine.baselines, rtol=0, atol=1e-12
    )  # the path is the same
    real = norm((made.values - fine.values)[None, None])[0, 0] / norm(fine.values[None, None])[0, 0]
    assert bool(made.converged.all())
    assert bool((made.error <= TOL).all())
    assert bool((made.error > 0).all())
    assert float((real <= TOL).double().mean()) >= 0.9
    assert float((made.gap <= TOL).double().mean()) >= 0.7
    assert repr(made.method.rule) == "Adaptive(0.02)"
    rule = ig.explain(model, x, rule=ig.rules.Adaptive(TOL), **options)
    assert torch.equal(rule.values, made.values)


def test_ig2_that_may_not() -> None:
    model = grown(relu_mlp, 5)
    x, references = wave(4, 8, phase=0.3, scale=1.5), wave(R, 8, phase=1.1, scale=1.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = ig.explain(
            model,
            x,
            target=0,
            method="ig2",
            baseline=references,
            steps=4,
            rate=ig.paths.Relative(0.1),
            rule=ig.rules.Adaptive(1e-7, max_gradients=5),
        )
    assert {w.category for w in caught} == {ig.errors.IncompleteWarning}
    assert "did not reach their tolerance" in str(caught[0].message)
    assert len(caught) <= 2  # the second is of what the maps miss
    assert not made.converged.all()
    assert bool((made.error[~made.converged] > 1e-7).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_walks_end_cheaply(dtype: torch.dtype) -> None:
    """Steps that were halved until they are next to nothing take their middle, not all that they may."""
    model = filled(
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    ).to(dtype)
    x, references = wave(6, 6, phase=0.3).to(dtype), wave(2, 6, phase=1).to(dtype)
    made = ig.explain(
        model,
        x,
        target=0,
        method="ig2",
        baseline=references,
        steps=60,
        rate=ig.paths.Relative(0.05),
        tol=0.05,
    )
    assert bool(made.converged.all())
    assert made.cost.gradients <= 6 * 12 * 61
