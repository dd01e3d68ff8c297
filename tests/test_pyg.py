"""PyTorch Geometric: its graphs, its layers, and its Explainer around our methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.problems import wave

pyg = pytest.importorskip("torch_geometric")
pytest.importorskip("torch_geometric.nn")

from torch_geometric.data import Data  # noqa: E402
from torch_geometric.explain import Explainer  # noqa: E402
from torch_geometric.nn import GCNConv, HeteroConv, SAGEConv, global_add_pool  # noqa: E402

from integrand.compat.pyg import IntegratedGradients, graph_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FINE: dict[str, Any] = {"rule": ig.rules.GaussLegendre(30)}


class GCN(torch.nn.Module):
    def __init__(self, *, graphs: bool = False, outputs: int = 3) -> None:
        super().__init__()
        self.first, self.second = GCNConv(4, 5).double(), GCNConv(5, outputs).double()
        self.graphs = graphs
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(wave(*p.shape, phase=i))

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        h = self.second(torch.tanh(self.first(x, edge_index)), edge_index).tanh()
        return global_add_pool(h, batch) if self.graphs else h


X = wave(6, 4)
EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 4, 5], [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]])


def dense(function: Any, end: Tensor) -> Tensor:
    """IG from zero by many midpoints of plain autograd."""
    total = torch.zeros_like(end)
    for step in range(400):
        leaf = ((step + 0.5) / 400 * end).requires_grad_()
        total += torch.autograd.grad(function(leaf), leaf)[0] / 400
    return total * end


def explainer(model: Any, mode: str, level: str, masks: dict[str, str], **options: Any) -> Any:
    return Explainer(
        model,
        IntegratedGradients(**FINE, **options),
        explanation_type="model",
        model_config={"mode": mode, "task_level": level, "return_type": "raw"},
        **masks,
    )


@pytest.mark.parametrize("index", [2, torch.tensor([1, 4])])
def test_a_node_of_several_classes(index: Any) -> None:
    model = GCN().eval()
    explain = explainer(
        model,
        "multiclass_classification",
        "node",
        {"node_mask_type": "attributes", "edge_mask_type": "object"},
    )
    explanation = explain(X, EDGES, index=index)
    places = torch.as_tensor(index).reshape(-1)
    classes = model(X, EDGES).argmax(1)[places]
    score = lambda z: model(z, EDGES)[places, classes].sum()  # noqa: E731
    torch.testing.assert_close(explanation.node_mask, dense(score, X), rtol=0, atol=1e-4)
    change = model(X, EDGES)[places, classes].sum() - model(X, EDGES[:, :0])[places, classes].sum()
    assert explanation.edge_mask.shape == (10,)
    assert torch.isfinite(explanation.edge_mask).all()
    result = explain.algorithm.results["edge_mask"]
    torch.testing.assert_close(explanation.edge_mask.sum(), result.change.sum(), rtol=0, atol=1e-6)
    assert bool((change != 0).item())


def test_a_graph_and_regression() -> None:
    model = GCN(graphs=True, outputs=1).eval()
    explain = explainer(model, "regression", "graph", {"node_mask_type": "attributes"})
    mask = explain(X, EDGES, batch=torch.zeros(6, dtype=torch.long)).node_mask
    batch = torch.zeros(6, dtype=torch.long)
    expected = dense(lambda z: model(z, EDGES, batch).sum(), X)
    torch.testing.assert_close(mask, expected, rtol=0, atol=1e-4)


def test_edges_far_away_do_not_matter() -> None:
    """Two layers see two steps: nothing beyond gets anything."""
    explain = explainer(
        GCN().eval(),
        "multiclass_classification",
        "node",
        {"node_mask_type": "attributes", "edge_mask_type": "object"},
    )
    explanation = explain(X, EDGES, index=0)
    assert bool((explanation.node_mask[3:] == 0).all())
    assert bool((explanation.edge_mask[4:] == 0).all())
    assert bool((explanation.edge_mask[:4] != 0).any())


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="does not support"):
        explainer(GCN(), "regression", "node", {"node_mask_type": "object"})


def test_graphs_of_pyg_as_one_field() -> None:
    model = GCN(graphs=True).eval()
    graphs = [graph_of(Data(X, EDGES)), graph_of(Data(X[:3] + 1, EDGES[:, :4]))]
    field = ig.fields.GraphField(model, graphs, 1)
    maps = field.apart(ig.explain(field, field.inputs, **FINE).values)
    for graph, values in zip(graphs, maps, strict=True):
        x, edges = graph.x, graph.edges
        assert isinstance(x, Tensor)
        batch = torch.zeros(len(x), dtype=torch.long)
        expected = dense(lambda z, e=edges, b=batch: model(z, e, b)[0, 1], x)
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-4)
    with pytest.raises(ig.errors.InputError, match="no x or no edge_index"):
        graph_of(Data(X))


def test_motifs_are_found_where_they_are() -> None:
    """Houses on a Barabási–Albert graph, known to the model through a feature of their nodes' own: the motif gets the credit."""
    from torch_geometric.datasets import ExplainerDataset
    from torch_geometric.datasets.graph_generator import BAGraph

    pyg.seed_everything(0)
    data = ExplainerDataset(BAGraph(40, 3), "house", num_motifs=6)[0]
    inside = data.node_mask.bool()
    x = torch.cat([inside[:, None].float(), torch.rand(len(inside), 2) * 0.1], 1)
    weight = torch.tensor([1.0, 0.2, -0.2])

    def model(z: Tensor) -> Tensor:
        sent = torch.zeros_like(z).index_add(1, data.edge_index[1], z[:, data.edge_index[0]])
        return (sent @ weight).tanh().sum(1, keepdim=True)

    values = ig.explain(model, x[None], target=0, **FINE).values[0].abs().sum(1)
    order = values.argsort(descending=True)[: int(inside.sum())]
    assert float(inside[order].float().mean()) > 0.95


def test_after_gnn_explainer_edges_are_explained_as_before() -> None:
    """GNNExplainer leaves an empty parameter on the layers."""
    from torch_geometric.explain import GNNExplainer

    model = GCN().eval()
    ask = explainer(
        model, "multiclass_classification", "node", {"edge_mask_type": "object"}
    )  # fmt: skip
    before = ask(X, EDGES, index=2).edge_mask
    Explainer(
        model,
        GNNExplainer(epochs=2),
        explanation_type="model",
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
        edge_mask_type="object",
    )(X, EDGES, index=2)  # fmt: skip
    assert "_edge_mask" in model.first._parameters
    after = ask(X, EDGES, index=2).edge_mask
    assert float(before.abs().sum()) > 0
    torch.testing.assert_close(after, before)


# --- heterogeneous graphs ---------------------------------------------------------------------------------------------

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
BACK = ("paper", "written by", "author")
NODES = {"author": wave(3, 2, phase=2), "paper": wave(4, 3, phase=5)}
JOINED = {
    WRITES: torch.tensor([[0, 0, 1, 2, 2], [0, 1, 1, 2, 3]]),
    BACK: torch.tensor([[0, 1, 1, 2, 3], [0, 0, 1, 2, 2]]),
    CITES: torch.tensor([[1, 2, 3, 3], [0, 0, 1, 2]]),
}


class Library(torch.nn.Module):
    """Two layers of HeteroConv; classes of papers, or one number for the graph."""

    def __init__(self, *, graphs: bool = False) -> None:
        super().__init__()
        sizes = {WRITES: (2, 3), BACK: (3, 2), CITES: (3, 3)}
        self.first = HeteroConv({r: SAGEConv(sizes[r], 4).double() for r in sizes}, aggr="sum")
        self.second = HeteroConv({r: SAGEConv(4, 3).double() for r in sizes}, aggr="sum")
        self.graphs = graphs
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(0.7 * wave(*p.shape, phase=i))

    def forward(self, x: Any, edges: Any) -> Tensor:
        h = {kind: values.tanh() for kind, values in self.first(x, edges).items()}
        papers: Tensor = self.second(h, edges)["paper"].tanh()
        return papers.sum().reshape(1, 1) if self.graphs else papers


def by_plain_autograd(
    function: Any, ends: dict[Any, Tensor], starts: Any = None
) -> dict[Any, Tensor]:
    """IG of a function of several tensors together: NumPy's nodes, and a gradient at each."""
    begin = {k: torch.zeros_like(end) for k, end in ends.items()} if starts is None else starts
    totals = {k: torch.zeros_like(end) for k, end in ends.items()}
    for node, weight in zip(*np.polynomial.legendre.leggauss(40), strict=True):
        t = (node + 1) / 2
        at = {k: torch.lerp(begin[k], ends[k], t).requires_grad_() for k in ends}
        slopes = torch.autograd.grad(function(at), list(at.values()))
        for k, slope in zip(ends, slopes, strict=True):
            totals[k] += weight / 2 * slope * (ends[k] - begin[k])
    return totals


class Weighed(torch.nn.Module):
    """The library by hand, messages multiplied by numbers of their edges."""

    def __init__(self, library: Library) -> None:
        super().__init__()
        self.library = library

    def layer(self, conv: Any, x: Any, weights: Any) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for relation in JOINED:
            source, target = relation[0], relation[2]
            at, to = JOINED[relation]
            own = conv.convs[relation]
            sent = x[source][at] * weights[relation][:, None]
            count = torch.bincount(to, minlength=len(x[target])).clamp_min(1).double()
            mean = torch.zeros(len(x[target]), sent.shape[1]).double().index_add(0, to, sent)
            made = own.lin_l(mean / count[:, None]) + own.lin_r(x[target])
            sums[target] = sums[target] + made if target in sums else made
        return sums

    def forward(self, weights: Any) -> Tensor:
        h = self.layer(self.library.first, NODES, weights)
        h = {kind: values.tanh() for kind, values in h.items()}
        return self.layer(self.library.second, h, weights)["paper"].tanh()


def test_heterogeneous_graphs_are_explained_by_type_and_relation() -> None:
    model = Library().eval()
    explain = explainer(
        model,
        "multiclass_classification",
        "node",
        {"node_mask_type": "attributes", "edge_mask_type": "object"},
    )
    explanation = explain(NODES, JOINED, index=1)
    wanted = int(model(NODES, JOINED)[1].argmax())
    nodes = by_plain_autograd(lambda z: model(z, JOINED)[1, wanted], NODES)
    for kind, expected in nodes.items():
        torch.testing.assert_close(explanation[kind].node_mask, expected, rtol=0, atol=1e-8)
    ones = {relation: torch.ones(edges.shape[1]).double() for relation, edges in JOINED.items()}
    by_hand = Weighed(model)
    torch.testing.assert_close(by_hand(ones), model(NODES, JOINED))
    edges = by_plain_autograd(lambda w: by_hand(w)[1, wanted], ones)
    for relation, expected in edges.items():
        torch.testing.assert_close(explanation[relation].edge_mask, expected, rtol=0, atol=1e-5)
    result = explain.algorithm.results["edge_mask"]
    assert set(result.values) == set(JOINED)
    assert float(result.residual.abs().max()) < 1e-6
    assert explanation.validate_masks()
    assert all(getattr(module, "_edge_mask", None) is None for module in model.modules())


def test_a_regression_of_a_heterogeneous_graph_from_a_baseline_of_each_type() -> None:
    model = Library(graphs=True).eval()
    starts = {kind: 0.3 * torch.ones_like(x) for kind, x in NODES.items()}
    explain = explainer(
        model,
        "regression",
        "graph",
        {"node_mask_type": "attributes", "edge_mask_type": "object"},
        baseline={kind: start[None] for kind, start in starts.items()},
    )
    explanation = explain(NODES, JOINED)
    nodes = by_plain_autograd(lambda z: model(z, JOINED).sum(), NODES, starts)
    for kind, expected in nodes.items():
        torch.testing.assert_close(explanation[kind].node_mask, expected, rtol=0, atol=1e-5)
    change = model(NODES, JOINED) - model(NODES, {r: e[:, :0] for r, e in JOINED.items()})
    summed = sum(mask.sum() for mask in explanation.collect("edge_mask").values())
    torch.testing.assert_close(summed, change.sum(), rtol=0, atol=1e-6)


def test_layers_that_no_relation_finds_are_said() -> None:
    class Bare(torch.nn.Module):
        def forward(self, x: Any, edges: Any) -> Tensor:
            return x["paper"].sum(1, True)

    explain = explainer(Bare(), "regression", "node", {"edge_mask_type": "object"})
    with pytest.raises(ig.errors.InputError, match="No layer of the model takes a mask"):
        explain(NODES, JOINED)
    with pytest.raises(ig.errors.InputError, match="both dicts"):
        explain.algorithm.forward(Bare(), NODES, EDGES, target=torch.zeros(4))
