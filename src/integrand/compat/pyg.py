"""PyTorch Geometric: its graphs as ours, and our methods in its ``Explainer``. Needs
torch_geometric.

    Explainer(model, IntegratedGradients(), explanation_type="model", node_mask_type="attributes", model_config=…)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.optional import optional
from ..errors import InputError
from ..explain import explain
from ..fields import Graph
from ..integration.attribution import Attribution, ExplainerLike, mapped
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
    (edges,); ``results`` has each with its residual and cost. Of a heterogeneous graph features,
    edges, masks and values of results are dicts, by types of nodes and by relations, and so may a
    ``baseline=`` of features be.

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
        hetero = isinstance(x, Mapping)
        if hetero != isinstance(edge_index, Mapping):
            raise InputError(
                "Features and edges are both tensors, of a homogeneous graph, or both dicts, by types of nodes and relations."
            )
        self.results = {}
        question = self._question(target, index)
        kinds = {
            "node_mask": (
                self.explainer_config.node_mask_type,
                lambda z: model(z, edge_index, **kwargs),
                x,
                self.options,
            ),
            "edge_mask": (
                self.explainer_config.edge_mask_type,
                _masked(model, x, edge_index, kwargs),
                _whole(edge_index, x),
                self.options | ({"baseline": 0.0} if "baseline" in self.options else {}),
            ),
        }
        masks: dict[str, Any] = {}
        for name, (wanted, outputs_of, start, options) in kinds.items():
            if wanted is not None:
                self.results[name] = self._run(outputs_of, start, question, options)
                masks[name] = mapped(lambda values: values[0], self.results[name].values)
        if not hetero:
            return _explain.Explanation(**{"node_mask": None, "edge_mask": None, **masks})
        explanation = _explain.HeteroExplanation()
        for name, mask in masks.items():
            explanation.set_value_dict(name, mask)
        return explanation

    def _run(
        self,
        outputs_of: Callable[[Any], Tensor],
        start: Tensor | Mapping[Any, Tensor],
        question: Callable[[Tensor], Tensor],
        options: Mapping[str, Any],
    ) -> Attribution:
        """Explain a function of one graph: a graph is one example; of several types of nodes or
        relations each is an input, by a name of its own."""
        if isinstance(start, Tensor):

            def rows(z: Tensor) -> Tensor:
                return torch.stack([question(outputs_of(graph)) for graph in z])

            return explain(rows, start[None], target=Output(), method=self.method, **options)
        names = {_name(kind): kind for kind in start}

        def rows_of_types(**parts: Tensor) -> Tensor:
            graphs = zip(*(parts[name] for name in names), strict=True)
            outputs = [outputs_of(dict(zip(start, graph, strict=True))) for graph in graphs]
            return torch.stack([question(output) for output in outputs])

        inputs = {name: start[kind][None] for name, kind in names.items()}
        result = explain(rows_of_types, inputs, target=Output(), method=self.method, **options)
        arranged: dict[str, Any] = {
            name: {kind: getattr(result, name)[called] for called, kind in names.items()}
            for name in ("values", "inputs", "shares", "baselines")
            if getattr(result, name) is not None
        }
        return dataclasses.replace(result, **arranged)

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


def _name(kind: str | tuple[str, ...]) -> str:
    """A type of nodes, or a relation, as a word, as PyG writes it."""
    return kind if isinstance(kind, str) else "__".join(kind)


def _whole(edge_index: Tensor | Mapping[Any, Tensor], x: Tensor | Mapping[Any, Tensor]) -> Any:
    """Masks (edges,) of ones, in the type of the features."""
    like = next(iter(x.values())) if isinstance(x, Mapping) else x
    if isinstance(edge_index, Tensor):
        return like.new_ones(edge_index.shape[1])
    return {relation: like.new_ones(edges.shape[1]) for relation, edges in edge_index.items()}


def _masked(
    model: torch.nn.Module,
    x: Tensor | Mapping[Any, Tensor],
    edge_index: Tensor | Mapping[Any, Tensor],
    kwargs: dict[str, Any],
) -> Any:
    """The model as a function of a mask of its edges' messages (edges,), or of one for each
    relation."""
    utils = optional("torch_geometric.explain.algorithm.utils", extra="pyg", needs=_NEEDS)

    def one(mask: Any) -> Tensor:
        _without_empty_masks(model)
        if isinstance(mask, Tensor):
            utils.set_masks(model, mask, edge_index, apply_sigmoid=False)
        else:
            utils.set_hetero_masks(model, mask, edge_index, apply_sigmoid=False)
        try:
            if not any(
                getattr(module, "_edge_mask", None) is not None for module in model.modules()
            ):
                raise InputError(
                    "No layer of the model takes a mask of edges: those of PyG do, and for several relations PyG looks them up by relation, as "
                    "HeteroConv and to_hetero hold them. Explain attributes of nodes, or ig.fields.GraphField with weights of edges."
                )
            outputs: Tensor = model(x, edge_index, **kwargs)
            return outputs
        finally:
            utils.clear_masks(model)

    return one


def _without_empty_masks(model: torch.nn.Module) -> None:
    """GNNExplainer leaves an empty parameter behind, and with it PyG makes a parameter of every mask
    that comes later, cut off from what it was computed from."""
    for module in model.modules():
        if module._parameters.get("_edge_mask", module) is None:
            del module._parameters["_edge_mask"]
            setattr(module, "_edge_mask", None)  # noqa: B010 — modules say what they hold as Any


__all__ = ["IntegratedGradients", "graph_of"]
