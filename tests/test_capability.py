"""What parts can do is what they declare, or what is counted: never what a third party happens to call a field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.bench.names import method as spelled_method

pytestmark = pytest.mark.usefixtures("quiet")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def inputs(count: int = 6) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


def by_way_of(at: float, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
    yield ig.segments.polyline(
        torch.stack([start, torch.full_like(start, at), end.expand_as(start)])
    )


def path_with_a_field_called(name: str) -> Any:
    """A stranger's path of two pieces, by way of the number that its only field holds."""

    def call(self: Any, field: ig.fields.Field, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        return by_way_of(float(vars(self)[name]), start, end)

    return make_dataclass("Via", [(name, int, 1)], namespace={"__call__": call}, frozen=True)()


def baseline_with_a_field_called(name: str) -> Any:
    """A stranger's baseline of one reference, everywhere the number that its only field holds."""

    def call(self: Any, x: Tensor, field: ig.fields.Field) -> Tensor:
        return torch.full_like(x, float(vars(self)[name]))[None]

    return make_dataclass("Level", [(name, int, 1)], namespace={"__call__": call}, frozen=True)()


NAMES = [
    "goal",
    "representation",
    "content",
    "steps",
    "corners",
    "iterations",
    "n",
    "most",
    "draws",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_paths_field_decides_nothing(name: str) -> None:
    def compared(called: str) -> ig.compare.Comparison:
        return ig.compare(
            model(),
            inputs(),
            target=0,
            methods={
                "mine": ig.Method(path=path_with_a_field_called(called)),
                "ig": ig.methods.integrated(),
            },
            metrics=["sparseness"],
            vary_baseline=[0.0, 1.0],
            gradients=12,
            controls=False,
        )

    usual, made = compared("via"), compared(name)
    assert made.sensitivity is not None
    assert made.sensitivity.methods == ("mine", "ig")
    assert made.notes == usual.notes
    assert made.scores.gradients.tolist() == usual.scores.gradients.tolist()
    assert made.scores.of("sparseness").tolist() == usual.scores.of("sparseness").tolist()


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_baselines_field_decides_nothing(name: str) -> None:
    def compared(called: str) -> ig.compare.Comparison:
        return ig.compare(
            model(),
            inputs(),
            target=0,
            methods={
                "mine": ig.Method(baseline_with_a_field_called(called)),
                "ig": ig.methods.integrated(),
            },
            metrics=["sparseness"],
            vary_baseline=[0.0, 1.0],
            gradients=12,
            controls=False,
        )

    usual, made = compared("level"), compared(name)
    assert made.sensitivity is not None
    assert usual.sensitivity is not None
    assert made.sensitivity.methods == usual.sensitivity.methods
    assert made.notes == usual.notes
    assert made.scores.of("sparseness").tolist() == usual.scores.of("sparseness").tolist()


@dataclass(frozen=True)
class Line:
    """The documented ten-line path: it says nothing of what it costs."""

    pieces: int = 10

    def __call__(self, field: ig.fields.Field, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        yield ig.segments.polyline(
            torch.stack([torch.lerp(start, end, k / self.pieces) for k in range(self.pieces + 1)])
        )


@dataclass(frozen=True)
class Stepping(Line):
    """The same with its pieces called steps, as most would."""

    steps: int = 10

    def __call__(self, field: ig.fields.Field, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        return Line(self.steps)(field, start, end)


@pytest.mark.parametrize("path", [Line(), Stepping()], ids=["pieces", "steps"])
@pytest.mark.parametrize(("budget", "least"), [(12, 10), (30, 30), (300, 300)])
def test_a_path_that_does_not_say_what_it_costs_is_counted(
    path: Any, budget: int, least: int
) -> None:
    method = ig.Method(ig.baselines.Constant(0.0), path, ig.rules.GaussLegendre(3))
    made = ig.compare(
        model(),
        inputs(),
        target=0,
        methods={"mine": method},
        metrics=["sparseness"],
        gradients=budget,
        controls=False,
    )
    assert bool((made.scores.gradients >= least).all()), made.notes
    assert bool((made.scores.gradients <= budget).all()), made.notes


def test_a_method_that_stays_far_below_its_budget_says_so() -> None:
    made = ig.compare(
        model(),
        inputs(),
        target=0,
        methods={"few": fixed_at_seven, "ig": ig.methods.integrated()},
        metrics=["sparseness"],
        gradients=60,
        controls=False,
    )
    assert "7 of 60 gradients" in made.notes["few"]
    assert "of 60 gradients" not in made.notes["ig"]


def fixed_at_seven(field: ig.fields.Field, x: Tensor, *, watch: Any = None) -> ig.Attribution:
    """A method of a stranger's with nothing to turn."""
    return ig.methods.integrated(rule=ig.rules.Midpoint(7))(field, x)


RECIPES = [
    (
        "Method(Union([Constant(0.0), Constant(1.0)]), rule=Left(4), weighting=Uniform())",
        ig.weightings.Uniform(),
    ),
    (
        "Method(Union([Constant(0.0), Constant(1.0)]), Straight(), Left(4), Uniform())",
        ig.weightings.Uniform(),
    ),
    ("Method(Uniform(0.0, 1.0), rule=Left(4), weighting=Uniform())", ig.weightings.Uniform()),
]


@pytest.mark.parametrize(("text", "weighting"), RECIPES)
def test_recipes_look_names_up_by_the_role_of_the_argument(text: str, weighting: Any) -> None:
    made = spelled_method(text, {})
    assert made.weighting == weighting
    with ig.metrics.Subject.of(model(), inputs(), 0) as subject:
        assert made(subject.field, subject.x).values.shape == subject.x.shape


@pytest.mark.parametrize(
    "text",
    [
        "Method(Uniform(count=3), rule=Left(4))",
        "Method(baseline=Uniform(count=3), rule=Left(4))",
        "expected([Uniform(count=3)], rule=Left(4))",
        "weighted([Uniform(count=3)], rule=Left(4), fill=Uniform(count=1))",
    ],
)
def test_recipes_keep_noise_where_baselines_stand(text: str) -> None:
    assert spelled_method(text, {}).baseline in (
        ig.baselines.Uniform(count=3),
        ig.baselines.Union((ig.baselines.Uniform(count=3),)),
    )


# --- what strangers say of themselves -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Telling(Line):
    """Says how many pieces it has, in a field of its own name."""

    @property
    def segments(self) -> int:
        return self.pieces


@dataclass(frozen=True)
class Declaring(Stepping):
    """Says which of its fields a budget turns, and nothing of its cost."""

    resolution = "steps"


@pytest.mark.parametrize(("path", "field"), [(Telling(), "pieces"), (Declaring(), "steps")])
def test_a_budget_turns_what_a_path_declares_or_what_its_claim_grows_with(
    path: Any, field: str
) -> None:
    method = ig.Method(ig.baselines.Constant(0.0), path, ig.rules.GaussLegendre(3))
    made = ig.compare(
        model(),
        inputs(),
        target=0,
        methods={"mine": method},
        metrics=["sparseness"],
        gradients=300,
        controls=False,
    )
    assert made.notes["mine"] == f"100 {field}"
    assert made.scores.gradients.tolist() == [[300.0] * 6]


def test_a_method_without_watch_is_refused_in_one_sentence() -> None:
    """And what a method itself raises, of whatever type, is left as it is."""

    def unwatched(field: ig.fields.Field, x: Tensor) -> ig.Attribution:
        return ig.methods.integrated()(field, x)

    def wrong_inside(field: ig.fields.Field, x: Tensor, *, watch: Any = None) -> ig.Attribution:
        return unwatched(field, x, watch=watch)  # type: ignore[call-arg]

    model, x = nn.Linear(4, 3), torch.ones(2, 4)
    with pytest.raises(
        ig.errors.InputError, match=r"called as \(field, x, \*, watch=None\)"
    ) as refused:
        ig.explain(model, x, target=0, method=unwatched)
    assert "unwatched" in str(refused.value)
    assert isinstance(refused.value.__cause__, TypeError)
    with pytest.raises(TypeError, match="unexpected keyword argument 'watch'"):
        ig.explain(model, x, target=0, method=wrong_inside)


def test_a_stranger_prints_and_compares_as_what_it_is() -> None:
    method = ig.Method(path=Line(7))
    assert repr(method) == "Method(path=Line(pieces=7))"
    assert method == ig.Method(path=Line(7)) != ig.Method(path=Line(8))
    assert method.path == Line(7)
    assert Line(7) == method.path
    assert method.path.pieces == 7  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        method.path.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert method.path.segments is None
    assert ig.Method(path=Telling(7)).path.segments == 7
    assert repr(ig.paths.Composed(by_name, 2)) == "Composed(by_name, 2)"


def by_name(field: ig.fields.Field, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
    return Line(4)(field, start, end)


def test_a_part_is_adopted_once() -> None:
    path = ig.paths.as_path(Line())
    assert ig.paths.as_path(path) is path
    assert ig.Method(path=path).path is path
    assert ig.paths.as_path(ig.paths.Guided()) == ig.paths.Guided()


class Plainly(ig.rules.Rule):
    """A rule with the base class that sets what it says in ``__init__``."""

    def __init__(self, n: int) -> None:
        self.n = n
        vars(self)["gradients"] = n

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> Tensor | ig.rules.Integrated:
        return ig.rules.Left(self.n)(field, segment)


@dataclass(frozen=True)
class Fielded(ig.rules.Rule):
    """A rule whose field has the name of something that is declared, and no default."""

    tol: float

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> Tensor | ig.rules.Integrated:
        return ig.rules.Adaptive(self.tol)(field, segment)


def test_whatever_a_class_says_comes_before_the_default() -> None:
    assert Plainly(3).gradients == 3
    assert Plainly(3).tol is None
    assert ig.Method(rule=Fielded(0.1)).tol == 0.1
    assert Fielded(0.1).gradients is None
    with pytest.raises(TypeError, match="tol"):
        Fielded()  # type: ignore[call-arg]


@dataclass(frozen=True)
class Filled:
    """A stranger's weighting that holds a tensor for each example: it has to be that of the examples it is called with."""

    fill: Tensor

    def __call__(self, shares: Tensor, x: Tensor, field: ig.fields.Field) -> Tensor:
        assert torch.equal(self.fill, x)
        return torch.full(shares.shape[:2], 1 / len(shares))


def test_what_strangers_hold_for_each_example_goes_with_the_examples() -> None:
    x = inputs()
    method = ig.Method(
        ig.baselines.Union([ig.baselines.Constant(0.0), ig.baselines.Constant(1.0)]),
        rule=ig.rules.Left(4),
        weighting=Filled(x),
    )
    made = ig.compare(
        model(),
        x,
        target=0,
        methods={"mine": method},
        metrics=["sparseness"],
        gradients=20,
        controls=False,
    )
    assert not made.scores.reasons
    assert made.scores.gradients.tolist() == [[20.0] * 6]


@pytest.mark.parametrize(
    ("name", "start", "shared", "explains"),
    [
        ("integrated", "baseline", False, "inputs"),
        ("weighted", "baselines", True, "inputs"),
        ("expected", "references", True, "inputs"),
        ("ig2", "references", True, "inputs"),
        ("adversarial", None, False, "inputs"),
        ("layer", "baseline", False, "layer"),
        ("conductance", "baseline", False, "layer"),
    ],
)
def test_published_methods_know_where_they_start_and_what_they_explain(
    name: str, start: str | None, shared: bool, explains: str
) -> None:
    known = ig.methods.about(name)
    assert (known.start, known.shared, known.explains) == (start, shared, explains)


def test_what_is_said_of_a_layer_is_what_is_built() -> None:
    for name, known in ig.methods.known().items():
        assert (known.explains == "layer") == ("site" in known.options), name
