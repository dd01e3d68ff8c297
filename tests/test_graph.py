"""Graph-based Integrated Gradients, against paths that are listed one by one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import networkx
import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.problems import wave

RING = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
X = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]], dtype=torch.float64)
G = torch.tensor([[0.5], [-1.0], [0.25], [2.0]], dtype=torch.float64)
READINGS = ("increments", "mean_increments", "integral")


def by_listing(
    graph: networkx.Graph,
    x: Tensor,
    g: Tensor,
    node: int,
    base: int | None,
    reading: str,
    paths: str,
) -> Tensor:
    """Every shortest path by networkx, every term as the readings are written; (N, d), a term at the node of its gradient."""
    if base is None:
        base = base_by_listing(graph, node)
    every = list(networkx.all_shortest_paths(graph, base, node))
    values = torch.zeros_like(x)
    for path in every:
        m = len(path) - 1
        if reading == "integral":
            for u in path:
                values[u] += (x[node] - x[base]) * g[u] / (m + 1)
        else:
            for u, w in itertools.pairwise(path):
                values[u] += (x[w] - x[u]) * g[u] / (m if reading == "mean_increments" else 1)
    return values / len(every) if paths == "mean" else values


def base_by_listing(graph: networkx.Graph, node: int) -> int:
    far = networkx.single_source_shortest_path_length(graph, node)
    candidates = [u for u, d in far.items() if d == max(far.values())]

    def entropy(u: int) -> float:
        total = 0.0
        for path in networkx.all_shortest_paths(graph, u, node):
            p = math.prod(1 / graph.degree(w) for w in path)
            total -= p * math.log2(p)
        return total

    most = max(map(entropy, candidates))
    return min(u for u in candidates if math.isclose(entropy(u), most, rel_tol=1e-12))


def edges_of(graph: networkx.Graph) -> Tensor:
    return torch.tensor(list(graph.edges)).T.reshape(2, -1)


def explained(edges: Tensor, x: Tensor, g: Tensor, **options: Any) -> Tensor:
    return ig.methods.graph(edges, **options)(ig.fields.Linear(g), x[None]).values[0]


@pytest.mark.parametrize(
    ("reading", "paths", "value"),
    [
        ("increments", "sum", -12.5),
        ("increments", "mean", -6.25),
        ("mean_increments", "sum", -6.25),
        ("mean_increments", "mean", -3.125),
        # (1 − 4) · [(.25 − 1 + .5) + (.25 + 2 + .5)] / 3
        ("integral", "sum", -2.5),
        ("integral", "mean", -1.25),
    ],
)
def test_the_four_cycle(reading: str, paths: str, value: float) -> None:
    method = ig.methods.graph(RING, node=0, reading=reading, paths=paths)
    result = method(ig.fields.Linear(G), X)
    assert result.values.shape == (1, 4, 1)
    assert result.values.sum(1).item() == pytest.approx(value, rel=1e-12)
    assert (result.cost.gradients, result.values[0, 0].item() == 0) == (1, reading != "integral")


def test_terms_are_credited_to_the_node_of_their_gradient() -> None:
    values = explained(RING, X[0], G, node=0)
    assert values.flatten().tolist() == [0.0, 1.0, 0.5 + 1.0 - 1.0 - 1.0 + 1.0, -14.0]


GRAPHS = {
    "grid": networkx.convert_node_labels_to_integers(networkx.grid_2d_graph(4, 4)),
    "karate": networkx.karate_club_graph(),
    "petersen": networkx.petersen_graph(),
    "tree": networkx.balanced_tree(2, 3),
    "cube": networkx.convert_node_labels_to_integers(networkx.hypercube_graph(4)),
    "two parts": networkx.disjoint_union(networkx.cycle_graph(5), networkx.complete_graph(4)),
    **{f"random {seed}": networkx.gnp_random_graph(14, 0.22, seed=seed) for seed in range(6)},
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("paths", ["sum", "mean"])
@pytest.mark.parametrize("name", GRAPHS)
def test_sums_over_paths_are_those_of_listed_paths(name: str, reading: str, paths: str) -> None:
    graph = GRAPHS[name]
    n = graph.number_of_nodes()
    x, g = wave(n, 3), wave(n, 3, phase=2)
    for node in range(0, n, 3):
        if not graph.degree(node):
            continue
        options = {"node": node, "reading": reading, "paths": paths}
        expected = by_listing(graph, x, g, base=None, **options)
        got = explained(edges_of(graph), x, g, **options)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        base = next(iter(graph[node]))
        expected = by_listing(graph, x, g, base=base, **options)
        got = explained(edges_of(graph), x, g, base=base, **options)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_sixteen_nodes_of_a_grid_have_twenty_paths() -> None:
    edges = edges_of(GRAPHS["grid"])
    paths = ig.baselines.AlongShortestPaths(edges, 15, base=0).shortest(16)
    assert round(math.exp(paths.log_total)) == 20
    assert paths.length == 6


def test_double_edges_both_directions_and_self_edges_change_nothing() -> None:
    x, g = wave(16, 2), wave(16, 2, phase=1)
    edges = edges_of(GRAPHS["grid"])
    expected = explained(edges, x, g, node=5)
    loops = torch.arange(16).repeat(2, 1)
    for more in (edges.flip(0), edges, loops, torch.cat([edges.flip(0), loops, loops], 1)):
        got = explained(torch.cat([edges, more], 1), x, g, node=5)
        assert torch.equal(got, expected)


def test_a_base_is_chosen_by_the_entropy_of_its_paths() -> None:
    """From node 0 both 3 and 6 are three steps away; two paths lead to 6, one to 3."""
    edges = torch.tensor([[0, 1, 2, 0, 4, 0, 5, 7, 8], [1, 2, 3, 4, 7, 5, 8, 6, 6]])
    graph = networkx.Graph(edges.T.tolist())
    chosen = ig.baselines.AlongShortestPaths(edges, 0).shortest(9).base
    assert chosen == base_by_listing(graph, 0) == 6


def test_a_long_way_has_an_entropy_though_its_probability_is_no_number() -> None:
    """Two thousand nodes in a row: p = 2⁻¹⁹⁹⁸, which no float64 holds."""
    line = torch.stack([torch.arange(1999), torch.arange(1, 2000)])
    assert ig.baselines.AlongShortestPaths(line, 0).shortest(2000).base == 1999
    # With a shorter arm on the other side the farther end is chosen, of two equal ones the first.
    assert ig.baselines.AlongShortestPaths(line, 1200).shortest(2000).base == 0
    odd = torch.stack([torch.arange(1998), torch.arange(1, 1999)])
    assert ig.baselines.AlongShortestPaths(odd, 999).shortest(1999).base == 0


def test_more_paths_than_numbers_can_be_averaged_but_not_summed() -> None:
    """1,200 squares in a chain: 2^1200 paths, of which half go along each side."""
    corners = torch.arange(1200) * 3
    edges = torch.cat(
        [torch.stack([corners + a, corners + b]) for a, b in ((0, 1), (0, 2), (1, 3), (2, 3))], 1
    )
    n = 3601
    x, g = wave(n, 1), wave(n, 1, phase=1)
    mean = explained(edges, x, g, node=0, base=n - 1, paths="mean")
    sides = [0.5 * (x[u] - x[u + d]) * g[u + d] for u in corners[:1].tolist() for d in (1, 2)]
    torch.testing.assert_close(mean[1:3], torch.stack(sides), rtol=1e-9, atol=0)
    with pytest.raises(ig.errors.InputError, match=r"10\^361 shortest paths .*paths='mean'"):
        explained(edges, x, g, node=0, base=n - 1)


def test_large_graphs_take_no_longer_than_their_edges() -> None:
    """A grid of 300 × 300 nodes has 10^178 paths from corner to corner."""
    side = 300
    number = torch.arange(side * side).reshape(side, side)
    right = torch.stack([number[:, :-1].flatten(), number[:, 1:].flatten()])
    down = torch.stack([number[:-1].flatten(), number[1:].flatten()])
    x, g = wave(side * side, 1), torch.ones(side * side, 1).double()
    values = explained(torch.cat([right, down], 1), x, g, node=0, paths="mean")
    # With the same gradient everywhere the increments of every path add up to X_node − X_base.
    torch.testing.assert_close(values.sum(0), x[0] - x[-1], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"node": 4}, "Node 4 has no neighbours"),
        ({"node": 9}, "node=9, but X has 5 rows"),
        ({"node": -1}, "node=-1, but X has 5 rows"),
        ({"node": 0, "base": 7}, "base=7, but X has 5 rows"),
        ({"node": 0, "base": 4}, "No path leads from base 4 to node 0"),
        ({"node": 0, "base": 0}, "a path of one node says nothing"),
        ({"node": 0, "reading": "R2"}, "reading is one of 'increments'"),
        ({"node": 0, "paths": "all"}, "paths is one of 'sum', 'mean'"),
    ],
)
def test_what_cannot_be_explained_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ig.errors.InputError, match=words):
        explained(RING, wave(5, 2), wave(5, 2), **options)


@pytest.mark.parametrize(
    "edges", [RING.float(), RING.T, RING[0], torch.zeros(2, 3, dtype=torch.bool), [[0], [1]]]
)
def test_edges_are_whole_numbers_of_two_rows(edges: Any) -> None:
    with pytest.raises(ig.errors.InputError, match="edges"):
        ig.methods.graph(edges, node=0)


def test_edges_to_nodes_that_are_not_there_and_no_edges_at_all() -> None:
    with pytest.raises(ig.errors.InputError, match="edges name node 3, but X has 3 rows"):
        explained(RING, wave(3, 2), wave(3, 2), node=0)
    with pytest.raises(ig.errors.InputError, match="no neighbours"):
        explained(torch.zeros(2, 0, dtype=torch.long), wave(3, 2), wave(3, 2), node=0)
    with pytest.raises(ig.errors.InputError, match="one graph of nodes with features"):
        ig.methods.graph(RING, node=0)(ig.fields.Linear(torch.ones(4)), torch.ones(1, 4))


def gcn(edges: Tensor, nodes: int, features: int = 2, classes: int = 3) -> Any:
    """Two graph convolutions of Kipf and Welling in plain torch: (B, N, d) → (B, N, classes)."""
    adjacency = torch.eye(nodes).double()
    adjacency[edges[0], edges[1]] = adjacency[edges[1], edges[0]] = 1
    scale = adjacency.sum(1).rsqrt()
    adjacency = scale[:, None] * adjacency * scale
    first, second = wave(features, 5, phase=3), wave(5, classes, phase=4)
    return lambda z: adjacency @ torch.relu(adjacency @ z @ first + 0.1) @ second


def test_a_gcn_in_plain_torch() -> None:
    """The gradient is that of the node explained, once, whatever the graph."""
    graph = GRAPHS["karate"]
    edges, x = edges_of(graph), wave(34, 2)
    model = gcn(edges, 34)
    leaf = x[None].clone().requires_grad_()
    (g,) = torch.autograd.grad(model(leaf)[0, 16, 1], leaf)
    result = ig.explain(
        lambda z: model(z)[:, 16], x[None], target=1, method="graph", edges=edges, node=16
    )
    expected = by_listing(graph, x, g[0], 16, None, "increments", "sum")
    torch.testing.assert_close(result.values[0], expected, rtol=1e-9, atol=1e-12)
    assert result.cost.gradients == 1
    torch.testing.assert_close(
        result.values.sum((1, 2)) + result.residual, result.output - result.base
    )


def test_several_feature_matrices_of_one_graph_are_a_batch() -> None:
    x = wave(3, 34, 2)
    edges = edges_of(GRAPHS["karate"])
    model = gcn(edges, 34)
    method = ig.methods.graph(edges, node=0, paths="mean")
    together = ig.explain(lambda z: model(z)[:, 0], x, target=2, method=method)
    for b in range(3):
        alone = ig.explain(lambda z: model(z)[:, 0], x[b : b + 1], target=2, method=method)
        torch.testing.assert_close(together.values[b], alone.values[0], rtol=1e-9, atol=1e-12)


def test_it_claims_nothing_and_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    edges = edges_of(GRAPHS["karate"])
    result = ig.methods.graph(edges, node=3)(ig.fields.Monomial(torch.ones(34, 1)), wave(1, 34, 1))
    assert not result.claims_completeness
    assert not recwarn.list


def test_float32_and_the_defaults() -> None:
    x, g = wave(16, 2).float(), wave(16, 2, phase=1).float()
    edges = edges_of(GRAPHS["grid"])
    got = explained(edges, x, g, node=0)
    assert got.dtype == torch.float32
    torch.testing.assert_close(
        got.double(),
        by_listing(GRAPHS["grid"], x.double(), g.double(), 0, None, "increments", "sum"),
        rtol=1e-4,
        atol=1e-5,
    )
    assert repr(ig.methods.graph(RING, 0)) == (
        "Method(AlongShortestPaths(tensor<2x4>, 0), rule=FirstOrder())"
    )
