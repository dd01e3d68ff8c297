"""Softplus in place of ReLUs: another F, with second derivatives, and the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import integrand as ig
from tests.problems import filled, wave

BETA = 7.0
X = wave(3, 4, phase=0.4)
U = torch.linspace(-8, 9, 61, dtype=torch.float64).reshape(1, -1)


def s(u: Tensor) -> Tensor:
    """log(1 + exp(β u))/β, written so that it does not overflow."""
    return torch.logaddexp(BETA * u, torch.zeros_like(u)) / BETA


SLOPE = torch.tensor([0.3], dtype=torch.float64)

OPERATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "nn.ReLU": (nn.ReLU(), s),
    "nn.ReLU in place": (nn.ReLU(inplace=True), s),
    "F.relu": (F.relu, s),
    "F.relu positional in place": (lambda u: F.relu(u, True), s),
    "torch.relu": (torch.relu, s),
    "torch.relu_": (torch.relu_, s),
    "Tensor.relu": (lambda u: u.relu(), s),
    "Tensor.relu_": (lambda u: u.relu_(), s),
    "clamp": (lambda u: u.clamp(min=0), s),
    "clamp positional": (lambda u: u.clamp(0), s),
    "clamp_min": (lambda u: torch.clamp_min(u, 0), s),
    "nn.ReLU6": (nn.ReLU6(), lambda u: s(u) - s(u - 6)),
    "F.relu6 in place": (lambda u: F.relu6(u, inplace=True), lambda u: s(u) - s(u - 6)),
    "nn.Hardtanh": (nn.Hardtanh(-2.0, 3.0), lambda u: -2 + s(u + 2) - s(u - 3)),
    "nn.LeakyReLU": (nn.LeakyReLU(0.2), lambda u: 0.2 * u + 0.8 * s(u)),
    "F.leaky_relu": (F.leaky_relu, lambda u: 0.01 * u + 0.99 * s(u)),
    "F.leaky_relu named": (
        lambda u: F.leaky_relu(input=u, negative_slope=0.5, inplace=True),
        lambda u: 0.5 * u + 0.5 * s(u),
    ),
    "F.prelu": (lambda u: F.prelu(u, SLOPE), lambda u: 0.3 * u + 0.7 * s(u)),
    "F.rrelu": (lambda u: F.rrelu(u, 0.1, 0.3, False, True), lambda u: 0.2 * u + 0.8 * s(u)),
}
"""Every spelling, and what stands for it."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_spelling_is_smoothed(name: str) -> None:
    operation, smooth = OPERATIONS[name]

    def total(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda z: (function(z + 0) * wave(61)).sum(1, keepdim=True)

    field = ig.TorchField(total(operation), 0, softplus=BETA)
    by_hand = ig.fields.Function(lambda z: total(smooth)(z)[:, 0])
    torch.testing.assert_close(field.value(U), by_hand.value(U), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(field.gradient(U), by_hand.gradient(U), rtol=1e-9, atol=1e-12)
    directions = torch.ones(1, *U.shape, dtype=torch.float64)
    index = torch.zeros(1, dtype=torch.long)
    torch.testing.assert_close(
        field.curvature(U, index, directions).products,
        by_hand.curvature(U, index, directions).products,
        rtol=1e-8,
        atol=1e-11,
    )


def test_channels_of_a_prelu_keep_their_slopes() -> None:
    slopes = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    field = ig.TorchField(lambda z: F.prelu(z, slopes).flatten(1).sum(1, keepdim=True), 0)
    x = wave(2, 3, 2, 2, scale=3.0)
    slope = slopes[:, None, None]
    expected = (slope * x + (1 - slope) * s(x)).flatten(1).sum(1)
    torch.testing.assert_close(field.with_softplus(BETA).value(x), expected)


def test_in_place_writes_over_its_input() -> None:
    def model(z: Tensor) -> Tensor:
        h = z * 1
        F.relu(h, inplace=True)
        return h.sum(1, keepdim=True)

    field = ig.TorchField(model, 0, softplus=BETA)
    torch.testing.assert_close(field.value(X), s(X).sum(1))


@pytest.mark.parametrize(
    "guard", [lambda u: u.clamp(min=1e-3), lambda u: u.clamp(0, 2), lambda u: u.clamp(max=0)]
)
def test_clamps_that_are_no_relu_stay(guard: Callable[[Tensor], Tensor]) -> None:
    field = ig.TorchField(lambda z: guard(z).sum(1, keepdim=True), 0, softplus=BETA)
    torch.testing.assert_close(field.value(X), guard(X).sum(1), rtol=0, atol=0)


def relu_net() -> nn.Module:
    return filled(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    )


def softplus_net() -> nn.Module:
    return filled(
        nn.Sequential(
            nn.Linear(4, 6), nn.Softplus(BETA, 60), nn.Linear(6, 5), nn.Softplus(BETA, 60),
            nn.Linear(5, 3),
        )
    )  # fmt: skip


def test_interactions_are_those_of_the_smoothed_network() -> None:
    made = ig.interactions(relu_net(), X, target=1, softplus=BETA, tol=1e-6)
    other = ig.interactions(softplus_net(), X, target=1, tol=1e-6)
    torch.testing.assert_close(made.values, other.values, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(made.output, softplus_net()(X)[:, 1])
    assert made.softplus == BETA
    assert made.kinks == ()
    assert bool((made.gap < 1e-6).all())
    smooth = ig.explain(ig.TorchField(relu_net(), 1, softplus=BETA), X, tol=1e-4)
    torch.testing.assert_close(made.attributions, smooth.values, rtol=0, atol=1e-4)


def test_kinks_are_warned_of_by_name() -> None:
    with pytest.warns(ig.errors.KinkWarning, match="goes through relu,.*softplus=10"):
        made = ig.interactions(relu_net(), X, target=1)
    assert made.kinks == ("relu",)
    off = made.values * (1 - torch.eye(4))
    assert bool((off == 0).all())  # a piecewise linear function has no second derivatives
    assert float(made.gap.max()) > 0.1
    assert not bool(made.converged[made.gap.argmax()])


def test_kinks_that_are_left_are_told_of() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten())
    with pytest.warns(ig.errors.KinkWarning, match="max_pool1d.*Mean pooling"):
        made = ig.interactions(filled(model), X[:, None, :], target=0, softplus=BETA)
    assert made.kinks == ("max_pool1d",)


def test_predicted_is_what_the_model_predicts_itself() -> None:
    model = relu_net()
    made = ig.interactions(model, X, target="predicted", softplus=0.01)
    with torch.no_grad():
        assert made.target == ig.targets.Logit(model(X).argmax(1))


class Hooked(nn.Module):
    """A checkpoint that runs again on the way back, and a failure on request."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.fails = False

    def forward(self, z: Tensor) -> Tensor:
        hidden = checkpoint(lambda u: self.first(u).relu(), z, use_reentrant=False)
        if self.fails:
            raise ValueError("on request")
        return self.last(hidden)


def test_checkpoints_run_again_as_they_ran() -> None:
    model = filled(Hooked())
    made = ig.interactions(model, X, target=0, softplus=BETA, tol=1e-6)
    plain = nn.Sequential(model.first, nn.ReLU(), model.last)
    other = ig.interactions(plain, X, target=0, softplus=BETA, tol=1e-6)
    torch.testing.assert_close(made.values, other.values, rtol=0, atol=1e-12)


def test_the_model_is_as_it_was_also_after_a_failure() -> None:
    model = filled(Hooked())
    with torch.no_grad():
        before = model(X)
    model.fails = True
    with pytest.raises(ig.errors.ModelError, match="on request"):
        ig.interactions(model, X, target=0, softplus=BETA)
    model.fails = False
    with torch.no_grad():
        assert torch.equal(model(X), before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(F.relu(X), X.clamp_min(0))  # nothing is left on


def test_optimized_models_are_smoothed_as_they_are() -> None:
    model = filled(
        nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
    ).float()
    x = wave(2, 1, 3, 3).float()
    plain = ig.TorchField(model, 0, softplus=BETA)
    fast = ig.TorchField(model, 0, softplus=BETA, optimize=True)
    torch.testing.assert_close(fast.value(x), plain.value(x), rtol=1e-5, atol=1e-6)


def test_the_field_is_typed_back_and_goes_with_others() -> None:
    field = ig.TorchField(relu_net(), 1, softplus=BETA)
    assert repr(field) == "TorchField(Sequential, Logit(1), softplus=7)"
    assert repr(field.with_softplus(3.0)) == "TorchField(Sequential, Logit(1), softplus=3)"
    twice = ig.TorchField(relu_net(), 1).with_softplus(3.0).with_softplus(BETA)
    torch.testing.assert_close(twice.value(X), field.value(X), rtol=0, atol=0)
    torch.testing.assert_close(
        field.with_target(2).value(X), softplus_net()(X)[:, 2].detach(), rtol=0, atol=1e-12
    )
    other = field.with_model(filled(relu_net(), phase=1.0))
    assert other.softplus == BETA


@pytest.mark.filterwarnings("ignore:.torch.jit.trace.:DeprecationWarning")
def test_nothing_else_can_be_smoothed() -> None:
    with pytest.raises(ig.errors.ModelError, match="could be smoothed"):
        ig.interactions(ig.fields.Function(lambda z: z.sum(1)), X, softplus=1.0)
    scripted: Any = torch.jit.trace(relu_net(), X)
    with pytest.raises(ig.errors.ModelError, match="scripted"):
        ig.interactions(scripted, X, target=0, softplus=1.0)
