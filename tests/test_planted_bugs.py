"""Forty-two bugs that people make in parts of their own, each planted in a small class: the kit finds them, and names them.

They are those of a review in which parts were written by a stranger. One of them is legal: weights below zero. Beside them stand targets,
metrics and methods with bugs of their own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand import testing
from integrand.testing import waves
from tests.catalogue import BUILD, fits
from tests.problems import PROBLEMS, Problem, softplus_cnn, tanh_mlp, wave

Check = Callable[[], None]

# --- paths ------------------------------------------------------------------------------------------------------------


class Backwards:
    """From the input to the reference."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        yield ig.segments.polyline(torch.stack([end.expand_as(start), start]))


class StopsShort:
    """Half of the way."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        yield ig.segments.polyline(torch.stack([start, start + 0.5 * (end - start)]))


class Rounds:
    """Ends on start + (x − start)."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        yield ig.segments.polyline(
            torch.stack([start + moment * (end - start) for moment in (0.0, 0.5, 1.0)])
        )


class ByBatchMean:
    """By way of the mean of the batch."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        yield ig.segments.polyline(
            torch.stack([start, end.mean(0).expand_as(start), end.expand_as(start)])
        )


class WrongGradientHandedOn:
    """The gradient at the end, handed on as that at the start."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        (segment,) = ig.paths.Straight()(field, start, end)
        paid = ig.segments.Evaluation(field.value(segment.start, 3), field.gradient(segment.end, 3))
        yield dataclasses.replace(segment, at_start=paid)


class WritesReferences:
    """Works in place."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        begin = start.clone()
        yield ig.segments.polyline(torch.stack([begin, end.expand_as(start)]))
        start.mul_(0.5)


class GlobalNoise:
    """A corner from the global generator."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        corner = start + torch.rand(1, dtype=start.dtype) * (end - start)
        yield ig.segments.polyline(torch.stack([start, corner, end.expand_as(start)]))


class SinglePrecision:
    """Corners in float32, whatever came."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        yield ig.segments.polyline(torch.stack([start, end.expand_as(start)]).float())


class FewerSegmentsClaimed:
    """Twice as many pieces as it says."""

    segments = 3

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        yield from ig.paths.Straight(6)(field, start, end)


class FreeGradientsClaimed:
    """Looks at every corner, and says that it costs nothing."""

    segments, gradients = 3, 0

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        for segment in ig.paths.Straight(3)(field, start, end):
            paid = ig.segments.Evaluation(
                field.value(segment.start, 3), field.gradient(segment.start, 3)
            )
            yield dataclasses.replace(segment, at_start=paid)


class SpreadReferences:
    """The way of a reference depends on how many there are."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        moment = (torch.arange(len(start)) + 1.0).to(start) / (len(start) + 1)
        corner = start + moment.reshape(-1, *(1,) * (start.ndim - 1)) ** 2 * (end - start)
        corner[..., 0] = start[..., 0]
        yield ig.segments.polyline(torch.stack([start, corner, end.expand_as(start)]))


def path(bug: Any) -> Check:
    return lambda: testing.check_path(bug)


PATHS: list[tuple[Check, str]] = [
    (
        path(Backwards()),
        r"last segment ends .* away from the input: the path stops where 100 % of the way",
    ),
    (path(StopsShort()), r"ends .* away from the input: the path stops where 50 % of the way"),
    (path(Rounds()), r"ends .*e-1\d away from the input, which is rounding"),
    (path(ByBatchMean()), "path of example 0 depends on the other examples of its batch"),
    (path(WrongGradientHandedOn()), "at_start is not the field's gradient there"),
    (path(WritesReferences()), "path changed the tensors it was given"),
    (path(GlobalNoise()), "path drew from torch's global generator"),
    (path(SinglePrecision()), "start is torch.float32 on cpu, the reference torch.float64"),
    (path(FewerSegmentsClaimed()), r"path.segments says 3, but 6 pieces came"),
    (path(FreeGradientsClaimed()), r"path.gradients says 0 .* but 18 gradients were asked for"),
    (
        path(SpreadReferences()),
        r"from reference 0 depends on how many references there are.*placed\(places \(R, B\)\)",
    ),
]

# --- rules ------------------------------------------------------------------------------------------------------------


def quadrature(field: Any, segment: ig.Segment, nodes: list[float], weights: list[float]) -> Tensor:
    """A rule from nodes and weights."""
    times, parts = (
        torch.tensor(numbers, dtype=segment.start.dtype) for numbers in (nodes, weights)
    )
    return segment.step * ig.rules.mean_gradient(field, segment, times, parts)


class WeightsDoNotSumToOne:
    """Trapezoids as peers weigh them: (n − 1)/n."""

    def __call__(self, field: Any, segment: ig.Segment) -> Tensor:
        return quadrature(field, segment, [0.0, 0.5, 1.0], [1 / 6, 1 / 3, 1 / 6])


class MissingStep:
    """The mean gradient, and not times the way."""

    def __call__(self, field: Any, segment: ig.Segment) -> Tensor:
        half, one = (
            torch.tensor([0.5], dtype=segment.start.dtype),
            torch.ones(1, dtype=segment.start.dtype),
        )
        return ig.rules.mean_gradient(field, segment, half, one)


class CheaperThanItIs:
    """Two nodes, one of them admitted."""

    gradients = 1

    def __call__(self, field: Any, segment: ig.Segment) -> Tensor:
        return quadrature(field, segment, [0.25, 0.75], [0.5, 0.5])


class OrderItDoesNotHave:
    """The left end, said to be of second order."""

    def __call__(self, field: Any, segment: ig.Segment) -> Tensor:
        return quadrature(field, segment, [0.0], [1.0])


class BatchNormalised:
    """Shares scaled so that the batch adds up, not each example."""

    def __call__(self, field: Any, segment: ig.Segment) -> Tensor:
        share = quadrature(field, segment, [0.5], [1.0])
        change = field.value(segment.end, 3) - field.value(segment.start, 3)
        return share * (change.sum() / share.sum()).nan_to_num(0)


class EndValues:
    """Midpoints, with values of F at the ends that it has made up."""

    def __init__(self, wrong: str) -> None:
        self.wrong = wrong

    def __call__(self, field: Any, segment: ig.Segment) -> ig.rules.Integrated:
        share = quadrature(field, segment, [0.5], [1.0])
        begin, end = field.value(segment.start, 3), field.value(segment.end, 3)
        values = {"begin": begin, "end": end}
        if self.wrong in values:
            values[self.wrong] = torch.zeros_like(begin)
        return ig.rules.Integrated(share, torch.full_like(begin, torch.nan), **values)


class NeverWrong:
    """Midpoints that claim an error of zero."""

    def __call__(self, field: Any, segment: ig.Segment) -> ig.rules.Integrated:
        return ig.rules.Integrated(
            quadrature(field, segment, [0.5], [1.0]), segment.start.new_zeros(segment.leading)
        )


class OneSided:
    """The first half of the nodes of a rule."""

    def __call__(self, field: Any, segment: ig.Segment) -> Tensor:
        return quadrature(field, segment, [0.125, 0.375], [0.5, 0.5])


class MistypedWeights:
    """Simpson's rule with two of its weights swapped."""

    def __call__(self, field: Any, segment: ig.Segment) -> Tensor:
        return quadrature(field, segment, [0.0, 0.5, 1.0], [1 / 6, 1 / 6, 4 / 6])


def rule(bug: Any, **options: Any) -> Check:
    return lambda: testing.check_rule(bug, **options)


RULES: list[tuple[Check, str]] = [
    (rule(WeightsDoNotSumToOne()), r"linear field the share is not w ⊙ \(end − start\)"),
    (rule(MissingStep()), r"linear field the share is not w ⊙ \(end − start\)"),
    (
        rule(CheaperThanItIs()),
        r"rule.gradients says 1 for each piece, but 24 were evaluated for 12",
    ),
    (rule(OrderItDoesNotHave(), order=2), r"error falls with order [01]\.\d+, not 2"),
    (
        rule(BatchNormalised(), linear=False),
        r"share of (piece|reference|example) 0 depends on the other",
    ),
    (rule(EndValues("begin")), r"Integrated.begin is not F at the start of each piece"),
    (rule(EndValues("end")), r"Integrated.end is not F at the end of each piece"),
    (rule(NeverWrong()), r"Integrated.error claims 0 for a piece whose share is wrong by 0\.\d+"),
    (rule(OneSided(), order=2), r"error falls with order [01]\.\d+, not 2"),
    (rule(MistypedWeights(), order=4), r"error falls with order [01]\.\d+, not 4"),
]

# --- baselines --------------------------------------------------------------------------------------------------------


class BatchMean:
    def __call__(self, x: Tensor, field: Any) -> Tensor:
        return x.mean(0).expand(1, *x.shape)


class UnseededNoise:
    def __call__(self, x: Tensor, field: Any) -> Tensor:
        return torch.rand_like(x)[None]


class SeedOfThePlace:
    """Another seed for each place in the batch."""

    def __call__(self, x: Tensor, field: Any) -> Tensor:
        noise = [
            torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(b))
            for b in range(len(x))
        ]
        return torch.stack(noise)[None].to(x)


class NoReferenceAxis:
    def __call__(self, x: Tensor, field: Any) -> Tensor:
        return torch.zeros_like(x)


class Zeros:
    """Two references of zeros, with something untrue said of them."""

    def __init__(self, **claims: Any) -> None:
        for name, claim in claims.items():
            setattr(self, name, claim)

    def __call__(self, x: Tensor, field: Any) -> Tensor:
        return x.new_zeros(2, *x.shape)


class WritesInputs:
    def __call__(self, x: Tensor, field: Any) -> Tensor:
        return x.sub_(x.clone())[None]


class DividesByZero:
    def __call__(self, x: Tensor, field: Any) -> Tensor:
        return ((x - x) / (x - x))[None]


def baseline(bug: Any) -> Check:
    return lambda: testing.check_baseline(bug)


BASELINES: list[tuple[Check, str]] = [
    (baseline(BatchMean()), "References of example 0 depend on the other examples"),
    (
        baseline(UnseededNoise()),
        "baseline drew from torch's global generator; use a seed of its own",
    ),
    (baseline(SeedOfThePlace()), "References of example 1 depend on the other examples"),
    (
        baseline(NoReferenceAxis()),
        r"shape 3x4; for these inputs they must be R x 3x4 \(R, B, \*s\)",
    ),
    (baseline(Zeros(count=5)), "count says 5 references, but 2 came"),
    (baseline(Zeros(count=2, size=7)), "size says 7 references, but 2 came"),
    (baseline(WritesInputs()), "baseline changed the inputs"),
    (baseline(DividesByZero()), "References hold NaN"),
]

# --- weightings -------------------------------------------------------------------------------------------------------


def strength(shares: Tensor) -> Tensor:
    return shares.flatten(2).abs().sum(2)


class SumsToTwo:
    def __call__(self, shares: Tensor, x: Tensor, field: Any) -> Tensor:
        return 2 * strength(shares).softmax(0)


class SoftmaxOverBatch:
    def __call__(self, shares: Tensor, x: Tensor, field: Any) -> Tensor:
        over_all = strength(shares).flatten().softmax(0).reshape(shares.shape[:2])
        return over_all + (1 - over_all.sum(0)) / len(shares)


class FirstCountsMost:
    def __call__(self, shares: Tensor, x: Tensor, field: Any) -> Tensor:
        return (
            (0.5 ** torch.arange(len(shares)).to(shares))
            .softmax(0)[:, None]
            .expand(shares.shape[:2])
        )


class BatchTemperature:
    def __call__(self, shares: Tensor, x: Tensor, field: Any) -> Tensor:
        return (strength(shares) / strength(shares).std()).softmax(0)


class BelowZero:
    """Legal: an extrapolation from the references."""

    def __call__(self, shares: Tensor, x: Tensor, field: Any) -> Tensor:
        weights = strength(shares).softmax(0)
        return 3 * weights - 2 / len(shares)


def weighting(bug: Any) -> Check:
    return lambda: testing.check_weighting(bug)


WEIGHTINGS: list[tuple[Check, str]] = [
    (weighting(SumsToTwo()), "weights of an example do not add up to one"),
    (weighting(SoftmaxOverBatch()), "Weights of example 0 depend on the others of its batch"),
    (weighting(FirstCountsMost()), "depend on the order of the references"),
    (weighting(BatchTemperature()), "Weights of example 0 depend on the others of its batch"),
]

# --- fields -----------------------------------------------------------------------------------------------------------

X = waves(4, 5, phase=0.6)
MATRIX = waves(5, 5, phase=0.2) + waves(5, 5, phase=0.2).T


class Quadratic(ig.fields.Field):
    """F(z) = zᵀMz, whose exact share is step ⊙ 2M(middle)."""

    def evaluate(
        self, z: Tensor, index: Tensor, *, gradient: bool = True
    ) -> ig.segments.Evaluation:
        slope = 2 * z @ MATRIX
        return ig.segments.Evaluation((z * slope).sum(1) / 2, slope if gradient else z.new_empty(0))

    def share(self, segment: ig.Segment) -> Tensor:
        return segment.step * ((segment.start + segment.end) @ MATRIX)


class WrongGradient(Quadratic):
    """Half of it: the derivative of a symmetric form, taken once."""

    def evaluate(
        self, z: Tensor, index: Tensor, *, gradient: bool = True
    ) -> ig.segments.Evaluation:
        found = super().evaluate(z, index, gradient=gradient)
        return dataclasses.replace(found, gradient=found.gradient / 2)


class ShareOfTheStart(Quadratic):
    """The gradient at the start: it does not add up."""

    def share(self, segment: ig.Segment) -> Tensor:
        return segment.step * 2 * (segment.start @ MATRIX)


class RowsInteract(Quadratic):
    """A mean over the rows of a call."""

    def evaluate(
        self, z: Tensor, index: Tensor, *, gradient: bool = True
    ) -> ig.segments.Evaluation:
        found = super().evaluate(z, index, gradient=gradient)
        return dataclasses.replace(found, value=found.value - found.value.mean())


class OneQuestionForAll(Quadratic):
    """A factor for each example, and all said to be the same question."""

    def evaluate(
        self, z: Tensor, index: Tensor, *, gradient: bool = True
    ) -> ig.segments.Evaluation:
        found, factor = super().evaluate(z, index, gradient=gradient), 1 + index.to(z)
        slope = found.gradient * factor[:, None] if gradient else found.gradient
        return ig.segments.Evaluation(found.value * factor, slope)

    def share(self, segment: ig.Segment) -> Tensor:
        return (
            super().share(segment)
            * (1 + torch.arange(segment.leading[2]).to(segment.start))[:, None]
        )

    def questions(self, index: Tensor) -> Tensor:
        return torch.zeros_like(index)


class CreditsNeighbours(Quadratic):
    """Adds up, but every share stands one feature to the right."""

    def share(self, segment: ig.Segment) -> Tensor:
        return super().share(segment).roll(1, -1)


class Tree(ig.fields.Field):
    """F(z) = 3 · [z₀ > 0] + 2 · [z₀ > 0 and z₁ > 0.1], without a slope; a jump belongs to the feature that crosses its threshold."""

    thresholds: ClassVar[tuple[float, ...]] = (0.0, 0.1)

    def evaluate(
        self, z: Tensor, index: Tensor, *, gradient: bool = True
    ) -> ig.segments.Evaluation:
        if gradient:
            raise ig.errors.NoGradient("A tree has no gradient: take rule=ig.rules.Exact().")
        values = [
            self._leaf([bool(z_i > t) for z_i, t in zip(row, self.thresholds, strict=False)])
            for row in z
        ]
        return ig.segments.Evaluation(torch.tensor(values).to(z), z.new_empty(0))

    def share(self, segment: ig.Segment) -> Tensor:
        share = torch.zeros_like(segment.start)
        rows = zip(
            share.flatten(0, -2),
            segment.start.flatten(0, -2),
            segment.end.flatten(0, -2),
            strict=True,
        )
        for credit, start, end in rows:
            above = [bool(start[i] > t) for i, t in enumerate(self.thresholds)]
            crossings = [
                (float((t - start[i]) / (end[i] - start[i])), i)
                for i, t in enumerate(self.thresholds)
                if (start[i] > t) != (end[i] > t)
            ]
            for _, i in sorted(crossings):
                before = self._leaf(above)
                above[i] = not above[i]
                credit[i] += self._leaf(above) - before
        return share

    @staticmethod
    def _leaf(above: list[bool]) -> float:
        return 3.0 * above[0] + 2.0 * (above[0] and above[1])


class TreeCreditsItsRoot(Tree):
    """Every jump goes to the feature at the root."""

    def share(self, segment: ig.Segment) -> Tensor:
        share = super().share(segment)
        return torch.cat([share.sum(-1, keepdim=True), torch.zeros_like(share[..., 1:])], -1)


class TreeOfTheBatch(Tree):
    """Its threshold is the median of the rows of the call."""

    def evaluate(
        self, z: Tensor, index: Tensor, *, gradient: bool = True
    ) -> ig.segments.Evaluation:
        found = super().evaluate(z, index, gradient=gradient)
        return dataclasses.replace(found, value=found.value + (z[:, 2] > z[:, 2].mean()))


class Attached(Quadratic):
    """Values with the graph that made them."""

    def evaluate(
        self, z: Tensor, index: Tensor, *, gradient: bool = True
    ) -> ig.segments.Evaluation:
        with torch.enable_grad():
            leaf = z.clone().requires_grad_()
            value = (leaf * (leaf @ MATRIX)).sum(1)
            (slope,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
        return ig.segments.Evaluation(
            value if not gradient else value.detach(), slope if gradient else z.new_empty(0)
        )


def field(bug: Any, **options: Any) -> Check:
    return lambda: testing.check_field(bug, X, **options)


FIELDS: list[tuple[Check, str]] = [
    (field(WrongGradient()), "gradient is not the slope of the value"),
    (field(ShareOfTheStart()), "Exact shares do not add up to the change of F"),
    (field(RowsInteract()), "value of a row depends on the rows beside it"),
    (field(OneQuestionForAll()), "Examples of one question have several values"),
    (
        field(CreditsNeighbours()),
        "moves feature 0 alone, feature 1 is credited for what it did not do",
    ),
    (
        field(TreeCreditsItsRoot(), differentiable=False),
        "moves feature 1 alone, feature 0 is credited",
    ),
    (field(TreeOfTheBatch(), differentiable=False), "value of a row depends on the rows beside it"),
    (field(Attached()), "Values must be detached, also those asked for with gradient=False"),
]

PLANTED = {
    "paths": PATHS,
    "rules": RULES,
    "baselines": BASELINES,
    "weightings": WEIGHTINGS,
    "fields": FIELDS,
}


def test_there_are_forty_two() -> None:
    assert sum(map(len, PLANTED.values())) + len([BelowZero]) == 42


@pytest.mark.parametrize(
    ("check", "message"),
    [
        pytest.param(check, message, id=f"{part} {number}")
        for part, bugs in PLANTED.items()
        for number, (check, message) in enumerate(bugs)
    ],
)
def test_planted_bugs_are_found_and_named(check: Check, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check()


def test_what_is_right_or_legal_passes() -> None:
    """The parts around which the bugs were planted."""
    weighting(BelowZero())()
    field(Quadratic())()
    field(Tree(), differentiable=False)()
    baseline(Zeros(count=2, size=2))()
    rule(EndValues("neither"), order=2)()
    rule(OneSided())()  # of first order, and it claims no other


def test_a_path_of_images_says_what_it_needs() -> None:
    """On the default problem, of three features and no model, it does not die inside the library with an IndexError."""

    class Shrinks:
        def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
            assert end.shape[3] > 0
            yield from ig.paths.Straight(2)(field, start, end)

    with pytest.raises(
        AssertionError, match=r"raised IndexError .* problem .* three features .*field=.*x=images"
    ) as caught:
        testing.check_path(Shrinks())
    assert isinstance(caught.value.__cause__, IndexError)
    images = waves(2, 3, 4, 4)
    testing.check_path(Shrinks(), x=images)
    with pytest.raises(AssertionError, match="raised ShapeError"):
        testing.check_path(ig.paths.Blur(1.5, 9), own_start=True)


def test_what_a_path_has_paid_for_is_used_where_it_belongs() -> None:
    class WrongEnd:
        """Trapezoids that take what was paid for at one end for the other."""

        def __call__(self, field: Any, segment: ig.Segment) -> Tensor:
            if segment.at_start is None or segment.at_end is None:
                return quadrature(field, segment, [0.0, 1.0], [0.5, 0.5])
            return segment.step * segment.at_start.gradient

    with pytest.raises(
        AssertionError,
        match=r"paid for the ends of a segment \(at_start, at_end\), the share is another one",
    ):
        testing.check_rule(WrongEnd())


def test_what_goes_another_way_for_each_reference_says_so() -> None:
    @dataclass(frozen=True)
    class Fan:
        """Ways that fan out, by the numbers of the references."""

        numbers: Tensor | None = None

        def placed(self, places: Tensor) -> Fan:
            return Fan(places)

        def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
            numbers = torch.arange(len(start))[:, None] if self.numbers is None else self.numbers
            corner = (start + end) / 2 + 0.1 * numbers[..., None].to(start)
            yield ig.segments.polyline(torch.stack([start, corner, end.expand_as(start)]))

    class Untold(Fan):
        placed = None  # type: ignore[assignment]

    testing.check_path(Fan())
    with pytest.raises(
        AssertionError, match=r"from reference 1 depends on how many .*a path that goes another way"
    ):
        testing.check_path(Untold())


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (ig.rules.Adaptive(), {}),
        (ig.rules.Adaptive(1e-2), {}),
        (ig.rules.Chords(8), {}),
        (ig.rules.ClenshawCurtis(8), {}),
        (ig.rules.Exact(), {}),
        (ig.rules.IDGI(8), {"linear": False}),
        (ig.rules.IntegratedDecisionGradients(12, 16), {"linear": False}),
        (ig.rules.Rescaled(ig.rules.Left(4)), {}),
        (ig.rules.Rescaled(ig.rules.Adaptive()), {}),
        (ig.rules.PathWeighted("exponential", ig.rules.Trapezoid(12)), {"linear": False}),
        (ig.rules.SaturationCutoff(0.9), {"linear": False}),
        (ig.rules.Ascent(6, 8), {"linear": False}),
        (ig.rules.MonteCarlo(1), {}),
        (ig.rules.MonteCarlo(16), {}),
    ],
    ids=repr,
)
def test_rules_of_the_library_pass(rule: Any, options: dict[str, Any]) -> None:
    testing.check_rule(rule, **options)


# --- targets ----------------------------------------------------------------------------------------------------------

CLASSES = torch.tensor([0, 3, 1])


class Class(ig.targets.Target):
    """The logit of a class for each example, right in all."""

    def __init__(self, which: Tensor = CLASSES) -> None:
        self.which = which

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return outputs.gather(1, self.which[index][:, None])[:, 0]

    def at(self, index: Tensor) -> ig.targets.Target:
        return type(self)(self.which[index])


class ByPlace(Class):
    """Looks classes up by the row's place, not by its example."""

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return outputs.gather(1, self.which[: len(outputs)][:, None])[:, 0]


class AtForgets(Class):
    """The same classes whatever the batch is made of."""

    def at(self, index: Tensor) -> ig.targets.Target:
        return self


class BatchLoss(Class):
    """A mean over the rows, as losses for training are."""

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs, self.which[index])


class AboveTheMean(Class):
    """Relative to the other rows of the call."""

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        found = super().__call__(outputs, index)
        return found - found.mean()


class WholeNumbers(Class):
    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return super().__call__(outputs, index).round().long()


class Detached(Class):
    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return super().__call__(outputs.detach(), index)


class LogOfLogits(Class):
    """NaN where a logit is negative."""

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return super().__call__(outputs, index).log()


class PartlyDetached(Class):
    """A ratio whose denominator was detached."""

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return super().__call__(outputs, index) / (2 + outputs.detach().sum(1).tanh())


class SubtractsInPlace(Class):
    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        if not outputs.requires_grad:
            outputs -= outputs.amax(1, keepdim=True)
        return super().__call__(outputs, index)


class ScoreOfTheFirst(Class):
    """A score that has forgotten whose class it is about."""

    def score(self) -> ig.targets.Target:
        return ig.targets.Probability(int(self.which[0]))


TARGETS: list[tuple[Any, str]] = [
    (ByPlace(), "The target: numbers depend on the order of rows"),
    (AtForgets(), r"at\(index\) asks another question than the index"),
    (BatchLoss(), r"numbers have shape \(\); they must be 3 \(N,\), one for each row"),
    (AboveTheMean(), "number of row 0 depends on the rows beside it"),
    (WholeNumbers(), "numbers are torch.int64, where torch.float64 was given"),
    (Detached(), "No slope leads from the target to the outputs"),
    (LogOfLogits(), "NaN or infinity for finite outputs"),
    (PartlyDetached(), "slope is not that of its value"),
    (SubtractsInPlace(), "target changed the outputs"),
    (ScoreOfTheFirst(), r"at\(index\).score\(\) and score\(\).at\(index\) ask different questions"),
    (lambda outputs: outputs.max(), r"shape \(\)"),
]


@pytest.mark.parametrize(
    ("bug", "message"), TARGETS, ids=[type(bug).__name__ for bug, _ in TARGETS]
)
def test_bugs_of_targets(bug: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_target(bug)


THREE = torch.tensor([[0, 1], [1, 2], [0, 0]])


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (Class(), {}),
        (0, {}),
        (CLASSES, {}),
        (lambda outputs: outputs.square().sum(1), {}),
        (ig.targets.Custom(lambda outputs, data: (outputs * data).sum(1), waves(3, 5)), {}),
        (ig.targets.Probability(CLASSES), {}),
        (ig.targets.LogOdds(CLASSES), {}),
        (ig.targets.Lead(CLASSES), {}),
        (ig.targets.Margin(CLASSES, 2), {}),
        (ig.targets.Loss(CLASSES), {}),
        (ig.targets.Predicted(CLASSES), {"differentiable": False}),
        (ig.targets.Output(), {"outputs": waves(3, 1)}),
        (ig.targets.Distance(waves(3, 5)), {}),
        (ig.targets.Logit(THREE), {"outputs": waves(3, 2, 4)}),
        (ig.targets.Probability((1, 2), -1), {"outputs": waves(3, 2, 4)}),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_targets_of_the_library_pass(target: Any, options: dict[str, Any]) -> None:
    testing.check_target(target, **options)


def test_a_target_without_a_slope_is_told_to_say_so() -> None:
    with pytest.raises(AssertionError, match="say differentiable=False"):
        testing.check_target(ig.targets.Predicted(CLASSES))


# --- metrics ----------------------------------------------------------------------------------------------------------


class Largest(ig.metrics.Metric):
    """The share of the largest feature, right in all."""

    higher: ClassVar[bool] = True

    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        size = maps.values.flatten(2).abs()
        return size.amax(2) / size.sum(2)


class Undirected(Largest):
    higher = None  # type: ignore[assignment]


class AmongTheBatch(Largest):
    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        found = super().measure(subject, maps)
        return found / found.amax(1, keepdim=True)


class AmongTheMaps(Largest):
    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        found = super().measure(subject, maps)
        return found - found.mean(0)


class Ranked(Largest):
    """By its place in the batch."""

    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(maps.values.shape, generator=generator).to(maps.values)
        return (maps.values * noise).flatten(2).sum(2)


class Unseeded(Largest):
    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        return (maps.values * torch.rand_like(maps.values[:1, :1])).flatten(2).sum(2)


class DrawsInVain(Largest):
    """The global generator is another one afterwards, and nothing measured is."""

    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        torch.rand(1)
        return super().measure(subject, maps)


class Infinite(Largest):
    """A ratio without a thought of zero."""

    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        return 1 / super().measure(subject, maps).mul(0)


class OneForAll(Largest):
    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        return super().measure(subject, maps).mean()


class Normalises(Largest):
    """The maps it was lent."""

    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        maps.values.abs_()
        return super().measure(subject, maps)


class MovesInputs(Largest):
    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        subject.x[:, 0] = 0
        return super().measure(subject, maps)


class SummaryOfAll(Largest):
    def summary(self, measured: Tensor) -> Tensor:
        return measured.mean()


class SummaryWithoutGaps(Largest):
    """One example without a value, and the method has none."""

    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        found = super().measure(subject, maps)
        return torch.where(subject.x[:, 0] > 0.5, torch.nan, found)

    def summary(self, measured: Tensor) -> Tensor:
        return measured.mean(1)


class LastCounts(Largest):
    def summary(self, measured: Tensor) -> Tensor:
        return measured[:, -1]


class ValuesAmongAll(Largest):
    def values(self, measured: Tensor) -> Tensor:
        return measured / measured.sum(1, keepdim=True)


class Forgets(Largest):
    """A model with other parameters."""

    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        with torch.no_grad():
            next(subject.field.network.module.parameters()).zero_()  # type: ignore[attr-defined]
        return super().measure(subject, maps)


METRICS: list[tuple[type[ig.metrics.Metric], str]] = [
    (Undirected, "does not say whether higher is better"),
    (AmongTheBatch, "measured of example 0 depends on the other examples"),
    (AmongTheMaps, "measured of the map 'from zero' depends on the other maps"),
    (Ranked, "depends on (the other examples|where it stands)"),
    (Unseeded, "drew from torch's global generator"),
    (DrawsInVain, "drew from torch's global generator"),
    (Infinite, "values.. hold infinity; where there is nothing to measure, say NaN"),
    (OneForAll, r"measure\(\) returned shape \(\); for 2 maps of 3 examples"),
    (Normalises, "metric changed the inputs or the maps"),
    (MovesInputs, "metric changed the inputs or the maps"),
    (SummaryOfAll, r"summary\(\) returned shape \(\); one number for each method is 2"),
    (SummaryWithoutGaps, r"summary\(\) is NaN though some of the examples have a value"),
    (LastCounts, r"summary\(\) depends on the order of the examples"),
    (ValuesAmongAll, r"values\(\) of example 0 depend on the other examples"),
    (Forgets, "metric changed the inputs, the maps or the model"),
]


@pytest.mark.parametrize(("bug", "message"), METRICS, ids=[bug.__name__ for bug, _ in METRICS])
def test_bugs_of_metrics(bug: type[ig.metrics.Metric], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_metric(bug)


def test_scale_invariance_is_checked_of_those_who_claim_it() -> None:
    class Sum(Largest):
        def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
            return maps.values.flatten(2).abs().sum(2)

    testing.check_metric(Largest, scale_invariant=True)
    testing.check_metric(Sum)
    with pytest.raises(AssertionError, match="it is not scale invariant"):
        testing.check_metric(Sum, scale_invariant=True)


OPTIONS: dict[str, dict[str, Any]] = {
    "diffid": {"fill": 0.5},
    "infidelity": {"draws": 20},
    "max_sensitivity": {"draws": 2},
    "pgi": {"fill": ig.baselines.Gaussian(0.1, "input", 4)},
    "pgu": {"fill": ig.baselines.Gaussian(0.1, "input", 4)},
    "smooth_mprt": {"draws": 2},
    "top_intersection": {"k": 3},
    "xai_bench_infidelity": {"draws": 4},
}
"""Smaller numbers of draws than the papers', and what has no default for tables."""

OF_PICTURES = {"road", "road_lerf", "sic", "aic", "irof"}


@pytest.mark.parametrize("name", sorted(set(ig.metrics.known()) - OF_PICTURES))
def test_registered_metrics_pass(name: str) -> None:
    testing.check_metric(ig.metrics.known()[name](**OPTIONS.get(name, {})))


@pytest.mark.parametrize("name", sorted(OF_PICTURES))
def test_registered_metrics_of_pictures_pass(name: str) -> None:
    images = 0.5 + 0.5 * wave(3, 3, 8, 8)
    classes = torch.tensor([0, 1, 1])
    testing.check_metric(
        name, model=softplus_cnn(), x=images, target=classes, normalisation=ig.Normalisation.unit()
    )


# --- methods ----------------------------------------------------------------------------------------------------------

INNER = ig.Method(rule=ig.rules.GaussLegendre(6))


@dataclass(frozen=True)
class Around:
    """Integrated Gradients, with one thing wrong that is done before or after."""

    bug: str = "none"
    method: Any = INNER

    def __call__(self, field: Any, x: Tensor, *, watch: Any = None) -> Any:
        return getattr(self, self.bug.replace(" ", "_"))(field, x, watch)

    def none(self, field: Any, x: Tensor, watch: Any) -> Any:
        return self.method(field, x, watch=watch)

    def bare(self, field: Any, x: Tensor, watch: Any) -> Any:
        return self.method(field, x).values

    def absolute(self, field: Any, x: Tensor, watch: Any) -> Any:
        made = self.method(field, x, watch=watch)
        return dataclasses.replace(made, values=made.values.abs())

    def halved(self, field: Any, x: Tensor, watch: Any) -> Any:
        made = self.method(field, x, watch=watch)
        return dataclasses.replace(
            made, values=made.values / 2, residual=made.residual + made.values.sum(1) / 2
        )

    def normalised(self, field: Any, x: Tensor, watch: Any) -> Any:
        made = self.method(field, x, watch=watch)
        values = made.values - made.values.mean(0) + made.values.mean()
        return dataclasses.replace(
            made, values=values, residual=(made.weights * made.change).sum(0) - values.sum(1)
        )

    def single_precision(self, field: Any, x: Tensor, watch: Any) -> Any:
        made = self.method(field, x, watch=watch)
        return dataclasses.replace(made, values=made.values.float())

    def transposed(self, field: Any, x: Tensor, watch: Any) -> Any:
        made = self.method(field, x, watch=watch)
        return dataclasses.replace(made, values=made.values.T)

    def scouts(self, field: Any, x: Tensor, watch: Any) -> Any:
        field.gradient(x)
        return self.method(field, x, watch=watch)

    def unwatched(self, field: Any, x: Tensor, watch: Any) -> Any:
        return self.method(field, x)

    def writes(self, field: Any, x: Tensor, watch: Any) -> Any:
        made = self.method(field, x.clone(), watch=watch)
        x.clamp_(-0.5, 0.5)
        return made

    def global_noise(self, field: Any, x: Tensor, watch: Any) -> Any:
        noise = 0.1 * torch.randn_like(x)
        made = self.method(field, x, watch=watch)
        values = made.values + noise - noise.mean(1, keepdim=True)
        return dataclasses.replace(made, values=values)

    def freezes(self, field: Any, x: Tensor, watch: Any) -> Any:
        field.network.module.requires_grad_(False)
        return self.method(field, x, watch=watch)

    def hooks(self, field: Any, x: Tensor, watch: Any) -> Any:
        field.network.module[0].register_forward_hook(lambda *_: None)
        return self.method(field, x, watch=watch)

    def trains(self, field: Any, x: Tensor, watch: Any) -> Any:
        made = self.method(field, x, watch=watch)
        field.network.module.train()
        return made

    def first_class(self, field: Any, x: Tensor, watch: Any) -> Any:
        return self.method(
            field.with_target(int(field.target.at(torch.tensor([0])).which)), x, watch=watch
        )

    def someone_elses_class(self, field: Any, x: Tensor, watch: Any) -> Any:
        made = self.method(field, x, watch=watch)
        turned = field.target.at(torch.arange(len(x)).roll(1)) if len(x) > 1 else field.target
        values = self.method(ig.TorchField(field.network.module, turned), x).values
        values = values + (made.values.sum(1) - values.sum(1))[:, None] / x.shape[1]
        return dataclasses.replace(made, values=values)


METHODS: list[tuple[str, str]] = [
    ("bare", "returned a Tensor, not an ig.Attribution"),
    ("absolute", "residual is not the change of F minus the sum of the map"),
    ("halved", "misses 0.5 of the change of F"),
    ("normalised", r"map of example \d, of class \d, is another one when it is explained alone"),
    ("single precision", "Values are torch.float32, where torch.float64"),
    ("transposed", r"Values have shape 6x3; they must be 3x6"),
    ("scouts", "cost.gradients says 18, but the field was asked for 21"),
    ("unwatched", "watch was shown 0 gradients at most, and cost.gradients says 18"),
    ("writes", "method changed the inputs"),
    ("global noise", "method drew from torch's global generator"),
    ("freezes", "left the model changed: requires_grad of parameters"),
    ("hooks", "left the model changed: hooks"),
    ("trains", "left the model changed: training modes"),
    ("first class", r"output is not F\(x\)"),
    (
        "someone elses class",
        r"map of example 0, of class 0, is another one when it is explained alone",
    ),
]


@pytest.mark.parametrize(("bug", "message"), METHODS, ids=[bug for bug, _ in METHODS])
@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_bugs_of_methods(bug: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_method(Around(bug))


def test_a_method_that_nobody_can_watch() -> None:
    testing.check_method(Around())
    with pytest.raises(AssertionError, match="takes no watch="):
        testing.check_method(lambda field, x: INNER(field, x))


TABLE = Problem(
    "a table",
    tanh_mlp(),
    wave(3, 6, phase=0.3),
    torch.tensor([0, 2, 1]),
    wave(3, 6, phase=3),
    features=6,
)
PICTURES = dataclasses.replace(PROBLEMS["softplus cnn"])
OF_TABLES = sorted(
    name
    for name in BUILD
    if fits(name, TABLE)
    and name not in ("geodesic", "discretized", "xrai", "artificial_distancing")
)


@pytest.mark.parametrize("name", OF_TABLES)
@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_published_methods_pass(name: str) -> None:
    testing.check_method(BUILD[name](TABLE), model=TABLE.model, x=TABLE.inputs, target=TABLE.target)


@pytest.mark.parametrize("name", ["spectral", "xrai", "blur", "integrated"])
@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_published_methods_of_pictures_pass(name: str) -> None:
    model, x, target = PICTURES.model, PICTURES.inputs[:2], PICTURES.target[:2]
    testing.check_method(BUILD[name](PICTURES), model=model, x=x, target=target)
