"""Reader of part expressions in suite files, such as ``weighted(several, rule=GaussLegendre(25))``.

Only calls of known names with numbers, strings, lists and each other are read; nothing is executed
that has not been looked up in the table of names: that of the argument it stands in, if that has
one. What recipes spell is what reprs print.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InputError, UnknownName

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}


def spelled(
    text: str,
    names: Mapping[str, Any],
    roles: Mapping[str, Mapping[str, Any]] | None = None,
    arguments: Callable[[Any], Sequence[str]] = lambda build: (),
) -> Any:
    """What ``text`` spells, its words looked up in ``names``.

    Args:
        text: an expression of calls, names and literals.
        names: what the words in it stand for.
        roles: by the name of an argument, the names that its words are looked up in instead, and
            those inside.
        arguments: what the callable that is called calls its arguments, in order.

    Raises:
        UnknownName: for a word that is not among the names.
        InputError: for anything but calls.

    Example:
        >>> spelled("dict(a=[1, -n // 2])", {"dict": dict, "n": 6})
        {'a': [1, -3]}
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise InputError(f"{text!r} cannot be read: {error.msg}.") from None
    return _Reader(text, names, roles or {}, arguments).read(tree.body)


class _Reader:
    def __init__(
        self,
        text: str,
        names: Mapping[str, Any],
        roles: Mapping[str, Mapping[str, Any]],
        arguments: Callable[[Any], Sequence[str]],
    ) -> None:
        self.text, self.names, self.roles, self.arguments = text, names, roles, arguments

    def read(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._lookup(name)
            case ast.List(elts=items):
                return [self.read(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.read(item) for item in items)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self.read(inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _ARITHMETIC[type(op)](self.read(left), self.read(right))
            case ast.Call(func=ast.Name(id=name), args=given, keywords=keywords):
                return self._read_call(name, given, keywords)
        raise InputError(
            f"{ast.unparse(node)!r} in {self.text!r} is neither a number, a word, a list nor a call such as GaussLegendre(25)."
        )

    def _reader_of(self, argument: str) -> _Reader:
        """What reads the words of an argument."""
        if argument not in self.roles:
            return self
        return _Reader(self.text, self.roles[argument], self.roles, self.arguments)

    def _lookup(self, name: str) -> Any:
        if name not in self.names:
            raise UnknownName(f"word in {self.text!r}", name, self.names)
        return self.names[name]

    def _read_call(self, name: str, nodes: list[ast.expr], keywords: list[ast.keyword]) -> Any:
        build = self._lookup(name)
        if not callable(build):
            raise InputError(f"{name} in {self.text!r} is a value, not something to call.")
        arguments = self.arguments(build)
        positional = [
            self._reader_of(arguments[k] if k < len(arguments) else "").read(node)
            for k, node in enumerate(nodes)
        ]
        options = {
            keyword.arg: self._reader_of(keyword.arg).read(keyword.value)
            for keyword in keywords
            if keyword.arg is not None
        }
        try:
            return build(*positional, **options)
        except TypeError as error:
            raise InputError(f"{self.text!r} does not fit: {error}") from None
