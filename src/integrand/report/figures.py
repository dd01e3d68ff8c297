"""Attributions as matplotlib figures: one row per example, one panel per input, one scale over the
batch.

``plot`` decides what is drawn; ``panels`` draws it. matplotlib is imported when a figure is asked
for, and only through its object interface: no global state of pyplot is touched. The arrays behind
the figures are re-exported for whoever lays out pictures differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.optional import optional
from ..core.shapes import describe
from ..errors import InputError, ShapeError, UnknownName
from ..integration.attribution import Attribution
from .arrays import display_image as display_image
from .arrays import is_image, parts, write_figure
from .arrays import pixel_map as pixel_map
from .colours import heat_rgb as heat_rgb
from .colours import overlay_rgb as overlay_rgb
from .colours import signed_rgb as signed_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .panels import Panel

OF_ALL = ("importance", "beeswarm", "dependence")
"""Pictures of all examples at once."""

KINDS = ("auto", "overlay", "heat", "signed", "bars", "waterfall", *OF_ALL)
_MOST = 8  # examples drawn when nobody says which
Names = Sequence[str] | Sequence[Sequence[str]] | Mapping[str, Any] | None


def plot(
    attribution: Attribution,
    *,
    kind: str = "auto",
    examples: int | Sequence[int] | None = None,
    channels: str | int = "sum",
    scale: float | None = None,
    percentile: float = 99.0,
    cell: int = 1,
    names: Names = None,
    top: int = 15,
    titles: str | Sequence[str] | None = None,
    feature: str | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Draw an attribution: images beside their maps, features and tokens as bars.

    Args:
        kind: "overlay": the signed map over the photograph in grey; "signed": the map alone, orange
            raises F and blue lowers it; "heat": its magnitude; "bars" for (B, N) and (B, T, D);
            "auto": overlays for images, else bars. For tables also "waterfall": from F at the
            baseline to F(x); and of all examples "importance": mean |contribution| with 95 %
            intervals, "beeswarm": a point for each, coloured by the column's value, "dependence":
            contribution over the value of ``feature``.
        examples: which of them; the first 8 unless said.
        channels: "sum", the signed sum over channels, or the number of one.
        scale: the end of the colour scale (or of the bars' axis), which is symmetric about 0 and
            shared by all examples.
        percentile: where the colour scale ends without ``scale``: at this percentile of |map| over
            all examples drawn.
        cell: show sums over squares of this many pixels, which are easier to read than single ones.
        names: of features or tokens, or a list of them for every example (of tokens, which differ);
            a mapping by input where there are several.
        top: how many features to name; one bar adds up the others.
        titles: what to call each example drawn, with its target, in place of "example i · target":
            one text, or one for each of them.
        feature: which column "dependence" draws; the most important unless given.
        path: also write the figure to this file.

    Raises:
        MissingExtra: without matplotlib.
        UnknownName: for another kind.
        InputError: for examples, channels, scales or names that do not fit.
        ShapeError: for examples of more than three axes.
    """
    optional("matplotlib", extra="plot", needs="plot()")
    if kind not in KINDS:
        raise UnknownName("kind of plot", kind, KINDS)
    if scale is not None and not scale > 0:
        raise InputError(f"scale is a positive number, not {scale}.")
    if kind in OF_ALL:
        figure = _of_all(attribution, kind, examples, top, feature)
        if path is not None:
            write_figure(figure, path)
        return figure
    shown = _chosen(examples, len(attribution))
    drawing = import_module(".panels", __package__)
    panels: list[Panel] = []
    if kind == "waterfall":
        panels.append(import_module(".columns", __package__).Waterfall(attribution, shown, top))
    for name, part in parts(attribution) if kind != "waterfall" else ():
        if _drawn_as(kind, part) == "bars":
            labels = part.feature_names or None if names is None else names
            panels.append(
                drawing.Bars(part, name, shown, scale, _names_of(labels, name, part), top)
            )
        else:
            images = drawing.Images(
                part,
                name,
                shown,
                "overlay" if kind == "auto" else kind,
                channels,
                scale,
                percentile,
                cell,
            )
            panels.append(images)
    count = len(attribution)
    remark = f"the first {_MOST} of {count} examples" if examples is None and count > _MOST else ""
    drawn: Figure = drawing.draw(attribution, shown, panels, remark, _titles_of(titles, len(shown)))
    if path is not None:
        write_figure(drawn, path)
    return drawn


def _of_all(
    attribution: Attribution,
    kind: str,
    examples: int | Sequence[int] | None,
    top: int,
    feature: str | None,
) -> Figure:
    """A picture of all examples, or of those that are named, at once."""
    columns = import_module(".columns", __package__)
    if examples is not None:
        attribution = attribution[_chosen(examples, len(attribution))]
    figure: Figure
    if kind == "dependence":
        figure = columns.draw_dependence(attribution, feature)
    else:
        drawn = {"importance": columns.draw_importance, "beeswarm": columns.draw_beeswarm}
        figure = drawn[kind](attribution, top)
    return figure


def _chosen(examples: int | Sequence[int] | None, count: int) -> list[int]:
    if examples is None:
        return list(range(min(count, _MOST)))
    chosen = [examples] if isinstance(examples, int) else [int(i) for i in examples]
    wrong = next((i for i in chosen if not -count <= i < count), None)
    if wrong is not None or not chosen:
        raise InputError(
            f"examples={examples} names none of the {count} examples, 0 to {count - 1}."
        )
    return [i % count for i in chosen]


def _titles_of(titles: str | Sequence[str] | None, count: int) -> list[str | None]:
    if titles is None:
        return [None] * count
    texts = [titles] if isinstance(titles, str) else [str(title) for title in titles]
    if len(texts) != count:
        raise InputError(
            f"There are {len(texts)} titles for {count} examples that are drawn: give one for each."
        )
    return [*texts]


def _drawn_as(kind: str, part: Attribution) -> str:
    axes = part.values.ndim - 1
    if axes > 3:
        raise ShapeError(
            f"Examples of shape {describe(part.values.shape[1:])} have no picture: sum over an axis first."
        )
    if kind == "auto":
        return "overlay" if axes == 3 else "bars"
    if (kind == "bars") == (axes == 3):
        fits = "'overlay', 'signed' or 'heat'" if is_image(part) else "'bars'"
        raise InputError(
            f"kind={kind!r} does not fit examples of shape {describe(part.values.shape[1:])}: use {fits}."
        )
    return kind


def _names_of(names: Names, part: str, attribution: Attribution) -> list[list[str]] | None:
    """The names of the features of every example."""
    chosen: Any = names.get(part) if isinstance(names, Mapping) else names
    if chosen is None:
        return None
    count, examples = (
        attribution.values.shape[1] if attribution.values.ndim > 1 else 1,
        len(attribution),
    )
    labels = (
        [list(row) for row in chosen]
        if all(isinstance(row, list | tuple) for row in chosen)
        else [list(chosen)] * examples
    )
    if len(labels) != examples:
        raise InputError(
            f"There are names for {len(labels)} examples of {examples}: give a list for each, or one for all."
        )
    wrong = next((row for row in labels if len(row) != count), None)
    if wrong is not None:
        raise InputError(f"There are {len(wrong)} names for {count} features: give one for each.")
    return [[str(name) for name in row] for row in labels]
