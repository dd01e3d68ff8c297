"""Reading of image files into tensors of colours.

    "photo.jpg", "sample:chelsea" ── read ──▶ RGB picture ── prepare ──▶ colours (3, size, size) in
    [0, 1]

One door in (``read``) turns every format Pillow knows into upright RGB: EXIF orientation applied,
transparent over white, 16-bit and greyscale scaled to eight bits. Whatever goes wrong in there is
an ``ImageError`` that names the file and the reason, so callers can skip one picture and go on with
the next. What a model makes of colours is the model's business (``ImageModel``).

``sample:NAME`` is a photograph that lies inside the scikit-image package; nothing is ever
downloaded.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.optional import optional
from ..errors import ImageError, InputError, MissingExtra, UnknownName

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLE = "sample:"
"""What the name of a photograph inside scikit-image begins with."""

_SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
_SAMPLE_SUFFIXES = frozenset([".gif", ".jpeg", ".jpg", ".png"])
_ALPHA = frozenset(["LA", "La", "PA", "RGBA", "RGBa"])
_WHITES = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}
"""What white may be in modes that do not say; the smallest that holds the picture's numbers is
taken."""


# --- names ------------------------------------------------------------------------------------------------------------


def samples() -> dict[str, Path]:
    """The photographs shipped inside scikit-image, by name.

    Raises:
        MissingExtra: without scikit-image.
    """
    spec = find_spec(
        "skimage"
    )  # looked for, not imported: its import takes a second, and the files are all we need
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("scikit-image", "demo", "A sample photograph")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return {
        file.stem: file
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in _SAMPLE_SUFFIXES
    }


def find(source: str | Path) -> Path:
    """The file that a source names; it need not exist.

    Raises:
        UnknownName: for a sample that is not shipped.
    """
    text = str(source)
    if not text.startswith(SAMPLE):
        return Path(source)
    shipped, name = samples(), text.removeprefix(SAMPLE)
    if name not in shipped:
        raise UnknownName("sample photograph", name, shipped)
    return shipped[name]


def title(source: str | Path) -> str:
    """What to call a picture: its file's name without the ending."""
    return str(source).removeprefix(SAMPLE) if str(source).startswith(SAMPLE) else Path(source).stem


def titles(sources: Sequence[str]) -> dict[str, str]:
    """What to call each of several pictures: its title, or where others share that, as much of its
    path as tells them apart.

    >>> titles(["cats/x.png", "dogs/x.png", "dogs/y.png"])
    {'cats/x.png': 'cats/x.png', 'dogs/x.png': 'dogs/x.png', 'dogs/y.png': 'y'}
    """
    names = {source: title(source) for source in sources}
    for depth in count(1):
        often = Counter(names.values())
        alike = [source for source, name in names.items() if often[name] > 1]
        if not alike:
            return names
        for source in alike:
            parts = Path(source).parts
            names[source] = source if depth >= len(parts) else "/".join(parts[-depth:])
    raise AssertionError  # sources differ, so that their whole paths do


def pictures(source: str | Path) -> list[str]:
    """A source as a list of single pictures: a folder is its pictures, sorted by name; anything
    else is itself.

    Subfolders and hidden files are passed over.

    Raises:
        UnknownName: for a sample that is not shipped.
        ImageError: for a folder without pictures.
    """
    path = find(source)
    if not _is_folder(path):
        return [str(source)]
    try:
        inside = sorted(str(file) for file in path.iterdir() if _is_picture(file))
    except OSError as error:
        raise ImageError(
            f"The folder {str(source)!r} cannot be read: {_reason(path, error)}."
        ) from error
    if not inside:
        raise ImageError(
            f"The folder {str(source)!r} holds no pictures (its subfolders are not searched)."
        )
    return inside


def _is_folder(path: Path) -> bool:
    """Whether a path names a folder; one that no system takes (too long) names none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()


# --- reading ----------------------------------------------------------------------------------------------------------


def read(source: str | Path | bytes, *, max_pixels: int | None = None) -> Image:
    """The picture in a file, upright and in RGB.

    Transparent pictures are laid over white; of an animation the first frame counts.

    Args:
        source: a file, a photograph such as "sample:chelsea", or the bytes of a file.
        max_pixels: larger pictures are refused by what their head says, before they are decoded;
            what Pillow takes for a bomb unless given.

    Raises:
        ImageError: naming the file and the reason (missing, empty, truncated, too large …).
        UnknownName: for a sample that is not shipped.

    Example:
        >>> from integrand.images import read
        >>> read("sample:chelsea").size
        (451, 300)
    """
    opened: Path | BytesIO
    if isinstance(source, bytes):
        opened, name = BytesIO(source), f"A picture of {len(source)} bytes"
    else:
        opened, name = find(source), repr(str(source))
    image = _pillow("Image")
    try:
        # Pillow warns of large pictures and of odd metadata; neither keeps a picture from being
        # explained.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _up_to(max_pixels, image), image.open(opened) as file:
                if max_pixels is not None and file.width * file.height > max_pixels:
                    raise ValueError(
                        f"it has {file.width} x {file.height} pixels, and no more than {max_pixels} are read"
                    )
                return _rgb(_pillow("ImageOps").exif_transpose(file))
    except (
        Exception
    ) as error:  # the decoders stumble over damaged files with every kind of exception there is
        raise ImageError(
            f"{name} cannot be read as a picture: {_reason(opened, error)}."
        ) from error


@contextmanager
def _up_to(max_pixels: int | None, image: Any) -> Iterator[None]:
    """While this lasts, Pillow's own limit for the whole process does not stand before a larger
    one."""
    before = image.MAX_IMAGE_PIXELS
    if max_pixels is not None:
        image.MAX_IMAGE_PIXELS = max(max_pixels, before or max_pixels)
    try:
        yield
    finally:
        image.MAX_IMAGE_PIXELS = before


def _reason(opened: Path | BytesIO, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "reading it is not permitted"
    if isinstance(opened, Path) and _is_folder(opened):
        return "it is a folder"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror
    if isinstance(opened, BytesIO):
        empty = not opened.getbuffer().nbytes
    else:
        empty = opened.is_file() and not opened.stat().st_size
    if empty:
        return "the file is empty"
    if type(error).__name__ == "UnidentifiedImageError":
        return "its content is in no picture format that Pillow knows"
    return str(error).rstrip(".") or type(error).__name__


def _rgb(picture: Image) -> Image:
    """Any mode → RGB."""
    if not all(picture.size):
        raise ValueError(f"it measures {picture.width} x {picture.height} pixels")
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bits(picture)
    if picture.mode in _ALPHA or "transparency" in picture.info:
        above = picture.convert("RGBA")
        white: Image = _pillow("Image").new("RGBA", above.size, "white")
        white.alpha_composite(above)
        return white.convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image) -> Image:
    """16-bit, integer and float greyscale → 8-bit; Pillow's own conversion clips instead of
    scaling."""
    numbers = np.asarray(picture).astype(np.float64)
    lowest, highest = float(numbers.min()), float(numbers.max())
    white = next(
        (scale for scale in _WHITES.get(picture.mode, (65535.0,)) if highest <= scale), None
    )
    if white is None or not lowest >= 0:
        raise ValueError(
            f"its numbers go from {lowest:g} to {highest:g}, which is no usual scale of brightness"
        )
    greyscale: Image = _pillow("Image").fromarray(
        (numbers * (255 / white)).round().astype(np.uint8)
    )
    return greyscale


def _pillow(part: str) -> Any:
    """A part of Pillow, imported when the first picture is read."""
    return optional(f"PIL.{part}", extra="cli", needs="Reading pictures")


# --- tensors ----------------------------------------------------------------------------------------------------------


def prepare(picture: Image, size: int, *, crop: float = 1.0) -> Tensor:
    """A picture as a square of colours (3, size, size) in [0, 1], float32.

    The middle of the picture is kept: a square whose side is ``crop`` times the short side, resized
    (bicubic, antialiased). This is the usual "resize the short side, then crop the centre" in one
    step, so a narrow strip is not blown up first.

    Raises:
        InputError: for a size or crop that makes no picture.

    Example:
        >>> from integrand.images import prepare, read
        >>> prepare(read("sample:coffee"), 224, crop=0.875).shape
        torch.Size([3, 224, 224])
    """
    if size < 1 or not 0 < crop <= 1:
        raise InputError(
            f"A picture is at least one pixel wide and crop is in (0, 1]; got size={size}, crop={crop}."
        )
    half = crop * min(picture.size) / 2
    x, y = (length / 2 for length in picture.size)
    bicubic = _pillow("Image").Resampling.BICUBIC
    square = picture.convert("RGB").resize(
        (size, size), bicubic, box=(x - half, y - half, x + half, y + half)
    )
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
