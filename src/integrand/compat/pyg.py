"""PyTorch Geometric: its graphs as ours, and our methods in its ``Explainer``. Needs
torch_geometric.

    Explainer(model, IntegratedGradients(), explanation_type="model", node_mask_type="attributes", model_config=…)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.optional import optional
from ..errors import InputError
from ..explain import explain
from ..fields import Graph
from ..integration.attribution import Attribution, ExplainerLike
from ..targets import Output

_NEEDS = "integrand.compat.pyg"
_pyg = optional("torch_geometric", extra="pyg", needs=_NEEDS, package="torch_geometric")
_explain = optional("torch_geometric.explain", extra="pyg", needs=_NEEDS)
_config = optional("torch_geometric.explain.config", extra="pyg", needs=_NEEDS)


def graph_of(data: Any) -> Graph:
    """A ``Data`` or ``HeteroData`` as a graph: its ``x``, ``edge_index`` and, where it has one,
    ``edge_weight``.

    Raises:
        InputError: for data without features or edges.

    Example:
        >>> import torch, pytest; _ = pytest.importorskip("torch_geometric")
        >>> from torch_geometric.data import Data
        >>> graph_of(Data(torch.ones(2, 3), torch.tensor([[0], [1]]))).edges.tolist()
        [[0], [1]]
    """
    if isinstance(data, _pyg.data.HeteroData):
        weight = data.collect("edge_weight", allow_empty=True)
        return Graph(dict(data.x_dict), dict(data.edge_index_dict), dict(weight) or None)
    if data.x is None or data.edge_index is None:
        raise InputError("The graph has no x or no edge_index: both are needed to explain a model.")
    return Graph(data.x, data.edge_index, data.edge_weight)


class IntegratedGradients(_explain.ExplainerAlgorithm):  # type: ignore[misc, name-defined]
    """Any method of ours as PyG's explainer algorithm, for features of nodes, presence of edges, or
    both.

    Features start from the method's baseline, zero unless said; edges from a mask of zeros, no
    message, while features stay. Masks hold attributions with their signs, (nodes, features) and
    (edges,); ``results`` has each with its residual and cost.

    Args:
        method: a published name, or a method.
        **options: of ``ig.explain`` and of the method, such as ``baseline=``.

    Example:
        >>> import pytest; _ = pytest.importorskip("torch_geometric")
        >>> IntegratedGradients("integrated", tol=0.01)
        IntegratedGradients()
    """

    def __init__(self, method: str | ExplainerLike = "integrated", **options: Any) -> None:
        super().__init__()
        self.method = method
        self.options = options
        self.results: dict[str, Attribution] = {}

    def supports(self) -> bool:
        """Attributes of nodes and objects of edges; all tasks and all return types."""
        mask = _config.MaskType
        config = self.explainer_config
        return config.node_mask_type in (None, mask.attributes) and config.edge_mask_type in (
            None,
            mask.object,
        )

    def forward(
        self,
        model: torch.nn.Module,
        x: Tensor | Mapping[Any, Tensor],
        edge_index: Tensor | Mapping[Any, Tensor],
        *,
        target: Tensor,
        index: int | Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Masks of one graph; of several indices the sum of their scores is explained."""
        if isinstance(x, Mapping) or isinstance(edge_index, Mapping):
            raise InputError(
                "PyG's Explainer is served for homogeneous graphs; explain heterogeneous ones with ig.fields.GraphField."
            )
        self.results = {}
        masks: dict[str, Tensor | None] = {"node_mask": None, "edge_mask": None}
        question = self._question(target, index)
        if self.explainer_config.node_mask_type is not None:
            result = self._run(lambda z: model(z, edge_index, **kwargs), x, question)
            self.results["node_mask"], masks["node_mask"] = result, result.values[0]
        if self.explainer_config.edge_mask_type is not None:
            ones = x.new_ones(edge_index.shape[1])
            result = self._run(_masked(model, x, edge_index, kwargs), ones, question)
            self.results["edge_mask"], masks["edge_mask"] = result, result.values[0]
        return _explain.Explanation(**masks)

    def _run(
        self,
        outputs_of: Callable[[Tensor], Tensor],
        start: Tensor,
        question: Callable[[Tensor], Tensor],
    ) -> Attribution:
        """Explain a function of one graph: a graph is one example."""

        def rows(z: Tensor) -> Tensor:
            return torch.stack([question(outputs_of(graph)) for graph in z])

        return explain(rows, start[None], target=Output(), method=self.method, **self.options)

    def _question(self, target: Tensor, index: int | Tensor | None) -> Callable[[Tensor], Tensor]:
        """The scalar of a model's outputs: of the class that is the target, at the indices
        explained."""
        mode, binary = self.model_config.mode, _config.ModelMode.binary_classification

        def scalar(outputs: Tensor) -> Tensor:
            chosen = outputs if index is None else outputs[index]
            flat = (
                chosen.reshape(-1, outputs.shape[-1]) if outputs.ndim > 1 else chosen.reshape(-1, 1)
            )
            if mode is _config.ModelMode.regression:
                return flat.sum()
            wanted = target if index is None else target[index]
            if mode is binary:  # a score of class 1: that of class 0 is its opposite
                return (flat.reshape(-1) * (2 * wanted.reshape(-1) - 1)).sum()
            return flat.gather(1, wanted.reshape(-1, 1)).sum()

        return scalar


def _masked(model: torch.nn.Module, x: Tensor, edge_index: Tensor, kwargs: dict[str, Any]) -> Any:
    """The model as a function of a mask of its edges' messages (edges,)."""
    utils = optional("torch_geometric.explain.algorithm.utils", extra="pyg", needs=_NEEDS)
    # GNNExplainer leaves an empty parameter behind, and with it PyG makes a parameter of every mask
    # that comes later, cut off from what it was computed from.
    for module in model.modules():
        if module._parameters.get("_edge_mask", module) is None:
            del module._parameters["_edge_mask"]
            setattr(module, "_edge_mask", None)  # noqa: B010 — modules say what they hold as Any

    def one(mask: Tensor) -> Tensor:
        utils.set_masks(model, mask, edge_index, apply_sigmoid=False)
        try:
            outputs: Tensor = model(x, edge_index, **kwargs)
            return outputs
        finally:
            utils.clear_masks(model)

    return one


__all__ = ["IntegratedGradients", "graph_of"]
