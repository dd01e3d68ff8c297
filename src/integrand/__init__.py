"""Integrand: explain a prediction by integrating its gradient along a path.

>>> import torch, integrand as ig
>>> model = torch.nn.Linear(3, 2)
>>> ig.explain(model, torch.randn(4, 3), target=0).values.shape
torch.Size([4, 3])
"""

from importlib import import_module as _import_module
from importlib import metadata as _metadata
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

# The namespaces, one per part.
from . import baselines as baselines
from . import errors as errors
from . import fields as fields
from . import methods as methods
from . import metrics as metrics
from . import paths as paths
from . import rules as rules
from . import targets as targets
from . import weightings as weightings
from .compare import Comparison as Comparison
from .compare import compare as compare
from .core import segment as segments
from .core.normalisation import Normalisation as Normalisation
from .core.renamed import renamed as _renamed
from .core.segment import Segment as Segment
from .correlate import Correlation as Correlation
from .correlate import correlate as correlate
from .explain import explain as explain
from .explain_batches import explain_batches as explain_batches
from .explain_targets import explain_targets as explain_targets
from .fields import TorchField as TorchField
from .integration import XRAI as XRAI
from .integration import ArtificialDistancing as ArtificialDistancing
from .integration import Backward as Backward
from .integration import GreedyPIG as GreedyPIG
from .integration import Method as Method
from .integration import Sequential as Sequential
from .integration import SmoothGrad as SmoothGrad
from .integration import TwoStage as TwoStage
from .integration import UntilTolerance as UntilTolerance
from .integration.attribution import Attribution as Attribution

# The door, and what comes out of it.
from .integration.io import load as load
from .integration.join import concat as concat

# The parts that every method is made of.
from .integration.wrappers.layer import Layered as Layered
from .integration.wrappers.with_covariance import WithCovariance as WithCovariance
from .interactions import Interactions as Interactions
from .interactions import interactions as interactions
from .model.extra import Shared as Shared
from .summarize import summarize as summarize

if _TYPE_CHECKING:
    from . import circuits as circuits
    from . import run as run
    from . import testing as testing
    from . import text as text

_ON_FIRST_USE = ("circuits", "run", "testing", "text")
"""Rooms that explaining needs nothing of."""


_old_name = _renamed(
    __name__,
    {
        "Distanced": "ArtificialDistancing",
        "Greedy": "GreedyPIG",
        "Regions": "XRAI",
        "Sampled": "UntilTolerance",
        "Smoothed": "SmoothGrad",
        "Staged": "TwoStage",
    },
)


def __getattr__(name: str) -> _Any:
    return _import_module(f"{__name__}.{name}") if name in _ON_FIRST_USE else _old_name(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE})


try:
    __version__ = _metadata.version("integrand")
except _metadata.PackageNotFoundError:  # the source alone, not installed
    __version__ = "0+unknown"

__all__ = [
    "Attribution",
    "Comparison",
    "Correlation",
    "ArtificialDistancing",
    "GreedyPIG",
    "Backward",
    "Interactions",
    "Layered",
    "Method",
    "Normalisation",
    "XRAI",
    "Segment",
    "UntilTolerance",
    "Sequential",
    "Shared",
    "SmoothGrad",
    "TwoStage",
    "TorchField",
    "WithCovariance",
    "baselines",
    "circuits",
    "compare",
    "concat",
    "correlate",
    "errors",
    "explain",
    "explain_batches",
    "explain_targets",
    "fields",
    "interactions",
    "load",
    "methods",
    "metrics",
    "paths",
    "rules",
    "run",
    "segments",
    "summarize",
    "targets",
    "testing",
    "text",
    "weightings",
]
