"""Circuits: which heads and MLPs of a language model, and which edges between them, carry a behaviour.

ig.circuits.edges(model, clean, corrupt, metric=ig.text.NextToken(" Mary", against=" John"), tokenizer=tokenizer)
"""

from .api import METHODS, activation_patching, edges, faithfulness, nodes
from .architectures import ARCHITECTURES, Architecture
from .graph import CircuitGraph
from .layer_credit import LayerCredit, layer_credit
from .result import Circuit, Completeness, Edge, FaithfulnessCurve, Node, NodeScores
from .sites import sites

__all__ = [
    "ARCHITECTURES",
    "METHODS",
    "Architecture",
    "Circuit",
    "Completeness",
    "Edge",
    "FaithfulnessCurve",
    "CircuitGraph",
    "LayerCredit",
    "Node",
    "NodeScores",
    "activation_patching",
    "edges",
    "faithfulness",
    "layer_credit",
    "nodes",
    "sites",
]
