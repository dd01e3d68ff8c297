"""Where the files of a run lie: on a disk, or in an object store that fsspec knows.

    storage_of("results")               a folder: files synced and renamed, a lock of the kernel's
    storage_of("s3://bucket/results")   objects: each put is whole or not at all, there is no rename,
                                        no appending and no lock

Both promise what the manifest needs and no more: a file is read back as it was written, or is not
there, or does not hold what its line says. The line with its hashes is the truth, so it does not
matter on which of the two a file was when something was killed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..core.files import sync_folder, whole
from ..core.optional import optional
from ..errors import InputError, MissingExtra

_NEEDS = "A run"
_HEARTBEAT, _STALE = 10.0, 60.0
_TRIES, _FIRST_WAIT, _LONGEST_WAIT = 10, 0.05, 20.0
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""What an object store says once and for all; anything else may be the network's, and is tried again."""
_LINES_OF_A_SEGMENT = 256
"""Lines in one object of the manifest, which is written again with each: not too many for that, and
enough that a hundred thousand shards are a few hundred objects."""

T = TypeVar("T")


class Storage(ABC):
    """Files by names with slashes, below one place.

    url   what a worker opens it by, on whatever machine
    """

    url: str

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: where there is none.
        """

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """A file, whole or not at all; it outlasts a power loss once this returns."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """No such file, whether there was one or not."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """What lies directly in a folder, sorted; nothing where there is no such folder."""

    @abstractmethod
    def journal(self, name: str) -> Journal:
        """Lines that are added to, in the folder ``name`` lies in."""

    @abstractmethod
    def alone(self, name: str) -> AbstractContextManager[None]:
        """While this lasts, no other process is in here.

        Raises:
            InputError: where one is.
        """

    @abstractmethod
    def zarr(self, name: str) -> Any:
        """What zarr opens an array by, to read it."""

    def exists(self, name: str) -> bool:
        """Whether there is a file."""
        try:
            self.read(name)
        except FileNotFoundError:
            return False
        return True


class Journal(ABC):
    """Lines, each of which is safe once ``append`` returns."""

    @abstractmethod
    def append(self, line: str) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """No more lines."""


def storage_of(place: str | Path) -> Storage:
    """The storage at a path, or at a URL such as ``s3://bucket/results``.

    Raises:
        InputError: for a URL that fsspec does not know.
        MissingExtra: where its package is not installed.
    """
    text = str(place)
    if text.startswith("file://"):
        return Disk(Path(text.removeprefix("file://")))
    if "://" in text:
        return ObjectStore(text.rstrip("/"))
    return Disk(Path(place))


# --- a disk -----------------------------------------------------------------------------------------------------------


class Disk(Storage):
    """A folder. Files are written beside their place, synced, and renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.url = str(self.folder)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        file = self.folder / name
        self._make(file.parent)
        if file.is_symlink():  # whoever put it there would have us write elsewhere
            file.unlink()
        with whole(file) as partial:
            partial.write_bytes(content)
        sync_folder(file.parent)

    def _make(self, folder: Path) -> None:
        """A folder, and those above it, on the disk: their names too."""
        root = os.path.realpath(self.folder)
        if not Path(os.path.realpath(folder)).is_relative_to(root):
            raise InputError(f"{folder} is a link to another place: nothing is written outside.")
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for part in reversed(missing):
            part.mkdir(exist_ok=True)
            sync_folder(part.parent)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.folder / name).unlink()

    def names(self, folder: str = "") -> list[str]:
        place = self.folder / folder
        if place.is_file():
            raise InputError(f"{place} is a file, not a folder.")
        return sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []

    def exists(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def journal(self, name: str) -> Journal:
        self._make((self.folder / name).parent)
        return _AppendedFile(self.folder / f"{name}.jsonl")

    def zarr(self, name: str) -> Any:
        return str(self.folder / name)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """The lock is the kernel's: whatever kills a driver releases it. Where file systems do not
        carry locks from one machine to another, a driver there is known by its signs of life."""
        self._make(self.folder)
        file = self.folder / name
        handle = os.open(file, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            self._check_free(handle)
            _overwrite(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
            try:
                with _beating(lambda: os.utime(file)):
                    yield
            finally:
                with contextlib.suppress(OSError):
                    _overwrite(handle, "")
        finally:
            os.close(handle)

    def _check_free(self, handle: int) -> None:
        locked = _lock(handle)
        host, pid = _driver_of(os.pread(handle, 4096, 0))
        age = abs(time.time() - os.fstat(handle).st_mtime)
        elsewhere = host not in ("", socket.gethostname())
        if not locked or (elsewhere and age < _STALE):
            raise _occupied(self.url, host, pid)


class _AppendedFile(Journal):
    """A file that lines are appended to."""

    def __init__(self, file: Path) -> None:
        self.file, self._handle = file, -1

    def append(self, line: str) -> None:
        if self._handle < 0:
            self._handle = os.open(self.file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
            sync_folder(self.file.parent)
        content = line.encode()
        start = os.fstat(self._handle).st_size
        try:
            written = os.write(self._handle, content)
            if written < len(content):  # the disk is full
                os.ftruncate(self._handle, start)
                os.write(self._handle, content)
        finally:
            os.fsync(self._handle)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


def _lock(handle: int) -> bool:
    """Take the lock of an open file, until it is closed; False where another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _overwrite(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


# --- an object store --------------------------------------------------------------------------------------------------


class ObjectStore(Storage):
    """Objects below a URL, by fsspec; S3, GCS and Azure by pyarrow where their package for fsspec is
    not installed. A call that fails is made again, after longer and longer waits."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.system, self.root = _file_system(url)

    def read(self, name: str) -> bytes:
        content: bytes = self._tried(lambda: self.system.cat_file(self._path(name)))
        return content

    def write(self, name: str, content: bytes) -> None:
        self._tried(lambda: self._put(self._path(name), content))

    def _put(self, path: str, content: bytes) -> None:
        # Most stores have no folders; those of files do.
        self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.system.pipe_file(path, content)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._tried(lambda: self.system.rm_file(self._path(name)))

    def names(self, folder: str = "") -> list[str]:
        path = self._path(folder)

        def listed() -> list[str]:
            self.system.invalidate_cache()
            return [str(entry) for entry in self.system.ls(path, detail=False)]

        try:
            entries = self._tried(listed)
        except FileNotFoundError:
            return []
        here = path.strip("/")
        return sorted({e.rstrip("/").rpartition("/")[2] for e in entries if e.strip("/") != here})

    def journal(self, name: str) -> Journal:
        return _Segments(self, name)

    def zarr(self, name: str) -> Any:
        storage = optional("zarr.storage", extra="run", needs=_NEEDS)
        mapper = self.system.get_mapper(self._path(name))
        return storage.FsspecStore.from_mapper(mapper, read_only=True)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """There is no lock: a driver is known by its signs of life. Two that begin in the same
        second may both go on, and then do some shards twice, with the same bytes."""
        token = secrets.token_hex(8)

        def beat() -> None:
            me = {"host": socket.gethostname(), "pid": os.getpid(), "token": token}
            self.write(name, json.dumps({**me, "time": time.time()}).encode())

        try:
            content = self.read(name)
        except FileNotFoundError:
            content = b""
        host, pid = _driver_of(content)
        if host and _fresh(content) and not _is_dead(host, pid):
            raise _occupied(self.url, host, pid)
        beat()
        try:
            with _beating(beat):
                yield
        finally:
            with contextlib.suppress(OSError):
                self.write(name, b"")

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _tried(self, call: Callable[[], T]) -> T:
        """Make a call, again where it fails.

        Raises:
            OSError: where it fails each time.
        """
        wait = _FIRST_WAIT
        for left in reversed(range(_TRIES)):
            try:
                return call()
            except _FINAL:
                raise
            except Exception as error:  # stores and networks raise kinds of their own
                if not left:
                    raise OSError(
                        errno.EIO, f"{type(error).__name__}: {error}", self.url
                    ) from error
            # Workers that failed together do not come back together.
            time.sleep(random.SystemRandom().uniform(wait / 2, wait))
            wait = min(2 * wait, _LONGEST_WAIT)
        raise AssertionError


class _Segments(Journal):
    """Objects of a few hundred lines, the last of which is put again with each line that comes."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.store, self.name = store, name
        self.number, self.lines = 0, list[str]()

    def append(self, line: str) -> None:
        self.lines.append(line)
        content = "".join(self.lines).encode()
        self.store.write(f"{self.name}-{self.number:06d}.jsonl", content)
        if len(self.lines) == _LINES_OF_A_SEGMENT:
            self.number, self.lines = self.number + 1, []

    def close(self) -> None:
        self.lines = []


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    core = optional("fsspec.core", extra="run", needs="A run in an object store")
    try:
        system, path = core.url_to_fs(url)
    except ImportError as error:
        arrow = _arrow_file_system(url)
        if arrow is None and url.startswith("s3://"):
            raise MissingExtra("s3fs", "run-s3", "A run in S3") from error
        if arrow is None:
            raise InputError(f"{url} cannot be opened: {error}") from error
        system, path = arrow
    except ValueError as error:
        raise InputError(f"{url} is no place that fsspec knows: {error}.") from error
    return system, str(path).rstrip("/")


def _arrow_file_system(url: str) -> tuple[Any, str] | None:
    """The same by pyarrow, which has clients of the usual stores built in."""
    fs = optional("pyarrow.fs", extra="run", needs="A run in an object store")
    wrapped = optional("fsspec.implementations.arrow", extra="run", needs=_NEEDS)
    try:
        system, path = fs.FileSystem.from_uri(url)
    except (ValueError, OSError, NotImplementedError):
        return None
    return wrapped.ArrowFSWrapper(system), path


# --- drivers ----------------------------------------------------------------------------------------------------------


@contextmanager
def _beating(beat: Callable[[], None]) -> Iterator[None]:
    """Signs of life while this lasts, from a thread of their own: the driver may wait for long."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(_HEARTBEAT):
            with contextlib.suppress(OSError):
                beat()

    thread = threading.Thread(target=go_on, name="integrand-run-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_HEARTBEAT)


def _driver_of(content: bytes) -> tuple[str, int | None]:
    """Host and process of a driver that wrote down who it is; no host where none did."""
    try:
        other = json.loads(content or b"{}")
        host, pid = str(other.get("host", "")), other.get("pid")
    except (ValueError, AttributeError, RecursionError):  # killed while it wrote
        return "", None
    return host, pid if isinstance(pid, int) else None


def _fresh(content: bytes) -> bool:
    """Whether a driver's last sign of life is not long ago, whichever way clocks went since."""
    stamp = json.loads(content).get("time")
    return isinstance(stamp, int | float) and abs(time.time() - stamp) < _STALE


def _is_dead(host: str, pid: int | None) -> bool:
    """Whether a driver ran on this machine, and is gone."""
    if host != socket.gethostname() or pid is None or os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


def _occupied(url: str, host: str, pid: int | None) -> InputError:
    return InputError(
        f"{url} is being computed by process {pid} on {host}: wait for it, or stop it."
    )
