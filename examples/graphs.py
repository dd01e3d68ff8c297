"""Does a graph network find the house, and which edges does it read it from?

Half of the graphs are random, like trees, with a house of five nodes attached; half have a ring of
six in its place. The network sees no features, only who is joined to whom. Explained are the
weights of its edges, all 1, from 0, no edge at all. Since the house is known, the map can be
marked: the area under the ROC curve is the chance that an edge of it outranks another edge.
"""

from __future__ import annotations

import sys
from pathlib import Path

import networkx
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.datasets import ExplainerDataset
from torch_geometric.datasets.graph_generator import BAGraph
from torch_geometric.datasets.motif_generator import CycleMotif
from torch_geometric.nn import GraphConv, global_max_pool

import integrand as ig

RING, HOUSE = 0, 1  # the classes


class GraphNetwork(nn.Module):
    """Three rounds of messages, and the node that speaks loudest."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(GraphConv(n, width) for n in (1, width, width))
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor, edges: Tensor, weight: Tensor, batch: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = convolution(x, edges, weight).relu()
        return self.head(global_max_pool(x, batch))


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    np.random.seed(0)  # PyG draws trees with NumPy
    tree = BAGraph(num_nodes=20, num_edges=1)
    houses = ExplainerDataset(tree, "house", num_motifs=1, num_graphs=250)
    rings = ExplainerDataset(tree, CycleMotif(6), num_motifs=1, num_graphs=250)
    model = trained([*houses[:200], *rings[:200]], torch.tensor([HOUSE] * 200 + [RING] * 200))

    unseen = houses[200:]
    lead = ig.targets.Margin(HOUSE, RING)  # how much rather a house than a ring
    field = ig.fields.GraphField(model, list(map(graph, unseen)), target=lead, explain="weight")
    result = ig.explain(field, field.inputs, tol=0.01)  # weights (50, edges), from 0

    maps = field.apart(result.values)  # one for each graph, as many numbers as it has edges
    area = torch.cat([
        ig.metrics.localisation_auc(map_[None], data.edge_mask.bool()[None])
        for map_, data in zip(maps, unseen, strict=True)
    ])  # fmt: skip
    print(f"{int((result.output > 0).sum())} of {len(unseen)} unseen houses are recognised")
    print(f"an edge of the house outranks another with probability {float(area.mean()):.3f} (worst graph {float(area.min()):.3f})")  # fmt: skip
    print(f"largest gap to the change of the lead: {float(result.gap.max()):.1%}")
    shown = [int(i) for i in area.argsort()[[0, len(area) // 2, -1]]]
    figure = draw([unseen[i] for i in shown], [maps[i] for i in shown], area[shown])
    figure.savefig(out / "graphs.png", dpi=120)


def graph(data: Data) -> ig.fields.Graph:
    """A graph without features, every edge at weight 1."""
    nodes, edges = len(data.node_mask), data.edge_index
    return ig.fields.Graph(torch.ones(nodes, 1), edges, torch.ones(edges.shape[1]))


def trained(graphs: list[Data], labels: Tensor) -> nn.Module:
    model = GraphNetwork()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(25):
        for rows in torch.randperm(len(graphs)).split(40):
            union = Batch.from_data_list([graphs[i] for i in rows])
            x, weight = torch.ones(union.num_nodes, 1), torch.ones(union.num_edges)
            optimiser.zero_grad()
            scores = model(x, union.edge_index, weight, union.batch)
            nn.functional.cross_entropy(scores, labels[rows]).backward()
            optimiser.step()
    return model.eval()


def draw(graphs: list[Data], maps: list[Tensor], areas: Tensor) -> Figure:
    """Graphs with their edges as strong as the map says; nodes of the house are filled."""
    figure = Figure(figsize=(10.2, 3.5), layout="constrained")
    titles = ("the worst", "the median", "the best")
    for axes, title, data, map_, area in zip(
        figure.subplots(1, 3), titles, graphs, maps, areas, strict=True
    ):
        lines: dict[tuple[int, int], float] = {}  # both directions of an edge are one line
        for (a, b), value in zip(data.edge_index.T.tolist(), map_.tolist(), strict=True):
            lines[min(a, b), max(a, b)] = lines.get((min(a, b), max(a, b)), 0.0) + value
        drawing = networkx.Graph(list(lines))
        place = networkx.kamada_kawai_layout(drawing)
        largest = max(map(abs, lines.values()))
        strength = [lines[min(edge), max(edge)] / largest for edge in drawing.edges]
        networkx.draw_networkx_edges(
            drawing, place, ax=axes, width=[1 + 4 * abs(s) for s in strength],
            edge_color=strength, edge_cmap=colormaps["RdBu_r"], edge_vmin=-1, edge_vmax=1,
        )  # fmt: skip
        fill = ["#24272b" if data.node_mask[node] else "white" for node in drawing.nodes]
        networkx.draw_networkx_nodes(drawing, place, ax=axes, node_size=46, node_color=fill, edgecolors="#24272b", linewidths=0.8)  # fmt: skip
        axes.set_title(f"{title}: area under the ROC curve {float(area):.2f}", fontsize=10)
        axes.axis("off")
    return figure


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given
