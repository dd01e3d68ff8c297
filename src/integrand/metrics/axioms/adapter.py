"""Methods, paths and plain functions behind one interface: (field, inputs, references) → maps."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...baselines import Given
from ...errors import InputError, IntegrandWarning
from ...fields import Field
from ...integration import Method, core, with_core
from ...integration.attribution import Attribution, ExplainerLike
from ...paths import Path
from ...paths.base import PathLike
from ...rules import GaussLegendre

Explains = Callable[[Field, Tensor, Tensor], Tensor]
"""(field, x (B, n), references (R, n)) -> maps (B, n)."""

Candidate = ExplainerLike | PathLike | Explains
"""What axioms are checked of: a method, a path, or a function like ``Explains``."""

_NODES = 12  # of a path that comes without a rule


@dataclass(frozen=True, eq=False)
class ExplainerAdapter:
    """A method, path or function under test, callable with references of the test's choice.

    Args:
        explains: (field, x, references) -> maps.
        method: references -> the method that starts from them instead of from its baseline; None
            for a plain function.
        path: the method's path; None where it has none.
        explainer: the method with its own baseline (zero for a bare path); None for a plain
            function.
    """

    explains: Explains
    method: Callable[[Tensor], Any] | None
    path: Path | None
    explainer: ExplainerLike | None

    @classmethod
    def of(cls, candidate: Any) -> ExplainerAdapter:
        """Adapt a method, a wrapper of one, a path, or a function ``(field, x, references) ->
        values``. Raises ``InputError`` for anything else."""
        inmost = core(candidate)
        if isinstance(inmost, Method):
            return cls._of_method(
                lambda references: with_core(candidate, _from(references)), inmost.path, candidate
            )
        parameters = _parameters(candidate)
        if isinstance(candidate, Path) or parameters[:3] == ["field", "start", "end"]:
            explainer = Method(path=candidate, rule=GaussLegendre(_NODES))
            return cls._of_method(
                lambda references: _from(references)(explainer), candidate, explainer
            )
        if len(parameters) == 3:
            return cls(_quietly(candidate), None, None, None)
        raise InputError(
            f"axioms() takes a method, a path (field, start, end), or a function (field, x, references) -> values, not {candidate!r}."
        )

    @classmethod
    def _of_method(
        cls, make: Callable[[Tensor], Any], path: Path, explainer: ExplainerLike
    ) -> ExplainerAdapter:
        def explains(field: Field, x: Tensor, references: Tensor) -> Tensor:
            values: Tensor = ask(make(references), field, x).values
            return values

        return cls(explains, make, path, explainer)


def ask(method: ExplainerLike, field: Field, x: Tensor) -> Attribution:
    """Run a method without warnings of incomplete maps: the checks measure what is missing."""
    with _quiet(field), torch.no_grad():
        return method(field, x)


@contextmanager
def _quiet(field: Field) -> Iterator[None]:
    with (
        field.ready(),
        warnings.catch_warnings(),
    ):  # filters are those of the whole process: one thread at a time
        warnings.simplefilter("ignore", IntegrandWarning)
        yield


def _quietly(explains: Explains) -> Explains:
    def explains_quietly(field: Field, x: Tensor, references: Tensor) -> Tensor:
        with _quiet(field):
            return explains(field, x, references)

    return explains_quietly


def _from(references: Tensor) -> Callable[[Method], Method]:
    return lambda method: dataclasses.replace(method, baseline=Given(references))


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
