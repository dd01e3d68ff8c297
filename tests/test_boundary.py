"""The nearest boundary found: known distances, which side it is on, what the search costs, and what it says when there is none."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand import testing
from integrand.baselines.base import count_of, label_of
from integrand.model.row_independence import ROWS
from tests.catalogue.attacks import decision
from tests.problems import PROBLEMS, Counting, filled, softplus_cnn, sure, wave

X = 1.5 * wave(4, 6, phase=0.3)


def five(classes: int = 5) -> nn.Sequential:
    return filled(nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, classes)), phase=0.7)


def found(model: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """(B, *s)"""
    field = model if isinstance(model, ig.fields.Field) else ig.TorchField(model, 0)
    return ig.baselines.Boundary(*arguments, **options)(x, field)[0]


def distance(x: Tensor, z: Tensor) -> Tensor:
    return (x - z).flatten(1).norm(dim=1)


# --- where it is ------------------------------------------------------------------------------------------------------


def test_linear_two_classes() -> None:
    """The foot of the perpendicular: |z₀ − z₁| / ‖w₀ − w₁‖ away, to the precision of the bisection."""
    model = filled(nn.Linear(6, 2))
    z = found(model, X)
    way = (model.weight[0] - model.weight[1]).detach()
    lead = (model(X)[:, 0] - model(X)[:, 1]).detach()
    foot = X - (lead / way.square().sum())[:, None] * way
    torch.testing.assert_close(distance(X, z), distance(X, foot), rtol=2**-15, atol=0)
    torch.testing.assert_close(z, foot, rtol=0, atol=1e-4)


def test_linear_many_classes() -> None:
    """The foot of the perpendicular on one of C − 1 planes, not always the nearest of them."""
    model = filled(nn.Linear(6, 4), phase=0.2)
    out, weight = model(X).detach(), model.weight.detach()
    own = out.argmax(1)
    planes = torch.stack(
        [(out[b, own[b]] - out[b]) / (weight[own[b]] - weight).norm(dim=1) for b in range(4)]
    )
    planes = planes.nan_to_num(float("inf"))
    away = distance(X, found(model, X))
    assert float((away[:, None] / planes - 1).abs().amin(1).max()) < 2e-4
    assert bool((away >= planes.amin(1) * (1 - 1e-9)).all())
    assert int((away <= planes.amin(1) * (1 + 2e-4)).sum()) >= 2


@pytest.mark.parametrize("radius", [0.3, 2.0])
def test_a_sphere_from_inside_and_outside(radius: float) -> None:
    """A decision function: whether a point is inside a sphere. The boundary is |‖x‖ − r| away, straight out or in."""
    field = ig.fields.Function(lambda z: z.sum(1))

    class Inside(ig.targets.Target):
        site = staticmethod(lambda z: z)

        def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
            return radius**2 - outputs.square().sum(1)

    x = torch.tensor([[0.5, 0.0, 0.0], [0.6, -0.8, 0.1], [1.0, 1.0, 1.0]]).double()
    z = found(field, x, Inside())
    torch.testing.assert_close(distance(x, z), (x.norm(dim=1) - radius).abs(), rtol=1e-3, atol=0)
    assert bool(((z.norm(dim=1) < radius) != (x.norm(dim=1) < radius)).all())


def test_rounds_draw_nearer_on_curved_boundaries() -> None:
    """Never farther, and in the end on the boundary's normal."""
    model = five(2)
    away = [distance(X, found(model, X, rounds=rounds)) for rounds in (0, 1, 4, 12)]
    for fewer, more in itertools.pairwise(away):
        assert bool((more <= fewer * (1 + 1e-12)).all())
    assert bool((away[2] < away[0]).all())
    z = found(model, X, rounds=40, halvings=30)
    own = model(X).argmax(1)
    lead = ig.TorchField(model, ig.targets.Lead(own))
    normal = lead.gradient(z)
    cosine = torch.nn.functional.cosine_similarity(X - z, normal).abs()
    assert float(cosine.min()) > 0.9999


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_it_is_just_across(problem: str) -> None:
    """The model decides otherwise there, and as for x a thousandth of the way back."""
    p = PROBLEMS[problem]
    field, x = p.field(), p.packed()
    every = torch.arange(5)
    choose = decision(p)
    z = ig.baselines.Boundary(choose, clip=(-9.0, 9.0))(x, field)[0]

    def decided(z: Tensor) -> Tensor:
        outputs = field.looked(z, every)
        return outputs.argmax(1) if choose is None else choose(outputs) >= 0

    assert bool((decided(z) != decided(x)).all())
    assert torch.equal(decided(torch.lerp(z, x, 1e-3)), decided(x))
    assert float(distance(x, z).min()) > 0


def test_restarts_find_what_is_behind() -> None:
    """Two boundaries, at z₀ = 1.5 and at z₁ = −1; the decision falls towards the farther one first."""

    class Two(ig.targets.Target):
        site = staticmethod(lambda z: z)

        def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
            return torch.minimum((1.5 - outputs[:, 0]) / 2, 1 + outputs[:, 1])

    field, x = ig.fields.Function(lambda z: z.sum(1)), torch.zeros(1, 2).double()
    alone = distance(x, found(field, x, Two()))
    assert float(alone) == pytest.approx(1.5, rel=1e-3)
    more = distance(x, found(field, x, Two(), restarts=8))
    assert float(more) == pytest.approx(1.0, rel=1e-3)


def test_images_stay_images() -> None:
    """In the range the field knows of, or the one that is given."""
    n = ig.Normalisation.imagenet()
    x = n.encode(0.5 + 0.5 * wave(3, 3, 8, 8))
    model = sure(softplus_cnn(), torch.zeros(3, 8, 8).double())
    z = found(
        ig.TorchField(model, 0, normalisation=n), x, restarts=4
    )  # a search that is stuck at an edge begins again
    low, high = n.range(x)
    assert bool(((z >= low - 1e-12) & (z <= high + 1e-12)).all())
    x = 0.5 + 0.5 * wave(3, 3, 8, 8)
    z = found(model, x, clip=(0.0, 1.0))
    assert bool(((z >= 0) & (z <= 1)).all())
    assert bool((model(z).argmax(1) != model(x).argmax(1)).all())
    with pytest.raises(
        ig.errors.BaselineError, match=r"3 of 3 examples"
    ):  # no image is of another class for this one
        found(softplus_cnn(), x, clip=(0.0, 1.0))


def test_the_radius_is_kept() -> None:
    model = five()
    away = distance(X, found(model, X))
    radius = float(away.max()) * 1.1
    inside = distance(X, found(model, X, radius=radius, restarts=2))
    assert bool((inside <= radius).all())


# --- when there is none -----------------------------------------------------------------------------------------------


def test_examples_without_a_boundary_are_named() -> None:
    model = five()
    away = distance(X, found(model, X))
    radius = float(away.median())
    far = [b for b in range(4) if float(away[b]) > 1.05 * radius]
    assert 0 < len(far) < 4
    with pytest.raises(ig.errors.BaselineError) as caught:
        found(model, X, radius=radius * 0.999, rounds=0)
    for b in far:
        assert str(b) in str(caught.value).split("(number ")[1].split(")")[0]
    assert "larger radius=" in str(caught.value)


def test_a_model_that_always_decides_alike() -> None:
    model = filled(nn.Linear(6, 3))
    with torch.no_grad():
        model.weight.zero_()
    with pytest.raises(
        ig.errors.BaselineError,
        match=r"No decision boundary .* for 4 of 4 examples \(number 0, 1, 2, 3\) in 5 steps\. Allow",
    ):
        found(model, X, steps=5)


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda: ig.baselines.Boundary(steps=0), "BaselineError", "steps of at least 1, not 0"),
        (lambda: ig.baselines.Boundary(restarts=-1), "BaselineError", "restarts of at least 0"),
        (lambda: ig.baselines.Boundary(halvings=0), "BaselineError", "halvings of at least 1"),
        (lambda: ig.baselines.Boundary(rounds=-1), "BaselineError", "rounds of at least 0"),
        (lambda: ig.baselines.Boundary(radius=0.0), "BaselineError", "radius is the farthest"),
        (lambda: ig.baselines.Boundary(clip=(1.0, 0.0)), "BaselineError", "low below high"),
        (lambda: found(five(1), X), "TargetError", "A decision boundary looks for another class"),
        (lambda: found(ig.fields.Linear(wave(6)), X), "TargetError", "give a decision function"),
        (
            lambda: found(five(), X, ig.targets.Logit(torch.zeros(4).long())),
            "TargetError",
            "holds which for each",
        ),
        (
            lambda: ig.explain(five(), X, target=0, method="boundary", baseline="black"),
            "InputError",
            "chooses for itself",
        ),
    ],
)
def test_refused(attempt: Any, error: str, message: str) -> None:
    with pytest.raises(getattr(ig.errors, error), match=message):
        attempt()


# --- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("restarts", "rounds", "halvings"), [(0, 4, 16), (2, 1, 5), (0, 0, 8)])
def test_what_the_search_costs(restarts: int, rounds: int, halvings: int) -> None:
    """On a linear model every search arrives with its first step: all counts are known."""
    model = Counting(filled(nn.Linear(6, 2)))
    meter = ig.fields.CountedField(ig.TorchField(model, 0))
    ig.baselines.Boundary(restarts=restarts, rounds=rounds, halvings=halvings)(X, meter)
    looks = meter.tally.gradients / 4
    assert 1 + (1 + restarts) * (1 + rounds) <= looks <= 1 + (1 + restarts) * (2 + rounds)
    if not restarts:
        assert looks == 1 + 1 + rounds
    assert meter.tally.values == 4 + 4 * (1 + restarts) * (halvings * (rounds + 1) + 2 * rounds)
    assert (model.gradients, model.values) == (meter.tally.gradients, meter.tally.values)


def test_no_search_costs_more_than_it_says() -> None:
    for restarts in (0, 2):
        meter = ig.fields.CountedField(ig.TorchField(five(), 0))
        ig.baselines.Boundary(restarts=restarts)(X, meter)
        assert meter.tally.gradients <= 4 * (1 + (40 + 4) * (1 + restarts))
        assert meter.tally.values <= 4 + 4 * (1 + restarts) * (16 * 5 + 8)


def test_the_method_asks_for_the_classes_once() -> None:
    """Also where they are known from asking which class is predicted."""
    model = Counting(five())
    method = ig.methods.boundary(rule=ig.rules.GaussLegendre(4))
    made = ig.explain(model, X, target="predicted", method=method)
    searched = 4 * (16 * 5 + 8)
    assert (
        model.values == 4 + searched + 4 + ROWS
    )  # the inputs, the search, F at the baselines, the check
    assert made.cost.gradients == model.gradients


# --- in a method ------------------------------------------------------------------------------------------------------


def test_the_method_is_integrated_gradients_from_there() -> None:
    model = five()
    target = model(X).argmax(1)
    made = ig.explain(
        model, X, target=ig.targets.Lead(target), method="boundary", rule=ig.rules.GaussLegendre(16)
    )
    other = ig.explain(
        model, X, target=ig.targets.Lead(target), baseline=made.baselines[0],
        method="integrated", rule=ig.rules.GaussLegendre(16),
    )  # fmt: skip
    torch.testing.assert_close(made.values, other.values, rtol=0, atol=1e-13)
    # From undecided to decided: the map adds up to the whole lead.
    torch.testing.assert_close(made.base, torch.zeros(4).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(made.values.sum(1), made.output, rtol=0, atol=1e-3)
    assert made.names == ("boundary",)


def test_conformance() -> None:
    field = ig.TorchField(five(), 0)
    testing.check_baseline(ig.baselines.Boundary(restarts=1), X, field=field)
    testing.check_baseline(ig.baselines.Rivals(3), X, field=field)
    testing.check_baseline(ig.baselines.Itself(2), X, field=field)
    assert count_of(ig.baselines.Boundary()) == 1
    assert label_of(ig.baselines.Rivals()) == "rival"


def test_seeds() -> None:
    class Two(ig.targets.Target):
        site = staticmethod(lambda z: z)

        def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
            return 2 - outputs.square().sum(1) + 0.3 * torch.sin(2 * outputs).prod(1)

    field, x = ig.fields.Function(lambda z: z.sum(1)), 0.1 * wave(2, 3)
    ends = {seed: found(field, x, Two(), restarts=1, seed=seed, rounds=0) for seed in range(8)}
    assert torch.equal(ends[3], found(field, x, Two(), restarts=1, seed=3, rounds=0))
    assert len({tuple(end.flatten().tolist()) for end in ends.values()}) > 1
    method = ig.methods.boundary(restarts=1)
    assert ig.explain(five(), X, target=0, method=method, seed=5).method.baseline.seed != 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    made = ig.explain(
        five().to(dtype), X.to(dtype), target=0, method="boundary", rule=ig.rules.GaussLegendre(8)
    )
    assert made.values.dtype == torch.float32
    assert bool(torch.isfinite(made.values).all())
    exact = distance(X, found(five(), X))
    coarse = 1e-2 if dtype == torch.float32 else 0.2
    torch.testing.assert_close(
        distance(made.inputs, made.baselines[0]).double(), exact, rtol=coarse, atol=0
    )
