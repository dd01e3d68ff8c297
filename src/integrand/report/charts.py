"""Figures of comparisons: curves, distributions, quality against cost. Imports matplotlib; computes
means and quantiles only.

Methods keep their colour in every figure; controls are grey, told apart by their dashes. The
palette is that of Okabe and Ito (2008), which survives the common colour blindnesses, with markers
for those who print in black.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..compare import Comparison
from ..core.options import check_choice
from .colours import Numbers
from .panels import INK, MUTED, Picture

_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c510a", "#5e3c99")
_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ((0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (2, 3)))
_PAGE_INCH = 122  # pixels of a page, so that letters are of one size in all figures
_LEAST = 5  # examples that make a box
_POINTS = 40  # examples that are drawn one by one
_GRID = "#d9d9d4"


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn."""

    colour: str
    line: Any
    marker: str
    filled: bool


def method_styles(comparison: Comparison) -> dict[str, MethodStyle]:
    """Methods in colours, which go round with other dashes; controls in grey."""
    styles: dict[str, MethodStyle] = {}
    controls = comparison.scores.controls
    for i, name in enumerate(name for name in comparison.scores.methods if name not in controls):
        again = i // len(_PALETTE)
        line = "solid" if not again else _DASHES[(again - 1) % len(_DASHES)]
        styles[name] = MethodStyle(
            _PALETTE[i % len(_PALETTE)], line, _MARKERS[i % len(_MARKERS)], not again
        )
    for i, name in enumerate(controls):
        styles[name] = MethodStyle(
            MUTED, _DASHES[i % len(_DASHES)], _MARKERS[i % len(_MARKERS)], False
        )
    return {name: styles[name] for name in comparison.scores.methods}


# --- curves -----------------------------------------------------------------------------------------------------------


def curves(comparison: Comparison, metrics: Sequence[str], *, width: float = 9.0) -> Figure:
    """Mean curves side by side, with the standard error of the mean."""
    curves_by_metric = {name: comparison.scores.curves[name] for name in metrics}
    figure, axes = _figure(len(curves_by_metric), width, 3.3)
    drawn = method_styles(comparison)
    for panel, (metric, curve) in zip(axes, curves_by_metric.items(), strict=True):
        at = np.linspace(0, 1, curve.shape[2])
        for rows, (name, style) in zip(curve, drawn.items(), strict=True):
            rows = rows[~np.isnan(rows).any(1)]
            if not len(rows):
                continue
            mean = rows.mean(0)
            panel.plot(
                at, mean, color=style.colour, linestyle=style.line, linewidth=1.4, label=name
            )
            if len(rows) > 1:
                error = rows.std(0, ddof=1) / len(rows) ** 0.5
                panel.fill_between(
                    at, mean - error, mean + error, color=style.colour, alpha=0.13, linewidth=0
                )
        _framed(panel, f"{metric} ({_better(comparison, metric)})", "fraction of features", "score")
        panel.set_xlim(0, 1)
        panel.margins(y=0.03)
    _legend(figure, axes)
    return figure


# --- distributions ----------------------------------------------------------------------------------------------------


def boxes(comparison: Comparison, metrics: Sequence[str], *, width: float = 9.0) -> Figure:
    """A box for every method: quartiles and median, whiskers from 5 to 95 %, the mean with its
    interval above it."""
    scores = comparison.scores
    figure, axes = _figure(len(metrics), width, 0.75 + 0.36 * len(scores.methods))
    drawn = method_styles(comparison)
    for panel, metric in zip(axes, metrics, strict=True):
        order = _order(comparison, metric)
        for row, name in enumerate(order):
            values = scores.of(metric)[scores.methods.index(name)]
            values = values[~np.isnan(values)]
            _box(panel, row, values, drawn[name], comparison, name, metric)
        panel.set_yticks(range(len(order)), order, fontsize=7.5, color=INK, parse_math=False)
        panel.set_ylim(len(order) - 0.4, -0.6)
        _framed(panel, f"{metric} ({_better(comparison, metric)})", "", "")
        panel.grid(axis="y", visible=False)
    return figure


def _box(
    axes: Axes,
    row: int,
    values: Numbers,
    style: MethodStyle,
    comparison: Comparison,
    name: str,
    metric: str,
) -> None:
    if not len(values):
        axes.annotate(
            "no value",
            (0.02, row),
            xycoords=("axes fraction", "data"),
            fontsize=7,
            color=MUTED,
            va="center",
        )
        return
    if len(values) >= _LEAST:
        five, quarter, median, three, most = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
        axes.plot([five, quarter], [row, row], color=style.colour, linewidth=0.9)
        axes.plot([three, most], [row, row], color=style.colour, linewidth=0.9)
        axes.barh(
            row,
            three - quarter,
            0.44,
            quarter,
            facecolor=_pale(style.colour),
            edgecolor=style.colour,
            linewidth=0.9,
        )
        axes.plot([median, median], [row - 0.22, row + 0.22], color=style.colour, linewidth=1.6)
    if len(values) <= _POINTS:  # one under another, so that few are seen for few
        spread = row + 0.14 * (np.arange(len(values)) % 3 - 1)
        axes.plot(
            values,
            spread,
            ".",
            color=style.colour,
            markersize=2.6 if len(values) >= _LEAST else 5,
            alpha=0.55,
            markeredgewidth=0,
        )
    summary = comparison.summaries[name, metric]
    if summary.n > 1:
        axes.plot([summary.low, summary.high], [row - 0.34, row - 0.34], color=INK, linewidth=1.1)
    axes.plot(summary.mean, row - 0.34, marker="D", color=INK, markersize=3)


# --- cost -------------------------------------------------------------------------------------------------------------


def pareto(
    comparison: Comparison, metrics: Sequence[str], *, cost: str = "gradients", width: float = 9.0
) -> Figure:
    """Mean quality with its interval against mean cost; the line joins methods that nothing beats
    in both."""
    column = {"gradients": 0, "rows": 1, "seconds": 2}
    check_choice("cost=", cost, column)
    spent = {name: numbers[column[cost]] for name, numbers in comparison.cost().items()}
    figure, axes = _figure(len(metrics), width, 3.5)
    drawn = method_styles(comparison)
    known = [v for v in spent.values() if v > 0]
    wide = bool(known) and max(known) > 10 * min(known)
    for panel, metric in zip(axes, metrics, strict=True):
        for name, style in drawn.items():
            summary = comparison.summaries[name, metric]
            if summary.n == 0:
                continue
            if summary.n > 1:
                panel.plot(
                    [spent[name]] * 2,
                    [summary.low, summary.high],
                    color=style.colour,
                    linewidth=0.9,
                    alpha=0.7,
                )
            face = style.colour if style.filled else "none"
            panel.plot(
                spent[name], summary.mean, style.marker, color=style.colour, markerfacecolor=face, markersize=6, label=name,
                linestyle="none", clip_on=False, zorder=3,
            )  # fmt: skip
        best = front(comparison, metric, spent)
        panel.step(
            [spent[name] for name in best], [comparison.summaries[name, metric].mean for name in best],
            where="post", color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0,
        )  # fmt: skip
        if wide:
            panel.set_xscale("symlog", linthresh=min(known))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        _framed(panel, f"{metric} ({_better(comparison, metric)})", f"{cost} per example", "mean")
        panel.set_xlim(left=0 if not wide else min(0, *spent.values()))
        panel.margins(x=0.06)
    _legend(figure, axes)
    return figure


def front(comparison: Comparison, metric: str, spent: dict[str, float]) -> list[str]:
    """Methods (controls apart) than which no other is at most as dear and better on average, by
    their cost."""
    sign = 1 if comparison.scores.is_higher(metric) else -1
    means = {
        name: sign * comparison.summaries[name, metric].mean
        for name in comparison.scores.methods
        if name not in comparison.scores.controls and comparison.summaries[name, metric].n
    }
    best: list[str] = []
    for name in sorted(means, key=lambda method: (spent[method], -means[method])):
        if not best or means[name] > means[best[-1]]:
            best.append(name)
    return best


# --- shared -----------------------------------------------------------------------------------------------------------


def _figure(many: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(many, 2)
    rows = -(-many // columns)
    figure = Picture(width if columns > 1 else width * 0.62, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[many:]:
        spare.remove()
    return figure, list(grid[:many])


def _framed(axes: Axes, title: str, below: str, beside: str) -> None:
    axes.set_title(title, loc="left", fontsize=9, color=INK, parse_math=False)
    axes.set_xlabel(below, fontsize=8, color=MUTED)
    axes.set_ylabel(beside, fontsize=8, color=MUTED)
    axes.set_facecolor("none")
    axes.tick_params(length=0, labelsize=7.5, labelcolor=INK)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=6,
        fontsize=7.5,
        frameon=False,
        labelcolor=INK,
    )


def _better(comparison: Comparison, metric: str) -> str:
    return "higher is better" if comparison.scores.is_higher(metric) else "lower is better"


def _order(comparison: Comparison, metric: str) -> list[str]:
    """Best mean first, those without a value last."""
    sign = -1 if comparison.scores.is_higher(metric) else 1
    means = {
        name: sign * comparison.summaries[name, metric].mean for name in comparison.scores.methods
    }
    return sorted(means, key=lambda name: (np.isnan(means[name]), means[name]))


def _pale(colour: str) -> tuple[float, float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue, 0.2


def svg(figure: Figure, name: str) -> str:
    """The figure as markup for a page: no background, its greys those of the page, light or dark;
    texts stay texts."""
    file = io.StringIO()
    figure.set_facecolor("none")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(
            file, format="svg", facecolor="none", metadata={"Date": None, "Creator": None}
        )
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace(
        "<svg ", f'<svg style="max-width:{_PAGE_INCH * figure.get_figwidth():.0f}px" ', 1
    )
    for colour, variable in ((INK, "var(--ink)"), (MUTED, "var(--soft)"), (_GRID, "var(--line)")):
        text = text.replace(colour, variable)
    return text
