"""Implicit steps solve z' = z − h u(z'), land on the goal, and never go further away where steps of fixed length oscillate."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import integrand as ig
from tests.problems import PROBLEMS, Counting, wave

FIXED, SHRINKING, IMPLICIT = ig.paths.Fixed(), ig.paths.Shrinking(), ig.paths.Implicit()
WIDE = (-99.0, 99.0)
STEEP = torch.diag(torch.tensor([3.0, 1.0, 0.3])).double() @ torch.linalg.qr(wave(3, 3)).Q


def steep(z: Tensor) -> Tensor:
    """A long narrow valley: squared slopes a hundred times steeper across than along."""
    return z @ STEEP.T


def corners(path: Any, x: Tensor, reference: Tensor) -> Tensor:
    """(K+1, n) from the input to the end of the walk, of one example and one reference."""
    field = ig.fields.Function(lambda z: z.square().sum(1))
    return ig.paths.corners(path, field, reference[None, None], x[None])[1][:, 0, 0].flip(0)


def distances(p: Any, rate: float, step: Any, steps: int = 30) -> Tensor:
    """(K+1, R, B) from the input on."""
    method = ig.Method(
        ig.baselines.Given(p.references),
        ig.paths.Descent(p.representation, steps, rate, WIDE, step=step),
        ig.rules.Right(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        return (
            ig.explain(p.model, p.inputs, target=p.target, method=method).notes["distance"].flip(0)
        )


# --- what a step is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_it_lands_on_the_goal_where_fixed_steps_go_back_and_forth(looks: int) -> None:
    """A reference 2.5 steps away; the published steps are at 0, 1, 2, 3, 2, 3, …"""
    x, reference = torch.zeros(2).double(), torch.tensor([3.0, 4.0]).double()
    path = ig.paths.Descent(lambda z: z, 7, 2.0, WIDE, step=ig.paths.Implicit(looks))
    places = corners(path, x, reference).norm(dim=1) / 2
    assert places.tolist() == pytest.approx([0, 1, 2, 2.5, 2.5, 2.5, 2.5, 2.5], abs=1e-14)
    fixed = (
        corners(ig.paths.Descent(lambda z: z, 7, 2.0, WIDE, step=FIXED), x, reference).norm(dim=1)
        / 2
    )
    assert fixed.tolist() == pytest.approx([0, 1, 2, 3, 2, 3, 2, 3], abs=1e-14)


def backward_euler(z: Tensor, goal: Tensor, h: float) -> Tensor:
    """z' = z − h ∇d(z')/‖∇d(z')‖ for d = ‖Az − c‖², by bisection over the multiplier λ of (AᵀA + λ) z' = Aᵀc + λ z."""
    a = STEEP.T @ STEEP
    low, high = 0.0, 1e6
    solve = lambda m: torch.linalg.solve(a + m * torch.eye(3).double(), a @ goal + m * z)  # noqa: E731
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((solve(middle) - z).norm()) > h else (low, middle)
    return solve(high)


@pytest.mark.parametrize("h", [0.2, 0.7, 1.5])
def test_one_step_is_backward_euler(h: float) -> None:
    """With rounds enough, the equation's solution."""
    x, goal = torch.tensor([1.0, 2.0, -1.0]).double(), torch.tensor([0.2, -0.5, 0.4]).double()
    expected = backward_euler(x, goal, h)
    slope = STEEP.T @ STEEP @ (expected - goal)
    torch.testing.assert_close(
        expected, x - h * slope / slope.norm(), rtol=0, atol=1e-9
    )  # the oracle is one
    path = lambda looks: ig.paths.Descent(steep, 1, h, WIDE, step=ig.paths.Implicit(looks))  # noqa: E731
    gaps = [
        float((corners(path(looks), x, goal)[1] - expected).norm()) for looks in (1, 4, 16, 150)
    ]
    assert gaps[-1] < 1e-3 * h
    assert gaps[-1] <= gaps[1] <= gaps[0]
    explicit = corners(ig.paths.Descent(steep, 1, h, WIDE, step=FIXED), x, goal)[1]
    assert float((explicit - expected).norm()) > 0.02 * h


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("l1", 1), ("sign", float("inf"))])
def test_no_step_is_longer_than_its_length(norm: str, order: float) -> None:
    x, goal = torch.tensor([1.0, 2.0, -1.0]).double(), torch.tensor([0.2, -0.5, 0.4]).double()
    points = corners(ig.paths.Descent(steep, 12, 0.3, WIDE, norm, IMPLICIT), x, goal)
    steps = torch.linalg.vector_norm(points.diff(dim=0), ord=order, dim=1)
    assert float(steps.max()) <= 0.3 + 1e-12
    assert float(steps[0]) == pytest.approx(0.3, rel=1e-9)


def test_the_length_is_halved_only_where_no_round_descends() -> None:
    """A V-shaped valley that one round cannot solve: d = |z₀|² + 1 never vanishes, so every full step overshoots."""
    phi = lambda z: torch.stack([50 * z[:, 0], torch.ones_like(z[:, 0]) * 9 * (z[:, 0] != 0)], 1)  # noqa: E731
    x, goal = torch.tensor([0.4]).double(), torch.tensor([0.0]).double()
    points = corners(ig.paths.Descent(phi, 12, 1.0, WIDE, step=ig.paths.Implicit(1)), x, goal)[:, 0]
    assert bool((points.abs().diff() <= 0).all())
    assert float(points[-1].abs()) < 0.1 * float(points[0])


# --- the walk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["t6", "relu mlp", "softplus cnn", "img"])
@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_the_end_does_not_oscillate(problem: str, rate: float) -> None:
    p = PROBLEMS[problem]
    fixed, implicit = distances(p, rate, FIXED), distances(p, rate, IMPLICIT)
    last = slice(15, None)
    assert bool((fixed[last].diff(dim=0) > 0).any()), (
        "fixed steps should have gone up and down here"
    )
    assert bool((implicit.diff(dim=0) <= 0).all())
    assert float(implicit[-1].median()) < 0.2 * float(fixed[last].mean(0).median())


@pytest.mark.parametrize("looks", [1, 2, 4])
def test_what_it_costs_is_what_it_says(looks: int) -> None:
    p = PROBLEMS["relu mlp"]
    model = Counting(p.model)
    path = ig.paths.Descent("inner.1", 7, 0.2, WIDE, step=ig.paths.Implicit(looks))
    field = ig.TorchField(model, p.target)
    list(path(field, p.references[:, None].expand(-1, 5, -1), p.inputs))
    assert path.gradients == 7 * looks + 1
    assert model.gradients == path.gradients * 3 * 5
    assert path.segments == 7
    assert (
        ig.paths.Descent(steps=7, step=SHRINKING).gradients
        == ig.paths.Descent(steps=7, step=FIXED).gradients
        == 8
    )


def test_maps_are_complete() -> None:
    p = PROBLEMS["softplus cnn"]
    method = ig.methods.ig2(
        p.references, None, 8, 0.3, step=IMPLICIT, rule=ig.rules.GaussLegendre(8)
    )
    made = ig.explain(p.model, p.inputs, target=p.target, method=method)
    assert float(made.change.abs().min()) > 1e-3
    torch.testing.assert_close(made.residual, torch.zeros(5).double(), rtol=0, atol=1e-9)


def test_ends_that_were_paid_for_are_used() -> None:
    """The published rule asks for nothing on top of the walk's own looks."""
    p = PROBLEMS["relu mlp"]
    method = ig.methods.ig2(p.references, None, 5, 0.1, step=ig.paths.Implicit(2))
    assert method.rule == ig.rules.Right()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        assert (
            ig.explain(p.model, p.inputs, target=p.target, method=method).cost.gradients
            == (5 * 2 + 1) * 3 * 5
        )


def test_no_looks() -> None:
    with pytest.raises(ig.errors.InputError, match=r"at least one look, not 0"):
        ig.paths.Implicit(0)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0.01, 3.0),
    st.integers(1, 4),
    st.sampled_from(["l2", "l1", "sign"]),
)
def test_it_never_goes_further_away_nor_leaves_the_box(
    seed: int, rate: float, looks: int, norm: str
) -> None:
    phase = seed / 1e3
    turn = wave(4, 4, phase=phase)
    phi = lambda z: torch.sin(z @ turn) + 0.3 * z  # noqa: E731
    x, reference = wave(3, 4, phase=phase + 1), wave(2, 3, 4, phase=phase + 2)
    path = ig.paths.Descent(phi, 6, rate, (-1.0, 1.0), norm, ig.paths.Implicit(looks))
    segments = list(path(ig.fields.Function(lambda z: z.square().sum(1)), reference, x))
    for segment in segments:
        lower, upper = segment.notes["distance"]
        assert bool((lower <= upper).all())
        assert bool((segment.start.abs() <= 1).all())
