"""Many methods on one picture: the map of each over the photograph, its residual and what it took,
families beside one another.

Every map is summed over the same squares, and its colours end where 1 % of its squares lie beyond:
one rule for all, and a scale for each, for methods hand out amounts of different size. On the
``same_scale`` all maps that are parts of a change of F, and so have its units, share the median of
their scales: who hands out more is stronger. Ranks and credit in other units have no place on it,
and keep their own.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ..core.formatting import number, percent, shortened
from ..core.optional import optional
from ..integration.attribution import Attribution
from .arrays import limit_of, write_figure
from .colours import Numbers, overlay_rgb
from .html import Case
from .views import families_of, regions_of, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 6
_LINE = 36  # characters of a heading over one map
_WIDTH, _HEIGHT, _MORE = 2.15, 3.25, 0.25  # inches of a map with its words, and of one more line
_INK, _MUTED, _ALARM = "#24272b", "#70757d", "#b0003a"


def sheet(case: Case, path: str | Path | None = None, *, same_scale: bool = False) -> Figure:
    """All maps of a case as a figure, also written to ``path``.

    Raises:
        MissingExtra: without matplotlib.
    """
    optional("matplotlib", extra="plot", needs="sheet()")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    photograph = case.photograph
    places = _places([(family, names) for family, names in families_of(case.results, str)])
    rows = 1 + max(row for row, *_ in places)
    height = _HEIGHT + (_MORE if same_scale else 0)  # of a map with its words
    figure = Figure(figsize=(_COLUMNS * _WIDTH, rows * height), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        rows, _COLUMNS, squeeze=False, gridspec_kw={"left": 0.01, "right": 0.99, "top": 1 - 0.85 / (rows * height),
                                                    "bottom": (0.7 if same_scale else 0.45) / (rows * height), "wspace": 0.07, "hspace": 0.68 if same_scale else 0.56},
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_axis_off()
    top = grid[0][0]
    top.imshow(photograph)
    _words(
        top,
        case.name,
        [f"{shortened(name, 30)} {percent(p)}" for name, p in case.predictions[:1]]
        + [f"explained: {case.target}"],
        _INK,
    )
    maps = {name: regions_of(attribution, photograph) for name, attribution in case.results.items()}
    limits = _limits(case, maps, same_scale=same_scale)
    for row, column, family, name in places:
        axes, attribution = grid[row][column], case.results[name]
        axes.imshow(overlay_rgb(photograph, maps[name], limits[name]))
        title, lines, colour = _caption(name, attribution)
        if same_scale:
            scale = "same scale" if attribution.claims_completeness else "its own scale"
            lines.append(f"{scale}: ±{number(limits[name])}")
        _words(axes, title, lines, colour)
        if family:
            axes.text(
                0,
                1.17,
                family,
                transform=axes.transAxes,
                fontsize=8,
                color=_MUTED,
                style="italic",
                parse_math=False,
            )
    if path is not None:
        write_figure(figure, path, dpi=100)
    return figure


def _limits(case: Case, maps: dict[str, Numbers], *, same_scale: bool) -> dict[str, float]:
    """Where the colours of each map end."""
    limits = {name: limit_of([values]) for name, values in maps.items()}
    parts = [name for name, attribution in case.results.items() if attribution.claims_completeness]
    if same_scale and parts:
        limits |= dict.fromkeys(parts, median(limits[name] for name in parts))
    return limits


def _places(families: list[tuple[str, tuple[str, ...]]]) -> list[tuple[int, int, str, str]]:
    """Row, column, family (for its first) and name: a family stays in a row where it fits, after
    the photograph."""
    places, row, column = [], 0, 1
    for family, names in families:
        if column + min(len(names), _COLUMNS) > _COLUMNS:
            row, column = row + 1, 0
        for place, name in enumerate(names):
            if column == _COLUMNS:
                row, column = row + 1, 0
            room = _LINE * min(len(names), _COLUMNS - column)
            places.append((row, column, "" if place else textwrap.fill(family, room), name))
            column += 1
    return places


def _caption(name: str, attribution: Attribution) -> tuple[str, list[str], str]:
    row = summary(name, name, attribution)
    adds_up = (
        f"residual {row.residual} of {row.change} ({row.gap})"
        if row.claimed
        else "adds up: not claimed"
    )
    return name, [adds_up, row.took], _ALARM if row.incomplete else _INK


def _words(axes: object, title: str, lines: list[str], colour: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    axes.set_title(title, loc="left", fontsize=10, color=_INK, pad=4, parse_math=False)
    for place, line in enumerate(lines):
        axes.text(
            0, -0.09 - 0.11 * place, line, transform=axes.transAxes, fontsize=7, parse_math=False,
            color=colour if place == 0 else _MUTED,
        )  # fmt: skip
