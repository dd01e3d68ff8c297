"""Every published method and every registered metric runs in ``ig.compare``, and finds what it finds by itself."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.metrics.base import known
from tests.catalogue import BUILD
from tests.problems import PROBLEMS, softplus_cnn, wave

pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")

P = PROBLEMS["softplus cnn"]

PATTERNS = ig.fields.Patterns.fit(P.model, P.packed())

METHODS: dict[str, Any] = {
    **{name: build(P) for name, build in BUILD.items()},
    "pattern_guided": ig.methods.pattern_guided(PATTERNS),
    "artificial_distancing": ig.methods.artificial_distancing(
        wave(40, 3, 8, 8), (0, 1), labels=torch.arange(40) % 2, epochs=1, rule=ig.rules.Midpoint(2)
    ),
}

OF_LAYERS = {
    "layer": "explains a layer",
    "conductance": "explains a layer",
    "region_neurons": "explains a layer",
}
"""The only refusals: maps of a layer are not maps of the inputs."""

OF_OTHERS = {"graph", "gaussian_process"}
"""Of nodes and of processes, not of models that all share."""


def test_every_published_method_is_here() -> None:
    assert set(ig.methods.known()) == set(METHODS) | set(OF_LAYERS) | OF_OTHERS


@pytest.mark.parametrize("name", METHODS)
def test_every_published_method_runs(name: str) -> None:
    made = ig.compare(
        P.model,
        P.inputs,
        target=P.target,
        methods={name: METHODS[name]},
        metrics=["sparseness"],
        controls=False,
    )
    assert made.scores.reasons == {}
    alone = ig.explain(P.model, P.inputs, target=P.target, method=METHODS[name])
    expected = ig.metrics.judge(
        P.model, P.inputs, alone, ig.metrics.as_metric("sparseness"), target=P.target
    )
    np.testing.assert_allclose(made.scores.values[0, 0], expected, rtol=1e-9)


@pytest.mark.parametrize("name", OF_LAYERS)
def test_layers_are_refused(name: str) -> None:
    with pytest.raises(ig.errors.InputError, match=OF_LAYERS[name]):
        ig.compare(
            P.model,
            P.inputs,
            target=0,
            methods=[name],
            options={name: {"site": "0"}},
            controls=False,
        )


@pytest.mark.parametrize(
    "inner",
    [
        ig.methods.integrated(rule=ig.rules.Midpoint(4)),
        ig.methods.expected(wave(3, 4, phase=1), rule=ig.rules.Midpoint(2)),
        ig.methods.guided(steps=4),
        ig.methods.ig2(wave(3, 4, phase=1), steps=3),
        ig.SmoothGrad(ig.methods.integrated(rule=ig.rules.Midpoint(2)), draws=2),
        ig.GreedyPIG(ig.methods.integrated(rule=ig.rules.Midpoint(2)), rounds=2),
        ig.Sequential(ig.methods.integrated(rule=ig.rules.Midpoint(2)), features="columns"),
    ],
    ids=["integrated", "expected", "guided", "ig2", "smoothed", "greedy_pig", "sequential"],
)
def test_distanced_runs_around_every_kind_of_method(inner: Any) -> None:
    model, x = small(), wave(4, 4, phase=0.3)
    method = ig.ArtificialDistancing(inner, wave(40, 4), (0, 1), torch.arange(40) % 2, epochs=1)
    made = ig.compare(
        model, x, target=0, methods={"d": method}, metrics=["sparseness"], controls=False
    )
    assert made.scores.reasons == {}
    expected = ig.metrics.sparseness(ig.explain(model, x, target=0, method=method))
    np.testing.assert_allclose(made.scores.values[0, 0], expected, rtol=1e-9)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


# --- metrics ----------------------------------------------------------------------------------------------------------

CHEAP: dict[str, Any] = {
    "smooth_mprt": ig.metrics.SmoothMPRT(draws=2),
    "infidelity": ig.metrics.Infidelity(draws=20),
    "top_intersection": ig.metrics.TopIntersection(k=9),
    "pgi": ig.metrics.PGI(fill=ig.baselines.Gaussian(0.1, "input", 4)),
    "pgu": ig.metrics.PGU(fill=ig.baselines.Gaussian(0.1, "input", 4)),
    "xai_bench_infidelity": type(ig.metrics.as_metric("xai_bench_infidelity"))(draws=20),
}
"""Settings that take less than the usual ones."""

UNDEFINED = {"aic"}
"""Blurred, these pictures are still predicted to be of their class, so that there is no curve."""


MASKS = torch.zeros(5, 8, 8)
MASKS[:, 2:5, 3:6] = 1
CLASSES = softplus_cnn()(P.inputs).argmax(1).detach()


@pytest.mark.parametrize("name", list(known()))
def test_every_metric_runs(name: str) -> None:
    """With the scores that it gives the same maps by itself."""
    model, by = softplus_cnn(), CHEAP.get(name, ig.metrics.as_metric(name))
    door: dict[str, Any] = {
        "target": CLASSES, "masks": MASKS, "normalisation": ig.Normalisation((0.0,) * 3, (1.0,) * 3)
    }  # fmt: skip
    methods = {
        "one": ig.methods.integrated(rule=ig.rules.Midpoint(2)),
        "other": ig.methods.integrated(0.5, rule=ig.rules.Midpoint(2)),
    }
    made = ig.compare(model, P.inputs, methods=methods, metrics=[by], controls=False, **door)
    maps = [
        ig.explain(model, P.inputs, target=CLASSES, method=one, normalisation=door["normalisation"])
        for one in methods.values()
    ]
    expected: Tensor = ig.metrics.judge(model, P.inputs, maps, by, **door)
    np.testing.assert_allclose(made.scores.values[:, 0], expected, rtol=1e-6, atol=1e-9)
    assert np.isfinite(made.scores.values).any() == (name not in UNDEFINED)


FURTHER = (P.target + torch.tensor([1, 2, 1, 1, 2])) % 3


@pytest.mark.parametrize(
    "by",
    [
        ig.metrics.RandomLogit(),
        ig.metrics.RandomLogit(FURTHER),
        ig.metrics.FidelityPlus(by="accuracy", mode="phenomenon"),
        ig.metrics.FidelityPlus(by="accuracy"),
        ig.metrics.Characterization(),
        ig.metrics.Deletion(score="accuracy", steps=8),
        ig.metrics.Deletion(score=ig.targets.Logit(FURTHER), steps=8),
        ig.metrics.Deletion(
            score=ig.targets.Custom(lambda out, data: out[:, 0] * data, wave(5)), steps=8
        ),
    ],
    ids=[
        "random",
        "other",
        "phenomenon",
        "predicted",
        "characterization",
        "accuracy",
        "classes",
        "data",
    ],
)
def test_what_belongs_to_an_example_stays_with_it_in_blocks(
    by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, methods = softplus_cnn(), {"one": ig.methods.integrated(rule=ig.rules.Midpoint(2))}
    target = P.target
    options: dict[str, Any] = {
        "target": target,
        "methods": methods,
        "metrics": [by],
        "controls": False,
    }
    alone = ig.explain(model, P.inputs, target=target, method=methods["one"])
    expected = ig.metrics.judge(model, P.inputs, alone, by, target=target)
    assert len(set(expected.tolist())) > 1 or isinstance(
        by, ig.metrics.FidelityPlus | ig.metrics.Characterization
    )
    monkeypatch.setattr(sys.modules["integrand.compare.api"], "_HELD_ELEMENTS", 2 * 192)
    made = ig.compare(model, P.inputs, **options)
    np.testing.assert_allclose(made.scores.values[0, 0], expected, rtol=1e-9, atol=1e-12)
