"""What the model is asked of inputs and starts: once per call, and not once more for every question.

Two rows of each call are the exception: they are asked about again, to know that rows do not depend on one another (tests/test_rows.py).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model.row_independence import ROWS, RowCheck
from tests.problems import Counting, Scaled, filled, relu_mlp, sure, wave

B, R = 5, 3
X = wave(B, 6, phase=0.3)
CLASSES = torch.tensor([0, 2, 1, 0, 2])
REFERENCES = wave(R, 6, phase=1)
FIXED = ig.rules.GaussLegendre(4)


@pytest.fixture
def model() -> Counting:
    return Counting(relu_mlp())


def run(model: Counting, target: Any, method: Any, **options: Any) -> ig.Attribution:
    model.reset()
    made = ig.explain(model, X, target=target, method=method, **options)
    assert model.gradients == made.cost.gradients
    return made


def right(made: ig.Attribution, model: nn.Module, target: Any) -> None:
    """What was remembered is what the model says."""
    field = ig.TorchField(model, target)
    torch.testing.assert_close(made.output, field.value(X), rtol=0, atol=1e-12)
    start = torch.stack([field.value(one) for one in made.baselines])
    torch.testing.assert_close(made.change, field.value(X) - start, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "target", ["predicted", CLASSES, ig.targets.Probability(CLASSES), ig.targets.Margin(0, 1)]
)
def test_one_baseline_for_all(model: Counting, target: Any, quiet: None) -> None:
    """F(x) of all targets comes from one pass, and F(0) is the same for all examples."""
    made = run(model, target, "integrated", rule=FIXED)
    assert model.values == B + 1 + ROWS
    assert model.gradients == 4 * B
    right(made, model, made.target)


def test_shared_references(model: Counting, quiet: None) -> None:
    for baseline in (
        REFERENCES,
        ig.baselines.Given(REFERENCES),
        ig.baselines.Sample(REFERENCES, R),
    ):
        made = run(model, "predicted", "expected", baseline=baseline, rule=FIXED)
        assert model.values == B + R + ROWS
        right(made, model, made.target)


def test_references_of_their_own(model: Counting, quiet: None) -> None:
    own = wave(R, B, 6, phase=1)
    made = run(model, "predicted", "expected", baseline=ig.baselines.Given(own), rule=FIXED)
    assert model.values == B + R * B + ROWS
    right(made, model, made.target)


@pytest.mark.parametrize(
    "target", [CLASSES, lambda out: out[:, 0]], ids=["of the outputs", "a callable"]
)
def test_both_ends_are_asked_about_in_one_call(model: Counting, target: Any, quiet: None) -> None:
    """A call for the nodes, one for the check of rows, and one for F at x and where paths begin."""
    own, calls = ig.baselines.Given(wave(R, B, 6, phase=1)), []
    model.register_forward_hook(lambda _, passed, __: calls.append(len(passed[0])))
    made = run(model, target, "expected", baseline=own, rule=FIXED, batch_size=4 * R * B)
    assert sorted(calls) == [ROWS, B + R * B, 4 * R * B]
    right(made, model, made.target)
    calls.clear()  # and as many rows in calls of seven
    run(model, target, "expected", baseline=own, rule=FIXED, batch_size=7)
    assert sum(calls) == ROWS + B + R * B + 4 * R * B
    assert max(calls) == 7


def test_blocks_of_references_ask_for_the_inputs_once(
    model: Counting, monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 2 * X.numel())
    run(model, "predicted", "expected", baseline=wave(7, 6, phase=1), rule=FIXED)
    assert model.values == B + 7 + ROWS


@pytest.mark.parametrize(("target", "asked"), [("predicted", B), (CLASSES, 0)])
def test_adaptive_asks_for_nothing_more(model: Counting, target: Any, asked: int) -> None:
    """F at both ends comes with the chords."""
    made = run(model, target, "integrated", tol=0.05)
    assert model.values == asked + ROWS
    right(made, model, made.target)
    run(model, target, "expected", baseline=REFERENCES, rule=ig.rules.Adaptive(0.05))
    assert model.values == asked + ROWS


def test_one_example_is_nothing_special(model: Counting, quiet: None) -> None:
    model.reset()
    made = ig.explain(
        model, X[:1], target="predicted", method="expected", baseline=REFERENCES, rule=FIXED
    )
    assert model.values == 1 + R + ROWS
    start = ig.TorchField(model, made.target).value(REFERENCES[:, None], 2)
    torch.testing.assert_close(made.output - made.change, start, rtol=0, atol=1e-12)


def inputs_seen(model: Counting) -> list[Tensor]:
    """Rows that were run for their values alone."""
    seen: list[Tensor] = []
    model.register_forward_pre_hook(
        lambda _, args: None if torch.is_grad_enabled() else seen.append(args[0].clone())
    )
    return seen


@pytest.mark.parametrize("target", ["predicted", CLASSES])
@pytest.mark.parametrize("rule", [FIXED, ig.rules.Adaptive(0.05)], ids=repr)
def test_weighted_asks_for_the_inputs_once(
    target: Any, rule: ig.rules.Rule, monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    """Prediction, logit and class probability are read off one forward pass of x; what is asked again on purpose aside."""
    monkeypatch.setattr(RowCheck, "check", lambda *_, **__: None)
    model = Counting(sure(relu_mlp(), torch.zeros(6).double()))
    seen = inputs_seen(model)
    made = run(model, target, "weighted", baseline=REFERENCES, rule=rule, fill=0.0)
    rows = torch.cat(seen)
    for x in X:
        assert int((rows == x).all(1).sum()) == 1
    for one in REFERENCES:
        assert int((rows == one).all(1).sum()) == (1 if rule == FIXED else 0)
    right(made, model, made.target)


def test_the_weights_are_those_of_the_probability(quiet: None) -> None:
    """What was remembered is read as a probability where that is asked for: weights as with a field that remembers nothing."""
    model = sure(relu_mlp(), torch.zeros(6).double())
    method = ig.methods.weighted(REFERENCES, rule=FIXED, fill=0.0)
    made = ig.explain(model, X, target="predicted", method=method)
    field = ig.TorchField(model, model(X).argmax(1))
    fitness = ig.weightings.Fitness(ig.baselines.Constant(0.0))(made.shares, X, field)
    assert torch.equal(made.weights, fitness.weights)
    assert len(made.fitness.unique()) > 1


# --- where it may not -------------------------------------------------------------------------------------------------


def test_extra_arguments_make_starts_differ(quiet: None) -> None:
    """One start, but a scale for each example: it is asked for with every one of them."""
    model = Counting(filled(Scaled()))
    x, scale = wave(B, 4), 1 + 0.3 * wave(B)
    references = wave(R, 4, phase=1)
    made = ig.explain(
        model,
        x,
        target=CLASSES,
        method="expected",
        baseline=references,
        rule=FIXED,
        extra={"scale": scale},
    )
    assert model.values == B + R * B + ROWS
    with torch.no_grad():
        start = torch.stack(
            [model.inner(one.expand(B, 4), scale)[torch.arange(B), CLASSES] for one in references]
        )
        output = model.inner(x, scale)[torch.arange(B), CLASSES]
    torch.testing.assert_close(made.output, output, rtol=0, atol=1e-12)
    torch.testing.assert_close(made.change, output - start, rtol=0, atol=1e-12)


def test_a_number_beside_the_inputs_is_no_obstacle(quiet: None) -> None:
    inner = filled(Scaled())
    model = Counting(lambda z, shift: inner(z, torch.ones(len(z)).double(), shift))
    x = wave(B, 4)
    made = ig.explain(model, x, target=CLASSES, baseline=0.25, rule=FIXED, extra={"shift": 0.3})
    assert model.values == B + 1 + ROWS
    with torch.no_grad():
        start = inner(torch.full((1, 4), 0.25).double(), torch.ones(1).double(), 0.3)[0, CLASSES]
    torch.testing.assert_close(made.output - made.change[0], start, rtol=0, atol=1e-12)


def test_functions_of_the_outputs_are_asked_themselves(model: Counting, quiet: None) -> None:
    """What a function of one's own makes of outputs is not read off what was remembered: it may look at the example."""
    shift = wave(B)
    target = ig.targets.Custom(lambda outputs, own: outputs[:, 0] * own, shift)
    made = run(model, target, "integrated", rule=FIXED)
    assert model.values == 2 * B + ROWS
    with torch.no_grad():
        torch.testing.assert_close(made.output, model(X)[:, 0] * shift, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            made.change[0], (model(X) - model(0 * X))[:, 0] * shift, rtol=0, atol=1e-12
        )


def test_nothing_is_remembered_from_one_call_to_the_next(model: Counting, quiet: None) -> None:
    """The inputs may have been written to in between, and the model trained."""
    field = ig.TorchField(model, CLASSES)
    method = ig.methods.integrated(rule=FIXED)
    x = X.clone()
    first = method(field, x)
    x += 0.5
    second = method(field, x)
    with torch.no_grad():
        torch.testing.assert_close(
            second.output, model(x)[torch.arange(B), CLASSES], rtol=0, atol=1e-12
        )
    assert not torch.isclose(first.output, second.output).any()


def test_half_precision_reads_back_in_single(quiet: None) -> None:
    model = relu_mlp().to(torch.bfloat16)
    made = ig.explain(model, X.to(torch.bfloat16), target="predicted", rule=FIXED)
    assert made.output.dtype == torch.float32
    assert made.change.dtype == torch.float32
