"""Methods, paths and plain functions, asked in one way: a field, inputs and references in, maps
out."""

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
from ...rules import GaussLegendre

Explains = Callable[[Field, Tensor, Tensor], Tensor]
"""(field, x (B, n), references (R, n)) -> maps (B, n)."""

_NODES = 12  # of a path that comes without a rule


@dataclass(frozen=True, eq=False)
class ExplainerAdapter:
    """Something that explains: a method whose baseline is exchanged for the references asked with,
    or a function.

    explains  (field, x, references) -> maps
    method    with references in place of its baseline, or None where it is a plain function
    path      the way it takes, or None where it has none
    own       the method with its own baseline (zero for a bare path), or None where it is a plain
              function
    """

    explains: Explains
    method: Callable[[Tensor], Any] | None
    path: Path | None
    own: Any

    @classmethod
    def of(cls, given: Any) -> ExplainerAdapter:
        """Of a method, anything that wraps one, a path, or a function ``(field, x, references) ->
        values``."""
        inmost = core(given)
        if isinstance(inmost, Method):
            return cls._of_method(
                lambda references: with_core(given, _from(references)), inmost.path, given
            )
        parameters = _parameters(given)
        if isinstance(given, Path) or parameters[:3] == ["field", "start", "end"]:
            own = Method(path=given, rule=GaussLegendre(_NODES))
            return cls._of_method(lambda references: _from(references)(own), given, own)
        if len(parameters) == 3:
            return cls(_quietly(given), None, None, None)
        raise InputError(
            f"axioms() takes a method, a path (field, start, end), or a function (field, x, references) -> values, not {given!r}."
        )

    @classmethod
    def _of_method(cls, make: Callable[[Tensor], Any], path: Path, own: Any) -> ExplainerAdapter:
        def explains(field: Field, x: Tensor, references: Tensor) -> Tensor:
            values: Tensor = ask(make(references), field, x).values
            return values

        return cls(explains, make, path, own)


def ask(method: ExplainerLike, field: Field, x: Tensor) -> Attribution:
    """The attribution, without its warnings: what is missing is measured here."""
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
    def asked(field: Field, x: Tensor, references: Tensor) -> Tensor:
        with _quiet(field):
            return explains(field, x, references)

    return asked


def _from(references: Tensor) -> Callable[[Method], Method]:
    return lambda method: dataclasses.replace(method, baseline=Given(references))


def _parameters(given: Any) -> list[str]:
    try:
        return list(inspect.signature(given).parameters)
    except (TypeError, ValueError):
        return []
