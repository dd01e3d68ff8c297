"""Methods: a baseline, a path, a rule and a weighting, and the ways to spend gradients on them.
``(field, x) -> Attribution``."""

from .assemble import core as core
from .attribution import Explainer as Explainer
from .attribution import ExplainerLike as ExplainerLike
from .attribution import Wrapper as Wrapper
from .attribution import as_explainer as as_explainer
from .method import Method as Method
from .method import gradients_per_row as gradients_per_row
from .wrappers.base import with_core as with_core
from .wrappers.distancing import ArtificialDistancing as ArtificialDistancing
from .wrappers.distancing import Supports as Supports
from .wrappers.greedy import GreedyPIG as GreedyPIG
from .wrappers.modified_backward import Backward as Backward
from .wrappers.sequential import Sequential as Sequential
from .wrappers.smoothgrad import SmoothGrad as SmoothGrad
from .wrappers.two_stage import TwoStage as TwoStage
from .wrappers.until_tolerance import UntilTolerance as UntilTolerance
from .wrappers.xrai import XRAI as XRAI
