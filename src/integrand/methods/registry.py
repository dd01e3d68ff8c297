"""What is known about methods that go by a name, beside the names: source, formula, cost claimed
and counted, axioms, defaults."""

from __future__ import annotations

import inspect
import json
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any, TypeVar

from ..core.declared import factory
from ..core.options import with_checked_options
from ..errors import InputError, UnknownName
from .citations import BIBTEX, bibtex
from .hints import RENAMED, about_method

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Measured:
    """What one example took on the small problem of ``scripts/measured_costs.py``: rows with a
    gradient, and rows without.

    Args:
        gradients: rows with a gradient.
        values: rows without.
    """

    gradients: int
    values: int

    def __str__(self) -> str:
        return f"{self.gradients:,} gradients, {self.values:,} forward rows"


@dataclass(frozen=True)
class Published:
    """A published method: its factory, source, formula, cost, axioms and defaults.

    Attributes:
        name: what it is called.
        build: the function that sets it up.
        title: what it is called in prose.
        key: of its source, in the bibliography.
        formula: A(x) in a line.
        cost: gradients and values per example, in a line.
        axioms: which ones its maps keep to.
        explains: what its maps are of: the "inputs", or a "layer".
        takes: what it explains: "models" of any kind, "graphs", or "processes".
        entry: BibTeX of a source that is not among the library's own; None elsewhere.
    """

    name: str
    build: Callable[..., Any]
    title: str
    key: str
    formula: str
    cost: str
    axioms: dict[str, bool]
    explains: str = "inputs"
    takes: str = "models"
    entry: str | None = None
    """BibTeX of a source that is not among the library's own."""

    @cached_property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """What the method is built with, by name."""
        return inspect.signature(self.build).parameters

    @cached_property
    def start(self) -> str | None:
        """The option that says where it starts; None for methods that choose for themselves."""
        return next((name for name in _STARTS if name in self.options), None)

    @property
    def shared(self) -> bool:
        """Whether it starts from references that all examples share, rather than from a baseline of
        each."""
        return self.start not in (None, "baseline")

    @property
    def wraps(self) -> str | None:
        """What it wraps unless told otherwise (``of=``); None for methods that wrap nothing."""
        return self.options["of"].default if "of" in self.options else None

    @property
    def citation(self) -> str:
        """BibTeX: its own entry, that of the library's file, or at least the title under the
        key."""
        if self.entry is not None:
            return self.entry
        return (
            bibtex(self.key)
            if self.key in BIBTEX
            else f"@misc{{{self.key},\n  title = {{{self.title}}}\n}}"
        )

    @property
    def family(self) -> str:
        """What it has in common with the methods of its file: the first words of the file."""
        docstring = sys.modules[self.build.__module__].__doc__ or ""
        return docstring.partition("\n")[0].partition(":")[0].rstrip(".")

    @property
    def needs(self) -> tuple[str, ...]:
        """Arguments without a default."""
        return tuple(name for name, spec in self.options.items() if spec.default is spec.empty)

    @property
    def defaults(self) -> dict[str, Any]:
        """Those of its paper, where it gives any."""
        return {
            name: spec.default
            for name, spec in self.options.items()
            if spec.default is not spec.empty and name != "record"
        }

    @property
    def measured(self) -> Measured | None:
        """Its cost with the defaults, as counted; None where it has not been counted."""
        record = _measured()["methods"].get(self.name)
        return None if record is None else Measured(**record)


_STARTS = ("baseline", "baselines", "references")

_PUBLISHED: dict[str, Published] = {}


def counted_on() -> str:
    """What costs were counted on, in words."""
    return str(_measured()["problem"])


@cache
def _measured() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("measured.json").read_text("utf-8")
    records: dict[str, Any] = json.loads(text)
    return records


def published(
    *,
    title: str,
    key: str,
    formula: str,
    cost: str,
    axioms: dict[str, bool],
    explains: str = "inputs",
    takes: str = "models",
    citation: str | None = None,
) -> Callable[[F], F]:
    """Register the decorated factory under its own name, for ``method="name"``, ``about("name")``
    and the command line.

    What it is built with, and which of that says where it starts, is read off its signature.

    Args:
        title: what the method is called in prose.
        key: of its source, as in a bibliography.
        formula: A(x) in a line.
        cost: gradients and values per example, in a line.
        axioms: what maps keep to, by ``axioms(…)``.
        explains: what its maps are of, the "inputs" or a "layer".
        takes: what it explains: "models" of any kind, "graphs", or "processes".
        citation: the source as a BibTeX entry under ``key``; the library's own methods have theirs
            in ``citations.bib``.

    Raises:
        InputError: for a citation that is not an entry under ``key``.
    """
    if citation is not None and not re.match(rf"@\w+{{\s*{re.escape(key)}\s*,", citation.strip()):
        raise InputError(
            f"citation= is a BibTeX entry under key={key!r}, such as '@article{{{key}, title = {{…}}}}'; got {citation.strip()[:40]!r}."
        )

    def register(build: F) -> F:
        build = factory(with_checked_options(build))
        entry = None if citation is None else citation.strip()
        _PUBLISHED[build.__name__] = Published(
            build.__name__, build, title, key, formula, cost, axioms, explains, takes, entry
        )
        return build

    return register


def known() -> dict[str, Published]:
    """Every published method by name."""
    return dict(_PUBLISHED)


def about(name: str) -> Published:
    """The published method called ``name``.

    Raises:
        UnknownName: with the nearest names.
    """
    if not name.strip():
        raise UnknownName("method", name, _PUBLISHED, "Name one: 'integrand methods' lists them.")
    if name in RENAMED:
        warnings.warn(
            f"The method {name!r} is called {RENAMED[name]!r} now.",
            DeprecationWarning,
            stacklevel=3,
        )
        name = RENAMED[name]
    if name not in _PUBLISHED:
        raise UnknownName("method", name, _PUBLISHED, about_method(name))
    return _PUBLISHED[name]


def axioms(
    *,
    complete: bool = True,
    dummy: bool = True,
    linear: bool = True,
    symmetric: bool = True,
    implementation_invariant: bool = True,
    inside: bool = True,
    monotone: bool = True,
) -> dict[str, bool]:
    """The axioms that a method satisfies, by name; tests check every claim.

    Args:
        complete: maps add up to F(x) − F(where the path began), as far as the rule goes.
        dummy: a feature that F does not look at gets nothing.
        linear: maps are linear in F.
        symmetric: features that F, x and the baseline treat alike get the same.
        implementation_invariant: two models of one function have one map.
        inside: the path stays in the box between its start and the input.
        monotone: no coordinate of the path turns back.
    """
    return {
        "complete": complete,
        "dummy": dummy,
        "linear": linear,
        "symmetric": symmetric,
        "implementation-invariant": implementation_invariant,
        "within the box": inside,
        "monotone": monotone,
    }
