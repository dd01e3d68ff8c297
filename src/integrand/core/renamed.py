"""Deprecated names: still found, with a warning that gives the new name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for names it used to have.

    Args:
        module: the module's ``__name__``.
        names: old name → the name it has now.

    Returns:
        A function that looks an old name up, with a ``DeprecationWarning``; other names raise
        ``AttributeError``.
    """

    def look_up(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"{module}.{name} is called {names[name]} now.", DeprecationWarning, stacklevel=2
        )
        return getattr(sys.modules[module], names[name])

    return look_up
