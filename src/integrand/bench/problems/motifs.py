"""Graphs with a motif in them, whose place is known (PyTorch Geometric's ``ExplainerDataset``), and
small networks that find it.

``motif_graphs`` asks which of two motifs a graph holds, and its edges are explained; ``motif_nodes``
asks which part of a house a node is, and features of the nodes around it are explained. Evidence
are the motif's own edges or nodes. Graphs differ in size, so that examples come one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...baselines import Constant
from ...core.optional import optional
from ...core.options import check_choice
from ...errors import InputError
from ...fields import Graph, GraphField
from ..peers import GraphQuestion, PyGExplainer, global_seed
from ..training import accuracy, trained
from .base import Examples, Problem, ProblemOptions, problem, shuffled

_ROUNDS = 3  # of messages, and how far from a node its evidence can be
_TREE, _RING = 20, 6  # nodes of a tree, and of a ring, which has as many edges as a house
_BASE, _EDGES = 200, 4  # nodes of the one graph, and edges that each new one brings
_HOUSES, _HOUSE = 60, 5  # on it, and nodes of each
_NOISE = 6  # features of nodes that say nothing
_POOLING = {"sum": "sum", "max": "amax"}


class MotifNet(nn.Module):
    """Rounds of messages, then a linear layer, for every node or for every graph (the "sum" or the
    "max" of its nodes): (Σ n, d), (2, Σ e) → logits."""

    def __init__(
        self, rounds: Iterable[nn.Module], width: int, classes: int, pooling: str = "sum"
    ) -> None:
        super().__init__()
        check_choice("pooling", pooling, tuple(_POOLING))
        self.reduce = _POOLING[pooling]
        self.rounds = nn.ModuleList(rounds)
        self.head = nn.Linear(width, classes)

    def forward(
        self, x: Tensor, edges: Tensor, weight: Tensor | None = None, batch: Tensor | None = None
    ) -> Tensor:
        for messages in self.rounds:
            x = messages(x, edges, weight).relu()
        if batch is not None:
            pooled = x.new_zeros(int(batch.max()) + 1, x.shape[1])
            x = pooled.scatter_reduce(0, batch[:, None].expand_as(x), x, self.reduce)  # x ≥ 0
        logits: Tensor = self.head(x)
        return logits


class ByNumber(nn.Module):
    """A network as a function of the numbers (N,) of graphs or nodes, so that it is trained as any
    other."""

    def __init__(self, network: nn.Module, outputs: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs

    def forward(self, numbers: Tensor) -> Tensor:
        return self.outputs(self.network, numbers)


def _network(features: int, width: int, classes: int, pooling: str = "sum") -> MotifNet:
    layers = optional("torch_geometric.nn", extra="pyg", needs="A problem with motifs")
    sizes = [features, *[width] * (_ROUNDS - 1)]
    rounds = (layers.GraphConv(size, width) for size in sizes)
    return MotifNet(rounds, width, classes, pooling)


# --- graphs -----------------------------------------------------------------------------------------------------------


@problem("motif_graphs")
def motif_graphs(
    setting: ProblemOptions, pooling: str = "sum", train: int = 400, epochs: int = 60
) -> Problem:
    """Random trees (Barabási and Albert's) with a house or a ring attached, and a network that tells
    which by the "sum" or the "max" of what nodes know; explained are weights of edges, all 1.

    Words: ``one`` and ``zero`` (no edges), ``several`` (no edges, and all at a quarter, a half);
    ``low`` and ``high`` are 0 and 1; ``number`` is that of the graph. Peers: ``GNNExplainer(epochs=)``, ``PGExplainer(epochs=)``,
    ``CaptumIG()``.

    Source: after BA-2Motifs of Luo et al., "Parameterized Explainer for Graph Neural Network",
    2020, with a ring of six in place of five; the network is ours.
    """
    graphs, labels = _two_motifs(train + 200, setting.seed)
    model = trained(
        lambda: ByNumber(_network(1, 32, 2, pooling), partial(_of_graphs, graphs)),
        torch.arange(train),
        labels[:train],
        cache=setting.cache,
        name=f"motif-graphs-{pooling}",
        epochs=epochs,
        rate=5e-3,
        seed=setting.seed,
    )
    assert isinstance(model, ByNumber)
    network = model.network
    parametric = cache(partial(_trained_pg, network, graphs[:100], labels[:100], setting.seed))

    def load(numbers: Sequence[int]) -> Examples:
        data = graphs[train + _only(numbers)]
        edges, weight = data.edge_index, torch.ones(data.edge_index.shape[1])
        x, batch = torch.ones(data.num_nodes, 1), torch.zeros(data.num_nodes, dtype=torch.long)
        with torch.no_grad():
            label = int(network(x, edges, weight, batch).argmax())
        field = GraphField(network, [Graph(x, edges, weight)], label, explain="weight")
        question = GraphQuestion(
            network, x, edges, label, arguments={"weight": weight, "batch": batch}
        )
        words = {**_peers(question, "edges"), "number": numbers[0]}
        words["PGExplainer"] = lambda epochs=20: PyGExplainer(
            question, lambda: parametric(epochs), phenomenon=True
        )
        return Examples(field.inputs, masks=data.edge_mask.bool()[None], field=field, words=words)

    return Problem(
        f"trees with a house or a ring, {pooling} of nodes",
        network,
        tuple(f"{i:03d} {'house' if label else 'ring'}" for i, label in enumerate(labels[train:])),
        load,
        words={
            "one": Constant(0.0),
            "zero": Constant(0.0),
            "several": [Constant(0.0), Constant(0.25), Constant(0.5)],
            "low": 0.0,
            "high": 1.0,
        },
        facts={
            "trained on": train,
            "accuracy on the rest": round(
                accuracy(model, torch.arange(train, len(graphs)), labels[train:]), 4
            ),
        },
    )


def _two_motifs(count: int, seed: int) -> tuple[list[Any], Tensor]:
    """Graphs with a house (1) or a ring (0), in an order of chance, and which."""
    sets = optional("torch_geometric.datasets", extra="pyg", needs="The problem 'motif_graphs'")
    tree = sets.graph_generator.BAGraph(_TREE, 1)
    motifs = (sets.motif_generator.CycleMotif(_RING), sets.motif_generator.HouseMotif())
    with global_seed(seed):
        graphs = [
            graph
            for motif in motifs
            for graph in sets.ExplainerDataset(tree, motif, num_motifs=1, num_graphs=count // 2)
        ]
    for graph in graphs:
        graph.num_nodes = len(graph.node_mask)
    order = shuffled(len(graphs), seed)
    labels = torch.arange(len(graphs)) // (count // 2)
    return [graphs[i] for i in order], labels[order]


def _of_graphs(graphs: Sequence[Any], network: nn.Module, numbers: Tensor) -> Tensor:
    """Logits of the graphs with these numbers."""
    data = optional("torch_geometric.data", extra="pyg", needs="The problem 'motif_graphs'")
    union = data.Batch.from_data_list([graphs[i] for i in numbers.tolist()])
    x, weight = torch.ones(union.num_nodes, 1), torch.ones(union.num_edges)
    logits: Tensor = network(x, union.edge_index, weight, union.batch)
    return logits


def _trained_pg(
    network: nn.Module, graphs: Sequence[Any], labels: Tensor, seed: int, epochs: int
) -> object:
    """PGExplainer, trained to explain the network on these graphs."""
    explain = optional("torch_geometric.explain", extra="pyg", needs="The peer PGExplainer")
    with global_seed(seed), torch.enable_grad():
        algorithm = explain.PGExplainer(epochs=epochs, lr=0.003)
        for epoch in range(epochs):
            for data, label in zip(graphs, labels.tolist(), strict=True):
                x = torch.ones(data.num_nodes, 1)
                batch = torch.zeros(data.num_nodes, dtype=torch.long)
                arguments = {"weight": torch.ones(data.num_edges), "batch": batch}
                question = GraphQuestion(network, x, data.edge_index, label, arguments=arguments)
                if epoch == 0:
                    question.explainer(algorithm, "edges", phenomenon=True)  # tells it of the task
                algorithm.train(
                    epoch, network, x, data.edge_index, target=question.target, **arguments
                )
    return algorithm


# --- nodes ------------------------------------------------------------------------------------------------------------


@problem("motif_nodes")
def motif_nodes(setting: ProblemOptions, epochs: int = 120) -> Problem:
    """One graph (Barabási and Albert's) with houses attached, and a network that tells whether a node
    is of the ground, or which storey of a house it is; explained are features of the nodes as far as
    messages reach.

    A node's features are 1, the logarithm of its degree, and six normal numbers that say nothing.
    Words: ``one`` and ``zero``, ``mean`` (of all nodes), ``several`` (both);
    ``edges`` and ``node``, for ``graph(edges, node)``. Peers: ``GNNExplainer(epochs=)``,
    ``CaptumIG()``.

    Source: after BA-Shapes of Ying et al., "GNNExplainer", 2019, which has no features; the network
    is ours.
    """
    data, x = _houses(setting.seed)
    order = torch.tensor(shuffled(len(x), setting.seed))
    train, rest = order[: int(0.8 * len(order))], order[int(0.8 * len(order)) :]
    model = trained(
        lambda: ByNumber(
            _network(x.shape[1], 32, int(data.y.max()) + 1),
            lambda network, numbers: network(x, data.edge_index)[numbers],
        ),
        train,
        data.y[train],
        cache=setting.cache,
        name="motif-nodes",
        epochs=epochs,
        rate=5e-3,
        seed=setting.seed,
    )
    assert isinstance(model, ByNumber)
    network = model.network
    house_nodes = rest[rest >= _BASE]  # nodes of houses: of the others no evidence is known

    def load(numbers: Sequence[int]) -> Examples:
        node = int(house_nodes[_only(numbers)])
        near, edges, place = _around(node, data.edge_index)
        with torch.no_grad():
            label = int(network(x, data.edge_index)[node].argmax())
        field = GraphField(network, [Graph(x[near], edges)], label, node=place)
        house = (near >= _BASE) & ((near - _BASE) // _HOUSE == (node - _BASE) // _HOUSE)
        question = GraphQuestion(network, x[near], edges, label, node=place)
        words = {**_peers(question, "features"), "edges": edges, "node": place}
        return Examples(field.inputs, masks=house[None], field=field, words=words)

    mean = x.mean(0)
    return Problem(
        "houses on a random graph",
        network,
        tuple(f"node {int(node)}" for node in house_nodes),
        load,
        words={
            "one": Constant(0.0),
            "zero": Constant(0.0),
            "mean": Constant(mean, label="mean node"),
            "several": [Constant(0.0), Constant(mean, label="mean node")],
        },
        facts={
            "trained on": len(train),
            "accuracy on the rest": round(accuracy(model, rest, data.y[rest]), 4),
        },
    )


def _houses(seed: int) -> tuple[Any, Tensor]:
    """The graph, and its nodes' features."""
    sets = optional("torch_geometric.datasets", extra="pyg", needs="The problem 'motif_nodes'")
    with global_seed(seed):
        ground = sets.graph_generator.BAGraph(_BASE, _EDGES)
        house = sets.motif_generator.HouseMotif()
        data = sets.ExplainerDataset(ground, house, num_motifs=_HOUSES)[0]
        count = len(data.node_mask)
        degree = torch.bincount(data.edge_index[0], minlength=count).float()
        noise = torch.randn(count, _NOISE)
    return data, torch.cat([torch.ones(count, 1), degree.log()[:, None], noise], 1)


def _around(node: int, edges: Tensor) -> tuple[Tensor, Tensor, int]:
    """The nodes that messages reach a node from, the edges between them, and its number there."""
    utils = optional("torch_geometric.utils", extra="pyg", needs="The problem 'motif_nodes'")
    near, kept, place, _ = utils.k_hop_subgraph(node, _ROUNDS, edges, relabel_nodes=True)
    return near, kept, int(place)


# --- both -------------------------------------------------------------------------------------------------------------


def _only(numbers: Sequence[int]) -> int:
    if len(numbers) != 1:
        raise InputError(
            f"Graphs differ in size, so that they are explained one at a time, not {len(numbers)}: give the run batch = 1."
        )
    return numbers[0]


def _peers(question: GraphQuestion, masks: str) -> dict[str, Any]:
    """PyG's algorithms by the names that recipes use."""
    explain = optional("torch_geometric.explain", extra="pyg", needs="The peers of PyG")

    def gnn(epochs: int = 100) -> PyGExplainer:
        return PyGExplainer(question, partial(explain.GNNExplainer, epochs=epochs), masks)

    def captum() -> PyGExplainer:
        make = partial(explain.CaptumExplainer, "IntegratedGradients")
        return PyGExplainer(question, make, masks)

    return {"GNNExplainer": gnn, "CaptumIG": captum}
