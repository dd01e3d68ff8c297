"""Capabilities of parts: declared once in their base class, each with a default, and read as plain
attributes.

    class Rule(Part):                                  the base class lists all that anybody may ask
                                                       of a rule
        @declared
        def complete(self) -> bool:
            \"""Whether shares add up …\"""
            return True                                the default

    class Mine(Rule):
        complete: ClassVar[bool] = False               or a field, a property, an attribute set in
                                                       __init__

Users need no base class: any callable of the right shape is a part. Where a part is stored (a field
``Adopted(as_rule)``) it is adopted once: a ``Stranger`` stands around it, with those of the
declared attributes that it has and the defaults of the others. Nobody else looks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from ..errors import InputError
from .values import part, shown

if TYPE_CHECKING:
    declared = property
else:

    class declared:
        """An attribute with a default, computed by the decorated function; whatever a class or an
        instance says instead comes first."""

        def __init__(self, default: Callable[[Any], Any]) -> None:
            self.default = default
            self.__doc__ = default.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, instance: object, owner: type) -> Any:
            if (
                instance is None
            ):  # so that a dataclass does not take it for the default of a field of this name
                raise AttributeError(self.name)
            return self.default(instance)


class Part:
    """What all parts may say of themselves."""

    @declared
    def resolution(self) -> str | None:
        """The field, a whole number, that the part's cost grows with, and which a budget turns;
        None where there is none."""
        return None

    @declared
    def effort(self) -> str | None:
        """The same of a search, such as its iterations: turned where ``resolution`` does not do."""
        return None

    @declared
    def coarsest(self) -> int:
        """The smallest number that a budget turns ``resolution`` to."""
        return 1

    def dial(self, name: str) -> int:
        """The number that a dial (``resolution`` or ``effort``) stands at; 0 where it is left open
        (None)."""
        return int(getattr(self, name) or 0)

    def turned(self, name: str, value: int) -> Self:
        """The same part with a dial at another number.

        Raises:
            InputError: for one that it does not take.
        """
        return dataclasses.replace(self, **{name: value})  # type: ignore[type-var]

    def overrides(self, base: type, method: str) -> bool:
        """Whether the part, or its class, has a method of its own where ``base`` only has the
        default."""
        return method in vars(self) or vars(base)[method] is not getattr(type(self), method)


@part
class Stranger:
    """A user's callable as a part: it says what it says of itself, and the base class the rest.
    Prints and compares as what it stands for."""

    of: Any

    def __post_init__(self) -> None:
        for name in _declarations(type(self)):
            try:
                vars(self)[name] = getattr(self.of, name)
            except AttributeError:
                continue

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.of(*arguments, **named)

    def __repr__(self) -> str:
        return shown(self.of)

    def __eq__(self, other: object) -> bool:
        return bool(self.of == (other.of if isinstance(other, Stranger) else other))

    def __getattr__(self, name: str) -> Any:
        """What is not declared is the user's own."""
        if name.startswith("_") or name == "of":
            raise AttributeError(name)
        return getattr(self.of, name)

    def dial(self, name: str) -> int:
        """The number that a dial stands at."""
        return int(getattr(self.of, name) or 0)

    def turned(self, name: str, value: int) -> Self:
        """The same with a dial at another number."""
        return dataclasses.replace(self, of=dataclasses.replace(self.of, **{name: value}))

    def grows_with(self, claim: str) -> str | None:
        """The field, a whole number, with which what the user's part says of its cost grows: found
        by asking, not by its name."""
        if not dataclasses.is_dataclass(self.of) or claim not in vars(self):
            return None
        for spec in dataclasses.fields(self.of):
            number = getattr(self.of, spec.name)
            if spec.init and isinstance(number, int) and not isinstance(number, bool):
                try:
                    larger: Any = dataclasses.replace(  # type: ignore[type-var]
                        self.of, **{spec.name: 2 * number + 2}
                    )
                    more = getattr(larger, claim)
                except (ValueError, TypeError, ArithmeticError):  # it takes no such number
                    continue
                if more != vars(self)[claim]:
                    return spec.name
        return None


_FACTORIES: dict[int, Callable[..., Any]] = {}

F = TypeVar("F", bound=Callable[..., Any])


def factory(build: F) -> F:
    """Declare a function that makes a part, and is none itself: where it is given in place of what
    it makes, ``check_callable`` says so."""
    _FACTORIES[id(build)] = build
    return build


def check_callable(value: object, kind: str, call: str, example: str) -> None:
    """Check that a user's part can be called.

    Args:
        kind: what it is to be, with its article.
        call: how it is called, and what it returns.
        example: one that there is.

    Raises:
        InputError: for what cannot be called, and for a class or a factory in place of what it
            makes.
    """
    if id(value) in _FACTORIES:
        name = _FACTORIES[id(value)].__name__
        raise InputError(
            f"{kind[0].upper()}{kind[1:]} is a value, and {name} is the function that makes one: write {name}(…)."
        )
    if isinstance(value, type):
        raise InputError(
            f"{kind[0].upper()}{kind[1:]} is a value, and {value.__name__} is a class: write {value.__name__}(…)."
        )
    if not callable(value):
        raise InputError(
            f"{kind[0].upper()}{kind[1:]} is a callable {call}, such as {example}; got {shown(value)} ({type(value).__name__})."
        )


def own(value: Any) -> Any:
    """A part as the user gave it."""
    return value.of if isinstance(value, Stranger) else value


def name_of(value: object) -> str:
    """The name of the class that the user knows."""
    return type(own(value)).__name__


def _declarations(cls: type[Any]) -> Iterator[str]:
    """The names of what a part's base classes declare: attributes, and methods that a part may
    have."""
    bases: list[type[Any]] = [
        base for base in cls.__mro__ if Part in base.__mro__ and Stranger not in base.__mro__
    ]
    for base in bases:
        yield from (name for name in vars(base) if not name.startswith("_"))


P = TypeVar("P", bound=Part)


def with_fields(part: P, **changes: Any) -> P:
    """A part with other values in some of its fields, its user's or its own."""
    if not changes:
        return part
    users = own(part)
    if users is not part:
        return dataclasses.replace(part, of=dataclasses.replace(users, **changes))  # type: ignore[type-var]
    return dataclasses.replace(part, **changes)


Given = TypeVar("Given", contravariant=True)
Taken = TypeVar("Taken", covariant=True)


class Adopted(Generic[Given, Taken]):
    """A field of a part that holds another part: what is stored in it is adopted, once.

    path: Adopted[PathLike, Path] = Adopted(as_path, Straight())
    """

    @overload
    def __init__(self, adopt: Callable[[Given], Taken]) -> None: ...

    @overload
    def __init__(self, adopt: Callable[[Given], Taken], default: Given) -> None: ...

    def __init__(
        self, adopt: Callable[[Given], Taken], default: object = dataclasses.MISSING
    ) -> None:
        self.adopt = adopt
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Taken:
        if instance is None:
            if self.default is dataclasses.MISSING:
                raise AttributeError(self.name)
            return cast(Taken, self.default)
        return cast(Taken, vars(instance)[self.name])

    def __set__(self, instance: object, value: Given) -> None:
        vars(instance)[self.name] = self.adopt(value)
