"""Integrand: explain a prediction by integrating its gradient along a path.

>>> import torch, integrand as ig
>>> model = torch.nn.Linear(3, 2)
>>> ig.explain(model, torch.randn(4, 3), target=0).values.shape
torch.Size([4, 3])
"""

from importlib import import_module as _import_module
from importlib import metadata as _metadata
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING

# The namespaces, one per part.
from . import baseline as baselines
from . import errors as errors
from . import field as fields
from . import methods as methods
from . import metrics as metrics
from . import path as paths
from . import rule as rules
from . import segment as segments
from . import target as targets
from . import weighting as weightings

# The door, and what comes out of it.
from .archive import load as load
from .attribution import Attribution as Attribution
from .compare import Comparison as Comparison
from .compare import compare as compare
from .explain import explain as explain
from .explain_targets import explain_targets as explain_targets
from .field import TorchField as TorchField
from .field.extra import Shared as Shared

# The parts that every method is made of.
from .layered import Layered as Layered
from .method import Backward as Backward
from .method import Distanced as Distanced
from .method import Greedy as Greedy
from .method import Method as Method
from .method import Regions as Regions
from .method import Sampled as Sampled
from .method import Sequential as Sequential
from .method import Smoothed as Smoothed
from .method import Staged as Staged
from .normalisation import Normalisation as Normalisation
from .segment import Segment as Segment

if _TYPE_CHECKING:
    from . import testing as testing

_ON_FIRST_USE = ("testing",)
"""Rooms that explaining needs nothing of."""


def __getattr__(name: str) -> _ModuleType:
    if name in _ON_FIRST_USE:
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE})


try:
    __version__ = _metadata.version("integrand")
except _metadata.PackageNotFoundError:  # the source alone, not installed
    __version__ = "0+unknown"

__all__ = [
    "Attribution",
    "Comparison",
    "Distanced",
    "Greedy",
    "Backward",
    "Layered",
    "Method",
    "Normalisation",
    "Regions",
    "Segment",
    "Sampled",
    "Sequential",
    "Shared",
    "Smoothed",
    "Staged",
    "TorchField",
    "baselines",
    "compare",
    "errors",
    "explain",
    "explain_targets",
    "fields",
    "load",
    "methods",
    "metrics",
    "paths",
    "rules",
    "segments",
    "targets",
    "testing",
    "weightings",
]
