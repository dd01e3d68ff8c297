"""The adaptive rule: what it promises of errors, what it may cost, and how it refuses."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import polyline
from integrand.fields import CountedField
from integrand.rules.base import Integrated
from tests.problems import Counting, filled, wave

TOLERANCES = (0.1, 0.05, 0.01)


def grown(make: Callable[[], nn.Module], seed: int, gain: float = 1.5) -> nn.Module:
    """A model with its ordinary initialisation, louder, the same on every run."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= gain
    return model


def gelu_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 3)
    )


def relu_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)
    )


def relu_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 3),
    )


def normed_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 24), nn.LayerNorm(24), nn.GELU(), nn.Linear(24, 3))


class Recurrent(nn.Module):
    """Its kernel is one operation, without a chord."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(2, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.reshape(-1, 4, 2))[0][:, -1])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "gelu mlp": (gelu_mlp, (8,)),
    "relu mlp": (relu_mlp, (8,)),
    "relu cnn": (relu_cnn, (1, 6, 6)),
    "normed mlp": (normed_mlp, (8,)),
}
CHORDAL = list(NETWORKS)
NETWORKS["recurrent"] = (Recurrent, (8,))
REFERENCES, EXAMPLES = 5, 16
FIRST_LOOK = 16  # no first look may cost a row more gradients than this


@cache
def case(name: str) -> tuple[ig.TorchField, ig.Segment, Tensor]:
    """A field, eighty rows, and their shares (1, R, B, *s) by brute force."""
    make, shape = NETWORKS[name]
    field = ig.TorchField(grown(make, 5), torch.arange(EXAMPLES) % 3)
    x = wave(EXAMPLES, *shape, phase=0.3, scale=1.5)
    references = torch.stack(
        [torch.zeros_like(x), *wave(REFERENCES - 1, EXAMPLES, *shape, phase=1.1)]
    )
    segment = polyline(torch.stack([references, x.expand_as(references)]))
    ig.rules.Chords(1)(
        field, segment
    )  # whether chords add up is found out before costs are compared
    return field, segment, ig.rules.Midpoint(1500)(field, segment)


@cache
def answer(name: str, tol: float) -> tuple[Integrated, int]:
    field, segment, _ = case(name)
    meter = CountedField(field)
    found = ig.rules.Adaptive(tol)(meter, segment)
    return found, meter.tally.gradients


def norm(shares: Tensor) -> Tensor:
    """(K, R, B, *s) → (K, R, B)."""
    return shares.flatten(3).norm(dim=3)


def met(found: Integrated, tol: float) -> bool:
    """Whether every share is as exact as was asked for, by its own account."""
    return bool((found.error <= tol * norm(found.share) * (1 + 1e-12)).all())


def integrated(
    field: ig.fields.Field, segment: ig.Segment, **options: float
) -> tuple[Integrated, int]:
    meter = CountedField(field)
    found = ig.rules.Adaptive(**options)(meter, segment)
    return found, meter.tally.gradients


# --- the promise ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tol", TOLERANCES)
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_error_is_what_it_says(name: str, tol: float) -> None:
    truth = case(name)[2]
    found, _ = answer(name, tol)
    real = norm(found.share - truth)
    assert real.numel() >= 60
    assert float((real <= found.error + 1e-12).double().mean()) >= 0.9
    assert float((real <= tol * norm(truth)).double().mean()) >= 0.9
    assert float((real / norm(truth)).max()) < 3 * tol
    assert bool((found.error <= tol * norm(found.share) * (1 + 1e-12)).all())


@pytest.mark.parametrize("name", list(NETWORKS))
def test_smaller_tolerances_cost_more_and_err_less(name: str) -> None:
    truth = case(name)[2]
    found = [answer(name, tol) for tol in TOLERANCES]
    costs = [gradients for _, gradients in found]
    errors = [float((norm(f.share - truth) / norm(truth)).mean()) for f, _ in found]
    assert costs == sorted(set(costs))
    assert errors == sorted(errors, reverse=True)
    rows = REFERENCES * EXAMPLES
    assert 4 * rows <= costs[0]
    assert costs[1] <= 60 * rows
    assert costs[2] <= 300 * rows


@pytest.mark.parametrize("name", CHORDAL)
def test_complete_for_networks_of_chords(name: str) -> None:
    field, segment, _ = case(name)
    change = field.value(segment.end[0], leading=2) - field.value(segment.start[0], leading=2)
    for tol in TOLERANCES:
        found, _ = answer(name, tol)
        missed = (found.share[0].flatten(2).sum(2) - change).abs()
        if (
            field.smooth
        ):  # some of its lines are integrated by other nodes: complete to the error they state
            assert bool(
                (missed <= math.sqrt(segment.start[0, 0, 0].numel()) * found.error[0] + 1e-9).all()
            )
        else:
            assert bool((missed <= 1e-6 * change.abs() + 1e-9).all())
    assert field.chordal


def test_not_chordal_is_known() -> None:
    answer("recurrent", 0.05)
    assert not case("recurrent")[0].chordal


def test_beats_fixed_nodes_at_equal_cost() -> None:
    field, segment, truth = case("relu mlp")
    found, cost = answer("relu mlp", 0.01)
    fixed = ig.rules.Midpoint(round(cost / (REFERENCES * EXAMPLES)))(field, segment)
    assert float((norm(found.share - truth) / norm(truth)).mean()) < float(
        (norm(fixed - truth) / norm(truth)).mean()
    )


# --- easy things are cheap --------------------------------------------------------------------------------------------


def test_linear_is_exact_at_first_sight() -> None:
    segment = polyline(wave(3, 2, 4, 6, phase=0.2))
    weight = wave(6, phase=2)
    model = nn.Linear(6, 1, bias=True).double()
    with torch.no_grad():
        model.weight.copy_(weight[None])
    for field in (ig.fields.Linear(weight), ig.TorchField(model, ig.targets.Output())):
        found, cost = integrated(field, segment, tol=1e-6)
        _, look = integrated(field, segment, tol=0.99)
        torch.testing.assert_close(found.share, segment.step * weight, rtol=0, atol=1e-13)
        assert cost == look <= FIRST_LOOK * 2 * 2 * 4
        assert float(found.error.max()) < 1e-9


def test_easy_rows_cost_less_than_hard_ones() -> None:
    """Alone each row has its price; together the batch costs the sum."""
    steep = torch.tensor([0.0, 0.5, 60.0]).double()

    def bend(z: Tensor, k: Tensor) -> Tensor:
        return torch.tanh(k * (z[:, 0] - 0.5)) + z.sum(1)

    field = ig.TorchField(lambda z: z, ig.targets.Custom(bend, steep))
    start, end = torch.zeros(3, 3).double(), 0.9 + wave(3, 3, scale=0.1)
    segment = polyline(torch.stack([start, end])[:, None])
    prices = []
    for i in range(3):
        own = field.at(torch.tensor([i]))
        one = polyline(torch.stack([start[i : i + 1], end[i : i + 1]])[:, None])
        prices.append(integrated(own, one, tol=0.02)[1])
    assert prices[0] <= prices[1] < prices[2]
    assert prices[2] >= prices[0] + 4
    assert integrated(field, segment, tol=0.02)[1] == sum(prices)


def test_rows_of_no_length_cost_nothing() -> None:
    field, segment, _ = case("relu mlp")
    start = segment.start.clone()
    start[0, 1] = segment.end[0, 1]
    start[0, 3, 4] = segment.end[0, 3, 4]
    still = polyline(torch.stack([start[0], segment.end[0]]))
    found, cost = integrated(field, still, tol=0.05)
    assert not found.share[0, 1].any()
    assert not found.share[0, 3, 4].any()
    assert not found.error[0, 1].any()
    assert met(found, 0.05)
    rest = answer("relu mlp", 0.05)[0].share
    keep = torch.ones(REFERENCES, EXAMPLES, dtype=torch.bool)
    keep[1], keep[3, 4] = False, False
    torch.testing.assert_close(found.share[0][keep], rest[0][keep], rtol=0, atol=1e-9)
    assert cost < answer("relu mlp", 0.05)[1]


@pytest.mark.parametrize("pieces", [2, 3, 7])
def test_paths_of_fewer_pieces_are_looked_at_as_if_alone(pieces: int) -> None:
    """Rows of different lengths are filled up with pieces of no length; a piece that is then all has no neighbour to be judged by."""
    field = ig.TorchField(lambda z: z[:, 0] ** 3 * z[:, 1] * z[:, 2] ** 2, ig.targets.Output())
    start, end = torch.tensor([[0.7, 0.4, 0.3]]).double(), torch.tensor([[1.2, 1.7, 0.9]]).double()
    corners = torch.lerp(start, end, torch.linspace(0, 1, pieces + 1, dtype=torch.float64)[:, None])
    once = torch.cat([start, end.expand(pieces, 3)])
    both = polyline(torch.stack([corners, once], 1)[:, :, None])
    (found, _), (alone, _) = (
        integrated(field, s, tol=0.01) for s in (both, polyline(torch.stack([start, end])[:, None]))
    )
    torch.testing.assert_close(found.share.sum(0)[1], alone.share.sum(0)[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(
        found.error.square().sum(0)[1], alone.error.square().sum(0)[0], rtol=1e-9, atol=0
    )
    truth = ig.rules.GaussLegendre(8)(field, both).sum(0)
    wrong, size = (
        numbers.flatten(1).norm(dim=1) for numbers in (found.share.sum(0) - truth, truth)
    )
    assert bool((wrong < 0.01 * size).all())


def test_nothing_moves_at_all() -> None:
    field, segment, _ = case("relu mlp")
    found, cost = integrated(
        field, polyline(torch.stack([segment.end[0], segment.end[0]])), tol=0.05
    )
    assert not found.share.any()
    assert not found.error.any()
    assert met(found, 0.05)
    assert cost == 0


def test_a_field_that_does_not_care() -> None:
    """F is flat: a share of zero is right, and its tolerance is met."""
    field = ig.fields.Function(lambda z: 0 * z.sum(1))
    found, cost = integrated(field, polyline(wave(2, 1, 3, 4)), tol=0.05)
    assert not found.share.any()
    assert met(found, 0.05)
    assert cost <= FIRST_LOOK * 3


# --- rows do not know of each other -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHORDAL)
def test_batch_equals_singles(name: str) -> None:
    field, segment, _ = case(name)
    found, _ = answer(name, 0.05)
    for r, b in [(0, 0), (2, 5), (4, 15), (1, 9)]:
        one = polyline(
            torch.stack([side[0, r, b][None, None] for side in (segment.start, segment.end)])
        )
        own, _ = integrated(field.at(torch.tensor([b])), one, tol=0.05)
        torch.testing.assert_close(own.share[0, 0, 0], found.share[0, r, b], rtol=0, atol=1e-9)
        torch.testing.assert_close(own.error[0, 0, 0], found.error[0, r, b], rtol=0, atol=1e-9)


@pytest.mark.parametrize("rows", [2, 7, 500])
def test_batch_size_does_not_matter(rows: int) -> None:
    field, segment, _ = case("relu mlp")
    own = ig.TorchField(field.network.model, field.target, batch_size=rows)
    few = polyline(torch.stack([segment.start[0, :2], segment.end[0, :2]]))
    found, _ = integrated(own, few, tol=0.05)
    expected = answer("relu mlp", 0.05)[0]
    torch.testing.assert_close(found.share, expected.share[:, :2], rtol=0, atol=1e-9)
    torch.testing.assert_close(found.error, expected.error[:, :2], rtol=0, atol=1e-9)


def test_blocks_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    field, segment, _ = case("relu cnn")
    monkeypatch.setattr("integrand.rules.adaptive.adaptive._BLOCK_ELEMENTS", 32 * 36 * 7)
    found, _ = integrated(field, segment, tol=0.05)
    torch.testing.assert_close(found.share, answer("relu cnn", 0.05)[0].share, rtol=0, atol=1e-9)


def test_same_in_float32_to_its_precision() -> None:
    field, segment, truth = case("relu mlp")
    single = ig.TorchField(grown(relu_mlp, 5).float(), field.target)
    lines = polyline(torch.stack([segment.start[0], segment.end[0]]).float())
    found, _ = integrated(single, lines, tol=0.05)
    assert found.share.dtype == torch.float32
    assert met(found, 0.05)
    assert float((norm(found.share - truth) / norm(truth)).max()) < 0.15


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [20, 40, 90])
def test_max_gradients(most: int) -> None:
    field, segment, _ = case("relu mlp")
    counted = Counting(field.network.model)
    own = ig.TorchField(counted, 0)
    one = polyline(torch.stack([segment.start[0, 1:2, :1], segment.end[0, 1:2, :1]]))
    found = ig.rules.Adaptive(1e-5, max_gradients=most)(own, one)
    assert float(found.error) > 1e-5 * float(norm(found.share))
    assert bool(torch.isfinite(found.share).all())
    assert counted.gradients <= most


def test_more_room_errs_less() -> None:
    field, segment, truth = case("relu mlp")
    errors = []
    for most in (20, 60, 200):
        found, cost = integrated(field, segment, tol=1e-4, max_gradients=most)
        errors.append(float((norm(found.share - truth) / norm(truth)).mean()))
        assert cost <= 1.5 * most * REFERENCES * EXAMPLES
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 5


def test_a_jump_ends() -> None:
    """A function that no number of gradients integrates comes back, says so, and is finite."""
    field = ig.fields.Function(lambda z: torch.tanh(1e9 * (z[:, 0] - 0.37)) + z.sum(1).square())
    segment = polyline(torch.stack([torch.zeros(1, 1, 3), torch.ones(1, 1, 3)]).double())
    found, cost = integrated(field, segment, tol=0.001, max_gradients=200)
    assert bool(torch.isfinite(found.share).all())
    assert cost <= 300


def test_one_warning_when_the_tolerance_is_not_met() -> None:
    field, segment, _ = case("gelu mlp")
    method = ig.Method(ig.baselines.Constant(0.0), rule=ig.rules.Adaptive(1e-10, max_gradients=20))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = method(field, segment.end[0, 0])
    assert [w.category for w in caught] == [ig.errors.IncompleteWarning]
    assert "max_gradients" in str(caught[0].message)
    assert f"{EXAMPLES} of {EXAMPLES} maps" in str(caught[0].message)
    assert not made.converged.any()
    assert bool((made.error > 1e-10).all())


@pytest.mark.parametrize("tol", [0, 0.0, 1, 1.5, -0.1, float("nan")])
def test_bad_tolerances(tol: float) -> None:
    with pytest.raises(ig.errors.InputError, match="tol"):
        ig.rules.Adaptive(tol)


@pytest.mark.parametrize("most", [-1, 0, 2])
def test_bad_limits(most: int) -> None:
    with pytest.raises(ig.errors.InputError, match="max_gradients"):
        ig.rules.Adaptive(max_gradients=most)


def test_repr_and_equality() -> None:
    assert repr(ig.rules.Adaptive(0.1)).startswith("Adaptive(")
    assert eval(
        repr(ig.rules.Adaptive(0.1, 77)), {"Adaptive": ig.rules.Adaptive}
    ) == ig.rules.Adaptive(0.1, 77)
    assert ig.rules.Adaptive() == ig.rules.Adaptive(0.05)
    assert ig.rules.Adaptive(0.1) != ig.rules.Adaptive(0.2)


# --- in a method ------------------------------------------------------------------------------------------------------


def relative(found: Tensor, truth: Tensor) -> Tensor:
    return (found - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


@pytest.mark.parametrize(
    "path", [ig.paths.Straight(), ig.paths.Straight(3)], ids=["one piece", "three"]
)
def test_a_method(path: ig.paths.Straight) -> None:
    field, segment, _ = case("relu mlp")
    x, references = segment.end[0, 0], segment.start[0]
    method = ig.Method(
        ig.baselines.Given(references), path, ig.rules.Adaptive(0.05), record=("shares",)
    )
    made = method(field, x)
    truth = ig.Method(ig.baselines.Given(references), rule=ig.rules.Midpoint(1500))(field, x).values
    assert bool(made.converged.all())
    assert float((relative(made.values, truth) <= made.error).double().mean()) >= 0.9
    assert float(made.residual.abs().max()) <= 1e-6 * float(made.change.abs().max())
    assert float(made.gap.max()) <= 1e-6
    torch.testing.assert_close(made.values, made.shares.mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_tolerance_is_that_of_the_sum(name: str) -> None:
    """References are refined together: what meets the tolerance is their mean, which may be much smaller than they are."""
    field, segment, truth = case(name)
    x, references = segment.end[0, 0], segment.start[0]
    method = ig.Method(
        ig.baselines.Given(references), rule=ig.rules.Adaptive(0.01), record=("shares",)
    )
    made = method(field, x)
    real = relative(made.values, truth[0].mean(0))
    assert bool(made.converged.all())
    assert bool((made.error <= 0.01).all())
    assert float((real <= made.error).double().mean()) >= 0.9


def test_the_error_of_the_sum_is_that_of_its_rows() -> None:
    """Σ over rows of (weight · error)², its root over the norm of the values; rows of one sign raise it."""
    field, segment, _ = case("gelu mlp")
    weights = torch.full((REFERENCES, EXAMPLES), 1 / REFERENCES).double()
    joint = dataclasses.replace(segment, weights=weights)
    found = ig.rules.Adaptive(0.05)(field, joint)
    made = ig.Method(ig.baselines.Given(segment.start[0]), rule=ig.rules.Adaptive(0.05))(
        field, segment.end[0, 0]
    )
    total = (found.error[0] * weights).square().sum(0).sqrt() / (
        found.share[0] * weights[..., None]
    ).sum(0).norm(dim=1)
    torch.testing.assert_close(made.error, total, rtol=1e-9, atol=0)


def test_references_of_little_weight_get_few_gradients() -> None:
    field, segment, _ = case("relu mlp")
    spent = []
    for light in (1.0, 0.001):
        weights = torch.ones(2, 1).double()
        weights[1] = light
        two = polyline(torch.stack([segment.start[0, 1:3, :1], segment.end[0, 1:3, :1]]))
        joint = dataclasses.replace(two, weights=weights / weights.sum())
        spent.append(integrated(field, joint, tol=0.005)[1])
    assert spent[1] < 0.8 * spent[0]


def test_kept_shares_change_nothing() -> None:
    field, segment, _ = case("relu mlp")
    x, given = segment.end[0, 0], ig.baselines.Given(segment.start[0])
    rule = ig.rules.Adaptive(0.05)
    kept = ig.Method(given, rule=rule, record=("shares", "path"))(field, x)
    plain = ig.Method(given, rule=rule)(field, x)
    torch.testing.assert_close(kept.values, plain.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(kept.error, plain.error, rtol=1e-12, atol=0)


def test_the_input_is_its_own_baseline() -> None:
    field, segment, _ = case("relu mlp")
    x = segment.end[0, 0]
    made = ig.Method(ig.baselines.Given(x[None]), rule=ig.rules.Adaptive(0.05))(field, x)
    assert not made.values.any()
    assert bool(made.converged.all())
    assert made.cost.gradients == 0
    assert float(made.error.nan_to_num(0).abs().max()) == 0


def test_weighted_gradients(quiet: None) -> None:
    model = grown(relu_mlp, 5)
    field = ig.TorchField(model, torch.tensor([0, 1, 2, 1]))
    x = wave(4, 8, phase=0.3, scale=1.5)
    references = wave(5, 4, 8, phase=1.1)
    methods = [
        ig.methods.weighted(references, rule=rule, fill=0.0)
        for rule in (ig.rules.Adaptive(0.01), ig.rules.Midpoint(1500))
    ]
    made, truth = (method(field, x) for method in methods)
    torch.testing.assert_close(made.weights.sum(0), torch.ones(4).double(), rtol=0, atol=1e-12)
    same = (made.weights == truth.weights).all(0)
    assert int(same.sum()) >= 3
    assert float(relative(made.values, truth.values)[same].max()) < 0.02
    assert bool(made.converged.all())
    assert bool((made.error <= 0.01).all())


def test_rules_without_an_estimate_say_nan() -> None:
    field, segment, _ = case("gelu mlp")
    made = ig.Method(rule=ig.rules.GaussLegendre(20))(field, segment.end[0, 0])
    assert bool(made.error.isnan().all())
    assert bool(made.converged.all())


def test_the_model_is_given_back() -> None:
    model = filled(nn.Sequential(nn.Linear(6, 12), nn.ReLU(inplace=True), nn.Linear(12, 3)))
    before = [parameter.clone() for parameter in model.parameters()]
    x = wave(4, 6)
    kept = x.clone()
    ig.Method(rule=ig.rules.Adaptive(0.05))(ig.TorchField(model, 1), x)
    assert torch.equal(x, kept)
    assert all(
        torch.equal(a, b) and b.requires_grad
        for a, b in zip(before, model.parameters(), strict=True)
    )
