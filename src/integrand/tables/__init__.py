"""Tables: data frames in, names and groups out, pipelines of scikit-learn explained as a whole."""

from ..model.doors import Door, Encoding, listed
from .importance import Importance
from .pipelines import PipelineDoor

__all__ = ["Door", "Encoding", "Importance", "PipelineDoor", "listed"]
