"""Tolerances of what is asked for: weights that are known only afterwards, several pieces, several references, blocks of them."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import Evaluation, polyline
from integrand.fields import CountedField
from integrand.rules.base import Integrated
from integrand.weightings import Weighed
from tests.problems import sure, wave
from tests.test_adaptive import grown, met, norm

B, R, N = 8, 5, 24
X = wave(B, N, phase=0.3)
REFERENCES = torch.stack([torch.zeros(N).double(), *wave(R - 1, N, phase=1.1)])
FINE = ig.rules.Midpoint(1500)


def relu_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(N, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)
    )


@cache
def field() -> ig.TorchField:
    """Classes whose probability falls when features are taken away."""
    made = ig.TorchField(sure(grown(relu_mlp, 5), torch.zeros(N).double(), 20.0), 0)
    made.target = ig.targets.Logit(made.network.model(X).argmax(1))
    ig.rules.Chords(1)(
        made, straight()
    )  # whether chords add up is found out before costs are compared
    return made


def straight() -> ig.Segment:
    start = REFERENCES[:, None].expand(R, *X.shape)
    return polyline(torch.stack([start, X.expand_as(start)]))


@cache
def truth() -> Tensor:
    """The map of every reference (R, B, N)."""
    return FINE(field(), straight())[0]


FITNESS = ig.weightings.Fitness(ig.baselines.Constant(0.0))


def method(
    rule: ig.rules.Rule, weighting: object = FITNESS, path: ig.paths.Straight = ig.paths.Straight()
) -> ig.Method:
    return ig.Method(ig.baselines.Given(REFERENCES), path, rule, weighting, ("shares",))


def relative(found: Tensor, real: Tensor) -> Tensor:
    return (found - real).flatten(1).norm(dim=1) / real.flatten(1).norm(dim=1)


# --- weights that are known only afterwards ---------------------------------------------------------------------------


@pytest.mark.parametrize("tol", [0.05, 0.01])
def test_weights_are_those_of_maps_to_a_quarter(tol: float, quiet: None) -> None:
    """Every map is integrated to 25 % first, alone; that is what the weighting sees, whatever the tolerance."""
    rough = ig.rules.Adaptive(0.25)(field(), straight()).share[0]
    made = method(ig.rules.Adaptive(tol))(field(), X)
    wanted = FITNESS(rough, X, field())
    assert torch.equal(made.fitness, wanted.fitness)
    assert torch.equal(made.weights, wanted.weights)


def test_weights_are_close_to_those_of_exact_maps(quiet: None) -> None:
    made, exact = method(ig.rules.Adaptive(0.05))(field(), X), FITNESS(truth(), X, field())
    best = exact.weights == exact.weights.amax(0)
    agree = best.gather(0, made.weights.argmax(0)[None])[0]
    assert float(agree.double().mean()) >= 0.75
    assert float((made.weights - exact.weights).abs().mean()) < 0.03
    assert float(exact.weights.std(0).mean()) > 0.03  # there is something to be told apart


@pytest.mark.parametrize("tol", [0.1, 0.02])
def test_the_sum_is_as_exact_as_asked(tol: float, quiet: None) -> None:
    made = method(ig.rules.Adaptive(tol))(field(), X)
    real = (made.weights[..., None] * truth()).sum(0)
    assert bool(made.converged.all())
    assert bool((made.error <= tol).all())
    assert float((relative(made.values, real) <= tol).double().mean()) >= 0.9
    torch.testing.assert_close(
        made.values, (made.weights[..., None] * made.shares).sum(0), rtol=0, atol=1e-12
    )


def test_batch_equals_singles(quiet: None) -> None:
    made = method(ig.rules.Adaptive(0.02))(field(), X)
    for b in (0, 3, 7):
        own = method(ig.rules.Adaptive(0.02))(field().at(torch.tensor([b])), X[b : b + 1])
        torch.testing.assert_close(own.values[0], made.values[b], rtol=0, atol=1e-9)
        torch.testing.assert_close(own.weights[:, 0], made.weights[:, b], rtol=0, atol=1e-12)
        torch.testing.assert_close(own.error[0], made.error[b], rtol=1e-6, atol=0)


class Spread:
    """Weights that look at shares only to have them integrated first."""

    def __init__(self, weights: list[float]) -> None:
        self.weights = torch.tensor(weights).double()

    def __call__(self, shares: Tensor, x: Tensor, field: ig.fields.Field) -> Weighed:
        return Weighed((self.weights / self.weights.sum())[:, None].expand(shares.shape[:2]))


class OnOneLine(CountedField):
    """Counts the rows between one reference and the inputs, the inputs themselves left out."""

    def __init__(self, inner: ig.fields.Field, reference: Tensor) -> None:
        super().__init__(inner)
        self.reference, self.seen = reference, 0

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        way, off = X[index] - self.reference, z - self.reference
        t = (off * way).sum(1, keepdim=True) / way.square().sum(1, keepdim=True)
        on = (off - t * way).norm(dim=1) < 1e-9
        self.seen += int((on & (t[:, 0] < 1 - 1e-9)).sum())
        return super().evaluate_chords(z, index, before)


def per_reference(weights: list[float], tol: float) -> list[int]:
    """Gradients that every reference took in the end."""
    spent = []
    for r in range(R):
        counted = OnOneLine(field(), REFERENCES[r])
        method(ig.rules.Adaptive(tol), Spread(weights))(counted, X)
        spent.append(counted.seen)
    return spent


def test_poor_baselines_get_fewer_gradients() -> None:
    even = per_reference([1, 1, 1, 1, 1], 0.01)
    uneven = per_reference([1, 1, 0.02, 1, 1], 0.01)
    assert uneven[2] < 0.6 * even[2]
    assert uneven[2] < 0.6 * min(uneven[r] for r in (0, 1, 3, 4))
    assert uneven[2] >= 5 * B - B  # the first look at everything


def test_baselines_of_no_weight_are_looked_at_only() -> None:
    made = method(ig.rules.Adaptive(0.02), Spread([1, 0, 0, 0, 0]))(field(), X)
    alone = ig.Method(ig.baselines.Given(REFERENCES[:1]), rule=ig.rules.Adaptive(0.02))(field(), X)
    rough = CountedField(field())
    ig.rules.Adaptive(0.25)(
        rough, polyline(torch.stack([straight().start[0, 1:], straight().end[0, 1:]]))
    )
    assert made.cost.gradients <= 1.3 * alone.cost.gradients + rough.tally.gradients
    assert bool(made.converged.all())
    assert float((relative(made.values, truth()[0]) <= 0.02).double().mean()) >= 0.9


def test_large_inputs_do_not_wait(monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    """Where too much would have to be kept, every map is integrated to the tolerance at once."""
    monkeypatch.setattr("integrand.integration.loop._LOOK_ELEMENTS", 0)
    made = method(ig.rules.Adaptive(0.02))(field(), X)
    real = (made.weights[..., None] * truth()).sum(0)
    assert bool(made.converged.all())
    assert bool((made.error <= 0.02).all())
    assert float((relative(made.values, real) <= 0.02).double().mean()) >= 0.9
    alone = ig.rules.Adaptive(0.02)(field(), straight()).share[0]
    torch.testing.assert_close(made.shares, alone, rtol=0, atol=1e-9)
    assert torch.equal(made.weights, FITNESS(alone, X, field()).weights)


def test_rules_that_cannot_look_are_not_made_to(quiet: None) -> None:
    made = method(ig.rules.Midpoint(7), Spread([1, 2, 3, 4, 5]))(field(), X)
    shares = ig.rules.Midpoint(7)(field(), straight())[0]
    torch.testing.assert_close(made.shares, shares, rtol=0, atol=1e-12)
    assert made.cost.gradients == 7 * R * B


# --- a tolerance for the sum ------------------------------------------------------------------------------------------


def integrated(segment: ig.Segment, tol: float) -> tuple[Integrated, int]:
    meter = CountedField(field())
    found = ig.rules.Adaptive(tol)(meter, segment)
    return found, meter.tally.gradients


def weighed(segment: ig.Segment, weights: list[float]) -> ig.Segment:
    numbers = torch.tensor(weights).double()
    return dataclasses.replace(segment, weights=(numbers / numbers.sum())[:, None].expand(R, B))


def pieces(count: int) -> ig.Segment:
    (segment,) = ig.paths.Straight(count)(field(), straight().start[0], X)
    return segment


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [8, 4, 2, 1, 0.5]], ids=["even", "uneven"])
def test_the_weighted_sum_of_pieces_and_references(weights: list[float], count: int) -> None:
    segment = weighed(pieces(count), weights)
    assert segment.weights is not None
    total = (segment.weights[..., None] * truth()).sum(0)
    for tol in (0.05, 0.02):
        found, _ = integrated(segment, tol)
        made = (segment.weights[..., None] * found.share.sum(0)).sum(0)
        stated = (segment.weights * found.error).square().sum((0, 1)).sqrt() / made.norm(dim=1)
        assert bool((stated <= tol * (1 + 1e-9)).all())
        assert float((relative(made, total) <= tol).double().mean()) >= 0.85
        assert float(relative(made, total).max()) <= 2 * tol


def test_a_sum_asks_less_of_its_parts_than_each_alone() -> None:
    _, together = integrated(weighed(straight(), [1, 1, 1, 1, 1]), 0.01)
    _, apart = integrated(straight(), 0.01)
    assert together != apart


def test_weights_count_and_their_scale_does_not() -> None:
    even = weighed(straight(), [1, 1, 1, 1, 1])
    assert even.weights is not None
    doubled = dataclasses.replace(even, weights=2 * even.weights)
    one, other = integrated(even, 0.02), integrated(doubled, 0.02)
    assert one[1] == other[1]
    torch.testing.assert_close(one[0].share, other[0].share, rtol=0, atol=1e-12)
    torch.testing.assert_close(one[0].error, other[0].error, rtol=1e-9, atol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_pieces_of_a_path_are_known_at_their_ends(count: int) -> None:
    segment = pieces(count)
    found, _ = integrated(segment, 0.05)
    assert found.begin is not None
    assert found.end is not None
    torch.testing.assert_close(found.begin, field().value(segment.start, 3), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.end, field().value(segment.end, 3), rtol=0, atol=1e-10)


def test_several_pieces_in_a_method() -> None:
    made = method(ig.rules.Adaptive(0.02), ig.weightings.Uniform(), ig.paths.Straight(3))(
        field(), X
    )
    assert bool(made.converged.all())
    assert bool((made.error <= 0.02).all())
    assert float((relative(made.values, truth().mean(0)) <= 0.02).double().mean()) >= 0.85
    assert float(made.gap.max()) <= 1e-6


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_blocks_change_nothing_for_paths_alone(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {count: integrated(pieces(count), 0.05) for count in (1, 3)}
    for count, (found, cost) in whole.items():
        monkeypatch.setattr(
            "integrand.rules.adaptive.adaptive._BLOCK_ELEMENTS", rows * 32 * count * N
        )
        made, price = integrated(pieces(count), 0.05)
        torch.testing.assert_close(made.share, found.share, rtol=0, atol=1e-10)
        torch.testing.assert_close(made.error, found.error, rtol=1e-6, atol=1e-10)
        assert price == cost
        monkeypatch.undo()


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_blocks_of_weighed_references_keep_the_tolerance(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a block holds all references of its examples nothing changes; else each block meets the tolerance by itself."""
    segment = weighed(straight(), [8, 4, 2, 1, 0.5])
    assert segment.weights is not None
    whole, cost = integrated(segment, 0.02)
    monkeypatch.setattr("integrand.rules.adaptive.adaptive._BLOCK_ELEMENTS", rows * 32 * N)
    made, price = integrated(segment, 0.02)
    if rows >= R:
        torch.testing.assert_close(made.share, whole.share, rtol=0, atol=1e-10)
        assert price == cost
    found, total = (
        (segment.weights[..., None] * shares).sum(0) for shares in (made.share[0], truth())
    )
    stated = (segment.weights * made.error[0]).square().sum(0).sqrt() / found.norm(dim=1)
    assert float(stated.max()) <= 2 * 0.02
    assert float(relative(found, total).max()) <= 2 * 0.02
    assert float((relative(found, total) <= 0.02).double().mean()) >= 0.85


def test_blocks_in_a_method_with_weights_afterwards(
    monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    whole = method(ig.rules.Adaptive(0.02))(field(), X)
    monkeypatch.setattr("integrand.rules.adaptive.adaptive._BLOCK_ELEMENTS", R * 32 * N)
    made = method(ig.rules.Adaptive(0.02))(field(), X)
    torch.testing.assert_close(made.values, whole.values, rtol=0, atol=1e-10)
    torch.testing.assert_close(made.weights, whole.weights, rtol=0, atol=1e-12)
    assert made.cost.gradients == whole.cost.gradients


def test_asked_twice_it_keeps_what_it_knows() -> None:
    """A look refined to a coarse tolerance and then to a fine one costs what is missing, and is as exact as the fine one."""
    meter = CountedField(field())
    looked = ig.rules.Adaptive(0.05).look(meter, straight())
    looked.refined(tol=0.25)
    first = meter.tally.gradients
    found = looked.refined(tol=0.02)
    second = meter.tally.gradients
    again = looked.refined(tol=0.25)
    assert meter.tally.gradients == second > first
    assert torch.equal(again.share, found.share)
    real = norm(found.share - truth()[None]) / norm(truth()[None])
    assert float((real <= 0.02).double().mean()) >= 0.9
    assert met(found, 0.02)


def test_far_up_rounding_is_no_error() -> None:
    """In float32 a hundred thousand has two decimals: differences of F are wrong there, and chords are not."""
    inner = grown(relu_mlp, 5)
    near = ig.explain(inner, X, target=0, tol=0.05)
    far = ig.explain(lambda z: inner(z.double()).float() + 1e5, X.float(), target=0, tol=0.05)
    assert bool(far.converged.all())
    assert far.cost.gradients <= 3 * near.cost.gradients
    assert float(relative(far.values.double(), near.values).max()) < 0.15
