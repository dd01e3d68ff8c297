"""Shapes are what the signatures say: every part's call is wrapped in a checker of its axes, and whole methods run through it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Int, TypeCheckError, jaxtyped
from torch import Tensor

import integrand as ig
from integrand.core.segment import Evaluation
from integrand.rules.base import Integrated
from integrand.weightings import Weighed
from tests.catalogue import attacks
from tests.catalogue.latent import codec
from tests.problems import PROBLEMS, joined, wave

checked = jaxtyped(typechecker=beartype)

# Named here rather than in signatures: there a linter takes `N *s` for a product.
Rows = Float[Tensor, "N *s"]
Examples = Float[Tensor, "B *s"]
Goals = Float[Tensor, "M *s"]
References = Float[Tensor, "R B *s"]
Pieces = Float[Tensor, "K R B *s"]
RowNumbers = Float[Tensor, "N"]
Clock = Float[Tensor, "K"]
PerExample = Float[Tensor, "B"]
PerReference = Float[Tensor, "R B"]
PerPiece = Float[Tensor, "K R B"]
Classes = Float[Tensor, "B C"]
Representation = Float[Tensor, "M F"]
Outputs = Float[Tensor, "N C"]
Index = Int[Tensor, "N"]
GoalIndex = Int[Tensor, "M"]


class Shaped(ig.fields.Field):
    """A field whose every answer is checked: rows (N, *s), index (N,) → values (N,), gradients (N, *s)."""

    def __init__(self, inner: ig.fields.Field) -> None:
        self.inner, self.normalisation, self.packer = inner, inner.normalisation, inner.packer

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        @checked
        def rows(z: Rows, index: Index) -> tuple[RowNumbers, Rows]:
            found = self.inner.evaluate(z, index, gradient=gradient)
            return found.value, found.gradient if gradient else torch.empty_like(z)

        rows(z, index)
        return self.inner.evaluate(z, index, gradient=gradient)

    def share(self, segment: ig.Segment) -> Tensor:
        return self.inner.share(segment)

    def score(self) -> ig.fields.Field:
        return Shaped(self.inner.score())

    def look(self, z: Tensor, index: Tensor | None, site: Any = None) -> Tensor:
        @checked
        def seen(z: Rows) -> Representation:
            return self.inner.look(z, index, site)

        return seen(z)

    def site(self, representation: Any, z: Tensor, index: Tensor) -> Any:
        return self.inner.site(representation, z, index)

    def evaluate_both(self, z: Tensor, index: Tensor, other: Any, other_index: Tensor) -> Any:
        @checked
        def both(
            z: Rows, index: Index, other_index: Index
        ) -> tuple[RowNumbers, Rows, RowNumbers, Rows]:
            own, theirs = self.inner.evaluate_both(z, index, other, other_index)
            return own.value, own.gradient, theirs.value, theirs.gradient

        both(z, index, other_index)
        return self.inner.evaluate_both(z, index, other, other_index)

    def ready(self) -> Any:
        return self.inner.ready()


def shaped_baseline(baseline: Any) -> Callable[[Tensor, Any], Tensor]:
    @checked
    def call(x: Examples, field: Any) -> References:
        return baseline(x, field)

    return call


def shaped_path(path: Any) -> Callable[[Any, Tensor, Tensor], Iterator[ig.Segment]]:
    @checked
    def piece(
        reference: References, start: Pieces, end: Pieces,
        begins: Clock, ends: Clock,
    ) -> None:  # fmt: skip
        pass

    @checked
    def paid(start: Pieces, value: PerPiece, gradient: Pieces) -> None:
        pass

    def call(field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        for segment in path(field, start, end):
            piece(start, segment.start, segment.end, *segment.clock)
            for evaluation in (segment.at_start, segment.at_end):
                if evaluation is not None:
                    paid(segment.start, evaluation.value, evaluation.gradient)
            for note in segment.notes.values():
                assert note.shape == (len(segment.start) + 1, *start.shape[:2])
            yield segment

    return call


def shaped_rule(rule: Any) -> Callable[[Any, ig.Segment], Integrated]:
    def call(field: Any, segment: ig.Segment) -> Integrated:
        result = Integrated.ensure(rule(field, segment))

        @checked
        def share(start: Pieces) -> Pieces:
            return result.share

        share(segment.start)
        return result

    return call


def shaped_weighting(weighting: Any) -> Callable[[Tensor, Tensor, Any], Weighed]:
    def call(shares: Tensor, x: Tensor, field: Any) -> Weighed:
        found: list[Weighed] = []

        @checked
        def weigh(shares: References, x: Examples) -> PerReference:
            found.append(Weighed.ensure(weighting(shares, x, field)))
            return found[0].weights

        weigh(shares, x)
        if found[0].fitness is not None:
            assert found[0].fitness.shape == shares.shape[:2]
        return found[0]

    return call


PATHS = {
    "Straight": lambda p: ig.paths.Straight(),
    "Straight(4)": lambda p: ig.paths.Straight(4),
    "LatentGuided": lambda p: ig.paths.LatentGuided(codec(p.packed()), 5, 0.3, ends=2),
    "Latent": lambda p: ig.paths.Latent(codec(p.packed()), 4, 2),
    "LatentGeodesic": lambda p: ig.paths.LatentGeodesic(codec(p.packed()), 4, iterations=3, ends=2),
    "Descent": lambda p: ig.paths.Descent(p.representation, 3, 0.05),
    "Descent, implicit": lambda p: ig.paths.Descent(
        p.representation, 3, 0.05, step=ig.paths.Implicit(2)
    ),
    "Adversarial": lambda p: ig.paths.Adversarial(attacks.decision(p) or "away", 3, 0.05),
    "Descent, relative": lambda p: ig.paths.Descent(
        p.representation, 3, norm="l1", step=ig.paths.Fixed()
    ),
    "Guided": lambda p: ig.paths.Guided(3),
    "SAMP": lambda p: ig.paths.SAMP(3),
    "Composed": lambda p: ig.paths.Composed(ig.paths.Guided(3, stray=1.0), 1),
    "Reversed": lambda p: ig.paths.Reversed(ig.paths.SAMP(3, first="lowest")),
}
RULES = [
    ig.rules.Left(),
    ig.rules.Right(2),
    ig.rules.Midpoint(2),
    ig.rules.Trapezoid(),
    ig.rules.Simpson(),
    ig.rules.GaussLegendre(3),
    ig.rules.MonteCarlo(2),
]
WEIGHTINGS = [ig.weightings.Uniform(), ig.weightings.Fitness(ig.baselines.Constant(0.0), keep=0.5)]


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize(
    "name", ["t6", "softplus cnn", "dict input", "extra arguments", "logits object"]
)
def test_every_part_keeps_its_shapes(name: str, path: str, quiet: None) -> None:
    p = PROBLEMS[name]
    field, x = Shaped(p.field()), p.packed()
    for rule, weighting in itertools.product(RULES, WEIGHTINGS):
        method = ig.Method(
            shaped_baseline(ig.baselines.Given(p.references)),
            shaped_path(PATHS[path](p)),
            shaped_rule(rule),
            shaped_weighting(weighting),
        )
        result(method(field, x), x)


def result(made: ig.Attribution, x: Tensor) -> None:
    @checked
    def shapes(
        x: Examples,
        values: Examples,
        shares: References,
        baselines: References,
        weights: PerReference,
        change: PerReference,
        output: PerExample,
        residual: PerExample,
        error: PerExample,
        gap: PerExample,
        base: PerExample,
    ) -> None:
        pass

    shapes(
        x, made.values, made.shares, made.baselines, made.weights, made.change,
        made.output, made.residual, made.error, made.gap, made.base,
    )  # fmt: skip
    assert made.converged.dtype == torch.bool
    assert made.converged.shape == made.output.shape
    assert len(made.names) == len(made.weights)


IMAGES = [
    *(make() for make in ig.methods.BASELINES.values()),
    ig.baselines.Given(wave(3, 2, 3, 8, 8)),
    ig.baselines.Sample(wave(9, 3, 8, 8), 4),
    ig.baselines.Uniform(0.0, 1.0, 3),
    ig.baselines.Gaussian(count=2),
    ig.baselines.Union((ig.baselines.black(), ig.baselines.Blurred(2.0))),
]


@pytest.mark.parametrize("baseline", IMAGES, ids=repr)
@pytest.mark.parametrize("batch", [1, 2])
def test_baselines_keep_their_shapes(baseline: Any, batch: int) -> None:
    field = PROBLEMS["softplus cnn"].field()
    field.normalisation = ig.Normalisation.unit()
    if batch == 1 and isinstance(baseline, ig.baselines.Given):
        baseline = ig.baselines.Given(wave(3, 3, 8, 8))
    shaped_baseline(baseline)(wave(batch, 3, 8, 8), field)


@pytest.mark.parametrize("which", [3, torch.tensor([0, 1, 2])])
@pytest.mark.parametrize("kind", ["Logit", "Probability", "LogOdds", "Loss"])
def test_targets_keep_their_shapes(kind: str, which: Any) -> None:
    target = getattr(ig.targets, kind)(which)

    @checked
    def call(outputs: Outputs, index: Index) -> RowNumbers:
        return target(outputs, index)

    call(wave(7, 4), torch.tensor([0, 1, 2, 2, 1, 0, 0]))


def test_the_checker_checks() -> None:
    """A weighting that forgot the examples, and a rule that summed the segments, are caught."""
    shares, x = wave(3, 2, 4), wave(2, 4)
    with pytest.raises(TypeCheckError):
        shaped_weighting(lambda shares, x, field: shares.mean((1, 2)))(shares, x, None)
    p = PROBLEMS["t6"]
    segment = next(
        iter(ig.paths.Straight(4)(p.field(), p.references[:, None].expand(3, 5, 6), p.packed()))
    )
    with pytest.raises(TypeCheckError):
        shaped_rule(lambda field, segment: segment.step.sum(0))(p.field(), segment)
    with pytest.raises(TypeCheckError):
        shaped_baseline(lambda x, field: x)(joined(p.inputs), None)
