"""Circuits: which heads and MLPs of a language model, and which edges between them, carry a behaviour.

ig.circuits.edges(model, clean, corrupt, metric=ig.text.NextToken(" Mary", against=" John"), tokenizer=tokenizer)
"""

from .api import METHODS, activation_patching, edges, faithfulness, nodes
from .architectures import ARCHITECTURES, Architecture
from .graph import Graph
from .result import Circuit, Completeness, Edge, Faithfulness, Node, NodeScores

__all__ = [
    "ARCHITECTURES",
    "METHODS",
    "Architecture",
    "Circuit",
    "Completeness",
    "Edge",
    "Faithfulness",
    "Graph",
    "Node",
    "NodeScores",
    "activation_patching",
    "edges",
    "faithfulness",
    "nodes",
]
