"""Deprecated names: still found, with a warning that gives the new name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from ..errors import InputError

F = TypeVar("F", bound=Callable[..., Any])


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


def renamed_arguments(**names: str) -> Callable[[F], F]:
    """Decorate a function whose keyword arguments were called otherwise.

    Args:
        names: old name → the name it has now.

    Returns:
        A decorator; calls with an old name get a ``DeprecationWarning``, and calls with both names
        raise ``InputError``.
    """

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            for old in [name for name in names if name in options]:
                new = names[old]
                if new in options:
                    raise InputError(
                        f"{function.__name__} got both {old}= and {new}=, its new name."
                    )
                warnings.warn(
                    f"The argument {old}= of {function.__name__} is called {new}= now.",
                    DeprecationWarning,
                    stacklevel=2,
                )
                options[new] = options.pop(old)
            return function(*arguments, **options)

        return call  # type: ignore[return-value]

    return decorate
