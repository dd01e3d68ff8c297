"""Where two methods are one: identities between published methods that need no reference values, on models of every kind.

Each is also a test that can fail for either side: paths, rules, weights and clocks have to agree to the last few digits.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.catalogue.geometric_paths import points
from tests.problems import PROBLEMS, Problem, wave
from tests.test_methods import AXIOMATIC, CHECKS, CLAIMED, POINTS, STARTS, f

MODELS = pytest.mark.parametrize(
    "problem", ["t6", "img", "relu mlp", "softplus cnn", "extra arguments"]
)
PICTURES = pytest.mark.parametrize("problem", ["img", "softplus cnn"])


def values(p: Problem, method: Any) -> Tensor:
    found: Tensor = explained(p, method).values
    return found


def explained(p: Problem, method: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(p.model, p.inputs, target=p.target, extra=p.extra, method=method)


def near(one: Tensor, other: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(
        one, other, rtol=0, atol=tolerance * max(1.0, float(other.abs().max()))
    )


def start(p: Problem) -> ig.baselines.Given:
    return ig.baselines.Given(p.references)


# --- paths that come down to the straight line ------------------------------------------------------------------------


@MODELS
@pytest.mark.parametrize("steps", [1, 7])
def test_guided_without_stray_is_integrated_gradients_by_left_ends(
    problem: str, steps: int
) -> None:
    p = PROBLEMS[problem]
    plain = values(p, ig.methods.integrated(start(p), ig.rules.Left(steps)))
    near(values(p, ig.methods.guided(start(p), steps, stray=0.0, rule=ig.rules.Left())), plain)
    if steps > 1:
        assert (
            float((values(p, ig.methods.guided(start(p), steps, stray=0.4)) - plain).abs().max())
            > 1e-3
        )


@PICTURES
@pytest.mark.parametrize(
    "basis",
    [ig.paths.SVD(), ig.paths.SVD(joint=True), ig.paths.DCT(), ig.paths.Haar(), ig.paths.Pyramid()],
)
def test_spectral_with_all_overlap_is_integrated_gradients(problem: str, basis: Any) -> None:
    p, rule = PROBLEMS[problem], ig.rules.Midpoint(2)
    plain = values(p, ig.methods.integrated(start(p), rule, ig.paths.Straight(5)))
    near(values(p, ig.methods.spectral(start(p), 5, 1.0, basis=basis, rule=rule)), plain)
    assert (
        float(
            (values(p, ig.methods.spectral(start(p), 5, 0.3, basis=basis, rule=rule)) - plain)
            .abs()
            .max()
        )
        > 1e-3
    )


@MODELS
def test_a_graph_of_all_neighbours_and_plain_lengths_is_the_straight_line(problem: str) -> None:
    p, rule = PROBLEMS[problem], ig.rules.GaussLegendre(5)
    path = ig.paths.Geodesic(points(p), 99, distance="euclidean")
    plain = values(p, ig.methods.integrated(start(p), rule))
    near(values(p, ig.Method(start(p), path, rule)), plain)
    few = ig.paths.Geodesic(points(p), 2, distance="euclidean")
    assert float((values(p, ig.Method(start(p), few, rule)) - plain).abs().max()) > 1e-6


@MODELS
def test_a_relaxed_path_to_which_steepness_is_nothing_is_the_straight_line(problem: str) -> None:
    p, rule = PROBLEMS[problem], ig.rules.GaussLegendre(5)
    plain = values(p, ig.methods.integrated(start(p), rule, ig.paths.Straight(6)))
    near(values(p, ig.methods.relaxed(start(p), 5, 0.0, 4, rule=rule)), plain)
    assert (
        float((values(p, ig.methods.relaxed(start(p), 5, 0.5, 4, rule=rule)) - plain).abs().max())
        > 1e-6
    )


@MODELS
@pytest.mark.parametrize("steps", [5, 20])
def test_a_guided_latent_path_through_nothing_is_guided_without_bounds_but_for_the_last_step(
    problem: str, steps: int
) -> None:
    """An encoder and a decoder that change nothing: the same corners, from where the last two steps are taken at once."""
    p = PROBLEMS[problem]
    field, x = p.field(), p.packed()
    begin = p.references[:, None].expand(-1, *x.shape)
    codec = (lambda z: z.flatten(1), lambda z: z.reshape(-1, *x.shape[1:]))
    latent = ig.paths.LatentGuided(codec, steps, 0.25, slerp=False, ends=1)
    _, ours = ig.paths.corners(latent, field, begin, x)
    _, theirs = ig.paths.corners(ig.paths.Guided(steps, 0.25, stray=1.0), field, begin, x)
    assert len(ours) == steps == len(theirs) - 1
    near(ours[:-1], theirs[:-2])
    assert torch.equal(ours[-1], theirs[-1])


# --- weights and orders -----------------------------------------------------------------------------------------------


@MODELS
@pytest.mark.parametrize("steps", [1, 8])
def test_a_path_weight_of_one_is_integrated_gradients_by_trapezoids(
    problem: str, steps: int
) -> None:
    p = PROBLEMS[problem]
    plain = values(p, ig.methods.integrated(start(p), ig.rules.Trapezoid(steps)))
    near(values(p, ig.methods.path_weighted(start(p), torch.ones_like, steps)), plain)
    near(values(p, ig.methods.path_weighted(start(p), lambda a: 3.0 + 0 * a, steps)), plain)
    assert (
        float(
            (values(p, ig.methods.path_weighted(start(p), "linear_late", steps)) - plain)
            .abs()
            .max()
        )
        > 1e-3
    )


@pytest.mark.parametrize("problem", ["t6", "relu mlp", "img"])
def test_greedy_in_one_round_is_the_order_of_integrated_gradients(problem: str) -> None:
    p, rule = PROBLEMS[problem], ig.rules.GaussLegendre(6)
    made = explained(p, ig.methods.greedy_pig(chunk=p.features, baseline=start(p), rule=rule))
    plain = values(p, ig.methods.integrated(start(p), rule))
    by_feature = plain.flatten(2).sum(1) if plain.ndim == 4 else plain
    assert torch.equal(
        made.notes["order"][0, 0], by_feature.argsort(dim=1, descending=True, stable=True)
    )
    step = explained(p, ig.methods.greedy_pig(chunk=1, baseline=start(p), rule=rule))
    assert not torch.equal(step.notes["order"], made.notes["order"])


# --- what maps add up to ----------------------------------------------------------------------------------------------


def on_the_line(p: Problem, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss–Legendre weights, F and dF/dα (count, R, B) on the straight lines from the references."""
    nodes, weights = ig.rules.GaussLegendre(count).table()
    x = p.packed()
    begin = p.references[:, None].expand(-1, *x.shape)
    line = torch.stack([torch.lerp(begin, x, t) for t in nodes])
    slope = (p.field().gradient(line, 3) * (x - begin)).flatten(3).sum(3)
    return torch.tensor(weights, dtype=torch.float64), p.field().value(line, 3), slope


SMOOTH = pytest.mark.parametrize("problem", ["t6", "img", "softplus cnn", "extra arguments"])


@SMOOTH
def test_path_sampled_adds_up_to_what_x_is_above_the_mean_of_its_path(problem: str) -> None:
    """Σ = F(x) − ∫ F(γ(t)) dt."""
    p = PROBLEMS[problem]
    weights, height, _ = on_the_line(p, 40)
    made = explained(p, ig.methods.path_sampled(start(p), steps=40))
    near(
        made.values.flatten(1).sum(1),
        made.output - torch.einsum("q,qrb->rb", weights, height).mean(0),
        1e-10,
    )


@SMOOTH
def test_decision_gradients_add_up_to_the_squared_slope(problem: str) -> None:
    """Σ = ∫ (dF/dα)² dα, above (ΔF)²; the rule converges like 1/steps²."""
    p = PROBLEMS[problem]
    weights, _, slope = on_the_line(p, 40)
    squared = torch.einsum("q,qrb->rb", weights, slope.square()).mean(0)
    off = [
        (values(p, ig.methods.decision(start(p), steps, 30)).flatten(1).sum(1) - squared)
        .abs()
        .max()
        for steps in (60, 240)
    ]
    assert float(off[1]) < 2e-4 * float(squared.max())
    assert float(off[1]) < float(off[0]) / 8
    change = torch.einsum("q,qrb->rb", weights, slope)
    assert bool((squared > change.square().mean(0)).all())


@MODELS
@pytest.mark.parametrize("factor", [-1.0, 3.0, 0.01])
def test_decision_gradients_are_quadratic(problem: str, factor: float) -> None:
    """IDG(cF) = c² IDG(F)."""
    p, method = PROBLEMS[problem], ig.methods.decision(start(PROBLEMS[problem]), 9, 7)
    scaled = ig.explain(
        lambda *inputs, **extra: factor * p.model(*inputs, **extra),
        p.inputs,
        target=p.target,
        extra=p.extra,
        method=method,
    )
    near(scaled.values / factor**2, values(p, method), 1e-10)


@pytest.mark.parametrize("problem", [name for name in PROBLEMS if PROBLEMS[name].smooth])
@pytest.mark.parametrize(
    "path",
    [ig.paths.Straight(), ig.paths.Straight(3), ig.paths.Guided(4), ig.paths.NonUniform(4, 4)],
)
def test_important_directions_add_up_exactly(problem: str, path: Any) -> None:
    """However few steps: the change of F telescopes."""
    p = PROBLEMS[problem]
    made = explained(p, ig.Method(start(p), path, ig.rules.IDGI()))
    near(made.residual, torch.zeros_like(made.residual))


# --- dummies ----------------------------------------------------------------------------------------------------------

NOT_DUMMY = {
    "pattern_guided": "its backward pass goes through patterns of the data, not through F",
    "artificial_distancing": "its support regressors are trained, and see every feature",
    "greedy_pig": "its values are ranks, and every feature has one",
    "xrai": "its values are those of regions, and a region may hold a dummy",
}


def test_a_dummy_gets_nothing_but_where_it_is_said() -> None:
    """Every published method either says that features which F does not look at get exactly 0, and is held to it, or is one of these."""
    names = set(ig.methods.known())
    assert {name for name in names if not ig.methods.about(name).axioms["dummy"]} == set(NOT_DUMMY)
    held = {name for name, axiom in CLAIMED if axiom == "dummy"}
    elsewhere = {
        "layer",  # theirs is a layer's unit: tests/test_layers.py, test_neurons.py
        "conductance",
        "region_neurons",
        "gaussian_process",  # of processes: tests/test_gaussian_process.py
    }
    assert held == names - set(NOT_DUMMY) - elsewhere


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_greedys_rounds_give_a_dummy_nothing() -> None:
    made = ig.methods.greedy_pig(
        chunk=1, baseline=ig.baselines.Given(STARTS[:1]), rule=ig.rules.GaussLegendre(8)
    )(ig.fields.Function(f), POINTS)
    assert bool((made.notes["rounds"][:, 0, :, 3] == 0).all())
    assert bool((made.values[:, 3] > 0).all())  # but its rank is one
    with pytest.raises(AssertionError):
        CHECKS["dummy"](AXIOMATIC["greedy_pig"])


def test_a_dummy_is_one_for_any_amount_of_it() -> None:
    """Whatever a feature that is not looked at is, it changes no other feature's share on the straight line."""
    field = ig.fields.Function(f)
    method = ig.methods.integrated(ig.baselines.Given(STARTS[:1]), ig.rules.GaussLegendre(8))
    other = POINTS.clone()
    other[:, 3] = wave(2, phase=1.0)
    near(method(field, other).values, method(field, POINTS).values)
