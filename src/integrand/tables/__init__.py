"""Tables: data frames in, names and groups out, pipelines of scikit-learn explained as a whole."""

from ..model.doors import Door, Encoding, listed
from .pipelines import PipelineDoor
from .results import Importance

__all__ = ["Door", "Encoding", "Importance", "PipelineDoor", "listed"]
