"""``ig.explain(tol=…)`` for every published method: what is reported, and what is true."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.catalogue import NEEDS, WRAPPERS
from tests.problems import sure, wave
from tests.test_adaptive import gelu_mlp, grown, relu_mlp

B = 16
X = wave(B, 8, phase=0.3, scale=1.2)
CLASSES = torch.arange(B) % 3
POOL = wave(4, 8, phase=1.1)
# Exact: a path that goes far out and comes back cancels, which is not known while it is walked.
CODEC = (torch.asinh, torch.sinh)
NETWORKS = {"gelu mlp": gelu_mlp, "relu mlp": relu_mlp}
FINE = ig.rules.Midpoint(1500)


def bordered(outputs: Tensor) -> Tensor:
    """A decision with both sides near the inputs."""
    return outputs[:, 0] - outputs[:, 1] + 0.5


ASKED: dict[str, tuple[float, dict[str, Any], dict[str, Any]]] = {
    # name: tolerance, how it is asked, and how the truth is
    "integrated": (0.02, {}, dict(rule=FINE)),
    "expected": (0.1, dict(baseline=POOL), dict(rule=FINE)),
    "latent_guided": (
        0.05,
        dict(codec=CODEC, steps=8, fraction=0.3, slerp=False, ends=3),
        dict(rule=ig.rules.Simpson(100)),
    ),
    "latent": (0.05, dict(codec=CODEC, steps=6, ends=3), dict(rule=ig.rules.Midpoint(100))),
    "manifold": (0.05, dict(codec=CODEC, points=7, ends=3), dict(rule=ig.rules.Midpoint(100))),
    "weighted": (0.05, dict(baseline=POOL, fill=0.0), dict(rule=FINE)),
    "ig2": (
        0.05,
        dict(baseline=POOL[:2], steps=5, rate=ig.paths.Relative(0.05)),
        dict(rule=ig.rules.Simpson(300)),
    ),
    "blur": (0.05, dict(sigma=2.0, steps=6, axes=(-1,)), dict(rule=ig.rules.Midpoint(250))),
    "left": (0.02, dict(above=None), dict(rule=FINE)),
    "guided": (0.05, dict(steps=8), dict(rule=ig.rules.Simpson(300))),
    "samp": (0.05, dict(steps=8), dict(rule=ig.rules.Simpson(300))),
    "nonuniform": (0.05, dict(steps=6, pilot=8), dict(rule=ig.rules.Midpoint(250))),
    "relaxed": (0.05, dict(corners=4, iterations=3), dict(rule=ig.rules.Midpoint(300))),
    "geodesic": (0.05, dict(baseline=0.0, points=POOL, neighbours=2), dict(rule=FINE)),
    "discretized": (
        0.05,
        dict(table=torch.cat([X, POOL, wave(40, 8, phase=2.1)]), neighbours=20, steps=5),
        dict(rule=ig.rules.Midpoint(250)),
    ),
    "adversarial": (
        0.05,
        dict(count=2, steps=8, rate=ig.paths.Relative(0.01)),
        dict(rule=ig.rules.Simpson(300)),
    ),
    "mfaba": (0.05, dict(steps=5, rate=0.2), dict(rule=ig.rules.Simpson(300))),
    "boundary": (0.05, dict(decision=bordered, clip=(-9.0, 9.0)), dict(rule=FINE)),
    "layer": (0.02, dict(site="1"), dict(rule=FINE)),
    "conductance": (0.05, dict(site="1", steps=8), dict(rule=ig.rules.Midpoint(200))),
}
"""A new method that takes a rule gets a line here, or the tests say so."""


def test_every_method_that_takes_a_rule_is_here() -> None:
    takes = {
        name
        for name, card in ig.methods.known().items()
        if "rule" in inspect.signature(card.build).parameters
    }
    elsewhere = {"pattern_guided", "gaussian_process", "region_neurons"}  # with tests of their own
    assert set(ASKED) == takes - set(NEEDS) - WRAPPERS - elsewhere


def model(name: str) -> nn.Module:
    return sure(grown(NETWORKS[name], 5), torch.zeros(8).double(), 3.0)


def truth(net: nn.Module, name: str, made: ig.Attribution) -> Tensor:
    """The exact map; of the weighted method, with the weights that were found."""
    _, options, fine = ASKED[name]
    exact = ig.explain(net, X, target=CLASSES, method=name, **options, **fine)
    if name != "weighted":
        return exact.values
    return torch.einsum("rb,rbi->bi", made.weights, exact.shares)


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("name", list(ASKED))
def test_the_error_is_below_the_tolerance(name: str, network: str, quiet: None) -> None:
    tol, options, _ = ASKED[name]
    net = model(network)
    made = ig.explain(net, X, target=CLASSES, method=name, tol=tol, **options)
    assert bool(made.converged.all())
    assert bool((made.error <= tol).all())
    assert bool((made.error >= 0).all())
    exact = truth(net, name, made)
    real = (made.values - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    # The error of draws at random is one standard error, which is exceeded now and then.
    assert float((real <= tol).double().mean()) >= (0.6 if name == "expected" else 0.9)
    assert float(real.max()) <= 2 * tol


@pytest.mark.parametrize("name", list(ASKED))
def test_less_is_cheaper(name: str, quiet: None) -> None:
    tol, options, _ = ASKED[name]
    net = model("relu mlp")
    ask = lambda t: ig.explain(net, X, target=CLASSES, method=name, tol=t, **options).cost.gradients  # noqa: E731
    assert ask(min(0.5, 4 * tol)) < ask(tol / 4 if name != "expected" else tol)


@pytest.mark.parametrize("name", list(ASKED))
def test_not_together_with_a_rule(name: str) -> None:
    _, options, _ = ASKED[name]
    with pytest.raises(ig.errors.InputError, match="give one of them"):
        ig.explain(model("gelu mlp"), X, target=CLASSES, method=name, tol=0.1, rule=FINE, **options)
