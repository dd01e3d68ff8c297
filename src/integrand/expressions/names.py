"""Names that suites and recipes may use: published methods, controls, metrics, parts, and those of a
problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from .. import baselines as baselines
from .. import integration as wrappers
from .. import paths as paths
from .. import rules as rules
from .. import targets as targets
from .. import weightings as weightings
from ..compare import controls
from ..methods import known as methods
from ..methods.hints import RENAMED
from ..metrics import known as metrics
from ..text import targets as text_targets
from .reader import spelled

_ROLES: dict[str, ModuleType] = {
    **dict.fromkeys(("baseline", "baselines", "references", "fill", "fills"), baselines),
    "path": paths,
    **dict.fromkeys(("rule", "scout"), rules),
    "weighting": weightings,
    "target": targets,
}
"""What stands in which argument: where two parts share a name (``Uniform``), the argument says
which is meant."""


def parts_in(module: ModuleType) -> dict[str, Any]:
    """The values that a module exports, by their names."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    }


def parts() -> dict[str, Any]:
    """Every part by its name."""
    values: dict[str, Any] = {}
    for module in (controls, targets, weightings, wrappers, paths, rules, baselines):
        values |= parts_in(
            module
        )  # where two share a name and no argument says which is meant, the later one has it
    return values


def _arguments(build: object) -> tuple[str, ...]:
    """What a part or a published method is built with, in order."""
    if isinstance(build, type) and dataclasses.is_dataclass(build):
        return tuple(spec.name for spec in dataclasses.fields(build) if spec.init)
    return next((tuple(entry.options) for entry in methods().values() if entry.build is build), ())


def _spelled(text: str, names: Mapping[str, Any], words: Mapping[str, Any]) -> Any:
    roles = {
        argument: {**names, **parts_in(module), **words} for argument, module in _ROLES.items()
    }
    return spelled(text, {**names, **words}, roles, _arguments)


def method(text: str, words: Mapping[str, Any]) -> Any:
    """Read a method expression: ``weighted(several, rule=GaussLegendre(25))``, or ``RandomMap()``, a
    control."""
    published = {name: entry.build for name, entry in methods().items()}
    published |= {old: published[new] for old, new in RENAMED.items()}  # recipes of earlier days
    return _spelled(text, {**parts(), **published}, words)


def metric(text: str, words: Mapping[str, Any]) -> Any:
    """Read a metric expression: ``deletion(steps=25, fill=corners)``."""
    return _spelled(text, {**parts(), **metrics()}, words)


def target(text: str) -> Any:
    """Read a target expression: ``Probability(3)``."""
    return _spelled(text, parts_in(targets), {})


def text_target(text: str) -> Any:
    """Read a target of texts: ``NextToken(' Paris', against=' Rome')``."""
    return _spelled(text, {**parts_in(targets), **parts_in(text_targets)}, {})
