"""How each published method is asked to explain: a file here for each file of ``integrand.methods``, found by itself.

    BUILD      name: (a problem of tests/problems.py) -> the method, set to explain it accurately
    AXIOMATIC  name: (field, x (B, n), references (R, n)) -> its map of a function of n features, for the axioms
    WRAPPERS   names of methods around a method, whose maps are no sums along one path: they meet the problems in tests of their own

A new method gets a line in both, or tests/test_methods.py says so. A file may say more of its methods:

    NEEDS      name: (a problem) -> whether the method is for such inputs; it refuses others with an ``InputError``
    BEGINS     name: (field, x (B, n), references (R, n)) -> where its path in AXIOMATIC begins (B, n), if not at the first reference
    COSTS      name: builders like BUILD's, of open-loop paths and rules whose gradients are counted

``paths.py`` is such a list of paths, by themselves and not as methods: it is for tests/test_matrix.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from torch import Tensor

from tests.problems import Problem

Explains = Callable[[Any, Tensor, Tensor], Tensor]

BUILD: dict[str, Callable[[Problem], Any]] = {}
AXIOMATIC: dict[str, Explains] = {}
NEEDS: dict[str, Callable[[Problem], bool]] = {}
COSTS: dict[str, list[Callable[[Problem], Any]]] = {}
WRAPPERS: set[str] = set()
BEGINS: dict[str, Explains] = {}

for _found in pkgutil.iter_modules(__path__):
    if _found.name == "paths":
        continue
    _file = importlib.import_module(f"{__name__}.{_found.name}")
    BUILD.update(_file.BUILD)
    AXIOMATIC.update(_file.AXIOMATIC)
    NEEDS.update(getattr(_file, "NEEDS", {}))
    BEGINS.update(getattr(_file, "BEGINS", {}))
    COSTS.update(getattr(_file, "COSTS", {}))
    WRAPPERS |= getattr(_file, "WRAPPERS", set())


def fits(name: str, problem: Problem) -> bool:
    """Whether a method is for inputs such as this problem's."""
    return name not in NEEDS or NEEDS[name](problem)
