"""Running out of memory, from the front door: the map is that of a run that never did, and nothing is paid for twice on the bill."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model.batching import packer_for
from tests.problems import Counting, Observed, tanh_mlp, wave

X = wave(5, 6)
MOST = 7


def really(shape: tuple[int, ...]) -> Exception:
    """The error of an allocation that no machine can serve."""
    try:
        torch.empty(shape)
    except (RuntimeError, MemoryError) as error:
        return error
    raise AssertionError("this machine has more memory than the test thought possible")


ERRORS: dict[str, Exception] = {
    "this machine's": really((1 << 58,)),
    "CUDA": torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 15.50 MiB is free."
    ),
    "CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
        "4611686018427387904 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "Windows": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
    ),
    "MPS": RuntimeError(
        "MPS backend out of memory (MPS allocated: 17.79 GB, other allocations: 1.05 MB, max allowed: 18.13 GB). Tried to "
        "allocate 512.00 MB on private pool."
    ),
    "Python": MemoryError("Unable to allocate 8.00 EiB for an array"),
}


class _Fails(torch.autograd.Function):
    """The identity, until its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, error: Exception) -> Tensor:
        ctx.error = error
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        raise ctx.error


class Cramped(Observed):
    """A model with room for ``MOST`` rows, in its forward or its backward pass."""

    def __init__(self, inner: nn.Module, error: Exception, place: str) -> None:
        super().__init__()
        self.inner, self.error, self.place = Counting(inner), error, place
        self.failures = 0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) <= MOST:
            return self.inner(x)
        if self.place == "backward":
            if not torch.is_grad_enabled():
                return self.inner.inner(x)
            self.failures += 1
            return _Fails.apply(self.inner.inner(x), self.error)
        self.failures += 1
        raise self.error


METHODS: dict[str, dict[str, Any]] = {
    "integrated": dict(baseline=0.5, rule=ig.rules.GaussLegendre(20)),
    "trapezoids": dict(method="integrated", rule=ig.rules.Midpoint(), path=ig.paths.Straight(12)),
    "tolerance": dict(method="integrated", tol=0.01),
    "expected": dict(baseline=wave(9, 6, phase=1), draws=27),
    "weighted": dict(baseline=[0.0, 1.0, 0.5], fill=0.0, rule=ig.rules.Midpoint(10)),
    "scouted": dict(
        method="weighted",
        baseline=[0.0, 1.0, 0.5],
        fill=0.0,
        rule=ig.rules.Midpoint(10),
        scout=2,
        keep=0.25,
    ),
    "ig2": dict(baseline=wave(3, 6, phase=1), representation="inner.1", steps=4),
}


def explained(model: Callable[..., Any], name: str, batch_size: int | None = 64) -> ig.Attribution:
    options = {"method": name, **METHODS[name]}
    if "representation" in options and isinstance(model, Cramped):
        options["representation"] = "inner.inner.1"
    return ig.explain(model, X, target=0, batch_size=batch_size, **options)


def assert_the_same(small: ig.Attribution, large: ig.Attribution) -> None:
    torch.testing.assert_close(small.values, large.values, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(small.residual, large.residual, rtol=0, atol=1e-12)
    if large.fitness is not None:
        assert torch.equal(small.fitness, large.fitness)


@pytest.mark.parametrize("place", ["forward", "backward"])
@pytest.mark.parametrize("name", list(METHODS))
def test_the_map_is_that_of_a_run_with_memory_enough(name: str, place: str, quiet: None) -> None:
    inner = tanh_mlp()
    roomy, cramped = Counting(inner), Cramped(inner, ERRORS["CPU"], place)
    large, small = explained(roomy, name), explained(cramped, name)
    assert cramped.failures
    assert_the_same(small, large)
    if name != "tolerance":  # chords that are cut take a row along again
        assert small.cost.gradients == large.cost.gradients == cramped.inner.gradients
        assert small.cost.values == large.cost.values


@pytest.mark.parametrize("place", ["forward", "backward"])
@pytest.mark.parametrize("error", list(ERRORS))
def test_every_way_of_saying_so_is_understood(error: str, place: str, quiet: None) -> None:
    inner = tanh_mlp()
    cramped = Cramped(inner, ERRORS[error], place)
    assert_the_same(explained(cramped, "weighted"), explained(inner, "weighted"))
    assert cramped.failures


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_the_size_that_is_found_fits_and_is_remembered(place: str, quiet: None) -> None:
    """Nothing given: the first size is too large, the one that is found stays with the model."""
    cramped = Cramped(tanh_mlp(), ERRORS["CUDA"], place)
    first = explained(cramped, "integrated", batch_size=None)
    packer = packer_for(cramped, None)
    assert 1 <= packer.size(X[0], "gradient") <= MOST
    failed = cramped.failures
    assert failed > 0
    again = explained(cramped, "integrated", batch_size=None)
    assert cramped.failures == failed
    assert_the_same(again, first)


def test_what_did_not_fit_is_not_held_while_the_rest_is_done(quiet: None) -> None:
    """The error is dropped before the next try: its traceback holds the tensors that were too large."""

    large: list[weakref.ref[Tensor]] = []

    class Hoarding(Cramped):
        def forward(self, x: Tensor) -> Tensor:
            assert [tensor for tensor in large if tensor() is not None] == []
            if len(x) > MOST:
                workspace = torch.zeros(64, 1000)
                large.append(weakref.ref(workspace))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    explained(Hoarding(tanh_mlp(), ERRORS["CUDA"], "forward"), "integrated")
    assert large
