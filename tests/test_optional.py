"""Packages that only some features need: one sentence says what needs them and how to install them."""

from __future__ import annotations

import sys

import pytest

import integrand as ig
from integrand.core.optional import check_installed, optional


def test_a_module_that_is_there() -> None:
    assert (
        optional("json.decoder", extra="none", needs="A test").JSONDecoder
        is sys.modules["json.decoder"].JSONDecoder
    )
    check_installed({"json": "none", "torch": "none"}, "A test")


@pytest.mark.parametrize(
    ("module", "package", "named"),
    [
        ("PIL.Image", None, "pillow"),
        ("skimage.segmentation", None, "scikit-image"),
        ("no_such_module.part", None, "no_such_module"),
        ("no_such_module", "no-such-package", "no-such-package"),
    ],
)
def test_a_module_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str | None, named: str
) -> None:
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    monkeypatch.delitem(sys.modules, module, raising=False) if "." in module else None
    with pytest.raises(
        ig.errors.MissingExtra,
        match=rf"^A test needs the package '{named}': .*'integrand\[some\]'\.$",
    ):
        optional(module, extra="some", needs="A test", package=package)


def test_what_a_long_run_needs_at_its_end() -> None:
    with pytest.raises(
        ig.errors.MissingExtra,
        match=r"^A run needs the package 'no_such_module': .*'integrand\[late\]'",
    ):
        check_installed({"json": "early", "no_such_module": "late"}, "A run")
