"""What ``converged`` says: whether the map met its tolerance, whatever its pieces and references did one by one."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.core.segment import Evaluation, polyline
from integrand.core.values import part
from tests.problems import relu_mlp, wave

TOL = 0.05


@part
class Walk:
    """A path through given corners (K+1, n), a segment for each piece, with both of its ends paid for or none."""

    corners: Tensor
    paid: bool = True

    def __call__(self, field: ig.fields.Field, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        whole = polyline(self.corners[:, None, None].expand(-1, *start.shape))
        for k in range(len(whole.start)):
            one = slice(k, k + 1)
            piece = ig.Segment(
                whole.start[one], whole.end[one], (whole.clock[0][one], whole.clock[1][one])
            )
            at = lambda z: Evaluation(field.value(z, 3), field.gradient(z, 3))  # noqa: E731
            known = dict(at_start=at(piece.start), at_end=at(piece.end)) if self.paid else {}
            yield dataclasses.replace(piece, **known)


def made(path: Any, function: Any, x: Tensor, rule: Any) -> tuple[ig.Attribution, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ig.Method(path=path, rule=rule)(ig.fields.Function(function), x)
    return found, [str(w.message) for w in caught]


def test_a_tiny_piece_that_did_not_make_it_is_forgiven() -> None:
    """The second of two steps is a millionth of the map, and all kinks."""
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1e-6]]).double()
    function = lambda z: z[:, 0] + 0.2 * torch.sin(3e7 * z[:, 1]).abs() * z[:, 1]  # noqa: E731
    rule = ig.rules.Adaptive(TOL, max_gradients=5)
    own = ig.rules.Adaptive(TOL, max_gradients=5)(
        ig.fields.Function(function),
        list(Walk(corners)(ig.fields.Function(function), corners[:1, None], corners[-1:]))[1],
    )
    assert float(own.error) > TOL * float(own.share.norm())
    found, said = made(Walk(corners), function, corners[-1:], rule)
    assert float(found.error) < 1e-4
    assert found.converged.tolist() == [True]
    assert said == []


def there_and_back(paid: bool) -> tuple[Any, Any, Tensor]:
    """Far out and nearly home again: each way is known to 5 %, what is left of both is not."""
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.5], [0.02, 0.01]]).double()
    return (
        Walk(corners, paid),
        lambda z: torch.sinh(2 * z[:, 0]) * (1 + z[:, 1]) + z[:, 1],
        corners[-1:],
    )


@pytest.mark.parametrize("paid", [True, False], ids=["steps", "lines"])
def test_pieces_that_cancel_are_not_taken_for_a_map(paid: bool) -> None:
    path, function, x = there_and_back(paid)
    found, said = made(path, function, x, ig.rules.Adaptive(TOL))
    exact, _ = made(path, function, x, ig.rules.Midpoint(4000))
    real = float((found.values - exact.values).norm() / exact.values.norm())
    pieces = list(path(ig.fields.Function(function), torch.zeros(1, *x.shape).double(), x))
    alone = [ig.rules.Adaptive(TOL)(ig.fields.Function(function), piece) for piece in pieces]
    assert all(float(one.error) <= TOL * float(one.share.norm()) for one in alone)
    assert float(found.error) > max(TOL, real)
    assert found.converged.tolist() == [False]
    assert "1 of 1 maps did not reach their tolerance" in said[0]
    fine, _ = made(path, function, x, ig.rules.Adaptive(1e-4))
    assert float(fine.error) < float(found.error)


@pytest.mark.parametrize(
    "method", ["integrated", "expected", "weighted", "ig2", "layer", "conductance"]
)
@pytest.mark.parametrize("most", [5, 30])
def test_converged_is_error_within_tol(method: str, most: int) -> None:
    x, references = wave(5, 6, phase=0.3), wave(3, 6, phase=1.1)
    options: dict[str, Any] = {
        "integrated": {},
        "expected": dict(baseline=references),
        "weighted": dict(baseline=references, fill=0.0),
        "ig2": dict(baseline=references, steps=4, rate=ig.paths.Relative(0.1)),
        "layer": dict(site="1"),
        "conductance": dict(site="1", steps=3),
    }[method]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        found = ig.explain(
            relu_mlp(),
            x,
            target=0,
            method=method,
            rule=ig.rules.Adaptive(0.02, max_gradients=most),
            **options,
        )
    assert torch.equal(found.converged, found.error <= 0.02)


def test_a_rule_of_ones_own_with_a_tolerance() -> None:
    """What it says of each piece is added up; a rule that asks for no tolerance is held against the change of F."""

    @part
    class Guess:
        error: float
        tol: float | None = TOL

        def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> ig.rules.Integrated:
            share = ig.rules.Midpoint(8)(field, segment)
            return dataclasses.replace(
                ig.rules.Integrated.ensure(share),
                error=torch.full(segment.leading, self.error).to(share),
            )

    x = torch.ones(1, 1).double()
    for error, tol, expected in ((0.04, TOL, True), (0.06, TOL, False), (0.06, None, True)):
        found, said = made(ig.paths.Straight(), lambda z: z[:, 0] ** 2, x, Guess(error, tol))
        assert float(found.error) == pytest.approx(error, rel=1e-6)
        assert found.converged.tolist() == [expected]
        assert bool(said) is not expected


def test_references_that_do_not_count_need_not_be_known() -> None:
    """A reference of weight zero whose error nobody estimated."""

    @part
    class Half:
        tol: float = TOL

        def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> ig.rules.Integrated:
            found = ig.rules.Integrated.ensure(ig.rules.Midpoint(8)(field, segment))
            return dataclasses.replace(
                found, error=torch.where(torch.arange(2)[:, None] == 0, 0.01, found.error)
            )

    @part
    class First:
        def __call__(self, shares: Tensor, x: Tensor, field: ig.fields.Field) -> Tensor:
            return torch.tensor([[1.0], [0.0]]).to(shares)

    x, references = torch.ones(1, 1).double(), torch.tensor([[0.0], [0.5]]).double()
    method = ig.Method(ig.baselines.Given(references), rule=Half(), weighting=First())
    found = method(ig.fields.Function(lambda z: z[:, 0] ** 2), x)
    assert float(found.error) == pytest.approx(0.01, rel=1e-6)
    assert found.converged.tolist() == [True]


# --- two stages -------------------------------------------------------------------------------------------------------


@part
class Some:
    """Given weights (R,), for all examples; they are only known when shares are."""

    weights: tuple[float, ...]

    def __call__(self, shares: Tensor, x: Tensor, field: ig.fields.Field) -> Tensor:
        return torch.tensor(self.weights).to(shares)[:, None].expand(shares.shape[:2])


X, REFERENCES = wave(4, 6, phase=0.3), ig.baselines.Given(wave(3, 6, phase=1.1))


def staged(rule: Any, scout: Any) -> ig.Attribution:
    method = ig.Method(REFERENCES, rule=rule, weighting=Some((0.7, 0.0, 0.3)))
    return ig.explain(relu_mlp(), X, target=0, method=ig.TwoStage(method, scout))


@pytest.mark.parametrize("scout", [ig.rules.Midpoint(3), ig.rules.Adaptive(0.5)])
def test_staged_tells_of_its_fine_stage(scout: Any, quiet: None) -> None:
    found = staged(ig.rules.Adaptive(0.01), scout)
    exact = staged(ig.rules.Midpoint(2000), ig.rules.Midpoint(1)).values
    alone = [
        ig.explain(relu_mlp(), X, target=0, baseline=wave(3, 6, phase=1.1)[r], tol=0.01)
        for r in (0, 2)
    ]
    squares = [
        w * one.error * one.values.norm(dim=1) for w, one in zip((0.7, 0.3), alone, strict=True)
    ]
    error = torch.stack(squares).norm(dim=0) / found.values.norm(dim=1)
    torch.testing.assert_close(found.error, error, rtol=1e-6, atol=0)
    assert torch.equal(found.converged, found.error <= 0.01)
    assert bool(((found.values - exact).norm(dim=1) <= found.error * exact.norm(dim=1)).all())


def test_staged_without_an_estimate_takes_none_from_its_scout(quiet: None) -> None:
    found = staged(ig.rules.Midpoint(40), ig.rules.Adaptive(0.3))
    assert bool(found.error.isnan().all())
    assert torch.equal(found.converged, found.gap <= 0.1)
