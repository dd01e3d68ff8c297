"""Explainers of other libraries, run as methods of a suite: SHAP's, and those of PyTorch Geometric."""

from .base import Peer as Peer
from .base import global_seed as global_seed
from .pyg import GraphQuestion as GraphQuestion
from .pyg import PyGExplainer as PyGExplainer
from .shap import PermutationSHAP as PermutationSHAP
from .shap import TreeSHAP as TreeSHAP
