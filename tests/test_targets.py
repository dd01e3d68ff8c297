"""Targets, each restated by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.targets import as_target, output_tensor
from tests.problems import tanh_mlp, wave

OUT = 3 * wave(7, 4)  # rows of a model call: 7 rows of 3 examples
INDEX = torch.tensor([0, 0, 2, 1, 1, 2, 0])
CLASSES = torch.tensor([1, 3, 0])


def softmax(row: Tensor) -> Tensor:
    return row.exp() / row.exp().sum()


def by_hand(kind: str, row: Tensor, c: int, d: int = 2) -> Tensor:
    p = softmax(row)[c]
    return {
        "Logit": row[c],
        "Probability": p,
        "LogOdds": (p / (1 - p)).log(),
        "Margin": row[c] - row[d],
        "Loss": -p.log(),
        "Lead": row[c] - max(row[k] for k in range(len(row)) if k != c % len(row)),
    }[kind]


KINDS = ["Logit", "Probability", "LogOdds", "Margin", "Loss", "Lead"]


def build(kind: str, which: Any) -> ig.targets.Target:
    return ig.targets.Margin(which, 2) if kind == "Margin" else getattr(ig.targets, kind)(which)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [0, 3, -1])
def test_one_class(kind: str, which: int) -> None:
    found = build(kind, which)(OUT, INDEX)
    for n in range(7):
        torch.testing.assert_close(found[n], by_hand(kind, OUT[n], which), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_for_every_example(kind: str) -> None:
    found = build(kind, CLASSES)(OUT, INDEX)
    for n in range(7):
        torch.testing.assert_close(
            found[n], by_hand(kind, OUT[n], int(CLASSES[INDEX[n]])), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("kind", KINDS)
def test_negative_classes_for_every_example(kind: str) -> None:
    one, other = build(kind, CLASSES), build(kind, CLASSES - 4)
    torch.testing.assert_close(one(OUT, INDEX), other(OUT, INDEX), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_at_gathers_examples(kind: str) -> None:
    which = torch.tensor([2, 2, 0])
    gathered = build(kind, CLASSES).at(which)
    expected = build(kind, CLASSES[which])
    assert gathered == expected
    assert torch.equal(gathered(OUT, INDEX), expected(OUT, INDEX))
    assert build(kind, 1).at(which) == build(kind, 1)


def test_the_lead_is_positive_where_the_class_is_predicted() -> None:
    for c in range(4):
        lead = ig.targets.Lead(c)(OUT, INDEX)
        assert torch.equal(lead > 0, OUT.argmax(1) == c)
    leaf = OUT[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(ig.targets.Lead(2)(leaf, INDEX[:1]).sum(), leaf)
    best = max((k for k in range(4) if k != 2), key=lambda k: float(OUT[0, k]))
    assert slope[0].tolist() == [float(k == 2) - float(k == best) for k in range(4)]
    for few in (OUT[:, :1], OUT[:, :, None]):
        with pytest.raises(
            ig.errors.TargetError,
            match=r"Lead needs outputs \(rows, classes\) with two classes at least",
        ):
            ig.targets.Lead(0)(few, INDEX)


def test_log_odds_where_probabilities_round_to_one() -> None:
    """log p − log(1 − p) would be infinite; z_c − logsumexp of the others is 60."""
    out = torch.tensor([[60.0, 0.0, -80.0]])
    found = ig.targets.LogOdds(0)(out, torch.zeros(1, dtype=torch.long))
    assert float(found) == pytest.approx(60.0)


def test_margin_of_two_classes_per_example() -> None:
    others = torch.tensor([0, 1, 2])
    found = ig.targets.Margin(CLASSES, others)(OUT, INDEX)
    for n, b in enumerate(INDEX.tolist()):
        assert float(found[n]) == pytest.approx(
            float(OUT[n, CLASSES[b]] - OUT[n, others[b]]), abs=1e-15
        )
    assert ig.targets.Margin(CLASSES, others).at(torch.tensor([1])) == ig.targets.Margin(
        CLASSES[1:2], others[1:2]
    )


def test_output() -> None:
    assert torch.equal(ig.targets.Output()(OUT[:, 0], INDEX), OUT[:, 0])
    assert torch.equal(ig.targets.Output()(OUT[:, :1], INDEX), OUT[:, 0])
    with pytest.raises(
        ig.errors.TargetError,
        match=r"one number per row, but this one returned 4 for each.*target=3",
    ):
        ig.targets.Output()(OUT, INDEX)


def test_positions_in_longer_outputs() -> None:
    out = wave(7, 4, 5)
    assert torch.equal(ig.targets.Logit((2, -1))(out, INDEX), out[:, 2, 4])
    assert ig.targets.Logit((2, 3)).score() == ig.targets.Logit((2, 3))
    assert ig.targets.Margin((2, 3), (1, 3)).score() == ig.targets.Logit((2, 3))
    with pytest.raises(
        ig.errors.TargetError, match=r"\(1,\) has 1 positions, but one output has shape 4x5: give 2"
    ):
        ig.targets.Logit((1,))(out, INDEX)
    with pytest.raises(
        ig.errors.TargetError, match=r"a class alone does not name a number: give a tuple"
    ):
        ig.targets.Logit(1)(out, INDEX)
    with pytest.raises(
        ig.errors.TargetError, match=r"class 5 does not exist: the model has 5 classes, 0 to 4"
    ):
        ig.targets.Logit((0, 5))(out, INDEX)


def test_a_position_for_every_example() -> None:
    """As Captum writes them: [(2, 1), (0, 3), …]; a tensor (B, P) is the same, and one position is for all."""
    out, places = wave(7, 4, 5), [(2, 1), (0, 3), (-1, -5)]
    found = ig.targets.Logit(places)(out, INDEX)
    for n, b in enumerate(INDEX.tolist()):
        assert found[n] == out[n][places[b]]
    assert ig.targets.Logit(torch.tensor(places)) == ig.targets.Logit(places)
    assert ig.targets.Logit(places).at(torch.tensor([2, 1])) == ig.targets.Logit(
        [places[2], places[1]]
    )
    assert ig.targets.Logit([(2, 1)]) == ig.targets.Logit((2, 1))
    probability = ig.targets.Probability(places, axis=1)(out, INDEX)
    for n, b in enumerate(INDEX.tolist()):
        torch.testing.assert_close(probability[n], out[n].softmax(0)[places[b]], rtol=0, atol=1e-14)
    margin = ig.targets.Margin(places, [(0, 0), (1, 1), (2, 2)])(out, INDEX)
    torch.testing.assert_close(margin, found - out[range(7), INDEX, INDEX], rtol=0, atol=0)
    with pytest.raises(
        ig.errors.TargetError, match=r"class 5 does not exist: the model has 5 classes"
    ):
        ig.targets.Logit([(2, 1), (0, 5), (0, 0)])(out, INDEX)
    with pytest.raises(
        ig.errors.TargetError, match=r"\(2, 1\) has 2 positions, but one output has shape 4: give 1"
    ):
        ig.targets.Logit(places)(OUT, INDEX)


@pytest.mark.parametrize("which", [[1], torch.tensor([1]), torch.tensor([[1]]), np.array([1])])
def test_one_element_is_one_class_for_all(which: Any) -> None:
    assert ig.targets.Logit(which) == ig.targets.Logit(1)


def test_a_column_of_classes() -> None:
    assert ig.targets.Logit(CLASSES[:, None]) == ig.targets.Logit(CLASSES)
    assert ig.targets.Logit([(1,), (3,), (0,)]) == ig.targets.Logit(CLASSES)


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 1, 1), (7, 1, 1, 1)])
def test_the_only_output_in_any_shape(shape: tuple[int, ...]) -> None:
    assert torch.equal(ig.targets.Output()(OUT[:, 0].reshape(shape), INDEX), OUT[:, 0])


def test_a_dict_of_outputs_is_asked_which() -> None:
    """Features may not be explained for scores because they come first."""
    both = {"features": wave(7, 9), "scores": OUT, "cache": [OUT]}
    with pytest.raises(
        ig.errors.TargetError,
        match=r"'features' \(9 per row\), 'scores' \(4 per row\), and none .* 'logits'",
    ):
        output_tensor(both)
    assert torch.equal(as_target(lambda out: out["scores"][:, 2])(both, INDEX), OUT[:, 2])
    assert output_tensor({"cache": [OUT], "scores": OUT}) is OUT
    assert output_tensor({**both, "logits": OUT}) is OUT


def test_complex_outputs_have_no_order() -> None:
    turned = OUT * 1j
    for call in (
        lambda: output_tensor(turned),
        lambda: output_tensor({"logits": turned}),
        lambda: as_target(lambda out: out[:, 0])(turned, INDEX),
    ):
        with pytest.raises(
            ig.errors.TargetError, match=r"complex numbers \(complex128\).*\.abs\(\).*\.real"
        ):
            call()
    assert torch.equal(as_target(lambda out: out[:, 0].imag)(turned, INDEX), OUT[:, 0])


def test_custom() -> None:
    assert torch.equal(
        ig.targets.Custom(lambda out: out.square().sum(1))(OUT, INDEX), OUT.square().sum(1)
    )
    weights = wave(3, 4, phase=1)
    target = ig.targets.Custom(lambda out, own: (out * own).sum(1), weights)
    torch.testing.assert_close(target(OUT, INDEX), (OUT * weights[INDEX]).sum(1), rtol=0, atol=0)
    gathered = target.at(torch.tensor([2, 0]))
    assert torch.equal(gathered.data, weights[[2, 0]])


def test_targets_that_are_the_same_for_all_examples() -> None:
    for target in (ig.targets.Output(), ig.targets.Custom(torch.sum)):
        assert target.at(torch.tensor([1])) is target
    with pytest.raises(ig.errors.TargetError, match=r"LogOdds explains outputs \(rows, classes\)"):
        ig.targets.LogOdds((0, 1))(wave(7, 4, 5), INDEX)


def test_distance() -> None:
    goal = wave(3, 4, phase=2)
    found = ig.targets.Distance(goal)(OUT, INDEX)
    for n in range(7):
        expected = sum((float(OUT[n, j]) - float(goal[INDEX[n], j])) ** 2 for j in range(4))
        assert float(found[n]) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (ig.targets.Logit(2), ig.targets.Probability(2)),
        (ig.targets.Logit(CLASSES), ig.targets.Probability(CLASSES)),
        (ig.targets.Probability(1), ig.targets.Probability(1)),
        (ig.targets.LogOdds(1), ig.targets.Probability(1)),
        (ig.targets.Margin(1, 2), ig.targets.Probability(1)),
        (ig.targets.Loss(3), ig.targets.Probability(3)),
        (ig.targets.Output(), ig.targets.Output()),
    ],
)
def test_score_is_the_probability_it_is_about(target: Any, expected: Any) -> None:
    assert target.score() == expected


def test_score_of_a_custom_target_is_itself() -> None:
    target = ig.targets.Custom(torch.relu)
    assert target.score() is target


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (4, "class 4 does not exist: the model has 4 classes, 0 to 3"),
        (-5, "class -5 does not exist"),
        (torch.tensor([0, 1, 9]), "class 9 does not exist"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_out_of_range(kind: str, target: Any, message: str) -> None:
    with pytest.raises(ig.errors.TargetError, match=message):
        build(kind, target)(OUT, INDEX)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (True, "integer, not True or False"),
        (1.5, "1.5 is not a class"),
        ("cat", "'cat' is not a class"),
        (
            torch.tensor([0.0, 1.0]),
            "Target classes are integers, one or one per example; got torch.float32 of shape 2",
        ),
        (torch.zeros(2, 2, 2, dtype=torch.long), "of shape 2x2x2"),
        ([(2, 1), (0,)], r"tuples of one length, one for each example; got lengths 1, 2"),
        ([(2, 1), 0], "tuples of one length"),
        ([0, "cat"], r"integers, one or one per example; got \[0, 'cat'\]"),
        (torch.tensor([True]), "torch.bool"),
    ],
)
def test_what_is_not_a_class(which: Any, message: str) -> None:
    with pytest.raises(ig.errors.TargetError, match=message):
        ig.targets.Logit(which)


@pytest.mark.parametrize("axis", [1, 2, -1, -2])
def test_the_softmax_of_a_longer_output_runs_along_the_axis_that_is_named(axis: int) -> None:
    """Tokens (rows, tokens, classes) have their classes last, pictures (rows, classes, height, width) first."""
    out = wave(7, 4, 5)
    scaled = (out - out.amax(axis, keepdim=True)).exp()
    expected = (scaled / scaled.sum(axis, keepdim=True))[:, 2, 3]
    each = ig.targets.Probability(torch.tensor([[2, 3]] * 7), axis)
    for target in (
        ig.targets.Probability((2, 3), axis=axis),
        each.at(INDEX),
        ig.targets.Loss((2, 3), axis=axis).score(),
    ):
        torch.testing.assert_close(target(out, torch.arange(7)), expected, rtol=0, atol=1e-14)
    loss = ig.targets.Loss((2, 3), axis=axis)(out, INDEX)
    torch.testing.assert_close(loss, -expected.log(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["Probability", "Loss"])
def test_the_softmax_of_a_longer_output_needs_an_axis(kind: str) -> None:
    make, out = getattr(ig.targets, kind), wave(7, 4, 5)
    with pytest.raises(
        ig.errors.TargetError,
        match=rf"shape 4x5.*{kind}\(…, axis=1\) for images.*axis=-1 for tokens",
    ):
        make((2, 3))(out, INDEX)
    for axis in (0, -3, 3):
        with pytest.raises(
            ig.errors.TargetError,
            match=rf"Axis {axis} holds no classes.*3 axes.*a number from 1 to 2",
        ):
            make((2, 3), axis=axis)(out, INDEX)


@pytest.mark.parametrize("kind", KINDS)
def test_no_class_axis(kind: str) -> None:
    with pytest.raises(
        ig.errors.TargetError,
        match=r"needs outputs with a class axis .* returned one number per row: .*Output\(\)",
    ):
        build(kind, 0)(OUT[:, 0], INDEX)


@pytest.mark.parametrize("kind", ["Probability", "LogOdds", "Loss"])
def test_a_softmax_over_one_class(kind: str) -> None:
    with pytest.raises(ig.errors.TargetError, match=r"softmax over one class is always 1.*sigmoid"):
        build(kind, 0)(OUT[:, :1], INDEX)


@pytest.mark.parametrize(
    "outputs",
    [
        OUT,
        (OUT, None),
        [OUT],
        {"logits": OUT, "loss": 0},
        {"scores": OUT},
        SimpleNamespace(logits=OUT),
    ],
    ids=["tensor", "tuple", "list", "dict", "other dict", "object"],
)
def test_outputs_of_every_kind(outputs: Any) -> None:
    assert output_tensor(outputs) is OUT


@pytest.mark.parametrize("outputs", [None, (), {}, "text", SimpleNamespace(), (None, OUT)])
def test_outputs_without_a_tensor(outputs: Any) -> None:
    with pytest.raises(
        ig.errors.TargetError,
        match=f"returned {type(outputs).__name__}, in which no tensor was found",
    ):
        output_tensor(outputs)


def test_as_target() -> None:
    own = ig.targets.Loss(1)
    assert as_target(own) is own
    assert as_target(2) == ig.targets.Logit(2)
    assert as_target(torch.tensor(2)) == ig.targets.Logit(2)
    assert as_target(CLASSES.int()) == ig.targets.Logit(CLASSES)
    assert as_target((1, 2)) == ig.targets.Logit((1, 2))
    assert isinstance(as_target(lambda out: out[:, 0]), ig.targets.Custom)
    with pytest.raises(ig.errors.TargetError, match=r"'predicted' works in ig.explain"):
        as_target("predicted")


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda out: out, "5x3"),
        (lambda out: out.sum(), r"\(\)"),
        (lambda out: out[:1, 0], "1"),
        (lambda out: 1.0, "float"),
    ],
)
def test_a_callable_that_does_not_give_one_number_per_row(function: Any, got: str) -> None:
    field = ig.TorchField(tanh_mlp(), function)
    with pytest.raises(
        ig.errors.TargetError, match=rf"one number per row, shape 5; this one returned {got}"
    ):
        field.value(wave(5, 6))


def test_a_callable_that_assumes_the_batch_size() -> None:
    """A per-example weight closed over meets more rows than examples; the message says why and what to do."""
    weights = wave(5)
    with pytest.raises((ig.errors.TargetError, RuntimeError)) as caught:
        ig.explain(tanh_mlp(), wave(5, 6), target=lambda out: out[:, 0] * weights)
    assert isinstance(caught.value, ig.errors.TargetError)
    assert "batch size" in str(caught.value)


SIDE = torch.tensor([1, -1, 1])


def test_the_predicted_side_by_hand() -> None:
    """±f by the example a row belongs to, and its probability 1 / (1 + exp(∓f))."""
    target = ig.targets.PredictedSide(SIDE)
    for shape in ((7,), (7, 1), (7, 1, 1)):
        logit = 3 * wave(7)
        values = target(logit.reshape(shape), INDEX)
        probabilities = target.score()(logit.reshape(shape), INDEX)
        for n in range(7):
            f = float(logit[n]) * int(SIDE[INDEX[n]])
            assert float(values[n]) == pytest.approx(f, abs=1e-14)
            assert float(probabilities[n]) == pytest.approx(1 / (1 + np.exp(-f)), abs=1e-14)


def test_sides_of_outputs_examples_and_batches() -> None:
    zero = torch.tensor([[0.0], [-1e-30], [2.0]])
    target = ig.targets.PredictedSide.of(zero)
    assert target.side.tolist() == [1, -1, 1]
    assert ig.targets.PredictedSide.of(zero[:, 0]) == target
    assert target.at(torch.tensor([1, 1, 0])).side.tolist() == [-1, -1, 1]
    spread = target.of_batch(torch.tensor([4, 0, 2]))
    assert spread.side[[4, 0, 2]].tolist() == [1, -1, 1]
    assert target.score().at(torch.tensor([1])) == ig.targets.SideProbability(torch.tensor([-1]))
    ig.testing.check_target(target, 3 * wave(3, 1))


@pytest.mark.parametrize("side", [torch.tensor(1), torch.tensor([0, 1]), torch.ones(2, 1)])
def test_sides_are_one_or_minus_one(side: Tensor) -> None:
    with pytest.raises(ig.errors.TargetError, match="1 or -1"):
        ig.targets.PredictedSide(side)


def test_sides_are_one_for_each_example() -> None:
    with pytest.raises(ig.errors.TargetError, match="2 sides for 5 examples"):
        ig.explain(lambda z: z.sum(1), wave(5, 6), target=ig.targets.PredictedSide(SIDE[:2]))
