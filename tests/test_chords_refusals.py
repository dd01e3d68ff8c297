"""Where chords cannot be had: the operation, or the whole pass, is done without them, rightly, and it is said why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import integrand as ig
from integrand.backprop.chords import ChordMode
from integrand.backprop.chords.table import TABLE, Entry
from integrand.errors import NonFiniteGradient
from tests.problems import brute_force, filled, wave

STARTS, ENDS = wave(3, 6, phase=0.7, scale=0.8), wave(3, 6, phase=2.9, scale=0.8)
PAIRS = torch.stack([STARTS, ENDS], 1).flatten(0, 1)
INDEX, BEFORE = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 2, 2, 4, 4])

ENERGY = filled(nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))).requires_grad_(False)
HIDDEN, HEAD = ENERGY[0], ENERGY[2]


def watched(x: Tensor) -> Tensor:
    return x if x.requires_grad else x.detach().requires_grad_()


def forces(x: Tensor) -> Tensor:
    x = watched(x)
    return -torch.autograd.grad(ENERGY(x).sum(), x, create_graph=True)[0]


def small_term(x: Tensor) -> Tensor:
    """A gradient so small that chords which leave it out would add up to within a hundredth."""
    x = watched(x)
    out = ENERGY(x)
    return out + 1e-3 * torch.autograd.grad(out.sum(), x, create_graph=True)[0][:, :3]


def residual(x: Tensor) -> Tensor:
    x = watched(x)
    u = ENERGY(x)[:, :1]
    (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first[:, 0].sum(), x, create_graph=True)
    return second[:, :1] + u * first[:, :1]


def behind_a_chord(x: Tensor) -> Tensor:
    h = watched(F.gelu(HIDDEN(x)))
    out = HEAD(h.tanh())
    return out + (h * torch.autograd.grad(out.sum(), h, create_graph=True)[0]).sum(1, keepdim=True)


def saliency(x: Tensor) -> Tensor:
    """A gradient as a number: what it is multiplied with moves, it does not."""
    x = watched(x)
    return x * torch.autograd.grad(ENERGY(x).sum(), x)[0].detach()


def backwards(x: Tensor) -> Tensor:
    leaf = x.detach().clone().requires_grad_()
    ENERGY(leaf).square().sum().backward()
    assert leaf.grad is not None
    return x * leaf.grad


def unrolled(x: Tensor) -> Tensor:
    y = torch.zeros(len(x), 3, dtype=x.dtype).requires_grad_()
    for _ in range(3):
        energy = (ENERGY(x) - y).square().sum() + (y.tanh() * ENERGY(x)).sum()
        y = y - 0.2 * torch.autograd.grad(energy, y, create_graph=True)[0]
    return y


def hessian(x: Tensor) -> Tensor:
    return torch.vmap(torch.func.hessian(lambda row: ENERGY(row)[0]))(x).diagonal(dim1=1, dim2=2)


INNER: dict[str, Callable[[Tensor], Tensor]] = {
    "forces": forces,
    "a small term": small_term,
    "residual of an equation": residual,
    "behind a chord": behind_a_chord,
    "saliency": saliency,
    "backward()": backwards,
    "unrolled descent": unrolled,
    "func.grad": lambda x: torch.func.grad(lambda z: ENERGY(z)[:, 0].sum())(x) + ENERGY(x)[:, :1],
    "func.vjp": lambda x: torch.func.vjp(ENERGY, x)[1](torch.ones(len(x), 3, dtype=x.dtype))[0],
    "func.hessian": hessian,
}
DETACHED = ("saliency", "backward()")  # no gradient of F leads through it, so that no map adds up
FORWARD: dict[str, Callable[[Tensor], Tensor]] = {
    "func.jvp": lambda x: torch.func.jvp(ENERGY, (x,), (torch.ones_like(x),))[1] + ENERGY(x),
    "vmap": torch.vmap(lambda row: F.gelu(HIDDEN(row)).cumsum(0)),
}


def enabled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def model(x: Tensor) -> Tensor:
        with torch.enable_grad():
            return function(x)

    return model


@pytest.mark.parametrize("name", [name for name in [*INNER, *FORWARD] if name not in DETACHED])
def test_gradients_inside_the_model(name: str) -> None:
    """Numbers against brute force."""
    function = enabled((INNER | FORWARD)[name])
    field = ig.TorchField(function, 0)
    truth = brute_force(lambda z: function(z)[:, 0], STARTS, ENDS, 400)
    found = ig.Method(ig.baselines.Given(STARTS[None]), rule=ig.rules.Adaptive(1e-4))(field, ENDS)
    assert (
        float(((found.values - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).max())
        < 3e-4
    )
    if name in INNER:
        assert not field.chordal
        assert field.without_chords == "the model asks for a gradient inside"


@pytest.mark.parametrize("name", list(INNER))
def test_one_interval_is_the_mean_of_both_ends(name: str) -> None:
    field = ig.TorchField(enabled(INNER[name]), 0)
    found = field.evaluate_chords(PAIRS, INDEX, BEFORE)
    with torch.no_grad():
        torch.testing.assert_close(
            found.value, enabled(INNER[name])(PAIRS)[:, 0], rtol=0, atol=1e-14
        )
    expected = (field.gradient(STARTS) + field.gradient(ENDS)) / 2
    torch.testing.assert_close(found.gradient[1::2], expected, rtol=0, atol=1e-13)
    assert found.passes == 2
    assert field.evaluate_chords(PAIRS, INDEX, BEFORE).passes == 1


@pytest.mark.parametrize("name", ["forces", "a small term"])
def test_several_targets_of_a_model_with_a_gradient_inside(name: str) -> None:
    field = ig.TorchField(enabled(INNER[name]), 0)
    several = ig.fields.MultiTarget(field, [ig.targets.Logit(0), ig.targets.Logit(2)])
    which = torch.tensor([0, 1]).repeat(len(PAIRS))
    index, before = (2 * each.repeat_interleave(2) + which for each in (INDEX, BEFORE))
    found = several.evaluate_chords(
        PAIRS.repeat_interleave(2, 0), index, before
    ).gradient.unflatten(0, (3, 2, 2))
    for number, target in enumerate((0, 2)):
        own = field.with_target(target)
        expected = (own.gradient(STARTS) + own.gradient(ENDS)) / 2
        torch.testing.assert_close(found[:, 1, number], expected, rtol=0, atol=1e-13)
        assert several.fields[number].without_chords == "the model asks for a gradient inside"


def test_std_of_a_constant() -> None:
    """torch's slope of a deviation that is zero is zero, and so is its chord between two that are."""

    def model(x):
        return ((x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 0.1) * wave(6)).sum(1)

    start = torch.zeros_like(ENDS)
    found = ig.Method(rule=ig.rules.Adaptive(1e-4))(ig.TorchField(model, ig.targets.Output()), ENDS)
    truth = brute_force(model, start, ENDS, 4000)
    assert float((found.values - truth).norm() / truth.norm()) < 3e-4
    assert float(found.gap.max()) < 1e-6


# --- faults of chords ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChordMode, "strict", False)


def broken(monkeypatch: pytest.MonkeyPatch, function: Any, make: Any) -> None:
    monkeypatch.setitem(TABLE, function, Entry(make, composite=False, complex=True))


def fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a fault of its own")


def test_an_operation_whose_chord_fails_is_done_without(
    monkeypatch: pytest.MonkeyPatch, lenient: None
) -> None:
    """Only that one: a sigmoid of what does not change beside a ReLU that bends still adds up."""
    broken(monkeypatch, torch.sigmoid, fails)
    flat = lambda x: F.relu(x).sum(1) + 1e-9 * torch.sigmoid(x).sum(1)  # noqa: E731
    field = ig.TorchField(flat, ig.targets.Output())
    found = field.evaluate_chords(PAIRS, INDEX, BEFORE)
    step = ENDS - STARTS
    torch.testing.assert_close(
        found.gradient[1::2], (F.relu(ENDS) - F.relu(STARTS)) / step, rtol=0, atol=1e-8
    )
    assert field.chordal
    field = ig.TorchField(lambda x: torch.sigmoid(3 * x).sum(1), ig.targets.Output())
    found = field.evaluate_chords(PAIRS, INDEX, BEFORE)
    expected = (field.gradient(STARTS) + field.gradient(ENDS)) / 2
    torch.testing.assert_close(found.gradient[1::2], expected, rtol=0, atol=1e-14)
    assert field.without_chords is not None
    assert "sigmoid: RuntimeError: a fault of its own" in field.without_chords


def test_tests_see_such_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, torch.sigmoid, fails)
    field = ig.TorchField(lambda x: torch.sigmoid(x).sum(1), ig.targets.Output())
    with pytest.raises(RuntimeError, match="a fault of its own"):
        field.evaluate_chords(PAIRS, INDEX, BEFORE)


def test_a_chord_that_fails_on_the_way_back(monkeypatch: pytest.MonkeyPatch, lenient: None) -> None:
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, u: Tensor) -> Tensor:
            return u.sigmoid()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise RuntimeError("no way back")

    broken(monkeypatch, torch.sigmoid, lambda rows, u: Bad.apply(u))
    field = ig.TorchField(lambda x: torch.sigmoid(x).sum(1), ig.targets.Output())
    found = field.evaluate_chords(PAIRS, INDEX, BEFORE)
    expected = (field.gradient(STARTS) + field.gradient(ENDS)) / 2
    torch.testing.assert_close(found.gradient[1::2], expected, rtol=0, atol=1e-14)
    assert (field.chordal, field.without_chords) == (False, "RuntimeError: no way back")
    assert field.with_target(ig.targets.Output()).chordal


def test_chords_that_are_not_finite_where_gradients_are(
    monkeypatch: pytest.MonkeyPatch, lenient: None
) -> None:
    broken(monkeypatch, torch.sigmoid, lambda rows, u: torch.sigmoid(u) + 0 * u * float("inf"))
    field = ig.TorchField(lambda x: torch.sigmoid(x).sum(1), ig.targets.Output())
    found = field.evaluate_chords(PAIRS, INDEX, BEFORE)
    assert found.gradient.isfinite().all()
    assert found.value.isfinite().all()
    assert not field.chordal
    with pytest.raises(NonFiniteGradient):  # what the model does itself is said as ever
        ig.TorchField(lambda x: (0 * x).sqrt().sum(1), ig.targets.Output()).evaluate_chords(
            PAIRS, INDEX, BEFORE
        )


def test_what_the_model_raises_is_the_models(lenient: None) -> None:
    field = ig.TorchField(lambda x: torch.sigmoid(x @ torch.ones(5, 2).double()), 0)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        field.evaluate_chords(PAIRS, INDEX, BEFORE)
    assert field.chordal


def test_out_of_memory_is_not_taken_for_a_fault(
    monkeypatch: pytest.MonkeyPatch, lenient: None
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    broken(monkeypatch, torch.sigmoid, full)
    field = ig.TorchField(lambda x: torch.sigmoid(x).sum(1), ig.targets.Output())
    with pytest.raises(torch.OutOfMemoryError):
        field.evaluate_chords(PAIRS, INDEX, BEFORE)
    assert field.chordal


def test_forward_mode_inside(lenient: None) -> None:
    from torch.autograd import forward_ad

    def model(x: Tensor) -> Tensor:
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(
                ENERGY(forward_ad.make_dual(x, torch.ones_like(x)))
            ).tangent
            assert tangent is not None
            return tangent

    truth = brute_force(lambda z: model(z)[:, 0], STARTS, ENDS, 400)
    found = ig.Method(ig.baselines.Given(STARTS[None]), rule=ig.rules.Adaptive(1e-4))(
        ig.TorchField(model, 0), ENDS
    )
    assert float((found.values - truth).norm() / truth.norm()) < 3e-4
