"""Find the modules that a plain function uses, by reading its code; none of the user's code is
called.

    lambda z: model(z)           closure cells and globals that its code names
    functools.partial(f, model)  function, arguments and keywords
    service.predict              attributes of ``service`` that the code of its methods and
                                 properties names
    @functools.wraps(f)          what is wrapped

Only names that the code mentions are followed, a few levels deep, and attributes are looked up
without running properties or ``__getattr__``. What a function finds in other ways (``getattr`` with
a computed name, a registry) is not seen.
"""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_DEPTH = 8
_MOST = 2000
"""Values that are looked at before the search gives up."""
_PLAIN = (
    Tensor,
    np.ndarray,
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    torch.dtype,
    torch.device,
    torch.Size,
)
_LIBRARIES = ("torch", "numpy", "functools", "contextlib", "integrand")


_COMPILED = "_orig_mod"  # what torch.compile calls the module that it wraps


def is_opaque(module: nn.Module) -> bool:
    """Whether torch does not show the operations of a module: it is scripted or compiled."""
    return isinstance(module, torch.jit.ScriptModule) or hasattr(module, _COMPILED)


def uncompiled(module: nn.Module) -> nn.Module:
    """The module behind a compiled one, with its class and the names of its modules; others
    themselves."""
    behind: nn.Module = getattr(module, _COMPILED, module)
    return behind


def modules_behind(function: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a function's code can reach by name, outermost ones only, in the order in
    which they were come across."""
    search = _Discovery()
    search.look_at(function, frozenset({"__call__"}), 0)
    modules = list(search.found.values())
    inside = {id(part) for module in modules for part in module.modules() if part is not module}
    return [module for module in modules if id(module) not in inside]


class _Discovery:
    """What has been found and looked at so far."""

    def __init__(self) -> None:
        self.found: dict[int, nn.Module] = {}
        self._known: dict[
            tuple[int, Any], Any
        ] = {}  # values are kept alive, so that ids stay theirs

    def look_at(self, value: Any, names: frozenset[str], depth: int) -> None:
        """A value that code with these ``names`` in it can reach. Types are told by ``type``, which
        no object can pretend."""
        kind = type(value)
        if issubclass(kind, nn.Module):
            self.found.setdefault(id(value), value)
        elif not issubclass(kind, _PLAIN) and depth <= _DEPTH and self._is_new(value, names):
            self._look_inside(value, kind, names, depth + 1)

    def _is_new(self, value: object, beside: object) -> bool:
        key = (id(value), beside)
        if key in self._known or len(self._known) >= _MOST:
            return False
        self._known[key] = value
        return True

    def _look_inside(self, value: Any, kind: type, names: frozenset[str], depth: int) -> None:
        if issubclass(kind, functools.partial):
            self._all((value.func, *value.args, *value.keywords.values()), names, depth)
        elif kind is types.MethodType:
            self._method(value.__func__, value.__self__, depth)
        elif kind is types.FunctionType:
            self._function(value, depth)
        elif kind is types.ModuleType:
            attributes = vars(value)
            self._all((attributes[name] for name in names if name in attributes), names, depth)
        elif issubclass(kind, dict):
            self._all(dict.values(value), names, depth)
        elif issubclass(kind, list | tuple | set | frozenset):
            self._all(list(value) if kind in (list, tuple, set, frozenset) else (), names, depth)
        else:
            self._attributes(value, names, depth)

    def _all(self, values: Iterable[Any], names: frozenset[str], depth: int) -> None:
        for value in values:
            self.look_at(value, names, depth)

    def _function(self, function: types.FunctionType, depth: int) -> frozenset[str]:
        """What a function holds and names; returns the names in its code."""
        loaded, names = _names_in(function.__code__)
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            self.look_at(content, names, depth)
        everywhere = function.__globals__
        if str(everywhere.get("__name__", "")).partition(".")[0] not in _LIBRARIES:
            self._all((everywhere[name] for name in loaded if name in everywhere), names, depth)
        self._all(function.__defaults__ or (), names, depth)
        self._all((function.__kwdefaults__ or {}).values(), names, depth)
        self._all(vars(function).values(), names, depth)
        return names

    def _method(self, function: object, owner: object, depth: int) -> None:
        """A function that is called with its owner first."""
        if type(function) is not types.FunctionType:
            self.look_at(function, frozenset(), depth)
            return
        self.look_at(owner, self._function(function, depth), depth)

    def _attributes(self, owner: object, names: frozenset[str], depth: int) -> None:
        """The attributes of an object that go by these names; of methods and properties, what their
        own code names."""
        for name in names:
            raw = inspect.getattr_static(owner, name, None)
            kind = type(raw)
            if kind is types.FunctionType:
                self._member(raw, owner, depth)
            elif kind is property:
                self._member(raw.fget, owner, depth)
            elif kind is functools.cached_property:
                self._member(raw.func, owner, depth)
            elif kind in (staticmethod, classmethod):
                self._member(raw.__func__, owner, depth)
            elif (
                kind is types.MemberDescriptorType
            ):  # a slot, which is read without running anything
                try:
                    self.look_at(raw.__get__(owner), names, depth)
                except AttributeError:
                    continue
            else:
                self.look_at(raw, names, depth)

    def _member(self, function: object, owner: object, depth: int) -> None:
        """A method or property of an object, followed once for it."""
        if depth <= _DEPTH and self._is_new(function, id(owner)):
            self._method(function, owner, depth + 1)


@lru_cache(maxsize=256)
def _names_in(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The globals that some code and the functions defined in it load, and every name they
    mention."""
    loaded = {
        i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    names = {*code.co_names, "__call__"}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner_loaded, inner_names = _names_in(constant)
            loaded |= inner_loaded
            names |= inner_names
    return frozenset(loaded), frozenset(names)
