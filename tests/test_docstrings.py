"""What users call says what each of its parameters means: every docstring that is reached from ``ig.*`` has an entry for each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import integrand as ig

ROOMS = ("baselines", "methods", "metrics", "paths", "rules", "segments", "targets", "weightings")


def members(module: ModuleType) -> Iterator[Any]:
    """The functions and classes of a room; of a file those that are its own."""
    for name, value in vars(module).items():
        public = not name.startswith("_") and getattr(value, "__module__", "").startswith(
            "integrand."
        )
        own = hasattr(module, "__path__") or getattr(value, "__module__", "") == module.__name__
        if public and own and (inspect.isclass(value) or inspect.isfunction(value)):
            yield value


PARTS = {
    f"{value.__module__}.{value.__qualname__}": value
    for room in ROOMS
    for value in members(getattr(ig, room))
}
FRONT = {
    f"ig.{name}": getattr(ig, name)
    for name in ig.__all__
    if inspect.isclass(getattr(ig, name)) or inspect.isfunction(getattr(ig, name))
}
CALLED = {
    name: value
    for name, value in (PARTS | FRONT).items()
    if not getattr(value, "_is_protocol", False)
}
"""Everything but types that are only said of others."""


def parameters(value: Any) -> list[str]:
    try:
        names = inspect.signature(value).parameters
    except ValueError:  # a class that Python makes, and nobody calls
        return []
    return [name for name in names if name != "self" and not name.startswith("_")]


def described(docstring: str) -> set[str]:
    """The names that stand before a colon in the sections of parameters."""
    sections = re.findall(
        r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n|\n(?=[ ]{4}))*)", docstring + "\n", re.M
    )
    entries = re.findall(r"^[ ]{4}([\w\\*, ]+):", "".join(sections), re.M)
    return {name.strip(" *\\") for entry in entries for name in entry.split(",")}


@pytest.mark.parametrize("name", sorted(CALLED))
def test_every_parameter_is_described(name: str) -> None:
    docstring = inspect.cleandoc(CALLED[name].__doc__ or "")
    assert docstring, f"{name} has no docstring"
    names = parameters(CALLED[name])
    if len(names) < 2:
        return
    missing = [parameter for parameter in names if parameter not in described(docstring)]
    assert not missing, f"{name} does not say what these are: {', '.join(missing)}"


def test_an_empty_section_or_a_word_in_prose_is_no_description() -> None:
    docstring = "A line.\n\n``n``: so many.\n\nArgs:\n    size: how large.\n    low, high: ends.\n\nCost:\n    n: rows."
    assert described(docstring) == {"size", "low", "high"}
    assert described("A line.\n\nn: none.") == set()
