"""Attributions of batches in a folder: written one by one, read when they are looked at.

    manifest.jsonl          a line of what is explained, a line for each batch that is done, a line at the end
    batch-000000.safetensors …

A batch counts once its file is whole and its line is on the disk, in this order: whatever is killed
in between leaves a file that no line names, and that is written again. A line that was cut off is
none. Without the last line the folder is partial, and says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from ..core.files import appended, checked_lines, sync_folder
from ..errors import InputError
from .attribution import Attribution
from .io import load as load_file

MANIFEST = "manifest.jsonl"
_FORMAT = 1
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class BatchEntry:
    """A line of the manifest: one batch that is done.

    Attributes:
        file: its name in the folder.
        examples: how many it holds.
        inputs: hash of what was explained; empty where nobody took one.
    """

    file: str
    examples: int
    inputs: str = ""


class AttributionFolder(Sequence[Attribution]):
    """Attributions in a folder, a sequence that reads each from its file when it is asked for.

    ``ig.concat(folder)`` is one attribution of all examples, where these fit into memory.

    Attributes:
        path: the folder.
        entries: of each batch, its file and how many examples that holds.
        complete: whether everything that was to be explained is there; of a folder without a
            manifest nobody knows (None).
    """

    def __init__(self, path: Path, entries: Sequence[BatchEntry], complete: bool | None) -> None:
        self.path, self.entries, self.complete = path, tuple(entries), complete

    @classmethod
    def open(cls, path: str | Path) -> AttributionFolder:
        """The attributions in a folder: those of its manifest, or without one every .safetensors
        file in it, by name.

        Raises:
            InputError: for a folder that holds none.
        """
        folder = Path(path)
        if (folder / MANIFEST).is_file():
            _, entries, complete = read_manifest(folder)
            return cls(folder, entries, complete)
        names = sorted(file.name for file in folder.glob(f"*{_SUFFIX}") if file.is_file())
        if not names:
            raise InputError(f"The folder {str(path)!r} holds no attributions.")
        return cls(folder, [BatchEntry(name, -1) for name in names], None)

    @property
    def examples(self) -> int:
        """How many examples there are in all batches; files that no manifest counts are read for
        it."""
        return sum(
            len(self[i]) if entry.examples < 0 else entry.examples
            for i, entry in enumerate(self.entries)
        )

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Attribution: ...
    @overload
    def __getitem__(self, index: slice) -> AttributionFolder: ...
    def __getitem__(self, index: int | slice) -> Attribution | AttributionFolder:
        """The attribution of a batch, read from its file; a slice reads nothing.

        Raises:
            InputError: for a file that is gone, damaged, or holds no attribution.
        """
        if isinstance(index, slice):
            return AttributionFolder(self.path, self.entries[index], self.complete)
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no batch {index} among {len(self)}.")
        entry = self.entries[index]
        attribution = load_file(self.path / entry.file)
        if not isinstance(attribution, Attribution) or entry.examples not in (-1, len(attribution)):
            raise InputError(
                f"{str(self.path / entry.file)!r} does not hold the {entry.examples} examples that the manifest says."
            )
        return attribution

    def __iter__(self) -> Iterator[Attribution]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        state = "" if self.complete is None else ", complete" if self.complete else ", partial"
        counted = all(entry.examples >= 0 for entry in self.entries)
        examples = f", {self.examples} examples" if counted else ""
        return f"<Attributions of {len(self)} batches{examples} in {str(self.path)!r}{state}>"


def read_manifest(folder: Path) -> tuple[str, list[BatchEntry], bool]:
    """The fingerprint of what is explained, the batches that are done, and whether they are all.

    Raises:
        InputError: for a manifest that is damaged where it begins, or of a newer format.
    """
    lines = [json.loads(text) for text in checked_lines(folder / MANIFEST)]
    if not lines or "format" not in lines[0]:
        raise InputError(f"{str(folder / MANIFEST)!r} is no manifest of attributions.")
    if lines[0]["format"] != _FORMAT:
        raise InputError(
            f"{str(folder)!r} was written by another version of integrand: upgrade to read it."
        )
    entries: dict[int, BatchEntry] = {}
    complete = False
    for line in lines[1:]:
        complete = "batches" in line
        if not complete:
            entries[line["batch"]] = BatchEntry(
                _plain(line["file"]), line["examples"], line["inputs"]
            )
    ordered = [entries[number] for number in sorted(entries)]
    return str(lines[0]["fingerprint"]), ordered, complete


def _plain(name: str) -> str:
    """A name of a file in the folder itself: no manifest leads out of it."""
    if Path(name).name != name or not name.endswith(_SUFFIX):
        raise InputError(f"The manifest names the file {name!r}, which is none of its folder's.")
    return name


class FolderWriter:
    """Writes attributions of batches into a folder, in order.

    Args:
        path: the folder, made if need be.
        fingerprint: of everything that decides what the maps are.
        resume: go on with what an earlier call left in it.

    Raises:
        InputError: for a folder with attributions in it that are not to be gone on with, and for
            attributions of other settings.
        OSError: where the disk refuses.
    """

    def __init__(self, path: str | Path, fingerprint: str, *, resume: bool = False) -> None:
        self.path = Path(path)
        self.earlier: list[BatchEntry] = []
        self.ended = False
        manifest = self.path / MANIFEST
        if manifest.is_file():
            if not resume:
                raise InputError(
                    f"{str(path)!r} holds attributions already: go on with them by resume=True, or give another out=."
                )
            before, self.earlier, self.ended = read_manifest(self.path)
            if before != fingerprint:
                raise InputError(
                    f"{str(path)!r} holds attributions of another model, method or target: give another out=."
                )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        appended(manifest, {"format": _FORMAT, "fingerprint": fingerprint})
        sync_folder(self.path)

    def stands(self, number: int, inputs: str) -> bool:
        """Whether a batch of these inputs is there already, whole."""
        if number >= len(self.earlier) or self.earlier[number].inputs != inputs:
            return False
        try:
            return len(load_file(self.path / self.earlier[number].file)) >= 0
        except InputError:
            return False

    def write(self, number: int, attribution: Attribution, inputs: str) -> None:
        """Write a batch, whole or not at all."""
        name = f"batch-{number:06d}{_SUFFIX}"
        attribution.save(self.path / name)
        sync_folder(self.path)
        line = {"batch": number, "file": name, "examples": len(attribution), "inputs": inputs}
        appended(self.path / MANIFEST, line)
        self.ended = False

    def end(self, batches: int) -> AttributionFolder:
        """Say that these were all; batches of an earlier, longer call are left out, and their files
        removed."""
        folder = AttributionFolder.open(self.path)
        surplus = folder.entries[batches:]
        if surplus:
            self._rewrite(folder.entries[:batches])
        if surplus or not self.ended:
            appended(self.path / MANIFEST, {"batches": batches})
        for entry in surplus:
            (self.path / entry.file).unlink(missing_ok=True)
        return AttributionFolder.open(self.path)

    def _rewrite(self, entries: Sequence[BatchEntry]) -> None:
        fingerprint, _, _ = read_manifest(self.path)
        fresh = self.path / f".{MANIFEST}"
        fresh.unlink(missing_ok=True)
        appended(fresh, {"format": _FORMAT, "fingerprint": fingerprint})
        for number, entry in enumerate(entries):
            appended(fresh, {"batch": number, **vars(entry)})
        os.replace(fresh, self.path / MANIFEST)
