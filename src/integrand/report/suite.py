"""Page of suite results: claims with their verdicts, then every run with a link to its own page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.formatting import number, percent, signed_percent
from .html import environment


@dataclass(frozen=True)
class ClaimRow:
    """A claim held against two methods. ``place`` is where share, low and high lie on the scale of
    its table, in per cent."""

    run: str
    metric: str
    method: str
    than: str
    means: str
    share: str
    interval: str
    wins: str
    verdict: str
    place: tuple[float, float, float] | None


@dataclass(frozen=True)
class Claimed:
    """A claim of a source, with the results that it was checked against; ``size`` lies on the scale
    too, from ``low`` to ``high``."""

    text: str
    source: str
    rows: tuple[ClaimRow, ...]
    low: str
    high: str
    size: float | None


def page(told: Mapping[str, Any], pages: Mapping[str, str]) -> str:
    """Results in plain data (``bench.results.as_json``) as one HTML file; ``pages`` are where the
    runs have theirs.

    Raises:
        MissingExtra: without jinja2.
    """
    template = environment().get_template("suite.html.j2")
    text: str = template.render(told=told, claims=claims(told["claims"]), pages=pages)
    return text


def claims(results: Sequence[Mapping[str, Any]]) -> list[Claimed]:
    """Claims as they are grouped on the page, each group on a scale of its own."""
    return [
        _group(text, source, size, rows) for (text, source, size), rows in grouped(results).items()
    ]


def grouped(
    results: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, str, float | None], list[Mapping[str, Any]]]:
    """Results by claim: its text, source and size."""
    groups: dict[tuple[str, str, float | None], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["text"], result["source"], result["size"]), []).append(result)
    return groups


def _group(
    text: str, source: str, size: float | None, rows: Sequence[Mapping[str, Any]]
) -> Claimed:
    # Far ends of intervals are cut off: one ratio of small numbers would make a line of all the
    # others.
    ends = [end for row in rows for end in (row["low"], row["high"]) if end is not None]
    bound = min(1.0, max([0.05, *map(abs, ends), *([size] if size else [])]))

    def place(share: float) -> float:
        position: float = 50 + 50 * max(-1.0, min(1.0, share / bound))
        return position

    claim_rows = tuple(
        ClaimRow(
            row["run"],
            row["metric"],
            row["method"],
            row["than"],
            f"{number(row['ours'])} against {number(row['theirs'])}",
            signed_percent(row["share"]),
            f"{signed_percent(row['low'])} to {signed_percent(row['high'])}",
            f"{percent(row['wins'], decimals=0)} of {row['examples']}",
            row["verdict"],
            None
            if row["share"] is None
            else (place(row["share"]), place(row["low"]), place(row["high"])),
        )
        for row in rows
    )
    return Claimed(
        text,
        source,
        claim_rows,
        signed_percent(-bound),
        signed_percent(bound),
        None if size is None else place(size),
    )
