"""A batch of eight is eight single runs: of every published method, in every number that an attribution holds."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.catalogue import BUILD, fits, words
from tests.problems import PROBLEMS, Problem, joined, wave

FINE = ig.rules.GaussLegendre(6)
EIGHT = 8


def eight(name: str) -> Problem:
    """A known problem with eight examples, classes of their own, and a model that sees each of its classes as often as it can."""
    p = PROBLEMS[name]
    model = copy.deepcopy(p.model)
    with torch.no_grad():
        model[-1].bias -= model(data(p)).median(0).values
    inputs = torch.cat([p.inputs, 0.9 * p.inputs[:3] + 0.1 * p.inputs[2:]])
    return replace(p, model=model, inputs=inputs, target=torch.tensor([0, 2, 1, 0, 2, 1, 1, 0]))


def data(p: Problem) -> Tensor:
    """Of the kind the inputs are."""
    return 0.5 + wave(80, *p.inputs.shape[1:], phase=7.0)


PICTURES, TABLE = "softplus cnn", "relu mlp"


def distanced(p: Problem) -> Any:
    """Learnt from data in which the model sees its two commonest classes."""
    common = p.model(data(p)).argmax(1).bincount(minlength=3).topk(2).indices.sort().values.tolist()
    start = ig.baselines.Given(p.references[:1])
    return ig.methods.artificial_distancing(
        data(p), tuple(common), keep=0.5, baseline=start, rule=FINE
    )


OTHERS: dict[str, Callable[[Problem], Any]] = {
    "pattern_guided": lambda p: ig.methods.pattern_guided(
        ig.fields.Patterns.fit(p.model, PROBLEMS[p.name].inputs), 0.25, ig.rules.Right(6)
    ),
    "layer": lambda p: ig.methods.layer("1", ig.baselines.Given(p.references), FINE),
    "conductance": lambda p: ig.methods.conductance("1", ig.baselines.Given(p.references), 6),
    "region_neurons": lambda p: ig.methods.region_neurons("1", baseline=p.references[0], rule=FINE),
    "discretized": lambda p: ig.methods.discretized(
        words.table(eight(p.name).packed(), p.references),
        ig.baselines.Given(p.references),
        10,
        5,
        rule=FINE,
    ),
    "artificial_distancing": distanced,
}
"""Methods that need more of a problem than the catalogue is told."""

PICTURES_ONLY = {"spectral", "xrai"}
"""Methods that refuse a table."""

ADAPTIVE: dict[str, Callable[[Problem], Any]] = {
    "integrated": lambda p: ig.methods.integrated(ig.baselines.Given(p.references)),
    "weighted": lambda p: ig.methods.weighted(ig.baselines.Given(p.references), fill=0.0),
    "geodesic": lambda p: replace(BUILD["geodesic"](p), rule=ig.rules.Adaptive()),
    "guided": lambda p: replace(BUILD["guided"](p), rule=ig.rules.Adaptive()),
    "boundary": lambda p: replace(BUILD["boundary"](p), rule=ig.rules.Adaptive()),
    "left": lambda p: ig.methods.left(ig.baselines.Given(p.references), above=None),
}
"""The same with as many gradients as a tolerance takes, which may not depend on what is explained beside it either."""


def explained(p: Problem, method: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(p.model, p.inputs, target=p.target, extra=p.extra, method=method)


ELSEWHERE = {"graph", "gaussian_process"}
"""Of nodes and of processes: tests/test_graph.py, test_gaussian_process.py."""


def cases() -> list[Any]:
    found = []
    for name in ig.methods.known():
        if name in ELSEWHERE:
            continue
        build = OTHERS[name] if name in OTHERS else BUILD[name]
        for problem in (PICTURES, TABLE):
            if fits(name, PROBLEMS[problem]) and (problem == PICTURES or name not in PICTURES_ONLY):
                found.append(pytest.param(build, problem, id=f"{name}-{problem}"))
    return found + [
        pytest.param(build, problem, id=f"{name}, adaptive-{problem}")
        for name, build in ADAPTIVE.items()
        for problem in (PICTURES, TABLE)
    ]


def test_every_published_method_is_here() -> None:
    names = {case.id.rpartition("-")[0] for case in cases()}
    assert names == set(ig.methods.known()) - ELSEWHERE | {f"{name}, adaptive" for name in ADAPTIVE}


@pytest.mark.parametrize("name", sorted(PICTURES_ONLY))
def test_what_is_not_for_tables_says_so(name: str) -> None:
    p = eight(TABLE)
    with pytest.raises(ig.errors.InputError, match=r"image|picture"):
        explained(p, BUILD[name](p))


@pytest.mark.parametrize(("build", "problem"), cases())
def test_eight_at_once_are_eight_alone(build: Callable[[Problem], Any], problem: str) -> None:
    p = eight(problem)
    whole = explained(p, build(p))
    assert len(whole) == EIGHT
    for b in range(EIGHT):
        one = p.only(b)
        alone, among = explained(one, build(one)), whole[b]
        near(joined(alone.values), joined(among.values))
        for name in ("weights", "change", "residual", "output", "error"):
            near(getattr(alone, name), getattr(among, name))
        assert torch.equal(alone.converged, among.converged)
        if alone.fitness is not None:
            assert torch.equal(alone.fitness, among.fitness)
        assert alone.reasons == among.reasons


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10, equal_nan=True)


def test_neighbours_that_count_would_be_seen() -> None:
    """A rule that takes the mean over the batch."""

    def mixing(field: Any, segment: ig.Segment) -> Tensor:
        share: Tensor = ig.rules.Midpoint()(field, segment)
        return share.mean(2, keepdim=True).expand_as(share)

    with pytest.raises(AssertionError):
        test_eight_at_once_are_eight_alone(lambda p: ig.Method(rule=mixing), TABLE)
