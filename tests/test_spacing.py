"""Clocks: steps of equal change, of least error, and what holds of every clock."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import integrand as ig
from integrand.fields.line_scan import EVEN, bend, equal_change, midpoints, pilot, quantiles
from tests.problems import wave


def least_error(
    values: torch.Tensor, steps: int, order: int = 1, even: float = EVEN
) -> torch.Tensor:
    """The clock whose steps bound the error of a rule of ``order`` best, as ``ig.paths.NonUniform`` places them."""
    return quantiles(bend(values, order), steps, even)


def interpolated(values: list[float], t: float) -> float:
    """The pilot's values, joined by straight lines, at t."""
    cells = len(values) - 1
    j = min(int(t * cells), cells - 1)
    return values[j] + (t * cells - j) * (values[j + 1] - values[j])


def variation(values: list[float], begin: float, end: float) -> float:
    """What the joined values change by between two positions, up and down counted alike."""
    cells = len(values) - 1
    stops = [begin, *(j / cells for j in range(cells + 1) if begin < j / cells < end), end]
    at = [interpolated(values, t) for t in stops]
    return sum(abs(b - a) for a, b in itertools.pairwise(at))


@pytest.mark.parametrize("steps", [1, 3, 10, 64])
def test_every_step_carries_the_same_change(steps: int) -> None:
    values = wave(12, 2, 3, phase=1).cumsum(0)
    clock = equal_change(values, steps, even=0)
    assert clock.shape == (steps + 1, 2, 3)
    for r in range(2):
        for b in range(3):
            own = values[:, r, b].tolist()
            whole = variation(own, 0, 1)
            for k in range(steps):
                part = variation(own, float(clock[k, r, b]), float(clock[k + 1, r, b]))
                assert part == pytest.approx(whole / steps, rel=1e-9)


def test_a_decision_in_the_middle_draws_the_steps() -> None:
    """The published sampler of IDG puts all of them in front of it."""
    t = torch.linspace(0, 1, 51, dtype=torch.float64)
    clock = equal_change((200 * (t - 0.7)).sigmoid(), 50)
    assert int(((clock > 0.67) & (clock < 0.73)).sum()) >= 40
    # A tenth of the steps is spread over the rest.
    assert float(clock.diff().max()) <= 1 / (0.1 * 50) + 1e-12


def test_even_parts() -> None:
    values = (50 * (torch.linspace(0, 1, 21, dtype=torch.float64) - 0.5)).sigmoid()
    even = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(equal_change(values, 10, even=1), even, rtol=0, atol=1e-15)
    for part in (0.05, 0.2, 0.5):
        assert float(equal_change(values, 10, even=part).diff().max()) <= 1 / (part * 10) + 1e-12


@pytest.mark.parametrize("values", [torch.zeros(6), torch.full((6,), 3.0)])
def test_no_change_is_an_even_clock(values: Tensor) -> None:
    torch.testing.assert_close(
        equal_change(values.double(), 4),
        torch.linspace(0, 1, 5, dtype=torch.float64),
        rtol=0,
        atol=1e-15,
    )


def test_scale_sign_and_offset_do_not_matter() -> None:
    values = wave(9, 4).cumsum(0)
    for other in (3.7 * values, -values, values + 5):
        torch.testing.assert_close(
            equal_change(other, 7), equal_change(values, 7), rtol=0, atol=1e-12
        )


def test_flat_cells_get_no_step_of_their_own() -> None:
    """With even=0 the change decides alone: the step that crosses the flat part is the only one there."""
    clock = equal_change(torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0], dtype=torch.float64), 5, even=0)
    assert clock.tolist() == pytest.approx([0, 0.1, 0.2, 0.8, 0.9, 1], abs=1e-14)


@settings(max_examples=60, deadline=None)
@given(
    cells=st.integers(1, 9),
    rows=st.integers(1, 4),
    steps=st.integers(1, 40),
    even=st.sampled_from([0.0, 0.1, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    numbers=st.lists(st.floats(-1e6, 1e6, width=32), min_size=40, max_size=40),
)
def test_clocks_tile_the_line(
    cells: int, rows: int, steps: int, even: float, dtype: torch.dtype, numbers: list[float]
) -> None:
    values = torch.tensor(numbers[: (cells + 1) * rows], dtype=dtype).reshape(cells + 1, rows)
    clock = equal_change(values, steps, even)
    assert clock.dtype == dtype
    assert clock.shape == (steps + 1, rows)
    assert bool((clock[0] == 0).all())
    assert bool((clock[-1] == 1).all())
    assert bool((clock.diff(dim=0) >= 0).all())
    nodes, weights = midpoints(clock)
    torch.testing.assert_close(weights.sum(0), torch.ones(rows, dtype=dtype))
    assert bool(((nodes >= clock[:-1]) & (nodes <= clock[1:])).all())
    for row in range(rows):  # nobody's clock depends on its neighbours
        assert torch.equal(equal_change(values[:, row], steps, even), clock[:, row])


@pytest.mark.parametrize(("order", "power"), [(1, 1 / 2), (2, 1 / 3)])
def test_least_error_is_the_closed_form(order: int, power: float) -> None:
    """F = exp(6t): h ∝ exp(−6t · power), so the clock is a logarithm."""
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    clock = least_error((6 * t).exp(), 8, order, even=0)
    q = torch.linspace(0, 1, 9, dtype=torch.float64)
    rate = 6 * power
    expected = (1 + q * (torch.tensor(rate).double().exp() - 1)).log() / rate
    torch.testing.assert_close(clock, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("order", "place"), [(1, 0.0), (2, 0.5)])
def test_least_error_is_less_than_that_of_other_steps(order: int, place: float) -> None:
    """Σ_k |∫ dF/dt over step k − h_k · dF/dt at its node|, which the placement bounds, with 20 steps of each kind."""
    f = lambda t: (25 * (t - 0.6)).tanh() + t**3  # noqa: E731
    slope = lambda t: 25 * (1 - (25 * (t - 0.6)).tanh().square()) + 3 * t**2  # noqa: E731
    pilot = f(torch.linspace(0, 1, 201, dtype=torch.float64))

    def error(clock: Tensor) -> float:
        nodes, lengths = clock[:-1] + place * clock.diff(), clock.diff()
        return float((slope(nodes) * lengths - f(clock).diff()).abs().sum())

    best = error(least_error(pilot, 20, order))
    assert best < 0.5 * error(torch.linspace(0, 1, 21, dtype=torch.float64))
    assert best < error(equal_change(pilot, 20))
    assert best < error(least_error(pilot, 20, 3 - order))


def test_the_pilot_is_the_field_on_the_line() -> None:
    field = ig.TorchField(lambda z: (z @ wave(4, 3)).sin(), torch.tensor([0, 2]), batch_size=3)
    start, end = wave(3, 2, 4, phase=1), wave(2, 4, phase=2)
    with field.ready():
        values = pilot(field, start, end.expand_as(start), 5)
    assert values.shape == (6, 3, 2)
    for j in range(6):
        for r in range(3):
            expected = field.value(start[r] + j / 5 * (end - start[r]))
            torch.testing.assert_close(values[j, r], expected, rtol=0, atol=1e-14)


def test_what_is_refused() -> None:
    values = torch.arange(4.0)
    with pytest.raises(ig.errors.InputError, match=r"at least one step, not 0"):
        equal_change(values, 0)
    with pytest.raises(ig.errors.InputError, match=r"from 0 to 1, not 1.5"):
        equal_change(values, 3, even=1.5)
    with pytest.raises(ig.errors.InputError, match=r"NaN, infinity or negative"):
        equal_change(torch.tensor([0.0, float("nan")]), 3)
    with pytest.raises(ig.errors.InputError, match=r"NaN, infinity or negative"):
        quantiles(torch.tensor([1.0, -1.0]), 3)
    with pytest.raises(
        ig.errors.InputError, match=r"order 2 needs F at 4 positions at least, not at 3"
    ):
        least_error(values[:3], 3, order=2)
    with pytest.raises(ig.errors.InputError, match=r"at least 1, not 0"):
        least_error(values, 3, order=0)
    with pytest.raises(ig.errors.InputError, match=r"at least one cell, not 0"):
        pilot(ig.fields.Linear(torch.ones(2)), torch.zeros(1, 1, 2), torch.ones(1, 1, 2), 0)
