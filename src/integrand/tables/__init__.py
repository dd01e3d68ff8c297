"""Tables: data frames in, names and groups out, pipelines of scikit-learn explained as a whole."""

from .pipelines import PipelineDoor
from .results import Importance

__all__ = ["Importance", "PipelineDoor"]
