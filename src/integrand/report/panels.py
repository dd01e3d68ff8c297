"""Panels of ``plot``: each draws one input of every example, and its scale once.

Images are a photograph, a map, and a colour bar; bars are features by size or tokens in order, and
of many tokens that have names the text itself, coloured. The only file that imports matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol
from unicodedata import east_asian_width

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ..core.formatting import number
from ..integration.attribution import Attribution
from ..tables.results import feature_values
from .arrays import column_values, display_image, limit_of, pixel_map, token_sums
from .colours import Numbers, Pixels, heat_rgb, overlay_rgb, ramp, signed_rgb
from .formatting import headline, incomplete, labelled, unsettled

INK, MUTED, ALARM = "#24272b", "#70757d", "#b0003a"
RAISES, LOWERS = ramp("overlay", 3)[1][2], ramp("overlay", 3)[1][0]
_DPI = 150
_SCALE = 0.09  # inches of colour
_INTERVAL = 1.959963984540054  # standard deviations of a Gaussian that hold 95 %
_LONGEST = 40  # tokens that still get a line each
_COLUMNS, _LINE, _LETTER = (
    92,
    0.2,
    6.5,
)  # of coloured text: letters in a line, inches of a line, points of a letter
_LUMA = np.array([0.299, 0.587, 0.114])


class Panel(Protocol):
    """One input: how much room it takes (inches), one example of it, and its scale."""

    widths: tuple[float, ...]

    @property
    def height(self) -> float: ...

    def draw(self, axes: NDArray[Any], example: int) -> None: ...

    def legend(self, figure: Figure, axes: NDArray[Any]) -> None: ...


class Picture(Figure):
    """A white figure, wide and high in inches, that shows itself in a notebook, whether or not
    pyplot was ever imported."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def draw(
    attribution: Attribution,
    shown: Sequence[int],
    panels: Sequence[Panel],
    remark: str,
    titles: Sequence[str | None],
) -> Figure:
    """All panels of all shown examples on one figure, a row each; the scales have the last row."""
    widths = [w for panel in panels for w in panel.widths]
    heights = [max(panel.height for panel in panels)] * len(shown) + [_SCALE]
    figure = Picture(sum(widths), sum(heights) + 0.5)
    grid = figure.subplots(
        len(heights), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights
    )
    for row, example, title in zip(grid, shown, titles, strict=False):
        _entitle(row[0], attribution, example, title)
    first = 0
    for panel in panels:
        columns = grid[:, first : first + len(panel.widths)]
        for row, example in zip(columns, shown, strict=False):
            panel.draw(row, example)
        panel.legend(figure, columns)
        first += len(panel.widths)
    if remark:
        figure.supxlabel(remark, fontsize=7, color=MUTED, parse_math=False)
    return figure


def _entitle(axes: Axes, attribution: Attribution, example: int, title: str | None) -> None:
    marked = incomplete(attribution, example) or unsettled(attribution, example)
    axes.set_title(
        headline(attribution, example, title),
        loc="left",
        fontsize=8,
        color=ALARM if marked else INK,
        parse_math=False,
    )


# --- images -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """The photograph and its map, for every example on the same scale."""

    attribution: Attribution
    name: str
    shown: Sequence[int]
    kind: str
    channels: str | int
    scale: float | None
    percentile: float
    cell: int

    widths = (3.1, 3.1)

    @property
    def height(self) -> float:
        high, wide = self.attribution.values.shape[-2:]
        return float(min(6.0, 3.1 * high / wide)) + 0.3

    @cached_property
    def maps(self) -> dict[int, Numbers]:
        return {
            i: pixel_map(self.attribution, i, channels=self.channels, cell=self.cell)
            for i in self.shown
        }

    @cached_property
    def limit(self) -> float:
        return self.scale or limit_of(self.maps.values(), self.percentile)

    def draw(self, axes: NDArray[Any], example: int) -> None:
        photograph = display_image(self.attribution, example)
        axes[0].imshow(photograph)
        axes[1].imshow(self._painted(photograph, self.maps[example]))
        axes[1].set_title(self.name, loc="right", fontsize=8, color=MUTED, parse_math=False)
        for panel in axes:
            panel.set_axis_off()

    def _painted(self, photograph: Numbers, values: Numbers) -> Pixels:
        if self.kind == "overlay":
            return overlay_rgb(photograph, values, self.limit)
        return (
            heat_rgb(values, self.limit) if self.kind == "heat" else signed_rgb(values, self.limit)
        )

    def legend(self, figure: Figure, axes: NDArray[Any]) -> None:
        """The colour bar: the colours as they are drawn, the limits as they are."""
        heat = self.kind == "heat"
        # Maps of zeros have no scale; the bar then shows the colours and says so.
        limit = self.limit or 1.0
        scale = ScalarMappable(
            Normalize(0 if heat else -limit, limit), ListedColormap(ramp(self.kind, 255)[0] / 255)
        )
        at = [0, limit] if heat else [-limit, 0, limit]
        axes[-1][0].set_axis_off()
        bar = figure.colorbar(
            scale,
            cax=axes[-1][1],
            orientation="horizontal",
            ticks=at,
            extend="max" if heat else "both",
        )
        bar.ax.set_xticklabels(
            [number(t) for t in at] if self.limit else [""] * len(at), fontsize=7, color=INK
        )
        bar.ax.tick_params(length=2, pad=2)
        bar.outline.set_visible(False)
        bar.set_label(self._meaning(), fontsize=7, color=MUTED)

    def _meaning(self) -> str:
        if not self.limit:
            return "every map is zero everywhere"
        channel = "sum over channels" if self.channels == "sum" else f"channel {self.channels}"
        where = f"{self.cell}×{self.cell} cell" if self.cell > 1 else "pixel"
        size = "|contribution|" if self.kind == "heat" else "contribution"
        return f"{size} to F per {where} ({channel})"


# --- bars -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bars:
    """A bar for every token in order, or for the largest features with one more for all others;
    many tokens with names as coloured text."""

    attribution: Attribution
    name: str
    shown: Sequence[int]
    scale: float | None
    names: Sequence[Sequence[str]] | None
    top: int

    widths = (6.2,)

    @property
    def height(self) -> float:
        if self._text:
            return 0.55 + _LINE * max(self._laid(i)[-1][2] + 1 for i in self.shown)
        bars = max(len(self.bars(i)[0]) for i in self.shown)
        return 2.2 if self._long else 0.55 + 0.19 * bars

    @property
    def _tokens(self) -> bool:
        return bool(self.attribution.values.ndim == 3)

    @property
    def _long(self) -> bool:
        return self._tokens and self.attribution.values.shape[1] > _LONGEST

    @property
    def _text(self) -> bool:
        return self._long and self.names is not None

    @property
    def _rest(self) -> bool:
        """Whether the last bar adds up what is not named; for one feature it would only hide the
        name."""
        return not self._tokens and self.attribution.values[0].numel() > self.top + 1

    @cached_property
    def limit(self) -> float:
        # A bar that is cut off cannot be read, so the longest sets the scale.
        lengths = [self.bars(i)[0] for i in self.shown]
        spreads = [self.spreads(i) for i in self.shown]
        reach = [
            v if spread is None else np.abs(v) + spread
            for v, spread in zip(lengths, spreads, strict=True)
        ]
        return self.scale or limit_of(reach, 100)

    def spreads(self, example: int) -> Numbers | None:
        """Half the 95 % interval of every bar, from the covariance of the contributions it adds up;
        None where F is no random function."""
        covariance = self.attribution.covariance
        if covariance is None:
            return None
        matrix = covariance[example].detach().double().cpu().numpy()
        groups = self._groups(example)
        variances = np.array([matrix[np.ix_(group, group)].sum() for group in groups])
        half: Numbers = _INTERVAL * np.sqrt(np.maximum(variances, 0))
        return half

    def _groups(self, example: int) -> list[Any]:
        """The contributions that each bar adds up, by their place."""
        values = self.attribution.values[example]
        places = np.arange(values.numel())
        if self._tokens:
            return list(places.reshape(len(values), -1))
        order = np.argsort(-np.abs(column_values(values)), kind="stable")
        singles = order[: self.top] if self._rest else order
        return [*singles[:, None], *([order[self.top :]] if self._rest else [])]

    def bars(self, example: int) -> tuple[Numbers, list[str]]:
        """Lengths and labels, from the top."""
        values = self.attribution.values[example]
        if self._tokens:
            sums = token_sums(values)
            return sums, [self._label(example, i, "token") for i in range(len(sums))]
        lengths = column_values(values)
        order = np.argsort(-np.abs(lengths), kind="stable")
        if not self._rest:
            return lengths[order], [self._label(example, i, "feature") for i in order]
        largest, remaining = order[: self.top], order[self.top :]
        labels = [self._label(example, i, "feature") for i in largest]
        return np.append(lengths[largest], lengths[remaining].sum()), [
            *labels,
            f"{len(remaining)} others",
        ]

    def _label(self, example: int, i: int, kind: str) -> str:
        if self.names is None:
            return f"{kind} {i}"
        cell = None if self.attribution.table is None else self._cells[i][example]
        return labelled(self.names[example][i], cell)

    @cached_property
    def _cells(self) -> list[tuple[Any, ...]]:
        """What stood in each column of a table."""
        return list(feature_values(self.attribution).values())

    def draw(self, axes: NDArray[Any], example: int) -> None:
        (panel,) = axes
        lengths, labels = self.bars(example)
        colours = [RAISES if v > 0 else LOWERS for v in lengths]
        if self._rest:
            colours[-1] = MUTED
        if self._text:
            self._draw_text(panel, example, lengths)
        elif self._long:
            self._draw_long(panel, lengths, colours)
            self._draw_spreads(panel, example, lengths, "y")
        else:
            self._draw_lines(panel, lengths, labels, colours)
            self._draw_spreads(panel, example, lengths, "x")
        _plain(panel)

    def _draw_lines(
        self, axes: Axes, lengths: Numbers, labels: list[str], colours: list[str]
    ) -> None:
        limit = self.limit or 1.0
        at = np.arange(len(lengths))
        axes.barh(at, lengths, color=colours, height=0.72)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.set_yticks(at, labels, fontsize=7, color=INK, parse_math=False)
        axes.set_ylim(len(at) - 0.4, -0.6)
        axes.set_xlim(-1.22 * limit, 1.22 * limit)  # room for the numbers
        for y, v in zip(at, lengths, strict=True):
            shift = (3 if v >= 0 else -3, 0)
            axes.annotate(number(v), (v, y), shift, textcoords="offset points", fontsize=6.5, color=MUTED,
                         va="center", ha="left" if v >= 0 else "right", annotation_clip=True)  # fmt: skip

    def _draw_spreads(self, axes: Axes, example: int, lengths: Numbers, along: str) -> None:
        """95 % intervals across the ends of the bars."""
        spread = self.spreads(example)
        if spread is None:
            return
        at = np.arange(len(lengths))
        style: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 0.9, "capsize": 2}
        if along == "x":
            axes.errorbar(lengths, at, xerr=spread, **style)
        else:
            axes.errorbar(at, lengths, yerr=spread, **style)

    def _draw_long(self, axes: Axes, lengths: Numbers, colours: list[str]) -> None:
        limit = self.limit or 1.0
        axes.bar(np.arange(len(lengths)), lengths, color=colours, width=0.85)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.set_ylim(-1.05 * limit, 1.05 * limit)
        axes.set_xlim(-1, len(lengths))
        axes.set_xlabel("token", fontsize=7, color=MUTED)

    def _laid(self, example: int) -> list[tuple[str, int, int, int]]:
        """Every token's text, and where it stands: its first column, its line, and how many columns
        it takes."""
        laid, column, line = [], 0, 0
        for label in self.bars(example)[1]:
            word = label.replace("\n", "↵") or " "
            wide = sum(2 if east_asian_width(letter) in "WF" else 1 for letter in word) + 1
            if column and column + wide > _COLUMNS:
                column, line = 0, line + 1
            laid.append((word, column, line, wide))
            column += wide
        return laid

    def _draw_text(self, axes: Axes, example: int, lengths: Numbers) -> None:
        colours = signed_rgb(lengths[None], self.limit)[0] / 255
        laid = self._laid(example)
        for (word, column, line, wide), colour in zip(laid, colours, strict=True):
            axes.add_patch(
                Rectangle(
                    (column, line - 0.42), wide - 0.15, 0.84, facecolor=colour, edgecolor="none"
                )
            )
            dark = float(colour @ _LUMA) > 0.5
            axes.text(column + (wide - 0.15) / 2, line, word, ha="center", va="center", fontsize=_LETTER, family="monospace",
                     color=INK if dark else "white", parse_math=False)  # fmt: skip
        axes.set_xlim(0, _COLUMNS)
        axes.set_ylim(laid[-1][2] + 0.6, -0.6)
        axes.set_xticks([])
        axes.set_yticks([])

    def legend(self, figure: Figure, axes: NDArray[Any]) -> None:
        """What the length of a bar means, under the last of them."""
        text = f"{self.name + ': ' if self.name else ''}contribution to F"
        if self._text:
            text += (
                f": orange raises it, blue lowers it, full colour at ±{number(self.limit)}"
                if self.limit
                else ": zero everywhere"
            )
        axes[-1][0].set_axis_off()
        last = axes[-2][0]
        (last.set_ylabel if self._long and not self._text else last.set_xlabel)(
            text, fontsize=7, color=MUTED, parse_math=False
        )


def _plain(axes: Axes) -> None:
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelsize=7, labelcolor=INK)
