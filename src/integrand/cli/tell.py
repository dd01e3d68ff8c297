"""The two consoles, and how things are said on them: results on stdout, everything else on stderr.

Consoles are made when something is said, so that they write to whatever stdout and stderr are at that moment. What was not
written here is never read as markup: paths and messages may hold square brackets.
"""

from __future__ import annotations

import re
import textwrap

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def out() -> Console:
    """For results."""
    return Console(highlight=False)


def err() -> Console:
    """For progress, warnings and errors."""
    return Console(stderr=True, highlight=False)


def fail(message: object) -> None:
    """Why something could not be done, in one line."""
    err().print(Text.assemble(("Error: ", "bold red"), " ".join(str(message).split())), soft_wrap=True)


def warn(message: object) -> None:
    """Something the reader of a result should know."""
    err().print(Text.assemble(("Warning: ", "yellow"), " ".join(str(message).split())), soft_wrap=True)


def note(message: object) -> None:
    """Something that was decided on the reader's behalf."""
    err().print(Text(" ".join(str(message).split()), "dim"), soft_wrap=True)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; columns in ``right`` hold numbers."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def folded(text: str, width: int) -> list[str]:
    """Text of docstrings in lines of ``width``: paragraphs are filled anew, definitions hang, code stays as it is.

    >>> folded("steps     how many\\n          pieces there are", 20)
    ['steps     how many', '          pieces', '          there are']
    """
    lines: list[str] = []
    item, hang = "", 0
    code = False

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
        code = bool(line.strip()) and (code or line.startswith(">>>"))
        if code or not line.strip():
            done()
            lines.append(line.rstrip())
        elif item and indent == hang:
            item += " " + line.strip()
        else:
            done()
            named = re.match(r"\S.{0,30}?\s{2,}(?=\S)", line)
            item, hang = line, named.end() if named and not indent else indent
    done()
    return lines
