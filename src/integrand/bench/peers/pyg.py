"""Explainers of PyTorch Geometric: masks that say how much a prediction keeps of edges or features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.optional import optional
from ...core.options import check_choice
from ...core.values import part
from ...fields import Field
from .base import Peer

MASKS = ("edges", "features")


@dataclass(frozen=True, eq=False)
class GraphQuestion:
    """One graph, and what is asked of a model of it.

    Args:
        model: called as ``model(x, edges, **arguments)``, of PyG's message passing.
        x: features (n, d).
        edges: (2, e).
        label: the class explained.
        node: whose class it is; None for that of the graph.
        arguments: further arguments of the model.
    """

    model: nn.Module
    x: Tensor
    edges: Tensor
    label: int
    node: int | None = None
    arguments: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def target(self) -> Tensor:
        """The class as PyG takes it: one for each graph, or for each node."""
        count = 1 if self.node is None else len(self.x)
        return torch.full((count,), self.label, device=self.x.device)

    def explainer(self, algorithm: Any, masks: str, *, phenomenon: bool = False) -> Any:
        """PyG's ``Explainer`` of a copy of the model by an algorithm: GNNExplainer leaves parameters
        on layers that keep algorithms after it from finding a gradient."""
        explain = optional("torch_geometric.explain", extra="pyg", needs="The peer of PyG")
        return explain.Explainer(
            copy.deepcopy(self.model),
            algorithm,
            explanation_type="phenomenon" if phenomenon else "model",
            edge_mask_type="object" if masks == "edges" else None,
            node_mask_type="attributes" if masks == "features" else None,
            model_config={
                "mode": "multiclass_classification",
                "task_level": "graph" if self.node is None else "node",
                "return_type": "raw",
            },
        )


@part
class PyGExplainer(Peer):
    """An algorithm of ``torch_geometric.explain`` on one graph: a mask of its edges (1, e), or of its
    features (1, n, d).

    Args:
        question: the graph and the model.
        algorithm: makes the algorithm, a GNNExplainer or another.
        masks: "edges" or "features".
        phenomenon: whether the algorithm explains a class that it is told, rather than the one
            predicted, as PGExplainer does.
        seed: of the global generators that PyG draws from.

    Cost:
        That of the algorithm: GNNExplainer takes a gradient for every epoch.
    """

    question: GraphQuestion
    algorithm: Callable[[], object]
    masks: str = "edges"
    phenomenon: bool = False
    seed: int = 0

    counted: ClassVar[bool] = False
    label: ClassVar[str] = "PyG"

    def __post_init__(self) -> None:
        check_choice("masks", self.masks, MASKS)

    def _explained(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        question = self.question
        explainer = question.explainer(self.algorithm(), self.masks, phenomenon=self.phenomenon)
        arguments: dict[str, Any] = dict(question.arguments)
        if self.phenomenon:
            arguments["target"] = question.target
        if question.node is not None:
            arguments["index"] = question.node
        with torch.enable_grad():
            explanation = explainer(question.x, question.edges, **arguments)
        mask: Tensor = explanation.edge_mask if self.masks == "edges" else explanation.node_mask
        return mask.detach()[None].to(x), None
