"""Graphs of different sizes as examples: packed into one call, each explained as if it were alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import wave

FINE: dict[str, Any] = {"rule": ig.rules.GaussLegendre(40)}


class Net(nn.Module):
    """Weighted sums of neighbours, twice, then a mean over each graph, or an answer for each node."""

    def __init__(self, level: str = "graph") -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()
        self.level = level
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(wave(*p.shape, phase=i))

    def forward(self, x: Tensor, edges: Tensor, *rest: Tensor) -> Tensor:
        weight = rest[0] if rest and rest[0].is_floating_point() else x.new_ones(edges.shape[1])
        for layer in (self.first, self.second):
            x = layer(x)
            x = x + torch.zeros_like(x).index_add(0, edges[1], weight[:, None] * x[edges[0]])
            x = torch.tanh(x)
        if self.level == "node":
            return x
        batch = rest[-1]
        graphs = int(batch.max()) + 1
        size = torch.bincount(batch, minlength=graphs)
        return x.new_zeros(graphs, 2).index_add(0, batch, x) / size[:, None]


def graphs(weights: bool = False) -> list[ig.fields.Graph]:
    shapes = [
        (4, [[0, 1, 2, 3], [1, 2, 3, 0]]),
        (2, [[0, 1], [1, 0]]),
        (3, [[], []]),
        (1, [[0], [0]]),
    ]
    return [
        ig.fields.Graph(
            wave(n, 3, phase=n),
            torch.tensor(edges, dtype=torch.long),
            0.5 + wave(len(edges[0]), phase=n).abs() if weights else None,
        )
        for n, edges in shapes
    ]


def alone(model: nn.Module, graph: ig.fields.Graph, answer: Any, weights: bool = False) -> Tensor:
    """Dense quadrature with plain autograd of one graph's features, or of its weights."""
    t, w = np.polynomial.legendre.leggauss(60)
    end = graph.weight if weights else graph.x
    assert isinstance(end, Tensor)
    total = torch.zeros_like(end)
    for place, share in zip((t + 1) / 2, w / 2, strict=True):
        leaf = (place * end).requires_grad_()
        value = answer(graph.x, leaf) if weights else answer(leaf, graph.weight)
        total += share * torch.autograd.grad(value, leaf)[0]
    return total * end


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_graphs_of_different_sizes_are_each_explained_alone(batch_size: int | None) -> None:
    model, every = Net(), graphs()
    field = ig.fields.GraphField(model, every, 1, batch_size=batch_size)
    result = ig.explain(field, field.inputs, **FINE)
    assert result.values.shape == (4, 4, 3)
    for graph, values in zip(every, field.apart(result.values), strict=True):
        batch = torch.zeros(len(graph.x), dtype=torch.long)
        expected = alone(model, graph, lambda x, _, g=graph, b=batch: model(x, g.edges, b)[0, 1])
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-9)
        assert values.shape == graph.x.shape  # type: ignore[union-attr]
    padding = result.values[1, 2:]
    assert bool((padding == 0).all())


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_node_of_each_graph(batch_size: int | None) -> None:
    model, every = Net("node"), graphs()
    nodes = [2, 1, 0, 0]
    field = ig.fields.GraphField(model, every, 0, node=nodes, batch_size=batch_size)
    maps = field.apart(ig.explain(field, field.inputs, **FINE).values)
    for graph, node, values in zip(every, nodes, maps, strict=True):
        expected = alone(model, graph, lambda x, _, g=graph, v=node: model(x, g.edges)[v, 0])
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-9)


def test_edge_weights_and_both_at_once() -> None:
    model, every = Net(), graphs(weights=True)
    field = ig.fields.GraphField(model, every, 1, explain="weight")
    result = ig.explain(field, field.inputs, **FINE)
    for graph, values in zip(every, field.apart(result.values), strict=True):
        batch = torch.zeros(len(graph.x), dtype=torch.long)
        expected = alone(
            model, graph, lambda x, w, g=graph, b=batch: model(x, g.edges, w, b)[0, 1], weights=True
        )
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-9)
    both = ig.fields.GraphField(model, every, 1, explain=("x", "weight"))
    result = ig.explain(both, both.inputs, tol=1e-6)
    assert set(result.values) == {"x", "weight"}
    total = result.values["x"].sum((1, 2)) + result.values["weight"].sum(1)
    torch.testing.assert_close(total, result.output - result.base, rtol=0, atol=1e-5)


def test_defaults_baselines_and_the_whole_family() -> None:
    field = ig.fields.GraphField(Net(), graphs(), 1)
    ig.testing.check_field(field, field.inputs + 0.1)
    for method in ("integrated", "idgi", "guided", "smoothgrad"):
        result = ig.explain(field, field.inputs, method=method, baseline=0.25)
        assert bool((result.values[1, 2:] == 0).all()), method


def test_heterogeneous_graphs() -> None:
    """Papers and authors; authors write papers, and papers cite papers."""
    writes, cites = ("author", "writes", "paper"), ("paper", "cites", "paper")

    def model(x: Any, edges: Any, batch: Any) -> Tensor:
        sent = torch.zeros_like(x["paper"][:, :1])
        sent = sent.index_add(0, edges[writes][1], x["author"].prod(1, True)[edges[writes][0]])
        sent = sent.index_add(0, edges[cites][1], x["paper"][:, :1][edges[cites][0]])
        papers = (sent * x["paper"].sum(1, True)).sin()
        return papers.new_zeros(int(batch["author"].max()) + 1, 1).index_add(
            0, batch["paper"], papers
        )

    every = [
        ig.fields.Graph(
            {"author": wave(a, 2, phase=a), "paper": wave(p, 3, phase=p)},
            {
                writes: torch.stack([torch.arange(p) % a, torch.arange(p)]),
                cites: torch.stack([torch.arange(p - 1), torch.arange(1, p)]),
            },
        )
        for a, p in ((2, 3), (1, 5))
    ]
    field = ig.fields.GraphField(model, every, 0)
    result = ig.explain(field, field.inputs, rule=ig.rules.GaussLegendre(40))
    maps = field.apart(result.values)
    assert [m["author"].shape for m in maps] == [(2, 2), (1, 2)]
    for b, graph in enumerate(every):
        single = ig.fields.GraphField(model, [graph], 0)
        own = single.apart(
            ig.explain(single, single.inputs, rule=ig.rules.GaussLegendre(40)).values
        )[0]
        for name in ("author", "paper"):
            torch.testing.assert_close(maps[b][name], own[name], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        sum(m.flatten(1).sum(1) for m in result.values.values()),
        result.output - result.base,
        rtol=0,
        atol=1e-5,
    )


def test_the_model_is_given_back_as_it_was() -> None:
    model = Net().train()
    field = ig.fields.GraphField(model, graphs(), 1)
    modes = []
    model.first.register_forward_hook(lambda module, *_: modes.append(module.training))
    ig.explain(field, field.inputs, **FINE)
    assert modes
    assert not any(modes)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: ig.fields.GraphField(Net(), [], 0), "no graphs"),
        (lambda: ig.fields.GraphField(Net(), graphs(), 0, explain="weight"), "explain= is"),
        (
            lambda: ig.fields.GraphField(Net(), graphs(), 0, node=3),
            "node=3 of graph 1, which has 2",
        ),
        (lambda: ig.fields.GraphField(Net(), graphs(), 0, node=[0, 0]), "one for each of 4 graphs"),
        (
            lambda: ig.fields.GraphField(Net(), graphs() + graphs(True), 0),
            "Graph 4 has other types",
        ),
        (lambda: ig.fields.GraphField(Net(), graphs(), 0, arguments=("x", "y")), "arguments are"),
        (
            lambda: ig.fields.GraphField(
                Net(), [ig.fields.Graph(wave(2, 3), torch.tensor([[0], [2]]))], 0
            ),
            "names node 2 of 2",
        ),
        (
            lambda: ig.fields.GraphField(
                Net(), [*graphs(), ig.fields.Graph(wave(2, 4), torch.tensor([[0], [1]]))], 0
            ),
            "numbers of features",
        ),
        (
            lambda: ig.fields.GraphField(
                Net(), [ig.fields.Graph(wave(2, 3), torch.tensor([[0], [1]]), wave(2))], 0
            ),
            "one for each edge",
        ),
    ],
)
def test_what_does_not_fit_is_refused(made: Any, words: str) -> None:
    with pytest.raises(ig.errors.InputError, match=words):
        made()


def test_a_node_of_a_model_of_graphs_is_refused() -> None:
    field = ig.fields.GraphField(Net(), graphs(), 0, node=0, arguments=("x", "edges", "batch"))
    with pytest.raises(ig.errors.InputError, match="leave node= out"):
        ig.explain(field, field.inputs)
