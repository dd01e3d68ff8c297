"""Engines by name."""

from __future__ import annotations

from ..errors import UnknownName
from .engine import Engine
from .local import Local
from .ray import Ray

ENGINES: dict[str, type[Engine]] = {"local": Local, "ray": Ray}


def engine_named(text: str, workers: int | None = None, device: str = "cpu") -> Engine:
    """The engine that ``local``, ``ray`` or ``ray:ADDRESS`` names.

    Raises:
        UnknownName: for a name that is none.
        InputError: for an address or a device that the engine does not know.

    Example:
        >>> from integrand.run import engine_named
        >>> engine_named("local", workers=2).workers
        2
    """
    name, _, address = text.partition(":")
    if name not in ENGINES:
        raise UnknownName("engine", name, ENGINES)
    return ENGINES[name].named(address or None, workers, device)
