"""Discretized Integrated Gradients: against the official numbers, and against the definition written out in loops."""

from __future__ import annotations

import gc
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import integrand as ig
from integrand import testing
from integrand.paths.discretized import _SEARCH_ELEMENTS
from tests.memory import held_bytes
from tests.problems import Counting, filled, wave

OFFICIAL = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())

PAD, WORDS = 2, [10, 23, 41]


def vocabulary() -> Tensor:
    """E[i, j] = sin(.731 i (j + 1) + .37 j² + (.11 i² mod 3)), 60 words of five numbers; row 2 is .02."""
    i, j = torch.arange(60, dtype=torch.float64)[:, None], torch.arange(5, dtype=torch.float64)
    table = torch.sin(0.731 * i * (j + 1) + 0.37 * j**2 + (0.11 * i**2) % 3)
    table[PAD] = 0.02
    return table


E = vocabulary()


def three_words(z: Tensor) -> Tensor:
    """F = vd · tanh(.5 Wd z), Wd[h, k] = sin(.21 k (h + 1) + h)."""
    h, k = torch.arange(4).to(z)[:, None], torch.arange(15).to(z)
    top = torch.tensor([1, -0.6, 0.8, 0.4], dtype=z.dtype)
    return torch.tanh(0.5 * z.flatten(1) @ torch.sin(0.21 * k * (h + 1) + h).T) @ top


FIELD = ig.fields.Function(three_words)
X = E[WORDS][None]


def corners(path: Any, start: Tensor, x: Tensor) -> Tensor:
    return ig.paths.corners(path, ig.fields.Linear(torch.ones(x.shape[1:]).to(x)), start, x)[1]


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected.to(found), rtol=0, atol=tolerance)


# --- the official numbers ---------------------------------------------------------------------------------------------


def halved(points: Tensor) -> Tensor:
    """The official code's factor: every piece cut in the middle."""
    between = (points[:-1] + points[1:]) / 2
    return torch.cat([torch.stack([points[:-1], between], 1).flatten(0, 1), points[-1:]])


@pytest.mark.parametrize("factor", [0, 1])
@pytest.mark.parametrize("strategy", ["greedy", "maxcount"])
def test_official_paths(strategy: str, factor: int) -> None:
    """Written out in float32 by the official code: equal to the last digit of that, and so within 3e-8 in float64."""
    found = corners(ig.paths.Discretized(E, 12, 10, strategy), E[PAD].expand(1, 1, 3, 5), X)[
        :, 0, 0
    ]
    for _ in range(factor):
        found = halved(found)
    official = torch.tensor(
        OFFICIAL[f"DIG path {strategy} f={factor}"]["official"], dtype=torch.float64
    )
    assert torch.equal(found.float().double().flatten(), official)
    near(found.flatten(), official, 3e-8)


def test_official_attribution(quiet: None) -> None:
    """The gradient at the baseline's end of every piece times the piece; there F is of one class, so it is what is defined too."""
    path = ig.paths.Discretized(E, 12, 10)
    official = torch.tensor(OFFICIAL["DIG attr (tint)"]["official"], dtype=torch.float64)
    made = ig.explain(
        three_words,
        X,
        target=ig.targets.Output(),
        method=ig.methods.discretized(E, E[PAD], 12, 10, rule=ig.rules.Left()),
    )
    near(made.values.flatten(), official, 1e-14)
    # The same sum, written out over the path's corners.
    points = corners(path, E[PAD].expand(1, 1, 3, 5), X)[:, 0, 0]
    by_hand = (FIELD.gradient(points[:-1]) * points.diff(dim=0)).sum(0)
    near(by_hand.flatten(), official, 1e-14)
    # And the other strategy has another map.
    other = ig.methods.discretized(E, E[PAD], 12, 10, "maxcount", rule=ig.rules.Left())(FIELD, X)
    assert float((other.values.flatten() - official).abs().max()) > 1e-2


def test_the_published_rule_converges_to_ours(quiet: None) -> None:
    """Halving pieces halves its error; the default rule needs as many gradients as it takes unhalved, and misses little."""
    exact = ig.methods.discretized(E, E[PAD], 12, 10, rule=ig.rules.GaussLegendre(20))(FIELD, X)
    near(exact.residual, torch.zeros(1), 1e-14)
    errors = []
    for factor in range(7):
        made = ig.methods.discretized(E, E[PAD], 12, 10, rule=ig.rules.Left(2**factor))(FIELD, X)
        errors.append(float((made.values - exact.values).norm()))
    assert all(1.7 < one / other < 2.4 for one, other in itertools.pairwise(errors[1:]))
    default = ig.methods.discretized(E, E[PAD], 12, 10)(FIELD, X)
    published = ig.methods.discretized(E, E[PAD], 12, 10, rule=ig.rules.Left())(FIELD, X)
    assert default.cost.gradients == published.cost.gradients == 11
    assert float(published.gap) > 0.15
    assert float(default.gap) < 0.002


# --- the definition, in loops -----------------------------------------------------------------------------------------


def moved(base: list[float], here: list[float], anchor: list[float], m: int) -> list[float]:
    """The anchor where it does not turn back, elsewhere one m-th of the way that is left."""
    return [
        a if min(b, h) <= a <= max(b, h) else h - (h - b) / m
        for b, h, a in zip(base, here, anchor, strict=True)
    ]


def by_hand(
    table: Tensor, word: int, base: Tensor, k: int, m: int, strategy: str
) -> list[list[float]]:
    """The points of one word's path, the baseline first."""
    rows, b = table.tolist(), base.tolist()
    own = next((i for i, row in enumerate(rows) if row == b), None)
    walk = [word]
    while len(walk) <= m and walk[-1] is not None:
        here = rows[walk[-1]]
        others = sorted(
            (i for i in range(len(rows)) if i != walk[-1]), key=lambda i: math.dist(rows[i], here)
        )
        left = [i for i in others[:k] if i != own and i not in walk]
        if not left:
            walk.append(None)
        elif strategy == "greedy":
            walk.append(min(left, key=lambda i: math.dist(rows[i], moved(b, here, rows[i], m))))
        else:
            count = {
                i: sum(
                    min(c, h) <= a <= max(c, h) for a, c, h in zip(rows[i], b, here, strict=True)
                )
                for i in left
            }
            walk.append(max(left, key=lambda i: count[i]))  # the first of equal ones
    points = [rows[word]]
    for step in range(1, m + 1):
        anchor = walk[step] if step < len(walk) else None
        points.append(moved(b, points[-1], b if anchor is None else rows[anchor], m))
    return [b, *reversed(points)]


TABLE = wave(26, 4, phase=0.7)
SENTENCES = torch.tensor([[3, 9, 3, 20, 0], [11, 3, 25, 9, 7], [1, 2, 4, 8, 16]])
STARTS = torch.stack(
    [TABLE[14].expand(3, 5, 4), wave(3, 5, 4, phase=3, scale=0.3)]
)  # a word, and no word's vectors


@pytest.mark.parametrize(("k", "m"), [(1, 3), (5, 6), (25, 4), (500, 40)])
@pytest.mark.parametrize("strategy", ["greedy", "maxcount"])
def test_paths_by_hand(strategy: str, k: int, m: int) -> None:
    found = corners(ig.paths.Discretized(TABLE, k, m, strategy), STARTS, TABLE[SENTENCES])
    assert len(found) == m + 2
    for r, b, n in itertools.product(range(2), range(3), range(5)):
        expected = by_hand(TABLE, int(SENTENCES[b, n]), STARTS[r, b, n], k, m, strategy)
        near(found[:, r, b, n], torch.tensor(expected, dtype=torch.float64), 1e-14)


def test_strategies_and_sizes_differ() -> None:
    """What the test above tells apart."""
    paths = [ig.paths.Discretized(TABLE, k, 6, s) for s in ("greedy", "maxcount") for k in (3, 25)]
    found = [corners(path, STARTS, TABLE[SENTENCES]) for path in paths]
    for one, other in itertools.combinations(found, 2):
        assert float((one - other).abs().max()) > 0.1


def test_a_walk_with_nowhere_to_go_is_at_the_baseline() -> None:
    """Two words are each other's nearest: after one step all neighbours were visited."""
    table = torch.tensor([[1.0, 1.0], [0.9, 0.9], [5.0, -5.0], [5.1, -5.0]], dtype=torch.float64)
    found = corners(ig.paths.Discretized(table, 1, 5), torch.zeros(1, 1, 2).double(), table[:1])[
        :, 0, 0
    ]
    near(found, torch.tensor([[0.0, 0]] * 5 + [[0.9, 0.9], [1, 1]], dtype=torch.float64))
    made = ig.methods.discretized(table, 0.0, 1, 5)(
        ig.fields.Function(lambda z: z.prod(1)), table[:1]
    )
    assert made.cost.gradients == 2  # pieces of no length cost nothing
    near(made.values.sum(1), torch.ones(1), 0.01)


def test_a_table_of_one_word() -> None:
    table = torch.tensor([[2.0, -1.0]])
    for strategy in ("greedy", "maxcount"):
        path = ig.paths.Discretized(table, 3, 4, strategy)
        found = corners(path, torch.zeros(1, 1, 2), table)[:, 0, 0]
        assert torch.equal(found, torch.tensor([[0.0, 0.0]] * 5 + [[2.0, -1.0]]))


def test_words_that_stand_twice_in_the_table_are_the_first() -> None:
    """Which of equal rows a word is, decides whom it has visited: the same for one example as among many."""
    twice = torch.cat([TABLE, TABLE])
    assert torch.equal(
        corners(ig.paths.Discretized(twice, 9, 5), STARTS, TABLE[SENTENCES])[0], STARTS
    )
    whole = corners(ig.paths.Discretized(twice, 9, 5), STARTS, TABLE[SENTENCES])
    for b in range(3):
        one = slice(b, b + 1)
        alone = corners(ig.paths.Discretized(twice, 9, 5), STARTS[:, one], TABLE[SENTENCES][one])
        assert torch.equal(alone, whole[:, :, one])


# --- a path -----------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["greedy", "maxcount"]),
    st.sampled_from([(), (1,), (3,), (2, 3)]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 20),
)
def test_conformance(
    k: int, m: int, strategy: str, places: tuple[int, ...], dtype: torch.dtype, phase: int
) -> None:
    """Whatever leads the words: from the baseline to the input, neighbours meet, each example by itself."""
    table = wave(15, 3, phase=phase).to(dtype)
    x = table[torch.arange(2 * math.prod(places)).reshape(2, *places) % 13]
    references = wave(2, *x.shape, phase=phase + 1).to(dtype)
    path = ig.paths.Discretized(table, k, m, strategy)
    if dtype == torch.float64:
        testing.check_path(path, x=x, references=references)
    points = corners(path, references, x)
    assert len(points) == path.segments + 1 == m + 2
    assert torch.equal(points[0], references)
    assert torch.equal(points[-1], x.expand_as(references))
    steps = points.diff(dim=0)
    assert bool(
        ((steps >= 0).all(0) | (steps <= 0).all(0)).all()
    )  # monotone, to the last digit, and so inside the box


def test_it_does_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    path, x = ig.paths.Discretized(TABLE, 6, 9), TABLE[SENTENCES]
    clock, whole = ig.paths.corners(path, FIELD, STARTS, x)
    monkeypatch.setattr("integrand.paths.discretized._SEARCH_ELEMENTS", 30)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ON_CPU", 3 * STARTS.numel())
    assert max(len(segment.start) for segment in path(FIELD, STARTS, x)) == 3
    again = ig.paths.corners(path, FIELD, STARTS, x)
    assert torch.equal(again[0], clock)
    assert torch.equal(again[1], whole)
    testing.check_path(path, x=x, references=STARTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_of_large_tables(dtype: torch.dtype) -> None:
    """Looked for by products, which far from the origin and in float32 say little of small differences; chosen by differences."""
    table = (wave(900, 8, phase=1) + 30).to(dtype)
    table[700:] = table[:200] + (1e-3 * wave(200, 8, phase=2)).to(dtype)  # close pairs
    found = ig.paths.neighbour_graph(table, 5)
    apart = (table.double()[:, None] - table.double()).norm(dim=2).fill_diagonal_(math.inf)
    expected = apart.argsort(1)[:, :5]
    wrong = (found != expected).any(1)
    distances = apart.gather(1, found.long()) - apart.gather(1, expected)
    assert float(distances.abs().max()) < 1e-5  # other ones only where they are as near
    assert int(wrong.sum()) < (5 if dtype == torch.float32 else 1)
    words = table[torch.tensor([[3, 703, 899]])]
    path = ig.paths.Discretized(table, 5, 4)
    assert torch.equal(corners(path, torch.full((1, 1, 3, 8), 30.0).to(dtype), words)[-1, 0], words)


def test_a_graph_of_neighbours() -> None:
    """Found once and given, or looked for: the same path."""
    graph = ig.paths.neighbour_graph(TABLE, 6)
    assert graph.shape == (26, 6)
    assert graph.dtype == torch.int32
    apart = torch.cdist(TABLE, TABLE).fill_diagonal_(math.inf)
    assert torch.equal(graph.long(), apart.argsort(1)[:, :6])
    assert ig.paths.neighbour_graph(TABLE).shape == (26, 25)
    one, other = (
        corners(ig.paths.Discretized(TABLE, given, 9), STARTS, TABLE[SENTENCES])
        for given in (6, graph)
    )
    assert torch.equal(one, other)


def test_memory_is_flat_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight times as many steps: one number more for each word and step, and no points."""
    table = wave(160, 256, phase=1)
    x = table[torch.arange(8).reshape(2, 4)]
    graph = ig.paths.neighbour_graph(table, 150)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ON_CPU", 2 * x.numel())

    def held(steps: int) -> int:
        """The most bytes of tensors that are alive while a piece is out; a few are looked at."""
        gc.collect()
        most = 0
        path = ig.paths.Discretized(table, graph, steps)
        for number, segment in enumerate(path(FIELD, torch.zeros(1, *x.shape).double(), x)):
            assert len(segment.start) <= 2
            if number % (steps // 4) == 1:
                most = max(most, held_bytes())
        return most

    held(4)
    assert held(96) - held(12) <= 84 * 8 * 8 + 1024 < x.nbytes


# --- a method ---------------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Class scores of a sentence of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(words)).mean(1))


MODEL = filled(Reader())


def test_through_the_door() -> None:
    made = ig.explain(
        MODEL, TABLE[SENTENCES], target="predicted", method=ig.methods.discretized(TABLE)
    )
    assert made.values.shape == (3, 5, 4)
    assert bool((made.gap < 0.03).all())
    assert bool(made.converged.all())
    by_name = ig.explain(
        MODEL, TABLE[SENTENCES], target="predicted", method="discretized", table=TABLE
    )
    assert torch.equal(by_name.values, made.values)
    fine = ig.explain(
        MODEL, TABLE[SENTENCES], target="predicted", method="discretized", table=TABLE, tol=1e-4
    )
    assert bool((fine.error <= 1e-4).all())
    near(fine.residual, torch.zeros(3), 1e-4)


@pytest.mark.parametrize(
    "rule", [ig.rules.Left(), ig.rules.Midpoint(), ig.rules.Trapezoid(), ig.rules.GaussLegendre(3)]
)
def test_gradients_are_counted(rule: Any, quiet: None) -> None:
    """(steps + 1) · nodes for each reference of each example, whatever the words."""
    model = Counting(MODEL)
    method = ig.methods.discretized(
        TABLE, [ig.baselines.Constant(TABLE[14]), ig.baselines.Constant(0.1)], 25, 6, rule=rule
    )
    made = ig.explain(model, TABLE[SENTENCES], target=0, method=method)
    assert model.gradients == made.cost.gradients == 7 * rule.gradients * 2 * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision(dtype: torch.dtype) -> None:
    """A model and table of few digits: words are found, and the map is that of float64."""
    exact = ig.explain(
        MODEL, TABLE[SENTENCES], target=0, method=ig.methods.discretized(TABLE, 0.0, 10, 6)
    )
    table = TABLE.to(dtype)
    model = filled(Reader()).to(dtype)
    made = ig.explain(
        model, table[SENTENCES], target=0, method=ig.methods.discretized(table, 0.0, 10, 6)
    )
    near(made.values, exact.values, {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype])
    # The same words in more digits than the table has.
    if dtype == torch.float32:
        mixed = ig.explain(
            MODEL, TABLE[SENTENCES], target=0, method=ig.methods.discretized(table, 0.0, 10, 6)
        )
        near(mixed.values, exact.values, 1e-5)


def test_parameters_of_a_model_as_the_table() -> None:
    """No gradient leads to them, and they are as they were."""
    embedding = nn.Embedding.from_pretrained(TABLE.clone(), freeze=False)
    made = ig.explain(
        MODEL,
        embedding(SENTENCES).detach(),
        target=0,
        method=ig.methods.discretized(embedding.weight, 0.0, 10, 6),
    )
    assert not made.values.requires_grad
    assert embedding.weight.grad is None
    assert torch.equal(embedding.weight, TABLE)


def test_special_tokens_are_kept() -> None:
    """They stay where they are, get nothing, and need not be in the table; the other words walk as they would."""
    special = wave(2, 4, phase=9)
    x = TABLE[SENTENCES].clone()
    x[:, 0], x[:, -1] = special
    kept = ig.baselines.Masked(TABLE[14], (0, -1))
    path = ig.paths.Discretized(TABLE, 10, 6)
    found = corners(path, kept(x, FIELD), x)
    assert torch.equal(found[:, 0, :, [0, -1]], x[:, [0, -1]].expand(8, 3, 2, 4))
    without = corners(path, TABLE[14].expand(1, 3, 5, 4), TABLE[SENTENCES])
    assert torch.equal(found[:, :, :, 1:-1], without[:, :, :, 1:-1])
    fine = ig.rules.GaussLegendre(4)
    made = ig.explain(
        MODEL, x, target=0, method=ig.methods.discretized(TABLE, kept, 10, 6, rule=fine)
    )
    assert bool((made.values[:, [0, -1]] == 0).all())
    assert bool((made.values[:, 1:-1] != 0).any(2).all())
    near(made.residual, torch.zeros(3), 1e-5)


def test_nothing_moves_where_all_is_kept() -> None:
    x = TABLE[SENTENCES]
    made = ig.explain(
        MODEL, x, target=0, method=ig.methods.discretized(TABLE, ig.baselines.Masked(0.0, range(5)))
    )
    assert torch.equal(made.values, torch.zeros_like(x))
    assert made.cost.gradients == 0


def test_several_targets_share_words() -> None:
    method = ig.methods.discretized(TABLE, 0.0, 10, 6)
    several = ig.explain_targets(MODEL, TABLE[SENTENCES], targets=[0, 2], method=method)
    for made, target in zip(several, (0, 2), strict=True):
        near(made.values, ig.explain(MODEL, TABLE[SENTENCES], target=target, method=method).values)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ig.paths.Discretized(torch.empty(0, 4)),
            r"The table of words is empty: its shape is 0x4",
        ),
        (
            lambda: ig.paths.Discretized(torch.empty(4, 0)),
            r"The table of words is empty: its shape is 4x0",
        ),
        (
            lambda: ig.paths.Discretized(torch.ones(4)),
            r"\(V, d\), a row for each word, .*; got torch.float32 of shape 4",
        ),
        (
            lambda: ig.paths.Discretized(torch.ones(4, 2, dtype=torch.long)),
            r"floating-point .* got torch.int64",
        ),
        (
            lambda: ig.paths.Discretized(nn.Embedding(4, 2)),
            r"get_input_embeddings\(\).weight; got Embedding",
        ),
        (
            lambda: ig.paths.Discretized(torch.tensor([[1.0, math.nan]])),
            r"table of words holds NaN or infinity",
        ),
        (lambda: ig.paths.Discretized(TABLE, 0), r"at least one neighbour, not neighbours=0"),
        (lambda: ig.paths.Discretized(TABLE, 3, 0), r"at least one step, not 0"),
        (
            lambda: ig.paths.Discretized(TABLE, 3, 4, "nearest"),
            r"one of 'greedy', 'maxcount', not 'nearest'",
        ),
        (
            lambda: ig.paths.Discretized(TABLE, torch.zeros(25, 3).long()),
            r"a graph \(26, k\) .* got int64 of shape 25x3",
        ),
        (lambda: ig.paths.Discretized(TABLE, torch.zeros(26, 3)), r"got float32 of shape 26x3"),
        (
            lambda: ig.paths.Discretized(TABLE, torch.full((26, 1), 26)),
            r"rows from 26 to 26, .* 0 to 25: it was made for",
        ),
        (lambda: ig.paths.neighbour_graph(torch.empty(0, 4)), r"The table of words is empty"),
        (lambda: ig.paths.neighbour_graph(TABLE, 0), r"at least one neighbour"),
    ],
)
def test_what_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        build()


def test_a_table_of_another_width() -> None:
    method = ig.methods.discretized(wave(9, 7))
    with pytest.raises(
        ig.errors.ShapeError, match=r"vectors of 7 numbers, but an example has shape 5x4"
    ):
        ig.explain(MODEL, TABLE[SENTENCES], target=0, method=method)
    with pytest.raises(
        ig.errors.ShapeError, match=r"vectors of 7 numbers, but an example has shape \(\)"
    ):
        method(ig.fields.Function(lambda z: z), torch.ones(7))


def test_a_word_that_is_not_in_the_table() -> None:
    x = TABLE[SENTENCES].clone()
    x[1, 3] += 0.01
    message = (
        r"1 of 13 different words are not in the table: the one of example 1, position 3 is 0.02 away from the nearest row, number 9. "
        r".* or keep such positions as they are with baseline=ig.baselines.Masked"
    )
    with pytest.raises(ig.errors.InputError, match=message):
        ig.explain(MODEL, x, target=0, method=ig.methods.discretized(TABLE))
    x[1, 3] = TABLE[9] * (1 + 1e-7)  # rounding is forgiven
    ig.explain(MODEL, x, target=0, method=ig.methods.discretized(TABLE))
    with pytest.raises(
        ig.errors.InputError,
        match=r"the one of example 0 is 0\.5 away from the nearest row, number 1\.",
    ):
        ig.methods.discretized(torch.eye(2))(
            ig.fields.Linear(torch.ones(2)), torch.tensor([[0.0, 1.5]])
        )


def test_stretches_between_anchors_of_the_line_end_at_no_word() -> None:
    path = ig.paths.Composed(ig.paths.Discretized(TABLE, 10, 8), 2)
    with pytest.raises(ig.errors.InputError, match=r"not in the table"):
        corners(path, STARTS, TABLE[SENTENCES])


def test_blocks_hold_many_words() -> None:
    """500 neighbours of 768 numbers: a few words are searched at a time, not all of a batch."""
    assert 5 <= _SEARCH_ELEMENTS // (500 * 768) <= 100


# --- a graph that grows -------------------------------------------------------------------------------------------------


def test_a_graph_is_looked_up_once_and_without_some_rows() -> None:
    """By brute force: distances of every pair, sorted, without the rows that are nobody's neighbours."""
    without = [PAD, 7, 59, 99]
    distances = (E[:, None] - E).square().sum(-1)
    distances.fill_diagonal_(torch.inf)
    distances[:, without[:3]] = torch.inf
    slow = distances.argsort(dim=1, stable=True)[:, :6]
    graph = ig.paths.NeighbourGraph(6, without)
    start = E[PAD].expand(1, 1, 3, 5)
    paths = [ig.paths.Discretized(E, neighbours, steps=8) for neighbours in (slow, graph, graph)]
    expected, first, second = (corners(path, start, X) for path in paths)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
    known = len(graph)
    assert 3 <= known < len(E)

    def refuse(rows: Tensor) -> Tensor:
        raise AssertionError("looked up again")

    assert torch.equal(graph.near(torch.tensor(WORDS), refuse), slow[WORDS])
    assert f"{known} rows known" in repr(graph)
    assert len(graph) == known


def test_a_graph_of_another_table_is_refused() -> None:
    graph = ig.paths.NeighbourGraph(3)
    graph.opened(E)
    for other in (E[:-1], E + 1):
        with pytest.raises(ig.errors.InputError, match="another table of words"):
            graph.opened(other)
    with pytest.raises(ig.errors.InputError, match="at least one neighbour"):
        ig.paths.NeighbourGraph(0)
    # Where all others are left out, a word goes straight to the baseline.
    alone = ig.paths.Discretized(E, ig.paths.NeighbourGraph(500, range(60)), steps=2)
    start = E[PAD].expand(1, 1, 3, 5)
    assert bool((corners(alone, start, X)[:2] == start).all())
