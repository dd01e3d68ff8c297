"""Greedy PIG: against a slow restatement, the orders of the reference values, and what adaptivity is for."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import integrand as ig
from integrand.core.features import feature_map
from tests.catalogue import BUILD
from tests.problems import PROBLEMS, T6_INPUT, Counting, Problem, joined, t6, wave

MIDPOINT = ig.methods.integrated(rule=ig.rules.Midpoint(50))
ORDERS = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())


def run(problem: Problem, method: Any, **options: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(
            problem.model,
            problem.inputs,
            target=problem.target,
            extra=problem.extra,
            method=method,
            **options,
        )


def order_of(made: ig.Attribution, b: int = 0) -> list[int]:
    return made.notes["order"][0, 0, b].tolist()


# --- the definition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [1, 2])
def test_orders_of_the_reference_values(z: int) -> None:
    made = ig.GreedyPIG(MIDPOINT, z)(ig.fields.Function(t6), T6_INPUT)
    assert order_of(made) == ORDERS[f"GreedyPIG_z{z}"]
    assert made.values[0].argsort(descending=True).tolist() == ORDERS[f"GreedyPIG_z{z}"]


def test_orders_of_the_reference_values_tell_rounds_apart() -> None:
    """They differ from one another and from IG's: a wrong number of features per round would be seen."""
    integrated = (
        MIDPOINT(ig.fields.Function(t6), T6_INPUT).values[0].argsort(descending=True).tolist()
    )
    assert integrated == [3, 2, 1, 4, 0, 5]
    assert ORDERS["GreedyPIG_z1"] != ORDERS["GreedyPIG_z2"] != integrated


def by_hand(
    p: Problem, b: int, groups: Tensor, sizes: list[int], sign: int = 1
) -> tuple[list[int], list[Tensor]]:
    """Features one by one: IG at 50 midpoints from where some are revealed, the largest of the rest next."""
    field, x, start = p.field(), p.packed()[b : b + 1], p.references[0][None]
    n = int(groups.max()) + 1
    order: list[int] = []
    maps = []
    for size in sizes:
        shown = torch.zeros_like(groups, dtype=torch.bool)
        for feature in order:
            shown |= groups == feature
        here = torch.where(shown, x, start)
        mean = torch.zeros_like(x)
        for q in range(50):
            mean += field.rows(here + (q + 0.5) / 50 * (x - here), torch.tensor([b])).gradient / 50
        share = ((x - here) * mean)[0]
        scores = torch.stack([share[groups == feature].sum() for feature in range(n)])
        left = [feature for feature in range(n) if feature not in order]
        order += sorted(left, key=lambda feature: (-sign * float(scores[feature]), feature))[:size]
        maps.append(scores)
    return order, maps


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("problem", "features"),
    [
        ("t6", "auto"),
        ("relu mlp", "columns"),
        ("img", "pixels"),
        ("img", "elements"),
        ("softplus cnn", 3),
        ("softplus cnn", torch.arange(64).reshape(8, 8) // 12),
        ("extra arguments", "auto"),
    ],
    ids=str,
)
def test_is_the_definition(problem: str, features: Any, largest: bool) -> None:
    p = PROBLEMS[problem]
    groups = feature_map(features, p.packed())
    n = int(groups.max()) + 1
    inside = ig.methods.integrated(ig.baselines.Given(p.references[:1]), ig.rules.Midpoint(50))
    method = ig.GreedyPIG(inside, max(1, n // 4), features=features, growth=1.5, largest=largest)
    made = run(p, method)
    for b in (0, 3):
        order, maps = by_hand(p, b, groups, method.sizes(n), 1 if largest else -1)
        assert order_of(made, b) == order
        torch.testing.assert_close(
            made.notes["rounds"][:, 0, b], torch.stack(maps), rtol=0, atol=1e-12
        )
        for place, feature in enumerate(order):
            assert set(made.values[b][groups == feature].tolist()) == {float(n - place)}
            number = next(k for k in range(len(maps)) if sum(method.sizes(n)[: k + 1]) > place)
            assert float(made.notes["gain"][0, 0, b, feature]) == pytest.approx(
                float(maps[number][feature]), abs=1e-12
            )


def test_every_round_is_complete() -> None:
    p = PROBLEMS["softplus cnn"]
    made = run(p, ig.GreedyPIG(ig.methods.integrated(0.5, ig.rules.GaussLegendre(16)), 20))
    field, x = p.field(), p.packed()
    for k, scores in enumerate(made.notes["rounds"][:, 0]):
        start = torch.full_like(x, 0.5)
        for b in range(5):
            for feature in order_of(made, b)[: 20 * k]:
                start[b, :, feature // 8, feature % 8] = x[b, :, feature // 8, feature % 8]
        torch.testing.assert_close(
            scores.sum(1), field.value(x) - field.value(start), rtol=0, atol=1e-7
        )
        if k:
            known = made.notes["order"][0, 0, :, : 20 * k]
            assert not scores.gather(1, known).any()  # what is revealed has nothing more to give


@given(
    n=st.integers(1, 8),
    batch=st.integers(1, 3),
    phase=st.floats(0, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_one_round_is_the_order_of_integrated_gradients(
    n: int, batch: int, phase: float, dtype: torch.dtype
) -> None:
    x, tilt = wave(batch, n, phase=phase).to(dtype), wave(n, phase=phase + 1).to(dtype)
    field = ig.fields.Function(lambda z: torch.tanh(z @ tilt) + (z * tilt).square().sum(1))
    made, plain = ig.GreedyPIG(MIDPOINT, chunk=n)(field, x), MIDPOINT(field, x)
    assert torch.equal(
        made.notes["order"][0, 0], plain.values.argsort(dim=1, descending=True, stable=True)
    )
    assert torch.equal(made.notes["gain"][0, 0], plain.values)
    assert made.values.dtype == dtype
    assert made.values.sort(1).values.tolist() == [[float(i) for i in range(1, n + 1)]] * batch
    assert torch.equal(made.change, plain.change)


def test_the_second_of_two_duplicates_comes_later() -> None:
    """F saturates in the sum of two copies: IG ranks both before a third feature, which adds more once one of them is known."""
    field = ig.fields.Function(lambda z: torch.tanh(4 * (z[:, 0] + z[:, 1])) + 0.3 * z[:, 2])
    x = torch.ones(1, 3).double()
    assert MIDPOINT(field, x).values[0].argsort(descending=True, stable=True).tolist() == [0, 1, 2]
    assert order_of(ig.GreedyPIG(MIDPOINT, 1)(field, x)) == [0, 2, 1]
    assert order_of(ig.GreedyPIG(MIDPOINT, 3)(field, x)) == [0, 1, 2]


def test_ties_go_to_the_first() -> None:
    field, x = ig.fields.Linear(torch.tensor([1.0, 2.0, 1.0, 2.0, -1.0])), torch.ones(1, 5)
    assert order_of(ig.GreedyPIG(MIDPOINT, 2)(field, x)) == [1, 3, 0, 2, 4]
    assert order_of(ig.GreedyPIG(MIDPOINT, 1, largest=False)(field, x)) == [4, 0, 2, 1, 3]


def test_it_is_signed() -> None:
    field, x = ig.fields.Linear(torch.tensor([1.0, -9.0, 0.0])), torch.ones(1, 3)
    assert order_of(ig.GreedyPIG(MIDPOINT, 1)(field, x)) == [0, 2, 1]


# --- how many at a time -----------------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 3000),
    chunk=st.none() | st.integers(1, 400),
    rounds=st.none() | st.integers(1, 30),
    growth=st.floats(1, 4),
)
def test_rounds_take_everything_once(
    n: int, chunk: int | None, rounds: int | None, growth: float
) -> None:
    sizes = ig.GreedyPIG(ig.Method(), chunk, rounds, growth=growth).sizes(n)
    assert sum(sizes) == n
    assert min(sizes) >= 1
    if rounds is not None:
        assert len(sizes) <= rounds
    if chunk is None:
        assert len(sizes) == min(n, rounds or 10)
    else:
        assert sizes[0] == min(n, chunk) or rounds == 1


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"chunk": 2}, [2] * 5),
        ({"chunk": 1, "growth": 2.0}, [1, 2, 4, 3]),
        ({"chunk": 2, "rounds": 3}, [2, 2, 6]),
        ({"rounds": 4}, [2, 3, 3, 2]),
        ({"rounds": 3, "growth": 2.0}, [1, 3, 6]),
        ({}, [1] * 10),
    ],
)
def test_sizes(options: dict[str, Any], sizes: list[int]) -> None:
    assert ig.GreedyPIG(ig.Method(), **options).sizes(10) == sizes


def test_gradients_are_rounds_times_the_methods() -> None:
    p = PROBLEMS["softplus cnn"]
    model = Counting(p.model)
    tallies: list[Any] = []
    made = run(
        replace(p, model=model),
        ig.GreedyPIG(ig.methods.integrated(0.25, ig.rules.Midpoint(7)), 16),
        progress=lambda tally: tallies.append(
            (tally.gradients, tally.values, tally.calls, tally.expected)
        ),
    )
    assert model.gradients == made.cost.gradients == 4 * 7 * 5
    assert model.values == made.cost.values
    assert model.calls == made.cost.calls
    assert tallies[-1] == (made.cost.gradients, made.cost.values, made.cost.calls, 4 * 7 * 5)
    assert tallies == sorted(tallies)


# --- every problem ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS)
def test_five_at_once_are_five_alone(problem: str) -> None:
    p = PROBLEMS[problem]
    method = BUILD["greedy_pig"](p)
    whole = run(p, method)
    assert type(whole.values) is type(p.inputs)
    assert bool(whole.converged.all()) or not p.smooth
    values = joined(whole.values)
    torch.testing.assert_close(
        values.sum(1) + whole.residual, whole.output - whole.base, rtol=0, atol=1e-9
    )
    for b in range(5):
        alone = run(p.only(b), method, batch_size=7)
        assert torch.equal(joined(alone.values)[0], values[b])
        torch.testing.assert_close(
            alone.notes["rounds"][:, 0, 0], whole.notes["rounds"][:, 0, b], rtol=0, atol=1e-12
        )
        assert torch.equal(whole[b].notes["order"], alone.notes["order"])


# --- with other parts -------------------------------------------------------------------------------------------------


def test_several_and_weighted_baselines() -> None:
    """Every reference is revealed alike; weights are judged anew in each round, the first round's are reported."""
    p = PROBLEMS["img"]
    mean = run(
        p,
        ig.GreedyPIG(
            ig.methods.integrated(ig.baselines.Given(p.references), ig.rules.Midpoint(9)), 8
        ),
    )
    assert mean.change.shape == (3, 5)
    first = run(p, ig.methods.integrated(ig.baselines.Given(p.references), ig.rules.Midpoint(9)))
    torch.testing.assert_close(
        mean.notes["rounds"][0, 0], first.values.sum(1).flatten(1), rtol=0, atol=1e-12
    )
    assert mean.names == first.names
    weighted = run(
        p, ig.GreedyPIG(ig.methods.weighted(p.references, rule=ig.rules.Midpoint(9), fill=0.0), 8)
    )
    assert weighted.fitness.shape == weighted.weights.shape == (3, 5)


def test_around_other_wrappers() -> None:
    p = PROBLEMS["softplus cnn"]
    scouted = ig.methods.weighted(
        p.references, rule=ig.rules.Midpoint(4), fill=0.0, keep=0.5, scout=2
    )
    drawn = ig.methods.expected(0.5 + 0.5 * wave(60, 3, 8, 8), tol=0.5)
    for inside in (scouted, drawn):
        made = run(p, ig.GreedyPIG(inside, 32))
        assert len(set(order_of(made))) == 64
        assert not made.notes["rounds"][1, 0, 0][order_of(made)[:32]].any()


def test_a_noisy_input_leaves_something_where_it_was_revealed() -> None:
    """Negative control of the line above: noise moves the input away from what was revealed."""
    p = PROBLEMS["softplus cnn"]
    made = run(p, ig.GreedyPIG(ig.methods.smoothgrad(draws=3, rule=ig.rules.Midpoint(4)), 32))
    assert made.notes["rounds"][1, 0, 0][order_of(made)[:32]].any()


def test_label_maps_of_their_own_equal_single_runs_and_targets() -> None:
    p = PROBLEMS["softplus cnn"]
    maps = torch.stack([(torch.arange(64).reshape(8, 8) // (10 + 3 * b)) for b in range(5)])
    inside = ig.methods.integrated(0.25, ig.rules.Midpoint(5))
    whole = run(p, ig.GreedyPIG(inside, 2, features=maps))
    for b in range(5):
        alone = run(p.only(b), ig.GreedyPIG(inside, 2, features=maps[b]))
        assert torch.equal(alone.values[0].argsort(), whole.values[b].argsort())
    several = ig.explain_targets(
        p.model, p.inputs, targets=[0, p.target], method=ig.GreedyPIG(inside, 2, features=maps)
    )
    assert torch.equal(several[1].values, whole.values)
    assert torch.equal(several[1].notes["order"], whole.notes["order"])
    assert not torch.equal(several[0].values, whole.values)


def test_by_name() -> None:
    p = PROBLEMS["relu mlp"]
    made = run(p, "greedy_pig", chunk=2, baseline=0.25, rule=ig.rules.Midpoint(6))
    same = run(p, ig.GreedyPIG(ig.methods.integrated(0.25, ig.rules.Midpoint(6)), 2))
    assert made.method == same.method
    assert torch.equal(made.values, same.values)
    assert run(
        p, "greedy_pig", of=ig.methods.weighted(p.references, fill=0.0), rounds=2
    ).weights.shape == (3, 5)
    assert run(
        p, "greedy_pig", of="expected", baseline=p.references, rule=ig.rules.Left(2), rounds=2
    ).weights.shape == (
        3,
        5,
    )


def test_baseline_and_tolerance_reach_the_method_inside() -> None:
    p = PROBLEMS["relu mlp"]
    made = run(p, ig.GreedyPIG(ig.Method(), 3), baseline=0.5, tol=0.2)
    assert made.method == ig.GreedyPIG(
        ig.Method(ig.baselines.Constant(0.5), rule=ig.rules.Adaptive(0.2)), 3
    )


def test_saved_and_read_back(tmp_path: Path) -> None:
    made = run(PROBLEMS["img"], "greedy_pig", rule=ig.rules.Midpoint(3))
    made.save(tmp_path / "map.safetensors")
    back = ig.load(tmp_path / "map.safetensors")
    assert repr(back.method) == "GreedyPIG(Method(rule=Midpoint(3)))" == repr(made.method)
    assert torch.equal(back.notes["order"], made.notes["order"])


def test_half_precision() -> None:
    made = ig.GreedyPIG(MIDPOINT, 2)(ig.fields.Function(t6), T6_INPUT.to(torch.bfloat16))
    assert made.values.dtype == torch.float32
    assert sorted(order_of(made)) == list(range(6))


def test_warnings_are_given_once() -> None:
    field = ig.fields.Function(lambda z: z[:, 0] ** 5 + z[:, 1] ** 7)
    with pytest.warns(
        ig.errors.IncompleteWarning, match=r"\(the first of 2 such warnings of single runs\)"
    ) as caught:
        ig.GreedyPIG(ig.methods.integrated(rule=ig.rules.Midpoint()), 1)(
            field, torch.ones(2, 2).double()
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_warnings_of_others_pass() -> None:
    def model(z: Tensor) -> Tensor:
        warnings.warn("of somebody else's", UserWarning, stacklevel=1)
        return z.sum(1)

    with pytest.warns(UserWarning, match="of somebody else's") as caught:
        ig.GreedyPIG(ig.methods.integrated(rule=ig.rules.Midpoint(1)), 1)(
            ig.fields.Function(model), torch.ones(1, 2)
        )
    assert len(caught) > 1
    assert {one.filename for one in caught} == {__file__}


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ig.GreedyPIG("integrated"),
            r"GreedyPIG wraps a Method, such as ig.methods.integrated.* not str",
        ),
        (
            lambda: ig.GreedyPIG(ig.methods.layer("0")),
            r"GreedyPIG explains the inputs, and Layered",
        ),
        (lambda: ig.GreedyPIG(ig.Method(), 0), r"chunk=0"),
        (lambda: ig.GreedyPIG(ig.Method(), rounds=0), r"rounds=0"),
        (lambda: ig.GreedyPIG(ig.Method(), growth=0.5), r"1 or more, not 0\.5"),
        (lambda: ig.methods.greedy_pig(3), r"of= is a published name or a method, not int"),
        (
            lambda: ig.methods.greedy_pig("weighted"),
            r"'weighted' needs baselines=: give baseline=, or the method itself",
        ),
        (
            lambda: ig.methods.greedy_pig("layer"),
            r"'layer' needs site=: give the method itself, of=ig\.methods\.layer",
        ),
    ],
)
def test_nonsense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        make()


def test_paths_with_a_start_of_their_own_are_refused() -> None:
    p = PROBLEMS["relu mlp"]
    method = ig.methods.ig2(p.references, "1", 3, 0.05, (-9.0, 9.0))
    with pytest.raises(ig.errors.InputError, match=r"this method chooses its own start"):
        run(p, ig.GreedyPIG(method, 2))


def test_features_that_do_not_fit() -> None:
    with pytest.raises(ig.errors.ShapeError, match=r"features='pixels' does not fit"):
        run(PROBLEMS["relu mlp"], ig.GreedyPIG(ig.Method(), features="pixels"))
    with pytest.raises(ig.errors.InputError, match=r"one pixel wide, not 0"):
        run(PROBLEMS["img"], ig.GreedyPIG(ig.Method(), features=0))
