"""Suites: problems, methods, metrics and claims, read from TOML and validated.

title, question, source         what the suite is about
[[run]]                         a problem with its methods and metrics
[[claim]]                       what a paper says of two methods, to be held against the numbers
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import InputError, UnknownName


@dataclass(frozen=True)
class SuiteRun:
    """One problem, the methods and the metrics: names → parts as they are typed.

    examples   at most so many of the problem's; None for all
    options    of the problem;  words  what parts may say beside the problem's own
    reference  the method others are held against
    """

    name: str
    problem: str
    methods: Mapping[str, str]
    metrics: Mapping[str, str]
    reference: str
    examples: int | None = None
    batch: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What a source says: ``method`` is better than ``than`` by ``metric`` in ``run``, by ``size``
    of what ``than`` has.

    size  a share, 0.36 for "36 % better"; None where only the direction is claimed
    """

    text: str
    source: str
    run: str
    metric: str
    method: str
    than: str
    size: float | None = None


@dataclass(frozen=True)
class Suite:
    """What a recipe says."""

    name: str
    title: str
    question: str
    runs: tuple[SuiteRun, ...]
    claims: tuple[Claim, ...]
    text: str

    def run(self, name: str) -> SuiteRun:
        """The run called ``name``.

        Raises:
            UnknownName: where there is none.
        """
        by_name = {run.name: run for run in self.runs}
        if name not in by_name:
            raise UnknownName(f"run of suite {self.name!r}", name, by_name)
        return by_name[name]


def names() -> tuple[str, ...]:
    """The suites that come with the package."""
    folder = resources.files(__package__) / "suites"
    return tuple(
        sorted(
            file.name.removesuffix(".toml")
            for file in folder.iterdir()
            if file.name.endswith(".toml")
        )
    )


def suite(source: str) -> Suite:
    """A suite by its name, or from a TOML file.

    Raises:
        UnknownName: for a name that no suite has.
        InputError: for a file that does not exist or is no recipe; it says what is wrong, and where.
    """
    path = Path(source)
    if path.suffix == ".toml":
        if not path.is_file():
            raise InputError(f"There is no recipe {source!r}.")
        return parsed(path.stem, path.read_text())
    if source not in names():
        raise UnknownName("suite", source, (*names(), "path/to/recipe.toml"))
    return parsed(source, (resources.files(__package__) / "suites" / f"{source}.toml").read_text())


def parsed(name: str, text: str) -> Suite:
    """A suite from the text of a recipe."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"The recipe {name!r} is no TOML: {error}.") from None
    shared = {key: document.get(key, {}) for key in ("methods", "metrics")}
    runs = tuple(_run(name, entry, shared) for entry in document.get("run", ()))
    if not runs:
        raise InputError(f"The recipe {name!r} has no [[run]].")
    suite = Suite(
        name,
        document.get("title", name),
        document.get("question", ""),
        runs,
        tuple(_claims(name, document.get("claim", ()))),
        text,
    )
    for claim in suite.claims:
        run = suite.run(claim.run)
        for role, known in (
            ("method", run.methods),
            ("than", run.methods),
            ("metric", run.metrics),
        ):
            word = getattr(claim, role)
            if word not in known:
                raise UnknownName(f"{role} of a claim about run {run.name!r}", word, known)
    return suite


def _run(suite: str, entry: Mapping[str, Any], shared: Mapping[str, Mapping[str, str]]) -> SuiteRun:
    fields = dict(entry)
    known = set(SuiteRun.__dataclass_fields__) | {"without"}
    for key in fields:
        if key not in known:
            raise UnknownName(f"entry of a run of recipe {suite!r}", key, known)
    for key in ("name", "problem"):
        if key not in fields:
            raise InputError(f"A run of the recipe {suite!r} has no {key}=.")
    without = fields.pop("without", ())
    methods = {
        key: text
        for key, text in (shared["methods"] | fields.pop("methods", {})).items()
        if key not in without
    }
    metrics = {
        key: text
        for key, text in (shared["metrics"] | fields.pop("metrics", {})).items()
        if key not in without
    }
    if not methods or not metrics:
        raise InputError(
            f"The run {fields['name']!r} of the recipe {suite!r} needs methods and metrics."
        )
    reference = fields.pop("reference", next(iter(methods)))
    if reference not in methods:
        raise UnknownName(f"reference of run {fields['name']!r}", reference, methods)
    return SuiteRun(methods=methods, metrics=metrics, reference=reference, **fields)


def _claims(suite: str, entries: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Claims as they are written, one for every run, metric and pair.

    A pair is ``method`` and each it is held ``against``, or each of an ``order`` and the next.
    """
    claims = []
    for entry in entries:
        fields = dict(entry)
        for key in ("text", "source", "runs", "metrics"):
            if key not in fields:
                raise InputError(f"A claim of the recipe {suite!r} has no {key}=.")
        unknown = next((key for key in fields if key not in _CLAIM), None)
        if unknown is not None:
            raise UnknownName(f"entry of a claim of recipe {suite!r}", unknown, _CLAIM)
        order = fields.get("order")
        pairs = (
            [(fields["method"], than) for than in fields["against"]]
            if order is None
            else list(pairwise(order))
        )
        claims += [
            Claim(fields["text"], fields["source"], run, metric, method, than, fields.get("size"))
            for run in fields["runs"]
            for metric in fields["metrics"]
            for method, than in pairs
        ]
    return claims


_CLAIM = ("text", "source", "runs", "metrics", "method", "against", "order", "size")
