"""Geometrically Guided Integrated Gradients: the authors' numbers, and the loop restated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import integrand as ig
from integrand import testing
from tests.problems import Counting, img, img_input, relu_mlp, tanh_mlp, wave

REFERENCES = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())
X = wave(5, 6, phase=0.3)


@pytest.mark.parametrize(
    ("gather", "key"), [("max", "max"), ("trapezoid", "trap"), ("mean", "mean")]
)
def test_the_authors_numbers(gather: str, key: str) -> None:
    """m = 20, T = 10, rate .01, the logit of the predicted class; theirs are in float32."""
    method = ig.methods.geometric(0.0, 20, 10, 0.01, gather)
    made = ig.explain(img, img_input(), target="predicted", method=method)
    expected = torch.tensor(REFERENCES[f"GGIG {key}"]["official"], dtype=torch.float64)
    torch.testing.assert_close(made.values.flatten(), expected, rtol=0, atol=1e-6)


def by_hand(
    model: Any, x: Tensor, b: Tensor, m: int, rounds: int, rate: float, gather: str, *, signed: bool
) -> Tensor:
    """One example, one start at a time."""
    best = []
    for i in range(m + 1):
        p = b + i / m * (x - b)
        largest = torch.full_like(x, -float("inf"))
        for _ in range(rounds):
            leaf = p.clone().requires_grad_()
            (g,) = torch.autograd.grad(model(leaf[None])[0, 1], leaf)
            largest = torch.maximum(largest, g if signed else g.abs())
            p = p + rate * g
        best.append(largest)
    if gather == "max":
        return torch.stack(best).amax(0)
    if gather == "mean":
        return sum(best) / (m + 1)
    return sum((best[i] + best[i + 1]) / 2 for i in range(m)) / m


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("gather", ["max", "trapezoid", "mean"])
@pytest.mark.parametrize("build", [tanh_mlp, relu_mlp])
def test_the_loop(build: Any, gather: str, signed: bool) -> None:
    model, b = build(), wave(6, phase=1)
    method = ig.methods.geometric(ig.baselines.Given(b[None]), 4, 5, 0.3, gather, signed)
    made = ig.explain(model, X, target=1, method=method)
    for row in range(5):
        expected = by_hand(model, X[row], b, 4, 5, 0.3, gather, signed=signed)
        torch.testing.assert_close(made.values[row], expected, rtol=0, atol=1e-12)
    if not signed:
        assert bool((made.values >= 0).all())


@given(
    steps=st.integers(1, 7),
    iterations=st.integers(1, 4),
    references=st.integers(1, 3),
    block=st.sampled_from([1, 13, 40, 1 << 20]),
    gather=st.sampled_from(["max", "trapezoid", "mean"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_blocks_do_not_matter(
    steps: int, iterations: int, references: int, block: int, gather: str, dtype: torch.dtype
) -> None:
    """Nodes and rows are taken in blocks of bounded size, so that memory is flat; the numbers are those of one block."""
    method = ig.methods.geometric(
        ig.baselines.Given(wave(references, 6, phase=1).to(dtype)), steps, iterations, 0.1, gather
    )
    field, x = ig.TorchField(tanh_mlp().to(dtype), 0), X.to(dtype)
    whole = method(field, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("integrand.rules.ascent._BLOCK_ELEMENTS", block)
        parts = method(field, x)
    assert whole.values.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(parts.values, whole.values, rtol=0, atol=tolerance)
    assert parts.cost.gradients == whole.cost.gradients == (steps + 1) * iterations * references * 5


@pytest.mark.parametrize("gather", ["max", "trapezoid", "mean"])
def test_the_rule_conforms(gather: str) -> None:
    testing.check_rule(ig.rules.Ascent(3, 2, 0.01, gather), linear=False)


class Peak(Counting):
    """Remembers how many rows it was given at most."""


def test_memory_is_flat_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrand.rules.ascent._BLOCK_ELEMENTS", 8 * X.numel())
    for steps in (20, 200):
        model = Peak(tanh_mlp())
        ig.explain(
            model, X, target=0, method=ig.methods.geometric(0.0, steps, 2), batch_size=10_000
        )
        assert model.largest == 8 * len(X)
        assert model.gradients == (steps + 1) * 2 * len(X)


def test_five_at_once_are_five_alone() -> None:
    method = ig.methods.geometric(0.25, 6, 4, 0.2)
    whole = ig.explain(tanh_mlp(), X, target=torch.tensor([0, 1, 2, 0, 1]), method=method)
    for b, target in enumerate([0, 1, 2, 0, 1]):
        alone = ig.explain(tanh_mlp(), X[b : b + 1], target=target, method=method)
        torch.testing.assert_close(alone.values[0], whole.values[b], rtol=0, atol=1e-12)


def test_without_steps_it_is_the_largest_gradient_on_the_line() -> None:
    """One iteration climbs nowhere; and a larger rate finds larger gradients of a convex function."""
    field = ig.fields.Function(lambda z: z.square().sum(1))
    x = torch.tensor([[1.0, -2.0, 0.5]]).double()
    still = ig.methods.geometric(0.0, 4, 1)(field, x)
    torch.testing.assert_close(still.values, (2 * x).clamp_min(0), rtol=0, atol=1e-14)
    climbed = ig.methods.geometric(0.0, 4, 4, 0.1)(field, x)
    torch.testing.assert_close(climbed.values, (2 * x * 1.2**3).clamp_min(0), rtol=0, atol=1e-14)
    both = ig.methods.geometric(0.0, 4, 4, 0.1, signed=False)(field, x)
    torch.testing.assert_close(both.values, (2 * x * 1.2**3).abs(), rtol=0, atol=1e-14)


def test_is_not_complete_and_says_so_quietly() -> None:
    made = ig.explain(tanh_mlp(), X, target=0, method=ig.methods.geometric(0.0, 4, 4))
    assert float(made.gap.max()) > 0.1
    assert not ig.methods.about("geometric").axioms["complete"]


def test_several_targets_layers_and_baselines() -> None:
    model = tanh_mlp()
    method = ig.methods.geometric([0.0, 0.5], 5, 3, 0.1)
    several = ig.explain_targets(model, X, targets=[0, 2], method=method)
    for target, found in zip([0, 2], several, strict=True):
        alone = ig.explain(model, X, target=target, method=method)
        torch.testing.assert_close(found.values, alone.values, rtol=0, atol=1e-12)
        each = [
            ig.explain(model, X, target=target, method=ig.methods.geometric(b, 5, 3, 0.1)).values
            for b in (0.0, 0.5)
        ]
        torch.testing.assert_close(found.values, (each[0] + each[1]) / 2, rtol=0, atol=1e-12)
    at_layer = ig.explain(
        model, X, target=0, method=ig.Layered("0", ig.methods.geometric(0.0, 5, 3, 0.1))
    )
    assert at_layer.values.shape == (5, 10)


def test_where_the_baseline_is_the_input_there_is_nothing() -> None:
    made = ig.explain(
        tanh_mlp(), X, target=0, method=ig.methods.geometric(ig.baselines.Given(X[None]), 3, 2)
    )
    assert bool((made.values == 0).all())
    assert made.cost.gradients == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is at least 1"),
        ({"iterations": 0}, "iterations is at least 1"),
        ({"rate": -1.0}, "rate is the length"),
        ({"rate": float("nan")}, "rate is the length"),
        ({"gather": "median"}, "'max', 'trapezoid', 'mean', not 'median'"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.methods.geometric(**options)


def test_climbs_that_run_away_are_told() -> None:
    """A rate far too large leads to where F is infinite."""
    with pytest.raises(ig.errors.NonFiniteGradient):
        ig.explain(
            lambda z: (z**4).exp(), X[:1], target=0, method=ig.methods.geometric(0.0, 2, 5, 1e3)
        )
