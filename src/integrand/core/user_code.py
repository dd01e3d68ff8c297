"""Objects in the user's own code: "package.module:name" or "path/to/file.py:name"."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from torch import nn

from ..errors import IntegrandError, ModelError, UnknownName


def load_object(spec: str, folder: Path | None = None, ready: tuple[type, ...] = ()) -> object:
    """What a name stands for, or, where that is a function, what the function returns.

    Args:
        spec: "package.module:name" or "path/to/file.py:name".
        folder: what a relative path begins at; the working directory unless given.
        ready: classes whose instances are taken as they are, although they can be called; modules
            of torch are anyway.

    Raises:
        ModelError: for code that cannot be imported, or fails.
        UnknownName: for a name that the module does not have, and for a text without a colon.
    """
    place, colon, attribute = spec.rpartition(":")
    if not (colon and place and attribute):
        raise UnknownName("import", spec, ("package.module:function", "path/to/file.py:function"))
    from_file = place.endswith(".py")
    file = Path(folder or Path(), place)
    with importable(file.parent if from_file else folder or Path()):
        module = _import_file(file) if from_file else _import_name(place)
        if not hasattr(module, attribute):
            raise UnknownName(f"function in {place!r}", attribute, _public_callables(module))
        return _call_factory(getattr(module, attribute), spec, ready)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """While this lasts, modules in ``folder`` can be imported, as they can be with ``python
    file.py``."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _import_name(place: str) -> ModuleType:
    try:
        return import_module(place)
    except Exception as error:  # importing runs the user's code
        raise ModelError(
            f"The module {place!r} cannot be imported: {type(error).__name__}: {error}."
        ) from error


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise ModelError(f"There is no file {str(file)!r} to take a model from.")
    spec = spec_from_file_location(f"_integrand_model_{file.stem}", file)
    assert spec and spec.loader  # noqa: PT018 — the name ends in .py, so there is a loader
    module = module_from_spec(spec)
    # Dataclasses and pickles look their module up here.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # importing runs the user's code
        del sys.modules[spec.name]
        raise ModelError(
            f"The file {str(file)!r} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    return module


def _public_callables(module: ModuleType) -> list[str]:
    return [
        name for name, value in vars(module).items() if callable(value) and not name.startswith("_")
    ]


def _call_factory(result: object, spec: str, ready: tuple[type, ...]) -> object:
    """The function's result; a module or a model that stands there ready-made is taken as it is."""
    if isinstance(result, (nn.Module, *ready)) or not callable(result):
        return result
    try:
        returned: object = result()
    except IntegrandError:
        raise
    except Exception as error:  # the user's code
        raise ModelError(
            f"{spec!r} failed with {type(error).__name__}: {error}. It is called without arguments and returns a model."
        ) from error
    return returned
