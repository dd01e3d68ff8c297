"""Weightings: D against brute force, and everything that fitness cannot judge."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import Evaluation
from integrand.weightings import Weighed, feature_map, feature_scores
from tests.problems import Counting, softplus_cnn, sure, tanh_mlp, wave

N = 12  # features of the toys


class Score(ig.fields.Field):
    """A field whose score is any function of which features are left: F(z) = curve(z), z of ones and zeros."""

    def __init__(self, curve: Callable[[Tensor], Tensor]) -> None:
        self.curve = curve
        self.packer = ig.fields.BatchSizer(10_000)
        self.calls: list[int] = []

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Any:
        assert not gradient
        self.calls.append(len(z))
        return Evaluation(self.curve(z), z.new_empty(0))


def maps(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def judged(shares: Tensor, curve: Callable[[Tensor], Tensor], **options: Any) -> Weighed:
    """Fitness of shares (R, B, N) on inputs of ones whose replacement is zero."""
    fitness = ig.weightings.Fitness(ig.baselines.Constant(0.0), **options)
    return fitness(shares, torch.ones(shares.shape[1:], dtype=torch.float64), Score(curve))


def weighted_sum(z: Tensor) -> Tensor:
    """Monotone in what is left, with a weight of its own for every feature."""
    w = torch.arange(1, z.shape[1] + 1, dtype=torch.float64)
    return 0.9 * (z * w).sum(1) / w.sum()


def brute_force(share: Tensor, curve: Callable[[Tensor], Tensor], ratio: float = 0.5) -> int:
    """min {k : p(x without its k top features) ≤ ratio · p(x)}, trying every k."""
    order = sorted(range(len(share)), key=lambda i: (-float(share[i]), i))
    whole = float(curve(torch.ones(1, len(share)).double()))
    for k in range(1, len(share) + 1):
        left = torch.ones(1, len(share)).double()
        left[0, order[:k]] = 0
        if float(curve(left)) <= ratio * whole:
            return k
    return len(share)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_fitness_is_the_definition_on_monotone_scores(ratio: float) -> None:
    shares = maps(7, 3, N)
    found = judged(shares, weighted_sum, ratio=ratio)
    for r, b in itertools.product(range(7), range(3)):
        assert int(found.fitness[r, b]) == brute_force(shares[r, b], weighted_sum, ratio)
    assert len(found.fitness.unique()) > 2


def test_weights_are_one_over_fitness() -> None:
    found = judged(maps(7, 3, N), weighted_sum)
    for b in range(3):
        merit = [1 / float(d) for d in found.fitness[:, b]]
        assert found.weights[:, b].tolist() == pytest.approx(
            [m / sum(merit) for m in merit], abs=1e-15
        )


def test_ties_rank_by_position() -> None:
    found = judged(torch.ones(1, 1, N).double(), weighted_sum)
    assert int(found.fitness) == brute_force(torch.ones(N), weighted_sum) == 9


def test_the_sign_counts() -> None:
    """Features that speak against the class rank last, however loudly."""
    share = torch.tensor([3.0, -100.0, 2.0, 1.0])
    curve = lambda z: 0.2 * z[:, 0] + 0.2 * z[:, 2] + 0.2 * z[:, 3]  # noqa: E731
    assert int(judged(share[None, None].double(), curve).fitness) == brute_force(share, curve) == 2


@pytest.mark.parametrize("seed", range(12))
def test_where_the_score_is_not_monotone_the_k_returned_halves_it(seed: int) -> None:
    """The search may not find the smallest k there, but what it returns is one, and k − 1 is not."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.rand(N + 1, generator=generator, dtype=torch.float64)
    table[0], table[N] = 0.0, 0.8  # nothing left, everything left
    curve = lambda z: table[z.sum(1).round().long()]  # noqa: E731
    shares = torch.rand(5, 2, N, generator=generator, dtype=torch.float64)
    found = judged(shares, curve)
    for d in found.fitness.flatten().tolist():
        assert table[N - d] <= 0.4
        assert table[N - d + 1] > 0.4


def test_a_score_that_rises_before_it_falls() -> None:
    """Half at once for k = 1 or 2, whole for k = 3 … 9, gone from 10 on: 1 and 10 are crossings, 5 is none."""
    table = torch.tensor([0.0, 0.0, 0.0, *[0.8] * 7, 0.3, 0.3, 0.8]).double()
    found = judged(torch.rand(1, 1, N).double(), lambda z: table[z.sum(1).round().long()])
    assert int(found.fitness) in (1, 10)


# --- the definition where replacing everything does not halve the score -----------------------------------------------


def test_two_features_that_only_count_together() -> None:
    """4 z₀ z₃ and a little: replaced by −1, both gone are as good as both there, one gone is not.

    The maps by hand: 2 (b = 0) shares z₀ z₃ equally between z₀ and z₃; (1, 1, 1, 0) gives it all to z₃, (1, 0, 0, 1) none.
    """
    w = torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    model = lambda z: torch.stack([4 * z[:, 0] * z[:, 3] + 0.1 * z @ w, torch.zeros(len(z))], 1)  # noqa: E731
    references = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.float64)
    x = torch.ones(1, 4, dtype=torch.float64)
    made = ig.explain(
        model,
        x,
        target=0,
        method="weighted",
        baseline=references,
        fill=-1.0,
        rule=ig.rules.GaussLegendre(20),
    )
    # Orders by hand: 0 3 1 2 (2.3, 2.05, .2, .1), 3 0 1 2 (4.05, then ties), 1 2 0 3 (.2, .1, then ties).
    for r, order in enumerate([(0, 3, 1, 2), (3, 0, 1, 2), (1, 2, 0, 3)]):
        halved = []
        for k in range(1, 5):
            z = x.clone()
            z[0, list(order[:k])] = -1
            halved.append(
                float(model(z).softmax(1)[0, 0]) <= 0.5 * float(model(x).softmax(1)[0, 0])
            )
        assert not halved[3]
        assert int(made.fitness[r, 0]) == 1 + halved.index(True) == (1, 1, 3)[r]
    assert made.weights[:, 0].tolist() == pytest.approx([3 / 7, 3 / 7, 1 / 7], abs=1e-12)
    assert made.reasons == (None,)


def random_cnn(seed: int, side: int, gain: float) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network of random weights, loud enough to be sure of a class; pictures, and five baselines for them."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(4),
    ).double()
    x = torch.rand(2, 3, side, side, generator=generator, dtype=torch.float64)
    model(x)
    with torch.no_grad():
        for weight in model.parameters():
            fan_in = weight[0].numel() if weight.ndim > 1 else 4
            weight.copy_(
                torch.randn(weight.shape, generator=generator, dtype=torch.float64) / fan_in**0.5
            )
        model[-1].weight *= gain
        model[-1].bias -= model(torch.full_like(x[:1], 0.5))[0]
    references = torch.rand(5, 3, side, side, generator=generator, dtype=torch.float64)
    references[0], references[1] = 0, 1
    return model, x, references


def every_score(
    model: nn.Module, x: Tensor, share: Tensor, blank: Tensor, target: int
) -> list[float]:
    """p(x with the k pixels that a share ranks highest replaced) for k = 0 … N, one after the other."""
    ranking = sorted(range(x[0].numel()), key=lambda n: (-float(share.sum(0).flatten()[n]), n))
    rows, z = [x.clone()], x.clone()
    for n in ranking:
        z.flatten(1)[:, n] = blank.flatten(1)[:, n]
        rows.append(z.clone())
    with torch.no_grad():
        probabilities: list[float] = model(torch.stack(rows)).softmax(1)[:, target].tolist()
    return probabilities


def against_brute_force(
    model: nn.Module, x: Tensor, references: Tensor, fill: Any
) -> Iterator[tuple[int, list[float]]]:
    """For every reference of every example D, and the scores with 0, 1, … N pixels replaced."""
    classes = model(x).argmax(1)
    method = ig.methods.weighted(references, fill=fill, rule=ig.rules.GaussLegendre(8))
    made = ig.explain(model, x, target=classes, method=method)
    blank = method.weighting.fill(x, ig.TorchField(model, 0))[0]
    for r, b in itertools.product(range(len(references)), range(len(x))):
        yield (
            int(made.fitness[r, b]),
            every_score(model, x[b], made.shares[r, b], blank[b], int(classes[b])),
        )


def smallest(scores: list[float]) -> int:
    """min {k : s(k) ≤ ½ s(0)}; the number of features where there is none."""
    return next((k for k, score in enumerate(scores) if score <= 0.5 * scores[0]), len(scores) - 1)


def test_random_networks_of_few_pixels_are_brute_force(quiet: None) -> None:
    """9 × 9 pixels, curves of every shape: D is the smallest k, also where replacing everything is not enough."""
    beyond = 0
    for seed in range(12):
        for d, scores in against_brute_force(*random_cnn(seed, 9, gain=20.0), "corners"):
            assert d == smallest(scores)
            beyond += scores[-1] > 0.5 * scores[0] >= scores[d]
    assert beyond >= 30


def test_random_networks_of_many_pixels(quiet: None) -> None:
    """14 × 14: D halves and D − 1 does not. There is no D only where none of 1, 2, 4, … and all pixels halves the score."""
    halved = beyond = 0
    for seed in range(12):
        for d, scores in against_brute_force(*random_cnn(seed, 14, gain=20.0), "corners"):
            goal = 0.5 * scores[0]
            if scores[d] > goal:
                assert d == 196
                assert all(scores[k] > goal for k in (1, 2, 4, 8, 16, 32, 64, 128, 196))
                continue
            assert scores[d - 1] > goal
            halved += 1
            beyond += scores[-1] > goal
    assert halved >= 110
    assert beyond >= 70


@pytest.mark.parametrize("seed", range(4))
def test_networks_whose_score_falls_monotonically(seed: int, quiet: None) -> None:
    """Every pixel speaks for class 0: of many pixels, too, D is the smallest k."""
    model, x, references = random_cnn(seed, 14, gain=3.0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.abs_()
        model[-1].weight[1:] *= -1
        model[-1].bias -= model(torch.full_like(x[:1], 0.3))[0]
    ds = set()
    for d, scores in against_brute_force(model, x, references, 0.0):
        assert all(one >= other for one, other in itertools.pairwise(scores))
        assert scores[-1] < 0.5 * scores[0]
        assert d == smallest(scores)
        ds.add(d)
    assert len(ds) > 2


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("features", [12, 128])
def test_few_features_are_all_looked_at(seed: int, features: int) -> None:
    """D is the definition's smallest k for any score whatever, replacing everything enough or not."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.rand(features + 1, generator=generator, dtype=torch.float64) ** (
        0.2 + 0.2 * (seed % 4)
    )
    table[features] = 0.95
    curve = lambda z: table[z.sum(1).round().long()]  # noqa: E731
    shares = torch.rand(5, 2, features, generator=generator, dtype=torch.float64)
    found = judged(shares, curve)
    for r, b in itertools.product(range(5), range(2)):
        assert int(found.fitness[r, b]) == brute_force(shares[r, b], curve)


@pytest.mark.parametrize("first", [1, 2, 3, 100, 128, 190])
def test_many_features_and_a_dip(first: int) -> None:
    """Low enough for k = first … 200 of 300 only: found, because 128 lies between, to the very first k."""
    table = torch.full((301,), 0.8, dtype=torch.float64)
    table[300 - 200 : 300 - first + 1] = 0.1
    found = judged(torch.rand(2, 1, 300).double(), lambda z: table[z.sum(1).round().long()])
    if first <= 128:
        assert found.fitness.tolist() == [[first], [first]]
        assert "all baselines need the same" in found.reasons[0]
    else:  # as documented: no power of two lies in it
        assert found.fitness.tolist() == [[300], [300]]
        assert found.reasons == (
            "the class score (0.8) does not fall to 0.5 of itself, with 1, 2, 4, … or all 300 features replaced; try another fill",
        )


# --- what fitness cannot judge ----------------------------------------------------------------------------------------


def test_a_score_that_never_halves() -> None:
    found = judged(maps(3, 2, N), lambda z: 0.6 + 0.3 * z.mean(1))
    assert found.fitness.tolist() == [[N, N]] * 3
    torch.testing.assert_close(found.weights, torch.full((3, 2), 1 / 3, dtype=torch.float64))
    assert all(
        r
        == "the class score (0.9) does not fall to 0.5 of itself, whichever number of features is replaced; try another fill"
        for r in found.reasons
    )


def test_a_probability_too_low() -> None:
    found = judged(maps(3, 1, N), lambda z: 0.01 * weighted_sum(z) / 0.9)
    assert found.reasons == (
        "the class probability is only 0.01, too low to be halved meaningfully; explain a likelier class",
    )
    assert judged(maps(3, 1, N), lambda z: 0.01 * weighted_sum(z), least=0.001).reasons == (None,)


def test_a_score_that_is_not_positive() -> None:
    found = judged(maps(3, 1, N), lambda z: -weighted_sum(z))
    assert found.fitness.unique().tolist() == [N]
    assert "is not positive, so there is nothing to halve; explain a class" in found.reasons[0]


def test_all_equal() -> None:
    found = judged(maps(1, 2, N).expand(4, 2, N), weighted_sum)
    d = found.fitness[0].tolist()
    assert found.reasons == tuple(
        f"all baselines need the same number of features ({n})" for n in d
    )
    torch.testing.assert_close(found.weights, torch.full((4, 2), 0.25).double(), rtol=0, atol=1e-15)


def test_one_baseline_is_not_a_comparison() -> None:
    assert judged(maps(1, 2, N), weighted_sum).reasons == (None, None)


def test_reasons_are_each_examples_own() -> None:
    shares = maps(3, 2, N)
    shares[:, 1] = shares[0, 1]
    reasons = judged(shares, weighted_sum).reasons
    assert reasons[0] is None
    assert reasons[1].startswith("all baselines need")


def test_a_baseline_that_is_the_input() -> None:
    """Its share is zero everywhere, so it ranks nothing: the worst D, and no NaN."""
    shares = maps(3, 2, N)
    shares[1] = 0
    found = judged(shares, weighted_sum)
    assert found.fitness[1].tolist() == [N, N]
    assert bool((found.weights[1] == found.weights.min(0).values).all())
    assert bool((found.weights[1] < found.weights[0]).all())
    assert bool(torch.isfinite(found.weights).all())


def test_baselines_that_are_all_the_input() -> None:
    found = judged(torch.zeros(2, 1, N).double(), weighted_sum)
    assert found.fitness.tolist() == [[N], [N]]
    assert found.reasons == (
        "every baseline's map is zero, so no feature ranks above another; give baselines that differ from the input",
    )


def test_one_reference_that_halves_is_enough_to_tell() -> None:
    """Where another reference has no k, it gets the worst D, and nothing is flagged: the two are told apart."""
    curve = lambda z: 0.5 + 0.4 * z[:, 0] - 0.4 * (1 - z[:, 0]) * z[:, 1]  # noqa: E731
    shares = torch.zeros(2, 1, N).double()
    shares[0, 0, 0], shares[1, 0, 1] = 1.0, 1.0
    shares[1, 0, 0] = -1.0
    found = judged(shares, curve)
    assert found.fitness.tolist() == [[1.0], [float(N)]]
    assert found.reasons == (None,)


def test_the_reason_becomes_a_warning() -> None:
    model = tanh_mlp()
    same = [0.0, 0.0]
    with pytest.warns(ig.errors.FitnessWarning, match=r"Fitness says nothing about example 0: "):
        made = ig.explain(
            model, wave(1, 6), target="predicted", method="weighted", baseline=same, fill=0.0
        )
    assert made.reasons[0]
    assert made.weights.tolist() == [[0.5], [0.5]]


# --- keep -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.0, 0.25, 0.9, 0.95, 1.0])
def test_keep(keep: float) -> None:
    """w_b of less than keep × the mean weight are dropped and shared out."""
    shares = maps(9, 4, N)
    plain, found = judged(shares, weighted_sum), judged(shares, weighted_sum, keep=keep)
    for b in range(4):
        w = plain.weights[:, b].tolist()
        kept = [x if x >= keep / 9 else 0.0 for x in w]
        assert found.weights[:, b].tolist() == pytest.approx(
            [x / sum(kept) for x in kept], abs=1e-14
        )
    assert torch.equal(found.fitness, plain.fitness)
    assert bool((found.weights == 0).any()) is (keep >= 0.9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keep_one_among_equals(dtype: torch.dtype) -> None:
    """Rounding may not drop everybody: equal baselines are all exactly average."""
    fitness = ig.weightings.Fitness(ig.baselines.Constant(0.0), keep=1.0)
    for count, d in itertools.product(range(2, 30), range(1, 30)):
        weights = fitness._drop_light(1 / torch.full((count, 1), float(d), dtype=dtype))
        assert bool(torch.isfinite(weights).all()), (count, d)
        assert float(weights.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.0}, "ratio is between 0 and 1, not 0.0"),
        ({"ratio": 1.0}, "ratio is between"),
        ({"keep": -0.1}, r"keep is between 0 \(keep all\) and 1"),
        ({"keep": 1.5}, "keep is between"),
    ],
)
def test_refused(options: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.weightings.Fitness(ig.baselines.Mean(), **options)


# --- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [2, 3, 8, 9, 12, 100, 128])
def test_rows_where_every_k_is_looked_at(features: int) -> None:
    """One round for all k below 8, then as many k again in each round, each reference until one of them halves."""
    score = Score(weighted_sum)
    shares = maps(8, 5, features)
    found = ig.weightings.Fitness(ig.baselines.Constant(0.0))(
        shares, torch.ones(5, features).double(), score
    )
    rows, first, stop = [5, 5], 1, 8
    while left := int(((found.fitness >= first) & (first < features)).sum()):
        rows.append(left * (min(stop, features) - first))
        first, stop = stop, 2 * stop
    assert score.calls == rows
    # As stated: fewer than 2 D rows for each search, 7 if D is small, and never more than N − 1.
    assert sum(rows[2:]) <= sum(
        min(max(7, 2 * d - 1), features - 1) for d in found.fitness.flatten().tolist()
    )
    assert len(rows) - 2 <= max(1, math.ceil(math.log2(features)) - 2)


@pytest.mark.parametrize("features", [129, 1000])
def test_rows_of_the_bisection(features: int) -> None:
    """All searches of all references and examples advance in lock-step, one row each."""
    score = Score(weighted_sum)
    ig.weightings.Fitness(ig.baselines.Constant(0.0))(
        maps(8, 5, features), torch.ones(5, features).double(), score
    )
    assert len(score.calls) <= math.ceil(math.log2(features)) + 2
    assert score.calls[:2] == [5, 5]
    assert all(rows <= 8 * 5 for rows in score.calls[2:])


def test_rounds_through_explain(quiet: None) -> None:
    model = Counting(softplus_cnn())
    x = 0.5 + 0.5 * wave(3, 3, 8, 8)
    made = ig.explain(
        model,
        x,
        target="predicted",
        method="weighted",
        baseline=[0.0, 0.5, 1.0],
        rule=ig.rules.Midpoint(4),
        batch_size=10_000,
    )
    # One call for "predicted", one for gradients, two for the change of F; the rest is the search.
    search = model.calls - 4
    assert search <= math.ceil(math.log2(64)) + 2
    assert model.gradients == 3 * 3 * 4
    assert made.cost.values == model.values - 3  # "predicted" is asked before the method


@pytest.mark.parametrize(
    ("features", "rows"), [(12, [7 * 6, 4 * 6]), (129, [8 * 6]), (1000, [10 * 6])]
)
def test_rows_where_nothing_halves(features: int, rows: list[int]) -> None:
    """Every k for few features, ⌈log2 N⌉ of them for many, for each of 3 references of 2 examples."""
    score = Score(lambda z: 0.6 + 0.3 * z.mean(1))
    ig.weightings.Fitness(ig.baselines.Constant(0.0))(
        wave(3, 2, features), torch.ones(2, features).double(), score
    )
    assert score.calls == [2, 2, *rows]


def test_the_bracket_is_made_only_where_it_is_needed() -> None:
    """The first example's score falls, the second's does not: eight rows more for each of its three references."""
    curve = lambda z: torch.where(z[:, -1] > 0.5, 0.6 + 0.3 * z.mean(1), weighted_sum(z))  # noqa: E731
    x = torch.ones(2, 129).double()
    x[0, -1] = 0
    shares = maps(3, 2, 129)
    shares[..., -1] = -100.0  # what tells the two apart is replaced last
    score = Score(curve)
    blank = torch.zeros(2, 129).double()
    blank[1, -1] = 1
    ig.weightings.Fitness(ig.baselines.Plain(blank))(shares, x, score)
    assert score.calls[:3] == [2, 2, 8 * 3]
    assert all(rows == 3 for rows in score.calls[3:])


# --- features ---------------------------------------------------------------------------------------------------------


def test_pixels_sum_channels_with_sign() -> None:
    x = wave(2, 3, 4, 5)
    groups = feature_map("pixels", x)
    scores = feature_scores(wave(6, 2, 3, 4, 5), groups)
    assert scores.shape == (6, 2, 20)
    maps = wave(6, 2, 3, 4, 5)
    for r, b, i, j in itertools.product(range(6), range(2), range(4), range(5)):
        expected = sum(float(maps[r, b, c, i, j]) for c in range(3))
        assert float(scores[r, b, 5 * i + j]) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(
    ("shape", "kind", "count"),
    [
        ((3, 4, 5), "auto", 20),
        ((3, 4, 5), "pixels", 20),
        ((3, 4, 5), "elements", 60),
        ((7, 4), "auto", 7),
        ((7, 4), "tokens", 7),
        ((7, 4), "elements", 28),
        ((7, 4), "steps", 4),
        ((1, 9), "auto", 9),
        ((6,), "auto", 6),
        ((6,), "columns", 6),
    ],
)
def test_feature_maps(shape: tuple[int, ...], kind: str, count: int) -> None:
    groups = feature_map(kind, wave(2, *shape))
    assert groups.shape == shape
    assert groups.unique().tolist() == list(range(count))
    if kind == "tokens":
        assert bool((groups == torch.arange(7)[:, None]).all())


def test_label_maps() -> None:
    x = wave(2, 3, 4, 5)
    shared = torch.tensor([[0, 0, 7, 7, 7]] * 2 + [[0, 9, 9, 9, 9]] * 2)
    groups = feature_map(shared, x)
    assert groups.shape == (3, 4, 5)
    assert (
        groups[1].tolist() == torch.tensor([[0, 0, 1, 1, 1]] * 2 + [[0, 2, 2, 2, 2]] * 2).tolist()
    )
    scores = feature_scores(torch.ones(1, 2, 3, 4, 5), groups)
    assert scores[0, 0].tolist() == [3.0 * 6, 3.0 * 6, 3.0 * 8]
    own = torch.stack([shared, torch.zeros_like(shared)])
    groups = feature_map(own, x)
    assert groups.expand(2, 3, 4, 5)[1].unique().tolist() == [0]
    scores = feature_scores(torch.ones(1, 2, 3, 4, 5), groups)
    assert scores[0, 1].tolist() == [60.0, float("-inf"), float("-inf")]


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (
            "pixels",
            ig.errors.ShapeError,
            "features='pixels' does not fit examples of shape 6; choose from",
        ),
        ("words", ig.errors.ShapeError, "features='words'"),
        (torch.zeros(6), ig.errors.InputError, "whole numbers, not torch.float32"),
        (
            torch.zeros(4, 4, dtype=torch.long),
            ig.errors.ShapeError,
            "label map of shape 4x4 does not fit examples of shape 6",
        ),
    ],
)
def test_features_that_do_not_fit(features: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        feature_map(features, wave(2, 6))


def superpixels(x: Tensor, side: int) -> Tensor:
    i, j = torch.meshgrid(
        torch.arange(x.shape[2]) // side, torch.arange(x.shape[3]) // side, indexing="ij"
    )
    return i * 100 + j


def test_superpixels_are_replaced_as_one(quiet: None) -> None:
    """D on a label map, by hand: rank the summed map of each superpixel, replace them one after the other."""
    model, x = (
        sure(softplus_cnn(), torch.zeros(3, 8, 8).double(), 150.0),
        0.5 + 0.5 * wave(2, 3, 8, 8),
    )
    labels = superpixels(x, 2)
    made = ig.explain(
        model,
        x,
        target="predicted",
        method="weighted",
        baseline=[0.0, 1.0, "blurred"],
        features=labels,
        fill=0.0,
    )
    for r, b in itertools.product(range(3), range(2)):
        sums = {int(n): float(made.shares[r, b][:, labels == n].sum()) for n in labels.unique()}
        order = sorted(sums, key=lambda n: -sums[n])
        scores = []
        for k in range(17):
            z = x[b : b + 1].clone()
            for n in order[:k]:
                z[:, :, labels == n] = 0
            with torch.no_grad():
                scores.append(float(model(z).softmax(1)[0, model(x[b : b + 1]).argmax()]))
        d = int(made.fitness[r, b])
        assert scores[d] <= scores[0] / 2 < scores[d - 1]


def test_label_maps_of_their_own_equal_single_runs(quiet: None) -> None:
    """Also for a baseline that equals the input: its D is the number of that example's own features."""
    model, x = (
        sure(softplus_cnn(), torch.zeros(3, 8, 8).double(), 150.0),
        0.5 + 0.5 * wave(2, 3, 8, 8),
    )
    labels = torch.stack([superpixels(x, 4), superpixels(x, 2)])
    references = torch.stack([torch.zeros_like(x), torch.ones_like(x), x])
    run = lambda x, maps, refs: ig.explain(  # noqa: E731
        model,
        x,
        target=1,
        method="weighted",
        baseline=refs,
        features=maps,
        fill=0.0,
        rule=ig.rules.Midpoint(5),
    )
    both = run(x, labels, references)
    for b in range(2):
        alone = run(x[b : b + 1], labels[b], references[:, b : b + 1])
        assert alone.fitness[:, 0].tolist() == both.fitness[:, b].tolist()
        torch.testing.assert_close(alone.values[0], both.values[b], rtol=0, atol=1e-10)


# --- the fill ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fill",
    ["corners", "mean", "blurred", 0.3, ig.baselines.Constant(torch.tensor([0.1, 0.5, 0.9]))],
)
def test_fills(fill: Any, quiet: None) -> None:
    """D with every kind of fill is brute force with the same fill."""
    model, x = (
        sure(softplus_cnn(), torch.zeros(3, 8, 8).double(), 150.0),
        0.5 + 0.5 * wave(1, 3, 8, 8),
    )
    field = ig.TorchField(model, int(model(x).argmax()))
    method = ig.methods.weighted([0.0, 1.0], fill=fill, ratio=0.9, rule=ig.rules.Midpoint(5))
    made = method(field, x)
    blank = method.weighting.fill(x, field)[0, 0]
    scores = [
        [
            float(field.score().value(_without(x[0], made.shares[r, 0], blank, k)[None]))
            for k in range(65)
        ]
        for r in (0, 1)
    ]
    for r in (0, 1):
        d = int(made.fitness[r, 0])
        if scores[r][64] <= 0.9 * scores[r][0]:
            assert scores[r][d] <= 0.9 * scores[r][0] < scores[r][d - 1]
        else:
            assert d == 64


def _without(x: Tensor, share: Tensor, blank: Tensor, k: int) -> Tensor:
    ranking = sorted(range(64), key=lambda n: -float(share[:, n // 8, n % 8].sum()))
    z = x.clone()
    for n in ranking[:k]:
        z[:, n // 8, n % 8] = blank[:, n // 8, n % 8]
    return z


class Wave(nn.Module):
    """A class score for any shape: columns, tokens, series."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(wave(*shape, scale=2.0))

    def forward(self, z: Tensor) -> Tensor:
        score = (z * self.weight).flatten(1).tanh().sum(1)
        return torch.stack([3 * score, torch.zeros_like(score)], 1)


@pytest.mark.parametrize(
    ("shape", "options", "kind", "axis"),
    [
        ((7,), {}, "elements", 0),
        ((6, 3), {}, "tokens", 0),
        ((3, 6), {"features": "steps"}, "steps", 1),
        ((1, 9), {}, "elements", 1),
    ],
)
def test_defaults_for_what_is_no_picture(
    shape: tuple[int, ...], options: Any, kind: str, axis: int, quiet: None
) -> None:
    """Columns, tokens and series need no option: features become the mean of the references, by brute force."""
    model, x = (
        Wave(*shape),
        0.5 * wave(2, *shape, phase=1.0).abs() * Wave(*shape).weight.detach().sign(),
    )
    references = 0.2 * wave(4, *shape, phase=2.0)
    made = ig.explain(model, x, target=0, method="weighted", baseline=references, **options)
    probability = lambda z: model(z).softmax(1)[:, 0].tolist()  # noqa: E731
    for b in range(2):
        lowest = references[int(torch.tensor(probability(references)).argmin())]
        with_mean, with_lowest = (
            [probability(gone_one_by_one(x[b], made.shares[r, b], fill, axis)) for r in range(4)]
            for fill in (references.mean(0), lowest)
        )
        halves = any(min(curve) <= 0.5 * curve[0] for curve in with_mean)
        curves = with_mean if halves else with_lowest
        whole, empty = curves[0][0], curves[0][-1]
        goal = 0.5 * whole
        if min(min(curve) for curve in curves) > goal:
            goal = empty + 0.5 * (whole - empty)
        for r, curve in enumerate(curves):
            steps = [k for k, score in enumerate(curve) if score <= goal]
            assert int(made.fitness[r, b]) == (steps[0] if steps else shape[axis])
    assert f"{shape[axis]} {kind}" in made.criterion
    assert "fill: mean of the references" in made.criterion


def gone_one_by_one(x: Tensor, share: Tensor, fill: Tensor, axis: int) -> Tensor:
    """An input, and what is left of it as its features are replaced, the highest ranked first."""
    scores = share.movedim(axis, 0).reshape(x.shape[axis], -1).sum(1)
    rows, z = [x.clone()], x.clone()
    for n in sorted(range(x.shape[axis]), key=lambda n: (-float(scores[n]), n)):
        z.movedim(axis, 0)[n] = fill.movedim(axis, 0)[n]
        rows.append(z.clone())
    return torch.stack(rows)


def test_defaults_for_several_inputs(quiet: None) -> None:
    """Inputs side by side are columns, and each becomes the mean of its own references."""
    model = lambda a, b: Wave(3 + 8)(torch.cat([a, b.flatten(1)], 1))  # noqa: E731
    a, b = wave(2, 3, phase=1.0), wave(2, 2, 4, phase=3.0)
    references = (0.2 * wave(4, 3, phase=2.0), 0.2 * wave(4, 2, 4, phase=4.0))
    made = ig.explain(model, (a, b), target=0, method="weighted", baseline=references)
    joint = ig.explain(
        Wave(11),
        torch.cat([a, b.flatten(1)], 1),
        target=0,
        method="weighted",
        baseline=torch.cat([references[0], references[1].flatten(1)], 1),
    )
    assert torch.equal(made.fitness, joint.fitness)
    assert len(made.fitness.unique()) > 1
    torch.testing.assert_close(made.values[1].flatten(1), joint.values[:, 3:], rtol=0, atol=1e-12)


def test_defaults_at_an_embedding(quiet: None) -> None:
    """References and their mean are those of the layer, in whose space features are replaced."""
    table, head = nn.Embedding(9, 3).double(), Wave(5, 3)
    with torch.no_grad():
        table.weight.copy_(wave(9, 3, phase=0.7))
    model = nn.Sequential(table, head)
    ids, others = (
        torch.tensor([[1, 4, 2, 8, 3], [7, 7, 1, 0, 2]]),
        torch.tensor([[0] * 5, [5] * 5, [6, 2, 6, 2, 6]]),
    )
    made = ig.explain(
        model,
        ids,
        target=0,
        method=ig.Layered("0", ig.methods.weighted(ig.baselines.Given(others))),
    )
    direct = ig.explain(
        head,
        table(ids).detach(),
        target=0,
        method="weighted",
        baseline=ig.baselines.Given(table(others).detach()),
    )
    assert torch.equal(made.fitness, direct.fitness)
    assert made.criterion == direct.criterion
    assert "5 tokens" in made.criterion
    torch.testing.assert_close(made.values, direct.values, rtol=0, atol=1e-12)


def test_the_default_is_the_corner_colour_for_pictures(quiet: None) -> None:
    model, x = (
        sure(softplus_cnn(), torch.zeros(3, 8, 8).double(), 150.0),
        0.5 + 0.5 * wave(2, 3, 8, 8),
    )
    run = lambda **options: ig.explain(  # noqa: E731
        model,
        x,
        target=1,
        method="weighted",
        baseline=[0.0, 1.0, "blurred"],
        rule=ig.rules.Midpoint(5),
        **options,
    )
    auto, corners = run(), run(fill="corners")
    assert torch.equal(auto.fitness, corners.fitness)
    assert torch.equal(auto.values, corners.values)
    assert auto.criterion == corners.criterion
    mean = run(fill="references")
    references = torch.stack(
        [
            torch.zeros_like(x),
            torch.ones_like(x),
            ig.baselines.Blurred()(x, ig.TorchField(model, 1))[0],
        ]
    )
    assert torch.equal(mean.fitness, run(fill=references.mean(0)).fitness)
    assert not torch.equal(mean.fitness, corners.fitness)


def test_a_fill_made_of_references_needs_them() -> None:
    fitness = ig.weightings.Fitness(ig.weightings.ReferenceMean())
    with pytest.raises(
        ig.errors.InputError, match=r"made of the references.*prepared\(x, field, references\)"
    ):
        fitness(maps(3, 2, N), torch.ones(2, N).double(), Score(weighted_sum))


def test_corners_are_of_pictures_only() -> None:
    with pytest.raises(
        ig.errors.BaselineError,
        match=r"corner colour needs images .* Features are replaced by fill=",
    ):
        ig.explain(
            tanh_mlp(), wave(2, 6), target=0, method="weighted", baseline=[0.0, 1.0], fill="corners"
        )


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_permuting_baselines_permutes_weights(quiet: None) -> None:
    x, refs = wave(3, 6), wave(4, 3, 6, phase=2)
    field = ig.TorchField(sure(tanh_mlp(), torch.zeros(6).double()), torch.tensor([2, 2, 0]))
    one = ig.methods.weighted(refs, fill=0.0)(field, x)
    order = torch.tensor([2, 0, 3, 1])
    other = ig.methods.weighted(refs[order], fill=0.0)(field, x)
    assert torch.equal(other.fitness, one.fitness[order])
    torch.testing.assert_close(other.weights, one.weights[order], rtol=0, atol=1e-15)
    torch.testing.assert_close(other.values, one.values, rtol=0, atol=1e-14)
    assert len(one.weights[:, 1].unique()) > 1


def test_identical_baselines_are_uniform_and_integrated_gradients(quiet: None) -> None:
    x, field = wave(3, 6), ig.TorchField(tanh_mlp(), 1)
    made = ig.methods.weighted([0.2, 0.2, 0.2], fill=0.0)(field, x)
    torch.testing.assert_close(
        made.weights, torch.full((3, 3), 1 / 3, dtype=torch.float64), rtol=0, atol=1e-15
    )
    single = ig.methods.integrated(0.2, rule=ig.rules.GaussLegendre(25))(field, x)
    torch.testing.assert_close(made.values, single.values, rtol=0, atol=1e-14)


def test_the_score_is_taken_of_the_explained_class() -> None:
    """Not of the predicted one: each example's own class, on the same inputs as the gradient."""
    model, x = tanh_mlp(), wave(4, 6)
    classes = torch.tensor([0, 1, 2, 0])
    field = ig.TorchField(model, classes).score()
    expected = model(x).softmax(1)[range(4), classes].tolist()
    assert field.value(x).tolist() == pytest.approx(expected, abs=1e-14)


def test_uniform() -> None:
    weights = ig.weightings.Uniform()(wave(5, 2, 3), wave(2, 3), None)
    assert weights.tolist() == [[0.2, 0.2]] * 5
    assert torch.equal(ig.weightings.Uniform().beforehand(5, 2), weights)
    assert ig.weightings.Fitness(ig.baselines.Mean()).beforehand(5, 2) is None


def test_a_bare_tensor_is_a_weighting_too() -> None:
    """Anything that returns (R, B) may weigh: the maps' own size here."""
    loudest = lambda shares, x, field: shares.abs().flatten(2).sum(2).softmax(0)  # noqa: E731
    refs = wave(3, 6, phase=1)
    made = ig.Method(ig.baselines.Given(refs), weighting=loudest, record=("shares",))(
        ig.TorchField(tanh_mlp(), 0), wave(2, 6)
    )
    expected = made.shares.abs().sum(2).softmax(0)
    torch.testing.assert_close(made.weights, expected)
    torch.testing.assert_close(made.values, (expected[..., None] * made.shares).sum(0))
    assert made.fitness is None


# --- fills made of the references -------------------------------------------------------------------------------------


def _share(z: Tensor, left: float) -> Tensor:
    """Features of weights of their own, on top of what is left of the score at zero."""
    w = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5]).double()
    return left + (1 - left) * 0.9 * (z * w).sum(1) / w.sum()


def _by_hand(share: Tensor, curve: Callable[[Tensor], Tensor], fill: Tensor, goal: float) -> int:
    """The fewest top features whose replacement by ``fill`` brings the score to ``goal``."""
    order = sorted(range(len(share)), key=lambda i: (-float(share[i]), i))
    for k in range(1, len(share) + 1):
        z = torch.ones(1, len(share)).double()
        z[0, order[:k]] = fill[order[:k]]
        if float(curve(z)) <= goal:
            return k
    return len(share)


def _of_references(references: Tensor, curve: Callable[[Tensor], Tensor]) -> tuple[Weighed, Tensor]:
    shares = maps(len(references), 1, 5, seed=4)
    fitness = ig.weightings.Fitness(ig.weightings.ReferenceMean())
    x = torch.ones(1, 5).double()
    return fitness.prepared(x, Score(curve), references[:, None])(shares), shares


def test_where_the_mean_of_references_halves_nothing_the_lowest_reference_is_taken() -> None:
    curve = lambda z: _share(z, 0.02)  # noqa: E731
    references = torch.tensor([0.9, 0.8, 0.1, 1.2]).double()[:, None].expand(4, 5)
    assert float(curve(references.mean(0)[None])) > 0.5 * float(curve(torch.ones(1, 5).double()))
    found, shares = _of_references(references, curve)
    goal = 0.5 * float(curve(torch.ones(1, 5).double()))
    for r in range(4):
        expected = _by_hand(shares[r, 0], curve, references[2], goal)
        assert int(found.fitness[r, 0]) == expected
    assert len(found.fitness.unique()) > 1
    assert found.reasons == (None,)
    assert "or the one of lowest score" in found.criterion


def test_where_no_reference_halves_it_half_of_what_they_take_away_counts() -> None:
    curve = lambda z: _share(z, 0.7)  # noqa: E731
    references = torch.tensor([0.9, 0.4, 1.2]).double()[:, None].expand(3, 5)
    found, shares = _of_references(references, curve)
    intact, empty = (float(curve(z[None])) for z in (torch.ones(5).double(), references[1]))
    assert empty > 0.5 * intact
    for r in range(3):
        expected = _by_hand(shares[r, 0], curve, references[1], empty + 0.5 * (intact - empty))
        assert int(found.fitness[r, 0]) == expected
    assert len(found.fitness.unique()) > 1
    assert found.reasons == (None,)


def test_references_that_take_nothing_away_are_said_to_be_of_the_same_class() -> None:
    found, _ = _of_references(torch.ones(3, 5).double() * 0.99, lambda z: _share(z, 0.7))
    assert found.fitness.tolist() == [[5]] * 3
    assert found.reasons[0] is not None
    assert "which are of the same class" in found.reasons[0]
    assert "ig.baselines.OtherClass" in found.reasons[0]


def test_breast_cancer_is_weighed_by_default(quiet: None) -> None:
    """A classifier of two classes and references of both: no example's fitness says nothing."""
    datasets, linear, steps, scale = (
        pytest.importorskip(f"sklearn.{name}")
        for name in ("datasets", "linear_model", "pipeline", "preprocessing")
    )
    x, y = datasets.load_breast_cancer(return_X_y=True)
    model = steps.make_pipeline(scale.StandardScaler(), linear.LogisticRegression()).fit(x, y)
    rows = torch.from_numpy(x)
    result = ig.explain(
        model, rows[100:140], target="predicted", method="weighted", baseline=rows[:8]
    )
    odd = [reason for reason in result.reasons if reason and "same number" not in reason]
    assert not odd
    assert int((result.weights.std(0) > 0).sum()) >= 38
