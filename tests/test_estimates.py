"""Estimates that can be believed: finite whatever a path does, the same at every scale, and not blind between the nodes.

Right values are closed forms, or quadratures of plain autograd (``benchmarks.honesty``).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from benchmarks import honesty
from integrand.core.segment import polyline
from integrand.core.shapes import norm
from integrand.fields import CountedField
from integrand.integration.attribution import Attribution
from integrand.report.formatting import headline, unsettled
from integrand.rules.adaptive.adaptive import Adaptive
from integrand.rules.adaptive.intervals import Lines, norms_of
from integrand.rules.base import Integrated
from tests.problems import wave
from tests.test_adaptive import gelu_mlp, grown, relu_mlp


def asked(function: Any, x: Tensor, tol: float = 0.05, **options: Any) -> Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(function, x, target=ig.targets.Output(), tol=tol, **options)


def lines(x: Tensor) -> ig.Segment:
    return polyline(torch.stack([torch.zeros_like(x), x])[:, None])


def paid(field: ig.fields.Field, x: Tensor) -> ig.Segment:
    """A step whose path has looked at its end."""
    at_end = field.rows(x, torch.arange(len(x))).reshape(1, 1, len(x))
    return dataclasses.replace(lines(x), at_end=at_end)


# --- flat stretches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tol", [0.05, 0.01, 1e-3])
def test_a_stretch_of_no_gradient(tol: float, dtype: torch.dtype) -> None:
    """F = relu(z0² − z1) is 0 until t = ¾ on the way to (2, 3): A = (4 (1 − ¾²), −3 (1 − ¾))."""
    made = asked(
        lambda z: torch.relu(z[:, 0] ** 2 - z[:, 1]), torch.tensor([[2.0, 3.0]], dtype=dtype), tol
    )
    exact = torch.tensor([1.75, -0.75], dtype=dtype)
    real = float((made.values[0] - exact).norm() / exact.norm())
    assert made.converged.tolist() == [True]
    assert real <= float(made.error[0]) <= tol


@pytest.mark.parametrize("begins", [0.3, 0.6, 0.75, 0.9])
def test_a_plateau_before_a_ramp(begins: float) -> None:
    """F = relu(z0 − c) z1² on the way to (1, 2): A0 = ∫ 4t² and A1 = ∫ 8t (t − c), both from c to 1."""
    c = begins
    made = asked(
        lambda z: torch.relu(z[:, 0] - c) * z[:, 1] ** 2, torch.tensor([[1.0, 2.0]]).double()
    )
    exact = torch.tensor([4 * (1 - c**3) / 3, 8 * ((1 - c**3) / 3 - c * (1 - c**2) / 2)]).double()
    assert float((made.values[0] - exact).norm()) <= 0.05 * float(exact.norm())
    assert bool(made.converged.all())


def test_one_reference_does_not_spoil_the_others() -> None:
    """Weighted references whose paths are dead in parts: the error of the sum is a number, and above the true one."""
    field = ig.fields.Function(lambda z: torch.relu(z[:, 0] ** 2 - z[:, 1]))
    x, references = (
        torch.tensor([[2.0, 3.0]]).double(),
        torch.tensor([[[0.0, 0.0]], [[0.0, 2.0]], [[-1.0, 3.0]]]).double(),
    )
    made = ig.Method(ig.baselines.Given(references), rule=Adaptive(0.02))(field, x)
    exact = ig.Method(ig.baselines.Given(references), rule=ig.rules.Midpoint(20000))(
        field, x
    ).values
    assert float((made.values - exact).norm() / exact.norm()) <= float(made.error[0]) <= 0.02


def test_intervals_of_no_length_are_judged() -> None:
    field = ig.TorchField(grown(relu_mlp, 5), 0)
    segment = lines(wave(2, 8))
    paths = Lines.of(field, segment, segment.moving())
    known = paths.on_grid(torch.tensor([0.0, 0.5, 0.5, 1.0]).double())
    norms = paths.shares(known).norm(dim=1).numpy()
    judged = paths.errors(known, paths.rates(known, norms))
    assert np.isfinite(judged.error).all()
    assert not judged.error.reshape(2, 3)[:, 1].any()


@pytest.mark.parametrize("tol", [1e-12, 1e-7])
def test_a_tolerance_below_rounding_is_not_met_and_not_chased(tol: float) -> None:
    net, x = grown(relu_mlp, 5).float(), wave(3, 8).float()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = ig.explain(net, x, target=0, tol=tol)
    assert bool(made.error.isfinite().all())
    assert bool((made.error > tol).all())
    assert not made.converged.any()
    assert any("did not reach their tolerance" in str(w.message) for w in caught)


# --- every scale ------------------------------------------------------------------------------------------------------

SCALES = [1e-30, 1e-22, 1e-18, 1.0, 1e18, 1e30]


def at_scale(outputs: float, inputs: float, tol: float = 1e-2) -> tuple[Integrated, int]:
    """s · F(x / i): shares are s times as large, whatever i is."""
    net = grown(relu_mlp, 5).float()
    field = CountedField(
        ig.TorchField(lambda z: net(z / inputs)[:, 0] * outputs, ig.targets.Output())
    )
    found = Adaptive(tol)(field, lines(wave(6, 8, phase=0.3).float() * inputs))
    return found, field.tally.gradients


@pytest.mark.parametrize("scale", SCALES)
def test_outputs_of_every_scale(scale: float) -> None:
    (found, cost), (plain, usual) = (
        at_scale(2.0 ** round(math.log2(scale)), 1.0),
        at_scale(1.0, 1.0),
    )
    exact = 2.0 ** round(math.log2(scale))
    assert cost == usual
    torch.testing.assert_close(found.share / exact, plain.share, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.error / exact, plain.error, rtol=1e-3, atol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e20])
def test_inputs_of_every_scale(scale: float) -> None:
    (found, cost), (plain, usual) = (
        at_scale(1.0, 2.0 ** round(math.log2(scale))),
        at_scale(1.0, 1.0),
    )
    assert cost == usual
    torch.testing.assert_close(found.share, plain.share, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.error, plain.error, rtol=1e-3, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_steps_that_were_paid_for_at_every_scale(scale: float) -> None:
    def step(s):
        return ig.fields.Function(
            lambda z: s * (z[:, 0] ** 3 * z[:, 1] + torch.relu(z[:, 1] - 0.4))
        )

    x = torch.tensor([[0.8, 0.9], [0.3, 0.7]])
    scale = 2.0 ** round(math.log2(scale))
    found = []
    for s in (1.0, scale):
        field = step(s)
        found.append(Adaptive(0.01)(field, paid(field, x)))
    torch.testing.assert_close(found[1].share / scale, found[0].share, rtol=1e-5, atol=0)
    torch.testing.assert_close(found[1].error / scale, found[0].error, rtol=1e-3, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1.0, 1e19, 1e30])
def test_norms(scale: float) -> None:
    maps = wave(4, 3, 5).float() * scale
    exact = maps.double().flatten(1).norm(dim=1)
    torch.testing.assert_close(norm(maps).double(), exact, rtol=1e-6, atol=0)
    groups = np.array([0, 0, 1, 1])
    together = exact.square().reshape(2, 2).sum(1).sqrt()
    sums = norms_of(groups, norm(maps).numpy(), 3)
    np.testing.assert_allclose(sums[:2], together.numpy(), rtol=1e-6, atol=0)
    assert sums[2] == 0
    assert norm(torch.zeros(2, 3)).tolist() == [0, 0]
    assert math.isnan(norm(torch.tensor([[math.nan, 1.0]])))
    assert math.isinf(norm(torch.tensor([[math.inf, 1.0]])))


# --- maps of nothing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [torch.floor, torch.round, torch.sign, torch.ceil])
def test_a_map_of_zeros_that_misses_a_jump(function: Any) -> None:
    with pytest.warns(ig.errors.IncompleteWarning):
        made = ig.explain(function, torch.full((1, 1), 2.5), target=0)
    assert not made.values.any()
    assert made.converged.tolist() == [False]
    assert not float(made.error[0]) <= 1
    assert made.cost.gradients <= 1010


def test_what_is_missed_is_in_no_smaller_vector() -> None:
    """A step of 0.7 that no gradient sees, beside a slope that all do: the L2 error is 0.7/√n at least."""
    field = ig.fields.Function(lambda z: z[:, 0] + 0.7 * (z[:, 1] > 0.63))
    found = Adaptive(0.05, max_gradients=60)(field, lines(torch.ones(1, 4).double()))
    assert float(found.error) >= 0.7 / 2
    assert (
        float(Adaptive(0.05, max_gradients=60)(field, paid(field, torch.ones(1, 4).double())).error)
        >= 0.7 / 2
    )


def test_ig2_over_a_step_that_falls_between_its_nodes() -> None:
    function = lambda z: torch.stack([torch.tanh(1e5 * (z[:, 0] - 0.5)), z[:, 0] * 0], 1)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        made = ig.explain(
            function, torch.ones(1, 1).double(), target=0, method="ig2", tol=0.05, baseline=torch.zeros(1, 1).double(),
            steps=6, representation=lambda z: z, rate=ig.paths.Relative(0.15),
        )  # fmt: skip
    right = float((made.values - made.change[0]).abs().max()) <= 0.05 * float(
        made.change.abs().max()
    )
    assert bool(made.converged.all()) is right


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_feature_gets_the_change(dtype: torch.dtype) -> None:
    """F(x) = F(b): the true map is 0, and known at first sight; likewise where one of many features moves."""
    end = torch.tensor([[1.0, 0.5, 0.25]], dtype=dtype)
    start = torch.tensor([[0.0, 0.5, 0.25]], dtype=dtype)
    made = asked(
        lambda z: z[:, 0] * (1 - z[:, 0]) * z.sum(1), end, baseline=ig.baselines.Given(start[None])
    )
    assert made.cost.gradients <= 11
    assert made.converged.tolist() == [True]
    assert float(made.values.abs().max()) <= 8 * torch.finfo(dtype).eps
    assert float(made.error) == 0


def test_shares_that_cancel_are_not_chased() -> None:
    """F = sin(π(z0 + z1)/2) comes back to 0: the true map is 0, an error relative to it means nothing, and is said not to be met."""
    made = asked(lambda z: torch.sin(torch.pi * z.sum(1) / 2), torch.ones(1, 2).double())
    assert made.cost.gradients <= 300
    assert float(made.values.norm()) <= 1e-3  # of intervals whose shares are √2 long together
    assert made.converged.tolist() == [False] or float(made.error) == 0


# --- looks between the nodes ------------------------------------------------------------------------------------------

WINDOW = honesty.functions()[0]  # on 0.6 … 0.95, where no node of a first look falls


def test_what_acts_between_the_nodes_is_found() -> None:
    found = honesty.asked(WINDOW, 0.05, 20_000)
    assert found.converged
    assert found.true <= found.claimed <= 0.05


def test_looks_are_the_same_in_any_company() -> None:
    x = torch.cat([WINDOW.x * s for s in (1.0, 0.9, 0.5, 0.2)])
    whole = asked(WINDOW.function, x)
    for b in range(len(x)):
        alone = asked(WINDOW.function, x[b : b + 1])
        torch.testing.assert_close(alone.values[0], whole.values[b], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.error[0], whole.error[b], rtol=1e-9, atol=0)
        assert torch.equal(asked(WINDOW.function, x[b : b + 1]).values, alone.values)


def test_what_a_look_costs() -> None:
    """Two gradients on a path whose first look is enough, six where parts multiply each other; none where no interval is long."""
    x = wave(4, 6)
    plain = ig.explain(nn.Linear(6, 1).double(), x, target=0)
    gated = asked(lambda z: z[:, 0] + 1e-3 * z[:, 1] * z[:, 2], x)
    assert plain.cost.gradients == 4 * (5 + 2)
    assert gated.cost.gradients == 4 * (5 + 6)
    pieces = ig.Method(path=ig.paths.Straight(8))(ig.TorchField(nn.Linear(6, 1).double(), 0), x)
    assert pieces.cost.gradients <= 4 * 9


@pytest.mark.parametrize(
    ("function", "gated"),
    [
        (relu_mlp(), False),
        (gelu_mlp(), False),
        (
            nn.Sequential(
                nn.Conv1d(1, 2, 3),
                nn.BatchNorm1d(2).eval(),
                nn.ReLU6(),
                nn.MaxPool1d(2),
                nn.Flatten(),
            ),
            False,
        ),
        (nn.Sequential(nn.Linear(8, 4), nn.Softmax(1)), True),
        (nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4)), True),
        (lambda z: z[:, :3] * torch.sigmoid(z[:, 3:6]), True),
        (lambda z: torch.cos(z), True),
        (lambda z: 2 * z + z / 3, False),
        (lambda z: torch.where(z > 0, z, 2 * z), True),
    ],
)
def test_which_models_can_hide_things(function: Any, gated: bool) -> None:
    shape = (
        (2, 1, 8)
        if isinstance(function, nn.Sequential) and isinstance(function[0], nn.Conv1d)
        else (2, 8)
    )
    field = ig.TorchField(function.double() if isinstance(function, nn.Module) else function, 0)
    assert field.gated  # nobody knows yet
    ig.rules.Chords(2)(field, lines(wave(*shape)))
    assert field.gated is gated


# --- a number is not known ---------------------------------------------------------------------------------------------


class Unknown:
    """A rule with a tolerance that cannot say how wrong it is."""

    tol = 0.05

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> Integrated:
        return Integrated.ensure(ig.rules.Midpoint(50)(field, segment))


def test_an_error_that_is_not_known_meets_no_tolerance() -> None:
    with pytest.warns(ig.errors.IncompleteWarning, match="did not reach their tolerance"):
        made = ig.Method(rule=Unknown())(
            ig.fields.Function(lambda z: z.square().sum(1)), wave(2, 3)
        )
    assert float(made.gap.max()) < 0.1
    assert made.converged.tolist() == [False, False]
    assert unsettled(made, 0)
    assert "not converged" in headline(made, 0)
    fixed = ig.Method(rule=ig.rules.Midpoint(50))(
        ig.fields.Function(lambda z: z.square().sum(1)), wave(2, 3)
    )
    assert fixed.converged.all()
    assert not unsettled(fixed, 0)


def test_an_error_that_is_infinite_is_not_chased() -> None:
    """F is not finite at the baseline: more gradients do not mend that."""
    field = CountedField(
        ig.fields.Function(lambda z: z.sum(1) + torch.where(z[:, 0] == 0, torch.inf, 0.0))
    )
    found = Adaptive(0.05)(field, lines(torch.ones(1, 2).double()))
    assert math.isinf(float(found.error))
    assert field.tally.gradients == 5


# --- suites -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tol", honesty.TOLERANCES)
def test_functions_that_hide(tol: float) -> None:
    """A third of the functions of ``benchmarks.honesty``, every kind among them."""
    found = [honesty.asked(trap, tol, 20_000) for trap in honesty.functions()[1::3]]
    assert len(found) == 29
    assert len({one.kind for one in found}) == 9
    assert not any(math.isnan(one.claimed) for one in found)
    deceived = [one for one in found if one.dishonest(tol)]
    assert len(deceived) <= 2
    assert all(one.part < 0.1 for one in deceived)


@pytest.mark.parametrize("name", list(honesty.FAMILIES))
def test_networks_that_do_not(name: str) -> None:
    found = [one for seed in range(2) for one in honesty.family(name, seed, 4, 0.05, nodes=2000)]
    assert not any(math.isnan(one.claimed) for one in found)
    assert sum(one.dishonest(0.05) for one in found) <= (1 if name == "ReLU 16-16-16-16" else 0)
    assert not any(one.dishonest(0.1) for one in found)


# --- the unit that F is measured in -----------------------------------------------------------------------------------

UNITS: dict[str, dict[str, Any]] = {
    "tolerance": dict(tol=0.01),
    "fixed nodes": dict(rule=ig.rules.Midpoint(8)),
    "expected": dict(method="expected", baseline=wave(40, 10).float()),
    "expected, tolerance": dict(method="expected", baseline=wave(200, 10).float(), tol=0.3),
    "guided": dict(method="guided", steps=8, tol=0.05),
    "ig2": dict(method="ig2", baseline=wave(3, 10).float(), steps=6, tol=0.05),
    "sequential": dict(method=ig.Sequential(ig.methods.integrated())),
    "smoothgrad": dict(method="smoothgrad", draws=6),
}


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.parametrize("unit", [2.0**-100, 2.0**90])
@pytest.mark.parametrize("kind", list(UNITS))
def test_nothing_depends_on_the_unit_of_f(kind: str, unit: float) -> None:
    """A(c F) = c A(F): maps are equal but for rounding, and errors, gaps, verdicts and costs are the same."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    x = wave(3, 10).float()
    plain = ig.explain(net, x, target=1, **UNITS[kind])
    scaled = ig.explain(lambda z: net(z) * unit, x, target=1, **UNITS[kind])
    torch.testing.assert_close(scaled.values / unit, plain.values, rtol=1e-6, atol=0)
    torch.testing.assert_close(scaled.error, plain.error, rtol=1e-4, atol=0, equal_nan=True)
    torch.testing.assert_close(scaled.gap, plain.gap, rtol=1e-4, atol=1e-5)
    assert torch.equal(scaled.converged, plain.converged)
    assert scaled.cost.gradients == plain.cost.gradients
