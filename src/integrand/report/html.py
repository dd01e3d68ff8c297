"""Attributions as HTML: a fragment for notebooks, a page for a meeting.

A page is one file: styles and pictures inside, no script, nothing fetched from anywhere, light or
dark as the reader's system is, fit to print. (The page of all pictures of a folder is
``overview``'s.) The template escapes every text; the only markup it is
given is its own.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any

import torch

from ..core.formatting import number, percent
from ..core.optional import optional
from ..core.shapes import describe
from ..errors import InputError, MissingExtra
from ..integration.attribution import Attribution, mapped
from .arrays import data_uri, display_image, is_image, limit_of, pixel_map
from .colours import Numbers, Pixels, overlay_rgb, ramp, signed_rgb
from .formatting import INCOMPLETE, gap_of, incomplete, target_of, unsettled
from .views import MANY, MethodView, check, families_of, result

_THUMBNAILS = 8
SMALL = 96  # pictures with a shorter side than this are shown pixel by pixel


@dataclass(frozen=True)
class Case:
    """One photograph explained.

    Args:
        predictions: of the model: (class, probability), likeliest first.
        target: the scalar explained, in words.
        results: by method name, each the attribution of this one image, or of a layer whose maps
            have places.
        remarks: by method name, what a reader of the map has to know of how it was computed.
        left_out: by method name, why there is no map.
        picture: (H, W, 3) in [0, 1], the image as a person sees it; left out, it is read off the
            first result.
        brief: methods were set up to take little, and not as their papers do.
    """

    name: str
    predictions: Sequence[tuple[str, float]]
    target: str
    results: Mapping[str, Attribution]
    remarks: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    picture: Numbers | None = None
    brief: bool = False

    @property
    def photograph(self) -> Numbers:
        """The image as a person sees it (H, W, 3)."""
        return (
            display_image(next(iter(self.results.values())), 0)
            if self.picture is None
            else self.picture
        )


@dataclass(frozen=True)
class _CaseView:
    name: str
    target: str
    photograph: str
    pixelated: bool
    output: str
    predictions: tuple[tuple[str, float, str], ...]
    results: tuple[MethodView, ...]
    families: tuple[tuple[str, tuple[MethodView, ...]], ...]
    left_out: tuple[tuple[str, str], ...]
    brief: bool


def page(cases: Sequence[Case], *, title: str, home: str = "") -> str:
    """Cases as one self-contained HTML file, which leads back to the page ``home`` where there is
    one.

    Raises:
        MissingExtra: without jinja2 or pillow.
        InputError: for results that are not of one image, and for cases without results.
        ShapeError: for maps that do not fit the image.
    """
    text: str = (
        environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            cases=[_case(case) for case in cases],
            signed=", ".join(ramp("signed")[1]),
            overlay=", ".join(ramp("overlay")[1]),
            incomplete=f"{100 * INCOMPLETE:.0f} %",
            versions={"integrand": metadata.version("integrand"), "torch": torch.__version__},
            home=home,
        )
    )
    return text


def without_home(text: str) -> str:
    """A page without the link to the one of all pictures: there is only this one."""
    return _HOME.sub("", text, count=1)


_HOME = re.compile(r"<!-- home -->.*?<!-- /home -->\n?", re.S)


def environment() -> Any:
    """The templates: every text is escaped, what is not defined is an error.

    Raises:
        MissingExtra: without jinja2.
    """
    return _environment(optional("jinja2", extra="report", needs="A page"))


@cache
def _environment(jinja2: ModuleType) -> Any:
    """Made once: templates are compiled in a third of the time that a page takes."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _case(case: Case) -> _CaseView:
    if not case.results:
        raise InputError(
            f"The case {case.name!r} has no results: give it at least one attribution."
        )
    for name, attribution in case.results.items():
        check(name, attribution)
    first, photograph = next(iter(case.results.values())), case.photograph
    results = tuple(
        result(name, attribution, photograph, case.remarks.get(name, ""))
        for name, attribution in case.results.items()
    )
    families = (
        families_of(results, lambda result_view: result_view.row.name)
        if len(results) >= MANY
        else ()
    )
    return _CaseView(
        case.name,
        case.target,
        data_uri(photograph),
        min(photograph.shape[:2]) < SMALL,
        number(float(first.output[0])),
        tuple((name, float(p), percent(float(p))) for name, p in case.predictions),
        results,
        families,
        tuple(case.left_out.items()),
        case.brief,
    )


# --- notebooks --------------------------------------------------------------------------------------------------------

STYLE = (
    "<style>.integrand{font:13px/1.45 system-ui,sans-serif}.integrand table{border-collapse:collapse;margin:.4em 0}"
    ".integrand td,.integrand th{padding:.2em .8em .2em 0;text-align:right;font-variant-numeric:tabular-nums;vertical-align:middle}"
    ".integrand th{font-weight:600;opacity:.7}.integrand td:first-child,.integrand th:first-child,.integrand .text{text-align:left}"
    ".integrand img{height:72px;margin-right:3px;border-radius:2px;vertical-align:middle;image-rendering:auto}"
    ".integrand .pixels{image-rendering:pixelated}.integrand .bad{color:#d1004b;font-weight:600}"
    ".integrand small{opacity:.75}.integrand code{font-size:12px}</style>"
)


def fragment(attribution: Attribution) -> str:
    """An attribution in a notebook: up to eight examples with output, change, residual, gap, error
    and thumbnails.

    Needs nothing beyond the core; without pillow there are no thumbnails, and it says so.
    """
    shown = range(min(len(attribution), _THUMBNAILS))
    pictures, remark = _thumbnails(attribution, len(shown))
    head = ["example", *(["input, overlay, map"] if pictures else []), "F(x)", "change", "residual"]
    head += ["gap", "estimated error", "target"]
    rows = [_row(attribution, i, pictures) for i in shown]
    if len(attribution) > len(shown):
        rows.append(
            f'<tr><td colspan="{len(head)}">… and {len(attribution) - len(shown)} more</td></tr>'
        )
    head_cells = "".join(f"<th{_text(name)}>{name}</th>" for name in head)
    return (
        f'{STYLE}<div class="integrand"><code>{html.escape(repr(attribution.method))}</code>'
        f"<table><tr>{head_cells}</tr>{''.join(rows)}</table><small>{remark}{_effort(attribution)}</small></div>"
    )


def _text(name: str) -> str:
    return ' class="text"' if name in ("target", "input, overlay, map") else ""


def _row(attribution: Attribution, i: int, pictures: Sequence[str]) -> str:
    residual = number(float(attribution.residual[i])) if attribution.claims_completeness else "–"
    units = float(attribution.residual_in_errors[i])
    if units == units and attribution.claims_completeness:  # chance decides
        residual += f" ({number(units)} standard errors)"
    change = float((attribution.weights[:, i] * attribution.change[:, i]).sum())
    cells = [
        f"<td>{i}</td>",
        *([f'<td class="text">{pictures[i]}</td>'] if pictures else []),
        *(f"<td>{number(v)}</td>" for v in (float(attribution.output[i]), change)),
        f"<td>{residual}</td>",
        f"<td>{_marked('incomplete', gap_of(attribution, i), when=incomplete(attribution, i))}</td>",
        f"<td>{_marked('not converged', percent(float(attribution.error[i])), when=unsettled(attribution, i))}</td>",
        f'<td class="text">{html.escape(target_of(attribution, i))}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _marked(word: str, text: str, *, when: bool) -> str:
    return f'<span class="bad">▲ {word} {text}</span>' if when else text


def _thumbnails(attribution: Attribution, count: int) -> tuple[list[str], str]:
    """The pictures of each example, and what to know of them."""
    if not is_image(attribution):
        shape: Any = mapped(lambda t: describe(t.shape), attribution.values)
        return [], f"values {html.escape(str(shape))} · "
    maps = [pixel_map(attribution, i) for i in range(count)]
    limit = limit_of(maps)
    try:
        thumbnails = [_pictures(attribution, i, maps[i], limit) for i in range(count)]
    except MissingExtra as missing:
        return [], f"{html.escape(str(missing))} · "
    return (
        thumbnails,
        f"orange raises F, blue lowers it; colours end at ±{number(limit)} for all examples · ",
    )


def _pictures(attribution: Attribution, i: int, values: Numbers, limit: float) -> str:
    photograph = display_image(attribution, i)
    shown: tuple[Pixels | Numbers, ...] = (
        photograph,
        overlay_rgb(photograph, values, limit),
        signed_rgb(values, limit),
    )
    style = "pixels" if min(values.shape) < SMALL else ""
    names = ("input", "overlay", "map")
    return "".join(
        f'<img class="{style}" alt="{name} {i}" src="{data_uri(picture, 144)}">'
        for name, picture in zip(names, shown, strict=True)
    )


def _effort(attribution: Attribution) -> str:
    cost = dataclasses.asdict(attribution.cost)
    return (
        "{gradients:,} gradients, {values:,} values, {calls:,} model calls, {seconds:.2f} s".format(
            **cost
        )
    )
