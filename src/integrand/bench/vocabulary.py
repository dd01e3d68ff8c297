"""The words recipes are written in: published methods, controls, metrics and parts, and what a problem adds about its data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from .. import baseline as baselines
from .. import method as wrappers
from .. import path as paths
from .. import rule as rules
from .. import target as targets
from .. import weighting as weightings
from ..compare import controls
from ..methods import known as methods
from ..metrics import known as metrics
from .spelled import spelled


def _parts(module: ModuleType) -> dict[str, Any]:
    """The values that a module exports, by their names."""
    return {name: one for name, one in vars(module).items() if isinstance(one, type) and dataclasses.is_dataclass(one)}


def parts() -> dict[str, Any]:
    """Every part by its name."""
    found: dict[str, Any] = {}
    for module in (controls, targets, weightings, wrappers, paths, rules, baselines):
        found |= _parts(module)  # where two share a name, the later one has it
    return found


def method(text: str, words: Mapping[str, Any]) -> Any:
    """A method as it is typed: ``weighted(several, rule=GaussLegendre(25))``, or ``RandomMap()``, a control."""
    published = {name: one.build for name, one in methods().items()}
    return spelled(text, {**parts(), **published, **words})


def metric(text: str, words: Mapping[str, Any]) -> Any:
    """A metric as it is typed: ``deletion(steps=25, fill=corners)``."""
    return spelled(text, {**parts(), **metrics(), **words})
