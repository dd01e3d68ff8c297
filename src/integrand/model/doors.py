"""Doors: kinds of models that read tables of their own making, taken apart into how a table becomes
rows of numbers (``Encoding``), and a model that is asked about these.

    model, inputs ── door.opened ──▶ encoding, model of numbers
    inputs ── encoding.rows ──▶ x (B, N)                      map (B, N) ── encoding.origin ──▶ (B, M)

A door is listed once, where it is defined; whoever lays out inputs asks ``door_of``. What it may be
told beside the model are its ``options``, which ``explain`` takes by their names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.frames import Table


class Encoding(ABC):
    """How rows of a table become rows of numbers, and where the columns of these come from."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """(N,) names of the columns of numbers."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """(M,) names of the columns that maps are described in."""

    @property
    @abstractmethod
    def origin(self) -> Sequence[int]:
        """(N,) to which of ``names`` each column of numbers is summed."""

    @abstractmethod
    def rows(self, table: object) -> Tensor:
        """The rows of a table, a data frame or numbers (B, M), as numbers (B, N) in float64.

        Raises:
            InputError: for columns that are missing, and for what is no table.
        """

    def summed(self, maps: Tensor) -> Tensor:
        """Maps of the columns of numbers (…, N), each summed to the column that it comes from:
        (…, M). One that nothing comes from gets 0."""
        origin = torch.tensor(self.origin, dtype=torch.long, device=maps.device)
        sums = maps.new_zeros((*maps.shape[:-1], len(self.names)))
        return sums.index_add_(-1, origin, maps)

    def spread(self, maps: Tensor) -> Tensor:
        """Maps of the columns of the table (…, M), each shared out evenly among the columns of
        numbers that come from it: (…, N)."""
        origin = torch.tensor(self.origin, dtype=torch.long, device=maps.device)
        numbers = origin.bincount(minlength=len(self.names)).to(maps)
        return maps[..., origin] / numbers[origin]

    @abstractmethod
    def described(self, table: object) -> Table:
        """``names``, the labels of the rows, and what readers see at each of the names."""


class Door(ABC):
    """A kind of model with an encoding of its own."""

    options: ClassVar[tuple[str, ...]] = ()
    """What may be said beside the model, by name."""

    @abstractmethod
    def opens(self, model: object) -> bool:
        """Whether a model is of this kind; its library is not imported to look."""

    @abstractmethod
    def opened(
        self, model: Any, table: object, options: Mapping[str, object]
    ) -> tuple[Encoding, Any]:
        """How the model reads tables such as this one, and the model of numbers behind it.

        Args:
            model: one that the door ``opens``.
            table: what is explained.
            options: those of ``options`` that were given.
        """


_DOORS: list[Door] = []


def listed(door: Door) -> Door:
    """List a door, so that the models it opens are explained."""
    _DOORS.append(door)
    return door


def door_of(model: object) -> Door | None:
    """The door of a model; None for models that are asked about numbers as they are."""
    return next((door for door in _DOORS if door.opens(model)), None)


def options_of(model: object) -> tuple[str, ...]:
    """What may be said of a model of its kind, by name."""
    door = door_of(model)
    return () if door is None else door.options


def known_options() -> frozenset[str]:
    """What may be said of models of any kind, by name."""
    return frozenset(name for door in _DOORS for name in door.options)


def encoded_as_given(encoding: Encoding, values: Tensor | NDArray[Any]) -> Tensor:
    """Numbers (…, M) in the columns of the table → (…, N), row by row; one row alone is a row."""
    numbers = torch.as_tensor(values)
    rows = encoding.rows(numbers.reshape(-1, numbers.shape[-1]))
    return rows.reshape(*numbers.shape[:-1], rows.shape[1])
