"""The straight line in steps that follow F."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand import testing
from integrand.fields.line_scan import bend as bent
from integrand.fields.line_scan import equal_change, pilot, quantiles
from integrand.model.row_independence import ROWS
from tests.problems import Counting, t6, tanh_mlp, wave

X = wave(3, 4, phase=0.3)  # B = 3 examples of four features
STARTS = wave(2, 3, 4, phase=2)  # R = 2


def bend(z: Tensor) -> Tensor:
    return torch.exp(0.8 * z @ wave(z.shape[1], phase=0.5).to(z)) + (3 * z[:, 2]).tanh()


FIELD = ig.fields.Function(bend)


def decision(z: Tensor) -> Tensor:
    """Decides at 0.7 of the way from 0 to 1, on a hundredth of it."""
    return (200 * (z.mean(1) - 0.7)).sigmoid() * (1 + z[:, 0] * z[:, 1])


@pytest.mark.parametrize("by", ["change", "left", "midpoint"])
def test_corners_are_the_clocks(by: str) -> None:
    path = ig.paths.NonUniform(9, 20, by, even=0.2)
    clock, points = ig.paths.corners(path, FIELD, STARTS, X)
    values = pilot(FIELD, STARTS, X.expand_as(STARTS), 20)
    orders = {"left": 1, "midpoint": 2}
    place = (
        equal_change(values, 9, 0.2)
        if by == "change"
        else quantiles(bent(values, orders[by]), 9, 0.2)
    )
    torch.testing.assert_close(points, STARTS + place[..., None] * (X - STARTS), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        clock, torch.linspace(0, 1, 10, dtype=torch.float64), rtol=0, atol=1e-15
    )
    assert float(place.diff(dim=0).std()) > 1e-3


def test_every_step_carries_the_same_change() -> None:
    """To the pilot's accuracy: |ΔF| of the real field over the real steps."""
    field = ig.fields.Function(lambda z: torch.exp(z.sum(1)))  # monotone on these lines
    _, points = ig.paths.corners(ig.paths.NonUniform(10, 400, even=0), field, 0 * STARTS, X.abs())
    change = field.value(points, 3).diff(dim=0)
    whole = field.value(X.abs()) - 1
    torch.testing.assert_close(change, (whole / 10).expand(10, 2, 3), rtol=1e-3, atol=0)


def test_a_late_decision_is_not_missed() -> None:
    """Where the published sampler of IDG finds nothing: all its samples lie in front of the decision."""
    field, x = ig.fields.Function(decision), torch.ones(2, 4).double()
    exact = ig.Method(path=ig.paths.Straight(400), rule=ig.rules.GaussLegendre(8))(field, x)
    made = ig.methods.nonuniform(0.0, 50, 50)(field, x)
    assert float((made.values - exact.values).norm() / exact.values.norm()) < 0.03
    assert float(made.gap.max()) < 0.03


@pytest.mark.parametrize("by", ["change", "midpoint"])
def test_fewer_steps_than_even_ones(by: str, quiet: None) -> None:
    field, x = ig.fields.Function(decision), torch.ones(1, 4).double()
    exact = ig.Method(path=ig.paths.Straight(400), rule=ig.rules.GaussLegendre(8))(field, x).values

    def error(path: Any) -> float:
        found = ig.Method(path=path, rule=ig.rules.Midpoint())(field, x).values
        return float((found - exact).norm() / exact.norm())

    assert error(ig.paths.NonUniform(20, 100, by)) < 0.3 * error(ig.paths.Straight(20))


def test_converges_to_integrated_gradients() -> None:
    exact = ig.Method(ig.baselines.Given(STARTS), rule=ig.rules.GaussLegendre(40))(FIELD, X).values
    errors = []
    for steps in (10, 40, 160):
        made = ig.methods.nonuniform(ig.baselines.Given(STARTS), steps, 20)(FIELD, X)
        errors.append(float((made.values - exact).norm()))
    # Of second order, though the clock is bent at every cell of the pilot.
    assert errors[1] < errors[0] / 8
    assert errors[2] < errors[1] / 8


def test_even_is_the_midpoint_rule() -> None:
    one = ig.methods.nonuniform(0.0, 50, 7, even=1.0)
    other = ig.methods.integrated(0.0, ig.rules.Midpoint(50))
    x = torch.linspace(-1, 2, 6, dtype=torch.float64)[None]
    field = ig.fields.Function(t6)
    torch.testing.assert_close(one(field, x).values, other(field, x).values, rtol=0, atol=1e-14)


def test_a_flat_field_is_walked_evenly() -> None:
    flat = ig.fields.Linear(torch.zeros(4).double())
    _, points = ig.paths.corners(ig.paths.NonUniform(5, 8), flat, STARTS, X)
    _, even = ig.paths.corners(ig.paths.Straight(5), flat, STARTS, X)
    torch.testing.assert_close(points, even, rtol=0, atol=1e-14)


def test_the_kit() -> None:
    for by in ("change", "left", "midpoint"):
        testing.check_path(ig.paths.NonUniform(9, 12, by), field=FIELD, x=X, references=STARTS)
    field = ig.TorchField(tanh_mlp(4), torch.tensor([0, 2, 1]))
    testing.check_path(ig.paths.NonUniform(9, 12), field=field, x=X, references=STARTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_of_steps_meet(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    path, starts, x = ig.paths.NonUniform(11, 6), STARTS.to(dtype), X.to(dtype)
    field = ig.fields.Function(lambda z: z.square().sum(1))
    whole = ig.paths.corners(path, field, starts, x)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 2 * starts.numel())
    segments = list(path(field, starts, x))
    assert [len(segment.start) for segment in segments] == [2, 2, 2, 2, 2, 1]
    for one, other in itertools.pairwise(segments):
        assert torch.equal(one.end[-1], other.start[0])
    assert torch.equal(segments[-1].end[-1], x.expand_as(starts))
    for one, other in zip(whole, ig.paths.corners(path, field, starts, x), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_cost() -> None:
    model = Counting(tanh_mlp(4))
    method = ig.methods.nonuniform(ig.baselines.Given(STARTS), 7, 12, rule=ig.rules.Simpson())
    made = ig.explain(model, X, target=0, method=method)
    assert model.gradients == made.cost.gradients == 2 * 3 * 7 * 3
    # The pilot, and F where paths begin and at the inputs.
    assert model.values == made.cost.values == 2 * 3 * 13 + 2 * 3 + 3 + ROWS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"at least one step, not 0"),
        ({"pilot": 0}, r"pilot of at least 1 cells, not 0"),
        ({"pilot": 2, "by": "midpoint"}, r"'midpoint' take a pilot of at least 3 cells, not 2"),
        ({"by": "curvature"}, r"by is one of 'change', 'left', 'midpoint', not 'curvature'"),
        ({"even": -0.1}, r"from 0 to 1, not -0.1"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.paths.NonUniform(**options)


# --- schedules --------------------------------------------------------------------------------------------------------


def test_a_schedule_is_where_the_corners_are() -> None:
    for clock in ((0.0, 0.1, 0.6, 1.0), torch.tensor([0.0, 0.1, 0.6, 1.0], dtype=torch.float64)):
        path = ig.paths.Scheduled(clock)
        _, points = ig.paths.corners(path, FIELD, STARTS, X)
        place = torch.as_tensor(clock, dtype=torch.float64)[:, None, None, None]
        torch.testing.assert_close(points, STARTS + place * (X - STARTS), rtol=0, atol=1e-15)
        testing.check_path(path, field=FIELD, x=X, references=STARTS)


def test_a_fitted_schedule_is_the_median_lines() -> None:
    model = Counting(tanh_mlp(4))
    field = ig.TorchField(model, 1)
    path = ig.paths.Scheduled.fitted(field, STARTS, X, 9, 30, "left", 0.2)
    assert (model.gradients, model.values) == (0, 2 * 3 * 31)
    values = pilot(field, STARTS, X.expand_as(STARTS), 30)
    bends = values.diff(n=2, dim=0).abs().sqrt().flatten(1).tolist()
    middle = [sorted(row)[2] for row in bends]  # of six lines the lower of the two in the middle
    density = torch.tensor([*middle, middle[-1]], dtype=torch.float64)
    torch.testing.assert_close(path.clock, quantiles(density, 9, 0.2), rtol=0, atol=1e-12)


def test_a_fitted_schedule_serves_other_inputs(quiet: None) -> None:
    """Fitted on some lines on which F saturates, it errs less on others than even steps do."""
    field = ig.fields.Function(lambda z: 1 - (-9 * z.mean(1)).exp())
    zero, ones = torch.zeros(1, 4, 4).double(), 1 + 0.02 * wave(4, 4)
    path = ig.paths.Scheduled.fitted(field, zero, ones, 12, by="left")
    x = 1 + 0.02 * wave(3, 4, phase=5)
    exact = ig.Method(path=ig.paths.Straight(100), rule=ig.rules.GaussLegendre(8))(field, x).values

    def error(path: Any) -> float:
        return float((ig.Method(path=path, rule=ig.rules.Left())(field, x).values - exact).norm())

    assert error(path) < 0.5 * error(ig.paths.Straight(12))


@pytest.mark.parametrize(
    ("clock", "message"),
    [
        ((0.0, 0.5, 0.4, 1.0), r"goes forward: position 2 is 0.4, after 0.5. Sort"),
        ((0.0, 0.5, 0.5, 1.0), r"position 2 is 0.5, after 0.5"),
        ((0.0, float("nan"), 1.0), r"position 1 is nan"),
        ((0.1, 1.0), r"the first of which is 0 and the last 1"),
        ((0.0, 0.9), r"the first of which is 0 and the last 1"),
        ((1.0,), r"the first of which is 0 and the last 1"),
    ],
)
def test_schedules_that_are_refused(clock: tuple[float, ...], message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.paths.Scheduled(clock)
