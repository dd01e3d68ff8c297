"""Checking of numeric options against their annotations, where they are passed in.

Counts, rates and tolerances reach the loops that use them long after they were typed. So every part
(``parts.part``) and every published method looks at what it is given once, by its own annotations:

    steps: int                    a whole number; no 2.5, no "3", no True
    tol: float | None             a finite number, or None
    rate: float | Relative        a number or a ``Relative``
    clip: tuple[float, float]     two numbers

Numbers of NumPy, and tensors of one number where no tensor is asked for, become Python's. Ranges
are each part's own to check.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import numpy as np
from torch import Tensor

from ..errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

_NUMBERS = (int, float)
_PLAIN: dict[Any, tuple[Any, ...]] = {
    "int": (int,),
    "float": (float,),
    "int | None": (int, type(None)),
    "float | None": (float, type(None)),
}
"""Annotations that need not be evaluated, which most are: the library is imported with many parts
as defaults."""
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    Tensor: "a tensor",
    type(None): "None",
}


def whole(name: str, value: object, *, least: int | None = None) -> int:
    """``value`` as an int, or an error that says what the option ``name`` takes."""
    number: int = value if type(value) is int else option(name, value, (int,))
    if least is not None and number < least:
        raise InputError(f"{name} is {least} at least, not {number}.")
    return number


def check_choice(name: str, value: object, choices: Collection[Any]) -> None:
    """Check that an option is one of those that there are.

    Raises:
        InputError: that lists them.
    """
    if value not in choices:
        raise InputError(f"{name} is one of {', '.join(map(repr, choices))}, not {value!r}.")


def checked_flag(name: str, value: object) -> bool:
    """``value`` if it is True or False, or an error that says so."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is True or False, not {_shown(value)}.")
    return bool(value)


def real(name: str, value: object) -> float:
    """``value`` as a finite number, or an error that says what the option ``name`` takes."""
    number: float = option(name, value, (float,))
    check_finite(name, number)
    return number


def option(name: str, value: object, kinds: tuple[Any, ...]) -> Any:
    """``value`` if it is of one of ``kinds`` (types as they are annotated), its numbers Python's
    own; else ``InputError``."""
    plain = _plain(value, kinds)
    if not any(_is(plain, kind) for kind in kinds):
        raise InputError(f"{name} is {_described(kinds)}, not {_shown(value)}.")
    return plain


def check_finite(name: str, value: object) -> None:
    """Check that a number, or each in a tuple, is one that can be computed with.

    Raises:
        InputError: for NaN or infinity, and for NaN in a tuple (whose infinities may be open ends).
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} is a finite number, not {value}.")
    if isinstance(value, tuple | list) and any(
        isinstance(number, float) and math.isnan(number) for number in value
    ):
        raise InputError(f"{name} holds numbers, and NaN is none: {_shown(value)}.")


@functools.cache
def numeric(annotated: Any) -> Mapping[str, tuple[Any, ...]]:
    """Fields of a class or parameters of a function that take numbers, by name: the kinds they may
    be of.

    Numbers count where they are written: names for several types (``Features``, ``Index``) are read
    by whoever made them. Annotations that name what only a type checker imports cannot be read;
    nothing is asked of these.
    """
    numbers: dict[str, tuple[Any, ...]] = {}
    for owner in reversed(annotated.__mro__) if isinstance(annotated, type) else (annotated,):
        for name, written in inspect.get_annotations(owner).items():
            if _writes_numbers(written):
                kinds = _kinds_of(written, owner)
                if _takes_numbers(kinds):
                    numbers[name] = kinds
    return numbers


def with_checked_options(build: F) -> F:
    """The function ``build``, whose numbers are checked before anything else is done."""
    signature = functools.cache(
        lambda: inspect.signature(build)
    )  # when it is first needed: importing is quick

    @functools.wraps(build)
    def checked(*arguments: Any, **options: Any) -> Any:
        try:
            bound = signature().bind(*arguments, **options)
        except TypeError:  # something is missing, or too much; Python says what
            return build(*arguments, **options)
        kinds = numeric(build)
        for name in bound.arguments.keys() & kinds.keys():
            bound.arguments[name] = option(name, bound.arguments[name], kinds[name])
        return build(*bound.args, **bound.kwargs)

    return cast(F, checked)


# --- kinds: types as they are annotated ---------------------------------------------------------------------------------


@functools.cache
def usual(kinds: tuple[Any, ...]) -> frozenset[type]:
    """The exact types that need no second look: Python's own numbers and None, as far as ``kinds``
    has them."""
    exact_types: dict[Any, set[type]] = {int: {int}, float: {int, float}, type(None): {type(None)}}
    return frozenset(
        exact for kind in kinds if isinstance(kind, type) for exact in exact_types.get(kind, ())
    )


def _kinds_of(written: object, owner: object) -> tuple[Any, ...]:
    """What an annotation of a class or function allows; nothing where it names what only a type
    checker imports."""
    if written in _PLAIN:
        return _PLAIN[written]
    if isinstance(written, str):
        try:
            written = eval(
                written, vars(sys.modules[owner.__module__])
            )  # as inspect.get_annotations does, one by one
        except NameError:
            return ()
    return get_args(written) if get_origin(written) in (Union, types.UnionType) else (written,)


def _writes_numbers(annotation: object) -> bool:
    return not isinstance(annotation, str) or re.search(r"\b(int|float)\b", annotation) is not None


def _takes_numbers(kinds: tuple[Any, ...]) -> bool:
    return any(kind in _NUMBERS or _of_numbers(kind) for kind in kinds)


def _of_numbers(kind: object) -> bool:
    """Whether a kind is a tuple of numbers: ``tuple[float, ...]``, ``tuple[float, float]``."""
    return get_origin(kind) is tuple and all(item in (*_NUMBERS, ...) for item in get_args(kind))


def _plain(value: object, kinds: tuple[Any, ...]) -> Any:
    """A number of NumPy or a tensor of one number as Python's; anything else as it is."""
    if isinstance(value, np.number | np.bool_):
        return value.item()
    if isinstance(value, Tensor) and value.ndim == 0 and Tensor not in kinds:
        return value.item()
    if isinstance(value, tuple) and any(isinstance(number, np.number) for number in value):
        return tuple(number.item() if isinstance(number, np.number) else number for number in value)
    return value


def _is(value: object, kind: Any) -> bool:
    if kind in _NUMBERS:
        return isinstance(value, _NUMBERS if kind is float else int) and not isinstance(value, bool)
    if _of_numbers(kind):
        items = get_args(kind)
        if not isinstance(value, tuple | list) or (
            items[-1] is not ... and len(value) != len(items)
        ):
            return False
        return all(_is(number, items[0]) for number in value)
    try:
        return isinstance(value, get_origin(kind) or kind)
    except TypeError:  # a protocol that cannot be asked; all of them are called
        return callable(value)


# --- words --------------------------------------------------------------------------------------------------------------


def _described(kinds: tuple[Any, ...]) -> str:
    names = list(
        dict.fromkeys(_word(kind) for kind in kinds if not (kind is int and float in kinds))
    )
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _word(kind: Any) -> str:
    if _of_numbers(kind):
        items = get_args(kind)
        numbers = "whole numbers" if items[0] is int else "numbers"
        return f"a tuple of {numbers}" if items[-1] is ... else f"a tuple of {len(items)} {numbers}"
    if kind in _WORDS:
        return _WORDS[kind]
    return str((get_origin(kind) or kind).__name__)


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.numel()} numbers"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
