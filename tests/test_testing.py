"""The conformance kit: every part of the library passes it, and every broken part is told why it does not."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand import testing
from integrand.core.segment import Evaluation
from tests.problems import PROBLEMS, softplus_cnn, sure, tanh_mlp, wave
from tests.test_methods import OneByOne
from tests.test_paths import PATHS, Bend, bend

IMAGES = 0.5 + 0.5 * wave(2, 3, 8, 8)
UNIT = ig.Normalisation.unit()

# --- what passes ------------------------------------------------------------------------------------------------------


def three(z: Tensor) -> Tensor:
    return bend(torch.nn.functional.pad(z, (0, 2)))


class Three(Bend):
    def site(self, z: Tensor) -> Tensor:
        return three(z)


@pytest.mark.parametrize("name", list(PATHS))
def test_paths(name: str) -> None:
    path = PATHS[name]
    if name.startswith("Descent"):
        path = dataclasses.replace(path, representation=three)
    if name.startswith("Geodesic"):
        path = dataclasses.replace(path, points=path.points[:, :3])
    if name.startswith("Adversarial"):
        path = dataclasses.replace(path, goal=Three())
    testing.check_path(path, own_start=name.startswith(("Descent", "Blur", "Adversarial")))


def test_a_path_over_images_and_a_model() -> None:
    field = ig.TorchField(softplus_cnn(), torch.tensor([0, 1]))
    references = 0.5 + 0.5 * wave(2, 2, 3, 8, 8, phase=1)
    testing.check_path(
        ig.paths.Descent(None, 4, 0.2, (0.0, 1.0)),
        field=field,
        x=IMAGES,
        references=references,
        own_start=True,
    )
    testing.check_path(ig.paths.Straight(3), field=field, x=IMAGES, references=references)
    testing.check_path(OneByOne())


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        (ig.rules.Left(), 1),
        (ig.rules.Right(2), 1),
        (ig.rules.Midpoint(3), 2),
        (ig.rules.Trapezoid(), 2),
        (ig.rules.Simpson(2), 4),
        (ig.rules.GaussLegendre(2), 4),
        (ig.rules.MonteCarlo(2), None),
    ],
)
def test_rules(rule: Any, order: float | None) -> None:
    testing.check_rule(rule, order=order)


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_fields(name: str) -> None:
    problem = PROBLEMS[name]
    testing.check_field(problem.field(), problem.packed())


@pytest.mark.parametrize(
    "field",
    [
        ig.fields.Linear(wave(6)),
        ig.fields.Monomial(torch.tensor([2, 1, 0, 1, 1, 0]), -2.0),
        ig.fields.Function(testing.smooth),
        ig.fields.CountedField(ig.TorchField(tanh_mlp(), 0)),
        ig.fields.Subset(
            ig.TorchField(tanh_mlp(), torch.tensor([0, 1, 2])), torch.tensor([2, 0, 0, 1])
        ),
        ig.TorchField(tanh_mlp(), 0).score(),
    ],
    ids=lambda f: type(f).__name__,
)
def test_other_fields(field: Any) -> None:
    testing.check_field(field, wave(4, 6))
    testing.check_field(ig.TorchField(tanh_mlp().float(), 1), wave(4, 6).float(), tolerance=1e-2)


def field_of_images() -> ig.TorchField:
    model = sure(softplus_cnn(), 0.5 + torch.zeros(3, 8, 8).double())
    return ig.TorchField(model, torch.tensor([0, 1]), normalisation=UNIT)


BASELINES: dict[str, Any] = {
    **{name: make() for name, make in ig.methods.BASELINES.items()},
    "given": ig.baselines.Given(IMAGES),
    "gaussian": ig.baselines.Gaussian(0.1, "input", 3),
    "sample": ig.baselines.Sample(0.5 + 0.5 * wave(9, 3, 8, 8), 4),
    "several": ig.baselines.Union(
        (ig.baselines.black(), ig.baselines.Uniform(count=2), ig.baselines.Mean())
    ),
    "other class": ig.baselines.OtherClass(5 * wave(30, 3, 8, 8), 3),
    "relevant": ig.baselines.Relevant(5 * wave(30, 3, 8, 8), 3),
    "function": lambda x, field: x[None] / 2,
}


@pytest.mark.parametrize("name", list(BASELINES))
def test_baselines(name: str) -> None:
    testing.check_baseline(BASELINES[name], IMAGES, field=field_of_images())


@pytest.mark.parametrize(
    "weighting", [ig.weightings.Uniform(), ig.weightings.Fitness(ig.baselines.Constant(-3.0))]
)
def test_weightings(weighting: Any) -> None:
    testing.check_weighting(weighting)


# --- what does not ----------------------------------------------------------------------------------------------------


class Path:
    """A straight line in three pieces, with one thing wrong."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.calls = 0

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Any:
        self.calls += 1
        if self.fault == "empty":
            return
        if self.fault == "in place":
            start += 1
        for segment in ig.paths.Straight(3)(field, start, end):
            a, z, (begins, ends) = segment.start.clone(), segment.end.clone(), segment.clock
            notes: dict[str, Tensor] = {}
            paid = None
            if self.fault == "hole":
                z[0] += 1e-12
            if self.fault == "reversed":
                a, z = z.flip(0), a.flip(0)
            if self.fault == "backwards":
                begins, ends = ends, begins
            if self.fault == "misses the input":
                z[-1] += 1e-12
            if self.fault == "begins late":
                begins = begins + 0.1 * (begins == 0)
            if self.fault == "ends early":
                ends = ends - 0.1 * (ends == 1)
            if self.fault == "own start":
                a[0] += 0.5
            if self.fault == "drops a piece":
                a, z, begins, ends = a[[0, 2]], z[[0, 2]], begins[[0, 2]], ends[[0, 2]]
            if self.fault == "NaN":
                a[1, 0, 0] = float("nan")
            if self.fault == "shape":
                a = a[:, 0]
            if self.fault == "clock":
                begins = begins[:1]
            if self.fault == "lies":
                paid = Evaluation(field.value(a, 3), field.gradient(a, 3) + 1e-3)
            if self.fault == "lies of the value":
                paid = Evaluation(field.value(a, 3) + 1e-3, field.gradient(a, 3))
            if self.fault == "notes":
                notes = {"speed": torch.zeros(3, *start.shape[:2])}
            if self.fault == "batch":
                a[1], z[0] = (corner + end.mean() for corner in (a[1], z[0]))
            if self.fault == "random":
                a[0] += self.calls
            yield ig.Segment(a, z, (begins, ends), at_start=paid, notes=notes)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("empty", "yielded no segments"),
        ("in place", "changed the tensors it was given"),
        ("hole", "meet at clock 0.33.* apart: hand on the same tensor"),
        ("reversed", r"The last segment ends .* away from the input"),
        ("backwards", "clock goes backwards"),
        ("misses the input", r"ends 1e-12 away from the input"),
        ("begins late", "begins at clock 0.1, not at 0"),
        ("ends early", "ends at clock 0.9, not at 1"),
        ("own start", "begins 0.5 away from the reference. .*own_start=True"),
        ("drops a piece", "ends at clock 0.33.*, the next begins at 0.66"),
        ("NaN", "start holds NaN"),
        ("shape", r"start has shape 3x3x3; it must be K x 2x3x3 \(K, R, B, \*s\)"),
        ("clock", "clock's begins have shape 1, not 3"),
        ("lies", "at_start is not the field's gradient"),
        ("lies of the value", "at_start is not the field's value"),
        ("notes", r"note 'speed' has shape 3x2x3; at K\+1 corners it is 4x2x3"),
        ("batch", "path of example 0 depends on the other examples"),
    ],
)
def test_broken_paths(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_path(Path(fault))


def test_a_path_that_is_another_every_time() -> None:
    with pytest.raises(AssertionError, match=r"second call of the path begins elsewhere"):
        testing.check_path(Path("random"), own_start=True)


def test_the_double_without_a_fault_passes() -> None:
    testing.check_path(Path("none"))


class Rule:
    """Midpoints, with one thing wrong."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.gradients = 2 if fault == "cost" else 1
        self.complete = True

    def __call__(self, field: Any, segment: ig.Segment) -> Tensor:
        if self.fault == "end":
            return ig.rules.Right()(field, segment)
        share = ig.rules.Midpoint()(field, segment)
        if self.fault == "shape":
            return share.sum(0)
        if self.fault == "dtype":
            return share.float()
        if self.fault == "half":
            return share / 2
        if self.fault == "NaN":
            return (
                share
                / segment.step.abs().sum(-1, keepdim=True)
                * segment.step.abs().sum(-1, keepdim=True)
            )
        if self.fault == "pieces":
            return share + 1e-3 * segment.step * (segment.step.mean((0, 2), keepdim=True))
        if self.fault == "examples":
            return share + 1e-3 * segment.step * (segment.step.mean(2, keepdim=True))
        if self.fault == "calls":
            return share * (1 + 1e-3 * (getattr(field.packer, "rows", None) == 1))
        return share


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", r"share has shape 2x3x4; for this segment it must be 2x2x3x4"),
        ("dtype", "float32 for a segment of torch.float64"),
        ("cost", r"rule.gradients says 2 for each piece, but 12 were evaluated for 12 pieces"),
        ("half", r"not w ⊙ \(end − start\)"),
        ("NaN", "Pieces of no length have a share: they are nan"),
        ("calls", "With 1 rows to a model call"),
        ("end", r"falls with order [01]\.\d+, not 2"),
    ],
)
def test_broken_rules(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_rule(Rule(fault), order=2)


@pytest.mark.parametrize(
    ("fault", "message"),
    [("pieces", "share of piece 0 depends"), ("examples", "share of example 0 depends")],
)
def test_rules_that_mix_rows(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_rule(Rule(fault), linear=False)


def test_a_rule_that_is_not_complete() -> None:
    with pytest.raises(AssertionError, match=r"miss the change of F by"):
        testing.check_rule(Rule("half"), linear=False)
    testing.check_rule(Rule("half"), linear=False, complete=False)
    testing.check_rule(Rule("none"), order=2)


class Broken(ig.fields.Linear):
    def __init__(self, fault: str) -> None:
        super().__init__(wave(6))
        self.fault = fault

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        if self.fault == "in place":
            z += 1
        found = super().evaluate(z, index, gradient=gradient)
        value, slope = found.value, found.gradient
        if self.fault == "shape":
            slope = slope[:, :3]
        if self.fault == "values":
            value = value[:, None]
        if self.fault == "slope":
            slope = slope * 1.01
        if self.fault == "rows":
            value = value + 0.1 * value.mean()
        if self.fault == "detached":
            value = value.clone().requires_grad_()
        if self.fault == "modes" and not gradient:
            value = value + 1
        if self.fault == "NaN":
            value = value / 0
        return Evaluation(value, slope)

    def share(self, segment: ig.Segment) -> Tensor:
        return super().share(segment) * (2 if self.fault == "share" else 1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", "Gradients have shape 4x3; like the rows they must be 4x6"),
        ("values", "Values of 4 rows have shape 4x1"),
        ("slope", "gradient is not the slope of the value"),
        ("rows", "value of a row depends on the rows beside it"),
        ("detached", "must be detached"),
        ("modes", "With gradient=False the values are others"),
        ("NaN", "NaN or infinity"),
        ("share", "Exact shares do not add up"),
    ],
)
def test_broken_fields(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_field(Broken(fault), wave(4, 6))


def test_a_field_that_works_in_place() -> None:
    with pytest.raises(AssertionError):
        testing.check_field(Broken("in place"), wave(4, 6))
    testing.check_field(Broken("none"), wave(4, 6))


class Start:
    count = 1
    label = "start"

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.calls = 0

    def __call__(self, x: Tensor, field: Any) -> Any:
        self.calls += 1
        good = x[None] * 0
        return {
            "list": lambda: [good],
            "shape": lambda: good[0],
            "none": lambda: good[:0],
            "dtype": lambda: good.float(),
            "NaN": lambda: good / 0,
            "count": lambda: good.expand(2, *x.shape),
            "random": lambda: good + self.calls,
            "global": lambda: good + 0 * torch.rand(1).double(),
            "batch": lambda: good + x.mean(),
            "in place": lambda: x.add_(1)[None].clone() * 0,
            "good": lambda: good,
        }[self.fault]()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("list", "returned list, not a tensor"),
        ("shape", r"shape 3x4; for these inputs they must be R x 3x4"),
        ("none", "shape 0x3x4"),
        ("dtype", "torch.float32, the inputs torch.float64"),
        ("NaN", "NaN"),
        ("count", "count says 1 references, but 2 came"),
        ("random", "A second call gives other references"),
        ("global", "torch's global generator"),
        ("batch", "References of example 0 depend"),
        ("in place", "changed the inputs"),
    ],
)
def test_broken_baselines(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_baseline(Start(fault))
    testing.check_baseline(Start("good"))


class Weigh:
    def __init__(self, fault: str) -> None:
        self.fault = fault
        if fault == "beforehand":
            self.beforehand = lambda r, b: torch.full((r, b), 1 / r) * 2

    def __call__(self, shares: Tensor, x: Tensor, field: Any) -> Any:
        good = shares.flatten(2).abs().sum(2).softmax(0)
        return {
            "shape": lambda: good[:, 0],
            "sum": lambda: 2 * good,
            "NaN": lambda: good / 0 * 0,
            "place": lambda: (
                torch.linspace(0, 1, len(good)).double().softmax(0)[:, None].expand_as(good)
            ),
            "batch": lambda: (good + good.mean(1, keepdim=True)) / 2,
            "in place": lambda: shares.mul_(1.5)[:, :, 0] * 0 + 1 / len(good),
        }.get(self.fault, lambda: good)()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", r"Weights of shape 4: .* must be 4x3 \(R, B\)"),
        ("sum", "do not add up to one"),
        ("NaN", "NaN or infinity"),
        ("place", "depend on the order of the references"),
        ("batch", "Weights of example 0 depend"),
        ("in place", "changed the shares"),
        ("beforehand", r"beforehand\(\) and the call give different weights"),
    ],
)
def test_broken_weightings(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_weighting(Weigh(fault))
    testing.check_weighting(Weigh("good"))


def test_parts_are_called_as_a_method_calls_them() -> None:
    """With autograd off; a part that differentiates something itself turns it on."""

    def uphill(x: Tensor, field: Any) -> Tensor:
        assert not torch.is_grad_enabled()
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(leaf.square().sum(), leaf)
        return (x - slope)[None]

    testing.check_baseline(uphill)
    made = ig.methods.integrated(uphill)(ig.TorchField(tanh_mlp(), 0), wave(3, 6))
    torch.testing.assert_close(made.baselines[0], -wave(3, 6))


def test_the_kit_needs_no_test_framework() -> None:
    assert "pytest" not in inspect.getsource(testing)
    assert set(testing.__all__) >= {
        "check_path",
        "check_rule",
        "check_field",
        "check_baseline",
        "check_weighting",
    }


def test_targets_may_be_checked_on_float32_outputs() -> None:
    def entropy(outputs: torch.Tensor) -> torch.Tensor:
        log = outputs.log_softmax(1)
        return -(log.exp() * log).sum(1)

    ig.testing.check_target(entropy, torch.linspace(-1, 1, 15).reshape(5, 3).float())


def test_a_metric_that_does_not_say_what_is_better_is_not_registered() -> None:
    with pytest.raises(ig.errors.InputError, match="higher: ClassVar"):

        @ig.metrics.metric("unsaid")
        class Unsaid(ig.metrics.Metric):
            pass

    assert "unsaid" not in ig.metrics.known()
