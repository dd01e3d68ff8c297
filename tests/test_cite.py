"""The citations file: every entry is whole, under a key of its own, and ships with the package."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from integrand.cite import BIBTEX, bibtex

EVERY = pytest.mark.parametrize("key", list(BIBTEX))


def field(entry: str, name: str) -> str | None:
    found = re.search(rf"^  {name}\s*= {{(.*)}},?$", entry, re.MULTILINE)
    return found and found[1]


@EVERY
def test_entries_are_whole(key: str) -> None:
    entry = bibtex(key)
    assert re.match(r"@(inproceedings|article|misc){" + key + ",\n", entry)
    assert entry.endswith("\n}")
    depth = 0
    for mark in re.sub(r"[^{}]", "", entry):
        depth += 1 if mark == "{" else -1
        assert depth >= 0
    assert depth == 0
    lines = entry.splitlines()[1:-1]
    assert [line for line in lines if not re.fullmatch(r"  \w+\s*= {.*},?", line)] == []
    assert all(line.endswith(",") for line in lines[:-1])
    assert all(field(entry, name) for name in ("title", "author", "year"))
    venue = {"inproceedings": "booktitle", "article": "journal", "misc": "eprint"}[entry[1 : entry.index("{")]]
    assert field(entry, venue)
    # The file's own key says the year of the paper.
    assert field(entry, "year") in key


@EVERY
def test_authors_are_written_out(key: str) -> None:
    authors = (field(bibtex(key), "author") or "").split(" and ")
    unnamed = [author for author in authors if not re.fullmatch(r"[^,]+, [^,]{2,}", author)]
    assert unnamed == []
    initials = [author for author in authors if re.fullmatch(r"[^,]+, (\w\. ?)+", author)]
    assert initials == ([] if key != "kamalov2026pathsampled" else ["Sivaraj, R."])  # so in the paper itself


def test_accents_are_what_bibtex_reads() -> None:
    assert "Vi{\\'e}gas, Fernanda" in bibtex("smilkov2017smoothgrad")
    assert "Vi{\\'e}gas, Fernanda" in bibtex("kapishnikov2019xrai")


def test_the_file_is_the_whole_of_it() -> None:
    text = resources.files("integrand").joinpath("citations.bib").read_text("utf-8")
    assert "\n\n".join(BIBTEX.values()) + "\n" == text
    assert len(re.findall("^@", text, re.MULTILINE)) == len(BIBTEX)
