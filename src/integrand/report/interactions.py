"""Interactions as matplotlib figures: a heat map of the matrix, or a network of the strongest pairs.

Orange raises F, blue lowers it, on one scale that is symmetric about zero. The diagonal of a heat
map, and the discs of a network, are main effects; a line of a network is what both entries of a pair
add together, 2 Γ_ij.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..core.formatting import number, percent
from ..core.optional import optional
from ..core.options import check_choice, whole
from ..errors import InputError, ShapeError
from ..interactions import Interactions
from .arrays import write_figure
from .colours import Numbers, signed_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("heat", "network")
_NAMED = 40  # features that are named along a heat map
_WRITTEN = 8  # … whose numbers are written into it
_LONGEST = 16  # letters of a name in a figure
_THICK = 9.0  # points of the strongest line
_SMALL, _BIG = 40.0, 620.0  # square points of discs


def plot(
    interactions: Interactions,
    *,
    kind: str = "heat",
    example: int | None = None,
    main_effects: bool = True,
    top: int = 20,
    features: int = 16,
    names: Sequence[str] | None = None,
    title: str | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Draw the matrix of an example, or the mean over the examples.

    Args:
        kind: "heat": the matrix; "network": features on a circle, discs as large as their main
            effects and lines as thick as what pairs add.
        example: which; the mean of all, with their signs, unless given.
        main_effects: whether a heat map shows the diagonal; without it the scale is that of pairs.
        top: pairs that a network draws, the strongest.
        features: features that a network draws, those with the largest sum of |Γ|.
        names: of the features, in place of their own.
        title: in place of the usual one.
        path: also write the figure to this file.

    Raises:
        MissingExtra: without matplotlib.
        InputError: for another kind, examples that there are not, and names that do not fit.
        ShapeError: for a network of some rows only.
    """
    optional("matplotlib", extra="plot", needs="plot()")
    check_choice("kind", kind, KINDS)
    top, features = whole("top", top, least=0), whole("features", features, least=1)
    if not len(interactions):
        raise InputError("There are no examples to draw.")
    chosen = interactions if example is None else interactions[example]
    matrix = chosen.matrix.detach().double().mean(0).cpu()
    count = matrix.shape[1]
    labels = [interactions.name(i) for i in range(count)] if names is None else list(names)
    if len(labels) != count:
        raise InputError(f"There are {len(labels)} names for {count} features: give one for each.")
    labels = [label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…" for label in labels]
    title = _title(interactions, example) if title is None else title
    if kind == "heat":
        rows = range(count) if interactions.rows is None else interactions.rows
        drawn = matrix.clone()
        if not main_effects:
            for place, number_of_row in enumerate(rows):
                drawn[place, number_of_row] = 0
        figure = _heat(drawn.numpy(), [labels[i] for i in rows], labels, title)
    else:
        if interactions.rows is not None:
            raise ShapeError(
                "A network needs the whole matrix: leave of= out, or draw kind='heat'."
            )
        figure = _network(matrix, labels, title, top, features)
    if path is not None:
        write_figure(figure, path)
    return figure


def _title(interactions: Interactions, example: int | None) -> str:
    count = len(interactions)
    which = (
        f"mean of {count} examples"
        if example is None and count > 1
        else f"example {0 if example is None else example % count}"
    )
    gap = float((interactions if example is None else interactions[example]).gap.max())
    smooth = "" if interactions.softplus is None else f" · softplus {interactions.softplus:g}"
    return f"{which} · gap {percent(gap)}{smooth}"


# --- the matrix -------------------------------------------------------------------------------------


def _heat(matrix: Numbers, rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    from .panels import INK, MUTED, Picture

    limit = float(np.abs(np.nan_to_num(matrix)).max())
    written = len(columns) <= _WRITTEN
    side = min(9.0, max(2.6, (0.55 if written else 0.36) * len(columns)))
    high = min(9.0, max(0.7, side * len(rows) / len(columns)))
    figure = Picture(side + 2.1, high + 1.3)
    axes, bar = figure.subplots(1, 2, width_ratios=[side, 0.14])
    axes.imshow(signed_rgb(matrix, limit), aspect="auto", interpolation="nearest")
    for axis, labels in ((axes.xaxis, columns), (axes.yaxis, rows)):
        few = len(labels) <= _NAMED
        axis.set_ticks(range(len(labels)) if few else [])
        if few:
            axis.set_ticklabels(labels, fontsize=7, color=INK, parse_math=False)
    long = max(map(len, columns)) > 3
    axes.tick_params(axis="x", labelrotation=90 if long else 0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(columns) <= _NAMED:  # thin seams between the cells
        axes.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1)
        axes.tick_params(which="minor", length=0)
    if written:
        _write(axes, matrix, limit, INK)
    axes.set_title(title, loc="left", fontsize=8, color=INK, parse_math=False)
    _scale(bar, limit, MUTED)
    return figure


def _write(axes: Axes, matrix: Numbers, limit: float, ink: str) -> None:
    """Every number into its cell, all with the decimals that the largest needs."""
    decimals = int(np.clip(2 - np.floor(np.log10(limit)), 0, 9)) if limit > 0 else 0
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            text = f"{value:.{decimals}f}".replace("-", "−") if value else "0"
            dark = abs(value) > 0.6 * limit
            axes.text(
                j, i, text, ha="center", va="center", fontsize=6, color="white" if dark else ink
            )


def _scale(bar: Axes, limit: float, colour: str) -> None:
    """The colours between −limit and limit, beside the matrix."""
    ramp = signed_rgb(np.linspace(1, -1, 255)[:, None], 1.0)
    bar.imshow(ramp, aspect="auto", extent=(0, 1, -1, 1))
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.set_yticks([-1, 0, 1], [number(-limit), "0", number(limit)], fontsize=7, color=colour)
    bar.tick_params(length=0)
    bar.spines[:].set_visible(False)


# --- the network ------------------------------------------------------------------------------------


def _network(
    matrix: torch.Tensor, labels: Sequence[str], title: str, top: int, features: int
) -> Figure:
    from .panels import INK, MUTED, Picture

    order = matrix.abs().sum(1).argsort(descending=True, stable=True)[:features]
    shown = sorted(order.tolist())
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(shown)) / len(shown)
    places = np.stack([np.cos(angles), np.sin(angles)], 1)
    figure = Picture(5.6, 4.8)
    axes = figure.subplots()
    among = matrix[shown][:, shown]
    strongest = _lines(axes, places, among, top)
    largest = _discs(axes, places, among.diagonal().numpy())
    for (across, up), i in zip(places, shown, strict=True):
        axes.text(
            1.17 * across,
            1.17 * up,
            labels[i],
            ha="center" if abs(across) < 0.3 else "left" if across > 0 else "right",
            va="center",
            fontsize=8,
            color=INK,
            parse_math=False,
        )
    axes.set(xlim=(-1.75, 1.75), ylim=(-1.35, 1.35), aspect="equal")
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=8, color=INK, parse_math=False)
    left_out = len(labels) - len(shown)
    rest = f"\n{left_out} features are not shown" if left_out else ""
    figure.supxlabel(
        f"discs: main effects up to {number(largest)} · lines: what pairs add, up to {number(strongest)}{rest}",
        fontsize=7,
        color=MUTED,
        parse_math=False,
    )
    return figure


def _lines(axes: Axes, places: Numbers, matrix: torch.Tensor, top: int) -> float:
    """A line for each of the ``top`` pairs, as thick as what it adds; returns the most that one
    does."""
    from .panels import LOWERS, RAISES

    count = len(matrix)
    added = {(a, b): float(matrix[a, b] + matrix[b, a]) for a in range(count) for b in range(a)}
    pairs = sorted(added, key=lambda pair: -abs(added[pair]))[:top]
    strongest = max((abs(added[pair]) for pair in pairs), default=0.0)
    for pair in reversed(pairs):  # the strongest on top
        if added[pair]:
            strength = abs(added[pair]) / strongest
            axes.plot(
                *places[list(pair)].T,
                color=RAISES if added[pair] > 0 else LOWERS,
                linewidth=max(0.4, _THICK * strength),
                alpha=0.35 + 0.6 * strength,
                solid_capstyle="round",
                zorder=1,
            )
    return strongest


def _discs(axes: Axes, places: Numbers, main: Numbers) -> float:
    """A disc for each feature, as large as its main effect; returns the largest of these."""
    from .panels import LOWERS, RAISES

    largest = float(np.abs(main).max())
    axes.scatter(
        places[:, 0],
        places[:, 1],
        s=_SMALL + (_BIG - _SMALL) * np.abs(main) / (largest or 1.0),
        c=[RAISES if value >= 0 else LOWERS for value in main],
        edgecolors="white",
        linewidths=1.5,
        zorder=2,
    )
    return largest
