"""The citations file: every entry is whole, under a key of its own, and ships with the package."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import torch

import integrand as ig
from integrand.methods import registry
from integrand.methods.citations import BIBTEX, bibtex

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
    venue = {"inproceedings": "booktitle", "article": "journal", "misc": "eprint"}[
        entry[1 : entry.index("{")]
    ]
    assert field(entry, venue)
    # The file's own key says the year of the paper.
    assert field(entry, "year") in key


@EVERY
def test_authors_are_written_out(key: str) -> None:
    authors = (field(bibtex(key), "author") or "").split(" and ")
    unnamed = [author for author in authors if not re.fullmatch(r"[^,]+, [^,]{2,}", author)]
    assert unnamed == []
    initials = [author for author in authors if re.fullmatch(r"[^,]+, (\w\. ?)+", author)]
    assert initials == (
        [] if key != "kamalov2026pathsampled" else ["Sivaraj, R."]
    )  # so in the paper itself


def test_accents_are_what_bibtex_reads() -> None:
    assert "Vi{\\'e}gas, Fernanda" in bibtex("smilkov2017smoothgrad")
    assert "Vi{\\'e}gas, Fernanda" in bibtex("kapishnikov2019xrai")


def test_the_file_is_the_whole_of_it() -> None:
    text = resources.files("integrand.methods").joinpath("citations.bib").read_text("utf-8")
    assert "\n\n".join(BIBTEX.values()) + "\n" == text
    assert len(re.findall("^@", text, re.MULTILINE)) == len(BIBTEX)


# --- methods of others ------------------------------------------------------------------------------------------------

OWN = "@article{me2026,\n  title = {Arcs},\n  author = {Me, Myself},\n  year = {2026}\n}"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are published in a test are gone after it."""
    monkeypatch.setattr(registry, "_PUBLISHED", dict(registry._PUBLISHED))


def publish(**options: str) -> None:
    card = {"title": "Arcs", "key": "me2026", "formula": "∫ ∇F dγ", "cost": "n gradients"}

    @ig.methods.published(**card, axioms=ig.methods.axioms(inside=False), **options)  # type: ignore[arg-type]
    def arc(baseline: float = 0.0, *, nodes: int = 8) -> ig.Method:
        return ig.Method(ig.baselines.Constant(baseline), rule=ig.rules.GaussLegendre(nodes))


@pytest.mark.usefixtures("shelf")
def test_a_method_of_others_brings_its_citation() -> None:
    publish(citation=OWN + "\n")
    card = ig.methods.about("arc")
    assert card.citation == OWN
    assert card.axioms["complete"]
    assert not card.axioms["within the box"]
    assert (card.measured, card.defaults) == (None, {"baseline": 0.0, "nodes": 8})
    x = torch.ones(2, 3)
    made = ig.explain(
        lambda z: z.square().sum(1), x, target=ig.targets.Output(), method="arc", nodes=2
    )
    torch.testing.assert_close(made.values, x)
    with pytest.raises(ig.errors.InputError, match="nodes"):
        ig.methods.about("arc").build(nodes=2.5)


@pytest.mark.usefixtures("shelf")
def test_without_a_citation_there_is_the_title_under_the_key() -> None:
    publish()
    assert ig.methods.about("arc").citation == "@misc{me2026,\n  title = {Arcs}\n}"


@pytest.mark.parametrize(
    "wrong", ["Me, Arcs, 2026", "@article{you2026, title = {Arcs}}", "@article me2026"]
)
@pytest.mark.usefixtures("shelf")
def test_a_citation_is_an_entry_under_its_key(wrong: str) -> None:
    with pytest.raises(
        ig.errors.InputError, match="citation= is a BibTeX entry under key='me2026'"
    ):
        publish(citation=wrong)
    assert "arc" not in ig.methods.known()
