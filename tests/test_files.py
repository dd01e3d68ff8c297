"""Files are written whole or not at all, whatever the disk, the name or the user does meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import torch

import integrand as ig
from integrand.core.files import NAME_BYTES, fitting, whole, write_text
from tests.problems import tanh_mlp, wave


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("earlier")
    with whole(page) as partial:
        partial.write_text("half of it")
        assert page.read_text() == "earlier"
        assert (partial.parent, partial.suffix) == (tmp_path, ".html")
        partial.write_text("all")
    assert page.read_text() == "all"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize(
    "fault", [ValueError("of the writer's"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")]
)
def test_a_fault_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, fault: BaseException
) -> None:
    page = tmp_path / "page.html"
    write_text(page, "earlier")

    def written() -> None:
        with whole(page) as partial:
            partial.write_text("half")
            raise fault

    with pytest.raises(type(fault)) as caught:
        written()
    assert page.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [page]
    if isinstance(fault, OSError):
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(page))


def test_a_disk_that_is_full_only_when_it_is_asked_to_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    write_text(page, "earlier")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(page, "later")
    assert caught.value.filename == str(page)
    assert page.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize(
    ("name", "number"),
    [("folder", errno.EISDIR), ("none/page.html", errno.ENOENT), ("file/page.html", errno.ENOTDIR), ("n" * 300, errno.ENAMETOOLONG)],
)  # fmt: skip
def test_what_the_system_refuses_names_the_file(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:  # noqa: PT011 — the number is looked at
        write_text(tmp_path / name, "text")
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / name))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_an_error_about_another_file_is_not_renamed(tmp_path: Path) -> None:
    def written() -> None:
        with whole(tmp_path / "page.html"):
            (tmp_path / "source").read_text()

    with pytest.raises(FileNotFoundError) as caught:
        written()
    assert caught.value.filename == str(tmp_path / "source")


def test_permissions_are_those_of_any_new_file_and_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    write_text(tmp_path / "ours", "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours")]
    assert modes[0] == modes[1]
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    write_text(tmp_path / "link", "through it")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "ours").read_text() == "through it"
    write_text(os.devnull, "nothing to replace")
    assert not os.path.isfile(os.devnull)


def test_names_fit_and_stay_apart() -> None:
    long, other = "ö" * 200, "ö" * 199 + "x"
    names = [fitting(long), fitting(other), fitting(long, "a/"), fitting(long, "b/")]
    assert all(len(name.encode()) <= NAME_BYTES for name in names)
    assert len(set(names)) == 4
    assert fitting("ö" * 60) == "ö" * 60


# --- what is written so -----------------------------------------------------------------------------------------------


def saved(where: Path) -> None:
    ig.explain(tanh_mlp(), wave(2, 6), target=0).save(where)


def drawn(where: Path) -> None:
    pytest.importorskip("matplotlib")
    ig.explain(tanh_mlp(), wave(2, 6), target=0).plot(path=where)


def compared(where: Path) -> None:
    pytest.importorskip("pyarrow")
    made = ig.compare(
        tanh_mlp(), wave(4, 6), target=0, methods=["integrated", "idgi"], metrics=["deletion"]
    )
    made.scores.to_parquet(where)


def patterned(where: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    ig.fields.Patterns.fit(model, wave(20, 6).float()).save(where)


WRITERS = pytest.mark.parametrize(
    "write", [saved, drawn, compared, patterned], ids=lambda write: write.__name__
)


@WRITERS
def test_everything_that_is_written_is_an_os_error_where_it_cannot_be(
    tmp_path: Path, write: object
) -> None:
    assert callable(write)
    (tmp_path / "folder.png").mkdir()
    long = tmp_path / ("n" * 300 + ".png")
    for where, number in (
        (tmp_path / "folder.png", errno.EISDIR),
        (tmp_path / "none/a.png", errno.ENOENT),
        (long, errno.ENAMETOOLONG),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 — the number is looked at
            write(where)
        assert (caught.value.errno, caught.value.filename) == (number, str(where))


@WRITERS
def test_a_disk_without_room_leaves_what_was_there(tmp_path: Path, write: object) -> None:
    """A limit on the size of files stands for the disk: every writer is refused in the middle of its work."""
    resource = pytest.importorskip("resource")
    assert callable(write)
    where = tmp_path / "kept.png"
    where.write_text("earlier")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 — the number is looked at
            write(where)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(where))
    assert where.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [where]
