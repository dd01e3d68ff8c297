"""Fields at every door: ``ig.explain``, ``ig.explain_targets``, ``ig.compare`` and ``ig.metrics.judge`` take one in the model's place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import Evaluation, Segment
from integrand.fields import Field
from tests.problems import PROBLEMS, filled, wave

X = wave(5, 4, phase=0.3)
EXACT = ig.methods.integrated(0.25, rule=ig.rules.Exact())
FINE = ig.methods.integrated(0.25, rule=ig.rules.GaussLegendre(24))
NODES = ig.methods.integrated(0.25, rule=ig.rules.GaussLegendre(3))


class Quadratic(Field):
    """F(z) = z·A z, A symmetric; on a straight piece each feature is credited step ⊙ A (start + end)."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = (matrix + matrix.T) / 2

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        slope = 2 * z @ self.matrix
        return Evaluation((z * slope).sum(1) / 2, slope if gradient else z.new_empty(0))

    def share(self, segment: Segment) -> Tensor:
        return segment.step * ((segment.start + segment.end) @ self.matrix)


class Stump(Field):
    """A tree of one split for each feature, the jump credited to the feature that makes it; there is no gradient."""

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        if gradient:
            raise ig.errors.NoGradient(
                "A tree is flat, but where it jumps: ask for its exact share, rule=ig.rules.Exact()."
            )
        return Evaluation(self._leaves(z).sum(1), z.new_empty(0))

    def share(self, segment: Segment) -> Tensor:
        return self._leaves(segment.end) - self._leaves(segment.start)

    def _leaves(self, z: Tensor) -> Tensor:
        return (z > 0.1).to(z) * torch.arange(1, 5).to(z)


FIELDS: dict[str, tuple[Field, Any]] = {
    "quadratic": (Quadratic(wave(4, 4)), EXACT),
    "tree": (Stump(), EXACT),
    "linear": (ig.fields.Linear(wave(4)), EXACT),
    "linear by nodes": (ig.fields.Linear(wave(4)), NODES),
    "monomial": (ig.fields.Monomial(torch.tensor([2, 1, 0, 1])), NODES),
    "function": (ig.fields.Function(lambda z: (z**3).sum(1)), NODES),
    "model": (
        ig.TorchField(filled(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))), 1),
        FINE,
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_explained_at_the_front_door(name: str) -> None:
    field, method = FIELDS[name]
    made, expected = ig.explain(field, X, method=method), method(field, X)
    assert torch.equal(made.values, expected.values)
    assert made.target == field.target
    change = field.value(X) - field.value(torch.full_like(X, 0.25))
    torch.testing.assert_close(made.values.sum(1), change, rtol=1e-9, atol=1e-12)


def test_the_answers_of_quadratic_and_tree_are_those_of_the_formulas() -> None:
    matrix, step = FIELDS["quadratic"][0].matrix, X - 0.25  # type: ignore[attr-defined]
    slopes = sum(2 * (0.25 + t * step) @ matrix for t in (0.25, 0.75)) / 2
    torch.testing.assert_close(
        ig.explain(FIELDS["quadratic"][0], X, method=EXACT).values, step * slopes
    )
    jumps = ((X > 0.1).double() - 1) * torch.arange(1.0, 5).double()
    torch.testing.assert_close(ig.explain(FIELDS["tree"][0], X, method=EXACT).values, jumps)


@pytest.mark.usefixtures("quiet")
def test_a_field_takes_names_baselines_tolerances_and_seeds() -> None:
    field = ig.fields.Function(lambda z: (z**2).sum(1))
    made = ig.explain(field, X, method="integrated", baseline=0.5, tol=0.01)
    torch.testing.assert_close(made.values, X**2 - 0.25, rtol=0, atol=1e-3)
    one, other = (
        ig.explain(field, X, method="expected", references=wave(9, 4), draws=4, seed=s).values
        for s in (1, 2)
    )
    assert not torch.equal(one, other)


def test_several_inputs_of_a_field_come_back_apart() -> None:
    p = PROBLEMS["dict input"]
    made = ig.explain(p.field(), p.inputs, method=NODES)
    expected = ig.explain(p.model, p.inputs, target=p.target, method=NODES)
    assert set(made.values) == {"left", "right"}
    for name in made.values:
        assert torch.equal(made.values[name], expected.values[name])


def test_a_target_that_says_the_same_is_taken_and_another_is_refused() -> None:
    field = FIELDS["model"][0]
    assert torch.equal(
        ig.explain(field, X, target=1, method=NODES).values,
        ig.explain(field, X, method=NODES).values,
    )
    with pytest.raises(
        ig.errors.TargetError,
        match=r"asks about Logit\(1\), and target= says Logit\(2\): leave target= out",
    ):
        ig.explain(field, X, target=2, method=NODES)
    with pytest.raises(ig.errors.TargetError, match="has its target already"):
        ig.explain(field, X, target="predicted", method=NODES)
    with pytest.raises(ig.errors.TargetError, match="has its target already: leave target= out"):
        ig.explain(FIELDS["linear"][0], X, target=0, method=NODES)


def test_options_of_models_are_refused() -> None:
    for option in ({"extra": (1,)}, {"batch_size": 3}, {"optimize": True}):
        with pytest.raises(
            ig.errors.InputError,
            match=f"{next(iter(option))}= goes with a model; a field has its own",
        ):
            ig.explain(FIELDS["model"][0], X, method=NODES, **option)  # type: ignore[arg-type]
        with pytest.raises(
            ig.errors.InputError,
            match=f"{next(iter(option))}= goes with a model; a field has its own",
        ):
            ig.compare(
                FIELDS["model"][0], X, methods={"one": NODES}, metrics=["sparseness"], **option
            )  # type: ignore[arg-type]


def test_a_model_without_a_target_is_told_to_have_one() -> None:
    with pytest.raises(ig.errors.TargetError, match="give target="):
        ig.explain(nn.Linear(4, 3), X.float())


def test_infinite_inputs_of_a_field_are_refused() -> None:
    with pytest.raises(ig.errors.NonFiniteInput, match="Example 0 holds 1 NaN or infinite number"):
        ig.explain(FIELDS["linear"][0], torch.tensor([[float("nan"), 0, 0, 0]]))


def test_several_targets_of_a_field_of_a_model() -> None:
    field = FIELDS["model"][0]
    targets = [0, "predicted", torch.tensor([0, 1, 2, 0, 1])]
    made = ig.explain_targets(field, X, targets=targets, method=NODES)
    for one, target in zip(made, targets, strict=True):
        expected = ig.explain(field.network.model, X, target=target, method=NODES)
        torch.testing.assert_close(one.values, expected.values, rtol=1e-12, atol=1e-14)
        assert one.target == expected.target


@pytest.mark.parametrize("name", ["quadratic", "linear", "function"])
def test_fields_of_one_question_have_one_target(name: str) -> None:
    field, method = FIELDS[name]
    (made,) = ig.explain_targets(field, X, method=method)
    assert torch.equal(made.values, method(field, X).values)
    with pytest.raises(ig.errors.TargetError, match="knows one question only: leave targets= out"):
        ig.explain_targets(field, X, targets=[0, 1], method=method)


def test_several_targets_of_some_examples() -> None:
    model, index = FIELDS["model"][0].network.model, torch.tensor([3, 0, 3])
    targets = [torch.tensor([0, 1, 0]), 2]
    made = ig.explain_targets(
        ig.TorchField(model, 0).at(index), X[index], targets=targets, method=NODES
    )
    for one, target in zip(made, targets, strict=True):
        expected = ig.explain(model, X[index], target=target, method=NODES)
        torch.testing.assert_close(one.values, expected.values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_compared_and_judged(name: str) -> None:
    field, method = FIELDS[name]
    by = ig.metrics.Deletion(steps=4, score="output")
    made = ig.compare(field, X, methods={"one": method}, metrics=[by], controls=["random"])
    expected = ig.metrics.judge(field, X, method(field, X), by)
    assert made.scores.reasons == {}
    np.testing.assert_allclose(made.scores.values[0, 0], expected, rtol=1e-9)
