"""Relaxed paths: the energy and its slope against autograd, and what must hold of every path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand import testing
from integrand.paths.elastic import _gradients, _middles, _springs, _Terms
from tests.problems import PROBLEMS, tanh_mlp, wave

X = wave(3, 4, phase=0.3)  # B = 3 examples of four features
STARTS = wave(2, 3, 4, phase=2)  # R = 2


def bend(z: Tensor) -> Tensor:
    return (
        torch.exp(0.8 * z @ wave(z.shape[1], phase=0.5).to(z))
        + z[:, 0] * z[:, 1]
        + (3 * z[:, 2]).tanh()
    )


FIELD = ig.fields.Function(bend)


def slope(z: Tensor) -> Tensor:
    """∇F (…, *s), to be differentiated once more."""
    flat = z.reshape(-1, z.shape[-1])
    flat = flat if flat.requires_grad else flat.clone().requires_grad_()
    (g,) = torch.autograd.grad(bend(flat).sum(), flat, create_graph=True)
    return g.reshape(z.shape)


def energy(p: Tensor, start: Tensor, end: Tensor, beta: float) -> Tensor:
    """K Σ‖d‖² + β s Σ ‖d‖ ‖∇F(m)‖ of one path (K+1, *s), s so that on the line both sums are equal."""
    pieces = len(p) - 1
    line = start + torch.linspace(0, 1, pieces + 1, dtype=p.dtype)[:, None] * (end - start)
    middles = (line[1:] + line[:-1]) / 2
    steep = ((end - start).norm() / pieces * slope(middles).norm(dim=1)).sum().detach()
    s = (end - start).square().sum() / steep
    d = p[1:] - p[:-1]
    return (
        pieces * d.square().sum()
        + beta * s * (d.norm(dim=1) * slope((p[1:] + p[:-1]) / 2).norm(dim=1)).sum()
    )


def corners(path: Any, field: Any = FIELD) -> Tensor:
    return ig.paths.corners(path, field, STARTS, X)[1]


def steepness(p: Tensor) -> Tensor:
    """Σ ‖d‖ ‖∇F(m)‖ of paths (K+1, R, B, *s)."""
    middles = (p[1:] + p[:-1]) / 2
    return (p.diff(dim=0).norm(dim=3) * slope(middles).norm(dim=3)).sum(0).detach()


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_the_pull_is_the_slope_of_the_energy(beta: float) -> None:
    """Against double backward, at paths that are bent already; in the springs' metric as the solution of their equations."""
    pieces = 6
    t = torch.linspace(0, 1, pieces + 1, dtype=torch.float64)[:, None, None, None]
    p = torch.lerp(STARTS, X.expand_as(STARTS), t)
    p[1:-1] += wave(pieces - 1, 2, 3, 4, phase=5, scale=0.1)
    line = torch.lerp(STARTS, X.expand_as(STARTS), t)
    scale = (X - STARTS).norm(dim=2)
    unit = _gradients(FIELD, _middles(line)).norm(dim=3).mean(0)
    terms, gradient = _Terms(scale, unit, beta), _gradients(FIELD, _middles(p))
    found, _ = terms.energy(p, gradient)
    pull = terms.pull(FIELD, p, gradient, _springs(pieces - 1))
    matrix = (
        2 * torch.eye(pieces - 1)
        - torch.diag(torch.ones(pieces - 2), 1)
        - torch.diag(torch.ones(pieces - 2), -1)
    )
    for r in range(2):
        for b in range(3):
            free = p[1:-1, r, b].clone().requires_grad_()
            own = energy(torch.cat([p[:1, r, b], free, p[-1:, r, b]]), STARTS[r, b], X[b], beta)
            assert float(own.detach()) / float(scale[r, b]) ** 2 == pytest.approx(
                float(found[r, b]), rel=1e-12
            )
            (expected,) = torch.autograd.grad(own, free)
            sprung = 2 * pieces * matrix.double() @ pull[:, r, b]
            torch.testing.assert_close(
                sprung, expected, rtol=0, atol=1e-3 * float(expected.abs().max())
            )


def test_the_springs() -> None:
    matrix = 2 * torch.eye(5) - torch.diag(torch.ones(4), 1) - torch.diag(torch.ones(4), -1)
    torch.testing.assert_close(
        _springs(5) @ matrix.double(), torch.eye(5).double(), rtol=0, atol=1e-14
    )


def test_the_energy_falls_with_every_iteration() -> None:
    before = None
    for iterations in (1, 2, 4, 8, 16, 32):
        p = corners(ig.paths.ElasticBand(7, 0.8, iterations))
        now = torch.stack(
            [
                energy(p[:, r, b], STARTS[r, b], X[b], 0.8).detach()
                for r in range(2)
                for b in range(3)
            ]
        )
        line = 1.8 * (X - STARTS).square().sum(2).flatten()
        assert bool((now < line).all())
        assert before is None or bool((now <= before + 1e-12).all())
        before = now


def test_it_comes_to_rest() -> None:
    """After enough iterations the energy has no slope left."""
    p = corners(ig.paths.ElasticBand(5, 0.5, 60))
    for r in range(2):
        for b in range(3):
            free = p[1:-1, r, b].clone().requires_grad_()
            own = energy(torch.cat([p[:1, r, b], free, p[-1:, r, b]]), STARTS[r, b], X[b], 0.5)
            (left,) = torch.autograd.grad(own, free)
            assert float(left.norm()) < 1e-4 * float(own.detach())


@pytest.mark.parametrize("beta", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("iterations", [1, 10])
def test_no_longer_than_the_line(beta: float, iterations: int) -> None:
    """In the metric ‖∇F‖ ‖dγ‖, by the same middles; and the path is bent, else this would say nothing."""
    p = corners(ig.paths.ElasticBand(9, beta, iterations))
    line = torch.lerp(
        STARTS,
        X.expand_as(STARTS),
        torch.linspace(0, 1, 11, dtype=torch.float64)[:, None, None, None],
    )
    assert bool((steepness(p) <= steepness(line) + 1e-12).all())
    if iterations > 1:  # one step alone may be too long, and is then taken back
        assert bool((steepness(p) < steepness(line)).all())
        assert bool(((p - line).abs().amax((0, 3)) > 1e-4).all())
    noted = ig.Method(
        ig.baselines.Given(STARTS),
        ig.paths.ElasticBand(9, beta, iterations),
        ig.rules.GaussLegendre(3),
    )
    found = noted(FIELD, X).notes["steepness"]
    assert found.shape == (11, 2, 3)
    torch.testing.assert_close(found[-1], steepness(p), rtol=0, atol=1e-12)
    assert bool((found[0] == 0).all())
    assert bool((found.diff(dim=0) > 0).all())


@pytest.mark.parametrize("name", ["t6", "img", "relu mlp", "dict input"])
def test_without_beta_it_is_integrated_gradients(name: str, quiet: None) -> None:
    p = PROBLEMS[name]
    field, x = p.field(), p.packed()
    start = ig.baselines.Given(p.references)
    one = ig.Method(start, ig.paths.ElasticBand(9, beta=0), ig.rules.Midpoint())(field, x)
    other = ig.Method(start, ig.paths.Straight(10), ig.rules.Midpoint())(field, x)
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=1e-13)
    assert one.cost.gradients == other.cost.gradients


def test_complete() -> None:
    made = ig.methods.relaxed(ig.baselines.Given(STARTS), 9, 1.0, rule=ig.rules.GaussLegendre(6))(
        FIELD, X
    )
    torch.testing.assert_close(made.residual, torch.zeros(3).double(), rtol=0, atol=1e-7)


def test_the_kit() -> None:
    testing.check_path(ig.paths.ElasticBand(4, 0.5, 6), field=FIELD, x=X, references=STARTS)
    field = ig.TorchField(tanh_mlp(4), torch.tensor([0, 2, 1]))
    testing.check_path(ig.paths.ElasticBand(4, 0.5, 6), field=field, x=X, references=STARTS)


def test_nowhere_to_go_and_nothing_to_avoid() -> None:
    starts = STARTS.clone()
    starts[0, 1] = X[1]
    p = ig.paths.corners(ig.paths.ElasticBand(4, 0.5, 5), FIELD, starts, X)[1]
    assert torch.equal(p[:, 0, 1], X[1].expand(6, 4))
    flat = ig.fields.Linear(torch.zeros(4).double())
    line = torch.lerp(
        STARTS,
        X.expand_as(STARTS),
        torch.linspace(0, 1, 6, dtype=torch.float64)[:, None, None, None],
    )
    torch.testing.assert_close(
        corners(ig.paths.ElasticBand(4, 0.5, 5), flat), line, rtol=0, atol=1e-14
    )


def test_a_linear_field_keeps_the_line() -> None:
    """Steep everywhere alike: nothing is gained by a detour."""
    line = torch.lerp(
        STARTS,
        X.expand_as(STARTS),
        torch.linspace(0, 1, 6, dtype=torch.float64)[:, None, None, None],
    )
    found = corners(ig.paths.ElasticBand(4, 0.5, 5), ig.fields.Linear(wave(4)))
    torch.testing.assert_close(found, line, rtol=0, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-3, -1.0, 1e3])
def test_the_scale_of_f_does_not_matter(factor: float) -> None:
    """Nor its sign, but for the side on which the change of the gradient is looked at."""
    one = corners(ig.paths.ElasticBand(4, 0.5, 6))
    other = corners(ig.paths.ElasticBand(4, 0.5, 6), ig.fields.Function(lambda z: factor * bend(z)))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-8 if factor > 0 else 1e-4)


def test_it_goes_round_a_hill() -> None:
    hill = ig.fields.Function(lambda z: 3 * torch.exp(-8 * z.square().sum(1)))
    start, x = (
        torch.tensor([[[-1.0, 0.1]]], dtype=torch.float64),
        torch.tensor([[1.0, 0.1]], dtype=torch.float64),
    )
    p = ig.paths.corners(ig.paths.ElasticBand(15, 3.0, 60), hill, start, x)[1][:, 0, 0]
    assert float(p[:, 1].abs().max()) > 0.3


def test_cost() -> None:
    path = ig.paths.ElasticBand(9, 0.3, 7)
    made = ig.Method(ig.baselines.Given(STARTS), path, ig.rules.Midpoint())(FIELD, X)
    assert made.cost.gradients == 2 * 3 * ((2 * 7 + 1) * 10 + 10)
    assert path.scouted == 150
    assert ig.paths.ElasticBand(beta=0).scouted == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corners": 0}, r"at least one, not 0"),
        ({"iterations": 0}, r"at least one step, not 0"),
        ({"beta": -0.3}, r"0 at least, not -0.3: steep stretches .* sought out"),
        ({"beta": float("nan")}, r"finite number"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.paths.ElasticBand(**options)
