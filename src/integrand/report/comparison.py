"""Comparisons as figures, as a fragment for notebooks, and as a page. Computes nothing that is not
in the comparison.

plot_curves, plot_boxes, plot_pareto   matplotlib figures (charts.py)
fragment                               tables and verdicts
page                                   one self-contained file, as that of explanations (html.py)
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compare import Comparison
from ..core.formatting import count, number, p_value, percent, two_decimals
from ..core.optional import optional
from ..errors import InputError, UnknownName
from ..integration.attribution import Attribution
from ..methods import about
from .arrays import data_uri, display_image, is_image, write_figure
from .colours import Numbers, ramp
from .html import SMALL, STYLE, environment
from .views import map_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_REASONS = 20


# --- figures ----------------------------------------------------------------------------------------------------------


def plot_curves(
    comparison: Comparison, metric: str | None = None, *, path: str | Path | None = None
) -> Figure:
    """Mean curves and the standard error of the mean, of one metric or of all that keep curves.

    Raises:
        MissingExtra: without matplotlib.
        InputError: where no curves were kept.
        UnknownName: for another metric.
    """
    available = curved(comparison)
    if metric is not None:
        comparison.scores.of(metric)
    wanted = available if metric is None else [metric]
    if not set(wanted) <= set(available) or not wanted:
        raise InputError(
            f"{metric or 'This comparison'} has no curves: deletion and insertion have."
        )
    return _drawn("curves", comparison, wanted, path)


def plot_boxes(
    comparison: Comparison, metric: str | None = None, *, path: str | Path | None = None
) -> Figure:
    """A box for every method over the examples, best mean first: quartiles, whiskers from 5 to 95
    %, the mean with its interval."""
    return _drawn("boxes", comparison, _metrics(comparison, metric), path)


def plot_pareto(
    comparison: Comparison,
    metric: str | None = None,
    *,
    cost: str = "gradients",
    path: str | Path | None = None,
) -> Figure:
    """Mean quality against mean ``cost`` ("gradients", "rows" or "seconds" per example), with the
    methods that nothing beats in both."""
    return _drawn("pareto", comparison, _metrics(comparison, metric), path, cost=cost)


def curved(comparison: Comparison) -> list[str]:
    """Metrics whose curves are one number per step."""
    curves = comparison.scores.curves
    return [name for name in comparison.scores.metrics if name in curves and curves[name].ndim == 3]


def _metrics(comparison: Comparison, metric: str | None) -> list[str]:
    if metric is None:
        return list(comparison.scores.metrics)
    comparison.scores.of(metric)
    return [metric]


def _drawn(
    kind: str,
    comparison: Comparison,
    metrics: Sequence[str],
    path: str | Path | None,
    **options: Any,
) -> Figure:
    figure: Figure = getattr(_charts(), kind)(comparison, metrics, **options)
    if path is not None:
        write_figure(figure, path)
    return figure


def _charts() -> Any:
    optional("matplotlib", extra="plot", needs="A figure of a comparison")
    return import_module(".charts", __package__)


# --- records ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MethodRow:
    """A method in the table of a metric; ``place`` are its mean and interval along the scale of the
    table, in per cent."""

    name: str
    title: str
    control: bool
    reference: bool
    mean: str
    interval: str
    place: tuple[float, float, float] | None
    missing: str
    difference: str
    difference_interval: str
    p: str
    significant: bool
    wins: str
    wins_interval: str
    gradients: str
    rows: str
    seconds: str
    incomplete: str


@dataclass(frozen=True)
class MetricVerdict:
    """A metric: its verdict, its table."""

    name: str
    better: str
    words: str
    won: bool
    blind: bool
    lines: tuple[MethodRow, ...]
    low: str
    high: str


def metric_verdict(comparison: Comparison, metric: str) -> MetricVerdict:
    """The record of a metric for the page: its verdict and its methods in order of their means."""
    rows = {row["method"]: row for row in comparison.table() if row["metric"] == metric}
    sign = -1 if comparison.scores.is_higher(metric) else 1
    order = sorted(
        rows, key=lambda name: (math.isnan(rows[name]["mean"]), sign * rows[name]["mean"])
    )
    ends = [
        row[key]
        for row in rows.values()
        for key in ("low", "mean", "high")
        if not math.isnan(row[key])
    ]
    low, high = (min(ends), max(ends)) if ends else (math.nan, math.nan)
    verdict = comparison.verdict(metric)
    return MetricVerdict(
        metric,
        "higher is better" if comparison.scores.is_higher(metric) else "lower is better",
        verdict.words,
        verdict.winner is not None,
        bool(verdict.blind),
        tuple(_line(comparison, rows[name], low, high) for name in order),
        number(low),
        number(high),
    )


def _line(comparison: Comparison, row: Mapping[str, Any], low: float, high: float) -> MethodRow:
    compared = row["difference"] is not None
    alone = math.isnan(row["low"])

    def along(value: float) -> float:
        return 50.0 if high <= low else 100 * (value - low) / (high - low)

    return MethodRow(
        name=row["method"],
        title=_title(row["method"]),
        control=row["control"],
        reference=not compared,
        mean=number(row["mean"]),
        interval="–" if alone else f"{number(row['low'])} to {number(row['high'])}",
        place=None
        if math.isnan(row["mean"])
        else tuple(along(row["mean"] if alone else row[key]) for key in ("mean", "low", "high")),  # type: ignore[arg-type]
        missing=f"{row['missing']} without a value" if row["missing"] else "",
        difference=number(row["difference"], signed=True) if compared else "",
        difference_interval=f"{number(row['difference_low'], signed=True)} to {number(row['difference_high'], signed=True)}"
        if compared and not math.isnan(row["difference_low"])
        else "",
        p=p_value(row["corrected"]) if compared else "",
        significant=compared and row["corrected"] < comparison.sure.alpha,
        wins=percent(row["wins"], decimals=0) if compared else "",
        wins_interval=f"{percent(row['wins_low'], decimals=0)} to {percent(row['wins_high'], decimals=0)}"
        if compared and not math.isnan(row["wins_low"])
        else "",
        gradients=count(row["gradients"]),
        rows=count(row["rows"]),
        seconds=f"{row['seconds']:.2g}" if row["seconds"] >= 0.01 else "< 0.01",
        incomplete="" if row["control"] else f"{row['incomplete']}",
    )


def _title(name: str) -> str:
    try:
        return about(name).title
    except UnknownName:
        return name


@dataclass(frozen=True)
class Matrix:
    """Square, each cell a text and how strong it is from 0 to 1."""

    title: str
    names: tuple[str, ...]
    cells: tuple[tuple[tuple[str, float], ...], ...]


def matrices(comparison: Comparison) -> list[Matrix]:
    """Both matrices of an agreement."""
    agreed = comparison.agreement
    if agreed is None:
        return []
    ranks, first = agreed.mean()
    top_percent = f"{100 * agreed.top:g} %"
    return [
        _matrix("Order of all features (rank correlation)", agreed.methods, ranks),
        _matrix(f"First {top_percent} of features in common", agreed.methods, first),
    ]


def _matrix(title: str, names: tuple[str, ...], values: Numbers) -> Matrix:
    cells = tuple(
        tuple(("–", 0.0) if np.isnan(v) else (two_decimals(v), float(max(0.0, v))) for v in row)
        for row in values
    )
    return Matrix(title, names, cells)


@dataclass(frozen=True)
class Moved:
    """The sensitivity of a method to its baseline: how alike maps stay, and its mean score from
    each."""

    name: str
    alike: str
    means: tuple[tuple[str, ...], ...]


def moved(comparison: Comparison) -> list[Moved]:
    """Records of the sensitivity to the baseline, by method."""
    sensitivity = comparison.sensitivity
    if sensitivity is None:
        return []
    alike = sensitivity.alike()
    means = {metric: sensitivity.means(metric) for metric in sensitivity.scores.metrics}
    return [
        Moved(
            name,
            "–" if math.isnan(alike[name]) else two_decimals(alike[name]),
            tuple(tuple(number(v) for v in means[metric][name].values()) for metric in means),
        )
        for name in sensitivity.methods
    ]


@dataclass(frozen=True)
class Shown:
    """A map of the example that is shown, with the limit of its scale."""

    title: str
    control: bool
    overlay: str
    limit: str
    gap: str


def shown(comparison: Comparison) -> tuple[str, list[Shown], bool]:
    """The example, its map by every method, and whether it is small; nothing where examples are no
    images."""
    images: dict[str, Attribution] = {
        name: attribution for name, attribution in comparison.shown.items() if is_image(attribution)
    }
    if not images:
        return "", [], False
    picture = data_uri(display_image(next(iter(images.values())), 0))
    maps = []
    for name, attribution in images.items():
        drawn = map_of(attribution, display_image(attribution, 0))
        control = name in comparison.scores.controls
        gap = float(attribution.gap[0])
        claimed = attribution.claims_completeness and not math.isnan(gap)
        remark = f"gap {percent(gap)}" if claimed else "adds up: not claimed"
        maps.append(Shown(_title(name), control, drawn.overlay, drawn.limit, remark))
    return picture, maps, min(next(iter(images.values())).values.shape[-2:]) < SMALL


# --- page -------------------------------------------------------------------------------------------------------------


def page(comparison: Comparison, *, title: str = "Which method for this model?") -> str:
    """A comparison as one self-contained HTML file.

    Raises:
        MissingExtra: without jinja2, matplotlib or pillow.
    """
    charts = _charts()
    scores = comparison.scores
    picture, maps, small = shown(comparison)
    cost = "gradients" if _told_apart_by_gradients(comparison) else "seconds"
    with_curves = curved(comparison)
    text: str = (
        environment()
        .get_template("comparison.html.j2")
        .render(
            title=title,
            comparison=comparison,
            scores=scores,
            metrics=[metric_verdict(comparison, metric) for metric in scores.metrics],
            level=f"{100 * comparison.sure.level:g} %",
            alpha=f"{comparison.sure.alpha:.2g}",
            boxes=charts.svg(plot_boxes(comparison), "boxes"),
            curves=charts.svg(plot_curves(comparison), "curves") if with_curves else None,
            pareto=charts.svg(plot_pareto(comparison, cost=cost), "pareto"),
            cost=cost,
            matrices=matrices(comparison),
            moved=moved(comparison),
            picture=picture,
            example=scores.examples[0] if scores.examples else "",
            maps=maps,
            pixelated=small,
            overlay=", ".join(ramp("overlay")[1]),
            reasons=_reasons(comparison),
            titles={name: _title(name) for name in scores.methods},
        )
    )
    return text


def _told_apart_by_gradients(comparison: Comparison) -> bool:
    """Whether gradients were counted for all methods, and differ enough to be an axis."""
    spent = [
        numbers[0]
        for name, numbers in comparison.cost().items()
        if name not in comparison.scores.controls
    ]
    return not any(map(math.isnan, spent)) and not (spent and max(spent) <= 1.25 * min(spent))


def _reasons(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Why some maps are missing: method, reason, examples; alike ones together."""
    examples_by_reason: dict[tuple[str, str], list[str]] = {}
    for (method, example), why in comparison.scores.reasons.items():
        examples_by_reason.setdefault((method, why), []).append(example)
    return [
        (
            method,
            why,
            ", ".join(examples[:5])
            + (f" and {len(examples) - 5} more" if len(examples) > 5 else ""),
        )
        for (method, why), examples in list(examples_by_reason.items())[:_MOST_REASONS]
    ]


def fragment(comparison: Comparison) -> str:
    """A comparison in a notebook: a table and a verdict for each metric. Needs nothing beyond the
    core."""
    parts = []
    head = (
        "method",
        "mean",
        "interval",
        f"− {comparison.reference}",
        "interval",
        "p",
        "better on",
        "gradients",
        "rows",
        "seconds",
    )
    for metric in comparison.scores.metrics:
        record = metric_verdict(comparison, metric)
        cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
        rows = "".join(_fragment_row(line) for line in record.lines)
        words = (
            html.escape(record.words)
            if record.won
            else f'<span class="bad">▲</span> {html.escape(record.words)}'
        )
        parts.append(
            f"<b>{html.escape(metric)}</b> <small>{record.better}, {len(comparison.scores)} examples</small>"
            f"<table><tr>{cells}</tr>{rows}</table><div>{words}</div>"
        )
    return f'{STYLE}<div class="integrand">{"<br>".join(parts)}</div>'


def _fragment_row(line: MethodRow) -> str:
    name = html.escape(line.name) + (" <small>control</small>" if line.control else "")
    cells = (line.mean, line.interval, line.difference, line.difference_interval, line.p, line.wins)
    shown = "".join(
        f"<td>{cell}</td>" for cell in (*cells, line.gradients, line.rows, line.seconds)
    )
    return f"<tr><td>{name}</td>{shown}</tr>"
