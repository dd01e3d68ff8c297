"""Whole datasets: a recipe, shards of rows, results that survive whatever is killed.

integrand.run.run("run.toml", "results")      computes what is missing
integrand.run.open("results").values          reads
"""

from .driver import run as run
from .engine import Engine as Engine
from .engine import Job as Job
from .local import Local as Local
from .recipe import Recipe as Recipe
from .results import RunResults as RunResults
from .results import open as open
from .store import ManifestEntry as ManifestEntry
from .store import ShardStore as ShardStore
from .store import Status as Status

__all__ = [
    "Engine",
    "ManifestEntry",
    "Job",
    "Local",
    "Recipe",
    "RunResults",
    "Status",
    "ShardStore",
    "open",
    "run",
]
