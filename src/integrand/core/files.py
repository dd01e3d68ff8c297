"""Atomic writing of files, and file names that are valid on every disk.

    with whole("index.html") as partial:      a file of another name in the same folder,
        partial.write_text(page)              which takes its place once it is complete and on the
                                              disk

Whatever goes wrong meanwhile (a full disk, Ctrl-C, a kill), the earlier file stands as it stood.
What the system refuses is an ``OSError`` with its number and the name that was asked for, also
where a package tells of it in words alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError

NAME_BYTES = 120
"""Of a picture's part in a file's name: with what is put behind it, it stays below the 143 bytes of
the strictest file systems."""

_FLAGS = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A file to write in place of ``path``, which it becomes at the end; its ending is that of
    ``path``.

    Links are followed; what is no ordinary file (``/dev/stdout``) is written to as it is.

    Raises:
        OSError: that names ``path``.
    """
    target = partial = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not target.exists() or target.is_file():
            partial = target.with_name(f".{secrets.token_hex(8)}.partial{target.suffix[:16]}")
            # Made with the umask's permissions, where tempfile's would be the owner's alone.
            os.close(os.open(partial, _FLAGS, 0o666))
        yield partial
        if partial != target:
            _to_disk(partial)
            partial.replace(target)
    except BaseException as error:
        if partial != target:
            with contextlib.suppress(OSError):
                partial.unlink()
        if (
            not isinstance(error, OSError)
            or error.errno is None
            or error.filename not in (None, str(partial))
        ):
            raise
        raise type(error)(error.errno, os.strerror(error.errno), str(path)) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    Raises:
        OSError: where the disk refuses.
    """
    with whole(path) as partial:
        partial.write_text(text, "utf-8")


def write_tensors(
    save_file: Callable[..., Any], tensors: object, path: str | Path, header: dict[str, str]
) -> None:
    """Write tensors by ``safetensors.torch.save_file``, whole or not at all.

    Raises:
        OSError: where the disk refuses.
    """
    with whole(path) as partial:
        try:
            save_file(tensors, str(partial), metadata=header)
        except Exception as error:  # of a kind of its own, which is no OSError
            refused = re.search(r"\(os error (\d+)\)", str(error))
            if refused is None:
                raise
            number = int(refused[1])
            raise OSError(number, os.strerror(number), str(path)) from error


def read_tensors(
    safe_open: Callable[..., Any], path: str | Path
) -> tuple[dict[str, str], dict[str, Any]]:
    """The header and the tensors of a file, by ``safetensors.safe_open``.

    Raises:
        InputError: for a file that is not there, or is none of safetensors.
    """
    if not Path(path).is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except Exception as error:  # safetensors raises its own kinds, unnamed in its stubs
        raise unreadable(path, error) from error


def unreadable(path: str | Path, error: Exception) -> InputError:
    """What is said of a file that is none of safetensors."""
    return InputError(f"{str(path)!r} cannot be read as a safetensors file: {error}")


def fitting(name: str, key: str = "") -> str:
    """A name that fits into a file's name: a long one is cut, and told apart by a hash of it and of
    ``key``.

    >>> fitting("cat"), len(fitting("c" * 300)), fitting("c" * 300, "a") == fitting("c" * 300, "b")
    ('cat', 120, False)
    """
    if len(name.encode()) <= NAME_BYTES:
        return name
    mark = "-" + hashlib.blake2b(f"{name}\0{key}".encode(), digest_size=6).hexdigest()
    return name.encode()[: NAME_BYTES - len(mark)].decode("utf-8", "ignore") + mark


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a rename is not before that."""
    with contextlib.suppress(OSError):  # Windows cannot, nor some file systems of a network
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --- lines that are added one by one ------------------------------------------------------------------------------------


def appended(path: str | Path, record: Mapping[str, Any], *, sync: bool = True) -> None:
    """Add a line to a file and wait until it is on the disk; a line that does not fit is taken back.

    The line is JSON behind a hash of it, so that one that was cut off by a kill is known for none.

    Raises:
        OSError: where the disk refuses.
    """
    text = json.dumps(record, separators=(",", ":"))
    line = f"{digest(text.encode())} {text}\n".encode()
    handle = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        start = os.lseek(handle, 0, os.SEEK_END)
        if start:
            os.lseek(handle, start - 1, os.SEEK_SET)
            if os.read(handle, 1) != b"\n":
                line = b"\n" + line  # a line before it was cut off
        try:
            written = 0
            while written < len(line):
                written += os.write(handle, line[written:])
            if sync:
                os.fsync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, start)
            raise
    except OSError as error:
        raise type(error)(error.errno, os.strerror(error.errno or 0), str(path)) from error
    finally:
        os.close(handle)


def checked_lines(path: str | Path) -> list[str]:
    """The lines of JSON that ``appended`` wrote into a file, without those that are cut off or
    damaged; none where there is no file."""
    try:
        content = Path(path).read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    pairs = (line.partition(" ") for line in content.split("\n"))
    return [text for mark, _, text in pairs if text and mark == digest(text.encode())]


def take_lock(handle: int, *, wait: bool = False) -> bool:
    """Take the lock of an open file, until it is closed; False where another process has it.

    The lock is the kernel's: whatever kills a process releases it. Systems without one have none.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system of a network that has no locks
        return True
    return True


def is_locked(path: str | Path) -> bool:
    """Whether another process holds the lock of a file at present.

    Raises:
        OSError: where there is no such file.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        return not take_lock(handle)
    finally:
        os.close(handle)


def digest(content: bytes) -> str:
    """A hash of some bytes, 32 digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def digest_of_file(path: str | Path) -> str:
    """A hash of a file's content, 32 digits.

    Raises:
        OSError: where it cannot be read.
    """
    with Path(path).open("rb") as file:
        hashed = hashlib.blake2b(digest_size=16)
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest()


def _to_disk(file: Path) -> None:
    """Wait until a file is on the disk: some file systems say only then that there was no room."""
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
