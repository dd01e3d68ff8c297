"""The first page of many pictures: thumbnails, flags, and a link to the page of each.

Thumbnails are files beside the page, so that ten thousand pictures still make one that opens. A
script inside it (a plain ES module, nothing is fetched) sorts and filters what is there; without it
everything is shown in the order it was explained in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ..core.files import whole
from ..core.optional import optional
from ..integration.attribution import Attribution
from .arrays import as_image, limit_of, pixel_map
from .colours import Numbers, Pixels, overlay_rgb
from .html import SMALL, environment
from .views import spread

_SIDE = 240
"""Pixels along the longer side of a thumbnail: twice what most are shown in."""
_QUALITY = 82

FLAGS = ("failed", "incomplete", "not converged")
"""What may be wrong with a picture, the worst first."""


@dataclass(frozen=True)
class MapEntry:
    """One map of a picture: texts, and the address of its thumbnail where there is one.

    ``name`` is that of its method, ``title`` what the method is called.
    """

    name: str
    title: str
    thumbnail: str
    gap: str
    error: str
    gradients: str
    incomplete: bool = False
    unsettled: bool = False


@dataclass(frozen=True)
class PictureEntry:
    """One picture.

    Attributes:
        name: what it is called;  ``stem``: what its files are.
        href: of its page; empty where it has none.
        thumbnail: address of the photograph; empty where it could not be read.
        label, probability: the class that is explained.
        instead: the likeliest class with its probability, where that is another one.
        problems: what could not be had, and why.
        flags: of ``FLAGS``.
        keys: numbers that it is sorted by.
    """

    name: str
    stem: str
    href: str = ""
    thumbnail: str = ""
    label: str = ""
    probability: str = ""
    instead: str = ""
    maps: tuple[MapEntry, ...] = ()
    problems: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    keys: Mapping[str, float] = field(default_factory=dict)

    @property
    def sorting(self) -> dict[str, str]:
        """The keys as the script reads them: nothing where there is no number."""
        return {name: _number(value) for name, value in self.keys.items()}


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.9g}" if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def overview(
    entries: Sequence[PictureEntry],
    *,
    title: str,
    facts: Sequence[str] = (),
    files: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> str:
    """The page of all pictures.

    Args:
        facts: what there is in numbers, a few words each.
        files: names of tables beside the page.
        settings: what was computed how, by name.

    Raises:
        MissingExtra: without jinja2.
    """
    counts = {flag: sum(flag in entry.flags for entry in entries) for flag in FLAGS}
    text: str = (
        environment()
        .get_template("overview.html.j2")
        .render(
            title=title,
            entries=entries,
            facts=facts,
            files=files,
            settings=settings or {},
            flags={flag: count for flag, count in counts.items() if count},
            several=sum(len(entry.maps) for entry in entries) > len(entries),
        )
    )
    return text


def address(name: str) -> str:
    """A file's name as a link to it, from its own folder."""
    return quote(name)


# --- thumbnails -------------------------------------------------------------------------------------------------------


def thumbnail_ending(photograph: Numbers) -> str:
    """What a thumbnail's name ends in: small pictures are kept pixel by pixel."""
    return ".png" if min(photograph.shape[:2]) < SMALL else ".jpg"


def write_thumbnail(picture: Pixels | Numbers, path: Path) -> None:
    """Write a picture (H, W, 3), reduced to a thumbnail.

    Raises:
        OSError: where the disk refuses.
        MissingExtra: without pillow.
    """
    image = as_image(picture).convert("RGB")
    filters = optional("PIL.Image", extra="report", needs="A picture").Resampling
    image.thumbnail((_SIDE, _SIDE), resample=filters.LANCZOS)
    path.parent.mkdir(exist_ok=True)
    with whole(path) as partial:
        image.save(partial, quality=_QUALITY)


def map_thumbnail(attribution: Attribution, photograph: Numbers) -> Pixels:
    """The map of one image over its photograph."""
    values = spread(pixel_map(attribution, 0), photograph)
    return overlay_rgb(photograph, values, limit_of([values]))
