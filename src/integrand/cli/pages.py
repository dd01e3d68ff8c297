"""The output folder of a command: its pages, the links between them, and pages of an earlier run.

A folder belongs to one command: its index.html says which, and names the maps and pages that go
with it. These, and nothing else, are removed once a later run has written its own; attributions
that were saved (.safetensors) stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from ..core.files import fitting, write_text
from ..errors import InputError
from ..images import title
from ..report import Case
from ..report.html import PageLink, page, relinked
from . import console
from .signals import undisturbed

_INDEX = "index.html"
_MADE_BY = re.compile(r'<meta name="generator" content="integrand (\w+)">')
_FILES = re.compile(r"<!-- files of this run: (\[.*?\]) -->\n")
_REMOVABLE = (".html", ".png")


@contextmanager
def claimed(folder: Path, command: str) -> Iterator[None]:
    """The folder, made if need be and refused if another command's pages are in it; gone again
    where nothing was written to it.

    Raises:
        OSError: for what is no folder and cannot become one.
        InputError: for a folder with another command's pages.
    """
    place = Path(os.path.realpath(folder))
    created = [path for path in (place, *place.parents) if not path.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        index = folder / _INDEX
        if index.is_file():
            by = _MADE_BY.search(index.read_text("utf-8", "replace"))
            if by is not None and by[1] != command:
                raise InputError(
                    f"{folder} holds what integrand {by[1]} wrote: give another --out, or remove it."
                )
            if by is None:
                console.note(f"{index} says nothing of integrand {command}; it will be replaced.")
        yield
    finally:
        for path in created:
            with contextlib.suppress(OSError):  # it is not empty, or was never made
                path.rmdir()


@dataclass
class Pages:
    """The page, or as many as the pictures need: index.html, page-2.html, …

    most   pictures on a page
    """

    folder: Path
    title: str
    most: int
    written: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """What could not be written, and why."""
    _leaves: list[PageLink] = field(default_factory=list)
    _files: dict[str, None] = field(default_factory=dict)
    _earlier: list[str] = field(default_factory=list)
    _cases: list[Case] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        index = self.folder / _INDEX
        if index.is_file():
            listed = _FILES.search(index.read_text("utf-8", "replace"))
            self._earlier = [] if listed is None else _plain_names(listed[1])

    def add(self, case: Case) -> None:
        """Take in a picture, whose results may still be coming; a full page is written first."""
        if len(self._cases) >= self.most:
            self.flush()
        self._cases.append(case)

    def file(self, name: str) -> Path:
        """Where a file of this run goes."""
        self._files[name] = None
        return self.folder / name

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What the disk refuses is told, and the work goes on."""
        with undisturbed(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Glyph .* missing"
            )  # of names in scripts that the font has not: boxes are drawn
            try:
                yield
            except OSError as error:
                self.failed.append(console.reason(error))
                console.fail(f"{self.failed[-1]}. It is not written.")

    def flush(self) -> None:
        """Write what there is, and lead to it from the first page."""
        cases = [case for case in self._cases if case.results]
        self._cases.clear()
        if not cases:
            return
        number = len(self._leaves) + 1
        leaf = PageLink(
            _INDEX if number == 1 else f"page-{number}.html", tuple(case.name for case in cases)
        )
        with self.writing():
            leaves = [*self._leaves, leaf]
            text = page(cases, title=self.title, leaves=leaves, here=number - 1)
            if number == 1:
                # Until they are removed, files of an earlier run stay listed: a run that is killed
                # leaves none behind for good.
                text = _listing(text, [*self._files, *self._earlier])
            write_text(self.file(leaf.href), text)
            self._leaves, self.written = leaves, [*self.written, self.folder / leaf.href]
            if number > 1:
                self._relink(0, [*self._files, *self._earlier])

    def finish(self) -> None:
        """Write what is left, lead from every page to every other, and remove what an earlier run
        left."""
        self.flush()
        if not self._leaves:
            return
        stale = [name for name in self._earlier if name not in self._files]
        with self.writing():
            for place in range(1, len(self._leaves) - 1):
                self._relink(place)
            removed = [name for name in stale if self._remove(name)]
            self._earlier = []
            self._relink(0, list(self._files))
            if removed:
                console.note(
                    f"{len(removed)} maps and pages of an earlier run in {self.folder} were removed."
                )

    def _relink(self, place: int, files: Sequence[str] | None = None) -> None:
        file = self.folder / self._leaves[place].href
        text = relinked(file.read_text("utf-8"), self._leaves, place)
        write_text(file, text if files is None else _listing(text, files))

    def _remove(self, name: str) -> bool:
        file = self.folder / name
        if file.is_symlink() or not file.is_file():
            return False
        file.unlink()
        return True

    def name(self, source: str) -> str:
        """What a picture's files are called: its own name, made fit for a file, numbered if another
        picture has it."""
        if source not in self._names:
            stem = fitting(re.sub(r"[^\w.-]+", "_", title(source)) or "picture")
            used = {name.casefold() for name in self._names.values()}
            names = (stem if n == 1 else f"{stem}-{n}" for n in count(1))
            self._names[source] = next(name for name in names if name.casefold() not in used)
        return self._names[source]


def _listing(text: str, files: Sequence[str]) -> str:
    """A page with a comment in it that names its run's files; no name can end the comment."""
    names = json.dumps(sorted({name for name in files if name.endswith(_REMOVABLE)})).replace(
        ">", "\\u003e"
    )
    comment = f"<!-- files of this run: {names} -->\n"
    return _FILES.sub("", text, count=1).replace("</head>", f"{comment}</head>", 1)


def _plain_names(text: str) -> list[str]:
    """The names in a page's comment, as far as they are names of files in its folder that may be
    removed."""
    try:
        listed = json.loads(text)
    except ValueError:
        return []
    names = [name for name in listed if isinstance(name, str) and name.endswith(_REMOVABLE)]
    return [name for name in names if Path(name).name == name and name != _INDEX]
