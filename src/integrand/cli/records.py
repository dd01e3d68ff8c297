"""What is known of each picture once it is explained, and the journal that keeps it.

    records/1-of-1.jsonl      a line for each picture that is begun, naming the files it will have,
                              and one when it is done, with all that the summary says of it

The journal is the truth about a folder: summary and overview are made of it, ``--resume`` and later
runs read it. Each process that was started with ``--part K/N`` has one of its own, so that parts
may run at the same time, or elsewhere, and be copied together. A line is on the disk before the
next picture begins; one that was cut off is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.files import appended, checked_lines, is_locked, take_lock, whole
from ..errors import InputError

FOLDER = "records"
_JOURNAL = re.compile(r"(\d+)-of-(\d+)\.jsonl")
_OURS = re.compile(r"[\w.-]+\.(?:html|png)|thumbs/[\w.-]+\.(?:png|jpg)")
"""Files that may be removed when they are stale; saved attributions are not among them."""


@dataclass(frozen=True)
class PictureFile:
    """A picture to explain: where it is, what it is called, and what its files are."""

    source: str
    name: str
    stem: str


@dataclass(frozen=True)
class MapRecord:
    """One map, in numbers.

    Attributes:
        method: its name;  ``title``: what it is called.
        output, base, change, residual, gap, error: as of an ``Attribution``.
        claimed: whether its method claims completeness.
        incomplete: it does, and the map misses more than a tenth of the change.
        converged: as of an ``Attribution``;  ``unsettled``: it stopped short of its tolerance.
        gradients, values: rows evaluated with and without a gradient.
        seconds: wall clock.
    """

    method: str
    title: str
    output: float
    base: float
    change: float
    residual: float
    gap: float
    error: float
    claimed: bool
    incomplete: bool
    converged: bool
    unsettled: bool
    gradients: int
    values: int
    seconds: float


@dataclass(frozen=True)
class PictureRecord:
    """One picture: what the model said, its maps, and what could not be had.

    Attributes:
        file: where it was;  ``name``: what it is called;  ``stem``: what its files are called.
        digest: hash of its bytes; empty where they could not be read.
        settings: fingerprint of all that decides its maps.
        predictions: the likeliest classes: name, probability, index.
        target, label, probability: the class that is explained.
        maps: by method, in the order they were asked for.
        failed: by method, why there is no map; under "" why there is none at all.
        left_out: by method, why it was not tried, where all were asked for.
        files: of this picture, each with its size in bytes.
        done: whether it was ended, and not stopped in the middle.
        seed, versions: what the maps depend on besides.
    """

    file: str
    name: str
    stem: str
    digest: str = ""
    settings: str = ""
    predictions: tuple[tuple[str, float, int], ...] = ()
    target: int | None = None
    label: str = ""
    probability: float = float("nan")
    maps: tuple[MapRecord, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    done: bool = True
    seed: int | None = None
    versions: str = ""

    @property
    def faulty(self) -> bool:
        """Whether a map is incomplete or not converged."""
        return any(record.incomplete or record.unsettled for record in self.maps)

    @classmethod
    def parsed(cls, content: Any) -> PictureRecord | None:
        """The record that a line of JSON holds; None where it holds none."""
        try:
            maps = tuple(MapRecord(**entry) for entry in content.pop("maps"))
            predictions = tuple((str(n), float(p), int(i)) for n, p, i in content["predictions"])
            record = cls(**{**content, "maps": maps, "predictions": predictions})
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        texts = (record.file, record.name, record.stem, record.digest, record.settings)
        fits = all(isinstance(text, str) for text in texts) and isinstance(record.files, dict)
        return record if fits and record.stem else None


class RecordJournal:
    """The journals of a folder, of which this process writes one.

    Args:
        folder: of the pages.
        part: K and N of ``--part K/N``.
    """

    def __init__(self, folder: Path, part: tuple[int, int]) -> None:
        self.folder = folder / FOLDER
        self.part = part
        self.file = self.folder / f"{part[0]}-of-{part[1]}.jsonl"
        self._handle = -1

    # --- reading ------------------------------------------------------------------------------------------------------

    def all(self) -> dict[Path, list[PictureRecord]]:
        """The records of every journal, each the last of its picture."""
        return {file: _records(file) for file in self.journals()}

    def journals(self) -> list[Path]:
        """The files of all parts."""
        if not self.folder.is_dir():
            return []
        return sorted(file for file in self.folder.iterdir() if _JOURNAL.fullmatch(file.name))

    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings that were written down, by their fingerprint."""
        lines = (line for file in self.journals() for line in _lines(file))
        return {line["fingerprint"]: line["settings"] for line in lines if "settings" in line}

    def elsewhere(self) -> dict[str, PictureRecord]:
        """The records in the journals of other processes, by what the files are called."""
        return {
            record.stem: record
            for file, records in self.all().items()
            if file != self.file
            for record in records
        }

    def is_of(self, file: Path, parts: int) -> bool:
        """Whether a journal is one of as many parts."""
        match = _JOURNAL.fullmatch(file.name)
        return match is not None and int(match[2]) == parts

    @staticmethod
    def files_of(file: Path) -> set[str]:
        """All files that a journal says were begun, as far as they may be removed."""
        named: set[str] = set()
        for line in _lines(file):
            content = line.get("files") or line.get("picture", {}).get("files")
            named |= {name for name in content or () if isinstance(name, str)}
        return {name for name in named if _OURS.fullmatch(name)}

    # --- writing ------------------------------------------------------------------------------------------------------

    def open(self, fingerprint: str, settings: Mapping[str, Any]) -> None:
        """Make this process the one that writes this part.

        Raises:
            InputError: where another process does.
            OSError: where the disk refuses.
        """
        self.folder.mkdir(exist_ok=True)
        self._handle = os.open(self._lock_of(self.file), os.O_CREAT | os.O_RDWR, 0o644)
        if not take_lock(self._handle):
            self.close()
            which = "" if self.part == (1, 1) else f" part {self.part[0]}/{self.part[1]} of"
            raise InputError(
                f"Another process is writing{which} {self.folder.parent}: wait for it, or give another --out."
            )
        if fingerprint not in {line.get("fingerprint") for line in _lines(self.file)}:
            appended(self.file, {"fingerprint": fingerprint, "settings": dict(settings)})

    def begin(self, stem: str, files: list[str]) -> None:
        """A picture is begun, that will have these files."""
        appended(self.file, {"begun": stem, "files": files})

    def add(self, record: PictureRecord) -> None:
        """A picture is explained, and its files are on the disk."""
        appended(self.file, {"picture": asdict(record)})

    def rewrite(
        self, records: list[PictureRecord], fingerprint: str, settings: Mapping[str, Any]
    ) -> None:
        """Keep these records only."""
        with whole(self.file) as partial:
            appended(partial, {"fingerprint": fingerprint, "settings": dict(settings)})
            for record in records:
                appended(partial, {"picture": asdict(record)}, sync=False)

    def remove(self, file: Path) -> None:
        """Throw away a journal that nothing is left of."""
        for path in (file, self._lock_of(file)):
            with contextlib.suppress(OSError):
                path.unlink()

    def busy(self, file: Path) -> bool:
        """Whether another process writes a journal at present."""
        if file == self.file:
            return False
        try:
            return is_locked(self._lock_of(file))
        except OSError:
            return False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While this lasts, no other part writes the summary: the last one to do so has read what
        all have done."""
        handle = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            take_lock(handle, wait=True)
            yield
        finally:
            os.close(handle)

    def close(self) -> None:
        """Let another process write this part."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    @staticmethod
    def _lock_of(file: Path) -> Path:
        return file.with_name(f".{file.stem}.lock")


def _lines(file: Path) -> list[dict[str, Any]]:
    lines = (json.loads(text) for text in checked_lines(file))
    return [line for line in lines if isinstance(line, dict)]


def _records(file: Path) -> list[PictureRecord]:
    records: dict[str, PictureRecord] = {}
    for line in _lines(file):
        record = PictureRecord.parsed(line["picture"]) if "picture" in line else None
        if record is not None:
            records[record.stem] = record
    return list(records.values())


def differences(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> list[str]:
    """The settings that differ."""
    names = dict.fromkeys((*earlier, *later))
    return [name for name in names if earlier.get(name) != later.get(name)]
