"""References drawn until their mean is known well enough: when it stops, what it then says, and how often that is so."""

from __future__ import annotations

import dataclasses
import warnings
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import integrand as ig
from integrand.core.segment import polyline
from integrand.model.row_independence import ROWS
from tests.problems import Counting, tanh_mlp, wave
from tests.test_adaptive import gelu_mlp, grown

B, BLOCK = 6, 25
CLASSES = torch.arange(B) % 3
# Of different sizes, so that some maps are known sooner than others.
X = wave(B, 8, phase=0.3) * torch.tensor([0.5, 0.8, 1.0, 1.4, 2.0, 3.0]).double()[:, None]
POOL = wave(90, 8, phase=1.1, scale=0.8)


@cache
def model() -> Counting:
    return Counting(grown(gelu_mlp, 5))


def field() -> ig.TorchField:
    return ig.TorchField(model(), CLASSES)


def drawn(tol: float, **options: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        return ig.explain(
            model(), X, target=CLASSES, method="expected", baseline=POOL, tol=tol, **options
        )


@cache
def exact() -> Tensor:
    """The mean over the whole pool and all positions."""
    return ig.explain(
        model(),
        X,
        target=CLASSES,
        method="expected",
        baseline=POOL,
        rule=ig.rules.GaussLegendre(30),
    ).values


@cache
def shares(draws: int) -> Tensor:
    """The map of every single draw that may be taken, (draws, B, 8): one reference at one position each."""
    references = ig.baselines.Sample(POOL, draws, replace=True)(X, field())
    segment = dataclasses.replace(
        polyline(torch.stack([references, X.expand_as(references)])), reference_block=(0, draws)
    )
    return ig.rules.MonteCarlo(1)(field(), segment).share[0]


def bounded(maps: Tensor) -> tuple[Tensor, float]:
    """The mean of maps (n, 8), and the 95 % bound of its relative error: F(ν, n − 1) tr Σ / n, ν = (tr Σ)² / tr Σ²."""
    n, mean = len(maps), maps.sum(0) / len(maps)
    covariance = torch.cov(maps.T)
    trace = covariance.trace()
    rank = float(trace**2 / covariance.square().sum())
    square = stats.f.ppf(0.95, rank, n - 1) * float(trace / n)
    left = float(mean.square().sum()) - square
    return mean, (square / left) ** 0.5 if left > 0 else float("inf")


def least(made: ig.Attribution, b: int) -> float:
    """No map that misses so much of the change is nearer to the truth."""
    distance = float(made.residual[b].abs()) / 8**0.5
    return distance / (float(made.values[b].square().sum()) - distance**2) ** 0.5


@pytest.mark.parametrize("tol", [0.4, 0.2, 0.1])
def test_it_stops_when_the_bound_allows(tol: float) -> None:
    """Twice in a row, looked at after every block; each example by itself."""
    made, every = drawn(tol), shares(2000)
    for b in range(B):
        n = int((made.weights[:, b] > 0).sum())
        mean, error = bounded(every[:n, b])
        torch.testing.assert_close(made.values[b], mean, rtol=0, atol=1e-12)
        # The quantile is a formula that is up to 2 % above the exact one.
        assert (
            0.999 * max(error, least(made, b))
            <= float(made.error[b])
            <= 1.03 * max(error, least(made, b))
        )
        assert all(bounded(every[:k, b])[1] <= tol for k in (n - BLOCK, n))
        earlier = [bounded(every[:k, b])[1] <= tol / 1.03 for k in range(BLOCK, n, BLOCK)]
        assert not any(one and other for one, other in pairwise(earlier))
    assert bool(made.converged.all())
    assert bool((made.error <= tol).all())


def test_looser_tolerances_stop_earlier() -> None:
    costs = [drawn(tol).cost.gradients for tol in (0.6, 0.3, 0.15)]
    assert costs == sorted(set(costs))
    assert costs[2] > 2 * costs[1]  # four times for half the error, of what is not the least anyway


def test_examples_leave_by_themselves() -> None:
    """Weights are 1/n on the n draws that an example took, and nothing on those that came after it had left."""
    made = drawn(0.08)
    taken = (made.weights > 0).sum(0)
    assert len(set(taken.tolist())) >= 3
    assert int(taken.max()) == len(made.weights)
    for b, n in enumerate(taken.tolist()):
        torch.testing.assert_close(
            made.weights[:n, b], torch.full((n,), 1 / n, dtype=torch.float64), rtol=0, atol=1e-15
        )
        assert not made.weights[n:, b].any()
        assert not made.change[n:, b].any()
    assert made.cost.gradients == int(taken.sum())


def test_batch_equals_singles() -> None:
    made = drawn(0.1)
    for b in range(B):
        own = ig.explain(
            model(),
            X[b : b + 1],
            target=int(CLASSES[b]),
            method="expected",
            baseline=POOL,
            tol=0.1,
            draws=2000,
        )
        torch.testing.assert_close(own.values[0], made.values[b], rtol=0, atol=1e-12)
        torch.testing.assert_close(own.error[0], made.error[b], rtol=1e-9, atol=0)
        torch.testing.assert_close(own.residual[0], made.residual[b], rtol=0, atol=1e-11)
        n = len(own.weights)
        torch.testing.assert_close(own.weights[:, 0], made.weights[:n, b], rtol=0, atol=0)


def test_the_truth_is_within_the_error() -> None:
    """In 95 of 100 cases, against the exact mean over pool and positions; 240 maps of 40 seeds."""
    inside, outside = [], []
    for seed in range(40):
        made = drawn(0.25, seed=seed)
        real = (made.values - exact()).norm(dim=1) / exact().norm(dim=1)
        inside.append(real <= made.error)
        outside.append(real / made.error)
    share = float(torch.stack(inside).double().mean())
    ratio = torch.stack(outside)
    assert ratio.numel() >= 200
    assert share >= 0.95
    # A bound, and not one far above: the error is of the size it says.
    assert 0.3 < float(ratio.square().mean().sqrt()) < 0.8


def test_adds_up_with_its_residual() -> None:
    """Σ values + residual = F(x) − Σ w F(start), the starts being those that were drawn."""
    made = drawn(0.1)
    start = torch.stack([field().value(one.expand_as(X)) for one in made.baselines[:, 0]])
    base = (made.weights * start).sum(0)
    torch.testing.assert_close(
        made.values.sum(1) + made.residual, field().value(X) - base, rtol=0, atol=1e-10
    )
    assert bool(made.residual.abs().gt(1e-6).any())  # random draws leave one
    torch.testing.assert_close(made.output, field().value(X), rtol=0, atol=1e-12)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_shares_are_kept_when_asked_for() -> None:
    """Those of draws that an example took; nothing where it had left, and weights that say so."""
    made, without = drawn(0.1, record=("shares",)), drawn(0.1)
    assert without.shares is None
    assert torch.equal(made.values, without.values)
    assert made.shares.shape == (*made.weights.shape, 8)
    taken = (made.weights > 0).sum(0)
    assert len(set(taken.tolist())) > 1
    for b, n in enumerate(taken.tolist()):
        torch.testing.assert_close(made.shares[:n, b], shares(2000)[:n, b], rtol=0, atol=1e-12)
        assert not made.shares[n:, b].any()
    summed = torch.einsum("rb,rbi->bi", made.weights, made.shares)
    torch.testing.assert_close(summed, made.values, rtol=0, atol=1e-12)


def test_shares_of_a_layer_are_kept() -> None:
    options = dict(
        target=CLASSES[:3],
        method=ig.Layered("1", ig.methods.expected(POOL, tol=0.4, record=("shares",))),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        made = ig.explain(model().inner, X[:3], **options)
    torch.testing.assert_close(
        (made.weights[..., None] * made.shares).sum(0), made.values, rtol=0, atol=1e-12
    )


def test_paths_are_not_kept() -> None:
    for record in (("path",), ("shares", "path")):
        with pytest.raises(
            ig.errors.InputError, match=r"record='path' does not go .* Leave tol out"
        ):
            ig.methods.expected(POOL, tol=0.1, record=record)
    assert ig.methods.expected(POOL, record=("path",)).record == ("path",)


# --- costs ------------------------------------------------------------------------------------------------------------


def test_rows_are_counted_where_they_reach_the_model() -> None:
    model().reset()
    made = drawn(0.1)
    assert model().gradients == made.cost.gradients
    assert model().values == made.cost.values
    # F(x) once each, F at every draw once for all examples that are still there.
    assert made.cost.values <= B + len(made.weights) + ROWS


def test_sharing_starts_stays_right_where_it_cannot_be() -> None:
    """A target that is a function of the outputs is asked of every row."""
    score = lambda outputs: outputs[:, 0] * outputs[:, 1]  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        made = ig.explain(model(), X, target=score, method="expected", baseline=POOL, tol=0.3)
    own = ig.TorchField(model(), score)
    start = torch.stack([own.value(one.expand_as(X)) for one in made.baselines[:, 0]])
    base = (made.weights * start).sum(0)
    torch.testing.assert_close(
        made.values.sum(1) + made.residual, own.value(X) - base, rtol=0, atol=1e-10
    )
    assert made.cost.values >= made.cost.gradients


# --- limits -----------------------------------------------------------------------------------------------------------


def test_draws_run_out() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = ig.explain(
            model(), X, target=CLASSES, method="expected", baseline=POOL, tol=0.01, draws=60
        )
    assert {w.category for w in caught} == {ig.errors.IncompleteWarning}
    assert f"{B} of {B} maps did not reach their tolerance" in str(caught[0].message)
    assert "(95 % bound)" in str(caught[0].message)
    assert "more draws would do (draws= of expected" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert not made.converged.any()
    assert bool((made.error > 0.01).all())
    torch.testing.assert_close(
        made.weights, torch.full((60, B), 1 / 60, dtype=torch.float64), rtol=0, atol=1e-15
    )
    torch.testing.assert_close(made.values, shares(60).mean(0), rtol=0, atol=1e-12)


def test_some_run_out_and_some_do_not() -> None:
    made = drawn(0.25, draws=200)
    assert 0 < int(made.converged.sum()) < B
    assert torch.equal(made.converged, made.error <= 0.25)


@pytest.mark.parametrize("references", [["black", 0.5], (0.0, 1.0), "black"], ids=repr)
def test_a_list_of_baselines_is_not_drawn_from(references: Any) -> None:
    with pytest.raises(
        ig.errors.InputError, match=r"draws references from data.*rule=ig\.rules\.Adaptive"
    ):
        ig.methods.expected(references, tol=0.1)


def test_a_rule_draws_nothing() -> None:
    with pytest.raises(ig.errors.InputError, match=r"give one of them"):
        ig.methods.expected(POOL, rule=ig.rules.Midpoint(3), tol=0.1)
    with pytest.raises(ig.errors.InputError, match=r"give one of them"):
        drawn(0.1, rule=ig.rules.Midpoint(3))


@pytest.mark.parametrize("tol", [0, 1, -0.1, float("nan")])
def test_bad_tolerances(tol: float) -> None:
    with pytest.raises(ig.errors.InputError, match="tol is a relative error"):
        ig.methods.expected(POOL, tol=tol)


def test_bad_blocks() -> None:
    with pytest.raises(ig.errors.InputError, match="at least two references, not 1"):
        ig.integration.UntilTolerance(ig.Method(), 0.1, 1)


# --- as a part --------------------------------------------------------------------------------------------------------


def test_prints_as_typed_and_reads_back() -> None:
    made = ig.integration.UntilTolerance(
        ig.Method(ig.baselines.Constant(0.5), rule=ig.rules.MonteCarlo()), 0.2, 10
    )
    typed = "UntilTolerance(Method(Constant(0.5), rule=MonteCarlo()), 0.2, 10)"
    assert repr(made) == typed
    names = {
        "UntilTolerance": ig.integration.UntilTolerance,
        "Method": ig.Method,
        **vars(ig.rules),
        **vars(ig.baselines),
    }
    assert eval(typed, names) == made
    assert hash(eval(typed, names)) == hash(made)


def test_published_name_and_parts_are_the_same() -> None:
    method = ig.methods.expected(POOL, tol=0.2)
    assert isinstance(method, ig.integration.UntilTolerance)
    parts = ig.integration.UntilTolerance(
        ig.Method(ig.baselines.Sample(POOL, 2000, replace=True), rule=ig.rules.MonteCarlo(1)), 0.2
    )
    assert method == parts
    made = drawn(0.2)
    assert made.method == parts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        assert torch.equal(parts(field(), X).values, made.values)


def test_seeds() -> None:
    one, same, other = drawn(0.2, seed=1), drawn(0.2, seed=1), drawn(0.2, seed=2)
    assert torch.equal(one.values, same.values)
    assert not torch.isclose(one.values, other.values).any()


def test_blocks_are_what_they_say() -> None:
    method = ig.integration.UntilTolerance(
        ig.Method(ig.baselines.Sample(POOL, 64), rule=ig.rules.MonteCarlo(1)), 0.9, 8
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        made = method(field(), X[:1])
    assert len(made.weights) % 8 == 0
    assert 16 <= len(made.weights) < 64


# --- residuals in standard errors -------------------------------------------------------------------------------------


def test_residuals_come_with_their_standard_errors(quiet: None, tmp_path: Path) -> None:
    """What residuals are over seeds, they say of themselves; nothing is said where nothing is random."""
    network, x, references = tanh_mlp(), wave(2, 6), wave(40, 6, phase=4)
    residuals, errors = [], []
    for seed in range(60):
        result = ig.explain(
            network, x, target=1, method="expected", baseline=references, draws=40, seed=seed
        )
        residuals.append(result.residual)
        errors.append(result.residual_error)
    ratio = (
        torch.stack(errors).square().mean(0).sqrt() / torch.stack(residuals).square().mean(0).sqrt()
    )
    assert bool((ratio > 0.9).all()), ratio  # strata make it smaller than single draws tell
    torch.testing.assert_close(
        result.residual_in_errors, result.residual.abs() / result.residual_error
    )
    assert "standard errors)" in repr(result)
    assert "standard errors)" in result._repr_html_()
    columns = result.to_pandas("examples")
    np.testing.assert_array_equal(columns["standard_errors"], result.residual_in_errors)
    result.save(tmp_path / "map.safetensors")
    loaded = ig.load(tmp_path / "map.safetensors")
    assert torch.equal(loaded.residual_error, result.residual_error)
    assert torch.equal(ig.concat([result, result])[3].residual_error, result.residual_error[1:])
    exact = ig.explain(network, x, target=1)
    assert exact.residual_error is None
    assert bool(exact.residual_in_errors.isnan().all())
    assert "standard errors" not in repr(exact)
    one = ig.explain(network, x, target=1, method="expected", baseline=references[:1], draws=1)
    assert bool(one.residual_in_errors.isnan().all())
