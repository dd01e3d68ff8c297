"""Parts print as they were typed, read back from what they print, equal their like, and do not change."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.core.shapes import describe, over, state_dtype, total
from integrand.core.values import part
from tests.problems import wave

SPACES = (ig.paths, ig.rules, ig.targets, ig.weightings, ig.baselines)

TYPED = [
    (ig.Method(), "Method()"),
    (ig.methods.integrated(rule=ig.rules.GaussLegendre(3)), "Method(rule=GaussLegendre(3))"),
    (
        ig.methods.integrated("black", path=ig.paths.Straight(7)),
        "Method(Colour(label='black'), Straight(7))",
    ),
    (ig.rules.MonteCarlo(), "MonteCarlo()"),
    (ig.rules.MonteCarlo(1, seed=4), "MonteCarlo(seed=4)"),
    (ig.rules.MonteCarlo(3, 4), "MonteCarlo(3, 4)"),
    (ig.rules.Trapezoid(9), "Trapezoid(9)"),
    (ig.baselines.grey(0.25), "Colour((0.25,), 'grey')"),
    (ig.baselines.Gaussian(0.5, "input"), "Gaussian(0.5, 'input')"),
    (
        ig.baselines.Union((ig.baselines.Constant(1.0), ig.baselines.Uniform(0.0, 1.0, seed=2))),
        "Union((Constant(1.0), Uniform(0.0, 1.0, seed=2)))",
    ),
    (
        ig.paths.Descent("fc", 5, 0.1, (0.0, 1.0), step=ig.paths.Fixed()),
        "Descent('fc', 5, 0.1, (0.0, 1.0), step=Fixed())",
    ),
    (ig.paths.Descent(rate=ig.paths.Relative(0.01)), "Descent(rate=Relative(0.01))"),
    (ig.rules.PathWeighted("sqrt", mass=None), "PathWeighted('sqrt', mass=None)"),
    (ig.rules.SaturationCutoff(0.5, ig.rules.Left(2)), "SaturationCutoff(0.5, Left(2))"),
    (ig.methods.left(0.0, 0.5), "Method(rule=SaturationCutoff(Saturation(0.5)))"),
    (ig.targets.Margin(1, 2), "Margin(1, 2)"),
    (ig.targets.Logit((0, -1)), "Logit((0, -1))"),
    (
        ig.weightings.Fitness(ig.baselines.Corners(), keep=0.25, features="pixels"),
        "Fitness(Corners(), keep=0.25, features='pixels')",
    ),
    (
        ig.weightings.Areas([ig.baselines.Corners(), ig.baselines.Blurred()], 0.2),
        "Areas((Corners(), Blurred()), 0.2)",
    ),
    (
        ig.methods.weighted(["black", 0.5], keep=0.25, scout=2),
        "TwoStage(Method(Union((Colour(label='black'), Constant(0.5))), "
        "weighting=Fitness(ByKind(Corners()), keep=0.25), record=('shares',)), GaussLegendre(2))",
    ),
]


@pytest.mark.parametrize(("value", "typed"), TYPED, ids=[typed[:40] for _, typed in TYPED])
def test_prints_as_typed_and_reads_back(value: Any, typed: str) -> None:
    assert repr(value) == typed
    names = {"Method": ig.Method, "TwoStage": ig.TwoStage}
    for space in SPACES:  # weightings.Uniform gives way to baselines.Uniform
        names |= vars(space)
    read = eval(typed, names)
    assert read == value
    assert hash(read) == hash(value)


def test_tensors_print_as_shapes() -> None:
    assert repr(ig.baselines.Given(wave(2, 3, 4))) == "Given(tensor<2x3x4>)"
    assert repr(ig.targets.Logit(torch.tensor([1, 2, 3]))) == "Logit(tensor<3>)"
    assert repr(ig.baselines.Sample([1, 2, 3], 2)) == "Sample([1, 2, 3], 2)"
    assert (
        repr(ig.baselines.Sample(torch.utils.data.TensorDataset(wave(4)), 2))
        == "Sample(TensorDataset<4>, 2)"
    )
    assert repr(ig.targets.Custom(describe)) == "Custom(describe)"


def every_part() -> list[type]:
    spaces: list[ModuleType] = [*SPACES, ig]
    found = {
        c
        for space in spaces
        for c in vars(space).values()
        if inspect.isclass(c) and "_typed" in repr(c.__repr__)
    }
    return sorted(
        (c for c in found if not c.__name__.startswith("_")),
        key=lambda c: (c.__module__, c.__name__),
    )


def test_the_parts_are_found() -> None:
    assert {
        ig.Method,
        ig.paths.Straight,
        ig.rules.Left,
        ig.targets.Loss,
        ig.weightings.Fitness,
        ig.baselines.Mean,
    } <= set(every_part())


@pytest.mark.parametrize("cls", every_part(), ids=lambda c: c.__name__)
def test_parts_are_frozen(cls: type) -> None:
    arguments = {
        "Union": ((ig.baselines.Constant(),),),
        "PerInput": ((ig.baselines.Constant(),),),
        "TwoStage": (ig.Method(), ig.rules.Left()),
        "UntilTolerance": (ig.Method(),),
        "GreedyPIG": (ig.Method(),),
        "SmoothGrad": (ig.Method(),),
        "XRAI": (ig.Method(),),
        "Sequential": (ig.Method(),),
        "ArtificialDistancing": (ig.Method(), wave(10, 3), (0, 1)),
        "Layered": ("0", ig.Method()),
        **dict.fromkeys(("Composed", "Reversed"), (ig.paths.Straight(30),)),
        "Backward": (ig.fields.GuidedReLU(), ig.Method()),
        "Margin": (0, 1),
        "Unit": ("0", 1),
        **dict.fromkeys(("PredictedSide", "SideProbability"), (torch.tensor([1, -1]),)),
        "WithCovariance": (ig.Method(),),
        "AlongShortestPaths": (torch.tensor([[0], [1]]), 0),
        "Fitness": (ig.baselines.Mean(),),
        "Areas": ([ig.baselines.Mean()],),
        **dict.fromkeys(("Latent", "LatentGeodesic", "LatentGuided"), ((abs, abs),)),
        "Geodesic": (wave(4, 3),),
        "Discretized": (wave(4, 3),),
        "Scheduled": ((0.0, 1.0),),
    }
    needed = [
        f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING
    ]
    value = cls(*arguments.get(cls.__name__, (0,) * len(needed)))
    name = dataclasses.fields(cls)[0].name if dataclasses.fields(cls) else "anything"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)
    assert value == value
    assert value != object()


def test_equality_looks_into_tensors() -> None:
    given = ig.baselines.Given(wave(2, 3))
    assert given == ig.baselines.Given(wave(2, 3))
    assert given != ig.baselines.Given(wave(2, 3) + 1e-12)
    assert given != ig.baselines.Given(wave(2, 3).float())
    assert given != ig.baselines.Given(wave(3, 2))
    assert ig.baselines.Constant(0.0) != ig.baselines.Constant(torch.tensor(0.0))
    assert ig.rules.Left(3) != ig.rules.Right(3)
    assert ig.methods.weighted(wave(2, 3)) == ig.methods.weighted(wave(2, 3))


def test_tuples_of_tensors() -> None:
    @part
    class Several:
        parts: tuple[torch.Tensor, ...]

    assert repr(Several((wave(2), wave(3, 4)))) == "Several((tensor<2>, tensor<3x4>))"
    assert (
        Several((wave(2), wave(3)))
        == Several((wave(2), wave(3)))
        != Several((wave(2), wave(3) + 1))
    )


def test_a_part_of_ones_own() -> None:
    @part
    class Own:
        first: int
        second: tuple[float, ...] = (1.0,)

        def __repr__(self) -> str:
            return "mine"

    assert repr(Own(1)) == "mine"
    assert Own(1) == Own(1, (1.0,)) != Own(1, (2.0,))
    assert len({Own(1), Own(1)}) == 1


def test_shape_helpers() -> None:
    assert describe((3, 224, 224)) == "3x224x224"
    assert describe(()) == "()"
    assert over(wave(2, 3), wave(2, 3, 4, 5)).shape == (2, 3, 1, 1)
    assert total(wave(2, 3, 4), 1).tolist() == pytest.approx(
        wave(2, 3, 4).sum((1, 2)).tolist(), abs=1e-14
    )
    assert torch.equal(total(wave(2, 3), 2), wave(2, 3))
    low = (torch.float16, torch.bfloat16, torch.float32)
    assert [state_dtype(t) for t in low] == [torch.float32] * 3
    assert state_dtype(torch.float64) == torch.float64


# --- what is typed in the place of a part -------------------------------------------------------------------------------


def test_numbers_tensors_and_names_are_baselines_of_a_method() -> None:
    field, x = ig.fields.Linear(torch.tensor([1.0, -2.0])), torch.ones(3, 2)
    rule = ig.rules.Midpoint()
    each = torch.arange(6.0).reshape(3, 2)
    for typed in (0.25, 1, np.float32(0.5), torch.tensor([0.5, 0.0]), each, np.ones(2), "zero"):
        usual = ig.methods.integrated(typed, rule)  # type: ignore[arg-type]
        method = ig.Method(typed, rule=rule)  # type: ignore[arg-type]
        assert method == usual
        assert torch.equal(method(field, x).values, usual(field, x).values)
    several = ig.Method([0.0, "zero", torch.ones(2)], rule=rule)
    assert len(several(field, x).weights) == 3
    assert ig.Method(baseline="black") == ig.methods.integrated("black")
    neurons = ig.methods.region_neurons("0", torch.ones(2, dtype=torch.bool), 0.5)
    assert dataclasses.replace(neurons, baseline=0.5) == neurons  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: ig.Method(object()), "A baseline is a number, a tensor, a list of baselines"),  # type: ignore[arg-type]
        (lambda: ig.Method("blac"), "no baseline named 'blac'. Did you mean 'black'"),
        (
            lambda: ig.Method(rule=50),
            r"A rule is a callable .*, such as ig.rules.GaussLegendre\(50\); got 50",
        ),  # type: ignore[arg-type]
        (lambda: ig.Method(path="straight"), r"such as ig.paths.Straight\(\); got 'straight'"),  # type: ignore[arg-type]
        (lambda: ig.Method(path=ig.paths.Straight), r"Straight is a class: write Straight\("),  # type: ignore[arg-type]
        (lambda: ig.Method(weighting=2.0), "A weighting is a callable"),  # type: ignore[arg-type]
        (lambda: ig.SmoothGrad(3), r"SmoothGrad wraps a Method, .* not int"),  # type: ignore[arg-type]
        (lambda: ig.baselines.Union([0.0]), "A baseline is a callable"),  # type: ignore[list-item]
    ],
)
def test_what_is_no_part_is_refused_when_it_is_given(
    wrong: Callable[[], object], words: str
) -> None:
    with pytest.raises(ig.errors.IntegrandError, match=words):
        wrong()
