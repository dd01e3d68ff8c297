"""How each published method is asked to explain: a file here for each file of ``integrand.methods``, found by itself.

    BUILD      name: (a problem of tests/problems.py) -> the method, set to explain it accurately
    AXIOMATIC  name: (field, x (B, n), references (R, n)) -> its map of a function of n features, for the axioms
    COSTS      name: what its parts are asked to cost, several (a problem) -> the method; in tests/test_methods.py, or here
    BEGINS     name: (field, x (B, n), references (R, n)) -> where its path in AXIOMATIC begins (B, n), if not at the first reference

A new method gets a line in the first three, or tests/test_methods.py says so.
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
COSTS: dict[str, list[Callable[[Problem], Any]]] = {}
BEGINS: dict[str, Explains] = {}

for _found in pkgutil.iter_modules(__path__):
    _file = importlib.import_module(f"{__name__}.{_found.name}")
    BUILD.update(_file.BUILD)
    AXIOMATIC.update(_file.AXIOMATIC)
    COSTS.update(getattr(_file, "COSTS", {}))
    BEGINS.update(getattr(_file, "BEGINS", {}))
