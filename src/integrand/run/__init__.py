"""Whole datasets: a recipe, shards of rows, results that survive whatever is killed.

integrand.run.run("run.toml", "results")      computes what is missing
integrand.run.open("results").values          reads
"""

from .driver import run as run
from .engine import Engine as Engine
from .engine import Job as Job
from .local import Local as Local
from .recipe import Recipe as Recipe
from .results import Results as Results
from .results import open as open
from .store import Entry as Entry
from .store import Status as Status
from .store import Store as Store

__all__ = ["Engine", "Entry", "Job", "Local", "Recipe", "Results", "Status", "Store", "open", "run"]
