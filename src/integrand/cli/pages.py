"""The output folder of a command: pages, maps, thumbnails, their summary, and those of an earlier
run.

    NAME.html, NAME-METHOD.png, thumbs/…      of each picture, on the disk before its record is
    records/                                  what is known of each picture (``records``)
    summary.parquet, .csv, .json              made of the records, now and then and at the end
    index.html                                all pictures; of a single one its page

A folder belongs to one command: its index.html says which. Files of an earlier run, as its records
name them, and nothing else, are removed once a later run has written its own; attributions that
were saved (.safetensors) stay.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ..core.files import fitting, write_text
from ..core.formatting import count as counted
from ..core.formatting import percent
from ..errors import InputError
from ..images import title
from ..report.formatting import NO_GAP, NOT_CLAIMED
from ..report.html import without_home
from ..report.overview import MapEntry, PictureEntry, address, overview
from . import console, summary
from .records import MapRecord, PictureRecord, RecordJournal, differences
from .signals import undisturbed

_INDEX = "index.html"
_MADE_BY = re.compile(r'<meta name="generator" content="integrand (\w+)">')
THUMBS = "thumbs"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors after which nothing can be written any more."""
_FIRST, _SHARE = 10.0, 20
"""Seconds between two writings of summary and overview at least, and how many times what one
takes."""
_NAMED = 5  # settings that are named when they differ


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


def stems(sources: Sequence[str]) -> dict[str, str]:
    """What the files of each picture are called: its own name, made fit for a file, numbered if
    another picture has it.

    >>> stems(["cats/x y.png", "dogs/X y.png", "index.png"])
    {'cats/x y.png': 'x_y', 'dogs/X y.png': 'X_y-2', 'index.png': 'index-2'}
    """
    used, names = {"index"}, {}
    for source in dict.fromkeys(sources):
        stem = fitting(re.sub(r"[^\w.-]+", "_", title(source)) or "picture")
        numbered = (stem if n == 1 else f"{stem}-{n}" for n in count(1))
        names[source] = next(name for name in numbered if name.casefold() not in used)
        used.add(names[source].casefold())
    return names


@dataclass
class PictureFiles:
    """Writes the files of one picture, and keeps account of them."""

    folder: Path
    stem: str
    written: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """What could not be written, and why."""
    full: bool = False
    """Whether nothing can be written any more."""

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Where a file goes; what the disk refuses is kept, and the work goes on."""
        path = self.folder / name
        with undisturbed(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Glyph .* missing"
            )  # of names in scripts that the font has not: boxes are drawn
            try:
                yield path
                self.written[name] = path.stat().st_size
            except OSError as error:
                self.refused.append(f"{console.reason(error)}. It is not written.")
                self.full = self.full or error.errno in _NO_ROOM


@dataclass
class OutputFolder:
    """The folder of ``integrand explain``.

    settings     all that decides what maps come out;  fingerprint  of them
    order        the pictures that were asked for, by what their files are called
    resume       whether what is there already is kept
    """

    folder: Path
    title: str
    settings: Mapping[str, Any]
    fingerprint: str
    order: Sequence[str]
    part: tuple[int, int] = (1, 1)
    resume: bool = False
    refused: list[str] = field(default_factory=list)
    full: bool = False
    wrote: bool = False
    """Whether summary and overview are those of this run."""
    _records: dict[str, PictureRecord] = field(default_factory=dict)
    _earlier: dict[str, PictureRecord] = field(default_factory=dict)
    _next: float = 0.0

    def __post_init__(self) -> None:
        self.journal = RecordJournal(self.folder, self.part)
        self._new = not self.journal.file.exists()
        self._opened = False
        self.changed = self._changed()
        for record in self._standing():
            self._earlier[record.stem] = record

    # --- what is there already ----------------------------------------------------------------------------------------

    def _standing(self) -> list[PictureRecord]:
        """Records of the same settings that this run keeps: those of other parts of the same run,
        and to resume all of them."""
        return [
            record
            for file, records in self.journal.all().items()
            for record in records
            if record.settings == self.fingerprint
            and (self.resume or (file != self.journal.file and self._is_beside(file)))
        ]

    def _is_beside(self, file: Path) -> bool:
        return self.part[1] > 1 and self.journal.is_of(file, self.part[1])

    def done(
        self, stem: str, digest: str, methods: Sequence[str], save: bool
    ) -> PictureRecord | None:
        """The record of a picture that need not be computed again: it has the same content, maps by
        all methods, and all its files."""
        record = self._earlier.get(stem) if self.resume else None
        if record is None or not record.done or record.failed or record.digest != digest:
            return None
        maps = [map_record.method for map_record in record.maps]
        endings = (".png", ".safetensors") if save else (".png",)
        expected = {f"{stem}.html"} | {f"{stem}-{name}{end}" for name in maps for end in endings}
        complete = (
            set(methods) <= {*maps, *record.left_out}
            and expected <= record.files.keys()
            and all(_size(self.folder / name) == size for name, size in record.files.items())
        )
        return record if complete else None

    def _changed(self) -> list[str]:
        """The settings in which results that are there differ from those of this run; nothing where
        there are none or the same."""
        others = self.journal.settings()
        if not others or self.fingerprint in others:
            return []
        return differences(list(others.values())[-1], self.settings)[:_NAMED]

    # --- what comes -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make this process the one that writes.

        Raises:
            InputError: where another process writes the same part.
        """
        self.journal.open(self.fingerprint, self.settings)
        self._opened = True

    def begin(self, stem: str, files: Sequence[str]) -> None:
        """A picture is about to be explained."""
        with self._writing():
            self.journal.begin(stem, list(files))

    def add(self, record: PictureRecord) -> None:
        """A picture is explained; its files are written. To say so twice does nothing."""
        if self._records.get(record.stem) is record:
            return
        with undisturbed():
            self._records[record.stem] = record
            with self._writing():
                self.journal.add(record)
        if record.maps and len(self._records) > 1 and time.monotonic() > self._next:
            self.refresh()

    def keep(self, record: PictureRecord) -> None:
        """A picture is as it was."""
        self._records[record.stem] = record

    @property
    def records(self) -> list[PictureRecord]:
        """Those of the pictures that this process was asked for."""
        return list(self._records.values())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.refused.append(console.reason(error))
            self.full = self.full or error.errno in _NO_ROOM
            console.fail(f"{self.refused[-1]}. It is not written.")

    # --- all of it ------------------------------------------------------------------------------------------------------

    def merged(self) -> list[PictureRecord]:
        """All that the summary tells of, in the order that was asked for; what others wrote
        meanwhile is read again."""
        records = {record.stem: record for record in self._standing()} | self._records
        places = {stem: place for place, stem in enumerate(self.order)}
        return sorted(
            records.values(), key=lambda record: (places.get(record.stem, len(places)), record.stem)
        )

    def refresh(self) -> None:
        """Write summary and overview of what there is so far."""
        began = time.monotonic()
        with undisturbed(), self._writing(), self.journal.alone():
            self._write(self.merged())
        took = time.monotonic() - began
        self._next = time.monotonic() + max(_FIRST, _SHARE * took)

    def _write(self, records: Sequence[PictureRecord]) -> None:
        summary.write(self.folder, summary.rows(records))
        shown = [record for record in records if f"{record.stem}.html" in record.files]
        if len(records) == 1 and shown:
            text = (self.folder / f"{shown[0].stem}.html").read_text("utf-8")
            write_text(self.folder / _INDEX, without_home(text))
        else:
            write_text(self.folder / _INDEX, self._overview(records))
        self.wrote = True

    def _overview(self, records: Sequence[PictureRecord]) -> str:
        counts = summary.counts(records)
        many = "pictures" if counts["pictures"] != 1 else "picture"
        facts = [f"{counted(counts['pictures'])} {many}", f"{counted(counts['maps'])} maps"]
        facts += [f"{counts[flag]} {flag}" for flag in ("incomplete", "not converged", "failed")]
        facts.append(f"{counted(counts['gradients'])} gradients")
        versions = {record.versions: None for record in records if record.versions}
        settings = {name: _shown(value) for name, value in self.settings.items()}
        return overview(
            [_entry(record) for record in records],
            title=self.title,
            facts=[fact for fact in facts if not fact.startswith("0 ")],
            files=summary.NAMES,
            settings={**settings, "versions": "; ".join(versions)},
        )

    def finish(self) -> None:
        """Write summary and overview, and remove what an earlier run left and this one did not
        write again. Where there is no map at all, what was there stays as it was."""
        if not self._opened:  # another process writes
            return
        try:
            if not any(record.maps for record in self.merged()):
                self._forget()
                return
            with undisturbed(), self._writing(), self.journal.alone():
                records = self.merged()
                self._write(records)
                self._remove_stale(records)
                elsewhere = self.journal.elsewhere()
                kept = [record for record in records if elsewhere.get(record.stem) != record]
                self.journal.rewrite(kept, self.fingerprint, self.settings)
        finally:
            self.journal.close()

    def _remove_stale(self, records: Sequence[PictureRecord]) -> None:
        kept = {name for record in records for name in record.files}
        removed = 0
        for file, standing in self.journal.all().items():
            if self.journal.busy(file):
                continue
            removed += sum(map(self._remove, sorted(self.journal.files_of(file) - kept)))
            stands = self.resume or self._is_beside(file)
            used = stands and any(record.settings == self.fingerprint for record in standing)
            if file != self.journal.file and not used:
                self.journal.remove(file)
        if removed:
            console.note(
                f"{removed} maps and pages of an earlier run in {self.folder} were removed."
            )

    def _remove(self, name: str) -> bool:
        """Remove a file of an earlier run, unless it is something else by now."""
        file = self.folder / name
        if file.is_symlink() or not file.is_file() or name == _INDEX:
            return False
        if file.suffix == ".html":
            by = _MADE_BY.search(file.read_text("utf-8", "replace"))
            if by is None or by[1] != "explain":
                return False
        file.unlink()
        return True

    def _forget(self) -> None:
        """Leave no journal of a run that came to nothing, where there was none before."""
        if self._new:
            for record in self._records.values():
                for name in record.files:
                    self._remove(name)
            self.journal.remove(self.journal.file)
            with contextlib.suppress(OSError):
                (self.journal.folder / ".lock").unlink()
            for folder in (self.journal.folder, self.folder / THUMBS):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


# --- the overview -----------------------------------------------------------------------------------------------------


def _entry(record: PictureRecord) -> PictureEntry:
    """A picture as the overview shows it."""
    first = record.predictions[0] if record.predictions else None
    elsewhere = first is not None and first[2] != record.target
    problems = [f"{name}: {reason}" if name else reason for name, reason in record.failed.items()]
    page = f"{record.stem}.html"
    return PictureEntry(
        record.name,
        record.stem,
        address(page) if page in record.files else "",
        _thumbnail(record, record.stem),
        record.label,
        percent(record.probability),
        f"{first[0]}, {percent(first[1])}" if first and elsewhere else "",
        tuple(_map_entry(record, map_record) for map_record in record.maps),
        tuple(problems),
        tuple(flag for flag, raised in _flags(record).items() if raised),
        _keys(record),
    )


def _flags(record: PictureRecord) -> dict[str, bool]:
    return {
        "failed": bool(record.failed),
        "incomplete": any(map_record.incomplete for map_record in record.maps),
        "not converged": any(map_record.unsettled for map_record in record.maps),
    }


def _map_entry(record: PictureRecord, map_record: MapRecord) -> MapEntry:
    return MapEntry(
        map_record.method,
        map_record.title,
        _thumbnail(record, f"{record.stem}-{map_record.method}"),
        gap_text(map_record),
        percent(map_record.error),
        f"{map_record.gradients:,}",
        map_record.incomplete,
        map_record.unsettled,
    )


def gap_text(map_record: MapRecord) -> str:
    """The gap of a map, where its method says that there should be none, or where there is none to
    speak of all the same."""
    return (
        percent(map_record.gap) if map_record.claimed or map_record.gap <= NO_GAP else NOT_CLAIMED
    )


def _thumbnail(record: PictureRecord, stem: str) -> str:
    names = (f"{THUMBS}/{stem}.jpg", f"{THUMBS}/{stem}.png")
    return next((address(name) for name in names if name in record.files), "")


def _keys(record: PictureRecord) -> dict[str, float]:
    """Numbers of a picture by which it is sorted; of several maps the worst, or the sum."""
    gaps = [map_record.gap for map_record in record.maps if map_record.claimed]
    errors = [map_record.error for map_record in record.maps]
    return {
        "probability": record.probability,
        "gap": _largest(gaps),
        "error": _largest(errors),
        "change": _largest([map_record.change for map_record in record.maps]),
        "gradients": float(sum(map_record.gradients for map_record in record.maps))
        if record.maps
        else math.nan,
        "seconds": sum(map_record.seconds for map_record in record.maps)
        if record.maps
        else math.nan,
    }


def _largest(numbers: Sequence[float]) -> float:
    return max((number for number in numbers if not math.isnan(number)), default=math.nan)


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None or value == "" else str(value)
