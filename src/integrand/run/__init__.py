"""Whole datasets: a recipe, shards of rows, results that survive whatever is killed.

integrand.run.run("run.toml", "results")      computes what is missing
integrand.run.open("results").values          reads
"""

from .data import EncodedText as EncodedText
from .driver import run as run
from .engine import Engine as Engine
from .engine import Job as Job
from .engines import engine_named as engine_named
from .language import TextModel as TextModel
from .local import Local as Local
from .ray import Ray as Ray
from .recipe import Recipe as Recipe
from .results import RunResults as RunResults
from .results import open as open
from .store import ManifestEntry as ManifestEntry
from .store import ShardStore as ShardStore
from .store import Status as Status

__all__ = [
    "EncodedText",
    "Engine",
    "Job",
    "Local",
    "ManifestEntry",
    "Ray",
    "Recipe",
    "RunResults",
    "ShardStore",
    "Status",
    "TextModel",
    "engine_named",
    "open",
    "run",
]
