"""Records that a page shows: texts, numbers, and pictures as data URIs.

Everything is taken from attributions of one image each; the template only lays it out. Maps have a
scale of their own each, since methods differ in the size of what they hand out, and every record
carries its limit so that it can be printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..core.formatting import beside, number, percent
from ..errors import InputError, ShapeError, UnknownName
from ..integration.attribution import Attribution
from ..methods import about, known
from .arrays import cells, data_uri, decoded, display_image, flat_map, is_image, limit_of, pixel_map
from .colours import Numbers, overlay_rgb, signed_rgb
from .formatting import gap_of, incomplete, unsettled

_CELLS = 14  # regions along a side of the summed map
_COARSE = 4  # under this many pixels a cell says little more than the pixels themselves
MANY = 7  # methods on a page, from where on they are shown by families
_STRIPS = 3
_CARDS = 12  # baselines shown, the heaviest
_FRAME = 128  # pixels along a side of a frame
_FACTORS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class SummaryRow:
    """A line of the summary."""

    name: str
    title: str
    change: str
    explained: str
    residual: str
    gap: str
    claimed: bool
    incomplete: bool
    error: str
    unsettled: bool
    gradients: str
    values: str
    seconds: str

    @property
    def took(self) -> str:
        """In words."""
        rows = "forward row" if self.values == "1" else "forward rows"
        return f"{self.gradients} gradients, {self.values} {rows}, {self.seconds} s"


@dataclass(frozen=True)
class Map:
    """One method's map in three readings, with the limits of their scales."""

    overlay: str
    signed: str
    limit: str
    regions: str | None
    region_limit: str
    cell: int
    places: bool
    """Whether it is of a layer, whose places are squares already."""


@dataclass(frozen=True)
class Reference:
    """A baseline: what it looks like, what it is worth, and the map it makes alone."""

    name: str
    picture: str
    map: str | None
    limit: str
    fitness: str
    weight: float
    weight_text: str
    change: str


@dataclass(frozen=True)
class FitnessView:
    """The baselines of a weighted method, heaviest first, and why their fitness says nothing, if
    so."""

    method: str
    criterion: str
    references: tuple[Reference, ...]
    count: int
    reason: str | None


@dataclass(frozen=True)
class Frame:
    """A point of a path: the picture, and how it differs from the input."""

    clock: str
    picture: str
    difference: str


@dataclass(frozen=True)
class Strip:
    """The way from one counterfactual to the input; the curve is in a box of 1000 by 100, frames at
    the middle of their columns."""

    name: str
    change: str
    frames: tuple[Frame, ...]
    curve: str
    dots: tuple[tuple[str, str], ...]
    first: str
    last: str


@dataclass(frozen=True)
class Film:
    """The recorded paths of a method."""

    method: str
    factor: int
    strips: tuple[Strip, ...]
    references: int


@dataclass(frozen=True)
class MethodView:
    """Everything about one method."""

    row: SummaryRow
    map: Map
    fitness: FitnessView | None
    film: Film | None
    repr: str
    citation: str | None
    remark: str


T = TypeVar("T")


def families_of(
    items: Iterable[T], name: Callable[[T], str]
) -> tuple[tuple[str, tuple[T, ...]], ...]:
    """Items under what their methods have in common, in the order of the catalogue."""
    order = list(known())
    members_by_family: dict[str, list[T]] = {}
    for item in sorted(
        items, key=lambda item: order.index(name(item)) if name(item) in order else len(order)
    ):
        family = known()[name(item)].family if name(item) in order else "Others"
        members_by_family.setdefault(family, []).append(item)
    return tuple((family, tuple(members)) for family, members in members_by_family.items())


def result(
    name: str, attribution: Attribution, photograph: Numbers, remark: str = ""
) -> MethodView:
    """All that a page shows of one attribution of one image (H, W, 3)."""
    title, citation = _published(name)
    return MethodView(
        summary(name, title, attribution),
        map_of(attribution, photograph),
        None if attribution.fitness is None else fitness_of(title, attribution),
        film_of(title, attribution),
        repr(attribution.method),
        citation,
        remark,
    )


def check(name: str, attribution: Attribution) -> None:
    """A page shows one image per case."""
    if not is_image(attribution):
        raise ShapeError(
            f"A page shows images (1, C, H, W), which the result {name!r} is not: use plot() for other inputs."
        )
    if len(attribution) != 1:
        raise InputError(
            f"The result {name!r} holds {len(attribution)} examples: give each case one, attribution[i]."
        )


def _published(name: str) -> tuple[str, str | None]:
    try:
        known = about(name)
    except UnknownName:
        return name, None
    return known.title, known.citation


def summary(name: str, title: str, attribution: Attribution) -> SummaryRow:
    """The summary row of a map: the change of F, the residual, and the cost."""
    change = float((attribution.weights * attribution.change).sum(0)[0])
    residual = float(attribution.residual[0])
    cost = attribution.cost
    return SummaryRow(
        name,
        title,
        number(change),
        number(change - residual) if attribution.claims_completeness else "–",
        beside(residual, change) if attribution.claims_completeness else "–",
        gap_of(attribution, 0),
        attribution.claims_completeness,
        incomplete(attribution, 0),
        percent(float(attribution.error[0])),
        unsettled(attribution, 0),
        f"{cost.gradients:,}",
        f"{cost.values:,}",
        f"{cost.seconds:.1f}",
    )


def map_of(attribution: Attribution, photograph: Numbers) -> Map:
    """The map over the photograph, alone, and added up by regions."""
    values = spread(pixel_map(attribution, 0), photograph)
    limit = limit_of([values])
    cell = max(values.shape) // _CELLS
    coarse = regions_of(attribution, photograph)
    region_limit = limit_of([coarse])
    return Map(
        data_uri(overlay_rgb(photograph, values, limit)),
        data_uri(signed_rgb(values, limit)),
        number(limit),
        data_uri(overlay_rgb(photograph, coarse, region_limit)) if cell >= _COARSE else None,
        number(region_limit),
        cell,
        attribution.values.shape[-2:] != photograph.shape[:2],
    )


def regions_of(attribution: Attribution, photograph: Numbers) -> Numbers:
    """The map, summed over squares; places of a layer are squares already."""
    values = pixel_map(attribution, 0)
    if values.shape != photograph.shape[:2]:
        return spread(values, photograph)
    return cells(values, max(max(values.shape) // _CELLS, 1))


def spread(values: Numbers, photograph: Numbers) -> Numbers:
    """A map (h, w) in the size of the photograph: every place of a layer is shown as the pixels it
    stands over."""
    rows, columns = (
        np.arange(size) * count // size
        for count, size in zip(values.shape, photograph.shape, strict=False)
    )
    enlarged: Numbers = values[rows][:, columns]
    return enlarged


# --- baselines --------------------------------------------------------------------------------------------------------


def fitness_of(method: str, attribution: Attribution) -> FitnessView:
    """Baselines by weight."""
    assert attribution.fitness is not None
    order = attribution.weights[:, 0].argsort(descending=True, stable=True).tolist()
    reason = attribution.reasons[0] if attribution.reasons else None
    return FitnessView(
        method,
        attribution.criterion,
        tuple(reference(attribution, r) for r in order[:_CARDS]),
        len(order),
        reason,
    )


def reference(attribution: Attribution, r: int) -> Reference:
    """One baseline of example 0."""
    assert attribution.fitness is not None
    fitness, weight = float(attribution.fitness[r, 0]), float(attribution.weights[r, 0])
    shares = None if attribution.shares is None else flat_map(attribution.shares[r, 0])
    limit = 0.0 if shares is None else limit_of([shares])
    picture = (
        None
        if attribution.baselines is None
        else decoded(attribution, 0, attribution.baselines[r, 0])
    )
    return Reference(
        name_of(attribution, r),
        "" if picture is None else data_uri(picture, 180, sharp=True),
        None if shares is None else data_uri(signed_rgb(shares, limit)),
        number(limit),
        f"{fitness + 0.0:,.0f}" if fitness.is_integer() else number(fitness),
        weight,
        f"{weight:.3f}" if weight > 0 else "dropped",
        number(float(attribution.change[r, 0])),
    )


def name_of(attribution: Attribution, r: int) -> str:
    """The name of the r-th reference."""
    return attribution.names[r] if r < len(attribution.names) else f"reference {r + 1}"


# --- film -------------------------------------------------------------------------------------------------------------


def film_of(method: str, attribution: Attribution) -> Film | None:
    """The recorded paths of example 0, where a distance was noted on the way."""
    if attribution.frames is None or "distance" not in attribution.notes:
        return None
    references = attribution.frames.points.shape[1]
    shown = range(min(references, _STRIPS))
    photograph = display_image(attribution, 0)
    pictures = {
        r: [decoded(attribution, 0, p) for p in attribution.frames.points[:, r, 0]] for r in shown
    }
    factor = _amplification([picture - photograph for r in shown for picture in pictures[r]])
    clock = [float(t) for t in attribution.frames.clock]
    strips = []
    for r in shown:
        frames = tuple(
            _frame(t, p, photograph, factor) for t, p in zip(clock, pictures[r], strict=True)
        )
        strips.append(_strip(attribution, r, clock, frames))
    return Film(method, factor, tuple(strips), references)


def _amplification(differences: Sequence[Numbers]) -> int:
    """The largest round factor under which all but the strongest differences stay within mid-grey ±
    a half."""
    size = limit_of(differences, 99.5)
    return max([f for f in _FACTORS if f * size <= 0.5], default=1) if size else 1


def _frame(clock: float, picture: Numbers, photograph: Numbers, factor: int) -> Frame:
    difference = 0.5 + factor * (picture - photograph)
    return Frame(
        f"{clock:.3g}", data_uri(picture, _FRAME), data_uri(difference, _FRAME, sharp=True)
    )


def _strip(
    attribution: Attribution, r: int, clock: Sequence[float], frames: tuple[Frame, ...]
) -> Strip:
    distance = attribution.notes["distance"][:, r, 0].double().cpu().numpy()
    moments = np.linspace(0, 1, len(distance))
    top = float(distance.max()) or 1.0

    def place(t: float, d: float) -> tuple[str, str]:
        column = (0.5 + t * (len(clock) - 1)) / len(clock)
        return f"{1000 * column:.1f}", f"{96 - 88 * d / top:.1f}"

    points = [place(t, d) for t, d in zip(moments.tolist(), distance.tolist(), strict=True)]
    dots = tuple(place(t, float(np.interp(t, moments, distance))) for t in clock)
    return Strip(
        name_of(attribution, r),
        number(float(attribution.change[r, 0])),
        frames,
        " ".join(",".join(p) for p in points),
        dots,
        number(float(distance[0])),
        number(float(distance[-1])),
    )
