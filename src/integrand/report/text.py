"""Texts in colour, in a page, a notebook and a terminal: orange raises F, blue lowers it, one scale
for the whole of a text.

Texts come from strangers, so that everything is escaped, and control characters are signs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.files import whole
from ..core.formatting import beside, json_ready, number, percent, shortened
from ..core.visible import visible
from ..text import TextAttribution
from .colours import ink_on, ramp, signed_rgb
from .formatting import gap_of, incomplete, unsettled
from .html import STYLE, environment

_TOP = 12  # words in a list of the strongest
_ROWS = 64  # tokens of a target that are drawn one by one
_WIDE = 96  # columns of a terminal's text


@dataclass(frozen=True)
class TextUnit:
    """A token, a word … as it is drawn: the text before it that belongs to none, and its own."""

    before: str
    text: str
    score: float
    kept: bool
    placed: bool


@dataclass(frozen=True)
class _TextView:
    """A text on a page."""

    target: str
    output: str
    base: str
    change: str
    explained: str
    residual: str
    gap: str
    error: str
    incomplete: bool
    unsettled: bool
    limit: str
    body: str
    kept: str
    top: tuple[tuple[str, str, float, float], ...]
    rows: tuple[tuple[str, str, str, str], ...]
    omitted: int


def units(result: TextAttribution, i: int, scores: Tensor | None = None) -> list[TextUnit]:
    """What is drawn of a text, in its order."""
    text = result.texts[i].text
    shown: list[TextUnit] = []
    cursor = 0
    stays = result.kept[i] if result.granularity == "token" else ()
    names = result.tokens[i]
    numbers = (result.scores[i] if scores is None else scores).tolist()
    spans = result.offsets[i]
    for k in range(len(numbers)):
        start, stop = spans[k]
        placed = stop > start
        before = text[cursor:start] if placed and start > cursor else ""
        name = text[max(start, cursor) : stop] if placed else names[k]
        cursor = max(cursor, stop)
        kept = bool(stays[k]) if stays else False
        shown.append(TextUnit(visible(before), visible(name), numbers[k], kept, placed))
    rest = text[cursor:]
    if rest:
        shown.append(TextUnit(visible(rest), "", 0.0, False, True))
    return shown


def limit_of(scores: Tensor) -> float:
    """Where the colours of a text end: at its largest score."""
    return float(scores.detach().abs().max()) if scores.numel() else 0.0


# --- HTML -------------------------------------------------------------------------------------------------------------


def page(result: TextAttribution, path: str | Path | None, title: str) -> str:
    """Texts as one self-contained HTML file.

    Raises:
        MissingExtra: without jinja2.
        OSError: where the disk refuses.
    """
    text: str = (
        environment()
        .get_template("text.html.j2")
        .render(
            title=visible(title),
            texts=[_view(result, i) for i in range(len(result))],
            granularity=result.granularity,
            method=visible(repr(result.attribution.method)),
            signed=", ".join(ramp("signed")[1]),
            cost=result.attribution.cost,
            versions={"integrand": metadata.version("integrand"), "torch": torch.__version__},
        )
    )
    if path is not None:
        with whole(path) as partial:
            partial.write_text(text, "utf-8")
    return text


def _view(result: TextAttribution, i: int) -> _TextView:
    attribution = result.attribution[i]
    output, base = float(attribution.output[0]), float(attribution.base[0])
    residual = float(attribution.residual[0])
    scores = result.scores[i]
    limit = limit_of(scores)
    kept = [visible(name) for name in result.kept_tokens(i)]
    rows = list(_rows(result, i))
    return _TextView(
        visible(result.targets[i]),
        number(output),
        number(base),
        number(output - base, signed=True),
        number(float(scores.sum()), signed=True),
        beside(residual, output - base),
        gap_of(attribution, 0),
        percent(float(attribution.error[0])),
        incomplete(attribution, 0),
        unsettled(attribution, 0),
        number(limit),
        marked(units(result, i), limit),
        _listed(kept),
        tuple(_bars(result, i)),
        tuple(rows[:_ROWS]),
        len(rows) - len(rows[:_ROWS]),
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"“{shortened(name, 16)}”" for name in names[:12])
    return f"{shown}{f' and {len(names) - 12} more' if len(names) > 12 else ''}"


def _bars(result: TextAttribution, i: int) -> Iterator[tuple[str, str, float, float]]:
    """The strongest words: name, number, and where the bar begins and how wide it is, in per cent of
    a scale from −limit to limit."""
    strongest = result[i].top(_TOP)[0]
    limit = max((abs(entry.score) for entry in strongest), default=0.0)
    for entry in strongest:
        wide = 50 * abs(entry.score) / limit if limit > 0 else 0.0
        begin = 50.0 if entry.score >= 0 else 50 - wide
        name = shortened(visible(" ".join(entry.text.split())) or "␣", 40)
        yield name, number(entry.score, signed=True), begin, wide


def _rows(result: TextAttribution, i: int) -> Iterator[tuple[str, str, str, str]]:
    """Each token of the target: its name, what it adds up to, and the text in its colours, on one
    scale for all of them."""
    if not result.matrices:
        return
    matrix = result.matrix[i]
    limit = limit_of(matrix)
    for name, scores in zip(result.columns[i], matrix, strict=True):
        body = marked(units(result, i, scores), limit)
        yield visible(name), number(float(scores.sum()), signed=True), number(limit), body


def marked(shown: Sequence[TextUnit], limit: float) -> str:
    """Units as HTML: escaped, coloured, with their numbers where one points at them."""
    pieces = []
    for unit, colour in zip(shown, _colours(shown, limit), strict=True):
        pieces.append(escape(unit.before))
        if not unit.text:
            continue
        kind = " ".join(
            name for name, true in (("kept", unit.kept), ("chip", not unit.placed)) if true
        )
        title = f"{unit.text.strip()}: {'kept in place' if unit.kept else number(unit.score, signed=True)}"
        pieces.append(
            f'<span class="unit {kind}" style="background:{_hex(colour)};color:{_hex(ink_on(colour))}" title="{escape(title)}">{escape(unit.text)}</span>'
        )
    return "".join(pieces)


_TEXT_STYLE = (
    "<style>.integrand .words{background:#fbfaf7;color:#17191b;padding:.6em .8em;border-radius:4px;line-height:1.9;white-space:pre-wrap;"
    "overflow-wrap:anywhere;font-size:14px;max-width:80ch}.integrand .unit{border-radius:3px;padding:.12em 0}"
    ".integrand .chip{font:11px ui-monospace,monospace;padding:.1em .35em;margin-right:.25em;border:1px solid #0002}"
    ".integrand .kept{color:#6b7076;text-decoration:underline dotted}</style>"
)


def fragment(result: TextAttribution) -> str:
    """Texts in a notebook: up to eight, each with F, its change, and what the map misses."""
    shown = range(min(len(result), 8))
    blocks = [
        f'<div class="words">{marked(units(result, i), limit_of(result.scores[i]))}</div>'
        f"<small>{escape(visible(result.summary(i)))}</small>"
        for i in shown
    ]
    if len(result) > len(shown):
        blocks.append(f"<small>… and {len(result) - len(shown)} more</small>")
    return (
        f'{STYLE}{_TEXT_STYLE}<div class="integrand">{"".join(blocks)}<small> · orange raises F, blue lowers it; dotted tokens were kept in '
        f"place</small></div>"
    )


# --- terminal and JSON ------------------------------------------------------------------------------------------------


def terminal(result: TextAttribution, colour: bool | None = None) -> str:
    """Texts for a terminal, in colour where it has one."""
    if colour is None:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    blocks = []
    for i in range(len(result)):
        shown = units(result, i)
        limit = limit_of(result.scores[i])
        body = _painted(shown, limit) if colour else _numbered(shown)
        top = "  ".join(
            f"{number(entry.score, signed=True)} {visible(' '.join(entry.text.split()))!r}"
            for entry in result[i].top(8)[0]
        )
        kept = _listed([visible(name) for name in result.kept_tokens(i)])
        lines = [body, visible(result.summary(i)), f"strongest: {top}"]
        blocks.append("\n".join([*lines, *([f"kept in place: {kept}"] if kept else [])]))
    return "\n\n".join(blocks)


def _painted(shown: Sequence[TextUnit], limit: float) -> str:
    pieces: list[str] = []
    for unit, colour in zip(shown, _colours(shown, limit), strict=True):
        gap = " " if not unit.placed and pieces else ""
        style = "2;" if unit.kept else ""
        letters, background = (";".join(map(str, c)) for c in (ink_on(colour), colour))
        ink = f"\x1b[{style}38;2;{letters};48;2;{background}m"
        text = unit.text.replace("\n", "\x1b[0m\n" + ink)
        pieces.append(f"{unit.before}{gap}{ink}{text}\x1b[0m" if unit.text else unit.before)
    return "".join(pieces)


def _colours(shown: Sequence[TextUnit], limit: float) -> list[tuple[int, int, int]]:
    """Red, green and blue of each unit."""
    if not shown:
        return []
    rgb = signed_rgb([[unit.score for unit in shown]], limit)[0].tolist()
    return [(red, green, blue) for red, green, blue in rgb]


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _numbered(shown: Sequence[TextUnit]) -> str:
    """Every unit with its number, without colours."""
    pieces = []
    for unit in shown:
        if unit.text.strip():
            stated = "kept" if unit.kept else number(unit.score, signed=True)
            pieces.append(f"{unit.text.strip()}[{stated}]")
    lines, line = [], ""
    for piece in pieces:
        if line and len(line) + 1 + len(piece) > _WIDE:
            lines.append(line)
            line = ""
        line = f"{line} {piece}" if line else piece
    return "\n".join([*lines, line])


def as_json(result: TextAttribution) -> dict[str, Any]:
    """Everything that is stated of each text, as JSON has it."""
    attribution = result.attribution
    texts = []
    for i, text in enumerate(result.texts):
        stated = {
            "text": text.text,
            "target": result.targets[i],
            "granularity": result.granularity,
            "tokens": result.tokens[i],
            "scores": result.scores[i].tolist(),
            "offsets": result.offsets[i],
            "kept": result.kept_tokens(i),
            "output": float(attribution.output[i]),
            "base": float(attribution.base[i]),
            "residual": float(attribution.residual[i]),
            "gap": float(attribution.gap[i]),
            "error": float(attribution.error[i]),
            "converged": bool(attribution.converged[i]),
        }
        if result.half_precision_error:
            stated["half_precision_error"] = result.half_precision_error[i]
        if result.matrices:
            stated["target_tokens"] = list(result.columns[i])
            stated["matrix"] = result.matrix[i].tolist()
        texts.append(stated)
    cost = attribution.cost
    return {
        "texts": json_ready(texts),
        "method": repr(attribution.method),
        "checkpointed": result.checkpointed,
        "gradients": cost.gradients,
        "seconds": cost.seconds,
        "integrand": metadata.version("integrand"),
    }
