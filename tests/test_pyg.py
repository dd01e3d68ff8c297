"""PyTorch Geometric: its graphs, its layers, and its Explainer around our methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.problems import wave

pyg = pytest.importorskip("torch_geometric")
pytest.importorskip("torch_geometric.nn")

from torch_geometric.data import Data  # noqa: E402
from torch_geometric.explain import Explainer  # noqa: E402
from torch_geometric.nn import GCNConv, global_add_pool  # noqa: E402

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
