"""Console output: results to stdout, progress and warnings to stderr.

Consoles are made when something is said, so that they write to whatever stdout and stderr are at
that moment. Nothing is ever read as markup, for paths and messages may hold square brackets; and
whatever is printed passes one place (``_Safe.render``) where the control characters of file names,
class names and prompts become visible signs, so that no picture can give the terminal orders.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..core.visible import visible as visible


def line(text: str) -> str:
    """A name as it stands in the middle of a line: it cannot begin another."""
    return visible(text.replace("\n", "␊"))


class _Safe(Console):
    """A console that shows what it is told, and obeys only itself."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def _console(**options: Any) -> Console:
    return _Safe(highlight=False, markup=False, emoji=False, **options)


def out() -> Console:
    """For results."""
    return _console()


def err() -> Console:
    """For progress, warnings and errors."""
    return _console(stderr=True)


def reason(error: BaseException) -> str:
    """What an error says; of the system's errors, the file and the reason, without the number."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        named = (
            ""
            if error.filename is None
            else f"{os.fsdecode(error.filename) if not isinstance(error.filename, int) else error.filename}: "
        )
        return f"{named}{error.strerror}"
    return str(error)


def fail(message: object) -> None:
    """Why something could not be done, in one line."""
    message = reason(message) if isinstance(message, BaseException) else message
    err().print(
        Text.assemble(("Error: ", "bold red"), " ".join(str(message).split())), soft_wrap=True
    )


def warn(message: object) -> None:
    """Something the reader of a result should know."""
    err().print(
        Text.assemble(("Warning: ", "yellow"), " ".join(str(message).split())), soft_wrap=True
    )


def note(message: object) -> None:
    """Something that was decided on the reader's behalf."""
    err().print(Text(" ".join(str(message).split()), "dim"), soft_wrap=True)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; columns in ``right`` hold numbers."""
    result = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return result


_SECTIONS = ("Args:", "Raises:", "Returns:", "Attributes:")
"""Sections of docstrings that hold entries, ``name: text``."""


def bars(*columns: ProgressColumn) -> Progress:
    """Bars with these columns, gone when they are done; nothing where stderr is no terminal."""
    terminal = err()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,
    )


def folded(text: str, width: int) -> list[str]:
    """Text of docstrings in lines of ``width``: paragraphs are filled anew, definitions hang, code
    stays as it is.

    >>> folded("steps     how many\\n          pieces there are", 20)
    ['steps     how many', '          pieces', '          there are']
    >>> folded("Args:\\n    steps: how many pieces\\n        there are", 22)
    ['Args:', '    steps: how many', '        pieces there', '        are']
    """
    lines: list[str] = []
    item, hang = "", 0
    code = entries = False

    def done() -> None:
        nonlocal item
        if item:
            first, rest, beside = item[:hang], item[hang:], " " * hang
            if hang > width // 2:
                first, rest, beside = "", item, "    "
            lines.extend(
                textwrap.wrap(
                    rest,
                    width,
                    initial_indent=first,
                    subsequent_indent=beside,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
        item = ""

    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        code = bool(line.strip()) and (code or line.lstrip().startswith(">>>"))
        if code or not line.strip():
            done()
            lines.append(line.rstrip())
        elif item and indent == hang:
            item += " " + line.strip()
        else:
            done()
            if not indent:
                entries = line in _SECTIONS
            named = re.match(r"\S.{0,30}?\s{2,}(?=\S)", line)
            item, hang = line, named.end() if named and not indent else indent
            if entries and indent and re.match(r"\s+\w[\w, ]*: ", line):
                hang = indent + 4
    done()
    return lines
