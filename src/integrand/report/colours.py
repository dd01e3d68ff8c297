"""Numbers to colours: the only place that knows what a map looks like.

    signed   m ≥ 0 orange, m < 0 blue, 0 paper-white; the two sides mirror each other in lightness
             and chroma, so neither shouts
    heat     |m| from pale to dark, lightness falling evenly
    overlay  the photograph in washed grey, orange and blue laid over it with an opacity that is
             proportional to |m|

Ramps are straight in OKLCh (Ottosson 2020), where equal steps look equal; orange against blue
survives every common colour blindness. What exceeds ``limit`` is drawn at full strength; what is
not finite is drawn magenta, never as a zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float64]

_ORANGE, _BLUE = 42.0, 255.0  # hues, in degrees of OKLCh
_STEPS = (
    127  # per side: with the zero between them a signed map has 255 colours, and fits a palette
)
_MISSING = np.array([255, 0, 255], dtype=np.uint8)
_LUMA = np.array([0.299, 0.587, 0.114])
_OPAQUE = 0.94  # a trace of the photograph stays visible under the strongest pixel
_WASH = (
    0.42,
    0.56,
)  # grey = floor + span · luma: light enough that both hues stand out on black and on white


def signed_rgb(values: ArrayLike, limit: float) -> Pixels:
    """A signed map (H, W) on the diverging scale from −limit to limit → (H, W, 3)."""
    unit = _unit(values, limit)
    return _painted(_SIGNED[np.rint(unit * _STEPS).astype(int) + _STEPS], values)


def heat_rgb(values: ArrayLike, limit: float) -> Pixels:
    """The magnitude of a map (H, W) on the sequential scale from 0 to limit → (H, W, 3)."""
    unit = np.abs(_unit(values, limit))
    return _painted(_HEAT[np.rint(unit * (len(_HEAT) - 1)).astype(int)], values)


def overlay_rgb(image: ArrayLike, values: ArrayLike, limit: float) -> Pixels:
    """A photograph (H, W, 3) in [0, 1] in grey, with a signed map (H, W) over it → (H, W, 3)."""
    unit = _unit(values, limit)[..., None]
    floor, span = _WASH
    grey = floor + span * np.clip(np.asarray(image, dtype=np.float64) @ _LUMA, 0, 1)[..., None]
    alpha = _OPAQUE * np.abs(unit)
    ink = np.where(unit > 0, _INK[0], _INK[1])
    return _painted(_bytes(grey * (1 - alpha) + ink * alpha), values)


INKS = ((23, 25, 27), (255, 255, 255), (0, 0, 0))
READABLE = 4.5
"""The least contrast of text (WCAG 2.2, level AA); black or white reaches it on every colour."""


def ink_on(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour of letters on a background: that of the page where it can be read, else white, else
    black."""
    return next(ink for ink in INKS if contrast(ink, background) >= READABLE)


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The contrast ratio of two colours, from 1 to 21 (WCAG 2.2)."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: tuple[int, int, int]) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ramp(kind: str, stops: int = 33) -> tuple[Pixels, list[str]]:
    """The colours of a scale from its low to its high end, (stops, 3), also as CSS colours."""
    high = np.linspace(0 if kind == "heat" else -1, 1, stops)[None]
    if kind == "overlay":
        colours = overlay_rgb(np.full((*high.shape, 3), 0.5), high, 1.0)[0]
    else:
        colours = (heat_rgb if kind == "heat" else signed_rgb)(high, 1.0)[0]
    return colours, [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours.tolist()]


def _unit(values: ArrayLike, limit: float) -> Numbers:
    """Values in units of the limit, cut to [−1, 1]; zero where there is no scale or no number."""
    finite = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0)
    return np.clip(finite / limit, -1, 1) if limit > 0 else np.zeros_like(finite)


def _painted(colours: Pixels, values: ArrayLike) -> Pixels:
    return np.where(np.isfinite(np.asarray(values))[..., None], colours, _MISSING)


def _bytes(colours: Numbers) -> Pixels:
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def _oklch(lightness: Numbers | float, chroma: Numbers | float, hue: Numbers | float) -> Numbers:
    """OKLCh → sRGB in [0, 1], cut to the gamut."""
    angle = np.deg2rad(hue)
    a, b = chroma * np.cos(angle), chroma * np.sin(angle)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    linear = np.clip(np.stack([red, green, blue], -1), 0, 1)
    encoded: Numbers = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return encoded


def _side(hue: float) -> Numbers:
    """From next to zero to full strength."""
    t = np.arange(1, _STEPS + 1) / _STEPS
    return _oklch(0.975 - 0.445 * t, 0.15 * t**0.75, np.full_like(t, hue))


def _signed() -> Pixels:
    zero = _oklch(np.array([0.975]), np.array([0.0]), np.array([0.0]))
    return _bytes(np.concatenate([_side(_BLUE)[::-1], zero, _side(_ORANGE)]))


def _heat() -> Pixels:
    t = np.linspace(0, 1, 256)
    return _bytes(_oklch(0.98 - 0.74 * t, 0.015 + 0.15 * np.sin(np.pi * t**0.9), 95 - 125 * t))


_SIGNED, _HEAT = _signed(), _heat()
_INK = _oklch(np.array([0.64, 0.64]), np.array([0.19, 0.19]), np.array([_ORANGE, _BLUE]))
