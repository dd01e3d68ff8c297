"""The two consoles, and how things are said on them: results on stdout, everything else on stderr.

Consoles are made when something is said, so that they write to whatever stdout and stderr are at that moment. What was not
written here is never read as markup: paths and messages may hold square brackets.
"""

from __future__ import annotations

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
