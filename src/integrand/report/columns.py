"""Pictures of tables: waterfalls of single examples; swarms, importance and dependence of many.

``figures.plot`` decides what is drawn; numbers come from ``tables.results``. Imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..core.formatting import number, shortened
from ..core.frames import Cell
from ..errors import InputError, UnknownName
from ..integration.attribution import Attribution
from ..tables.importance import Importance
from ..tables.results import as_table, feature_values, importance
from .colours import Numbers
from .formatting import NAME, cell_text, labelled
from .panels import INK, LOWERS, MUTED, RAISES, Picture

_BAR = 0.24  # inches of a bar
_POINTS = 2_000  # points of a swarm's row
_LOW, _HIGH, _NO_NUMBER = "#3b6fb6", "#d6604d", "#a9adb3"
_SCALE = LinearSegmentedColormap.from_list("low to high", [_LOW, "#c9b6c4", _HIGH])


# --- one example ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One bar of a waterfall: from where to where, and what it is."""

    label: str
    start: float
    end: float
    kind: str


@dataclass(frozen=True)
class Waterfall:
    """From F at the baseline to F(x), one step for each column, the largest first; what the map
    misses is a step of its own."""

    attribution: Attribution
    shown: Sequence[int]
    top: int

    widths = (6.6,)

    @property
    def height(self) -> float:
        return 0.75 + _BAR * max(len(self.steps[example]) for example in self.shown)

    @cached_property
    def steps(self) -> dict[int, list[Step]]:
        """The steps of every example drawn, from the baseline on."""
        table = as_table(self.attribution)
        cells = feature_values(table)
        return {example: self._steps(table, cells, example) for example in self.shown}

    def _steps(
        self, table: Attribution, cells: dict[str, tuple[Cell, ...]], example: int
    ) -> list[Step]:
        lengths = table.values[example].detach().double().cpu().numpy()
        names = list(cells)
        order = np.argsort(-np.abs(lengths), kind="stable")
        largest = order if len(order) <= self.top + 1 else order[: self.top]
        pieces = [(labelled(names[i], cells[names[i]][example]), lengths[i], "") for i in largest]
        if len(largest) < len(order):
            smaller = order[self.top :]
            pieces.append((f"{len(smaller)} others", lengths[smaller].sum(), "others"))
        base, output = float(table.base[example]), float(table.output[example])
        missed = output - base - lengths.sum()
        if abs(missed) > 1e-3 * max(abs(output - base), float(np.abs(lengths).max(initial=0))):
            pieces.append(("not explained", missed, "residual"))
        steps, at = [], base
        for label, length, kind in pieces:
            steps.append(Step(label, at, at + length, kind))
            at += length
        return steps

    def draw(self, axes: Sequence[Axes], example: int) -> None:
        """The steps, from the top down, and the two values between which they lead."""
        (panel,) = axes
        steps = self.steps[example]
        ends = [value for step in steps for value in (step.start, step.end)]
        low, high = min(ends), max(ends)
        room = 0.16 * ((high - low) or 1.0)
        for y, step in enumerate(steps):
            self._bar(panel, y, step)
            if y + 1 < len(steps):
                panel.plot([step.end] * 2, [y - 0.36, y + 1.36], color=MUTED, linewidth=0.6)
        labels = [step.label for step in steps]
        panel.set_yticks(range(len(steps)), labels, fontsize=7.5, color=INK, parse_math=False)
        panel.set_ylim(len(steps) + 0.1, -1.1)
        panel.set_xlim(low - room, high + room)
        self._value(panel, float(self.attribution.base[example]), -0.62, "baseline")
        self._value(panel, float(self.attribution.output[example]), len(steps) - 0.3, "F(x)")
        panel.tick_params(length=0, labelsize=7, labelcolor=MUTED)
        panel.tick_params(axis="y", labelsize=7.5, labelcolor=INK)
        for side in panel.spines.values():
            side.set_visible(False)

    def _bar(self, axes: Axes, y: int, step: Step) -> None:
        length = step.end - step.start
        colour = {"others": MUTED, "residual": "white"}.get(
            step.kind, RAISES if length > 0 else LOWERS
        )
        edge = MUTED if step.kind == "residual" else "none"
        axes.barh(
            y,
            length,
            left=step.start,
            height=0.72,
            color=colour,
            edgecolor=edge,
            hatch="////" if step.kind == "residual" else None,
        )
        axes.annotate(
            number(length, signed=True),
            (step.end, y),
            (3 if length >= 0 else -3, 0),
            textcoords="offset points",
            fontsize=6.5,
            color=MUTED,
            va="center",
            ha="left" if length >= 0 else "right",
        )

    @staticmethod
    def _value(axes: Axes, value: float, y: float, name: str) -> None:
        axes.axvline(value, color=MUTED, linewidth=0.6, linestyle=(0, (3, 2)), zorder=0)
        axes.text(
            value, y, f"{name} {number(value)}", fontsize=7, color=INK, ha="center", va="center",
            parse_math=False, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
        )  # fmt: skip

    def legend(self, figure: Figure, axes: NDArray[Any]) -> None:
        """What a step means, under the last of them."""
        axes[-1][0].set_axis_off()
        axes[-1][0].text(
            0.5,
            0.5,
            "contribution to F: orange raises it, blue lowers it",
            fontsize=7,
            color=MUTED,
            ha="center",
            va="center",
            transform=axes[-1][0].transAxes,
        )


# --- many examples ----------------------------------------------------------------------------------------------------


def draw_importance(attribution: Attribution, top: int) -> Figure:
    """Mean |contribution| of every column, with its 95 % interval."""
    return importance_bars(importance(attribution), top)


def importance_bars(ranked: Importance, top: int) -> Figure:
    """The ``top`` columns as bars, with their 95 % intervals."""
    shown = min(top, len(ranked))
    figure, axes = _figure(shown)
    mean = ranked.importance.numpy()[:shown]
    low, high = ranked.low.numpy()[:shown], ranked.high.numpy()[:shown]
    at = np.arange(shown)
    axes.barh(at, mean, color=RAISES, height=0.66)
    if not np.isnan(low).any():
        axes.errorbar(
            mean, at, xerr=np.stack([mean - low, high - mean]), fmt="none", ecolor=INK, elinewidth=0.9,
            capsize=2.2,
        )  # fmt: skip
    longest = float(np.nanmax(np.append(high, mean), initial=0.0)) or 1.0
    for y, (value, end) in enumerate(zip(mean, np.where(np.isnan(high), mean, high), strict=True)):
        axes.annotate(number(value), (end, y), (4, 0), textcoords="offset points", fontsize=6.5,
                      color=MUTED, va="center")  # fmt: skip
    axes.set_xlim(0, 1.16 * longest)
    _rows(axes, ranked.names[:shown])
    interval = ", 95 % interval" if ranked.examples > 1 else ""
    axes.set_xlabel(
        f"mean |contribution to F| over {_examples(ranked.examples)}{interval}{_left_out(len(ranked), shown)}",
        fontsize=7.5,
        color=MUTED,
    )
    return figure


def draw_beeswarm(attribution: Attribution, top: int) -> Figure:
    """A point for every example in the row of each column, coloured by the column's value."""
    table = as_table(attribution)
    ranked, cells = importance(table), feature_values(table)
    shown = min(top, len(ranked))
    figure, axes = _figure(shown, 0.36, scale=True)
    names = list(cells)
    values = table.values.detach().double().cpu().numpy()
    span = float(np.abs(values).max(initial=0.0)) or 1.0
    for y, name in enumerate(ranked.names[:shown]):
        lengths = values[:, names.index(name)]
        rows = _sample(len(lengths))
        shade = _shades(cells[name])[rows]
        numeric = ~np.isnan(shade)
        offsets = y - _swarm(lengths[rows], span)
        colours = np.where(numeric[:, None], _SCALE(np.nan_to_num(shade)), to_rgba(_NO_NUMBER))
        axes.scatter(lengths[rows], offsets, c=colours, s=9, linewidths=0, rasterized=True)
    axes.axvline(0, color=INK, linewidth=0.6, zorder=0)
    _rows(axes, ranked.names[:shown])
    axes.set_xlabel(
        f"contribution to F, {_examples(len(values))}{_left_out(len(ranked), shown)}",
        fontsize=7.5,
        color=MUTED,
    )
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), _SCALE), ax=axes, ticks=[0, 1], aspect=32, pad=0.02
    )
    bar.ax.set_yticklabels(["low", "high"], fontsize=7, color=INK)
    bar.ax.tick_params(length=0)
    bar.set_label("value of the column; words are grey", fontsize=7, color=MUTED)
    bar.outline.set_visible(False)
    return figure


def draw_dependence(attribution: Attribution, feature: str | None) -> Figure:
    """Contribution of one column over its value, a point for every example."""
    table = as_table(attribution)
    cells = feature_values(table)
    names = list(cells)
    if feature is None:
        feature = importance(table).names[0]
    if feature not in cells:
        raise UnknownName("column", feature, names)
    lengths = table.values[:, names.index(feature)].detach().double().cpu().numpy()
    figure = Picture(5.6, 3.6)
    axes = figure.subplots()
    column = cells[feature]
    if all(cell is None for cell in column):
        raise InputError(
            f"Column {feature!r} is a sum of several and has no value of its own to be drawn over: give one of its columns."
        )
    if any(isinstance(cell, str) for cell in column):
        labels = sorted({cell_text(cell) for cell in column})
        places = np.array([labels.index(cell_text(cell)) for cell in column], float)
        axes.set_xticks(range(len(labels)), labels, parse_math=False)
        places = places + 0.5 * _swarm(np.zeros(len(places)), 1.0)
    else:
        places = np.array([np.nan if cell is None else cell for cell in column], float)
    rows = _sample(len(places))
    axes.axhline(0, color=INK, linewidth=0.6, zorder=0)
    axes.scatter(places[rows], lengths[rows], s=11, linewidths=0, color=RAISES, alpha=0.75)
    axes.set_xlabel(shortened(feature, 40), fontsize=8, color=INK, parse_math=False)
    axes.set_ylabel("contribution to F", fontsize=8, color=MUTED)
    _plain(axes)
    return figure


def _figure(rows: int, each: float = _BAR, *, scale: bool = False) -> tuple[Figure, Axes]:
    figure = Picture(6.9 if scale else 6.2, 0.7 + each * rows)
    return figure, figure.subplots()


def _rows(axes: Axes, names: Sequence[str]) -> None:
    labels = [shortened(name, NAME) for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=7.5, color=INK, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _plain(axes)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", labelsize=7.5, labelcolor=INK)


def _plain(axes: Axes) -> None:
    axes.grid(color="#e4e4df", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=7, labelcolor=MUTED)
    for side in axes.spines.values():
        side.set_visible(False)


def _examples(count: int) -> str:
    drawn = f", {_POINTS:,} of them drawn" if count > _POINTS else ""
    return f"{count:,} example{'s' * (count != 1)}{drawn}"


def _left_out(count: int, shown: int) -> str:
    return f"; {count - shown} smaller columns are not drawn" if count > shown else ""


def _sample(count: int) -> Numbers:
    """Which examples are drawn: all, or as many as can be told apart, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(int))


def _shades(cells: Sequence[Cell]) -> Numbers:
    """Where each value lies between the column's 5th and 95th percentile, 0 to 1; NaN for words."""
    values = np.array([cell if isinstance(cell, float) else np.nan for cell in cells], float)
    known = values[~np.isnan(values)]
    if not len(known):
        return values
    low, high = np.percentile(known, [5, 95])
    if low == high:
        low, high = known.min(), known.max()
    shades: Numbers = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    return np.where(np.isnan(values), np.nan, 0.5 if low == high else shades)


def _swarm(lengths: Numbers, span: float) -> Numbers:
    """How far points are moved off their row, so that those of one place do not hide each other:
    in layers above and below, the row's densest place filling it."""
    bins = np.round(lengths / span * 90).astype(int)
    layer = np.zeros(len(lengths), int)
    counts: dict[int, int] = {}
    for i, place in enumerate(bins.tolist()):
        layer[i] = counts.get(place, 0)
        counts[place] = layer[i] + 1
    signed = np.where(layer % 2 == 0, layer // 2, -(layer + 1) // 2)
    tallest = max(int(np.abs(signed).max(initial=0)), 6)
    return signed / tallest * 0.4
