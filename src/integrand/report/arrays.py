"""Attributions to arrays: the photograph, the map of one number per pixel, the scale. Knows images,
tokens and columns apart.

A map is the signed sum over channels, because contributions add up: so do cells of several pixels,
which show what a region does when single pixels are too many to read. Nothing is smoothed and
nothing is rescaled.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.files import whole
from ..core.optional import optional
from ..core.shapes import describe
from ..errors import InputError, ShapeError
from ..integration.attribution import Attribution, feature_counts
from .colours import Numbers, Pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def parts(attribution: Attribution) -> list[tuple[str, Attribution]]:
    """The inputs of an attribution one by one, each with its name; a single tensor has none."""
    values = attribution.values
    if isinstance(values, Tensor):
        return [("", attribution)]
    keys = list(values) if isinstance(values, dict) else list(range(len(values)))
    return [(str(key), _only(attribution, key)) for key in keys]


def _only(attribution: Attribution, key: object) -> Attribution:
    values, inputs = attribution.values[key], attribution.inputs[key]
    table = None if attribution.table is None else attribution.table[key]
    covariance = attribution.covariance
    if covariance is not None:
        keys = [
            *(
                attribution.values
                if isinstance(attribution.values, dict)
                else range(len(attribution.values))
            )
        ]
        counts = feature_counts(attribution.values)
        begin = sum(counts[: keys.index(key)])
        part = slice(begin, begin + counts[keys.index(key)])
        covariance = covariance[:, part, part]
    return replace(
        attribution,
        values=values,
        inputs=inputs,
        covariance=covariance,
        shares=None,
        baselines=None,
        frames=None,
        table=table,
    )


def is_image(attribution: Attribution) -> bool:
    """Whether examples are (C, H, W)."""
    return isinstance(attribution.values, Tensor) and attribution.values.ndim == 4


def display_image(attribution: Attribution, i: int) -> Numbers:
    """Example i as a person sees it → (H, W, 3) in [0, 1]."""
    return decoded(attribution, i, attribution.inputs[i])


def decoded(attribution: Attribution, i: int, z: Tensor) -> Numbers:
    """Any image (C, H, W) in the space of example i → (H, W, 3) in [0, 1].

    Without a normalisation the example's own range stands for black to white, for its baselines
    too.
    """
    if attribution.normalisation is not None:
        colour = attribution.normalisation.decode(z.detach().double())
    else:
        original = attribution.inputs[i].detach().double()
        low, span = original.min(), original.max() - original.min()
        colour = (
            ((z.detach().double() - low) / span).clamp(0, 1)
            if float(span)
            else torch.full_like(original, 0.5)
        )
    if len(colour) != 3:
        colour = colour.mean(0, keepdim=True).expand(3, -1, -1)
    return _array(colour.permute(1, 2, 0))


def pixel_map(
    attribution: Attribution, i: int, *, channels: str | int = "sum", cell: int = 1
) -> Numbers:
    """The map of example i: the signed sum over channels (or one channel) at every pixel → (H,
    W)."""
    return flat_map(attribution.values[i], channels=channels, cell=cell)


def flat_map(values: Tensor, *, channels: str | int = "sum", cell: int = 1) -> Numbers:
    """Values (C, H, W) → (H, W). With ``cell`` every pixel shows the sum over the square of that
    side it lies in."""
    if values.ndim != 3:
        raise ShapeError(
            f"A map of pixels needs values (C, H, W) for an example, not {describe(values.shape)}."
        )
    values = values.detach().double()
    if channels == "sum":
        return cells(_array(values.sum(0)), cell)
    if isinstance(channels, int) and -len(values) <= channels < len(values):
        return cells(_array(values[channels]), cell)
    raise InputError(
        f"channels is 'sum' or one of the {len(values)} channels by number, not {channels!r}."
    )


def cells(values: Numbers, side: int) -> Numbers:
    """A map (H, W), summed over squares of ``side`` pixels; those at the edge may be smaller."""
    if side < 1:
        raise InputError(f"cell is a number of pixels, at least 1, not {side}.")
    if side == 1:
        return values
    height, width = values.shape
    sums = np.add.reduceat(
        np.add.reduceat(values, range(0, height, side), 0), range(0, width, side), 1
    )
    return sums.repeat(side, 0)[:height].repeat(side, 1)[:, :width]


def limit_of(maps: Iterable[Numbers], percentile: float = 99.0) -> float:
    """The end of a symmetric scale: the percentile of all magnitudes; their maximum where that is
    zero; 0 for maps of zeros."""
    if not 0 < percentile <= 100:
        raise InputError(f"percentile lies between 0 and 100, not {percentile}.")
    sizes = np.concatenate([np.abs(values).ravel() for values in maps])
    sizes = sizes[np.isfinite(sizes)]
    if not sizes.size:
        return 0.0
    return float(np.percentile(sizes, percentile)) or float(sizes.max())


def token_sums(values: Tensor) -> Numbers:
    """Values (T, D) → the signed sum of every token (T,)."""
    return _array(values.detach().double().sum(-1))


def column_values(values: Tensor) -> Numbers:
    """Values (N,) or a single number → (N,)."""
    return _array(values.detach().double().reshape(-1))


def data_uri(picture: Pixels | Numbers, side: int | None = None, *, sharp: bool = False) -> str:
    """A picture (H, W, 3) as a PNG inside an address; larger ones are reduced to ``side`` pixels.

    Reducing averages, which makes noise look fainter than it is: ``sharp`` leaves out pixels
    instead.

    Raises:
        MissingExtra: without pillow.
    """
    image = as_image(picture)
    if side is not None and max(image.size) > side:
        filters = optional("PIL.Image", extra="report", needs="A picture").Resampling
        image.thumbnail((side, side), resample=filters.NEAREST if sharp else filters.LANCZOS)
    file = io.BytesIO()
    _smallest(image).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def as_image(picture: Pixels | Numbers) -> Any:
    """Bytes, or colours in [0, 1], (H, W, 3) → a pillow image."""
    pil = optional("PIL.Image", extra="report", needs="A picture")
    if picture.dtype != np.uint8:
        picture = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return pil.fromarray(np.ascontiguousarray(picture))


def _smallest(image: Any) -> Any:
    """The same picture with a palette if it has at most 256 colours, as maps do: a third of the
    size."""
    rgb = np.asarray(image.convert("RGB")).astype(np.int64)
    colours, index = np.unique(rgb @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True)
    if len(colours) > 256:
        return image
    small = optional("PIL.Image", extra="report", needs="A picture").fromarray(
        index.reshape(rgb.shape[:2]).astype(np.uint8)
    )
    small.putpalette(
        np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1).astype(np.uint8).tobytes()
    )
    return small


def write_figure(figure: Figure, path: str | Path, **options: Any) -> None:
    """Write a matplotlib figure, whole or not at all; a PNG where the name has no ending.

    Raises:
        OSError: where the file cannot be written.
    """
    file = Path(path)
    with whole(file if file.suffix else file.with_name(file.name + ".png")) as partial:
        figure.savefig(partial, **options)


def _array(t: Tensor) -> Numbers:
    return np.asarray(t.cpu().numpy(), dtype=np.float64)
