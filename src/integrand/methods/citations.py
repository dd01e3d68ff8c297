"""Where each published name comes from, as BibTeX: the entries of ``citations.bib``."""

from __future__ import annotations

from importlib import resources

from ..errors import UnknownName


def _entries() -> dict[str, str]:
    """The entries by key, in the order of the file; each begins with an @ in the first column."""
    text = resources.files(__package__).joinpath("citations.bib").read_text("utf-8")
    entries = ("@" + entry.strip() for entry in ("\n" + text).split("\n@")[1:])
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in entries}


BIBTEX = _entries()


def bibtex(key: str) -> str:
    """The entry under a citation key."""
    if key not in BIBTEX:
        raise UnknownName("citation", key, BIBTEX)
    return BIBTEX[key]
