"""Shortest ways over data: against the official numbers, and against the definition written out in loops."""

from __future__ import annotations

import heapq
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand import testing
from integrand.paths.geodesic import _distances
from tests.problems import Counting, filled, tanh_mlp, wave

OFFICIAL = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())

X = wave(3, 4, phase=0.3)  # B = 3 examples of four features
STARTS = wave(2, 3, 4, phase=2)  # R = 2
POINTS = wave(24, 4, phase=4)


def bend(z: Tensor) -> Tensor:
    return torch.exp(0.8 * z @ wave(z.shape[1], phase=0.5).to(z)) + z[:, 0] * z[:, 1]


FIELD = ig.fields.Function(bend)

# --- the definition, in loops -----------------------------------------------------------------------------------------


def neighbour_edges(nodes: Tensor, k: int, graph: str) -> set[frozenset[int]]:
    """Edges among nodes, the last two of which are the baseline and the input."""
    apart = [[float((a - b).norm()) for b in nodes] for a in nodes]
    n = len(nodes) - 2
    edges = set()
    for i in range(n + 2):
        if graph == "official":
            near = sorted(range(n), key=lambda j: apart[i][j])[
                :k
            ]  # finds itself first, if it is a point
        else:
            near = sorted((j for j in range(n + 2) if j != i), key=lambda j: apart[i][j])[:k]
        edges |= {frozenset((i, j)) for j in near if j != i}
    return edges


def parts_of(count: int, edges: set[frozenset[int]]) -> list[list[int]]:
    left, parts = set(range(count)), []
    while left:
        part, front = set(), {min(left)}
        while front:
            part |= front
            front = {j for i in front for e in edges if i in e for j in e} - part
        parts.append(sorted(part))
        left -= part
    return parts


def joined_edges(nodes: Tensor, edges: set[frozenset[int]]) -> set[frozenset[int]]:
    """Every two parts are linked where they are closest."""
    more = set()
    for one, other in itertools.combinations(parts_of(len(nodes), edges), 2):
        pairs = [(float((nodes[i] - nodes[j]).norm()), i, j) for i in one for j in other]
        more.add(frozenset(min(pairs)[1:]))
    return edges | more


def steep(function: Any, a: Tensor, b: Tensor, n: int) -> tuple[float, Tensor]:
    """Σ w ‖∇F‖ and Σ w ∇F on the way from a to b."""
    t, w = (torch.from_numpy(numbers)[:, None] for numbers in np.polynomial.legendre.leggauss(n))
    z = (a + (t + 1) / 2 * (b - a)).requires_grad_()
    (g,) = torch.autograd.grad(function(z).sum(), z)
    return float((w[:, 0] / 2 * g.norm(dim=1)).sum()), (w / 2 * g).sum(0)


def shortest(count: int, costs: dict[frozenset[int], float]) -> list[int]:
    """From node count − 2 to node count − 1."""
    source, goal = count - 2, count - 1
    around: dict[int, list[tuple[int, float]]] = {i: [] for i in range(count)}
    for edge, cost in costs.items():
        i, j = edge
        around[i].append((j, cost))
        around[j].append((i, cost))
    best, queue = {source: 0.0}, [(0.0, [source])]
    while queue:
        cost, route = heapq.heappop(queue)
        if route[-1] == goal:
            return route
        for j, more in around[route[-1]]:
            if cost + more < best.get(j, float("inf")):
                best[j] = cost + more
                heapq.heappush(queue, (cost + more, [*route, j]))
    raise AssertionError("no way")


def by_hand(
    function: Any, points: Tensor, b: Tensor, x: Tensor, k: int, n: int, graph: str, distance: str
) -> tuple[Tensor, Tensor]:
    """The corners of the path, and the map."""
    nodes = torch.cat([points, b[None], x[None]])
    edges = joined_edges(nodes, neighbour_edges(nodes, k, graph))
    costs = {}
    for edge in edges:
        i, j = sorted(edge)
        costs[edge] = float((nodes[i] - nodes[j]).norm())
        if distance == "geodesic":
            costs[edge] *= steep(function, nodes[i], nodes[j], n)[0]
    route = shortest(len(nodes), costs)
    share = sum(
        (nodes[j] - nodes[i]) * steep(function, nodes[i], nodes[j], n)[1]
        for i, j in itertools.pairwise(route)
    )
    return nodes[route], share


def moving(corners: Tensor) -> Tensor:
    """Corners (K+1, *s) without those that repeat the one before them."""
    keep = [0, *(k for k in range(1, len(corners)) if bool((corners[k] != corners[k - 1]).any()))]
    return corners[keep]


@pytest.mark.parametrize("graph", ["symmetric", "official"])
@pytest.mark.parametrize("distance", ["geodesic", "euclidean"])
@pytest.mark.parametrize("k", [2, 3])
def test_the_definition(k: int, distance: str, graph: str) -> None:
    """Every pair of a reference and an example has the path and the map of a graph of its own."""
    path = ig.paths.Geodesic(POINTS, k, 3, distance, graph)
    corners = ig.paths.corners(path, FIELD, STARTS, X)[1]
    method = ig.Method(
        ig.baselines.Given(STARTS), path, ig.rules.GaussLegendre(3), record=("shares",)
    )
    shares = method(FIELD, X).shares
    lengths = set()
    for r, b in itertools.product(range(2), range(3)):
        route, share = by_hand(bend, POINTS, STARTS[r, b], X[b], k, 3, graph, distance)
        assert torch.equal(moving(corners[:, r, b]), route)
        torch.testing.assert_close(shares[r, b], share, rtol=0, atol=1e-12)
        lengths.add(len(route))
    assert len(lengths) > 1, "a case where all paths are equally long shows little"


# --- the official numbers ---------------------------------------------------------------------------------------------


def geo(z: Tensor) -> Tensor:
    h, i = torch.arange(5).to(z)[:, None], torch.arange(2).to(z)
    return torch.tanh(z @ (5 * torch.sin(2.1 * h + 1.1 * i + 0.4)).T) @ torch.cos(0.9 * h[:, 0])


def geo_points() -> Tensor:
    i = torch.arange(60).double()
    first = 0.5 + 1.1 * torch.cos(0.37 * i) * (0.3 + 0.012 * i) + (0.001 * i**2) % 0.07
    second = 0.2 + 1.05 * torch.sin(0.37 * i) * (0.3 + 0.012 * i) + 0.013 * (i % 5)
    return torch.stack([first, second], 1)


GEO_INPUT = torch.tensor([[0.93, 0.71]], dtype=torch.float64)
GEO_BASELINE = torch.tensor([-0.31, -0.27], dtype=torch.float64)


@pytest.mark.parametrize("distance", ["geodesic", "euclidean"])
def test_the_official_numbers(distance: str) -> None:
    method = ig.methods.geodesic(GEO_BASELINE, geo_points(), 6, 5, distance, graph="official")
    made = method(ig.fields.Function(geo), GEO_INPUT)
    expected = torch.tensor([OFFICIAL[f"GeoKNN {distance}"]["official"]], dtype=torch.float64)
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-8)
    assert float(made.change[0]) == pytest.approx(0.386035, abs=1e-6)
    # Complete up to the five nodes of an edge.
    assert float(made.residual.abs()) < 1e-4


def test_the_symmetric_graph_is_another_one() -> None:
    """The official numbers see the difference between the graphs."""
    maps = [
        ig.methods.geodesic(GEO_BASELINE, geo_points(), 6, 5, "euclidean", graph=graph)(
            ig.fields.Function(geo), GEO_INPUT
        ).values
        for graph in ("official", "symmetric")
    ]
    other = ig.methods.geodesic(GEO_BASELINE, geo_points(), 7, 5, "geodesic", graph="official")
    assert float((maps[0] - maps[1]).abs().max()) > 1e-3
    assert float((other(ig.fields.Function(geo), GEO_INPUT).values - maps[0]).abs().max()) > 1e-3


# --- properties -------------------------------------------------------------------------------------------------------


def test_all_neighbours_and_plain_lengths_are_the_straight_line() -> None:
    for k in (25, 99):
        path = ig.paths.Geodesic(POINTS, k, distance="euclidean")
        assert torch.equal(
            ig.paths.corners(path, FIELD, STARTS, X)[1], torch.stack([STARTS, X.expand_as(STARTS)])
        )


def test_never_longer_than_the_straight_edge() -> None:
    """All are linked to all: the straight way is one of many, and a path that goes round a hill beats it."""
    hill = ig.fields.Function(lambda z: 3 * torch.exp(-8 * z.square().sum(1)))
    t = torch.linspace(-1.5, 1.5, 7).double()
    points = torch.cartesian_prod(t, t) + 0.03 * wave(49, 2)
    start, x = torch.tensor([[[-1.0, 0.05]]]).double(), torch.tensor([[1.0, 0.0]]).double()
    corners = moving(ig.paths.corners(ig.paths.Geodesic(points, 60, 9), hill, start, x)[1][:, 0, 0])

    def length(stops: Tensor) -> float:
        return sum(
            float((b - a).norm()) * steep(hill.function, a, b, 9)[0]
            for a, b in itertools.pairwise(stops)
        )

    assert len(corners) > 2
    assert length(corners) < 0.7 * length(torch.cat([start[0], x]))
    assert float(corners[:, 1].abs().max()) > 0.4


def test_the_kit(quiet: None) -> None:
    for graph in ("symmetric", "official"):
        path = ig.paths.Geodesic(POINTS, 3, 2, graph=graph)
        testing.check_path(path, field=FIELD, x=X, references=STARTS)


def test_the_kit_with_classes_of_their_own() -> None:
    field = ig.TorchField(tanh_mlp(4), torch.tensor([0, 2, 0]))
    testing.check_path(ig.paths.Geodesic(POINTS, 3, 2), field=field, x=X, references=STARTS)


def test_pieces_are_stacked_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ig.paths.Geodesic(POINTS, 3)
    whole = ig.paths.corners(path, FIELD, STARTS, X)
    monkeypatch.setattr("integrand.paths.geodesic._STACK_ELEMENTS", 1)
    monkeypatch.setattr("integrand.paths.geodesic._GRAPH_ELEMENTS", 1)
    monkeypatch.setattr("integrand.paths.geodesic._BLOCK_ELEMENTS", 20)
    assert all(len(segment.start) == 1 for segment in path(FIELD, STARTS, X))
    for one, other in zip(whole, ig.paths.corners(path, FIELD, STARTS, X), strict=True):
        assert torch.equal(one, other)


def test_distances() -> None:
    a, b = 1e3 + wave(5, 7), 1e3 + wave(6, 7, phase=1)
    expected = (a[:, None] - b).norm(dim=2)
    torch.testing.assert_close(_distances(a, b, exact=True), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(_distances(a, b, exact=False), expected, rtol=0, atol=1e-10)


def test_float32_and_pictures() -> None:
    points, x = wave(12, 3, 4, 4, phase=1).float(), wave(2, 3, 4, 4, phase=3).float()
    field = ig.fields.Function(lambda z: (z.flatten(1) @ wave(48).float()).tanh())
    made = ig.methods.geodesic(0.0, points, 3)(field, x)
    assert made.values.dtype == torch.float32
    torch.testing.assert_close(made.residual, torch.zeros(2), rtol=0, atol=0.05)
    fine = ig.methods.geodesic(0.0, points.double(), 3)
    double = ig.fields.Function(lambda z: (z.flatten(1) @ wave(48)).tanh())
    torch.testing.assert_close(
        made.values.double(), fine(double, x.double()).values, rtol=0, atol=1e-5
    )


class Labelled(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return len(POINTS)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return POINTS[i], i


def test_points_may_be_a_dataset() -> None:
    one, other = (
        ig.methods.geodesic(0.0, points, 3)(FIELD, X).values for points in (POINTS, Labelled())
    )
    assert torch.equal(one, other)


def test_points_that_coincide() -> None:
    """The input among the points, points twice, and a baseline that is the input: edges of no length cost nothing."""
    points = torch.cat([POINTS, POINTS[:5], X[:1], STARTS[0, 1:2]])
    starts = STARTS.clone()
    starts[1, 2] = X[2]
    for graph in ("symmetric", "official"):
        path = ig.paths.Geodesic(points, 4, graph=graph)
        made = ig.Method(
            ig.baselines.Given(starts), path, ig.rules.GaussLegendre(9), record=("shares",)
        )(FIELD, X)
        torch.testing.assert_close(made.shares.sum(2), made.change, rtol=0, atol=1e-6)
        if graph == "symmetric":
            assert bool((made.shares[1, 2] == 0).all())


def test_a_flat_field() -> None:
    made = ig.methods.geodesic(0.0, POINTS, 3)(ig.fields.Linear(torch.zeros(4).double()), X)
    assert bool((made.values == 0).all())


# --- costs ------------------------------------------------------------------------------------------------------------


def edges_of(r: int, b: int, k: int, graph: str = "symmetric") -> set[frozenset[int]]:
    nodes = torch.cat([POINTS, STARTS[r, b][None], X[b][None]])
    return joined_edges(nodes, neighbour_edges(nodes, k, graph))


def among(edges: set[frozenset[int]]) -> set[frozenset[int]]:
    return {edge for edge in edges if max(edge) < len(POINTS)}


def counted(
    target: Any, k: int, n: int, rule: Any, graph: str = "symmetric", **options: Any
) -> tuple[int, int]:
    """Gradients that reached the model, and edges of the paths."""
    model = Counting(options.pop("model", None) or tanh_mlp(4))
    method = ig.Method(
        ig.baselines.Given(STARTS),
        ig.paths.Geodesic(POINTS, k, n, graph=graph),
        rule,
        record=("path",),
    )
    made = ig.explain(model, X, target=target, method=method, **options)
    assert made.cost.gradients == model.gradients
    corners = ig.paths.corners(
        method.path, ig.TorchField(model.inner, target, extra=options.get("extra", ())), STARTS, X
    )[1]
    return made.cost.gradients, int((corners[1:] != corners[:-1]).any(3).sum())


PAIRS = list(itertools.product(range(2), range(3)))


@pytest.mark.parametrize("graph", ["symmetric", "official"])
def test_edges_among_points_are_paid_once(graph: str) -> None:
    """n for each edge that any graph has between points, n for each edge of an end, and the rule's on the path."""
    shared = set().union(*(among(edges_of(r, b, 3, graph)) for r, b in PAIRS))
    own = sum(len(edges_of(r, b, 3, graph) - among(edges_of(r, b, 3, graph))) for r, b in PAIRS)
    gradients, pieces = counted(1, 3, 2, ig.rules.GaussLegendre(4), graph)
    assert gradients == 2 * (len(shared) + own) + 4 * pieces
    assert len(shared) <= len(POINTS) * 3


def test_once_for_every_class() -> None:
    target = torch.tensor([0, 2, 0])
    groups = [[(r, b) for r, b in PAIRS if b in (0, 2)], [(r, b) for r, b in PAIRS if b == 1]]
    shared = sum(
        len(set().union(*(among(edges_of(r, b, 3)) for r, b in group))) for group in groups
    )
    own = sum(len(edges_of(r, b, 3) - among(edges_of(r, b, 3))) for r, b in PAIRS)
    gradients, pieces = counted(target, 3, 2, ig.rules.Midpoint())
    assert gradients == 2 * (shared + own) + pieces


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = tanh_mlp(4)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.inner(x * scale[:, None])


def test_arguments_of_their_own_make_examples_questions_of_their_own() -> None:
    extra = (torch.tensor([1.0, 1.5, 0.5]).double(),)
    shared = sum(len(set().union(*(among(edges_of(r, b, 3)) for r in range(2)))) for b in range(3))
    own = sum(len(edges_of(r, b, 3) - among(edges_of(r, b, 3))) for r, b in PAIRS)
    gradients, pieces = counted(1, 3, 2, ig.rules.Midpoint(), model=filled(Scaled()), extra=extra)
    assert gradients == 2 * (shared + own) + pieces


def test_lengths_alone_ask_for_nothing() -> None:
    model = Counting(tanh_mlp(4))
    list(ig.paths.Geodesic(POINTS, 3, distance="euclidean")(ig.TorchField(model, 0), STARTS, X))
    assert model.calls == 0


def test_blocks_of_references_share_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    method = ig.Method(
        ig.baselines.Given(STARTS), ig.paths.Geodesic(POINTS, 3), ig.rules.Midpoint()
    )
    field = ig.TorchField(tanh_mlp(4), 1)
    whole = method(field, X)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 1)
    blocks = method(field, X)
    torch.testing.assert_close(blocks.values, whole.values, rtol=0, atol=1e-14)
    assert blocks.cost.gradients == whole.cost.gradients


def test_a_model_that_learns_is_asked_again(quiet: None) -> None:
    model = tanh_mlp(4)
    field, path = ig.TorchField(model, 1), ig.paths.Geodesic(POINTS, 6)
    method = ig.Method(ig.baselines.Given(STARTS), path, ig.rules.Midpoint())
    before = method(field, X).cost.gradients, ig.paths.corners(path, field, STARTS, X)[1]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(wave(*parameter.shape, phase=7))
    fresh = ig.TorchField(model, 1)
    assert torch.equal(
        ig.paths.corners(path, field, STARTS, X)[1], ig.paths.corners(path, fresh, STARTS, X)[1]
    )
    torch.testing.assert_close(method(field, X).values, method(fresh, X).values, rtol=0, atol=0)
    after = ig.paths.corners(path, field, STARTS, X)[1]
    assert after.shape != before[1].shape or not torch.equal(after, before[1])


# --- who asks what ----------------------------------------------------------------------------------------------------


def test_questions() -> None:
    index, model = torch.arange(4), tanh_mlp(4)
    classes = torch.tensor([2, 0, 2, 1])

    def asked(target, **options):
        return ig.TorchField(model, target, **options).questions(index).tolist()

    assert asked(1) == [0, 0, 0, 0]
    assert asked(classes) == [0, 1, 0, 3]
    assert asked(ig.targets.Probability(classes)) == [0, 1, 0, 3]
    assert asked(ig.targets.Custom(lambda out: out[:, 0])) == [0, 0, 0, 0]
    data = torch.tensor([1.0, 2.0, 1.0, 1.0])
    assert asked(ig.targets.Custom(lambda out, own: out[:, 0] * own, data)) == [0, 1, 0, 0]
    assert asked(1, extra=(torch.ones(4),)) == [0, 1, 2, 3]
    field = ig.TorchField(model, classes)
    assert field.at(torch.tensor([1, 2, 0])).questions(torch.arange(3)).tolist() == [1, 2, 2]
    several = ig.fields.MultiTarget(
        ig.TorchField(model, 0), [ig.targets.Logit(0), ig.targets.Logit(classes)]
    )
    assert several.questions(torch.arange(8)).tolist() == [0, 1, 0, 3, 0, 1, 0, 7]
    assert FIELD.questions(index).tolist() == [0, 0, 0, 0]


def test_targets_that_do_not_say_are_not_shared() -> None:
    class Own(ig.targets.Target):
        def __call__(self, outputs: Any, index: Tensor) -> Tensor:
            return outputs[:, 0] * (1 + index)

    assert ig.TorchField(tanh_mlp(4), Own()).questions(torch.arange(3)).tolist() == [0, 1, 2]


# --- disconnected graphs ----------------------------------------------------------------------------------------------

ISLANDS = torch.cat([wave(5, 4, phase=1, scale=0.1) + at for at in (-9.0, 0.0, 9.0)])


def test_islands_are_joined_where_they_are_closest() -> None:
    start, x = torch.full((1, 1, 4), -9.0).double(), torch.full((1, 4), 9.0).double()
    for graph in ("symmetric", "official"):
        for k in (2, 3):
            path = ig.paths.Geodesic(ISLANDS, k, distance="euclidean", graph=graph)
            corners = ig.paths.corners(path, FIELD, start, x)[1][:, 0, 0]
            route, _ = by_hand(bend, ISLANDS, start[0, 0], x[0], k, 1, graph, "euclidean")
            assert torch.equal(moving(corners), route)


def test_islands_that_are_not_joined_are_named() -> None:
    start, x = torch.full((1, 1, 4), -9.0).double(), torch.full((1, 4), 9.0).double()
    path = ig.paths.Geodesic(ISLANDS, 3, join=False)
    message = (
        r"Disconnected graph: with 3 neighbours it falls into 3 parts "
        r"\(5 points and the baseline; 5 points and the input; 5 points\).*Give more points or more neighbours=.*join=True"
    )
    with pytest.raises(ig.errors.InputError, match=message):
        list(path(FIELD, start, x))
    # Islands that nobody has to reach are no trouble.
    assert bool(list(path(FIELD, start, x - 18)))


def test_many_islands_are_not_all_listed() -> None:
    islands = torch.cat([wave(3, 4, phase=1, scale=0.1) + 10.0 * at for at in range(9)])
    start, x = torch.full((1, 1, 4), 0.0).double(), torch.full((1, 4), 80.0).double()
    with pytest.raises(
        ig.errors.InputError, match=r"9 parts .*3 points and the input; 3 points; .*; 3 more\)"
    ):
        list(ig.paths.Geodesic(islands, 2, join=False)(FIELD, start, x))


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": 0}, r"linked to 1 neighbours at least, not to 0"),
        (
            {"neighbours": 1, "graph": "official"},
            r"2 neighbours at least, the first of which is the point itself",
        ),
        ({"nodes": 0}, r"at least one node, not 0"),
        ({"graph": "directed"}, r"graph is one of 'symmetric', 'official', not 'directed'"),
        ({"distance": "cosine"}, r"distance is one of 'geodesic', 'euclidean', not 'cosine'"),
        ({"points": POINTS[:0]}, r"points= is empty"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.paths.Geodesic(**({"points": POINTS} | options))


def test_points_of_another_shape() -> None:
    with pytest.raises(ig.errors.InputError, match=r"points .* shape 3, but the inputs have 4"):
        ig.methods.geodesic(0.0, POINTS[:, :3])(FIELD, X)


def test_points_with_holes() -> None:
    points = POINTS.clone()
    points[3, 1] = float("nan")
    with pytest.raises(ig.errors.InputError, match=r"NaN or infinity. Leave these points out"):
        ig.methods.geodesic(0.0, points)(FIELD, X)


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ig.errors.MissingExtra, match=r"pip install 'integrand\[graph\]'"):
        ig.methods.geodesic(0.0, POINTS)(FIELD, X)


def test_prints_as_typed() -> None:
    assert (
        repr(ig.paths.Geodesic(POINTS, 3, graph="official"))
        == "Geodesic(tensor<24x4>, 3, graph='official')"
    )
    method = ig.methods.geodesic(0.0, POINTS)
    assert method.rule == ig.rules.GaussLegendre(5)
    assert ig.methods.geodesic(0.0, POINTS, nodes=3).rule == ig.rules.GaussLegendre(3)
    assert method == ig.methods.geodesic(0.0, POINTS.clone())
    assert method != ig.methods.geodesic(0.0, POINTS + 1)
