"""Imports at first use: optional packages, and rooms of higher floors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import MissingExtra

_PACKAGES = {"PIL": "pillow", "skimage": "scikit-image"}
"""What is installed for modules that are called otherwise than their package."""


def optional(module: str, *, extra: str, needs: str, package: str | None = None) -> Any:
    """An optional module, such as ``"scipy.sparse"``.

    Args:
        module: its dotted name.
        extra: the extra of integrand that installs it.
        needs: what cannot go on without it, as the subject of a sentence.
        package: what pip calls it, where that is neither the module's first name nor known here.

    Returns:
        The module.

    Raises:
        MissingExtra: where it is not installed; the message says what to install.
    """
    top = module.partition(".")[0]
    try:
        import_module(top)
        return import_module(module)
    except ImportError:
        raise MissingExtra(package or _PACKAGES.get(top, top), extra, needs) from None


def is_instance(value: object, module: str, *classes: str) -> bool:
    """Whether a value is of a class of an optional module, by the names of the classes.

    The module is not imported to look: where there is such a value it has been.
    """
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(
        value, tuple(getattr(loaded, name) for name in classes)
    )


def room(module: str) -> Any:
    """A module of the package that stands higher than the one that asks, such as ``"report.html"``:
    imported when it is used."""
    return import_module(f"integrand.{module}")


def check_installed(extras: Mapping[str, str], needs: str) -> None:
    """Look for optional modules without importing them, so that a long run does not fail at its
    end.

    Args:
        extras: top-level module → the extra that installs it.
        needs: what cannot go on without them.

    Raises:
        MissingExtra: for the first that is not installed.
    """
    for module, extra in extras.items():
        if find_spec(module) is None:
            raise MissingExtra(_PACKAGES.get(module, module), extra, needs)
